"""kafka-configs and kafka-client-metrics: every kind of entity, what is set, where a value comes from, and
what is refused."""

import pytest
from confluent_kafka import KafkaError, Producer

from conftest import AGAINST_KAFKA
from entity_configs import configs  # noqa: F401: fixture
from tools import CLIENT_METRICS, CONFIGS, eventually

# Topics ----------------------------------------------------------------------------------------------------


def test_a_topics_configs_are_set_described_and_deleted(topic, configs):
    of_topic = configs("--entity-type", "topics", "--entity-name", topic)
    heading = f"Dynamic configs for topic {topic} are:"
    done = f"Completed updating config for topic {topic}.\n"
    assert of_topic.lines() == [heading]

    assert of_topic.set("max.message.bytes=5000,message.timestamp.type=LogAppendTime") == done
    assert of_topic.described()[0] == heading
    values = of_topic.described()[1]
    assert list(values) == ["max.message.bytes", "message.timestamp.type"]
    value, synonyms = values["message.timestamp.type"]
    assert value == "LogAppendTime"
    assert synonyms.startswith("DYNAMIC_TOPIC_CONFIG:message.timestamp.type=LogAppendTime, DEFAULT_CONFIG:")
    assert synonyms.endswith("message.timestamp.type=CreateTime")
    assert values["max.message.bytes"][0] == "5000"

    assert of_topic.set("max.message.bytes=6000") == done
    assert of_topic.described()[1]["max.message.bytes"][0] == "6000"
    assert of_topic.delete("max.message.bytes") == done
    assert list(of_topic.described()[1]) == ["message.timestamp.type"]
    assert of_topic.delete("max.message.bytes,message.timestamp.type") == done, "what is not set can be deleted"
    assert of_topic.lines() == [heading]


def test_all_configs_of_a_topic_are_described_with_kafkas_defaults(topic, configs):
    heading, values = configs("--entity-type", "topics", "--entity-name", topic).described("--all")
    assert heading == f"All configs for topic {topic} are:"
    expected = {
        "cleanup.policy": "delete",
        "compression.type": "producer",
        "delete.retention.ms": "86400000",
        "max.message.bytes": "1048588",
        "message.timestamp.after.max.ms": "3600000",
        "message.timestamp.type": "CreateTime",
        "min.cleanable.dirty.ratio": "0.5",
        "min.compaction.lag.ms": "0",
        "min.insync.replicas": "1",
        "retention.bytes": "-1",
        "retention.ms": "604800000",
        "segment.bytes": "1073741824",
        "segment.ms": "604800000",
        "unclean.leader.election.enable": "false",
    }
    assert {name: values[name][0] for name in expected} == expected
    assert list(values) == sorted(values)


def test_all_topics_are_described_at_once(new_topic, configs):
    plain, changed = new_topic(), new_topic(max_message_bytes=5000)
    lines = configs("--entity-type", "topics").lines()
    assert f"Dynamic configs for topic {plain} are:" in lines
    after = lines[lines.index(f"Dynamic configs for topic {changed} are:") + 1]
    assert after.startswith("  max.message.bytes=5000 ")


def test_configs_that_make_no_sense_are_refused_and_change_nothing(topic, configs):
    of_topic = configs("--entity-type", "topics", "--entity-name", topic)
    for change, about in {
        "max.message.bytes=-1": "max.message.bytes",
        "max.message.bytes=1000,cleanup.policy=shred": "cleanup.policy",
        "compression.type=rar": "compression.type",
        "no.such.config=1": "no.such.config",
    }.items():
        assert about in of_topic.refusal(change)
    assert of_topic.lines() == [f"Dynamic configs for topic {topic} are:"]


def test_an_unknown_topic_has_no_configs(tool):
    unknown = ("--entity-type", "topics", "--entity-name", "nobody-made-this")
    # The tool looks for the topic among all, and says it in its own words.
    printed = tool(CONFIGS, "--describe", *unknown)
    assert printed == "The topic 'nobody-made-this' doesn't exist and doesn't have dynamic config.\n"
    change = ("--alter", "--add-config", "retention.ms=1")
    tool(CONFIGS, *change, *unknown, fails_with="UnknownTopicOrPartitionException")


# Brokers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def node(admin):
    (broker_id,) = admin.list_topics(timeout=30).brokers
    return broker_id


@pytest.fixture
def of_broker(configs, node):
    entity = configs("--entity-type", "brokers", "--entity-name", node)
    yield entity
    entity.delete("message.max.bytes")


@pytest.fixture
def of_brokers(configs):
    entity = configs("--entity-type", "brokers", "--entity-default")
    yield entity
    entity.delete("message.max.bytes")


def test_a_brokers_config_is_set_for_all_or_one_and_says_which_holds(node, of_broker, of_brokers):
    for_all = "DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=2000000"
    default = "DEFAULT_CONFIG:message.max.bytes=1048588"

    done = "Completed updating default config for brokers in the cluster.\n"
    assert of_brokers.set("message.max.bytes=2000000") == done
    heading, values = of_brokers.described()
    assert heading == "Default configs for brokers in the cluster are:"
    assert values["message.max.bytes"] == ("2000000", for_all)
    eventually(lambda: of_broker.described("--all")[1]["message.max.bytes"], ("2000000", f"{for_all}, {default}"))
    assert of_broker.lines() == [f"Dynamic configs for broker {node} are:"]

    assert of_broker.set("message.max.bytes=3000000") == f"Completed updating config for broker {node}.\n"
    own = "DYNAMIC_BROKER_CONFIG:message.max.bytes=3000000"
    described = {"message.max.bytes": ("3000000", f"{own}, {for_all}, {default}")}
    eventually(of_broker.described, (f"Dynamic configs for broker {node} are:", described))
    assert of_brokers.described()[1]["message.max.bytes"] == ("2000000", for_all)

    of_broker.delete("message.max.bytes")
    of_brokers.delete("message.max.bytes")
    eventually(lambda: of_broker.described("--all")[1]["message.max.bytes"], ("1048588", default))


def test_a_brokers_config_holds(topic, of_brokers, bootstrap):
    def size_taken():
        producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 10_000_000})
        errors = []
        producer.produce(topic, b"x" * 2_000_000, on_delivery=lambda error, _: errors.append(error))
        assert producer.flush(60) == 0
        return errors[0].code() if errors[0] else None

    assert size_taken() == KafkaError.MSG_SIZE_TOO_LARGE
    of_brokers.set("message.max.bytes=3000000")
    eventually(size_taken, None)
    of_brokers.delete("message.max.bytes")
    eventually(size_taken, KafkaError.MSG_SIZE_TOO_LARGE)


def test_what_can_not_be_changed_while_a_broker_runs_is_refused(of_broker, of_brokers, node):
    assert "broker.id" in of_broker.refusal("broker.id=4")
    assert "listeners" in of_brokers.refusal("listeners=PLAINTEXT://:1")
    assert "message.max.bytes" in of_brokers.refusal("message.max.bytes=many")
    if not AGAINST_KAFKA:  # which takes any name, for plugins
        assert "no.such.config" in of_brokers.refusal("no.such.config=1")
    assert of_broker.lines() == [f"Dynamic configs for broker {node} are:"]


def test_how_long_producers_are_remembered_is_the_same_on_all_brokers(of_broker, of_brokers):
    config = "producer.id.expiration.ms"
    if not AGAINST_KAFKA:  # where each leader forgets on its own
        assert config in of_broker.refusal(f"{config}=3600000")
    of_brokers.set(f"{config}=3600000")
    _, values = of_brokers.described()
    assert values[config][0] == "3600000"
    of_brokers.delete(config)


def test_all_brokers_are_described_at_once_and_unknown_ones_not_at_all(tool, node, configs):
    lines = configs("--entity-type", "brokers").lines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == [
        f"Dynamic configs for broker {node} are:",
        "Default configs for brokers in the cluster are:",
    ]
    unknown = configs("--entity-type", "brokers", "--entity-name", node + 1)
    assert unknown.lines() == [f"The broker '{node + 1}' doesn't exist and doesn't have dynamic config."]
    _, values = configs("--entity-type", "brokers", "--entity-name", node).described("--all")
    assert values["node.id"][0] == str(node)
    of_topics = {"advertised.listeners", "auto.create.topics.enable", "log.dirs", "num.partitions"}
    of_groups = {"group.consumer.session.timeout.ms", "group.max.session.timeout.ms", "offsets.retention.minutes"}
    assert of_topics | of_groups <= set(values)


# Groups ----------------------------------------------------------------------------------------------------


def test_a_groups_configs_are_set_described_and_deleted(configs, new_name):
    group = new_name()
    of_group = configs("--entity-type", "groups", "--entity-name", group)
    nothing = [f"The group '{group}' doesn't exist and doesn't have dynamic config."]
    done = f"Completed updating config for group {group}.\n"
    assert of_group.lines() == nothing

    change = "consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=6000"
    assert of_group.set(change) == done
    heading = f"Dynamic configs for group {group} are:"
    described = {
        "consumer.heartbeat.interval.ms": (
            "6000",
            "DYNAMIC_GROUP_CONFIG:consumer.heartbeat.interval.ms=6000, "
            "DEFAULT_CONFIG:group.consumer.heartbeat.interval.ms=5000",
        ),
        "consumer.session.timeout.ms": (
            "50000",
            "DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000, "
            "DEFAULT_CONFIG:group.consumer.session.timeout.ms=45000",
        ),
    }
    assert of_group.described() == (heading, described)
    lines = configs("--entity-type", "groups").lines()
    assert lines[lines.index(heading) + 1].startswith("  consumer.heartbeat.interval.ms=6000 ")

    heading, values = of_group.described("--all")
    assert heading == f"All configs for group {group} are:"
    assert {name: values[name] for name in described} == described

    assert of_group.delete("consumer.session.timeout.ms,consumer.heartbeat.interval.ms") == done
    assert of_group.lines() == nothing


def test_a_groups_configs_that_make_no_sense_are_refused(configs, new_name):
    of_group = configs("--entity-type", "groups", "--entity-name", new_name())
    for change in (
        "consumer.session.timeout.ms=1",
        "consumer.heartbeat.interval.ms=1",
        "consumer.session.timeout.ms=soon",
        "no.such.config=1",
    ):
        assert change.split("=")[0] in of_group.refusal(change)
    assert len(of_group.lines()) == 1


# Client metrics, quotas and users ----------------------------------------------------------------------------


def test_metrics_of_clients_are_subscribed_to_where_they_are_taken(tool, configs):
    subscribe = ("--alter", "--name", "cm", "--interval", 2000, "--metrics", "a.b", "--match", "client_id=y")
    assert tool(CLIENT_METRICS, "--list").split() == []
    assert tool(CLIENT_METRICS, "--describe") == ""
    if AGAINST_KAFKA:
        assert tool(CLIENT_METRICS, *subscribe) == "Altered client metrics config for cm.\n"
        assert tool(CLIENT_METRICS, "--list") == "cm\n"
        told = ["Client metrics configs for cm are:", "  interval.ms=2000", "  match=client_id=y", "  metrics=a.b"]
        assert tool(CLIENT_METRICS, "--describe", "--name", "cm").splitlines() == told
        assert tool(CLIENT_METRICS, "--delete", "--name", "cm") == "Deleted client metrics config for cm.\n"
        of_client_metrics = configs("--entity-type", "client-metrics", "--entity-name", "cm")
        assert "interval.ms" in of_client_metrics.refusal("interval.ms=1")
    else:
        # Nothing would come of it: Odradek takes no telemetry (APIs 71 and 72).
        tool(CLIENT_METRICS, *subscribe, fails_with="metrics of clients (KIP-714) are not collected")
    assert tool(CLIENT_METRICS, "--list").split() == []


def test_there_are_no_users_and_no_quotas(tool):
    for kind in ("users", "clients", "ips"):
        assert tool(CONFIGS, "--describe", "--entity-type", kind) == ""
    quota = ("--alter", "--entity-type", "clients", "--entity-name", "c", "--add-config", "producer_byte_rate=1000")
    if not AGAINST_KAFKA:
        tool(CONFIGS, *quota, fails_with="UnsupportedVersionException")
