"""Groups of a cluster whose coordinator dies, or hangs and comes back: no commit that was acknowledged is
lost or taken back, no partition has two owners in one generation, nobody's commit counts who is not in
the group any more, and members go on without a rebalance where they can."""

import time

import pytest

import wire
from cloud import until
from conftest import AGAINST_KAFKA
from group_wire import Connection, commit, commit_errors, fetch, fetched, heartbeat, join, sync
from member_processes import CONSUMER, Crowd, Writer
from members import PROTOCOLS
from test_cluster import RETRIABLE, Worker, cluster, new_cluster, new_topic, stores  # noqa: F401: fixtures

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")

MEMBERS, PARTITIONS = 10, 20
STOPPED = 60  # seconds
FIND_COORDINATOR = 10
ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, MEMBER_ID_REQUIRED = 22, 25, 79

# Long enough to outlive a coordinator; the time after which a member turns to another that does not answer.
SETTINGS = {
    "classic": {"session.timeout.ms": 40_000, "heartbeat.interval.ms": 1000, "partition.assignment.strategy": "range"},
    "consumer": CONSUMER,
}
PATIENCE = {"socket.timeout.ms": 10_000, "reconnect.backoff.max.ms": 500, "log_level": 2}


class CommitAsker(Worker):
    """Asks one broker what the group has committed. An answer may not lie before what had been acknowledged
    to a member, or answered by any broker, when the question was asked."""

    def __init__(self, broker, crowd, furthest):
        super().__init__(f"asker of {broker.port}")
        self.broker, self.crowd, self.furthest = broker, crowd, furthest
        self.answers = 0

    def work(self):
        self.done.wait(0.1)
        acknowledged = self.crowd.committed()
        known = {n: max(acknowledged.get(n, -1), self.furthest.get(n, -1)) for n in range(PARTITIONS)}
        try:
            offsets = self.ask()
        except OSError:
            return  # it is dead or stopped
        if offsets is None:
            return
        self.answers += 1
        for partition, least in known.items():
            told = offsets[partition]
            self.furthest[partition] = max(self.furthest.get(partition, -1), told)
            if told < least:
                self.problems.append(f"{self.broker.port} says {told} of partition {partition}, after {least}")

    def ask(self):
        with Connection(self.broker.bootstrap, timeout=10) as connection:
            everything = {self.crowd.topic: list(range(PARTITIONS))}
            error, found = fetched(connection.ask(fetch(9, self.crowd.group, everything)))
        errors = {error, *(error for error, _, _ in found.values())} - {0}
        if errors - RETRIABLE:
            self.problems.append(f"{self.broker.port} answered {errors}")
        return None if errors else {partition: offset for partition, (_, offset, _) in found.items()}


@pytest.fixture
def at_work(cluster, tmp_path):  # noqa: F811
    """Starts a group of ten that reads and commits what is written, and whoever watches its commits."""
    started = []

    def start(protocol):
        topic = new_topic(cluster.brokers[0], f"read-by-{protocol}", PARTITIONS)
        crowd = Crowd(cluster.bootstrap, f"group-{protocol}", topic, PARTITIONS, tmp_path, protocol == "classic")
        started.append(crowd)
        for _ in range(MEMBERS):
            crowd.join("confluent", **SETTINGS[protocol], **PATIENCE)
        crowd.settle()
        return Work(cluster, crowd)

    yield start
    for crowd in started:
        crowd.close()


class Work:
    def __init__(self, cluster, crowd):  # noqa: F811
        self.cluster, self.crowd = cluster, crowd
        self.writer = Writer(cluster.bootstrap, crowd.topic, PARTITIONS)
        furthest = {}
        self.askers = [CommitAsker(broker, crowd, furthest) for broker in cluster.brokers]
        for worker in (self.writer, *self.askers):
            worker.start()
        self.wait_progress()

    def wait_progress(self, seconds=90):
        """Waits until there are new commits of every partition."""
        before = self.crowd.committed()

        def has_progress():
            for member in self.crowd.present:
                member.check_alive()
            now = self.crowd.committed()
            return len(now) == PARTITIONS and all(now[n] > before.get(n, -1) for n in now)

        until(has_progress, lambda: f"new commits everywhere: {before}, {self.crowd.committed()}", seconds)

    def memberships(self):
        """What each member has been given so far, and in which generations it has committed."""
        return [
            (member.told("owns"), {event["generation"] for event in member.told("committed")})
            for member in self.crowd.present
        ]

    def finish(self):
        """Ends the work and checks all of it."""
        written, ends = self.writer.stop(), self.writer.ends()
        until(lambda: self.crowd.committed() == ends, lambda: f"all is committed: {self.crowd.committed()}, not {ends}")
        for asker in self.askers:
            until(lambda: asker.ask() == ends, lambda: f"{ends} from {asker.broker.port}, not {asker.ask()}")  # noqa: B023
            asker.finish()
            assert asker.answers
        for member in list(self.crowd.present):
            self.crowd.leave(member)
        assert set(self.crowd.values()) == written
        self.crowd.check_owners()
        refused = [event["error"] for member in self.crowd.all for event in member.told("refused")]
        print(f"{len(written)} records, {sum(it.answers for it in self.askers)} answers, refused: {refused}")


def coordinator_of(cluster, group):  # noqa: F811
    """The broker that all of them name."""

    def named():
        names = set()
        for broker in cluster.brokers:
            response = wire.call(broker.bootstrap, FIND_COORDINATOR, 0, wire.text(group))
            error, _node = response.take("hi")
            response.bytes(response.take("h"))
            names.add(None if error else response.take("i"))
        return len(names) == 1 and names.pop()

    port = until(named, f"one coordinator of {group}")
    (broker,) = [broker for broker in cluster.brokers if broker.port == port]
    return broker


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_group_goes_on_as_it_is_when_its_coordinator_dies(cluster, at_work, protocol):  # noqa: F811
    work = at_work(protocol)
    before = work.memberships()
    coordinator = coordinator_of(cluster, work.crowd.group)
    coordinator.kill()
    work.wait_progress()
    assert work.memberships() == before
    coordinator.start()
    cluster.wait_complete()
    work.wait_progress()
    assert work.memberships() == before
    work.finish()


def test_a_coordinator_that_was_stopped_neither_commits_nor_answers_for_its_groups(cluster, at_work):  # noqa: F811
    work = at_work("classic")
    sleeper = coordinator_of(cluster, work.crowd.group)
    zombie = Zombie(cluster, sleeper, work.crowd.topic)
    sleeper.pause()
    began = time.monotonic()
    zombie.send_commit()
    work.wait_progress()
    zombie.be_replaced()
    time.sleep(max(0, STOPPED - (time.monotonic() - began)))
    before = work.memberships()
    sleeper.go_on()
    zombie.check()
    cluster.wait_complete()
    work.wait_progress()
    # It has heard of nobody for a minute, which says nothing about them.
    assert work.memberships() == before
    work.finish()


class Zombie:
    """A member of a group of the same coordinator. What it sent when that was stopped comes late: by then
    it is not in the group any more, and another has committed."""

    def __init__(self, cluster, coordinator, topic):  # noqa: F811
        self.cluster, self.coordinator, self.topic = cluster, coordinator, topic
        names = (f"zombie-{n}" for n in range(1000))
        self.group = next(name for name in names if coordinator_of(cluster, name) is coordinator)
        self.connection = Connection(coordinator.bootstrap)
        self.joined = join_alone(self.connection, self.group)
        assert commit_errors(self.connection.ask(self.commit(10))) == {0: 0}

    def commit(self, offset):
        joined = self.joined
        return commit(9, self.group, {self.topic: {0: offset}}, joined.generation_id, joined.member_id)

    def send_commit(self):
        self.late = self.commit(20)
        self.connection.send(self.late)

    def be_replaced(self):
        """Another joins when the first has been silent for too long, and commits."""
        successor = until(lambda: self.joined_elsewhere(), "a new member in the group", 90)
        assert successor.generation_id > self.joined.generation_id
        assert [it.member_id for it in successor.members] == [successor.member_id]

    def joined_elsewhere(self):
        others = [broker for broker in self.cluster.brokers if broker is not self.coordinator]
        for broker in others:
            with Connection(broker.bootstrap) as connection:
                joined = join_alone(connection, self.group)
                if joined.error_code == 0:
                    asked = commit(9, self.group, {self.topic: {0: 30}}, joined.generation_id, joined.member_id)
                    assert commit_errors(connection.ask(asked)) == {0: 0}
                    return joined
                assert joined.error_code in RETRIABLE
        return None

    def check(self):
        try:
            (error,) = commit_errors(self.connection.receive(self.late)).values()
            print(f"the late commit: {error}")
            assert error in RETRIABLE | {ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID}
        except OSError as dropped:
            print(f"the late commit: {dropped}")
        joined = self.joined
        for broker in self.cluster.brokers:

            def is_refused(broker=broker):
                try:
                    with Connection(broker.bootstrap) as connection:
                        asked = heartbeat(4, self.group, joined.generation_id, joined.member_id)
                        error = connection.ask(asked).error_code
                        (other,) = commit_errors(connection.ask(self.commit(20))).values()
                        told = fetched(connection.ask(fetch(9, self.group, {self.topic: [0]})))
                except OSError:  # one that wakes up drops its connections, also those of a moment ago
                    return False
                assert {error, other} <= RETRIABLE | {ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID}
                assert told[0] or told[1][0][0] or told == (0, {0: (0, 30, "")})
                return not told[0] and not told[1][0][0]

            until(is_refused, f"an answer of {broker.port}")


def join_alone(connection, group):
    """Joins and takes everything. The answer to JoinGroup."""
    joined = connection.ask(join(9, group, session=10_000, rebalance=5_000))
    if joined.error_code == MEMBER_ID_REQUIRED:
        joined = connection.ask(join(9, group, joined.member_id, session=10_000, rebalance=5_000))
    if joined.error_code == 0:
        shares = {joined.member_id: b"everything"}
        assert connection.ask(sync(5, group, joined.generation_id, joined.member_id, shares)).error_code == 0
    return joined
