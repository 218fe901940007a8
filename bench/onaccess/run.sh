#!/usr/bin/env bash
# Measures workloads on a file system without protection, at the kernel's
# limits, under Bulwark and, where their programs are there, under fapolicyd and
# clamonacc with clamd. Root. Everything runs in a mount namespace of its own on
# a tmpfs (FS=ext4: on a loop-mounted image), and everything that can hold
# accesses is killed after some minutes.
#
#   bench/onaccess/run.sh        CONTENDERS="none allow ignore bulwark fapolicyd clamonacc"
#   PEERS=DIR                    peers' packages, unpacked with dpkg -x; without it, what is not installed is
#                                fetched with apt and unpacked for this run only, so that no service is started
#   SIZE=1                       factor for the number of cold files and of repetitions, 1 to 10
#   ONLY=TEXT                    only the workloads whose names have this text ("PostgreSQL"); what works on the source
#                                tree needs it unpacked, and its names have "tree" or "source"
#   WORK_TIME=80                 seconds that the workloads of one contender may take, times SIZE; what it has
#                                not done by then is a dash in the table. With SIZE=1 all together end within
#                                fifteen minutes
#
# PostgreSQL and gcc are used where they are installed (Debian: postgresql, gcc).
set -euo pipefail
if [[ ${1:-} != inside ]]; then
	cd "$(dirname "$0")/../.."
	[[ $EUID == 0 ]] || { echo "bench/onaccess: needs root" >&2; exit 1; }
	export BENCH_DIR
	BENCH_DIR=$(mktemp -d)
	chmod 755 "$BENCH_DIR"
	trap 'rm -rf --one-file-system "$BENCH_DIR"' EXIT
	CGO_ENABLED=0 go build -o "$BENCH_DIR/" ./bench/onaccess ./cmd/bulwark ./cmd/bulwarkd ./cmd/bulwark-guard
	git clone -q --no-hardlinks . "$BENCH_DIR/clone" && tar -cf "$BENCH_DIR/source.tar" -C "$BENCH_DIR/clone" . && rm -rf "$BENCH_DIR/clone"
	(cd "$PWD" && GOCACHE="$BENCH_DIR/gocache" CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -o /dev/null ./policy)
	if [[ -z ${PEERS:-} ]] && command -v apt-get >/dev/null; then
		mkdir -p "$BENCH_DIR/debs/partial" "$BENCH_DIR/peers"
		if apt-get install -q -y --no-install-recommends --download-only -o Dir::Cache::archives="$BENCH_DIR/debs" \
			-o DPkg::Lock::Timeout=300 fapolicyd clamav-daemon ccache >"$BENCH_DIR/apt.log" 2>&1; then
			for deb in "$BENCH_DIR"/debs/*.deb; do [[ ! -e $deb ]] || dpkg -x "$deb" "$BENCH_DIR/peers"; done
			export PEERS=$BENCH_DIR/peers
		else
			echo "bench/onaccess: the peers cannot be fetched: $(tail -1 "$BENCH_DIR/apt.log")" >&2
		fi
	fi
	unshare -m --propagation private "$PWD/bench/onaccess/run.sh" inside
	exit
fi

dir=$BENCH_DIR mnt=$BENCH_DIR/mnt peers=${PEERS:-} results=$BENCH_DIR/results size=${SIZE:-1}
work_time=$((${WORK_TIME:-80} * size))
pids=() made=() bound=()
mkdir -p "$mnt"
: >"$results"

fresh() { # an empty file system with the prepared files
	umount "$mnt" 2>/dev/null || true
	if [[ ${FS:-tmpfs} == ext4 ]]; then
		rm -f "$dir/image" && truncate -s $((850 + 150 * size))M "$dir/image" && mkfs.ext4 -q -F "$dir/image" && mount -o loop "$dir/image" "$mnt"
	else
		mount -t tmpfs -o "size=$((550 + 150 * size))m,mode=755" bulwark-bench "$mnt"
	fi
	"$dir/onaccess" prepare "$mnt" "$dir/source.tar" "$size"
	cp -a "$dir/gocache" "$mnt/gocache"
	sleep 3 # time stamps settle, as on files that were there before
}
start() { # LOG COMMAND...: in the background, with the deadman
	local log=$1; shift
	timeout -s KILL $((work_time + 220)) "$@" >"$log" 2>&1 &
	pids+=($!)
}
stop() {
	for p in "${pids[@]}"; do kill -TERM "$p" 2>/dev/null || true; done
	for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
	pids=()
}
finish() {
	stop
	local d
	for d in "${bound[@]}"; do umount "$d" || true; done
	for d in "${made[@]}"; do rmdir "$d" || true; done
	umount "$mnt" 2>/dev/null || true
}
trap finish EXIT
until_text() { # FILE TEXT
	for _ in $(seq 300); do grep -q -- "$2" "$1" 2>/dev/null && return 0; sleep 0.1; done
	echo "bench/onaccess: never in $1: $2" >&2; tail -5 "$1" >&2; return 1
}
[[ -z $peers ]] || export LD_LIBRARY_PATH=$peers/usr/lib/x86_64-linux-gnu
program() {
	if [[ -n $peers && -x $peers$1 ]]; then echo "$peers$1"; elif [[ -x $1 ]]; then echo "$1"; else return 1; fi
}

begin_none() { :; }
begin_allow() { start "$dir/log" "$dir/onaccess" limit allow "$mnt"; until_text "$dir/log" ready; }
begin_ignore() { start "$dir/log" "$dir/onaccess" limit ignore "$mnt"; until_text "$dir/log" ready; }
begin_bulwark() {
	local root=$dir/root
	rm -rf "$root"; mkdir -p "$root/etc/opt/bulwark/managed" "$root/var/opt/bulwark/definitions"
	echo '{"antivirusEngine": {"enforcementLevel": "real_time"}}' >"$root/etc/opt/bulwark/managed/managed.json"
	signatures "$root/var/opt/bulwark/definitions"
	start "$dir/log" "$dir/bulwarkd" run --root "$root" --only-mounts "$mnt" --console
	for _ in $(seq 300); do
		[[ $("$dir/bulwark" --root "$root" health --details antivirus --field blocking 2>/dev/null) == true ]] && break; sleep 0.1
	done
	"$dir/bulwark" --root "$root" coverage --last >/dev/null 2>&1 || true
	"$dir/bulwark" --root "$root" coverage 2>&1 | grep -v ATTENTION >&2
}
signatures() { printf 'Bench.Never:0:*:%s\n' 62756c7761726b2062656e63686d61726b206e6576657220666f756e64 >"$1/bench.ndb"; }
begin_fapolicyd() {
	local bin; bin=$(program /usr/sbin/fapolicyd) || return 1
	mkdir -p "$dir/fa/etc" "$dir/fa/lib" "$dir/fa/run"
	# Its folders have fixed names; ours are there in this namespace only.
	local to
	for to in etc:/etc/fapolicyd lib:/var/lib/fapolicyd run:/run/fapolicyd; do
		[[ -d ${to#*:} ]] || { mkdir "${to#*:}"; made+=("${to#*:}"); }
		mount --bind "$dir/fa/${to%%:*}" "${to#*:}"; bound+=("${to#*:}")
	done
	# A rule that allows everything: the cost of asking, not of a policy.
	printf 'allow perm=any all : all\n' >/etc/fapolicyd/fapolicyd.rules
	: >/etc/fapolicyd/fapolicyd.trust; mkdir -p /etc/fapolicyd/trust.d
	printf '%s\n' 'permissive = 0' 'nice_val = 0' 'q_size = 2048' 'uid = 0' 'gid = 0' 'do_stat_report = 0' 'detailed_report = 0' \
		'db_max_size = 50' 'subj_cache_size = 1549' 'obj_cache_size = 8191' "watch_fs = ${FS:-tmpfs}" 'trust = file' 'integrity = none' \
		'syslog_format = rule,dec,perm,auid,pid,exe,:,path,ftype' 'rpm_sha256_only = 0' 'allow_filesystem_mark = 0' >/etc/fapolicyd/fapolicyd.conf
	# It marks every mount of that type, but only those of this namespace.
	start "$dir/log" "$bin" --debug-deny
	sleep 4; kill -0 "${pids[-1]}"
}
begin_clamonacc() {
	local clamd onacc; clamd=$(program /usr/sbin/clamd) && onacc=$(program /usr/sbin/clamonacc) || return 1
	mkdir -p "$dir/clam/db"; signatures "$dir/clam/db"
	printf '%s\n' "LocalSocket $dir/clam/socket" "DatabaseDirectory $dir/clam/db" 'Foreground yes' 'User root' 'MaxThreads 4' \
		"OnAccessIncludePath $mnt" 'OnAccessPrevention yes' 'OnAccessExcludeUname clamav' 'OnAccessMaxThreads 5' 'OnAccessMaxFileSize 100M' >"$dir/clam/conf"
	start "$dir/log" "$clamd" -c "$dir/clam/conf"
	for _ in $(seq 200); do [[ -S $dir/clam/socket ]] && break; sleep 0.1; done
	start "$dir/log2" "$onacc" --foreground --fdpass -c "$dir/clam/conf"
	sleep 4; kill -0 "${pids[-1]}"
}
for c in ${CONTENDERS:-none allow ignore bulwark fapolicyd clamonacc}; do
	fresh
	if ! "begin_$c"; then echo "bench/onaccess: $c cannot run here" >&2; stop; continue; fi
	echo "==> $c (load $(cut -d' ' -f1-3 /proc/loadavg))" >&2
	timeout -s KILL "$work_time" "$dir/onaccess" work "$mnt" "$c" "$size" >>"$results" || echo "bench/onaccess: $c did not finish" >&2
	stop
done

echo "Machine: $(nproc) cores, kernel $(uname -r), ${FS:-tmpfs}, load at the end $(cut -d' ' -f1-3 /proc/loadavg)"
awk -F'\t' '
	!($2 in seen) {seen[$2] = 1; order[++n] = $2}
	!($1 in has) {has[$1] = 1; column[++m] = $1}
	{value[$1, $2] = $3}
	END {
		line = "| Workload |"; rule = "|---|"
		for (j = 1; j <= m; j++) {line = line " " column[j] " |"; rule = rule "---:|"}
		print line; print rule
		for (i = 1; i <= n; i++) {
			line = "| " order[i] " |"
			for (j = 1; j <= m; j++) line = line " " (((column[j], order[i]) in value) ? value[column[j], order[i]] : "-") " |"
			print line
		}
	}' "$results"
