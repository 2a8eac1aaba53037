#!/usr/bin/env bash
# Copies the jars of Kafka Connect and Kafka Streams from Maven Central to DIR.
# usage: ecosystem.sh DIR
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$1
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

cmp -s "$here/ecosystem.xml" "$dir/ecosystem.xml" && exit 0
rm -rf "$dir"
mvn -q -B -f "$here/ecosystem.xml" "$plugin:copy-dependencies" \
  -DincludeScope=runtime -DoutputDirectory="$dir"
cp "$here/ecosystem.xml" "$dir/ecosystem.xml"
