#!/bin/sh
# deb: preinst, rpm: %pre. An account that is already there is kept.
set -e

case "$1" in
install | upgrade | 1 | 2) ;;
*) exit 0 ;;
esac

getent group bulwark-portal >/dev/null || groupadd --system bulwark-portal
if ! getent passwd bulwark-portal >/dev/null; then
	shell=/usr/sbin/nologin
	[ -x "$shell" ] || shell=/sbin/nologin
	useradd --system --no-create-home --home-dir /var/opt/bulwark-portal --gid bulwark-portal \
		--comment "Bulwark portal" --shell "$shell" bulwark-portal
fi
