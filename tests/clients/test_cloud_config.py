"""Settings that can't work: the broker ends, not with 0, and the last it says is a sentence from which an
operator knows what to do. What may get better by itself (a store that does not answer) is waited for."""

import contextlib
import http.server
import itertools
import subprocess
import threading
import time

import pytest

from cloud import CloudBroker, Stores, aws_environment, log, store, until
from conftest import AGAINST_KAFKA
from servers import BROKER_BIN, free_port

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="the settings are Odradek's own")

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    stores = Stores(tmp_path_factory.mktemp("stores"))
    yield stores.start()
    stores.kill()


@pytest.fixture
def name():
    """A name for a bucket and a table that nobody has used."""
    return f"mine-{next(numbers)}"


@pytest.fixture
def start(tmp_path):
    """Starts brokers that are expected to serve; killed at the end."""
    started = []

    def start(place, *flags, **options):
        started.append(CloudBroker(tmp_path / f"broker-{len(started)}", place, *flags, **options))
        return started[-1].start()

    yield start
    for broker in started:
        broker.kill()


def refusal(store, log, *flags, environment=None):
    """The sentence with which a broker ends that is started like this."""
    command = [BROKER_BIN, "--listen", f"127.0.0.1:{free_port()}", "--store", store, "--log", log, *flags]
    try:
        environment = environment or aws_environment()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired as still_runs:
        raise AssertionError(f"it goes on with: {still_runs.stdout}{still_runs.stderr}") from None
    assert done.returncode not in (0, -6, -11, 101), f"ended with {done.returncode}:\n{done.stderr}"
    assert "panicked" not in done.stderr
    assert "is ready" not in done.stdout
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("odradek: "), f"the last line is no sentence of ours: {sentence}"
    print(sentence)
    return sentence


def assert_says(sentence, *words):
    missing = [word for word in words if word.lower() not in sentence.lower()]
    assert not missing, f"{missing} not in: {sentence}"


# --- locations that make no sense ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("gopher://bucket/prefix", ["gopher", "s3://"]),
        ("s3://bucket/prefix?regoin=eu-central-1", ["regoin", "region"]),
        ("s3://bucket/prefix?create=perhaps", ["create", "perhaps", "true"]),
        ("s3://?region=eu-central-1", ["bucket"]),
        ("dynamodb://table?region=eu-central-1", ["dynamodb", "s3://"]),
    ],
)
def test_a_store_that_makes_no_sense_is_refused(store, words):
    assert_says(refusal(store, "memory:"), *words)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("gopher://table", ["gopher", "dynamodb://"]),
        ("dynamodb://table?regoin=eu-central-1", ["regoin", "region"]),
        ("dynamodb://table?create=perhaps", ["create", "perhaps", "true"]),
        ("dynamodb://?region=eu-central-1", ["table"]),
        ("s3://bucket/prefix", ["s3", "dynamodb://"]),
    ],
)
def test_a_log_that_makes_no_sense_is_refused(log, words):
    assert_says(refusal("memory:", log), *words)


# --- what is not there, or not what it should be -------------------------------------------------------


def test_a_missing_bucket_is_named_and_how_to_create_it(stores, name):
    sentence = refusal(store(name, stores.s3, create="false"), log(name, stores.dynamodb))
    assert_says(sentence, name, "bucket", "create=true")


def test_a_missing_table_is_named_and_how_to_create_it(stores, name):
    sentence = refusal(store(name, stores.s3), log(name, stores.dynamodb, create="false"))
    assert_says(sentence, name, "table", "create=true")


@pytest.mark.parametrize("keys", [{"id": "S"}, {"slot": "N"}, {"slot": "S", "part": "S"}])
def test_a_table_with_another_key_is_named_and_the_key_it_needs(stores, name, keys):
    stores.dynamodb.create_table(name, **keys)
    sentence = refusal(store(name, stores.s3), log(name, stores.dynamodb))
    assert_says(sentence, name, "slot", "string")


def test_what_was_made_by_hand_is_used(stores, name, start):
    stores.s3.create_bucket(name)
    stores.dynamodb.create_table(name, slot="S")
    broker = start((store(name, stores.s3, create="false"), log(name, stores.dynamodb, create="false")))
    assert broker.stop() == 0


# --- who may not ---------------------------------------------------------------------------------------


def test_a_wrong_secret_is_said(stores, name):
    wrong = aws_environment(AWS_SECRET_ACCESS_KEY="something-else")
    sentence = refusal(store(name, stores.s3), log(name, stores.dynamodb), environment=wrong)
    assert_says(sentence, name, "credentials")


def test_missing_credentials_are_said(stores, name):
    none = aws_environment()
    del none["AWS_ACCESS_KEY_ID"], none["AWS_SECRET_ACCESS_KEY"]
    sentence = refusal(store(name, stores.s3), log(name, stores.dynamodb), environment=none)
    assert_says(sentence, "credentials", "AWS_ACCESS_KEY_ID")


def test_a_wrong_region_is_said(stores, name):
    stores.s3.create_bucket(name)
    sentence = refusal(store(name, stores.s3, region="us-west-2"), log(name, stores.dynamodb))
    assert_says(sentence, name, "region", "?region=")


def test_a_missing_region_is_said():
    nowhere = aws_environment()
    del nowhere["AWS_REGION"]
    assert_says(refusal("s3://bucket/prefix", "memory:", environment=nowhere), "region")
    assert_says(refusal("memory:", "dynamodb://table", environment=nowhere), "region")


class Refuser(http.server.BaseHTTPRequestHandler):
    """Answers everything with the same refusal; for those that the servers here can't be made to give."""

    protocol_version = "HTTP/1.1"

    def date_time_string(self, timestamp=None):
        """What the header Date says."""
        return super().date_time_string((timestamp or time.time()) + self.server.ahead)

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.server.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815: the names it looks for

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def refuser(status, kind, body, ahead=0):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuser)
    server.status, server.kind, server.body = status, kind, body.encode()
    server.ahead = ahead  # seconds by which its clock is ahead of ours
    server.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def s3_refusal(code):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>No.</Message></Error>"
    return refuser(403, "application/xml", body)


def dynamodb_refusal(code):
    body = f'{{"__type":"com.amazon.coral.service#{code}","message":"User: me is not authorized to do this"}}'
    return refuser(400, "application/x-amz-json-1.0", body)


def test_a_bucket_that_may_not_be_used_is_said(stores, name):
    with s3_refusal("AccessDenied") as s3:
        sentence = refusal(store(name, s3), log(name, stores.dynamodb))
    assert_says(sentence, name, "allow")


def test_a_table_that_may_not_be_used_is_said(stores, name):
    with dynamodb_refusal("AccessDeniedException") as dynamodb:
        sentence = refusal(store(name, stores.s3), log(name, dynamodb))
    assert_says(sentence, name, "allow")


def test_a_clock_that_s3_does_not_accept_is_said(stores, name):
    with s3_refusal("RequestTimeTooSkewed") as s3:
        sentence = refusal(store(name, s3), log(name, stores.dynamodb))
    assert_says(sentence, name, "clock")


@pytest.mark.parametrize("ahead", [-600, 600])
def test_a_clock_that_is_off_by_minutes_is_said(stores, name, ahead):
    empty = "<?xml version='1.0'?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
    with refuser(200, "application/xml", empty, ahead) as s3:
        sentence = refusal(store(name, s3), log(name, stores.dynamodb))
    assert_says(sentence, name, "clock")


# --- clusters that get in each other's way -------------------------------------------------------------


def test_two_logs_can_not_share_a_prefix(stores, name, start):
    start((store(name, stores.s3), log(name, stores.dynamodb)))
    sentence = refusal(store(name, stores.s3), log(f"{name}-other", stores.dynamodb))
    assert_says(sentence, "another cluster", "prefix")


def test_two_clusters_of_one_table_can_not_share_a_prefix(stores, name, start):
    start((store(name, stores.s3), log(name, stores.dynamodb)))
    sentence = refusal(store(name, stores.s3), log(name, stores.dynamodb), "--cluster", "other")
    assert_says(sentence, "another cluster", "prefix")


@pytest.mark.parametrize("is_running", [True, False])
def test_a_log_whose_records_are_elsewhere_is_refused(stores, name, start, is_running):
    broker = start((store(name, stores.s3), log(name, stores.dynamodb)))
    if not is_running:
        assert broker.stop() == 0
    elsewhere = store(name, stores.s3, prefix="elsewhere")
    sentence = refusal(elsewhere, log(name, stores.dynamodb))
    assert_says(sentence, name, "elsewhere")
    # The refused broker has left nothing that keeps the right ones from starting.
    start((store(name, stores.s3), log(name, stores.dynamodb)))
    assert not [key for key in stores.s3.objects(name) if key.startswith("elsewhere")]


def test_clusters_share_a_bucket_under_two_prefixes_and_a_table_under_two_names(stores, name, start):
    first = start((store(name, stores.s3, prefix="first"), log(name, stores.dynamodb)), "--cluster", "first")
    second = start((store(name, stores.s3, prefix="second"), log(name, stores.dynamodb)), "--cluster", "second")
    assert first.commit("group", "nothing", 0, 1) == 3, "there is no such topic"
    assert second.commit("group", "nothing", 0, 1) == 3, "there is no such topic"
    assert first.stop() == 0
    assert second.stop() == 0
    assert {key.split("/")[0] for key in stores.s3.objects(name)} == {"first", "second"}


# --- what may get better by itself ---------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["s3", "dynamodb"])
def test_an_endpoint_that_does_not_answer_is_waited_for_until_sigterm(stores, name, tmp_path, missing):
    nobody = f"127.0.0.1:{free_port()}"
    places = {
        "s3": (store(name, stores.s3, endpoint=f"http://{nobody}"), log(name, stores.dynamodb)),
        "dynamodb": (store(name, stores.s3), log(name, stores.dynamodb, endpoint=f"http://{nobody}")),
    }
    broker = CloudBroker(tmp_path, places[missing])
    broker.launch()
    try:
        until(lambda: broker.said().count(nobody) >= 2, lambda: f"it names {nobody}:\n{broker.log_tail()}")
        assert not broker.is_ready()
        assert broker.stop() == 0
    finally:
        broker.kill()
