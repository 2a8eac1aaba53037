"""What transactions leave in the log: which batches of a transaction are taken and which are not; markers,
the last stable offset and the lists of aborted transactions, exactly as they travel."""

import struct
import time

import pytest

import transaction_wire as ask
from conftest import AGAINST_KAFKA
from transaction_broker import start_for_transactions
from transaction_wire import ABORT, COMMIT, READ_COMMITTED, READ_UNCOMMITTED, batch
from transactors import (  # noqa: F401: fixtures
    V1,
    V2,
    Transactor,
    connection,
    fetch,
    new_topic,
    other,
    transactor,
    v1,
    v2,
    values,
)

LATEST = -1  # instead of a timestamp

# Kafka's errors.
OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC_OR_PARTITION, OUT_OF_ORDER_SEQUENCE_NUMBER = 1, 3, 45
INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE, INVALID_PRODUCER_ID_MAPPING = 47, 48, 49
TRANSACTIONAL_ID_AUTHORIZATION_FAILED, INVALID_RECORD, TRANSACTION_ABORTABLE = 53, 87, 120


@pytest.fixture(scope="module")
def shared_broker(start_broker):
    return start_for_transactions(start_broker)


# --- Produce -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(3, 12))
def test_records_of_a_partition_that_was_not_added_are_refused_in_the_first_protocol(
    connection, new_name, new_topic, version
):
    topic = new_topic(2)
    transactor = Transactor(connection, new_name(), version).init()
    refused = TRANSACTION_ABORTABLE if version >= 11 else INVALID_TXN_STATE
    assert transactor.ask_produce(topic, transactor.batch(topic, [b"x"])) == (refused, -1)
    transactor.send(topic, b"y")
    assert transactor.ask_produce(topic, transactor.batch(topic, [b"x"], partition=1), 1) == (refused, -1)
    transactor.commit()
    assert transactor.ask_produce(topic, transactor.batch(topic, [b"x"])) == (refused, -1), "it is over"
    assert fetch(connection, topic).all_values == [b"y"]
    assert fetch(connection, topic, partition=1).all_values == []


def test_partitions_are_added_by_what_is_produced_in_the_second_protocol(v2, new_topic):
    topic = new_topic(3)
    v2.send(topic, b"x")
    v2.send(topic, b"y", partition=2)
    told = v2.describe()
    assert told.transaction_state == "Ongoing"
    assert [(it.topic, sorted(it.partitions)) for it in told.topics] == [(topic, [0, 2])]
    v2.commit()
    assert v2.describe().topics == []
    assert [fetch(v2.connection, topic, partition=n).high_watermark for n in range(3)] == [2, 0, 2]


def test_epochs_of_the_past_and_the_future_produce_nothing(transactor, topic):
    transactor.init()
    transactor.send(topic, b"x")
    for epoch in (transactor.epoch - 1, transactor.epoch + 1, 32_766):
        data = transactor.batch(topic, [b"zombie"], epoch=epoch)
        assert transactor.ask_produce(topic, data) == (INVALID_PRODUCER_EPOCH, -1)
    assert fetch(transactor.connection, topic, isolation=READ_UNCOMMITTED).all_values == [b"x"]
    transactor.commit()
    assert values(transactor.connection, topic) == [b"x"]


def test_a_first_batch_with_an_epoch_of_the_past_or_the_future_is_refused(transactor, topic):
    transactor.init()
    if not transactor.is_v2:
        transactor.add(topic)
    for epoch in (transactor.epoch - 1, transactor.epoch + 1):
        assert transactor.ask_produce(topic, transactor.batch(topic, [b"x"], epoch=epoch))[0] == INVALID_PRODUCER_EPOCH
    assert fetch(transactor.connection, topic, isolation=READ_UNCOMMITTED).high_watermark == 0


def test_who_is_not_known_produces_nothing_in_a_transaction(transactor, topic):
    for changes, name in (({"pid": transactor.pid + 1_000_000}, None), ({}, "never-heard-of")):
        data = transactor.batch(topic, [b"x"], **changes)
        assert transactor.ask_produce(topic, data, name=name) == (INVALID_PRODUCER_ID_MAPPING, -1)
    assert fetch(transactor.connection, topic, isolation=READ_UNCOMMITTED).high_watermark == 0


@pytest.mark.parametrize("version", range(3, 13))
def test_a_transactional_batch_needs_a_transactional_id(connection, v1, topic, version):
    v1.add(topic)
    asked = ask.produce(version, None, {topic: {0: v1.batch(topic, [b"x"])}})
    assert ask.produced(connection.ask(asked)) == (TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1)
    assert fetch(connection, topic, isolation=READ_UNCOMMITTED).high_watermark == 0


def test_a_batch_of_no_transaction_is_refused_while_its_producer_has_one_open(transactor, topic):
    transactor.send(topic, b"x")
    data = transactor.batch(topic, [b"plain"], transactional=False)
    for name in (transactor.name, None):
        asked = ask.produce(transactor.version, name, {topic: {0: data}})
        assert ask.produced(transactor.connection.ask(asked)) == (INVALID_TXN_STATE, -1)
    transactor.commit()
    assert values(transactor.connection, topic) == [b"x"]


def test_a_client_writes_no_markers(transactor, topic):
    transactor.send(topic, b"x")
    marker = transactor.batch(
        topic,
        [struct.pack(">hi", 0, 0)],
        keys=[struct.pack(">hh", 0, COMMIT)],
        attributes=ask.CONTROL,
        sequence=ask.NO_SEQUENCE,
    )
    assert transactor.ask_produce(topic, marker) == (INVALID_RECORD, -1)
    assert values(transactor.connection, topic) == []
    transactor.abort()
    assert values(transactor.connection, topic) == []


def test_a_batch_that_comes_again_is_the_one_that_is_there(transactor, topic):
    sent = []
    for n in range(5):
        data = transactor.batch(topic, [b"%d" % n, b"%d'" % n])
        sent.append((data, transactor.send(topic, b"%d" % n, b"%d'" % n)))
    for data, offset in sent:
        assert transactor.ask_produce(topic, data) == (0, offset)
    transactor.commit()
    found = fetch(transactor.connection, topic)
    assert (len(found.values), found.high_watermark) == (10, 11)


@pytest.mark.parametrize("sequence", [1, 3, 4, 100, 2**31 - 1])
def test_a_batch_out_of_order_is_refused(transactor, topic, sequence):
    transactor.send(topic, b"0", b"1")
    assert transactor.ask_produce(topic, transactor.batch(topic, [b"x"], sequence=sequence)) == (
        OUT_OF_ORDER_SEQUENCE_NUMBER,
        -1,
    )
    transactor.send(topic, b"2", add=False)
    transactor.commit()
    assert values(transactor.connection, topic) == [b"0", b"1", b"2"]


def test_the_first_batch_of_an_epoch_begins_at_zero(v1, v2, topic, new_topic):
    assert v2.ask_produce(topic, v2.batch(topic, [b"x"], sequence=5))[0] == OUT_OF_ORDER_SEQUENCE_NUMBER
    v2.send(topic, b"0")
    v2.commit()
    assert v2.ask_produce(topic, v2.batch(topic, [b"x"], sequence=1))[0] == OUT_OF_ORDER_SEQUENCE_NUMBER
    v2.send(topic, b"1")
    v2.commit()
    # In the first protocol sequences go on as long as the epoch lasts.
    second = new_topic()
    v1.send(second, b"0")
    v1.commit()
    v1.add(second)
    assert v1.ask_produce(second, v1.batch(second, [b"x"], sequence=2))[0] == OUT_OF_ORDER_SEQUENCE_NUMBER
    v1.send(second, b"1")
    v1.commit()
    v1.init().add(second)
    assert v1.ask_produce(second, v1.batch(second, [b"x"], sequence=2))[0] == OUT_OF_ORDER_SEQUENCE_NUMBER
    v1.send(second, b"2")
    v1.commit()
    assert values(v1.connection, topic) == [b"0", b"1"]
    assert values(v1.connection, second) == [b"0", b"1", b"2"]


def test_a_batch_of_a_transaction_that_is_over_joins_no_other(v2, topic):
    late = v2.batch(topic, [b"late"], sequence=1)
    v2.send(topic, b"0")
    v2.commit()
    assert v2.ask_produce(topic, late) == (INVALID_PRODUCER_EPOCH, -1)
    v2.send(topic, b"1")
    assert v2.ask_produce(topic, late) == (INVALID_PRODUCER_EPOCH, -1)
    v2.commit()
    assert values(v2.connection, topic) == [b"0", b"1"]


def test_unknown_topics_are_not_produced_to(transactor, topic):
    for name, partition in (("never-made", 0), (topic, 1)):
        if transactor.is_v2:
            error, _ = transactor.ask_produce(name, transactor.batch(name, [b"x"], partition), partition)
            assert error == UNKNOWN_TOPIC_OR_PARTITION
        else:
            assert transactor.ask_add((name, partition)) == {(name, partition): UNKNOWN_TOPIC_OR_PARTITION}
    transactor.send(topic, b"x")
    transactor.commit()
    assert values(transactor.connection, topic) == [b"x"]


# --- what is in the log: markers, the last stable offset, aborted transactions -------------------------------


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_marker_on_the_wire_is_a_control_batch(transactor, topic, is_committed):
    before = time.time_ns() // 1_000_000
    transactor.send(topic, b"x", b"y")
    who = transactor.pid, transactor.epoch + transactor.is_v2  # in the second protocol it has the raised epoch
    transactor.end(is_committed)
    for isolation in (READ_COMMITTED, READ_UNCOMMITTED):
        for offset in (0, 2):  # with the records, and alone
            *_, marker = fetch(transactor.connection, topic, offset, isolation).batches
            assert marker.crc_is_right
            assert (marker.base_offset, marker.last_offset) == (2, 2)
            assert marker.attributes == ask.TRANSACTIONAL | ask.CONTROL
            assert (marker.pid, marker.epoch, marker.sequence) == (*who, ask.NO_SEQUENCE)
            ((key, value),) = marker.records
            assert key == struct.pack(">hh", 0, COMMIT if is_committed else ABORT)
            kind, coordinator_epoch = marker.control
            assert len(value) == 6
            assert coordinator_epoch >= 0
            assert before <= marker.first_timestamp == marker.max_timestamp <= time.time_ns() // 1_000_000


def test_records_behind_an_open_transaction_wait_for_it(transactor, other, topic):
    connection = transactor.connection
    plain = ask.produce(V2, None, {topic: {0: batch(-1, -1, -1, [b"plain"], transactional=False)}})
    assert ask.produced(connection.ask(plain)) == (0, 0)
    assert transactor.send(topic, b"open") == 1
    assert ask.produced(connection.ask(plain)) == (0, 2)
    assert other.send(topic, b"other") == 3
    other.commit()  # its marker at 4

    def seen():
        found = fetch(connection, topic)
        assert found.high_watermark == fetch(connection, topic, isolation=READ_UNCOMMITTED).high_watermark
        assert all(batch.last_offset < found.last_stable for batch in found.batches)
        return found.last_stable, found.values

    assert seen() == (1, [b"plain"])
    everything = fetch(connection, topic, isolation=READ_UNCOMMITTED)
    assert everything.all_values == [b"plain", b"open", b"plain", b"other"]
    assert not everything.aborted
    transactor.commit()
    assert seen() == (6, [b"plain", b"open", b"plain", b"other"])


def test_the_last_stable_offset_is_the_first_of_the_oldest_open_transaction(connection, new_name, topic):
    producers = [Transactor(connection, new_name(), (V1, V2)[n % 2]).init() for n in range(4)]
    for n, each in enumerate(producers):
        each.send(topic, b"%d" % n)
    for each in producers:
        each.send(topic, b"again")
    assert fetch(connection, topic).last_stable == 0
    producers[1].commit()
    assert fetch(connection, topic).last_stable == 0
    producers[0].abort()
    assert fetch(connection, topic).last_stable == 2
    producers[3].commit()
    assert fetch(connection, topic).last_stable == 2
    producers[2].commit()
    assert fetch(connection, topic).last_stable == 12


def test_an_offset_behind_the_last_stable_one_is_in_range(transactor, topic):
    transactor.send(topic, b"0", b"1", b"2")
    for offset in range(4):
        found = fetch(transactor.connection, topic, offset)
        assert (found.error, found.batches, found.last_stable, found.high_watermark) == (0, [], 0, 3)
    assert fetch(transactor.connection, topic, 4).error == OFFSET_OUT_OF_RANGE


@pytest.mark.parametrize("version", range(2, 11))
def test_offsets_are_listed_by_isolation(transactor, topic, version):
    now = time.time_ns() // 1_000_000
    transactor.send(topic, b"0")
    transactor.commit()
    for n in (1, 2):
        data = transactor.batch(topic, [b"%d" % n], timestamp=now + n * 1000)
        if not transactor.is_v2:
            transactor.add(topic)
        assert transactor.ask_produce(topic, data) == (0, n + 1)
        transactor.sequences[topic, 0] = transactor.sequences.get((topic, 0), 0) + 1

    def listed(timestamp, isolation):
        return ask.listed(transactor.connection.ask(ask.list_offsets(version, topic, timestamp, isolation)))

    assert listed(LATEST, READ_COMMITTED) == (0, 2)
    assert listed(LATEST, READ_UNCOMMITTED) == (0, 4)
    assert listed(now + 1500, READ_UNCOMMITTED) == (0, 3)
    assert listed(now + 1500, READ_COMMITTED) == (0, -1)
    transactor.commit()
    assert listed(LATEST, READ_COMMITTED) == listed(LATEST, READ_UNCOMMITTED) == (0, 5)
    assert listed(now + 1500, READ_COMMITTED) == (0, 3)


def test_aborted_transactions_are_told_with_their_first_offsets(connection, new_name, topic):
    a, b, c = (Transactor(connection, new_name(), version).init() for version in (V1, V2, V1))
    a.send(topic, b"a0")  # 0
    b.send(topic, b"b0", b"b1")  # 1, 2
    a.send(topic, b"a1")  # 3
    c.send(topic, b"c0")  # 4
    b.abort()  # 5
    b.send(topic, b"b2")  # 6
    a.abort()  # 7
    c.commit()  # 8
    a.send(topic, b"a2")  # 9
    b.abort()  # 10
    a.commit()  # 11
    c.send(topic, b"c1")  # 12
    c.abort()  # 13

    def told(offset, **settings):
        return sorted(fetch(connection, topic, offset, **settings).aborted, key=lambda it: it[1])

    first = [(a.pid, 0), (b.pid, 1)]
    rest = [(b.pid, 6), (c.pid, 12)]
    assert told(0) == [*first, *rest]
    assert values(connection, topic) == [b"c0", b"a2"]
    for offset in range(14):
        # Those that ended at or behind the offset; they began where they began.
        ends = {(b.pid, 1): 5, (a.pid, 0): 7, (b.pid, 6): 10, (c.pid, 12): 13}
        assert told(offset) == [it for it in (*first, *rest) if ends[it] >= offset]
        assert fetch(connection, topic, offset, isolation=READ_UNCOMMITTED).aborted in (None, [])
    found = fetch(connection, topic, 14)
    assert (found.error, found.aborted, found.batches) == (0, [], [])


def test_only_the_aborted_transactions_among_the_fetched_records_are_told(connection, v2, topic):
    for n in range(20):
        v2.send(topic, b"%d" % n * 500)
        v2.end(n % 2 == 0)
    offset, seen = 0, []
    while True:
        found = fetch(connection, topic, offset, max_bytes=2500)
        if not found.batches:
            break
        assert len(found.batches) < 10
        begins, ends = found.batches[0].base_offset, found.batches[-1].last_offset
        # Transaction n is at the offsets 2n and 2n + 1. Kafka tells of some that begin behind the last.
        expected = [2 * n for n in range(20) if n % 2 and 2 * n + 1 >= begins and 2 * n <= ends]
        told = [first for _, first in found.aborted]
        assert [first for first in told if first <= ends or not AGAINST_KAFKA] == expected
        seen += found.values
        offset = ends + 1
    assert offset == 40
    assert seen == [b"%d" % n * 500 for n in range(0, 20, 2)]


def test_a_marker_is_only_where_the_transaction_has_records(transactor, new_topic):
    topic = new_topic(3)
    transactor.send(topic, b"x", partition=1)
    if not transactor.is_v2:
        transactor.add((topic, 2))
    transactor.commit()
    ends = [fetch(transactor.connection, topic, partition=n).high_watermark for n in range(3)]
    kafka_marks = AGAINST_KAFKA and not transactor.is_v2  # whatever was added
    assert ends == [0, 2, 1 if kafka_marks else 0]


def test_a_transaction_spans_topics_and_is_ended_everywhere_at_once(transactor, new_topic):
    topics = [new_topic(4) for _ in range(3)]
    places = [(topic, n) for topic in topics for n in range(4)]
    for is_committed in (False, True):
        for topic, n in places:
            transactor.send(topic, b"%d" % is_committed, partition=n)
        transactor.end(is_committed)
    for topic, n in places:
        found = fetch(transactor.connection, topic, partition=n)
        assert (found.values, found.last_stable) == ([b"1"], 4)
        assert found.aborted == [(transactor.pid, 0)]
