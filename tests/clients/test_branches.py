"""Branches: topics that begin with the records of another, up to a point, and go on by themselves; and the
deletion of a topic undone by a branch of it. Kafka has no such thing, so these tests are for Odradek alone.

A branch is made by creating a topic with `odradek.branch.of`, the name or the id of its parent, and where it is
to end with `odradek.branch.at`. Kafka's own kafka-topics can't do it: it looks configs up in a list of Kafka's
before it asks a broker."""

import random
import re
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from kafka import KafkaAdminClient

import short_lives
import transaction_wire as ask
from cloud import until
from conftest import AGAINST_KAFKA, create_topic, names
from short_lives import Log, ago, numbered, stored, tool  # noqa: F401: a fixture
from tools import TOPICS, eventually
from transactors import connection, new_topic, other, transactor, v2  # noqa: F401: fixtures

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="Kafka has no branches")

OF, AT = "odradek.branch.of", "odradek.branch.at"
HOUR = 3_600_000  # ms

# Errors that a branch may be refused with.
NO_SUCH_PARENT = {"INVALID_CONFIG", "UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID"}
NO_SUCH_OFFSET = {"INVALID_CONFIG", "OFFSET_OUT_OF_RANGE"}
OTHER_PARTITIONS = {"INVALID_CONFIG", "INVALID_PARTITIONS"}


@pytest.fixture(scope="session")
def shared_broker(start_broker):
    """Spares deleted topics for long, and takes everything else away soon."""
    return short_lives.start(start_broker, delete_grace_ms=HOUR)


@pytest.fixture
def room(start_broker):
    """A broker of its own that spares nothing, and whose disk nobody else uses."""
    broker = short_lives.start(start_broker)
    yield broker
    broker.stop()


@dataclass
class Refused(Exception):
    code: str
    sentence: str


class Branches(Log):
    """A log that can be branched."""

    def branch(self, of, at=None, name=None, partitions=-1, validate_only=False, **configs):
        """Returns the branch's name."""
        name = name or f"branch-{next(names)}"
        config = {key.replace("_", "."): str(value) for key, value in configs.items()}
        config |= {} if of is None else {OF: of}
        config |= {} if at is None else {AT: str(at)}
        topics = [NewTopic(name, partitions, -1, config=config)]
        try:
            self.admin.create_topics(topics, validate_only=validate_only)[name].result(30)
        except KafkaException as refused:
            raise Refused(refused.args[0].name(), refused.args[0].str()) from None
        return name

    def put(self, topic, *batches, partition=0, timestamp=None):
        """Each list of values as a batch of its own."""
        with ask.Connection(self.bootstrap) as connection:
            for values in batches:
                values = [value.encode() for value in values]
                sent = ask.batch(-1, -1, -1, values, transactional=False, timestamp=timestamp)
                error, _ = ask.produced(connection.ask(ask.produce(9, None, {topic: {partition: sent}})))
                assert error == 0

    def id(self, topic):
        """As Kafka writes it; librdkafka has + and / where Kafka has - and _."""
        described = self.admin.describe_topics(TopicCollection([topic]))
        return str(described[topic].result(30).topic_id).translate(str.maketrans("+/", "-_"))

    def partitions(self, topic):
        return len(self.admin.list_topics(topic, timeout=30).topics[topic].partitions)

    def whole(self, topic, partition=0):
        """Of all messages what a consumer can see of them."""
        found = self.messages(topic, [partition])
        return [(it.offset(), it.timestamp(), it.key(), it.value(), it.headers()) for it in found]


@pytest.fixture
def log(bootstrap):
    return Branches(bootstrap)


@pytest.fixture
def parent(new_topic, log):
    """Records 0 to 9, each in a batch of its own."""
    topic = new_topic()
    log.put(topic, *([value] for value in numbered(10)))
    return topic


# What is in a branch ---------------------------------------------------------------------------------------


def make_with_confluent(bootstrap, name, parent):
    Branches(bootstrap).branch(parent, name=name)


def make_with_kafka_python(bootstrap, name, parent):
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    client.create_topics({name: {"configs": {OF: parent}}})
    client.close()


@pytest.mark.parametrize("make", [make_with_confluent, make_with_kafka_python], ids=lambda it: it.__name__)
def test_a_branch_has_what_its_parent_had_and_goes_its_own_way(make, new_topic, new_name, log, bootstrap):
    parent, branch, began = new_topic(3), new_name(), ago(HOUR)
    producer = Producer({"bootstrap.servers": bootstrap})
    for n in range(30):
        producer.produce(parent, f"v{n}", f"k{n}", n % 2, timestamp=began + n, headers={"n": str(n)})
    assert producer.flush(60) == 0
    before = [log.whole(parent, n) for n in range(3)]
    assert [len(each) for each in before] == [15, 15, 0]

    make(bootstrap, branch, parent)
    assert log.partitions(branch) == 3
    assert [log.whole(branch, n) for n in range(3)] == before

    assert log.send(branch, ["of the branch"]) == [15]
    assert log.send(parent, ["of the parent", "and more"]) == [15, 16]
    assert log.send(branch, ["of the branch"], partition=2) == [0]
    assert log.values(branch)[15:] == ["of the branch"]
    assert log.values(parent)[15:] == ["of the parent", "and more"]
    assert log.values(parent, 2) == []
    for n in range(3):
        assert log.whole(branch, n)[: len(before[n])] == before[n]
        assert log.whole(parent, n)[: len(before[n])] == before[n]


def test_a_branch_is_another_topic(parent, log, bootstrap):
    settings = {"bootstrap.servers": bootstrap, "group.id": parent, "enable.auto.commit": False}
    consumer = Consumer(settings)
    consumer.commit(offsets=[TopicPartition(parent, 0, 4)], asynchronous=False)
    branch = log.branch(parent)
    assert log.id(parent) != log.id(branch)
    (place,) = consumer.committed([TopicPartition(branch, 0)], 30)
    assert place.offset < 0
    consumer.close()


def test_a_branch_of_an_empty_topic_is_empty(topic, log):
    branch = log.branch(topic)
    assert log.span(branch) == (0, 0)
    assert log.send(branch, ["first"]) == [0]
    assert log.span(topic) == (0, 0)


def test_a_branch_says_whose_it_is_and_nobody_can_change_that(parent, log, admin):
    branch = log.branch(parent, at=4)
    resource = ConfigResource(ResourceType.TOPIC, branch)
    entries = admin.describe_configs([resource])[resource].result(30)
    assert entries[OF].value in (parent, log.id(parent))
    assert entries[OF].is_read_only
    assert entries[AT].is_read_only

    refused = [(branch, OF, parent), (branch, AT, "3"), (branch, OF, None), (branch, AT, None)]
    for topic, name, value in (*refused, (parent, OF, branch), (parent, AT, "3")):
        operation = AlterConfigOpType.SET if value else AlterConfigOpType.DELETE
        change = ConfigEntry(name, value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
        with pytest.raises(KafkaException) as raised:
            admin.incremental_alter_configs([resource])[resource].result(30)
            pytest.fail(f"{name} of {'the branch' if topic == branch else 'its parent'} became {value}")
        assert raised.value.args[0].name() == "INVALID_CONFIG"
        assert name in raised.value.args[0].str()
    log.configure(branch, retention_ms=HOUR)
    resource = ConfigResource(ResourceType.TOPIC, branch)
    entries = admin.describe_configs([resource])[resource].result(30)
    assert entries["retention.ms"].value == str(HOUR)
    assert entries[OF].value in (parent, log.id(parent))
    assert log.span(branch) == (0, 4)


def test_a_topic_that_is_no_branch_does_not_say_that_it_is(parent, log, admin):
    resource = ConfigResource(ResourceType.TOPIC, parent)
    entries = admin.describe_configs([resource])[resource].result(30)
    assert not [name for name in (OF, AT) if name in entries and entries[name].value]


def test_records_are_found_by_time_in_a_branch_as_in_its_parent(new_topic, log):
    parent, began = new_topic(), ago(10 * HOUR)
    for n in range(5):
        log.put(parent, [f"at {n}"], timestamp=began + n * HOUR)
    branch = log.branch(parent, at=3)
    for n, offset in ((0, 0), (1, 1), (2, 2), (3, -1), (4, -1)):
        spec = OffsetSpec.for_timestamp(began + n * HOUR)
        assert log.offset(branch, 0, spec) == offset
    assert log.offset(branch, 0, OffsetSpec.max_timestamp()) == 2
    assert log.offset(parent, 0, OffsetSpec.max_timestamp()) == 4


def test_what_was_deleted_in_the_parent_is_not_in_the_branch(parent, log):
    log.delete_records(parent, 4)
    branch = log.branch(parent)
    assert log.span(branch) == (4, 10)
    assert log.values(branch) == numbered(10)[4:]


def test_branches_made_while_a_parent_is_written_are_what_was_written_first(new_topic, log):
    parent = new_topic(2)
    enough = threading.Event()

    def keep_writing(partition):
        n = 0
        while not enough.is_set():
            log.put(parent, numbered(3, f"partition {partition} round {n}"), partition=partition)
            n += 1

    writers = [threading.Thread(target=keep_writing, args=[n]) for n in range(2)]
    for each in writers:
        each.start()
    branches = []
    try:
        for n in range(8):
            until(lambda n=n: log.end(parent) > 10 * n, "records")
            branches.append(log.branch(parent))
    finally:
        enough.set()
        for each in writers:
            each.join()
    for partition in range(2):
        whole = log.whole(parent, partition)
        lengths = []
        for branch in branches:
            found = log.whole(branch, partition)
            assert found == whole[: len(found)]
            lengths.append(len(found))
        assert lengths == sorted(lengths)
    assert log.end(branches[-1]) >= 70


# Up to where -----------------------------------------------------------------------------------------------


def test_a_branch_ends_at_an_offset(parent, log):
    for at, end in ((0, 0), (1, 1), (4, 4), (10, 10), ("now", 10)):
        branch = log.branch(parent, at=at)
        assert log.span(branch) == (0, end)
        assert log.values(branch) == numbered(10)[:end]
        assert log.send(branch, ["next"]) == [end]
        assert log.values(branch) == [*numbered(10)[:end], "next"]
    assert log.values(parent) == numbered(10)


def test_a_branch_ends_at_an_offset_of_each_partition(new_topic, log):
    parent = new_topic(3)
    for n in range(3):
        log.put(parent, *([value] for value in numbered(5, f"partition {n} record")), partition=n)
    branch = log.branch(parent, at="0:2,1:5,2:0")
    assert [log.span(branch, n) for n in range(3)] == [(0, 2), (0, 5), (0, 0)]
    assert log.values(branch, 0) == numbered(2, "partition 0 record")
    assert log.values(branch, 1) == numbered(5, "partition 1 record")
    branch = log.branch(parent, at=3)
    assert [log.span(branch, n) for n in range(3)] == [(0, 3)] * 3


def test_a_batch_is_never_torn(new_topic, log):
    parent = new_topic()
    log.put(parent, numbered(10, "first"), numbered(10, "second"))
    for at, end in ((3, 10), (10, 10), (11, 20), (19, 20)):
        branch = log.branch(parent, at=at)
        assert log.span(branch) == (0, end)
        assert log.values(branch) == [*numbered(10, "first"), *numbered(10, "second")][:end]


def test_a_branch_ends_at_a_time(new_topic, log):
    parent = new_topic(2, retention_ms=-1)
    noon = datetime(2024, 2, 29, 12, tzinfo=UTC)
    for n in range(4):
        log.put(parent, [f"at {n}"], timestamp=int((noon + timedelta(hours=n)).timestamp() * 1000))
    log.put(parent, ["early"], partition=1, timestamp=int((noon - timedelta(hours=1)).timestamp() * 1000))

    def at(hours):
        return (noon + timedelta(hours=hours)).isoformat()

    for when, ends in {
        at(-2): (0, 0),
        at(-0.5): (0, 1),
        at(0.5): (1, 1),
        at(1.5).replace("+00:00", "Z"): (2, 1),
        (noon + timedelta(hours=2.5)).astimezone(timezone(timedelta(hours=2))).isoformat(): (3, 1),
        (noon + timedelta(hours=2, milliseconds=1)).isoformat(timespec="milliseconds"): (3, 1),
        at(20): (4, 1),
    }.items():
        branch = log.branch(parent, at=when, retention_ms=-1)
        assert (log.end(branch), log.end(branch, 1)) == ends, when
        assert log.values(branch) == [f"at {n}" for n in range(ends[0])]


# What is refused -------------------------------------------------------------------------------------------


def refusal(log, *arguments, **named):
    """The error's name and its sentence; nothing was created."""
    before = set(log.admin.list_topics(timeout=30).topics)
    with pytest.raises(Refused) as raised:
        log.branch(*arguments, **named)
    assert set(log.admin.list_topics(timeout=30).topics) == before
    return raised.value.code, raised.value.sentence


def test_a_branch_of_what_is_not_there_is_refused(log):
    for nobody in ("nobody-made-this", "AAAAAAAAAAAAAAAAAAAAAQ", str(uuid.uuid4()), "", "a/b", "x" * 300):
        code, sentence = refusal(log, nobody)
        assert code in NO_SUCH_PARENT
        assert nobody[:40] in sentence
    code, _ = refusal(log, "not-even-me", name="not-even-me")
    assert code in NO_SUCH_PARENT


def test_a_branch_that_ends_where_its_parent_has_nothing_is_refused(parent, new_topic, log):
    log.delete_records(parent, 3)
    for at in (2, 11, 0, 2**63 - 1, "0:11", "0:2"):
        code, sentence = refusal(log, parent, at=at)
        assert code in NO_SUCH_OFFSET, at
        assert re.search(r"\b3\b.*\b10\b", sentence), "where it could end"
    uneven = new_topic(2)
    log.put(uneven, numbered(5))
    assert refusal(log, uneven, at=5)[0] in NO_SUCH_OFFSET


def test_a_point_that_is_none_is_refused(parent, log):
    for at in ("soon", "-1", "1.5", "0:x", "x:1", "0:1,0:2", "7:1", "0:1,", ":", "2024-13-01T00:00:00Z"):
        code, sentence = refusal(log, parent, at=at)
        assert code == "INVALID_CONFIG", at
        assert AT in sentence


def test_a_point_without_a_parent_is_refused(log):
    code, sentence = refusal(log, None, at="now")
    assert code == "INVALID_CONFIG"
    assert OF in sentence


def test_a_branch_has_as_many_partitions_as_its_parent(new_topic, log):
    parent = new_topic(3)
    assert log.partitions(log.branch(parent)) == 3
    assert log.partitions(log.branch(parent, partitions=3)) == 3
    for partitions in (1, 2, 4):
        code, sentence = refusal(log, parent, partitions=partitions)
        assert code in OTHER_PARTITIONS
        assert "3" in sentence


def test_a_name_that_is_taken_is_refused(parent, topic, log):
    assert refusal(log, parent, name=topic)[0] == "TOPIC_ALREADY_EXISTS"
    assert refusal(log, parent, name=parent)[0] == "TOPIC_ALREADY_EXISTS"
    assert log.span(topic) == (0, 0)
    assert refusal(log, parent, name="a/b")[0] == "TOPIC_EXCEPTION"


def test_configs_of_a_branch_are_checked_as_those_of_any_topic(parent, log, admin):
    assert refusal(log, parent, retention_ms=-2)[0] == "INVALID_CONFIG"
    branch = log.branch(parent, retention_ms=HOUR)
    resource = ConfigResource(ResourceType.TOPIC, branch)
    assert admin.describe_configs([resource])[resource].result(30)["retention.ms"].value == str(HOUR)


def test_checking_alone_makes_no_branch(parent, log):
    name = log.branch(parent, at=4, validate_only=True)
    assert name not in log.admin.list_topics(timeout=30).topics
    assert refusal(log, parent, at=11, validate_only=True)[0] in NO_SUCH_OFFSET
    assert refusal(log, "nobody-made-this", validate_only=True)[0] in NO_SUCH_PARENT
    assert refusal(log, parent, partitions=2, validate_only=True)[0] in OTHER_PARTITIONS


# Branches of branches --------------------------------------------------------------------------------------


def test_branches_have_branches(parent, log):
    first = log.branch(parent, at=8)
    log.put(first, ["first"])
    second = log.branch(first)
    log.put(second, ["second"])
    third = log.branch(second, at=5)
    log.put(third, ["third"])
    fourth = log.branch(third)
    assert log.values(parent) == numbered(10)
    assert log.values(first) == [*numbered(8), "first"]
    assert log.values(second) == [*numbered(8), "first", "second"]
    assert log.values(third) == log.values(fourth) == [*numbered(5), "third"]
    for topic in (second, parent, first, third):
        log.delete_topic(topic)
    assert log.values(fourth) == [*numbered(5), "third"]


def test_a_parent_has_many_branches(parent, log):
    branches = [log.branch(parent, at=n) for n in range(11)]
    for n, branch in enumerate(branches):
        log.put(branch, [f"own {n}"])
    for n, branch in enumerate(branches):
        assert log.values(branch) == [*numbered(n), f"own {n}"]


def test_partitions_are_added_to_branches_as_to_any_topic(parent, log):
    branch = log.branch(parent)
    log.admin.create_partitions([NewPartitions(branch, 3)])[branch].result(30)
    assert (log.partitions(branch), log.partitions(parent)) == (3, 1)
    assert log.send(branch, ["x"], partition=2) == [0]
    assert log.partitions(log.branch(branch)) == 3


# Transactions ----------------------------------------------------------------------------------------------


def test_a_branch_ends_before_the_first_open_transaction(transactor, other, new_topic, log):
    parent = new_topic()
    transactor.send(parent, b"committed")
    transactor.commit()
    transactor.send(parent, b"aborted")
    transactor.abort()
    log.put(parent, ["plain"])
    transactor.send(parent, b"open")
    other.send(parent, b"committed behind it")
    other.commit()
    log.put(parent, ["plain behind it"])

    branch = log.branch(parent)
    assert log.span(branch) == (0, 5)
    for topic in (branch, log.branch(branch)):
        assert log.read(topic) == [(0, 0, "committed"), (0, 4, "plain")]
        assert log.values(topic, isolation="read_uncommitted") == ["committed", "aborted", "plain"]
    assert log.values(parent) == ["committed", "plain"]
    code, sentence = refusal(log, parent, at=6)
    assert code in NO_SUCH_OFFSET
    assert "5" in sentence

    transactor.commit()
    assert log.values(parent) == ["committed", "plain", "open", "committed behind it", "plain behind it"]
    assert log.values(branch) == ["committed", "plain"]
    transactor.send(branch, b"in the branch")
    assert log.values(branch) == ["committed", "plain"]
    transactor.commit()
    assert log.values(branch) == ["committed", "plain", "in the branch"]
    assert len(log.values(parent)) == 5
    assert log.values(log.branch(parent))[-1] == "plain behind it"


def test_what_was_aborted_behind_the_point_is_aborted_in_the_branch(transactor, new_topic, log):
    parent = new_topic()
    log.put(parent, ["first"])
    transactor.send(parent, b"aborted")
    transactor.send(parent, b"aborted too")
    log.put(parent, ["between"])
    transactor.abort()
    for at, expected in ((2, ["first"]), (3, ["first"]), (4, ["first", "between"]), (5, ["first", "between"])):
        branch = log.branch(parent, at=at)
        assert log.values(branch) == expected
        transactor.send(branch, b"next")
        transactor.commit()
        log.put(branch, ["last"])
        assert log.values(branch) == [*expected, "next", "last"], "nobody waits for the end of it, or takes it up"


def test_producers_are_new_to_a_branch(parent, log, v2, connection):
    def send(topic, sequence, value):
        sent = ask.batch(v2.pid, v2.epoch, sequence, [value], transactional=False)
        return ask.produced(connection.ask(ask.produce(9, None, {topic: {0: sent}})))

    assert send(parent, 0, b"a") == (0, 10)
    branch = log.branch(parent)
    assert send(branch, 0, b"a") == (0, 11)
    assert send(branch, 1, b"b") == (0, 12)
    assert send(parent, 1, b"c") == (0, 11)
    assert send(branch, 0, b"a") == (0, 11), "a duplicate"
    assert log.values(branch)[10:] == ["a", "a", "b"]
    assert log.values(parent)[10:] == ["a", "c"]


# What happens to one happens to none of the others ---------------------------------------------------------


def test_records_that_end_in_one_stay_in_the_others(new_topic, log):
    def made():
        topic = new_topic(retention_ms=-1)
        for value in numbered(10):
            log.put(topic, [value], timestamp=ago(HOUR))
        return topic

    def expire(topic):
        log.configure(topic, retention_ms=1)
        eventually(lambda: log.span(topic), (10, 10))

    def delete_some(topic):
        assert log.delete_records(topic, 7) == 7
        assert log.values(topic) == numbered(10)[7:]

    for end in (expire, delete_some, log.delete_topic):
        for ends_in_parent in (True, False):
            parent = made()
            branch = log.branch(parent, retention_ms=-1)
            leaf = log.branch(branch, retention_ms=-1)
            ending, others = (parent, (branch, leaf)) if ends_in_parent else (branch, (parent, leaf))
            end(ending)
            for topic in others:
                assert log.span(topic) == (0, 10)
                assert log.values(topic) == numbered(10)


def test_a_branch_is_compacted_alone(new_topic, log):
    often = {"cleanup_policy": "compact", "min_cleanable_dirty_ratio": 0.001, "segment_ms": 1}
    keys, values = ["a", "b", "c"] * 20, numbered(60)

    def made(**configs):
        topic = new_topic(**configs)
        log.send(topic, values, keys=keys, timestamp=ago(HOUR))
        log.send(topic, ["end"], keys=["end"])
        return topic

    def compacted(topic):
        eventually(lambda: log.values(topic), [*values[-3:], "end"])

    parent = made()
    branch = log.branch(parent, **often)
    compacted(branch)
    assert log.values(parent) == [*values, "end"]

    parent = made()
    branch = log.branch(parent)
    log.configure(parent, **often)
    compacted(parent)
    assert log.values(branch) == [*values, "end"]
    assert log.values(log.branch(parent)) == [*values[-3:], "end"], "a branch of what compaction left"


RECORDS, SIZE = 100, 50_000
BULK = RECORDS * SIZE


def bulk(seed):
    source = random.Random(seed)
    return [source.randbytes(SIZE) for _ in range(RECORDS)]


def swept(room, at_most):
    """Waits until no more than that is on the disk."""
    until(lambda: stored(room) <= at_most, lambda: f"{stored(room)} bytes are left, not {at_most}")


@pytest.mark.parametrize("ending", ["parent", "branch"])
@pytest.mark.parametrize("how", ["topic", "retention", "records"])
def test_what_two_topics_share_is_kept_until_neither_has_it(room, ending, how):
    log = Branches(room.bootstrap)
    expected = bulk(1)
    create_topic(log.admin, "parent")
    log.send("parent", expected)
    log.branch("parent", name="branch")
    assert stored(room) < 1.5 * BULK, "no byte is copied"

    def end(topic):
        if how == "topic":
            log.delete_topic(topic)
        elif how == "retention":
            log.configure(topic, retention_bytes=0)
            eventually(lambda: log.start(topic), RECORDS)
        else:
            log.delete_records(topic, -1)

    end(ending)
    # When a topic that came and went later is off the disk, what ended before it has been looked at.
    create_topic(log.admin, "canary")
    log.send("canary", bulk(2))
    log.delete_topic("canary")
    swept(room, 1.5 * BULK)
    kept = "branch" if ending == "parent" else "parent"
    assert [value for _, _, _, value, _ in log.whole(kept)] == expected
    room.kill()
    room.start()
    log = Branches(room.bootstrap)
    assert [value for _, _, _, value, _ in log.whole(kept)] == expected

    end(kept)
    swept(room, BULK / 10)


# Deletion undone -------------------------------------------------------------------------------------------


@pytest.fixture
def delete(tool):
    return lambda topic: tool(TOPICS, "--delete", "--topic", topic)


@pytest.fixture
def full(new_topic, log):
    topic = new_topic(3)
    for n in range(2):
        log.put(topic, *([value] for value in numbered(10, f"partition {n} record")), partition=n)
    return topic


def contents(log, topic):
    return [log.whole(topic, n) for n in range(log.partitions(topic))]


@pytest.mark.parametrize("by", ["name", "id"])
@pytest.mark.parametrize("under", ["its old name", "another name"])
def test_a_deleted_topic_comes_back(full, log, delete, by, under, new_name):
    before, of = contents(log, full), full if by == "name" else log.id(full)
    delete(full)
    assert full not in log.admin.list_topics(timeout=30).topics
    again = log.branch(of, name=full if under == "its old name" else new_name())
    assert contents(log, again) == before
    assert log.send(again, ["goes on"]) == [10]
    assert log.send(again, ["goes on"], partition=2) == [0]
    assert set(log.admin.list_topics(timeout=30).topics) & {full, again} == {again}


def test_a_deleted_topic_comes_back_more_than_once_and_up_to_a_point(full, log, delete):
    before = contents(log, full)
    delete(full)
    first, second = log.branch(full, at="0:4,1:10,2:0"), log.branch(full)
    assert contents(log, first) == [before[0][:4], before[1], []]
    assert contents(log, second) == before
    log.delete_topic(first)
    assert contents(log, second) == before


def test_of_topics_with_one_name_the_living_comes_first_and_then_the_last_that_died(log, delete, new_name):
    name, ids = new_name(), []
    for n in range(3):
        create_topic(log.admin, name)
        log.put(name, [f"life {n}"])
        ids.append(log.id(name))
        if n < 2:
            delete(name)
    assert log.values(log.branch(name)) == ["life 2"]
    delete(name)
    assert log.values(log.branch(name)) == ["life 2"]
    for n in range(3):
        assert log.values(log.branch(ids[n])) == [f"life {n}"]


def test_a_deletion_is_undone_after_a_restart(start_broker):
    broker = short_lives.start(start_broker, delete_grace_ms=HOUR)
    log = Branches(broker.bootstrap)
    create_topic(log.admin, "t")
    log.put("t", numbered(10))
    log.delete_topic("t")
    broker.kill()
    broker.start()
    log = Branches(broker.bootstrap)
    log.branch("t", name="t")
    assert log.values("t") == numbered(10)
    broker.stop()


def test_aborted_and_open_transactions_of_a_deleted_topic_do_not_come_back(v2, other, new_topic, log):
    topic = new_topic()
    v2.send(topic, b"committed")
    v2.commit()
    v2.send(topic, b"aborted")
    v2.abort()
    other.send(topic, b"open")
    log.delete_topic(topic)
    log.branch(topic, name=topic)
    assert log.values(topic) == ["committed"]
    assert log.end(topic) == 4
    log.put(topic, ["next"])
    assert log.values(topic) == ["committed", "next"], "nobody waits for the open one"


def test_what_came_back_stays_when_what_was_deleted_is_given_up(room):
    log = Branches(room.bootstrap)
    expected = bulk(1)
    for topic in ("saved", "lost"):
        create_topic(log.admin, topic)
        log.send(topic, expected)
        log.delete_topic(topic)
        if topic == "saved":
            log.branch("saved", name="saved")
    swept(room, 1.5 * BULK)
    assert [value for _, _, _, value, _ in log.whole("saved")] == expected
    assert refusal(log, "lost")[0] in NO_SUCH_PARENT
    log.delete_topic("saved")
    swept(room, BULK / 10)
    assert refusal(log, "saved")[0] in NO_SUCH_PARENT
