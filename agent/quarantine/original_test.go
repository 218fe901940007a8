package quarantine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
	"golang.org/x/sys/unix"
)

// The path means something else by the time of the removal: that one stays.
func TestSwappedPath(t *testing.T) {
	need.Root(t)
	tests := map[string]func(path, dir string) error{
		"another file": func(path, dir string) error {
			return errors.Join(os.Rename(path, path+".moved"), os.WriteFile(path, []byte("precious"), 0o600))
		},
		"link": func(path, dir string) error {
			return errors.Join(os.WriteFile(path+".precious", []byte("precious"), 0o600), os.Rename(path, path+".moved"), os.Symlink(path+".precious", path))
		},
		"link to the file itself": func(path, dir string) error {
			return errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path))
		},
		"linked folder": func(path, dir string) error {
			return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
		},
	}
	for name, swap := range tests {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			dir := filepath.Join(t.TempDir(), "dir")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "file")
			f := write(t, path, "evil")
			if err := swap(path, dir); err != nil {
				t.Fatal(err)
			}
			item, err := s.Add(t.Context(), f, path, meta)
			if err != nil {
				t.Fatal(err)
			}
			if item.State != StateOriginalKept || item.StateReason == "" {
				t.Errorf("%+v", item)
			}
			if content(t, s, item.ID) != "evil" {
				t.Error("wrong content stored")
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "precious" && !strings.Contains(name, "itself") && !strings.Contains(name, "folder") {
				t.Errorf("%q, %v", b, err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		})
	}
}

// Somebody exchanges the file for a precious one as fast as he can: the
// precious one always survives under some name.
func TestSwapRace(t *testing.T) {
	need.Root(t)
	s := openStore(t, Options{})
	dir := t.TempDir()
	path, precious := filepath.Join(dir, "file"), filepath.Join(dir, "precious")
	for round := range 60 {
		f := write(t, path, "evil")
		write(t, precious, "precious")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					// Fails when the file is gone; then there is nothing to exchange.
					_ = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, precious, unix.RENAME_EXCHANGE)
				}
			}
		}()
		item, err := s.Add(t.Context(), f, path, meta)
		close(stop)
		<-stopped
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]int{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			found[string(b)]++
			os.Remove(filepath.Join(dir, e.Name()))
		}
		if found["precious"] != 1 {
			t.Fatalf("round %d: precious file lost (state %s): %v", round, item.State, found)
		}
		if item.State == StateQuarantined && found["evil"] != 0 {
			t.Fatalf("round %d: said to be gone, but is there: %v", round, found)
		}
		f.Close()
	}
}

func TestImmutableOriginal(t *testing.T) {
	need.Root(t)
	s := openStore(t, Options{})
	path := filepath.Join(t.TempDir(), "file")
	f := write(t, path, "evil")
	const immutable = 0x10 // FS_IMMUTABLE_FL
	setFlags := func(flags int) error { return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags) }
	if err := setFlags(immutable); err != nil {
		need.Missing(t, "the file system has no immutable files: %v", err)
	}
	item, err := s.Add(t.Context(), f, path, meta)
	if err := setFlags(0); err != nil {
		t.Fatal(err)
	}
	if err != nil || item.State != StateOriginalKept || !strings.Contains(item.StateReason, "operation not permitted") {
		t.Errorf("%+v, %v", item, err)
	}
	if got, err := reopen(t, s).Get(item.ID); err != nil || got.State != StateOriginalKept {
		t.Errorf("%+v, %v", got, err)
	}
}

func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		need.Missing(t, "cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestReadOnlyFileSystem(t *testing.T) {
	need.Root(t)
	s := openStore(t, Options{})
	dir := mountTmpfs(t, "size=1m")
	path := filepath.Join(dir, "file")
	f := write(t, path, "evil")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	item, err := s.Add(t.Context(), f, path, meta)
	if err != nil || item.State != StateOriginalKept || !strings.Contains(item.StateReason, "read-only") {
		t.Errorf("%+v, %v", item, err)
	}
}

func TestFullDisk(t *testing.T) {
	need.Root(t)
	dir := mountTmpfs(t, "size=1m")
	path := filepath.Join(t.TempDir(), "file")
	f := write(t, path, strings.Repeat("evil", 1<<18)) // 1 MiB does not fit
	for _, reserve := range []int64{1, 1 << 30} {
		s, err := Open(filepath.Join(dir, "quarantine"), Options{Reserve: reserve})
		if err != nil {
			t.Fatal(err)
		}
		if reserve == 1 {
			// Half the room goes after the look at the free space.
			s.opt.Reserve = -1 << 30
		}
		if _, err := s.Add(t.Context(), f, path, meta); !errors.Is(err, ErrNoSpace) {
			t.Errorf("reserve %d: %v", reserve, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the original is gone: %v", err)
		}
		if len(s.List()) != 0 || s.Bytes() != 0 {
			t.Errorf("%+v, %d bytes", s.List(), s.Bytes())
		}
		entries, err := os.ReadDir(s.dir)
		if err != nil || len(entries) != 1 { // the key
			t.Errorf("left behind: %v, %v", entries, err)
		}
	}
	// With room it works.
	s, err := Open(filepath.Join(dir, "quarantine"), Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(filepath.Dir(path), "small")
	if item, err := s.Add(t.Context(), write(t, small, "evil"), small, meta); err != nil || item.State != StateQuarantined {
		t.Errorf("%+v, %v", item, err)
	}
}
