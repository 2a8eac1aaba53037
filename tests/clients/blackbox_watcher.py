"""Asks brokers of the black box for the bounds of what they have, each on a way of its own."""

import random
import struct
import threading

import wire
from blackbox_workers import PARTITIONS
from cloud import FETCH, one_partition, text

LOG_START = 5  # the version of Fetch since which the answer says where the log begins
OFFSET_OUT_OF_RANGE = 1
PROCESSES = 100  # numbers of watchers


class Watcher(threading.Thread):
    """Asks one broker about one partition after the other."""

    def __init__(self, run, broker, topics):
        super().__init__(name=f"watcher of {broker.number}", daemon=True)
        self.notes, self.broker, self.topics = run.notes, broker, topics
        self.dice = random.Random(f"watcher {run.seed} {broker.number}")
        self.history = run.new_history(PROCESSES + broker.number, client="watcher")
        self.ends = {}
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(self.dice.uniform(0.1, 0.7)):
            try:
                self.ask(self.dice.choice(list(self.topics)), self.dice.randrange(PARTITIONS))
            except Exception as error:  # noqa: BLE001: the run fails at its end
                self.notes.problem(f"{self.name}: {error!r}")
                return

    def ask(self, topic, partition):
        key = f"{topic}/{partition}"
        op = self.history.invoke("watermarks", key=key, broker=self.broker.number)
        try:
            error, high, stable, log_start = self.fetch(topic, partition, self.ends.get(key, 0))
        except OSError as broken:
            self.history.write("fail", "watermarks", op, error=str(broken))
            return
        if error == OFFSET_OUT_OF_RANGE:
            self.ends.pop(key, None)
        if error:
            self.history.write("fail", "watermarks", op, error=f"error {error}")
            return
        self.ends[key] = high
        self.history.write("ok", "watermarks", op, log_start=log_start, stable=stable, high=high)

    def fetch(self, topic, partition, offset):
        body = struct.pack(">iiiib", -1, 0, 0, 1 << 20, 0) + struct.pack(">i", 1) + text(topic)
        body += struct.pack(">iiqqi", 1, partition, offset, -1, 1)
        answer = wire.call(self.broker.bootstrap, FETCH, LOG_START, body, timeout=10)
        answer.take("i")  # throttle time
        return one_partition(answer).take("hqqq")

    def finish(self):
        self.done.set()
        self.join(30)

    give_up = finish
