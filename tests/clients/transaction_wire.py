"""Requests of transactions in every version, one at a time, for what no client would send, and record
batches made and read by hand. How the requests look as bytes is left to the schemas in kafka-python."""

import struct
import time
from dataclasses import dataclass

import crc32c
from kafka.protocol import admin, consumer, metadata, producer

import group_wire
import wire

NO_PRODUCER, NO_EPOCH, NO_SEQUENCE = -1, -1, -1
TIMEOUT = 60_000  # ms
TRANSACTIONAL, CONTROL = 0x10, 0x20  # bits of a batch's attributes
ABORT, COMMIT = 0, 1  # types of control records
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
MODULES = (producer, consumer, admin, metadata)


class Connection(group_wire.Connection):
    """One connection to a broker."""

    def __init__(self, bootstrap, timeout=60):
        super().__init__(bootstrap, timeout)
        self.bootstrap = bootstrap

    def receive(self, request):
        name = request.name.replace("Request", "Response")
        answer = next(getattr(module, name) for module in MODULES if hasattr(module, name))
        size = struct.unpack(">i", wire.receive(self.socket, 4))[0]
        response = answer.decode(wire.receive(self.socket, size), version=request.API_VERSION, header=True)
        assert response.header.correlation_id == 7
        return response


# Requests --------------------------------------------------------------------------------------------------


def init(version, name, timeout=TIMEOUT, pid=NO_PRODUCER, epoch=NO_EPOCH):
    expected = {"producer_id": pid, "producer_epoch": epoch} if version >= 3 else {}
    return producer.InitProducerIdRequest(
        version=version, transactional_id=name, transaction_timeout_ms=timeout, **expected
    )


def add_partitions(version, name, pid, epoch, partitions):
    """`partitions` is `{topic: [partition]}`."""
    request = producer.AddPartitionsToTxnRequest
    return request(
        version=version,
        v3_and_below_transactional_id=name,
        v3_and_below_producer_id=pid,
        v3_and_below_producer_epoch=epoch,
        v3_and_below_topics=[
            request.AddPartitionsToTxnTopic(name=topic, partitions=some) for topic, some in partitions.items()
        ],
    )


def added(response):
    """`{(topic, partition): error}`."""
    return {
        (topic.name, it.partition_index): it.partition_error_code
        for topic in response.results_by_topic_v3_and_below
        for it in topic.results_by_partition
    }


def add_offsets(version, name, pid, epoch, group):
    return producer.AddOffsetsToTxnRequest(
        version=version, transactional_id=name, producer_id=pid, producer_epoch=epoch, group_id=group
    )


def commit_offsets(
    version, name, pid, epoch, group, offsets, generation=-1, member="", instance=None, metadata="from a transaction"
):
    """`offsets` is `{topic: {partition: offset}}`. The member is told since version 3."""
    request = producer.TxnOffsetCommitRequest
    of = request.TxnOffsetCommitRequestTopic
    of_partition = of.TxnOffsetCommitRequestPartition
    who = {"generation_id": generation, "member_id": member, "group_instance_id": instance} if version >= 3 else {}
    topics = [
        of(
            name=topic,
            partitions=[
                of_partition(
                    partition_index=partition,
                    committed_offset=offset,
                    committed_leader_epoch=-1,
                    committed_metadata=metadata,
                )
                for partition, offset in partitions.items()
            ],
        )
        for topic, partitions in offsets.items()
    ]
    return request(
        version=version,
        transactional_id=name,
        group_id=group,
        producer_id=pid,
        producer_epoch=epoch,
        topics=topics,
        **who,
    )


def end(version, name, pid, epoch, committed):
    return producer.EndTxnRequest(
        version=version, transactional_id=name, producer_id=pid, producer_epoch=epoch, committed=committed
    )


def produce(version, name, batches, topic_id=None, acks=-1):
    """`batches` is `{topic: {partition: bytes}}`; of one topic, by its id, since version 13."""
    request = producer.ProduceRequest
    of = request.TopicProduceData
    by_id = {"topic_id": topic_id} if version >= 13 else {}
    topics = [
        of(
            name=topic,
            partition_data=[of.PartitionProduceData(index=n, records=data) for n, data in partitions.items()],
            **by_id,
        )
        for topic, partitions in batches.items()
    ]
    return request(version=version, transactional_id=name, acks=acks, timeout_ms=30_000, topic_data=topics)


def produced(response):
    """The error and the offset of the one partition."""
    ((it,),) = [topic.partition_responses for topic in response.responses]
    return it.error_code, it.base_offset


def mark(pid, epoch, committed, partitions, coordinator_epoch=0):
    request = producer.WriteTxnMarkersRequest
    of = request.WritableTxnMarker
    return request(
        version=1,
        markers=[
            of(
                producer_id=pid,
                producer_epoch=epoch,
                transaction_result=committed,
                topics=[of.WritableTxnMarkerTopic(name=n, partition_indexes=some) for n, some in partitions.items()],
                coordinator_epoch=coordinator_epoch,
            )
        ],
    )


def marked(response):
    """`{(topic, partition): error}` of the one producer."""
    (of,) = response.markers
    return {(topic.name, it.partition_index): it.error_code for topic in of.topics for it in topic.partitions}


def describe_producers(partitions):
    request = admin.DescribeProducersRequest
    topics = [request.TopicRequest(name=name, partition_indexes=some) for name, some in partitions.items()]
    return request(version=0, topics=topics)


def described_producers(response):
    """`{(topic, partition): (error, its producers by id)}`."""
    return {
        (topic.name, it.partition_index): (it.error_code, {one.producer_id: one for one in it.active_producers})
        for topic in response.topics
        for it in topic.partitions
    }


def describe(*names):
    return admin.DescribeTransactionsRequest(version=0, transactional_ids=list(names))


def described(response):
    return {it.transactional_id: it for it in response.transaction_states}


def list_all(version=0, states=(), pids=(), duration=-1, pattern=None):
    since = {"duration_filter": duration} if version >= 1 else {}
    if version >= 2:
        since["transactional_id_pattern"] = pattern
    return admin.ListTransactionsRequest(
        version=version, state_filters=list(states), producer_id_filters=list(pids), **since
    )


def fetch(version, topic, offset=0, isolation=READ_COMMITTED, partition=0, topic_id=None, max_bytes=32 << 20, wait=0):
    request = consumer.FetchRequest
    of = request.FetchTopic
    by_id = {"topic_id": topic_id} if version >= 13 else {"topic": topic}
    return request(
        version=version,
        max_wait_ms=wait,
        min_bytes=1,
        max_bytes=max_bytes,
        isolation_level=isolation,
        topics=[
            of(
                partitions=[of.FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes)],
                **by_id,
            )
        ],
    )


@dataclass
class Fetched:
    """The answer about the one partition that was asked for."""

    error: int
    high_watermark: int
    last_stable: int
    aborted: list | None  # [(producer id, first offset)], in the order they came
    batches: list

    @property
    def values(self):
        """What a client shows that is told to drop the aborted records."""
        return [value for batch in visible(self.batches, self.aborted) for value in batch.values]

    @property
    def all_values(self):
        return [value for batch in self.batches if not batch.is_control for value in batch.values]

    @property
    def markers(self):
        """`[(offset, producer id, COMMIT or ABORT)]`."""
        return [(batch.base_offset, batch.pid, batch.control[0]) for batch in self.batches if batch.is_control]


def fetched(response):
    ((it,),) = [topic.partitions for topic in response.responses]
    aborted = it.aborted_transactions
    if aborted is not None:
        aborted = [(one.producer_id, one.first_offset) for one in aborted]
    return Fetched(
        it.error_code, it.high_watermark, it.last_stable_offset, aborted, list(read_batches(it.records or b""))
    )


def visible(batches, aborted):
    """The batches whose transactions were not aborted, by what a consumer is told: the aborted transactions
    by their first offset, which end at their producer's next marker."""
    waiting, dropped = sorted(aborted or [], key=lambda one: one[1]), set()
    for batch in batches:
        while waiting and waiting[0][1] <= batch.last_offset:
            dropped.add(waiting.pop(0)[0])
        if batch.is_control:
            if batch.control[0] == ABORT:
                dropped.discard(batch.pid)
        elif not (batch.is_transactional and batch.pid in dropped):
            yield batch


def list_offsets(version, topic, timestamp, isolation, partition=0):
    request = consumer.ListOffsetsRequest
    of = request.ListOffsetsTopic
    asked = of.ListOffsetsPartition(partition_index=partition, timestamp=timestamp)
    return request(
        version=version, replica_id=-1, isolation_level=isolation, topics=[of(name=topic, partitions=[asked])]
    )


def listed(response):
    """The error and the offset of the one partition."""
    ((it,),) = [topic.partitions for topic in response.topics]
    return it.error_code, it.offset


# Record batches --------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """A record batch (format 2) as it travelled."""

    base_offset: int
    last_offset: int
    attributes: int
    first_timestamp: int
    max_timestamp: int
    pid: int
    epoch: int
    sequence: int
    records: list  # [(key, value)]
    crc_is_right: bool

    @property
    def is_transactional(self):
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_control(self):
        return bool(self.attributes & CONTROL)

    @property
    def values(self):
        return [value for _, value in self.records]

    @property
    def control(self):
        """COMMIT or ABORT and the coordinator's epoch, of a control batch."""
        ((key, value),) = self.records
        key_version, kind = struct.unpack(">hh", key)
        value_version, coordinator_epoch = struct.unpack(">hi", value)
        assert (key_version, value_version) == (0, 0)
        return kind, coordinator_epoch


def batch(pid, epoch, sequence, values, transactional=True, timestamp=None, attributes=0, keys=None):
    """A batch without compression of records that have values and, if they are given, keys."""
    timestamp = time.time_ns() // 1_000_000 if timestamp is None else timestamp
    keys = keys or [None] * len(values)
    records = b"".join(record(n, key, value) for n, (key, value) in enumerate(zip(keys, values, strict=True)))
    attributes |= TRANSACTIONAL * transactional
    last = len(values) - 1
    checked = struct.pack(">hiqqqhii", attributes, last, timestamp, timestamp, pid, epoch, sequence, len(values))
    checked += records
    return struct.pack(">qiibI", 0, len(checked) + 9, -1, 2, crc32c.crc32c(checked)) + checked


def record(delta, key, value):
    body = b"\0" + varint(0) + varint(delta) + text(key) + text(value) + varint(0)
    return varint(len(body)) + body


def text(value):
    return varint(-1) if value is None else varint(len(value)) + value


def varint(number):
    number = number << 1 ^ number >> 63
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


def read_batches(data):
    """The whole batches in `data`, which are not compressed."""
    at = 0
    while len(data) - at >= 61:
        base, length, _leader_epoch, magic, crc, *rest = struct.unpack_from(">qiibIhiqqqhii", data, at)
        attributes, last_delta, first_timestamp, max_timestamp, pid, epoch, sequence, count = rest
        end = at + 12 + length
        if end > len(data):
            return
        assert magic == 2
        assert attributes & 7 == 0, "it is compressed"
        reader = wire.Reader(data[at + 61 : end])
        records = [read_record(reader) for _ in range(count)]
        assert reader.at == len(reader.data)
        yield Batch(
            base,
            base + last_delta,
            attributes,
            first_timestamp,
            max_timestamp,
            pid,
            epoch,
            sequence,
            records,
            crc32c.crc32c(data[at + 21 : end]) == crc,
        )
        at = end


def read_record(reader):
    read_varint(reader)  # size
    reader.take("b")
    read_varint(reader), read_varint(reader)  # deltas
    key, value = read_text(reader), read_text(reader)
    assert read_varint(reader) == 0, "no headers"
    return key, value


def read_text(reader):
    size = read_varint(reader)
    return None if size < 0 else bytes(reader.bytes(size))


def read_varint(reader):
    number = group_wire.length(reader)
    return number >> 1 ^ -(number & 1)
