package atomicfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/test/crash"
)

// The name has characters that are special in patterns.
const name = "[state]*.json"

func content(n int) string { return strings.Repeat(fmt.Sprint(n), 5000) }

func write(dir string, acknowledge func(string)) error {
	for n := range 5 {
		if err := atomicfile.Write(filepath.Join(dir, name), []byte(content(n)), 0o640); err != nil {
			return err
		}
		acknowledge(fmt.Sprint(n))
	}
	return nil
}

func TestMain(m *testing.M) { crash.Main(m, map[string]crash.Child{"write": write}) }

func TestReplacesContentAndMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("longer than what follows"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("new"), 0o604); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o604 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestFailureLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o700); err != nil { // cannot be renamed over
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, nil, 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	file := filepath.Join(dir, "file")
	if err := atomicfile.Write(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(filepath.Join(file, "x"), nil, 0o600); err == nil {
		t.Error("a file served as folder")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left: %v", entries)
	}
}

// Killed before any of its writes to the disk:
// what was acknowledged last is there, or what came after it, whole.
func TestKilledAtEveryWrite(t *testing.T) {
	crash.Each(t, "write", crash.Options{}, func(t *testing.T, dir string, acknowledged []string) {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if len(acknowledged) == 0 && os.IsNotExist(err) {
			return
		}
		if n := len(acknowledged); string(got) != content(n) && (n == 0 || string(got) != content(n-1)) {
			t.Errorf("after %v: %d bytes, %v", acknowledged, len(got), err)
		}
		for _, f := range atomicfile.Leftovers(filepath.Join(dir, name)) {
			if err := os.Remove(f); err != nil {
				t.Error(err)
			}
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 1 {
			t.Errorf("left: %v", entries)
		}
	})
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(path, []byte("12345"), 0o600), os.Symlink("file", link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path  string
		limit int64
		want  string // the error's part
	}{
		{path, 5, ""},
		{link, 5, ""},
		{path, 4, "larger than 4 bytes"},
		{pipe, 5, "no regular file"}, // and nobody waits for a writer
		{dir, 5, "no regular file"},
		{filepath.Join(dir, "none"), 5, "no such file"},
	} {
		data, err := atomicfile.Read(tc.path, tc.limit)
		switch {
		case tc.want == "" && (err != nil || string(data) != "12345"):
			t.Errorf("%s: %q, %v", tc.path, data, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.path)):
			t.Errorf("%s: error %v, want one with %q", tc.path, err, tc.want)
		case errors.Is(err, atomicfile.ErrTooLarge) && int64(len(data)) != tc.limit+1:
			t.Errorf("%s: %q of a file that is larger than %d", tc.path, data, tc.limit)
		}
	}
}
