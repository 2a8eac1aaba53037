"""The workers of the black box as processes: started, steered, killed and stopped; and what is known of
their histories while they go on."""

import json
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from callbacks import HUNG

HERE = Path(__file__).parent
PROCESSES = 10_000  # numbers of one slot
PARTITIONS = 2
ACTIVE = 2  # topics that are written to
PIPELINE = "pipeline"  # a kind of worker, which copies from SOURCE to SINK
SOURCE, SINK = "pipe-source", "pipe-sink"
MIX = {"send": 34, "poll": 34, "txn": 18, "seek": 1, "list_offsets": 4, "commit": 5, "committed": 3}


class Histories:
    """The files of a run, read as they grow."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.at = {}  # {file: bytes read}
        self.lock = threading.Lock()
        self.writes = Counter()  # {key: values that were meant for it}
        self.highest = {}  # {key: the highest offset that holds a value, as far as anybody was told}
        self.outcomes = Counter()  # {(client, f, stage)}
        self.sends = Counter()  # {slot: how many of its sends and transactions were acknowledged}
        self.clients = {}
        self.troubles = Counter()
        self.incomplete = []

    def look(self):
        with self.lock:
            for path in sorted(self.directory.glob("process-*.jsonl")):
                with path.open("rb") as file:
                    file.seek(self.at.get(path, 0))
                    data = file.read()
                whole = data.rfind(b"\n") + 1
                self.at[path] = self.at.get(path, 0) + whole
                for line in data[:whole].splitlines():
                    self.take(json.loads(line))
            return self

    def take(self, event):
        f, stage = event["f"], event["stage"]
        if f == "header":
            self.clients[event["process"]] = event["client"]
        self.outcomes[self.clients.get(event["process"], "?"), f, stage] += 1
        if stage in ("fail", "info") and "error" in event:
            self.troubles[self.clients.get(event["process"], "?"), f, stage, str(event["error"])[:120]] += 1
        if f in ("send", "txn") and stage == "ok":
            self.sends[event["process"] // PROCESSES - 1] += 1
        if "missing" in (event.get("note") or ()):
            self.incomplete.append(event)
        if f not in ("send", "poll", "txn"):
            return
        for mop in event.get("mops", ()):
            if stage == "invoke" and mop[0] == "send":
                self.writes[mop[1]] += 1
            elif stage == "ok" and mop[0] == "send" and mop[2][0] is not None:
                self.seen(mop[1], mop[2][0])
            elif stage == "ok" and mop[0] == "poll":
                for key, records in mop[1].items():
                    self.seen(key, max((offset for offset, _ in records), default=-1))

    def seen(self, key, offset):
        self.highest[key] = max(self.highest.get(key, -1), offset)

    def next_process(self, slot):
        """A number that no process of the slot has had."""
        begin = (slot + 1) * PROCESSES
        taken = [int(path.stem.partition("-")[2]) for path in self.directory.glob("process-*.jsonl")]
        return max([begin - 1, *(n for n in taken if begin <= n < begin + PROCESSES)]) + 1


class Slot:
    """A worker, and those that come after it when it is killed."""

    def __init__(self, number, kind, command, run):
        self.number, self.kind, self.command, self.run = number, kind, command, run
        self.dice = random.Random(f"slot {run.seed} {number}")
        self.lock = threading.RLock()
        self.process = None
        self.orders = {}
        self.is_ending = False
        self.log = run.directory / f"worker-{number}-{kind}.log"

    def start(self):
        self.first = self.run.histories.next_process(self.number)
        settings = {
            "bootstrap": self.run.site.bootstrap,
            "history": str(self.run.histories.directory),
            "process": self.first,
            "seed": self.dice.randrange(1 << 30),
            "kind": self.kind,
            "group": "pipe" if self.kind == PIPELINE else "box",
            "source": SOURCE,
            "sink": SINK,
            "transactional_id": f"box {self.number}",
            "pace": self.run.pace,
            "mix": MIX,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, self.command), json.dumps(settings)], stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        self.send()

    def order(self, **orders):
        """Tells it and all that come after it."""
        with self.lock:
            self.orders |= orders
            self.send()

    def send(self):
        try:
            self.process.stdin.write(json.dumps(self.orders).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            pass  # it has died, and is seen to be dead by `watch`

    def crash(self, seconds=0.0):
        """kill -9, and another in its place."""
        with self.lock:
            if self.is_ending:
                return
            self.kill()
            time.sleep(seconds)
            self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.run.history.note(killed=self.last_process())

    def last_process(self):
        return self.run.histories.next_process(self.number) - 1

    def pause(self):
        self.signal(signal.SIGSTOP)

    def go_on(self):
        self.signal(signal.SIGCONT)

    def signal(self, number):
        with self.lock:
            if self.process.poll() is None:
                self.process.send_signal(number)

    def watch(self):
        """Complains if it has ended by itself, and not because its library hung."""
        with self.lock:
            if self.is_ending or (code := self.process.poll()) is None:
                return
            if code == HUNG:
                self.crash()
            else:
                self.run.notes.problem(f"worker {self.number} ({self.kind}) ended with {code}:\n{self.log_tail()}")
                self.start()

    def log_tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def finish(self, highest):
        with self.lock:
            self.is_ending = True
            self.go_on()
            self.order(final=highest)

    def wait(self, seconds):
        """Waits for its end, after `finish`."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.run.notes.problem(f"worker {self.number} ({self.kind}) does not end:\n{self.log_tail()}")
            self.process.kill()
            return
        if code:
            self.run.notes.problem(f"worker {self.number} ({self.kind}) ended with {code}:\n{self.log_tail()}")

    def end(self):
        self.is_ending = True
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Keeper(threading.Thread):
    """Makes topics as the old ones fill, tells workers, kills one of them now and then, and watches everybody."""

    def __init__(self, run, writes_max, crash_every):
        super().__init__(name="keeper", daemon=True)
        self.box, self.writes_max, self.crash_every = run, writes_max, crash_every
        self.dice = random.Random(f"keeper {run.seed}")
        self.topics, self.active = {}, []
        self.done = threading.Event()
        self.next_crash = time.monotonic() + self.crash_after()

    def crash_after(self):
        return self.dice.uniform(0.5, 1.5) * self.crash_every / len(self.box.slots)

    def run(self):
        while not self.done.wait(0.5):
            try:
                self.step()
            except Exception as error:  # noqa: BLE001: the run fails at its end
                self.box.notes.problem(f"the keeper: {error!r}")

    def step(self):
        writes = self.box.histories.look().writes
        for topic in self.active:
            if topic != SOURCE and max(writes[f"{topic}/{n}"] for n in range(PARTITIONS)) >= self.writes_max:
                self.rotate(topic)
        for each in [*self.box.site.brokers, *self.box.slots]:
            each.watch()
        if time.monotonic() > self.next_crash:
            self.dice.choice(self.box.slots).crash()
            self.next_crash = time.monotonic() + self.crash_after()

    def rotate(self, old=None):
        """A new topic, in place of an old one that has enough. Every third is compacted: no key comes twice in it."""
        compacted = len(self.topics) % 3 == 1
        self.add(f"box-{len(self.topics)}", compacted, old)

    def add(self, name, compacted=False, instead_of=None, is_active=True):
        config = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"} if compacted else {}
        admin = AdminClient({"bootstrap.servers": self.box.site.bootstrap, "log_level": 2})
        try:
            admin.create_topics([NewTopic(name, PARTITIONS, -1, config=config)], request_timeout=5)[name].result(10)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                return  # later
        self.box.history.fact("topic", key=name)
        self.topics[name] = PARTITIONS
        self.active = [topic for topic in self.active if topic != instead_of] + [name] * is_active
        for slot in self.box.slots:
            if slot.process:
                slot.order(topics=self.topics, active=self.active)

    def finish(self):
        self.done.set()
        self.join()

    give_up = finish
