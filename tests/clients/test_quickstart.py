"""The first minutes of a new user: the first command of the README in a folder with nothing in it, kcat
against the address it prints, Ctrl-C, and the data still there next time."""

import os
import shlex
import signal
import socket
import subprocess
import time

import pytest

import wire
from conftest import AGAINST_KAFKA
from servers import REPOSITORY
from test_kcat import kcat, read_all

BOOTSTRAP = "127.0.0.1:9092"
BUILD_TIMEOUT = 1800  # seconds; the first run builds the release binary

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="only Odradek has a README to follow")


def first_command():
    """The first line of the first code block in the README."""
    block = (REPOSITORY / "README.md").read_text().split("```")[1]
    return next(line for line in block.splitlines()[1:] if line and not line.startswith("#"))


@pytest.fixture
def first_run(tmp_path):
    """Starts the broker as the README says, in an empty folder; returns the process."""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 9092)) != 0, "something else listens on port 9092"
    started = []

    def start():
        command = [*shlex.split(first_command()), "--manifest-path", REPOSITORY / "Cargo.toml"]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=(tmp_path / "stderr").open("ab"))
        started.append(process)
        deadline = time.monotonic() + BUILD_TIMEOUT
        while True:
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline, (tmp_path / "stderr").read_text()
            try:
                wire.api_versions(BOOTSTRAP, timeout=2)
                return process
            except OSError:
                time.sleep(0.1)

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_first_command_gives_a_broker_that_keeps_what_it_gets(first_run, tmp_path):
    assert first_command() == "cargo run --release"
    broker = first_run()
    kcat(BOOTSTRAP, "-P", "-t", "greetings", stdin=b"hello\n")
    assert read_all(BOOTSTRAP, "greetings") == b"hello\n"
    assert (tmp_path / "odradek-data").is_dir()

    os.kill(broker.pid, signal.SIGINT)  # Ctrl-C
    assert broker.wait(timeout=30) == 0, (tmp_path / "stderr").read_text()

    first_run()
    assert read_all(BOOTSTRAP, "greetings") == b"hello\n"
