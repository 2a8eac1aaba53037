"""The flags of the binary, and where it keeps its data."""

import subprocess

import pytest

import wire
from conftest import AGAINST_KAFKA
from servers import BROKER_BIN, free_port
from test_kcat import kcat, read_all

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="the command line is Odradek's own")


def test_help_names_every_flag():
    text = subprocess.run([BROKER_BIN, "--help"], check=True, capture_output=True, text=True).stdout
    for flag in ("--listen", "--data", "--advertise", "--store", "--log"):
        assert flag in text


def test_an_unknown_flag_is_refused():
    done = subprocess.run([BROKER_BIN, "--lissten", "127.0.0.1:0"], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "--lissten" in done.stderr


def test_a_taken_port_is_an_error_that_names_it(start_broker, tmp_path):
    server = start_broker()
    command = [BROKER_BIN, "--listen", server.bootstrap, "--data", tmp_path / "data"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert server.bootstrap in done.stdout + done.stderr
    server.check_alive()


def test_a_disk_cache_that_can_not_be_one_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    places = ["--store", "memory:", "--log", "memory:", "--disk-cache", tmp_path / "file" / "cache"]
    command = [BROKER_BIN, "--listen", "127.0.0.1:0", *places]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert f"disk cache {tmp_path}/file/cache: " in done.stderr


def test_clients_are_led_to_the_advertised_address(start_broker):
    port = free_port()
    server = start_broker("--advertise", f"localhost:{port}", port=port)
    assert f"at localhost:{port}" in kcat(server.bootstrap, "-L").decode()
    kcat(server.bootstrap, "-P", "-t", "there", stdin=b"and back\n")
    assert read_all(server.bootstrap, "there") == b"and back\n"
    server.kill()


def test_store_and_log_may_lie_apart(start_broker, tmp_path):
    store, log = tmp_path / "objects", tmp_path / "order"
    server = start_broker("--store", f"file:{store}", "--log", f"file:{log}")
    kcat(server.bootstrap, "-P", "-t", "apart", stdin=b"together\n")
    server.kill()
    assert any(store.iterdir())
    assert any(log.iterdir())
    server.start()
    assert read_all(server.bootstrap, "apart") == b"together\n"
    server.kill()


def test_sigterm_ends_the_broker_in_order_and_loses_nothing(start_broker):
    server = start_broker()
    kcat(server.bootstrap, "-P", "-t", "kept", stdin=b"one\ntwo\n")
    assert server.stop() == 0
    server.start()
    assert read_all(server.bootstrap, "kept") == b"one\ntwo\n"
    server.kill()


def test_every_advertised_version_range_is_one_that_old_clients_look_for(start_broker):
    # librdkafka before 2.11 switches features on by single versions inside the ranges; Produce from 0
    # is what makes it compress.
    server = start_broker()
    offered = wire.api_versions(server.bootstrap)
    for key, version in {0: 0, 1: 4, 2: 1, 3: 4, 18: 3, 22: 0}.items():
        low, high = offered[key]
        assert low <= version <= high, f"api {key} is offered from {low} to {high}"
    assert (offered[0][0], offered[0][1] >= 7, offered[1][1] >= 10) == (0, True, True)
    server.kill()
