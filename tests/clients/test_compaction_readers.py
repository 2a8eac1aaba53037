"""Log compaction by key: what is left, under which offsets, and what readers that go to the end of a topic rely
on, as those do that keep their state in one (Connect, Streams, registries of schemas)."""

import random
import threading

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec

import short_lives
import transaction_wire as ask
from cloud import until
from short_lives import ago, log, numbered, text  # noqa: F401: a fixture
from tools import eventually
from transaction_wire import batch
from transactors import connection, fetch, new_topic, other, v2  # noqa: F401: fixtures

HOUR = 3_600_000  # ms
INVALID_RECORD = 87  # Kafka's error

# Compacted as soon as possible. Kafka leaves alone what it still writes to, which it does until a batch comes
# that is younger than the first by more than segment.ms; so something follows whatever is to be compacted.
OFTEN = {"cleanup_policy": "compact", "min_cleanable_dirty_ratio": 0.001, "segment_ms": 1}


@pytest.fixture(scope="module")
def shared_broker(start_broker):
    return short_lives.start(start_broker)


@pytest.fixture
def compacted(new_topic):
    return lambda **settings: new_topic(**{**OFTEN, **settings})


def send(log, topic, pairs, partition=0, timestamp=None, **settings):
    """Keys and values; what has no value says that there is nothing of the key any more."""
    keys, values = zip(*pairs, strict=True)
    return log.send(topic, values, partition, timestamp, keys, **settings)


def end(log, topic, partition=0):
    """What follows, so that all before it can be compacted."""
    return send(log, topic, [("end", "end")], partition)


def found(log, topic, partition=0, **settings):
    """`[(offset, key, value)]`, without the end."""
    messages = log.messages(topic, [partition], **settings)
    all_ = [(it.offset(), text(it.key()), text(it.value())) for it in messages]
    return [it for it in all_ if it[1] != "end"]


def pairs(log, topic, **settings):
    return [(key, value) for _, key, value in found(log, topic, **settings)]


# What is left ----------------------------------------------------------------------------------------------


def test_the_last_of_each_key_is_left_under_its_offset(compacted, log):
    topic = compacted()
    send(log, topic, [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("b", "2"), ("a", "3")])
    end(log, topic)
    eventually(lambda: found(log, topic), [(3, "c", "1"), (4, "b", "2"), (5, "a", "3")])
    assert log.end(topic) == 7
    assert send(log, topic, [("a", "4")]) == [7]


def test_all_of_a_message_is_left_as_it_was(compacted, log, bootstrap):
    topic = compacted()
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "zstd"})
    began = ago(HOUR)
    for n in range(100):
        headers = {"n": str(n), "none": None}
        producer.produce(topic, f"value {n}" * 100, f"key {n % 3}", 0, timestamp=began + n, headers=headers)
    assert producer.flush(60) == 0
    end(log, topic)
    eventually(lambda: len(found(log, topic)), 3)
    for n, it in zip(range(97, 100), log.messages(topic), strict=False):
        assert (it.offset(), it.key(), it.value()) == (n, f"key {n % 3}".encode(), f"value {n}".encode() * 100)
        assert it.timestamp()[1] == began + n
        assert it.headers() == [("n", str(n).encode()), ("none", None)]


def test_each_partition_is_compacted_for_itself(new_topic, log):
    topic = new_topic(2, **OFTEN)
    for partition in range(2):
        send(log, topic, [("a", f"{partition} {n}") for n in range(10)], partition)
        end(log, topic, partition)
    for partition in range(2):
        eventually(lambda n=partition: found(log, topic, n), [(9, "a", f"{partition} 9")])


def test_rounds_follow_each_other(compacted, log):
    topic, last = compacted(), {}
    source = random.Random(5)
    for n in range(8):
        some = [(f"key {source.randrange(50)}", f"{n} {it}") for it in range(100)]
        last.update(some)
        send(log, topic, some)
        end(log, topic)
        assert dict(pairs(log, topic)) == last, "whatever is compacted by now"
    eventually(lambda: len(found(log, topic)) < 400, True)
    end(log, topic)
    assert dict(pairs(log, topic)) == last


def test_what_is_not_compacted_yet_may_be_said_often_but_never_wrong(compacted, log):
    """While it is written and compacted all the time."""
    topic, last, enough = compacted(), {}, threading.Event()
    source = random.Random(6)

    def keep_sending():
        n = 0
        while not enough.is_set():
            some = [(f"key {source.randrange(20)}", f"{n} {it}") for it in range(50)]
            last.update(some)
            send(log, topic, some)
            n += 1

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        for _ in range(20):
            offsets = [offset for offset, _, _ in found(log, topic)]
            assert offsets == sorted(set(offsets))
        until(lambda: len(found(log, topic)) < log.end(topic) / 2, "compaction", 120)
    finally:
        enough.set()
        sender.join()
    assert dict(pairs(log, topic)) == last


def test_records_without_a_key_are_refused(compacted, log, connection):
    topic = compacted()
    sent = batch(-1, -1, -1, [b"x"], transactional=False)
    error, _ = ask.produced(connection.ask(ask.produce(9, None, {topic: {0: sent}})))
    assert error == INVALID_RECORD
    sent = batch(-1, -1, -1, [b"x"], transactional=False, keys=[b""])
    error, _ = ask.produced(connection.ask(ask.produce(9, None, {topic: {0: sent}})))
    assert error == 0, "an empty key is one"


def test_a_topic_that_becomes_compacted_keeps_what_has_no_key_out(new_topic, log):
    topic = new_topic()
    log.send(topic, numbered(5))
    send(log, topic, [("a", "1"), ("a", "2"), ("b", "1")])
    log.configure(topic, **OFTEN)
    send(log, topic, [("a", "3")])
    end(log, topic)
    eventually(lambda: found(log, topic), [(7, "b", "1"), (8, "a", "3")])


def test_what_is_young_is_not_compacted(compacted, log):
    young, old = compacted(min_compaction_lag_ms=HOUR * 10), compacted()
    for topic in (young, old):
        send(log, topic, [("a", str(n)) for n in range(10)])
        end(log, topic)
    eventually(lambda: pairs(log, old), [("a", "9")])
    assert pairs(log, young) == [("a", str(n)) for n in range(10)]


# Tombstones ------------------------------------------------------------------------------------------------


def test_what_is_deleted_stays_deleted(compacted, log):
    topic = compacted(delete_retention_ms=0)
    send(log, topic, [("a", "1"), ("b", "1"), ("a", None)])
    end(log, topic)
    eventually(lambda: [it for it in pairs(log, topic) if it[1] is not None], [("b", "1")])

    # Kafka takes a tombstone away in a later round than the one that saw it first.
    def is_gone():
        send(log, topic, [("c", "x")])
        end(log, topic)
        return [key for key, _ in pairs(log, topic) if key == "a"]

    eventually(is_gone, [])
    assert dict(pairs(log, topic)) == {"b": "1", "c": "x"}


def test_a_deletion_can_be_read_for_as_long_as_it_says(compacted, log):
    topic = compacted(delete_retention_ms=HOUR)
    send(log, topic, [("a", "1"), ("b", "1"), ("a", None), ("b", "2")])
    end(log, topic)
    eventually(lambda: pairs(log, topic), [("a", None), ("b", "2")])
    send(log, topic, [("b", "3")])
    end(log, topic)
    eventually(lambda: pairs(log, topic), [("a", None), ("b", "3")])


# Readers to the end ----------------------------------------------------------------------------------------


def test_a_reader_gets_to_the_end_when_the_last_records_are_gone(compacted, log, bootstrap):
    """What was last is superseded by nothing, but what was before it may leave a hole of any size."""
    topic = compacted(delete_retention_ms=0)
    for n in range(5):
        send(log, topic, [("a", f"{n} {it}") for it in range(200)])
    send(log, topic, [("a", None)])
    end(log, topic)

    def left():
        send(log, topic, [("b", "x")])
        end(log, topic)
        return len(found(log, topic)) <= 3

    eventually(left, True)
    settings = {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.partition.eof": True}
    consumer = Consumer({**settings, "auto.offset.reset": "error"})
    for start in (0, 1, 100, 777, 999, 1000, 1001):
        consumer.assign([TopicPartition(topic, 0, start)])
        offsets = []
        while (message := consumer.poll(60)) is not None and message.error() is None:
            offsets.append(message.offset())
        assert message is not None
        assert message.error().code() == KafkaError._PARTITION_EOF
        assert message.offset() == log.end(topic)
        assert offsets == sorted(offsets)
        assert not offsets or offsets[0] >= start
        (position,) = consumer.position([TopicPartition(topic, 0)])
        assert position.offset == log.end(topic) or not offsets
    consumer.close()


def test_offsets_in_a_hole_are_found_by_time_and_by_asking(compacted, log):
    topic = compacted()
    began = ago(HOUR)
    for n in range(10):
        send(log, topic, [("a", str(n))], timestamp=began + n * 60_000)
    end(log, topic)
    eventually(lambda: found(log, topic), [(9, "a", "9")])
    assert log.start(topic) == 0
    assert log.offset(topic, 0, OffsetSpec.for_timestamp(began + 3 * 60_000)) == 9
    assert log.offset(topic, 0, OffsetSpec.for_timestamp(began + 9 * 60_000 + 1)) == 10


def test_deleted_records_and_compaction_go_together(compacted, log):
    with pytest.raises(KafkaException) as refused:
        log.delete_records(compacted(), -1)
    assert refused.value.args[0].name() == "POLICY_VIOLATION", "of a topic that is compacted and nothing else"

    topic = compacted(cleanup_policy="compact,delete")
    send(log, topic, [(f"key {n % 4}", str(n)) for n in range(20)])
    assert log.delete_records(topic, 18) == 18
    end(log, topic)
    send(log, topic, [("key 2", "new")])
    end(log, topic)
    eventually(lambda: pairs(log, topic), [("key 3", "19"), ("key 2", "new")])
    assert log.start(topic) == 18


# Producers and transactions --------------------------------------------------------------------------------


def test_only_what_was_committed_supersedes(compacted, log, v2, other):
    topic = compacted()

    def in_transaction(producer, values, committed):
        sent = producer.batch(topic, values, keys=[b"a"] * len(values))
        assert producer.ask_produce(topic, sent)[0] == 0
        if committed is not None:
            producer.end(committed)

    in_transaction(v2, [b"committed 1", b"committed 2"], True)
    in_transaction(v2, [b"aborted"], False)
    send(log, topic, [("b", "1"), ("b", "2")])
    end(log, topic)
    eventually(lambda: pairs(log, topic), [("a", "committed 2"), ("b", "2")])
    assert "aborted" not in [value for _, value in pairs(log, topic)]

    in_transaction(other, [b"open"], None)
    send(log, topic, [("a", "behind it")])
    end(log, topic)
    assert pairs(log, topic) == [("a", "committed 2"), ("b", "2")], "nobody sees what is behind an open transaction"
    other.abort()
    end(log, topic)
    eventually(lambda: pairs(log, topic), [("b", "2"), ("a", "behind it")])


def test_a_producer_goes_on_when_all_of_it_was_superseded(compacted, log, v2, connection):
    topic = compacted()

    def produce(sequence, value):
        sent = batch(v2.pid, v2.epoch, sequence, [value], transactional=False, keys=[b"a"])
        return ask.produced(connection.ask(ask.produce(9, None, {topic: {0: sent}})))

    for n in range(8):
        assert produce(n, f"{n}".encode()) == (0, n)
    send(log, topic, [("a", "of another")])
    end(log, topic)
    eventually(lambda: pairs(log, topic), [("a", "of another")])
    assert produce(7, b"7") == (0, 7), "a duplicate, with the offset that it had"
    assert produce(9, b"9")[0] != 0
    assert produce(8, b"8") == (0, 10)
    assert pairs(log, topic)[-1] == ("a", "8")


# A registry of schemas -------------------------------------------------------------------------------------


def test_a_registry_that_is_read_from_the_beginning_at_every_start(compacted, log, bootstrap):
    """What a registry does: it writes, reads its own topic to where it has written, and answers then; keys and
    values are JSON, a deleted subject is a key without a value, and a marker is written at every start."""
    topic, known = compacted(delete_retention_ms=HOUR), {}

    class Registry:
        def __init__(self):
            settings = {"bootstrap.servers": bootstrap, "group.id": "unused", "auto.offset.reset": "earliest"}
            self.consumer = Consumer({**settings, "enable.auto.commit": False})
            self.consumer.assign([TopicPartition(topic, 0, 0)])
            self.subjects = {}
            self.write("NOOP", "null")

        def write(self, key, value):
            (offset,) = send(log, topic, [(key, value)], acks="all")
            self.read_to(offset)

        def read_to(self, offset):
            read = -1
            while read < offset:
                message = self.consumer.poll(60)
                assert message is not None and message.error() is None
                read, value = message.offset(), text(message.value())
                if text(message.key()) == "NOOP":
                    continue
                if value is None:
                    self.subjects.pop(text(message.key()), None)
                else:
                    self.subjects[text(message.key())] = value

    def churn(registry, n):
        for it in range(10):
            key, value = f'{{"subject":"s{it % 4}","version":1}}', f'{{"schema":"{n} {it}"}}'
            if it == 7:
                registry.write(key, None)
                known.pop(key, None)
            else:
                registry.write(key, value)
                known[key] = value

    for n in range(6):
        registry = Registry()
        assert registry.subjects == known
        churn(registry, n)
        registry.consumer.close()
    until(lambda: len(found(log, topic)) < log.end(topic) / 2, "compaction", 120)
    assert Registry().subjects == known
