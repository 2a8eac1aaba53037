"""Kafka requests by hand, for what no client library shows: which API versions a broker offers, the record
batches exactly as they travel (codec, timestamp type, checksum), configs that hold for all brokers."""

import socket
import struct
from dataclasses import dataclass

import crc32c

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
API_FETCH, API_VERSIONS, API_INCREMENTAL_ALTER_CONFIGS = 1, 18, 44


@dataclass
class Batch:
    """The header of a record batch (format 2)."""

    base_offset: int
    codec: str
    log_append_time: bool
    records: int
    size: int  # bytes, with the header
    crc_is_right: bool


class Reader:
    """Takes big-endian values from the front of a response."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, layout):
        value = struct.unpack_from(">" + layout, self.data, self.at)
        self.at += struct.calcsize(">" + layout)
        return value[0] if len(value) == 1 else value

    def bytes(self, size):
        self.at += size
        return self.data[self.at - size : self.at]


def call(bootstrap, api, version, body, timeout=10):
    """Sends one request with a header of version 1 and returns a reader behind the response header."""
    with connect(bootstrap, timeout) as connection:
        send(connection, api, version, body)
        return receive_response(connection)


def connect(bootstrap, timeout=10):
    host, port = bootstrap.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=timeout)


def send(connection, api, version, body):
    request = struct.pack(">hhih4s", api, version, 7, 4, b"wire") + body
    connection.sendall(struct.pack(">i", len(request)) + request)


def receive_response(connection):
    size = struct.unpack(">i", receive(connection, 4))[0]
    response = Reader(receive(connection, size))
    assert response.take("i") == 7, "the response is to another request"
    return response


def receive(connection, size):
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionError(f"connection closed after {len(data)} of {size} bytes")
        data += chunk
    return bytes(data)


def api_versions(bootstrap, timeout=10):
    """The broker's offer: {api key: (lowest version, highest version)}."""
    response = call(bootstrap, API_VERSIONS, 0, b"", timeout)
    assert response.take("h") == 0
    return {key: (low, high) for key, low, high in (response.take("hhh") for _ in range(response.take("i")))}


def set_config_of_all_brokers(bootstrap, name, value):
    """The libraries for Python can't address all brokers at once: the resource's name is empty."""
    body = struct.pack(">ib", 1, 4) + text("") + struct.pack(">i", 1) + text(name) + b"\0" + text(str(value)) + b"\0"
    response = call(bootstrap, API_INCREMENTAL_ALTER_CONFIGS, 0, body)
    _throttle_time, results, error = response.take("iih")
    assert (results, error) == (1, 0), f"{name}={value}: error {error}"


def text(value):
    data = value.encode()
    return struct.pack(">h", len(data)) + data


def fetch_batches(bootstrap, topic, partition=0, offset=0):
    """The headers of all batches of a partition from `offset` on."""
    batches = []
    while True:
        high_watermark, data = fetch(bootstrap, topic, partition, offset)
        found = list(parse_batches(data))
        batches += [batch for batch, _ in found]
        if found:
            offset = found[-1][1]
        if offset >= high_watermark or not found:
            return batches


def fetch(bootstrap, topic, partition, offset):
    name = topic.encode()
    body = struct.pack(">iiiib", -1, 0, 0, 32 << 20, 0)
    body += struct.pack(">ih", 1, len(name)) + name
    body += struct.pack(">iiqi", 1, partition, offset, 32 << 20)
    response = call(bootstrap, API_FETCH, 4, body)
    response.take("i")  # throttle time
    assert response.take("i") == 1, "one topic was asked for"
    assert response.bytes(response.take("h")) == name
    assert response.take("i") == 1, "one partition was asked for"
    index, error, high_watermark, _last_stable = response.take("ihqq")
    assert (index, error) == (partition, 0), f"partition {index}: error {error}"
    for _ in range(max(response.take("i"), 0)):
        response.take("qq")  # an aborted transaction
    return high_watermark, response.bytes(max(response.take("i"), 0))


def parse_batches(data):
    """Yields each whole batch and the offset behind it."""
    at = 0
    while len(data) - at >= 61:
        base, length, _epoch, magic, crc, attributes, last_delta = struct.unpack_from(">qiibIhi", data, at)
        size = 12 + length
        if len(data) - at < size:
            return  # Kafka may cut the last batch of a response
        assert magic == 2, f"batch at offset {base} has format {magic}"
        yield (
            Batch(
                base_offset=base,
                codec=CODECS[attributes & 7],
                log_append_time=bool(attributes & 8),
                records=struct.unpack_from(">i", data, at + 57)[0],
                size=size,
                crc_is_right=crc32c.crc32c(data[at + 21 : at + size]) == crc,
            ),
            base + last_delta + 1,
        )
        at += size
