"""Exactly once, whatever happens: pipelines of Java clients (the second transaction protocol) and of
confluent-kafka (the first) over three brokers that are killed, stopped and continued, over stores that
fail, with members that die and that come back from the dead. transaction_ledger.py has the rules.

CHAOS_SECONDS lengthens the tests that play dice, CHAOS_SEED gives them another order. With SERVER=kafka
the pipeline runs over one Apache Kafka and only its members are in danger, to check the suite itself."""

import functools
import itertools
import json
import os
import subprocess
import threading
import time

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

import wire
from cloud import until
from conftest import AGAINST_KAFKA, create_topic
from members import PROTOCOLS
from pipeline import CONFLUENT, JAVA, PARTITIONS, LibraryReader, Pipeline, Programs, report
from test_cluster import (  # noqa: F401: fixtures
    PAUSE,
    chance,
    cluster,
    killed,
    killed_until_expired,
    new_cluster,
    paused,
    proxies,
    restarted,
    stores,
)
from transaction_ledger import ABORT, COMMIT, OUTPUTS, Attempt

only_odradek = pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")

CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS", 0))  # beyond one round of every fault
CHAOS_SEED = int(os.environ.get("CHAOS_SEED", 1))
MEMBERS = (JAVA, CONFLUENT, JAVA, CONFLUENT)
SHORT_PAUSE = 5  # seconds; less than what others expire a broker after, more than what clients wait
FIND_COORDINATOR, TRANSACTION = 10, 1
names = itertools.count(1)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return Programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def new_pipeline(programs, tmp_path):
    """Makes pipelines over brokers; their processes are killed at the end."""
    made = []

    def new(brokers, **options):
        directory = tmp_path / f"pipeline-{len(made)}"
        directory.mkdir()
        topics = [f"{name}-{next(names)}" for name in ("input", *OUTPUTS)]
        admin = AdminClient({"bootstrap.servers": brokers[0].bootstrap})
        for topic in topics:
            create_topic(admin, topic, PARTITIONS)
        made.append(Pipeline(programs, brokers, topics, directory, CHAOS_SEED, **options))
        return made[-1]

    yield new
    for pipeline in made:
        pipeline.kill()


# --- members that die ------------------------------------------------------------------------------------


@pytest.fixture
def brokers(request):
    """Brokers that nothing happens to."""
    if AGAINST_KAFKA:
        return [request.getfixturevalue("start_broker")()]
    return request.getfixturevalue("cluster").brokers


# With the new protocol of groups, one that is killed stays in the group for 45 seconds.
MEMBER_FAULTS = {
    "classic": [("restart", JAVA), ("supplant", CONFLUENT), ("supplant", JAVA), ("stall", CONFLUENT)],
    "consumer": [("supplant", CONFLUENT), ("relieve", JAVA), ("supplant", JAVA)],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_members_that_die_and_come_back_leave_each_record_once(brokers, new_pipeline, protocol):
    pipeline = new_pipeline(brokers, protocol=protocol).start(*MEMBERS)
    for _ in rounds():
        for fault, kind in MEMBER_FAULTS[protocol]:
            member = pipeline.dice.choice([member for member in pipeline.present if member.kind == kind])
            pipeline.note(f"{fault} {member.name}")
            getattr(pipeline, fault)(member)
            pipeline.wait_progress()
    pipeline.finish()


def rounds():
    """One, and more until CHAOS_SECONDS are over."""
    deadline = time.monotonic() + CHAOS_SECONDS
    for number in itertools.count():
        if number and time.monotonic() > deadline:
            return
        yield number


# --- brokers that die, and stores that fail ----------------------------------------------------------------


def paused_shortly(cluster, broker):  # noqa: F811
    broker.pause()
    time.sleep(SHORT_PAUSE)
    broker.go_on()


def beside(fault, *arguments):
    """Runs a fault while others happen."""
    failed = []

    def run():
        try:
            fault(*arguments)
        except Exception as error:  # noqa: BLE001: it is raised by who waits for it
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait():
        thread.join()
        if failed:
            raise failed[0]

    return wait


def paused_and_another_killed(cluster, broker):  # noqa: F811
    wait = beside(paused, cluster, broker)
    killed(cluster, next(other for other in cluster.brokers if other is not broker))
    wait()


FIRST_ROUND = (killed, paused_shortly, paused_and_another_killed)
BROKER_FAULTS = (*FIRST_ROUND, paused, restarted, killed_until_expired)


@only_odradek
def test_brokers_that_die_and_stop_tear_double_and_lose_no_transaction(cluster, new_pipeline):  # noqa: F811
    pipeline = new_pipeline(cluster.brokers).start(*MEMBERS)
    for number in rounds():
        faults = BROKER_FAULTS if number else FIRST_ROUND
        for fault in pipeline.dice.sample(faults, len(faults)):
            broker = pipeline.dice.choice(cluster.brokers)
            pipeline.note(f"{broker.port} is {fault.__name__}")
            wait = beside(fault, cluster, broker)
            if fault != paused_shortly:
                pipeline.restart(pipeline.dice.choice(pipeline.present))
            wait()
            pipeline.wait_progress()
    cluster.wait_complete()
    pipeline.finish()


# What goes wrong for some seconds, on the way to S3 and on the way to DynamoDB.
LOST = {"reply_lost": chance(0.2), "error_after": chance(0.1), "duplicate": chance(0.1)}
LATE = {"late": chance(0.2, "Put"), "late_max_ms": 6000, "delay": chance(0.3), "delay_max_ms": 400}
FAILED = {"error_before": chance(0.3), "error_after": chance(0.1)}
STORMS = {
    "replies are lost": (LOST, LOST, 8),
    "requests are late": (LATE, LATE, 8),
    "requests fail": (FAILED, FAILED, 5),
    "S3 is out": ({"outage": True}, {}, 6),
    "DynamoDB does not answer": ({}, {"black_hole": True}, 6),
}


@only_odradek
def test_stores_that_misbehave_tear_double_and_lose_no_transaction(new_cluster, stores, proxies, new_pipeline):  # noqa: F811
    cluster = new_cluster(stores.new_place(*proxies)).start()  # noqa: F811
    pipeline = new_pipeline(cluster.brokers).start(*MEMBERS)
    for _ in rounds():
        for name, (*faults, seconds) in STORMS.items():
            pipeline.note(name)
            for proxy, its_faults in zip(proxies, faults):
                proxy.faults(**its_faults)
            pipeline.restart(pipeline.dice.choice(pipeline.present))
            time.sleep(seconds)
            for proxy in proxies:
                proxy.faults()
            pipeline.wait_progress()
    cluster.wait_complete()
    pipeline.finish()
    cluster.check_alive()


# --- a coordinator that wakes up with an old request -------------------------------------------------------


class JavaProducer:
    """A transactional producer with a script. Calls return at once; `wait` tells how they ended."""

    settings = {"request.timeout.ms": 3000, "max.block.ms": 60_000, "linger.ms": 2, "reconnect.backoff.max.ms": 500}

    def __init__(self, programs, bootstrap, transactional_id):
        own = {"bootstrap.servers": bootstrap, "transactional.id": transactional_id}
        command = programs.command("ScriptedProducer", json.dumps(self.settings | own))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.calls = 1  # initTransactions

    def call(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        self.calls += 1

    def wait(self):
        answers = [self.process.stdout.readline().strip() for _ in range(self.calls)]
        self.calls = 0
        return [answer for answer in answers if answer != "ok"]

    def close(self):
        self.process.kill()
        self.process.communicate()


class ConfluentProducer:
    """The same with librdkafka."""

    settings = {"socket.timeout.ms": 3000, "linger.ms": 2, "reconnect.backoff.max.ms": 500, "log_level": 2}

    def __init__(self, _, bootstrap, transactional_id):
        own = {"bootstrap.servers": bootstrap, "transactional.id": transactional_id}
        self.producer = Producer(self.settings | own)
        self.errors = []
        self.todo = []
        self.there_is_more = threading.Condition()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()
        self.do(self.producer.init_transactions)

    def work(self):
        while True:
            with self.there_is_more:
                self.there_is_more.wait_for(lambda: self.todo)
                call = self.todo[0]
            if call:
                try:
                    call()
                except KafkaException as raised:
                    self.errors.append(str(raised))
            with self.there_is_more:
                self.todo.pop(0)
                self.there_is_more.notify_all()
            if not call:
                return

    def do(self, call):
        with self.there_is_more:
            self.todo.append(call)
            self.there_is_more.notify_all()

    def call(self, what, *about):
        calls = {
            "begin": self.producer.begin_transaction,
            "send": self.send,
            "flush": self.producer.flush,
            "commit": functools.partial(self.insist, self.producer.commit_transaction),
            "abort": functools.partial(self.insist, self.producer.abort_transaction),
        }
        self.do(functools.partial(calls[what], *about))

    def send(self, topic, partition, value):
        self.producer.produce(topic, value, partition=partition)

    @staticmethod
    def insist(call):
        """A call that timed out is to be made again."""
        while True:
            try:
                return call(20)
            except KafkaException as raised:
                if not raised.args[0].retriable():
                    raise

    def wait(self):
        with self.there_is_more:
            assert self.there_is_more.wait_for(lambda: not self.todo, 120), "a call does not return"
        errors, self.errors = self.errors, []
        return errors

    def close(self):
        self.do(None)


PRODUCERS = {JAVA: JavaProducer, CONFLUENT: ConfluentProducer}
SENT = 2 * PARTITIONS  # records of a transaction, in each output
# What the old request wants, and how the next transaction ends.
ENDINGS = tuple(itertools.product((COMMIT, ABORT), repeat=2))


class Script:
    """One producer, whose coordinator stops when it is to end the first of two transactions."""

    def __init__(self, producer, name, endings, topics):
        self.producer, self.name, self.topics = producer, name, topics
        self.first, self.second = endings

    def send(self, attempt, fate, half):
        """Half of a transaction's records, over all partitions of both topics."""
        for index in range(half * SENT // 2, (half + 1) * SENT // 2):
            for topic in self.topics:
                value = f"{attempt * SENT + index} {self.name} {attempt} {index} {SENT} {fate}"
                self.producer.call("send", topic, index % PARTITIONS, value)
        self.producer.call("flush")

    def wait(self):
        errors = self.producer.wait()
        assert not errors, f"{self.name}: {errors}"

    def committed(self):
        fates = (self.first, self.second)
        return {Attempt(self.name, number) for number, fate in enumerate(fates) if fate == COMMIT}


@only_odradek
@pytest.mark.parametrize("seconds", [SHORT_PAUSE, PAUSE], ids=["shortly", "until-expired"])
def test_the_end_of_a_transaction_that_comes_late_does_not_end_the_next(cluster, programs, seconds):  # noqa: F811
    topics = {output: f"{output}-{next(names)}" for output in OUTPUTS}
    for topic in topics.values():
        create_topic(AdminClient(cluster.brokers[0].client()), topic, PARTITIONS)
    sleeper = cluster.brokers[1]
    reader = LibraryReader(cluster.bootstrap, topics, told={})
    reader.start()
    ids = ids_of(cluster, sleeper)
    scripts = [
        Script(PRODUCERS[kind](programs, cluster.bootstrap, next(ids)), f"{kind}-{n}", endings, topics.values())
        for kind in PRODUCERS
        for n, endings in enumerate(ENDINGS)
    ]
    for script in scripts:
        script.producer.call("begin")
        script.send(0, script.first, half=0)
        script.send(0, script.first, half=1)
    for script in scripts:
        script.wait()
    sleeper.pause()
    for script in scripts:
        script.producer.call(script.first)
        script.producer.call("begin")
        script.send(1, script.second, half=0)
    time.sleep(seconds)
    if seconds == PAUSE:
        # Another has become their coordinator, and they are in the middle of the second transaction.
        for script in scripts:
            script.wait()
    sleeper.go_on()
    cluster.wait_complete()
    for script in scripts:
        script.wait()
        script.send(1, script.second, half=1)
        script.producer.call(script.second)
    for script in scripts:
        script.wait()
        script.producer.close()
    expected = set().union(*(script.committed() for script in scripts))
    count = len(expected) * SENT * len(OUTPUTS)
    until(lambda: len(reader.ledger.records) >= count, lambda: f"{count} records: {len(reader.ledger.records)}")
    reader.finish()
    aborted = [problem for problem in reader.ledger.problems if problem.startswith(("G1a", "offsets", "order"))]
    found = [*aborted, *reader.ledger.torn()]
    assert not found, report(found)
    assert {record.attempt for record in reader.ledger.records} == expected


def ids_of(cluster, broker):  # noqa: F811
    """Transactional ids whose coordinator is this broker."""
    for number in itertools.count():
        name = f"late-{next(names)}-{number}"
        response = wire.call(cluster.brokers[0].bootstrap, FIND_COORDINATOR, 1, wire.text(name) + bytes([TRANSACTION]))
        _throttle_time, error = response.take("ih")
        assert error == 0
        response.bytes(max(response.take("h"), 0))  # no message
        response.take("i")  # node
        response.bytes(response.take("h"))
        if response.take("i") == broker.port:
            yield name
