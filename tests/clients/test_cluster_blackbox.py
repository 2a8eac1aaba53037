"""The black box in short: workers of three implementations, three brokers over MinIO and DynamoDB Local,
and faults of all kinds drawn from a seed; then everything is read, and a checker says whether what
everybody was told can be true. blackbox.py is the same for hours.

CHAOS_SECONDS lengthens it, CHAOS_SEED gives it another plan."""

import os
import shutil
import socket
import threading

import pytest

import blackbox_plan
from blackbox import Run
from blackbox_relay import Relays
from conftest import AGAINST_KAFKA

SECONDS = float(os.environ.get("CHAOS_SECONDS", 75))
SEED = int(os.environ.get("CHAOS_SEED", 1))
WORKERS = ["librdkafka", "java", "franz", "pipeline"]


@pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")
@pytest.mark.skipif(not shutil.which("go"), reason="there is no Go to build the worker with franz-go")
def test_what_everybody_was_told_can_be_true(tmp_path):
    run = Run(tmp_path / "run", SEED, SECONDS, WORKERS, window=25, gap=4, writes_max=256, calm=10)
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


@pytest.fixture
def relayed():
    """Relays, one of them, and both ends of a connection through it."""
    relays = Relays()
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = relays.relay(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(10)
                yield relays, relay, client, accepted
    relays.close()


@pytest.mark.parametrize("faults", [{}, {"slice": 1}, {"delay_ms": 5}], ids=["nothing", "slices", "delay"])
def test_a_relay_passes_all_bytes_in_order_both_ways(relayed, faults):
    relays, relay, client, server = relayed
    relays.set(relay, **faults)
    sent = bytes(range(256))
    for one, other in [(client, server), (server, client)]:
        one.sendall(sent)
        assert b"".join(other.recv(1) for _ in sent) == sent


def test_a_relay_that_holds_one_way_passes_the_other_and_delivers_later(relayed):
    relays, relay, client, server = relayed
    relays.set(relay, hold_to=True)
    client.sendall(b"later")
    server.sendall(b"now")
    assert client.recv(3) == b"now"
    arrived = []
    reader = threading.Thread(target=lambda: arrived.append(server.recv(5)))
    reader.start()
    assert not arrived
    relays.set(relay)
    reader.join(10)
    assert arrived == [b"later"]


def test_a_relay_that_is_cut_ends_connections_and_takes_none(relayed):
    relays, relay, client, _ = relayed
    relays.set(relay, cut=True)
    assert is_ended(client)
    with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as late:
        assert is_ended(late)


def is_ended(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
