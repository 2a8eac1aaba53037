"""kafka-topics, kafka-get-offsets and kafka-delete-records: what topics there are, and what is in them."""

import json
import re
import time

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from conftest import AGAINST_KAFKA
from tools import CONSOLE_CONSUMER, DELETE_RECORDS, GET_OFFSETS, TOPICS, alone

HOUR = 3_600_000  # ms


@pytest.fixture
def described(tool):
    """What --describe says of topics: for each line a dict, a topic's own before those of its partitions."""

    def run(*arguments):
        lines = tool(TOPICS, "--describe", *arguments).splitlines()
        return [dict(field.split(": ", 1) for field in line.strip("\t").split("\t") if field) for line in lines]

    return run


@pytest.fixture
def offsets(tool):
    """What kafka-get-offsets prints: `{(topic, partition): offset}`."""

    def run(*arguments):
        lines = [line.rsplit(":", 2) for line in tool(GET_OFFSETS, *arguments).splitlines()]
        return {(topic, int(partition)): int(offset) for topic, partition, offset in lines}

    return run


# kafka-topics ----------------------------------------------------------------------------------------------


def test_a_topic_is_created_as_told_and_described_so(tool, new_name, described):
    name = new_name()
    settings = ("--config", "max.message.bytes=54321", "--config", "message.timestamp.type=LogAppendTime")
    printed = tool(TOPICS, "--create", "--topic", name, "--partitions", 3, "--replication-factor", 1, *settings)
    assert printed == f"Created topic {name}.\n"

    topic, *partitions = described("--topic", name)
    assert topic["Topic"] == name
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", topic["TopicId"])
    assert (topic["PartitionCount"], topic["ReplicationFactor"]) == ("3", "1")
    assert {"max.message.bytes=54321", "message.timestamp.type=LogAppendTime"} <= set(topic["Configs"].split(","))
    assert [(it["Topic"], it["Partition"]) for it in partitions] == [(name, n) for n in "012"]
    for it in partitions:
        assert it["Leader"] == it["Replicas"] == it["Isr"]
        assert it["Leader"].isdigit()
        assert (it["Elr"], it["LastKnownElr"]) == ("", "")

    # Answered a partition at a time, the description is the same.
    assert described("--topic", name, "--partition-size-limit-per-response", 1) == [topic, *partitions]
    by_id = described("--topic-id", topic["TopicId"])  # asked by an API that knows of no eligible leaders
    assert by_id == [topic, *({**it, "Elr": "N/A", "LastKnownElr": "N/A"} for it in partitions)]
    overridden = [it for it in described("--topics-with-overrides") if it["Topic"] == name]
    assert overridden == [topic]


def test_a_topic_that_says_nothing_has_the_defaults(tool, new_name, described):
    name = new_name()
    assert tool(TOPICS, "--create", "--topic", name) == f"Created topic {name}.\n"
    topic, partition = described("--topic", name)
    assert (topic["PartitionCount"], topic["ReplicationFactor"]) == ("1", "1")
    assert partition["Partition"] == "0"


def test_an_assignment_says_how_many_partitions(tool, new_name, described, admin):
    (broker_id,) = admin.list_topics(timeout=30).brokers
    name = new_name()
    tool(TOPICS, "--create", "--topic", name, "--replica-assignment", f"{broker_id},{broker_id}")
    assert described("--topic", name)[0]["PartitionCount"] == "2"


def test_more_replicas_than_brokers_are_promised_only_where_records_are_elsewhere(tool, new_name, described):
    name = new_name()
    create = ("--create", "--topic", name, "--replication-factor", 3)
    if AGAINST_KAFKA:
        tool(TOPICS, *create, fails_with="InvalidReplicationFactorException")
    else:
        tool(TOPICS, *create)
        topic, partition = described("--topic", name)
        assert int(topic["ReplicationFactor"]) == len(partition["Replicas"].split(","))
        assert described("--under-replicated-partitions", "--topic", name) == []


def test_lists_leave_out_what_they_are_told_to(tool, new_name):
    first, second = new_name(), new_name()
    for name in (first, second):
        tool(TOPICS, "--create", "--topic", name)
    assert {first, second} <= set(tool(TOPICS, "--list").splitlines())
    users = tool(TOPICS, "--list", "--exclude-internal").splitlines()
    assert {first, second} <= set(users)
    assert not [name for name in users if name.startswith("__")]
    assert users == sorted(users)
    assert tool(TOPICS, "--list", "--topic", f"{first}|nobody-made-.*").splitlines() == [first]


def test_unhealthy_partitions_are_none_and_all_are_at_their_minimum(new_topic, described):
    topic = new_topic(2)
    for question in ("--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"):
        assert described(question, "--topic", topic) == []
    assert [it["Partition"] for it in described("--at-min-isr-partitions", "--topic", topic)] == ["0", "1"]


def test_partitions_are_added_and_never_taken_away(tool, new_topic, described):
    topic = new_topic(2)
    alter = ("--alter", "--topic", topic, "--partitions")
    assert tool(TOPICS, *alter, 5) == ""
    assert described("--topic", topic)[0]["PartitionCount"] == "5"
    assert len(described("--topic", topic)[1:]) == 5
    for count in (5, 2):
        tool(TOPICS, *alter, count, fails_with="InvalidPartitionsException")
    assert described("--topic", topic)[0]["PartitionCount"] == "5"


def test_a_deleted_topic_is_gone_and_its_name_is_free(tool, new_name, described):
    name = new_name()
    ids = set()
    for _ in range(2):
        tool(TOPICS, "--create", "--topic", name)
        ids.add(described("--topic", name)[0]["TopicId"])
        assert tool(TOPICS, "--delete", "--topic", name) == ""
        assert name not in tool(TOPICS, "--list").splitlines()
    assert len(ids) == 2


def test_if_exists_and_if_not_exists_make_failures_silence(tool, topic):
    unknown = ("--topic", "nobody-made-this")
    for action in (("--describe",), ("--delete",), ("--alter", "--partitions", 2)):
        tool(TOPICS, *action, *unknown, fails_with="Topic 'nobody-made-this' does not exist as expected")
        assert tool(TOPICS, *action, *unknown, "--if-exists") == ""
    tool(TOPICS, "--create", "--topic", topic, fails_with="TopicExistsException")
    assert tool(TOPICS, "--create", "--topic", topic, "--if-not-exists") == ""


def test_what_can_not_be_created_is_refused_with_its_reason(tool, new_name):
    refused = new_name()
    for settings, reason in {
        ("--config", "cleanup.policy=compact", "--config", "min.insync.replicas=0"): "min.insync.replicas",
        ("--config", "no.such.setting=1"): "no.such.setting",
        ("--replica-assignment", "1:1"): "replica",
    }.items():
        tool(TOPICS, "--create", "--topic", refused, *settings, fails_with=reason)
    for name in ("a/b", "x" * 250, ".."):
        tool(TOPICS, "--create", "--topic", name, fails_with="InvalidTopicException")
    assert refused not in tool(TOPICS, "--list").splitlines()


def test_names_that_metrics_could_not_tell_apart_are_refused(tool, new_name):
    name = new_name()
    tool(TOPICS, "--create", "--topic", f"{name}.x")
    tool(TOPICS, "--create", "--topic", f"{name}_x", fails_with="InvalidTopicException")


# kafka-get-offsets -----------------------------------------------------------------------------------------


def test_offsets_are_found_by_time_topic_and_partition(new_topic, fill, offsets, tool):
    topic = new_topic(3)
    start = int(time.time() * 1000) - HOUR
    fill(topic, {0: 10, 1: 4}, first_timestamp=start, step=1000)
    ends = {(topic, 0): 10, (topic, 1): 4, (topic, 2): 0}
    assert offsets("--topic", topic) == ends
    for when, answer in {
        -1: ends,
        "latest": ends,
        -2: dict.fromkeys(ends, 0),
        "earliest": dict.fromkeys(ends, 0),
        -3: {(topic, 0): 9, (topic, 1): 3},
        "max-timestamp": {(topic, 0): 9, (topic, 1): 3},
        start: {(topic, 0): 0, (topic, 1): 0},
        start + 2001: {(topic, 0): 3, (topic, 1): 3},
        start + 3001: {(topic, 0): 4},
        start + 2 * HOUR: {},
    }.items():
        assert offsets("--topic", topic, "--time", when) == answer, f"--time {when}"

    assert offsets("--topic", topic, "--partitions", "1,2") == {(topic, 1): 4, (topic, 2): 0}
    assert offsets("--topic-partitions", f"{topic}:0-1,nobody-made-this") == {(topic, 0): 10}
    assert offsets("--topic-partitions", f"{topic}:1-") == {(topic, 1): 4, (topic, 2): 0}
    everything = offsets("--exclude-internal-topics")
    assert everything.items() >= ends.items()
    assert not [name for name, _ in everything if name.startswith("__")]
    tool(GET_OFFSETS, "--topic", "nobody-made-this", fails_with="Could not match any topic-partitions")


# kafka-delete-records --------------------------------------------------------------------------------------


@pytest.fixture
def delete_records(tool, tmp_path):
    """Deletes the records below offsets, `{(topic, partition): offset}`; returns the lines of the outcome."""

    def run(offsets):
        path = tmp_path / "offsets.json"
        wanted = [{"topic": topic, "partition": n, "offset": offset} for (topic, n), offset in offsets.items()]
        path.write_text(json.dumps({"version": 1, "partitions": wanted}))
        began, ended, *lines = tool(DELETE_RECORDS, "--offset-json-file", path).splitlines()
        assert (began, ended) == ("Executing records delete operation", "Records delete operation completed:")
        return dict(re.fullmatch(r"partition: (\S+)\t(.*)", line).groups() for line in lines)

    return run


def test_deleted_records_move_the_start_of_the_log(new_topic, fill, offsets, delete_records):
    topic = new_topic(3)
    fill(topic, dict.fromkeys(range(3), 10))
    below = {(topic, 0): 4, (topic, 1): -1}
    assert delete_records(below) == {f"{topic}-0": "low_watermark: 4", f"{topic}-1": "low_watermark: 10"}
    starts = {(topic, 0): 4, (topic, 1): 10, (topic, 2): 0}
    assert offsets("--topic", topic, "--time", "earliest") == starts
    assert offsets("--topic", topic, "--time", "latest") == dict.fromkeys(starts, 10)
    assert offsets("--topic", topic, "--time", 0) == {(topic, 0): 4, (topic, 2): 0}

    # What is deleted already is deleted, and the start never goes back.
    assert delete_records({(topic, 0): 2}) == {f"{topic}-0": "low_watermark: 4"}
    outcome = delete_records({(topic, 0): 11})
    assert "OffsetOutOfRangeException" in outcome[f"{topic}-0"]
    assert offsets("--topic", topic, "--time", "earliest") == starts

    fill(topic, {1: 1})
    assert offsets("--topic", topic, "--time", "latest", "--partitions", 1) == {(topic, 1): 11}


def test_records_are_deleted_from_the_middle_of_a_batch(topic, fill, delete_records, bootstrap):
    fill(topic, {0: 10})
    delete_records({(topic, 0): 7})
    printed = alone(
        *(CONSOLE_CONSUMER, "--bootstrap-server", bootstrap, "--topic", topic, "--partition", 0),
        *("--offset", "earliest", "--max-messages", 3, "--timeout-ms", 30_000),
    )
    assert printed.out.splitlines() == ["7", "8", "9"]


def test_a_consumer_below_the_start_hears_so_or_begins_anew(topic, fill, delete_records, bootstrap):
    fill(topic, {0: 10})
    delete_records({(topic, 0): 6})
    settings = {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False}
    for reset, expected in {"earliest": 6, "error": KafkaError._AUTO_OFFSET_RESET}.items():
        consumer = Consumer({**settings, "auto.offset.reset": reset})
        consumer.assign([TopicPartition(topic, 0, 2)])
        message = consumer.poll(30)
        consumer.close()
        if message.error():
            assert message.error().code() == expected
            assert "out of range" in str(message.error()).lower()
        else:
            assert message.offset() == expected
