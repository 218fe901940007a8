//go:build install

package install

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// patience bounds every command. It is no statement about speed.
const patience = 15 * time.Minute

// host is this machine with changes of its own, which end with it.
type host struct {
	t      *testing.T
	holder *exec.Cmd // keeps the namespace
	dir    string    // the root folder, inside the namespace only
	upper  string    // what is different from this machine, as seen through the holder
}

// setUp mounts the copy below $1. /var/tmp is a file system of its own: the only
// one that real-time protection is let near.
const setUp = `set -e
mount --make-rprivate /
mount -t tmpfs -o size=4g none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount --rbind /sys "$1/root/sys"
mount -t tmpfs -o mode=1777 none "$1/root/tmp"
mount -t tmpfs none "$1/root/run"
mount -t tmpfs -o mode=1777,size=64m none "$1/root/var/tmp"
rm -f "$1"/root/etc/apt/sources.list "$1"/root/etc/apt/sources.list.d/* "$1"/root/usr/sbin/policy-rc.d
# This machine may have the account, of a test that runs beside.
for f in passwd shadow group gshadow; do sed -i '/^bulwark:/d' "$1/root/etc/$f"; done
# An index of the manual pages takes longer than everything else that dpkg does.
ln -sf true "$1/root/usr/bin/mandb"
# Where dnf, zypper and rpm of Debian expect the database.
mkdir -p "$1/root/root" "$1/root/var/lib/rpm"
echo '%_dbpath /var/lib/rpm' >"$1/root/root/.rpmmacros"
echo ready
exec sleep 3600
`

func newHost(t *testing.T) *host {
	t.Helper()
	need.Root(t)
	// Not a folder of the test: its name may have characters that mean something
	// to mount.
	dir, err := os.MkdirTemp("", "bulwark-host-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, dir: filepath.Join(dir, "root")}
	h.holder = exec.Command("unshare", "--mount", "sh", "-c", setUp, "sh", dir)
	h.holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.holder.Stderr = os.Stderr
	out, err := h.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.end()
		_ = h.holder.Wait() // it was killed
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		need.Missing(t, "a copy of this machine (overlay in a mount namespace): %q, %v", line, err)
	}
	h.upper = filepath.Join("/proc", strconv.Itoa(h.holder.Process.Pid), "root", dir, "upper")
	return h
}

// end kills every process of the host: dnf, for one, leaves a gpg-agent behind,
// which would keep the mounts.
func (h *host) end() {
	space := func(pid string) string {
		link, _ := os.Readlink(filepath.Join("/proc", pid, "ns/mnt"))
		return link
	}
	holder := strconv.Itoa(h.holder.Process.Pid)
	own := space(holder)
	if own != "" && own != space("self") {
		processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
		for _, dir := range processes {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && space(filepath.Base(dir)) == own {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	_ = h.holder.Process.Kill()
}

// path is a file of the host, as this process can open it.
func (h *host) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(h.holder.Process.Pid), "root", h.dir, name)
}

func (h *host) write(name, text string, mode os.FileMode) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path(name), []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) read(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(h.path(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func (h *host) exists(name string) bool {
	_, err := os.Lstat(h.path(name))
	return err == nil
}

// command prepares a command on the host.
func (h *host) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := append([]string{"--mount=/proc/" + strconv.Itoa(h.holder.Process.Pid) + "/ns/mnt", "chroot", h.dir, name}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", all...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "ANSIBLE_FORCE_COLOR=0"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// status runs a command and returns its exit status and words.
func (h *host) status(name string, args ...string) (int, string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	cmd := h.command(ctx, name, args...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	if took := time.Since(begin); took > 2*time.Second {
		h.t.Logf("%.1f s, %.1f s of processor time: %s %s", took.Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), name, strings.Join(args, " "))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// run is a command that must succeed.
func (h *host) run(name string, args ...string) string {
	h.t.Helper()
	code, out := h.status(name, args...)
	if code != 0 {
		h.t.Fatalf("%s %s: exit status %d\n%s", name, strings.Join(args, " "), code, out)
	}
	return out
}

// startAgent starts the daemon, which watches /var/tmp and nothing else, and
// returns a function that ends it. Of the sensors it has the cheapest: what
// others see is no matter of installations, and several daemons run here.
func (h *host) startAgent() (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.command(ctx, "/opt/bulwark/bin/bulwarkd", "run", "-only-mounts", "/var/tmp", "-sensors", "proc-connector")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Minute
	if err := cmd.Start(); err != nil {
		cancel()
		h.t.Fatal(err)
	}
	// Whatever happens to the test, nobody is held longer than this.
	deadman := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	var done bool
	stop = func() {
		if done {
			return
		}
		done = true
		cancel()
		_ = cmd.Wait() // it was told to end
		deadman.Stop()
	}
	h.t.Cleanup(stop)
	end := time.Now().Add(patience / 3)
	for !h.exists("run/bulwark/bulwark.sock") {
		if time.Now().After(end) {
			h.t.Fatalf("the daemon does not start:\n%s", h.read("var/log/bulwark/bulwark.log"))
		}
		time.Sleep(100 * time.Millisecond)
	}
	return stop
}

// ours lists what is on the host of ours, and accounts.
func (h *host) ours() []string {
	h.t.Helper()
	var out []string
	err := filepath.WalkDir(h.upper, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, h.upper)
		if strings.Contains(strings.ToLower(filepath.Base(rel)), "bulwark") {
			out = append(out, rel)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, database := range []string{"passwd", "group"} {
		if code, text := h.status("getent", database, "bulwark"); code == 0 {
			out = append(out, database+": "+strings.TrimSpace(text))
		}
	}
	return out
}

// gone checks that nothing of ours is left but what is allowed.
func (h *host) gone(allowed ...string) {
	h.t.Helper()
	for _, path := range h.ours() {
		st, err := os.Lstat(filepath.Join(h.upper, path))
		whiteout := err == nil && st.Mode()&os.ModeCharDevice != 0
		if !whiteout && !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(path, a) }) {
			h.t.Errorf("left on the host: %s", path)
		}
	}
}

// version is the installed version by the package manager's database.
func (h *host) version(format string) string {
	h.t.Helper()
	if format == "deb" {
		_, out := h.status("dpkg-query", "-W", "-f=${db:Status-Status} ${Version}", "bulwark")
		return strings.TrimPrefix(out, "installed ")
	}
	_, out := h.status("rpm", "-q", "--qf", "%{VERSION}-%{RELEASE}", "bulwark")
	return out
}

func (h *host) wantVersion(format, want string) {
	h.t.Helper()
	if got := h.version(format); got != want {
		h.t.Fatalf("version %q is installed, want %s", got, want)
	}
}

// health is a field of the agent's health.
func (h *host) health(field string) string {
	h.t.Helper()
	_, out := h.status("/opt/bulwark/bin/bulwark", "health", "--field", field)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Trim(lines[len(lines)-1], `"`)
}

func contains(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, text)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// caught checks what install.sh --verify says: the test file was caught when it
// was written.
func caught(h *host, said string) {
	h.t.Helper()
	if !strings.Contains(said, "the EICAR test file was caught when it was written") {
		_, why := h.status("bulwark", "health", "--explain")
		_, all := h.status("bulwark", "health")
		h.t.Errorf("real-time protection did not catch the test file: %s\n%s\n%s", said, why, all)
	}
}
