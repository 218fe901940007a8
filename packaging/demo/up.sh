#!/usr/bin/env bash
# Makes this host a protected one with a portal of its own: builds and installs
# the packages, starts the portal on loopback, onboards the agent with real-time
# protection and waits until it is healthy. May be run again at any time: it
# brings programs up to date and keeps the portal's data, the accounts, the
# agent's identity and the configuration. down.sh undoes all of it.
#
#   BULWARK_PORTAL_LISTEN=127.0.0.1:8443   where the portal listens
#   BULWARK_WATCH=/mnt/a,/mnt/b            protect these mounts only
#   BULWARK_PATIENCE=90                    seconds to wait for the portal, and for health
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly action=up
# shellcheck source=packaging/demo/lib.sh
source packaging/demo/lib.sh

listen=${BULWARK_PORTAL_LISTEN:-127.0.0.1:8443}
patience=${BULWARK_PATIENCE:-90}
version=${VERSION:?run me by make up}
host=${listen%:*} port=${listen##*:}
portal_url=https://$listen
begin=$SECONDS

need_root
command -v go >/dev/null || die "Go is missing: install Go $(awk '$1 == "go" {print $2}' go.mod) or newer from https://go.dev/dl/"
[[ $host =~ ^127\. ]] || die "BULWARK_PORTAL_LISTEN=$listen: this demonstration listens on loopback only"
if [[ ! -e $marker ]] && { installed bulwark || installed bulwark-portal || [[ -e $config || -e $portal_data ]]; }; then
	die "Bulwark is installed here already, and not by make up. Remove it first (see docs/install/); nothing was changed."
fi

as_portal() { runuser -u bulwark-portal -- "$@"; }

listening() { (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; }

# diagnose prints what is known about a host that does not get well.
diagnose() {
	local f
	echo
	echo "--- bulwark health"
	timeout 10 "$programs/bulwark" health 2>&1 || true
	if systemd_runs; then
		echo "--- journal"
		journalctl --no-pager -n 25 -u bulwark.service -u bulwark-portal.service 2>/dev/null || true
	fi
	for f in "$logs"/*.log "$portal_log"; do
		[[ -s $f ]] || continue
		echo "--- end of $f"
		tail -n 15 "$f"
	done
	echo
}

build_and_install() {
	local format arch
	format=$(package_format)
	step "building (the first time takes a few minutes)"
	.ci/setup-system packaging/demo/packages
	arch=$(go env GOHOSTARCH)
	rm -f dist/*."$format"
	VERSION=$version COMMIT=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown) ARCHS=$arch \
		packaging/build.sh "agent portal" "$format" | sed -nu -E 's/^(package|setup): /    /p'

	# With sudo the clone belongs to somebody else, who wants to build there too.
	[[ -z ${SUDO_UID:-} ]] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" bin dist .tools 2>/dev/null || true

	step "installing"
	echo "version $version" >"$marker"
	stop_all
	if listening; then
		die "something else listens on $listen; choose another address: BULWARK_PORTAL_LISTEN=127.0.0.1:PORT make up"
	fi
	# Before the packages, whose installation starts the unit.
	if systemd_runs && [[ -n ${BULWARK_WATCH:-} ]]; then
		mkdir -p "$(dirname "$drop_in")"
		printf '[Service]\nExecStart=\nExecStart=%s run --only-mounts %s\n' "$programs/bulwarkd" "$BULWARK_WATCH" >"$drop_in"
	else
		rm -f "$drop_in"
	fi
	install_packages dist/*."$format"
}

start_portal() {
	step "starting the portal on $portal_url"
	if systemd_runs; then
		printf 'PORTAL_LISTEN=%s\nPORTAL_HOST_NAME=localhost,%s\n' "$listen" "$host" >"$portal_config/portal.env"
		systemctl daemon-reload
		systemctl enable -q --now bulwark-portal.service
	else
		install -d -m 0755 /run/bulwark-portal
		setsid "$programs/bulwarkd" supervise --name bulwark-portal --pidfile "$portal_pid" --log "$portal_log" \
			--simple --user bulwark-portal --stop-timeout 30s -- \
			"$programs/bulwark-portal" serve --listen "$listen" --data-dir "$portal_data" --host-name "localhost,$host" \
			</dev/null >/dev/null 2>&1 &
	fi
	for ((i = 0; i < patience * 10; i++)); do
		listening && return
		sleep 0.1
	done
	diagnose
	die "the portal does not listen on $listen after ${patience} s; see its log above"
}

credentials=
create_administrator() {
	local out
	step "creating the administrator"
	if out=$(as_portal "$programs/bulwark-portal" admin create --data-dir "$portal_data" --name admin 2>&1); then
		credentials=$out
	elif [[ $out == *"exists already"* ]]; then
		credentials="the account admin exists already; a new one-time password:
  runuser -u bulwark-portal -- bulwark-portal admin reset-password --name admin"
	else
		die "cannot create the administrator: $out"
	fi
}

onboard() {
	if [[ -f $config/onboard.json && -n $(ls -A "$state/identity" 2>/dev/null) ]]; then
		step "keeping the agent's identity"
	else
		step "onboarding the agent"
		as_portal "$programs/bulwark-portal" onboarding create --data-dir "$portal_data" \
			--portal-url "$portal_url" --out "$portal_data/onboard.json" >/dev/null ||
			die "cannot make the onboarding package"
		install -m 0600 -o root -g root "$portal_data/onboard.json" "$config/onboard.json"
		rm -f "$portal_data/onboard.json"
	fi
	install -d -m 0755 "$config/managed"
	[[ -e $config/managed/managed.json ]] ||
		printf '{\n  "antivirusEngine": {\n    "enforcementLevel": "real_time"\n  }\n}\n' >"$config/managed/managed.json"
}

start_agent() {
	step "starting the agent"
	if systemd_runs; then
		systemctl daemon-reload
		systemctl restart bulwark.service || true # its health is looked at below
		return
	fi
	install -d -m 0755 /run/bulwark
	local watch=()
	[[ -z ${BULWARK_WATCH:-} ]] || watch=(--only-mounts "$BULWARK_WATCH")
	setsid "$programs/bulwarkd" supervise --name bulwarkd --pidfile "$agent_pid" --log "$logs/supervise.log" -- \
		"$programs/bulwarkd" run "${watch[@]}" </dev/null >/dev/null 2>&1 &
}

wait_for_health() {
	local healthy='' said=0 since=$SECONDS waited
	step "waiting for health"
	while healthy=$(timeout 10 "$programs/bulwark" health --field healthy 2>/dev/null) || true; [[ $healthy != true ]]; do
		waited=$((SECONDS - since))
		if ((waited >= patience)); then
			diagnose
			die "not healthy after ${patience}s; the reasons are above. make down removes everything again."
		fi
		if ((waited - said >= 10)); then
			said=$waited
			note "${waited}s: $(timeout 10 "$programs/bulwark" health --field health_issues 2>&1 | tr '\n' ' ' | cut -c1-150)"
		fi
		sleep 0.5
	done
	note "healthy after $((SECONDS - since))s"
}

report() {
	cat <<TEXT

This host is protected (took $((SECONDS - begin))s).

Portal: $portal_url (its certificate is from its own CA; the browser asks once)
$credentials

Try next:
  bulwark health
  bulwark selftest
  printf '%s%s' 'X5O!P%@AP[4\\PZX54(P^)7CC)7}\$EICAR-' 'STANDARD-ANTIVIRUS-TEST-FILE!\$H+H*' >/tmp/eicar.com
  cat /tmp/eicar.com            (is refused)
  bulwark threat list
  bulwark scan custom --path /usr
  make down                     (stops and removes everything)
TEXT
}

build_and_install
start_portal
create_administrator
onboard
start_agent
wait_for_health
report
