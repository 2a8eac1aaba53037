"""The requests of transactions, one by one, of both transaction protocols: every version of each, and what no
client would send, each with the error that Kafka has for it."""

import struct
import time

import pytest
from kafka import KafkaAdminClient
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest

import group_wire
import transaction_wire as ask
import wire
from cloud import until
from conftest import AGAINST_KAFKA
from test_group_requests import Member
from transaction_broker import start_for_transactions
from transaction_wire import ABORT, COMMIT, Connection
from transactors import (  # noqa: F401: fixtures
    V1,
    V2,
    Transactor,
    committed,
    connection,
    fetch,
    group,
    init,
    new_topic,
    other,
    transactor,
    v1,
    v2,
    values,
)

PRODUCE, INIT, ADD_PARTITIONS, ADD_OFFSETS, END, WRITE_MARKERS, COMMIT_OFFSETS = 0, 22, 24, 25, 26, 27, 28
DESCRIBE_PRODUCERS, DESCRIBE, LIST = 61, 65, 66
VERSIONS = {
    PRODUCE: (3, 13),
    INIT: (0, 5),
    ADD_PARTITIONS: (0, 3),
    ADD_OFFSETS: (0, 4),
    END: (0, 5),
    WRITE_MARKERS: (1, 1),
    COMMIT_OFFSETS: (0, 5),
    DESCRIBE_PRODUCERS: (0, 0),
    DESCRIBE: (0, 0),
    LIST: (0, 2),
}
TRANSACTIONS = 1  # the type of coordinator
LONGEST_TIMEOUT = 900_000  # ms
LAST_EPOCH = 32_766  # of a producer id; one less than there is room for

# Kafka's errors.
UNKNOWN_TOPIC_OR_PARTITION, OFFSET_METADATA_TOO_LARGE, ILLEGAL_GENERATION = 3, 12, 22
INVALID_GROUP_ID, UNKNOWN_MEMBER_ID, INVALID_REQUEST, INVALID_PRODUCER_EPOCH = 24, 25, 42, 47
INVALID_TXN_STATE, INVALID_PRODUCER_ID_MAPPING, INVALID_TRANSACTION_TIMEOUT = 48, 49, 50
OPERATION_NOT_ATTEMPTED, FENCED_INSTANCE_ID, UNSTABLE_OFFSET_COMMIT, PRODUCER_FENCED = 55, 82, 88, 90
TRANSACTIONAL_ID_NOT_FOUND, TRANSACTION_ABORTABLE, INVALID_REGULAR_EXPRESSION = 105, 120, 128


@pytest.fixture(scope="module")
def shared_broker(start_broker):
    return start_for_transactions(start_broker)


# --- every version ---------------------------------------------------------------------------------------


def test_all_versions_are_offered(bootstrap):
    offered = wire.api_versions(bootstrap)
    for api, (lowest, highest) in VERSIONS.items():
        low, high = offered[api]
        assert low <= lowest
        assert high >= highest


def test_the_second_transaction_protocol_is_finalised(connection):
    told = connection.ask(ApiVersionsRequest(version=4, client_software_name="wire", client_software_version="1"))
    assert told.finalized_features_epoch >= 0
    assert {it.name: it.max_version for it in told.supported_features}["transaction.version"] >= 2
    for version in (3, 4):
        told = connection.ask(
            ApiVersionsRequest(version=version, client_software_name="wire", client_software_version="1")
        )
        assert {it.name: it.max_version_level for it in told.finalized_features}["transaction.version"] == 2


@pytest.mark.parametrize("version", range(1, 7))
def test_an_id_has_a_coordinator(connection, bootstrap, new_name, version):
    names = {"coordinator_keys": [new_name(), new_name()]} if version >= 4 else {"key": new_name()}
    told = connection.ask(FindCoordinatorRequest(version=version, key_type=TRANSACTIONS, **names))
    for one in told.coordinators if version >= 4 else [told]:
        assert one.error_code == 0
        assert f"{one.host}:{one.port}" == bootstrap


def id_of(bootstrap, topic):
    manager = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        return manager.describe_topics([topic])[0]["topic_id"]
    finally:
        manager.close()


@pytest.mark.parametrize("version", range(3, 14))
def test_transactions_of_every_version_are_committed_and_aborted(
    bootstrap, connection, new_name, topic, group, version
):
    of = {api: low + min(version - 3, high - low) for api, (low, high) in VERSIONS.items()}
    transactor = Transactor(connection, new_name(), version)
    if version >= 13:
        transactor.topic_id = id_of(bootstrap, topic)
    transactor.init(version=of[INIT])
    ends = commits = 5 if transactor.is_v2 else None
    if not transactor.is_v2:
        ends, commits = min(of[END], 4), min(of[COMMIT_OFFSETS], 4)
    expected = []
    for n, is_committed in enumerate((True, False, True)):
        sent = [b"%d %d" % (n, m) for m in range(3)]
        if not transactor.is_v2:
            transactor.add(topic, version=of[ADD_PARTITIONS])
            assert transactor.ask_add_offsets(group, version=of[ADD_OFFSETS]) == 0
        offset = transactor.send(topic, *sent, add=False)
        assert offset == 4 * n, "a marker takes an offset"
        assert transactor.ask_commit_offsets(group, {topic: {0: n}}, version=commits) == {0: 0}
        assert values(connection, topic) == expected
        transactor.end(is_committed, version=ends)
        expected += sent if is_committed else []
        assert values(connection, topic) == expected
        assert committed(connection, group, topic) == (0, 2 if n == 2 else 0)
    topic_id = id_of(bootstrap, topic)
    for reading in range(4, 18):
        found = ask.fetched(connection.ask(ask.fetch(reading, topic, topic_id=topic_id)))
        assert (found.error, found.high_watermark, found.last_stable) == (0, 12, 12)
        assert found.values == expected
        assert found.aborted == [(transactor.pid, 4)]
        assert [(offset, kind) for offset, _, kind in found.markers] == [(3, COMMIT), (7, ABORT), (11, COMMIT)]


# --- InitProducerId ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(6))
def test_without_a_transactional_id_every_producer_is_another(connection, version):
    given = [init(connection, None, version, timeout=2**31 - 1) for _ in range(5)]
    assert {(error, epoch) for error, _, epoch in given} == {(0, 0)}
    pids = {pid for _, pid, _ in given}
    assert len(pids) == 5
    assert min(pids) >= 0


@pytest.mark.parametrize("version", range(6))
def test_a_transactional_id_keeps_its_producer_id_and_gets_the_next_epoch(connection, new_name, version):
    name = new_name()
    error, pid, epoch = init(connection, name, version)
    assert (error, epoch) == (0, 0)
    for expected in range(1, 5):
        assert init(connection, name, version) == (0, pid, expected)
    assert init(connection, f"{name}-other", version)[1] != pid


@pytest.mark.parametrize("version", range(6))
def test_a_transactional_id_is_not_empty(connection, version):
    assert init(connection, "", version) == (INVALID_REQUEST, -1, -1)


@pytest.mark.parametrize("timeout", [-(2**31), -1, 0, LONGEST_TIMEOUT + 1, 2**31 - 1])
def test_a_timeout_is_neither_nothing_nor_longer_than_is_allowed(connection, new_name, timeout):
    for version in range(6):
        assert init(connection, new_name(), version, timeout=timeout) == (INVALID_TRANSACTION_TIMEOUT, -1, -1)


@pytest.mark.parametrize("timeout", [1, LONGEST_TIMEOUT])
def test_a_timeout_in_between_is_good(connection, new_name, timeout):
    transactor = Transactor(connection, new_name()).init(timeout=timeout)
    assert transactor.describe().transaction_timeout_ms == timeout


@pytest.mark.parametrize(
    "name", ["x" * 32_000, "\x00\x01\n\t\x7f", "grüße 你好 🦀", " ", "/../.."], ids=lambda name: ascii(name)[:20]
)
def test_any_other_transactional_id_is_good(connection, topic, name):
    transactor = Transactor(connection, name).init()
    transactor.send(topic, b"x")
    transactor.commit()
    assert values(connection, topic) == [b"x"]
    assert transactor.state() == "CompleteCommit"


@pytest.mark.parametrize(
    ("version", "fenced"), [(3, INVALID_PRODUCER_EPOCH), (4, PRODUCER_FENCED), (5, PRODUCER_FENCED)]
)
def test_who_says_who_it_is_has_to_be_that(connection, new_name, version, fenced):
    name = new_name()
    _, pid, _ = init(connection, name)
    assert init(connection, name, version, pid=pid, epoch=0) == (0, pid, 1)
    assert init(connection, name, version, pid=pid, epoch=1) == (0, pid, 2)
    for other_pid, epoch in ((pid, 0), (pid, 3), (pid, 32_766), (pid + 1, 2), (pid + 1, 0)):
        assert init(connection, name, version, pid=other_pid, epoch=epoch) == (fenced, -1, -1)
    for other_pid, epoch in ((pid, -1), (-1, 2)):
        assert init(connection, name, version, pid=other_pid, epoch=epoch) == (INVALID_REQUEST, -1, -1)
    assert init(connection, name, version, pid=pid, epoch=2) == (0, pid, 3), "nothing of it counted"
    error, new_pid, epoch = init(connection, new_name(), version, pid=pid, epoch=3)
    assert (error, epoch) == (0, 0), "who was forgotten is given another identity"
    assert new_pid != pid


def test_who_asks_again_who_it_is_is_answered_the_same(connection, new_name):
    name = new_name()
    _, pid, _ = init(connection, name)
    for _ in range(3):
        assert init(connection, name, pid=pid, epoch=0) == (0, pid, 1)
    assert init(connection, name, pid=pid, epoch=1) == (0, pid, 2)
    assert init(connection, name, pid=pid, epoch=0) == (PRODUCER_FENCED, -1, -1)


def test_a_new_producer_aborts_the_transaction_of_the_old_one_and_fences_it(transactor, topic, group):
    connection = transactor.connection
    transactor.send(topic, b"lost")
    transactor.commit_offsets(group, {topic: {0: 5}})
    successor = Transactor(connection, transactor.name, transactor.version).init()
    assert successor.pid == transactor.pid
    assert successor.epoch > transactor.epoch
    found = fetch(connection, topic)
    assert (found.values, found.aborted, found.last_stable) == ([], [(transactor.pid, 0)], 2)
    assert committed(connection, group, topic) == (0, -1)

    assert transactor.ask_produce(topic, transactor.batch(topic, [b"zombie"])) == (INVALID_PRODUCER_EPOCH, -1)
    assert transactor.ask_end(True)[0] == PRODUCER_FENCED
    assert transactor.ask_end(False)[0] == PRODUCER_FENCED
    assert transactor.ask_commit_offsets(group, {topic: {0: 6}}) == {0: INVALID_PRODUCER_EPOCH}
    if not transactor.is_v2:
        assert transactor.ask_add(topic) == {(topic, 0): PRODUCER_FENCED}
        assert transactor.ask_add_offsets(group) == PRODUCER_FENCED
    successor.send(topic, b"kept")
    successor.commit()
    assert values(connection, topic) == [b"kept"]


def raise_epoch(transactor, last):
    """Asks again and again who it is; many at a time, and never more often than is needed."""
    asked = ask.init(5, transactor.name)
    first = sent = transactor.epoch
    for expected in range(first + 1, last + 1):
        while sent < min(expected + 63, last):
            transactor.connection.send(asked)
            sent += 1
        answer = transactor.connection.receive(asked)
        assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, transactor.pid, expected)
    transactor.epoch = last


def test_the_epochs_of_a_producer_id_end(v2):
    name, pid, connection = v2.name, v2.pid, v2.connection
    raise_epoch(v2, LAST_EPOCH)
    error, second, epoch = init(connection, name, pid=pid, epoch=LAST_EPOCH)
    assert (error, epoch) == (0, 0)
    assert second != pid
    assert init(connection, name, pid=pid, epoch=LAST_EPOCH) == (0, second, 0), "again"
    assert init(connection, name, pid=pid, epoch=LAST_EPOCH - 1) == (PRODUCER_FENCED, -1, -1)
    assert init(connection, name, pid=second, epoch=0) == (0, second, 1)


# --- what belongs to a transaction: AddPartitionsToTxn, AddOffsetsToTxn ---------------------------------------


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added_by_who_it_is_alone(connection, v1, topic, version):
    fenced = PRODUCER_FENCED if version >= 2 else INVALID_PRODUCER_EPOCH
    place = topic, 0
    v1.init()  # so that there is an epoch of the past
    for changes, error in (
        ({"name": "never-heard-of"}, INVALID_PRODUCER_ID_MAPPING),
        ({"pid": v1.pid + 1}, INVALID_PRODUCER_ID_MAPPING),
        ({"epoch": v1.epoch - 1}, fenced),
        ({"epoch": v1.epoch + 1}, fenced),
        ({"epoch": -1}, fenced),
        ({"name": ""}, INVALID_REQUEST),
    ):
        assert v1.ask_add(topic, version=version, **changes) == {place: error}, changes
    assert v1.state() == "Empty"
    assert v1.ask_add(topic, version=version) == {place: 0}
    assert v1.ask_add(topic, version=version) == {place: 0}, "again"
    assert v1.state() == "Ongoing"


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added_together_or_not_at_all(connection, v1, new_topic, version):
    topic = new_topic(3)
    errors = v1.ask_add((topic, 0), (topic, 3), ("never-made", 0), (topic, -1), (topic, 1), version=version)
    assert errors == {
        (topic, 0): OPERATION_NOT_ATTEMPTED,
        (topic, 1): OPERATION_NOT_ATTEMPTED,
        (topic, 3): UNKNOWN_TOPIC_OR_PARTITION,
        (topic, -1): UNKNOWN_TOPIC_OR_PARTITION,
        ("never-made", 0): UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert v1.state() == "Empty"
    assert v1.ask_produce(topic, v1.batch(topic, [b"x"]))[0] == TRANSACTION_ABORTABLE
    assert v1.ask_add((topic, 0), (topic, 2), version=version) == {(topic, 0): 0, (topic, 2): 0}
    assert [(it.topic, sorted(it.partitions)) for it in v1.describe().topics] == [(topic, [0, 2])]


@pytest.mark.parametrize("version", range(5))
def test_groups_are_added_by_who_it_is_alone(v1, group, version):
    fenced = PRODUCER_FENCED if version >= 2 else INVALID_PRODUCER_EPOCH
    v1.init()
    for changes, error in (
        ({"name": "never-heard-of"}, INVALID_PRODUCER_ID_MAPPING),
        ({"pid": v1.pid + 1}, INVALID_PRODUCER_ID_MAPPING),
        ({"epoch": v1.epoch - 1}, fenced),
        ({"epoch": v1.epoch + 1}, fenced),
        ({"name": ""}, INVALID_REQUEST),
    ):
        assert v1.ask_add_offsets(group, version=version, **changes) == error, changes
    assert v1.state() == "Empty"
    assert v1.ask_add_offsets(group, version=version) == 0
    assert v1.ask_add_offsets(group, version=version) == 0
    assert v1.state() == "Ongoing"


# --- EndTxn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(6))
@pytest.mark.parametrize("is_committed", [True, False])
def test_a_transaction_is_ended_by_who_it_is_alone(connection, new_name, topic, version, is_committed):
    transactor = Transactor(connection, new_name(), V2 if version >= 5 else V1).init().init()
    transactor.send(topic, b"x")
    fenced = PRODUCER_FENCED if version >= 2 else INVALID_PRODUCER_EPOCH
    for changes, error in (
        ({"name": "never-heard-of"}, INVALID_PRODUCER_ID_MAPPING),
        ({"pid": transactor.pid + 1}, INVALID_PRODUCER_ID_MAPPING),
        ({"epoch": transactor.epoch - 1}, fenced),
        ({"epoch": transactor.epoch + 1}, fenced),
        ({"epoch": transactor.epoch + 2}, fenced),
        ({"name": ""}, INVALID_REQUEST),
    ):
        assert transactor.ask_end(is_committed, version, **changes) == (error, -1, -1), changes
    assert transactor.state() == "Ongoing"
    transactor.end(is_committed, version)
    assert values(connection, topic) == ([b"x"] if is_committed else [])


@pytest.mark.parametrize("version", range(5))
def test_what_was_never_begun_is_not_ended_in_the_first_protocol(v1, version):
    assert v1.ask_end(True, version)[0] == INVALID_TXN_STATE
    assert v1.ask_end(False, version)[0] == INVALID_TXN_STATE
    assert v1.state() == "Empty"


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("is_committed", [True, False])
def test_an_end_is_repeated_and_not_turned_round_in_the_first_protocol(v1, topic, version, is_committed):
    v1.send(topic, b"x")
    v1.end(is_committed, version)
    for _ in range(2):
        assert v1.ask_end(is_committed, version)[0] == 0
        assert v1.ask_end(not is_committed, version)[0] == INVALID_TXN_STATE
    found = fetch(v1.connection, topic)
    assert len(found.markers) == 1
    assert found.values == ([b"x"] if is_committed else [])


def test_what_was_never_begun_is_aborted_and_not_committed_in_the_second_protocol(v2):
    pid, epoch = v2.pid, v2.epoch
    assert v2.ask_end(True) == (INVALID_TXN_STATE, -1, -1)
    assert v2.ask_end(True, epoch=epoch - 1)[0] == PRODUCER_FENCED
    assert v2.ask_end(False) == (0, pid, epoch + 1), "an abort raises the epoch whatever there is to abort"
    v2.wait()
    assert v2.ask_end(False, epoch=epoch - 1)[0] == PRODUCER_FENCED


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_end_is_repeated_and_not_turned_round_in_the_second_protocol(v2, topic, is_committed):
    pid, epoch = v2.pid, v2.epoch
    v2.send(topic, b"x")
    v2.end(is_committed)
    for _ in range(2):
        assert v2.ask_end(is_committed, epoch=epoch) == (0, pid, epoch + 1)
        assert v2.ask_end(not is_committed, epoch=epoch) == (INVALID_TXN_STATE, -1, -1)
    assert v2.ask_end(True) == (INVALID_TXN_STATE, -1, -1)
    assert len(fetch(v2.connection, topic).markers) == 1
    assert v2.ask_end(False) == (0, pid, epoch + 2), "an abort of nothing"
    v2.wait()
    assert v2.ask_end(is_committed, epoch=epoch)[0] == PRODUCER_FENCED, "two ends ago"
    found = fetch(v2.connection, topic)
    assert len(found.markers) == 1
    assert found.values == ([b"x"] if is_committed else [])


def test_the_epochs_of_a_producer_id_end_with_its_transactions(v2, topic):
    first = v2.pid
    raise_epoch(v2, LAST_EPOCH - 2)
    identities = []
    for n in range(5):
        v2.send(topic, b"%d" % n)
        answer = v2.ask_end(n != 1)
        v2.wait()
        assert v2.ask_end(n != 1) == answer, "again"
        error, *identity = answer
        assert error == 0
        identities.append(tuple(identity))
        v2.pid, v2.epoch = identity
        v2.sequences = {}
    second = v2.pid
    assert second != first
    assert identities == [(first, LAST_EPOCH - 1), (first, LAST_EPOCH), (second, 0), (second, 1), (second, 2)]
    found = fetch(v2.connection, topic)
    assert found.values == [b"0", b"2", b"3", b"4"]
    assert found.aborted == [(first, 2)]


# --- TxnOffsetCommit and OffsetFetch -----------------------------------------------------------------------


def test_offsets_count_when_the_transaction_is_committed_and_never_if_it_is_aborted(transactor, topic, group):
    connection = transactor.connection
    transactor.commit_offsets(group, {topic: {0: 1}})
    assert committed(connection, group, topic) == (UNSTABLE_OFFSET_COMMIT, -1)
    assert committed(connection, group, topic, stable=False) == (0, -1)
    transactor.commit()
    assert committed(connection, group, topic) == committed(connection, group, topic, stable=False) == (0, 1)
    transactor.commit_offsets(group, {topic: {0: 2}})
    assert committed(connection, group, topic) == (UNSTABLE_OFFSET_COMMIT, -1)
    assert committed(connection, group, topic, stable=False) == (0, 1)
    transactor.abort()
    assert committed(connection, group, topic) == (0, 1)
    transactor.commit_offsets(group, {topic: {0: 3}})
    transactor.commit_offsets(group, {topic: {0: 4}})
    transactor.commit()
    asked = group_wire.fetch(7, group, None, stable=True)
    assert group_wire.fetched(connection.ask(asked)) == (0, {0: (0, 4, "from a transaction")})


@pytest.mark.parametrize("version", [7, 8, 9])
def test_only_the_partitions_with_pending_offsets_are_unstable(transactor, other, new_topic, group, version):
    connection, topic = transactor.connection, new_topic(3)
    assert group_wire.commit_errors(connection.ask(group_wire.commit(8, group, {topic: {0: 1, 1: 1}}))) == {0: 0, 1: 0}
    transactor.commit_offsets(group, {topic: {1: 2}})
    other.commit_offsets(group, {topic: {2: 3}})

    def ask_for(partitions):
        _, found = group_wire.fetched(connection.ask(group_wire.fetch(version, group, partitions, stable=True)))
        return {partition: (error, offset) for partition, (error, offset, _) in found.items()}

    unstable = UNSTABLE_OFFSET_COMMIT, -1
    assert ask_for({topic: [0, 1, 2]}) == {0: (0, 1), 1: unstable, 2: unstable}
    assert ask_for(None) == {0: (0, 1), 1: unstable}, "of those that have something"
    transactor.commit()
    assert ask_for({topic: [0, 1, 2]}) == {0: (0, 1), 1: (0, 2), 2: unstable}
    other.abort()
    assert ask_for({topic: [0, 1, 2]}) == {0: (0, 1), 1: (0, 2), 2: (0, -1)}


def test_of_two_commits_of_an_offset_the_later_one_counts(transactor, topic, group):
    connection = transactor.connection
    transactor.commit_offsets(group, {topic: {0: 5}})
    assert group_wire.commit_errors(connection.ask(group_wire.commit(8, group, {topic: {0: 7}}))) == {0: 0}
    transactor.commit()
    assert committed(connection, group, topic) == (0, 7)
    assert group_wire.commit_errors(connection.ask(group_wire.commit(8, group, {topic: {0: 3}}))) == {0: 0}
    transactor.commit_offsets(group, {topic: {0: 9}})
    transactor.commit()
    assert committed(connection, group, topic) == (0, 9)


@pytest.mark.parametrize("version", range(6))
def test_offsets_are_committed_by_who_it_is_alone(connection, new_name, topic, group, version):
    transactor = Transactor(connection, new_name(), V2 if version >= 5 else V1).init().init()
    if version < 5:
        assert transactor.ask_add_offsets(group) == 0
    for changes, error in (
        ({"name": "never-heard-of"}, INVALID_PRODUCER_ID_MAPPING),
        ({"pid": transactor.pid + 1_000_000}, INVALID_PRODUCER_ID_MAPPING),
        ({"epoch": transactor.epoch - 1}, INVALID_PRODUCER_EPOCH),
        ({"epoch": transactor.epoch + 1}, INVALID_PRODUCER_EPOCH),
    ):
        assert transactor.ask_commit_offsets(group, {topic: {0: 1}}, version, **changes) == {0: error}, changes
    assert committed(connection, group, topic) == (0, -1)
    assert transactor.ask_commit_offsets(group, {topic: {0: 1}}, version) == {0: 0}
    transactor.commit()
    assert committed(connection, group, topic) == (0, 1)


@pytest.mark.parametrize("version", range(5))
def test_offsets_of_a_group_that_was_not_added_are_refused_in_the_first_protocol(v1, topic, group, version):
    refused = TRANSACTION_ABORTABLE if version >= 4 else INVALID_TXN_STATE
    assert v1.ask_commit_offsets(group, {topic: {0: 1}}, version) == {0: refused}
    assert v1.ask_add_offsets(f"{group}-other") == 0
    assert committed(v1.connection, group, topic) == (0, -1)


def test_offsets_are_a_transaction_by_themselves_in_the_second_protocol(v2, topic, group):
    assert v2.ask_commit_offsets(group, {topic: {0: 1}}) == {0: 0}
    assert v2.state() == "Ongoing"
    assert v2.ask_commit_offsets(group, {topic: {0: 2}}, epoch=v2.epoch + 1) == {0: INVALID_PRODUCER_EPOCH}
    v2.commit()
    assert committed(v2.connection, group, topic) == (0, 1)


@pytest.mark.parametrize("version", range(6))
def test_offsets_that_can_not_be_are_refused_one_by_one(connection, new_name, topic, group, version):
    transactor = Transactor(connection, new_name(), V2 if version >= 5 else V1).init()
    if version < 5:
        assert transactor.ask_add_offsets(group) == 0
    assert transactor.ask_commit_offsets(group, {topic: {0: 1, 9: 1, -1: 1}}, version) == {
        0: 0,
        9: UNKNOWN_TOPIC_OR_PARTITION,
        -1: UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert transactor.ask_commit_offsets(group, {"never-made": {0: 1}}, version) == {0: UNKNOWN_TOPIC_OR_PARTITION}
    assert transactor.ask_commit_offsets("", {topic: {0: 1}}, version) == {0: INVALID_GROUP_ID}
    errors = transactor.ask_commit_offsets(group, {topic: {0: 2}}, version, metadata="x" * 4097)
    assert errors == {0: OFFSET_METADATA_TOO_LARGE}
    transactor.commit()
    assert committed(connection, group, topic) == (0, 1)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_member_commits_offsets_as_long_as_it_is_one(connection, new_name, topic, group, version):
    with group_wire.Connection(connection.bootstrap) as own:
        member = Member(own, group, instance="me").join()
        transactor = Transactor(connection, new_name(), V2 if version >= 5 else V1).init()
        if version < 5:
            assert transactor.ask_add_offsets(group) == 0

        def ask_commit(offset, generation=member.generation, member=member.id, instance="me"):
            who = {"generation": generation, "member": member, "instance": instance}
            return transactor.ask_commit_offsets(group, {topic: {0: offset}}, version, **who)[0]

        assert ask_commit(1) == 0
        for offset, changes, error in (
            (2, {"generation": member.generation + 1}, ILLEGAL_GENERATION),
            (3, {"generation": member.generation - 1}, ILLEGAL_GENERATION),
            (4, {"member": "alien", "instance": None}, UNKNOWN_MEMBER_ID),
            (5, {"member": "alien"}, FENCED_INSTANCE_ID),
            (6, {"instance": "stranger"}, UNKNOWN_MEMBER_ID),
        ):
            assert ask_commit(offset, **changes) == error, changes
        transactor.commit()
        assert committed(connection, group, topic) == (0, 1)


@pytest.mark.parametrize("version", range(6))
def test_who_does_not_say_that_it_is_a_member_is_not_asked(connection, new_name, topic, group, version):
    with group_wire.Connection(connection.bootstrap) as own:
        Member(own, group).join()
        transactor = Transactor(connection, new_name(), V2 if version >= 5 else V1).init()
        if version < 5:
            assert transactor.ask_add_offsets(group) == 0
        assert transactor.ask_commit_offsets(group, {topic: {0: 7}}, version) == {0: 0}
        transactor.commit()
        assert committed(connection, group, topic) == (0, 7)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_generation_of_a_group_that_is_not_there_is_illegal(connection, new_name, topic, group, version):
    transactor = Transactor(connection, new_name(), V2 if version >= 5 else V1).init()
    if version < 5:
        assert transactor.ask_add_offsets(group) == 0
    who = {"generation": 3, "member": "alien"}
    assert transactor.ask_commit_offsets(group, {topic: {0: 1}}, version, **who) == {0: ILLEGAL_GENERATION}


# --- timeouts ----------------------------------------------------------------------------------------------


def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced(transactor, topic, group):
    connection = transactor.connection
    transactor.init(timeout=500)
    transactor.send(topic, b"late")
    transactor.commit_offsets(group, {topic: {0: 1}})
    until(lambda: fetch(connection, topic).last_stable == 2, "the end of the transaction")
    until(lambda: transactor.state() == "CompleteAbort", transactor.state)
    found = fetch(connection, topic)
    assert (found.values, found.aborted) == ([], [(transactor.pid, 0)])
    assert committed(connection, group, topic) == (0, -1)
    told = transactor.describe()
    assert (told.producer_id, told.producer_epoch) == (transactor.pid, transactor.epoch + 1)

    # In the second protocol it looks like an abort that is asked for again.
    assert transactor.ask_end(True)[0] == (INVALID_TXN_STATE if transactor.is_v2 else PRODUCER_FENCED)
    assert transactor.ask_end(False)[0] == (0 if transactor.is_v2 else PRODUCER_FENCED)
    assert transactor.ask_produce(topic, transactor.batch(topic, [b"x"]))[0] == INVALID_PRODUCER_EPOCH
    assert transactor.ask_commit_offsets(group, {topic: {0: 1}}) == {0: INVALID_PRODUCER_EPOCH}
    if not transactor.is_v2:
        assert transactor.ask_add(topic) == {(topic, 0): PRODUCER_FENCED}
    # It goes on by saying who it was.
    old = transactor.pid, transactor.epoch
    error, pid, epoch = transactor.ask_init(pid=old[0], epoch=old[1])
    assert (error, pid) == (0, old[0])
    assert epoch > old[1]
    transactor.epoch, transactor.sequences = epoch, {}
    transactor.send(topic, b"kept")
    transactor.commit()
    assert values(connection, topic) == [b"kept"]
    assert committed(connection, group, topic) == (0, -1)


# --- WriteTxnMarkers ---------------------------------------------------------------------------------------


def test_an_operator_aborts_a_transaction_by_its_marker(transactor, topic):
    connection = transactor.connection
    transactor.send(topic, b"hangs")
    epoch = transactor.epoch + transactor.is_v2 * AGAINST_KAFKA  # in the second protocol it takes only a raised one
    asked = ask.mark(transactor.pid, epoch, False, {topic: [0]})
    assert ask.marked(connection.ask(asked)) == {(topic, 0): 0}
    found = fetch(connection, topic)
    assert (found.values, found.aborted, found.last_stable) == ([], [(transactor.pid, 0)], 2)
    assert found.markers == [(1, transactor.pid, ABORT)]


@pytest.mark.skipif(AGAINST_KAFKA, reason="it tears transactions")
def test_a_marker_aborts_the_whole_transaction(transactor, new_topic, group):
    connection, topic = transactor.connection, new_topic(3)
    for n in range(2):
        transactor.send(topic, b"%d" % n, partition=n)
    transactor.commit_offsets(group, {topic: {0: 1}})
    asked = ask.mark(transactor.pid, transactor.epoch, False, {topic: [1]})
    assert ask.marked(connection.ask(asked)) == {(topic, 1): 0}
    for n in range(2):
        found = fetch(connection, topic, partition=n)
        assert (found.values, found.aborted, found.last_stable) == ([], [(transactor.pid, 0)], 2)
    assert committed(connection, group, topic) == (0, -1)
    assert transactor.state() == "CompleteAbort"
    assert transactor.ask_end(True)[0] in (INVALID_TXN_STATE, PRODUCER_FENCED)
    transactor.init()
    transactor.send(topic, b"kept")
    transactor.commit()
    assert values(connection, topic) == [b"kept"]


@pytest.mark.skipif(AGAINST_KAFKA, reason="it commits parts of transactions")
def test_a_marker_commits_nothing(transactor, topic):
    transactor.send(topic, b"x")
    for epoch in (transactor.epoch, transactor.epoch + 1):
        asked = ask.mark(transactor.pid, epoch, True, {topic: [0]})
        assert ask.marked(transactor.connection.ask(asked))[topic, 0] != 0
    assert fetch(transactor.connection, topic).last_stable == 0
    transactor.abort()
    assert values(transactor.connection, topic) == []


def test_markers_of_the_past_and_of_nowhere_are_refused(transactor, topic):
    transactor.init()
    transactor.send(topic, b"x")
    stale = ask.mark(transactor.pid, transactor.epoch - 1, False, {topic: [0]})
    assert ask.marked(transactor.connection.ask(stale)) == {(topic, 0): INVALID_PRODUCER_EPOCH}
    nowhere = ask.mark(transactor.pid, transactor.epoch, False, {topic: [7, -1], "never-made": [0]})
    assert set(ask.marked(transactor.connection.ask(nowhere)).values()) == {UNKNOWN_TOPIC_OR_PARTITION}
    assert fetch(transactor.connection, topic).last_stable == 0
    transactor.commit()
    assert values(transactor.connection, topic) == [b"x"]


# --- DescribeProducers, DescribeTransactions, ListTransactions ------------------------------------------------


def test_the_producers_of_a_partition_are_described(transactor, other, new_topic):
    topic = new_topic(2)

    def described(*partitions):
        asked = ask.describe_producers({topic: list(partitions)})
        return ask.described_producers(transactor.connection.ask(asked))

    assert described(0, 1) == {(topic, 0): (0, {}), (topic, 1): (0, {})}
    before = time.time_ns() // 1_000_000
    transactor.send(topic, b"0", b"1", b"2")
    other.send(topic, b"3")
    after = time.time_ns() // 1_000_000
    error, producers = described(0)[topic, 0]
    assert error == 0
    assert set(producers) == {transactor.pid, other.pid}
    for each, last_sequence, first_offset in ((transactor, 2, 0), (other, 0, 3)):
        told = producers[each.pid]
        assert (told.producer_epoch, told.last_sequence) == (each.epoch, last_sequence)
        assert told.current_txn_start_offset == first_offset
        assert before <= told.last_timestamp <= after
    transactor.commit()
    _, producers = described(0)[topic, 0]
    assert producers[transactor.pid].current_txn_start_offset == -1
    assert producers[transactor.pid].coordinator_epoch >= 0
    assert producers[other.pid].current_txn_start_offset == 3
    assert described(1) == {(topic, 1): (0, {})}
    assert {error for error, _ in described(2, -1).values()} == {UNKNOWN_TOPIC_OR_PARTITION}
    nowhere = transactor.connection.ask(ask.describe_producers({"never-made": [0]}))
    assert ask.described_producers(nowhere) == {("never-made", 0): (UNKNOWN_TOPIC_OR_PARTITION, {})}


def test_a_transaction_is_described(transactor, new_topic, group):
    topics = sorted([new_topic(3), new_topic()])
    told = transactor.describe()
    assert (told.error_code, told.transaction_state) == (0, "Empty")
    assert (told.producer_id, told.producer_epoch) == (transactor.pid, transactor.epoch)
    assert (told.transaction_timeout_ms, told.transaction_start_time_ms) == (ask.TIMEOUT, -1)
    assert told.topics == []
    before = time.time_ns() // 1_000_000
    transactor.send(topics[0], b"x")
    transactor.send(topics[0], b"x", partition=2)
    transactor.send(topics[1], b"x")
    told = transactor.describe()
    assert (told.error_code, told.transaction_state) == (0, "Ongoing")
    assert before <= told.transaction_start_time_ms <= time.time_ns() // 1_000_000
    found = sorted((it.topic, sorted(it.partitions)) for it in told.topics)
    assert [it for it in found if not it[0].startswith("__")] == sorted([(topics[0], [0, 2]), (topics[1], [0])])
    for is_committed, state in ((True, "CompleteCommit"), (False, "CompleteAbort")):
        transactor.end(is_committed)
        told = transactor.describe()
        assert (told.transaction_state, told.topics) == (state, [])
        assert (told.producer_id, told.producer_epoch) == (transactor.pid, transactor.epoch)
        transactor.send(topics[0], b"x")


def test_who_is_not_known_is_not_described(v1):
    told = ask.described(v1.connection.ask(ask.describe("never-heard-of", v1.name)))
    assert told["never-heard-of"].error_code == TRANSACTIONAL_ID_NOT_FOUND
    assert told[v1.name].error_code == 0
    assert ask.described(v1.connection.ask(ask.describe("")))[""].error_code == INVALID_REQUEST
    assert ask.described(v1.connection.ask(ask.describe())) == {}


def test_transactions_are_listed_by_what_is_asked_for(connection, new_name, topic):
    prefix = new_name()
    empty, open_, done, undone = (Transactor(connection, f"{prefix}-{n}", (V1, V2)[n % 2]).init() for n in range(4))
    for each in (open_, done, undone):
        each.send(topic, b"x")
    done.commit()
    undone.abort()
    states = {
        empty: "Empty",
        open_: "Ongoing",
        done: "CompleteCommit",
        undone: "CompleteAbort",
    }

    def listed(version=2, **filters):
        answer = connection.ask(ask.list_all(version, **filters))
        assert answer.error_code == 0
        found = [it for it in answer.transaction_states if it.transactional_id.startswith(prefix)]
        by_name = {each.name: each for each in states}
        assert len(found) == len({it.transactional_id for it in found})
        for it in found:
            each = by_name[it.transactional_id]
            assert (it.producer_id, it.transaction_state) == (each.pid, states[each])
        return {by_name[it.transactional_id] for it in found}

    for version in range(3):
        assert listed(version) == set(states)
        assert listed(version, states=["Empty", "CompleteCommit"]) == {empty, done}
        assert listed(version, pids=[open_.pid, done.pid, 2**40]) == {open_, done}
        assert listed(version, pids=[open_.pid, done.pid], states=["Ongoing"]) == {open_}
        answer = connection.ask(ask.list_all(version, states=["Ongoing", "Asleep", "Dreaming"]))
        assert sorted(answer.unknown_state_filters) == ["Asleep", "Dreaming"]
        assert open_.name in {it.transactional_id for it in answer.transaction_states}
        answer = connection.ask(ask.list_all(version, states=["Asleep"]))
        assert (answer.unknown_state_filters, answer.transaction_states) == (["Asleep"], [])
    for version in (1, 2):
        until(lambda version=version: open_ in listed(version, duration=1), "an open one of some age")
        assert not listed(version, duration=600_000) & {open_, done, undone}
        assert listed(version, duration=-1) == set(states)
    assert listed(pattern=f"{prefix}-[02]") == {empty, done}
    assert listed(pattern=f"{prefix}-.*", states=["Ongoing"]) == {open_}
    assert listed(pattern=prefix) == set(), "the whole of it has to match"
    assert listed(pattern="") == set(states)
    assert connection.ask(ask.list_all(2, pattern="(")).error_code == INVALID_REGULAR_EXPRESSION


# --- what is no request ------------------------------------------------------------------------------------


def requests_of_all_kinds():
    return [
        ask.init(1, "t"),
        ask.init(5, "t"),
        ask.add_partitions(2, "t", 1, 1, {"topic": [0, 1]}),
        ask.add_offsets(2, "t", 1, 1, "g"),
        ask.end(2, "t", 1, 1, True),
        ask.commit_offsets(2, "t", 1, 1, "g", {"topic": {0: 1}}),
        ask.commit_offsets(5, "t", 1, 1, "g", {"topic": {0: 1}}),
        ask.mark(1, 1, False, {"topic": [0]}),
        ask.describe_producers({"topic": [0]}),
        ask.describe("t"),
        ask.list_all(2, ["Empty"], [1], 5, "x"),
    ]


@pytest.mark.parametrize("request_", requests_of_all_kinds(), ids=lambda it: f"{it.name}-{it.API_VERSION}")
def test_a_request_that_ends_too_early_ends_the_connection(bootstrap, broker, request_):
    request_.with_header(correlation_id=7, client_id="wire")
    whole = request_.encode(header=True, framed=True)[4:]
    for end in range(len(whole) - 1, len(whole) - len(request_.encode()), -2):
        with Connection(bootstrap) as connection:
            connection.socket.sendall(struct.pack(">i", end) + whole[:end])
            assert connection.is_dropped(), f"{end} of {len(whole)} bytes"
    broker.check_alive()


@pytest.mark.parametrize("count", [-2, -(2**31), 2**31 - 1, 10_000_000])
def test_counts_that_can_not_be_end_the_connection(bootstrap, broker, count):
    who = wire.text("t") + struct.pack(">qh", 1, 1)
    bodies = {
        (ADD_PARTITIONS, 0): who,
        (COMMIT_OFFSETS, 0): wire.text("t") + wire.text("g") + struct.pack(">qh", 1, 1),
    }
    for (api, version), body in bodies.items():
        with Connection(bootstrap) as connection:
            connection.send_raw(api, version, body + struct.pack(">i", count))
            assert connection.is_dropped(), f"API {api}"
    broker.check_alive()
