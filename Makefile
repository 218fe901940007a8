# Everything that is built, checked or tried here goes through this file; CI
# calls the same targets. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VERSION ?= 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# sudo drops /usr/local/go/bin from the path on most distributions.
export PATH := $(CURDIR)/.tools/bin:$(PATH):/usr/local/go/bin
# A clone that belongs to another user than the one who builds (sudo make up)
# makes git refuse to answer, and with it the build; the commit is passed below.
export GOFLAGS := $(filter-out -buildvcs=%,$(GOFLAGS)) -buildvcs=false

GO      := go
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# The agent's programs are static: they start on every distribution and kernel.
AGENT_BUILD  := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
# The portal embeds DuckDB, which is native code.
PORTAL_BUILD := CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: setup-system setup-browser setup-tools ## install what building, testing and linting need (repeatable)

.PHONY: setup-system
setup-system:
	@.ci/setup-system .ci/packages-test

.PHONY: setup-browser
setup-browser:
	@.ci/setup-browser

.PHONY: setup-tools
setup-tools:
	@.ci/setup-tools

.PHONY: build
build: build-agent build-portal ## build bulwark, bulwarkd, bulwark-guard (static), bulwark-portal and bulwark-fleetsim into bin/

.PHONY: build-agent
build-agent:
	@mkdir -p bin
	$(AGENT_BUILD) -o bin/ ./cmd/bulwark ./cmd/bulwarkd ./cmd/bulwark-guard

.PHONY: build-portal
build-portal:
	@mkdir -p bin
	$(PORTAL_BUILD) -o bin/ ./cmd/bulwark-portal
	$(AGENT_BUILD) -o bin/ ./cmd/bulwark-fleetsim

.PHONY: fmt
fmt: setup-tools ## format all Go files
	@git ls-files -co --exclude-standard '*.go' | xargs gofumpt -w

.PHONY: lint
lint: setup-tools ## run the linters of .golangci.yml
	golangci-lint run --timeout 15m ./...

.PHONY: generate
generate: setup-system setup-tools ## regenerate protocol code, the REST client and eBPF objects
	$(GO) generate ./...

.PHONY: test
test: ## the whole test suite; as root it covers the kernel interfaces too
	@.ci/test

.PHONY: test-vm
test-vm: setup-system setup-tools build-portal ## test file systems and the package in a virtual machine (root; part of `make test`)
	$(GO) test -tags vm -count=1 -timeout 70m ./test/vm/ $(VM_FLAGS)

.PHONY: test-install
test-install: setup-system build ## test the installation by every package manager and tool that is here (root; part of `make test`)
	$(GO) test -tags install -count=1 -parallel 4 -timeout 60m ./test/install/ $(INSTALL_FLAGS)

.PHONY: fuzz-short
fuzz-short: ## run every fuzz target for FUZZTIME (default 10s)
	@.ci/fuzz $(or $(FUZZTIME),10s)

.PHONY: bench
bench: ## run the Go benchmarks and print the resident memory and sizes of the programs
	@bench/run.sh

.PHONY: bench-engine
bench-engine: ## compare the scan engine with clamscan, clamdscan and yara (minutes)
	$(GO) run ./bench/engine $(BENCH_FLAGS)
	@$(MAKE) --no-print-directory bench-matcher

.PHONY: bench-matcher
bench-matcher: ## compare the matcher alone with Hyperscan, where libhyperscan-dev is installed (MATCHER_FLAGS="-rounds 3")
	@if pkg-config --exists libhs 2>/dev/null; then \
		CGO_ENABLED=1 $(GO) run -tags hyperscan ./bench/hyperscan $(MATCHER_FLAGS); \
	else \
		$(GO) run ./bench/hyperscan $(MATCHER_FLAGS); \
	fi

.PHONY: bench-hunting
bench-hunting: ## compare queries in KQL with SQL written by hand, on EVENTS events (default 1000000)
	$(GO) run ./bench/hunting -events $(or $(EVENTS),1000000)

.PHONY: bench-fleet
bench-fleet: build-portal ## measure a portal with AGENTS simulated agents (default 10000): enrolling, running, coming back after a restart (minutes)
	$(GO) run ./bench/fleet -agents $(or $(AGENTS),10000) $(BENCH_FLAGS)

.PHONY: bench-pages
bench-pages: build-portal ## measure the portal's pages with AGENTS devices (default 10000) and EVENTS events (default 10000000) (minutes)
	$(GO) run ./bench/pages -agents $(or $(AGENTS),10000) -events $(or $(EVENTS),10000000) $(BENCH_FLAGS)

.PHONY: bench-onaccess
bench-onaccess: ## measure real-time protection beside the kernel's limits and its peers (root; a quarter of an hour; SIZE=1)
	@bench/onaccess/run.sh

.PHONY: bench-idle
bench-idle: build ## measure what the agent costs when nothing happens: processor, wakeups, memory (root; two minutes)
	$(GO) run ./bench/idle -programs bin $(BENCH_FLAGS)

.PHONY: bench-sensor
bench-sensor: build-agent ## measure what seeing costs and loses, beside auditd and LAUREL, each load for LOAD_SECONDS (default 25: 12 minutes in all; root)
	@.ci/setup-system .ci/packages-bench
	$(GO) run ./bench/sensor -seconds $(or $(LOAD_SECONDS),25) $(BENCH_FLAGS)

.PHONY: soak
soak: build-agent ## run the daemon under load for SOAK (default 1h): flat memory and descriptors, nothing missed (root)
	$(GO) run ./bench/soak -duration $(or $(SOAK),1h) -program bin/bulwarkd

.PHONY: faults
faults: build ## kill, stop and overload the agent's processes at random for FAULTS (default 10m) per test (root)
	BULWARK_FAULTS=$(or $(FAULTS),10m) $(GO) test -count=1 -v -timeout 0 -run 'LoadAndFaults|RandomModel' ./agent/onaccess
	BULWARK_FAULTS=$(or $(FAULTS),10m) $(GO) test -tags system -count=1 -v -timeout 0 -run RandomFaults ./test/system

.PHONY: package
package: ## build the deb and rpm packages into dist/
	@VERSION=$(VERSION) COMMIT=$(COMMIT) packaging/build.sh

.PHONY: package-verify
package-verify: ## install, upgrade, remove and purge the packages in a fresh Debian tree (root)
	@.ci/setup-system .ci/packages-package
	@packaging/verify.sh

.PHONY: up
up: ## protect this host and start a portal on loopback (root)
	@VERSION=$(VERSION) packaging/demo/up.sh

.PHONY: down
down: ## stop and remove what `make up` installed (root)
	@packaging/demo/down.sh
