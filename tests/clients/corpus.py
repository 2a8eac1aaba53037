"""A million lines of real text: the Rust sources of the crates named in Cargo.lock, which cargo has
downloaded to build the broker. In a fixed order, so that every machine gets the same lines. Empty lines
are left out, because kcat does not send them."""

import json
import subprocess
from pathlib import Path

from servers import REPOSITORY

LINES = 1_200_000


def build(path):
    """Writes the corpus to `path` and returns its lines (bytes, without line ends)."""
    lines = []
    for directory in crate_directories():
        for source in sorted(directory.rglob("*.rs")):
            lines += [line for line in source.read_bytes().split(b"\n") if line]
            if len(lines) >= LINES:
                del lines[LINES:]
                path.write_bytes(b"\n".join(lines) + b"\n")
                return lines
    raise RuntimeError(f"the crates in Cargo.lock have only {len(lines)} lines of source")


def crate_directories():
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout)
    crates = [package for package in metadata["packages"] if package["source"]]
    crates.sort(key=lambda package: (package["name"], package["version"]))
    return [Path(package["manifest_path"]).parent for package in crates]
