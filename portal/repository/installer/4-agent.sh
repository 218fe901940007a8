# ---- the agent --------------------------------------------------------------
agent=/opt/bulwark/bin/bulwark
health() { "$agent" health --field "$1" 2>/dev/null | sed -e '/^ATTENTION/d' -e 's/ \[managed\]$//' -e 's/^"\(.*\)"$/\1/' | head -n 1; }

running() { [ -d /run/systemd/system ] || [ -S /run/bulwark/bulwark.sock ]; }

# until_true SECONDS COMMAND... asks every two seconds.
until_true() {
	end=$(($(date +%s) + $1))
	shift
	while ! "$@"; do
		[ "$(date +%s)" -lt $end ] || return 1
		sleep 2
	done
}

answers() { [ -n "$(health app_version)" ]; }
is_licensed() { [ "$(health licensed)" = true ]; }
not_licensed() { [ "$(health licensed)" = false ]; }
is_healthy() { [ "$(health healthy)" = true ]; }

place_onboarding() (
	umask 077
	new=/etc/opt/bulwark/.onboard.new
	cp "$onboard_file" $new && chmod 600 $new && mv -f $new /etc/opt/bulwark/onboard.json
)

onboard() {
	[ -x "$agent" ] || die $NOT_INSTALLED "the agent is not installed: add --install"
	say "Onboarding with $onboard_file"
	# An onboarding package of before is no obstacle; the new one wins.
	case $onboard_file in
	*.py) quietly "$(command -v python3 || command -v python)" "$onboard_file" || die $ONBOARDING_FAILED "$onboard_file failed" ;;
	*.sh) quietly sh "$onboard_file" || die $ONBOARDING_FAILED "$onboard_file failed" ;;
	*)
		mkdir -p /etc/opt/bulwark || die $ONBOARDING_FAILED "/etc/opt/bulwark cannot be made"
		# The exact bytes, readable by root only, in one step.
		place_onboarding || die $ONBOARDING_FAILED "/etc/opt/bulwark/onboard.json cannot be written"
		;;
	esac
	if ! running; then
		warn "the agent does not run here: it will enroll when it is started"
		return 0
	fi
	until_true 90 is_licensed || {
		"$agent" health --explain >&2 || :
		die $ONBOARDING_FAILED "the host did not enroll within 90 seconds; the agent says why above, and goes on trying"
	}
	say "The host belongs to organization $(health org_id)."
}

offboard() {
	[ -x "$agent" ] || die $NOT_INSTALLED "the agent is not installed"
	case $offboard_file in
	'') quietly "$agent" offboard || die $OFFBOARDING_FAILED "the agent could not leave the portal" ;;
	*.py) quietly "$(command -v python3 || command -v python)" "$offboard_file" || die $OFFBOARDING_FAILED "$offboard_file failed" ;;
	*) quietly sh "$offboard_file" || die $OFFBOARDING_FAILED "$offboard_file failed" ;;
	esac
	if running && ! until_true 150 not_licensed; then die $OFFBOARDING_FAILED "the host still belongs to the portal after 150 seconds"; fi
	say "The host has left the portal."
}

set_value() { # set_value WORDS...: a setting of the agent, tried three times
	for _ in 1 2 3; do
		if quietly "$agent" "$@"; then return 0; fi
		sleep 2
	done
	die $PARAMETER_FAILED "bulwark $*: failed"
}

settings() {
	[ -n "$tags$mode" ] || return 0
	if ! running; then
		warn "the agent does not run here: tags and mode are not set"
		return 0
	fi
	[ -z "$mode" ] || set_value config enforcement-level --value "$mode"
	printf '%s' "$tags" >"$work/tags"
	while IFS='	' read -r tag value; do
		set_value edr tag set --name "$tag" --value "$value"
	done <"$work/tags"
}

# verify proves that the agent works: it runs, it is healthy as far as this host
# can tell, and it catches the harmless test file of EICAR.
verify() {
	[ -x "$agent" ] || die $NOT_INSTALLED "the agent is not installed"
	if ! running; then
		"$agent" version >/dev/null 2>&1 || :
		warn "the agent does not run here: it was not verified"
		return 0
	fi
	until_true 60 answers || die $INSTALL_FAILED "the agent does not answer; systemctl status bulwark and journalctl -u bulwark say why"
	if ! until_true 90 is_healthy; then
		warn "the agent runs, but is not healthy: $(health health_issues)"
		"$agent" health --explain >&2 || :
	fi
	test_file=$(mktemp /var/tmp/bulwark-verify.XXXXXX) || die $INTERNAL "no temporary file in /var/tmp"
	# In two parts, so that this script is not taken for the test file.
	# shellcheck disable=SC2016 # nothing is to be expanded
	printf '%s%s' 'X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR' '-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*' >"$test_file" 2>/dev/null || :
	if [ "$(health real_time_protection_enabled)" = true ]; then
		cat "$test_file" >/dev/null 2>&1 || : # whoever opens it is refused
		n=0
		while [ -e "$test_file" ] && [ $n -lt 15 ]; do
			n=$((n + 1))
			sleep 1
		done
		caught='when it was written'
	else
		"$agent" scan custom --path "$test_file" >/dev/null 2>&1 || :
		"$agent" threat list 2>/dev/null | grep -qF "$test_file" && rm -f "$test_file"
		caught='by a scan (real-time protection is off)'
	fi
	if [ -e "$test_file" ]; then
		rm -f "$test_file"
		die $INSTALL_FAILED "the agent did not catch the EICAR test file in /var/tmp: bulwark explain, findmnt -T /var/tmp"
	fi
	say "Verified: version $(health app_version), healthy: $(health healthy); the EICAR test file was caught $caught."
}

# ---- actions ----------------------------------------------------------------
do_install() {
	before=$(installed_version) || before=''
	if half_installed; then
		die $CORRUPT "an earlier installation was cut off: dpkg --configure -a, or apt-get purge bulwark, then again"
	fi
	if [ -n "$before" ]; then
		say "Bulwark $before is installed already; organization: $( (running && health org_id) || echo unknown)"
		[ -n "$package_version$package_file" ] || return 0
	fi
	undo_armed=1
	[ -n "$before" ] || added_package=1
	if [ -z "$package_file$local_repo" ]; then set_up_repository; fi
	say "Installing ${package_file:-bulwark ${package_version:-(newest of $channel)}}"
	package install "${package_file:-$package_version}" || die $INSTALL_FAILED "the package manager could not install bulwark; see above"
	installed_version >/dev/null || die $INSTALL_FAILED "the package manager says that all is well, but bulwark is not installed"
	undo_armed='' added_package=''
	say "Installed bulwark $(installed_version)."
}

do_change() { # do_change upgrade|downgrade
	before=$(installed_version) || die $NOT_INSTALLED "the agent is not installed: use --install"
	[ "$1" = upgrade ] || [ -n "$package_version" ] || die $BAD_ARGUMENTS "--downgrade needs --package-version"
	undo_armed=1
	if [ -z "$package_file$local_repo" ]; then set_up_repository; fi
	package "$1" "${package_file:-$package_version}" || die $INSTALL_FAILED "the package manager could not $1 bulwark; see above"
	undo_armed=''
	after=$(installed_version) || die $INSTALL_FAILED "bulwark is gone after the $1"
	if [ "$after" = "$before" ]; then
		say "Bulwark $before is the newest that this host is offered."
		return 0
	fi
	if running && ! until_true 90 answers; then
		warn "version $after does not run; going back to $before"
		if ! package downgrade "$before" || ! until_true 90 answers; then
			die $INSTALL_FAILED "version $after does not run, and going back to $before failed too"
		fi
		die $INSTALL_FAILED "version $after does not run on this host; it has $before again"
	fi
	say "From $before to $after."
}

do_remove() { # do_remove remove|purge
	if ! installed_version >/dev/null && ! half_installed; then
		if [ "$1" != purge ] || [ ! -d /var/opt/bulwark ]; then die $NOT_INSTALLED "the agent is not installed"; fi
	else
		package "$1" || die $UNINSTALL_FAILED "the package manager could not remove bulwark; see above"
	fi
	if [ "$1" = purge ]; then
		if [ "$family" = debian ]; then quietly dpkg --purge bulwark || :; fi
		# rpm knows no purge.
		rm -rf /etc/opt/bulwark /var/opt/bulwark /var/log/bulwark
		if [ "$family" != debian ]; then
			userdel bulwark >/dev/null 2>&1 || :
			groupdel bulwark >/dev/null 2>&1 || :
		fi
		rmdir /opt/bulwark 2>/dev/null || :
	fi
	say "Bulwark was removed$([ "$1" = purge ] || echo '; configuration, quarantine and logs are kept')."
}

connectivity() {
	if [ -x "$agent" ] && running; then
		"$agent" connectivity test
		return
	fi
	[ -n "$REPO_URL" ] || die $REPO_FAILED "no repository in this script: take it from your portal"
	printf '%s\n' "$REPO_CA" >"$work/ca"
	if command -v curl >/dev/null 2>&1; then
		set -- curl -fsS -o /dev/null -m 30
		[ -z "$REPO_CA" ] || set -- "$@" --cacert "$work/ca"
	elif command -v wget >/dev/null 2>&1; then
		set -- wget -q -O /dev/null -T 30
		[ -z "$REPO_CA" ] || set -- "$@" --ca-certificate="$work/ca"
	else
		die $DEPENDENCY_FAILED "neither curl nor wget is here"
	fi
	"$@" "$REPO_URL/versions.json" || die $REPO_FAILED "Testing connection with $REPO_URL ... [FAIL]"
	say "Testing connection with $REPO_URL ... [OK]"
}

