#!/usr/bin/env bash
# Builds the packages into dist/: the agent for amd64 and arm64, the portal
# (native code inside) for this machine's architecture.
#
#   VERSION=0.1.0 COMMIT=abc packaging/build.sh [agent|portal] [deb|rpm]
#
# Without arguments: both, each as deb and rpm. ARCHS limits the agent's
# architectures (ARCHS=amd64), DIST is another folder for the packages. FAST=1
# hardly compresses them, for tests.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${VERSION:?set VERSION}"
COMMIT=${COMMIT:-unknown}
host=$(go env GOHOSTARCH)
read -ra products <<<"${1:-agent portal}"
read -ra formats <<<"${2:-deb rpm}"
read -ra archs <<<"${ARCHS:-amd64 arm64}"
ldflags="-s -w -X main.version=$VERSION -X main.commit=$COMMIT"
dist=${DIST:-dist}
out=$dist/build
mkdir -p "$out"
# The time in the packages is the commit's: the same source gives the same bytes.
# It is also what the agent's expiry counts from.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH VERSION
ldflags+=" -X main.built=$SOURCE_DATE_EPOCH"

.ci/setup-tools nfpm

# pack CONFIG ARCH makes the packages of one configuration.
pack() {
	local config=packaging/nfpm/$1.yaml arch=$2 format
	if [[ -n ${FAST:-} ]]; then
		printf 'deb: {compression: zstd}\nrpm: {compression: "gzip:1"}\n' | cat "$config" - >"$out/fast.yaml"
		config=$out/fast.yaml
	fi
	for format in "${formats[@]}"; do
		ARCH=$arch BIN=$out/$arch COMPLETIONS=$out/completions MAN=$out/man SELINUX=$out/selinux \
			.tools/bin/nfpm package --config "$config" --packager "$format" --target "$dist/"
	done
}

# build_selinux compiles the policy modules.
build_selinux() {
	if ! command -v checkmodule >/dev/null || ! command -v semodule_package >/dev/null; then
		echo "package: the agent needs checkmodule and semodule_package (checkpolicy, semodule-utils)" >&2
		exit 1
	fi
	mkdir -p "$out/selinux"
	# The version of the module's format that RHEL 7 reads too.
	checkmodule -M -m -c 17 -o "$out/selinux/bulwark.mod" packaging/selinux/bulwark.te
	semodule_package -o "$out/selinux/bulwark.pp" -m "$out/selinux/bulwark.mod" -f packaging/selinux/bulwark.fc
	checkmodule -M -m -c 17 -o "$out/selinux/bulwark_watch.mod" packaging/selinux/bulwark_watch.te
	semodule_package -o "$out/selinux/bulwark_watch.pp" -m "$out/selinux/bulwark_watch.mod"
}

build_agent() {
	local arch shell
	for arch in "${archs[@]}"; do
		echo "package: agent for $arch"
		CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -ldflags "$ldflags" \
			-o "$out/$arch/" ./cmd/bulwark ./cmd/bulwarkd ./cmd/bulwark-guard
	done
	# Completions and manual pages come out of the program itself, which must run here.
	if [[ ! -x $out/$host/bulwark ]]; then
		CGO_ENABLED=0 go build -trimpath -ldflags "$ldflags" -o "$out/$host/" ./cmd/bulwark
	fi
	mkdir -p "$out/completions"
	for shell in bash zsh fish; do
		"$out/$host/bulwark" completion "$shell" >"$out/completions/bulwark.$shell"
	done
	rm -rf "$out/man"
	"$out/$host/bulwark" man --folder "$out/man"
	gzip -n -9 "$out"/man/*.1
	build_selinux
	for arch in "${archs[@]}"; do
		packaging/sbom.sh bulwark "$VERSION" "$out/$arch"/{bulwark,bulwarkd,bulwark-guard} >"$out/$arch/bulwark.cdx.json"
		pack agent "$arch"
	done
}

build_portal() {
	echo "package: portal for $host"
	CGO_ENABLED=1 go build -trimpath -ldflags "$ldflags" -o "$out/$host/" ./cmd/bulwark-portal
	packaging/sbom.sh bulwark-portal "$VERSION" "$out/$host/bulwark-portal" >"$out/$host/bulwark-portal.cdx.json"
	pack portal "$host"
}

for product in "${products[@]}"; do "build_$product"; done
ls -l "$dist"/*.deb "$dist"/*.rpm 2>/dev/null || true
