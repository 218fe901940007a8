# ---- packages ---------------------------------------------------------------
installed_version() {
	if [ "$family" = debian ]; then
		# shellcheck disable=SC2016 # dpkg-query's own variables
		v=$(dpkg-query -W -f='${db:Status-Status} ${Version}' bulwark 2>/dev/null) || return 1
		case $v in
		'installed '*) printf '%s\n' "${v#installed }" ;;
		*) return 1 ;;
		esac
	else
		rpm -q --qf '%{VERSION}-%{RELEASE}\n' bulwark 2>/dev/null || return 1
	fi
}

# half_installed: an installation that was cut off.
half_installed() {
	[ "$family" = debian ] || return 1
	# shellcheck disable=SC2016 # dpkg-query's own variables
	case $(dpkg-query -W -f='${db:Status-Status}' bulwark 2>/dev/null) in
	half-installed | half-configured | unpacked | triggers-*) return 0 ;;
	esac
	return 1
}

wait_for_zypper() {
	n=0
	while [ -e "$root/var/run/zypp.pid" ] && kill -0 "$(cat "$root/var/run/zypp.pid" 2>/dev/null || echo 0)" 2>/dev/null && [ $n -lt 60 ]; do
		n=$((n + 1))
		sleep 2
	done
}

package() { # package install|upgrade|downgrade|remove|purge [VERSION|FILE]
	verb=$1 what=bulwark answer=-y
	[ -z "$say_no" ] || answer=$([ "$manager" = apt-get ] && echo --assume-no || echo --assumeno)
	if [ -n "${2:-}" ]; then
		case $2 in
		/*) what=$2 ;;
		*)
			v=$2
			case $v in *-*) ;; *) v=$v-1 ;; esac
			what=bulwark-$v
			[ "$manager" != apt-get ] || what=bulwark=$v
			;;
		esac
	fi
	case $manager in
	apt-get)
		export DEBIAN_FRONTEND=noninteractive
		set -- apt-get "$answer" -q -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold
		case $verb in
		install) quietly "$@" install --no-install-recommends "$what" ;;
		upgrade) quietly "$@" install --only-upgrade --no-install-recommends "$what" ;;
		downgrade) quietly "$@" install --allow-downgrades --no-install-recommends "$what" ;;
		*) quietly "$@" "$verb" bulwark ;;
		esac
		;;
	zypper)
		wait_for_zypper
		set -- zypper --non-interactive
		# Files have the signature of the key that was imported.
		case $verb in
		install) quietly "$@" install --no-recommends "$what" || { sleep 5 && quietly "$@" install --no-recommends "$what"; } ;;
		upgrade) quietly "$@" update --no-recommends "$what" ;;
		downgrade) quietly "$@" install --oldpackage --no-recommends "$what" ;;
		*) quietly "$@" remove bulwark ;;
		esac
		;;
	*)
		[ "$verb" != purge ] || verb=remove
		[ "$verb" != upgrade ] || [ "$manager" = dnf ] || verb=update
		quietly "$manager" "$answer" "$verb" "$what"
		;;
	esac
}

# ---- the repository ---------------------------------------------------------
apt_list=/etc/apt/sources.list.d/bulwark-
apt_keyring=/usr/share/keyrings/bulwark.gpg
apt_ca=/usr/share/keyrings/bulwark-portal-ca.pem
apt_conf=/etc/apt/apt.conf.d/99bulwark
rpm_key=/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark
ca_folder=/etc/pki/bulwark

set_up_repository() {
	[ -n "$REPO_URL" ] || die $REPO_FAILED "no repository: take install.sh from your portal (https://PORTAL/repo/install.sh), or give --repo-url, --package or --use-local-repo"
	[ -n "$REPO_KEY" ] || die $REPO_FAILED "no signing key in this script: take install.sh from your portal (https://PORTAL/repo/install.sh)"
	case $REPO_URL in https://* | http://* | file:///*) ;; *) die $BAD_ARGUMENTS "--repo-url $REPO_URL: use https://, http:// or file:///" ;; esac
	case $REPO_URL in https://*) ;; *) REPO_CA='' ;; esac
	if [ "$family" = debian ]; then
		# The key as packets: apt of Ubuntu 16.04 reads no other.
		printf '%s\n' "$REPO_KEY" | sed -e '1,/^$/d' -e '/^-----END/d' -e '/^=/d' | base64 -d | put_file "$apt_keyring" 644 || repository_failed
		if [ -n "$REPO_CA" ]; then
			host=${REPO_URL#https://}
			host=${host%%/*}
			case $host in \[*) host=${host#\[} host=${host%%\]*} ;; *) host=${host%%:*} ;; esac
			printf '%s\n' "$REPO_CA" | put_file "$apt_ca" 644 || repository_failed
			printf 'Acquire::https::%s::CaInfo "%s";\n' "$host" "$apt_ca" | put_file "$apt_conf" 644 || repository_failed
		fi
		# The suite is the channel: there is one for all releases, so that no host is
		# ever given the repository of another release.
		printf 'deb [signed-by=%s] %s/apt %s main\n' "$apt_keyring" "$REPO_URL" "$channel" | put_file "$apt_list$channel.list" 644 || repository_failed
		other_channels | while read -r f; do rm -f "$f"; done
		# Only this list: others of the host may be out of order.
		quietly apt-get update -q -o Dir::Etc::sourcelist="$apt_list$channel.list" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any || repository_failed
		return 0
	fi
	printf '%s\n' "$REPO_KEY" | put_file "$rpm_key" 644 || repository_failed
	extra='' base=$REPO_URL/yum/$channel
	if [ "$channel" = prod ]; then
		# One of ten rings for staged roll-outs, always the same for a host.
		ring=$({ cat /etc/machine-id 2>/dev/null || hostname; } | cksum | awk '{print $1 % 10}')
		base=$base/ring/$ring
	fi
	if [ -n "$REPO_CA" ]; then
		printf '%s\n' "$REPO_CA" | put_file "$ca_folder/portal-ca.pem" 644 || repository_failed
		extra="sslcacert=$ca_folder/portal-ca.pem"
		if [ "$manager" = zypper ]; then
			printf '%s\n' "$REPO_CA" | put_file "$ca_folder/$REPO_CA_HASH.0" 644 || repository_failed
			base="$base?ssl_capath=$ca_folder" extra=autorefresh=1
		fi
	fi
	has_rpm_key || imported_key=1
	quietly rpm --import "$rpm_key" || repository_failed
	printf '[bulwark-%s]\nname=Bulwark (%s)\nbaseurl=%s\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://%s\n%s\n' \
		"$channel" "$channel" "$base" "$rpm_key" "$extra" | put_file "$(repo_file "$channel")" 644 || repository_failed
	other_channels | while read -r f; do rm -f "$f"; done
	case $manager in
	zypper)
		wait_for_zypper
		quietly zypper --non-interactive refresh "bulwark-$channel" || repository_failed
		;;
	*) quietly "$manager" -y --disablerepo='*' --enablerepo="bulwark-$channel" makecache || repository_failed ;;
	esac
}

# The key in rpm's database, by the name that the portal gives it.
has_rpm_key() { rpm -q gpg-pubkey --qf '%{SUMMARY}\n' 2>/dev/null | grep -q 'Bulwark repository'; }
forget_rpm_key() {
	rpm -q gpg-pubkey --qf '%{NAME}-%{VERSION}-%{RELEASE} %{SUMMARY}\n' 2>/dev/null | awk '/Bulwark repository/ {print $1}' | while read -r key; do
		rpm -e "$key" >/dev/null 2>&1 || :
	done
}

repository_failed() { die $REPO_FAILED "the repository $REPO_URL could not be set up; see above"; }

repo_file() {
	if [ "$manager" = zypper ]; then printf '/etc/zypp/repos.d/bulwark-%s.repo\n' "$1"; else printf '/etc/yum.repos.d/bulwark-%s.repo\n' "$1"; fi
}

# other_channels lists entries of channels that are not the chosen one: a host
# has one channel.
other_channels() {
	for c in prod insiders-slow insiders-fast; do
		[ "$c" != "$channel" ] || continue
		if [ "$family" = debian ]; then f=$apt_list$c.list; else f=$(repo_file "$c"); fi
		if [ -e "$f" ]; then
			# To be brought back should this fail.
			cp -p "$f" "$work/other.$c" && printf 'old %s %s\n' "$f" "$work/other.$c" >>"$work/undo"
			printf '%s\n' "$f"
		fi
	done
}

clean_repository() {
	failed=''
	for c in prod insiders-slow insiders-fast; do
		if [ "$family" = debian ]; then f=$apt_list$c.list; else f=$(repo_file "$c"); fi
		rm -f "$f" || failed=1
	done
	rm -f "$apt_keyring" "$apt_ca" "$apt_conf" "$rpm_key" "$ca_folder"/portal-ca.pem "$ca_folder"/*.0 || failed=1
	rmdir "$ca_folder" /etc/pki/rpm-gpg /etc/pki 2>/dev/null || :
	[ "$family" = debian ] || forget_rpm_key
	if [ "$family" = debian ]; then rm -f /var/lib/apt/lists/*_repo_apt_dists_*_InRelease /var/lib/apt/lists/*_repo_apt_dists_*_Packages*; fi
	[ -z "$failed" ] || die $CLEAN_FAILED "the repository could not be removed; see above"
	say "The repository was removed from this host."
}

