//go:build system

package system

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/control"
)

// oldKernel is the argument with which this test program becomes another one
// that is refused what Linux 3.10 has not; with oldKernelProbe it says whether
// that works.
const (
	oldKernel      = "old-kernel"
	oldKernelProbe = "old-kernel-probe"
)

// oldKernelProgram is the rest of os.Args for these; it returns only when it fails.
func oldKernelProgram(args []string) error {
	if args[0] == oldKernelProbe {
		_, memfd := unix.MemfdCreate("probe", 0)
		_, group := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID, 0)
		fmt.Printf("%v, %v\n", memfd, group)
		os.Exit(0)
	}
	runtime.LockOSThread() // the filter is the thread's, and goes along with exec
	if err := unlike310(); err != nil {
		return err
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	return unix.Exec(path, args[1:], os.Environ())
}

// unlike310 makes system calls and flags that came after Linux 3.10 fail for
// this thread as they do there. finit_module, of 3.8, has the highest number of
// 3.10 on amd64 and arm64.
func unlike310() error {
	const (
		ret     = unix.BPF_RET | unix.BPF_K
		load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		mask    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		greater = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		nosys   = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		invalid = unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)
		// fanotify(7), 3.10: all but what came later.
		initFlags = unix.FAN_CLOEXEC | unix.FAN_NONBLOCK | unix.FAN_CLASS_CONTENT | unix.FAN_CLASS_PRE_CONTENT | unix.FAN_UNLIMITED_QUEUE | unix.FAN_UNLIMITED_MARKS
		markFlags = unix.FAN_MARK_ADD | unix.FAN_MARK_REMOVE | unix.FAN_MARK_DONT_FOLLOW | unix.FAN_MARK_ONLYDIR | unix.FAN_MARK_MOUNT |
			unix.FAN_MARK_IGNORED_MASK | unix.FAN_MARK_IGNORED_SURV_MODIFY | unix.FAN_MARK_FLUSH
		events = unix.FAN_ACCESS | unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE | unix.FAN_CLOSE_NOWRITE | unix.FAN_OPEN | unix.FAN_OPEN_PERM | unix.FAN_ACCESS_PERM |
			unix.FAN_ONDIR | unix.FAN_EVENT_ON_CHILD
		argument = 16 // of struct seccomp_data; each has 8 bytes, the lower half first
	)
	program := []unix.SockFilter{
		{Code: load, K: 0}, // the call's number
		{Code: greater, K: unix.SYS_FINIT_MODULE, Jt: 0, Jf: 1},
		{Code: ret, K: nosys},
		{Code: equal, K: unix.SYS_FANOTIFY_INIT, Jt: 0, Jf: 4},
		{Code: load, K: argument},
		{Code: mask, K: ^uint32(initFlags)},
		{Code: equal, K: 0, Jt: 12, Jf: 0}, // to the end
		{Code: ret, K: invalid},
		{Code: equal, K: unix.SYS_FANOTIFY_MARK, Jt: 0, Jf: 6},
		{Code: load, K: argument + 8},
		{Code: mask, K: ^uint32(markFlags)},
		{Code: equal, K: 0, Jt: 0, Jf: 7}, // else invalid
		{Code: load, K: argument + 16},
		{Code: mask, K: ^uint32(events)},
		{Code: equal, K: 0, Jt: 4, Jf: 4},
		{Code: equal, K: unix.SYS_PRCTL, Jt: 0, Jf: 3},
		{Code: load, K: argument},
		{Code: equal, K: unix.PR_CAP_AMBIENT, Jt: 1, Jf: 0}, // 4.3
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: invalid},
	}
	// The targets of the longer jumps, by what is there.
	program[6].Jt = uint8(18 - 7)
	program[11].Jf = uint8(20 - 12)
	program[14].Jt, program[14].Jf = uint8(18-15), uint8(20-15)
	program[15].Jf = uint8(18 - 16)
	program[17].Jt, program[17].Jf = uint8(20-18), 0
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// TestOldKernel runs the agent without everything that came after Linux 3.10, the
// oldest kernel that it is for: it starts, protects, scans, quarantines and
// restores, and says what is missing.
func TestOldKernel(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.wrap = []string{self, oldKernel}
	out, err := exec.Command(self, oldKernel, self, oldKernelProbe).CombinedOutput()
	if want := unix.ENOSYS.Error() + ", " + unix.EINVAL.Error() + "\n"; err != nil || string(out) != want {
		t.Fatalf("the filter does not work: %q, %v; want %q", out, err, want)
	}
	bad := filepath.Join(p.watch, "bad.com")
	if err := os.WriteFile(bad, eicar(), 0o700); err != nil {
		t.Fatal(err)
	}
	p.startAgent()
	p.until("the agent protects", func() error {
		r := p.run("health", "--field", "real_time_protection_enabled")
		if !strings.Contains(r.stdout, "true") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		if r = p.run("health", "--field", "definitions_status"); !strings.Contains(r.stdout, "up_to_date") && !strings.Contains(r.stdout, "out_of_date") {
			return fmt.Errorf("definitions: %s%s", r.stdout, r.stderr)
		}
		return nil
	})
	daemon := p.one("bulwarkd", "run")

	var details control.HealthDetails
	p.query(&details, "health", "--details", "antivirus")
	for name, want := range map[string]any{
		"kernel_permission_events": true, "kernel_exec_events": false, "kernel_filesystem_marks": false, "kernel_evictable_marks": false, "blocking": true, "guard_running": true,
	} {
		i := slices.IndexFunc(details.Fields, func(f control.Field) bool { return f.Name == name })
		if i < 0 || details.Fields[i].Value != want {
			t.Errorf("%s is not %v: %+v", name, want, details.Fields)
		}
	}
	p.refuses("before the agent's start", bad) // or gone: agents of other tests may have opened it first
	p.threat(bad, "quarantined")
	written := filepath.Join(p.watch, "written.com")
	if err := os.WriteFile(written, eicar(), 0o700); err != nil {
		t.Fatal(err)
	}
	p.threat(written, "quarantined")

	// A scan looks into archives, and a file comes back where it was.
	archive := filepath.Join(t.TempDir(), "archive.zip")
	if err := os.WriteFile(archive, zipOf(t, "inside.com", eicar()), 0o600); err != nil {
		t.Fatal(err)
	}
	p.write(p.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "on_demand"}}`)
	p.until("real-time protection is off", func() error {
		if got := p.run("health", "--field", "real_time_protection_enabled").stdout; !strings.Contains(got, "false") {
			return errors.New(got)
		}
		return nil
	})
	if r := p.run("scan", "custom", "--path", archive); r.status != 1 {
		t.Errorf("scan: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	p.must("threat", "quarantine", "restore", "threat-path", "--path", bad)
	if b, err := os.ReadFile(bad); err != nil || string(b) != string(eicar()) {
		t.Errorf("restored: %q, %v", b, err)
	}
	if _, err := os.Stat(written); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other file came back too: %v", err)
	}
	if now := p.one("bulwarkd", "run"); now != daemon {
		t.Errorf("the daemon was restarted: process %d, then %d", daemon, now)
	}
	t.Log(p.must("health", "--explain"))
}
