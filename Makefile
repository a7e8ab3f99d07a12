# Open-AutoGLM. The two commands: make run, make test. Everything they need beyond Go,
# gcc, g++ and make (and for the tests node, npm and postgresql) they get themselves.
.DEFAULT_GOAL := help
.PHONY: help build run test check npm bench replay recover chaos mutation fuzz clean

GO_SOURCES := $(shell find cmd actors cluster persistence node -name '*.go' -not -path 'cmd/glm-worker/*') go.mod go.sum
JOBS ?= 2
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

include cmd/glm-worker/build.mk
include tools/tools.mk

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: bin/autoglm bin/glm-worker ## bin/autoglm and bin/glm-worker; the first build takes minutes

bin/autoglm: $(GO_SOURCES) $(wildcard cmd/autoglm/demo/*.jsonl) cmd/glm-worker/model/tinyglm.gguf
	@echo "autoglm: building; the first time compiles its dependencies, about a minute"
	@mkdir -p bin
	@go build -p $(JOBS) -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/autoglm

run: build ## build, start a cluster of three nodes, run the shipped tasks through the model, show how it did
	@bin/autoglm demo --nodes 3 --out results.jsonl

test: check ## the whole test suite

check: build bin/outside-engine npm ## format, vet, layers, tests, race tests
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted: run gofmt -w on"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	@echo "vet"; $(GLM_ENV) go vet -p $(JOBS) ./...
	@echo "test: glm-worker"; $(GLM_ENV) go test -p $(JOBS) ./cmd/glm-worker/...
	@echo "test: OpenAI's clients"; $(GLM_ENV) go test -p $(JOBS) -timeout 20m $(OFFICIAL)
	@echo "test: all other packages, with the race detector"; go test -race -p $(JOBS) -timeout 20m $(PURE)

chaos: build ## break a node and a cluster 40 times under load and judge what clients saw; a shorter one is in make test
	@AUTOGLM_CHAOS_ROUNDS=$${AUTOGLM_CHAOS_ROUNDS:-40} AUTOGLM_CHAOS_NET=$${AUTOGLM_CHAOS_NET-auto} AUTOGLM_CHAOS_DISKS=$${AUTOGLM_CHAOS_DISKS-auto} go test -count=1 -v -timeout 60m -run 'TestKillTheNode|TestChaos' ./cmd/autoglm

mutation: build ## take a guard out of the product, break it, and see that the judge of chaos notices; minutes, root
	@AUTOGLM_MUTATION=1 go test -count=1 -v -timeout 30m -run 'TestEpochs|TestSyncs' ./cmd/autoglm/internal/mutant

bench: build ## what it does a second, on this machine; BENCH="--only drain" for one
	@bin/autoglm bench $(BENCH)

replay: ## run whole traces (../shared/data) through the batcher and print what its rules gain; an excerpt is in make test
	@AUTOGLM_REPLAY_ROWS=10000 go test -count=1 -v -timeout 20m -run 'TestReplay' ./actors

recover: ## how long an engine that crashed, was slow or lied takes until it is as busy as before; three of them are in make test
	@AUTOGLM_RECOVER=all go test -count=1 -v -timeout 20m -run 'TestTimeToRecover' ./actors

FUZZ_TIME ?= 60s
fuzz: ## each fuzz test for FUZZ_TIME (60s); their seeds run in make test
	@for pkg in $$(go list ./... | grep -v /glm-worker/llama); do \
		for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ_TIME) $$pkg || exit 1; done; done

# OpenAI's npm client, for its test. Without npm that test says what is missing: a skip on one's own machine, an error in CI.
NPM := cmd/autoglm/internal/openaitest/npm
npm: ## OpenAI's npm client, for its test
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(NPM)/node_modules/.installed; \
		else echo "npm is not installed: OpenAI's npm client will not be tested"; fi

$(NPM)/node_modules/.installed: $(NPM)/package.json $(NPM)/package-lock.json $(NPM)/.npmrc
	@echo "npm: installing what $(NPM)/package-lock.json names"
	@cd $(NPM) && npm ci --silent && touch node_modules/.installed

clean: ## remove what make built or installed; the Go build cache stays
	@rm -rf bin results.jsonl $(NPM)/node_modules

# The tests with OpenAI's Go client, which takes 2.6 GB and some minutes to compile: only once, for vet and test alike, which is why
# they have the same flags, and never for the race detector.
OFFICIAL := ./node/openaitest ./cmd/autoglm/internal/openaitest

# Everything without C++ in it; the race detector would compile llama.cpp once more.
PURE = $(shell go list ./... | grep -v -e /cmd/glm-worker -e '/openaitest$$') $(GLM_PURE)
