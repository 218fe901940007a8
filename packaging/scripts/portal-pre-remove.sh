#!/bin/sh
# deb: prerm remove|upgrade ..., rpm: %preun with 0 (removal) or 1 (upgrade).
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac

if [ -d /run/systemd/system ]; then
	systemctl stop bulwark-portal.service || true
fi
if command -v systemctl >/dev/null 2>&1; then
	systemctl disable bulwark-portal.service >/dev/null 2>&1 || true
fi
