#!/bin/sh
# Installs, onboards, verifies, upgrades and removes the Bulwark agent with the
# package manager of the host. --help says more; --check changes nothing.
#
# It needs a POSIX shell and what every distribution has; curl or wget only for
# the portal's answer in --connectivity-test.
# shellcheck disable=SC2317 # functions are called by the traps and by name
set -u
# --- repository: the portal fills in these lines ---
REPO_URL=''
REPO_KEY=''
REPO_CA=''
REPO_CA_HASH=''
# --- end of the repository ---

SCRIPT_VERSION=1.0.0
PATH=/usr/sbin:/usr/bin:/sbin:/bin:${PATH:-}
export PATH LC_ALL=C
umask 022

# Exit codes.
OK=0 INTERNAL=1 BAD_ARGUMENTS=2 NOT_ROOT=3 CONFLICT=5 BAD_DISTRO=10 BAD_VERSION=11 TOO_SMALL=12
CORRUPT=15 NOT_INSTALLED=20 INSTALL_FAILED=21 UNINSTALL_FAILED=22 DEPENDENCY_FAILED=23 REPO_FAILED=24
BAD_CHANNEL=25 CLEAN_FAILED=26 NO_ONBOARDING=30 ONBOARDING_FAILED=31 NO_OFFBOARDING=32 OFFBOARDING_FAILED=33
BAD_TAG=40 PARAMETER_FAILED=41 PATH_UNSUPPORTED=51

usage() {
	cat <<'EOF'
Usage: install.sh ACTION [OPTION]...

Actions
  -i, --install              install (or keep) the agent
  -u, --upgrade, --update    upgrade it; goes back when the new version does not run
  -l, --downgrade            install an older version, named by --package-version
  -r, --remove               remove it; configuration, quarantine and logs stay
      --purge                remove it with everything
  -o, --onboard FILE         connect to the portal with FILE (onboard.json, .sh or .py)
  -f, --offboard [FILE]      leave the portal, by FILE (.sh or .py) or without
      --only-onboard         with --onboard: do not install
  -w, --clean                remove the channel's repository from the host
      --check                say what would be done and whether the host is fit; change nothing
  -m, --min_req              print the requirements
      --connectivity-test    ask whether the host reaches repository and portal
      --verify               prove that the installed agent works
  -v, --version              print the version of this script
  -h, --help                 print this

Options
  -c, --channel NAME         prod (default), insiders-slow, insiders-fast
      --package-version V    this version (also --mdatp V)
      --package FILE         this .deb or .rpm instead of the repository's
      --use-local-repo       use the repositories that the host has
      --repo-url URL         another address of the repository (https://, http://, file:///)
  -t, --tag NAME VALUE       tag of the device (GROUP, SecurityWorkspaceId, AzureResourceId,
                             SecurityAgentId); may be repeated
  -p, --passive-mode         only report, in scans
  -a, --rtp-mode             block threats when files are accessed
  -x, --skip_conflict        go on beside another program that holds file accesses
      --pre-req-non-blocking go on with less than the requirements
      --no-verify            do not try the installed agent
      --https-proxy URL, --http-proxy URL, --ftp-proxy URL
  -y, --yes                  ask nothing (default)
  -n, --no                   answer every question of the package manager with no
      --log-path FILE        log (default: /var/log/bulwark/install.log)
  -s, --verbose              show what the package manager says
  -d, --debug                trace the script
  -b, --install-path DIR     refused: the agent lives in /opt/bulwark, which may be a link or mount

Exit status: 0 done, 1 internal, 2 arguments, 3 not root, 5 another program holds
file accesses, 10 distribution, 11 its version, 12 below the requirements,
15 earlier installation is damaged, 20 not installed, 21 installation, 22 removal,
23 dependency, 24 repository, 25 channel, 26 repository clean-up, 30 no onboarding
file, 31 onboarding, 32 no offboarding file, 33 offboarding, 40 tag, 41 setting,
51 install path.
EOF
}

# ---- words ------------------------------------------------------------------
verbose='' log='' work=''
log_line() { if [ -n "$log" ]; then printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$log" 2>/dev/null || :; fi; }
say() { printf '%s\n' "$*"; log_line "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; log_line "warning: $*"; }
detail() { if [ -n "$verbose" ]; then printf '%s\n' "$*"; fi; log_line "$*"; }
die() { # die CODE WORDS...
	code=$1
	shift
	printf 'install.sh: %s\n' "$*" >&2
	log_line "failed ($code): $*"
	exit "$code"
}

# quietly runs a program whose words go to the log, and to the terminal when it
# fails or --verbose is given.
quietly() {
	log_line "run: $*"
	if "$@" >"$work/out" 2>&1 </dev/null; then rc=0; else rc=$?; fi
	[ -z "$log" ] || cat "$work/out" >>"$log" 2>/dev/null || :
	if [ -n "$verbose" ]; then
		cat "$work/out"
	elif [ "$rc" -ne 0 ]; then
		tail -n 15 "$work/out" >&2
	fi
	return "$rc"
}

# ---- undoing ----------------------------------------------------------------
# What is changed is written into $work/undo, one "new PATH" or "old PATH COPY"
# a line, and undone when the installation fails before the package is in.
undo_armed='' added_package='' imported_key=''
put_file() { # put_file PATH MODE: standard input becomes the file
	# A failed write must not leave half of it.
	mkdir -p "$(dirname "$1")" || return 1
	if [ -e "$1" ]; then
		copy=$work/copy.$(awk 'END {print NR}' "$work/undo") # pipes make subshells: no counter
		cp -p "$1" "$copy" || return 1
		printf 'old %s %s\n' "$1" "$copy" >>"$work/undo"
	else
		printf 'new %s\n' "$1" >>"$work/undo"
	fi
	cat >"$1.bulwark-new" && chmod "$2" "$1.bulwark-new" && mv -f "$1.bulwark-new" "$1"
}

roll_back() {
	[ -n "$undo_armed" ] || return 0
	undo_armed=''
	if [ -n "$added_package" ] && installed_version >/dev/null; then
		detail "roll-back: removing the package"
		package remove >/dev/null 2>&1 || warn "roll-back: the package could not be removed"
	fi
	[ -z "$imported_key" ] || forget_rpm_key
	[ -s "$work/undo" ] || return 0
	say "Rolling back: the host gets the files that it had."
	sed '1!G;h;$!d' "$work/undo" | while read -r kind path copy; do
		if [ "$kind" = old ]; then
			cp -p "$copy" "$path"
		else
			rm -f "$path"
			rmdir "$(dirname "$path")" 2>/dev/null || :
		fi
	done
}

leave() {
	rc=$?
	trap - EXIT HUP INT TERM
	[ "$rc" -eq 0 ] || roll_back
	if [ -n "$log" ] && [ "$log" = "$work/log" ]; then
		final=${log_path:-/var/log/bulwark/install.log}
		# Without the package there is no folder, and none is left behind.
		if [ -d "$(dirname "$final")" ]; then cat "$log" >>"$final" 2>/dev/null || :; fi
	fi
	[ -z "$work" ] || rm -rf "$work"
	exit "$rc"
}

