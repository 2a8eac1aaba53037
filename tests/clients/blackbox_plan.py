"""What happens to brokers, stores and networks in a run of the black box, and when: drawn from a seed,
so that a plan can be played again. Windows of some seconds, a quarter of them quiet; in each of the
others a few kinds of faults, one every few seconds. What a kind does is in blackbox_nemesis.py."""

import random
from dataclasses import asdict, dataclass

QUIET = 1 / 4  # of windows
ONE, MAJORITY, ALL, NONE = "one", "majority", "all", "none"

# {kind: (how many brokers it may meet, seconds from, to)}
PROCESS = {
    "kill": ((ONE,), 0, 6),
    "kill_many": ((MAJORITY, ALL), 0, 6),
    "kill_for_long": ((ONE,), 14, 20),  # the others expire it
    "terminate": ((ONE,), 0, 5),
    "terminate_all": ((ALL,), 0, 2),
    "roll": ((ALL,), 0, 0),
    "pause": ((ONE, MAJORITY, ALL), 0.1, 4),
    "pause_for_long": ((ONE, MAJORITY), 13, 25),
    "pause_for_a_minute": ((ONE,), 40, 60),
    "strobe": ((ONE, ALL), 3, 6),
    "restart_storm": ((ONE, MAJORITY), 4, 8),
    "start_in_outage": ((ONE, ALL), 4, 10),
    "newcomer": ((NONE,), 5, 15),
}
BOTH_STORES = {
    "reply_lost": ((ONE, ALL), 3, 8),
    "late": ((ONE, ALL), 3, 8),
    "duplicate": ((ONE, ALL), 3, 8),
    "error_before": ((ONE, ALL), 3, 8),
    "error_after": ((ONE, ALL), 3, 8),
    "throttled": ((ONE, ALL), 3, 8),
    "slow": ((ONE, ALL), 3, 8),
    "very_slow": ((ONE, ALL), 4, 8),
    "black_hole": ((ONE, MAJORITY, ALL), 2, 10),
    "outage": ((ONE, MAJORITY, ALL), 2, 15),
}
STORES = {f"{store}_{name}": about for store in ("s3", "log") for name, about in BOTH_STORES.items()}
# What a box on the way does that tries again, what only S3 says, and what arrives of its objects.
STORES["s3_second_reply"] = STORES["log_second_reply"] = ((ONE, ALL), 3, 8)
STORES["s3_conflict"] = ((ONE, ALL), 3, 8)
STORES["s3_not_found"] = ((ONE, ALL), 2, 5)
STORES["s3_corrupted"] = ((ONE, ALL), 3, 8)
STORES["s3_truncated"] = ((ONE, ALL), 3, 8)
STORES["log_truncated"] = ((ONE, ALL), 3, 8)
STORES["stores_outage"] = ((ONE, ALL), 2, 15)
NETWORK = {
    "clients_cut": ((ONE, MAJORITY), 1, 10),
    "clients_one_way_to": ((ONE, MAJORITY), 1, 12),
    "clients_one_way_from": ((ONE, MAJORITY), 1, 12),
    "clients_slow": ((ONE, ALL), 3, 8),
    "clients_sliced": ((ONE, ALL), 3, 8),
    "clients_reset": ((ONE, ALL), 3, 8),
    "peers_cut": ((ONE, ALL), 2, 15),
    "peers_one_way_to": ((ONE, ALL), 2, 12),
    "peers_one_way_from": ((ONE, ALL), 2, 12),
    "peers_slow": ((ONE, ALL), 3, 8),
    "island": ((ONE,), 3, 20),
}
# All connections to a broker and those that it has to its stores; only where the machine allows it, see
# blackbox_packets.py.
PACKETS = {
    "packets_lost": ((ONE, ALL), 3, 15),
    "packets_dropped": ((ONE, MAJORITY, ALL), 3, 20),
    "packets_one_way_to": ((ONE, MAJORITY), 3, 20),
    "packets_one_way_from": ((ONE, MAJORITY), 3, 20),
    "packets_reset": ((ONE, ALL), 3, 8),
}
CLIENTS = {
    "worker_pause": ((NONE,), 1, 20),
    "worker_kill": ((NONE,), 0, 2),
}
KINDS = PROCESS | STORES | NETWORK | PACKETS | CLIENTS


@dataclass(frozen=True)
class Action:
    at: float  # seconds from the beginning
    kind: str
    brokers: tuple
    seconds: float
    seed: int

    def __str__(self):
        return f"{self.at:7.1f} s  {self.kind:22} {self.seconds:5.1f} s  {' '.join(map(str, self.brokers))}"


def draw(seed, seconds, brokers=3, window=30, gap=10, only=()):
    """The actions of a run. `only` names the kinds to choose from."""
    dice = random.Random(f"plan {seed}")
    actions, begin = [], 0.0
    deck = []
    while begin < seconds:
        length = min(window, seconds - begin)
        # The first window is never quiet: the short run has few.
        if not begin or dice.random() >= QUIET:
            chosen = []
            for _ in range(max(2, round(window / gap))):
                if not deck:
                    # Every kind comes once before one comes again.
                    deck = sorted(only or KINDS)
                    dice.shuffle(deck)
                chosen.append(deck.pop())
            at = begin + dice.uniform(0, gap / 2)
            while at < begin + length:
                actions.append(action(dice, at, dice.choice(chosen) if not chosen else chosen.pop(), brokers))
                if not chosen:
                    break
                at += dice.uniform(0.5, 1.5) * gap
            deck += chosen  # there was no time for these
        begin += length
    return actions


def action(dice, at, kind, brokers):
    scopes, shortest, longest = KINDS[kind]
    count = {ONE: 1, MAJORITY: brokers // 2 + 1, ALL: brokers, NONE: 0}[dice.choice(scopes)]
    whom = tuple(sorted(dice.sample(range(brokers), count)))
    return Action(round(at, 2), kind, whom, round(dice.uniform(shortest, longest), 2), dice.randrange(1 << 30))


def to_json(actions):
    return [asdict(one) for one in actions]
