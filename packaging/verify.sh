#!/usr/bin/env bash
# Installs, upgrades, removes and purges the packages of dist/ in a fresh Debian
# tree (root and mmdebstrap needed) and checks what lands on disk and what is
# left. The services do not start there: a tree is no running system.
#
#   packaging/verify.sh            the packages of this machine's architecture
set -euo pipefail
cd "$(dirname "$0")/.."

((EUID == 0)) || { echo "verify: run as root" >&2; exit 1; }
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

fail() {
	echo "verify: FAILED: $*" >&2
	exit 1
}

# listing writes every path of the tree with mode and owner, without what apt and
# dpkg themselves change. /opt, /etc/opt and /var/opt are among these: dpkg
# removes them with the last package that has something inside.
listing() {
	(cd "$root" && find . \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./var/lib/dpkg -o -path ./var/lib/rpm \
		-o -path ./var/log/dpkg.log -o -path ./var/lib/systemd/deb-systemd-helper-enabled \) -prune \
		-o -printf '%p %m %U:%G\n' | sort) | grep -vE '^\./(etc/(passwd|group|shadow|gshadow|subuid|subgid)-|etc/\.pwd\.lock|opt|etc/opt|var/opt|\.rpmdb|root/\.rpmdb) ' || true
}

expect() { # expect PATH MODE OWNER
	local got
	got=$(stat -c '%a %U:%G' "$root$1" 2>/dev/null) || fail "$1 is missing"
	# The owner's name is looked up in the tree, not here.
	got="${got%% *} $(chroot "$root" stat -c '%U:%G' "$1")"
	[[ $got == "$2 $3" ]] || fail "$1 is $got, want $2 $3"
}

has() { chroot "$root" getent passwd "$1" >/dev/null; }

echo "verify: making a fresh tree"
mmdebstrap --quiet --variant=essential --include=passwd bookworm "$root" || fail "mmdebstrap"
listing >"$work/before"

debs=(dist/bulwark_*_"$arch".deb dist/bulwark-portal_*_"$arch".deb)
cp "${debs[@]}" "$root/tmp/"
in_tree() { chroot "$root" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

echo "verify: install"
in_tree sh -c 'dpkg -i --force-depends /tmp/bulwark*.deb' >"$work/log" 2>&1 || { cat "$work/log"; fail "dpkg -i"; }
expect /opt/bulwark/bin/bulwark 755 root:root
expect /opt/bulwark/bin/bulwarkd 755 root:root
expect /opt/bulwark/bin/bulwark-guard 755 root:root
expect /opt/bulwark/bin/bulwark-portal 755 root:root
for rules in content/yara/*.yar; do
	expect "/opt/bulwark/definitions/bulwark/${rules##*/}" 644 root:root
done
expect /etc/opt/bulwark/managed 755 root:root
expect /var/opt/bulwark 755 root:root
expect /var/log/bulwark 750 root:bulwark
expect /var/opt/bulwark-portal 700 bulwark-portal:bulwark-portal
expect /usr/lib/systemd/system/bulwark.service 644 root:root
expect /etc/opt/bulwark-portal/portal.env 644 root:root
for shell in bash-completion/completions/bulwark zsh/vendor-completions/_bulwark fish/vendor_completions.d/bulwark.fish; do
	[[ -s $root/usr/share/$shell ]] || fail "completion $shell is missing or empty"
done
for page in bulwark bulwark-scan-custom bulwark-config-show; do
	[[ -s $root/usr/share/man/man1/$page.1.gz ]] || fail "manual page $page is missing or empty"
done
[[ $(readlink "$root/usr/bin/bulwark") == /opt/bulwark/bin/bulwark ]] || fail "/usr/bin/bulwark is no link to the program"
[[ -L $root/etc/systemd/system/multi-user.target.wants/bulwark.service ]] || fail "bulwark.service is not enabled"
[[ ! -e $root/etc/systemd/system/multi-user.target.wants/bulwark-portal.service ]] || fail "bulwark-portal.service is enabled unasked"
has bulwark || fail "no user bulwark"
has bulwark-portal || fail "no user bulwark-portal"
in_tree bulwark version >/dev/null || fail "bulwark does not run in the tree"

echo "verify: upgrade keeps the administrator's choices"
rm "$root/etc/systemd/system/multi-user.target.wants/bulwark.service"
echo 'PORTAL_LISTEN=0.0.0.0:443' >>"$root/etc/opt/bulwark-portal/portal.env"
echo '{}' >"$root/etc/opt/bulwark/managed/managed.json"
in_tree sh -c 'dpkg -i --force-depends --force-confold /tmp/bulwark*.deb' >"$work/log" 2>&1 || { cat "$work/log"; fail "upgrade"; }
[[ ! -e $root/etc/systemd/system/multi-user.target.wants/bulwark.service ]] || fail "an upgrade enabled the unit again"
grep -q 0.0.0.0:443 "$root/etc/opt/bulwark-portal/portal.env" || fail "an upgrade reset portal.env"
[[ -s $root/etc/opt/bulwark/managed/managed.json ]] || fail "an upgrade lost managed.json"

echo "verify: remove keeps state and configuration"
touch "$root/var/opt/bulwark/state"
in_tree dpkg -r bulwark bulwark-portal >"$work/log" 2>&1 || { cat "$work/log"; fail "dpkg -r"; }
[[ -e $root/var/opt/bulwark/state && -e $root/etc/opt/bulwark/managed/managed.json ]] || fail "removal took state or configuration"
[[ ! -e $root/opt/bulwark/bin/bulwarkd && ! -L $root/usr/bin/bulwark ]] || fail "removal left programs"

echo "verify: purge leaves nothing"
in_tree dpkg -P bulwark bulwark-portal >"$work/log" 2>&1 || { cat "$work/log"; fail "dpkg -P"; }
rm "$root"/tmp/bulwark*.deb
listing >"$work/after"
diff "$work/before" "$work/after" || fail "a purge leaves the differences above"
if has bulwark || has bulwark-portal; then fail "a purge leaves accounts"; fi

if command -v rpm >/dev/null; then
	echo "verify: rpm install, upgrade, erase"
	rpmarch=$(uname -m)
	rpms=(dist/bulwark-[0-9]*."$rpmarch".rpm dist/bulwark-portal-*."$rpmarch".rpm)
	# The tree is a Debian: dependencies have other names there.
	db=(--root "$root" --dbpath /var/lib/rpm --nodeps --noplugins)
	rpm "${db[@]}" -i "${rpms[@]}" >"$work/log" 2>&1 || { cat "$work/log"; fail "rpm -i"; }
	expect /opt/bulwark/bin/bulwarkd 755 root:root
	expect /opt/bulwark/definitions/bulwark/miner.yar 644 root:root
	expect /var/log/bulwark 750 root:bulwark
	expect /var/opt/bulwark-portal 700 bulwark-portal:bulwark-portal
	[[ -s $root/usr/share/zsh/site-functions/_bulwark ]] || fail "zsh completion of the rpm is missing"
	echo '#x' >>"$root/etc/opt/bulwark-portal/portal.env"
	rpm "${db[@]}" -U --replacepkgs "${rpms[@]}" >"$work/log" 2>&1 || { cat "$work/log"; fail "rpm -U"; }
	grep -q '^#x' "$root/etc/opt/bulwark-portal/portal.env" || fail "an rpm upgrade reset portal.env"
	has bulwark || fail "an rpm upgrade lost the account"
	rpm "${db[@]}" -e bulwark bulwark-portal >"$work/log" 2>&1 || { cat "$work/log"; fail "rpm -e"; }
	[[ ! -e $root/opt/bulwark/bin/bulwarkd && ! -L $root/usr/bin/bulwark ]] || fail "rpm -e left programs"
fi
echo "verify: ok"
