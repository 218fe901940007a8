#!/usr/bin/env bash
# Undoes up.sh, also one that was interrupted or whose processes were killed:
# stops everything, removes the packages with their state, configuration and
# logs. The distribution's packages that up.sh installed stay. May be run at any
# time and as often as you like.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly action=down
# shellcheck source=packaging/demo/lib.sh
source packaging/demo/lib.sh

need_root
if [[ ! -e $marker ]]; then
	if installed bulwark || installed bulwark-portal; then
		die "Bulwark is installed here, but not by make up; remove it with the package manager (see docs/install/)"
	fi
	echo "make down: nothing to do, make up was not run here"
	exit 0
fi

# What is in quarantine was taken from its place and exists nowhere else: it is
# kept, encrypted as it is with its key beside it, unless it is nothing but test
# files.
keep_quarantine() {
	local kept=/var/lib/bulwark-quarantine-$(date -u +%Y%m%dT%H%M%SZ)
	local items=("$state"/quarantine/*.json)
	[[ -e ${items[0]} ]] || return 0
	step "what was quarantined"
	timeout 10 "$programs/bulwark" threat list 2>&1 || note "the agent does not answer"
	grep -LE '"threat_type": *"test"' "${items[@]}" | grep -q . || return 0
	cp -a "$state/quarantine" "$kept"
	note "kept in $kept: it holds files of this host. After another make up,"
	note "put it at $state/quarantine before the agent starts, and restore with"
	note "bulwark threat quarantine restore; or delete it."
}
keep_quarantine

step "stopping"
stop_all
step "removing"
if systemd_runs; then
	systemctl disable -q bulwark-portal.service 2>/dev/null || true
fi
remove_packages
rm -f "$drop_in"
rmdir "$(dirname "$drop_in")" 2>/dev/null || true
# What a package of the rpm kind, or one that was never fully installed, leaves.
for path in "$state" "$config" "$logs" /run/bulwark "$portal_data" "$portal_config" "$portal_log" /opt/bulwark; do
	[[ -e $path ]] || continue
	rm -rf "$path"
	note "removed $path"
done
for account in bulwark bulwark-portal; do
	if getent passwd "$account" >/dev/null; then userdel "$account" && note "removed account $account"; fi
	if getent group "$account" >/dev/null; then groupdel "$account" && note "removed group $account"; fi
done
if systemd_runs; then
	systemctl daemon-reload
	systemctl reset-failed bulwark.service bulwark-portal.service 2>/dev/null || true
fi
# dpkg takes these along with the last package that had something inside.
mkdir -p /opt /etc/opt /var/opt
rm -f "$marker"
step "this host is as before; packages of the distribution that were installed for the build stay"
