# Programs for tests that are not part of the product, in a Go module of their own. The top Makefile includes this file.

# An engine with Ollama's OpenAI API, for actors/infer. llm-d-inference-sim v0.3.0 would be the better one, but the module
# proxy does not serve it; with a binary of it at hand, `make simulator-test SIMULATOR=PATH`.
bin/outside-engine: tools/outside-engine/main.go tools/go.mod tools/go.sum
	@echo "outside-engine: building, about a minute the first time"
	@mkdir -p bin
	@go -C tools build -p $(or $(JOBS),2) -o ../$@ ./outside-engine

# The simulator listens on every address, so it gets a network with nothing but loopback.
.PHONY: simulator-test
simulator-test: ## test the HTTP engine against llm-d-inference-sim; needs SIMULATOR=PATH and unshare
	@test -x "$(SIMULATOR)" || { echo "simulator-test: name a binary of llm-d-inference-sim v0.3.0: SIMULATOR=PATH"; exit 1; }
	@mkdir -p bin && go test -tags simulator -c -o bin/infer-simulator.test ./actors/infer
	@AUTOGLM_SIMULATOR="$(abspath $(SIMULATOR))" unshare -n sh -c 'ip link set lo up && bin/infer-simulator.test -test.run Simulator -test.v'
