"""kcat as Debian ships it (librdkafka 2.0.2): the oldest client we promise to serve, and the first one a
new user tries."""

import hashlib
import itertools
import json
import re
import subprocess
import time

import pytest

import corpus
import wire
from conftest import AGAINST_KAFKA

PARTITIONS = 6
# Kafka may refuse the first batches for a topic that was created a moment ago; kcat sends them again
# behind later ones, if it is not told to keep the order. Odradek has no reason to refuse any.
IN_ORDER = ["-X", "enable.idempotence=true"] if AGAINST_KAFKA else []


def kcat(bootstrap, *arguments, stdin=None):
    """Runs kcat to its end and returns what it printed; fails on a non-zero exit code."""
    command = ["kcat", "-b", bootstrap, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def read_all(bootstrap, topic, *arguments):
    """All of a topic from its beginning to its end, without chatter."""
    return kcat(bootstrap, "-C", "-q", "-e", "-t", topic, *arguments)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The file with the corpus, and its lines."""
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    return path, corpus.build(path)


@pytest.mark.parametrize("codec", wire.CODECS)
def test_a_million_lines_come_back_as_they_went_in(bootstrap, new_topic, text, codec):
    path, lines = text
    topic = new_topic(PARTITIONS)
    kcat(bootstrap, "-P", "-t", topic, "-z", codec, *IN_ORDER, "-l", path)
    output = read_all(bootstrap, topic, "-f", "%p %s\n")

    by_partition = [[] for _ in range(PARTITIONS)]
    for line in output.split(b"\n")[:-1]:
        partition, text_of_line = line.split(b" ", 1)
        by_partition[int(partition)].append(text_of_line)

    assert all(by_partition), "every partition has lines"
    assert checksum(itertools.chain(*by_partition)) == checksum(lines)
    for partition in by_partition:
        assert is_subsequence(partition, lines), "a partition keeps the order of the file"


def checksum(lines):
    """Of the sorted lines: what was read comes in another order than it was written."""
    return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(line in rest for line in part)


@pytest.mark.parametrize("codec", wire.CODECS)
def test_batches_travel_compressed_as_the_producer_chose(bootstrap, topic, codec):
    # With a narrower version range for Produce this librdkafka silently sends uncompressed.
    lines = b"".join(b"the same words again and again, line %d\n" % n for n in range(2000))
    kcat(bootstrap, "-P", "-t", topic, "-z", codec, "-X", "linger.ms=50", stdin=lines)

    batches = wire.fetch_batches(bootstrap, topic)
    assert {batch.codec for batch in batches} == {codec}
    assert all(batch.crc_is_right for batch in batches)
    assert sum(batch.records for batch in batches) == 2000
    size = sum(batch.size for batch in batches)
    assert size < len(lines) / 2 if codec != "none" else size > len(lines)
    assert read_all(bootstrap, topic) == lines


def test_the_broker_lists_itself_and_its_topics(bootstrap, new_topic):
    topic = new_topic(3)
    text = kcat(bootstrap, "-L").decode()
    assert re.search(rf"broker \d+ at {re.escape(bootstrap)}", text)
    assert f'topic "{topic}" with 3 partitions' in text

    listing = json.loads(kcat(bootstrap, "-L", "-J", "-t", topic))
    (broker,) = listing["brokers"]
    assert broker["name"] == bootstrap
    (described,) = listing["topics"]
    assert described["topic"] == topic
    assert [partition["partition"] for partition in described["partitions"]] == [0, 1, 2]
    for partition in described["partitions"]:
        assert partition["leader"] == broker["id"]
        assert partition["replicas"] == partition["isrs"] == [{"id": broker["id"]}]


def test_offsets_are_found_by_time(bootstrap, topic):
    kcat(bootstrap, "-P", "-t", topic, stdin=b"one\ntwo\n")
    between = wait_for_next_millisecond()
    kcat(bootstrap, "-P", "-t", topic, stdin=b"three\n")

    def offset_at(time_or_end):
        answer = kcat(bootstrap, "-Q", "-t", f"{topic}:0:{time_or_end}").decode()
        return int(re.fullmatch(rf"{re.escape(topic)} \[0\] offset (-?\d+)\n", answer).group(1))

    assert offset_at(-2) == 0, "the beginning"
    assert offset_at(-1) == 3, "the end"
    assert offset_at(1) == 0
    assert offset_at(between) == 2
    in_an_hour = between + 3_600_000
    assert offset_at(in_an_hour) == -1, "nothing is that young"
    assert read_all(bootstrap, topic, "-o", f"s@{between}") == b"three\n"
    assert read_all(bootstrap, topic, "-o", "s@1", "-o", f"e@{between}") == b"one\ntwo\n"


def wait_for_next_millisecond():
    """A time in ms later than all records so far and not later than any to come."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        pass
    return now + 1


def test_reading_starts_where_it_is_told_to(bootstrap, topic):
    kcat(bootstrap, "-P", "-t", topic, stdin=b"".join(b"%d\n" % n for n in range(100)))

    def read_from(offset):
        return [int(n) for n in read_all(bootstrap, topic, "-p", 0, "-o", offset).split()]

    assert read_from("beginning") == list(range(100))
    assert read_from(42) == list(range(42, 100))
    assert read_from(-5) == [95, 96, 97, 98, 99]
    assert read_from("end") == []
    assert read_all(bootstrap, topic, "-o", 10, "-c", 3) == b"10\n11\n12\n"


def test_keys_headers_and_tombstones_survive(bootstrap, topic):
    kcat(bootstrap, "-P", "-t", topic, "-K:", "-H", "a=1", "-H", "b=2", "-H", "a=3", stdin=b"key:value\n")
    kcat(bootstrap, "-P", "-t", topic, "-K:", "-Z", stdin=b"gone:\n")

    value, tombstone = map(json.loads, read_all(bootstrap, topic, "-J").splitlines())
    assert (value["key"], value["payload"]) == ("key", "value")
    assert value["headers"] == ["a", "1", "b", "2", "a", "3"]
    assert (tombstone["key"], tombstone["payload"]) == ("gone", None)
    assert read_all(bootstrap, topic, "-f", "%k %S %h\n") == b"key 5 a=1,b=2,a=3\ngone -1 \n"
