#!/bin/sh
# After the files are removed (deb: postrm, rpm: %postun). A removal takes
# everything but configuration, state (with the quarantine) and logs; a purge
# takes these too, and the account.
#   deb: remove | purge | upgrade ...    rpm: 0 (removal) or 1 (upgrade)
set -e

forget_kernel() {
	# Audit rules of ours, on disk and in the kernel, should the daemon have
	# ended without removing them. fanotify marks and eBPF programs are gone with
	# the process.
	rm -f /etc/audit/rules.d/bulwark.rules
	if command -v auditctl >/dev/null 2>&1; then
		auditctl -D -k bulwark >/dev/null 2>&1 || true
	fi
	rm -rf /run/bulwark
}

case "$1" in
remove | 0)
	forget_kernel
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || true
	fi
	if [ -x /usr/bin/deb-systemd-helper ] && [ "$1" = remove ]; then
		deb-systemd-helper mask bulwark.service >/dev/null || true
	fi
	;;
purge)
	forget_kernel
	rm -rf /var/opt/bulwark /etc/opt/bulwark /var/log/bulwark
	rmdir /opt/bulwark/bin /opt/bulwark 2>/dev/null || true
	if [ -x /usr/bin/deb-systemd-helper ]; then
		deb-systemd-helper purge bulwark.service >/dev/null || true
		deb-systemd-helper unmask bulwark.service >/dev/null || true
	fi
	if getent passwd bulwark >/dev/null; then userdel bulwark || true; fi
	if getent group bulwark >/dev/null; then groupdel bulwark || true; fi
	;;
esac
