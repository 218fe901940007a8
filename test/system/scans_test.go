//go:build system

package system

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/need"
)

// smallHost is a product whose agent has a root folder of its own: a full scan
// looks at that and not at all of this machine. The folder is returned.
func smallHost(t *testing.T) (*product, string) {
	t.Helper()
	p := prepare(t)
	root := rootFolder(t)
	for _, dir := range []string{"/proc", "/sys", "/dev", p.bin, p.root} {
		bind(t, dir, filepath.Join(root, dir))
	}
	copied := func(path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755), os.WriteFile(filepath.Join(root, path), b, 0o755))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// The agent's programs need nothing. timeout(1), which ends them, does.
	timeout := need.Command(t, "timeout")
	out, err := exec.Command("ldd", timeout).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", timeout, err)
	}
	for _, word := range append(strings.Fields(string(out)), timeout, "/etc/passwd", "/etc/group") {
		if filepath.IsAbs(word) {
			copied(word)
		}
	}
	p.wrap = []string{need.Command(t, "chroot"), root}
	return p, root
}

// rootFolder is a folder that other trees can be bound below. It is a private mount:
// what is mounted there reaches no other namespace. It is removed only once that is
// unmounted, which may be the devices of this machine.
func rootFolder(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "bulwark-root-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// EINVAL: it has not become a mount.
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("unmount %s, which is left: %v", root, err)
			return
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(root, 0o755); err != nil { // for the scanner's account
		t.Fatal(err)
	}
	bind(t, root, root)
	return root
}

// bind mounts the tree at from, with the mounts below it, at to, which is at or below a
// root folder and is unmounted with it. Where mounts are shared, as systemd makes
// them, copies that are not private would take the originals along then.
func bind(t *testing.T, from, to string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(to, 0o755), unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")); err != nil {
		need.Missing(t, "mount %s at %s: %v", from, to, err)
	}
	if err := unix.Mount("", to, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make %s private: %v", to, err)
	}
}

// TestRootFolderLeavesTheOriginals: what was bound below a root folder and is
// mounted as on a host with systemd still has its mounts when the folder is gone.
func TestRootFolderLeavesTheOriginals(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "below", "file")
	for _, point := range []string{dir, filepath.Dir(file)} {
		if err := errors.Join(os.MkdirAll(point, 0o755), unix.Mount("bulwark-system-test", point, "tmpfs", 0, "size=64k")); err != nil {
			need.Missing(t, "mount a tmpfs: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) })
		if err := unix.Mount("", point, "", unix.MS_SHARED, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var root string
	t.Run("bound", func(t *testing.T) {
		root = rootFolder(t)
		bind(t, dir, filepath.Join(root, "bound"))
		if _, err := os.Stat(filepath.Join(root, "bound", "below", "file")); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(file); err != nil {
		t.Errorf("behind the end of the folder: %v", err)
	}
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder itself: %v", err)
	}
}

// TestFullScanGoesOn interrupts a full scan twice: the daemon is killed, and it is
// stopped. The scan goes on under its id, says so, and finds every threat once, those
// behind the points at which it was interrupted too.
func TestFullScanGoesOn(t *testing.T) {
	t.Parallel()
	p, root := smallHost(t)
	// Files that have not changed lately, in an order that is nobody's: a threat lies
	// beside each of the folders.
	goroot, err := exec.Command(need.Command(t, "go"), "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	library := filepath.Join(strings.TrimSpace(string(goroot)), "src")
	entries, err := os.ReadDir(library)
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	for _, e := range entries {
		if !e.IsDir() || e.Name() == "cmd" { // half of all files
			continue
		}
		dir := filepath.Join("/srv", e.Name())
		to := filepath.Join(root, dir, "files")
		bind(t, filepath.Join(library, e.Name()), to)
		content := append(eicar(), strings.Repeat(" ", len(bad))...) // each another file
		if err := os.WriteFile(filepath.Join(root, dir, "evil.com"), content, 0o644); err != nil {
			t.Fatal(err)
		}
		bad = append(bad, filepath.Join(dir, "evil.com"))
	}
	// Up to the last interruption the scan is slow on a fast machine, too. Where control
	// groups do not allow that the machine has to be slow.
	p.write(p.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "real_time", "scannerCpuLimit": 30}}`)
	p.startAgent()
	p.until("the agent has definitions", func() error {
		if r := p.run("health", "--field", "definitions_status"); !strings.Contains(r.stdout, "date") {
			return errors.New(r.stdout + r.stderr)
		}
		return nil
	})
	latest := func() (s control.Scan) {
		t.Helper()
		var list control.ScanList
		p.query(&list, "scan", "list")
		if len(list.Scans) > 0 {
			s = list.Scans[0]
		}
		return s
	}
	scan := exec.Command(p.wrap[0], append(p.wrap[1:], filepath.Join(p.bin, "bulwark"), "--root", p.root, "scan", "full", "--threads", "1")...)
	if err := scan.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = scan.Process.Kill() // the daemon that it follows goes away
		_ = scan.Wait()
	})
	var id string
	// reaches waits until some threats are found, and more is to come.
	reaches := func(threats int64) {
		t.Helper()
		p.until(fmt.Sprintf("%d threats are found", threats), func() error {
			s := latest()
			if s.ID == "" {
				return errors.New("no scan yet")
			}
			if s.State.Final() || s.Threats >= int64(len(bad)) {
				t.Fatalf("the scan is too fast: %+v", s)
			}
			if s.Threats < threats {
				return fmt.Errorf("%+v", s)
			}
			if id == "" {
				id = s.ID
			}
			return nil
		})
	}
	goesOn := func(times int) {
		t.Helper()
		p.until("the scan goes on", func() error {
			r := p.run("scan", "list")
			if want := fmt.Sprintf("Resumed after a restart: %d time(s)", times); !strings.Contains(r.stdout, id) || !strings.Contains(r.stdout, want) {
				return fmt.Errorf("%s%s", r.stdout, r.stderr)
			}
			return nil
		})
	}

	reaches(3)
	pid := p.one("bulwarkd", "run")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	goesOn(1)
	reaches(int64(len(bad)) / 3)
	p.agent.stop()
	p.startAgent()
	goesOn(2)
	limits := p.run("health", "--details", "antivirus", "--field", "scanner_limits").stdout
	p.write(p.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "real_time"}}`)
	p.until("the scan has ended", func() error {
		if s := latest(); !s.State.Final() {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	s := latest()
	if s.ID != id || s.State != control.ScanSucceeded || s.Resumed != 2 || s.Threats != int64(len(bad)) {
		t.Errorf("scan %s, with %d threats to find, ended as %+v", id, len(bad), s)
	}
	found := map[string]int{}
	for _, th := range p.threats() {
		found[string(th.Path)+" "+th.Status]++
	}
	for _, path := range bad {
		if n := found[path+" quarantined"]; n != 1 {
			t.Errorf("%s is %d times in the history, want 1: %v", path, n, found)
		}
	}
	t.Logf("%d files in %v, at first with limits: %s", s.Files, s.End.Sub(s.Start).Round(time.Second), limits)
}
