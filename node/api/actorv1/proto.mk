# Makes node/api/actorv1/*.go anew: make -f node/api/actorv1/proto.mk proto. Needs protoc 3.21 (Debian: protobuf-compiler).
# The result is committed, so neither a build nor CI runs this.
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_CONNECT := connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1

.PHONY: proto
proto:
	@tmp=$$(mktemp -d) && GOBIN=$$tmp go install $(PROTOC_GEN_GO) && GOBIN=$$tmp go install $(PROTOC_GEN_CONNECT) && \
		protoc --plugin=$$tmp/protoc-gen-go --plugin=$$tmp/protoc-gen-connect-go --go_out=. --go_opt=paths=source_relative \
			--connect-go_out=. --connect-go_opt=paths=source_relative,package_suffix=connect node/api/actorv1/actor.proto; \
		rc=$$?; rm -rf $$tmp; exit $$rc
