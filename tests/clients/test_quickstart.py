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

BOOTSTRAP = "127.0.0.1:9092"
BUILD_TIMEOUT = 1800  # seconds; the first run builds the release binary

pytestmark = pytest.mark.skipif(AGAINST_KAFKA, reason="only Odradek has a README to follow")


def commands():
    """The commands of the README's section "Run it", in order: its indented lines."""
    section = (REPOSITORY / "README.md").read_text().split("## Run it\n")[1].split("\n## ")[0]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


@pytest.fixture
def first_run(tmp_path):
    """Starts the broker as the README says, in an empty folder; returns the process."""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 9092)) != 0, "something else listens on port 9092"
    started = []

    def start():
        command = [*shlex.split(commands()[0]), "--manifest-path", REPOSITORY / "Cargo.toml"]
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


def test_the_readme_holds_its_word(first_run, tmp_path):
    run, produce, consume = commands()
    assert run == "cargo run --release"
    broker = first_run()
    subprocess.run(produce, shell=True, check=True, cwd=tmp_path, timeout=60)
    assert hello(consume, tmp_path)
    assert (tmp_path / "odradek-data").is_dir()

    os.kill(broker.pid, signal.SIGINT)  # Ctrl-C
    assert broker.wait(timeout=30) == 0, (tmp_path / "stderr").read_text()

    first_run()
    assert hello(consume, tmp_path)


def hello(consume, directory):
    done = subprocess.run(consume, shell=True, check=True, cwd=directory, timeout=60, capture_output=True)
    return done.stdout == b"hello\n"
