"""The brokers that the suites run against: Odradek, and Apache Kafka to check the suites themselves.

A server listens on a port of its own on 127.0.0.1, keeps its data in a directory of its own, and can
be killed and started again on both."""

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

import wire

REPOSITORY = Path(__file__).resolve().parents[2]
KAFKA_LIBS = Path(os.environ.get("KAFKA_LIBS", REPOSITORY / ".tools/kafka"))
ECOSYSTEM_LIBS = Path(os.environ.get("ECOSYSTEM_LIBS", REPOSITORY / ".tools/ecosystem"))
BROKER_BIN = Path(os.environ.get("BROKER_BIN", REPOSITORY / "target/release/odradek"))
START_TIMEOUT = 60  # seconds; a bound for broken starts, not an expectation


def free_port():
    """A port that nobody listens on. None of those that the kernel gives to connections (from 32768): a server
    that is killed finds its port free when it is started again, however many clients run beside it."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def pause(process):
    """Stops a process, and waits until all of it has stopped: on a busy machine it works on for a while, and what is
    asked of it in that time is still done."""
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + START_TIMEOUT
    while not has_stopped(process):
        assert time.monotonic() < deadline, f"process {process.pid} does not stop"
        time.sleep(0.001)


def has_stopped(process):
    """Whether none of its threads runs; also if it is dead."""
    try:
        stats = [(thread / "stat").read_text() for thread in Path(f"/proc/{process.pid}/task").iterdir()]
    except OSError:
        return process.poll() is not None
    return all(stat.rpartition(")")[2].split()[0] in "TZ" for stat in stats)


class Server:
    """One broker process. Subclasses say how it is started."""

    def __init__(self, directory, port=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.log = self.directory / "broker.log"
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.directory)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.check_alive()
            try:
                wire.api_versions(self.bootstrap, timeout=2)
                return self
            except OSError:
                if time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"the broker does not answer:\n{self.log_tail()}") from None
                time.sleep(0.05)

    def check_alive(self):
        """Raises with the end of the log when the process is gone."""
        code = self.process.poll()
        if code is not None:
            raise RuntimeError(f"the broker ended with {code}:\n{self.log_tail()}")

    def kill(self):
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def log_tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Odradek(Server):
    def __init__(self, directory, *flags, port=None):
        super().__init__(directory, port)
        self.flags = flags

    def command(self):
        data = self.directory / "data"
        return [BROKER_BIN, "--listen", self.bootstrap, "--data", data, *self.flags]


class ApacheKafka(Server):
    """A single KRaft node; `settings` are further lines of its properties."""

    def __init__(self, directory, port=None, settings=""):
        super().__init__(directory, port)
        self.settings = settings

    def start(self):
        super().start()
        while not self.leads_all_partitions():
            time.sleep(0.1)
        return self

    def leads_all_partitions(self):
        """Kafka listens before it has taken up its partitions again."""
        client = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused"})
        try:
            for topic in client.list_topics(timeout=30).topics.values():
                for partition in topic.partitions:
                    client.get_watermark_offsets(TopicPartition(topic.topic, partition), timeout=30)
            return True
        except KafkaException:
            return False
        finally:
            client.close()

    def command(self):
        return java("kafka.Kafka", self.properties(), heap="1g")

    def properties(self):
        path = self.directory / "server.properties"
        if path.exists():
            return path
        controller = free_port()
        path.write_text(
            f"""
            process.roles=broker,controller
            node.id=1
            controller.quorum.voters=1@127.0.0.1:{controller}
            listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}
            advertised.listeners=PLAINTEXT://{self.bootstrap}
            controller.listener.names=CONTROLLER
            log.dirs={self.directory / "data"}
            offsets.topic.replication.factor=1
            transaction.state.log.replication.factor=1
            transaction.state.log.min.isr=1
            broker.heartbeat.interval.ms=200
            broker.session.timeout.ms=1000
            group.initial.rebalance.delay.ms=0
            group.consumer.migration.policy=disabled
            {self.settings}
            """
        )
        format_storage = ["format", "--cluster-id", "abcdefghijklmnopqrstuv", "--config", path]
        subprocess.run(java("kafka.tools.StorageTool", *format_storage), check=True, capture_output=True)
        return path


def compile_java(sources, directory):
    """Compiles programs against Kafka's clients. A JRE has no javac, but what it is made of."""
    libraries = ":".join(map(str, sorted(KAFKA_LIBS.glob("*.jar"))))
    compiler = ["java", "-m", "jdk.compiler/com.sun.tools.javac.Main"]
    done = subprocess.run([*compiler, "-d", directory, "-cp", libraries, *sources], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def java(main_class, *arguments, heap="256m", libraries=KAFKA_LIBS):
    """The command line of one of Kafka's programs, set up for a quick start. What the virtual machine warns of is
    no output of the program."""
    return [
        "java",
        f"-Xmx{heap}",
        "-Xlog:disable",
        "-Xlog:all=warning:stderr",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{libraries}/*",
        main_class,
        *map(str, arguments),
    ]
