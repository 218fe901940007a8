#!/bin/sh
# Generates the Go code of the agent protocol from agent.proto. Needs protoc
# (package protobuf-compiler); the plugins are installed at the versions that
# the committed code was made with.
set -eu
cd "$(dirname "$0")/.."
bin=$(go env GOPATH)/bin
[ -x "$bin/protoc-gen-go" ] && [ "$("$bin/protoc-gen-go" --version)" = "protoc-gen-go v1.36.12" ] ||
	go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
[ -x "$bin/protoc-gen-connect-go" ] && [ "$("$bin/protoc-gen-connect-go" --version)" = "1.21.1" ] ||
	go install connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
PATH="$bin:$PATH" protoc \
	--go_out=. --go_opt=paths=source_relative \
	--connect-go_out=. --connect-go_opt=paths=source_relative \
	api/agent/v1/agent.proto
