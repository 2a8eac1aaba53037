#!/usr/bin/env bash
# Installs what the suites need from Debian: kcat (librdkafka 2.0.2, the oldest client we test with),
# Java and Maven for Kafka's own tools, Python's venv. Does nothing when all is there already.
# Exit code 3: something is missing and this machine does not let us install it.
set -euo pipefail

# command:package
needs=(kcat:kcat java:openjdk-17-jre-headless mvn:maven python3:python3-venv cc:gcc make:make)

missing=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null && sudo="sudo -n" || { echo "needs root to install: ${missing[*]}" >&2; exit 3; }
fi
command -v apt-get >/dev/null || { echo "no apt-get to install: ${missing[*]}" >&2; exit 3; }

export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
