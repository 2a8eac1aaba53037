#!/usr/bin/env bash
# Builds docker/compose.yaml, runs its cluster, and sees to it that no line is lost while a broker
# is killed, while the stores vanish, and while everything is taken down and brought up again. Ports
# 9092 to 9094 have to be free. Removes its containers and volumes, and keeps the images.
# usage: docker_check.sh
# Exit code 3: there is no container engine here, or no kcat; standard output says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! docker info >/dev/null 2>&1; then
  echo "no container engine answers"
  exit 3
fi
if ! command -v kcat >/dev/null; then
  echo "not installed: kcat"
  exit 3
fi
if docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
elif command -v docker-compose >/dev/null; then
  compose=(docker-compose)
else
  echo "not installed: docker compose"
  exit 3
fi
compose+=(-p odradek-check -f docker/compose.yaml)

folder=$(mktemp -d)
finish() {
  local code=$?
  if [ "$code" -ne 0 ]; then "${compose[@]}" logs --tail 50 >&2; fi
  "${compose[@]}" down -v --remove-orphans
  rm -rf "$folder"
}
trap finish EXIT

say() { echo "--- $*"; }

# within SECONDS COMMAND...: until it succeeds.
within() {
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$until" ]; then
      echo "not in time: $*" >&2
      return 1
    fi
    sleep 1
  done
}

answers() { kcat -b "127.0.0.1:$1" -L -m 2; }

all_answer() { for port in 9092 9093 9094; do within 120 answers "$port"; done; }

# write_while PORT COMMAND...: a producer writes numbered lines through this broker until COMMAND
# has ended. `last` is the number of the last line.
last=0
write_while() {
  local port=$1 producer
  shift
  numbered_lines "$last" |
    kcat -b "127.0.0.1:$port" -P -t lines -X enable.idempotence=true -X message.timeout.ms=60000 &
  producer=$!
  "$@"
  touch "$folder/enough"
  wait "$producer"
  last=$(<"$folder/last")
  rm "$folder/enough"
}

numbered_lines() {
  local n=$1
  until [ -e "$folder/enough" ]; do
    seq -f 'line %.0f' $((n + 1)) $((n += 100))
    sleep 0.1
  done
  echo "$n" >"$folder/last"
}

# hold PORT...: through each of these brokers each line is read, once.
hold() {
  local port
  for port in "$@"; do
    kcat -b "127.0.0.1:$port" -C -t lines -o beginning -e -q | sort -k2n >"$folder/read"
    seq -f 'line %.0f' 1 "$last" | cmp - "$folder/read"
  done
}

# forgotten PORT: no broker is there for clients any more.
forgotten() { ! answers 9092 | grep -q "at 127.0.0.1:$1"; }

kill_second() {
  "${compose[@]}" kill -s KILL odradek2
  within 120 forgotten 9093
}

say "build and start"
"${compose[@]}" up --build -d
all_answer

say "nobody is root"
[ "$("${compose[@]}" exec -T odradek1 id -u)" -ne 0 ]
[ "$("${compose[@]}" exec -T s3 id -u)" -ne 0 ]

say "written through one broker, read through each"
write_while 9092 all_answer
hold 9092 9093 9094

say "a broker is killed while a producer writes"
write_while 9093 kill_second
hold 9092 9094
"${compose[@]}" start odradek2
within 120 answers 9093
hold 9093

say "the stores vanish and return while a producer writes"
write_while 9094 "${compose[@]}" restart s3 dynamodb
hold 9092 9093 9094

say "everything is taken down and brought up again"
"${compose[@]}" down
"${compose[@]}" up -d
all_answer
hold 9092 9093 9094

say "each broker stops with 0"
"${compose[@]}" stop odradek1 odradek2 odradek3
for broker in odradek1 odradek2 odradek3; do
  [ "$(docker inspect -f '{{.State.ExitCode}}' "$("${compose[@]}" ps -aq "$broker")")" -eq 0 ]
done
echo "1 passed in ${SECONDS}.0s"
