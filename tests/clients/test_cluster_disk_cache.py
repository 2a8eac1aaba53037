"""`--disk-cache`: what consumers have read from S3 once they are given from the disk of the broker, also after a
restart and while S3 is away, and never from what has been damaged there. A proxy before S3 counts."""

import os
import subprocess
import urllib.request

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

import cloud
import wire
from cloud import CloudBroker, FaultProxy, Stores, until
from conftest import AGAINST_KAFKA, create_topic
from servers import free_port

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")

TOPIC = "archive"
RECORDS, VALUE_BYTES = 60, 200_000
# Far enough behind the end, which is read otherwise, and more than there is memory for.
OLD = 40
# Merging reads segments as well, and puts records elsewhere.
FLAGS = ["--merge-interval-ms", "3600000", "--cache", "1000000", "--disk-cache-bytes", "100000000"]


class Site:
    """A broker with a disk, and records that lie in S3."""

    def __init__(self, directory):
        self.stores = Stores(directory / "stores").start()
        place = self.stores.new_place()
        self.proxy = FaultProxy(directory / "proxy", self.stores.s3)
        self.proxy.start()
        self.folder = directory / "blocks"
        self.port = free_port()
        flags = [*FLAGS, "--disk-cache", self.folder, "--metrics-listen", f"127.0.0.1:{self.port}"]
        own = cloud.store("place-1", self.proxy), place[1]
        self.broker = CloudBroker(directory / "broker", own, *flags).start()
        create_topic(AdminClient(self.broker.client()), TOPIC)
        self.values = [os.urandom(VALUE_BYTES) for _ in range(RECORDS)]
        failed = []
        producer = Producer(self.broker.client(batch_num_messages=1))
        for value in self.values:
            producer.produce(TOPIC, value, on_delivery=lambda error, _: error and failed.append(error))
        assert producer.flush(60) == 0 and not failed

    def close(self):
        for server in [self.broker, self.proxy, self.stores]:
            server.kill()

    def costs(self):
        """Reads all old records, and says how many ranges of segments were read from S3 for that."""
        before = self.gets()
        with self.broker.connect() as connection:
            for offset, value in enumerate(self.values[:OLD]):
                cloud.ask_records(connection, TOPIC, 0, offset)
                response = wire.receive_response(connection)
                response.take("i")  # throttle time
                partition = cloud.one_partition(response)
                assert partition.take("h") == 0
                assert value in partition.data[partition.at :], f"record {offset}"
        return self.gets() - before

    def gets(self):
        return self.proxy.counts().get("GetObject", {}).get("requests", 0)

    def count(self, name, **labels):
        """A metric of the disk cache."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
        name = f"odradek_disk_cache_{name}"
        return next(it.value for it in samples if it.name == name and it.labels == labels)

    def wait_written(self):
        """Reads until nothing has to be read from S3: blocks are written behind a reader's back."""
        until(lambda: self.costs() == 0, lambda: f"what was read is on disk: {sorted(self.folder.iterdir())}")

    def restart(self):
        self.broker.kill()
        self.broker.start()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("disk_cache"))
    yield site
    site.close()


def test_what_was_read_once_is_read_from_disk_also_after_a_restart(site):
    site.restart()
    assert site.costs() > 0
    site.wait_written()
    assert site.count("bytes_total", operation="write") >= OLD * VALUE_BYTES
    assert site.count("held_bytes") >= OLD * VALUE_BYTES
    site.restart()
    # What lies there comes to be known while the broker starts, and a little after.
    site.wait_written()
    assert site.count("blocks_total", outcome="hit") > 0
    assert site.costs() == 0
    assert site.count("bytes_total", operation="read") >= OLD * VALUE_BYTES


def test_what_is_on_disk_is_read_without_s3(site):
    site.wait_written()
    site.proxy.faults(outage=True)
    try:
        assert site.costs() == 0
    finally:
        site.proxy.faults()


def test_what_is_damaged_on_disk_is_read_from_s3(site):
    site.wait_written()
    slabs = list(site.folder.glob("*.slab"))
    assert slabs
    for slab in slabs:
        with slab.open("r+b") as file:
            for at in range(0, slab.stat().st_size, 50_000):
                file.seek(at)
                byte = file.read(1)
                file.seek(at)
                file.write(bytes([byte[0] ^ 1]))
    assert site.costs() > 0
    assert site.count("errors_total", kind="damaged") > 0
    site.wait_written()
    with slabs[0].open("r+b") as file:
        file.truncate(1000)
    site.restart()
    site.wait_written()


def test_a_second_broker_in_the_same_folder_is_refused(site):
    flags = ["--listen", "127.0.0.1:0", "--store", "memory:", "--log", "memory:", "--disk-cache", site.folder]
    done = subprocess.run([*site.broker.command()[:1], *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert f"disk cache {site.folder} is in use by another process" in done.stderr
    assert site.costs() == 0


def test_a_full_disk_fails_no_request(site):
    """A file system that holds less than is read, which takes root to mount."""
    site.broker.kill()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", site.folder])
    try:
        site.broker.start()
        if mounted.returncode != 0:
            pytest.skip("a small file system can't be mounted: that takes root")
        until(lambda: site.costs() > 0 and site.count("errors_total", kind="write") > 0, "the disk is full")
        site.broker.check_alive()
        assert site.count("bytes_total", operation="write") > 0
    finally:
        site.broker.kill()
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", site.folder], check=True)
