package nolink

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenFolder(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"link": "a", "a/link": "b"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ways := map[string]func(path string) (int, error){
		"openat2":  OpenFolder,
		"stepwise": func(path string) (int, error) { return stepwise(unix.AT_FDCWD, path) },
	}
	for way, open := range ways {
		for path, ok := range map[string]bool{
			"": true, "a": true, "a/b/c": true, "a/./b": true, "link": false, "link/b": false, "a/link/c": false, "a/file": false, "a/none": false,
		} {
			fd, err := open(dir + "/" + path)
			if ok != (err == nil) {
				t.Errorf("%s %q: %v", way, path, err)
			}
			if err != nil {
				continue
			}
			var got, want unix.Stat_t
			if err := errors.Join(unix.Fstat(fd, &got), unix.Stat(dir+"/"+path, &want)); err != nil || got.Ino != want.Ino {
				t.Errorf("%s %q: inode %d, want %d, %v", way, path, got.Ino, want.Ino, err)
			}
			if err := unix.Close(fd); err != nil {
				t.Error(err)
			}
		}
	}
	parent, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(parent)
	for name, ok := range map[string]bool{"a": true, "link": false, "none": false} {
		fd, err := OpenBelow(parent, name)
		if ok != (err == nil) {
			t.Errorf("below, %q: %v", name, err)
		}
		if err == nil {
			unix.Close(fd)
		}
	}
	if fd, err := unix.FcntlInt(uintptr(parent), unix.F_GETFD, 0); err != nil || fd&unix.FD_CLOEXEC == 0 {
		t.Error("the parent was closed or is inherited")
	}
}
