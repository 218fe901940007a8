#!/bin/sh
# deb: postrm remove|purge ..., rpm: %postun with 0 (removal) or 1 (upgrade). A
# removal keeps the data: it is the fleet's history and the keys of its CA.
set -e

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || true
	fi
	;;
purge)
	rm -rf /var/opt/bulwark-portal /etc/opt/bulwark-portal
	rmdir /opt/bulwark/bin /opt/bulwark 2>/dev/null || true
	if getent passwd bulwark-portal >/dev/null; then userdel bulwark-portal || true; fi
	if getent group bulwark-portal >/dev/null; then groupdel bulwark-portal || true; fi
	;;
esac
