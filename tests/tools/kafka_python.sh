#!/usr/bin/env bash
# Unpacks the source of kafka-python, for the integration tests in it, to DIR. It is the release that
# requirements.txt names. What the archive leaves out of its tests is added: they start no server here.
# usage: kafka_python.sh PYTHON DIR
# PYTHON is the virtual environment of python.sh.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
python=$1
dir=$2
version=$(sed -n 's/^kafka-python\[.*\]==\([0-9.]*\).*/\1/p' "$here/requirements.txt")

[ "$(cat "$dir/version" 2>/dev/null)" = "$version" ] && exit 0
rm -rf "$dir"
mkdir -p "$dir"
"$python/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary kafka-python \
  --dest "$dir" "kafka-python==$version"
tar -xzf "$dir/kafka_python-$version.tar.gz" -C "$dir" --strip-components=1 "kafka_python-$version/test"
rm "$dir/kafka_python-$version.tar.gz"

# Python has a package `test` of its own; this makes it a package that comes first.
touch "$dir/test/__init__.py"
cat >"$dir/test/service.py" <<'EOF'
class ExternalService:
    """A broker that somebody else has started."""

    def __init__(self, host, port):
        self.host, self.port = host, port


class SpawnedService:
    def __init__(self, *_):
        raise RuntimeError("no test here starts a broker")
EOF
echo "$version" >"$dir/version"
