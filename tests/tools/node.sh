#!/usr/bin/env bash
# Installs the clients for Node that we promise to serve into DIR/node_modules, pinned.
# usage: node.sh DIR
# It needs: node, npm (see debian.sh).
set -euo pipefail

dir=$1
packages="kafkajs@2.2.4"

[ "$(cat "$dir/packages" 2>/dev/null)" = "$packages" ] && exit 0
rm -rf "$dir"
mkdir -p "$dir"
# shellcheck disable=SC2086 # one word each
npm install --prefix "$dir" --loglevel error --no-audit --no-fund --no-save --ignore-scripts $packages
echo "$packages" >"$dir/packages"
