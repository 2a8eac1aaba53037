#!/usr/bin/env bash
# Copies the jars of Apache Kafka's command line tools and broker from Maven Central to DIR.
# usage: kafka.sh DIR
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$1
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

cmp -s "$here/kafka.xml" "$dir/kafka.xml" && exit 0
rm -rf "$dir"
mvn -q -B -f "$here/kafka.xml" "$plugin:copy-dependencies" \
  -DincludeScope=runtime -DoutputDirectory="$dir"
cp "$here/kafka.xml" "$dir/kafka.xml"
