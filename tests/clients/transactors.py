"""Transactional producers by hand, for both transaction protocols, and what a test of them asks of the log.

The fixtures are for suites whose `shared_broker` is one of `transaction_broker`."""

import time

import pytest

import group_wire
import transaction_wire as ask
from cloud import until
from conftest import AGAINST_KAFKA
from transaction_broker import wait_for_end, wait_for_leaders
from transaction_wire import READ_COMMITTED, Connection, batch

V1, V2 = 11, 12  # versions of Produce: the newest of the first transaction protocol, the oldest of the second
CONCURRENT_TRANSACTIONS = 51  # Kafka's error


@pytest.fixture
def new_topic(bootstrap, new_topic):
    def create(partitions=1, **settings):
        name = new_topic(partitions, **settings)
        wait_for_leaders(bootstrap, name, partitions)
        return name

    return create


@pytest.fixture
def connection(bootstrap):
    with Connection(bootstrap) as connection:
        yield connection


@pytest.fixture
def group(new_name):
    return f"{new_name()}-group"


class Transactor:
    """A transactional producer by hand, of the protocol that its version of Produce belongs to. What it does
    succeeds; the `ask_` methods return the errors of requests in which anything can be changed."""

    def __init__(self, connection, name, version=V2):
        self.connection, self.name, self.version = connection, name, version
        self.is_v2 = version >= V2
        self.topic_id = None  # for versions of Produce that name topics by it
        self.sequences = {}
        self.pid, self.epoch = ask.NO_PRODUCER, ask.NO_EPOCH

    def changed(self, changes):
        return {"name": self.name, "pid": self.pid, "epoch": self.epoch, **changes}

    def ask_init(self, version=5, **settings):
        """The error, the producer id and the epoch."""
        return init(self.connection, self.name, version, **settings)

    def init(self, **settings):
        error, self.pid, self.epoch = until_ended(lambda: self.ask_init(**settings), lambda it: it[0])
        assert error == 0
        self.sequences = {}
        return self

    def ask_add(self, *partitions, version=3, **changes):
        """`partitions` are topics, or pairs. `{(topic, partition): error}`."""
        named = {}
        for topic, partition in (it if isinstance(it, tuple) else (it, 0) for it in partitions):
            named.setdefault(topic, []).append(partition)
        return ask.added(self.connection.ask(ask.add_partitions(version, partitions=named, **self.changed(changes))))

    def add(self, *partitions, version=3):
        assert set(self.ask_add(*partitions, version=version).values()) == {0}
        return self

    def ask_produce(self, topic, data, partition=0, version=None, name=None):
        """The error and the offset."""
        version = self.version if version is None else version
        asked = ask.produce(version, self.name if name is None else name, {topic: {partition: data}}, self.topic_id)
        return ask.produced(self.connection.ask(asked))

    def batch(self, topic, values, partition=0, **changes):
        """The next batch of a partition, which is not remembered as sent."""
        known = {"pid": self.pid, "epoch": self.epoch, "sequence": self.sequences.get((topic, partition), 0)}
        return batch(values=values, **{**known, **changes})

    def send(self, topic, *values, partition=0, add=True):
        """Adds the partition, where that is not left to the broker, and returns the offset."""
        if add and not self.is_v2:
            self.add((topic, partition))
        error, offset = self.ask_produce(topic, self.batch(topic, values, partition), partition)
        assert error == 0
        self.sequences[topic, partition] = self.sequences.get((topic, partition), 0) + len(values)
        return offset

    def ask_end(self, committed, version=None, **changes):
        """The error, and what the answer says of the producer: its id and epoch, since version 5."""
        version = (5 if self.is_v2 else 4) if version is None else version
        answer = self.connection.ask(ask.end(version, committed=committed, **self.changed(changes)))
        return answer.error_code, answer.producer_id, answer.producer_epoch

    def end(self, committed, version=None):
        error, pid, epoch = self.ask_end(committed, version)
        assert error == 0
        if self.is_v2:
            assert (pid, epoch) == (self.pid, self.epoch + 1)
            self.pid, self.epoch, self.sequences = pid, epoch, {}
        self.wait()
        return self

    def wait(self):
        wait_for_end(self.connection.bootstrap, self.name)

    def commit(self, version=None):
        return self.end(True, version)

    def abort(self, version=None):
        return self.end(False, version)

    def describe(self):
        return ask.described(self.connection.ask(ask.describe(self.name)))[self.name]

    def state(self):
        return self.describe().transaction_state

    def ask_add_offsets(self, group, version=4, **changes):
        return self.connection.ask(ask.add_offsets(version, group=group, **self.changed(changes))).error_code

    def ask_commit_offsets(self, group, offsets, version=None, **changes):
        """`{partition: error}` of all topics together."""
        version = (5 if self.is_v2 else 4) if version is None else version
        asked = ask.commit_offsets(version, group=group, offsets=offsets, **self.changed(changes))
        return group_wire.commit_errors(self.connection.ask(asked))

    def commit_offsets(self, group, offsets, version=None, **changes):
        if not self.is_v2:
            assert self.ask_add_offsets(group) == 0
        errors = self.ask_commit_offsets(group, offsets, version, **changes)
        assert set(errors.values()) == {0}
        return self


def init(connection, name, version=5, **settings):
    answer = connection.ask(ask.init(version, name, **settings))
    return answer.error_code, answer.producer_id, answer.producer_epoch


def until_ended(ask_for, error_of):
    """Kafka refuses what comes while it ends a transaction; Odradek ends them in one step."""
    while error_of(answer := ask_for()) == CONCURRENT_TRANSACTIONS and AGAINST_KAFKA:
        time.sleep(0.01)
    return answer


def fetch(connection, topic, offset=0, isolation=READ_COMMITTED, **settings):
    return ask.fetched(connection.ask(ask.fetch(11, topic, offset, isolation, **settings)))


def values(connection, topic, **settings):
    """What a reader of committed records sees."""
    found = fetch(connection, topic, **settings)
    assert found.error == 0
    return found.values


def committed(connection, group, topic, partition=0, stable=True):
    """The error and the offset."""
    asked = group_wire.fetch(7, group, {topic: [partition]}, stable=stable)
    _, found = group_wire.fetched(connection.ask(asked))
    error, offset, _ = found[partition]
    return error, offset


@pytest.fixture(params=[V1, V2], ids=["v1", "v2"])
def transactor(request, connection, new_name):
    return Transactor(connection, new_name(), request.param).init()


@pytest.fixture
def v1(connection, new_name):
    return Transactor(connection, new_name(), V1).init()


@pytest.fixture
def v2(connection, new_name):
    return Transactor(connection, new_name(), V2).init()


@pytest.fixture
def other(connection, new_name):
    """A second producer, of the second protocol."""
    return Transactor(connection, new_name(), V2).init()
