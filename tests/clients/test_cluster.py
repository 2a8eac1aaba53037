"""Brokers that own nothing: several processes over one bucket and one table, any of which may die, be
stopped or be told to go at any moment, over stores that do not always answer.

CHAOS_SECONDS lengthens the test with deaths and stops, CHAOS_SEED gives it another order."""

import functools
import os
import random
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

import cloud
from cloud import CloudBroker, Cluster, FaultProxy, Stores, until
from conftest import AGAINST_KAFKA, create_topic

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")

CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS", 45))
CHAOS_SEED = int(os.environ.get("CHAOS_SEED", 1))
PARTITIONS = 6
SILENCE_MAX = 12  # seconds after which the others expire a broker
PAUSE = SILENCE_MAX + 4
OUTAGE = 20  # seconds
MEMORY_MAX = 600 << 20  # bytes
FLOOD = 700  # records of 100 kB from each of 8 producers: 560 MB, when 64 + 32 MiB are given
FLOOD_MEMORY_MAX = 400 << 20  # bytes
BURST, BACKLOG = 20, 1_000  # records that a writer sends at once, and leaves without an answer

NOT_COORDINATOR = KafkaError.NOT_COORDINATOR

# What a broker may answer when it does not know, or not yet: never an offset, never "there is none".
RETRIABLE = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.OFFSET_NOT_AVAILABLE,
}
# What a client says of connections that end, and goes on.
TRANSPORT = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}


# --- the cluster ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    stores = Stores(tmp_path_factory.mktemp("stores"))
    yield stores.start()
    stores.kill()


@pytest.fixture
def new_cluster(tmp_path):
    """Makes clusters; they are killed at the end, and what they logged is shown if the test failed."""
    clusters = []

    def new(place, *flags, **options):
        clusters.append(Cluster(tmp_path / f"cluster-{len(clusters)}", place, *flags, **options))
        return clusters[-1]

    yield new
    for cluster in clusters:
        cluster.kill()
        print(cluster.log_tails())


@pytest.fixture
def cluster(new_cluster, stores):
    """Three brokers that serve, and that are still there at the end."""
    cluster = new_cluster(stores.new_place()).start()
    yield cluster
    cluster.check_alive()


def new_topic(broker, name="ledger", partitions=PARTITIONS):
    create_topic(AdminClient(broker.client()), name, partitions)
    return name


# --- the work ------------------------------------------------------------------------------------------


class Worker(threading.Thread):
    """A thread that works until it is told to finish; what went wrong in it goes wrong in `finish`."""

    def __init__(self, name):
        super().__init__(name=name, daemon=True)
        self.problems = []
        self.done = threading.Event()

    def run(self):
        try:
            while not self.done.is_set():
                self.work()
        except Exception as error:  # noqa: BLE001: it is raised by `finish`
            self.problems.append(repr(error))

    def work(self):
        raise NotImplementedError

    def on_error(self, error):
        """What a client tells its user beside the records."""
        if error.code() not in TRANSPORT:
            self.problems.append(str(error))

    def finish(self):
        self.done.set()
        self.join(60)
        assert not self.is_alive(), f"{self.name} hangs"
        self.check()

    def check(self):
        assert not self.problems, f"{len(self.problems)} problems of {self.name}: {self.problems[:5]}"


class Writer(Worker):
    """An idempotent producer of numbered records, each to the partition that its number says."""

    def __init__(self, name, topic, settings):
        super().__init__(name)
        self.topic = topic
        self.count = 0
        self.acknowledged = {}  # {number: offset}
        self.ends = [0] * PARTITIONS  # behind the last acknowledged record
        self.producer = Producer(
            {
                "enable.idempotence": True,
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
                "error_cb": self.on_error,
                **settings,
            }
        )

    def work(self):
        for _ in range(BURST):
            self.producer.produce(
                self.topic,
                self.record(self.count),
                partition=self.count % PARTITIONS,
                on_delivery=functools.partial(self.on_delivery, self.count),
            )
            self.count += 1
        self.producer.poll(0.02)
        while len(self.producer) > BACKLOG and not self.done.is_set():
            self.producer.poll(0.05)

    def record(self, number):
        return f"{self.name} {number}".encode()

    def on_delivery(self, number, error, message):
        if error:
            self.problems.append(f"record {number}: {error}")
            return
        if number in self.acknowledged:
            self.problems.append(f"record {number} was acknowledged twice")
        # None if the reply got lost and the client knows only by the success of a later batch. (What is
        # raised in a callback comes out of poll as a SystemError that says nothing.)
        offset = message.offset()
        self.acknowledged[number] = offset
        if offset is not None:
            partition = message.partition()
            self.ends[partition] = max(self.ends[partition], offset + 1)

    def finish(self):
        super().finish()
        left = self.producer.flush(120)
        assert left == 0, f"{left} records of {self.name} were not answered"
        self.check()
        assert len(self.acknowledged) == self.count

    def check_contents(self, contents):
        """That the partitions hold all of its records, once and in order, and where it was told."""
        mark = self.record(0).removesuffix(b"0")
        for partition, values in enumerate(contents):
            found = [int(value.removeprefix(mark)) for value in values if value.startswith(mark)]
            expected = list(range(partition, self.count, PARTITIONS))
            assert found == expected, f"{self.name}, partition {partition}: {difference(found, expected)}"
        for number, offset in self.acknowledged.items():
            if offset is not None:
                assert contents[number % PARTITIONS][offset] == self.record(number)


class Follower(Worker):
    """A consumer that reads all partitions from their beginning, and may miss and reorder nothing."""

    def __init__(self, name, topic, settings):
        super().__init__(name)
        self.seen = [[] for _ in range(PARTITIONS)]
        self.consumer = Consumer(
            {
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
                "error_cb": self.on_error,
                **settings,
            }
        )
        self.consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])

    def work(self):
        for message in self.consumer.consume(500, timeout=0.2):
            if message.error():
                self.problems.append(f"offset {message.offset()}: {message.error()}")
                continue
            seen = self.seen[message.partition()]
            if message.offset() != len(seen):
                self.problems.append(f"{message.partition()}: {message.offset()} came after {len(seen) - 1}")
            seen.append(message.value())

    def count(self):
        return sum(len(seen) for seen in self.seen)

    def finish_at(self, contents):
        """Waits until it has read all of this."""
        total = sum(len(values) for values in contents)
        until(lambda: self.problems or self.count() >= total, lambda: f"{total} records, not {self.count()}")
        self.finish()
        self.consumer.close()
        assert self.seen == contents


class EndWatcher(Worker):
    """Asks one broker where the partitions end. An answer may not lie before what had been acknowledged
    or answered by any broker when the question was asked."""

    def __init__(self, broker, topic, writers, highest):
        super().__init__(f"watcher of {broker.port}")
        self.broker, self.topic, self.writers = broker, topic, writers
        self.highest = highest  # of all watchers: the furthest end that was answered
        self.answers = 0
        self.partition = 0

    def work(self):
        partition = self.partition = (self.partition + 1) % PARTITIONS
        known = max([self.highest[partition], *(writer.ends[partition] for writer in self.writers)])
        try:
            error, end = self.broker.end_offset(self.topic, partition, timeout=5)
        except OSError:
            self.done.wait(0.1)  # it is dead or stopped
            return
        if error and error not in RETRIABLE:
            self.problems.append(f"{self.broker.port} answered error {error} for partition {partition}")
        if not error:
            self.answers += 1
            self.highest[partition] = max(self.highest[partition], end)
            if end < known:
                self.problems.append(f"{self.broker.port} says that {partition} ends at {end}, after {known}")
        self.done.wait(0.02)


class Workload:
    """Writers, followers and watchers of one topic at work."""

    def __init__(self, cluster, topic, writer_settings, followers=2):
        self.cluster, self.topic = cluster, topic
        anyone = {"bootstrap.servers": cluster.bootstrap}
        self.writers = [Writer(f"writer-{n}", topic, anyone | own) for n, own in enumerate(writer_settings)]
        self.followers = [Follower(f"follower-{n}", topic, anyone) for n in range(followers)]
        highest = [0] * PARTITIONS
        self.watchers = [EndWatcher(broker, topic, self.writers, highest) for broker in cluster.brokers]

    @property
    def workers(self):
        return [*self.writers, *self.followers, *self.watchers]

    def start(self):
        for worker in self.workers:
            worker.start()
        self.wait_progress()
        return self

    def wait_progress(self):
        """Waits until every writer has been acknowledged, and every follower has read, something new."""
        before = self.counts()

        def has_progress():
            for worker in self.workers:
                worker.check()
            return all(now > then for now, then in zip(self.counts(), before))

        until(has_progress, lambda: f"progress of all from {before}, not {self.counts()}", 90)

    def counts(self):
        return [len(it.acknowledged) for it in self.writers] + [it.count() for it in self.followers]

    def finish(self):
        """Ends the work and checks all of it against what each broker has to say."""
        for worker in [*self.writers, *self.watchers]:
            worker.finish()
        contents = read_through(self.cluster.brokers[0], self.topic)
        for broker in self.cluster.brokers[1:]:
            assert read_through(broker, self.topic) == contents, "all brokers have the same to read"
        for writer in self.writers:
            writer.check_contents(contents)
        for follower in self.followers:
            follower.finish_at(contents)
        assert all(watcher.answers for watcher in self.watchers)
        print(f"{sum(map(len, contents))} records, {sum(it.answers for it in self.watchers)} answers about ends")


def difference(found, expected):
    """Where two lists of numbers part, and how many are missing or too many."""
    at = next((n for n, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), min(len(found), len(expected)))
    missing, alien = len(set(expected) - set(found)), len(found) - len(set(found))
    return f"{missing} missing, {alien} doubled; from {at}: {found[at : at + 5]}, not {expected[at : at + 5]}"


def read_through(broker, topic, partitions=PARTITIONS):
    """All values of a topic by partition, read from this broker."""
    consumer = Consumer(broker.client(group_id="unused", enable_auto_commit=False, auto_offset_reset="error"))
    leads_to_it(consumer, broker, topic)
    contents = []
    for index in range(partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, index), timeout=30)
        assert low == 0
        values = []
        consumer.assign([TopicPartition(topic, index, 0)])
        while len(values) < high:
            messages = consumer.consume(min(high - len(values), 10_000), timeout=30)
            assert messages, f"partition {index} ends at {len(values)}, not at {high}"
            for message in messages:
                assert not message.error(), message.error()
                assert message.offset() == len(values)
                values.append(message.value())
        contents.append(values)
    consumer.close()
    return contents


def leads_to_it(client, broker, topic):
    """Asserts that a client with the settings of this broker talks to it about this topic."""
    metadata = client.list_topics(topic, timeout=30)
    leaders = {metadata.brokers[it.leader].port for it in metadata.topics[topic].partitions.values()}
    assert leaders == {broker.port}


def produce(broker, topic, values, partition=0):
    """Sends records through this broker and waits until they are acknowledged."""
    refused = []
    producer = Producer(broker.client(enable_idempotence=True))
    leads_to_it(producer, broker, topic)
    for value in values:
        on_delivery = lambda error, _: refused.append(error) if error else None  # noqa: E731
        producer.produce(topic, value, partition=partition, on_delivery=on_delivery)
    assert producer.flush(60) == 0
    assert not refused, refused[:3]


# --- what one says, all know ---------------------------------------------------------------------------


def test_a_topic_made_on_one_broker_is_there_on_every_other(cluster):
    for number, maker in enumerate(cluster.brokers):
        name = new_topic(maker, f"made-by-{number}")
        for broker in cluster.brokers:
            found = AdminClient(broker.client()).list_topics(name, timeout=30).topics[name]
            assert found.error is None
            assert len(found.partitions) == PARTITIONS
            assert broker.end_offset(name, PARTITIONS - 1) == (0, 0)


def test_what_is_produced_through_one_broker_is_read_through_every_other(cluster):
    topic = new_topic(cluster.brokers[0], partitions=1)
    expected = []
    for number in range(6):
        maker = cluster.brokers[number % 3]
        values = [f"{number}-{n}".encode() for n in range(100)]
        produce(maker, topic, values)
        expected += values
        for broker in cluster.brokers:
            assert broker.end_offset(topic) == (0, len(expected))
            assert read_through(broker, topic, 1) == [expected]


def test_an_offset_committed_through_its_coordinator_is_at_once_fetched_through_every_broker(cluster):
    topic = new_topic(cluster.brokers[0])
    produce(cluster.brokers[0], topic, [b"x"] * 60, partition=3)
    for offset in range(1, 31):
        group = f"readers-{offset % 5}"
        # Only the group's coordinator takes it; which one that is all agree on.
        errors = [broker.commit(group, topic, 3, offset) for broker in cluster.brokers]
        assert sorted(errors) == [0, NOT_COORDINATOR, NOT_COORDINATOR]
        for broker in cluster.brokers:
            assert broker.committed(group, topic, 3) == (0, offset)


def test_a_client_commits_and_another_that_knows_another_broker_goes_on_there(cluster):
    topic = new_topic(cluster.brokers[0])
    produce(cluster.brokers[0], topic, [b"%d" % n for n in range(20)])
    settings = {"group_id": "workers", "enable_auto_commit": False, "auto_offset_reset": "error"}
    for number in range(6):
        consumer = Consumer(cluster.brokers[number % 3].client(**settings))
        if number:
            at = consumer.committed([TopicPartition(topic, 0)], timeout=30)[0].offset
            assert at == 3 * number
        consumer.assign([TopicPartition(topic, 0, 3 * number)])
        values = []
        while len(values) < 3:
            values += [(it.error(), it.value()) for it in consumer.consume(3 - len(values), timeout=30)]
        assert values == [(None, b"%d" % n) for n in range(3 * number, 3 * number + 3)]
        consumer.commit(offsets=[TopicPartition(topic, 0, 3 * number + 3)], asynchronous=False)
        consumer.close()


# --- brokers that go -----------------------------------------------------------------------------------

# The second kind gives up on a stopped broker and asks another while its request may still be on its way.
DIFFERENT_WRITERS = ({}, {"request.timeout.ms": 4000}, {"acks": "all", "compression.type": "zstd"})


def killed(cluster, broker):
    broker.kill()
    time.sleep(2)
    broker.start()


def killed_until_expired(cluster, broker):
    broker.kill()
    others = [other for other in cluster.brokers if other is not broker]
    expired = lambda: all(broker.port not in cluster.named_by(other) for other in others)  # noqa: E731
    until(expired, "a dead broker is expired")
    broker.start()


def paused(cluster, broker):
    broker.pause()
    time.sleep(PAUSE)
    broker.go_on()


def restarted(cluster, broker):
    broker.stop_in_order()
    broker.start()


def test_deaths_and_stops_lose_double_and_reorder_nothing(cluster):
    topic = new_topic(cluster.brokers[0])
    work = Workload(cluster, topic, DIFFERENT_WRITERS).start()
    dice = random.Random(CHAOS_SEED)
    deadline = time.monotonic() + CHAOS_SECONDS
    kinds = (killed, paused, restarted, killed_until_expired)
    # `first_round` is emptied with it: every kind happens once, however short the time.
    first_round = faults = dice.sample(kinds, len(kinds))
    while first_round or time.monotonic() < deadline:
        faults = faults or dice.sample(kinds, len(kinds))
        fault, broker = faults.pop(), dice.choice(cluster.brokers)
        print(f"{deadline - time.monotonic():.0f} s left: {broker.port} is {fault.__name__}")
        fault(cluster, broker)
        work.wait_progress()
    cluster.wait_complete()
    work.finish()


def test_a_rolling_restart_is_not_an_error_to_any_client(cluster):
    topic = new_topic(cluster.brokers[0])
    work = Workload(cluster, topic, ({}, {"acks": "all", "linger.ms": 50})).start()
    for broker in cluster.brokers:
        broker.stop_in_order()
        work.wait_progress()
        broker.start()
        cluster.wait_complete()
        work.wait_progress()
    work.finish()


def test_a_broker_that_was_stopped_answers_with_nothing_old(cluster):
    sleeper, *others = cluster.brokers
    topic = new_topic(sleeper, partitions=1)
    produce(sleeper, topic, [b"before"] * 10)
    commit(cluster.brokers, "readers", topic, 0, 10)
    connections = [sleeper.connect() for _ in range(4)]
    for connection in connections:
        cloud.ask_end_offset(connection, topic, 0)
        assert cloud.hear_end_offset(connection) == (0, 10)

    sleeper.pause()
    for broker in others:
        produce(broker, topic, [b"meanwhile"] * 10)
    commit(others, "readers", topic, 0, 20)
    time.sleep(PAUSE)
    new_topic(others[1], "new", partitions=1)
    # Asked on connections from before and on new ones, which its kernel takes while it is stopped.
    questions = [
        (cloud.ask_end_offset, (topic, 0), cloud.hear_end_offset, 30),
        (cloud.ask_end_offset, ("new", 0), cloud.hear_end_offset, 0),
        (cloud.ask_committed, ("readers", topic, 0), cloud.hear_committed, 20),
        (cloud.ask_records, (topic, 0, 30), cloud.hear_records, 30),
    ]
    asked = [(sleeper.connect(), question) for question in questions]
    asked += zip(connections, questions)
    for connection, (ask, about, _, _) in asked:
        ask(connection, *about)
    sleeper.go_on()

    for connection, (_, _, hear, expected) in asked:
        with connection:
            is_right(lambda: hear(connection), expected)  # noqa: B023
    for ask, about, hear, expected in questions:
        again = lambda: ask_anew(sleeper, ask, about, hear)  # noqa: B023, E731
        until(lambda: is_right(again, expected), f"a right answer to {ask.__name__}{about}")  # noqa: B023

    cluster.wait_complete()
    assert read_through(sleeper, topic, 1) == [[b"before"] * 10 + [b"meanwhile"] * 20]
    produce(sleeper, topic, [b"after"])
    assert [broker.end_offset(topic) for broker in cluster.brokers] == [(0, 31)] * 3


def commit(brokers, *position):
    """Commits a position through whoever of them coordinates the group, or comes to."""

    def is_committed():
        errors = [broker.commit(*position) for broker in brokers]
        assert set(errors) <= {0, NOT_COORDINATOR, *RETRIABLE}
        return 0 in errors

    until(is_committed, f"a commit of {position}")


def ask_anew(broker, ask, about, hear):
    with broker.connect() as connection:
        ask(connection, *about)
        return hear(connection)


def is_right(ask, expected):
    """Whether there is an answer; one that is neither right nor retriable fails the test."""
    try:
        error, offset = ask()
    except OSError as dropped:
        print(f"dropped: {dropped}")  # so does a broker with connections from before it was stopped
        return False
    print(f"error {error}, offset {offset}, {expected} expected")
    assert error in RETRIABLE or (error, offset) == (0, expected)
    return not error


# --- stores that do not answer -------------------------------------------------------------------------


@pytest.fixture
def proxies(stores, tmp_path):
    """A proxy before each of the stores; nothing goes wrong on them until it is told."""
    proxies = [FaultProxy(tmp_path / "s3", stores.s3), FaultProxy(tmp_path / "dynamodb", stores.dynamodb)]
    for proxy in proxies:
        proxy.start()
    yield proxies
    for proxy in proxies:
        print(f"{proxy.target.name}: {proxy.counts()}")
        proxy.kill()


def chance(probability, operations=""):
    return {"probability": probability, "operations": operations}


# What goes wrong for some seconds, on the way to S3 and on the way to DynamoDB.
LOST = {"reply_lost": chance(0.2), "error_after": chance(0.1), "duplicate": chance(0.1)}
LATE = {"late": chance(0.2, "Put"), "late_max_ms": 8000, "delay": chance(0.3), "delay_max_ms": 400}
FAILED = {"error_before": chance(0.3), "error_after": chance(0.1)}
THROTTLED = {"burst": chance(0.05), "burst_max": 40, "throttled": chance(0.2)}
STORMS = {
    "replies are lost": (LOST, LOST, 6),
    "requests are late": (LATE, LATE, 10),
    "requests fail": (FAILED, FAILED, 6),
    "requests are throttled": (THROTTLED, THROTTLED, 6),
    "S3 is out": ({"outage": True}, {}, OUTAGE),
    "DynamoDB is out": ({}, {"outage": True}, OUTAGE),
    "S3 does not answer": ({"black_hole": True}, {}, 6),
    "DynamoDB does not answer": ({}, {"black_hole": True}, 6),
}


def test_stores_that_misbehave_lose_and_double_nothing(new_cluster, stores, proxies):
    cluster = new_cluster(stores.new_place(*proxies)).start()
    processes = [broker.process.pid for broker in cluster.brokers]
    topic = new_topic(cluster.brokers[0])
    work = Workload(cluster, topic, DIFFERENT_WRITERS).start()
    began = time.monotonic()
    for name, (*faults, seconds) in STORMS.items():
        print(f"after {time.monotonic() - began:.0f} s: {name}")
        for proxy, its_faults in zip(proxies, faults):
            proxy.faults(**its_faults)
        time.sleep(seconds)
        if not any(fault.get("outage") or fault.get("black_hole") for fault in faults):
            work.wait_progress()
        for proxy in proxies:
            proxy.faults()
        work.wait_progress()
    cluster.wait_complete()
    work.finish()
    cluster.check_alive()
    assert [broker.process.pid for broker in cluster.brokers] == processes
    memory = [broker.peak_memory() for broker in cluster.brokers]
    print(f"peak memory: {[peak >> 20 for peak in memory]} MiB")
    assert max(memory) < MEMORY_MAX


@pytest.mark.parametrize("out", [0, 1], ids=["s3", "dynamodb"])
def test_what_piles_up_in_an_outage_stays_within_bounds(new_cluster, stores, proxies, out):
    flags = ["--memory", str(64 << 20), "--cache", str(32 << 20), "--merge-bytes", str(8 << 20)]
    cluster = new_cluster(stores.new_place(*proxies), *flags, brokers=1).start()
    broker = cluster.brokers[0]
    topic = new_topic(broker)
    refused = []
    on_delivery = lambda error, _: refused.append(error) if error else None  # noqa: E731
    plain = {"compression.type": "none", "batch.size": 1_000_000, "queue.buffering.max.kbytes": 1 << 20}
    producers = [Producer(broker.client() | plain) for _ in range(8)]
    proxies[out].faults(outage=True)
    value = random.Random(1).randbytes(100_000)
    for number in range(FLOOD):
        for producer in producers:
            producer.produce(topic, value, partition=number % PARTITIONS, on_delivery=on_delivery)
            producer.poll(0)
    time.sleep(6)
    # What is let in is bounded, the rest waits in sockets and clients.
    assert broker.peak_memory() < FLOOD_MEMORY_MAX
    assert sum(map(len, producers)) == FLOOD * len(producers), "nothing is acknowledged in an outage"
    proxies[out].faults()
    for producer in producers:
        assert producer.flush(120) == 0
    assert not refused, refused[:3]
    # A retry of these producers may write a record twice.
    ends = [broker.end_offset(topic, partition)[1] for partition in range(PARTITIONS)]
    assert sum(ends) >= FLOOD * len(producers)
    print(f"peak memory: {broker.peak_memory() >> 20} MiB")
    assert broker.peak_memory() < FLOOD_MEMORY_MAX


@pytest.mark.parametrize("last", ["S3", "DynamoDB"])
def test_a_broker_that_starts_before_its_stores_waits_for_them(new_cluster, tmp_path, last):
    stores = Stores(tmp_path)
    in_order = [stores.s3, stores.dynamodb] if last == "DynamoDB" else [stores.dynamodb, stores.s3]
    cluster = new_cluster(stores.new_place(), brokers=1)
    broker = cluster.brokers[0].launch()
    try:
        waits(broker, "waiting for ")
        in_order[0].start()
        waits(broker, f"waiting for {last}")
        in_order[1].start()
        broker.wait_ready()
        topic = new_topic(broker, partitions=1)
        produce(broker, topic, [b"at last"])
        assert read_through(broker, topic, 1) == [[b"at last"]]
    finally:
        stores.kill()


def waits(broker, words):
    """Waits until the broker says that it waits."""
    until(lambda: broker.check_alive() or words in broker.said(), lambda: f"{words!r}:\n{broker.log_tail()}")
    assert not broker.is_ready()


# --- one machine -----------------------------------------------------------------------------------------


def test_records_may_be_in_s3_and_their_order_on_files(stores, tmp_path):
    place = (stores.new_place()[0], f"file:{tmp_path}/log")
    broker = CloudBroker(tmp_path / "broker", place).start()
    try:
        topic = new_topic(broker)
        producer = Producer(broker.client())
        for number in range(100):
            producer.produce(topic, b"%d" % number, partition=0)
        assert producer.flush(30) == 0
        broker.kill()
        broker.start()
        assert broker.end_offset(topic) == (0, 100)
        consumer = Consumer(broker.client(**{"group.id": "unused"}))
        consumer.assign([TopicPartition(topic, 0, 0)])
        values = [message.value() for message in consumer.consume(100, timeout=30)]
        consumer.close()
        assert values == [b"%d" % number for number in range(100)]
    finally:
        broker.kill()
