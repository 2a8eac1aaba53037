"""Members of groups that are processes (python_member.py, kafkajs_member.js), so that they can be killed,
stopped and continued; what may be asked of a group whatever happens to them; and who writes what they read."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path

from confluent_kafka import Producer

from cloud import until
from servers import REPOSITORY, pause

HERE = Path(__file__).parent
NODE_MODULES = Path(os.environ.get("NODE_MODULES", REPOSITORY / ".tools/node/node_modules"))

# The shortest session that Kafka grants, in each client's words.
SHORT = {
    "confluent": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "partition.assignment.strategy": "range"},
    "kafka-python": {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500},
    "kafkajs": {"sessionTimeout": 6000, "heartbeatInterval": 500, "rebalanceTimeout": 20_000},
}
CONSUMER = {"group.protocol": "consumer"}  # for confluent: KIP-848


class MemberProcess:
    """One member. What it told is in `events`; `partitions` are those it owns by its last word."""

    def __init__(self, kind, bootstrap, group, topic, log, **settings):
        self.name = f"{kind} of {group}"
        self.events = []
        self.partitions, self.generation, self.id = [], -1, None
        script = (
            ["node", HERE / "kafkajs_member.js"]
            if kind == "kafkajs"
            else [sys.executable, HERE / "python_member.py", kind]
        )
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*script, bootstrap, group, topic, json.dumps(settings)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"NODE_PATH": str(NODE_MODULES)},
            )
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "owns":
                self.partitions, self.generation, self.id = event["partitions"], event["generation"], event["member"]
            self.events.append(event)

    def told(self, what):
        return [event for event in list(self.events) if event["event"] == what]

    def check_alive(self):
        code = self.process.poll()
        assert code is None, f"{self.name} ended with {code}: {self.events[-3:]}\n{self.log.read_text()[-2000:]}"
        assert not self.told("crash"), self.told("crash")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.listener.join()

    def pause(self):
        pause(self.process)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def leave(self):
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text()[-2000:]
        self.listener.join()
        assert self.events[-1]["event"] == "closed", self.events[-3:]


class Crowd:
    """The members, past and present, of one group that reads one topic. `has_generations` is false where a
    member is not told of every change: it then may still know the generation (the epoch) before."""

    def __init__(self, bootstrap, group, topic, partitions, directory, has_generations=True):
        self.bootstrap, self.group, self.topic = bootstrap, group, topic
        self.has_generations = has_generations
        self.every_partition = list(range(partitions))
        self.directory = directory
        self.present, self.all = [], []

    def join(self, kind, **settings):
        log = self.directory / f"member-{len(self.all)}.log"
        settings = settings or SHORT[kind]
        member = MemberProcess(kind, self.bootstrap, self.group, self.topic, log, **settings)
        self.present.append(member)
        self.all.append(member)
        return member

    def leave(self, member):
        self.present.remove(member)
        member.leave()

    def kill(self, member):
        self.present.remove(member)
        member.kill()

    def settle(self, members=None, seconds=90):
        """Waits until these members (those present) share all partitions in one generation, none without."""
        members = members or self.present

        def is_settled():
            for member in members:
                member.check_alive()
            shares = [member.partitions for member in members]
            is_one = len({member.generation for member in members}) == 1 or not self.has_generations
            return is_one and all(shares) and sorted(sum(shares, [])) == self.every_partition

        until(is_settled, lambda: f"all partitions shared: {self.owners(members)}", seconds)
        return {member.id: member.partitions for member in members}

    def owners(self, members):
        return [(member.name, member.generation, member.partitions) for member in members]

    def close(self):
        for member in self.all:
            member.kill()

    # what must hold ---------------------------------------------------------------------------------------

    def values(self):
        """How often each value was read."""
        return Counter(
            value for member in self.all for event in member.told("read") for _, _, value in event["records"]
        )

    def committed(self):
        """The furthest commit of each partition that was acknowledged."""
        ends = defaultdict(int)
        for member in self.all:
            for event in member.told("committed"):
                for partition, end in event["offsets"].items():
                    ends[int(partition)] = max(ends[int(partition)], end)
        return dict(ends)

    def check_owners(self):
        """No partition is given to two members in one generation, or committed by two."""
        owners = defaultdict(set)
        for member in self.all:
            for event in member.told("owns"):
                for partition in event["partitions"]:
                    owners[event["generation"], partition].add(event["member"])
        doubled = {place: who for place, who in owners.items() if len(who) > 1}
        assert owners
        assert not doubled, f"(generation, partition): owners: {doubled}"


class Writer(threading.Thread):
    """Writes numbered records to the partitions of a topic in turn, until it is told to stop."""

    def __init__(self, bootstrap, topic, partitions):
        super().__init__(daemon=True)
        self.topic, self.partitions = topic, partitions
        self.count = 0
        self.failed = []
        self.stopped = threading.Event()
        settings = {"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True, "log_level": 2}
        self.producer = Producer({**settings, "on_delivery": self.on_delivery})

    def run(self):
        while not self.stopped.wait(0.01):
            for _ in range(4):
                self.producer.produce(self.topic, str(self.count), partition=self.count % self.partitions)
                self.count += 1
            self.producer.poll(0)

    def on_delivery(self, error, _):
        if error:
            self.failed.append(error)

    def stop(self):
        """Returns all that was written."""
        self.stopped.set()
        self.join()
        assert self.producer.flush(120) == 0
        assert not self.failed, self.failed[:3]
        return {str(n) for n in range(self.count)}

    def ends(self):
        """Where the partitions end, having been written by this alone."""
        return dict(Counter(n % self.partitions for n in range(self.count)))
