"""Suites with the clients people use, unmodified, against a real broker process.

    BROKER_BIN=target/release/odradek pytest tests/clients       # what tests/run does
    SERVER=kafka pytest tests/clients                             # the same suites against Apache Kafka

The second form is how a suite proves that it asks for Kafka's behaviour and not for ours. Most tests
share one broker and take a topic of their own; those that kill it or need other flags start one with
`start_broker`.
"""

import itertools
import os
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from servers import ApacheKafka, Odradek
from tools import Tool, ToolHost

AGAINST_KAFKA = os.environ.get("SERVER", "odradek") == "kafka"
names = itertools.count(1)


@pytest.fixture(scope="session")
def start_broker(tmp_path_factory):
    """Starts a broker, with further flags (for Kafka: `properties`) if given; killed at the end of the session
    if still there."""
    started = []

    def start(*flags, port=None, properties=""):
        directory = tmp_path_factory.mktemp("broker")
        server = ApacheKafka(directory, port, properties) if AGAINST_KAFKA else Odradek(directory, *flags, port=port)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def shared_broker(start_broker):
    return start_broker()


@pytest.fixture
def broker(shared_broker):
    """The broker that most tests share, checked to be alive before and after each."""
    shared_broker.check_alive()
    yield shared_broker
    shared_broker.check_alive()


@pytest.fixture
def bootstrap(broker):
    return broker.bootstrap


@pytest.fixture
def admin(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def new_name(request):
    """Makes topic names that say which test they belong to."""
    about = request.node.originalname.removeprefix("test_").replace("_", "-")[:60]
    return lambda: f"{about}-{next(names)}"


@pytest.fixture
def new_topic(admin, new_name):
    """Creates a topic and returns its name; `_` in a setting's name stands for `.`."""

    def create(partitions=1, **settings):
        name = new_name()
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        create_topic(admin, name, partitions, config)
        return name

    return create


@pytest.fixture
def topic(new_topic):
    return new_topic()


@pytest.fixture(scope="session")
def fill(shared_broker):
    """Produces records "0", "1", ... to partitions, `{partition: how many}`, each `step` ms younger than the last."""

    def run(topic, counts, first_timestamp=None, step=0):
        first_timestamp = first_timestamp or int(time.time() * 1000)
        failed = []

        def delivered(error, _):
            if error:
                failed.append(error)

        settings = {"bootstrap.servers": shared_broker.bootstrap, "message.timeout.ms": 30_000}
        producer = Producer({**settings, "on_delivery": delivered})
        for partition, count in counts.items():
            for n in range(count):
                producer.produce(topic, str(n), partition=partition, timestamp=first_timestamp + n * step)
        assert producer.flush(60) == 0
        assert not failed

    return run


@pytest.fixture(scope="session")
def tool_host(tmp_path_factory):
    host = ToolHost(tmp_path_factory.mktemp("tools") / "host.log")
    yield host
    host.close()


@pytest.fixture(scope="session")
def tool(tool_host, shared_broker):
    """Runs Kafka's command line tools against the shared broker, see `tools`."""
    return Tool(tool_host, shared_broker.bootstrap)


def create_topic(admin, name, partitions=1, config=None, **options):
    admin.create_topics([NewTopic(name, partitions, -1, config=config or {})], **options)[name].result(30)
    # Kafka tells of a new topic a moment before its brokers know it; Odradek must not.
    while AGAINST_KAFKA and not options and name not in admin.list_topics(timeout=30).topics:
        time.sleep(0.02)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the end of the broker's log to the report of a failed test."""
    report = yield
    broker = item.funcargs.get("shared_broker") if hasattr(item, "funcargs") else None
    if report.failed and broker:
        report.sections.append((f"end of {broker.log}", broker.log_tail()))
    return report
