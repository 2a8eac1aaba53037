"""kafka-python: a second client that shares no code with librdkafka, pure Python down to the protocol. It
negotiates versions by itself and writes its batches itself."""

import time
from uuid import UUID

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, OffsetSpec
from kafka.errors import (
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidTimestampError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

import wire


@pytest.fixture
def manager(bootstrap):
    """kafka-python's own admin client."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield client
    client.close()


@pytest.fixture
def make_producer(bootstrap):
    made = []

    def make(**settings):
        made.append(KafkaProducer(bootstrap_servers=bootstrap, **settings))
        return made[-1]

    yield make
    for producer in made:
        producer.close()


@pytest.fixture
def make_consumer(bootstrap):
    made = []

    def make(topic, offset=None, partition=0, **settings):
        settings = {"auto_offset_reset": "none", **settings}
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, **settings)
        made.append(consumer)
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        if offset is None:
            consumer.seek_to_beginning(place)
        else:
            consumer.seek(place, offset)
        return consumer

    yield make
    for consumer in made:
        consumer.close()


def take(consumer, count):
    records = []
    while len(records) < count:
        polled = consumer.poll(timeout_ms=30_000, max_records=count - len(records))
        assert polled, f"only {len(records)} of {count} records came"
        for some in polled.values():
            records += some
    return records


def send_all(producer, topic, records):
    """Sends dicts of arguments and waits for every acknowledgement."""
    futures = [producer.send(topic, **{"partition": 0, **record}) for record in records]
    producer.flush(60)
    return [future.get(30) for future in futures]


# Topics and configuration ----------------------------------------------------------------------------


def partition_count(manager, topic):
    (described,) = manager.describe_topics([topic])
    assert described["error_code"] == 0
    return len(described["partitions"])


def setting(manager, topic, key):
    """Value and source of a setting."""
    found = manager.describe_configs([ConfigResource("TOPIC", topic, [key])], config_filter="all")
    entry = found["topic"][topic][key]
    return entry["value"], entry["config_source"]


def test_a_topic_is_created_described_grown_and_deleted(manager, new_name):
    name = new_name()
    manager.create_topics({name: {"num_partitions": 3, "replication_factor": 1, "configs": {"max.message.bytes": "54321"}}})
    (topic,) = manager.describe_topics([name])
    assert [partition["partition_index"] for partition in topic["partitions"]] == [0, 1, 2]
    assert all(partition["error_code"] == 0 for partition in topic["partitions"])
    assert setting(manager, name, "max.message.bytes") == ("54321", "DYNAMIC_TOPIC_CONFIG")
    assert setting(manager, name, "message.timestamp.type") == ("CreateTime", "DEFAULT_CONFIG")

    manager.create_partitions({name: 5})
    assert partition_count(manager, name) == 5
    with pytest.raises(InvalidPartitionsError):
        manager.create_partitions({name: 4})

    assert name in manager.list_topics()
    manager.delete_topics([name])
    assert name not in manager.list_topics()
    with pytest.raises(UnknownTopicOrPartitionError):
        manager.delete_topics([name])


def test_a_topic_is_deleted_by_its_id(manager, topic):
    (described,) = manager.describe_topics([topic])
    manager.delete_topics([UUID(described["topic_id"])])
    assert topic not in manager.list_topics()


def test_what_can_not_be_created_is_refused(manager, topic, new_name):
    with pytest.raises(TopicAlreadyExistsError):
        manager.create_topics([topic])
    with pytest.raises(InvalidTopicError):
        manager.create_topics(["no spaces"])
    with pytest.raises(InvalidPartitionsError):
        manager.create_topics({new_name(): {"num_partitions": 0}})
    with pytest.raises(InvalidConfigurationError):
        manager.create_topics({new_name(): {"configs": {"retention.ms": "soon"}}})
    name = new_name()
    manager.create_topics([name], validate_only=True)
    assert name not in manager.list_topics()


def test_settings_are_changed_and_reset(manager, topic):
    key = "max.message.bytes"
    before = setting(manager, topic, key)
    manager.alter_configs([ConfigResource("TOPIC", topic, {key: "99000"})])
    assert setting(manager, topic, key) == ("99000", "DYNAMIC_TOPIC_CONFIG")
    manager.reset_configs([ConfigResource("TOPIC", topic, [key])])
    assert setting(manager, topic, key) == before

    refused = manager.alter_configs([ConfigResource("TOPIC", topic, {key: "many"})])
    assert "Error 40" in refused["topic"][topic], "INVALID_CONFIG"
    assert setting(manager, topic, key) == before


def test_the_older_way_to_alter_works_too(manager, new_topic):
    # AlterConfigs replaces all settings; this client adds those that are to stay.
    topic = new_topic(max_message_bytes=1000, message_timestamp_type="LogAppendTime")
    manager.alter_configs([ConfigResource("TOPIC", topic, {"max.message.bytes": "2000"})], incremental=False)
    assert setting(manager, topic, "max.message.bytes") == ("2000", "DYNAMIC_TOPIC_CONFIG")
    assert setting(manager, topic, "message.timestamp.type") == ("LogAppendTime", "DYNAMIC_TOPIC_CONFIG")


def test_the_cluster_is_described(manager, bootstrap):
    cluster = manager.describe_cluster()
    (broker,) = cluster["brokers"]
    assert f"{broker['host']}:{broker['port']}" == bootstrap
    assert cluster["controller_id"] == broker["broker_id"]


# Producing and reading -------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", wire.CODECS)
def test_every_codec_reaches_the_reader_unchanged(topic, bootstrap, make_producer, make_consumer, codec):
    producer = make_producer(compression_type=None if codec == "none" else codec, linger_ms=20)
    sent = [b"%d " % n * (n % 300 + 1) for n in range(500)]
    metadata = send_all(producer, topic, [{"value": value} for value in sent])
    assert [one.offset for one in metadata] == list(range(500))
    assert [record.value for record in take(make_consumer(topic), 500)] == sent
    assert {batch.codec for batch in wire.fetch_batches(bootstrap, topic)} == {codec}


def test_keys_headers_and_tombstones_survive(topic, make_producer, make_consumer):
    every_byte = bytes(range(256))
    headers = [("h", b"1"), ("other", every_byte), ("h", b"2"), ("empty", b""), ("h", b"1")]
    sent = [
        {"key": every_byte, "value": every_byte, "headers": headers},
        {"key": b"", "value": b""},
        {"key": b"tombstone", "value": None},
        {"key": None, "value": b"no key"},
    ]
    send_all(make_producer(), topic, sent)
    for record, got in zip(sent, take(make_consumer(topic), len(sent)), strict=True):
        assert (got.key, got.value) == (record["key"], record["value"])
        assert got.headers == record.get("headers", [])


@pytest.mark.parametrize("acks", [0, 1, "all"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_records_arrive_with_all_kinds_of_acknowledgement(topic, make_producer, make_consumer, acks, idempotent):
    if idempotent and acks != "all":
        with pytest.raises(Exception, match="(?i)acks"):  # the client's own rule
            make_producer(acks=acks, enable_idempotence=True)
        return
    sent = [b"%d" % n for n in range(300)]
    producer = make_producer(acks=acks, enable_idempotence=idempotent, max_in_flight_requests_per_connection=1)
    send_all(producer, topic, [{"value": value} for value in sent])
    records = take(make_consumer(topic), 300)
    assert [record.value for record in records] == sent
    assert [record.offset for record in records] == list(range(300))


def test_the_producers_timestamps_are_kept(topic, make_producer, make_consumer):
    now = time.time_ns() // 1_000_000
    times = [1, now, now - 86_400_000]
    sent = send_all(make_producer(), topic, [{"value": b"x", "timestamp_ms": when} for when in times])
    assert [one.timestamp for one in sent] == times
    assert [(record.timestamp_type, record.timestamp) for record in take(make_consumer(topic), 3)] == [
        (0, when) for when in times
    ]
    with pytest.raises(InvalidTimestampError):
        send_all(make_producer(), topic, [{"value": b"x", "timestamp_ms": now + 3 * 3_600_000}])


def test_log_append_time_is_the_brokers(new_topic, make_producer, make_consumer):
    topic = new_topic(message_timestamp_type="LogAppendTime")
    before = time.time_ns() // 1_000_000
    (sent,) = send_all(make_producer(), topic, [{"value": b"x", "timestamp_ms": 1000}])
    after = time.time_ns() // 1_000_000
    (record,) = take(make_consumer(topic), 1)
    assert record.timestamp_type == 1
    assert before <= record.timestamp == sent.timestamp <= after


def test_a_batch_above_the_topics_limit_is_refused_as_too_large(new_topic, make_producer, make_consumer):
    topic = new_topic(max_message_bytes=10_000)
    with pytest.raises(MessageSizeTooLargeError):
        send_all(make_producer(), topic, [{"value": b"x" * 20_000}])
    send_all(make_producer(), topic, [{"value": b"small"}])
    assert take(make_consumer(topic), 1)[0].value == b"small"


def test_records_find_their_partition_by_key(new_topic, make_producer, make_consumer):
    topic = new_topic(20)
    producer = make_producer()
    futures = [producer.send(topic, key=b"key%d" % (n % 50), value=b"%d" % n) for n in range(1000)]
    producer.flush(60)
    places = {}
    for n, future in enumerate(futures):
        metadata = future.get(30)
        assert places.setdefault(n % 50, metadata.partition) == metadata.partition
    used = {partition for partition in places.values()}
    for partition in used:
        expected = [b"%d" % n for n in range(1000) if places[n % 50] == partition]
        assert [record.value for record in take(make_consumer(topic, partition=partition), len(expected))] == expected


def test_reading_starts_where_it_is_told_to(topic, make_producer, make_consumer):
    send_all(make_producer(linger_ms=50), topic, [{"value": b"%d" % n} for n in range(1000)])
    consumer = make_consumer(topic, offset=321)
    assert [record.offset for record in take(consumer, 5)] == [321, 322, 323, 324, 325]
    place = TopicPartition(topic, 0)
    consumer.seek(place, 998)
    assert [record.offset for record in take(consumer, 2)] == [998, 999]
    assert consumer.position(place) == 1000
    consumer.seek(place, 1001)
    with pytest.raises(OffsetOutOfRangeError):
        take(consumer, 1)


def test_offsets_are_found_by_time(manager, topic, make_producer, make_consumer):
    place = TopicPartition(topic, 0)
    records = [{"value": b"%d" % n, "timestamp_ms": 1_000_000 + 10 * n} for n in range(300)]
    send_all(make_producer(linger_ms=50), topic, records)
    consumer = make_consumer(topic)
    assert consumer.beginning_offsets([place]) == {place: 0}
    assert consumer.end_offsets([place]) == {place: 300}
    found = consumer.offsets_for_times({place: 1_001_001})[place]
    assert (found.offset, found.timestamp) == (101, 1_001_010)
    assert consumer.offsets_for_times({place: 1_002_991})[place] is None

    def listed(spec):
        return manager.list_partition_offsets({place: spec})[place].offset

    specs = (OffsetSpec.EARLIEST, OffsetSpec.LATEST, OffsetSpec.MAX_TIMESTAMP, OffsetSpec.EARLIEST_LOCAL)
    assert [listed(spec) for spec in specs] == [0, 300, 299, 0]
    assert listed(OffsetSpec.LATEST_TIERED) == -1


def test_a_waiting_reader_gets_what_is_produced_next(topic, make_producer, make_consumer):
    consumer, producer = make_consumer(topic), make_producer()
    assert consumer.poll(timeout_ms=1000) == {}
    for n in range(5):
        send_all(producer, topic, [{"value": b"%d" % n}])
        assert [record.value for record in take(consumer, 1)] == [b"%d" % n]


def test_producing_to_an_unknown_topic_creates_it(manager, new_name, make_producer, make_consumer):
    name = new_name()
    assert manager.describe_topics([name])[0]["error_code"] == UnknownTopicOrPartitionError.errno
    assert name not in manager.list_topics(), "asking does not create it"
    make_producer().send(name, b"x").get(30)
    assert name in manager.list_topics()
    assert take(make_consumer(name), 1)[0].value == b"x"
