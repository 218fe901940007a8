package onaccess

import (
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseMounts(t *testing.T) {
	const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
36 22 0:31 /sub /mnt/with\040blank rw,noexec master:1 propagate_from:2 - btrfs /dev/sdb rw
41 22 0:40 / /run/user/1000/doc rw,nosuid,nodev - fuse.portal portal rw,user_id=1000
broken line
`
	got, err := parseMounts(strings.NewReader(table))
	if err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Errorf("error %v does not name line 4", err)
	}
	want := []mount{
		{id: 22, dev: unix.Mkdev(254, 0), point: "/", options: "rw,relatime", fsType: "ext4", superOptions: "rw,errors=remount-ro"},
		{id: 36, dev: unix.Mkdev(0, 31), point: "/mnt/with blank", options: "rw,noexec", fsType: "btrfs", superOptions: "rw"},
		{id: 41, dev: unix.Mkdev(0, 40), point: "/run/user/1000/doc", options: "rw,nosuid,nodev", fsType: "fuse.portal", superOptions: "rw,user_id=1000"},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); d != "" {
		t.Error(d)
	}
}

func TestSkipReason(t *testing.T) {
	for _, c := range []struct {
		m        mount
		mute     bool
		skipped  string // part of the reason, "" for watched
		policies []string
	}{
		{m: mount{point: "/", fsType: "ext4"}},
		{m: mount{point: "/x", fsType: "squashfs"}},
		{m: mount{point: "/proc", fsType: "proc"}, skipped: "not monitored"},
		{m: mount{point: "/n", fsType: "nfs4"}, skipped: "unmonitoredFilesystems", policies: DefaultUnmonitored()},
		{m: mount{point: "/n", fsType: "nfs4"}},
		{m: mount{point: "/f", fsType: "fuse.sshfs"}, skipped: "unmonitoredFilesystems", policies: DefaultUnmonitored()},
		{m: mount{point: "/f", fsType: "fuse.sshfs"}, skipped: "allow_other"},
		{m: mount{point: "/f", fsType: "fuse.sshfs", superOptions: "rw,user_id=1,allow_other"}},
		{m: mount{point: "/w", fsType: "fuseblk", superOptions: "rw,allow_other"}, policies: DefaultUnmonitored()},
		{m: mount{point: "/d", fsType: "xfs", options: "rw,noexec"}},
		{m: mount{point: "/d", fsType: "xfs", options: "rw,noexec"}, mute: true, skipped: "noexec"},
		{m: mount{point: "/c/dev", fsType: "tmpfs", options: "rw,nosuid"}, skipped: "device folder"},
		{m: mount{point: "/dev/shm", fsType: "tmpfs", options: "rw,nosuid,nodev"}},
	} {
		got := leaves{c.policies, c.mute}.reason(c.m)
		if (got == "") != (c.skipped == "") || !strings.Contains(got, c.skipped) {
			t.Errorf("%+v: %q, want %q", c.m, got, c.skipped)
		}
	}
}

func TestOpenMountRefusesWhatIsNotThatMount(t *testing.T) {
	dir := tmpfs(t)
	table, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	id := -1
	for _, m := range table {
		if m.point == dir {
			id = m.id
		}
	}
	fd, err := openMount(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if _, err := openMount(filepath.Dir(dir), id); err == nil {
		t.Error("the folder above was taken for the mount")
	}
	// Mounted over.
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if _, err := openMount(dir, id); err == nil {
		t.Error("the mount over it was taken for the mount")
	}
}

// TestMountsOfAnEmptyList: without OnlyMounts matching, nothing is marked.
func TestOnlyMountsMarksNothingElse(t *testing.T) {
	dir := tmpfs(t)
	sub := filepath.Join(dir, "not-a-mount-point")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	r := newRigOn(t, dir, func(c *Config) { c.OnlyMounts = []string{sub} })
	if s := r.Stats(0); len(s.MarkedMounts) != 0 {
		t.Errorf("marked %+v", s.MarkedMounts)
	}
}

func TestNewMountIsWatched(t *testing.T) {
	dir := tmpfs(t)
	sub := filepath.Join(dir, "later")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	r := newRigOn(t, dir, func(c *Config) { c.OnlyMounts = []string{sub} })
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(sub, unix.MNT_DETACH)
	p := r.put(t, "later/evil", bad)
	wait(t, "the new mount is watched", func() bool {
		return r.accessor.do(request{Op: "read", Path: p}).Errno == eperm
	})
	if s := r.Stats(0); len(s.MarkedMounts) != 1 || s.MarkedMounts[0].Point != sub {
		t.Errorf("marked %+v", s.MarkedMounts)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"))
	f.Add([]byte("1 1 0:1 / /a\\040b rw - tmpfs none\n\\"))
	f.Fuzz(func(t *testing.T, table []byte) {
		mounts, _ := parseMounts(strings.NewReader(string(table)))
		for _, m := range mounts {
			if !strings.HasPrefix(m.point, "/") || m.id < 0 {
				t.Errorf("accepted %+v", m)
			}
			leaves{DefaultUnmonitored(), true}.reason(m)
		}
	})
}

func FuzzNextEvent(f *testing.F) {
	event := func(length uint32, version byte) []byte {
		b := make([]byte, 24)
		b[0], b[1], b[2], b[3] = byte(length), byte(length>>8), byte(length>>16), byte(length>>24)
		b[4] = version
		return b
	}
	f.Add(event(24, 3))
	f.Add(event(0, 3))
	f.Add(append(event(32, 3), event(24, 3)...))
	f.Add(event(1<<31, 3))
	f.Add(event(24, 9))
	f.Fuzz(func(t *testing.T, batch []byte) {
		for len(batch) > 0 {
			_, rest, err := nextEvent(batch)
			if err != nil {
				return
			}
			if len(rest) >= len(batch) {
				t.Fatal("no progress")
			}
			batch = rest
		}
	})
}

// TestTableReader: a table is taken apart again exactly when it has changed.
func TestTableReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mountinfo")
	line := func(id int, point string) string {
		return fmt.Sprintf("%d 1 0:%d / %s rw - tmpfs tmpfs rw\n", id, id, point)
	}
	r := tableReader{seed: maphash.MakeSeed()}
	parsed := 0
	concerns := func(m mount) bool { parsed++; return m.point != "/left/out" }
	read := func(text string, before mountTable) mountTable {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		parsed = 0
		got, err := r.read(path, before, concerns)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	text := strings.Repeat(line(7, "/left/out"), 3000) + line(8, "/a")
	first := read(text, mountTable{})
	if len(first.mounts) != 1 || first.mounts[0].point != "/a" || parsed != 3001 {
		t.Fatalf("%d mounts of %d lines", len(first.mounts), parsed)
	}
	if again := read(text, first); parsed != 0 || len(again.mounts) != 1 {
		t.Errorf("%d lines were taken apart although nothing changed", parsed)
	}
	if other := read(strings.Replace(text, "/a", "/b", 1), first); len(other.mounts) != 1 || other.mounts[0].point != "/b" {
		t.Errorf("a changed table gave %v", other.mounts)
	}
	if empty := read("", first); len(empty.mounts) != 0 {
		t.Errorf("an empty table gave %v", empty.mounts)
	}
	if _, err := r.read(path+"x", first, concerns); err == nil {
		t.Error("a table that is not there is read")
	}
}
