"""The tools that produce and consume: kafka-console-consumer in groups, kafka-verifiable-producer and
-consumer, kafka-consumer-perf-test, kafka-e2e-latency. Each in a JVM of its own."""

import json
import queue
import re
import subprocess
import threading

import pytest

from members import PROTOCOLS
from servers import java
from tools import (
    CONSOLE_CONSUMER,
    CONSUMER_GROUPS,
    CONSUMER_PERFORMANCE,
    END_TO_END_LATENCY,
    VERIFIABLE_CONSUMER,
    VERIFIABLE_PRODUCER,
    alone,
    rows,
)

TIMEOUT = 60  # seconds; a bound for what hangs, not an expectation


@pytest.fixture
def run(bootstrap):
    """Runs a tool to its end in a JVM of its own; returns its output, having seen it succeed."""

    def run(main_class, *arguments):
        done = alone(main_class, "--bootstrap-server", bootstrap, *arguments)
        assert done.code == 0, done.printed
        return done.out

    return run


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def committed(tool):
    """What a group has committed: `{partition: offset}`."""

    def ask(group):
        found = rows(tool(CONSUMER_GROUPS, "--describe", "--group", group))
        return {int(row["PARTITION"]): int(row["CURRENT-OFFSET"]) for row in found if row["CURRENT-OFFSET"] != "-"}

    return ask


# kafka-console-consumer ------------------------------------------------------------------------------------


def test_the_console_consumer_goes_on_where_its_group_was(run, topic, fill, committed, new_name, protocol):
    group = new_name()
    fill(topic, {0: 10})
    consume = ("--topic", topic, "--group", group, "--command-property", f"group.protocol={protocol}")
    assert run(CONSOLE_CONSUMER, *consume, "--from-beginning", "--max-messages", 4).split() == list("0123")
    assert committed(group) == {0: 4}
    show = ("--formatter-property", "print.offset=true")
    printed = run(CONSOLE_CONSUMER, *consume, "--max-messages", 6, *show)
    assert printed.splitlines() == [f"Offset:{n}\t{n}" for n in range(4, 10)]
    assert committed(group) == {0: 10}


def test_the_console_consumer_reads_all_topics_of_a_pattern(run, new_topic, fill, committed, new_name, protocol):
    group, first, second = new_name(), new_topic(2), new_topic()
    fill(first, {0: 3, 1: 3})
    fill(second, {0: 3})
    pattern = f"({first}|{second})"
    consume = ("--include", pattern, "--group", group, "--command-property", f"group.protocol={protocol}")
    printed = run(CONSOLE_CONSUMER, *consume, "--from-beginning", "--max-messages", 9)
    assert sorted(printed.split()) == sorted(["0", "1", "2"] * 3)


# kafka-verifiable-producer, kafka-verifiable-consumer --------------------------------------------------------


def events(printed, name):
    """What a verifiable tool says of one kind of event."""
    told = [json.loads(line) for line in printed.splitlines()]
    return [event for event in told if event["name"] == name]


def test_what_is_produced_verifiably_is_consumed_so(run, topic, committed, new_name, protocol):
    group = new_name()
    produced = run(VERIFIABLE_PRODUCER, "--topic", topic, "--max-messages", 1000, "--value-prefix", 3)
    acknowledged = {event["offset"]: event["value"] for event in events(produced, "producer_send_success")}
    assert acknowledged == {n: f"3.{n}" for n in range(1000)}
    (summary,) = events(produced, "tool_data")
    assert (summary["sent"], summary["acked"]) == (1000, 1000)

    consume = ("--topic", topic, "--group-id", group, "--group-protocol", protocol, "--reset-policy", "earliest")
    consumed = run(VERIFIABLE_CONSUMER, *consume, "--max-messages", 1000, "--verbose")
    (assigned,) = events(consumed, "partitions_assigned")
    assert assigned["partitions"] == [{"topic": topic, "partition": 0}]
    assert {event["offset"]: event["value"] for event in events(consumed, "record_data")} == acknowledged
    assert sum(event["count"] for event in events(consumed, "records_consumed")) == 1000
    assert all(event["success"] for event in events(consumed, "offsets_committed"))
    assert events(consumed, "offsets_committed")[-1]["offsets"] == [{"topic": topic, "partition": 0, "offset": 1000}]
    assert len(events(consumed, "partitions_revoked")) == 1
    assert committed(group) == {0: 1000}


class VerifiableConsumer:
    """A member of a group that tells what it is assigned."""

    def __init__(self, bootstrap, *arguments):
        command = java(VERIFIABLE_CONSUMER, "--bootstrap-server", bootstrap, *arguments)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines = queue.Queue()
        self.partitions = set()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.put(line)

    def hear(self):
        """Takes up its next line. A change of assignment tells only what comes or goes with either protocol."""
        event = json.loads(self.lines.get(timeout=TIMEOUT))
        named = {it["partition"] for it in event.get("partitions", [])}
        if event["name"] == "partitions_assigned":
            self.partitions |= named
        elif event["name"] == "partitions_revoked":
            self.partitions -= named
        return event["name"]

    def leave(self):
        self.process.terminate()
        while self.hear() != "shutdown_complete":
            pass
        assert self.partitions == set()

    def kill(self):
        self.process.kill()
        self.process.wait()


def test_members_share_the_partitions_and_inherit_them(bootstrap, new_topic, new_name, protocol):
    topic, group = new_topic(4), new_name()
    arguments = ("--topic", topic, "--group-id", group, "--group-protocol", protocol)
    members = []
    try:
        first = VerifiableConsumer(bootstrap, *arguments)
        members.append(first)
        while len(first.partitions) < 4:
            first.hear()
        second = VerifiableConsumer(bootstrap, *arguments)
        members.append(second)
        while len(first.partitions) != 2:
            first.hear()
        while len(second.partitions) != 2:
            second.hear()
        assert first.partitions | second.partitions == set(range(4))
        first.leave()
        while len(second.partitions) < 4:
            second.hear()
        second.leave()
    finally:
        for member in members:
            member.kill()


# kafka-consumer-perf-test, kafka-e2e-latency -----------------------------------------------------------------


def test_the_load_of_consumers_is_measured(run, new_topic, fill, committed, new_name, protocol):
    topic, group = new_topic(3), new_name()
    fill(topic, dict.fromkeys(range(3), 1000))
    consume = ("--topic", topic, "--group", group, "--num-records", 3000)
    printed = run(CONSUMER_PERFORMANCE, *consume, "--command-property", f"group.protocol={protocol}")
    headings, values = ([field.strip() for field in line.split(",")] for line in printed.splitlines())
    told = dict(zip(headings, values, strict=True))
    assert int(told["data.consumed.in.nMsg"]) == 3000
    assert float(told["nMsg.sec"]) > 0
    assert committed(group) == dict.fromkeys(range(3), 1000)


def test_the_way_from_end_to_end_is_measured(run, topic):
    records = ("--num-records", 50, "--record-size", 100)
    printed = run(END_TO_END_LATENCY, "--topic", topic, *records, "--producer-acks", "all")
    *_, average, percentiles = printed.splitlines()
    assert re.fullmatch(r"Avg latency: \d+\.\d+ ms", average)
    assert re.fullmatch(r"Percentiles: 50th = \d+, 99th = \d+, 99.9th = \d+", percentiles)
