"""Requests of consumer groups in every version, one at a time, for what no client would send. How they
look as bytes is left to the schemas in kafka-python; the new protocol's heartbeat, which it does not
know, is written by hand."""

import struct

import wire
from kafka.protocol.consumer import group as messages

NO_GENERATION = -1
CONSUMER_GROUP_HEARTBEAT = 68
CLIENT_ID = "wire"


def subscription(*topics, user_data=b""):
    """What members of consumer groups say of themselves. Kafka reads it in groups of that kind."""
    names = b"".join(map(wire.text, topics))
    return struct.pack(">hi", 0, len(topics)) + names + struct.pack(">i", len(user_data)) + user_data


SUBSCRIPTION = subscription("topic")


class Connection:
    """One connection to a broker. Errors of the network are those of sockets."""

    def __init__(self, bootstrap, timeout=60):
        self.socket = wire.connect(bootstrap, timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, request):
        request.with_header(correlation_id=7, client_id=CLIENT_ID)
        self.socket.sendall(request.encode(header=True, framed=True))

    def receive(self, request):
        """The response to a request that was sent."""
        answer = getattr(messages, request.name.replace("Request", "Response"))
        size = struct.unpack(">i", wire.receive(self.socket, 4))[0]
        response = answer.decode(wire.receive(self.socket, size), version=request.API_VERSION, header=True)
        assert response.header.correlation_id == 7
        return response

    def ask(self, request):
        self.send(request)
        return self.receive(request)

    def send_raw(self, api, version, body, flexible=False):
        """Sends any bytes as the body of a request."""
        header = struct.pack(">hhih", api, version, 7, len(CLIENT_ID)) + CLIENT_ID.encode() + b"\0" * flexible
        self.socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)

    def is_dropped(self):
        """Waits for an answer or the end of the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


def join(version, group, member="", instance=None, protocols=None, kind="consumer", session=10_000, rebalance=10_000):
    protocols = {"range": SUBSCRIPTION} if protocols is None else protocols
    request = messages.JoinGroupRequest
    return request(
        version=version,
        group_id=group,
        session_timeout_ms=session,
        rebalance_timeout_ms=rebalance,
        member_id=member,
        group_instance_id=instance,
        protocol_type=kind,
        protocols=[request.JoinGroupRequestProtocol(name=name, metadata=data) for name, data in protocols.items()],
        reason="",
    )


def sync(version, group, generation, member, assignments=(), instance=None, kind="consumer", protocol="range"):
    request = messages.SyncGroupRequest
    return request(
        version=version,
        group_id=group,
        generation_id=generation,
        member_id=member,
        group_instance_id=instance,
        protocol_type=kind,
        protocol_name=protocol,
        assignments=[
            request.SyncGroupRequestAssignment(member_id=m, assignment=a) for m, a in dict(assignments).items()
        ],
    )


def heartbeat(version, group, generation, member, instance=None):
    return messages.HeartbeatRequest(
        version=version, group_id=group, generation_id=generation, member_id=member, group_instance_id=instance
    )


def leave(version, group, *members):
    """Versions before 3 name one member; since then each is an id, or a pair of it and an instance id."""
    if version < 3:
        return messages.LeaveGroupRequest(version=version, group_id=group, member_id=members[0])
    pairs = [member if isinstance(member, tuple) else (member, None) for member in members]
    identity = messages.LeaveGroupRequest.MemberIdentity
    named = [identity(member_id=member, group_instance_id=instance, reason="") for member, instance in pairs]
    return messages.LeaveGroupRequest(version=version, group_id=group, members=named)


def commit(version, group, offsets, generation=NO_GENERATION, member="", instance=None, metadata="", topic_id=None):
    """`offsets` is `{topic: {partition: offset}}`; of one topic, by its id, since version 10."""
    request = messages.OffsetCommitRequest
    topic_of = request.OffsetCommitRequestTopic
    topics = [
        topic_of(
            name=topic,
            **({"topic_id": topic_id} if topic_id else {}),
            partitions=[
                topic_of.OffsetCommitRequestPartition(
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
        group_id=group,
        generation_id_or_member_epoch=generation,
        member_id=member,
        group_instance_id=instance,
        retention_time_ms=-1,
        topics=topics,
    )


def commit_errors(response):
    """`{partition: error}` of all topics together."""
    return {it.partition_index: it.error_code for topic in response.topics for it in topic.partitions}


def fetch(version, group, partitions, topic_id=None, stable=False):
    """`partitions` is `{topic: [partition]}`, or None for all."""
    request = messages.OffsetFetchRequest
    by_id = {"topic_id": topic_id} if topic_id else {}
    if version < 8:
        of = request.OffsetFetchRequestTopic
        topics = partitions and [of(name=name, partition_indexes=some) for name, some in partitions.items()]
        return request(version=version, group_id=group, topics=topics, require_stable=stable)
    of = request.OffsetFetchRequestGroup
    named = partitions and [
        of.OffsetFetchRequestTopics(name=name, partition_indexes=some, **by_id) for name, some in partitions.items()
    ]
    asked = of(group_id=group, member_id=None, member_epoch=-1, topics=named)
    return request(version=version, groups=[asked], require_stable=stable)


def fetched(response):
    """The error of the group, and `{partition: (error, offset, metadata)}` of all topics together."""
    (answer,) = response.groups or [response] if response.API_VERSION >= 8 else [response]
    found = {
        it.partition_index: (it.error_code, it.committed_offset, it.metadata)
        for topic in answer.topics
        for it in topic.partitions
    }
    return getattr(answer, "error_code", 0), found


# The new protocol (KIP-848) --------------------------------------------------------------------------------


class Heartbeat:
    """A ConsumerGroupHeartbeat of version 1; what is None is left as it was."""

    def __init__(
        self, group, member, epoch, topics=None, regex=None, owned=None, instance=None, assignor=None, rebalance=-1
    ):
        self.body = text(group) + text(member) + struct.pack(">i", epoch) + text(instance) + text(None)
        self.body += struct.pack(">i", rebalance)
        self.body += b"\0" if topics is None else count(topics) + b"".join(map(text, topics))
        self.body += text(regex) + text(assignor)
        self.body += b"\0" if owned is None else count(owned) + b"".join(self.owned(*one) for one in owned)
        self.body += b"\0"

    @staticmethod
    def owned(topic_id, partitions):
        return topic_id.bytes + count(partitions) + b"".join(struct.pack(">i", n) for n in partitions) + b"\0"

    def ask(self, connection):
        """The answer's error, member epoch, and how many partitions are assigned (None: as before)."""
        connection.send_raw(CONSUMER_GROUP_HEARTBEAT, 1, self.body, flexible=True)
        response = wire.receive_response(connection.socket)
        assert response.take("b") == 0, "no tags in the header"
        response.take("i")  # throttle time
        error = response.take("h")
        for _ in range(2):  # message, member id
            response.bytes(max(length(response) - 1, 0))
        epoch, _interval, assignment = response.take("iib")
        if assignment < 0:
            return error, epoch, None
        partitions = 0
        for _ in range(length(response) - 1):
            response.bytes(16)
            own = length(response) - 1
            response.bytes(4 * own + 1)
            partitions += own
        return error, epoch, partitions


def text(value):
    """A compact string, shorter than 127 bytes; or null."""
    return b"\0" if value is None else count(value.encode()) + value.encode()


def count(items):
    assert len(items) < 127
    return bytes([len(items) + 1])


def length(reader):
    """An unsigned variable-length integer."""
    value, shift = 0, 0
    while (byte := reader.take("B")) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
    return value | byte << shift
