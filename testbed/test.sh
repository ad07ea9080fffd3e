#!/usr/bin/env bash
# Everything in short form: `make test`, which is what CI runs. Installs what it needs on Debian (as root), runs the
# suites one after the other, and ends with a line per suite and "N passed, N failed". Names as arguments run only those.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
logs=testbed/out/test
mkdir -p "$logs"
GOFLAGS="$(go env GOFLAGS) -tags=goolm"
export GOFLAGS

# need COMMAND PACKAGE...: installs the packages if the command is missing.
need() {
	local command=$1
	shift
	command -v "$command" >/dev/null && return
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
		echo "$command is missing, and only root can install $*" >&2
		return 1
	}
	[ -e "$logs/apt-updated" ] || { apt-get update -q && touch "$logs/apt-updated"; } || return
	DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "$@"
}

prepare_go() { need git git && need gcc gcc libc6-dev; }
prepare_node() { need node nodejs && need npm npm; }
prepare_npm() { prepare_node && node -e 'import("./testbed/process/cache.mjs").then((cache) => cache.npmPackages())'; }
prepare_browsers() {
	prepare_npm && need chromium chromium && need firefox-esr firefox-esr && need ip iproute2 && need nft nftables && need unshare util-linux && need openssl openssl
}
prepare_homeservers() { prepare_npm && need python3 python3; } # the rest the suite installs itself

suite_build() { CGO_ENABLED=0 go build ./...; }
suite_lint() { prepare_node && make -s lint; }
# The second run is for what the race detector distorts: allocations of the hot path.
suite_go() { prepare_go && CGO_ENABLED=1 go test -race -short -timeout 15m ./... && CGO_ENABLED=0 go test -short -timeout 5m ./sfu/... ./turn/path; }
suite_fuzz() { FUZZTIME=${FUZZTIME:-2s} testbed/fuzz.sh; }
suite_web() {
	prepare_node && make -s web && git diff --exit-code --stat -- web/dist ||
		{ echo "web: a check failed, or web/dist is not what the sources build (make web, commit)"; return 1; }
}
suite_page() { prepare_browsers && node --test-reporter=spec testbed/page/test.mjs; }
suite_homeservers() {
	prepare_homeservers && node --test-reporter=spec testbed/homeservers/test.mjs &&
		node --test --test-concurrency=2 --test-reporter=spec testbed/homeservers/{connection,membership,bot,sealed,mediakeys,setup,hosted}.mjs
}
suite_elementcall() {
	prepare_browsers && prepare_homeservers && node --test-reporter=spec testbed/elementcall/test.mjs &&
		node --test-reporter=spec testbed/elementcall/exits.mjs
}
# Each of the two homeservers has its part here, and both have all of it in make long PART=legacy.
suite_legacy() {
	echo "two older clients, the bridge and unencrypted rooms for two at Dendrite, rooms for two at Synapse; all at both: make long PART=legacy"
	prepare_browsers && prepare_homeservers && HOMESERVER=dendrite node --test-reporter=spec testbed/legacy/test.mjs &&
		HOMESERVER=dendrite node --test-reporter=spec testbed/legacy/bridge.mjs &&
		HOMESERVER=synapse node --test-reporter=spec testbed/legacy/dm.mjs &&
		HOMESERVER=dendrite ROOM=unencrypted node --test-reporter=spec testbed/legacy/dm.mjs
}
suite_legs() { prepare_homeservers && SHORT=1 HOMESERVER=${HOMESERVER:-dendrite} node testbed/legs/main.mjs; } # a hundred: make long PART=legs
suite_federation() { prepare_browsers && prepare_homeservers && node --test-reporter=spec testbed/federation/test.mjs; }
suite_ghosts() { prepare_browsers && prepare_homeservers && node --test-reporter=spec testbed/ghosts/test.mjs; }
suite_reach() { prepare_browsers && need nsenter util-linux && node testbed/reach/run.mjs; }
# Of coturn it takes the clients only; the other homeserver has its turn in make long PART=turn.
suite_turn() {
	prepare_browsers && prepare_homeservers && need turnutils_uclient coturn && node testbed/turn/run.mjs &&
		HOMESERVER=${HOMESERVER:-dendrite} node --test-reporter=spec testbed/turn/homeservers.mjs
}
suite_acme() { prepare_go && CALLSERVER_TEST_PEBBLE=$(testbed/acme/pebble.sh) go test -count 1 -run Pebble ./edge/acme ./cmd/callserver; }
suite_networks() { prepare_node && node --test-reporter=spec testbed/networks/figures.test.mjs; } # measuring takes make long PART=networks
suite_framecrypto() { prepare_npm && node --test --test-reporter=spec testbed/framecrypto/test.mjs; }
suite_clients() { prepare_browsers && node testbed/clients/run.mjs; }

all=(build lint go fuzz acme web page homeservers elementcall legacy legs federation ghosts clients networks reach turn framecrypto)
[ $# -gt 0 ] || set -- "${all[@]}"
rm -f "$logs/apt-updated"

passed=0 summary= failed=()
for name; do
	declare -F "suite_$name" >/dev/null || { echo "no suite $name; there are: ${all[*]}" >&2; exit 2; }
	echo "=== $name"
	start=$SECONDS
	log=$root/$logs/$name.log
	# A suite that hangs is a suite that fails.
	if timeout --kill-after=30 1200 bash -c "$(declare -f); logs=$logs; suite_$name" >"$log" 2>&1; then
		passed=$((passed + 1)) verdict=ok
	else
		failed+=("$name") verdict=FAILED
		tail -60 "$log"
	fi
	summary+=$(printf '%-8s %-12s %4d s  %s' "$verdict" "$name" $((SECONDS - start)) "$logs/$name.log")$'\n'
done
printf '\n%s' "$summary"
echo "$passed passed, ${#failed[@]} failed"
echo "${failed[*]}" >"$logs/failed"
[ ${#failed[@]} -eq 0 ]
