"""Carries out the plan of a run: what each kind of fault of blackbox_plan.py does to brokers, stores and
networks, and how it ends. Every beginning and end is an event of the history."""

import random
import threading
import time

from blackbox_site import DENIED, SLEPT
from cloud import READY


def share(probability, operations="", times=None):
    return {"probability": probability, "operations": operations, "times": times}


# What a proxy does to requests to its store.
ON_REQUESTS = {
    "reply_lost": {"reply_lost": share(0.25)},
    "late": {"late": share(0.25, "Put"), "late_max_ms": 15_000},
    "duplicate": {"duplicate": share(0.4)},
    "second_reply": {"second_reply": share(0.4, "Put")},
    "conflict": {"conflict": share(0.3, "PutObject")},
    "not_found": {"not_found": share(0.3, "GetObject")},
    "corrupted": {"corrupted": share(0.3, "GetObject")},
    "truncated": {"truncated": share(0.3)},
    "error_before": {"error_before": share(0.3)},
    "error_after": {"error_after": share(0.3)},
    "throttled": {"burst": share(0.1), "burst_max": 30, "throttled": share(0.2)},
    "slow": {"delay": share(0.5), "delay_max_ms": 600},
    "very_slow": {"delay": share(0.3), "delay_max_ms": 6000},
    "black_hole": {"black_hole": True},
    "outage": {"outage": True},
}
# What a relay does to connections.
ON_CONNECTIONS = {
    "cut": {"cut": True},
    "one_way_to": {"hold_to": True},
    "one_way_from": {"hold_from": True},
    "slow": {"delay_ms": 150},
    "sliced": {"slice": 40, "delay_ms": 1},
    "reset": {"reset": 0.03},
}
# What the kernel does to packets.
ON_PACKETS = {
    "dropped": {"to": True, "from_": True},
    "one_way_to": {"to": True},
    "one_way_from": {"from_": True},
    "reset": {"reset": 0.03},
}
ON = {"s3": ON_REQUESTS, "log": ON_REQUESTS, "clients": ON_CONNECTIONS, "peers": ON_CONNECTIONS}


class Nemesis(threading.Thread):
    """Plays a plan against a site. `workers` are the clients, which are killed and stopped as well."""

    def __init__(self, plan, site, workers, history, notes):
        super().__init__(name="nemesis", daemon=True)
        self.plan, self.site, self.workers = plan, site, workers
        self.history, self.notes = history, notes
        self.healed = threading.Event()
        self.threads = []
        self.began = 0.0
        self.played = {}
        self.names = set()  # of those that go on

    def run(self):
        self.began = time.monotonic()
        for action in self.plan:
            if self.healed.wait(max(0.0, self.began + action.at - time.monotonic())):
                return
            thread = threading.Thread(target=self.play, args=(action,), name=str(action), daemon=True)
            thread.start()
            self.threads.append(thread)

    def heal(self):
        """Ends all that goes on, and waits until it has ended."""
        self.healed.set()
        self.join()
        for thread in self.threads:
            thread.join(120)
            if thread.is_alive():
                self.notes.problem(f"the fault {thread.name} does not end")
        self.history.fact("fault", name="heal", on=False)

    def give_up(self):
        self.healed.set()
        for thread in [self, *self.threads]:
            thread.join(120)

    def play(self, action):
        self.notes.say(f"fault {action}")
        self.played[action.kind] = self.played.get(action.kind, 0) + 1
        name = self.name_of(action)
        of = {"broker": action.brokers[0]} if len(action.brokers) == 1 else {}
        self.history.fact("fault", name=name, on=True, note=action.brokers, **of)
        try:
            brokers = [self.site.brokers[number] for number in action.brokers]
            own = getattr(self, action.kind, None)
            if own:
                own(action, brokers)
            else:
                self.by_name(action, brokers)
        except Exception as error:  # noqa: BLE001: the run goes on and fails at its end
            self.notes.problem(f"the fault {action}: {error!r}")
        self.history.fact("fault", name=name, on=False, **of)
        self.names.discard(name)

    def name_of(self, action):
        """Its kind, unless another of that kind goes on."""
        name = f"{action.kind}@{action.at}" if action.kind in self.names else action.kind
        self.names.add(name)
        return name

    def wait(self, seconds):
        return self.healed.wait(seconds)

    # stores and networks ---------------------------------------------------------------------------------------

    def by_name(self, action, brokers):
        where, _, what = action.kind.partition("_")
        if what == "not_found":
            for broker in brokers:
                broker.excuses.add(DENIED)
        if where == "packets":
            self.lose(action, brokers, ON_PACKETS[what])
        else:
            self.impair(action, brokers, {where: ON[where][what]})

    def impair(self, action, brokers, faults):
        sums = [(broker.faults[where], what) for broker in brokers for where, what in faults.items()]
        for each, what in sums:
            each.set(action, what)
        self.wait(action.seconds)
        for each, _ in sums:
            each.clear(action)

    def packets_lost(self, action, brokers):
        """From a tenth to a third of them."""
        self.lose(action, brokers, {"lost": random.Random(action.seed).uniform(0.1, 0.33)})

    def lose(self, action, brokers, faults):
        for broker in brokers:
            broker.excuses.add(SLEPT)  # the log may be out of reach for longer than it is kept
        self.impair(action, brokers, {"packets": faults})

    def stores_outage(self, action, brokers):
        self.impair(action, brokers, {"s3": ON_REQUESTS["outage"], "log": ON_REQUESTS["outage"]})

    def island(self, action, brokers):
        """Cut off from everything."""
        out, cut = ON_REQUESTS["black_hole"], ON_CONNECTIONS["cut"]
        self.impair(action, brokers, {"s3": out, "log": out, "clients": cut, "peers": cut})

    # processes -------------------------------------------------------------------------------------------------

    def kill(self, action, brokers, in_order=False):
        for broker in brokers:
            broker.down(action, in_order)
        self.wait(action.seconds)
        for broker in brokers:
            broker.up(action)

    kill_many = kill_for_long = kill

    def terminate(self, action, brokers):
        self.kill(action, brokers, in_order=True)

    def terminate_all(self, action, brokers):
        threads = [threading.Thread(target=broker.down, args=(action, True)) for broker in brokers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.wait(action.seconds)
        for broker in brokers:
            broker.up(action)

    def roll(self, action, brokers):
        """One after the other, as for a new version."""
        for broker in brokers:
            broker.down(action, in_order=True)
            broker.up(action)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not broker.stopped_by and READY not in broker.said():
                if self.wait(0.1):
                    return

    def pause(self, action, brokers):
        for broker in brokers:
            broker.stop_clock(action)
        self.wait(action.seconds)
        for broker in brokers:
            broker.start_clock(action)

    pause_for_long = pause_for_a_minute = pause

    def strobe(self, action, brokers):
        dice = random.Random(action.seed)
        end = time.monotonic() + action.seconds
        while time.monotonic() < end and not self.healed.is_set():
            for broker in brokers:
                broker.stop_clock(action)
            time.sleep(dice.uniform(0.02, 0.3))
            for broker in brokers:
                broker.start_clock(action)
            time.sleep(dice.uniform(0.02, 0.3))

    def restart_storm(self, action, brokers):
        """Killed at any moment of their start, again and again."""
        dice = random.Random(action.seed)
        end = time.monotonic() + action.seconds
        while time.monotonic() < end and not self.healed.is_set():
            for broker in brokers:
                broker.down(action)
                broker.up(action)
            time.sleep(dice.uniform(0.05, 2))

    def start_in_outage(self, action, brokers):
        for broker in brokers:
            broker.down(action)
        for broker in brokers:
            for store in random.Random(action.seed).choice([("s3",), ("log",), ("s3", "log")]):
                broker.faults[store].set(action, ON_REQUESTS["outage"])
            broker.up(action)
        self.wait(action.seconds)
        for broker in brokers:
            for store in ("s3", "log"):
                broker.faults[store].clear(action)

    def newcomer(self, action, _):
        """A broker joins, and dies."""
        guest = self.site.add_guest()
        self.wait(action.seconds)
        guest.close()
        self.site.guests.remove(guest)

    # clients ---------------------------------------------------------------------------------------------------

    def worker_pause(self, action, _):
        worker = random.Random(action.seed).choice(self.workers)
        worker.pause()
        self.wait(action.seconds)
        worker.go_on()

    def worker_kill(self, action, _):
        worker = random.Random(action.seed).choice(self.workers)
        worker.crash(action.seconds)
