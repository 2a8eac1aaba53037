"""`--metrics-listen`: the page of metrics, as Prometheus' own parser reads it, says what is in the broker and
what waits, while records come and go; and the pages for those who watch over processes."""

import os
import subprocess
import urllib.error
import urllib.request

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

import short_lives
from cloud import until
from conftest import AGAINST_KAFKA, create_topic
from servers import BROKER_BIN, free_port

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="the metrics are Odradek's own")

RECORDS, BYTES = 20, 30_000  # that do not compress, a flush each


class Watched:
    """A broker and its metrics."""

    def __init__(self, start_broker, **changes):
        self.port = free_port()
        flags = short_lives.flags(inline_bytes=0, metrics_listen=f"127.0.0.1:{self.port}", **changes)
        self.server = start_broker(*flags)
        self.admin = AdminClient({"bootstrap.servers": self.server.bootstrap})

    def get(self, path):
        """The status, the content type and the text."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.headers["Content-Type"], answer.read().decode()

    def families(self):
        status, kind, text = self.get("/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return list(text_string_to_metric_families(text))

    def samples(self):
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families()
            for sample in family.samples
        }

    def value(self, name, **labels):
        return self.samples()[f"odradek_{name}", *sorted(labels.items())]

    def produce(self, topic):
        producer = Producer({"bootstrap.servers": self.server.bootstrap, "message.timeout.ms": 30_000})
        failed = []
        for _ in range(RECORDS):
            producer.produce(topic, os.urandom(BYTES), on_delivery=lambda error, _: error and failed.append(error))
            assert producer.flush(30) == 0
        assert not failed

    def consume(self, topic):
        consumer = Consumer({"bootstrap.servers": self.server.bootstrap, "group.id": "unused"})
        consumer.assign([TopicPartition(topic, 0, 0)])
        found = 0
        while found < RECORDS:
            found += len(consumer.consume(RECORDS, 1))
        consumer.close()


@pytest.fixture(scope="module")
def watched(start_broker):
    """A broker that merges nothing, so that what waits is what was deleted."""
    watched = Watched(start_broker, merge_interval_ms=3_600_000, sweep_grace_ms=3000, delete_grace_ms=500)
    yield watched
    watched.server.kill()


def test_the_page_says_of_every_metric_what_it_is(watched):
    families = watched.families()
    names = [family.name for family in families]
    assert len(set(names)) == len(names) > 40
    for family in families:
        assert family.name.startswith("odradek_")
        assert family.documentation
        assert family.type in ("gauge", "counter", "histogram")
        for sample in family.samples:
            assert sample.value >= 0, sample


def test_records_are_counted_on_their_way_in_and_out(watched):
    create_topic(watched.admin, "counted")
    before = watched.samples()
    watched.produce("counted")
    watched.consume("counted")
    after = watched.samples()

    def grown(name, **labels):
        key = f"odradek_{name}", *sorted(labels.items())
        return after[key] - before.get(key, 0)

    assert grown("produced_records_total") == RECORDS
    assert RECORDS * BYTES <= grown("produced_bytes_total") <= RECORDS * (BYTES + 200)
    assert grown("fetched_bytes_total") >= RECORDS * BYTES
    assert grown("request_seconds_count", api="Produce") == RECORDS
    assert grown("request_seconds_bucket", api="Produce", le="+Inf") == RECORDS
    assert grown("request_seconds_sum", api="Produce") > 0
    assert grown("store_request_seconds_count", operation="put") >= RECORDS
    assert grown("store_bytes_total", operation="put") >= RECORDS * BYTES
    assert grown("segments", level="0") == RECORDS
    assert grown("extents") == RECORDS
    assert grown("log_appends_total", outcome="won") >= RECORDS
    assert grown("log_position") >= RECORDS
    assert after["odradek_connections",] >= 1


def test_errors_are_counted_by_their_names(watched):
    labels = {"api": "DeleteTopics", "error": "UNKNOWN_TOPIC_OR_PARTITION"}
    before = watched.samples().get(("odradek_request_errors_total", *sorted(labels.items())), 0)
    with pytest.raises(KafkaException):
        watched.admin.delete_topics(["nowhere"])["nowhere"].result(30)
    assert watched.value("request_errors_total", **labels) == before + 1


def test_what_was_deleted_waits_and_is_gone_when_it_was_swept(watched):
    create_topic(watched.admin, "doomed")
    swept = watched.value("swept_segments_total", kind="unreferenced")
    watched.produce("doomed")
    segments = watched.value("segments", level="0")
    assert watched.value("waiting_segments") == 0
    watched.admin.delete_topics(["doomed"])["doomed"].result(30)
    assert watched.value("deleted_topics") == 1
    until(lambda: watched.value("waiting_segments") == RECORDS, "segments that wait")
    assert watched.value("waiting_bytes") >= RECORDS * BYTES
    assert watched.value("deleted_topics") == 0
    assert watched.value("segments", level="0") == segments - RECORDS
    until(lambda: watched.value("waiting_oldest_seconds") > 1, "segments that have waited")
    until(lambda: watched.value("waiting_segments") == 0, "an empty store")
    until(lambda: watched.value("swept_segments_total", kind="unreferenced") == swept + RECORDS, "a count")
    assert watched.value("waiting_bytes") == 0
    assert watched.value("waiting_oldest_seconds") == 0


def test_merging_is_counted(start_broker):
    watched = Watched(start_broker, merge_bytes=5 * BYTES)
    create_topic(watched.admin, "merged")
    watched.produce("merged")
    until(lambda: watched.value("rewrite_segments_total", task="merging") > 1, "segments that are merged")
    samples = watched.samples()
    assert samples["odradek_segments", ("level", "1")] + samples["odradek_segments", ("level", "2")] > 0
    task = ("task", "merging")
    assert samples["odradek_rewrite_bytes_in_total", task] >= 8 * BYTES
    assert samples["odradek_rewrite_bytes_out_total", task] >= 8 * BYTES
    assert samples["odradek_rewrite_swaps_total", task] >= 1
    watched.server.kill()


def test_processes_are_watched_over_by_the_same_listener(watched):
    assert watched.get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert watched.get("/readyz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert watched.get("/")[0] == 404
    request = urllib.request.Request(f"http://127.0.0.1:{watched.port}/metrics", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 405


def test_nobody_listens_unless_asked_to(start_broker):
    server = start_broker()
    sockets = subprocess.run(["cat", f"/proc/{server.process.pid}/net/tcp"], capture_output=True, text=True).stdout
    inodes = set()
    for fd in os.listdir(f"/proc/{server.process.pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{server.process.pid}/fd/{fd}").removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            continue
    listening = [line.split() for line in sockets.splitlines() if " 0A " in line]
    ports = [int(fields[1].split(":")[1], 16) for fields in listening if fields[9] in inodes]
    assert ports == [server.port]
    server.kill()


def test_an_address_that_is_taken_is_an_error_that_names_it(watched, tmp_path):
    taken = f"127.0.0.1:{watched.port}"
    command = [BROKER_BIN, "--listen", "127.0.0.1:0", "--data", tmp_path / "data", "--metrics-listen", taken]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert taken in done.stdout + done.stderr

