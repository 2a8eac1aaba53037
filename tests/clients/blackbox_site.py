"""The cluster of the black box: brokers, each with a proxy of its own before S3 and before DynamoDB, and a
relay of its own on the way from clients and from the other brokers; where the machine allows it, packets
get lost on all these ways (blackbox_packets.py). What several faults do to one of these at a time adds up,
and ends for each of them by itself."""

import contextlib
import http.client
import itertools
import json
import subprocess
import threading
import time
from pathlib import Path

import cloud
from blackbox_packets import APART, HOME, Packets
from blackbox_relay import Relays
from cloud import READY, CloudBroker, FaultProxy, Stores

# Merging, compaction, snapshots, trimming and sweeping go on all the time.
LIFE = {
    "--segment-bytes-max": 1 << 20,
    "--inline-bytes": 4096,
    "--merge-bytes": 1 << 20,
    "--merge-interval-ms": 1500,
    "--compaction-interval-ms": 2000,
    "--retention-check-ms": 2000,
    "--sweep-interval-ms": 2000,
    "--sweep-grace-ms": 20_000,
    "--sweep-listing-ms": 5000,
    "--log-kept-ms": 5000,
    "--snapshot-entries": 200,
    "--memory": 64 << 20,
    "--cache": 16 << 20,
}
# The first broker is alone in its zone; all others ask each other for blocks before they ask the store.
ZONES = "zone-0", "zone-1"
TERM_PATIENCE = 30  # seconds that a broker has to stop in
# Why a broker may end by itself, for a supervisor to start it again: it was stopped, or cut off, for longer
# than the log is kept, or its store denies what it holds.
SLEPT = "slept too long:"
DENIED = "the log has its records in another store"


class SeededProxy(FaultProxy):
    def __init__(self, directory, target, seed):
        super().__init__(directory, target)
        self.seed = seed

    def command(self):
        return [*super().command(), "--seed", str(self.seed)]

    def faults(self, **faults):
        """Asked from where no packets get lost."""
        with contextlib.closing(
            http.client.HTTPConnection(HOME, self.port, timeout=10, source_address=(APART, 0))
        ) as connection:
            connection.request("PUT", "/__proxy/faults", json.dumps(faults))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()


class Sum:
    """Faults that add up: the faults of all who have set some, as one."""

    def __init__(self, apply):
        self.apply = apply
        self.lock = threading.Lock()
        self.parts = {}

    def set(self, who, faults):
        with self.lock:
            self.parts[who] = faults
            self.show()

    def clear(self, who):
        with self.lock:
            if self.parts.pop(who, None) is not None:
                self.show()

    def show(self):
        everything = {}
        for part in self.parts.values():
            everything |= part
        self.apply(**everything)


class BoxedBroker(CloudBroker):
    """A broker that clients and other brokers reach through relays, and that reaches stores through proxies.

    Several may want it down or stopped at a time; it runs again when nobody does any more."""

    def __init__(self, directory, number, stores, ways, seed, history, notes):
        relays, packets = ways
        self.number, self.history, self.notes = number, history, notes
        proxies = [
            SeededProxy(Path(directory) / name, target, seed + 10 * number + at)
            for at, (name, target) in enumerate([("s3", stores.s3), ("log", stores.dynamodb)])
        ]
        for proxy in proxies:
            proxy.start()
        self.proxies = proxies
        place = (cloud.store("box", proxies[0]), cloud.log("box", proxies[1]))
        flags = [str(word) for pair in LIFE.items() for word in pair]
        if number:  # so that there is one without
            flags += ["--disk-cache", str(Path(directory) / "disk"), "--disk-cache-bytes", str(64 << 20)]
        super().__init__(directory, place, *flags, zone=ZONES[min(number, 1)])
        self.clients, self.peers = relays.relay(self.port), relays.relay(self.port)
        listens = [self.port, self.clients.port, self.peers.port]
        asks = [proxy.port for proxy in proxies]
        self.faults = {
            "s3": Sum(proxies[0].faults),
            "log": Sum(proxies[1].faults),
            "clients": Sum(lambda **faults: relays.set(self.clients, **faults)),
            "peers": Sum(lambda **faults: relays.set(self.peers, **faults)),
            "packets": Sum(lambda **faults: packets.set(f"broker_{number}", listens, asks, **faults)),
        }
        self.lock = threading.RLock()
        self.stopped_by, self.paused_by = set(), set()
        self.is_wanted = True
        self.serves = False
        self.starts = 0
        self.excuses = set()

    def command(self):
        ways = ["--advertise", self.entrance, "--peer-address", f"127.0.0.1:{self.peers.port}"]
        return [*super().command(), *ways]

    @property
    def entrance(self):
        """Where clients find it."""
        return f"127.0.0.1:{self.clients.port}"

    def launch(self):
        self.starts += 1
        self.serves = False
        self.history.fact("started", broker=self.number)
        return super().launch()

    def kill(self):
        if self.process and self.process.poll() is None:
            super().kill()
            self.history.fact("exited", broker=self.number, asked=True)

    def down(self, who, in_order=False):
        with self.lock:
            self.watch()  # what it did until now it did by itself
            self.stopped_by.add(who)
            if self.process.poll() is not None:
                return
            if not in_order or self.paused_by:
                self.kill()
                return
            self.process.terminate()
            began = time.monotonic()
            try:
                code = self.process.wait(TERM_PATIENCE)
                self.history.fact("exited", broker=self.number, asked=True)
                self.notes.say(f"broker {self.number}: SIGTERM, {code} after {time.monotonic() - began:.1f} s")
                if code != 0:
                    self.notes.problem(f"SIGTERM ended broker {self.number} with {code}")
            except subprocess.TimeoutExpired:  # it may wait for stores that are out
                self.notes.say(f"broker {self.number}: SIGTERM has not ended it")
                self.kill()

    def up(self, who):
        with self.lock:
            self.stopped_by.discard(who)
            if not self.stopped_by and self.is_wanted and self.process.poll() is not None:
                self.launch()
                if self.paused_by:
                    self.pause()

    def stop_clock(self, who):
        with self.lock:
            self.paused_by.add(who)
            self.excuses.add(SLEPT)
            if self.process.poll() is None:
                self.pause()

    def start_clock(self, who):
        with self.lock:
            self.paused_by.discard(who)
            if not self.paused_by and self.process.poll() is None:
                self.go_on()

    def watch(self):
        """Complains if it has ended by itself, and starts it again."""
        with self.lock:
            if not self.stopped_by and self.is_wanted and (code := self.process.poll()) is not None:
                is_excused = any(words in self.said() for words in self.excuses)
                say = self.notes.say if is_excused else self.notes.problem
                say(f"broker {self.number} ended by itself with {code}:\n{self.log_tail(12)}")
                self.history.fact("exited", broker=self.number, asked=is_excused)
                self.launch()
            else:
                self.is_ready()

    def is_ready(self):
        if not self.serves and self.process.poll() is None and READY in self.said():
            self.serves = True
            self.history.fact("serving", broker=self.number)
        return self.serves

    def remove(self):
        with self.lock:
            self.is_wanted = False
            self.kill()

    def close(self):
        self.remove()
        for proxy in self.proxies:
            proxy.kill()


class Site:
    """The stores, and the brokers over them."""

    def __init__(self, directory, seed, history, notes, brokers=3):
        self.directory, self.seed, self.history, self.notes = Path(directory), seed, history, notes
        self.stores = Stores(self.directory / "stores")
        self.relays = Relays(seed)
        self.packets = Packets()
        self.count = brokers
        self.brokers, self.guests = [], []
        self.numbers = itertools.count(brokers)

    def start(self):
        self.stores.start()
        self.brokers = [self.new_broker(number) for number in range(self.count)]
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_ready()
        return self

    def new_broker(self, number):
        ways = self.relays, self.packets
        about = (self.stores, ways, self.seed, self.history, self.notes)
        return BoxedBroker(self.directory / f"broker-{number}", number, *about)

    def add_guest(self):
        """One more broker, for a while."""
        guest = self.new_broker(next(self.numbers))
        self.guests.append(guest)
        guest.launch()
        return guest

    @property
    def everybody(self):
        return [*self.brokers, *self.guests]

    @property
    def bootstrap(self):
        return ",".join(broker.entrance for broker in self.brokers)

    @property
    def place(self):
        """Where everything lies, past all proxies."""
        return cloud.store("box", self.stores.s3), cloud.log("box", self.stores.dynamodb)

    def close(self):
        for broker in self.everybody:
            broker.close()
        self.stores.kill()
        self.relays.close()
