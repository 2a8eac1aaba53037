"""kafka-python's own integration tests, which its makers run against each release of Kafka, against our
broker, from the archive of its source.

What is expected of each test is in kafka_python.tsv, which says why where it is not `pass`. The list is
held to: a test that is said to fail and passes fails here as well.

    SERVER=kafka pytest ...           tries everything that has a result in the list against Apache Kafka"""

import csv
import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

import wire
from conftest import AGAINST_KAFKA
from servers import REPOSITORY

SUITE = Path(os.environ.get("KAFKA_PYTHON", REPOSITORY / ".tools/kafka-python"))
LIST = Path(__file__).with_name("kafka_python.tsv")
FILES = [f"test/integration/test_{name}_integration.py" for name in ("consumer", "producer", "admin")]
KAFKA_VERSION = "4.3.0" if AGAINST_KAFKA else "4.1.0"  # what the client takes it for; tests for others are left out
TIME_LIMIT = 300  # seconds; a bound for tests that hang, not an expectation

# What the suite expects of a broker, and Kafka's default is not.
CONFIGS = {"num.partitions": 4, "group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1000}
NOT_OF_THE_REFERENCE = ["test_create_partitions"]  # puts them on node 0, and its only node is 1
AUTHORIZER = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"


def rows():
    with LIST.open(newline="") as file:
        return list(csv.DictReader((line for line in file if not line.startswith("#")), delimiter="\t", restval=""))


def parameters():
    for row in rows():
        if row["expected"] != "n/a" and not (AGAINST_KAFKA and row["test"] in NOT_OF_THE_REFERENCE):
            fails = row["expected"] == "fail" and not AGAINST_KAFKA
            marks = [pytest.mark.xfail(strict=True, reason=row["why"])] if fails else []
            yield pytest.param(row["test"], id=row["test"], marks=marks)


@pytest.fixture(scope="module")
def outcomes(request, start_broker, tmp_path_factory):
    """`{test: (passed | failed | skipped, what was said)}` of the selected tests, from one run of the suite."""
    properties = [*(f"{name}={value}" for name, value in CONFIGS.items()), AUTHORIZER, "super.users=User:ANONYMOUS"]
    properties += ["allow.everyone.if.no.acl.found=true"]
    broker = start_broker(properties="\n".join(properties))
    if not AGAINST_KAFKA:
        for name, value in CONFIGS.items():
            wire.set_config_of_all_brokers(broker.bootstrap, name, value)
    directory = tmp_path_factory.mktemp("kafka-python")
    items = [item for item in request.session.items if item.originalname == test_kafka_python.__name__]
    selected = [item.callspec.params["test"] for item in items]
    excluded = [row["test"] for row in rows() if row["test"] not in selected]
    run_pytest("--junitxml", directory / "report.xml", deselect=excluded, broker=broker, log=directory / "log")
    broker.check_alive()
    found = read_report(directory / "report.xml")
    if any(state == "failed" and test in expected_to_pass() for test, (state, _) in found.items()):
        # Some tests race with their own client now and then; what is the broker's fails twice.
        again = directory / "again.xml"
        run_pytest("--junitxml", again, deselect=excluded, broker=broker, log=directory / "log of again")
        broker.check_alive()
        found |= {test: it for test, it in read_report(again).items() if found.get(test, it)[0] == "failed"}
    return found


def expected_to_pass():
    return {row["test"] for row in rows() if row["expected"] == "pass"}


def run_pytest(*arguments, deselect=(), broker=None, log=None):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", SUITE, "-p", "no:cacheprovider", "-q"),
            *arguments,
            *(f"--deselect={file}::{test}" for test in deselect for file in FILES),
            *FILES,
        ],
        cwd=SUITE,
        env=inherited
        | {
            "PYTHONPATH": str(SUITE),
            "KAFKA_VERSION": KAFKA_VERSION,
            "KAFKA_ROOT": str(SUITE),  # has to be there, and is not looked into
            "KAFKA_URI": f"kafka://{broker.bootstrap}" if broker else "kafka://127.0.0.1:1",
        },
        stdout=log.open("w") if log else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT,
    )


def read_report(path):
    found = {}
    for case in xml.parse(path).iter("testcase"):
        states = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        said = [(states[part.tag], f"{part.get('message')}\n{part.text}") for part in case if part.tag in states]
        found[case.get("name")] = said[0] if said else ("passed", "")
    return found


@pytest.mark.parametrize("test", parameters())
def test_kafka_python(outcomes, test):
    state, said = outcomes.get(test, ("not run", ""))
    if state != "passed":
        pytest.fail(f"{state}: {said}", pytrace=False)


def test_the_list_names_every_test_of_the_suite():
    done = run_pytest("--collect-only")
    found = [line.split("::", 1)[1] for line in done.stdout.splitlines() if "::" in line]
    assert sorted(row["test"] for row in rows()) == sorted(found)


def test_the_list_says_why():
    for row in rows():
        assert row["expected"] in ("pass", "fail", "n/a"), row
        assert row["why"] or row["expected"] == "pass", row
