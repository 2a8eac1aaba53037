"""Transactions as applications have them: producers and readers of the Java client (second transaction
protocol) and of confluent-kafka (first), Kafka's own program that copies messages exactly once, and the tools
that look at transactions."""

import itertools
import json
import random
import signal
import subprocess
import threading
from collections import Counter

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from cloud import until
from conftest import AGAINST_KAFKA, create_topic
from servers import java, pause
from tools import FEATURES, rows
from transaction_broker import start_for_transactions, wait_for_coordinators, wait_for_leaders
from transaction_clients import (
    KINDS,
    TIMEOUT,
    ClientHost,
    ConfluentProducer,
    ConfluentReader,
    JavaProducer,
    JavaReader,
    Refused,
)

TRANSACTIONS = "org.apache.kafka.tools.TransactionsCommand"
COPIER = "org.apache.kafka.tools.TransactionalMessageCopier"
PRODUCER_PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"

COMMITTED, UNCOMMITTED = "read_committed", "read_uncommitted"

# What the clients call it when another producer has their transactional id.
FENCED = {"ProducerFencedException", "InvalidProducerEpochException", "_FENCED"}
# And when who commits offsets is not in the group any more as it says.
NOT_A_MEMBER = {"CommitFailedException", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID"}


@pytest.fixture(scope="session")
def shared_broker(start_broker):
    return start_for_transactions(start_broker)


@pytest.fixture
def new_topic(bootstrap, new_topic):
    def create(partitions=1, **settings):
        name = new_topic(partitions, **settings)
        wait_for_leaders(bootstrap, name, partitions)
        return name

    return create


@pytest.fixture(scope="module")
def client_host(tmp_path_factory):
    host = ClientHost(tmp_path_factory.mktemp("clients") / "host.log")
    yield host
    host.close()


@pytest.fixture
def make_producer(bootstrap, client_host, new_name):
    made = []

    def make(kind, name=None, at=bootstrap, **settings):
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        name = name or new_name()
        if kind == "java":
            made.append(JavaProducer(client_host, at, name, settings))
        else:
            made.append(ConfluentProducer(at, name, settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def make_reader(bootstrap, client_host):
    made = []

    def make(kind, isolation=COMMITTED, **settings):
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        settings = {"isolation.level": isolation, "auto.offset.reset": "earliest", **settings}
        if kind == "java":
            made.append(JavaReader(client_host, bootstrap, settings))
        else:
            made.append(ConfluentReader(bootstrap, settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=KINDS)
def reading(request):
    """The kind of the readers."""
    return request.param


@pytest.fixture
def producer(make_producer, kind):
    return make_producer(kind).init()


@pytest.fixture
def committed_reader(make_reader, reading):
    return make_reader(reading)


@pytest.fixture
def uncommitted_reader(make_reader, reading):
    return make_reader(reading, UNCOMMITTED)


def refusal(action, *arguments, **named):
    """The reasons for which a client was refused."""
    with pytest.raises(Refused) as raised:
        action(*arguments, **named)
    print(raised.value)
    return raised.value.reasons


# --- what is read ------------------------------------------------------------------------------------------


def test_committed_records_are_read_and_aborted_ones_never(producer, make_reader, new_topic, kind):
    chance = random.Random(kind)
    partitions = range(3)
    topics = [new_topic(3) for _ in range(2)]
    kept = {(topic, n): [] for topic in topics for n in partitions}
    sent = {place: [] for place in kept}
    for round_ in range(12):
        is_committed = chance.random() < 0.5
        producer.begin()
        for topic, n in chance.sample(list(kept), 4):
            values = [f"{round_} {m}" for m in range(chance.randrange(1, 30))]
            producer.send(topic, values, n)
            sent[topic, n] += values
            kept[topic, n] += values if is_committed else []
        producer.commit() if is_committed else producer.abort()
    assert kept != sent
    for isolation, expected in ((COMMITTED, kept), (UNCOMMITTED, sent)):
        for reading, topic in itertools.product(KINDS, topics):
            read = make_reader(reading, isolation).read(topic, partitions)
            for n in partitions:
                offsets = [offset for partition, offset, _ in read if partition == n]
                assert offsets == sorted(set(offsets))
                assert [value for partition, _, value in read if partition == n] == expected[topic, n]


def test_an_open_transaction_hides_itself_and_what_is_behind_it(
    producer, make_producer, committed_reader, uncommitted_reader, topic, kind
):
    producer.begin().send(topic, ["before"])
    producer.commit()
    producer.begin().send(topic, ["open"])
    other = make_producer(kind).init()
    other.begin().send(topic, ["behind"])
    other.commit()
    assert committed_reader.values(topic) == ["before"]
    assert uncommitted_reader.values(topic) == ["before", "open", "behind"]
    producer.commit()
    assert committed_reader.take(2) == ["open", "behind"]
    assert committed_reader.values(topic) == ["before", "open", "behind"]


def test_what_is_aborted_frees_what_is_behind_it(producer, make_producer, committed_reader, topic, kind):
    other = make_producer(kind).init()
    producer.begin().send(topic, ["lost"])
    other.begin().send(topic, ["behind"])
    other.commit()
    assert committed_reader.values(topic) == []
    producer.abort()
    assert committed_reader.take(1) == ["behind"]
    assert committed_reader.values(topic) == ["behind"]


def test_a_marker_takes_an_offset_and_ends_are_told_by_isolation(producer, committed_reader, uncommitted_reader, topic):
    def ends():
        return committed_reader.ends(topic)[0], uncommitted_reader.ends(topic)[0]

    assert ends() == (0, 0)
    producer.begin()
    assert producer.send(topic, ["a", "b"]) == [0, 1]
    assert ends() == (0, 2)
    producer.commit()
    assert committed_reader.values(topic) == ["a", "b"]
    assert ends() == (3, 3)
    producer.begin()
    assert producer.send(topic, ["c"]) == [3]
    assert ends() == (3, 4)
    producer.abort()
    until(lambda: ends() == (5, 5), ends)
    producer.begin()
    assert producer.send(topic, ["d"]) == [5]
    producer.commit()
    assert committed_reader.read(topic) == [(0, 0, "a"), (0, 1, "b"), (0, 5, "d")]


def test_an_aborted_transaction_larger_than_a_fetch_is_passed_over(make_producer, make_reader, topic, kind, reading):
    one = {"batch.size": 20_000} if kind == "java" else {"batch.size": 20_000, "linger.ms": 0}
    producer = make_producer(kind, **one).init()
    small = (
        {"fetch.max.bytes": 50_000, "max.partition.fetch.bytes": 50_000}
        if reading == "java"
        else {"fetch.max.bytes": 50_000, "message.max.bytes": 50_000, "max.partition.fetch.bytes": 50_000}
    )
    reader = make_reader(reading, **small)
    expected = []
    for round_, (is_committed, count) in enumerate(((True, 5), (False, 300), (True, 200), (False, 300), (True, 3))):
        values = [f"{round_} {n} ".ljust(5000, "x") for n in range(count)]
        producer.begin().send(topic, values)
        producer.commit() if is_committed else producer.abort()
        expected += values if is_committed else []
    assert reader.values(topic) == expected


# --- producers that are fenced, time out, and go on ----------------------------------------------------------


def test_a_second_producer_of_an_id_fences_the_first_and_aborts_its_transaction(
    make_producer, make_reader, new_name, new_topic, kind
):
    name, topic, reader = new_name(), new_topic(), make_reader(kind)
    first = make_producer(kind, name).init()
    first.begin().send(topic, ["zombie"])
    second = make_producer(kind, name).init()
    assert reader.values(topic) == []
    second.begin().send(topic, ["kept"])
    assert refusal(first.commit) & FENCED
    assert refusal(first.begin)
    second.commit()
    assert reader.values(topic) == ["kept"]


def test_a_fenced_producer_writes_nothing_more(make_producer, make_reader, new_name, topic, kind):
    name, reader = new_name(), make_reader(kind)
    first = make_producer(kind, name).init()
    first.begin().send(topic, ["zombie"])
    second = make_producer(kind, name).init()
    assert refusal(first.send, topic, ["late"]) & (FENCED | {"_PURGE_QUEUE", "_STATE"})
    second.begin().send(topic, ["kept"])
    second.commit()
    assert reader.values(topic) == ["kept"]
    assert make_reader(kind, UNCOMMITTED).values(topic) == ["zombie", "kept"]


def test_an_id_changes_hands_many_times(make_producer, make_reader, new_name, topic):
    name = new_name()
    for n in range(10):
        producer = make_producer(KINDS[n % 2], name).init()
        producer.begin().send(topic, [f"kept {n}"])
        producer.commit()
        producer.begin().send(topic, [f"lost {n}"])  # whose transaction the next one aborts
    make_producer("java", name).init()
    expected = [f"kept {n}" for n in range(10)]
    assert make_reader("java").values(topic) == make_reader("confluent").values(topic) == expected


def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_hears_of_it(
    make_producer, make_reader, new_name, topic, kind
):
    name, reader = new_name(), make_reader(kind)
    producer = make_producer(kind, name, transaction_timeout_ms=1000).init()
    producer.begin().send(topic, ["late"])
    until(lambda: reader.ends(topic) == {0: 2}, lambda: reader.ends(topic))
    assert reader.values(topic) == []
    reasons = refusal(producer.commit)
    assert reasons & (FENCED | {"InvalidTxnStateException", "TransactionAbortableException", "INVALID_TXN_STATE"})
    successor = make_producer(kind, name).init()
    successor.begin().send(topic, ["kept"])
    successor.commit()
    assert reader.values(topic) == ["kept"]


def test_a_transaction_with_a_record_that_was_refused_is_aborted_and_the_producer_goes_on(
    make_producer, make_reader, new_topic, kind
):
    topic, small, reader = new_topic(), new_topic(max_message_bytes=1000), make_reader(kind)
    producer = make_producer(kind).init()
    producer.begin().send(topic, ["lost"])
    assert refusal(producer.send, small, ["x" * 2000]) & {"RecordTooLargeException", "MSG_SIZE_TOO_LARGE"}
    assert refusal(producer.commit)
    producer.abort()
    producer.begin().send(topic, ["kept"])
    producer.commit()
    assert reader.values(topic) == ["kept"]
    assert reader.values(small) == []


def test_a_transaction_of_nothing_is_committed_and_aborted(producer, topic, make_reader, kind):
    for _ in range(3):
        producer.begin().commit()
        producer.begin().abort()
    producer.begin().send(topic, ["x"])
    producer.commit()
    assert make_reader(kind).values(topic) == ["x"]


def test_transactions_outlive_the_broker_that_dies_among_them(start_broker, make_producer, make_reader, new_name):
    broker, topic, group = start_for_transactions(start_broker), new_name(), new_name()
    at = {"bootstrap.servers": broker.bootstrap}
    create_topic(AdminClient(at), topic, 2)
    wait_for_leaders(broker.bootstrap, topic, 2)
    producers = [make_producer(kind, at=broker.bootstrap).init() for kind in KINDS]
    for n, producer in enumerate(producers):
        for is_committed in (True, False):
            producer.begin().send(topic, [f"{is_committed} {n}"], n)
            producer.commit() if is_committed else producer.abort()
        producer.begin().send(topic, ["before"], n)
        producer.send_offsets({topic: {n: 7}}, group=group)
    broker.kill()
    broker.start()
    if AGAINST_KAFKA:
        wait_for_coordinators(broker.bootstrap)
    uncommitted = make_reader("confluent", UNCOMMITTED, **at, **{"group.id": group})
    for n, producer in enumerate(producers):
        assert make_reader("java", **at).values(topic, [n]) == [f"True {n}"]
        assert uncommitted.values(topic, [n]) == [f"True {n}", f"False {n}", "before"]
        assert uncommitted.committed(topic, n) is None
        producer.send(topic, ["after"], n)
        producer.commit()
        assert make_reader("java", **at).values(topic, [n]) == [f"True {n}", "before", "after"]
        assert uncommitted.committed(topic, n) == 7
        producer.begin().send(topic, ["lost"], n)
        producer.abort()
    for kind in KINDS:
        expected = ["True 0", "before", "after", "True 1", "before", "after"]
        assert make_reader(kind, **at).values(topic, [0, 1]) == expected
    broker.kill()


# --- offsets in transactions ---------------------------------------------------------------------------------


def test_offsets_are_seen_when_their_transaction_is_committed_and_never_if_it_is_aborted(
    producer, make_reader, topic, new_name, reading
):
    group = new_name()
    of = {"group.id": group}
    stable, impatient = make_reader(reading, **of), make_reader(reading, **of, **{"default.api.timeout.ms": 500})
    unstable = make_reader("confluent", UNCOMMITTED, **of)  # Java's waits whatever it reads
    assert stable.committed(topic) is None
    for offset, is_committed, before, after in ((5, True, None, 5), (7, False, 5, 5), (9, True, 5, 9)):
        producer.begin().send_offsets({topic: {0: offset}}, group=group)
        assert unstable.committed(topic) == before
        # A reader of committed records waits until it is known what becomes of them.
        assert refusal(impatient.committed, topic) & {"TimeoutException", "_TIMED_OUT", "UNSTABLE_OFFSET_COMMIT"}
        producer.commit() if is_committed else producer.abort()
        assert stable.committed(topic) == after
        assert unstable.committed(topic) == after


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_offsets_of_a_member_of_the_past_are_refused(make_producer, make_reader, new_topic, new_name, kind, protocol):
    group, topic = new_name(), new_topic(2)
    settings = {"group.id": group, "group.protocol": protocol}
    if protocol == "classic":
        settings |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    first, second = (make_reader(kind, **settings) for _ in range(2))

    def share(*expected):
        members = (first, second)[: len(expected)]

        def is_so():
            for each in members:
                each.poll()
            return [len(each.assignment()) for each in members] == list(expected)

        until(is_so, lambda: [each.assignment() for each in members])

    first.subscribe(topic)
    share(2)
    first.remember()
    producer = make_producer(kind).init()
    producer.begin().send_offsets({topic: {0: 1}}, reader=first)
    producer.commit()
    second.subscribe(topic)
    share(1, 1)
    (kept,), (lost,) = first.assignment(), second.assignment()
    producer.begin().send(topic, ["zombie"])
    assert refusal(producer.send_offsets, {topic: {lost: 2}}, reader=first) & NOT_A_MEMBER
    producer.abort()
    first.remember()
    producer.begin().send(topic, ["kept"])
    producer.send_offsets({topic: {kept: 3}}, reader=first)
    producer.commit()
    reader = make_reader(kind, **{"group.id": group})

    def committed():
        return [reader.committed(topic, partition) for partition in (kept, lost)]

    until(lambda: committed() == [3, None if lost else 1], committed)
    assert reader.values(topic) == ["kept"]


# --- copying exactly once ------------------------------------------------------------------------------------


class Copier:
    """Kafka's program of consuming, producing and committing offsets in transactions, of which a third is
    aborted at random. It ends when it has copied what there is."""

    def __init__(self, bootstrap, log, name, source, target, group, *options):
        arguments = {
            "--broker-list": bootstrap,
            "--transactional-id": name,
            "--input-topic": source,
            "--output-topic": target,
            "--consumer-group": group,
            "--transaction-size": 20,
        }
        words = [word for pair in arguments.items() for word in pair]
        self.copied, self.log = 0, log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                java(COPIER, *words, "--enable-random-aborts", *options),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        for line in self.process.stdout:
            self.copied = json.loads(line)["totalProcessed"]

    def code(self):
        """How it ended; None while it has not."""
        return self.process.poll()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.listener.join()


@pytest.fixture
def copy(bootstrap, tmp_path):
    """Starts a copier."""
    started = []

    def start(*arguments):
        started.append(Copier(bootstrap, tmp_path / "copiers.log", *arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()
    print((tmp_path / "copiers.log").read_text()[-3000:])


@pytest.fixture
def source(new_topic, bootstrap):
    """A topic of four partitions, and its values, each of its own. The copier takes markers for records, and
    would wait for them."""
    topic, values = new_topic(4), [(n, f"{n} {m}") for n in range(4) for m in range(1500)]
    producer = Producer({"bootstrap.servers": bootstrap})
    for n, value in values:
        producer.produce(topic, value, partition=n)
    assert producer.flush(TIMEOUT) == 0
    return topic, [value for _, value in values]


def test_what_javas_machine_warns_of_is_no_line_of_a_copier():
    line = java(COPIER, "--help")
    # Of which there are none on a machine that was not set up for it.
    line.insert(1, "-XX:+UseLargePages")
    done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.stdout.startswith("usage"), done.stdout
    assert "UseLargePages" in done.stderr


def until_copied(copier, count):
    """Waits until it has copied some, and is still at it."""
    until(lambda: copier.copied >= count or copier.code() is not None, lambda: copier.copied)
    assert copier.code() is None, "it ended"


def until_ended(*copiers):
    """Returns how each ended."""

    def codes():
        return [each.code() for each in copiers]

    until(lambda: None not in codes(), lambda: [each.copied for each in copiers], 2 * TIMEOUT)
    return codes()


def check_copied(make_reader, target, expected):
    copied = Counter(make_reader("confluent").values(target, range(4)))
    assert copied == Counter(expected), "each once"
    assert Counter(make_reader("java").values(target, range(4))) == copied
    everything = make_reader("confluent", UNCOMMITTED).values(target, range(4))
    print(f"{len(everything) - len(expected)} records were aborted beside {len(expected)}")
    assert len(everything) > len(expected), "nothing was aborted: this proved nothing"


def test_a_copier_that_is_killed_or_replaced_copies_every_record_once(
    copy, source, make_reader, new_topic, new_name, bootstrap
):
    (topic, values), target, group = source, new_topic(4), new_name()

    def copier_of(partition):
        # The next one waits for the end of a transaction that is open: it asks where to go on before it is told
        # who it is.
        options = ("--input-partition", partition, "--transaction-timeout", 2000)
        return copy(f"{group}-{partition}", topic, target, group, *options)

    killed, replaced, *others = [copier_of(n) for n in range(4)]
    until_copied(killed, 100)
    killed.kill()
    until_copied(replaced, 100)
    pause(replaced.process)
    successors = [copier_of(0), copier_of(1)]
    until_copied(successors[1], 1)
    replaced.process.send_signal(signal.SIGCONT)
    assert until_ended(*successors, *others) == [0] * 4
    # If it was stopped while it aborted, it was told so, and goes on where its successor is: with what comes now.
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, "too late", partition=1)
    assert producer.flush(TIMEOUT) == 0
    assert until_ended(replaced) == [1], "it was fenced"
    check_copied(make_reader, target, values)


def test_copiers_of_one_group_copy_every_record_once(copy, source, make_reader, new_topic, new_name):
    (topic, values), target, group = source, new_topic(4), new_name()

    def copier(n):
        options = ("--group-mode", "--use-group-metadata", "--input-partition", -1)
        return copy(f"{group}-{n}", topic, target, group, *options)

    pair = [copier(0), copier(1)]
    until(lambda: max(each.copied for each in pair) >= 100, "one is at it")
    n = 0 if pair[0].copied >= 100 else 1
    until_copied(pair[n], 100)
    pair[n].kill()
    pair[n] = copier(n)
    assert until_ended(*pair) == [0, 0]
    check_copied(make_reader, target, values)


# --- tools ---------------------------------------------------------------------------------------------------


@pytest.fixture
def open_transaction(make_producer, new_name, new_topic, kind):
    """A producer in a transaction whose first record is at offset 2, its name, and its topic."""
    name, topic = new_name(), new_topic()
    producer = make_producer(kind, name).init()
    producer.begin().send(topic, ["first"])
    producer.commit()
    producer.begin().send(topic, ["open", "too"])
    return producer, name, topic


def described(tool, name):
    (row,) = rows(tool(TRANSACTIONS, "describe", "--transactional-id", name))
    return row


def producers_of(tool, topic):
    return rows(tool(TRANSACTIONS, "describe-producers", "--topic", topic, "--partition", 0))


def test_transactions_are_listed(tool, make_producer, new_name, topic):
    prefix = new_name()
    names = [f"{prefix}-{n}" for n in range(4)]
    empty, open_, done, undone = (make_producer(KINDS[n % 2], name).init() for n, name in enumerate(names))
    for each in (open_, done, undone):
        each.begin().send(topic, ["x"])
    done.commit()
    undone.abort()
    states = dict(zip(names, ("Empty", "Ongoing", "CompleteCommit", "CompleteAbort"), strict=True))

    def listed(*arguments):
        found = [row for row in rows(tool(TRANSACTIONS, "list", *arguments)) if row["TransactionalId"] in states]
        assert len(found) == len({row["TransactionalId"] for row in found})
        assert len({row["ProducerId"] for row in found}) == len(found)
        assert all(row["Coordinator"].isdigit() for row in found)
        return {row["TransactionalId"]: row["TransactionState"] for row in found}

    until(lambda: listed() == states, listed)
    assert listed("--duration-filter", -1) == states
    until(lambda: names[1] in listed("--duration-filter", 1), "an open one of some age")
    assert names[1] not in listed("--duration-filter", 600_000)
    assert listed("--transactional-id-pattern", f"{prefix}-[12]") == {name: states[name] for name in names[1:3]}
    assert listed("--transactional-id-pattern", f"{prefix}-.*") == states
    assert listed("--transactional-id-pattern", "nobody") == {}
    tool(TRANSACTIONS, "list", "--transactional-id-pattern", "(", fails_with="Failed to list transactions")
    open_.abort()


def test_a_transaction_is_described(tool, open_transaction):
    producer, name, topic = open_transaction
    told = described(tool, name)
    assert (told["TransactionalId"], told["TransactionState"]) == (name, "Ongoing")
    assert told["TopicPartitions"] == f"{topic}-0"
    assert int(told["CurrentTransactionStartTimeMs"]) > 0
    assert told["TransactionTimeoutMs"] == "60000"
    (row,) = producers_of(tool, topic)
    assert (row["ProducerId"], row["ProducerEpoch"]) == (told["ProducerId"], told["ProducerEpoch"])
    producer.commit()
    until(lambda: described(tool, name)["TransactionState"] == "CompleteCommit", "the end")
    assert described(tool, name)["TopicPartitions"] == ""
    nobody = ("describe", "--transactional-id", f"not {name}")
    tool(TRANSACTIONS, *nobody, fails_with=f"Failed to describe transaction state of transactional-id `not {name}`")


def test_the_producers_of_a_partition_are_described(tool, open_transaction, kind):
    producer, _, topic = open_transaction
    (row,) = producers_of(tool, topic)
    assert row["CurrentTransactionStartOffset"] == "2"
    assert row["LastSequence"] == ("1" if kind == "java" else "2"), "it begins at 0 with each epoch"
    producer.abort()
    until(lambda: producers_of(tool, topic)[0]["CurrentTransactionStartOffset"] == "None", "the end")


def test_a_transaction_that_its_coordinator_knows_does_not_hang(tool, open_transaction, admin):
    producer, _, topic = open_transaction
    broker = next(iter(admin.list_topics(timeout=TIMEOUT).brokers))
    for scope in (("--topic", topic), ("--topic", topic, "--partition", 0), ("--broker-id", broker)):
        printed = tool(TRANSACTIONS, "find-hanging", *scope, "--max-transaction-timeout", 0)
        assert printed.split()[0] == "Topic"
        assert not [row for row in rows(printed) if row["Topic"] == topic]
    producer.commit()
    tool(TRANSACTIONS, "find-hanging", fails_with="requires either --topic or --broker-id")


@pytest.mark.parametrize("by", ["start offset", "producer id"])
def test_an_operator_aborts_a_transaction(tool, make_producer, make_reader, open_transaction, by):
    producer, name, topic = open_transaction
    other = make_producer("confluent").init()
    other.begin().send(topic, ["behind"])
    other.commit()
    reader = make_reader("confluent")
    assert reader.values(topic) == ["first"]
    (row,) = [row for row in producers_of(tool, topic) if row["CurrentTransactionStartOffset"] != "None"]
    which = ("--start-offset", 2)
    if by == "producer id":
        which = ("--producer-id", row["ProducerId"], "--producer-epoch", row["ProducerEpoch"])
        which += ("--coordinator-epoch", row["LatestCoordinatorEpoch"])
    place = ("abort", "--topic", topic, "--partition", 0)
    tool(
        TRANSACTIONS,
        *place,
        "--start-offset",
        1,
        fails_with="Could not find any open transactions starting at offset 1",
    )
    tool(TRANSACTIONS, *place, fails_with="--start-offset")
    assert tool(TRANSACTIONS, *place, *which) == ""
    assert reader.values(topic) == ["first", "behind"]
    assert {row["CurrentTransactionStartOffset"] for row in producers_of(tool, topic)} == {"None"}
    if not AGAINST_KAFKA:  # its coordinator does not hear of it, and would commit what is left
        assert described(tool, name)["TransactionState"] == "CompleteAbort"
        assert refusal(producer.commit)
        assert reader.values(topic) == ["first", "behind"]


def test_an_operator_terminates_the_transaction_of_an_id(tool, make_reader, open_transaction):
    producer, name, topic = open_transaction
    tool(TRANSACTIONS, "forceTerminateTransaction", "--transactionalId", name)
    until(lambda: described(tool, name)["TransactionState"] != "Ongoing", "the end")
    assert make_reader("java").values(topic) == ["first"]
    assert refusal(producer.commit) & FENCED


def test_the_second_transaction_protocol_is_finalised(tool):
    told = tool(FEATURES, "describe")
    (line,) = [line.split() for line in told.splitlines() if "transaction.version" in line]
    words = ["Feature:", "transaction.version", "SupportedMinVersion:", "0", "SupportedMaxVersion:", "2"]
    assert line[:8] == [*words, "FinalizedVersionLevel:", "2"]


def test_a_load_is_produced_in_transactions(tool, topic, new_name, make_reader):
    load = ("--num-records", 2000, "--record-size", 100, "--throughput", 4000)
    transactions = ("--transactional-id", new_name(), "--transaction-duration-ms", 50)
    printed = tool(PRODUCER_PERFORMANCE, "--topic", topic, *load, *transactions)
    assert "2000 records sent" in printed
    reader = make_reader("java")
    assert len(reader.values(topic)) == 2000
    assert reader.ends(topic)[0] > 2001, "there were many transactions"
