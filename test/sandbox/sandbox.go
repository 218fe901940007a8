// Package sandbox runs shell commands that would harm a host, attack
// techniques for example, where they cannot: as root of a throwaway copy of
// the file system, without a network and without the capabilities that reach
// the kernel.
//
// The copy is an overlay over the host's root with its changes in memory; what
// the host keeps elsewhere (home folders, temporary folders, sockets) is not
// in it. It has its own mount, process, network, IPC and host name namespaces
// and ends with all its processes when its time is over.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// dropped are the capabilities with which root could reach the kernel or the
// host from inside.
const dropped = "-sys_admin,-sys_module,-sys_boot,-sys_time,-sys_rawio,-syslog,-mac_admin,-mac_override,-audit_control,-audit_write," +
	"-mknod,-bpf,-perfmon,-sys_ptrace,-sys_nice,-sys_resource,-wake_alarm,-block_suspend,-checkpoint_restore,-linux_immutable,-lease"

// enter makes the copy and goes into it. $1 is the folder for it, $2 the time
// in seconds; the script to run is $1/script, its programs $1/bin.
const enter = `set -e
mount --make-rprivate /
mount -t tmpfs -o size=1g,mode=755 sandbox "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work" "$1/layer/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/layer/upper,workdir=$1/layer/work" sandbox "$1/layer/root"
cp "$1/script" "$1/layer/script"; cp -r "$1/bin" "$1/layer/bin"
cd "$1/layer/root"
layer=$1/layer time=$2 entered=$1/entered
# Only the system itself is shown, not what the host keeps beside it.
for d in * var/tmp opt/hostedtoolcache; do
	case $d in bin | sbin | lib* | usr | etc | var | opt | boot | dev | proc | sys) continue ;; esac
	if [ -d "$d" ] && [ ! -L "$d" ]; then mount -t tmpfs -o size=256m,mode=1777 sandbox "$d"; fi
done
mount -t tmpfs -o size=16m,mode=755 sandbox dev
mkdir dev/shm dev/pts
mount -t tmpfs -o size=64m,mode=1777 sandbox dev/shm
for n in "null 3" "zero 5" "full 7" "random 8" "urandom 9" "tty 0"; do
	set -- $n; [ "$1" = tty ] && mknod -m 666 dev/tty c 5 0 || mknod -m 666 "dev/$1" c 1 "$2"
done
ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
cp "$layer/script" run/script; cp -r "$layer/bin" run/bin
mkdir -p etc/cron.d var/spool/cron/crontabs var/spool/mail var/mail
touch root/.bashrc root/.profile root/.bash_history
mount -t proc proc proc
for d in sys irq bus fs; do if [ -d "proc/$d" ]; then mount --bind "proc/$d" "proc/$d"; mount -o remount,bind,ro "proc/$d"; fi; done
for f in sysrq-trigger kcore kmsg timer_list; do if [ -e "proc/$f" ]; then mount --bind dev/null "proc/$f"; fi; done
mount -t sysfs -o ro sysfs sys
hostname sandbox
mkdir run/old
: > "$entered"
pivot_root . run/old
cd /
umount -l /run/old
exec setpriv --bounding-set=` + dropped + ` --inh-caps=` + dropped + ` \
	env -i PATH=/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root SHELL=/bin/bash TERM=dumb LANG=C \
	timeout -k 2 "$time" nice -n 10 /bin/bash /run/script
`

// Box runs scripts. StandIns are names of programs that do nothing and succeed
// where the host lacks them: for a rule it is enough that they are started.
type Box struct {
	StandIns []string
	Time     time.Duration // of one script; 20 s when zero
}

// Result of a script.
type Result struct {
	PID    int    // of the box's first process, in the host's numbers
	Output string // both streams, at most 64 KiB
	Err    error  // of the script: its exit status
	// Missing are the stand-ins that were put in.
	Missing []string
}

// Need skips the test where a sandbox cannot be made.
func Need(t testing.TB) {
	t.Helper()
	need.Root(t)
	for _, c := range []string{"unshare", "setpriv", "mount", "pivot_root", "timeout", "bash"} {
		need.Command(t, c)
	}
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(data), "overlay") {
		need.Missing(t, "the overlay file system")
	}
}

// limited keeps the first bytes.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	if n := 64<<10 - len(l.b); n > 0 {
		l.b = append(l.b, p[:min(n, len(p))]...)
	}
	return len(p), nil
}

// Run runs a script for bash to its end. The error is of the box, not of the
// script.
func (b *Box) Run(ctx context.Context, dir, script string) (Result, error) {
	limit := b.Time
	if limit == 0 {
		limit = 20 * time.Second
	}
	bin := filepath.Join(dir, "bin")
	for _, d := range []string{bin, filepath.Join(dir, "layer")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return Result{}, err
		}
	}
	var r Result
	for _, name := range b.StandIns {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if err := copyProgram("/bin/true", filepath.Join(bin, name)); err != nil {
			return r, fmt.Errorf("stand-in for %s: %w", name, err)
		}
		r.Missing = append(r.Missing, name)
	}
	slices.Sort(r.Missing)
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o644); err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--propagation", "private",
		"/bin/sh", "-c", enter, "sandbox", dir, fmt.Sprint(int(limit.Seconds())))
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	r.PID = cmd.Process.Pid
	r.Err = cmd.Wait()
	r.Output = string(out.b)
	if _, err := os.Stat(filepath.Join(dir, "entered")); err != nil {
		return r, fmt.Errorf("the sandbox could not be made: %w; %s", r.Err, r.Output)
	}
	return r, nil
}

func copyProgram(from, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return errors.Join(err, dst.Close())
	}
	return dst.Close()
}
