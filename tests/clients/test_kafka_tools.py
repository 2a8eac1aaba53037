"""Apache Kafka's own command line tools, as they come from Maven Central: their exit codes, and what they
print about the broker."""

import re
import subprocess
import time

import pytest

import wire
from servers import java

TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"


@pytest.fixture
def tool(bootstrap):
    """Runs a tool against the broker and returns what it printed."""

    def run(main_class, *arguments, stdin="", fails_with=None):
        command = java(main_class, "--bootstrap-server", bootstrap, *arguments)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
        if fails_with is None:
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            assert done.returncode != 0, done.stdout
            assert fails_with in done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def consume(tool):
    """Reads `count` records of a partition with the console consumer; returns its lines."""

    def run(topic, count, offset, *arguments, partition=0):
        where = ("--topic", topic, "--partition", partition, "--offset", offset)
        return tool(CONSUMER, *where, "--max-messages", count, "--timeout-ms", 30_000, *arguments).splitlines()

    return run


# kafka-topics ------------------------------------------------------------------------------------------


def described(tool, topic):
    """What --describe says of a topic: its first line as a dict, and a dict for each partition."""
    lines = tool(TOPICS, "--describe", "--topic", topic).splitlines()
    fields = [dict(field.split(": ", 1) for field in line.strip().split("\t") if ": " in field) for line in lines]
    return fields[0], fields[1:]


def test_topics_are_created_listed_described_grown_and_deleted(tool, new_name):
    name = new_name()
    settings = ("--config", "max.message.bytes=54321", "--config", "message.timestamp.type=LogAppendTime")
    printed = tool(TOPICS, "--create", "--topic", name, "--partitions", 6, "--replication-factor", 1, *settings)
    assert f"Created topic {name}." in printed
    assert name in tool(TOPICS, "--list").splitlines()

    topic, partitions = described(tool, name)
    assert topic["Topic"] == name
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", topic["TopicId"])
    assert topic["PartitionCount"] == "6"
    assert topic["ReplicationFactor"] == "1"
    assert {"max.message.bytes=54321", "message.timestamp.type=LogAppendTime"} <= set(topic["Configs"].split(","))
    assert [partition["Partition"] for partition in partitions] == list("012345")
    for partition in partitions:
        assert partition["Leader"] == partition["Replicas"] == partition["Isr"]
        assert int(partition["Leader"]) >= 0

    tool(TOPICS, "--alter", "--topic", name, "--partitions", 9)
    assert described(tool, name)[0]["PartitionCount"] == "9"
    tool(TOPICS, "--alter", "--topic", name, "--partitions", 4, fails_with="InvalidPartitionsException")

    tool(TOPICS, "--delete", "--topic", name)
    assert name not in tool(TOPICS, "--list").splitlines()
    tool(TOPICS, "--describe", "--topic", name, fails_with="does not exist as expected")


def test_no_partition_is_reported_as_unhealthy(tool, topic):
    for question in ("--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"):
        assert topic not in tool(TOPICS, "--describe", question)


def test_what_can_not_be_created_is_refused_with_its_reason(tool, topic):
    tool(TOPICS, "--create", "--topic", topic, fails_with="TopicExistsException")
    assert tool(TOPICS, "--create", "--if-not-exists", "--topic", topic) == ""
    tool(TOPICS, "--create", "--topic", "a/b", fails_with="InvalidTopicException")


# kafka-configs -------------------------------------------------------------------------------------------


def test_topic_settings_are_altered_and_described(tool, topic):
    of_topic = ("--entity-type", "topics", "--entity-name", topic)
    lines = f"Dynamic configs for topic {topic} are:\n"
    assert tool(CONFIGS, *of_topic, "--describe") == lines

    change = "max.message.bytes=5000,message.timestamp.type=LogAppendTime"
    done = f"Completed updating config for topic {topic}.\n"
    assert tool(CONFIGS, *of_topic, "--alter", "--add-config", change) == done
    printed = tool(CONFIGS, *of_topic, "--describe")
    assert printed.startswith(lines)
    assert "  max.message.bytes=5000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=5000, " in printed
    assert re.search(r"DEFAULT_CONFIG:[a-z.]+=1048588}", printed), "the default is shown beside the value"
    assert "  message.timestamp.type=LogAppendTime sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:" in printed

    assert tool(CONFIGS, *of_topic, "--alter", "--delete-config", "max.message.bytes,message.timestamp.type") == done
    assert tool(CONFIGS, *of_topic, "--describe") == lines
    everything = tool(CONFIGS, *of_topic, "--describe", "--all")
    assert "  max.message.bytes=1048588 sensitive=false" in everything
    assert "  compression.type=producer sensitive=false" in everything


def test_a_wrong_setting_is_refused_and_changes_nothing(tool, topic):
    of_topic = ("--entity-type", "topics", "--entity-name", topic)
    for change in ("max.message.bytes=many", "no.such.setting=1", "max.message.bytes=1000,cleanup.policy=shred"):
        tool(CONFIGS, *of_topic, "--alter", "--add-config", change, fails_with="InvalidConfigurationException")
    assert tool(CONFIGS, *of_topic, "--describe") == f"Dynamic configs for topic {topic} are:\n"
    unknown = ("--entity-type", "topics", "--entity-name", "nobody-made-this")
    change = "max.message.bytes=1000"
    tool(CONFIGS, *unknown, "--alter", "--add-config", change, fails_with="UnknownTopicOrPartitionException")


def test_the_brokers_settings_are_described(tool, admin):
    (broker_id,) = admin.list_topics(timeout=30).brokers
    of_broker = ("--entity-type", "brokers", "--entity-name", broker_id)
    printed = tool(CONFIGS, *of_broker, "--describe", "--all")
    assert printed.startswith(f"All configs for broker {broker_id} are:\n")
    assert re.search(r"^  auto\.create\.topics\.enable=(true|false) sensitive=false", printed, re.MULTILINE)
    assert re.search(r"^  message\.max\.bytes=1048588 sensitive=false", printed, re.MULTILINE)


# kafka-console-producer, kafka-console-consumer ----------------------------------------------------------


@pytest.mark.parametrize("codec", wire.CODECS)
def test_lines_go_from_console_to_console(tool, topic, bootstrap, consume, codec):
    lines = [f"line {n} of {codec}" for n in range(500)]
    tool(PRODUCER, "--topic", topic, "--compression-codec", codec, stdin="\n".join(lines) + "\n")
    assert {batch.codec for batch in wire.fetch_batches(bootstrap, topic)} == {codec}
    assert consume(topic, 500, "earliest") == lines


def test_the_console_consumer_starts_where_it_is_told_to(tool, topic, consume):
    tool(PRODUCER, "--topic", topic, stdin="".join(f"{n}\n" for n in range(100)))
    assert consume(topic, 3, 42) == ["42", "43", "44"]
    assert consume(topic, 1, "earliest") == ["0"]
    show = ("--formatter-property", "print.offset=true", "--formatter-property", "print.partition=true")
    assert consume(topic, 1, 99, *show) == ["Partition:0\tOffset:99\t99"]
    committed = ("--isolation-level", "read_committed")
    assert consume(topic, 2, 98, *committed) == ["98", "99"]


def test_keys_headers_and_tombstones_pass_the_console(tool, topic, consume):
    reader = ("parse.key=true", "parse.headers=true", "null.marker=NOTHING")
    options = [part for each in reader for part in ("--reader-property", each)]
    tool(PRODUCER, "--topic", topic, *options, stdin="a:1,b:2,a:3\tkey\tvalue\nc:4\tgone\tNOTHING\n")
    show = ("print.key=true", "print.headers=true", "print.timestamp=true", "null.literal=NULL")
    options = [part for each in show for part in ("--formatter-property", each)]
    first, second = consume(topic, 2, "earliest", *options)
    assert re.fullmatch(r"CreateTime:\d{13}\ta:1,b:2,a:3\tkey\tvalue", first)
    assert re.fullmatch(r"CreateTime:\d{13}\tc:4\tgone\tNULL", second)


# kafka-get-offsets -----------------------------------------------------------------------------------------


def test_all_special_times_give_their_offsets(tool, new_topic, admin):
    topic = new_topic(3)
    tool(PRODUCER, "--topic", topic, "--reader-property", "parse.key=true", stdin="k\t1\nk\t2\nk\t3\nk\t4\n")
    (filled,) = [line for line in offsets(tool, topic) if not line.endswith(":0")]
    assert filled.endswith(":4"), "all records of one key are in one partition"
    partition = int(filled.split(":")[1])

    at_start = [f"{topic}:{p}:0" for p in range(3)]
    at_end = [f"{topic}:{p}:{4 if p == partition else 0}" for p in range(3)]
    nothing = []
    in_a_day = int(time.time() * 1000) + 86_400_000
    answers = {
        "latest": at_end,
        "-1": at_end,
        "earliest": at_start,
        "-2": at_start,
        "-4": at_start,
        "earliest-local": at_start,
        "latest-tiered": nothing,
        "-5": nothing,
        "0": [f"{topic}:{partition}:0"],
        in_a_day: nothing,
    }
    for when, answer in answers.items():
        assert offsets(tool, topic, "--time", when) == answer, f"--time {when}"
    for when in ("max-timestamp", "-3"):
        (youngest,) = offsets(tool, topic, "--time", when)
        assert re.fullmatch(rf"{re.escape(topic)}:{partition}:[0-3]", youngest)
    assert offsets(tool, topic, "--partitions", partition) == [filled]


def offsets(tool, topic, *arguments):
    return tool(OFFSETS, "--topic", topic, *arguments).splitlines()


def test_offsets_of_an_unknown_topic_are_an_error(tool):
    tool(OFFSETS, "--topic", "nobody-made-this", fails_with="Could not match any topic-partitions")


# kafka-producer-perf-test ----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", ["acks=all", "acks=1 enable.idempotence=false compression.type=zstd"])
def test_the_load_generator_sends_all_its_records(tool, new_topic, settings):
    topic = new_topic(6)
    properties = [part for each in settings.split() for part in ("--command-property", each)]
    size = ("--num-records", 100_000, "--record-size", 200, "--throughput", -1)
    printed = tool(PERFORMANCE, "--topic", topic, *size, *properties)
    summary = printed.strip().splitlines()[-1]
    assert summary.startswith("100000 records sent, ")
    assert "99.9th" in summary
    ends = [int(line.split(":")[2]) for line in offsets(tool, topic)]
    assert len(ends) == 6
    assert sum(ends) == 100_000
