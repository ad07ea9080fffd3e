#!/usr/bin/env bash
# Runs every fuzz target of the module, found by name, for FUZZTIME (default 10s) each. Prints one line per target.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-10s}
found=0 failed=0
while IFS=: read -r file target; do
	found=$((found + 1))
	package=./$(dirname "$file")
	if out=$(go test -tags goolm -run '^$' -fuzz "^$target\$" -fuzztime "$time" -parallel 2 "$package" 2>&1); then
		echo "ok      $package $target, $(grep -o 'execs: [0-9]*' <<<"$out" | tail -1)"
	else
		failed=$((failed + 1))
		echo "FAILED  $package $target"
		sed 's/^/        /' <<<"$out" | tail -40
	fi
done < <(git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')
echo "$found fuzz targets, $failed failed"
[ "$found" -gt 0 ] && [ "$failed" -eq 0 ]
