"""What must be true of the outcome of a consume-transform-produce pipeline.

Every numbered record of the input becomes one record in each of two output topics, `PLAIN` and `SPREAD`,
all records of one attempt (one transaction) together. A record says which attempt wrote it, which of how
many it is, and what its program meant to do at the end:

    NUMBER WRITER ATTEMPT INDEX SIZE FATE       for example  1042 java-0.1 17 3 20 commit

So what was read shows without anybody's help whether a transaction is torn, or should not be there.
Attempts of one writer are numbered upwards. `PLAIN` has the partitions of the input, a record in the one
it came from; `SPREAD` mixes them."""

from collections import Counter, defaultdict
from dataclasses import dataclass

PLAIN, SPREAD = "plain", "spread"
OUTPUTS = (PLAIN, SPREAD)
COMMIT, ABORT = "commit", "abort"  # fates
COMMITTED, ABORTED = "committed", "aborted"  # what a program was told of an attempt


@dataclass(frozen=True, order=True)
class Attempt:
    writer: str
    number: int

    def __str__(self):
        return f"{self.writer}#{self.number}"


@dataclass(frozen=True)
class Record:
    """A record of an output topic as it was read."""

    topic: str
    partition: int
    offset: int
    number: int
    attempt: Attempt
    index: int
    size: int
    fate: str

    @classmethod
    def parse(cls, topic, partition, offset, value):
        number, writer, attempt, index, size, fate = value.split()
        return cls(topic, partition, offset, int(number), Attempt(writer, int(attempt)), int(index), int(size), fate)

    @property
    def place(self):
        return f"{self.topic}-{self.partition}@{self.offset}"


class Ledger:
    """The records that one read_committed consumer was given, in its order, and what was wrong with them
    as they came. `told` is what programs were told of their attempts, `{attempt: COMMITTED or ABORTED}`;
    it may grow while the ledger is in use, and those of unknown outcome are not in it."""

    def __init__(self, told):
        self.told = told
        self.records = []
        self.problems = []
        self.ends = {}  # {(topic, partition): the last record there}
        self.last = {}  # {(topic, partition, writer): its last record there}
        self.numbers = {topic: {} for topic in OUTPUTS}  # {number: record}

    def add(self, record):
        self.records.append(record)
        self.check_aborted(record)
        self.check_offset(record)
        self.check_order(record)
        self.check_double(record)

    def check_aborted(self, record):
        if record.fate == ABORT:
            self.complain("G1a", record, "was to be aborted")
        elif self.told.get(record.attempt) == ABORTED:
            self.complain("G1a", record, "its program was told that it is aborted")

    def check_offset(self, record):
        before = self.ends.get((record.topic, record.partition))
        if before and before.offset >= record.offset:
            self.complain("offsets", record, f"came after {before.place}")
        self.ends[record.topic, record.partition] = record

    def check_order(self, record):
        key = (record.topic, record.partition, record.attempt.writer)
        before = self.last.get(key)
        if before and (before.attempt.number, before.index) >= (record.attempt.number, record.index):
            self.complain("order", record, f"came after {before.attempt} {before.index}")
        self.last[key] = record

    def check_double(self, record):
        first = self.numbers[record.topic].setdefault(record.number, record)
        if first is not record:
            self.complain("R15", record, f"input {record.number} is there already: {first.place} {first.attempt}")

    def complain(self, rule, record, words):
        self.problems.append(f"{rule}: {record.place} {record.attempt} {record.index}/{record.size}: {words}")

    def finish(self, inputs, partitions):
        """All that is wrong, when everything of these inputs has been committed and read."""
        return [*self.problems, *self.torn(), *self.lost(), *self.differences(inputs), *self.disorder(partitions)]

    def attempts(self):
        """`{attempt: {(topic, index)}}` of what is visible, and the sizes the records say."""
        parts, sizes = defaultdict(set), {}
        for record in self.records:
            parts[record.attempt].add((record.topic, record.index))
            sizes[record.attempt] = record.size
        return parts, sizes

    def torn(self):
        parts, sizes = self.attempts()
        for attempt, seen in sorted(parts.items()):
            missing = {(topic, index) for topic in OUTPUTS for index in range(sizes[attempt])} - seen
            if missing:
                told = self.told.get(attempt, "unknown")
                some = sorted(missing)[:4]
                yield f"R14: {attempt} ({told}) is torn: {len(seen)} records are there, {len(missing)} not: {some}"

    def lost(self):
        parts, _ = self.attempts()
        for attempt, outcome in sorted(self.told.items()):
            if outcome == COMMITTED and attempt not in parts:
                yield f"R14: {attempt} was acknowledged as committed, and nothing of it is there"

    def differences(self, inputs):
        for topic in OUTPUTS:
            found = Counter(record.number for record in self.records if record.topic == topic)
            missing, more = Counter(inputs) - found, found - Counter(inputs)
            if missing:
                yield f"R15: {topic}: {missing.total()} of {len(inputs)} inputs are missing: {sorted(missing)[:8]}"
            if more:
                yield f"R15: {topic}: {more.total()} more than the inputs: {sorted(more)[:8]}"

    def disorder(self, partitions):
        """Each partition of `PLAIN` is written by one transaction after the other, in the input's order."""
        last = {}
        for record in self.records:
            if record.topic != PLAIN:
                continue
            if record.number % partitions != record.partition:
                yield f"input {record.number} is in {record.place}"
            before = last.get(record.partition)
            if before and before.number > record.number:
                yield f"order: {record.place} has input {record.number}, after {before.number} at {before.offset}"
            last[record.partition] = record


class Offsets:
    """The furthest that a group is known to have committed; no later answer may lie before it."""

    def __init__(self):
        self.furthest = {}  # {partition: offset}
        self.problems = []

    def known(self):
        return dict(self.furthest)

    def told(self, offsets):
        """They were acknowledged to a member, or answered by a broker."""
        for partition, offset in offsets.items():
            self.furthest[partition] = max(self.furthest.get(partition, -1), offset)

    def answered(self, who, offsets, known):
        """`known` is from before the question."""
        for partition, least in known.items():
            if offsets.get(partition, -1) < least:
                self.problems.append(f"offsets: {who} says {offsets.get(partition)} of {partition}, after {least}")
        self.told(offsets)
