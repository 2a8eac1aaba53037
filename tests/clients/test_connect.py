"""Kafka Connect, distributed: workers that keep connectors, offsets and states in three compacted topics, and
that find everything again there when they are started, however often those were compacted; files as sources
and sinks, exactly once too; and the mirror that copies topics from one cluster to another."""

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType

import short_lives
from cloud import until
from conftest import create_topic
from ecosystem import PATIENCE, Worker
from short_lives import log, numbered, tool  # noqa: F401: fixtures
from tools import CONSUMER_GROUPS, GROUPS, rows

SOURCE = "org.apache.kafka.connect.file.FileStreamSourceConnector"
SINK = "org.apache.kafka.connect.file.FileStreamSinkConnector"
MIRROR = "org.apache.kafka.connect.mirror.MirrorSourceConnector"
CHECKPOINTS = "org.apache.kafka.connect.mirror.MirrorCheckpointConnector"
HEARTBEATS = "org.apache.kafka.connect.mirror.MirrorHeartbeatConnector"


@pytest.fixture(scope="session")
def shared_broker(start_broker):
    return short_lives.start(start_broker)


@pytest.fixture
def cluster(new_name):
    return new_name()


@pytest.fixture
def new_worker(tmp_path, bootstrap, cluster):
    workers = []

    def make(**settings):
        name = f"worker-{len(workers)}"
        workers.append(Worker(tmp_path, bootstrap, cluster, name, **settings))
        return workers[-1]

    yield make
    for each in workers:
        each.kill()


@pytest.fixture
def worker(new_worker):
    return new_worker().start()


@pytest.fixture
def policy(admin):
    def of(topic):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return admin.describe_configs([resource])[resource].result(30)["cleanup.policy"].value

    return of


class Files:
    """A file that grows and the file that it is to become."""

    def __init__(self, directory, topic):
        self.topic = topic
        self.source, self.sink = directory / f"{topic}.in", directory / f"{topic}.out"
        self.lines = []
        self.write(numbered(100, "first"))

    def write(self, lines):
        self.lines += lines
        with self.source.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def arrived(self):
        return self.sink.read_text().splitlines() if self.sink.exists() else []

    def wait(self):
        until(lambda: set(self.arrived()) >= set(self.lines), lambda: f"{len(self.arrived())} lines", PATIENCE)

    def connect(self, worker, **settings):
        worker.connect(f"{self.topic}-source", SOURCE, file=self.source, topic=self.topic, **settings)
        worker.connect(f"{self.topic}-sink", SINK, file=self.sink, topics=self.topic, tasks_max=1)


@pytest.fixture
def files(tmp_path, topic):
    return Files(tmp_path, topic)


def test_a_worker_makes_the_topics_that_it_keeps_its_state_in(worker, cluster, policy, admin):
    topics = admin.list_topics(timeout=30).topics
    for kind, partitions in (("configs", 1), ("offsets", 3), ("status", 2)):
        assert len(topics[f"{cluster}-{kind}"].partitions) == partitions
        assert policy(f"{cluster}-{kind}") == "compact"


def test_a_worker_does_not_start_on_topics_that_forget(new_worker, cluster, admin):
    create_topic(admin, f"{cluster}-configs", 1, {"cleanup.policy": "compact"})
    create_topic(admin, f"{cluster}-status", 2, {"cleanup.policy": "compact"})
    create_topic(admin, f"{cluster}-offsets", 3, {"cleanup.policy": "delete"})
    worker = new_worker()
    super(Worker, worker).start()
    until(lambda: f"'{cluster}-offsets'" in worker.log.read_text(), worker.log_tail, PATIENCE)
    until(lambda: "cleanup.policy=compact" in worker.log.read_text(), worker.log_tail, PATIENCE)


def test_a_file_goes_through_a_topic_into_another_file(worker, files, log):
    files.connect(worker)
    files.wait()
    files.write(numbered(100, "second"))
    files.wait()
    assert files.arrived() == files.lines == log.values(files.topic)


def test_a_worker_that_comes_back_goes_on_where_it_was(worker, files, log):
    files.connect(worker)
    files.wait()
    worker.stop()
    files.write(numbered(100, "second"))
    worker.start()
    for connector in (f"{files.topic}-source", f"{files.topic}-sink"):
        worker.wait(connector, "RUNNING")
    files.wait()
    assert files.arrived() == files.lines == log.values(files.topic)


def test_a_worker_that_was_killed_loses_nothing(worker, files):
    files.connect(worker)
    for n in range(3):
        files.write(numbered(100, f"round {n}"))
        until(lambda: len(files.arrived()) > 0, "a line")
        worker.kill()
        worker.start()
        files.wait()


@pytest.fixture
def exactly_once(new_worker):
    return new_worker(exactly_once_source_support="enabled").start()


def test_a_source_writes_each_line_once_though_its_worker_is_killed(exactly_once, files, log):
    exactly_once.connect(
        f"{files.topic}-source", SOURCE, file=files.source, topic=files.topic, exactly_once_support="required"
    )
    for n in range(3):
        for part in range(5):
            files.write(numbered(40, f"round {n} part {part}"))
            until(lambda: log.end(files.topic) >= len(files.lines) - 40, "the lines before", PATIENCE)
        exactly_once.kill()
        exactly_once.start()
    until(lambda: len(log.values(files.topic)) >= len(files.lines), "all lines", PATIENCE)
    assert log.values(files.topic) == files.lines


def test_connectors_are_found_again_when_their_topics_were_compacted(worker, cluster, files, log, tmp_path):
    """Everything is said again and again, so that only a little is left of what was written."""
    topics = [f"{cluster}-{kind}" for kind in ("configs", "offsets", "status")]
    for topic in topics:
        log.configure(topic, min_cleanable_dirty_ratio=0.001, segment_ms=1, max_compaction_lag_ms=100)
    files.connect(worker)
    files.wait()
    source, sink = f"{files.topic}-source", f"{files.topic}-sink"
    worker.connect("deleted", SINK, file=tmp_path / "deleted", topics=files.topic, tasks_max=1)

    def say(n):
        worker.connect(source, SOURCE, file=files.source, topic=files.topic, batch_size=1000 + n)
        files.write([f"line {n}"])
        files.wait()

    for n in range(10):
        say(n)
    worker.tell("DELETE", "/connectors/deleted")
    worker.tell("PUT", f"/connectors/{sink}/pause")
    worker.wait(sink, "PAUSED")

    def left(topic, partitions):
        return len(log.read(topic, range(partitions)))

    said = 10

    def is_compacted():
        nonlocal said
        said += 1
        worker.connect(source, SOURCE, file=files.source, topic=files.topic, batch_size=1000 + said)
        return left(topics[0], 1) < log.end(topics[0]) / 2 and left(topics[2], 2) < 30

    until(is_compacted, lambda: f"{[log.values(topics[0])]}", PATIENCE)
    for end in (worker.stop, worker.kill):
        end()
        worker.start()
        worker.wait(source, "RUNNING")
        worker.wait(sink, "PAUSED")
        assert sorted(worker.tell("GET", "/connectors")) == [sink, source]
        assert worker.config(source)["batch.size"] == str(1000 + said)
    files.write(["the last"])
    until(lambda: log.values(files.topic)[-1] == "the last", "the last line", PATIENCE)
    assert log.values(files.topic) == files.lines, "the source went on where it was"
    worker.tell("PUT", f"/connectors/{sink}/resume")
    files.wait()
    assert files.arrived() == files.lines, "and so did the sink"


def test_offsets_of_a_source_can_be_read_changed_and_deleted(worker, files, log):
    source = f"{files.topic}-source"
    files.connect(worker)
    files.wait()
    size = files.source.stat().st_size

    def offsets():
        return worker.tell("GET", f"/connectors/{source}/offsets")["offsets"]

    expected = [{"partition": {"filename": str(files.source)}, "offset": {"position": size}}]
    until(lambda: offsets() == expected, offsets, PATIENCE)
    worker.tell("PUT", f"/connectors/{source}/stop")
    until(lambda: worker.states(source) == ["STOPPED"], lambda: worker.states(source), PATIENCE)
    worker.tell("DELETE", f"/connectors/{source}/offsets")
    until(lambda: offsets() == [], offsets, PATIENCE)
    worker.tell("PUT", f"/connectors/{source}/resume")
    worker.wait(source, "RUNNING")
    until(lambda: len(log.values(files.topic)) == 200, lambda: len(log.values(files.topic)), PATIENCE)
    assert log.values(files.topic) == files.lines * 2


def test_two_workers_share_the_tasks_and_one_takes_them_over(new_worker, tmp_path, new_topic, tool, cluster):
    workers = [new_worker().start(), new_worker().start()]
    some = [Files(tmp_path, new_topic()) for _ in range(2)]
    for files in some:
        files.connect(workers[0])
    connectors = [f"{files.topic}-{kind}" for files in some for kind in ("source", "sink")]
    until(lambda: len(workers[0].owners(*connectors)) == 2, lambda: workers[0].owners(*connectors), PATIENCE)
    for files in some:
        files.wait()
    (line,) = [row for row in rows(tool(GROUPS, "--list", "--protocol", "connect")) if row["GROUP"] == cluster]
    assert line["PROTOCOL"] == "connect"

    workers[0].kill()
    for files in some:
        files.write(numbered(100, "second"))
    until(lambda: len(workers[1].owners(*connectors)) == 1, lambda: workers[1].owners(*connectors), PATIENCE)
    for connector in connectors:
        workers[1].wait(connector, "RUNNING")
    for files in some:
        files.wait()


def test_sinks_are_groups_like_any_other(worker, files, tool):
    files.connect(worker)
    files.wait()
    group = f"connect-{files.topic}-sink"

    def lag():
        found = rows(tool(CONSUMER_GROUPS, "--describe", "--group", group))
        return [(row["CURRENT-OFFSET"], row["LAG"]) for row in found]

    until(lambda: lag() == [("100", "0")], lag, PATIENCE)


def test_topics_are_mirrored_with_their_configs_and_the_places_of_groups(
    worker, new_topic, log, tool, bootstrap, policy
):
    """Within one cluster: what is called x becomes other.x."""
    topic = new_topic(2, retention_ms=123456789, cleanup_policy="compact")
    for partition in range(2):
        log.send(topic, numbered(50), partition, keys=numbered(50, "key"))
    clusters = {
        "source.cluster.alias": "other",
        "target.cluster.alias": "this",
        "source.cluster.bootstrap.servers": bootstrap,
        "target.cluster.bootstrap.servers": bootstrap,
    }
    often = {f"{what}.interval.seconds": 1 for what in ("refresh.topics", "sync.topic.configs", "refresh.groups")}
    often |= {"emit.checkpoints.interval.seconds": 1, "emit.heartbeats.interval.seconds": 1}
    replicas = {
        f"{what}.topic.replication.factor": 1 for what in ("offset-syncs", "checkpoints", "heartbeats")
    } | {"replication.factor": 1}
    raw = "org.apache.kafka.connect.converters.ByteArrayConverter"
    common = {**clusters, **often, **replicas, "key.converter": raw, "value.converter": raw, "tasks.max": 2}
    group = f"{topic}-readers"
    worker.connect("mirror", MIRROR, **common, topics=topic, offset_lag_max=0)
    mirrored = f"other.{topic}"
    until(lambda: mirrored in log.admin.list_topics(timeout=30).topics, "the mirrored topic", PATIENCE)
    for partition in range(2):
        until(lambda partition=partition: log.end(mirrored, partition) == 50, "the records", PATIENCE)
        assert log.values(mirrored, partition) == numbered(50)

    def configs():
        resource = ConfigResource(ResourceType.TOPIC, mirrored)
        told = log.admin.describe_configs([resource])[resource].result(30)
        return told["retention.ms"].value, told["cleanup.policy"].value

    until(lambda: configs() == ("123456789", "compact"), configs, PATIENCE)
    log.send(topic, ["more"], keys=["more"])
    until(lambda: log.end(mirrored) == 51, "the record", PATIENCE)

    # At the end, because of what says which offset became which only the latest may be left: it is compacted.
    assert tool(
        *(CONSUMER_GROUPS, "--group", group, "--topic", topic, "--reset-offsets", "--to-latest", "--execute")
    )
    common |= {"sync.group.offsets.enabled": "true", "sync.group.offsets.interval.seconds": 1}
    worker.connect("checkpoints", CHECKPOINTS, **common, groups=group)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})

    def place():
        (committed,) = consumer.committed([TopicPartition(mirrored, 0)], 30)
        return committed.offset

    # Where it is sure that all before was read; which may be before where the group was.
    until(lambda: 0 < place() <= 51, place, PATIENCE)
    consumer.close()
    for internal in ("other.checkpoints.internal", "mm2-offset-syncs.this.internal"):
        assert policy(internal) == "compact"
    worker.connect("heartbeats", HEARTBEATS, **common)
    until(lambda: "heartbeats" in log.admin.list_topics(timeout=30).topics, "heartbeats", PATIENCE)
    until(lambda: log.end("heartbeats") > 2, "heartbeats", PATIENCE)


