"""The life of data over brokers that die and stores that fail: records are merged, compacted, branched, expire
and are deleted all the time, while the log is trimmed behind snapshots and objects are swept. Nothing goes before
it is due, what is due goes, and what is kept of it all stays of one size while records keep coming.

SOAK_SECONDS lengthens it, CHAOS_SEED gives it another order. The samples that are taken meanwhile are in the file
that SOAK_SAMPLES names, one JSON document a line."""

import json
import os
import random
import statistics
import subprocess
import threading
import time
from pathlib import Path

import proof
import pytest
from cloud import Cluster, FaultProxy, Stores, aws_environment, until
from conftest import AGAINST_KAFKA
from lives import GRACE, LIVES
from servers import BROKER_BIN
from test_cluster import CHAOS_SEED, FAILED, LATE, LOST, THROTTLED

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")

SECONDS = float(os.environ.get("SOAK_SECONDS", 60))
SAMPLES = os.environ.get("SOAK_SAMPLES")
SAMPLE_INTERVAL = 15  # seconds
OUTAGE = 15  # seconds
LOG_KEPT = 30_000  # ms
SNAPSHOT_ENTRIES = 300

FLAGS = (
    *("--merge-interval-ms", "1000", "--merge-bytes", str(1 << 20), "--compaction-interval-ms", "1000"),
    *("--sweep-interval-ms", "1000", "--sweep-grace-ms", "30000", "--sweep-listing-ms", "5000"),
    *("--retention-check-ms", "1000", "--retention-at-once", "--delete-grace-ms", str(GRACE)),
    *("--snapshot-entries", str(SNAPSHOT_ENTRIES), "--log-kept-ms", str(LOG_KEPT)),
    *("--inline-bytes", "2048", "--linger-ms", "50"),
)

# What goes wrong with the stores, S3 first, and for how many seconds.
STORMS = {
    "replies are lost": (LOST, LOST, 8),
    "requests are late": (LATE, LATE, 10),
    "requests fail": (FAILED, FAILED, 8),
    "requests are throttled": (THROTTLED, THROTTLED, 8),
    "S3 is out": ({"outage": True}, {}, OUTAGE),
    "DynamoDB is out": ({}, {"outage": True}, OUTAGE),
    "both are out": ({"outage": True}, {"outage": True}, OUTAGE),
    "S3 does not answer": ({"black_hole": True}, {}, 8),
    "DynamoDB does not answer": ({}, {"black_hole": True}, 8),
}
# What befalls brokers, and how many of three.
DEEDS = {"killed": (1, 2), "all killed": (3, 2), "stopped": (1, 8), "two stopped": (2, 15), "restarted": (1, 0)}


class Nemesis:
    """What befalls brokers and stores, in an order that a seed decides."""

    def __init__(self, cluster, proxies):
        self.cluster, self.proxies = cluster, proxies
        self.dice = random.Random(CHAOS_SEED)
        self.bag = []
        self.strikes = 0

    def strike(self):
        self.strikes += 1
        self.bag = self.bag or self.dice.sample([*STORMS, *DEEDS], len(STORMS) + len(DEEDS))
        name = self.bag.pop()
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        if name in STORMS:
            *faults, seconds = STORMS[name]
            for proxy, its_faults in zip(self.proxies, faults):
                proxy.faults(**its_faults)
            time.sleep(seconds)
            self.heal()
        else:
            count, seconds = DEEDS[name]
            self.befall(name, self.dice.sample(self.cluster.brokers, count), seconds)
        time.sleep(self.dice.uniform(1, 6))

    def befall(self, name, brokers, seconds):
        is_stop, is_restart = "stopped" in name, "restarted" in name
        for broker in brokers:
            if is_restart:
                broker.stop_in_order()
            elif is_stop:
                broker.pause()
            else:
                broker.kill()
        time.sleep(seconds)
        for broker in brokers:
            if is_stop:
                broker.go_on()
            else:
                broker.launch()
        for broker in brokers:
            broker.wait_ready(120)

    def heal(self):
        for proxy in self.proxies:
            proxy.faults()


class Surveyor:
    """Measures what the cluster keeps."""

    def __init__(self, stores, cluster, lives):
        self.stores, self.cluster, self.lives = stores, cluster, lives
        self.began = time.monotonic()
        self.samples = []
        self.told = []

    def measure(self):
        store, order = self.cluster.place
        bucket, table = store.split("/")[2], order.removeprefix("dynamodb://").split("?")[0]
        root = self.stores.s3.directory / "buckets" / bucket
        # Not by rglob, which fails if a directory is deleted while it is listed.
        files = (Path(place) / name for place, _, names in os.walk(root) for name in names)
        sizes = {path: size_of(path) for path in files}
        snapshots = {}
        for path, size in sizes.items():
            if "snapshot" in path.parts:
                name = path.parts[path.parts.index("snapshot") + 1]
                snapshots[name] = snapshots.get(name, 0) + size
        self.samples.append(
            {
                "seconds": round(time.monotonic() - self.began),
                "acknowledged": sum(life.acknowledged for life in self.lives),
                "objects": sum(path.name == "xl.meta" for path in sizes),
                "object_bytes": sum(sizes.values()),
                "snapshots": len(snapshots),
                "snapshot_bytes": max(snapshots.values(), default=0),
                "log_items": self.items(table),
                "memory": [resident(broker) >> 20 for broker in self.cluster.brokers],
            }
        )
        if SAMPLES:
            with Path(SAMPLES).open("a") as file:
                print(json.dumps(self.samples[-1]), file=file)
        return self.samples[-1]

    def items(self, table):
        count, start = 0, {}
        while True:
            page = self.stores.dynamodb.call("Scan", TableName=table, Select="COUNT", **start)
            count += page["Count"]
            if "LastEvaluatedKey" not in page:
                return count
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def is_flat(self, what):
        """Whether its median in the last third is not half as much again as in the middle third."""
        third = len(self.samples) // 3
        values = [sample[what] for sample in self.samples]
        middle, last = statistics.median(values[third:-third]), statistics.median(values[-third:])
        told = f"{what}: {middle} in the middle, {last} at the end, at most {max(values)}"
        print(told)
        self.told.append(told)
        return last <= 1.5 * middle


def size_of(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:  # deleted since it was listed
        return 0


def resident(broker):
    try:
        status = Path(f"/proc/{broker.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10
    except (OSError, IndexError):  # it was killed
        return 0


def fsck(cluster, *flags):
    """The exit code and the document."""
    store, order = cluster.place
    command = [BROKER_BIN, "fsck", "--json", *flags, "--store", store, "--log", order]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=aws_environment())
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def stores(tmp_path):
    stores = Stores(tmp_path / "stores")
    yield stores.start()
    stores.kill()


@pytest.fixture
def proxies(stores, tmp_path):
    proxies = [FaultProxy(tmp_path / "s3", stores.s3), FaultProxy(tmp_path / "dynamodb", stores.dynamodb)]
    for proxy in proxies:
        proxy.start()
    yield proxies
    for proxy in proxies:
        proxy.kill()


@pytest.fixture
def cluster(stores, proxies, tmp_path):
    cluster = Cluster(tmp_path / "cluster", stores.new_place(*proxies), *FLAGS)
    yield cluster.start()
    cluster.kill()
    print(cluster.log_tails())


def test_what_is_not_due_stays_and_what_is_kept_stays_of_one_size(cluster, proxies, stores):
    lives = [kind(name, cluster.bootstrap, CHAOS_SEED) for name, kind in LIVES.items()]
    surveyor = Surveyor(stores, cluster, lives)
    for life in lives:
        life.start()
    nemesis = Nemesis(cluster, proxies)
    over, wrong = threading.Event(), []

    def look():
        try:
            while not over.wait(SAMPLE_INTERVAL):
                for life in lives:
                    life.look()
                print(json.dumps(surveyor.measure()), flush=True)
        except Exception as error:
            wrong.append(error)
            raise

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and not wrong:
        nemesis.strike()
    nemesis.heal()
    over.set()
    looking.join(600)
    assert not wrong, wrong
    assert not looking.is_alive(), "nobody could look"
    cluster.wait_complete()

    for life in lives:
        life.stop()
        life.look()
        assert life.acknowledged > 20 and life.looks > 1, f"{life.name} did {life.acknowledged}"
    if len(surveyor.samples) > 20:
        grown = [it for it in ("objects", "log_items", "snapshot_bytes") if not surveyor.is_flat(it)]
        assert not grown, grown
    comes_to_rest(cluster, lives)
    proof.add(
        "lives",
        minutes=round((time.monotonic() - surveyor.began) / 60, 1),
        seeds=CHAOS_SEED,
        faults=nemesis.strikes,
        records_acknowledged=sum(life.acknowledged for life in lives),
        readings_of_all_topics=min(life.looks for life in lives),
        note="; ".join(surveyor.told),
    )


def comes_to_rest(cluster, lives):
    """What is due goes, and the store comes to hold what the log says and nothing else."""
    for life in lives:
        life.rest()
    reports = []

    def is_clean():
        code, report = fsck(cluster, "--deep")
        reports.append(report)
        assert (code, report["findings"], report["unknown"]) == (0, [], [])
        return not any(report["orphans"][kind]["objects"] for kind in ("below_horizon", "may_be_committed"))

    until(is_clean, lambda: f"orphans are swept: {reports[-1]['orphans']}", 180)
    print(f"at rest: {reports[-1]['segments']}, {reports[-1]['read']}")
