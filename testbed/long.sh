#!/usr/bin/env bash
# One suite in long form: make long PART=NAME. For nights and for hunting a rare failure.
set -euo pipefail
cd "$(dirname "$0")/.."
GOFLAGS="$(go env GOFLAGS) -tags=goolm"
export GOFLAGS
case ${1:-} in
race) CGO_ENABLED=1 go test -race -count 10 -timeout 2h ./... ;;
fuzz) FUZZTIME=${FUZZTIME:-10m} testbed/fuzz.sh ;;
clients) for i in 1 2 3 4 5; do node testbed/clients/run.mjs; done ;;
reach) for i in 1 2 3; do node testbed/reach/run.mjs; done ;;
turn) LONG=1 node testbed/turn/run.mjs && node --test-reporter=spec testbed/turn/homeservers.mjs ;;
homeservers) for i in 1 2 3 4 5; do node --test-reporter=spec testbed/homeservers/test.mjs; done ;;
legs) node testbed/legs/main.mjs ;; # HOMESERVER as below
legacy) # HOMESERVER as below
	export LONG=1
	node --test-reporter=spec testbed/legacy/test.mjs && node --test-reporter=spec testbed/legacy/bridge.mjs && node --test-reporter=spec testbed/legacy/dm.mjs
	;;
ghosts) node testbed/ghosts/main.mjs ;; # HOMESERVER=synapse|dendrite: one of the two
outage) OUTAGE=${OUTAGE:-600} node testbed/ghosts/main.mjs ;;
networks) # SCENARIO=NAME for one (node testbed/networks/main.mjs --list), SERVER=callserver|livekit for one of both, TABLE=1 for the short runs of the tables
	node testbed/networks/main.mjs ${SCENARIO:+--scenario "$SCENARIO"} --server "${SERVER:-both}" ${TABLE:+--table}
	;;
churn) go run ./testbed/churn ${ARGS:-} ;; # ARGS="-scale 0.1 -only kill": a part of it
demo) for server in dendrite synapse; do HOMESERVER=$server CHECK=1 node testbed/demo/main.mjs; done ;;
federation)
	LONG=1 node --test-reporter=spec testbed/elementcall/exits.mjs
	node --test-reporter=spec testbed/federation/test.mjs dendrite+dendrite synapse+dendrite dendrite+synapse synapse+synapse
	;;
*)
	echo "make long PART=race|fuzz|clients|reach|turn|homeservers|demo|federation|legacy|legs|ghosts|outage|networks|churn" >&2
	exit 2
	;;
esac
