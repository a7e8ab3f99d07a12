# How glm-worker is compiled. The top Makefile includes this file; it works alone too: make -f cmd/glm-worker/build.mk
#
# The C++ compiler runs on llama.cpp only once per set of flags: Go's build cache keeps the objects (52 MB). So build and
# test must use the same flags, and they do as long as both run with $(GLM_ENV).

# What this machine's processor can run. GLM_MARCH=x86-64 builds for any; a v3 build on an older processor says so.
# LZCNT is left out of v3: some hypervisors hide it (abm) on processors that have all the rest, no kernel gains by it, and
# without it such a machine would get SSE2.
GLM_CPU_FLAGS := $(shell grep -m1 '^flags' /proc/cpuinfo 2>/dev/null)
GLM_NEEDS     := avx avx2 fma bmi1 bmi2 f16c movbe
GLM_MARCH     ?= $(if $(filter $(words $(GLM_NEEDS)),$(words $(filter $(GLM_NEEDS),$(GLM_CPU_FLAGS)))),x86-64-v3,x86-64)

# C++ of two jobs at a time: each takes up to 700 MB.
GLM_JOBS ?= 2

# $(call glm-env,LEVEL): the whole environment of a build or test of cmd/glm-worker/...
# Plain go build gives SSE2 only, 5 to 10 times slower; the flags must go through the environment, because #cgo lines
# here do not reach the packages of another module. -trimpath is part of the cache key, so it is in both.
#
# llama.cpp has matrix kernels (f16, q8_0) that are used for two columns and more but not for one: with them the scores of
# an answer change in the fourth digit with who shares its batch, and an answer takes 35 to 40 % less processor time (5.5
# against 3.5 ms for one of the shipped model). GLM_EXACT=1 builds without them: then scores are equal to the last bit
# whoever shares the batch, and llama.TestScoresDoNotDependOnTheBatch holds them to that.
GLM_EXACT ?=
glm-flags = -O3 -march=$(1)$(if $(filter x86-64-v3,$(1)), -mno-lzcnt)$(if $(GLM_EXACT), -UGGML_USE_LLAMAFILE)
glm-env = GLM_EXACT=$(GLM_EXACT) CGO_ENABLED=1 CGO_CFLAGS="$(glm-flags)" CGO_CXXFLAGS="$(glm-flags)" GOFLAGS="$(strip $(GOFLAGS) -trimpath)"
GLM_ENV = $(call glm-env,$(GLM_MARCH))

# Everything a rebuild depends on; go build itself decides what is stale, so this is only to skip calling it.
GLM_SOURCES := $(shell find cmd/glm-worker -name '*.go' -o -name '*.[ch]') go.mod go.sum

bin/glm-worker: $(GLM_SOURCES) cmd/glm-worker/build.mk
	@echo "glm-worker: building for $(GLM_MARCH); llama.cpp takes about 3 minutes the first time, then it is cached"
	@mkdir -p bin
	@$(GLM_ENV) go build -p $(GLM_JOBS) -ldflags '-s -w' -o $@ ./cmd/glm-worker

# Both levels as single static files, for machines without libstdc++ or of unknown age. The linker warns about dlopen:
# that is for plug-ins of ggml, which the worker never loads.
.PHONY: glm-release glm-test glm-race
glm-release: bin/glm-worker-v3 bin/glm-worker-v1

bin/glm-worker-v3: GLM_LEVEL = x86-64-v3
bin/glm-worker-v1: GLM_LEVEL = x86-64
bin/glm-worker-v3 bin/glm-worker-v1: $(GLM_SOURCES) cmd/glm-worker/build.mk
	@echo "$(@F): building a static file for $(GLM_LEVEL); llama.cpp takes about 3 minutes the first time"
	@mkdir -p bin
	@$(call glm-env,$(GLM_LEVEL)) go build -p $(GLM_JOBS) -ldflags '-s -w -linkmode external -extldflags "-static"' \
		-tags netgo,osusergo -o $@ ./cmd/glm-worker

# The packages with no C++ in them, which the race detector may compile again; the others it would cost minutes.
GLM_PURE := ./cmd/glm-worker/chat ./cmd/glm-worker/engine ./cmd/glm-worker/gguf ./cmd/glm-worker/grammar \
	./cmd/glm-worker/openai ./cmd/glm-worker/sample

glm-test:
	@$(GLM_ENV) go test -p $(GLM_JOBS) ./cmd/glm-worker/...

glm-race:
	@go test -race -p $(GLM_JOBS) $(GLM_PURE)
