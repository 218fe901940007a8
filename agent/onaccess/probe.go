package onaccess

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ProbeSize is the size, in bytes, of a probe's token.
const ProbeSize = 64

// ProbeResult is what happened to the open of a probe file.
type ProbeResult struct {
	// Seen: the open reached the watcher.
	Seen bool
	// Excluded: policy excludes the file, so it was allowed.
	Excluded bool
	// Held: the kernel held the process, and Denied: it was refused the file.
	Held, Denied bool
}

// probes are the tokens that are waited for. A probe is a file whose whole
// content is a token that was drawn for it: opening it is refused once, in the
// way of a real detection but without any signature, quarantine or history.
type probes struct {
	active atomic.Int32 // tokens waited for; 0 costs accesses one load
	mu     sync.Mutex
	wanted map[[ProbeSize]byte]*expectation
}

type expectation struct {
	result ProbeResult
	done   chan struct{}
}

// ExpectProbe makes the next open of a file that contains exactly the token a
// probe. wait returns when that open was decided, or when stop is closed, and
// ends the expectation; it must be called.
func (w *Watcher) ExpectProbe(token [ProbeSize]byte) (wait func(stop <-chan struct{}) ProbeResult) {
	p := &expectation{done: make(chan struct{})}
	w.probes.mu.Lock()
	if w.probes.wanted == nil {
		w.probes.wanted = make(map[[ProbeSize]byte]*expectation)
	}
	w.probes.wanted[token] = p
	w.probes.mu.Unlock()
	w.probes.active.Add(1)
	return func(stop <-chan struct{}) ProbeResult {
		select {
		case <-p.done:
		case <-stop:
		}
		w.probes.mu.Lock()
		defer w.probes.mu.Unlock()
		delete(w.probes.wanted, token)
		w.probes.active.Add(-1)
		return p.result
	}
}

// answerProbe handles an access if it is the open of a probe.
func (w *Watcher) answerProbe(p *pending, path string) bool {
	if w.probes.active.Load() == 0 || p.state.size != ProbeSize || p.kind == Exec {
		return false
	}
	var token [ProbeSize]byte
	if n, err := unix.Pread(int(p.fd), token[:], 0); err != nil || n != ProbeSize {
		return false
	}
	w.probes.mu.Lock()
	expected := w.probes.wanted[token]
	if expected != nil && p.kind == Open {
		delete(w.probes.wanted, token) // once
	}
	w.probes.mu.Unlock()
	if expected == nil {
		return false
	}
	if p.kind != Open {
		// Whoever wrote the probe closed it: its scan would only put a clean
		// verdict before the open.
		w.release(p)
		return true
	}
	result := ProbeResult{Seen: true, Held: p.waiting()}
	a := w.access(p, path)
	switch {
	case w.cfg.Excluded != nil && w.cfg.Excluded(a):
		result.Excluded = true
	case w.holding.Load() && w.Mode() == RealTime:
		did, err := p.answer(unix.FAN_DENY)
		result.Denied = did && err == nil
	}
	w.release(p)
	w.probes.mu.Lock()
	expected.result = result
	w.probes.mu.Unlock()
	close(expected.done)
	return true
}

// Mount is a mount of one mount namespace, with what policy says about it.
type Mount struct {
	// ID is the mount's number, Device that of its file system.
	ID     int
	Device uint64
	// Point is the mount point below Root, which is "" for our own namespace
	// and /proc/PID/root for another one.
	Point, Root string
	Filesystem  string
	ReadOnly    bool
	// Skip says why the mount is not watched; "" means that it should be.
	Skip string
}

// Path is where the mount point is seen from our own namespace.
func (m Mount) Path() string { return m.Root + m.Point }

// Namespace is a mount namespace with its mounts.
type Namespace struct {
	// ID is the kernel's number, Process a member of the namespace.
	ID      uint64
	Process int32
	Own     bool
	Mounts  []Mount
}

// MountNamespaces lists the mounts of every mount namespace that a process is
// in, ours first, restricted to Config.OnlyMounts. Namespaces and mounts that
// go away while it looks are left out; err names what could not be read.
func (w *Watcher) MountNamespaces() ([]Namespace, error) {
	pids, err := processIDs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	self := os.Getpid()
	var out []Namespace
	var errs []error
	seen := map[uint64]bool{}
	for _, pid := range append([]int{self}, pids...) {
		dir := "/proc/" + strconv.Itoa(pid)
		var st unix.Stat_t
		if err := unix.Stat(dir+"/ns/mnt", &st); err != nil || seen[st.Ino] {
			continue // gone, a kernel thread, or done
		}
		mounts, err := readMounts(dir + "/mountinfo")
		if len(mounts) == 0 {
			continue
		}
		if err != nil && len(errs) < 8 {
			errs = append(errs, err)
		}
		seen[st.Ino] = true
		ns := Namespace{ID: st.Ino, Process: int32(pid), Own: pid == self}
		root := dir + "/root"
		if ns.Own {
			root = ""
		}
		for _, m := range mounts {
			if !w.concerns(m) {
				continue
			}
			ns.Mounts = append(ns.Mounts, Mount{
				ID: m.id, Device: m.dev, Point: m.point, Root: root, Filesystem: m.fsType,
				ReadOnly: m.has("ro") || m.superReadOnly(), Skip: w.skip(m),
			})
		}
		out = append(out, ns)
	}
	return out, errors.Join(errs...)
}
