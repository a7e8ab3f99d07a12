# Open-AutoGLM. The two commands: make run, make test. Everything they need beyond Go,
# gcc, g++ and make they get themselves.
.DEFAULT_GOAL := help
.PHONY: help build run test check race test-all vet layers bench chaos soak fuzz clean

GO_SOURCES := $(shell find cmd actors cluster persistence node -name '*.go' -not -path 'cmd/glm-worker/*') go.mod go.sum
JOBS ?= 2

include cmd/glm-worker/build.mk
-include tools/tools.mk

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: bin/autoglm bin/glm-worker ## bin/autoglm and bin/glm-worker; the first build takes minutes

bin/autoglm: $(GO_SOURCES) $(wildcard cmd/autoglm/demo/*.jsonl) cmd/glm-worker/model/tinyglm.gguf
	@echo "autoglm: building; the first time compiles its dependencies, about a minute"
	@mkdir -p bin
	@go build -p $(JOBS) -ldflags '-s -w' -o $@ ./cmd/autoglm

run: build ## build, start a node, run the shipped tasks through the model, show how it did
	@bin/autoglm demo --out results.jsonl

test: check ## the whole test suite

check: build bin/llm-d-inference-sim ## format, vet, layers, tests, race tests
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted: run gofmt -w on"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	@echo "vet"; $(GLM_ENV) go vet -p $(JOBS) ./...
	@echo "test: glm-worker"; $(GLM_ENV) go test -p $(JOBS) ./cmd/glm-worker/...
	@echo "test: all other packages, with the race detector"; go test -race -p $(JOBS) -timeout 20m $(PURE)
	@echo "passed: every package"

# Everything without C++ in it; the race detector would compile llama.cpp once more.
PURE = $(shell go list ./... | grep -v /cmd/glm-worker) $(GLM_PURE)
