#!/usr/bin/env bash
# Sees to it that commands are there, from Debian's packages: kcat (with librdkafka 2.0.2, the oldest
# client we test with), java and mvn for Kafka's own tools and DynamoDB Local, python3, venv for Python's
# clients, node and npm for kafkajs, valgrind to count instructions, nft and ip to lose packets, and what
# librdkafka is built with: cc, make, npm, and the headers of openssl, zlib, zstd and rapidjson.
# usage: debian.sh COMMAND...
# Exit code 3: something is missing and can't be installed here; standard output says why.
set -euo pipefail

declare -A package_of=([kcat]=kcat [java]=openjdk-17-jre-headless [mvn]=maven [valgrind]=valgrind
  [python3]=python3 [venv]=python3-venv [cc]=build-essential [make]=build-essential [npm]=npm [node]=nodejs
  [nft]=nftables [ip]=iproute2
  [openssl]=libssl-dev [zlib]=zlib1g-dev [zstd]=libzstd-dev [rapidjson]=rapidjson-dev)

there() {
  case $1 in
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    cc) command -v gcc >/dev/null && command -v g++ >/dev/null ;;
    openssl) [ -e /usr/include/openssl/ssl.h ] ;;
    zlib) [ -e /usr/include/zlib.h ] ;;
    zstd) [ -e /usr/include/zstd.h ] ;;
    rapidjson) [ -e /usr/include/rapidjson/document.h ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for name in "$@"; do
  there "$name" || missing+=("${package_of[$name]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "not installed, and no apt-get to install it: ${missing[*]}"
  exit 3
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "not installed, and no root to install it: ${missing[*]}"
    exit 3
  fi
  sudo=(sudo -n)
fi
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
