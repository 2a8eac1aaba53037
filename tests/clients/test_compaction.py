"""Log compaction as clients see it: what stays, where, for how long, and what is not taken.

Kafka never compacts the end of a log that it still writes to; so what is expected of a log is expected of
what lies before a record that `nudge` adds again and again."""

import random
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, OffsetSpec, ResourceType

from conftest import create_topic
from tools import TIMEOUT, alone, eventually

LOG_COMPACTION_TESTER = "org.apache.kafka.tools.LogCompactionTester"
FLAGS = ("--compaction-interval-ms", "300", "--merge-interval-ms", "500", "--merge-bytes", "200000")
PROPERTIES = """
log.initial.task.delay.ms=100
log.cleaner.backoff.ms=100
log.segment.delete.delay.ms=0
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
"""

# Compacted as soon and as often as can be.
EAGER = {"cleanup_policy": "compact", "min_cleanable_dirty_ratio": 0.0, "segment_ms": 50}
NUDGE = b"nudge"


@pytest.fixture(scope="session")
def shared_broker(start_broker):
    return start_broker(*FLAGS, properties=PROPERTIES)


class Record:
    """One as a consumer gets it."""

    def __init__(self, message):
        self.offset = message.offset()
        self.key = message.key()
        self.value = message.value()
        self.rest = message.timestamp(), tuple(message.headers() or ())

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return f"{self.offset}: {self.key!r}={self.value!r}"


class Table:
    """A topic of one partition, written and read."""

    def __init__(self, bootstrap, topic):
        self.settings = {"bootstrap.servers": bootstrap}
        self.topic = topic
        self.nudger = Producer(self.settings)

    def write(self, pairs, producer=None, **settings):
        """Key and value, or None for no value."""
        producer = producer or Producer({**self.settings, "linger.ms": 20, **settings})
        failed = []
        for n, (key, value) in enumerate(pairs):
            producer.produce(
                self.topic,
                key=key,
                value=value,
                partition=0,
                headers=[("n", str(n)), ("none", None)],
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            producer.poll(0)
        assert producer.flush(TIMEOUT) == 0
        assert not failed, failed

    def nudge(self):
        self.nudger.produce(self.topic, key=NUDGE, value=str(time.time()), partition=0)
        assert self.nudger.flush(TIMEOUT) == 0

    def read(self, isolation="read_committed", **settings):
        """All records, up to the end of the log; without those of `nudge`."""
        consumer = Consumer(
            {
                **self.settings,
                "group.id": "unused",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": isolation,
                "check.crcs": True,
                **settings,
            }
        )
        try:
            place = TopicPartition(self.topic, 0, 0)
            _, end = consumer.get_watermark_offsets(place, timeout=TIMEOUT)
            consumer.assign([place])
            records = []
            while True:
                message = consumer.poll(TIMEOUT)
                assert message is not None, f"no end after {records[-3:]}, {end} expected"
                if not message.error():
                    records.append(Record(message))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    assert message.offset() >= end
                    return [record for record in records if record.key != NUDGE]
                else:
                    raise KafkaException(message.error())
        finally:
            consumer.close()

    def after_compaction(self, is_done, **settings):
        """What there is when `is_done` says of it that compaction has been there."""
        deadline = time.monotonic() + TIMEOUT
        while not is_done(records := self.read(**settings)):
            assert time.monotonic() < deadline, records[:50]
            self.nudge()
            time.sleep(0.3)
        return records


def has_each_key_once(records):
    return len({record.key for record in records}) == len(records)


def latest(records):
    return sorted({record.key: record for record in records}.values(), key=lambda record: record.offset)


@pytest.fixture
def table(bootstrap, new_topic):
    return lambda **settings: Table(bootstrap, new_topic(**{**EAGER, **settings}))


def numbered(count, keys, word="value", length=0):
    return [(f"key {n % keys}", f"{word} {n} {'x' * length}") for n in range(count)]


# What stays ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_the_latest_record_of_each_key_stays_where_it_was_with_all_that_is_in_it(table, codec):
    log = table(min_cleanable_dirty_ratio=0.5)
    written = []
    for length in (1, 300, 3000):
        log.write(numbered(100, 7, length=length), **{"compression.type": codec})
    written = log.read()
    log.write([("last", "one")])
    left = log.after_compaction(has_each_key_once)
    assert left[:-1] == [record for record in latest(written) if record.key != b"last"]
    assert left == log.read("read_uncommitted")


def test_what_was_compacted_is_compacted_again(table):
    log = table()
    for turn in range(4):
        log.write(numbered(50, 10, word=f"turn {turn}"))
        left = log.after_compaction(has_each_key_once)
        assert {record.value.decode().split(" x")[0].rsplit(" ", 2)[0] for record in left} == {f"turn {turn}"}
        assert len(left) == 10


def test_a_tombstone_is_there_for_a_while_and_then_it_is_gone(table):
    log = table(delete_retention_ms=4000)
    log.write(numbered(30, 3))
    log.write([("key 1", None)])
    there = log.after_compaction(has_each_key_once)
    assert [record.value is None for record in there if record.key == b"key 1"] == [True]
    gone = log.after_compaction(lambda records: len(records) == 2)
    assert {record.key for record in gone} == {b"key 0", b"key 2"}
    log.write([("key 1", "again")])
    assert log.after_compaction(has_each_key_once)[-1].value == b"again"


def test_tombstones_stay_as_long_as_they_are_said_to(table):
    log = table(delete_retention_ms=3_600_000)
    log.write(numbered(30, 3))
    log.write([(f"key {n}", None) for n in range(3)])
    left = log.after_compaction(has_each_key_once)
    for _ in range(5):
        log.nudge()
        time.sleep(0.2)
    assert [record.value for record in left] == [None] * 3
    assert log.read() == left


def test_the_young_are_spared(table):
    log = table(min_compaction_lag_ms=3_600_000)
    other = table()
    log.write(numbered(30, 3))
    other.write(numbered(30, 3))
    other.after_compaction(has_each_key_once)
    assert len(log.read()) == 30


def test_a_clean_topic_is_compacted_when_records_have_waited_long_enough(table):
    log = table(min_cleanable_dirty_ratio=1.0, max_compaction_lag_ms=1000)
    log.write(numbered(30, 3))
    assert len(log.after_compaction(has_each_key_once)) == 3


def test_nothing_is_compacted_where_nobody_asked_for_it(table, new_topic, bootstrap):
    log = Table(bootstrap, new_topic())
    log.write(numbered(30, 3))
    other = table()
    other.write(numbered(30, 3))
    other.after_compaction(has_each_key_once)
    assert len(log.read()) == 30


def test_positions_and_times_go_on_to_mean_what_they_meant(table, bootstrap):
    log = table()
    log.write(numbered(200, 5), **{"batch.num.messages": 3})
    before = log.read()
    left = log.after_compaction(has_each_key_once)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    place = TopicPartition(log.topic, 0)
    for record in left:
        (_, timestamp), _ = record.rest
        (found,) = admin.list_offsets({place: OffsetSpec.for_timestamp(timestamp)}).values()
        assert found.result(TIMEOUT).offset <= record.offset
    assert admin.list_offsets({place: OffsetSpec.earliest()})[place].result(TIMEOUT).offset == 0
    consumer = Consumer({**log.settings, "group.id": "unused", "auto.offset.reset": "error"})
    for start in (0, before[3].offset, left[0].offset, left[0].offset + 1, left[-1].offset):
        consumer.assign([TopicPartition(log.topic, 0, start)])
        message = consumer.poll(TIMEOUT)
        expected = [record.offset for record in left if record.offset >= start]
        assert message.offset() == expected[0]
    consumer.close()


# Transactions ----------------------------------------------------------------------------------------------


def transact(producer, table, pairs, commits):
    producer.begin_transaction()
    table.write(pairs, producer)
    (producer.commit_transaction if commits else producer.abort_transaction)(TIMEOUT)


@pytest.fixture
def transactor(bootstrap, new_name):
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": new_name(), "linger.ms": 0})
    producer.init_transactions(TIMEOUT)
    return producer


def test_of_transactions_only_what_counts_is_compacted_and_the_rest_is_never_seen(table, transactor):
    log = table(delete_retention_ms=500)
    for turn in range(6):
        transact(transactor, log, [(f"key {n}", f"turn {turn}") for n in range(4)], commits=turn % 2 == 0)
    log.write([("key 0", "outside")])
    left = log.after_compaction(has_each_key_once)
    values = {record.key: record.value for record in left}
    assert values == {b"key 0": b"outside", b"key 1": b"turn 4", b"key 2": b"turn 4", b"key 3": b"turn 4"}
    # And with what was aborted gone, a consumer that would see it doesn't either.
    assert log.after_compaction(has_each_key_once, isolation="read_uncommitted") == left
    for turn in range(4):
        transact(transactor, log, [("key 1", f"late {turn}")], commits=turn != 3)
        log.nudge()
    left = log.after_compaction(has_each_key_once)
    assert {record.key: record.value for record in left}[b"key 1"] == b"late 2"


def test_an_open_transaction_holds_compaction_up(table, transactor):
    log, other = table(), table()
    log.write(numbered(30, 3))
    assert len(log.after_compaction(has_each_key_once)) == 3
    transactor.begin_transaction()
    log.write([("key 0", "undecided")], transactor)
    log.write([("key 0", "later"), ("key 0", "latest")])
    log.nudge()
    other.write(numbered(30, 3))
    other.after_compaction(has_each_key_once)
    assert len(log.read("read_uncommitted")) == 6
    assert len(log.read()) == 3
    transactor.abort_transaction(TIMEOUT)
    left = log.after_compaction(has_each_key_once)
    assert [record.value for record in left if record.key == b"key 0"] == [b"latest"]


# What is not taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_record_without_a_key_is_refused_with_its_batch_and_named(table, codec):
    log = table()
    producer = Producer({**log.settings, "linger.ms": 1000, "compression.type": codec})
    # A partition that the producer doesn't know gets what waited for it record by record, while `flush` sends
    # what is there: the first record would go alone.
    producer.produce(log.topic, key=NUDGE, partition=0)
    assert producer.flush(TIMEOUT) == 0
    told = {}
    for n in range(5):
        key = None if n in (1, 3) else f"key {n}"
        producer.produce(
            log.topic,
            key=key,
            value=f"{n}" * 100,
            partition=0,
            on_delivery=lambda error, message, n=n: told.update({n: error.code() if error else message.offset()}),
        )
    assert producer.flush(TIMEOUT) == 0
    blameless = KafkaError._INVALID_DIFFERENT_RECORD
    blamed = KafkaError.INVALID_RECORD
    assert told == {0: blameless, 1: blamed, 2: blameless, 3: blamed, 4: blameless}
    assert log.read() == []
    log.write([("", "an empty key is one")])
    assert [record.key for record in log.read()] == [b""]


def test_records_without_keys_are_taken_again_when_the_topic_is_not_compacted_any_more(table, admin):
    log = table()
    with pytest.raises(AssertionError):
        log.write([(None, "keyless")])
    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, log.topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)
    eventually(lambda: taken(log), True)
    assert [record.key for record in log.read()] == [None]


def taken(log):
    try:
        log.write([(None, "keyless")])
        return True
    except AssertionError:
        return False


# While it happens ------------------------------------------------------------------------------------------


def test_whoever_reads_all_of_a_topic_while_it_is_written_and_compacted_gets_the_same_table(table, transactor):
    log = table(delete_retention_ms=60_000)
    random.seed(6)
    model, stop, tables = {}, threading.Event(), []

    def read():
        while not stop.is_set():
            offsets = [record.offset for record in log.read()]
            assert offsets == sorted(set(offsets))
            tables.append(len(offsets))

    reader = threading.Thread(target=read)
    reader.start()
    plain = Producer({**log.settings, "linger.ms": 5, "compression.type": "lz4", "enable.idempotence": True})
    for turn in range(60):
        pairs = [(f"key {random.randrange(40)}", random.choice([None, f"{turn} {n}"])) for n in range(50)]
        match random.randrange(3):
            case 0:
                log.write(pairs, plain)
                model.update(pairs)
            case 1:
                transact(transactor, log, pairs, commits=True)
                model.update(pairs)
            case 2:
                transact(transactor, log, pairs, commits=False)
    stop.set()
    reader.join()
    assert tables

    def table_of(records):
        found = {record.key.decode(): record.value and record.value.decode() for record in records}
        return {key: value for key, value in found.items() if value is not None}

    expected = {key: value for key, value in model.items() if value is not None}
    assert table_of(log.read()) == expected
    assert table_of(log.after_compaction(has_each_key_once)) == expected


def test_what_is_compacted_is_there_after_a_crash(start_broker, new_name):
    broker = start_broker(*FLAGS, properties=PROPERTIES)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    name = new_name()
    create_topic(admin, name, config={key.replace("_", "."): str(value) for key, value in EAGER.items()})
    log = Table(broker.bootstrap, name)
    log.write(numbered(300, 9))
    left = log.after_compaction(has_each_key_once)
    broker.kill()
    broker.start()
    again = log.read()
    assert [record for record in again if record in left] == left
    log.write(numbered(300, 9, word="after"))
    assert len(log.after_compaction(has_each_key_once)) == 9


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_kafkas_own_compaction_tester_is_content(bootstrap, codec):
    done = alone(
        LOG_COMPACTION_TESTER,
        *("--bootstrap-server", bootstrap, "--messages", "20000", "--duplicates", "10"),
        *("--percent-deletes", "20", "--topics", "2", "--sleep", "5", "--compression-type", codec),
    )
    assert done.code == 0, done.printed
    assert "Data verification is completed" in done.printed or "rows of data" in done.printed, done.printed
