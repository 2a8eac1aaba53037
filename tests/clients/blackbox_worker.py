"""A worker of the black box with confluent-kafka (librdkafka): plays dice over what it does, and writes what
it did and was told as a history of JSON lines, one file for each process number.

    blackbox_worker.py SETTINGS         see `Slot` in blackbox.py, which also talks to its stdin:

    {"topics": {NAME: PARTITIONS}, "active": [NAME]}    what there is to read, and where to write
    {"final": {KEY: OFFSET}}                            read everything from the beginning, as far as this, and end

BlackboxWorker.java and franz/main.go are its likes. A worker whose operation ended in doubt goes on with
new clients under the next process number, as another program would that took its place."""

import contextlib
import hashlib
import json
import logging
import os
import queue
import random
import re
import sys
import threading
import time

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from callbacks import served, watched

CALL = 15  # seconds that a call may take
DELIVERY = 12  # seconds that a record is tried for
FINAL = 200  # seconds that the last reading may take
POLL_MAX = 100  # records of one poll
NUMBERS = 1_000_000_000  # values of one process
ABORTS = 0.1  # of transactions
CARELESS = 0.1  # of processes send without idempotence
BIG = 0.03  # of records are too big for the log and go to the store

# What says that a thing was not done. All else may have happened.
REFUSALS = {
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    KafkaError.PRODUCER_FENCED,
    KafkaError._FENCED,
    KafkaError.INVALID_TXN_STATE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.INVALID_RECORD,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._PURGE_QUEUE,  # it was never sent
}


class Doubt(Exception):
    """Nobody knows whether the operation has happened."""


class Refused(Exception):
    """The operation has not happened."""


class History:
    """What one process does. Each line is there as soon as it is written, whatever comes next."""

    def __init__(self, directory, process, **header):
        self.process = process
        self.ops = 0
        self.file = os.open(f"{directory}/process-{process}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.fact("header", **header)

    def invoke(self, f, **about):
        self.ops += 1
        self.write("invoke", f, self.ops, **about)
        return self.ops

    def fact(self, f, **about):
        self.write("ok", f, **about)

    def note(self, **note):
        self.fact("note", note=note)

    def write(self, stage, f, op=None, **about):
        number = {} if op is None else {"op": op}
        line = {"time_us": time.monotonic_ns() // 1000, "process": self.process, **number, "stage": stage, "f": f}
        os.write(self.file, json.dumps(line | about, separators=(",", ":")).encode() + b"\n")

    def close(self):
        os.close(self.file)


class Record:
    """A value as it travels: the number, where it was sent, by whom, some more bytes, and a digest of all."""

    @staticmethod
    def encode(value, key, filler):
        text = f"{value} {key} {value // NUMBERS} {filler}"
        return f"{text} {digest(text)}".encode()

    @staticmethod
    def decode(data, key):
        """The number, or None if these bytes do not belong here."""
        text, _, found = data.decode(errors="replace").rpartition(" ")
        words = text.split(" ")
        fits = len(words) == 4 and found == digest(text) and words[1] == key
        return int(words[0]) if fits and int(words[0]) // NUMBERS == int(words[2]) else None


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def key_of(place):
    return f"{place.topic}/{place.partition}"


def place_of(key, offset=-1001):
    topic, _, partition = key.rpartition("/")
    return TopicPartition(topic, int(partition), offset)


class Worker:
    def __init__(self, settings):
        self.settings = settings
        self.dice = random.Random(settings["seed"])
        self.orders = queue.Queue()
        self.topics, self.active = {}, []
        self.final = None
        self.process = settings["process"] - 1
        self.consumer = None
        self.left = []  # never destroyed: librdkafka may abort() when it ends the threads of one that failed
        self.ends = {}  # {key: behind the last record that was read of it}, of all processes of this program
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in sys.stdin:
            self.orders.put(json.loads(line))
        os._exit(0)  # nobody is there any more

    def hear(self, wait=False):
        while wait or not self.orders.empty():
            order = self.orders.get()
            wait = False
            self.topics = order.get("topics", self.topics)
            self.active = order.get("active", self.active)
            self.final = order.get("final", self.final)

    def work(self):
        self.hear(wait=True)
        self.begin()
        while True:
            self.hear()
            if self.final is not None:
                break
            name = self.choose()
            try:
                getattr(self, name)()
            except Doubt:
                self.begin()
            time.sleep(self.dice.uniform(0, 2 * self.settings["pace"]))
        self.finish()

    def choose(self):
        if self.dice.random() < 1 / 64:
            return self.dice.choice(["assign", "subscribe"])
        names, weights = zip(*self.settings["mix"].items())
        return self.dice.choices(names, weights)[0]

    # clients -------------------------------------------------------------------------------------------------

    def begin(self):
        """Becomes the next process, with new clients."""
        if self.consumer:
            self.history.close()
            self.left += [self.producer, self.transactor]
            self.give_up_consumer()
        self.process += 1
        self.counter = 0
        self.positions = {}  # {key: the next to be read}, of the consumer
        self.along = []  # commits of the transaction
        self.generation, self.group, self.owned = -1, None, set()
        is_idempotent = self.dice.random() >= CARELESS
        header = {
            "client": "librdkafka",
            "isolation": "read_committed",
            "idempotent": is_idempotent,
            "transactional": True,
            "tv": 1,
        }
        self.history = History(self.settings["history"], self.process, **header, transaction_timeout_ms=DELIVERY * 1000)
        common = {
            "bootstrap.servers": self.settings["bootstrap"],
            "socket.timeout.ms": 6000,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 5000,
            "log_level": 2,
        }
        writing = common | {"linger.ms": 2, "message.timeout.ms": DELIVERY * 1000}
        self.producer = Producer(writing | {"enable.idempotence": is_idempotent})
        # Only as long as records: otherwise librdkafka refuses.
        self.transactor = Producer(
            writing | {"transactional.id": self.settings["transactional_id"], "transaction.timeout.ms": DELIVERY * 1000}
        )
        self.transactor_is_ready = False
        self.consumer_settings = common | {
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
            "debug": "cgrp",  # the only way to learn the generation
        }
        self.admin = AdminClient(common)
        self.consumer = None
        self.assign()

    def open_consumer(self, group, **settings):
        self.give_up_consumer()
        log = logging.getLogger(f"{self.process} {group} {time.monotonic()}")
        log.setLevel(logging.DEBUG)
        log.propagate = False
        log.addFilter(self.hear_generation)
        self.generation = -1
        self.group = group
        self.consumer = Consumer(self.consumer_settings | {"group.id": group} | settings, logger=log)

    def hear_generation(self, line):
        said = line.getMessage()
        if found := re.search(r"GenerationId (-?\d+)|ConsumerGroupHeartbeat response .* epoch (-?\d+)", said):
            self.generation = int(found[1] or found[2])
        return False

    def give_up_consumer(self):
        """Closes it where nobody waits for it: it may take long to leave a group that does not answer."""
        if self.consumer:
            closing, self.consumer = self.consumer, None
            threading.Thread(target=closing.close, daemon=True).start()

    # writing -------------------------------------------------------------------------------------------------

    def new_sends(self, count):
        """`count` mops as they are before anything is known of them."""
        mops = []
        for _ in range(count):
            topic = self.dice.choice(self.active)
            self.counter += 1
            key = f"{topic}/{self.dice.randrange(self.topics[topic])}"
            mops.append(["send", key, self.process * NUMBERS + self.counter])
        return mops

    def produce(self, producer, mop, results):
        _, key, value = mop
        place = place_of(key)
        size = 10_000 if self.dice.random() < BIG else self.dice.randrange(1, 200)
        filler = "".join(self.dice.choices("abcdefgh", k=size))

        def on_delivery(error, message):
            results[value] = (error, None if error else message.offset())

        served(
            lambda: producer.produce(
                place.topic,
                Record.encode(value, key, filler),
                str(value),
                partition=place.partition,
                on_delivery=on_delivery,
            )
        )

    @staticmethod
    def completed(mop, results):
        _, key, value = mop
        error, offset = results.get(value, (None, None))
        return ["send", key, [None if error else offset, value]]

    def send(self):
        mops = self.new_sends(self.dice.randint(1, 4))
        op = self.history.invoke("send", mops=mops)
        results, raised = {}, None
        try:
            for mop in mops:
                self.produce(self.producer, mop, results)
            served(lambda: self.producer.flush(DELIVERY + CALL))
        except (KafkaException, BufferError) as error:
            raised = error.args[0]
        done = [self.completed(mop, results) for mop in mops]
        errors = [error for error, _ in results.values() if error] + ([raised] if raised else [])
        if len(results) == len(mops) and not errors:
            self.history.write("ok", "send", op, mops=done)
        elif len(results) == len(mops) == len(errors) and all(is_refusal(error) for error in errors):
            self.history.write("fail", "send", op, mops=mops, error=str(errors[0]))
            if self.is_fatal(self.producer):
                raise Doubt
        else:
            # What is known of the others goes with it.
            self.history.write("info", "send", op, mops=done, error=str(errors[:1]))
            raise Doubt

    @staticmethod
    def is_fatal(producer):
        return getattr(producer, "fatal_error", lambda: None)() is not None

    # reading -------------------------------------------------------------------------------------------------

    def read(self, seconds):
        """What one poll gives: {key: [[offset, value]]}."""
        found, deadline = {}, time.monotonic() + seconds
        for _ in range(POLL_MAX):
            message = self.consumer.poll(max(deadline - time.monotonic(), 0) if not found else 0)
            if message is None:
                break
            if error := message.error():
                self.history.note(poll=str(error))
                continue
            self.take(message, found)
        return found

    def take(self, message, found):
        key, offset = f"{message.topic()}/{message.partition()}", message.offset()
        self.positions[key] = offset + 1
        self.ends[key] = max(self.ends.get(key, 0), offset + 1)
        value = Record.decode(message.value() or b"", key)
        if value is None:
            self.history.fact("misplaced", key=key, offset=offset, note=repr(message.value())[:200])
        else:
            found.setdefault(key, []).append([offset, value])

    def poll(self):
        op = self.history.invoke("poll", mops=[["poll"]], isolation="read_committed")
        found = self.read(0.3)
        self.history.write("ok", "poll", op, mops=[["poll", found]])

    def assign(self):
        """Some keys, from where this program was in them, from the beginning, or from the end of what it knows. A
        third of the time only such that it has not read all of, or nothing yet."""
        keys = [f"{topic}/{n}" for topic, count in self.topics.items() for n in range(count)]
        recent = [key for key in keys if key.rpartition("/")[0] in self.active]
        chosen = self.dice.sample(keys, min(len(keys), self.dice.randint(1, 4)))
        if self.dice.random() < 1 / 3:
            unseen = [key for key in keys if key not in self.ends]
            chosen = unseen[:3] + self.dice.sample(recent, min(len(recent), 2))
        chosen = sorted(set(chosen))
        self.open_consumer(f"{self.settings['group']}-alone-{self.process}")
        self.owned = set(chosen)
        self.reassign(chosen)

    def reassign(self, keys):
        at = self.dice.choice(["beginning", "known", "known"])
        self.positions = {key: self.ends.get(key, 0) if at == "known" else 0 for key in keys}
        op = self.history.invoke("assign", keys=keys, offsets=self.positions)
        self.consumer.assign([place_of(key, self.positions[key]) for key in keys])
        self.history.write("ok", "assign", op)

    def subscribe(self):
        """Some topics, as a member of the group of the protocol."""
        self.protocol, topics = self.where_to_read()
        own = {"group.protocol": self.protocol}
        if self.protocol == "classic":
            own |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 1000}
        self.open_consumer(f"{self.settings['group']}-{self.protocol}", **own)
        self.positions, self.owned = {}, set()
        op = self.history.invoke("subscribe", topics=topics, group=self.group)
        consumer = self.consumer
        consumer.subscribe(
            topics,
            on_assign=lambda by, gained: self.moved(by, {key_of(it) for it in gained}, set()),
            on_revoke=lambda by, gone: self.moved(by, set(), {key_of(it) for it in gone}),
            on_lost=lambda by, gone: self.moved(by, set(), {key_of(it) for it in gone}),
        )
        self.history.write("ok", "subscribe", op)

    def where_to_read(self):
        """The protocol, and all active topics."""
        return self.dice.choice(["classic", "consumer"]), list(self.active)

    def moved(self, consumer, gained, gone):
        if consumer is not self.consumer:
            return  # it is being closed
        self.owned = (self.owned | gained) - gone
        for key in gained | gone:
            self.positions.pop(key, None)
        self.history.fact("rebalance", keys=sorted(gained | gone))
        if gained and self.generation >= 0:
            self.history.fact("assigned", keys=sorted(self.owned), **self.membership())

    def membership(self):
        if not self.is_subscribed():
            return {"group": self.group}
        return {
            "group": self.group,
            "generation": self.generation,
            "member": self.consumer.memberid() or "",
            "protocol": self.protocol,
        }

    def is_subscribed(self):
        return "-alone-" not in self.group

    def seek(self):
        """Goes back or forth in one key."""
        if not self.positions:
            return
        key = self.dice.choice(sorted(self.positions))
        self.seek_to(key, self.dice.randint(0, self.ends.get(key, 0)))

    def seek_to(self, key, offset):
        op = self.history.invoke("seek", key=key, offset=offset)
        try:
            self.consumer.seek(place_of(key, offset))
        except KafkaException as raised:
            # It has not begun to read it, or it is not its own any more.
            self.history.write("info", "seek", op, error=str(raised.args[0]))
            return False
        self.positions[key] = offset
        self.history.write("ok", "seek", op)
        return True

    # transactions --------------------------------------------------------------------------------------------

    def txn(self):
        self.init()
        plan = [self.dice.choice(["send", "send", "poll"]) for _ in range(self.dice.randint(0, 4))]
        sends = iter(self.new_sends(plan.count("send")))
        mops = [next(sends) if it == "send" else ["poll"] for it in plan]
        aborts = self.dice.random() < ABORTS
        op = self.history.invoke("txn", mops=mops, tv=1, isolation="read_committed")
        before, done, results = dict(self.positions), [], {}
        complete = lambda: [self.completed(it, results) if it[0] == "send" else it for it in done]  # noqa: E731
        try:
            self.transactor.begin_transaction()
            for mop in mops:
                if mop[0] == "send":
                    self.produce(self.transactor, mop, results)
                    done.append(mop)
                else:
                    done.append(["poll", self.read(0.3)])
            self.take_along(before)
            if aborts:
                self.insist(lambda: self.transactor.abort_transaction(CALL))
            else:
                self.insist(lambda: self.transactor.commit_transaction(CALL))
        except (KafkaException, BufferError) as raised:
            self.give_up(raised.args[0], op, before)
            return
        self.end_along("fail" if aborts else "ok")
        if aborts:
            self.history.write("fail", "txn", op, mops=complete(), committed=False, aborted=True)
            self.rewind(before)
        else:
            self.history.write("ok", "txn", op, mops=complete(), committed=True)

    def init(self):
        if self.transactor_is_ready:
            return
        try:
            self.insist(lambda: self.transactor.init_transactions(CALL))
        except KafkaException as raised:
            self.history.note(init=str(raised.args[0]))
            raise Doubt from None
        self.transactor_is_ready = True

    def take_along(self, before):
        """Commits with the transaction what it has read, if it reads as a member of a group. For the history these
        are commits of their own: they may happen although the worker does not live to tell of the transaction."""
        self.along = []
        moved = {key: end for key, end in self.positions.items() if before.get(key) != end}
        if not moved or not self.is_subscribed():
            return
        about, group = self.membership(), self.consumer.consumer_group_metadata()
        for key, end in moved.items():
            self.along.append(self.history.invoke("commit", key=key, offset=end, **about))
        places = [place_of(key, end) for key, end in moved.items()]
        self.insist(lambda: self.send_offsets(places, group))

    def end_along(self, stage):
        for op in self.along:
            self.history.write(stage, "commit", op)
        self.along = []

    def give_up(self, error, op, before):
        """Ends a transaction that can't be committed."""
        if isinstance(error, KafkaError) and error.txn_requires_abort():
            with contextlib.suppress(KafkaException):
                self.insist(lambda: self.transactor.abort_transaction(CALL))
                self.end_along("fail")
                self.history.write("fail", "txn", op, committed=False, error=str(error))
                self.rewind(before)
                return
        self.end_along("info")
        self.history.write("info", "txn", op, error=str(error))
        raise Doubt

    def send_offsets(self, places, group):
        with watched():
            self.transactor.send_offsets_to_transaction(places, group, CALL)

    def insist(self, call):
        """Makes a call, again as long as the library says so and there is time."""
        deadline = time.monotonic() + 2 * CALL
        while True:
            try:
                return served(call)
            except KafkaException as raised:
                if not raised.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def rewind(self, before):
        """What an aborted transaction has read is to be read again."""
        for key, end in list(self.positions.items()):
            if end != before.get(key):
                self.seek_to(key, before.get(key, 0))

    # questions -----------------------------------------------------------------------------------------------

    def list_offsets(self):
        topic = self.dice.choice(list(self.topics))
        key = f"{topic}/{self.dice.randrange(self.topics[topic])}"
        op = self.history.invoke("list_offsets", key=key, isolation="read_uncommitted")
        asked = self.admin.list_offsets(
            {place_of(key): OffsetSpec.latest()},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=CALL,
        )
        try:
            end = next(iter(asked.values())).result(CALL).offset
        except Exception as raised:  # noqa: BLE001: a question that is not answered did nothing
            self.history.write("fail", "list_offsets", op, error=str(raised))
            return
        if end < 0:  # so the library says that the connection went away
            self.history.write("fail", "list_offsets", op, error=f"the library says {end}")
            return
        self.history.write("ok", "list_offsets", op, end=end)

    def commit(self):
        """Commits where it is in one key."""
        if not self.positions:
            return
        key = self.dice.choice(sorted(self.positions))
        about = {"key": key, "offset": self.positions[key], **self.membership()}
        op = self.history.invoke("commit", **about)
        try:
            done = self.consumer.commit(offsets=[place_of(key, self.positions[key])], asynchronous=False)
            if done[0].error:
                raise KafkaException(done[0].error)
        except KafkaException as raised:
            error = raised.args[0]
            refused = error.code() in {
                KafkaError.ILLEGAL_GENERATION,
                KafkaError.UNKNOWN_MEMBER_ID,
                KafkaError.REBALANCE_IN_PROGRESS,
                KafkaError.FENCED_MEMBER_EPOCH,
                KafkaError.STALE_MEMBER_EPOCH,
                KafkaError._NO_OFFSET,
            }
            self.history.write("fail" if refused else "info", "commit", op, error=str(error))
            if not refused:
                raise Doubt from None
            return
        self.history.write("ok", "commit", op)

    def committed(self):
        if not self.owned:
            return
        key = self.dice.choice(sorted(self.owned))
        about = {"key": key, **self.membership()}
        op = self.history.invoke("committed", **about)
        try:
            (found,) = self.consumer.committed([place_of(key)], timeout=CALL)
            if found.error:
                raise KafkaException(found.error)
        except KafkaException as raised:
            self.history.write("fail", "committed", op, error=str(raised.args[0]))
            return
        self.history.write("ok", "committed", op, offset=max(found.offset, -1))

    # the end -------------------------------------------------------------------------------------------------

    def finish(self):
        """Reads everything from the beginning with a new consumer."""
        self.begin()
        keys = sorted(f"{topic}/{n}" for topic, count in self.topics.items() for n in range(count))
        wanted = {key: end for key, end in self.final.items() if end >= 0}
        self.open_consumer(f"{self.settings['group']}-alone-{self.process}-final")
        self.history.fact("final", note=wanted)
        self.positions, self.owned = dict.fromkeys(keys, 0), set(keys)
        op = self.history.invoke("assign", keys=keys, offsets=self.positions)
        self.consumer.assign([place_of(key, 0) for key in keys])
        self.history.write("ok", "assign", op)
        deadline = time.monotonic() + FINAL
        while missing := {key: end for key, end in wanted.items() if self.positions[key] <= end}:
            if time.monotonic() > deadline:
                self.history.note(missing=missing)
                return
            self.poll()
        self.poll()
        self.history.note(complete=True)


class Pipeline(Worker):
    """A worker that copies a topic, as a member of a group: each record once, whatever happens."""

    def choose(self):
        return "copy"

    def begin(self):
        super().begin()
        self.subscribe()

    def assign(self):
        """It reads for its group only."""

    def where_to_read(self):
        return "classic", [self.settings["source"]]

    def moved(self, consumer, gained, gone):
        super().moved(consumer, gained, gone)
        self.has_moved = True

    def copy(self):
        """One transaction of what one poll gives. What it reads is known before it begins: who is killed in the middle
        has said what it meant to do."""
        self.init()
        op = self.history.invoke("poll", mops=[["poll"]], isolation="read_committed")
        self.has_moved = False
        found = self.read(0.3)
        self.history.write("ok", "poll", op, mops=[["poll", found]])
        if self.has_moved:
            # Some may be from before. The group's generation would be taken for theirs.
            self.rewind()
            return
        if not found:
            return
        mops, copies = [], []
        for key, records in found.items():
            partition = key.rpartition("/")[2]
            for _, value in records:
                self.counter += 1
                copies.append([value, self.process * NUMBERS + self.counter])
                mops.append(["send", f"{self.settings['sink']}/{partition}", copies[-1][1]])
        offsets = {key: self.positions[key] for key in found}
        about = {"mops": mops, "copies": copies, "offsets": offsets, "tv": 1, "isolation": "read_committed"}
        op, results = self.history.invoke("txn", **about, **self.membership()), {}
        aborts = self.dice.random() < ABORTS
        try:
            self.transactor.begin_transaction()
            for mop in mops:
                self.produce(self.transactor, mop, results)
            group, places = self.consumer.consumer_group_metadata(), [place_of(*end) for end in offsets.items()]
            self.insist(lambda: self.send_offsets(places, group))
            self.insist(self.transactor.abort_transaction if aborts else self.transactor.commit_transaction)
        except (KafkaException, BufferError) as raised:
            self.give_up(raised.args[0], op, {})
            return
        if aborts:
            self.history.write("fail", "txn", op, committed=False, aborted=True)
            self.rewind()
        else:
            done = [self.completed(mop, results) for mop in mops]
            self.history.write("ok", "txn", op, mops=done, committed=True)

    def rewind(self, _=None):
        """Goes back to where the group is, or joins it anew."""
        try:
            places = self.consumer.committed(self.consumer.assignment(), timeout=CALL)
        except KafkaException as raised:
            self.history.note(rewind=str(raised.args[0]))
            places = [None]
        if not all(it and not it.error and self.seek_to(key_of(it), max(it.offset, 0)) for it in places):
            self.subscribe()


def is_refusal(error):
    return isinstance(error, BufferError) or (isinstance(error, KafkaError) and error.code() in REFUSALS)


if __name__ == "__main__":
    chosen = json.loads(sys.argv[1])
    (Pipeline if chosen["kind"] == "pipeline" else Worker)(chosen).work()
    os._exit(0)  # see `left`
