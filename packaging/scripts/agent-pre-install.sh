#!/bin/sh
# Before the files are unpacked (deb: preinst, rpm: %pre). An account that is
# already there is kept, so that an administrator can choose its ids.
set -e

case "$1" in
install | upgrade | 1 | 2) ;;
*) exit 0 ;;
esac

getent group bulwark >/dev/null || groupadd --system bulwark
if ! getent passwd bulwark >/dev/null; then
	shell=/usr/sbin/nologin
	[ -x "$shell" ] || shell=/sbin/nologin
	useradd --system --no-create-home --home-dir /nonexistent --gid bulwark \
		--comment "Bulwark scanner" --shell "$shell" bulwark
fi
