#!/usr/bin/env python3
"""Prints tests/proof.md: what was run, what was found, what is known not to hold.

What long runs came to is in runs.jsonl, where they add it themselves (add.py); found.md and open.md are written by
hand; what every run of CI does is read from the sources. tests/tidy.rs compares the page with the one that is there:

    REWRITE=1 cargo test -p odradek-tests --test tidy"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
sys.path.insert(0, str(TESTS / "clients"))

import blackbox_plan  # noqa: E402: beside the suites of clients

# Kinds of long runs, and what one of them is measured by, if its longest is worth telling.
KINDS = {
    "swarm": ("Swarm (`simulation/swarm.rs`)", None),
    "long swarm": ("Swarm of two hours a world, with outages of up to an hour", None),
    "blackbox": ("Black box (`clients/blackbox.py`)", "minutes"),
    "lives": ("Life of data in real time (`clients/test_cluster_lives.py`)", "minutes"),
    "fuzz": ("Fuzz targets, with a fuzzer that follows coverage (`fuzz/run`)", None),
    "defects": ("Defects planted (`defects/run`)", None),
}
# What is no amount of what was done.
ABOUT = {"date", "commit", "machine", "kind", "runs", "seeds", "about", "found", "note"}

PAGE = """\
# What was run, what was found, what does not hold

Written by `proof/page.py`; by hand are only the lists from "Found and mended" on.

## In every run of CI

Read from the sources.

| what | how much |
| --- | --- |
{usual}

## In long runs, which somebody starts

Sums of [runs.jsonl](proof/runs.jsonl), to which these runs add a line each (`PROOF=1`): {runs} lines,
{dates}, on {machines}. What a run did not count is not in them.

| what | runs | in all | the longest | found |
| --- | --- | --- | --- | --- |
{long}

{defects}

{found}

{open}"""


def read(path):
    return (TESTS / path).read_text()


def number(path, pattern):
    """A number in a source, by what stands before it."""
    return int(re.search(pattern + r"([\d_]+)", read(path))[1].replace("_", ""))


def worlds(name, size=""):
    """How many worlds a simulation has: with the same seeds each time, and with new ones."""
    path = f"simulation/{name}.rs"
    return number(path, f"const {size}FIXED: u64 = "), number(path, f"const {size}FRESH: usize = ")


def usual():
    """What every run of CI does."""
    # All that can be drawn but copies of machines, which plans leave out.
    faults = number("harness/swarm/fault.rs", r"const ANY_TIME: \[Self; ") - 1
    fixed, fresh = worlds("swarm")
    long_fixed, long_fresh = worlds("swarm", "LONG_")
    concerns = {"appends": "seeds", "groups": "groups", "transactions": "transactions", "lives of data": "life"}
    smaller = "; ".join("{} {} and {}".format(what, *worlds(name)) for what, name in concerns.items())
    kinds = len(blackbox_plan.KINDS)
    targets = len(re.findall(r'^    target\("', read("fuzz/targets.rs"), re.M))
    runs, runs_with_files = (number("fuzz/main.rs", f"const {name}: u64 = ") for name in ("RUNS", "RUNS_WITH_FILES"))
    seconds = number("../.ci/run", "FUZZ_SECONDS:-")
    kept = sum(path.is_file() for path in (TESTS / "fuzz/corpus").rglob("*"))
    blackbox, lives = "clients/test_cluster_blackbox.py", "clients/test_cluster_lives.py"
    blackbox_seconds, lives_seconds = number(blackbox, "CHAOS_SECONDS., "), number(lives, "SOAK_SECONDS., ")
    return (
        f"| Swarm (`simulation/swarm.rs`): whole brokers, {faults} kinds of faults drawn at random "
        f"| {fixed} worlds with the same seeds each time, {fresh} with new ones; {long_fixed} and {long_fresh} of two "
        "hours |",
        f"| Worlds of a single concern (`simulation/`) | likewise: {smaller} |",
        f"| Black box (`{blackbox}`): librdkafka, Java, franz-go, {kinds} kinds of faults, over MinIO and DynamoDB "
        f"Local | {blackbox_seconds} s of faults |",
        f"| Life of data in real time (`{lives}`): expiring, cut, compacted and transactional topics and branches "
        f"over MinIO and DynamoDB Local, brokers killed and stopped, stores failing | {lives_seconds} s |",
        f"| Anomalies planted in histories (`harness/checker/tests/`) | {plants()} kinds, each found by the rule "
        "that is meant to find it |",
        f"| Fuzz targets (`fuzz/`), changed inputs without following coverage | {targets} targets, {runs:,} inputs "
        f"each (the file log {runs_with_files}) that are the same each time, new ones for {seconds} s of a processor, "
        f"and {kept} that are kept |",
        "| Defects (`defects/`) | each still applies; none is planted |",
    )


def plants():
    """How many kinds of anomalies the checker of histories is tried with: the lines of `plants! { ... }`."""
    files = (TESTS / "harness/checker/tests/plants").glob("*.rs")
    lists = (re.search(r"^plants! {\n(.*?)^}", file.read_text(), re.M | re.S)[1] for file in files)
    return sum(len(each.splitlines()) for each in lists)


def amounts(runs):
    """What was done in all of these, in words."""
    names = dict.fromkeys(name for run in runs for name in run if name not in ABOUT)
    sums = {name: sum(run.get(name, 0) for run in runs) for name in names}
    words = [f"{shown(amount)} {name.replace('_', ' ')}" for name, amount in sums.items()]
    about = "about " if any(run.get("about") for run in runs) else ""
    return about + ", ".join([*words, *seeds(runs)])


def shown(amount):
    return f"{round(amount, 1):,}".removesuffix(".0")


def seeds(runs):
    """The seeds of these runs, which name them as Rust does ranges, or one by one."""
    spans = []
    for first, end in sorted(bounds(str(run["seeds"])) for run in runs if "seeds" in run):
        if spans and first <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([first, end])
    words = [str(first) if end == first + 1 else f"{first} to {end - 1}" for first, end in spans]
    return [f"seeds {', '.join(words)}"] if words else []


def bounds(text):
    first, _, end = text.partition("..")
    return int(first), int(end) if end else int(first) + 1


def row(kind, runs):
    title, measure = KINDS[kind]
    if not runs:
        return f"| {title} | none yet | | | |"
    single = [run for run in runs if measure in run and "runs" not in run]
    longest = max(single, key=lambda run: run[measure], default={})
    told = "; ".join(filter(None, [amounts([longest]) if len(runs) > 1 else "", longest.get("note")]))
    found = "; ".join(run["found"] for run in runs if run.get("found"))
    return f"| {title} | {sum(run.get('runs', 1) for run in runs)} | {amounts(runs)} | {told} | {found} |"


def defects():
    """What came of planting defects, by the rows of results.md."""
    names = sorted(path.stem for path in (TESTS / "defects").glob("*.patch"))
    rows = re.findall(r"^\| (\w+) \| `.*?` \| (.*?) \|", read("defects/results.md"), re.M)
    planted = {name for name, _ in rows} & set(names)
    missed = sorted({name for name, seeds in rows if seeds.startswith("not")})
    most = max(int(seeds) for _, seeds in rows if seeds.isdigit())
    words = f"Of {len(names)} [defects](defects/results.md) {len(planted)} have been planted, and "
    words += f"{len(planted) - len(missed)} found, each in {most} seeds at most."
    unplanted = [name for name in names if name not in planted]
    for what, which in ("Not found", missed), ("Not planted yet", unplanted):
        words += f" {what}: {', '.join(which)}." if which else ""
    return words


def page():
    runs = [json.loads(line) for line in read("proof/runs.jsonl").splitlines()]
    unknown = {run["kind"] for run in runs} - set(KINDS)
    assert not unknown, f"runs of {unknown}"
    dates = sorted(run["date"] for run in runs)
    return PAGE.format(
        usual="\n".join(usual()),
        runs=len(runs),
        dates=f"{dates[0]} to {dates[-1]}",
        machines="; ".join(dict.fromkeys(run["machine"] for run in runs)),
        long="\n".join(row(kind, [run for run in runs if run["kind"] == kind]) for kind in KINDS),
        defects=defects(),
        found=read("proof/found.md").rstrip(),
        open=read("proof/open.md"),
    )


if __name__ == "__main__":
    print(page(), end="")
