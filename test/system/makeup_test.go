//go:build system

package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// makeUpScript runs in a mount namespace of its own, where everything that
// `make up` writes to lies below a tmpfs; the host keeps nothing of it. The
// process ids are the host's, since the agent's sensors speak of these.
const makeUpScript = `
set -euo pipefail
scratch=$1
mount -t tmpfs bulwark-system-test "$scratch"
for d in opt etc var usr run; do
	mkdir -p "$scratch/$d/upper" "$scratch/$d/work"
	mount -t overlay overlay -o "lowerdir=/$d,upperdir=$scratch/$d/upper,workdir=$scratch/$d/work" "/$d"
done
# The host's systemd does not see this namespace.
rm -rf /run/systemd
mkdir "$scratch/watched"
mount -t tmpfs bulwark-system-test "$scratch/watched"
export BULWARK_WATCH=$scratch/watched

snapshot() {
	find /opt /etc /var/opt /var/log /var/lib /usr/bin /usr/lib/systemd /usr/share/doc /run -xdev \
		\( -path /var/lib/dpkg -o -path /var/log/dpkg.log -o -path /var/lib/systemd \) -prune -o -printf '%p %m %u\n' 2>/dev/null |
		grep -vE '^(/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|/etc/\.pwd\.lock|/run|/etc|/var/lib) ' | sort
}
healthy() { [[ $(bulwark health --field healthy) == true ]]; }

snapshot >"$scratch/before"
make down                         # before any up: nothing to do
make up
healthy
id=$(bulwark health --field edr_machine_id)

echo "--- again: the identity stays"
make up
healthy
[[ $(bulwark health --field edr_machine_id) == "$id" ]]

echo "--- after a crash of the supervisors"
kill -9 "$(cat /run/bulwark/supervise.pid)" "$(cat /run/bulwark-portal/supervise.pid)"
make up
healthy

echo "--- protection works"
printf '%s%s' 'X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-' 'STANDARD-ANTIVIRUS-TEST-FILE!$H+H*' >"$BULWARK_WATCH/eicar.com"
if cat "$BULWARK_WATCH/eicar.com"; then echo "EICAR was readable"; exit 1; fi

echo "--- down after a crash, with a pid file that names somebody else"
kill -9 "$(cat /run/bulwark/supervise.pid)"
sleep 600 &
echo $! >/run/bulwark/supervise.pid
make down
kill $!                           # still there: it was none of ours
snapshot >"$scratch/after"
diff "$scratch/before" "$scratch/after"
if getent passwd bulwark bulwark-portal; then echo "accounts are left"; exit 1; fi
make down
echo "--- all well"
`

// TestMakeUpAndDown does what the README says first, twice, and with crashes in
// between.
func TestMakeUpAndDown(t *testing.T) {
	need.Root(t)
	need.Command(t, "dpkg")
	for _, path := range []string{"/opt/bulwark", "/var/lib/bulwark-make-up"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is there: Bulwark is installed on this host, and the test would disturb it (make down removes it)", path)
		}
	}
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	// Outside of the namespace, so that downloads see the host's network set-up.
	tools := exec.Command(".ci/setup-tools", "nfpm")
	tools.Dir = top
	if out, err := tools.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(killInstalled)
	// It builds everything three times, on a host that may be busy.
	ctx, cancel := context.WithTimeout(context.Background(), 2*deadman)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "bash", "-c", makeUpScript, "make-up", t.TempDir())
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "BULWARK_PORTAL_LISTEN="+freeAddress(t), fmt.Sprintf("BULWARK_PATIENCE=%.0f", patience.Seconds()))
	cmd.WaitDelay = 10 * time.Second // its daemons may hold the output open
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- all well") {
		t.Fatalf("%v\n%s", err, tail(out, 150))
	}
}

// killInstalled ends what a failed run left; no other installation is there.
func killInstalled() {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(exe, "/opt/bulwark/bin/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
