#!/usr/bin/env bash
# Runs the Go benchmarks of the module and prints the sizes of the programs and,
# when the agent runs on this host, the memory of its processes.
#
#   bench/run.sh [PACKAGES]     default: ./...
#   BENCHTIME=1s COUNT=1
set -euo pipefail
cd "$(dirname "$0")/.."

echo "==> programs"
make --no-print-directory build >/dev/null
for f in bin/bulwark bin/bulwarkd bin/bulwark-portal; do
	printf '  %-22s %6.1f MB\n' "$f" "$(stat -c %s "$f" | awk '{print $1 / 1e6}')"
done

echo "==> resident memory of the running agent and portal"
found=no
for status in /proc/[0-9]*/status; do
	dir=${status%/status}
	exe=$(readlink "$dir/exe" 2>/dev/null) || continue
	[[ $exe == */bulwarkd || $exe == */bulwark-portal ]] || continue
	found=yes
	# RssAnon is the process's own; mapped files are shared by all.
	awk -v name="$(tr '\0' ' ' <"$dir/cmdline" | cut -c1-60)" '
		/^VmRSS:/ {rss = $2} /^RssAnon:/ {anon = $2}
		END {printf "  %6.1f MB, of it private %6.1f MB  %s\n", rss / 1024, anon / 1024, name}' "$status"
done
[[ $found == yes ]] || echo "  none runs here (make up starts them)"

echo "==> scan engine beside clamscan and yara, a tenth of \`make bench-engine\`"
go run ./bench/engine -short

echo "==> Go benchmarks ($(nproc) cores, $(uname -r))"
packages=("$@")
((${#packages[@]} > 0)) || packages=(./...)
go test -run '^$' -bench . -benchmem -benchtime "${BENCHTIME:-1s}" -count "${COUNT:-1}" "${packages[@]}" |
	{ grep -vE '^(ok|PASS|\?)' || true; }
