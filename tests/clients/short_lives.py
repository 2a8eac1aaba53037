"""Brokers on which everything that ends with time ends soon: they look for what is due all the time, and what
they may delete they delete at once. The fixtures are for suites whose `shared_broker` is one of them."""

import time

import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from tools import Tool
from transaction_broker import start_for_transactions

# How often Odradek looks for records that are due, for objects that nothing refers to and for what is to be
# merged or compacted; that it does not care how much of a topic is due; how long objects are spared that nothing
# refers to, and how long topics that were deleted.
FLAGS = {
    "--retention-check-ms": 500,
    "--retention-at-once": "true",
    "--compaction-interval-ms": 500,
    "--merge-interval-ms": 500,
    "--sweep-interval-ms": 500,
    "--sweep-grace-ms": 1000,
    "--sweep-listing-ms": 1000,
    "--delete-grace-ms": 2000,
}

# The same of Kafka's files. Kafka looks for the first time after half a minute if nobody says otherwise.
PROPERTIES = """
log.initial.task.delay.ms=100
log.retention.check.interval.ms=100
log.segment.delete.delay.ms=0
log.cleaner.backoff.ms=100
"""

TIMEOUT = 60  # seconds; a bound for what hangs, not an expectation


def flags(**changes):
    """`changes` are names of flags, with `_` for `-`, that are to have another value."""
    changed = {**FLAGS, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    return [each for flag, value in changed.items() for each in (flag, str(value))]


def start(start_broker, **changes):
    return start_for_transactions(start_broker, *flags(**changes), properties=PROPERTIES)


def ago(milliseconds):
    """As a record's timestamp."""
    return int(time.time() * 1000) - milliseconds


def numbered(count, word="record"):
    return [f"{word} {n}" for n in range(count)]


def text(data):
    return None if data is None else data.decode()


class Log:
    """What is in topics, and putting something in."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def send(self, topic, values, partition=0, timestamp=None, keys=None, **settings):
        """In one go; returns the offsets."""
        delivered = []
        client = Producer({"bootstrap.servers": self.bootstrap, "message.timeout.ms": 30_000, **settings})
        for n, value in enumerate(values):
            when = {} if timestamp is None else {"timestamp": timestamp}
            key = keys[n] if keys else None
            client.produce(topic, value, key, partition, on_delivery=lambda *it: delivered.append(it), **when)
            client.poll(0)
        assert client.flush(TIMEOUT) == 0
        for error, _ in delivered:
            assert not error, error
        return [message.offset() for _, message in delivered]

    def offset(self, topic, partition, spec, isolation=IsolationLevel.READ_UNCOMMITTED):
        place = TopicPartition(topic, partition)
        return self.admin.list_offsets({place: spec}, isolation_level=isolation)[place].result(TIMEOUT).offset

    def start(self, topic, partition=0):
        return self.offset(topic, partition, OffsetSpec.earliest())

    def end(self, topic, partition=0):
        return self.offset(topic, partition, OffsetSpec.latest())

    def span(self, topic, partition=0):
        return self.start(topic, partition), self.end(topic, partition)

    def messages(self, topic, partitions=(0,), isolation="read_committed"):
        """All that there is, in the order of each partition, as librdkafka has it."""
        levels = {
            "read_committed": IsolationLevel.READ_COMMITTED,
            "read_uncommitted": IsolationLevel.READ_UNCOMMITTED,
        }
        ends = {n: self.offset(topic, n, OffsetSpec.latest(), levels[isolation]) for n in partitions}
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "isolation.level": isolation,
            }
        )
        consumer.assign([TopicPartition(topic, n, 0) for n in partitions])
        found, ended = [], set()
        while len(ended) < len(ends):
            message = consumer.poll(TIMEOUT)
            assert message is not None, f"only {len(found)} messages came, up to {found[-1:] and found[-1].offset()}"
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                if message.offset() >= ends[message.partition()]:
                    ended.add(message.partition())
        consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def read(self, topic, partitions=(0,), **settings):
        """`[(partition, offset, value)]`."""
        found = self.messages(topic, partitions, **settings)
        return [(it.partition(), it.offset(), text(it.value())) for it in found]

    def last(self, topic, partitions=(0,), **settings):
        """What is said last of each key: `{key: value}`, without those of which it is that there is nothing."""
        said = {text(it.key()): text(it.value()) for it in self.messages(topic, partitions, **settings)}
        return {key: value for key, value in said.items() if value is not None}

    def values(self, topic, partition=0, **settings):
        return [value for _, _, value in self.read(topic, [partition], **settings)]

    def delete_records(self, topic, below, partition=0):
        place = TopicPartition(topic, partition, below)
        return self.admin.delete_records([place])[place].result(TIMEOUT).low_watermark

    def configure(self, topic, **configs):
        """Sets configs, or with None deletes them; `_` in a name stands for `.`."""
        changes = [
            ConfigEntry(
                name.replace("_", "."),
                None if value is None else str(value),
                incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
            )
            for name, value in configs.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=changes)
        self.admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])[topic].result(TIMEOUT)


@pytest.fixture
def log(bootstrap):
    return Log(bootstrap)


@pytest.fixture
def tool(tool_host, bootstrap):
    """The one that all suites share knows the broker of the suite that asked for it first."""
    return Tool(tool_host, bootstrap)


def stored(broker):
    """The bytes of all segments that Odradek keeps in its folder."""
    segments = broker.directory / "data/objects/segment"

    def size(path):
        try:
            return path.stat().st_size
        except FileNotFoundError:  # deleted since it was listed
            return 0

    return sum(size(path) for path in segments.rglob("*") if path.is_file())
