#!/usr/bin/env bash
# Writes the bill of materials of Go programs (CycloneDX 1.5, JSON): every
# module that was linked, with its version and go.sum hash, as the program
# itself says.
#
#   packaging/sbom.sh NAME VERSION PROGRAM... >FILE
set -euo pipefail
name=$1 version=$2
shift 2
for program in "$@"; do go version -m "$program"; done |
	awk -F'\t' -v name="$name" -v version="$version" '
		$2 == "dep" { key = $3 "@" $4; if (!(key in sum)) { order[++n] = key; module[key] = $3; release[key] = $4; sum[key] = $5 } replaced = key }
		# A replacement is what is really in it.
		$2 == "=>" { module[replaced] = $3; release[replaced] = $4; sum[replaced] = $5 }
		/: go1/ { sub(/^.*: /, ""); go = $0 }
		END {
			printf "{\n  \"bomFormat\": \"CycloneDX\",\n  \"specVersion\": \"1.5\",\n  \"version\": 1,\n"
			printf "  \"metadata\": {\"component\": {\"type\": \"application\", \"name\": \"%s\", \"version\": \"%s\"}},\n  \"components\": [\n", name, version
			printf "    {\"type\": \"library\", \"name\": \"std\", \"version\": \"%s\", \"purl\": \"pkg:golang/std@%s\"}", go, substr(go, 3)
			for (i = 1; i <= n; i++) {
				k = order[i]
				printf ",\n    {\"type\": \"library\", \"name\": \"%s\", \"version\": \"%s\", \"purl\": \"pkg:golang/%s@%s\", \"properties\": [{\"name\": \"go:sum\", \"value\": \"%s\"}]}", module[k], release[k], module[k], release[k], sum[k]
			}
			printf "\n  ]\n}\n"
		}'
