#!/usr/bin/env bash
# Makes the virtual environment of the client suites at DIR, with the pinned clients in it.
# usage: python.sh DIR
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$1
stamp=$dir/requirements.txt

cmp -s "$here/requirements.txt" "$stamp" && exit 0
rm -rf "$dir"
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
cp "$here/requirements.txt" "$stamp"
