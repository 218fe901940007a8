#!/bin/sh
# Before the files are removed (deb: prerm, rpm: %preun). An upgrade leaves the
# old daemon running until the new one takes over, so that protection pauses for
# a second only; and it never touches whether the unit is enabled.
#   deb: remove | upgrade ...    rpm: 0 (removal) or 1 (upgrade)
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac

if [ -d /run/systemd/system ]; then
	systemctl stop bulwark.service || true
fi
if [ "$1" = 0 ] && command -v systemctl >/dev/null 2>&1; then
	systemctl disable bulwark.service >/dev/null 2>&1 || true
fi
