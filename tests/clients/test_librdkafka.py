"""librdkafka's own test suite, the C and C++ programs that its makers run before a release, against our
broker: each test with the classic group protocol and, where groups take part, with the new one.

What is expected of each test is in librdkafka.tsv, which says why where it is not `pass`. The list is
held to: a test that is said to fail and passes fails here as well.

    LIBRDKAFKA_SLOW=1 ...             runs the ones marked slow too
    pytest ... -k 0081                runs one number
    SERVER=kafka pytest ...           runs them against Apache Kafka; a few want three brokers of it

Tests of one number share a process, and the processes run a few at a time, because the suite spends most
of its time waiting. Logs are kept in target/test-logs/librdkafka/."""

import csv
import json
import os
import random
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import AGAINST_KAFKA
from servers import KAFKA_LIBS, REPOSITORY, ApacheKafka, Odradek, compile_java, java

SUITE = Path(os.environ.get("LIBRDKAFKA", REPOSITORY / ".tools/librdkafka"))
RUNNER = SUITE / "tests/test-runner"
LOGS = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "test-logs/librdkafka"
LIST = Path(__file__).with_name("librdkafka.tsv")
SLOW_TOO = os.environ.get("LIBRDKAFKA_SLOW") == "1"
PROTOCOLS = ["classic", "consumer"]
AT_A_TIME = 8
TIME_LIMIT = 300  # seconds for a process; a bound for tests that hang, not an expectation
WAIT_LONGER = 2  # factor on the suite's own time limits: the machine has other things to do

# What the suite expects of a broker. The delay is long enough for members that a test starts together.
BROKER_CONFIGS = {"num.partitions": "4", "group.initial.rebalance.delay.ms": "1000"}


# the list ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One process of the suite: the tests of a number, with a protocol and settings."""

    number: str
    protocol: str
    settings: tuple

    @property
    def name(self):
        return "-".join([self.number, self.protocol, *map(short, self.settings)])

    @property
    def environment(self):
        return dict(setting.split("=", 1) for setting in self.settings if "=" in setting)

    @property
    def creates_topics(self):
        """Whether this run expects its broker to create topics by itself."""
        return self.environment.get("TEST_SCENARIO") != "noautocreate"


def short(setting):
    return re.sub(r"\W+", "-", setting.split("=")[-1].removeprefix("do_test_"))


@dataclass(frozen=True)
class Entry:
    """A line of the list, for one protocol."""

    test: str
    protocol: str
    expected: str
    how: tuple
    why: str

    @property
    def run(self):
        settings = tuple(setting for setting in self.how if setting != "slow")
        return Run(self.test.split("_")[0], self.protocol, settings)

    @property
    def is_run(self):
        return self.expected in ("pass", "fail") and (SLOW_TOO or "slow" not in self.how)


def rows():
    with LIST.open(newline="") as file:
        lines = (line for line in file if not line.startswith("#"))
        return list(csv.DictReader(lines, delimiter="\t", restval=""))


def entries():
    return [
        Entry(row["test"], protocol, row[protocol], tuple(filter(None, row["how"].split("; "))), row["why"])
        for row in rows()
        for protocol in PROTOCOLS
    ]


def parameters():
    for entry in entries():
        if entry.is_run:
            fails = entry.expected == "fail" and not AGAINST_KAFKA
            marks = [pytest.mark.xfail(strict=True, reason=entry.why)] if fails else []
            name = "-".join([entry.test, entry.protocol, *map(short, entry.run.settings)])
            yield pytest.param(entry, id=name, marks=marks)


# running -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def broker_for(tmp_path_factory):
    """The broker of a run. The protocols have brokers of their own, because some tests look for topics
    by patterns that fit what they create with the other protocol."""
    brokers = {}

    def start(run):
        configs = BROKER_CONFIGS | {"auto.create.topics.enable": "true" if run.creates_topics else "false"}
        directory = tmp_path_factory.mktemp("broker")
        broker = KafkaWith(configs, directory) if AGAINST_KAFKA else Odradek(directory)
        broker.log = LOGS / f"{directory.name}.log"
        broker.log.unlink(missing_ok=True)
        broker.start()
        if not AGAINST_KAFKA:
            alter_configs(broker.bootstrap, configs)
        return broker

    def get(run):
        key = run.protocol, run.creates_topics
        if key not in brokers:
            brokers[key] = start(run)
        return brokers[key]

    yield get
    for broker in brokers.values():
        broker.kill()


class KafkaWith(ApacheKafka):
    def __init__(self, configs, directory):
        super().__init__(directory)
        self.configs = configs

    def properties(self):
        path = super().properties()
        with path.open("a") as file:
            file.writelines(f"\n{name}={value}\n" for name, value in self.configs.items())
        return path


def alter_configs(bootstrap, configs):
    """Sets configs of all brokers: what is set on the one there is, is replaced by a test."""
    added = ",".join(f"{name}={value}" for name, value in configs.items())
    arguments = ["--entity-type", "brokers", "--entity-default", "--alter", "--add-config", added]
    command = java("kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap, *arguments)
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="session")
def kafka_path(tmp_path_factory):
    """A folder with those of Kafka's scripts that tests call, as a Kafka release has them."""
    scripts = tmp_path_factory.mktemp("kafka") / "bin"
    scripts.mkdir()
    command = " ".join(f"'{word}'" for word in java("org.apache.kafka.tools.TopicCommand"))
    write_script(scripts / "kafka-topics.sh", f'exec {command} "$@"')
    # Some tests produce with a Java program of the suite.
    programs = tmp_path_factory.mktemp("programs")
    sources = sorted((SUITE / "tests/java").glob("*.java"))
    compile_java(sources, programs)
    write_script(scripts / "kafka-run-class.sh", f"exec java -cp '{programs}:{KAFKA_LIBS}/*' \"$@\"")
    return scripts.parent


def write_script(path, line):
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.fixture(scope="session")
def reports(request, broker_for, kafka_path):
    """For each run of the selected tests a future of its report. All start here."""
    items = [item for item in request.session.items if hasattr(item, "callspec")]
    runs = dict.fromkeys(item.callspec.params["entry"].run for item in items)
    LOGS.mkdir(parents=True, exist_ok=True)
    source = LOGS / "src"  # a test reads ../src/statistics_schema.json
    source.unlink(missing_ok=True)
    source.symlink_to(SUITE / "src")
    brokers = {run: broker_for(run) for run in runs}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        # Backwards, because the long ones are towards the end.
        yield {
            run: pool.submit(carry_out, run, brokers[run].bootstrap, kafka_path) for run in reversed(runs)
        }
        pool.shutdown(cancel_futures=True)


@dataclass
class Report:
    """What a run said of its tests."""

    ending: str  # of the process: empty if it ended well
    states: dict  # test: PASSED, FAILED, SKIPPED
    log: Path

    def text(self):
        return re.sub(r"\x1b\[\d*m", "", self.log.read_text(errors="replace"))

    def tail(self, lines=60):
        return f"the end of {self.log}:\n" + "\n".join(self.text().splitlines()[-lines:])


def carry_out(run, bootstrap, kafka_path):
    directory = LOGS / run.name
    directory.mkdir(exist_ok=True)
    conf, report, log = directory / "test.conf", directory / "report.json", directory / "log"
    report.unlink(missing_ok=True)
    programs = directory / "java"  # the suite calls programs from there, and does not build what is there
    programs.unlink(missing_ok=True)
    programs.symlink_to(SUITE / "tests/java")
    conf.write_text(
        f"bootstrap.servers={bootstrap}\n"
        f"test.topic.prefix={run.number}-{run.protocol}\n"
        f"test.timeout.multiplier={WAIT_LONGER}\n"
    )
    environment = suite_environment(TESTS=run.number, TEST_REPORT=report, RDKAFKA_TEST_CONF=conf) | {
        "TEST_CONSUMER_GROUP_PROTOCOL": run.protocol,
        "TEST_KAFKA_VERSION": "4.1.0",
        # The names of groups and topics are drawn from it; two processes must not draw the same.
        "TEST_SEED": str(random.SystemRandom().getrandbits(31)),
        "KAFKA_PATH": str(kafka_path),
        "BROKERS": bootstrap,
    }
    command = [RUNNER, "-p1", "-L", *(["-Q"] if "quick" in run.settings else [])]
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command,
                env=environment | run.environment,
                cwd=directory,
                stdout=output,
                stderr=output,
                timeout=TIME_LIMIT,
            )
            ending = f"the process ended with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            ending = f"killed after {TIME_LIMIT} s"
    return Report(ending, states(report), log)


def suite_environment(**settings):
    added = {"LD_LIBRARY_PATH": f"{SUITE}/src:{SUITE}/src-cpp"} | settings
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}  # it changes tests
    return inherited | {name: str(value) for name, value in added.items()}


def states(report):
    """What a report of the suite says of each test; nothing if the process did not live to write it."""
    try:
        tests = json.loads(report.read_text())["tests"]
    except (OSError, ValueError):
        return {}
    return {test: about["state"] for test, about in tests.items() if test != "<MAIN>"}


# the tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", parameters())
def test_librdkafka(reports, broker_for, kafka_path, entry):
    report = reports[entry.run].result()
    broker = broker_for(entry.run)
    broker.check_alive()
    if entry.expected == "pass" and problem_of(report, entry):
        # Some tests race with their own client now and then; what is the broker's fails twice.
        print(f"once more: {problem_of(report, entry)}")
        report = carry_out(entry.run, broker.bootstrap, kafka_path)
    if problem := problem_of(report, entry):
        pytest.fail(problem, pytrace=False)


def problem_of(report, entry):
    """What is wrong with the report on a test; empty if it passed."""
    state = report.states.get(entry.test, "no report")
    if state != "PASSED":
        return f"{state}; {report.ending}; {report.tail()}"
    if report.ending and "FAILED" not in report.states.values():
        return f"{report.ending} when the tests had passed; {report.tail()}"
    part = entry.run.environment.get("SUBTESTS", "")
    if part and not re.search(rf"\[ .*{re.escape(part)}.*: PASS \(", report.text()):
        return f"nothing was run; {report.tail()}"
    return ""


def test_the_list_names_every_test_of_the_suite(tmp_path):
    report = tmp_path / "report.json"
    environment = suite_environment(TESTS="none", TEST_REPORT=report, RDKAFKA_TEST_CONF="none.conf")
    subprocess.run([RUNNER], env=environment, cwd=tmp_path, check=True, capture_output=True)
    listed = dict.fromkeys(row["test"] for row in rows())
    assert list(listed) == list(states(report))


def test_the_list_says_why():
    for entry in entries():
        assert entry.expected in ("pass", "fail", "n/a", "-"), entry
        assert entry.why or (entry.expected in ("pass", "-") and "slow" not in entry.how), entry
