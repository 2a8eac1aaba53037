"""The configs that say how long records live: what they may be, where their values come from, and what brokers
say of them for all topics. What they do is in test_retention and test_compaction."""

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, NewTopic, ResourceType

from conftest import AGAINST_KAFKA
from entity_configs import configs  # noqa: F401: fixture
from tools import CONFIGS, TOPICS, eventually

MOST = 2**63 - 1

# What may be set, and what is then said to be set.
TAKEN = {
    "retention.ms": {-1: "-1", 0: "0", 1: "1", MOST: str(MOST), " 1000 ": "1000", "+5": "5"},
    "retention.bytes": {-1: "-1", 0: "0", 1: "1", MOST: str(MOST), "+5": "5"},
    "cleanup.policy": {
        "delete": "delete",
        "compact": "compact",
        "compact,delete": "compact,delete",
        "delete,compact": "delete,compact",
        " compact , delete ": "compact,delete",
        "delete,delete": "delete",
        "": "",  # neither: nothing is ever removed
    },
    "delete.retention.ms": {0: "0", 1: "1", MOST: str(MOST)},
    "min.compaction.lag.ms": {0: "0", 1: "1", MOST: str(MOST)},
    "max.compaction.lag.ms": {1: "1", MOST: str(MOST)},
    "min.cleanable.dirty.ratio": {"0": "0.0", "1": "1.0", "0.25": "0.25", ".5": "0.5", "5e-1": "0.5"},
    "segment.ms": {1: "1", MOST: str(MOST)},
    "segment.bytes": {1 << 20: "1048576", (1 << 31) - 1: "2147483647"},
    "segment.jitter.ms": {0: "0", 1: "1"},
    "segment.index.bytes": {4: "4"},
    "file.delete.delay.ms": {0: "0"},
}

REFUSED = {
    "retention.ms": (-2, MOST + 1, "soon", "", "1.5"),
    "retention.bytes": (MOST + 1, "many", "", "1.5"),
    "cleanup.policy": ("shred", "compact,shred", "COMPACT", "none", "delete,"),
    "delete.retention.ms": (-1, "soon"),
    "min.compaction.lag.ms": (-1, "soon"),
    "max.compaction.lag.ms": (0, -1, "soon"),
    "min.cleanable.dirty.ratio": (-0.1, 1.1, "half"),
    "segment.ms": (0, -1, "soon"),
    "segment.bytes": (0, -1, 14, (1 << 20) - 1, 1 << 31, "many"),
    "segment.jitter.ms": (-1,),
    "segment.index.bytes": (3, 1 << 31),
    "file.delete.delay.ms": (-1,),
}

# Together with nothing else said, and what they are called where they are set for all topics.
DEFAULTS = {
    "cleanup.policy": ("delete", "log.cleanup.policy"),
    "delete.retention.ms": ("86400000", "log.cleaner.delete.retention.ms"),
    "max.compaction.lag.ms": (str(MOST), "log.cleaner.max.compaction.lag.ms"),
    "min.cleanable.dirty.ratio": ("0.5", "log.cleaner.min.cleanable.ratio"),
    "min.compaction.lag.ms": ("0", "log.cleaner.min.compaction.lag.ms"),
    "retention.bytes": ("-1", "log.retention.bytes"),
    "retention.ms": ("604800000", None),  # Kafka's own is in hours, and it does not count it among the synonyms
    "segment.bytes": ("1073741824", "log.segment.bytes"),
    "segment.ms": ("604800000", None),
}


def outcome(future):
    """The name of the error and its sentence, or None."""
    try:
        future.result(30)
        return None
    except KafkaException as refused:
        return refused.args[0].name(), refused.args[0].str()


@pytest.fixture
def create(admin):
    def run(name, config, **options):
        config = {key: str(value) for key, value in config.items()}
        return outcome(admin.create_topics([NewTopic(name, 1, 1, config=config)], **options)[name])

    return run


@pytest.fixture
def alter(admin):
    def run(topic, name, value, operation=AlterConfigOpType.SET, **options):
        value = None if value is None else str(value)
        change = ConfigEntry(name, value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
        return outcome(admin.incremental_alter_configs([resource], **options)[resource])

    return run


@pytest.fixture
def entries(admin):
    def run(topic):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return admin.describe_configs([resource])[resource].result(30)

    return run


@pytest.fixture
def value(entries):
    return lambda topic, name: entries(topic)[name].value


# One config ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_is_said_as_it_was_understood(name, new_name, create, alter, value, topic):
    for given, understood in TAKEN[name].items():
        created = new_name()
        assert create(created, {name: given}) is None, f"{name}={given!r}"
        eventually(lambda created=created: value(created, name), understood)
        assert alter(topic, name, given) is None, f"{name}={given!r}"
        eventually(lambda: value(topic, name), understood)


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_its_name_and_changes_nothing(
    name, new_name, create, alter, entries, topic, admin
):
    for given in REFUSED[name]:
        refused = new_name()
        for code, sentence in (create(refused, {name: given}), alter(topic, name, given)):
            assert code == "INVALID_CONFIG", f"{name}={given!r}: {sentence}"
            assert name in sentence
        assert refused not in admin.list_topics(timeout=30).topics
    assert entries(topic)[name].source == ConfigSource.DEFAULT_CONFIG.value


def test_checking_alone_changes_nothing(new_name, create, alter, entries, topic, admin):
    name = new_name()
    assert create(name, {"retention.ms": 5}, validate_only=True) is None
    assert create(name, {"retention.ms": -2}, validate_only=True)[0] == "INVALID_CONFIG"
    assert name not in admin.list_topics(timeout=30).topics
    assert alter(topic, "retention.ms", 5, validate_only=True) is None
    assert alter(topic, "retention.ms", -2, validate_only=True)[0] == "INVALID_CONFIG"
    assert entries(topic)["retention.ms"].source == ConfigSource.DEFAULT_CONFIG.value


def test_a_topic_made_with_them_says_them_as_its_own(new_topic, configs, tool):
    own = {
        "cleanup.policy": "compact,delete",
        "delete.retention.ms": "1000",
        "max.compaction.lag.ms": "5000",
        "min.cleanable.dirty.ratio": "0.01",
        "min.compaction.lag.ms": "10",
        "retention.bytes": "1000000",
        "retention.ms": "60000",
        "segment.bytes": "1048576",
        "segment.ms": "100",
    }
    topic = new_topic(**{name.replace(".", "_"): value for name, value in own.items()})
    of_topic = configs("--entity-type", "topics", "--entity-name", topic)
    _, described = of_topic.described()
    assert {name: value for name, (value, _) in described.items()} == own
    for name, (_, synonyms) in described.items():
        assert synonyms.startswith(f"DYNAMIC_TOPIC_CONFIG:{name}={own[name]}")
        default, of_all = DEFAULTS[name]
        if of_all:
            assert synonyms.endswith(f"DEFAULT_CONFIG:{of_all}={default}")
    line = tool(TOPICS, "--describe", "--topic", topic).splitlines()[0]
    said = line.split("Configs: ")[1]
    for name, value in own.items():
        assert f"{name}={value}" in said

    of_topic.delete(",".join(own))
    assert of_topic.lines() == [f"Dynamic configs for topic {topic} are:"]
    _, described = of_topic.described("--all")
    assert {name: described[name][0] for name in DEFAULTS} == {name: value for name, (value, _) in DEFAULTS.items()}


def test_defaults_say_what_they_are_called_for_all_topics(topic, configs, entries):
    _, described = configs("--entity-type", "topics", "--entity-name", topic).described("--all")
    for name, (default, of_all) in DEFAULTS.items():
        value, synonyms = described[name]
        assert value == default
        if of_all:
            assert synonyms == f"DEFAULT_CONFIG:{of_all}={default}"
    for name, entry in entries(topic).items():
        if name in DEFAULTS:
            assert (entry.source, entry.is_default) == (ConfigSource.DEFAULT_CONFIG.value, True)
            assert (entry.is_read_only, entry.is_sensitive) == (False, False)


# Several together ------------------------------------------------------------------------------------------


def test_records_that_may_not_be_compacted_before_they_must_be_are_refused(new_name, create, alter, value, topic):
    least, most = "min.compaction.lag.ms", "max.compaction.lag.ms"
    for refused in ({least: 10, most: 5}, {least: 1 + 2**40, most: 2**40}):
        code, sentence = create(new_name(), refused)
        assert code == "INVALID_CONFIG"
        assert least in sentence and most in sentence
    assert create(new_name(), {least: 5, most: 5}) is None

    assert alter(topic, most, 5) is None
    eventually(lambda: value(topic, most), "5")
    assert alter(topic, least, 6)[0] == "INVALID_CONFIG"
    assert alter(topic, least, 5) is None
    eventually(lambda: value(topic, least), "5")
    assert alter(topic, most, 4)[0] == "INVALID_CONFIG"
    assert (value(topic, least), value(topic, most)) == ("5", "5")


def test_combinations_that_only_look_strange_are_taken(new_name, create):
    for config in (
        {"cleanup.policy": "compact", "retention.ms": 1000},
        {"cleanup.policy": "compact", "retention.bytes": 1000},
        {"retention.ms": 1000, "segment.ms": 2000},
        {"retention.bytes": 1000, "segment.bytes": 1 << 20},
        {"retention.ms": 1, "delete.retention.ms": 5},
        {"segment.ms": 5, "segment.jitter.ms": 10},
        {"cleanup.policy": "delete", "min.cleanable.dirty.ratio": 0.9, "min.compaction.lag.ms": 1},
    ):
        assert create(new_name(), config) is None, config


def test_policies_are_added_and_taken_away_one_at_a_time(topic, alter, value):
    policy, append, subtract = "cleanup.policy", AlterConfigOpType.APPEND, AlterConfigOpType.SUBTRACT
    for operation, given, left in (
        (append, "compact", "delete,compact"),
        (append, "compact", "delete,compact"),
        (subtract, "delete", "compact"),
        (subtract, "shred", "compact"),
        (subtract, "compact", ""),
        (append, "delete", "delete"),
        (AlterConfigOpType.DELETE, None, "delete"),
    ):
        assert alter(topic, policy, given, operation) is None
        eventually(lambda: value(topic, policy), left)
    code, sentence = alter(topic, policy, "shred", append)
    assert code == "INVALID_CONFIG"
    assert policy in sentence
    assert alter(topic, "retention.ms", 5, append)[0] == "INVALID_CONFIG", "no list"
    assert value(topic, policy) == "delete"


# For all topics --------------------------------------------------------------------------------------------

OF_ALL = {
    "log.retention.ms": ("retention.ms", "5000000"),
    "log.retention.bytes": ("retention.bytes", "70000000"),
    "log.cleanup.policy": ("cleanup.policy", "compact,delete"),
}


@pytest.fixture
def of_brokers(configs):
    entity = configs("--entity-type", "brokers", "--entity-default")
    yield entity
    entity.delete(",".join(OF_ALL))


def test_what_is_set_for_all_topics_holds_where_a_topic_says_nothing(topic, new_topic, configs, of_brokers, tool):
    other = new_topic(retention_ms=80000)
    of_topic = configs("--entity-type", "topics", "--entity-name", topic)
    of_other = configs("--entity-type", "topics", "--entity-name", other)
    done = "Completed updating default config for brokers in the cluster.\n"
    for of_all, (name, value) in OF_ALL.items():
        assert of_brokers.set(f"{of_all}=[{value}]") == done
        from_all = f"DYNAMIC_DEFAULT_BROKER_CONFIG:{of_all}={value}"
        assert of_brokers.described()[1][of_all] == (value, from_all)
        eventually(lambda name=name: of_topic.described("--all")[1][name][0], value)
        assert of_topic.described("--all")[1][name][1].startswith(f"{from_all}, DEFAULT_CONFIG:")
        assert f"{name}={value}" in tool(TOPICS, "--describe", "--topic", topic)
    assert of_topic.lines() == [f"Dynamic configs for topic {topic} are:"], "none of them is its own"

    value, synonyms = of_other.described()[1]["retention.ms"]
    assert value == "80000"
    both = "DYNAMIC_TOPIC_CONFIG:retention.ms=80000, DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=5000000, "
    assert synonyms.startswith(both)
    of_other.delete("retention.ms")
    eventually(lambda: of_other.described("--all")[1]["retention.ms"][0], "5000000")

    assert of_brokers.delete(",".join(OF_ALL)) == done
    for name, _ in OF_ALL.values():
        eventually(lambda name=name: of_topic.described("--all")[1][name][0], DEFAULTS[name][0])


def test_for_all_topics_only_sense_is_taken_and_only_what_can_change(of_brokers, configs, admin):
    for change in (
        "log.retention.ms=0",
        "log.retention.ms=soon",
        "log.retention.bytes=many",
        "log.cleanup.policy=shred",
        "log.cleanup.policy=[compact,shred]",
        "log.retention.hours=3",
        "log.retention.minutes=3",
    ):
        assert change.split("=")[0] in of_brokers.refusal(change)
    assert not set(OF_ALL) & set(of_brokers.described()[1])
    for change in ("log.retention.ms=-1", "log.retention.bytes=-1", "log.cleanup.policy=delete"):
        of_brokers.set(change)
    (broker,) = admin.list_topics(timeout=30).brokers
    of_broker = configs("--entity-type", "brokers", "--entity-name", broker)
    for of_all, (_, value) in OF_ALL.items():
        if not AGAINST_KAFKA:  # all brokers keep the same records
            assert of_all in of_broker.refusal(f"{of_all}=[{value}]")


def test_a_broker_says_what_it_goes_by(tool, admin):
    (broker,) = admin.list_topics(timeout=30).brokers
    printed = tool(CONFIGS, "--describe", "--entity-type", "brokers", "--entity-name", broker, "--all")
    for said in (
        "log.cleanup.policy=delete",
        "log.retention.bytes=-1",
        "log.cleaner.delete.retention.ms=86400000",
        "log.cleaner.min.cleanable.ratio=0.5",
        "log.cleaner.min.compaction.lag.ms=0",
        f"log.cleaner.max.compaction.lag.ms={MOST}",
    ):
        assert f"  {said} sensitive=false synonyms={{DEFAULT_CONFIG:{said}}}\n" in printed
    assert "  log.retention.ms=" in printed
