#!/usr/bin/env python3
"""Adds a run to runs.jsonl, and writes tests/proof.md anew.

    add.py KIND NAME=VALUE...       add.py swarm worlds=1000 cluster_hours=26.2 seeds=2000..3000

Long runs call it at their end if PROOF=1. The commit is that of the sources at that time; "-dirty" if they were
changed since. `found` says what the run found, and is empty or left out if that was nothing."""

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone

import page


def told(*command):
    done = subprocess.run(command, cwd=page.HERE, capture_output=True, text=True)
    return done.stdout.strip()


def commit():
    # The page and what it is made of change with every run.
    changed = told("git", "status", "--porcelain", "--", ":/", ":/!tests/proof*", ":/!tests/defects/results.md")
    return told("git", "rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def machine():
    kernel = ".".join(platform.release().split(".")[:2])
    rustc = " ".join(told("rustc", "--version").split()[:2])
    return f"{os.cpu_count()} cores, {platform.system()} {kernel}, {rustc}"


def value(text):
    try:
        return json.loads(text)
    except ValueError:
        return " ".join(text.replace("|", "/").split())  # it becomes a cell of a table


def main():
    kind, *amounts = sys.argv[1:]
    assert kind in page.KINDS, f"{kind} is none of {list(page.KINDS)}"
    date = datetime.now(timezone.utc).strftime("%F")
    run = {"date": date, "commit": commit(), "machine": machine(), "kind": kind}
    # An empty one is left out.
    run |= {name: value(text) for name, _, text in (amount.partition("=") for amount in amounts) if text}
    with (page.HERE / "runs.jsonl").open("a") as file:
        file.write(json.dumps(run) + "\n")
    (page.TESTS / "proof.md").write_text(page.page())


if __name__ == "__main__":
    main()
