# ---- arguments --------------------------------------------------------------
action='' channel=prod onboard_file='' offboard_file='' offboarding='' mode='' tags='' skip_conflict='' check='' clean=''
say_no='' log_path='' package_version='' package_file='' local_repo='' no_verify='' soft='' only_onboard='' channel_given=''

want() { [ "$2" -ge 2 ] || die $BAD_ARGUMENTS "$1 needs a value"; }
act() {
	[ -z "$action" ] || [ "$action" = "$1" ] || die $BAD_ARGUMENTS "--$action and --$1 exclude each other"
	action=$1
}

while [ $# -gt 0 ]; do
	option=$1
	case $option in
	-i | --install) act install ;;
	-u | --upgrade | --update) act upgrade ;;
	-l | --downgrade) act downgrade ;;
	-r | --remove) act remove ;;
	--purge) act purge ;;
	--verify) act verify ;;
	--connectivity-test) act connectivity ;;
	-m | --min_req) act min_req ;;
	-w | --clean) clean=1 ;;
	--check) check=1 ;;
	-c | --channel) want "$option" $# && channel=$2 channel_given=1 && shift ;;
	-o | --onboard) want "$option" $# && onboard_file=$2 && shift ;;
	--only-onboard) only_onboard=1 ;;
	-f | --offboard)
		offboarding=1
		case ${2:--} in -*) ;; *) offboard_file=$2 && shift ;; esac
		;;
	-p | --passive-mode)
		[ "$mode" != real_time ] || die $BAD_ARGUMENTS "--passive-mode and --rtp-mode exclude each other"
		mode=passive
		;;
	-a | --rtp-mode)
		[ "$mode" != passive ] || die $BAD_ARGUMENTS "--passive-mode and --rtp-mode exclude each other"
		mode=real_time
		;;
	-t | --tag)
		[ $# -ge 3 ] || die $BAD_ARGUMENTS "--tag needs a name and a value"
		case $2 in
		GROUP | SecurityWorkspaceId | AzureResourceId | SecurityAgentId) ;;
		*) die $BAD_TAG "the tag $2 is not supported: GROUP, SecurityWorkspaceId, AzureResourceId, SecurityAgentId" ;;
		esac
		case $3 in '' | *'	'* | *'
'*) die $BAD_TAG "the value of tag $2 is empty or has a tab or line break in it" ;; esac
		tags="$tags$2	$3
"
		shift 2
		;;
	-x | --skip_conflict) skip_conflict=1 ;;
	--pre-req-non-blocking) soft=1 ;;
	--no-verify) no_verify=1 ;;
	-y | --yes) say_no='' ;;
	-n | --no) say_no=1 ;;
	-s | --verbose) verbose=1 ;;
	-d | --debug) set -x ;;
	--log-path) want "$option" $# && log_path=$2 && shift ;;
	--https-proxy) want "$option" $# && https_proxy=$2 HTTPS_PROXY=$2 && export https_proxy HTTPS_PROXY && shift ;;
	--http-proxy) want "$option" $# && http_proxy=$2 HTTP_PROXY=$2 && export http_proxy HTTP_PROXY && shift ;;
	--ftp-proxy) want "$option" $# && ftp_proxy=$2 && export ftp_proxy && shift ;;
	--package-version | --mdatp) want "$option" $# && package_version=$2 && shift ;;
	--package) want "$option" $# && package_file=$2 && shift ;;
	--use-local-repo) local_repo=1 ;;
	--repo-url) want "$option" $# && REPO_URL=${2%/} && shift ;;
	-b | --install-path) die $PATH_UNSUPPORTED "--install-path: the agent lives in /opt/bulwark; make that a link or mount before you install" ;;
	-v | --version)
		echo "$SCRIPT_VERSION"
		exit $OK
		;;
	-h | --help)
		usage
		exit $OK
		;;
	*) die $BAD_ARGUMENTS "unknown argument $option; --help lists them" ;;
	esac
	shift
done

case $channel in
prod | insiders-slow | insiders-fast) ;;
*) die $BAD_CHANNEL "channel $channel: use prod, insiders-slow or insiders-fast" ;;
esac
case $package_version in *[!A-Za-z0-9.+~:_-]* | -*) die $BAD_ARGUMENTS "--package-version $package_version is no version" ;; esac
if [ -n "$local_repo" ] && [ -n "$channel_given$clean" ]; then die $BAD_ARGUMENTS "--use-local-repo excludes --channel and --clean"; fi
[ -z "$only_onboard" ] || [ -n "$onboard_file" ] || die $BAD_ARGUMENTS "--only-onboard needs --onboard FILE"
if [ -z "$action$clean$offboarding" ] && { [ -n "$onboard_file" ] || [ -n "$tags$mode" ] || [ -n "$check" ]; }; then
	action=install
	[ -z "$only_onboard" ] || action=onboard
	[ -n "$onboard_file$check" ] || action=settings
fi
if [ "$action" = min_req ]; then
	requirements
	exit $OK
fi
[ -n "$action$clean$offboarding" ] || {
	usage >&2
	exit $BAD_ARGUMENTS
}
if [ -n "$onboard_file" ]; then
	[ -s "$onboard_file" ] || die $NO_ONBOARDING "the onboarding file $onboard_file is missing or empty"
	case $onboard_file in
	*.py | *.sh | *.json) ;;
	*.zip) die $BAD_ARGUMENTS "$onboard_file: unpack it, and name the file in it" ;;
	*) die $BAD_ARGUMENTS "$onboard_file: want onboard.json, a .sh or a .py" ;;
	esac
	case $onboard_file in *.json) grep -q '"bulwark-onboarding/' "$onboard_file" || die $ONBOARDING_FAILED "$onboard_file is no onboarding package; copy it again, byte for byte" ;; esac
fi
if [ -n "$offboard_file" ] && [ ! -s "$offboard_file" ]; then die $NO_OFFBOARDING "the offboarding file $offboard_file is missing or empty"; fi
if [ -n "$package_file" ]; then
	[ -s "$package_file" ] || die $BAD_ARGUMENTS "the package $package_file is missing or empty"
	package_file=$(cd "$(dirname "$package_file")" && pwd)/$(basename "$package_file")
fi

if [ -n "$check" ]; then
	root=${BULWARK_CHECK_ROOT:-}
	detect
	[ -n "$root" ] || find_manager
	check_requirements
	check_conflicts
	say "$name: family $family${manager:+, by $manager}${REPO_URL:+, from $REPO_URL, channel $channel}; would $action${onboard_file:+ and onboard}."
	[ $unfit -eq 0 ] || die $TOO_SMALL "$unfit requirement(s) are not met; nothing was changed"
	say "The host is fit. Nothing was changed."
	exit $OK
fi

[ "$(id -u)" -eq 0 ] || die $NOT_ROOT "run it as root"
work=$(mktemp -d "${TMPDIR:-/tmp}/bulwark-install.XXXXXX") || die $INTERNAL "no temporary folder"
: >"$work/undo"
log=${log_path:-$work/log}
: >>"$log" || die $BAD_ARGUMENTS "--log-path $log cannot be written"
trap leave EXIT
trap 'exit 1' HUP INT TERM
log_line "install.sh $SCRIPT_VERSION: $action"
detect
find_manager

case $action in
install)
	if ! installed_version >/dev/null; then
		check_requirements
		if [ $unfit -ne 0 ] && [ -z "$soft" ]; then die $TOO_SMALL "$unfit requirement(s) are not met; --pre-req-non-blocking installs all the same"; fi
		check_conflicts
	fi
	do_install
	;;
upgrade | downgrade) do_change "$action" ;;
esac
[ -z "$onboard_file" ] || onboard
settings
case $action in
install | upgrade | downgrade | onboard) [ -n "$no_verify" ] || verify ;;
verify) verify ;;
connectivity) connectivity || exit $? ;;
esac
[ -z "$offboarding" ] || offboard
case $action in remove | purge) do_remove "$action" ;; esac
[ -z "$clean" ] || clean_repository
exit $OK
