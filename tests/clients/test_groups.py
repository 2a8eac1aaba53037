"""Consumer groups as applications have them: members of several clients in one group that come, go, die
and hang; the strategies and the static members of the classic protocol and of the new one (KIP-848);
where a group goes on reading; and what its owner may ask and change from outside."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from kafka import KafkaAdminClient, KafkaConsumer
from kafka import TopicPartition as Place
from kafka.errors import GroupSubscribedToTopicError, NoError

import wire
from cloud import until
from conftest import AGAINST_KAFKA, create_topic
from member_processes import CONSUMER, SHORT, Crowd, Writer
from members import PROTOCOLS

PARTITIONS = 12
KINDS = ("confluent", "kafka-python", "kafkajs")
TIMEOUT = 60  # seconds; a bound for what hangs, not an expectation


@pytest.fixture(scope="session")
def shared_broker(shared_broker):
    """A broker whose groups do not wait for further members at first."""
    if not AGAINST_KAFKA:
        wire.set_config_of_all_brokers(shared_broker.bootstrap, "group.initial.rebalance.delay.ms", 0)
    return shared_broker


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


# --- what is committed -----------------------------------------------------------------------------------


class CommitWatcher(threading.Thread):
    """Asks again and again what a group has committed: that never goes back."""

    def __init__(self, admin, group, topic):
        super().__init__(daemon=True)
        self.admin, self.group, self.topic = admin, group, topic
        self.furthest = {}
        self.problems, self.answers = [], 0
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.wait(0.1):
            for partition, offset in committed(self.admin, self.group, self.topic, PARTITIONS).items():
                if offset < self.furthest.get(partition, -1):
                    self.problems.append(f"partition {partition}: {offset} after {self.furthest[partition]}")
                self.furthest[partition] = offset
            self.answers += 1

    def check(self):
        self.join()
        assert not self.problems, self.problems[:5]
        assert self.answers


def committed(admin, group, topic, partitions):
    """What the group has committed: `{partition: offset}`, of those that have something."""
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, n) for n in range(partitions)])
    told = admin.list_consumer_group_offsets([asked])[group].result(TIMEOUT)
    assert not any(one.error for one in told.topic_partitions)
    return {one.partition: one.offset for one in told.topic_partitions if one.offset >= 0}


# --- groups of processes ---------------------------------------------------------------------------------


def live(crowd, life, admin, bootstrap):
    """Leads a crowd through its life while something is written, and checks what there is to check."""
    writer, watcher = Writer(bootstrap, crowd.topic, PARTITIONS), CommitWatcher(admin, crowd.group, crowd.topic)
    writer.start()
    watcher.start()
    try:
        life(crowd)
    finally:
        written = writer.stop()
        watcher.stopped.set()
    ends = writer.ends()
    until(lambda: crowd.committed() == ends, lambda: f"all is committed: {crowd.committed()}, not {ends}")
    for member in list(crowd.present):
        crowd.leave(member)
    watcher.check()
    read = crowd.values()
    assert set(read) == written, f"{len(written - set(read))} of {len(written)} records were not read"
    assert committed(admin, crowd.group, crowd.topic, PARTITIONS) == ends
    crowd.check_owners()
    refused = sum(len(member.told("refused")) for member in crowd.all)
    print(
        f"{crowd.group}: {len(written)} records, {sum(read.values()) - len(read)} read again, {refused} commits refused"
    )


def mixed_life(crowd):
    first = [crowd.join(kind) for kind in KINDS]
    crowd.settle()
    second = [crowd.join(kind) for kind in KINDS]
    crowd.settle()
    for member in first:
        crowd.leave(member)
    crowd.settle()
    third = [crowd.join(kind) for kind in KINDS]
    crowd.settle()
    for member in second:
        crowd.kill(member)
    crowd.settle()
    for kind in KINDS:
        crowd.join(kind)
    crowd.settle()
    out_of_the_group_and_back(crowd, third)


def consumer_life(crowd):
    first, second, third = (crowd.join("confluent", **CONSUMER) for _ in range(3))
    crowd.settle()
    crowd.leave(first)
    crowd.settle()
    crowd.join("confluent", **CONSUMER)
    crowd.join("confluent", **CONSUMER)
    crowd.settle()
    crowd.kill(second)
    out_of_the_group_and_back(crowd, [third])


def out_of_the_group_and_back(crowd, members):
    """Stops members until the others have taken their partitions, and continues them."""
    for member in members:
        member.pause()
    crowd.settle([member for member in crowd.present if member not in members])
    for member in members:
        member.go_on()
    crowd.settle()


def test_groups_read_everything_whatever_happens_to_their_members(admin, bootstrap, new_topic, new_name, tmp_path):
    # Side by side, because the second waits long: Kafka grants it no session below 45 seconds.
    lives = {mixed_life: True, consumer_life: False}
    crowds = []
    for life, has_generations in lives.items():
        directory = tmp_path / life.__name__
        directory.mkdir()
        topic = new_topic(PARTITIONS)
        crowds.append(Crowd(bootstrap, f"{topic}-{life.__name__}", topic, PARTITIONS, directory, has_generations))
    try:
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(live, crowd, life, admin, bootstrap) for crowd, life in zip(crowds, lives)]:
                done.result()
    finally:
        for crowd in crowds:
            crowd.close()


@pytest.fixture
def crowd(bootstrap, new_topic, new_name, tmp_path):
    crowd = Crowd(bootstrap, new_name(), new_topic(PARTITIONS), PARTITIONS, tmp_path)
    yield crowd
    crowd.close()


def test_the_protocol_is_the_one_that_most_members_prefer_of_those_that_all_know(crowd, admin, make_reader):
    short = SHORT["kafka-python"]
    crowd.join("kafka-python", strategies=["range", "sticky", "roundrobin"], **short)
    crowd.settle()
    assert describe(admin, crowd.group).partition_assignor == "range"
    for strategies in (["roundrobin", "range"], ["roundrobin", "range", "sticky"]):
        crowd.join("kafka-python", strategies=strategies, **short)
    crowd.settle()
    assert describe(admin, crowd.group).partition_assignor == "roundrobin"
    crowd.join("confluent", **SHORT["confluent"])  # knows range alone
    crowd.settle()
    assert describe(admin, crowd.group).partition_assignor == "range"
    alien = make_reader(crowd.group, [crowd.topic], partition_assignment_strategy="cooperative-sticky")
    assert hears(alien, KafkaError.INCONSISTENT_GROUP_PROTOCOL)


# --- consumers of this process ---------------------------------------------------------------------------


class Reader:
    """A consumer that remembers what it was given, what it lost, and what it heard."""

    def __init__(self, bootstrap, group, topics, protocol="classic", **settings):
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        if protocol == "classic":
            settings.setdefault("partition.assignment.strategy", "cooperative-sticky")
            settings.setdefault("session.timeout.ms", 6000)
            settings.setdefault("heartbeat.interval.ms", 500)
        self.group, self.topics = group, topics
        self.gained, self.lost, self.messages = [], [], []
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "group.protocol": protocol,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": 1000,
                **settings,
            }
        )
        self.consumer.subscribe(
            topics,
            on_assign=lambda _, places: self.gained.extend(pairs(places)),
            on_revoke=lambda _, places: self.lost.extend(pairs(places)),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()

    def leave(self):
        """Leaves the group; whoever has a static name only seems to with the classic protocol."""
        self.consumer.close()

    def poll(self):
        message = self.consumer.poll(0.05)
        if message and message.error():
            raise KafkaException(message.error())
        if message:
            self.messages.append(message)
        return message

    @property
    def places(self):
        return pairs(self.consumer.assignment())

    @property
    def id(self):
        return self.consumer.memberid()

    def has_read(self, count):
        """Whether it has read this many records of each of its partitions."""
        read = {(it.topic(), it.partition(), it.offset()) for it in self.messages}
        return all((*place, offset) in read for place in self.places for offset in range(count))

    def take(self, count):
        enough = lambda: len(self.messages) >= count or self.poll() and False  # noqa: E731
        until(enough, lambda: f"{count} records, not {len(self.messages)}")

    def commit(self, ends):
        """Commits offsets of partitions of its first topic."""
        offsets = [TopicPartition(self.topics[0], partition, end) for partition, end in ends.items()]
        for done in self.consumer.commit(offsets=offsets, asynchronous=False):
            if done.error:
                raise KafkaException(done.error)


def hears(reader, code):
    """Whether polling it ends with this error, fatal or not."""
    with pytest.raises(KafkaException) as raised:
        until(lambda: reader.poll() and False, "an error")
    error = raised.value.args[0]
    print(error)
    return error.code() == code or (error.code() == KafkaError._FATAL and KafkaError(code).str() in error.str())


def pairs(places):
    return sorted((it.topic, it.partition) for it in places)


def settle(readers, everything):
    """Polls them all until they share everything, none without."""

    def is_settled():
        for reader in readers:
            reader.poll()
        shares = [reader.places for reader in readers]
        return all(shares) and sorted(sum(shares, [])) == sorted(everything)

    until(is_settled, lambda: f"{everything} are shared: {[reader.places for reader in readers]}")
    return [reader.places for reader in readers]


def all_of(topic, partitions):
    return [(topic, n) for n in range(partitions)]


@pytest.fixture
def make_reader(bootstrap):
    readers = []

    def make(group, topics, *arguments, **settings):
        readers.append(Reader(bootstrap, group, topics, *arguments, **settings))
        return readers[-1]

    yield make
    for reader in readers:
        reader.leave()


def describe(admin, group):
    return admin.describe_consumer_groups([group], request_timeout=TIMEOUT)[group].result(TIMEOUT)


@pytest.mark.parametrize("strategy", ["range", "roundrobin"])
def test_partitions_are_shared_as_the_strategy_says(make_reader, new_topic, new_name, admin, strategy):
    group, topics = new_name(), sorted([new_topic(4), new_topic(4)])
    everything = sorted(sum((all_of(topic, 4) for topic in topics), []))
    readers = [make_reader(group, topics, partition_assignment_strategy=strategy) for _ in range(3)]
    settle(readers, everything)
    by_id = [reader.places for reader in sorted(readers, key=lambda reader: reader.id)]
    if strategy == "range":
        assert by_id == [[(topic, n) for topic in topics for n in share] for share in ([0, 1], [2], [3])]
    else:
        assert by_id == [everything[n::3] for n in range(3)]
    told = describe(admin, group)
    assert (told.state, told.type) == (ConsumerGroupState.STABLE, ConsumerGroupType.CLASSIC)
    assert told.partition_assignor == strategy
    assert {member.member_id: pairs(member.assignment.topic_partitions) for member in told.members} == {
        reader.id: reader.places for reader in readers
    }


def test_a_cooperative_group_moves_only_what_has_to_move(make_reader, new_topic, new_name, fill, protocol):
    group, topic = new_name(), new_topic(8)
    fill(topic, dict.fromkeys(range(8), 5))
    first, second = make_reader(group, [topic], protocol), make_reader(group, [topic], protocol)
    settle([first, second], all_of(topic, 8))
    both = (first, second)
    until(lambda: [it.poll() for it in both] and all(it.has_read(5) for it in both), "all is read by its last owner")
    for reader in both:
        for remembered in (reader.gained, reader.lost, reader.messages):
            remembered.clear()
    third = make_reader(group, [topic], protocol)
    settle([first, second, third], all_of(topic, 8))
    assert sorted(first.lost + second.lost) == third.places
    assert sorted(third.gained) == third.places
    assert len(third.places) == 2
    assert first.gained == second.gained == []
    # What stayed is not read again, nothing having been committed.
    third.take(10)
    assert [it.poll() for it in both] == [None, None]
    assert first.messages == second.messages == []


def test_a_static_member_that_comes_back_finds_its_partitions_and_disturbs_nobody(
    make_reader, new_topic, new_name, bootstrap, protocol
):
    group, topic = new_name(), new_topic(4)
    with Reader(bootstrap, group, [topic], protocol, group_instance_id="first") as first:
        other = make_reader(group, [topic], protocol, group_instance_id="second")
        shares = settle([first, other], all_of(topic, 4))
        disturbed, was = (len(other.gained), len(other.lost)), first.id
    again = make_reader(group, [topic], protocol, group_instance_id="first")
    assert settle([again, other], all_of(topic, 4)) == shares
    assert (len(other.gained), len(other.lost)) == disturbed
    assert again.id != was


def test_the_second_with_a_static_members_name_fences_the_first(make_reader, new_topic, new_name):
    group, topic = new_name(), new_topic(2)
    first = make_reader(group, [topic], group_instance_id="me")
    settle([first], all_of(topic, 2))
    second = make_reader(group, [topic], group_instance_id="me")
    settle([second], all_of(topic, 2))
    assert hears(first, KafkaError.FENCED_INSTANCE_ID)
    with pytest.raises(KafkaException):
        first.commit({0: 1})
    second.commit({0: 2})


def test_the_new_protocol_keeps_a_static_members_name_for_the_first(make_reader, new_topic, new_name):
    group, topic = new_name(), new_topic(2)
    first = make_reader(group, [topic], "consumer", group_instance_id="me")
    settle([first], all_of(topic, 2))
    second = make_reader(group, [topic], "consumer", group_instance_id="me")
    assert hears(second, KafkaError.UNRELEASED_INSTANCE_ID)
    first.commit({0: 1})
    assert settle([first], all_of(topic, 2)) == [all_of(topic, 2)]


def test_a_pattern_finds_topics_that_are_made_later(make_reader, new_name, admin, protocol, fill):
    group, prefix = new_name(), new_name()
    # With dots in names of others: the expression has to match the whole name.
    names = [f"{prefix}-{n}" for n in range(3)]
    create_topic(admin, names[0], 2)
    create_topic(admin, f"not.{prefix}-x", 1)
    readers = [make_reader(group, [f"^{prefix}-.*"], protocol) for _ in range(2)]
    settle(readers, all_of(names[0], 2))
    for name in names[1:]:
        create_topic(admin, name, 2)
        fill(name, {0: 3, 1: 3})
    settle(readers, sum((all_of(name, 2) for name in names), []))
    until(lambda: [it.poll() for it in readers] and len(readers[0].messages + readers[1].messages) >= 12, "12 records")


def test_members_of_one_protocol_do_not_join_a_group_of_the_other(
    make_reader, topic, new_name, protocol, bootstrap, admin
):
    group = new_name()
    other = {"classic": "consumer", "consumer": "classic"}[protocol]
    expected = KafkaError.INCONSISTENT_GROUP_PROTOCOL if other == "classic" else KafkaError.GROUP_ID_NOT_FOUND
    with Reader(bootstrap, group, [topic], protocol) as first:
        settle([first], all_of(topic, 1))
        first.commit({0: 7})
        with Reader(bootstrap, group, [topic], other) as alien:
            assert hears(alien, expected)
        assert settle([first], all_of(topic, 1)) == [all_of(topic, 1)]
    # Once nobody is in it, it is the other's.
    settle([make_reader(group, [topic], other)], all_of(topic, 1))
    kind = {"classic": ConsumerGroupType.CLASSIC, "consumer": ConsumerGroupType.CONSUMER}[other]
    assert describe(admin, group).type == kind
    assert committed(admin, group, topic, 1) == {0: 7}


def test_a_member_that_stops_polling_loses_its_partitions_until_it_polls_again(make_reader, new_topic, new_name):
    group, topic = new_name(), new_topic(4)
    slow, other = (make_reader(group, [topic], max_poll_interval_ms=6000) for _ in range(2))
    settle([slow, other], all_of(topic, 4))
    settle([other], all_of(topic, 4))
    assert hears(slow, KafkaError._MAX_POLL_EXCEEDED)
    settle([slow, other], all_of(topic, 4))


# --- where a group reads ---------------------------------------------------------------------------------


def test_a_group_goes_on_from_what_it_committed_after_all_had_left(bootstrap, new_topic, new_name, fill, protocol):
    group, topic = new_name(), new_topic(2)
    fill(topic, {0: 20, 1: 20})
    for ends in ({0: 5, 1: 0}, {0: 5, 1: 13}, {0: 19, 1: 20}):
        with Reader(bootstrap, group, [topic], protocol) as reader:
            settle([reader], all_of(topic, 2))
            reader.commit(ends)
    with Reader(bootstrap, group, [topic], protocol) as reader:
        reader.take(1)
        assert [(it.partition(), it.offset()) for it in reader.messages] == [(0, 19)]
        fill(topic, {0: 1, 1: 1})
        reader.take(3)
        assert sorted((it.partition(), it.offset()) for it in reader.messages) == [(0, 19), (0, 20), (1, 20)]


@pytest.mark.parametrize("committed_before", [None, 1000], ids=["no-offset", "offset-out-of-range"])
@pytest.mark.parametrize("reset", ["earliest", "latest", "error"])
def test_a_group_begins_where_it_is_told_when_it_can_not_go_on(
    make_reader, admin, new_topic, new_name, fill, reset, committed_before
):
    group, topic = new_name(), new_topic()
    fill(topic, {0: 10})
    if committed_before:
        alter(admin, group, topic, committed_before)
    reader = make_reader(group, [topic], auto_offset_reset=reset)
    if reset == "error":
        assert hears(reader, KafkaError._AUTO_OFFSET_RESET)
        return
    settle([reader], all_of(topic, 1))
    until(lambda: reset == "earliest" or fill(topic, {0: 1}) or reader.poll() or reader.messages, "it has begun")
    reader.take(1)
    first = reader.messages[0].offset()
    assert first == 0 if reset == "earliest" else first >= 10


def test_positions_after_a_rebalance_are_those_committed(bootstrap, new_topic, new_name, fill):
    group, topic = new_name(), new_topic(4)
    ends = {Place(topic, n): n + 1 for n in range(4)}
    fill(topic, {place.partition: end for place, end in ends.items()})
    settings = {"bootstrap_servers": bootstrap, "group_id": group, "enable_auto_commit": False}
    settings |= {"auto_offset_reset": "earliest", "session_timeout_ms": 6000, "heartbeat_interval_ms": 500}
    consumers = [KafkaConsumer(topic, **settings)]
    try:
        read = []
        until(lambda: read.extend(poll_all(consumers)) or len(read) == sum(ends.values()), lambda: f"only {read}")
        consumers[0].commit()
        consumers.append(KafkaConsumer(topic, **settings))

        def is_shared():
            read.extend(poll_all(consumers))
            return [len(consumer.assignment()) for consumer in consumers] == [2, 2]

        until(is_shared, lambda: f"a share for each: {[consumer.assignment() for consumer in consumers]}")
        positions = {place: consumer.position(place) for consumer in consumers for place in consumer.assignment()}
        assert positions == ends
        assert len(read) == sum(ends.values()), "nothing is read again"
    finally:
        for consumer in consumers:
            consumer.close()


def poll_all(consumers):
    polled = [consumer.poll(timeout_ms=100) for consumer in consumers]
    return [record for places in polled for records in places.values() for record in records]


# --- groups from outside ---------------------------------------------------------------------------------


@pytest.fixture
def reader(make_reader, topic, new_name, protocol):
    """The one member of a group, which has committed 3."""
    reader = make_reader(new_name(), [topic], protocol)
    settle([reader], all_of(topic, 1))
    reader.commit({0: 3})
    return reader


@pytest.fixture
def manager(bootstrap):
    """kafka-python's admin client, for what the other does not offer."""
    manager = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield manager
    manager.close()


def alter(admin, group, topic, offset):
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, offset)])
    (done,) = admin.alter_consumer_group_offsets([asked])[group].result(TIMEOUT).topic_partitions
    if done.error:
        raise KafkaException(done.error)


def code_of(future):
    with pytest.raises(KafkaException) as raised:
        future.result(TIMEOUT)
    return raised.value.args[0].code()


def test_a_group_is_listed_and_described_with_its_type_and_state(admin, reader, protocol, bootstrap):
    def listed(**filters):
        told = admin.list_consumer_groups(request_timeout=TIMEOUT, **filters).result(TIMEOUT)
        assert not told.errors
        return [(one.state, one.type) for one in told.valid if one.group_id == reader.group]

    kind = {"classic": ConsumerGroupType.CLASSIC, "consumer": ConsumerGroupType.CONSUMER}[protocol]
    (other,) = {ConsumerGroupType.CLASSIC, ConsumerGroupType.CONSUMER} - {kind}
    until(lambda: listed() == [(ConsumerGroupState.STABLE, kind)], listed)
    assert listed(states={ConsumerGroupState.STABLE}, types={kind}) == [(ConsumerGroupState.STABLE, kind)]
    assert listed(states={ConsumerGroupState.EMPTY}) == listed(types={other}) == []

    told = describe(admin, reader.group)
    assert (told.state, told.type) == (ConsumerGroupState.STABLE, kind)
    assert f"{told.coordinator.host}:{told.coordinator.port}" == bootstrap
    (member,) = told.members
    assert (member.member_id, member.client_id, member.host) == (reader.id, "rdkafka", "/127.0.0.1")
    assert pairs(member.assignment.topic_partitions) == reader.places

    reader.consumer.unsubscribe()
    until(lambda: reader.poll() or listed() == [(ConsumerGroupState.EMPTY, kind)], listed)
    assert describe(admin, reader.group).members == []


def test_a_group_that_does_not_exist_has_no_description(admin, new_name):
    name = new_name()
    try:
        told = describe(admin, name)
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND
    else:  # before version 6 of DescribeGroups
        assert (told.state, told.members) == (ConsumerGroupState.DEAD, [])
    assert committed(admin, name, "nothing", 1) == {}


def test_offsets_of_a_group_are_changed_when_nobody_is_in_it(admin, manager, reader, topic):
    with pytest.raises(KafkaException) as refused:
        alter(admin, reader.group, topic, 2)
    assert refused.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
    assert committed(admin, reader.group, topic, 1) == {0: 3}
    place = Place(topic, 0)
    (outcome,) = manager.delete_group_offsets(reader.group, [place]).values()
    assert outcome is GroupSubscribedToTopicError
    reader.leave()
    alter(admin, reader.group, topic, 2)
    assert committed(admin, reader.group, topic, 1) == {0: 2}
    (outcome,) = manager.delete_group_offsets(reader.group, [place]).values()
    assert outcome is NoError
    assert committed(admin, reader.group, topic, 1) == {}


def test_a_group_is_deleted_when_nobody_is_in_it(admin, reader, topic, new_name):
    def delete(group):
        return admin.delete_consumer_groups([group], request_timeout=TIMEOUT)[group]

    assert code_of(delete(reader.group)) == KafkaError.NON_EMPTY_GROUP
    reader.leave()
    delete(reader.group).result(TIMEOUT)
    assert committed(admin, reader.group, topic, 1) == {}
    assert code_of(delete(reader.group)) == code_of(delete(new_name())) == KafkaError.GROUP_ID_NOT_FOUND
