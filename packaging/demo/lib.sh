# Shared by up.sh and down.sh: where things are, and how processes and packages
# are started, stopped and removed. To be sourced by bash, with $action set.
# shellcheck shell=bash disable=SC2034,SC2154 # names used across files

readonly programs=/opt/bulwark/bin
readonly config=/etc/opt/bulwark state=/var/opt/bulwark logs=/var/log/bulwark
readonly portal_config=/etc/opt/bulwark-portal portal_data=/var/opt/bulwark-portal
readonly portal_log=/var/log/bulwark-portal.log
readonly agent_pid=/run/bulwark/supervise.pid portal_pid=/run/bulwark-portal/supervise.pid
readonly drop_in=/etc/systemd/system/bulwark.service.d/make-up.conf
# Says that what is installed here was installed by make up, and may be removed
# by make down. Written before anything else and removed last.
readonly marker=/var/lib/bulwark-make-up

step() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
	printf 'make %s: %s\n' "$action" "$*" >&2
	exit 1
}

need_root() { ((EUID == 0)) || die "needs root: sudo make $action"; }

systemd_runs() { [[ -d /run/systemd/system ]]; }

# ours PID says whether the process runs a program of ours. The id alone proves
# nothing: after a crash or a reboot it may belong to anybody.
ours() {
	local exe
	exe=$(readlink "/proc/$1/exe" 2>/dev/null) && [[ $exe == "$programs"/* ]]
}

# supervisor FILE prints the id of the supervisor that wrote the pid file, if it
# runs.
supervisor() {
	local pid
	[[ -f $1 ]] && read -r pid <"$1" && [[ $pid =~ ^[0-9]+$ ]] && ours "$pid" && echo "$pid"
}

# end PID SECONDS WHAT stops a process of ours: SIGTERM, then SIGKILL.
end() {
	local pid=$1 patience=$2 what=$3
	kill -TERM "$pid" 2>/dev/null || return 0
	for ((i = 0; i < patience * 10; i++)); do
		ours "$pid" || { note "stopped $what (process $pid)"; return 0; }
		sleep 0.1
	done
	ours "$pid" && kill -KILL "$pid" 2>/dev/null
	note "killed $what (process $pid): it did not stop within ${patience}s"
}

# stop_all stops the agent, then the portal, however they were started, and at
# last whatever program of ours still runs.
stop_all() {
	local pid exe
	if systemd_runs; then
		systemctl stop bulwark.service bulwark-portal.service 2>/dev/null || true
	fi
	if pid=$(supervisor "$agent_pid"); then end "$pid" 20 "the agent's supervisor"; fi
	if pid=$(supervisor "$portal_pid"); then end "$pid" 35 "the portal's supervisor"; fi
	for exe in /proc/[0-9]*/exe; do
		pid=${exe#/proc/}
		pid=${pid%/exe}
		# The command line tool ends by itself.
		[[ $(readlink "$exe" 2>/dev/null) == "$programs"/bulwark ]] && continue
		if ours "$pid"; then end "$pid" 10 "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"; fi
	done
	rm -rf /run/bulwark-portal
	rm -f "$agent_pid" "$agent_pid.notify"
}

# package_format is what this host installs.
package_format() {
	if command -v dpkg >/dev/null; then
		echo deb
	elif command -v rpm >/dev/null; then
		echo rpm
	else
		die "neither dpkg nor rpm here: install by hand as described in docs/install/"
	fi
}

# installed PACKAGE says whether the package is there, be it half.
installed() {
	if [[ $(package_format) == deb ]]; then
		local status
		status=$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) && [[ -n $status && $status != not-installed ]]
	else
		rpm -q "$1" >/dev/null 2>&1
	fi
}

install_packages() {
	local log
	log=$(mktemp)
	case $(package_format) in
	# Another package manager may be at work.
	deb)
		for _ in {1..30}; do
			DEBIAN_FRONTEND=noninteractive dpkg -i --force-confold "$@" >"$log" 2>&1 && break
			grep -q 'lock' "$log" || { cat "$log" >&2; die "dpkg cannot install the packages"; }
			sleep 2
		done
		;;
	rpm) rpm -U --replacepkgs "$@" >"$log" 2>&1 || { cat "$log" >&2; die "rpm cannot install the packages"; } ;;
	esac
	rm -f "$log"
}

# remove_packages purges our packages in whatever state they are.
remove_packages() {
	local p log
	log=$(mktemp)
	for p in bulwark bulwark-portal; do
		installed "$p" || continue
		case $(package_format) in
		deb) dpkg --purge --force-remove-reinstreq "$p" >"$log" 2>&1 ;;
		rpm) rpm -e "$p" >"$log" 2>&1 ;;
		esac || { cat "$log" >&2; die "cannot remove the package $p; see the lines above"; }
		note "removed package $p"
	done
	rm -f "$log"
}
