"""Kafka's command line tools: the classes behind the scripts of its distribution, and two ways to run
them. `ToolHost` is one JVM for any number of runs, for tools that ask and end; `alone` starts a JVM for
a tool that keeps running, or counts in static fields. `rows` reads the tables they print."""

import itertools
import json
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from servers import java

TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
CLIENT_METRICS = "org.apache.kafka.tools.ClientMetricsCommand"
GET_OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
DELETE_RECORDS = "org.apache.kafka.tools.DeleteRecordsCommand"
LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
CLUSTER = "org.apache.kafka.tools.ClusterTool"
API_VERSIONS = "org.apache.kafka.tools.BrokerApiVersionsCommand"
FEATURES = "org.apache.kafka.tools.FeatureCommand"
METADATA_QUORUM = "org.apache.kafka.tools.MetadataQuorumCommand"
LEADER_ELECTION = "org.apache.kafka.tools.LeaderElectionCommand"
REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
ACLS = "org.apache.kafka.tools.AclCommand"
CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
GROUPS = "org.apache.kafka.tools.GroupsCommand"
STREAMS_RESET = "org.apache.kafka.tools.StreamsResetter"
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
VERIFIABLE_PRODUCER = "org.apache.kafka.tools.VerifiableProducer"
VERIFIABLE_CONSUMER = "org.apache.kafka.tools.VerifiableConsumer"
CONSUMER_PERFORMANCE = "org.apache.kafka.tools.ConsumerPerformance"
END_TO_END_LATENCY = "org.apache.kafka.tools.EndToEndLatency"

TIMEOUT = 120  # seconds; a bound for what hangs, not an expectation


@dataclass
class Run:
    """How a tool ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def printed(self):
        return self.out + self.err


class ToolHost:
    def __init__(self, log):
        self.log = log
        self.process = None

    def run(self, main_class, *arguments, stdin=""):
        if self.process is None or self.process.poll() is not None:
            self.start()
        request = {"main": main_class, "arguments": [str(each) for each in arguments], "stdin": stdin}
        watch = threading.Timer(TIMEOUT, self.process.kill)
        watch.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        finally:
            watch.cancel()
        assert answer, f"the JVM ended, or {TIMEOUT} s were not enough, in {request}; see {self.log}"
        return Run(**json.loads(answer))

    def start(self):
        source = Path(__file__).with_name("ToolHost.java")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                java(source), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def close(self):
        if self.process:
            self.process.kill()
            self.process.communicate()


def alone(main_class, *arguments, stdin=""):
    """Runs a tool to its end in a JVM of its own."""
    done = subprocess.run(java(main_class, *arguments), input=stdin, capture_output=True, text=True, timeout=TIMEOUT)
    return Run(done.returncode, done.stdout, done.stderr)


class Tool:
    """Runs tools in a host against one broker."""

    def __init__(self, host, bootstrap):
        self.host = host
        self.bootstrap = bootstrap

    def run(self, main_class, *arguments, stdin=""):
        """However it ends. Subcommands want the broker's address behind their name: then the caller gives it."""
        if "--bootstrap-server" not in arguments:
            arguments = ("--bootstrap-server", self.bootstrap, *arguments)
        return self.host.run(main_class, *arguments, stdin=stdin)

    def __call__(self, main_class, *arguments, stdin="", fails_with=None):
        """Returns its standard output, having seen it succeed; or fail, saying `fails_with`."""
        done = self.run(main_class, *arguments, stdin=stdin)
        if fails_with is None:
            assert done.code == 0, done.printed
        else:
            assert done.code != 0, done.printed
            assert fails_with in done.printed
        return done.out


def rows(printed):
    """The rows of the tables in what a tool printed, as dicts by the headings."""
    heading, found = None, []
    for line in printed.splitlines():
        fields = line.replace("COORDINATOR (ID)", "COORDINATOR NODE").split()
        if not fields:
            heading = None
        elif heading is None:
            heading = fields
        else:
            assert len(fields) <= len(heading), line
            found.append(dict(itertools.zip_longest(heading, fields, fillvalue="")))
    return found


def eventually(question, answer, timeout=60):
    """Asks until the answer is the expected one."""
    deadline = time.monotonic() + timeout
    while (given := question()) != answer and time.monotonic() < deadline:
        time.sleep(0.1)
    assert given == answer, f"after {timeout} s still {given}, not {answer}"
