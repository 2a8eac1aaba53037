"""confluent-kafka with the newest librdkafka: administration, producing and reading, as an application
does it."""

import time

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    OffsetSpec,
    ResourceType,
)

import wire
from conftest import AGAINST_KAFKA, create_topic

HOUR = 3_600_000  # ms


@pytest.fixture
def produce(bootstrap):
    """Produces records (dicts of arguments, or values) and returns them as acknowledged."""

    def run(topic, records, **settings):
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "message.timeout.ms": 30_000, **settings})
        results = []
        for record in records:
            arguments = record if isinstance(record, dict) else {"value": record}
            arguments.setdefault("partition", 0)
            producer.produce(topic, on_delivery=lambda *result: results.append(result), **arguments)
        assert producer.flush(60) == 0
        for error, _ in results:
            if error:
                raise KafkaException(error)
        return [message for _, message in results]

    return run


@pytest.fixture
def consumer(bootstrap):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "auto.offset.reset": "error"})
    yield consumer
    consumer.close()


@pytest.fixture
def read(consumer):
    """Reads `count` messages of a partition from an offset on."""

    def run(topic, count, offset=0, partition=0):
        consumer.assign([TopicPartition(topic, partition, offset)])
        return take(consumer, count)

    return run


def take(consumer, count):
    messages = []
    while len(messages) < count:
        some = consumer.consume(count - len(messages), timeout=30)
        assert some, f"only {len(messages)} of {count} messages came"
        for message in some:
            if message.error():
                raise KafkaException(message.error())
        messages += some
    return messages


def error_of(action):
    """The Kafka error that `action` ends with."""
    with pytest.raises(KafkaException) as raised:
        action()
    return raised.value.args[0]


def code_of(action):
    return error_of(action).code()


def values(messages):
    return [message.value() for message in messages]


# Topics and configuration ----------------------------------------------------------------------------


def describe(admin, name):
    return admin.describe_topics(TopicCollection([name]))[name].result(30)


def configs(admin, name, kind=ResourceType.TOPIC):
    resource = ConfigResource(kind, name)
    return admin.describe_configs([resource])[resource].result(30)


def alter(admin, name, setting, value, operation=AlterConfigOpType.SET):
    entry = ConfigEntry(setting, value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(30)


def test_a_created_topic_is_described_as_it_was_asked_for(admin, new_name):
    name = new_name()
    wanted = {"max.message.bytes": "54321", "message.timestamp.type": "LogAppendTime"}
    create_topic(admin, name, partitions=7, config=wanted)

    topic = describe(admin, name)
    assert [partition.id for partition in topic.partitions] == list(range(7))
    assert all(partition.leader for partition in topic.partitions)
    assert not topic.is_internal
    assert name in admin.list_topics(timeout=30).topics

    settings = configs(admin, name)
    for setting, value in wanted.items():
        assert settings[setting].value == value
        assert settings[setting].source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        assert not settings[setting].is_default
    assert settings["message.timestamp.after.max.ms"].value == "3600000"
    assert settings["message.timestamp.after.max.ms"].is_default
    assert settings["cleanup.policy"].value == "delete"
    assert settings["compression.type"].value == "producer"


def test_partition_count_and_replication_may_be_left_to_the_broker(admin, new_name):
    name = new_name()
    create_topic(admin, name, partitions=-1)
    assert len(describe(admin, name).partitions) >= 1


def test_creating_only_to_validate_creates_nothing(admin, new_name):
    name = new_name()
    create_topic(admin, name, validate_only=True)
    assert name not in admin.list_topics(timeout=30).topics


def test_a_topic_exists_once(admin, topic):
    assert code_of(lambda: create_topic(admin, topic)) == KafkaError.TOPIC_ALREADY_EXISTS
    assert code_of(lambda: create_topic(admin, topic, validate_only=True)) == KafkaError.TOPIC_ALREADY_EXISTS


@pytest.mark.parametrize("name", ["", ".", "..", "with space", "slash/ed", "x" * 250, "schlüssel"])
def test_names_that_kafka_refuses_are_refused(admin, name):
    if name == "":  # the client refuses to send it
        pytest.raises(KafkaException, lambda: create_topic(admin, name))
    else:
        assert code_of(lambda: create_topic(admin, name)) == KafkaError.TOPIC_EXCEPTION


def test_the_longest_name_is_taken(admin, new_name):
    name = new_name().ljust(249, "x")
    create_topic(admin, name)
    assert len(describe(admin, name).partitions) == 1


def test_names_that_differ_in_dot_and_underscore_collide(admin, new_name):
    name = new_name()
    create_topic(admin, f"{name}.a_b")
    assert code_of(lambda: create_topic(admin, f"{name}_a.b")) == KafkaError.TOPIC_EXCEPTION


def test_a_topic_needs_a_partition(admin, new_name):
    # librdkafka itself refuses 0 and less than -1, so the broker is asked by growing instead.
    name = new_name()
    create_topic(admin, name, partitions=3)
    for count in (1, 2, 3):
        grow = admin.create_partitions([NewPartitions(name, count)])[name]
        assert code_of(lambda future=grow: future.result(30)) == KafkaError.INVALID_PARTITIONS
    assert len(describe(admin, name).partitions) == 3


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("no.such.setting", "1"),
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("cleanup.policy", "shred"),
        ("message.timestamp.type", "Whenever"),
        ("max.message.bytes", "-1"),
        ("compression.type", "rar"),
        ("min.insync.replicas", "0"),
    ],
)
def test_nonsense_in_a_configuration_is_refused(admin, topic, new_name, setting, value):
    name = new_name()
    assert code_of(lambda: create_topic(admin, name, config={setting: value})) == KafkaError.INVALID_CONFIG
    assert name not in admin.list_topics(timeout=30).topics
    before = {key: entry.value for key, entry in configs(admin, topic).items()}
    assert code_of(lambda: alter(admin, topic, setting, value)) == KafkaError.INVALID_CONFIG
    assert {key: entry.value for key, entry in configs(admin, topic).items()} == before


def test_settings_are_changed_and_taken_back(admin, topic):
    default = configs(admin, topic)["max.message.bytes"]
    assert (default.value, default.is_default) == ("1048588", True)
    alter(admin, topic, "max.message.bytes", "1000000")
    assert configs(admin, topic)["max.message.bytes"].value == "1000000"
    alter(admin, topic, "max.message.bytes", None, AlterConfigOpType.DELETE)
    assert configs(admin, topic)["max.message.bytes"].value == default.value
    assert configs(admin, topic)["max.message.bytes"].is_default


@pytest.mark.parametrize("operation", [AlterConfigOpType.APPEND, AlterConfigOpType.SUBTRACT])
def test_only_lists_can_be_extended(admin, topic, operation):
    assert code_of(lambda: alter(admin, topic, "max.message.bytes", "1", operation)) == KafkaError.INVALID_CONFIG
    assert configs(admin, topic)["max.message.bytes"].is_default


@pytest.mark.skipif(AGAINST_KAFKA, reason="Kafka honours them")
@pytest.mark.parametrize(("setting", "value"), [("preallocate", "true"), ("remote.storage.enable", "true")])
def test_what_can_not_be_honoured_yet_is_refused(admin, topic, new_name, setting, value):
    name = new_name()
    assert code_of(lambda: create_topic(admin, name, config={setting: value})) == KafkaError.INVALID_CONFIG
    assert code_of(lambda: alter(admin, topic, setting, value)) == KafkaError.INVALID_CONFIG


def test_settings_of_an_unknown_topic_are_an_error(admin):
    code = KafkaError.UNKNOWN_TOPIC_OR_PART
    assert code_of(lambda: configs(admin, "nobody-made-this")) == code
    assert code_of(lambda: alter(admin, "nobody-made-this", "max.message.bytes", "1000")) == code


def test_the_broker_tells_its_own_settings(admin):
    broker_id = str(next(iter(admin.list_topics(timeout=30).brokers)))
    settings = configs(admin, broker_id, ResourceType.BROKER)
    assert settings["message.max.bytes"].value == "1048588"
    assert settings["auto.create.topics.enable"].value in ("true", "false")


def test_the_cluster_is_described(admin, bootstrap):
    cluster = admin.describe_cluster().result(30)
    assert len(cluster.cluster_id) == 22
    assert [f"{node.host}:{node.port}" for node in cluster.nodes] == [bootstrap]
    assert cluster.controller.id == cluster.nodes[0].id
    assert cluster.cluster_id == admin.describe_cluster().result(30).cluster_id


def test_partitions_are_added_and_used(admin, new_topic, produce, read):
    topic = new_topic(2)
    produce(topic, [{"value": b"before", "partition": 1}])
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    assert len(describe(admin, topic).partitions) == 5
    produce(topic, [{"value": b"after", "partition": 4}])
    assert values(read(topic, 1, partition=4)) == [b"after"]
    assert values(read(topic, 1, partition=1)) == [b"before"]


def test_partitions_of_an_unknown_topic_can_not_be_added(admin):
    future = admin.create_partitions([NewPartitions("nobody-made-this", 5)])["nobody-made-this"]
    assert code_of(lambda: future.result(30)) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_deleted_topic_is_gone(admin, topic):
    admin.delete_topics([topic])[topic].result(30)
    assert topic not in admin.list_topics(timeout=30).topics
    assert code_of(lambda: describe(admin, topic)) == KafkaError.UNKNOWN_TOPIC_OR_PART
    again = admin.delete_topics([topic])[topic]
    assert code_of(lambda: again.result(30)) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_topic_created_again_is_another_topic(admin, new_topic, produce, read):
    topic = new_topic(3, max_message_bytes=54321)
    produce(topic, [b"old"] * 10)
    old_id = describe(admin, topic).topic_id
    admin.delete_topics([topic])[topic].result(30)
    create_topic(admin, topic)

    described = describe(admin, topic)
    assert str(described.topic_id) != str(old_id)
    assert len(described.partitions) == 1
    assert configs(admin, topic)["max.message.bytes"].is_default
    assert produce(topic, [b"new"])[0].offset() == 0
    assert values(read(topic, 1)) == [b"new"]


# Producing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", wire.CODECS)
def test_every_codec_reaches_the_reader_unchanged(topic, bootstrap, produce, read, codec):
    # Long enough that compression pays: librdkafka sends a batch as it is where it does not.
    sent = [b"%d " % n * (n % 300 + 50) for n in range(2000)]
    messages = produce(topic, sent, compression_codec=codec)
    assert [message.offset() for message in messages] == list(range(2000))
    assert values(read(topic, 2000)) == sent

    batches = wire.fetch_batches(bootstrap, topic)
    assert {batch.codec for batch in batches} == {codec}
    assert all(batch.crc_is_right for batch in batches)


def test_keys_values_and_headers_are_any_bytes(topic, produce, read):
    every_byte = bytes(range(256))
    headers = [("h", b"1"), ("other", every_byte), ("h", b"2"), ("empty", b""), ("null", None), ("h", b"1")]
    sent = [
        {"key": every_byte, "value": every_byte, "headers": headers},
        {"key": b"", "value": b""},
        {"key": None, "value": b"no key"},
        {"key": b"tombstone", "value": None},
        {"key": None, "value": None, "headers": [("only", b"this")]},
    ]
    produce(topic, [dict(record) for record in sent])
    for record, message in zip(sent, read(topic, len(sent)), strict=True):
        assert message.key() == record["key"]
        assert message.value() == record["value"]
        assert message.headers() == record.get("headers")


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_records_arrive_with_all_kinds_of_acknowledgement(topic, produce, read, acks):
    sent = [b"%d" % n for n in range(500)]
    messages = produce(topic, sent, acks=acks)
    if acks != 0:
        assert [message.offset() for message in messages] == list(range(500))
    assert values(read(topic, 500)) == sent


def test_the_producers_timestamps_are_kept(topic, produce, read):
    now = time.time_ns() // 1_000_000
    times = [1, now - 30 * 24 * HOUR, now, now - HOUR, now + HOUR // 2]
    produce(topic, [{"value": b"x", "timestamp": time} for time in times])
    assert [message.timestamp() for message in read(topic, 5)] == [(TIMESTAMP_CREATE_TIME, time) for time in times]


def test_log_append_time_is_the_brokers(new_topic, bootstrap, produce, read):
    topic = new_topic(message_timestamp_type="LogAppendTime")
    before = time.time_ns() // 1_000_000
    sent = produce(topic, [{"value": b"x", "timestamp": 1000}, {"value": b"y", "timestamp": 2000}])
    after = time.time_ns() // 1_000_000
    for message in [*sent, *read(topic, 2)]:
        kind, when = message.timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        assert before <= when <= after
    for batch in wire.fetch_batches(bootstrap, topic):
        assert batch.log_append_time
        assert batch.crc_is_right


def test_a_time_in_the_far_future_is_refused(topic, produce):
    far = time.time_ns() // 1_000_000 + 3 * HOUR
    assert code_of(lambda: produce(topic, [{"value": b"x", "timestamp": far}])) == KafkaError.INVALID_TIMESTAMP


def test_a_batch_above_the_topics_limit_is_refused_as_too_large(new_topic, produce, read):
    topic = new_topic(max_message_bytes=10_000)
    produce(topic, [b"x" * 9_000])
    assert code_of(lambda: produce(topic, [b"x" * 10_000])) == KafkaError.MSG_SIZE_TOO_LARGE
    # What counts is the batch as it comes: compressed.
    produce(topic, [b"x" * 500_000], compression_codec="zstd")
    assert [len(value) for value in values(read(topic, 2))] == [9_000, 500_000]


def test_the_limit_follows_the_configuration(admin, topic, produce, read):
    big = b"x" * 3_000_000
    assert code_of(lambda: produce(topic, [big], message_max_bytes=20_000_000)) == KafkaError.MSG_SIZE_TOO_LARGE
    alter(admin, topic, "max.message.bytes", "4000000")
    produce(topic, [big], message_max_bytes=20_000_000)
    assert values(read(topic, 1)) == [big]


def test_a_batch_larger_than_the_fetch_limit_still_arrives(bootstrap, new_topic, produce):
    topic = new_topic(max_message_bytes=8_000_000)
    sent = [bytes([n]) * 2_000_000 for n in range(5)]
    produce(topic, sent, message_max_bytes=20_000_000)
    small = {"fetch.max.bytes": 10_000, "message.max.bytes": 10_000, "max.partition.fetch.bytes": 1_000}
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", **small, "receive.message.max.bytes": 9_000_000})
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert values(take(consumer, 5)) == sent
    consumer.close()


def test_three_hundred_partitions_keep_their_records_apart(bootstrap, new_topic, produce):
    topic = new_topic(300)
    sent = [{"value": b"%d:%d" % (p, n), "partition": p} for n in range(10) for p in range(300)]
    produce(topic, sent)

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(300)])
    found = {p: [] for p in range(300)}
    for message in take(consumer, len(sent)):
        found[message.partition()].append(message.value())
    consumer.close()
    assert found == {p: [b"%d:%d" % (p, n) for n in range(10)] for p in range(300)}


def test_an_idempotent_producer_gets_dense_offsets_in_order(new_topic, produce, read):
    topic = new_topic(2)
    sent = [{"value": b"%d" % n, "partition": n % 2} for n in range(20_000)]
    messages = produce(topic, sent, enable_idempotence=True, batch_num_messages=50)
    for partition in range(2):
        offsets = [message.offset() for message in messages if message.partition() == partition]
        assert offsets == list(range(10_000))
        assert values(read(topic, 10_000, partition=partition)) == [b"%d" % n for n in range(partition, 20_000, 2)]


def test_two_producers_interleave_without_holes(bootstrap, topic, read):
    offsets = {"a": [], "b": []}
    producers = {name: Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True}) for name in offsets}
    for n in range(3_000):
        for name, producer in producers.items():
            note = offsets[name].append
            producer.produce(topic, f"{name}{n}", partition=0, on_delivery=lambda error, message, note=note: note(message.offset()))
            producer.poll(0)
    for producer in producers.values():
        assert producer.flush(60) == 0
    assert sorted(offsets["a"] + offsets["b"]) == list(range(6_000))
    read_back = [value.decode() for value in values(read(topic, 6_000))]
    for name in offsets:
        assert offsets[name] == sorted(offsets[name])
        assert [value for value in read_back if value[0] == name] == [f"{name}{n}" for n in range(3_000)]


# Topics that are not there -----------------------------------------------------------------------------


def test_producing_to_an_unknown_topic_creates_it(admin, new_name, produce, read):
    name = new_name()
    produce(name, [b"first"])
    assert values(read(name, 1)) == [b"first"]
    assert name in admin.list_topics(timeout=30).topics


def test_a_producer_that_must_not_create_topics_hears_of_an_unknown_one(admin, new_name, produce):
    name = new_name()
    settings = {"allow_auto_create_topics": False, "topic_metadata_propagation_max_ms": 100, "message_timeout_ms": 5000}
    code = code_of(lambda: produce(name, [b"x"], **settings))
    assert code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
    assert name not in admin.list_topics(timeout=30).topics


def test_a_consumer_hears_of_an_unknown_topic_and_does_not_create_it(admin, new_name, consumer):
    name = new_name()
    assert consumer.list_topics(name, timeout=30).topics[name].error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    unknown = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
    assert code_of(lambda: consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=30)) in unknown
    assert name not in admin.list_topics(timeout=30).topics


def test_an_unknown_partition_is_an_error(topic, consumer, produce):
    unknown = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION)
    assert code_of(lambda: produce(topic, [{"value": b"x", "partition": 7}])) in unknown
    assert code_of(lambda: consumer.get_watermark_offsets(TopicPartition(topic, 7), timeout=30)) in unknown


# Reading -----------------------------------------------------------------------------------------------


def test_reading_starts_at_any_offset(topic, consumer, produce, read):
    produce(topic, [b"%d" % n for n in range(1000)])  # a few large batches: most offsets lie inside one
    assert values(read(topic, 3, offset=500)) == [b"500", b"501", b"502"]
    consumer.seek(TopicPartition(topic, 0, 17))
    assert values(take(consumer, 2)) == [b"17", b"18"]
    consumer.seek(TopicPartition(topic, 0, 998))
    assert values(take(consumer, 2)) == [b"998", b"999"]
    assert values(read(topic, 1, offset=OFFSET_BEGINNING)) == [b"0"]


def test_a_waiting_reader_gets_what_is_produced_next(topic, consumer, produce):
    produce(topic, [b"before"])
    consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
    assert consumer.consume(1, timeout=2) == []
    for n in range(5):
        produce(topic, [b"%d" % n])
        assert values(take(consumer, 1)) == [b"%d" % n]


def test_an_offset_outside_the_log_is_out_of_range(topic, produce, read):
    produce(topic, [b"x"] * 10)
    # librdkafka wraps the broker's OFFSET_OUT_OF_RANGE when it must not reset the offset by itself.
    error = error_of(lambda: read(topic, 1, offset=11))
    assert error.code() == KafkaError._AUTO_OFFSET_RESET
    assert "out of range" in error.str()


def test_an_offset_outside_the_log_is_reset_as_configured(bootstrap, topic, produce):
    produce(topic, [b"%d" % n for n in range(10)])
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 1000)])
    assert values(take(consumer, 1)) == [b"0"]
    consumer.close()


def test_offsets_are_found_by_time_inside_batches(admin, bootstrap, topic, consumer, produce, read):
    sent = [{"value": b"%d" % n, "timestamp": 1_000_000 + 10 * n} for n in range(1000)]
    produce(topic, sent, compression_codec="lz4", linger_ms=100)
    assert len(wire.fetch_batches(bootstrap, topic)) < 1000

    def offset_at(when):
        return consumer.offsets_for_times([TopicPartition(topic, 0, when)], timeout=30)[0].offset

    assert offset_at(0) == 0
    assert offset_at(1_000_000) == 0
    assert offset_at(1_000_001) == 1
    assert offset_at(1_005_000) == 500
    assert offset_at(1_009_990) == 999
    assert offset_at(1_009_991) == OFFSET_END

    def listed(spec):
        partition = TopicPartition(topic, 0)
        result = admin.list_offsets({partition: spec})[partition].result(30)
        return result.offset, result.timestamp

    assert listed(OffsetSpec.earliest())[0] == 0
    assert listed(OffsetSpec.latest())[0] == 1000
    assert listed(OffsetSpec.for_timestamp(1_005_001)) == (501, 1_005_010)
    assert listed(OffsetSpec.for_timestamp(2_000_000))[0] == -1
    # The youngest record need not be the last.
    produce(topic, [{"value": b"youngest", "timestamp": 5_000_000}, {"value": b"last", "timestamp": 7}])
    assert listed(OffsetSpec.max_timestamp()) == (1000, 5_000_000)


def test_an_empty_topic_has_offsets_too(topic, consumer, admin):
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30) == (0, 0)
    partition = TopicPartition(topic, 0)
    assert admin.list_offsets({partition: OffsetSpec.max_timestamp()})[partition].result(30).offset == -1
    assert consumer.offsets_for_times([TopicPartition(topic, 0, 0)], timeout=30)[0].offset == OFFSET_END


def test_a_reader_of_committed_records_reads_plain_ones(bootstrap, topic, produce):
    produce(topic, [b"%d" % n for n in range(100)])
    for isolation in ("read_committed", "read_uncommitted"):
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "isolation.level": isolation})
        consumer.assign([TopicPartition(topic, 0, 0)])
        assert values(take(consumer, 100)) == [b"%d" % n for n in range(100)]
        consumer.close()
