"""PipelineMember.java's like with confluent-kafka, whose transactions are of the first protocol (v1): the
same settings, as one argument in JSON, and the same words on stdin and stdout. CHAOS_DEBUG=eos shows more."""

import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from callbacks import served, watched

DEBUG = os.environ.get("CHAOS_DEBUG")  # contexts of librdkafka's own log
PATIENCE = 60  # calls that are to be made again before this is an error
BATCH = 20
CALL = 20  # seconds that a call may take
FENCING = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}  # by an abort

leaving = threading.Event()


class Replaced(Exception):
    """Another producer of this transactional id has been started."""


def tell(event, **about):
    print(json.dumps({"event": event, **about}), flush=True)


def listen():
    sys.stdin.readline()
    leaving.set()


class PipelineMember:
    def __init__(self, settings):
        self.settings = settings
        self.dice = random.Random(settings["seed"])
        self.partitions = settings["partitions"]
        self.consumer = self.producer = None
        self.fenced = []  # never destroyed: librdkafka may abort() when it ends the threads of one that failed
        self.has_moved = False  # partitions came or went since the last batch
        self.attempt, self.began = 0, 0.0

    def work(self):
        try:
            while not leaving.is_set():
                if not self.producer:
                    self.open_producer()
                if not self.consumer:
                    self.open_consumer()
                self.step()
        except Replaced:
            tell("replaced")
        if self.consumer:
            self.consumer.close()
        tell("closed")

    # one transaction ---------------------------------------------------------------------------------------

    def step(self):
        batch = self.read()
        if not batch:
            return
        self.attempt += 1
        self.began = time.monotonic()
        fails = self.dice.random() < self.settings["aborts"]
        try:
            self.producer.begin_transaction()
            self.write(batch, fails)
            if fails:
                self.end("abort", lambda: self.producer.abort_transaction(CALL))
            else:
                self.end("commit", lambda: self.producer.commit_transaction(CALL))
        except KafkaException as raised:
            self.tell_end(self.give_up(raised.args[0]), batch)
            self.rewind()
            return
        self.tell_end("aborted" if fails else "committed", batch)
        if fails:
            self.rewind()

    def read(self):
        batch = self.consumer.consume(BATCH, timeout=0.2)
        for error in [message.error() for message in batch if message.error()]:
            self.trouble("poll", error)
            batch = []
            self.has_moved = True
        if self.has_moved:
            # Some may be from before. The group's generation would be taken for theirs.
            self.has_moved = False
            self.rewind()
            return []
        return batch

    def write(self, batch, fails):
        fate = "abort" if fails else "commit"
        plain, spread = self.settings["outputs"]
        for index, message in enumerate(batch):
            number = message.value().decode()
            value = f"{number} {self.settings['writer']} {self.attempt} {index} {len(batch)} {fate}"
            self.producer.produce(plain, value, partition=message.partition())
            self.producer.produce(spread, value, partition=int(number) // self.partitions % self.partitions)
        # Which of these have reached the broker when it is aborted is left to chance.
        if fails and self.dice.random() < 0.5:
            served(lambda: self.producer.flush(10))
        if not fails or self.dice.random() < 0.5:
            offsets = [TopicPartition(self.settings["input"], *end) for end in self.ends(batch).items()]
            group = self.consumer.consumer_group_metadata()
            self.end("offsets", lambda: self.send_offsets(offsets, group))

    def send_offsets(self, offsets, group):
        with watched():
            self.producer.send_offsets_to_transaction(offsets, group, CALL)

    @staticmethod
    def ends(batch):
        return {message.partition(): message.offset() + 1 for message in batch}

    def end(self, what, call):
        """Makes a call, again if the library says so."""
        for times in range(1, PATIENCE + 1):
            try:
                return served(call)
            except KafkaException as raised:
                self.trouble(what, raised.args[0])
                if not raised.args[0].retriable() or times == PATIENCE:
                    raise

    def give_up(self, error):
        """Ends a transaction that can't be committed, and returns what has become of it."""
        self.trouble("transaction", error)
        if error.txn_requires_abort():
            try:
                self.end("abort", lambda: self.producer.abort_transaction(CALL))
                return "aborted"
            except KafkaException as raised:
                self.trouble("abort", raised.args[0])
                error = raised.args[0]
        # Within the timeout nobody but a successor can have fenced it.
        if error.code() in FENCING and time.monotonic() - self.began < self.settings["timeout"] / 1000:
            raise Replaced
        if leaving.is_set():
            raise Replaced
        self.fenced.append(self.producer)
        self.open_producer()
        return "unknown"

    def rewind(self):
        """Goes back to where the group is."""
        for _ in range(PATIENCE):
            try:
                for position in self.consumer.committed(self.consumer.assignment(), timeout=10):
                    if position.error:
                        raise KafkaException(position.error)
                    position.offset = max(position.offset, 0)
                    self.consumer.seek(position)
                return
            except KafkaException as raised:
                # _STATE: it has not begun to fetch.
                if raised.args[0].code() != KafkaError._STATE:
                    self.trouble("rewind", raised.args[0])
                time.sleep(0.1)
        self.consumer.close()
        self.consumer = None

    # the clients -------------------------------------------------------------------------------------------

    def open_consumer(self):
        own = {
            "group.id": self.settings["group"],
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
        self.consumer = Consumer(self.chosen("consumer") | own)
        self.consumer.subscribe([self.settings["input"]], on_assign=self.on_move, on_revoke=self.on_move)

    def on_move(self, *_):
        self.has_moved = True

    def open_producer(self):
        own = {
            "transaction.timeout.ms": self.settings["timeout"],
            "on_delivery": self.on_delivery,
        }
        self.producer = Producer(self.chosen("producer") | own)
        self.end("init", lambda: self.producer.init_transactions(CALL))
        tell("opened")

    def on_delivery(self, error, _):
        if error and error.code() not in PURGED:
            self.trouble("delivery", error)

    def chosen(self, client):
        log = {"debug": DEBUG, "log_level": 7} if DEBUG else {"log_level": 2}
        return {"bootstrap.servers": self.settings["bootstrap"], **log, **self.settings[client]}

    # what it tells -----------------------------------------------------------------------------------------

    def tell_end(self, outcome, batch):
        offsets = {"offsets": self.ends(batch)} if outcome == "committed" else {}
        tell(outcome, attempt=self.attempt, **offsets)

    def trouble(self, when, error):
        tell("trouble", when=when, attempt=self.attempt, name=error.name(), errors=[str(error)])


faulthandler.register(signal.SIGUSR1)  # to stderr, which is the log
threading.Thread(target=listen, daemon=True).start()
PipelineMember(json.loads(sys.argv[1])).work()
os._exit(0)  # see `fenced`
