#!/bin/sh
# deb: postinst configure [old version], rpm: %post with 1 (first) or 2 (upgrade).
# The portal is not started by itself: its administrator first chooses its
# address and host name in /etc/opt/bulwark-portal/portal.env.
set -e

unit=bulwark-portal.service
case "$1" in
configure) first=$([ -z "$2" ] && echo yes || echo no) ;;
1) first=yes ;;
2) first=no ;;
*) exit 0 ;;
esac

chown bulwark-portal:bulwark-portal /var/opt/bulwark-portal
chmod 0700 /var/opt/bulwark-portal

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	[ "$first" = yes ] || systemctl try-restart $unit || true
fi
if [ "$first" = yes ]; then
	echo "Set the portal's address in /etc/opt/bulwark-portal/portal.env, then: systemctl enable --now bulwark-portal"
fi
