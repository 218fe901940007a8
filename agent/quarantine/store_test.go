package quarantine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func openStore(t *testing.T, opt Options) *Store {
	t.Helper()
	if opt.Reserve == 0 {
		opt.Reserve = 1
	}
	s, err := Open(filepath.Join(t.TempDir(), "quarantine"), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	again, err := Open(s.dir, s.opt)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func write(t *testing.T, path, content string) *os.File {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t *testing.T, s *Store, id string) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Content(t.Context(), id, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var meta = Meta{Threat: "Virus:Test/EICAR", ThreatType: "test", DetectionID: "d1", Inside: []string{"a.zip"}, ContainerID: "c"}

func TestAddAndRestore(t *testing.T) {
	need.Root(t)
	s := openStore(t, Options{})
	path := filepath.Join(t.TempDir(), "evil")
	f := write(t, path, "dangerous content")
	if err := os.Chown(path, 1234, 4321); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(path, 0o4751); err != nil {
		t.Fatal(err)
	}
	mtime := time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)
	if err := os.Chtimes(path, mtime, mtime); err != nil {
		t.Fatal(err)
	}
	xattrs := map[string]string{"user.note": "hello\x00\xff"}
	if err := unix.Setxattr(path, "user.note", []byte(xattrs["user.note"]), 0); errors.Is(err, unix.ENOTSUP) {
		xattrs = nil
	} else if err != nil {
		t.Fatal(err)
	}
	item, err := s.Add(t.Context(), f, path, meta)
	if err != nil {
		t.Fatal(err)
	}
	if item.State != StateQuarantined || item.Size != 17 || item.UID != 1234 || item.GID != 4321 || item.Mode != 0o4751 ||
		!item.ModTime.Equal(mtime) || item.SHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte("dangerous content"))) {
		t.Errorf("%+v", item)
	}
	if diff := cmp.Diff(meta, item.Meta); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the original is still there: %v", err)
	}
	stored, err := os.ReadFile(s.path(item.ID + dataSuffix))
	if err != nil || bytes.Contains(stored, []byte("dangerous")) {
		t.Errorf("stored in the clear, or not at all: %v", err)
	}
	if got := content(t, s, item.ID); got != "dangerous content" {
		t.Errorf("content %q", got)
	}
	// Everything survives a restart.
	s = reopen(t, s)
	again, err := s.Get(item.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(item, again); diff != "" {
		t.Error(diff)
	}
	restored, err := s.Restore(t.Context(), item.ID, "")
	if err != nil || restored != path {
		t.Fatalf("%q, %v", restored, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o7777 != 0o4751 || st.Uid != 1234 || st.Gid != 4321 || st.Mtim.Nano() != mtime.UnixNano() {
		t.Errorf("%+v", st)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "dangerous content" {
		t.Errorf("%q, %v", b, err)
	}
	for name, want := range xattrs {
		b := make([]byte, 100)
		n, err := unix.Getxattr(path, name, b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%s: %q, %v", name, b[:max(n, 0)], err)
		}
	}
	if len(s.List()) != 0 || s.Bytes() != 0 {
		t.Errorf("still in the quarantine: %+v, %d bytes", s.List(), s.Bytes())
	}
	if _, err := s.Restore(t.Context(), item.ID, ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("second restore: %v", err)
	}
	if len(reopen(t, s).List()) != 0 {
		t.Error("the item is back after a restart")
	}
}

func TestRestoreNeverOverwrites(t *testing.T) {
	need.Root(t)
	s := openStore(t, Options{})
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	item, err := s.Add(t.Context(), write(t, path, "evil"), path, meta)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, folder string, want error) {
		t.Helper()
		if _, err := s.Restore(t.Context(), item.ID, folder); !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := s.Get(item.ID); err != nil {
			t.Errorf("%s: the item is gone", what)
		}
		left, err := filepath.Glob(filepath.Join(dir, ".bulwark-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left behind %q", what, left)
		}
	}
	write(t, path, "precious")
	check("existing file", "", ErrExists)
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("overwritten with %q", b)
	}
	if err := errors.Join(os.Remove(path), os.Symlink("/nonexistent/target", path)); err != nil {
		t.Fatal(err)
	}
	check("dangling link", "", ErrExists)
	check("missing folder", filepath.Join(dir, "missing"), os.ErrNotExist)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// The folder has become a link to another one.
	victim := t.TempDir()
	if err := errors.Join(os.Remove(dir), os.Symlink(victim, dir)); err != nil {
		t.Fatal(err)
	}
	check("exchanged folder", "", unix.ELOOP)
	if entries, _ := os.ReadDir(victim); len(entries) != 0 {
		t.Errorf("written through a link: %v", entries)
	}
	// Named by the person, the same link is fine.
	if got, err := s.Restore(t.Context(), item.ID, dir); err != nil || got != filepath.Join(victim, "file") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHostileNames(t *testing.T) {
	need.Root(t)
	s := openStore(t, Options{})
	dir := t.TempDir()
	for _, name := range []string{"new\nline", "invalid \xff\xfe utf-8", "\x1b[2J", "quote\"'`$(x)", strings.Repeat("n", 255), "-rf", " ", "ünïcode"} {
		path := filepath.Join(dir, name)
		item, err := s.Add(t.Context(), write(t, path, name), path, meta)
		if err != nil || item.State != StateQuarantined {
			t.Errorf("%q: %+v, %v", name, item, err)
			continue
		}
		s = reopen(t, s)
		if got, err := s.Get(item.ID); err != nil || got.Path != path {
			t.Errorf("%q after a restart: %q, %v", path, got.Path, err)
		}
		if _, err := s.Restore(t.Context(), item.ID, ""); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != name {
			t.Errorf("%q: %q, %v", name, b, err)
		}
	}
	f := write(t, filepath.Join(dir, "f"), "x")
	for _, path := range []string{"relative", "", "/with\x00nul"} {
		if _, err := s.Add(t.Context(), f, path, meta); err == nil {
			t.Errorf("path %q accepted", path)
		}
	}
	if folder, err := os.Open(dir); err != nil {
		t.Fatal(err)
	} else if _, err := s.Add(t.Context(), folder, dir, meta); !errors.Is(err, ErrNotRegular) {
		t.Errorf("folder: %v", err)
	}
}

func TestSizeCapAndRetention(t *testing.T) {
	s := openStore(t, Options{MaxBytes: 10})
	dir := t.TempDir()
	add := func(content string) (Item, error) {
		path := filepath.Join(dir, "file")
		return s.Add(t.Context(), write(t, path, content), path, meta)
	}
	first, err := add("123456")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add("123456"); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "file")); err != nil {
		t.Error("the original is gone")
	}
	second, err := add("1234")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.List(); len(got) != 2 || got[0].ID != second.ID || got[1].ID != first.ID {
		t.Errorf("%+v", got)
	}
	if n, err := s.Prune(second.Time); n != 1 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	if _, err := s.Get(first.ID); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if n, err := s.RemoveAll(); n != 1 || err != nil || s.Bytes() != 0 {
		t.Errorf("removed %d, %v, %d bytes", n, err, s.Bytes())
	}
	if err := s.Remove(second.ID); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.Remove("../../etc/passwd"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestDamage(t *testing.T) {
	s := openStore(t, Options{})
	path := filepath.Join(t.TempDir(), "file")
	item, err := s.Add(t.Context(), write(t, path, strings.Repeat("evil", 50000)), path, meta)
	if err != nil {
		t.Fatal(err)
	}
	data := s.path(item.ID + dataSuffix)
	good, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-5] ^= 1
	for name, bad := range map[string][]byte{"flipped bit": flipped, "cut": good[:len(good)-100], "empty": nil, "other": []byte("x")} {
		if err := os.WriteFile(data, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Restore(t.Context(), item.ID, ""); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
			t.Errorf("%s: restored %v", name, entries)
		}
	}
	if err := os.WriteFile(data, good, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Content(ctx, item.ID, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// A lost key is said, and no new one is made over the items.
	if err := os.Remove(s.path(identityFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.dir, Options{}); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(s.path(identityFile), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.dir, Options{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%v", err)
	}
}

func TestFolderIsPrivate(t *testing.T) {
	s := openStore(t, Options{})
	path := filepath.Join(t.TempDir(), "file")
	item, err := s.Add(t.Context(), write(t, path, "x"), path, meta)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", identityFile, item.ID + dataSuffix, item.ID + itemSuffix} {
		st, err := os.Lstat(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q has mode %v", name, st.Mode())
		}
	}
}

func FuzzDecodeItem(f *testing.F) {
	f.Add([]byte(`{"id":"` + strings.Repeat("ab", 16) + `","raw_path":"L3RtcC94","size":3,"xattrs":[{"name":"user.x","value":"eA=="}]}`))
	f.Add([]byte(`{"id":"../x","raw_path":"L3RtcC94"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		item, err := decodeItem(b)
		if err != nil {
			return
		}
		if !idPattern.MatchString(item.ID) || !filepath.IsAbs(item.Path) || item.Size < 0 {
			t.Fatalf("accepted %+v", item)
		}
	})
}

func ExampleStore() {
	dir, err := os.MkdirTemp("", "quarantine")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, err := Open(filepath.Join(dir, "store"), Options{Reserve: 1})
	if err != nil {
		panic(err)
	}
	path := filepath.Join(dir, "eicar.com")
	if err := os.WriteFile(path, []byte("not really"), 0o600); err != nil {
		panic(err)
	}
	f, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	item, err := s.Add(context.Background(), f, path, Meta{Threat: "Virus:DOS/EICAR_Test_File"})
	fmt.Println(item.State, item.Size, err)
	// Output: quarantined 10 <nil>
}

// TestOf: a file that was taken away is found by what it is, also after a
// restart; the newest item counts, and none that is gone.
func TestOf(t *testing.T) {
	s := openStore(t, Options{})
	path := filepath.Join(t.TempDir(), "evil")
	f := write(t, path, "dangerous content")
	if err := os.Link(path, path+"-too"); err != nil {
		t.Fatal(err)
	}
	item, err := s.Add(t.Context(), f, path, meta)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Add(t.Context(), f, path+"-too", meta)
	if err != nil {
		t.Fatal(err)
	}
	st, err := fstat(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{s, reopen(t, s)} {
		for _, sum := range []string{item.SHA256, ""} {
			if got, ok := s.Of(st, sum); !ok || got.ID != second.ID {
				t.Errorf("hash %q, of two: %v %+v", sum, ok, got)
			}
		}
	}
	if err := s.Remove(second.ID); err != nil {
		t.Fatal(err)
	}
	other, longer, touched := *st, *st, *st
	other.Ino++
	longer.Size++
	touched.Mtim.Nsec ^= 1
	for _, s := range []*Store{s, reopen(t, s)} {
		for _, sum := range []string{item.SHA256, ""} {
			if got, ok := s.Of(st, sum); !ok || got.ID != item.ID {
				t.Errorf("hash %q: %v %+v", sum, ok, got)
			}
			if got, ok := s.Of(&other, sum); ok {
				t.Errorf("hash %q, another file: %+v", sum, got)
			}
		}
		if got, ok := s.Of(st, strings.Repeat("0", 64)); ok {
			t.Errorf("other content: %+v", got)
		}
		for _, st := range []*unix.Stat_t{&longer, &touched} {
			if got, ok := s.Of(st, ""); ok {
				t.Errorf("no hash, changed since: %+v", got)
			}
		}
	}
	if err := s.Remove(item.ID); err != nil {
		t.Fatal(err)
	}
	for _, sum := range []string{item.SHA256, ""} {
		if got, ok := s.Of(st, sum); ok {
			t.Errorf("hash %q, removed: %+v", sum, got)
		}
	}
}

// TestItemCap: the list of items, which is in memory, does not grow for ever.
func TestItemCap(t *testing.T) {
	s := openStore(t, Options{MaxItems: 2})
	dir := t.TempDir()
	add := func() (Item, error) {
		path := filepath.Join(dir, "file")
		return s.Add(t.Context(), write(t, path, "x"), path, meta)
	}
	for range 2 {
		if _, err := add(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := add(); !errors.Is(err, ErrFull) {
		t.Errorf("a third: %v", err)
	}
	if n, err := s.RemoveAll(); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := add(); err != nil {
		t.Errorf("after there was room again: %v", err)
	}
}
