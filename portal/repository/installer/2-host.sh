# ---- the host ---------------------------------------------------------------
# root is a folder to look at instead of /, for trying --check on other
# distributions: BULWARK_CHECK_ROOT.
root=''
family='' id='' like='' release='' name=''

detect() {
	os=$root/etc/os-release
	[ -r "$os" ] || os=$root/usr/lib/os-release
	if [ -r "$os" ]; then
		id=$(os_value ID) like=$(os_value ID_LIKE) release=$(os_value VERSION_ID) name=$(os_value PRETTY_NAME)
	elif [ -r "$root/etc/redhat-release" ]; then
		name=$(head -n 1 "$root/etc/redhat-release")
		id=rhel release=$(printf '%s\n' "$name" | sed -n 's/.*release \([0-9][0-9.]*\).*/\1/p')
	else
		die $BAD_DISTRO "this distribution is not known: there is neither /etc/os-release nor /etc/redhat-release"
	fi
	[ -n "$name" ] || name="$id $release"
	for word in $id $like; do
		case $word in
		debian | ubuntu) family=debian ;;
		rhel | fedora | centos | ol | rocky | almalinux | amzn | mariner | azurelinux) family=rhel ;;
		sles | sled | suse | opensuse | opensuse-leap | opensuse-tumbleweed) family=suse ;;
		*) continue ;;
		esac
		break
	done
	[ -n "$family" ] || die $BAD_DISTRO "$name ($id) is not supported: neither ID nor ID_LIKE of /etc/os-release names a family with deb or rpm packages that is known"
	oldest=''
	case $id in
	debian) oldest=9 ;;
	ubuntu) oldest=16.04 ;;
	rhel | centos | ol) oldest=7.2 ;;
	sles | sled) oldest=12 ;;
	rocky | almalinux) oldest=8 ;;
	amzn | mariner) oldest=2 ;;
	fedora) oldest=33 ;;
	azurelinux) oldest=3 ;;
	esac
	# CentOS says 7 and means any 7.x: the kernel decides there.
	case $id.$release in centos.7 | rhel.7 | ol.7) oldest=7 ;; esac
	if [ -n "$oldest" ] && [ -n "$release" ] && older "$release" "$oldest"; then
		die $BAD_VERSION "$name is older than what is supported: $id $oldest"
	fi
}

os_value() { # the value of a line of os-release, without quotes
	sed -n "s/^$1=//p" "$os" | head -n 1 | sed -e 's/^"\(.*\)"$/\1/' -e "s/^'\(.*\)'\$/\1/"
}

older() { # older A B: is version A lower than B (numbers between dots)
	[ "$1" != "$2" ] && awk -v a="$1" -v b="$2" 'BEGIN {
		n = split(a, x, /[^0-9]+/); m = split(b, y, /[^0-9]+/)
		for (i = 1; i <= (n > m ? n : m); i++) { if (x[i] + 0 < y[i] + 0) exit 0; if (x[i] + 0 > y[i] + 0) exit 1 }
		exit 1 }'
}

manager=''
find_manager() {
	case $family in
	debian) candidates=apt-get ;;
	suse) candidates=zypper ;;
	*) candidates='dnf tdnf yum' ;;
	esac
	for m in $candidates; do
		if command -v "$m" >/dev/null 2>&1; then
			manager=$m
			return 0
		fi
	done
	die $BAD_DISTRO "$name: none of its package managers is there ($candidates)"
}

# ---- requirements -----------------------------------------------------------
unfit=0
short() { # a requirement that is not met
	printf 'requirement: %s\n' "$*" >&2
	log_line "requirement: $*"
	unfit=$((unfit + 1))
}

requirements() {
	cat <<'EOF'
Distribution   Debian 9, Ubuntu 16.04, RHEL, CentOS and Oracle Linux 7.2, SLES 12, Rocky and
               AlmaLinux 8, Amazon Linux 2, Fedora 33, Azure Linux, or later; what is derived from these
Architecture   x86_64, aarch64
Kernel         3.10.0-327 or later, with fanotify and its permission events
systemd        as init (without: see docs/install/agent.md)
Disk           1024 MB free below /opt and /var
Memory         900 MB
Not at the same time: another program that holds file accesses by fanotify
EOF
}

check_requirements() {
	case $(uname -m) in
	x86_64 | aarch64) ;;
	*) short "architecture $(uname -m): there are packages for x86_64 and aarch64" ;;
	esac
	kernel=$(cat "$root/proc/sys/kernel/osrelease" 2>/dev/null || uname -r)
	base=${kernel%%[!0-9.]*}
	if older "$base" 3.10.0; then
		short "kernel $kernel is older than 3.10.0-327"
	elif [ "$base" = 3.10.0 ]; then
		build=${kernel#3.10.0-}
		build=${build%%[!0-9]*}
		if [ "${build:-0}" -lt 327 ]; then short "kernel $kernel is older than 3.10.0-327"; fi
	fi
	check_fanotify
	for dir in /opt /var; do
		free=$(free_space "$root$dir")
		if [ -n "$free" ] && [ "$free" -lt 1024 ]; then short "$dir has $free MB free, 1024 are needed"; fi
	done
	memory=$(awk '/^MemTotal:/ {print int($2 / 1024)}' "$root/proc/meminfo" 2>/dev/null)
	if [ -n "$memory" ] && [ "$memory" -lt 900 ]; then short "the host has $memory MB of memory, 900 are needed"; fi
	if [ ! -d "$root/run/systemd/system" ]; then
		warn "systemd does not run here: the package will be installed, but nothing started"
	fi
	if command -v auditctl >/dev/null 2>&1 && [ -z "$root" ]; then
		case $(auditctl -s 2>/dev/null | awk '$1 == "enabled" {print $2}') in
		2) warn "the audit rules are immutable until the next reboot; where eBPF is available nothing is missing" ;;
		0) detail "audit is off; the agent does not need it" ;;
		esac
	fi
}

check_fanotify() {
	config=''
	for c in "$root/boot/config-$kernel" "$root/lib/modules/$kernel/config" "$root/usr/lib/modules/$kernel/config"; do
		if [ -r "$c" ]; then config=$(cat "$c") && break; fi
	done
	if [ -z "$config" ] && [ -r "$root/proc/config.gz" ]; then config=$(gzip -dc "$root/proc/config.gz" 2>/dev/null); fi
	if [ -z "$config" ]; then
		detail "the kernel's configuration is not there to be read; whether it has fanotify shows after the start"
		return 0
	fi
	for option in CONFIG_FANOTIFY CONFIG_FANOTIFY_ACCESS_PERMISSIONS; do
		printf '%s\n' "$config" | grep -q "^$option=y" || short "the kernel $kernel was built without $option"
	done
}

free_space() { # megabytes below the nearest folder that is there
	d=$1
	while [ ! -d "$d" ]; do d=$(dirname "$d"); done
	df -Pk "$d" 2>/dev/null | awk 'NR == 2 {print int($4 / 1024)}'
}

# holders lists "PID PROGRAM" of processes that hold file accesses: those with a
# fanotify mark for permission events, whoever made them. At most a minute.
holders() {
	end=$(($(date +%s) + 60))
	for info in "$root"/proc/[0-9]*/fdinfo; do
		[ "$(date +%s)" -lt $end ] || break
		pid=${info%/fdinfo}
		pid=${pid##*/}
		# The marks of a group follow its flags; 0x10000, 0x20000, 0x40000 and
		# 0x100000 are open, access, execute and pre-access permission.
		grep -h '^fanotify .*mask:' "$info"/* 2>/dev/null | sed -n 's/.* mask:\([0-9a-f]*\) .*/\1/p' | while read -r mask; do
			if [ $((0x$mask & 0x170000)) -ne 0 ]; then
				printf '%s %s\n' "$pid" "$(readlink "$root/proc/$pid/exe" 2>/dev/null || cat "$root/proc/$pid/comm" 2>/dev/null)"
				break
			fi
		done
	done
}

check_conflicts() {
	found=$(holders | grep -v ' /opt/bulwark/' || :)
	[ -n "$found" ] || return 0
	list=$(printf '%s' "$found" | awk '{printf "%s%s (process %s)", (NR > 1 ? ", " : ""), $2, $1}')
	if [ -n "$skip_conflict" ] || ! printf '%s\n' "$found" | grep -qv '/fapolicyd$'; then
		warn "also holds file accesses: $list; the agent will only watch where both would hold"
		return 0
	fi
	die $CONFLICT "another program holds file accesses: $list. Two of them can make a host hang: remove it, or go on with --skip_conflict"
}

