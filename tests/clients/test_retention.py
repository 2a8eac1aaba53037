"""Records that end with time or for want of room: what retention takes and what it leaves, what clients see of
it, what producers and transactions know when everything they wrote is gone, and that the space comes back."""

import random
import threading

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec

import short_lives
import transaction_wire as ask
from cloud import until
from conftest import AGAINST_KAFKA, create_topic
from short_lives import Log, ago, log, numbered, stored, tool  # noqa: F401: fixtures
from tools import CONFIGS, CONSUMER_GROUPS, eventually, rows
from transaction_wire import READ_COMMITTED, batch
from transactors import connection, fetch, new_topic, v2, values  # noqa: F401: fixtures

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000  # ms
OFFSET_OUT_OF_RANGE, OUT_OF_ORDER_SEQUENCE_NUMBER = 1, 45  # Kafka's errors
MEGABYTE = 1 << 20

only_odradek = pytest.mark.skipif(AGAINST_KAFKA, reason="how Odradek keeps what it keeps")


@pytest.fixture(scope="session")
def shared_broker(start_broker):
    return short_lives.start(start_broker)


@pytest.fixture
def purge(log):
    """What people do to empty a topic."""

    def run(topic, partition=0):
        end = log.end(topic, partition)
        log.configure(topic, retention_ms=1000)
        eventually(lambda: log.span(topic, partition), (end, end))
        log.configure(topic, retention_ms=None)
        return end

    return run


@pytest.fixture
def a_while(new_topic, log):
    """Waits until the broker has looked at all topics once more and taken away what was due: topics made for
    it have lost their records. Two, because it may have been looking when the first came."""

    def wait():
        for _ in range(2):
            topic = new_topic(retention_ms=1)
            log.send(topic, ["x"], timestamp=ago(HOUR))
            eventually(lambda topic=topic: log.start(topic), 1)

    return wait


# By time ---------------------------------------------------------------------------------------------------


def test_a_topic_is_emptied_by_a_short_retention_and_used_again(topic, log, purge):
    log.send(topic, numbered(100))
    assert purge(topic) == 100
    assert log.read(topic) == []
    assert log.send(topic, ["after"]) == [100]
    assert log.read(topic) == [(0, 100, "after")]


def test_records_older_than_a_week_expire_when_nobody_says_anything(new_topic, log):
    topic = new_topic(3)
    log.send(topic, numbered(10), partition=0, timestamp=ago(8 * DAY))
    log.send(topic, numbered(10), partition=1, timestamp=ago(6 * DAY))
    eventually(lambda: log.span(topic, 0), (10, 10))
    assert log.span(topic, 1) == (0, 10)
    assert log.values(topic, 1) == numbered(10)
    assert log.span(topic, 2) == (0, 0)


def test_records_of_the_future_do_not_expire(new_topic, log, a_while):
    topic = new_topic(retention_ms=1)
    log.send(topic, numbered(10), timestamp=ago(-HOUR // 2))
    a_while()
    assert log.values(topic) == numbered(10)


def test_records_behind_one_that_does_not_expire_stay_too(new_topic, log, a_while):
    topic = new_topic(retention_ms=HOUR)
    log.send(topic, ["lasting"], timestamp=ago(0))
    log.send(topic, numbered(10), timestamp=ago(DAY))
    a_while()
    assert log.values(topic) == ["lasting", *numbered(10)]


def test_records_that_are_never_to_expire_do_not(new_topic, log, a_while):
    topic = new_topic(retention_ms=-1)
    log.send(topic, numbered(10), timestamp=1)
    a_while()
    assert log.values(topic) == numbered(10)


def test_only_the_old_expire_and_the_start_of_the_log_follows(new_topic, log):
    topic = new_topic(retention_ms=HOUR, segment_ms=1)
    log.send(topic, numbered(10, "old"), timestamp=ago(2 * HOUR))
    young = ago(MINUTE)
    log.send(topic, numbered(5, "young"), timestamp=young)
    eventually(lambda: log.span(topic), (10, 15))
    assert log.values(topic) == numbered(5, "young")
    assert log.offset(topic, 0, OffsetSpec.for_timestamp(0)) == 10
    assert log.offset(topic, 0, OffsetSpec.for_timestamp(ago(3 * HOUR))) == 10
    assert log.offset(topic, 0, OffsetSpec.max_timestamp()) in range(10, 15)


def test_where_the_log_keeps_time_producers_dates_do_not_count(new_topic, log, a_while):
    topic = new_topic(message_timestamp_type="LogAppendTime")
    log.send(topic, numbered(10), timestamp=ago(30 * DAY))
    a_while()
    assert log.values(topic) == numbered(10)


def test_records_with_dates_in_the_future_expire_where_the_log_keeps_time(new_topic, log):
    topic = new_topic(message_timestamp_type="LogAppendTime", retention_ms=1)
    log.send(topic, numbered(10), timestamp=ago(-HOUR // 2))
    eventually(lambda: log.span(topic), (10, 10))


def test_a_longer_retention_saves_what_was_due_soon(new_topic, log, a_while):
    topic = new_topic(retention_ms=2 * HOUR)
    log.send(topic, numbered(10), timestamp=ago(HOUR))
    log.configure(topic, retention_ms=3 * HOUR)
    a_while()
    assert log.values(topic) == numbered(10)
    log.configure(topic, retention_ms=HOUR // 2)
    eventually(lambda: log.span(topic), (10, 10))


def test_retention_is_of_topics_that_delete(new_topic, log, a_while):
    topic = new_topic(retention_ms=1, cleanup_policy="compact")
    log.send(topic, numbered(10), timestamp=ago(HOUR), keys=numbered(10, "key"))
    a_while()
    assert log.values(topic) == numbered(10)
    log.configure(topic, cleanup_policy="compact,delete")
    eventually(lambda: log.span(topic), (10, 10))


def test_what_is_set_for_all_topics_expires_the_records_of_those_that_say_nothing(new_topic, log, tool):
    silent, other = new_topic(), new_topic(retention_ms=-1)
    for topic in (silent, other):
        log.send(topic, numbered(10), timestamp=ago(2 * HOUR))
    for_all = ("--alter", "--entity-type", "brokers", "--entity-default")
    tool(CONFIGS, *for_all, "--add-config", f"log.retention.ms={HOUR}")
    try:
        eventually(lambda: log.span(silent), (10, 10))
        assert log.values(other) == numbered(10)
    finally:
        tool(CONFIGS, *for_all, "--delete-config", "log.retention.ms")


# By size ---------------------------------------------------------------------------------------------------


def test_a_topic_keeps_as_many_bytes_as_it_should_and_not_many_more(new_topic, log, a_while):
    kept, segment, size = 2 * MEGABYTE, MEGABYTE, 50_000
    topic = new_topic(2, retention_bytes=kept, segment_bytes=segment)
    random_bytes = random.Random(7).randbytes
    for partition, count in ((0, 160), (1, 30)):
        for _ in range(0, count, 10):  # in many batches, of which no two make half a segment
            log.send(topic, [random_bytes(size) for _ in range(10)], partition)

    def bytes_left():
        start, end = log.span(topic)
        return (end - start) * size

    eventually(lambda: kept <= bytes_left() + 10 * size and bytes_left() <= kept + segment + 10 * size, True)
    assert log.span(topic, 1) == (0, 30), "each partition may have that many"
    a_while()
    assert bytes_left() + 10 * size >= kept


def test_room_for_nothing_leaves_nothing(new_topic, log):
    topic = new_topic(retention_bytes=0)
    log.send(topic, numbered(10))
    eventually(lambda: log.span(topic), (10, 10))


def test_room_without_bounds_is_the_default(topic, log, a_while):
    log.send(topic, numbered(10))
    a_while()
    assert log.values(topic) == numbered(10)


# What clients see ------------------------------------------------------------------------------------------


def test_who_reads_what_expired_hears_so_or_begins_anew(topic, log, purge, connection, bootstrap):
    log.send(topic, numbered(10))
    purge(topic)
    log.send(topic, ["after"])
    assert fetch(connection, topic, offset=4).error == OFFSET_OUT_OF_RANGE
    settings = {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False}
    for reset, expected in {"earliest": 10, "error": KafkaError._AUTO_OFFSET_RESET}.items():
        consumer = Consumer({**settings, "auto.offset.reset": reset})
        consumer.assign([TopicPartition(topic, 0, 4)])
        message = consumer.poll(30)
        consumer.close()
        assert (message.error().code() if message.error() else message.offset()) == expected


def test_a_group_whose_place_expired_keeps_it_until_it_comes_back(topic, log, purge, bootstrap, tool, new_name):
    group = new_name()
    log.send(topic, numbered(10))
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
    consumer.commit(offsets=[TopicPartition(topic, 0, 4)], asynchronous=False)
    purge(topic)
    log.send(topic, ["after"])
    (place,) = consumer.committed([TopicPartition(topic, 0)], 30)
    assert place.offset == 4
    (line,) = rows(tool(CONSUMER_GROUPS, "--describe", "--group", group))
    assert (line["CURRENT-OFFSET"], line["LOG-END-OFFSET"], line["LAG"]) == ("4", "11", "7")

    consumer.subscribe([topic])
    message = consumer.poll(30)
    assert (message.error(), message.offset(), message.value()) == (None, 10, b"after")
    consumer.commit(message, asynchronous=False)
    (place,) = consumer.committed([TopicPartition(topic, 0)], 30)
    assert place.offset == 11
    consumer.close()


def test_a_reader_at_the_end_does_not_notice(topic, log, purge, bootstrap):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "auto.offset.reset": "error"})
    log.send(topic, numbered(10))
    consumer.assign([TopicPartition(topic, 0, 10)])
    assert consumer.poll(0.1) is None
    purge(topic)
    log.send(topic, ["after"])
    message = consumer.poll(30)
    assert (message.error(), message.offset(), message.value()) == (None, 10, b"after")
    consumer.close()


def test_deleted_and_expired_records_have_one_start_of_the_log(new_topic, log):
    topic = new_topic(retention_ms=-1)
    log.send(topic, numbered(10), timestamp=ago(HOUR))
    assert log.delete_records(topic, 4) == 4
    assert log.span(topic) == (4, 10)
    log.configure(topic, retention_ms=1)
    eventually(lambda: log.span(topic), (10, 10))
    assert log.delete_records(topic, 7) == 10, "the start never goes back"
    assert log.delete_records(topic, -1) == 10


def test_the_start_of_the_log_is_known_after_a_restart(start_broker):
    broker = short_lives.start(start_broker)
    log, topic = Log(broker.bootstrap), "restarted"
    create_topic(log.admin, topic, 2)
    log.send(topic, numbered(10), partition=0, timestamp=ago(8 * DAY))
    log.send(topic, numbered(10), partition=1)
    log.delete_records(topic, 3, partition=1)
    eventually(lambda: log.span(topic, 0), (10, 10))
    broker.stop()
    broker.start()
    log = Log(broker.bootstrap)
    assert log.span(topic, 0) == (10, 10)
    assert log.span(topic, 1) == (3, 10)
    assert log.send(topic, ["after"]) == [10]
    assert log.values(topic) == ["after"]
    broker.stop()


# Producers and transactions --------------------------------------------------------------------------------


def test_an_idempotent_producer_goes_on_when_everything_of_it_expired(topic, purge, bootstrap, log):
    delivered = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})

    def produce(count):
        for n in range(count):
            producer.produce(topic, str(n), partition=0, on_delivery=lambda *it: delivered.append(it))
        assert producer.flush(60) == 0

    for round_ in range(3):
        produce(10)
        assert [error for error, _ in delivered] == [None] * len(delivered)
        assert [message.offset() for _, message in delivered] == list(range(10 * round_ + 10))
        purge(topic)
    assert log.read(topic) == []


def test_what_a_producer_sent_is_remembered_longer_than_its_records(topic, purge, connection, v2):
    """Its last batches are taken once, its next must follow, though nothing of it is left to look at."""

    def send(sequence, *values):
        sent = batch(v2.pid, v2.epoch, sequence, values, transactional=False)
        return ask.produced(connection.ask(ask.produce(9, None, {topic: {0: sent}})))

    assert send(0, b"a", b"b") == (0, 0)
    assert send(2, b"c") == (0, 2)
    purge(topic)
    assert send(2, b"c") == (0, 2), "a duplicate, with the offset that it had"
    assert send(7, b"d")[0] == OUT_OF_ORDER_SEQUENCE_NUMBER
    assert send(3, b"d") == (0, 3)
    assert fetch(connection, topic, offset=3).all_values == [b"d"]


def test_transactions_expire_with_their_markers_and_the_next_are_not_mistaken_for_them(new_topic, v2, log):
    topic = new_topic(retention_ms=1)
    for committed in (False, True, False):
        v2.send(topic, b"gone")
        v2.end(committed)
    eventually(lambda: log.span(topic), (6, 6))
    log.configure(topic, retention_ms=None)
    for committed, value in ((True, b"committed"), (False, b"aborted"), (True, b"committed too")):
        v2.send(topic, value)
        v2.end(committed)
    assert log.read(topic) == [(0, 6, "committed"), (0, 10, "committed too")]


def test_records_of_an_open_transaction_do_not_expire(new_topic, v2, log, a_while):
    topic = new_topic(retention_ms=HOUR, segment_ms=1)
    log.send(topic, ["before"], timestamp=ago(3 * HOUR))
    assert v2.ask_produce(topic, v2.batch(topic, [b"open"], timestamp=ago(3 * HOUR)))[0] == 0
    log.send(topic, ["after"], timestamp=ago(2 * HOUR))
    log.send(topic, ["young"])
    # Kafka lets them go: a transaction that is open for longer than records live loses what it wrote.
    eventually(lambda: log.start(topic), 3 if AGAINST_KAFKA else 1)
    if not AGAINST_KAFKA:
        a_while()
        assert log.span(topic) == (1, 4)
        assert log.values(topic) == [], "the transaction is open"
        assert log.values(topic, isolation="read_uncommitted") == ["open", "after", "young"]
    v2.commit()
    eventually(lambda: log.start(topic), 3)
    assert log.values(topic) == ["young"]


# Clocks that are wrong -------------------------------------------------------------------------------------


@only_odradek
def test_a_topic_does_not_go_all_at_once_unless_it_is_told_to(start_broker):
    """Whoever wants a topic emptied says so with a short retention. If it is only the clock that says so, the
    topic loses a small part, and there is time to look at the clock."""
    broker = short_lives.start(start_broker, retention_at_once="false")
    log = Log(broker.bootstrap)
    for topic in ("kept", "emptied"):
        create_topic(log.admin, topic)
        log.send(topic, numbered(100), timestamp=ago(30 * DAY))
    log.configure("emptied", retention_ms=1000)
    eventually(lambda: log.span("emptied"), (100, 100))
    until(lambda: "kept" in broker.log.read_text(), broker.log_tail)
    assert log.values("kept") == numbered(100)
    broker.stop()

    broker.flags = short_lives.flags()
    broker.start()
    log = Log(broker.bootstrap)
    eventually(lambda: log.span("kept"), (100, 100))
    broker.stop()


# Space -----------------------------------------------------------------------------------------------------

RECORDS, SIZE = 400, 50_000  # of a topic that goes


def remove_by_time(log, topic):
    log.configure(topic, retention_ms=1)


def remove_by_size(log, topic):
    log.configure(topic, retention_bytes=0)


def remove_by_hand(log, topic):
    log.delete_records(topic, -1)


def remove_the_topic(log, topic):
    log.delete_topic(topic)


removals = pytest.mark.parametrize(
    "remove", [remove_by_time, remove_by_size, remove_by_hand, remove_the_topic], ids=lambda it: it.__name__
)


@pytest.fixture
def room(start_broker):
    """A broker of its own, whose disk nobody else uses."""
    broker = short_lives.start(start_broker)
    yield broker
    broker.stop()


def fill_up(log, topic, seed):
    source = random.Random(seed)
    log.send(topic, [source.randbytes(SIZE) for _ in range(RECORDS)], **{"batch.size": 1 << 20})


@only_odradek
@removals
def test_what_is_gone_gives_its_space_back(room, remove):
    log = Log(room.bootstrap)
    for topic in ("gone", "kept"):
        create_topic(log.admin, topic)
    log.send("kept", numbered(100))
    fill_up(log, "gone", seed=1)
    assert stored(room) > RECORDS * SIZE * 0.9, "all but the last little, which may be in the log"
    remove(log, "gone")
    until(lambda: stored(room) < RECORDS * SIZE / 10, lambda: f"{stored(room)} bytes of {RECORDS * SIZE} are left")
    room.check_alive()
    assert log.values("kept") == numbered(100)


def fill_up_between(log, topic, neighbours):
    """Fills up a topic while others are written, so that all are in the same segments; what was sent to them."""
    filled = threading.Event()
    sent = {neighbour: [] for neighbour in neighbours}

    def keep_sending(topic):
        while not filled.is_set():
            some = [f"{topic} {len(sent[topic]) + n} ".ljust(1000, "x") for n in range(10)]
            log.send(topic, some)
            sent[topic] += some

    senders = [threading.Thread(target=keep_sending, args=[topic]) for topic in neighbours]
    for each in senders:
        each.start()
    fill_up(log, topic, seed=2)
    filled.set()
    for each in senders:
        each.join()
    return sent


@only_odradek
@removals
def test_neighbours_in_the_same_segments_stay_whole(room, remove):
    log, neighbours = Log(room.bootstrap), ("first", "second")
    for topic in ("gone", "canary", *neighbours):
        create_topic(log.admin, topic)
    sent = fill_up_between(log, "gone", neighbours)
    before = stored(room)
    remove(log, "gone")
    # When what came and went later is off the disk, what went before it has been looked at.
    fill_up(log, "canary", seed=4)
    remove(log, "canary")
    until(lambda: stored(room) < before + RECORDS * SIZE / 2, lambda: f"{stored(room)} bytes, of {before} before")
    for topic in neighbours:
        assert log.values(topic) == sent[topic]
    room.stop()
    room.start()
    log = Log(room.bootstrap)
    for topic in neighbours:
        assert log.values(topic) == sent[topic]


@only_odradek
def test_a_little_that_is_left_does_not_keep_the_space_of_what_is_gone(room):
    log, neighbours = Log(room.bootstrap), ("first", "second")
    for topic in ("gone", *neighbours):
        create_topic(log.admin, topic)
    sent = fill_up_between(log, "gone", neighbours)
    remove_the_topic(log, "gone")
    kept = sum(len(value) for values in sent.values() for value in values)
    until(lambda: stored(room) < RECORDS * SIZE / 3 + kept, lambda: f"{stored(room)} bytes are left", 20)


@only_odradek
def test_the_space_of_some_records_comes_back_while_the_rest_is_read(room):
    log = Log(room.bootstrap)
    create_topic(log.admin, "half")
    fill_up(log, "half", seed=3)
    values = random.Random(3)
    expected = [values.randbytes(SIZE) for _ in range(RECORDS)]
    before = stored(room)
    reader = Consumer({"bootstrap.servers": room.bootstrap, "group.id": "unused", "fetch.max.bytes": 1 << 20})
    reader.assign([TopicPartition("half", 0, RECORDS * 3 // 4)])
    log.delete_records("half", RECORDS * 3 // 4)
    read = [reader.poll(60)]
    # A segment goes when all of it is gone.
    until(lambda: stored(room) < before * 0.7, lambda: f"{stored(room)} bytes of {before} are left")
    while len(read) < RECORDS // 4:
        message = reader.poll(60)
        assert message is not None and message.error() is None
        read.append(message)
    reader.close()
    assert [message.value() for message in read] == expected[RECORDS * 3 // 4 :]


@only_odradek
def test_nothing_is_left_of_what_no_topic_has_and_nothing_is_taken_that_one_has(room):
    """Topics come and go, and what stays is what was sent to the one that stayed."""
    log = Log(room.bootstrap)
    create_topic(log.admin, "stays")
    sent = []
    for n in range(10):
        create_topic(log.admin, f"goes {n}".replace(" ", "-"))
        log.send(f"goes-{n}", [random.Random(n).randbytes(SIZE) for _ in range(20)])
        some = numbered(20, f"round {n}")
        log.send("stays", some)
        sent += some
        log.delete_topic(f"goes-{n}")
    until(lambda: stored(room) < 10 * 20 * SIZE / 10, lambda: f"{stored(room)} bytes are left")
    assert log.values("stays") == sent
