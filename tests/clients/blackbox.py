"""The black box: workers of three implementations do what clients do, against brokers over an S3 server
and DynamoDB Local, while processes die and stop, stores and networks fail. What each of them did and was
told is a history; a checker says whether it can be a history of a log.

    blackbox.py --seconds 3600 --seed 7 --dir DIR      a run by hand; prints the plan and what came of it

A seed gives the plan (blackbox_plan.py) and what workers do; the order of events on a machine is its own
affair, so a run is not the same a second time, but its plan is. What is in the histories is said in
tests/harness/history.rs. Needed, as for all suites of clusters: BROKER_BIN, PROXY_BIN, MINIO_BIN,
DYNAMODB_LIBS, KAFKA_LIBS; CHECKER_BIN is the checker."""

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import blackbox_packets
import blackbox_plan
import proof
from blackbox_nemesis import Nemesis
from blackbox_site import Site
from blackbox_watcher import Watcher
from blackbox_worker import FINAL, History
from blackbox_workers import ACTIVE, HERE, PIPELINE, SINK, SOURCE, Histories, Keeper, Slot
from cloud import until
from servers import BROKER_BIN, REPOSITORY, compile_java, java

CALM = 35  # seconds between the last fault and the last reading; 30 are needed to judge how it heals
CHECKER_BIN = Path(os.environ.get("CHECKER_BIN", REPOSITORY / "target/sim/checker"))


class Notes:
    """What is said of a run beside its history."""

    def __init__(self, directory):
        self.began = time.monotonic()
        self.problems = []
        self.file = (directory / "notes.txt").open("w")
        self.lock = threading.Lock()

    def say(self, words):
        with self.lock:
            print(f"{time.monotonic() - self.began:7.1f} s  {words}", flush=True)
            print(f"{time.monotonic() - self.began:7.1f} s  {words}", file=self.file, flush=True)

    def problem(self, words):
        self.problems.append(words)
        self.say(f"PROBLEM: {words}")


class Run:
    """One run. Its folder keeps all of it."""

    def __init__(
        self, directory, seed, seconds, kinds, window=30, gap=10, only=(), writes_max=1024, pace=0.05, calm=CALM
    ):
        self.directory = Path(directory)
        histories = self.directory / "histories"
        histories.mkdir(parents=True)
        self.seed, self.pace = seed, pace
        self.notes = Notes(self.directory)
        self.histories = Histories(histories)
        self.history = self.new_history(1, client="nemesis")
        self.plan = blackbox_plan.draw(seed, seconds, window=window, gap=gap, only=self.possible(only))
        self.seconds, self.writes_max, self.calm = seconds, writes_max, calm
        self.slots = [Slot(number, kind, command(kind, self), self) for number, kind in enumerate(kinds)]
        self.site, self.threads = None, []
        self.packets_met = {}  # {fault: how many}
        (self.directory / "plan.json").write_text(json.dumps(blackbox_plan.to_json(self.plan), indent=1))

    def possible(self, only):
        """The kinds of faults to choose from: packets get lost only where the machine allows it."""
        kinds = set(only or blackbox_plan.KINDS)
        if obstacle := blackbox_packets.obstacle():
            self.notes.say(f"no packets get lost: {obstacle}")
            kinds -= set(blackbox_plan.PACKETS)
            assert kinds, obstacle
        return tuple(kinds)

    def new_history(self, process, **header):
        return LockedHistory(self.histories.directory, process, **header)

    def go(self):
        """Runs all of it, in a network of its own if it can be, and returns what was wrong."""
        with contextlib.nullcontext() if blackbox_packets.obstacle() else blackbox_packets.namespace():
            # Its threads belong to the network in which they begin.
            self.site = Site(self.directory, self.seed, self.history, self.notes)
            try:
                self.work()
            finally:
                # Those first that start others.
                for thread in self.threads:
                    thread.give_up()
                for slot in self.slots:
                    slot.end()
                self.site.close()
        return self.notes.problems

    def work(self):
        # How fast stores and Java's clients start on this machine is nothing to judge brokers by.
        self.history.fact("fault", name="start", on=True)
        self.site.start()
        keeper = Keeper(self, self.writes_max, crash_every=30)
        until(lambda: len(keeper.active) >= ACTIVE or keeper.rotate(), "topics to write to")
        if PIPELINE in [slot.kind for slot in self.slots]:
            until(lambda: SINK in keeper.topics or keeper.add(SINK, is_active=False), "the sink of pipelines")
            until(lambda: SOURCE in keeper.topics or keeper.add(SOURCE), "the source of pipelines")
        for slot in self.slots:
            slot.orders = {"topics": keeper.topics, "active": keeper.active}
            slot.start()
        self.wait_progress("before the first fault")
        self.history.fact("fault", name="start", on=False)
        nemesis = Nemesis(self.plan, self.site, self.slots, self.history, self.notes)
        watchers = [Watcher(self, broker, keeper.topics) for broker in self.site.brokers]
        self.threads = [nemesis, keeper, *watchers]
        for thread in self.threads:
            thread.start()
        time.sleep(self.seconds)
        nemesis.heal()
        self.notes.say("all faults have ended")
        for broker in self.site.brokers:
            broker.wait_ready(60)
        self.wait_progress("after the last fault")
        time.sleep(self.calm)
        keeper.finish()
        for watcher in watchers:
            watcher.finish()
        self.finish()
        self.summary(nemesis)
        self.check()
        self.fsck()
        self.prove(nemesis)

    def wait_progress(self, when, seconds=120):
        """Waits until every worker has been acknowledged something new."""
        before = dict(self.histories.look().sends)

        def waiting():
            sends = self.histories.look().sends
            return [slot.number for slot in self.slots if sends[slot.number] <= before.get(slot.number, 0)]

        until(lambda: not waiting(), lambda: f"{when}: progress of {waiting()}", seconds)

    def finish(self):
        """The last reading."""
        highest = self.histories.look().highest
        self.notes.say(f"the last reading, of {sum(end + 1 for end in highest.values())} offsets")
        for slot in self.slots:
            slot.finish(highest)
        deadline = time.monotonic() + FINAL + 60
        for slot in self.slots:
            slot.wait(max(1.0, deadline - time.monotonic()))
        for broker in self.site.brokers:
            broker.watch()

    def summary(self, nemesis):
        self.histories.look()
        table = {}
        for (client, f, stage), count in sorted(self.histories.outcomes.items()):
            table.setdefault((client, f), {})[stage] = count
        for (client, f), stages in table.items():
            self.notes.say(f"  {client:12} {f:14} {' '.join(f'{stage} {count}' for stage, count in stages.items())}")
        for about, count in self.histories.troubles.most_common(25):
            self.notes.say(f"  {count:5} x {' '.join(about)}")
        for event in self.histories.incomplete:
            self.notes.problem(f"not all that there must be was read in {FINAL} s: {event}")
        self.notes.say(f"faults: {len(nemesis.played)} kinds, {dict(sorted(nemesis.played.items()))}")
        self.packets_met = self.site.packets.counts()
        self.notes.say(f"packets that met a fault: {self.packets_met}")
        self.notes.say(f"starts of brokers: {[broker.starts for broker in self.site.brokers]}")

    def check(self):
        done = subprocess.run([CHECKER_BIN, self.histories.directory], capture_output=True, text=True)
        (self.directory / "verdict.txt").write_text(done.stdout + done.stderr)
        # Latencies by what was wrong at the time, and gaps, are for who wants to know.
        told = [line for line in (done.stdout + done.stderr).splitlines() if " us" not in line]
        self.notes.say(f"the checker says {done.returncode}:\n" + "\n".join(told[:100]))
        if done.returncode:
            self.notes.problem("the checker has found something, see verdict.txt")

    def fsck(self):
        for broker in self.site.brokers:
            broker.down("fsck", in_order=True)
        store, log = self.site.place
        command = [BROKER_BIN, "fsck", "--deep", "--store", store, "--log", log]
        done = subprocess.run(command, capture_output=True, text=True, env=self.site.brokers[0].environment)
        self.notes.say(f"fsck --deep says {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        if done.returncode:
            self.notes.problem("fsck has found something")

    def prove(self, nemesis):
        verdict = (self.directory / "verdict.txt").read_text()
        values = re.search(r"(?P<values_acknowledged>\d+) values acknowledged, (?P<values_read>\d+) read", verdict)
        proof.add(
            "blackbox",
            minutes=round(self.seconds / 60, 1),
            seeds=self.seed,
            faults=sum(nemesis.played.values()),
            brokers_started=sum(broker.starts for broker in self.site.brokers),
            found="; ".join(problem.splitlines()[0] for problem in self.notes.problems[:5]),
            **(values.groupdict() if values else {}),
        )


class LockedHistory(History):
    """A history that several threads write."""

    def __init__(self, *arguments, **header):
        self.lock = threading.RLock()
        super().__init__(*arguments, **header)

    def write(self, *arguments, **about):
        with self.lock:
            return super().write(*arguments, **about)


def command(kind, run):
    """How a worker is started. What it is made of is built once, into the folder of the run."""
    if kind in ("librdkafka", PIPELINE):
        return [sys.executable, HERE / "blackbox_worker.py"]
    if kind == "java":
        return java_command(run.directory / "java")
    if kind == "franz":
        return [built_franz(run.directory / "franz")]
    raise ValueError(kind)


def java_command(directory):
    if not directory.exists():
        compile_java([HERE / "BlackboxWorker.java"], directory)
    line = java("BlackboxWorker", heap="192m")
    line[line.index("-cp") + 1] += f":{directory}"
    return line


def built_franz(program):
    if not program.exists():
        # A stray go.work or flags of the machine have nothing to say in this.
        own = os.environ | {"GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"}
        build = ["go", "build", "-trimpath", "-o", program, "."]
        done = subprocess.run(build, cwd=HERE / "franz", env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return program


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90, help="of faults")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--dir", type=Path, required=True, help="a new folder, for all that there is to keep")
    parser.add_argument(
        "--workers", default="librdkafka,java,franz,pipeline,librdkafka,java,pipeline", help="kinds, with commas"
    )
    parser.add_argument("--window", type=float, default=30, help="seconds")
    parser.add_argument("--gap", type=float, default=10, help="seconds from fault to fault")
    parser.add_argument("--only", default="", help="kinds of faults, with commas")
    parser.add_argument("--pace", type=float, default=0.05, help="seconds between operations of a worker")
    parser.add_argument("--writes-max", type=int, default=1024, help="values for a key before there is a new one")
    asked = parser.parse_args()
    run = Run(
        asked.dir,
        asked.seed,
        asked.seconds,
        asked.workers.split(","),
        asked.window,
        asked.gap,
        tuple(filter(None, asked.only.split(","))),
        asked.writes_max,
        asked.pace,
    )
    run.notes.say(f"seed {asked.seed}, {len(run.plan)} faults in {asked.seconds:.0f} s:")
    for action in run.plan:
        run.notes.say(f"  {action}")
    problems = run.go()
    run.notes.say(f"seed {asked.seed}: {len(problems)} problems")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
