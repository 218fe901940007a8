package guard

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// keeping is a keeper of a silent daemon, with the daemon's end of its socket.
func keeping(t *testing.T) (*keeper, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "daemon")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		c.Close()
	})
	return newKeeper(newPage(t), fds[0]), c.(*net.UnixConn)
}

// letGo is a file that was let go.
func letGo(t *testing.T, name string, at int64) Released {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte(name)); err != nil {
		t.Fatal(err)
	}
	return Released{Group: 1, Mask: unix.FAN_OPEN_PERM, PID: 42, At: at, FD: fd}
}

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// TestKeeperHandsOver: files are kept while the daemon is silent, open for a time and
// by their handles then, and handed over when it is not.
func TestKeeperHandsOver(t *testing.T) {
	k, daemon := keeping(t)
	at := Now()
	old, young := letGo(t, "old", at-int64(2*keepOpen)), letGo(t, "young", at)
	k.add(old)
	k.add(young)
	if !k.round(at) || len(k.named) != 1 || len(k.open) != 1 {
		t.Fatalf("%d named, %d open, want one of each", len(k.named), len(k.open))
	}
	if isOpen(old.FD) || !isOpen(young.FD) {
		t.Error("the wrong file is open")
	}
	if n, err := unix.IoctlGetInt(k.to, unix.SIOCOUTQ); err != nil || n != 0 {
		t.Errorf("handed over to a silent daemon: %d bytes, %v", n, err)
	}
	k.page.Beat(at, time.Second)
	if k.round(at) {
		t.Error("something is left")
	}
	if isOpen(young.FD) {
		t.Error("open after it was handed over")
	}
	if lost := k.page.Counts().Lost; lost != 0 {
		t.Errorf("%d lost", lost)
	}
	got, err := Receive(daemon)
	if err != nil || got.FD != -1 || filepath.Base(got.Path) != "old" || got.PID != 42 || got.Group != 1 || got.Mask != unix.FAN_OPEN_PERM || got.At != old.At {
		t.Errorf("handed over: %+v, %v", got, err)
	}
	fd, err := unix.Open(filepath.Dir(got.Path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if os.Geteuid() == 0 { // CAP_DAC_READ_SEARCH
		same, err := unix.OpenByHandleAt(fd, got.Handle, unix.O_RDONLY|unix.O_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		hasContent(t, same, "old")
	}
	if got, err = Receive(daemon); err != nil || got.FD < 0 || got.At != at {
		t.Fatalf("handed over: %+v, %v", got, err)
	}
	hasContent(t, got.FD, "young")
}

func hasContent(t *testing.T, fd int, want string) {
	t.Helper()
	defer unix.Close(fd)
	b := make([]byte, 100)
	if n, err := unix.Pread(fd, b, 0); err != nil || string(b[:n]) != want {
		t.Errorf("content %q, %v, want %q", b[:n], err, want)
	}
}

// TestKeeperIsBounded: the oldest make room and are counted, in both lists.
func TestKeeperIsBounded(t *testing.T) {
	k, _ := keeping(t)
	at := Now()
	first := letGo(t, "first", at)
	if k.add(first) != -1 {
		t.Error("something made room")
	}
	for i := range maxOpen - 1 {
		k.add(letGo(t, strconv.Itoa(i), at+1))
	}
	if got := k.add(letGo(t, "last", at+2)); got != first.FD || k.page.Counts().Lost != 1 {
		t.Errorf("%d made room, want the first, %d; %d lost", got, first.FD, k.page.Counts().Lost)
	}
	unix.Close(first.FD)
	for range maxNamed {
		k.add(letGo(t, "more", at+3))
		k.round(at + 4 + int64(keepOpen))
	}
	if len(k.open) != 0 || len(k.named) != maxNamed || k.named[maxNamed-1].At != at+3 {
		t.Errorf("%d open, %d named", len(k.open), len(k.named))
	}
	if got, want := k.page.Counts().Lost, uint64(1+maxOpen); got != want {
		t.Errorf("%d lost, want %d", got, want)
	}
}

// TestKeeperWaitsForReader: a daemon that gives signs of life and reads nothing gets
// a handful; the rest waits.
func TestKeeperWaitsForReader(t *testing.T) {
	k, daemon := keeping(t)
	at := Now()
	const files = 100
	for range files {
		k.add(letGo(t, "f", at))
	}
	k.page.Beat(at, time.Second)
	if !k.round(at) || len(k.open) == 0 || len(k.open) == files {
		t.Fatalf("%d of %d wait", len(k.open), files)
	}
	t.Logf("%d files wait in the socket", files-len(k.open))
	for range files {
		r, err := Receive(daemon)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(r.FD)
		k.round(at)
	}
	if len(k.open) != 0 || k.page.Counts().Lost != 0 {
		t.Errorf("%d left, %d lost", len(k.open), k.page.Counts().Lost)
	}
}

// TestReceiveRefuses what no guard sends, and closes what came along.
func TestReceiveRefuses(t *testing.T) {
	r := Released{Group: 2, FD: -1, Handle: unix.NewFileHandle(1, []byte("handle")), Path: "/f"}
	whole := r.encode()
	for name, message := range map[string][]byte{
		"short": whole[:releasedHeader-1], "long": append(bytes.Clone(whole), make([]byte, maxReleased)...),
		"group": append([]byte{maxGroups, 0, 0, 0}, whole[4:]...), "no file": whole[:releasedHeader-4],
		"handle": whole[:releasedHeader+3],
	} {
		k, daemon := keeping(t)
		file := letGo(t, "f", 0)
		rights := unix.UnixRights(file.FD, file.FD)
		if name == "no file" {
			message, rights = append(bytes.Clone(message), 0, 0, 0, 0), nil
		}
		if err := unix.Sendmsg(k.to, message, rights, nil, 0); err != nil {
			t.Fatal(err)
		}
		unix.Close(file.FD)
		before := openFiles(t)
		if got, err := Receive(daemon); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
		if after := openFiles(t); after != before {
			t.Errorf("%s: %d descriptors, %d before", name, after, before)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func FuzzReleased(f *testing.F) {
	r := Released{Group: 2, Mask: 1 << 16, PID: 7, At: 1, Mount: 30, FD: -1, Handle: unix.NewFileHandle(1, []byte("handle")), Path: "/f"}
	f.Add(r.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeReleased(b)
		if err != nil {
			return
		}
		r.FD = -1
		if got := r.encode(); !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
	})
}
