package ondemand

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/need"
	"golang.org/x/sys/unix"
)

func TestPseudoAndUnmonitoredFileSystems(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "evil"), "EICAR")
	mounted := filepath.Join(dir, "mounted")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", mounted, "tmpfs", 0, "size=64k"); err != nil {
		need.Missing(t, "cannot mount: %v", err)
	}
	defer unix.Unmount(mounted, unix.MNT_DETACH)
	write(t, filepath.Join(mounted, "evil"), "EICAR")
	h := newHarness(t, func(c *Config) {
		c.Root = dir
		c.Unmonitored = func() []string { return []string{"tmpfs"} }
	})
	r := h.scan(t, Spec{Type: control.ScanFull})
	if r.Threats != 1 || r.SkippedBy[reasonNetwork] != 1 {
		t.Errorf("full: %+v", r)
	}
	if r := h.scan(t, custom(dir)); r.Threats != 2 {
		t.Errorf("custom: %+v", r)
	}
	if r := h.scan(t, custom("/proc")); r.Files != 0 || r.SkippedBy[reasonPseudo] != 1 {
		t.Errorf("/proc: %+v", r)
	}
	// A mount of the tree into itself does not go on for ever.
	loop := filepath.Join(dir, "loop")
	if err := os.Mkdir(loop, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir, loop, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(loop, unix.MNT_DETACH)
	// Else its end would unmount the tmpfs of the original, too.
	if err := unix.Mount("", loop, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if r := h.scan(t, custom(dir)); r.State != control.ScanSucceeded || r.SkippedBy[reasonLoop] < 1 {
		t.Errorf("loop: %+v", r)
	}
}

// Device nodes are never opened: for some of them that alone does something.
func TestDevicesAreNotOpened(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	// A device without a driver: opening it fails with ENXIO.
	if err := unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(120, 77))); err != nil {
		need.Missing(t, "cannot make a device node: %v", err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, _, err := openRegular(fd, "device"); !errors.Is(err, errNotRegular) {
		t.Errorf("%v", err)
	}
	h := newHarness(t, nil)
	for _, path := range []string{dir, filepath.Join(dir, "device")} {
		if r := h.scan(t, custom(path)); r.SkippedBy[reasonNotRegular] != 1 || r.Errors != 0 {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

// Somebody exchanges a folder for a link to another place all the time: nothing
// of that place is ever scanned.
func TestFolderSwapRace(t *testing.T) {
	h := newHarness(t, nil)
	dir, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "secret"), "EICAR")
	write(t, filepath.Join(dir, "folder/inside"), "x")
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "folder"), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 100 {
		if r := h.scan(t, custom(dir)); r.State != control.ScanSucceeded || r.Threats != 0 {
			t.Fatalf("%+v", r)
		}
	}
	close(stop)
	<-stopped
}

func TestDeepFolders(t *testing.T) {
	h := newHarness(t, nil)
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range maxDepth + 20 {
		if err := unix.Mkdirat(fd, "d", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	if r := h.scan(t, custom(dir)); r.State != control.ScanSucceeded || r.SkippedBy[reasonTooDeep] != 1 {
		t.Errorf("%+v", r)
	}
}
