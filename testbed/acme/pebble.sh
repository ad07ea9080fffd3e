#!/usr/bin/env bash
# Builds Pebble, Let's Encrypt's certificate authority for tests, from its module, and prints where the program is. Go's cache makes it quick.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p ../../.cache/testbed/bin
target=$(cd ../../.cache/testbed/bin && pwd)/pebble
GOFLAGS= CGO_ENABLED=0 go build -buildvcs=false -o "$target" github.com/letsencrypt/pebble/v2/cmd/pebble
echo "$target"
