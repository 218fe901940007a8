package onaccess

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// syncForeign marks mounts that exist in other mount namespaces only (with
// OnlyMounts: at the same places there). Their mount tables are read, never kept
// open: an open one would keep a finished container's mounts alive. w.marksMu is
// held.
func (w *Watcher) syncForeign() error {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("own mount namespace: %w", err)
	}
	now := time.Now()
	if w.marks.namespaces == nil || now.After(w.marks.forget) {
		w.marks.namespaces, w.marks.pids = make(map[int]string, len(w.marks.pids)), nil
		w.marks.forget = now.Add(namespaceForget)
	}
	// Asked for before the list is made: who comes meanwhile is found next time.
	newest, newestErr := newestProcess()
	if len(w.marks.pids) == 0 || newest != w.marks.newest || newestErr != nil {
		if w.marks.pids, err = processIDs(); err != nil {
			return fmt.Errorf("list processes: %w", err)
		}
		w.marks.newest = newest
	}
	// A copy: what is marked there is marked again every time, because a device
	// number can go to another file system without our noticing.
	covered := maps.Clone(w.marks.covered)
	done := map[string]bool{own: true, "": true}
	points := make(map[int]string)
	tables := make(map[string]mountTable)
	concerned := func(m mount) bool { return w.concerns(m) && classOfType(m.fsType) != fsUnknown }
	var all []MarkedMount
	exempted := slices.Clone(w.marks.exempt)
	var errs []error
	for _, pid := range w.marks.pids {
		dir := "/proc/" + strconv.Itoa(pid)
		ns, known := w.marks.namespaces[pid]
		if !known {
			ns, _ = os.Readlink(dir + "/ns/mnt") // "": gone, or a kernel thread
			w.marks.namespaces[pid] = ns
		}
		if done[ns] {
			continue
		}
		table, err := w.tables.read(dir+"/mountinfo", w.marks.tables[ns], concerned)
		if err != nil {
			continue // gone; another process may stand for the namespace
		}
		done[ns] = true
		mounts := table.mounts
		if len(tables) < maxTables {
			tables[ns] = table
		}
		marked, left, err := w.markMounts(mounts, dir+"/root", int32(pid), covered, points)
		all, exempted = append(all, marked...), append(exempted, left...)
		if err != nil && len(errs) < 8 {
			errs = append(errs, err)
		}
	}
	w.marks.foreign, w.marks.foreignPoints, w.marks.tables = all, points, tables
	w.publish()
	errs = append(errs, w.settleExempt(exempted, covered))
	return errors.Join(errs...)
}

// maxTables bounds the mount tables of other namespaces that are remembered;
// those of more are taken apart every time.
const maxTables = 256

// mountTable is a mount table of another namespace, of which only the mounts
// that could be watched are kept: looking every second must cost nearly nothing
// while nothing changes.
type mountTable struct {
	sum    uint64 // of the text
	size   int    // of the text, in bytes; 0 for none
	mounts []mount
}

// tableReader reads mount tables, one after the other.
type tableReader struct {
	seed maphash.Seed // nobody can make two tables that look the same
	buf  []byte
}

const (
	// maxTable bounds the text of a mount table, in bytes.
	maxTable = 64 << 20
	// keptTable is the largest buffer that is kept for the next time.
	keptTable = 1 << 20
)

// read reads a table, which is taken apart only if it is not the one before.
func (r *tableReader) read(path string, before mountTable, concerns func(mount) bool) (mountTable, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return mountTable{}, fmt.Errorf("mount table: %w", err)
	}
	defer unix.Close(fd)
	if r.buf = r.buf[:0]; cap(r.buf) > keptTable {
		r.buf = nil
	}
	for {
		r.buf = slices.Grow(r.buf, 16<<10)
		n, err := unix.Read(fd, r.buf[len(r.buf):cap(r.buf)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return mountTable{}, fmt.Errorf("mount table %s: %w", path, err)
		}
		if n == 0 || len(r.buf) > maxTable {
			break
		}
		r.buf = r.buf[:len(r.buf)+n]
	}
	t := mountTable{sum: maphash.Bytes(r.seed, r.buf), size: len(r.buf)}
	if t.size == before.size && t.sum == before.sum {
		return before, nil
	}
	all, err := parseMounts(bytes.NewReader(r.buf))
	if err != nil {
		return mountTable{}, fmt.Errorf("mount table %s: %w", path, err)
	}
	for _, m := range all {
		if concerns(m) {
			t.mounts = append(t.mounts, m)
		}
	}
	return t, nil
}

// newestProcess is the number that the last new process or thread got: nobody
// has come while it stays the same. (proc_loadavg(5), the fifth field.)
func newestProcess() (string, error) {
	// Not by os.ReadFile: the file can be polled for, and telling Go's poller of it
	// wakes another thread every time.
	fd, err := unix.Open("/proc/loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("/proc/loadavg: %w", err)
	}
	defer unix.Close(fd)
	var data [128]byte
	n, err := unix.Read(fd, data[:])
	if err != nil {
		return "", fmt.Errorf("/proc/loadavg: %w", err)
	}
	f := bytes.Fields(data[:n])
	if len(f) != 5 {
		return "", fmt.Errorf("/proc/loadavg: %d fields, want 5", len(f))
	}
	return string(f[4]), nil
}

// processIDs lists /proc.
func processIDs() ([]int, error) {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	defer unix.Close(fd)
	var pids []int
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read /proc: %w", err)
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	slices.Sort(pids)
	return pids, nil
}
