package onaccess

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// Ways of reaching a file that are not open(2) of its path.

// TestReachedThroughUring: the kernel opens for the process, maybe on a thread
// of its own.
func TestReachedThroughUring(t *testing.T) {
	r := newRig(t, nil)
	good, evil := r.put(t, "good", "harmless"), r.put(t, "evil", bad)
	if got := r.accessor.do(request{Op: "uring", Path: good}); got.Errno == int(unix.ENOSYS) || got.Errno == eperm {
		need.Missing(t, "the kernel allows no io_uring: %s", got.Err)
	} else if got.Content != "harmless" {
		t.Fatalf("a good file reads %q, %s", got.Content, got.Err)
	}
	if got := r.accessor.do(request{Op: "uring", Path: evil}); got.Errno != eperm {
		t.Errorf("a bad file: %q", got.Err)
	}
	if d := r.detection(t); !d.Denied || d.Access.Path != evil {
		t.Errorf("detection %+v", d)
	}
}

func TestReachedInChroot(t *testing.T) {
	r := newRig(t, nil)
	evil := r.put(t, "evil", bad)
	if got := r.accessor.do(request{Op: "chroot", To: r.dir, Path: "/evil"}); got.Errno != eperm {
		t.Errorf("in a chroot: %q", got.Err)
	}
	// The path is the host's, not that of the chroot.
	if d := r.detection(t); d.Access.Path != evil {
		t.Errorf("path %s, want %s", d.Access.Path, evil)
	}
}

// TestReachedByPreload: the dynamic loader opens what LD_PRELOAD names.
func TestReachedByPreload(t *testing.T) {
	r := newRig(t, nil)
	program := need.Command(t, "true")
	evil := r.put(t, "evil.so", "\x7fELF"+bad)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+evil, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "cannot open shared object file") {
		t.Errorf("the loader says %q, %v", out, err)
	}
	if d := r.detection(t); !d.Denied || d.Access.Path != evil {
		t.Errorf("detection %+v", d)
	}
}

// TestScriptsOfInterpreters: for the kernel the interpreter is executed, and
// the script is merely opened.
func TestScriptsOfInterpreters(t *testing.T) {
	r := newRig(t, nil)
	evil := r.put(t, "evil", "echo ran\n#"+bad)
	for _, command := range [][]string{{"sh", evil}, {"perl", evil}, {"sh", "-c", `. "$0"`, evil}, {"awk", "-f", evil}} {
		program := need.Command(t, command[0])
		out, err := exec.Command(program, command[1:]...).CombinedOutput()
		if err == nil || strings.Contains(string(out), "ran\n") {
			t.Errorf("%v ran: %s", command, out)
		}
		if d := r.detection(t); !d.Denied || d.Access.Path != evil {
			t.Errorf("%v: detection %+v", command, d)
		}
	}
}

// TestSubvolumes: files of btrfs subvolumes have device numbers that no mount
// has; a subvolume can be made and mounted later, on its own.
func TestSubvolumes(t *testing.T) {
	dir := loopFS(t, "btrfs")
	btrfs := need.Command(t, "btrfs")
	subvolume := func(parts ...string) string {
		p := filepath.Join(append([]string{dir}, parts...)...)
		if out, err := exec.Command(btrfs, "-q", "subvolume", "create", p).CombinedOutput(); err != nil {
			t.Fatalf("make a subvolume: %v: %s", err, out)
		}
		return p
	}
	for _, scope := range []MarkScope{ScopeMount, ScopeFilesystem} {
		t.Run(string(scope), func(t *testing.T) {
			before := subvolume("before-" + string(scope))
			r := newRigOn(t, dir, func(c *Config) { c.Scope = scope; c.Ignore = IgnoreAll })
			after := subvolume("after-" + string(scope))
			snapshot := filepath.Join(dir, "snapshot-"+string(scope))
			if err := os.WriteFile(filepath.Join(before, "evil"), []byte(bad), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(btrfs, "-q", "subvolume", "snapshot", before, snapshot).CombinedOutput(); err != nil {
				t.Fatalf("make a snapshot: %v: %s", err, out)
			}
			if err := os.WriteFile(filepath.Join(after, "evil"), []byte(bad), 0o644); err != nil {
				t.Fatal(err)
			}
			settle()
			for _, sub := range []string{before, after, snapshot} {
				evil := filepath.Join(sub, "evil")
				if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
					t.Errorf("%s: %q", evil, got.Err)
				}
				if d := r.detection(t); d.Access.Path != evil {
					t.Errorf("path %s, want %s", d.Access.Path, evil)
				}
			}
			// Files of the same number in different subvolumes are different files.
			clean := filepath.Join(after, "clean")
			if err := os.WriteFile(clean, []byte("harmless"), 0o644); err != nil {
				t.Fatal(err)
			}
			settle()
			scans := r.scanner.scans.Load()
			for range 5 {
				r.accessor.must(request{Op: "open", Path: clean})
			}
			if n := r.scanner.scans.Load() - scans; n != 1 {
				t.Errorf("a clean file of a subvolume was scanned %d times, want once", n)
			}
		})
	}
}

// TestMemoryFileIsNotHeld says what real-time protection does not see: files in
// memory are on a mount inside the kernel that cannot be marked. Their execution
// is for the sensors.
func TestMemoryFileIsNotHeld(t *testing.T) {
	r := newRig(t, nil)
	if got := r.accessor.must(request{Op: "memfd", Data: "#!/bin/sh\necho ran\n#" + bad}); got.Content != "ran\n" {
		t.Errorf("printed %q", got.Content)
	}
	if s := r.Stats(0); s.Events != 0 || s.Held != 0 {
		t.Errorf("%d events, %d held", s.Events, s.Held)
	}
}

// openChroot opens a file on a thread that has another root folder.
func openChroot(root, path string) error {
	done := make(chan error)
	go func() {
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chroot(root))
		if err == nil {
			var fd int
			if fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
				unix.Close(fd)
			}
		}
		done <- err
	}()
	return <-done
}

// runMemoryFile executes a file that exists in memory only.
func runMemoryFile(content string) (string, error) {
	fd, err := unix.MemfdCreate("payload", 0) // inherited: the interpreter opens it by its number
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), "payload")
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		return "", err
	}
	// A file that is open for writing cannot be executed.
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	defer ro.Close()
	f.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{ro}
	out, err := cmd.Output()
	return string(out), err
}

// openUring opens and reads a file; the open is the kernel's, through a ring.
func openUring(path string) (string, error) {
	name, err := unix.ByteSliceFromString(path)
	if err != nil {
		return "", err
	}
	var pin runtime.Pinner
	pin.Pin(&name[0])
	defer pin.Unpin()
	result, err := uring(uringSQE{
		opcode: uringOpOpenat, fd: unix.AT_FDCWD, addr: uint64(uintptr(unsafe.Pointer(&name[0]))), open: unix.O_RDONLY | unix.O_CLOEXEC,
	})
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(result), path)
	defer f.Close()
	b := make([]byte, 4096)
	n, err := f.Read(b)
	return string(b[:n]), err
}
