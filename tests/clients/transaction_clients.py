"""Transactional producers and readers of two clients behind one face: Kafka's own for Java, which speaks the
second transaction protocol with brokers that finalised it, and confluent-kafka, which knows the first alone.

What a client is refused is raised as `Refused`, with the names that the client has for it."""

import itertools
import json
import subprocess
import threading
from pathlib import Path

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from cloud import until
from servers import java
from transaction_broker import wait_for_end

TIMEOUT = 60  # seconds; a bound for what hangs, not an expectation
KINDS = ("java", "confluent")

names = itertools.count(1)


class Refused(Exception):
    def __init__(self, reasons, message=""):
        super().__init__(f"{reasons}: {message}")
        self.reasons = set(reasons)


class TransactionalProducer:
    """What producers of both kinds can do."""

    def commit(self):
        self.ask_commit()
        wait_for_end(self.bootstrap, self.id)

    def abort(self):
        self.ask_abort()
        wait_for_end(self.bootstrap, self.id)


class Reader:
    """What readers of both kinds can do."""

    def values(self, topic, partitions=(0,)):
        """Of all that there is from the beginning on, in the order of each partition."""
        return [value for _, _, value in sorted(self.read(topic, partitions))]

    def take(self, count):
        """The next values, waited for."""
        taken = []

        def are_there():
            taken.extend(self.poll())
            return len(taken) >= count

        until(are_there, lambda: f"{count} records, not {len(taken)}")
        return [value for _, _, value in taken]


# Java ------------------------------------------------------------------------------------------------------


class ClientHost:
    """The JVM of all Java clients, started when the first is made."""

    def __init__(self, log):
        self.log = log
        self.process = None

    def ask(self, do, who, **fields):
        if self.process is None:
            self.start()
        watch = threading.Timer(2 * TIMEOUT, self.process.kill)
        watch.start()
        try:
            self.process.stdin.write(json.dumps({"do": do, "who": who, **fields}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        finally:
            watch.cancel()
        assert answer, f"the JVM ended, or {2 * TIMEOUT} s were not enough, in `{do}` of {who}; see {self.log}"
        answer = json.loads(answer)
        if "error" in answer:
            raise Refused(answer["error"], answer["message"])
        return answer["told"]

    def start(self):
        source = Path(__file__).with_name("ClientHost.java")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                java(source), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def close(self):
        if self.process:
            self.process.kill()
            self.process.communicate()


class JavaClient:
    def __init__(self, host, kind, settings):
        self.host, self.name = host, f"{kind} {next(names)}"
        self.ask(f"{kind} with", settings={key: str(value) for key, value in settings.items()})

    def ask(self, do, **fields):
        return self.host.ask(do, self.name, **fields)

    def close(self):
        self.ask("close")


class JavaProducer(JavaClient, TransactionalProducer):
    def __init__(self, host, bootstrap, name, settings):
        super().__init__(host, "produce", {"bootstrap.servers": bootstrap, "transactional.id": name, **settings})
        self.bootstrap, self.id = bootstrap, name

    def init(self):
        self.ask("init")
        return self

    def begin(self):
        self.ask("begin")
        return self

    def send(self, topic, values, partition=0):
        """Returns the offsets."""
        return self.ask("send", topic=topic, partition=partition, values=list(values))

    def send_offsets(self, offsets, reader=None, group=None):
        """`offsets` are `{topic: {partition: offset}}`; of what the reader remembered to be, or of a group."""
        of = {"member": reader.name} if reader else {"group": group}
        self.ask("send offsets", offsets=offsets, **of)

    def ask_commit(self):
        self.ask("commit")

    def ask_abort(self):
        self.ask("abort")


class JavaReader(JavaClient, Reader):
    def __init__(self, host, bootstrap, settings):
        super().__init__(host, "consume", {"bootstrap.servers": bootstrap, "enable.auto.commit": "false", **settings})

    def read(self, topic, partitions=(0,)):
        """All that there is from the beginning on: `[(partition, offset, value)]`."""
        return [tuple(each) for each in self.ask("read", topic=topic, partitions=list(partitions))]

    def poll(self):
        return [tuple(each) for each in self.ask("poll", milliseconds=100)]

    def subscribe(self, topic):
        self.ask("subscribe", topic=topic)

    def assignment(self):
        return sorted(self.ask("assignment"))

    def remember(self):
        """Keeps what it is in its group, to be told with offsets."""
        self.ask("remember")

    def ends(self, topic, partitions=(0,)):
        told = self.ask("ends", topic=topic, partitions=list(partitions))
        return {int(partition): end for partition, end in told.items()}

    def committed(self, topic, partition=0):
        """None if there is nothing."""
        return self.ask("committed", topic=topic, partitions=[partition])


# confluent-kafka -------------------------------------------------------------------------------------------


def heard(error):
    """What librdkafka's error says, as an exception."""
    return Refused([error.name(), *(["fatal"] if error.fatal() else [])], error.str())


def refusing(action, *arguments):
    try:
        return action(*arguments)
    except KafkaException as raised:
        raise heard(raised.args[0]) from None
    except SystemError as raised:
        # A fatal error that comes in the middle of a delivery report: Python finds it there, and complains.
        if not isinstance(raised.__cause__, KafkaException):
            raise
        raise heard(raised.__cause__.args[0]) from None


class ConfluentProducer(TransactionalProducer):
    def __init__(self, bootstrap, name, settings):
        self.bootstrap, self.id = bootstrap, name
        self.producer = Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": name, "linger.ms": 5, "log_level": 2, **settings}
        )

    def init(self):
        refusing(self.producer.init_transactions, TIMEOUT)
        return self

    def begin(self):
        refusing(self.producer.begin_transaction)
        return self

    def send(self, topic, values, partition=0):
        results = []
        for value in values:
            refusing(
                lambda value=value: self.producer.produce(
                    topic, value, partition=partition, on_delivery=lambda *result: results.append(result)
                )
            )
        assert refusing(self.producer.flush, TIMEOUT) == 0
        for error, _ in results:
            if error:
                raise heard(error)
        return [message.offset() for _, message in results]

    def send_offsets(self, offsets, reader=None, group=None):
        own = None
        if reader is None:  # what librdkafka tells of a member, it does not let anyone make up
            own = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": group, "log_level": 0})
        metadata = reader.membership if reader else own.consumer_group_metadata()
        places = [TopicPartition(topic, n, offset) for topic, some in offsets.items() for n, offset in some.items()]
        try:
            refusing(self.producer.send_offsets_to_transaction, places, metadata, TIMEOUT)
        finally:
            if own:
                own.close()

    def ask_commit(self):
        refusing(self.producer.commit_transaction, TIMEOUT)

    def ask_abort(self):
        refusing(self.producer.abort_transaction, TIMEOUT)

    def close(self):
        """Drops it as it is."""
        self.producer = None


class ConfluentReader(Reader):
    def __init__(self, bootstrap, settings):
        defaults = {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "log_level": 2}
        settings = {**defaults, "enable.partition.eof": True, **settings}
        self.isolation = settings.get("isolation.level", "read_committed")
        self.timeout = settings.pop("default.api.timeout.ms", TIMEOUT * 1000) / 1000
        self.consumer = Consumer(settings)
        self.admin = AdminClient({"bootstrap.servers": settings["bootstrap.servers"]})
        self.membership = None

    def read(self, topic, partitions=(0,)):
        ends = self.ends(topic, partitions)
        self.consumer.assign([TopicPartition(topic, n, 0) for n in partitions])
        records, ended = [], set()
        while len(ended) < len(ends):
            message = self.consumer.poll(TIMEOUT)
            assert message, f"only {len(records)} records came"
            error = message.error()
            if not error:
                records.append((message.partition(), message.offset(), message.value().decode()))
            elif error.code() != KafkaError._PARTITION_EOF:
                raise heard(error)
            elif message.offset() >= ends[message.partition()]:
                ended.add(message.partition())
        return records

    def poll(self):
        message = self.consumer.poll(0.1)
        if message is None or (message.error() and message.error().code() == KafkaError._PARTITION_EOF):
            return []
        if message.error():
            raise heard(message.error())
        return [(message.partition(), message.offset(), message.value().decode())]

    def subscribe(self, topic):
        self.consumer.subscribe([topic])

    def assignment(self):
        return sorted(each.partition for each in self.consumer.assignment())

    def remember(self):
        self.membership = self.consumer.consumer_group_metadata()

    def ends(self, topic, partitions=(0,)):
        levels = {
            "read_committed": IsolationLevel.READ_COMMITTED,
            "read_uncommitted": IsolationLevel.READ_UNCOMMITTED,
        }
        asked = {TopicPartition(topic, n): OffsetSpec.latest() for n in partitions}
        told = self.admin.list_offsets(asked, isolation_level=levels[self.isolation])
        return {place.partition: future.result(TIMEOUT).offset for place, future in told.items()}

    def committed(self, topic, partition=0):
        (place,) = refusing(self.consumer.committed, [TopicPartition(topic, partition)], self.timeout)
        if place.error:
            raise heard(place.error)
        return place.offset if place.offset >= 0 else None

    def close(self):
        self.consumer.close()
