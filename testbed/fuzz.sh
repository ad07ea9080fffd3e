#!/usr/bin/env bash
# Runs every fuzz target of the module, found by name, for FUZZTIME (default 10s) each. Prints one line per target.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-10s}
found=0 failed=0

# fuzz PACKAGE TARGET: one target. Inputs that cover something new are hardly shortened, or that takes all the time.
# The fuzzer sometimes reports the end of its own time as a failure: nothing but "context deadline exceeded" and no
# input that fails. A target that hangs or crashes is reported with its input.
fuzz() {
	local status=0
	out=$(go test -tags goolm -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel 2 "$1" 2>&1) || status=$?
	[ $status = 0 ] || { grep -q '^ *context deadline exceeded$' <<<"$out" && ! grep -qE 'Failing input|hung|panic' <<<"$out"; }
}
while IFS=: read -r file target; do
	found=$((found + 1))
	package=./$(dirname "$file")
	if fuzz "$package" "$target"; then
		echo "ok      $package $target, $(grep -o 'execs: [0-9]*' <<<"$out" | tail -1)"
	else
		failed=$((failed + 1))
		echo "FAILED  $package $target"
		sed 's/^/        /' <<<"$out" | tail -40
	fi
done < <(git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')
echo "$found fuzz targets, $failed failed"
[ "$found" -gt 0 ] && [ "$failed" -eq 0 ]
