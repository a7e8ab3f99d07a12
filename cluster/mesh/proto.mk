# Makes internal/wire/letter.pb.go anew: make -f cluster/mesh/proto.mk proto. Needs protoc 3.21 (Debian: protobuf-compiler).
# The result is committed, so neither a build nor CI runs this.
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12

.PHONY: proto
proto:
	@tmp=$$(mktemp -d) && GOBIN=$$tmp go install $(PROTOC_GEN_GO) && \
		protoc --plugin=$$tmp/protoc-gen-go --go_out=. --go_opt=paths=source_relative cluster/mesh/internal/wire/letter.proto; \
		rc=$$?; rm -rf $$tmp; exit $$rc
