"""The black box in short: workers of three implementations, three brokers over MinIO and DynamoDB Local,
and faults of all kinds drawn from a seed; then everything is read, and a checker says whether what
everybody was told can be true. blackbox.py is the same for hours.

CHAOS_SECONDS lengthens it, CHAOS_SEED gives it another plan."""

import os
import shutil

import pytest

import blackbox_plan
from blackbox import Run
from conftest import AGAINST_KAFKA

SECONDS = float(os.environ.get("CHAOS_SECONDS", 75))
SEED = int(os.environ.get("CHAOS_SEED", 1))
WORKERS = ["librdkafka", "java", "franz", "pipeline"]


@pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")
@pytest.mark.skipif(not shutil.which("go"), reason="there is no Go to build the worker with franz-go")
def test_what_everybody_was_told_can_be_true(tmp_path):
    run = Run(tmp_path / "run", SEED, SECONDS, WORKERS, window=25, gap=4, writes_max=256)
    assert run.go() == [], f"seed {SEED}: see {tmp_path}"


def test_a_plan_is_the_same_for_the_same_seed_and_leaves_a_quarter_of_the_windows_quiet():
    assert blackbox_plan.draw(7, 600) == blackbox_plan.draw(7, 600)
    assert blackbox_plan.draw(7, 600) != blackbox_plan.draw(8, 600)
    windows = 400
    busy = {int(action.at // 30) for action in blackbox_plan.draw(7, 30 * windows)}
    assert 0.65 < len(busy) / windows < 0.85


def test_an_hour_meets_every_kind_of_fault():
    assert len(blackbox_plan.KINDS) >= 25
    assert {action.kind for action in blackbox_plan.draw(7, 3600)} == set(blackbox_plan.KINDS)
