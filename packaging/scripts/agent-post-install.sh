#!/bin/sh
# After the files are unpacked (deb: postinst, rpm: %post).
#   deb: configure [old version]    rpm: 1 (first installation) or 2 (upgrade)
set -e

unit=bulwark.service
case "$1" in
configure) first=$([ -z "$2" ] && echo yes || echo no) ;;
1) first=yes ;;
2) first=no ;;
abort-*) exit 0 ;;
*) exit 0 ;;
esac

# What happens here is in the journal, under this name (journalctl -t bulwark-installer).
note() {
	if command -v logger >/dev/null 2>&1; then
		logger -t "bulwark-installer[$$]" "$1 [$(date -u +%Y-%m-%dT%H:%M:%SZ)] $$" 2>/dev/null || true
	fi
}
note "postinstall begin"
trap 'note "postinstall failed"' EXIT

# The group may read the log; the rest of the state is the daemon's.
chown root:bulwark /var/log/bulwark
chmod 0750 /var/log/bulwark

# Enabled once; afterwards the administrator's choice stands, also across
# upgrades and reinstallations.
# The helpers are dpkg's: an rpm on a host that has them does not want them.
if [ -n "${DPKG_MAINTSCRIPT_NAME:-}" ] && [ -x /usr/bin/deb-systemd-helper ]; then
	deb-systemd-helper unmask $unit >/dev/null || true
	if deb-systemd-helper --quiet was-enabled $unit; then
		deb-systemd-helper enable $unit >/dev/null || true
	else
		deb-systemd-helper update-state $unit >/dev/null || true
	fi
elif [ "$first" = yes ] && command -v systemctl >/dev/null 2>&1; then
	systemctl enable $unit >/dev/null 2>&1 || true
fi

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	if [ "$first" = yes ]; then action=start; else action=try-restart; fi
	if [ -n "${DPKG_MAINTSCRIPT_NAME:-}" ] && command -v deb-systemd-invoke >/dev/null 2>&1; then
		# Asks policy-rc.d whether services may be started now.
		[ "$action" = start ] || action=restart
		deb-systemd-invoke $action $unit >/dev/null || true
	else
		systemctl $action $unit || true
	fi
fi

if [ "$first" = yes ] && [ ! -e /etc/opt/bulwark/onboard.json ]; then
	echo "Bulwark protects this host. To connect it to your portal, put its onboarding package at /etc/opt/bulwark/onboard.json."
fi
trap - EXIT
note "postinstall end"
