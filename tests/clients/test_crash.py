"""kill -9 in the middle of producing: what was acknowledged is there, in order, and with an idempotent
producer exactly once."""

import subprocess
import time
from collections import Counter

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

import corpus
from conftest import create_topic
from test_kcat import checksum, kcat, read_all

PARTITIONS = 6
RECORDS = 60_000
CRASHES = 4


@pytest.fixture
def mortal(start_broker, tmp_path_factory):
    """A broker to be killed, with a topic of 6 partitions."""
    server = start_broker()
    create_topic(AdminClient({"bootstrap.servers": server.bootstrap}), "ledger", PARTITIONS)
    yield server
    server.kill()


def produce_through_crashes(server, settings):
    """Produces numbered records, kills and restarts the broker `CRASHES` times on the way, and returns
    what was acknowledged: {number: (partition, offset)}."""
    acknowledged, refused = {}, []

    def on_delivery(error, message):
        number = int(message.value())
        if error:
            refused.append((number, error))
        else:
            assert number not in acknowledged
            acknowledged[number] = (message.partition(), message.offset())

    producer = Producer(
        {
            "bootstrap.servers": server.bootstrap,
            "linger.ms": 1,
            "batch.num.messages": 100,
            "reconnect.backoff.max.ms": 200,
            "message.timeout.ms": 120_000,
            **settings,
        }
    )
    crash_at = [RECORDS * n // (CRASHES + 1) for n in range(1, CRASHES + 1)]
    for number in range(RECORDS):
        producer.produce("ledger", str(number), partition=number % PARTITIONS, on_delivery=on_delivery)
        producer.poll(0)
        # Let some answers come in now and then, so that the producer is never far ahead of the broker
        # and a crash always finds both answered and unanswered requests.
        while len(producer) > 5_000:
            producer.poll(0.05)
        if number in crash_at:
            assert len(producer) > 0, "a crash is to hit records in flight"
            server.kill()
            server.start()
    assert producer.flush(180) == 0
    assert not refused, refused[:5]
    assert len(acknowledged) == RECORDS
    return acknowledged


def read_partitions(server):
    """The numbers in each partition, by offset: [{offset: number}]."""
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "unused", "enable.auto.commit": False})
    partitions = []
    for index in range(PARTITIONS):
        low, high = consumer.get_watermark_offsets(TopicPartition("ledger", index), timeout=30)
        assert low == 0
        found = {}
        consumer.assign([TopicPartition("ledger", index, 0)])
        while (end := max(found, default=-1) + 1) < high:
            messages = consumer.consume(min(high - end, 10_000), timeout=30)
            assert messages, f"partition {index} ends at {end}, not at {high}"
            for message in messages:
                assert not message.error(), message.error()
                assert message.offset() not in found
                found[message.offset()] = int(message.value())
        partitions.append(found)
    consumer.close()
    return partitions


def check_acknowledged_are_there(acknowledged, partitions):
    for number, (partition, offset) in acknowledged.items():
        assert partition == number % PARTITIONS
        assert partitions[partition].get(offset) == number, f"record {number} was acknowledged at {offset}"


def test_an_idempotent_producer_loses_and_doubles_nothing(mortal):
    acknowledged = produce_through_crashes(mortal, {"enable.idempotence": True})
    partitions = read_partitions(mortal)
    check_acknowledged_are_there(acknowledged, partitions)
    for index, found in enumerate(partitions):
        numbers = [found[offset] for offset in sorted(found)]
        assert sorted(found) == list(range(len(found))), "offsets have no holes"
        assert numbers == list(range(index, RECORDS, PARTITIONS)), "every record once, in order"


def test_a_plain_producer_loses_nothing_that_was_acknowledged(mortal):
    acknowledged = produce_through_crashes(mortal, {"acks": "all"})
    partitions = read_partitions(mortal)
    check_acknowledged_are_there(acknowledged, partitions)
    # A retry after an unanswered request may write a record twice, but never something else.
    read = Counter(number for found in partitions for number in found.values())
    assert set(read) == set(range(RECORDS))


def test_what_was_read_before_a_crash_is_read_again_after_it(mortal):
    producer = Producer({"bootstrap.servers": mortal.bootstrap, "enable.idempotence": True})
    for number in range(600):
        producer.produce("ledger", str(number), partition=number % PARTITIONS)
    assert producer.flush(60) == 0
    before = read_partitions(mortal)
    for _ in range(3):
        mortal.kill()
        mortal.start()
        assert read_partitions(mortal) == before


def test_a_million_lines_of_kcat_survive_a_crash(mortal, tmp_path):
    path = tmp_path / "lines.txt"
    lines = corpus.build(path)
    idempotent = ["-X", "enable.idempotence=true", "-X", "reconnect.backoff.max.ms=200", "-E"]
    command = ["kcat", "-b", mortal.bootstrap, "-P", "-t", "ledger", "-z", "lz4", *idempotent, "-l", path]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as producer:
        wait_until_some_arrived(mortal)
        mortal.kill()
        assert producer.poll() is None, "kcat was still producing"
        mortal.start()
        _, errors = producer.communicate(timeout=300)
    assert producer.returncode == 0, errors.decode()
    assert checksum(read_all(mortal.bootstrap, "ledger").split(b"\n")[:-1]) == checksum(lines)


def wait_until_some_arrived(server):
    queries = [f"ledger:{partition}:-1" for partition in range(PARTITIONS)]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = kcat(server.bootstrap, "-Q", *(part for query in queries for part in ("-t", query)))
        if any(int(line.split()[-1]) > 0 for line in answer.splitlines()):
            return
    raise AssertionError("kcat produced nothing")
