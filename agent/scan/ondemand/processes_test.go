package ondemand

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/crash"
	"github.com/bulwarkhq/bulwark/test/need"
)

const victimVariable = "BULWARK_TEST_VICTIM"

// TestMain is also a process that has a file mapped to execute it.
func TestMain(m *testing.M) {
	if path := os.Getenv(victimVariable); path != "" {
		f, err := os.Open(path)
		if err == nil {
			_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		}
		if err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString("ready")
		time.Sleep(time.Hour)
	}
	crash.Main(m, map[string]crash.Child{"scans": changeScans})
}

// What runs is scanned, also where its file is deleted, was never on a disk, or
// is a library that was mapped.
func TestProcesses(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// A copy of this program that the scanner of the test takes for infected: it
	// reads the beginning only, so the mark goes into the padding of the ELF header.
	copy(self[9:], "EICAR")
	deleted, library := filepath.Join(dir, "deleted"), filepath.Join(dir, "lib\nrary")
	write(t, library, strings.Repeat("EICAR in a library ", 1000))
	if err := os.WriteFile(deleted, self, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("evil", unix.MFD_CLOEXEC)
	if err != nil {
		need.Missing(t, "no memfd: %v", err)
	}
	memory := os.NewFile(uintptr(fd), "memfd")
	defer memory.Close()
	if _, err := memory.Write(self); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{deleted, "/proc/self/fd/" + "3"} {
		cmd := exec.Command(program)
		cmd.Env = []string{victimVariable + "=" + library}
		if program != deleted {
			cmd.ExtraFiles = []*os.File{memory}
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		said := make([]byte, 100)
		if n, err := out.Read(said); err != nil || string(said[:n]) != "ready" {
			t.Fatalf("%s: %q, %v", program, said[:n], err)
		}
	}
	if err := os.Remove(deleted); err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, func(c *Config) { c.proc = "/proc" })
	r := h.scan(t, Spec{Type: control.ScanProcesses})
	var found []string
	for _, f := range h.found {
		found = append(found, f.Path)
	}
	slices.Sort(found)
	if diff := cmp.Diff([]string{"/memfd:evil (deleted)", deleted + " (deleted)", library}, found); diff != "" || r.State != control.ScanSucceeded {
		t.Errorf("%s\n%+v", diff, r)
	}
}

func TestExecutableMappings(t *testing.T) {
	seen := map[string]bool{}
	got := executable(strings.NewReader(`55d0c0000000-55d0c0001000 r--p 00000000 fe:00 10                         /usr/bin/cat
55d0c0001000-55d0c0002000 r-xp 00001000 fe:00 10                         /usr/bin/cat
7f0c1a000000-7f0c1a021000 r-xp 00001000 fe:00 131                        /tmp/a b\012c\134d (deleted)
7f0c1a021000-7f0c1a022000 r-xp 00001000 fe:00 131                        /tmp/a b
7f0c1b000000-7f0c1b021000 rwxp 00000000 00:00 0
7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0                          [vdso]
7f0c1c000000-7f0c1c021000 r-xp 00000000 00:01 77                         /memfd:x (deleted)
nonsense
 x x x x
`), seen)
	want := []mapping{
		{"55d0c0001000-55d0c0002000", "/usr/bin/cat"},
		{"7f0c1a000000-7f0c1a021000", "/tmp/a b\nc\\d (deleted)"},
		{"7f0c1c000000-7f0c1c021000", "/memfd:x (deleted)"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzProcFiles(f *testing.F) {
	f.Add([]byte("7f0c1a000000-7f0c1a021000 r-xp 00001000 fe:00 131 /tmp/a\\0"))
	f.Add([]byte("ExecStart=-/bin/sh -c '/x y'"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range executable(strings.NewReader(string(b)), map[string]bool{}) {
			if !strings.HasPrefix(m.path, "/") {
				t.Errorf("%q", m)
			}
		}
		for _, p := range references(strings.NewReader(string(b))) {
			if p[0] != '/' || len(p) > 4096 {
				t.Errorf("%q", p)
			}
		}
	})
}

// A quick scan looks at what persistence points name, wherever it is.
func TestPersistencePoints(t *testing.T) {
	root := t.TempDir()
	programs := []string{"unit", "cron", "preload", "login", "autostart"}
	for _, p := range programs {
		write(t, filepath.Join(root, "mnt/data", p), "EICAR")
	}
	write(t, filepath.Join(root, "mnt/data/unnamed"), "EICAR")
	write(t, filepath.Join(root, "etc/systemd/system/a.service"), "[Service]\nExecStart=-/mnt/data/unit --flag\n")
	write(t, filepath.Join(root, "etc/cron.d/job"), "* * * * * root /bin/sh -c '/mnt/data/cron;true'\n")
	write(t, filepath.Join(root, "etc/ld.so.preload"), "/mnt/data/preload:/mnt/data/preload\n")
	write(t, filepath.Join(root, "etc/passwd"), "a:x:1:1::/srv/a:/bin/sh\nbroken\n")
	write(t, filepath.Join(root, "srv/a/.bashrc"), "EICAR (exec /mnt/data/login)\n")
	write(t, filepath.Join(root, "srv/a/.config/autostart/x.desktop"), "Exec=\"/mnt/data/autostart\" /proc/self/exe /dev/null /etc\n")
	if err := unix.Mkfifo(filepath.Join(root, "srv/a/.profile"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, func(c *Config) {
		c.Root, c.QuickPaths = root, []string{filepath.Join(root, "etc")}
	})
	h.scan(t, Spec{Type: control.ScanQuick})
	var found []string
	for _, f := range h.found {
		rel, err := filepath.Rel(root, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, rel)
	}
	slices.Sort(found)
	if diff := cmp.Diff([]string{"mnt/data/autostart", "mnt/data/cron", "mnt/data/login", "mnt/data/preload", "mnt/data/unit", "srv/a/.bashrc"}, found); diff != "" {
		t.Error(diff)
	}
}
