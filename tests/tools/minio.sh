#!/usr/bin/env bash
# Builds MinIO, the S3 server of the cluster suites, as DIR/minio. It is one that checks the condition
# of a conditional put under a lock. The version is the newest that Go's module proxy has.
# usage: minio.sh DIR
# Exit code 3: there is no Go to build it with; standard output says so.
set -euo pipefail

dir=$(realpath -m "$1")
version=v0.0.0-20260212201848-7aac2a2c5b7c
stamp=$dir/minio.version

[ -x "$dir/minio" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ] && exit 0
if ! command -v go >/dev/null; then
  echo "not installed: go, to build MinIO"
  exit 3
fi
mkdir -p "$dir"
GOBIN=$dir CGO_ENABLED=0 go install -ldflags "-s -w" "github.com/minio/minio@$version"
echo "$version" >"$stamp"
