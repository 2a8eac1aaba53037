"""A full disk: producers hear of it, nothing that was acknowledged is lost, and when there is room again
the broker goes on by itself. On a small file system of its own, which takes root to mount."""

import random
import subprocess
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from conftest import create_topic
from servers import Odradek

VALUE = bytes(range(256)) * 64  # 16 KiB that compress, but not to nothing
ROUNDS = 40_000


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 64 MiB, with a ballast of 24 MiB that can be thrown off."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", tmp_path])
    if mounted.returncode != 0:
        pytest.skip("a small file system can't be mounted: that takes root")
    (tmp_path / "ballast").write_bytes(bytes(24 << 20))
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.fixture
def server(small_disk):
    server = Odradek(small_disk)
    server.start()
    yield server
    server.kill()


def producer(server, acknowledged, refused):
    def on_delivery(error, message):
        if error:
            refused.append(error)
        else:
            acknowledged[message.offset()] = message.key()

    client = Producer(
        {"bootstrap.servers": server.bootstrap, "message.timeout.ms": 3000, "linger.ms": 5, "compression.type": "lz4"}
    )
    return client, on_delivery


def produce_until(server, acknowledged, enough, marker):
    refused = []
    client, on_delivery = producer(server, acknowledged, refused)
    for number in range(ROUNDS):
        key = f"{marker}-{number}".encode()
        # Random enough that the disk fills in reasonable time.
        value = VALUE + (key * 200)[number % 7 :] + random_bytes(number)
        client.produce("t", value, key, partition=0, on_delivery=on_delivery)
        client.poll(0)
        if number % 50 == 0:
            client.flush(10)
            if enough(refused):
                break
    client.flush(10)
    return refused


def random_bytes(number):
    """16 KiB that do not compress, the same for the same number."""
    return random.Random(number).randbytes(16 << 10)


def read_all(server):
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "x", "enable.auto.commit": False})
    end = consumer.get_watermark_offsets(TopicPartition("t", 0), timeout=30)[1]
    consumer.assign([TopicPartition("t", 0, 0)])
    found = {}
    deadline = time.monotonic() + 120
    while (not found or max(found) < end - 1) and time.monotonic() < deadline:
        for message in consumer.consume(500, timeout=1):
            assert not message.error(), message.error()
            found[message.offset()] = message.key()
    consumer.close()
    return found


def test_a_full_disk_is_said_and_survived(server, small_disk):
    create_topic(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 1)
    acknowledged = {}
    refused = produce_until(server, acknowledged, lambda refused: len(refused) > 0, "before")
    assert refused and acknowledged
    server.check_alive()
    # What was acknowledged can be read while the disk is full.
    found = read_all(server)
    assert all(found[offset] == key for offset, key in acknowledged.items())

    (small_disk / "ballast").unlink()
    count = len(acknowledged)
    produce_until(server, acknowledged, lambda _: len(acknowledged) > count + 50, "after")
    assert len(acknowledged) > count + 50, "the broker goes on when there is room"

    server.kill()
    server.start()
    found = read_all(server)
    assert all(found[offset] == key for offset, key in acknowledged.items())
