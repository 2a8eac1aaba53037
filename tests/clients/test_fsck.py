"""`odradek fsck` and `odradek inspect`: what is lost or damaged behind the brokers' backs is named, with
the records that it costs; and what brokers do to their store while they run is not taken for damage."""

import itertools
import json
import os
import shutil
import subprocess
import threading
import time

import pytest
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

import wire
from conftest import AGAINST_KAFKA, create_topic
from servers import BROKER_BIN

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="the commands are Odradek's own")

KAFKA_STORAGE_ERROR = 56
PLAIN = ("--inline-bytes", "0", "--merge-interval-ms", "3600000")  # a segment for each flush, for ever
LIVELY = (
    *("--inline-bytes", "4096", "--merge-interval-ms", "50", "--merge-bytes", "65536"),
    *("--sweep-interval-ms", "50", "--sweep-grace-ms", "100", "--sweep-listing-ms", "200"),
    *("--compaction-interval-ms", "50", "--retention-check-ms", "50", "--retention-at-once"),
    *("--delete-grace-ms", "300"),
)


def run(server, *arguments):
    command = [BROKER_BIN, *arguments, "--data", server.directory / "data"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def fsck(server, *flags):
    """The exit code and the document."""
    done = run(server, "fsck", "--json", *flags)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def inspect(server, *what):
    done = run(server, "inspect", "--json", *what)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def produce(server, topic, count, size=20_000, partition=0, key=None):
    """Records that don't compress, a flush each: with PLAIN as many segments."""
    producer = Producer({"bootstrap.servers": server.bootstrap, "message.timeout.ms": 30_000})
    failed = []
    for number in range(count):
        value = b"%d " % number + os.urandom(size)
        producer.produce(topic, value, key, partition, on_delivery=lambda error, _: error and failed.append(error))
        assert producer.flush(30) == 0
    assert not failed


def read(server, topic, count):
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = [message for message in consumer.consume(count, timeout=30) if not message.error()]
    consumer.close()
    return [message.offset() for message in found]


def extents(server, topic):
    return inspect(server, "topic", topic)["partitions"][0]["extents"]


def file_of(server, segment):
    key = inspect(server, "segment", segment)["key"]
    return key, server.directory / "data/objects" / key


def only(findings):
    assert len(findings) == 1, findings
    return findings[0]


@pytest.fixture
def stocked(start_broker):
    """A broker with five segments of one record each in `orders`."""
    server = start_broker(*PLAIN)
    create_topic(AdminClient({"bootstrap.servers": server.bootstrap}), "orders", 2)
    produce(server, "orders", 5)
    yield server
    server.kill()


def lost(finding):
    return [(it["topic"], it["partition"], it["first_offset"], it["last_offset"]) for it in finding["affected"]]


def test_a_store_that_was_left_alone_is_clean_and_stays_as_it_is(stocked):
    stocked.stop()
    data = stocked.directory / "data"
    files = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    code, report = fsck(stocked, "--deep")
    assert (code, report["clean"], report["findings"]) == (0, True, [])
    assert report["segments"]["referenced"]["objects"] == 5
    assert (report["read"]["blocks"], report["read"]["batches"]) == (5, 5)
    assert report["orphans"]["below_horizon"]["objects"] + report["orphans"]["may_be_committed"]["objects"] == 0
    in_words = run(stocked, "fsck", "--deep")
    assert in_words.returncode == 0
    assert "nothing is lost or damaged" in in_words.stdout
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("is_running", [False, True])
def test_a_missing_segment_is_named_with_what_is_lost(stocked, is_running):
    key, path = file_of(stocked, extents(stocked, "orders")[3]["segment"])
    if not is_running:
        stocked.stop()
    path.unlink()
    for flags in ((), ("--deep",)):
        code, report = fsck(stocked, *flags)
        finding = only(report["findings"])
        assert (code, finding["kind"], finding["key"]) == (1, "missing", key)
        assert lost(finding) == [("orders", 0, 3, 3)]
    in_words = run(stocked, "fsck")
    assert in_words.returncode == 1
    assert f"segment {key} is missing\n  orders-0 offsets 3 to 3\n" in in_words.stdout


@pytest.mark.parametrize("is_running", [False, True])
def test_a_flipped_bit_is_found_by_reading(stocked, is_running):
    key, path = file_of(stocked, extents(stocked, "orders")[1]["segment"])
    if not is_running:
        stocked.stop()
    damage(path, 1000)
    assert fsck(stocked)[0] == 0
    code, report = fsck(stocked, "--deep")
    finding = only(report["findings"])
    assert (code, finding["kind"], finding["key"]) == (1, "block", key)
    assert lost(finding) == [("orders", 0, 1, 1)]
    seen = inspect(stocked, "segment", key)
    assert not seen["is_whole"]
    assert "checksum" in seen["blocks"][0]["damage"]


def test_a_cut_segment_is_found_without_reading(stocked):
    key, path = file_of(stocked, extents(stocked, "orders")[0]["segment"])
    path.write_bytes(path.read_bytes()[:-1])
    code, report = fsck(stocked)
    finding = only(report["findings"])
    assert (code, finding["kind"], finding["key"], lost(finding)) == (1, "length", key, [("orders", 0, 0, 0)])


def test_orphans_and_strange_files_are_listed_and_are_no_damage(stocked, start_broker):
    other = start_broker(*PLAIN)
    produce(other, "orders", 1)
    key, path = file_of(other, extents(other, "orders")[0]["segment"])
    other.kill()
    objects = stocked.directory / "data/objects"
    # Nobody here committed it: as if it had been put by a broker that died.
    (objects / key).parent.mkdir(exist_ok=True)
    shutil.copy(path, objects / key)
    (objects / "notes.txt").write_text("not ours")
    code, report = fsck(stocked, "--deep")
    assert (code, report["findings"]) == (0, [])
    assert [it["key"] for it in report["unknown"]] == ["notes.txt"]
    assert report["orphans"]["may_be_committed"] == {"objects": 1, "bytes": path.stat().st_size}
    assert report["orphans"]["oldest"] == key
    assert inspect(stocked, "segment", key)["standing"] == "unknown"


def damage(path, at):
    contents = bytearray(path.read_bytes())
    contents[at] ^= 1
    path.write_bytes(contents)


def test_a_running_broker_says_which_segment_it_misses_and_serves_the_rest(stocked):
    stocked.stop()  # or it would have them in memory
    stocked.start()
    key, path = file_of(stocked, extents(stocked, "orders")[2]["segment"])
    path.unlink()
    with pytest.raises(AssertionError, match=f"error {KAFKA_STORAGE_ERROR}"):
        wire.fetch(stocked.bootstrap, "orders", 0, 2)
    said = [line for line in stocked.log.read_text().splitlines() if "ERROR" in line and key in line]
    assert said, stocked.log_tail()
    # What lies before it is read to its end, and what lies behind it for whoever asks for it.
    _, before = wire.fetch(stocked.bootstrap, "orders", 0, 0)
    assert [batch.base_offset for batch, _ in wire.parse_batches(before)] == [0, 1]
    _, behind = wire.fetch(stocked.bootstrap, "orders", 0, 3)
    assert [batch.base_offset for batch, _ in wire.parse_batches(behind)] == [3, 4]
    produce(stocked, "orders", 1)
    assert read(stocked, "orders", 2) == [0, 1]
    stocked.check_alive()


def test_a_damaged_log_is_damage_and_a_missing_one_can_not_be_looked_at(stocked):
    stocked.stop()
    chunk = next((stocked.directory / "data/log/odradek").glob("*.log"))
    damage(chunk, 100)
    code, report = fsck(stocked)
    assert (code, only(report["findings"])["kind"]) == (1, "log")
    assert "is damaged at byte" in report["findings"][0]["what"]
    done = run(stocked, "fsck", "--cluster", "other")
    assert done.returncode == 2
    assert "other" in done.stderr
    done = run(stocked, "fsck", "--log", "memory:")
    assert done.returncode == 2


def test_what_a_lively_broker_does_is_never_damage(start_broker):
    server = start_broker(*LIVELY)
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    create_topic(admin, "kept", 2)
    create_topic(admin, "passing", 2)
    create_topic(admin, "brief", 2, {"retention.ms": "500"})
    create_topic(admin, "latest", 2, {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0"})
    ends, failures = threading.Event(), []

    def be_lively():
        try:
            for count in itertools.count():
                if ends.is_set():
                    return
                live(count)
        except Exception as failure:
            failures.append(failure)

    def live(count):
        partition = count % 2
        produce(server, "kept", 3, size=1500, partition=partition)
        produce(server, "brief", 2, size=30_000, partition=partition)
        produce(server, "latest", 3, size=6000, partition=partition, key=b"%d" % (count % 3))
        produce(server, "passing", 3, size=30_000, partition=partition)
        gone = TopicPartition("passing", partition, OFFSET_END)
        admin.delete_records([gone])[gone].result(30)
        branch = f"branch-{count}"
        create_topic(admin, branch, 2, {"odradek.branch.of": "kept"})
        admin.delete_topics([branch])[branch].result(30)

    life = threading.Thread(target=be_lively)
    life.start()
    try:
        deadline = time.monotonic() + 120
        looks, seen = 0, set()
        while looks < 20 or not {"level", "deleted", "gap"} <= seen:
            code, report = fsck(server, *(("--deep",) if looks % 2 else ()))
            assert (code, report["findings"], report["unknown"]) == (0, [], [])
            looks += 1
            seen |= {"level" for it in inspect(server, "segments")["levels"] if it["level"] > 0}
            seen |= {"deleted" for it in inspect(server, "topics")["deleted"]}
            seen |= {it["holds"] for it in extents(server, "latest")}
            assert time.monotonic() < deadline, f"not everything happened: {seen}"
            assert not failures
    finally:
        ends.set()
        life.join()
    server.stop()
    code, report = fsck(server, "--deep")
    assert (code, report["findings"]) == (0, [])


def test_inspect_shows_what_there_is(stocked):
    consumer = Consumer(
        {"bootstrap.servers": stocked.bootstrap, "group.id": "shoppers", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["orders"])
    while consumer.poll(1) is None:
        pass
    consumer.commit(offsets=[TopicPartition("orders", 0, 4)], asynchronous=False)

    entries = inspect(stocked, "log")["entries"]
    assert [entry["entry"] for entry in entries] == list(range(1, len(entries) + 1))
    assert all(before["hash"] == entry["previous"] for before, entry in zip(entries, entries[1:]))
    commands = [command for entry in entries for command in entry["commands"]]
    kinds = {command["command"] for command in commands}
    assert {"genesis", "register-broker", "create-topic", "commit-segment", "change-group", "commit-offsets"} <= kinds
    assert "unknown" not in kinds
    some = inspect(stocked, "log", "--from", "2", "--to", "3")["entries"]
    assert [entry["entry"] for entry in some] == [2, 3]

    topics = inspect(stocked, "topics")["topics"]
    assert [(it["topic"], it["partitions"], it["offsets"]) for it in topics] == [("orders", 2, 5)]
    lie = extents(stocked, "orders")
    assert [(it["from"], it["to"], it["holds"]) for it in lie] == [(n, n + 1, "batches") for n in range(5)]
    seen = inspect(stocked, "segment", lie[0]["segment"])
    assert (seen["standing"], seen["is_whole"]) == ("referenced", True)
    block = only(seen["blocks"])
    batch = only(block["batches"])
    assert (block["position"], batch["records"], batch["crc"]) == (lie[0]["position"], 1, "good")
    levels = inspect(stocked, "segments")["levels"]
    assert [(it["level"], it["segments"]) for it in levels] == [(0, 5)]
    group = inspect(stocked, "group", "shoppers")
    assert (group["protocol"], len(group["members"])) == ("classic", 1)
    offset = only(group["offsets"])
    assert (offset["partition"], offset["offset"], offset["lag"]) == ("orders-0", 4, 1)
    consumer.close()

    for what in (("log",), ("topics",), ("topic", "orders"), ("segments",), ("group", "shoppers")):
        done = run(stocked, "inspect", *what)
        assert done.returncode == 0, done.stderr
        assert "orders" in done.stdout or what == ("segments",)
    for what, sentence in ((("topic", "none"), "no topic"), (("group", "none"), "no group"), (("segment", "x"), "is no")):
        done = run(stocked, "inspect", *what)
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr


def test_a_deleted_topic_is_shown_and_looked_after_until_it_is_purged(stocked):
    key, path = file_of(stocked, extents(stocked, "orders")[0]["segment"])
    admin = AdminClient({"bootstrap.servers": stocked.bootstrap})
    admin.delete_topics(["orders"])["orders"].result(30)
    assert inspect(stocked, "topics")["topics"] == []
    assert only(inspect(stocked, "topics")["deleted"])["topic"] == "orders"
    assert len(extents(stocked, "orders")) == 5
    path.unlink()
    code, report = fsck(stocked)
    finding = only(report["findings"])
    assert (code, finding["key"], finding["affected"][0]["deleted"]) == (1, key, True)
