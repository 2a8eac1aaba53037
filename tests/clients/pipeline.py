"""A consume-transform-produce pipeline of processes (PipelineMember.java, pipeline_member.py) that can be
killed, stopped and continued, who feeds it, and who watches what comes out of it; transaction_ledger.py
says what must be true of that. `TransactionalId` is a producer with a script instead."""

import json
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

import wire
from callbacks import HUNG
from cloud import until
from group_wire import Connection, fetch, fetched
from servers import compile_java, java, pause
from test_cluster import RETRIABLE, Worker
from transaction_ledger import ABORT, ABORTED, COMMITTED, OUTPUTS, Attempt, Ledger, Offsets, Record

HERE = Path(__file__).parent
PARTITIONS = 6
JAVA, CONFLUENT = "java", "confluent"
UNSTABLE_OFFSET_COMMIT = 88
BACKLOG = 400  # records that may wait for the pipeline
TRANSACTION_TIMEOUT = 10_000  # ms; brokers are stopped for longer

# They give up on a stopped broker while it is still in the cluster.
CLIENTS = {
    JAVA: {
        "consumer": {
            "partition.assignment.strategy": "org.apache.kafka.clients.consumer.RangeAssignor",
            "max.poll.records": 20,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1000,
            "request.timeout.ms": 4000,
            "default.api.timeout.ms": 20_000,
            "reconnect.backoff.max.ms": 500,
        },
        "producer": {
            "linger.ms": 2,
            "request.timeout.ms": 4000,
            "delivery.timeout.ms": 10_000,
            "max.block.ms": 20_000,
            "reconnect.backoff.max.ms": 500,
        },
    },
    CONFLUENT: {
        "consumer": {
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1000,
            "socket.timeout.ms": 4000,
            "reconnect.backoff.max.ms": 500,
            "fetch.wait.max.ms": 200,
        },
        "producer": {"linger.ms": 2, "socket.timeout.ms": 4000, "reconnect.backoff.max.ms": 500},
    },
}
# The same members by the new protocol (KIP-848).
ONLY_CLASSIC = {"partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"}

# What a client may say while brokers die and stores fail, and the application goes on: calls that timed
# out, transactions that have to be aborted, that outlived their timeout, that were fenced by a successor
# of the same id, groups that moved on. Anything else is an error of the broker.
ALLOWED = {
    JAVA: {
        "TimeoutException",
        "TransactionAbortableException",
        "TransactionAbortedException",
        "ProducerFencedException",
        "InvalidProducerEpochException",
        "CommitFailedException",
        "RebalanceInProgressException",
        "DisconnectException",
        "NetworkException",
        "CoordinatorNotAvailableException",
        "NotCoordinatorException",
        "CoordinatorLoadInProgressException",
        "UnstableOffsetCommitException",
        "ConcurrentTransactionsException",
    },
    CONFLUENT: {
        "_TIMED_OUT",
        "_TRANSPORT",
        "_FENCED",
        "_MSG_TIMED_OUT",
        "_TIMED_OUT_QUEUE",
        "_IN_PROGRESS",
        "_WAIT_COORD",
        "_ALL_BROKERS_DOWN",
        "INVALID_PRODUCER_EPOCH",
        "PRODUCER_FENCED",
        "ILLEGAL_GENERATION",
        "UNKNOWN_MEMBER_ID",
        "REBALANCE_IN_PROGRESS",
        "STALE_MEMBER_EPOCH",
        "FENCED_MEMBER_EPOCH",
        "COORDINATOR_NOT_AVAILABLE",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "NOT_COORDINATOR",
        "UNSTABLE_OFFSET_COMMIT",
        "REQUEST_TIMED_OUT",
        "CONCURRENT_TRANSACTIONS",
    },
}
# The same in the libraries' own words, where the error's name stands for others too: of batches in flight
# behind one that failed, of batches that there is no time any more to send again, of records whose own
# errors have been told, and of a request that was not sent because a new epoch was being asked for.
EXCUSES = (
    "skipped sequence numbers",
    "It is safe to abort the transaction and continue.",
    "message(s) failed delivery (see individual delivery reports)",
    "on broker (none): Local: Erroneous state",
)

# By the first protocol a program can't know that its transaction has never begun: its AddPartitionsToTxn
# was with a coordinator that is no more.
ABORT_OF_NOTHING = (CONFLUENT, "abort", "INVALID_TXN_STATE")
# By the second one a transaction that was aborted because it had outlived its timeout looks to who commits
# it like one that it has aborted itself: Kafka says the same.
COMMIT_TOO_LATE = (JAVA, "InvalidTxnStateException")


def unexpected(kind, events):
    """The places of events that tell of what a client of this kind may not hear from a broker."""
    nothing = None
    for at, event in enumerate(events):
        if event["event"] != "trouble":
            continue
        about = event["attempt"], event["errors"]
        if (kind, event["when"], event["name"]) == ABORT_OF_NOTHING:
            nothing = about
        # An attempt that was to be aborted anyway is given up for the same error, which is fatal.
        is_allowed = (
            event["name"] in ALLOWED[kind]
            or about == nothing
            or ((kind, event["name"]) == COMMIT_TOO_LATE and event["outlived"])
            or any(words in error for words in EXCUSES for error in event["errors"])
        )
        if not is_allowed:
            yield at


class Programs:
    """The Java programs, compiled once."""

    def __init__(self, directory):
        self.directory = directory
        sources = [HERE / f"{name}.java" for name in ("PipelineMember", "CommittedReader", "ScriptedProducer")]
        compile_java(sources, directory)

    def command(self, name, *arguments):
        line = java(name, *arguments)
        line[line.index("-cp") + 1] += f":{self.directory}"
        return line


class Member:
    """One process of the pipeline. What it told is in `events`."""

    def __init__(self, command, kind, pipeline, slot, number, settings):
        self.kind, self.pipeline, self.slot = kind, pipeline, slot
        self.name = settings["writer"]
        self.events = []
        self.log = pipeline.directory / f"{self.name}.log"
        self.may_be_replaced = False
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        for line in self.process.stdout:
            if not line.endswith("\n"):
                return  # it was killed in the middle of it
            event = json.loads(line)
            self.pipeline.hear(self, event)
            self.events.append(event)

    def told(self, *what):
        return [event for event in list(self.events) if event["event"] in what]

    def hangs(self):
        """Whether it has ended because a call of its library did not come back."""
        return self.process.poll() == HUNG

    def check_alive(self):
        code = self.process.poll()
        assert code is None, f"{self.name} ended with {code}: {self.events[-3:]}\n{self.log.read_text()[-2000:]}"

    def pause(self):
        pause(self.process)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stands(self):
        """Where it stands in its program, for who looks into why nothing goes on."""
        if self.kind == JAVA:
            return ""  # a JVM would tell that on stdout, between its events
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        return self.log.read_text()[-3000:]

    def say_leave(self):
        self.process.stdin.write("leave\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.listener.join()

    def wait_closed(self):
        code = self.process.wait(120)
        self.listener.join()
        assert code == 0, f"{self.name} ended with {code}: {self.log.read_text()[-2000:]}"
        assert self.events[-1]["event"] == "closed", self.events[-3:]

    def problems(self):
        """What it may not have heard from a broker."""
        events = list(self.events)
        for at in unexpected(self.kind, events):
            yield f"{self.name}: {events[at]} after {events[max(at - 3, 0) : at]}, see {self.log}"
        if self.told("replaced") and not self.may_be_replaced:
            yield f"{self.name} was fenced within the timeout, by nobody: {self.events[-4:]}"


class Source(Worker):
    """Writes numbered records to the partitions of the input in turn, never far ahead of the pipeline."""

    def __init__(self, bootstrap, topic, count_done):
        super().__init__("source")
        self.topic, self.count_done = topic, count_done
        self.count = 0
        settings = {"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True, "log_level": 2}
        settings |= {"reconnect.backoff.max.ms": 500, "error_cb": self.on_error, "on_delivery": self.on_delivery}
        self.producer = Producer(settings)

    def work(self):
        self.producer.poll(0.05)
        if self.count - self.count_done() < BACKLOG:
            for _ in range(10):
                self.producer.produce(self.topic, str(self.count), partition=self.count % PARTITIONS)
                self.count += 1

    def on_delivery(self, error, _):
        if error:
            self.problems.append(f"input: {error}")

    def finish(self):
        super().finish()
        assert self.producer.flush(120) == 0
        self.check()
        return Counter(n % PARTITIONS for n in range(self.count))


class LibraryReader(Worker):
    """Reads the outputs all the time, with librdkafka."""

    def __init__(self, bootstrap, topics, told, isolation="read_committed"):
        super().__init__(f"{isolation} reader")
        self.topics = {topic: output for output, topic in topics.items()}
        self.ledger = Ledger(told)
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "socket.timeout.ms": 5000,
            "reconnect.backoff.max.ms": 500,
            "log_level": 2,
            "error_cb": self.on_error,
        }
        self.consumer = Consumer(settings)
        self.consumer.assign([TopicPartition(topic, n, 0) for topic in self.topics for n in range(PARTITIONS)])

    def work(self):
        for message in self.consumer.consume(500, timeout=0.2):
            if message.error():
                self.problems.append(f"{message.topic()} {message.partition()}: {message.error()}")
                continue
            output = self.topics[message.topic()]
            self.ledger.add(Record.parse(output, message.partition(), message.offset(), message.value().decode()))

    def finish(self):
        super().finish()
        self.consumer.close()


class JavaReader(threading.Thread):
    """Reads the outputs all the time, with Kafka's own consumer."""

    def __init__(self, programs, bootstrap, topics, told, directory):
        super().__init__(name="Java reader", daemon=True)
        self.topics = {topic: output for output, topic in topics.items()}
        self.ledger = Ledger(told)
        self.log = directory / "reader.log"
        command = programs.command("CommittedReader", bootstrap, PARTITIONS, *self.topics)
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)

    def run(self):
        for line in self.process.stdout:
            if line.endswith("\n"):
                topic, partition, offset, value = line.rstrip("\n").split(" ", 3)
                self.ledger.add(Record.parse(self.topics[topic], int(partition), int(offset), value))

    def check(self):
        assert self.process.poll() is None, f"{self.name} ended:\n{self.log.read_text()[-2000:]}"

    def finish(self):
        self.check()
        self.kill()
        self.join()
        self.check = lambda: None

    def kill(self):
        self.process.kill()
        self.process.wait()


class OffsetAsker(Worker):
    """Asks one broker what the group has committed."""

    def __init__(self, broker, group, topic, offsets):
        super().__init__(f"asker of {broker.port}")
        self.broker, self.group, self.topic, self.offsets = broker, group, topic, offsets
        self.answers = 0

    def work(self):
        self.done.wait(0.2)
        known = self.offsets.known()
        try:
            answered = self.ask()
        except OSError:
            return  # it is dead or stopped
        if answered is not None:
            self.answers += 1
            self.offsets.answered(self.broker.port, answered, known)

    def ask(self):
        """What is committed of each partition; None if the answer is that there is none at the moment."""
        with Connection(self.broker.bootstrap, timeout=5) as connection:
            asked = fetch(9, self.group, {self.topic: list(range(PARTITIONS))}, stable=True)
            error, found = fetched(connection.ask(asked))
        errors = {error, *(error for error, _, _ in found.values())} - {0}
        if errors - RETRIABLE - {UNSTABLE_OFFSET_COMMIT}:
            self.problems.append(f"{self.broker.port} answered {errors}")
        return None if errors else {partition: offset for partition, (_, offset, _) in found.items()}


class Pipeline:
    """A group at work, from the input topic to the two outputs. `brokers` are asked for its offsets."""

    def __init__(self, programs, brokers, topics, directory, seed=1, protocol="classic"):
        self.programs, self.brokers, self.directory = programs, brokers, directory
        self.bootstrap = ",".join(broker.bootstrap for broker in brokers)
        self.input, *outputs = topics
        self.outputs = dict(zip(OUTPUTS, outputs))
        self.group, self.protocol = f"pipeline of {self.input}", protocol
        self.dice = random.Random(seed)
        self.began = time.monotonic()
        self.told = {}
        self.offsets = Offsets()
        self.members, self.present = [], []
        self.readers = [
            LibraryReader(self.bootstrap, self.outputs, self.told),
            JavaReader(programs, self.bootstrap, self.outputs, self.told, directory),
        ]
        self.loose = LibraryReader(self.bootstrap, self.outputs, self.told, "read_uncommitted")
        self.source = Source(self.bootstrap, self.input, self.count_done)
        self.askers = [OffsetAsker(broker, self.group, self.input, self.offsets) for broker in brokers]

    @property
    def workers(self):
        return [*self.readers, self.loose, self.source, *self.askers]

    def start(self, *kinds):
        for slot, kind in enumerate(kinds):
            self.join(kind, slot)
        for worker in self.workers:
            worker.start()
        self.wait_progress()
        return self

    def hear(self, member, event):
        event["at"] = round(time.monotonic() - self.began, 1)
        if event["event"] in (COMMITTED, ABORTED):
            self.told[Attempt(member.name, event["attempt"])] = event["event"]
        if event["event"] == COMMITTED:
            self.offsets.told({int(partition): end for partition, end in event["offsets"].items()})

    # its members -------------------------------------------------------------------------------------------

    def join(self, kind, slot):
        """Starts a member; those of one slot have the same transactional id, one after the other."""
        number = sum(member.slot == slot for member in self.members)
        clients = {name: dict(settings) for name, settings in CLIENTS[kind].items()}
        if self.protocol == "consumer":
            own = {name: value for name, value in clients["consumer"].items() if name not in ONLY_CLASSIC}
            clients["consumer"] = own | {"group.protocol": "consumer"}
        settings = {
            "bootstrap": self.bootstrap,
            "group": self.group,
            "input": self.input,
            "outputs": list(self.outputs.values()),
            "partitions": PARTITIONS,
            "writer": f"{kind}-{slot}.{number}",
            "seed": self.dice.randrange(1 << 30),
            "aborts": 0.15,
            "timeout": TRANSACTION_TIMEOUT,
            **clients,
        }
        settings["producer"]["transactional.id"] = f"{self.input} {slot}"
        is_java = kind == JAVA
        command = self.programs.command("PipelineMember") if is_java else [sys.executable, HERE / "pipeline_member.py"]
        member = Member(command, kind, self, slot, number, settings)
        self.members.append(member)
        self.present.append(member)
        return member

    def restart(self, member):
        """kill -9, and another in its place with the same transactional id."""
        self.present.remove(member)
        member.kill()
        return self.join(member.kind, member.slot)

    def relieve(self, member):
        """Another in its place when it has left."""
        self.present.remove(member)
        member.say_leave()
        member.wait_closed()
        return self.join(member.kind, member.slot)

    def supplant(self, member):
        """Another in its place while it is stopped in the middle of its work, which it then tries to end."""
        self.present.remove(member)
        member.may_be_replaced = True
        member.pause()
        successor = self.join(member.kind, member.slot)
        until(lambda: successor.check_alive() or successor.told("opened"), f"a producer of {successor.name}", 90)
        member.say_leave()
        member.go_on()
        member.wait_closed()
        return successor

    def stall(self, member):
        """Stops a member for so long that the group goes on without it, and so without its transaction."""
        member.pause()
        self.wait_progress()
        member.go_on()

    # its progress ------------------------------------------------------------------------------------------

    def count_done(self):
        return min(sum(map(len, reader.ledger.numbers.values())) // len(OUTPUTS) for reader in self.readers)

    def ends(self):
        """How far each reader is in each partition."""
        return [
            reader.ledger.ends[output, partition].offset if (output, partition) in reader.ledger.ends else -1
            for reader in self.readers
            for output in OUTPUTS
            for partition in range(PARTITIONS)
        ]

    def note(self, what):
        print(f"{time.monotonic() - self.began:5.1f} s: {what}; {self.source.count} inputs, {self.count_done()} done")

    def wait_progress(self, seconds=120):
        """Waits until every reader has been given something new of every partition, and finds nothing wrong."""
        before = self.ends()

        def has_progress():
            self.check()
            return all(now > then for now, then in zip(self.ends(), before))

        until(has_progress, lambda: f"progress everywhere: {before}, {self.ends()}, {self.last_words()}", seconds)

    def check(self):
        # As whoever looks after such programs would.
        for member in [member for member in self.present if member.hangs()]:
            self.note(f"{member.name} hangs, and is started again")
            self.restart(member)
        for member in self.present:
            member.check_alive()
        for worker in self.workers:
            worker.check()
        found = [problem for reader in self.readers for problem in reader.ledger.problems]
        found += self.offsets.problems + [problem for member in self.members for problem in member.problems()]
        assert not found, report(found)

    def last_words(self):
        return "\n".join(f"{member.name}: {member.events[-3:]} {member.stands()}" for member in self.present)

    # the end -----------------------------------------------------------------------------------------------

    def finish(self):
        """Ends the work when all of the input is through, and checks all of it."""
        ends = dict(self.source.finish())
        total = self.source.count

        def is_done():
            self.check()
            return self.count_done() >= total and self.offsets.known() == ends

        until(is_done, lambda: f"{total} inputs, not {self.count_done()}; {ends}, not {self.offsets.known()}", 120)
        for member in list(self.present):
            self.present.remove(member)
            member.say_leave()
            member.wait_closed()
        for asker in self.askers:
            until(lambda: asker.ask() == ends, lambda: f"{ends} from {asker.broker.port}, not {asker.ask()}")  # noqa: B023
            assert asker.answers
        self.wait_read()
        for worker in [*self.readers, self.loose, *self.askers]:
            worker.finish()
        self.print_summary()
        self.check()
        self.check_readers(range(total))
        self.check_protocols()
        self.check_that_the_checks_can_fail(range(total))

    def wait_read(self):
        """Waits until the readers have what there is to read; by now nothing is open, so that is the end."""
        committed = read_through(self.bootstrap, self.outputs, "read_committed")
        readers = {reader: committed for reader in self.readers}
        readers[self.loose] = read_through(self.bootstrap, self.outputs, "read_uncommitted")
        for reader, expected in readers.items():
            behind = lambda: f"{reader.name} has {len(reader.ledger.records)} of {len(expected)} records"  # noqa: B023, E731
            until(lambda: len(reader.ledger.records) >= len(expected), behind)  # noqa: B023
            found = sorted(place(it) for it in reader.ledger.records)
            missed, unknown = set(expected) - set(found), set(found) - set(expected)
            assert found == expected, f"{reader.name} missed {sorted(missed)[:5]}, and only it has {sorted(unknown)[:5]}"

    def check_readers(self, inputs):
        for reader in self.readers:
            found = list(reader.ledger.finish(inputs, PARTITIONS))
            assert not found, f"{reader.name}: {report(found)}"

    def check_that_the_checks_can_fail(self, inputs):
        """Who reads what is not committed finds all that the others must not."""
        found = list(self.loose.ledger.finish(inputs, PARTITIONS))
        rules = {problem.split(":")[0] for problem in found}
        assert {"G1a", "R15"} <= rules, f"only {rules} in {len(self.loose.ledger.records)} records"

    def check_protocols(self):
        """Each transaction of the second protocol has an epoch of its own, those of the first share one."""
        epochs = defaultdict(Counter)
        for topic in self.outputs.values():
            _, data = wire.fetch(self.brokers[0].bootstrap, topic, 0, 0)
            for at in batches(data):
                producer, epoch = struct.unpack_from(">qh", data, at + 43)
                epochs[producer][epoch] += 1
        assert any(len(those) > 5 for those in epochs.values()), f"none of the second protocol: {epochs}"
        assert any(max(those.values()) > 5 for those in epochs.values()), f"none of the first protocol: {epochs}"

    def print_summary(self):
        outcomes = Counter(event["event"] for member in self.members for event in member.events)
        troubles = Counter(
            (member.kind, event["when"], event["name"]) for member in self.members for event in member.told("trouble")
        )
        aborted = sum(record.fate == ABORT for record in self.loose.ledger.records)
        print(f"{self.source.count} inputs, {dict(outcomes)}, {aborted} aborted records seen by read_uncommitted")
        print(f"{sum(asker.answers for asker in self.askers)} answers about offsets; troubles: {dict(troubles)}")

    def kill(self):
        for member in self.members:
            member.kill()
        self.readers[1].kill()


def report(found):
    return f"{len(found)} findings:\n" + "\n".join(found[:20])


def batches(data):
    """Where the record batches begin, but for those that a broker makes itself, the ends of transactions."""
    at = 0
    while at + 61 <= len(data):
        size, attributes = struct.unpack_from(">i", data, at + 8)[0], struct.unpack_from(">h", data, at + 21)[0]
        if not attributes & 0x20:
            yield at
        at += 12 + size


def place(record):
    return record.topic, record.partition, record.offset


def read_through(bootstrap, outputs, isolation):
    """The places of all records that a consumer finds that begins now."""
    names = {topic: output for output, topic in outputs.items()}
    settings = {"bootstrap.servers": bootstrap, "group.id": "unused", "isolation.level": isolation}
    consumer = Consumer({**settings, "enable.partition.eof": True, "auto.offset.reset": "error"})
    consumer.assign([TopicPartition(topic, n, 0) for topic in names for n in range(PARTITIONS)])
    found, ended = [], set()
    deadline = time.monotonic() + 60
    while len(ended) < len(names) * PARTITIONS:
        assert time.monotonic() < deadline, f"{isolation}: only {ended} have an end"
        for message in consumer.consume(1000, timeout=0.2):
            if not message.error():
                found.append((names[message.topic()], message.partition(), message.offset()))
            elif message.error().code() == message.error()._PARTITION_EOF:
                ended.add((message.topic(), message.partition()))
            else:
                raise KafkaException(message.error())
    consumer.close()
    return sorted(found)
