"""Topics in which data ends, those who write to them, and what has to be there at any time: nothing that was
acknowledged goes before it is due, nothing comes back, and what is due goes.

Each `Life` is a topic with its writer; `look` reads the topic through and compares. All of them go on over
brokers that die and stores that fail: a call that did not get through is made again, and a record of which nobody
knows may be there or not."""

import functools
import os
import random
import time
from collections import defaultdict

from cloud import until
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from test_cluster import RETRIABLE, Worker

PARTITIONS = 2
RETENTION = 30_000  # ms
GRACE = 60_000  # ms that deleted topics are kept
BURST = 10  # records at once
PAUSE = 0.2  # seconds between bursts
SIZE = 120  # bytes of a value, about
KEYS = 40
ABORTED = 0.2  # of all transactions
PATIENCE = 240  # seconds that a call is made again
SOON = {"request_timeout": 15}  # seconds, then an admin's call has failed


def is_passing(error):
    """Whether it may go away: what brokers say that do not know, and what the client says on its own."""
    return error.code() in RETRIABLE or (error.code() < 0 and error.code() != KafkaError._FATAL)


def now():
    """As a record's timestamp."""
    return int(time.time() * 1000)


def insist(call, *settled):
    """Calls until it succeeds. Errors in `settled` say that an earlier call did."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except KafkaException as error:
            code = error.args[0].code()
            if code in settled:
                return None
            if not is_passing(error.args[0]) or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


class Reader:
    """Reads topics through, one at a time."""

    def __init__(self, bootstrap, isolation="read_uncommitted"):
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "reconnect.backoff.max.ms": 500,
            "log_level": 2,
        }
        self.consumer = Consumer(settings)

    def read(self, topic, partition=0):
        """The log start offset and `{offset: message}` of all that could be read from there on. What expires
        meanwhile is read again without it."""
        place = TopicPartition(topic, partition)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            watermarks = functools.partial(self.consumer.get_watermark_offsets, place, timeout=10)
            low, high = insist(watermarks)
            self.consumer.assign([TopicPartition(topic, partition, low)])
            found = self.through(high)
            self.consumer.unassign()
            if found is not None:
                return low, found
        raise AssertionError(f"{topic}-{partition} could not be read in {PATIENCE} s")

    def through(self, high):
        """`{offset: message}` of all below `high` and perhaps some above. Who writes without a pause leaves no end
        to be told of."""
        found = {}
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for message in self.consumer.consume(500, timeout=1):
                error = message.error()
                if error is None:
                    found[message.offset()] = message
                    if message.offset() >= high - 1:
                        return found
                elif error.code() == KafkaError._PARTITION_EOF:
                    if message.offset() >= high:
                        return found
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                    return None  # what was to be read next is no longer there
                else:
                    assert is_passing(error), error
        return None

    def close(self):
        self.consumer.close()


class Life(Worker):
    """A topic, and an idempotent producer of numbered records."""

    configs = {}
    isolation = "read_uncommitted"

    def __init__(self, name, bootstrap, seed):
        super().__init__(name)
        self.bootstrap = bootstrap
        self.random = random.Random(f"{name} {seed}")
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        self.create(name, PARTITIONS, self.configs)
        self.count = self.acknowledged = self.looks = 0
        self.lows = [0] * PARTITIONS
        self.reader = Reader(bootstrap, self.isolation)
        self.producer = None

    def create(self, topic, partitions, configs):
        asked = lambda: self.admin.create_topics([NewTopic(topic, partitions, -1, config=configs)], **SOON)  # noqa: E731
        insist(lambda: asked()[topic].result(), KafkaError.TOPIC_ALREADY_EXISTS)

    def new_producer(self, **settings):
        return Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
                "error_cb": self.on_error,
                **settings,
            }
        )

    def work(self):
        self.producer = self.producer or self.new_producer()
        for _ in range(BURST):
            number, self.count = self.count, self.count + 1
            key, value, at = *self.record(number), now()
            told = functools.partial(self.on_delivery, number, key, value, at)
            facts = {"on_delivery": told, "timestamp": at, "headers": {"number": str(number)}}
            self.producer.produce(self.name, value, key, self.partition(number), **facts)
        self.producer.poll(PAUSE)
        while len(self.producer) > 20 * BURST and not self.done.is_set():
            self.producer.poll(0.1)

    def partition(self, number):
        return number % PARTITIONS

    def record(self, number):
        """Its key and its value."""
        return None, b"%s %d " % (self.name.encode(), number) + os.urandom(SIZE)

    def on_delivery(self, number, key, value, at, error, message):
        if error:
            self.problems.append(f"record {number}: {error}")
        else:
            self.acknowledged += 1
            self.remember(number, key, value, at, message)

    def remember(self, number, key, value, at, message):
        raise NotImplementedError

    def look(self):
        """Reads all partitions and checks what is in them."""
        self.check()
        for partition in range(PARTITIONS):
            known = self.known(partition)
            low, found = self.reader.read(self.name, partition)
            assert low >= self.lows[partition], f"{self.name}: the log start moved back from {self.lows[partition]}"
            self.lows[partition] = low
            self.compare(partition, known, found)
        self.looks += 1

    def known(self, partition):
        raise NotImplementedError

    def compare(self, partition, known, found):
        raise NotImplementedError

    def stop(self):
        """Ends the writing; everything has to be acknowledged."""
        self.finish()
        left = self.producer.flush(PATIENCE)
        assert left == 0, f"{left} records of {self.name} were not answered"
        self.check()

    def sizes(self):
        """Records that can be read, by partition."""
        return [len(self.reader.read(self.name, partition)[1]) for partition in range(PARTITIONS)]

    def rest(self):
        """Waits until nothing is left that is due."""

    def until_sizes(self, fit):
        until(lambda: fit(self.sizes()), lambda: f"what is due of {self.name} goes: {self.sizes()}", 2 * PATIENCE)


class Expiring(Life):
    """Records go when they are due and not before."""

    configs = {"retention.ms": str(RETENTION)}

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.told = [{} for _ in range(PARTITIONS)]  # {offset: (value, when it was written)}

    def remember(self, number, key, value, at, message):
        # None if the reply got lost and the client knows only by the success of a later batch.
        if message.offset() is not None:
            self.told[message.partition()][message.offset()] = (value, at)

    def known(self, partition):
        return dict(self.told[partition])

    def is_due(self, partition, offset, at):
        return at + RETENTION <= now()

    def compare(self, partition, known, found):
        offsets = sorted(found)
        dense = list(range(offsets[0], offsets[-1] + 1)) if offsets else []
        assert offsets == dense, f"{self.name}-{partition} has holes: {sorted(set(dense) - set(offsets))[:5]}"
        for offset, (value, at) in known.items():
            if offset in found:
                assert found[offset].value() == value, f"{self.name}-{partition}@{offset} is another record"
            else:
                due = self.is_due(partition, offset, at)
                assert due, f"{self.name}-{partition}@{offset} is lost after {now() - at} ms, of {RETENTION} ms"
                self.told[partition].pop(offset, None)

    def rest(self):
        self.until_sizes(lambda sizes: not any(sizes))


class Cut(Expiring):
    """Records go by DeleteRecords and not otherwise."""

    configs = {}
    kept = 300  # records, about

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked, self.granted = [0] * PARTITIONS, [0] * PARTITIONS

    def work(self):
        super().work()
        partition = self.random.randrange(PARTITIONS)
        below = max(self.told[partition], default=0) - self.kept
        if self.random.random() < 0.1 and below > self.granted[partition]:
            self.asked[partition] = max(below, self.asked[partition])
            place = TopicPartition(self.name, partition, below)
            try:
                cut = self.admin.delete_records([place], **SOON)[place].result().low_watermark
            except KafkaException as error:
                assert is_passing(error.args[0]), error
            else:
                assert cut >= below
                self.granted[partition] = max(below, self.granted[partition])

    def known(self, partition):
        return {-1: (self.granted[partition], None), **super().known(partition)}

    def compare(self, partition, known, found):
        granted, _ = known.pop(-1)
        assert all(offset >= granted for offset in found), f"{self.name}-{partition}: deleted below {granted}"
        super().compare(partition, known, found)

    def is_due(self, partition, offset, at):
        return offset < self.asked[partition]

    def rest(self):
        pass


class Compacted(Life):
    """The last record of each key stays; what was said of it before goes, and tombstones go in the end."""

    configs = {"cleanup.policy": "compact", "delete.retention.ms": "5000", "min.cleanable.dirty.ratio": "0.01"}

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.told = [{} for _ in range(PARTITIONS)]  # {key: (number, whether there is a value)}
        self.dead = {}  # {key: the number of the last tombstone that was sent}

    def partition(self, number):
        return self.key(number) % PARTITIONS

    def key(self, number):
        return random.Random(number).randrange(KEYS)

    def record(self, number):
        key = b"%d" % self.key(number)
        if self.random.random() < 0.2:
            self.dead[key] = number
            return key, None
        return key, super().record(number)[1]

    def remember(self, number, key, value, at, message):
        self.told[message.partition()][key] = (number, value is not None)

    def known(self, partition):
        return dict(self.told[partition])

    def compare(self, partition, known, found):
        last = {}
        for offset in sorted(found):
            message = found[offset]
            number = int(dict(message.headers())["number"])
            before = last.get(message.key(), -1)
            assert number > before, f"{self.name}-{partition}@{offset}: {number} of {message.key()} after {before}"
            last[message.key()] = number
        for key, (number, has_value) in known.items():
            there = last.get(key)
            # A tombstone that came while this was read may have gone, too: reading can take long.
            may_be_gone = not has_value or self.dead.get(key, -1) > number
            is_right = there >= number if there is not None else may_be_gone
            assert is_right, f"{self.name}-{partition}: {number} of {key} was acknowledged, {there} is there"

    def rest(self):
        """A partition to which nothing is written is not compacted again, so its last tombstones stay."""
        left = [sum(has_value for _, has_value in told.values()) for told in self.told]

        def is_done():
            for partition in range(PARTITIONS):
                facts = {"key": b"rest", "partition": partition, "headers": {"number": str(self.count)}}
                self.producer.produce(self.name, b"written at rest", **facts)
                self.count += 1
            assert self.producer.flush(PATIENCE) == 0
            found = [self.reader.read(self.name, partition)[1].values() for partition in range(PARTITIONS)]
            sizes.append([(len(all_of_it), sum(it.value() is None for it in all_of_it)) for all_of_it in found])
            # Besides what is left of the keys what is written here, the last of which no pass has seen.
            return all(size <= most + 3 and not dead for (size, dead), most in zip(sizes[-1], left))

        sizes = []
        until(is_done, lambda: f"of {self.name} {left} records and no tombstones are left: {sizes[-3:]}", 2 * PATIENCE)


class Dealing(Life):
    """Transactions of a record in each partition: all of it is there, or nothing, until it is due."""

    configs = {"retention.ms": str(RETENTION)}
    isolation = "read_committed"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.fates = {}  # {number: (whether it was committed or None, when it was written)}
        self.decided = 0  # whatever became of them, it is done with transactions below

    def work(self):
        if self.producer is None:
            self.producer = self.new_producer(**{"transactional.id": self.name, "transaction.timeout.ms": 20_000})
            # What the producer before it has left behind is decided when this has succeeded.
            insist(lambda: self.producer.init_transactions(20))
            self.decided = self.count
        number, self.count, at = self.count, self.count + 1, now()
        commits = self.random.random() >= ABORTED
        self.fates[number] = (None, at)
        try:
            self.producer.begin_transaction()
            for partition in range(PARTITIONS):
                self.producer.produce(self.name, b"%d" % number, partition=partition, timestamp=at)
            if commits:
                self.producer.commit_transaction(20)
            else:
                self.producer.abort_transaction(20)
        except (KafkaException, SystemError):  # the second is what an exception in a callback becomes
            self.producer = None
        else:
            self.fates[number] = (commits, at)
            self.acknowledged += commits
        self.done.wait(PAUSE / 4)

    def on_error(self, error):
        if not error.fatal():
            super().on_error(error)

    def look(self):
        self.check()
        fates, decided = dict(self.fates), self.decided
        seen = defaultdict(set)
        for partition in range(PARTITIONS):
            for message in self.reader.read(self.name, partition)[1].values():
                assert partition not in seen[int(message.value())], f"{message.value()} of {self.name} is there twice"
                seen[int(message.value())].add(partition)
        for number, (committed, at) in fates.items():
            there = len(seen.get(number, ()))
            if committed is False:
                assert not there, f"transaction {number} of {self.name} was aborted"
            elif at + RETENTION > now():
                whole = (PARTITIONS,) if committed else (0, PARTITIONS)
                is_open = committed is None and number >= decided
                assert there in whole or is_open, f"{there} of transaction {number} of {self.name} are there"
            elif not there:
                self.fates.pop(number)
        self.looks += 1

    def stop(self):
        self.finish()
        if self.producer is None:
            self.work()

    def rest(self):
        self.until_sizes(lambda sizes: not any(sizes))


class Branching(Life):
    """Topics that are written, branched, deleted and brought back: whatever becomes of the others, each has what
    it had."""

    def work(self):
        number, self.count = self.count, self.count + 1
        parent, branch, again = (f"{self.name}-{number}-{what}" for what in ("parent", "branch", "again"))
        self.create(parent, 1, {})
        values = self.write(parent, range(20))
        self.create(branch, 1, {"odradek.branch.of": parent})
        self.has(branch, values)
        more = values + self.write(branch, range(20, 30))
        began = time.monotonic()
        self.delete(parent)
        self.has(branch, more)
        if self.is_created(again, {"odradek.branch.of": parent}):
            self.delete(branch)
            self.has(again, values)
            self.delete(again)
        else:
            assert time.monotonic() - began > GRACE / 1000, f"{parent} is not kept after its deletion"
            self.delete(branch)
        self.acknowledged += len(more)
        self.looks += 1
        self.done.wait(1)

    def is_created(self, branch, configs):
        """It is too late for it if brokers were away for long."""
        try:
            self.create(branch, 1, configs)
        except KafkaException as error:
            assert error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART, error
            return False
        return True

    def write(self, topic, numbers):
        # One that remembers a topic asks for it now and then, and so brings it back when it was deleted.
        producer = self.new_producer()
        values = [self.record(number)[1] for number in numbers]
        errors = []
        for value in values:
            producer.produce(topic, value, on_delivery=lambda error, _: error and errors.append(error))
        left = producer.flush(PATIENCE)
        assert not left and not errors, f"{topic}: {left} records were not answered, {errors[:3]}"
        return values

    def has(self, topic, values):
        low, messages = self.reader.read(topic)
        found = [message.value() for message in messages.values()]
        assert found == values, f"{topic} has {len(found)} records of {len(values)}, from {low} on: {sorted(messages)}"

    def delete(self, topic):
        asked = lambda: self.admin.delete_topics([topic], **SOON)  # noqa: E731
        insist(lambda: asked()[topic].result(), KafkaError.UNKNOWN_TOPIC_OR_PART)

    def look(self):
        self.check()

    def stop(self):
        self.done.set()
        self.join(2 * PATIENCE)
        assert not self.is_alive(), f"{self.name} hangs"
        self.check()


LIVES = {"expiring": Expiring, "cut": Cut, "compacted": Compacted, "dealing": Dealing, "branching": Branching}
