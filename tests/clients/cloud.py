"""What a cluster is made of: an S3 server, DynamoDB Local, a proxy that misbehaves in front of either,
and brokers that share one bucket and one table. All on free ports of 127.0.0.1, each a process of its
own that can be killed, stopped and continued.

A broker of a cluster has a zone of its own (`zone-0`, `zone-1`, ...), so that a client can be led to it
and no other by its client id; the methods of `CloudBroker` that ask something do it on a connection to
this broker, whoever leads."""

import itertools
import json
import os
import signal
import struct
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

import wire
from servers import BROKER_BIN, REPOSITORY, START_TIMEOUT, Server, free_port, pause

MINIO_BIN = Path(os.environ.get("MINIO_BIN", REPOSITORY / ".tools/minio/minio"))
DYNAMODB_LIBS = Path(os.environ.get("DYNAMODB_LIBS", REPOSITORY / ".tools/dynamodb"))
PROXY_BIN = Path(os.environ.get("PROXY_BIN", REPOSITORY / "target/sim/fault_proxy"))

REGION = "eu-central-1"
ACCESS_KEY, SECRET_KEY = "test", "testtest1"
FETCH, LIST_OFFSETS, OFFSET_COMMIT, OFFSET_FETCH = 1, 2, 8, 9
READY = "odradek is ready"


def until(condition, what, seconds=START_TIMEOUT):
    """Waits for a condition and returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)
    return value


def aws_environment(**changes):
    """The environment of a broker: the credentials of the servers here and nothing of this machine's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ODRADEK_"))}
    return {
        **inherited,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        **changes,
    }


class HttpServer:
    """A process that answers HTTP on a port. Subclasses say how it is started and what it is asked."""

    name = health = None

    def __init__(self, directory, port=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = self.directory / f"{self.name}.log"
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.directory, env=self.environment()
            )
        until(self.answers, lambda: f"{self.name} answers:\n{self.log.read_text(errors='replace')[-2000:]}")
        return self

    def environment(self):
        return os.environ

    def answers(self):
        code = self.process.poll()
        assert code is None, f"{self.name} ended with {code}:\n{self.log.read_text(errors='replace')[-2000:]}"
        try:
            urllib.request.urlopen(self.endpoint + self.health, timeout=2).close()
            return True
        except urllib.error.HTTPError as answer:
            return answer.code == 400  # a sane answer to a request without credentials
        except OSError:
            return False

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class Minio(HttpServer):
    """An S3 server that checks the condition of a conditional put under a lock."""

    name, health = "minio", "/minio/health/ready"

    def command(self):
        return [MINIO_BIN, "server", "--quiet", "--address", f"127.0.0.1:{self.port}", self.directory / "buckets"]

    def environment(self):
        settings = {
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_SITE_REGION": REGION,
            "MINIO_BROWSER": "off",
        }
        return os.environ | settings

    def create_bucket(self, name):
        """A folder is a bucket to a MinIO of one drive."""
        (self.directory / "buckets" / name).mkdir(parents=True)

    def objects(self, bucket):
        """The keys in a bucket; an object is a folder with its metadata in it."""
        root = self.directory / "buckets" / bucket
        return sorted(str(path.parent.relative_to(root)) for path in root.rglob("xl.meta"))


class DynamoDbLocal(HttpServer):
    """Amazon's DynamoDB for tests. It keeps its tables in memory and believes every signature."""

    name, health = "dynamodb", "/"

    def command(self):
        return [
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            f"-Dsqlite4java.library.path={DYNAMODB_LIBS}",
            "-cp",
            f"{DYNAMODB_LIBS}/*",
            "software.amazon.dynamodb.services.local.main.ServerRunner",
            "-inMemory",
            "-sharedDb",
            "-port",
            str(self.port),
        ]

    def call(self, operation, **request):
        headers = {
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/{REGION}/dynamodb/aws4_request, "
            "SignedHeaders=host, Signature=0",
        }
        asked = urllib.request.Request(self.endpoint, json.dumps(request).encode(), headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    def create_table(self, name, **keys):
        """Creates a table; `slot="S"` makes a hash key of strings, a second pair the range key."""
        self.call(
            "CreateTable",
            TableName=name,
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in keys.items()],
            KeySchema=[{"AttributeName": key, "KeyType": role} for key, role in zip(keys, ("HASH", "RANGE"))],
            BillingMode="PAY_PER_REQUEST",
        )

    def tables(self):
        return self.call("ListTables")["TableNames"]


class FaultProxy(HttpServer):
    """A proxy in front of one of the above that does to requests and replies what it is told to."""

    name, health = "proxy", "/__proxy/counts"

    def __init__(self, directory, target, port=None):
        super().__init__(directory, port)
        self.target = target

    def command(self):
        return [PROXY_BIN, "--listen", f"127.0.0.1:{self.port}", "--upstream", f"127.0.0.1:{self.target.port}"]

    def faults(self, **faults):
        """Replaces all faults by these, whose names and fields are those of the proxy's `Faults`."""
        asked = urllib.request.Request(self.endpoint + "/__proxy/faults", json.dumps(faults).encode(), method="PUT")
        urllib.request.urlopen(asked, timeout=10).close()

    def counts(self):
        with urllib.request.urlopen(self.endpoint + "/__proxy/counts", timeout=10) as answer:
            return json.load(answer)


class Stores:
    """An S3 server and a DynamoDB, and where in them a cluster may lie."""

    def __init__(self, directory):
        self.s3 = Minio(Path(directory) / "s3")
        self.dynamodb = DynamoDbLocal(Path(directory) / "dynamodb")
        self.numbers = itertools.count(1)

    def start(self):
        self.s3.start()
        self.dynamodb.start()
        return self

    def kill(self):
        self.s3.kill()
        self.dynamodb.kill()

    def new_place(self, s3=None, dynamodb=None):
        """Locations nobody has used; through other servers than these if given (proxies)."""
        name = f"place-{next(self.numbers)}"
        return store(name, s3 or self.s3), log(name, dynamodb or self.dynamodb)


def store(bucket, s3, prefix="cluster", **options):
    return location(f"s3://{bucket}/{prefix}", s3, {"create": "true", **options})


def log(table, dynamodb, **options):
    return location(f"dynamodb://{table}", dynamodb, {"create": "true", **options})


def location(place, server, options):
    """The URL of a location; an option that is None is left out."""
    options = {"region": REGION, "endpoint": server.endpoint, **options}
    return place + "?" + "&".join(f"{key}={value}" for key, value in options.items() if value is not None)


class CloudBroker(Server):
    """One broker of a cluster. `self.log` has what all of its processes wrote."""

    def __init__(self, directory, place, *flags, zone=None, port=None, environment=None):
        super().__init__(directory, port)
        self.store, self.order = place
        self.zone = zone
        self.flags = flags
        self.environment = environment or aws_environment()
        self.began = 0

    def command(self):
        places = ["--store", self.store, "--log", self.order]
        zone = ["--zone", self.zone] if self.zone else []
        return [BROKER_BIN, "--listen", self.bootstrap, *places, *zone, *self.flags]

    def launch(self):
        """Starts the process and waits for nothing."""
        with self.log.open("ab") as log:
            self.began = log.tell()
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.directory, env=self.environment
            )
        return self

    def start(self):
        self.launch()
        return self.wait_ready()

    def wait_ready(self, seconds=START_TIMEOUT):
        until(self.is_ready, lambda: f"the broker is ready:\n{self.log_tail()}", seconds)
        return self

    def is_ready(self):
        self.check_alive()
        return READY in self.said()

    def said(self):
        """What the process that runs now has written."""
        with self.log.open("rb") as log:
            log.seek(self.began)
            return log.read().decode(errors="replace")

    def pause(self):
        pause(self.process)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stop_in_order(self):
        code = self.stop()
        assert code == 0, f"SIGTERM ended the broker with {code}:\n{self.log_tail()}"

    def client(self, **settings):
        """The settings of a client that is led to this broker as long as it is there."""
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": f"zone={self.zone}",
            **{key.replace("_", "."): value for key, value in settings.items()},
        }

    def peak_memory(self):
        """The most resident memory that the process has had, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    def connect(self, timeout=30):
        return wire.connect(self.bootstrap, timeout)

    def end_offset(self, topic, partition=0, timeout=30):
        """What this broker says about the end of a partition: (error code, offset)."""
        with self.connect(timeout) as connection:
            ask_end_offset(connection, topic, partition)
            return hear_end_offset(connection)

    def commit(self, group, topic, partition, offset):
        """Commits an offset through this broker, outside of any generation; returns the error code."""
        body = text(group) + struct.pack(">i", -1) + text("") + struct.pack(">qi", -1, 1)
        body += text(topic) + struct.pack(">iiq", 1, partition, offset) + text("")
        return one_partition(wire.call(self.bootstrap, OFFSET_COMMIT, 2, body)).take("h")

    def committed(self, group, topic, partition):
        """The committed offset as this broker knows it: (error code, offset)."""
        with self.connect() as connection:
            ask_committed(connection, group, topic, partition)
            return hear_committed(connection)


# Questions on a connection, apart from their answers: for a broker that is asked while it is stopped.


def ask_end_offset(connection, topic, partition):
    body = struct.pack(">ii", -1, 1) + text(topic) + struct.pack(">iiq", 1, partition, -1)
    wire.send(connection, LIST_OFFSETS, 1, body)


def hear_end_offset(connection):
    error, _timestamp, offset = one_partition(wire.receive_response(connection)).take("hqq")
    return error, offset


def ask_committed(connection, group, topic, partition):
    body = text(group) + struct.pack(">i", 1) + text(topic) + struct.pack(">ii", 1, partition)
    wire.send(connection, OFFSET_FETCH, 1, body)


def hear_committed(connection):
    answer = one_partition(wire.receive_response(connection))
    offset, _metadata = answer.take("q"), answer.bytes(max(answer.take("h"), 0))
    return answer.take("h"), offset


def ask_records(connection, topic, partition, offset):
    body = struct.pack(">iiiib", -1, 0, 0, 1 << 20, 0) + struct.pack(">i", 1) + text(topic)
    wire.send(connection, FETCH, 4, body + struct.pack(">iiqi", 1, partition, offset, 1 << 20))


def hear_records(connection):
    """The error code and the end of the partition, which every Fetch says."""
    response = wire.receive_response(connection)
    response.take("i")  # throttle time
    return one_partition(response).take("hq")


def one_partition(answer):
    """The answer from behind the index of the one partition of the one topic that was asked for."""
    assert answer.take("i") == 1, "one topic was asked for"
    answer.bytes(answer.take("h"))
    assert answer.take("i") == 1, "one partition was asked for"
    answer.take("i")
    return answer


def text(value):
    data = value.encode()
    return struct.pack(">h", len(data)) + data


class Cluster:
    """Brokers over one bucket and one table."""

    def __init__(self, directory, place, *flags, brokers=3):
        self.directory = Path(directory)
        self.place = place
        self.flags = flags
        self.brokers = []
        for _ in range(brokers):
            self.add()

    def add(self):
        number = len(self.brokers)
        folder = self.directory / f"broker-{number}"
        self.brokers.append(CloudBroker(folder, self.place, *self.flags, zone=f"zone-{number}"))
        return self.brokers[-1]

    def start(self):
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_ready()
        self.wait_complete()
        return self

    @property
    def bootstrap(self):
        return ",".join(broker.bootstrap for broker in self.brokers)

    def wait_complete(self):
        """Waits until every broker names all of them, and no other."""
        everyone = sorted(broker.port for broker in self.brokers)

        def is_complete():
            self.check_alive()
            return all(self.named_by(broker) == everyone for broker in self.brokers)

        until(is_complete, lambda: f"all name {everyone}: {[self.named_by(it) for it in self.brokers]}")

    @staticmethod
    def named_by(broker):
        try:
            settings = {"bootstrap.servers": broker.bootstrap, "log_level": 2}
            metadata = AdminClient(settings).list_topics(timeout=10)
            return sorted(other.port for other in metadata.brokers.values())
        except KafkaException as error:
            return str(error)

    def check_alive(self):
        for broker in self.brokers:
            broker.check_alive()

    def log_tails(self):
        return "\n".join(f"--- end of {broker.log}\n{broker.log_tail()}" for broker in self.brokers)

    def kill(self):
        for broker in self.brokers:
            broker.kill()
