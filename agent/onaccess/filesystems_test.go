package onaccess

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/doctable"
	"github.com/bulwarkhq/bulwark/test/need"
)

// loopFS makes a file system of a type in a file and mounts it.
func loopFS(t testing.TB, fsType string, options ...string) string {
	t.Helper()
	need.Root(t)
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(known), "\t"+fsType+"\n") {
		need.Missing(t, "this kernel has no %s", fsType)
	}
	mount := need.Command(t, "mount")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	point := filepath.Join(dir, "mnt")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-t", fsType, "none", point}
	switch fsType {
	case "ramfs":
	case "overlay":
		lower := tmpfs(t)
		for _, d := range []string{"lower", "upper", "work"} {
			if err := os.Mkdir(filepath.Join(lower, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		args = []string{"-t", "overlay", "-o", "lowerdir=" + lower + "/lower,upperdir=" + lower + "/upper,workdir=" + lower + "/work", "none", point}
	default:
		image := filepath.Join(dir, "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 400<<20); err != nil {
			t.Fatal(err)
		}
		force := "-F"
		if fsType == "xfs" || fsType == "btrfs" {
			force = "-f"
		}
		if out, err := exec.Command(need.Command(t, "mkfs."+fsType), append([]string{"-q", force, image}, options...)...).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.%s: %v\n%s", fsType, err, out)
		}
		args = []string{"-t", fsType, "-o", "loop", image, point}
	}
	if out, err := exec.Command(mount, args...).CombinedOutput(); err != nil {
		t.Fatalf("mount %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	t.Cleanup(func() {
		// Scans that end later still have files open.
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if err = unix.Unmount(point, 0); err == nil {
				return
			}
		}
		unix.Unmount(point, unix.MNT_DETACH)
		t.Errorf("unmount %s (a descriptor was left open?): %v", point, err)
	})
	return point
}

// updateDocs makes TestFilesystems write its table.
var updateDocs = flag.Bool("update", false, "write the table of docs/filesystems.md from what TestFilesystems finds")

// row is what TestFilesystems found about one type; "" is not tried.
type row struct{ fsType, open, exec, once, written, mapped, ignore string }

func yes(ok bool) string {
	if ok {
		return "yes"
	}
	return "NO"
}

// TestFilesystems checks on each type: denial on open and execution, one scan
// for a clean file, and that ways of writing are noticed.
func TestFilesystems(t *testing.T) {
	var rows []row
	types := []string{"btrfs", "ext2", "ext3", "ext4", "fuse", "overlay", "ramfs", "squashfs", "tmpfs", "xfs"}
	for _, fsType := range types {
		t.Run(fsType, func(t *testing.T) {
			got := row{fsType: fsType}
			// The files come first: squashfs is made with them.
			source := t.TempDir()
			files := map[string]string{"evil": "#!/bin/sh\n#" + bad, "file": string(make([]byte, 8192)), "mapped": string(make([]byte, 8192))}
			for name, content := range files {
				if err := os.WriteFile(filepath.Join(source, name), []byte(content), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			dir := ""
			switch fsType {
			case "squashfs":
				dir = squashFS(t, source)
			case "tmpfs":
				dir = tmpfs(t)
			case "fuse":
				dir = fuseFS(t, source)
			default:
				dir = loopFS(t, fsType)
			}
			if fsType != "squashfs" && fsType != "fuse" {
				if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
					t.Fatal(err)
				}
				for name := range files {
					if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			settle()
			if fsType == "squashfs" {
				time.Sleep(1100 * time.Millisecond) // its times are whole seconds
			}
			r := newRigOn(t, dir, func(c *Config) {
				c.Ignore = IgnoreAll
				c.UnmonitoredFilesystems = []string{} // by default FUSE is left out
			})
			evil, p, m := r.path("evil"), r.path("file"), r.path("mapped")

			got.open = yes(r.accessor.do(request{Op: "read", Path: evil}).Errno == eperm)
			got.exec = yes(r.accessor.do(request{Op: "exec", Path: evil}).Errno == eperm)
			r.accessor.must(request{Op: "open", Path: p})
			scans := r.scanner.scans.Load()
			for range 10 {
				r.accessor.must(request{Op: "open", Path: p})
			}
			got.once = yes(r.scanner.scans.Load() == scans)
			got.ignore = yes(r.Stats(0).IgnoreMarks > 0)
			if fsType == "fuse" {
				if got.once != "NO" || got.ignore != "NO" {
					t.Errorf("something was kept about a file whose content a server decides: %+v", got)
				}
				got.once, got.ignore = "no, by design", "no, by design"
			}
			if fsType == "overlay" {
				if got.ignore != "NO" {
					t.Error("ignore mark on a stacked file system")
				}
				got.ignore = "no, by design"
			}
			if fsType == "squashfs" {
				got.written, got.mapped = "read-only", "read-only"
			} else {
				r.accessor.must(request{Op: "patch", Path: p, Data: bad, Off: 100})
				got.written = yes(r.accessor.do(request{Op: "open", Path: p}).Errno == eperm)
				r.accessor.must(request{Op: "open", Path: m})
				r.accessor.must(request{Op: "map", Path: m, N: 8192})
				r.accessor.must(request{Op: "closefd", Path: m})
				r.accessor.must(request{Op: "store", Path: m, Data: bad, Off: 100})
				r.accessor.must(request{Op: "unmap", Path: m})
				wait(t, "the mapped write is noticed", func() bool {
					return r.accessor.do(request{Op: "open", Path: m}).Errno == eperm
				})
				got.mapped = "yes"
			}
			if s := r.Stats(0); s.DeadlinesMissed+s.ReadErrors+s.ResponseErrors != 0 {
				t.Errorf("%d deadlines missed, %d read errors, %d response errors", s.DeadlinesMissed, s.ReadErrors, s.ResponseErrors)
			}
			for _, v := range []string{got.open, got.exec, got.once, got.written, got.ignore} {
				if v == "NO" {
					t.Errorf("%+v", got)
				}
			}
			rows = append(rows, got)
		})
	}
	if t.Failed() || len(rows) < len(types) {
		return // skipped, or only one was asked for
	}
	doctable.Check(t, filepath.Join("..", "..", "docs", "filesystems.md"), "host", table(rows), *updateDocs)
}

func table(rows []row) doctable.Table {
	out := doctable.Table{Columns: []string{
		"Type", "Bad file: open refused", "Bad file: execution refused", "Clean file scanned once",
		"Kernel ignore mark", "Write noticed", "Write through a mapping noticed",
	}}
	for _, r := range rows {
		out.Rows = append(out.Rows, []string{r.fsType, r.open, r.exec, r.once, r.ignore, r.written, r.mapped})
	}
	return out
}

// squashFS makes a squashfs of a folder and mounts it.
func squashFS(t testing.TB, source string) string {
	t.Helper()
	need.Root(t)
	if known, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(known), "\tsquashfs\n") {
		need.Missing(t, "this kernel has no squashfs")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(need.Command(t, "mksquashfs"), source, image, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	if out, err := exec.Command(need.Command(t, "mount"), "-t", "squashfs", "-o", "loop", image, point).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return point
}

// fuseFS starts a file system in user space that shows a folder. The server is a
// process of its own, as it would be on a host.
func fuseFS(t testing.TB, source string) string {
	t.Helper()
	need.Root(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		need.Missing(t, "this kernel has no FUSE: %v", err)
	}
	point, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command("/proc/self/exe", source, point)
	server.Env = append(os.Environ(), helperEnv+"=fuse")
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", point, err)
		}
		timer := time.AfterFunc(patience, func() { server.Process.Kill() })
		defer timer.Stop()
		server.Wait()
	})
	wait(t, "the FUSE server has mounted", func() bool {
		var s unix.Statfs_t
		return unix.Statfs(point, &s) == nil && s.Type == unix.FUSE_SUPER_MAGIC
	})
	return point
}

func TestReflinkIsNoticed(t *testing.T) {
	for _, fsType := range []string{"xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			r := newRigOn(t, loopFS(t, fsType), func(c *Config) {
				c.Ignore = IgnoreAll
				c.Excluded = func(a Access) bool { return strings.HasSuffix(a.Path, ".source") }
			})
			src := r.put(t, "evil.source", bad)
			p := r.put(t, "file", "harmless")
			r.accessor.must(request{Op: "open", Path: p})
			r.accessor.must(request{Op: "clone", Path: src, To: p})
			if got := r.accessor.do(request{Op: "open", Path: p}); got.Errno != eperm {
				t.Errorf("after a reflink: %q", got.Err)
			}
		})
	}
}

// TestWithoutFeatures runs the main promises as older kernels would.
func TestWithoutFeatures(t *testing.T) {
	for name, without := range map[string][]Feature{
		"5.4":             {FeatureEvictable},
		"4.18":            {FeatureEvictable, FeatureExecEvents, FeatureFilesystemMarks},
		"3.10":            {FeatureEvictable, FeatureExecEvents, FeatureFilesystemMarks, FeatureStatx},
		"3.10 no holding": {FeatureEvictable, FeatureExecEvents, FeatureFilesystemMarks, FeatureStatx, FeaturePermission},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Without = without })
			evil := r.put(t, "evil", "#!/bin/sh\n#"+bad)
			want := eperm
			if !r.Capabilities().Permission {
				want = 0
			}
			for _, op := range []string{"read", "exec"} {
				if got := r.accessor.do(request{Op: op, Path: evil}); got.Errno != want {
					t.Errorf("%s of a bad file: %q", op, got.Err)
				}
				r.detection(t)
			}
			p := r.put(t, "file", "harmless")
			r.accessor.must(request{Op: "open", Path: p})
			wait(t, "the scan", func() bool { return r.Stats(0).IgnoreMarks > 0 })
			scans := r.scanner.scans.Load()
			r.accessor.must(request{Op: "open", Path: p})
			if n := r.scanner.scans.Load(); n != scans {
				t.Errorf("a clean file was scanned %d times more", n-scans)
			}
			r.accessor.must(request{Op: "write", Path: p, Data: bad})
			r.detection(t)
			if got := r.accessor.do(request{Op: "read", Path: p}); got.Errno != want {
				t.Errorf("after a write: %q", got.Err)
			}
		})
	}
}

// TestFilesystemMark covers a bind mount and another mount namespace with one
// mark. The file system is the test's own, so nothing else is touched.
func TestFilesystemMark(t *testing.T) {
	dir := tmpfs(t)
	r := newRigOn(t, dir, func(c *Config) { c.Scope = ScopeFilesystem })
	if !r.Capabilities().FilesystemMarks {
		need.Missing(t, "the kernel has no file-system marks (4.20 has them)")
	}
	if s := r.Stats(0); len(s.MarkedMounts) != 1 || s.MarkedMounts[0].Scope != "filesystem" {
		t.Fatalf("marked %+v", s.MarkedMounts)
	}
	evil := r.put(t, "evil", bad)
	bind := t.TempDir()
	if err := unix.Mount(dir, bind, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(bind, unix.MNT_DETACH)
	if got := r.accessor.do(request{Op: "read", Path: filepath.Join(bind, "evil")}); got.Errno != eperm {
		t.Errorf("through a bind mount: %q", got.Err)
	}
	unshare := need.Command(t, "unshare")
	out, err := exec.Command(unshare, "--mount", "cat", evil).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not permitted") {
		t.Errorf("in another mount namespace: %v %s", err, out)
	}
	for _, want := range []string{filepath.Join(bind, "evil"), evil} {
		if d := r.detection(t); d.Access.Path != want {
			t.Errorf("path %s, want %s", d.Access.Path, want)
		}
	}
}

// TestMountInAnotherNamespace is about a mount that our namespace has not.
func TestMountInAnotherNamespace(t *testing.T) {
	need.Root(t)
	unshare := need.Command(t, "unshare")
	point, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := newRigOn(t, point, nil)
	// The first open is before the mount is noticed and only shows that the
	// file can be read; then it is tried until it is refused.
	script := `mount -t tmpfs none "$0" && echo "$1" > "$0/evil" && i=0
		while [ $i -lt 200 ]; do cat "$0/evil" > /dev/null 2>&1 || { echo refused; exit; }; i=$((i+1)); sleep 0.05; done`
	out, err := exec.Command(unshare, "--mount", "sh", "-c", script, point, bad).CombinedOutput()
	if err != nil || string(out) != "refused\n" {
		t.Fatalf("%v %s", err, out)
	}
	for {
		d := r.detection(t)
		if d.Access.Path != filepath.Join(point, "evil") {
			t.Errorf("path %s", d.Access.Path)
		}
		if d.Denied {
			break
		}
	}
}

// TestMutedMount: a file system is watched, except through its noexec mount.
func TestMutedMount(t *testing.T) {
	dir := tmpfs(t)
	bind, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir, bind, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(bind, unix.MNT_DETACH)
	if err := unix.Mount("", bind, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	for _, scope := range []MarkScope{ScopeMount, ScopeFilesystem} {
		t.Run(string(scope), func(t *testing.T) {
			r := newRigOn(t, dir, func(c *Config) {
				c.OnlyMounts = []string{dir, bind}
				c.NonExecMountPolicy = "mute"
				c.Scope = scope
			})
			evil := r.put(t, "evil", bad)
			r.accessor.must(request{Op: "read", Path: filepath.Join(bind, "evil")})
			if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
				t.Errorf("through the other mount: %q", got.Err)
			}
			if s := r.Stats(0); len(s.MarkedMounts) != 1 || len(s.SkippedMounts) != 1 || s.SkippedMounts[0].Point != bind {
				t.Errorf("marked %+v, skipped %+v", s.MarkedMounts, s.SkippedMounts)
			}
		})
	}
}

func TestBigFile(t *testing.T) {
	r := newRig(t, nil)
	p := r.put(t, "big", bad)
	if err := os.Truncate(p, 5<<30); err != nil {
		t.Fatal(err)
	}
	settle()
	if got := r.accessor.do(request{Op: "open", Path: p}); got.Errno != eperm {
		t.Errorf("5 GB file with bad content: %q", got.Err)
	}
	if d := r.detection(t); d.Access.Size != 5<<30 {
		t.Errorf("size %d", d.Access.Size)
	}
}

// TestReachedThroughDescriptors: /proc/PID/fd and deleted files.
func TestReachedThroughDescriptors(t *testing.T) {
	r := newRig(t, nil)
	p := r.put(t, "evil", bad)
	f, err := os.Open(p) // ours: allowed
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	link := filepath.Join("/proc", itoa(os.Getpid()), "fd", itoa(int(f.Fd())))
	if got := r.accessor.do(request{Op: "open", Path: link}); got.Errno != eperm {
		t.Errorf("through /proc: %q", got.Err)
	}
	r.detection(t)
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	if got := r.accessor.do(request{Op: "open", Path: link}); got.Errno != eperm {
		t.Errorf("deleted, through /proc: %q", got.Err)
	}
	if d := r.detection(t); !d.Access.Deleted || d.Access.Path != p {
		t.Errorf("detection %+v", d.Access)
	}
}
