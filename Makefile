# callserver. `make` alone lists the targets. Every go command carries -tags goolm: mautrix's crypto needs it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build run demo test long check hooks lint fuzz bench bench-compare bench-turn web

export GOFLAGS := $(filter-out -tags=goolm,$(shell go env GOFLAGS)) -tags=goolm
BIN := .cache/bin

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

build: ## build ./callserver, a static binary
	CGO_ENABLED=0 go build -trimpath -o callserver ./cmd/callserver

run: ## run the server for development (ARGS="--config FILE")
	CGO_ENABLED=0 go run ./cmd/callserver $(ARGS)

demo: ## alice, bob and carol in Element Call, with a homeserver of their own (HOMESERVER=dendrite|synapse, CHECK=1 tests it)
	node testbed/demo/main.mjs

test: ## everything in short form, as .ci/run does (SUITE="go web" for some); installs what it needs
	testbed/test.sh $(SUITE)

long: ## one suite in long form (PART=race|fuzz|clients|reach|turn|homeservers|demo|federation|legacy|legs|ghosts|outage|networks|churn)
	testbed/long.sh $(PART)

check: lint ## before a commit: format, vet, lint, import map, tests under the race detector
	CGO_ENABLED=1 go test -race -short ./...

hooks: ## run the fast part of check before each commit
	git config core.hooksPath .ci/hooks

lint: $(BIN)/golangci-lint ## gofmt, go vet, golangci-lint and the syntax of the testbed's scripts
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	$(BIN)/golangci-lint run ./...
	@for file in $$(git ls-files 'testbed/*.mjs'); do node --check $$file || exit 1; done

fuzz: ## every fuzz target for FUZZTIME (10s)
	testbed/fuzz.sh

bench: $(BIN)/benchstat ## benchmarks, six times each, into bench.txt (PKG=./sfu/..., OLD=FILE compares)
	go test -run '^$$' -bench . -benchmem -count 6 $(or $(PKG),./...) | tee bench.txt
	$(BIN)/benchstat $(OLD) bench.txt

bench-compare: ## the same load on callserver and livekit-server in turn, ratios of the medians (CASE=a|b|c|d|all, ROUNDS=3, ARGS="...", OFFLOAD=off, KNEE=1, OVERLOAD=callserver=N,livekit=N)
	CGO_ENABLED=0 go run ./testbed/bench -case $(or $(CASE),b) -rounds $(or $(ROUNDS),3) -args "$(ARGS)" -offload $(or $(OFFLOAD),on) $(if $(ONLY),-only $(ONLY)) $(if $(KNEE),-knee) $(if $(OVERLOAD),-overload $(OVERLOAD))

bench-turn: ## the same load on callserver's relay and coturn (Debian's package) in turn (CASE=all|peer|sfu|memory, ROUNDS=5, ARGS="...")
	CGO_ENABLED=0 go build -trimpath -o .cache/bench/turnbench ./testbed/turnbench
	.cache/bench/turnbench -case $(or $(CASE),all) -rounds $(or $(ROUNDS),5) $(ARGS)

web: ## check, test and build the page into web/dist
	cd web && npm ci --no-audit --no-fund && npm run check && npm test && npm run build

$(BIN)/%: tools/go.mod tools/go.sum
	cd tools && go build -o ../$(BIN)/ $$(go list -f '{{.ImportPath}}' tool | grep '/$*$$')
