#!/usr/bin/env bash
# Copies the jars and native libraries of DynamoDB Local from Maven Central to DIR.
# usage: dynamodb_local.sh DIR
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$(realpath -m "$1")
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

cmp -s "$here/dynamodb_local.xml" "$dir/dynamodb_local.xml" && exit 0
rm -rf "$dir"
mvn -q -B -f "$here/dynamodb_local.xml" "$plugin:copy-dependencies" \
  -DincludeScope=runtime -DoutputDirectory="$dir"
cp "$here/dynamodb_local.xml" "$dir/dynamodb_local.xml"
