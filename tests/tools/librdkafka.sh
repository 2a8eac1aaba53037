#!/usr/bin/env bash
# Builds librdkafka and its own test suite as DIR/tests/test-runner. The source comes with a package of
# npm's registry. Left out is what our broker has no use for: Kerberos, fetching tokens over HTTP.
# usage: librdkafka.sh DIR
# It needs: cc, make, npm, openssl, zlib, zstd, rapidjson (see debian.sh).
set -euo pipefail

dir=$(realpath -m "$1")
package=@confluentinc/kafka-javascript@1.10.1 # librdkafka 2.15.1 inside
stamp=$dir/package.version

[ -x "$dir/tests/test-runner" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$package" ] && exit 0
rm -rf "$dir"
mkdir -p "$dir"
tarball=$(npm pack --loglevel error --ignore-scripts --pack-destination "$dir" "$package" | tail -n 1)
tar -xzf "$dir/$tarball" -C "$dir" --strip-components=3 package/deps/librdkafka
rm "$dir/$tarball"

cd "$dir"
bash ./configure --no-download --disable-debug-symbols --disable-gssapi --disable-curl \
  --disable-lz4-ext --disable-syslog
make -s -j"$(nproc)" libs
make -s -j"$(nproc)" -C tests build
echo "$package" >"$stamp"
