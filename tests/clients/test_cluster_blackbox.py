"""The black box in short: workers of three implementations, three brokers over MinIO and DynamoDB Local,
and faults of all kinds drawn from a seed; then everything is read, and a checker says whether what
everybody was told can be true. blackbox.py is the same for hours.

CHAOS_SECONDS lengthens it, CHAOS_SEED gives it another plan."""

import os
import shutil
import socket
import threading

import pytest

import blackbox_packets
import blackbox_plan
from blackbox import Run
from blackbox_packets import FROM, HOME, RESET, TO, Packets
from blackbox_relay import Relays
from cloud import until
from conftest import AGAINST_KAFKA

SECONDS = float(os.environ.get("CHAOS_SECONDS", 75))
SEED = int(os.environ.get("CHAOS_SEED", 1))
WORKERS = ["librdkafka", "java", "franz", "pipeline"]
OBSTACLE = blackbox_packets.obstacle()


def loses_packets(test):
    """A test for machines that let packets get lost. On others it is skipped and says why; in CI, where a skipped
    test is a failure and the machine is what it is, it is left out."""
    if OBSTACLE and os.environ.get("CI"):
        return None
    return pytest.mark.skipif(OBSTACLE is not None, reason=f"no packets get lost here: {OBSTACLE}")(test)


@pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")
@pytest.mark.skipif(not shutil.which("go"), reason="there is no Go to build the worker with franz-go")
def test_what_everybody_was_told_can_be_true(tmp_path):
    run = Run(tmp_path / "run", SEED, SECONDS, WORKERS, window=25, gap=4, writes_max=256, calm=10)
    assert run.go() == [], f"seed {SEED}: see {tmp_path}"


@loses_packets
@pytest.mark.skipif(AGAINST_KAFKA, reason="these are Odradek's stores")
def test_what_everybody_was_told_can_be_true_where_packets_get_lost(tmp_path):
    kinds = blackbox_plan.PACKETS
    run = Run(tmp_path / "run", 1, 30, WORKERS[:2], window=20, gap=4, only=kinds, writes_max=256, calm=10)
    assert {action.kind for action in run.plan} == set(kinds)
    assert run.go() == [], f"see {tmp_path}"
    assert 0 not in run.packets_met.values(), run.packets_met


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
def connected():
    """What is wrong with packets in a network of its own, the port of a server there, and both ends of a
    connection to it."""
    with blackbox_packets.namespace(), socket.create_server((HOME, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOME, port), timeout=10) as client, server.accept()[0] as accepted:
            yield Packets(), port, client, accepted


@loses_packets
def test_a_network_of_its_own_is_that_of_all_who_begin_in_it_and_of_nobody_else():
    with socket.create_server((HOME, 0)) as outside:
        address = outside.getsockname()
        with blackbox_packets.namespace():
            assert not is_reached(address)
            reached = []
            thread = threading.Thread(target=lambda: reached.append(is_reached(address)))
            thread.start()
            thread.join()
            assert reached == [False]
        assert is_reached(address)


@loses_packets
def test_a_packet_that_is_dropped_arrives_when_it_is_sent_again_later(connected):
    packets, port, client, accepted = connected
    for counter, faults, sender, receiver in [
        (TO, {"to": True}, client, accepted),
        (FROM, {"from_": True}, accepted, client),
    ]:
        packets.set("server", [port], [port + 1], **faults)
        sender.sendall(b"lost")
        until(lambda: packets.counts()[counter], "the packet meets the rule")
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(4)
        packets.set("server", [port], [port + 1])
        receiver.settimeout(30)
        assert receiver.recv(4) == b"lost"


@loses_packets
def test_a_packet_can_be_answered_with_a_reset_of_which_its_receiver_hears_nothing(connected):
    packets, port, client, accepted = connected
    packets.set("asker", [port + 1], [port], reset=1)
    client.sendall(b"refused")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert packets.counts()[RESET] == 1
    accepted.setblocking(False)
    with pytest.raises(BlockingIOError):
        accepted.recv(1)


def is_reached(address):
    try:
        socket.create_connection(address, timeout=10).close()
        return True
    except ConnectionRefusedError:
        return False


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
