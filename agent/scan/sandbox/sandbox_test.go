package sandbox

import (
	"encoding/json"
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
	"golang.org/x/sys/unix"
)

// The tests start this test binary again as the process to lock up; it enters
// the sandbox, makes one attempt and prints what came of it.
const (
	probeVariable = "BULWARK_TEST_SANDBOX_PROBE"
	dirVariable   = "BULWARK_TEST_SANDBOX_DIR"
	pidVariable   = "BULWARK_TEST_SANDBOX_VICTIM"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(probeVariable); name != "" {
		os.Exit(probe(name))
	}
	os.Exit(m.Run())
}

func probe(name string) int {
	p := Profile{UID: 65534, GID: 65534, MaxFiles: 64, Root: os.NewFile(3, "empty directory")}
	data := os.NewFile(4, "file opened for reading and writing")
	if dir := os.Getenv(dirVariable); dir != "" {
		p.ReadDirs = []string{dir}
		p.Root = nil
		p.ReadAll = true
		p.MaxFileSize = 1 << 20
	}
	report, err := Enter(p)
	if err != nil {
		fmt.Println("enter:", err)
		return 3
	}
	if name == "report" {
		out, _ := json.Marshal(report)
		fmt.Println(string(out))
		return 0
	}
	attempt := attempts[name]
	if attempt == nil {
		attempt = readingAttempts[name]
	}
	if err := attempt(data); err != nil {
		fmt.Println("refused:", err)
		return 0
	}
	fmt.Println("done")
	return 0
}

func victim() int {
	pid, _ := strconv.Atoi(os.Getenv(pidVariable))
	return pid
}

// attempts are what hostile code would try.
var attempts = map[string]func(data *os.File) error{
	"open for reading": func(*os.File) error { return open("/etc/passwd", unix.O_RDONLY) },
	"open the root":    func(*os.File) error { return open("/", unix.O_RDONLY|unix.O_DIRECTORY) },
	"create a file":    func(*os.File) error { return open("/tmp/bulwark-sandbox-probe", unix.O_CREAT|unix.O_WRONLY) },
	"make a directory": func(*os.File) error { return unix.Mkdir("/tmp/bulwark-sandbox-probe", 0o700) },
	"remove a file":    func(*os.File) error { return unix.Unlink("/etc/bulwark-no-such-file") },
	"stat a file": func(*os.File) error {
		var st unix.Stat_t
		return unix.Stat("/etc/passwd", &st)
	},
	"write to an open file": func(f *os.File) error {
		_, err := f.Write([]byte("x"))
		return err
	},
	"change an open file's mode": func(f *os.File) error { return unix.Fchmod(int(f.Fd()), 0o777) },
	"truncate an open file":      func(f *os.File) error { return unix.Ftruncate(int(f.Fd()), 0) },
	"TCP socket":                 func(*os.File) error { return socket(unix.AF_INET) },
	"TCP6 socket":                func(*os.File) error { return socket(unix.AF_INET6) },
	"local socket":               func(*os.File) error { return socket(unix.AF_UNIX) },
	"netlink socket":             func(*os.File) error { return socket(unix.AF_NETLINK) },
	"execute":                    func(*os.File) error { return unix.Exec("/bin/true", []string{"true"}, nil) },
	"fork": func(*os.File) error {
		_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		return asError(errno)
	},
	"kill another process":  func(*os.File) error { return unix.Kill(victim(), unix.SIGKILL) },
	"signal its thread":     func(*os.File) error { return unix.Tgkill(victim(), victim(), unix.SIGKILL) },
	"trace another process": func(*os.File) error { return unix.PtraceAttach(victim()) },
	"read another's memory": func(*os.File) error {
		buf := make([]byte, 8)
		local := unix.Iovec{Base: &buf[0]}
		local.SetLen(8)
		_, err := unix.ProcessVMReadv(victim(), []unix.Iovec{local}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
		return err
	},
	"become root": func(*os.File) error { return unix.Setuid(0) },
	"new user namespace": func(*os.File) error {
		return unix.Unshare(unix.CLONE_NEWUSER)
	},
	"executable memory": func(*os.File) error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	},
	"memory file":  func(*os.File) error { _, err := unix.MemfdCreate("x", 0); return err },
	"load BPF":     func(*os.File) error { _, _, e := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return asError(e) },
	"io_uring":     func(*os.File) error { _, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return asError(e) },
	"leave chroot": func(*os.File) error { return unix.Chdir("/..") },
}

// readingAttempts are made where a folder may be read.
var readingAttempts = map[string]func(*os.File) error{
	"reading: read below":  func(*os.File) error { return open(filepath.Join(os.Getenv(dirVariable), "source"), unix.O_RDONLY) },
	"reading: write below": func(*os.File) error { return open(filepath.Join(os.Getenv(dirVariable), "source"), unix.O_WRONLY) },
	"reading: create below": func(*os.File) error {
		return open(filepath.Join(os.Getenv(dirVariable), "new"), unix.O_CREAT|unix.O_RDWR)
	},
}

func open(path string, flags int) error {
	_, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	return err
}

func socket(family int) error {
	kind := unix.SOCK_STREAM
	if family == unix.AF_NETLINK {
		kind = unix.SOCK_RAW
	}
	_, err := unix.Socket(family, kind, 0)
	return err
}

func asError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// run starts a probe and returns what it printed; killed is true when the
// kernel ended it for the attempt (SIGSYS).
func run(t *testing.T, name string, env ...string) (out string, killed bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	gone, err := os.Open(empty)
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if err := os.Remove(empty); err != nil {
		t.Fatal(err)
	}
	data, err := os.OpenFile(filepath.Join(t.TempDir(), "data"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if _, err := data.WriteString("some content"); err != nil {
		t.Fatal(err)
	}
	victim := exec.Command("sleep", "60")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), probeVariable+"="+name, pidVariable+"="+strconv.Itoa(victim.Process.Pid)), env...)
	cmd.ExtraFiles = []*os.File{gone, data}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	cmd.WaitDelay = 20 * time.Second
	stdout, err := cmd.Output()

	if victim.Process.Signal(syscall.Signal(0)) != nil {
		t.Errorf("%s: the other process is gone", name)
	}
	victim.Process.Kill()
	state, _ := victim.Process.Wait()
	if ws, ok := state.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Errorf("%s: the other process ended by itself: %v", name, state)
	}
	if content, _ := os.ReadFile(data.Name()); string(content) != "some content" {
		t.Errorf("%s: the file was changed: %q", name, content)
	}

	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGSYS {
			return string(stdout), true
		}
		t.Fatalf("%s: probe ended with %v: %s%s", name, err, stdout, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(stdout)), false
}

func TestEveryAttemptIsRefused(t *testing.T) {
	need.Root(t)
	for name := range attempts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, killed := run(t, name)
			if killed {
				return
			}
			// The reason must be the sandbox, not that the thing does not exist.
			for _, reason := range []error{unix.EPERM, unix.EACCES, unix.EFBIG} {
				if strings.HasPrefix(out, "refused:") && strings.HasSuffix(out, reason.Error()) {
					return
				}
			}
			t.Fatalf("not refused by the sandbox: %q", out)
		})
	}
}

// The attempts must succeed without the sandbox, else their refusal shows
// nothing.
func TestAttemptsWorkOutside(t *testing.T) {
	need.Root(t)
	for _, name := range []string{"open for reading", "open the root", "stat a file", "TCP socket", "netlink socket", "memory file", "executable memory"} {
		if err := attempts[name](nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReport(t *testing.T) {
	need.Root(t)
	out, _ := run(t, "report")
	var r Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	want := []string{
		PropertyUser, PropertyCapabilities, PropertyNoNewPrivs, PropertyNotDumpable, PropertyLimits,
		PropertyRoot, PropertyNetwork, PropertySeccomp, PropertyNoFiles,
	}
	if landlockVersion() > 0 {
		want = append(want, PropertyLandlock)
	}
	for _, name := range want {
		if p := r.Property(name); !p.Active {
			t.Errorf("%s is not active: %s", name, p.Detail)
		}
	}
	if p := r.Property(PropertyUser); !strings.Contains(p.Detail, "uid 65534, gid 65534, 0 supplementary") {
		t.Errorf("user: %s", p.Detail)
	}
	if p := r.Property(PropertyCapabilities); p.Detail != "none; 0 in the bounding set" {
		t.Errorf("capabilities: %s", p.Detail)
	}
}

// The reading profile opens files below its folders, and only to read.
func TestReadingProfile(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	// Also what only root may read: that is what ReadAll is for.
	if err := os.WriteFile(filepath.Join(dir, "source"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		refused bool
	}{
		{"reading: read below", false},
		{"reading: write below", true},
		{"reading: create below", true},
		{"open for reading", true}, // /etc/passwd is outside
		{"TCP socket", true},
		{"execute", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if landlockVersion() == 0 {
				need.Missing(t, "no Landlock in this kernel")
			}
			out, killed := run(t, tt.name, dirVariable+"="+dir)
			if refused := killed || strings.HasPrefix(out, "refused:"); refused != tt.refused {
				t.Errorf("refused = %v, want %v: %q", refused, tt.refused, out)
			}
		})
	}
}

func TestPolicyAssembles(t *testing.T) {
	for _, reading := range []bool{false, true} {
		p, err := policy(reading, reading, 1)
		if err != nil {
			t.Fatal(err)
		}
		instructions, err := p.Assemble()
		if err != nil {
			t.Fatal(err)
		}
		if len(instructions) > 4096 { // the kernel's bound
			t.Errorf("%d instructions", len(instructions))
		}
	}
}
