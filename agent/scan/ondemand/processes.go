package ondemand

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds on what is read of one process.
const (
	maxMapsBytes = 8 << 20
	maxMappings  = 4096
)

// mapping is a file that a process has mapped to execute it.
type mapping struct {
	link string // in map_files of the process
	path string
}

// processes hands over what runs now: the programs and the files that they have
// mapped executable (libraries, plug-ins, what was injected). Files that were
// deleted, exist in memory only (memfd) or belong to containers are among them:
// the kernel's links lead to the file itself.
func (r *run) processes(targets chan<- target) error {
	proc := r.m.cfg.proc
	entries, err := os.ReadDir(proc)
	if err != nil {
		r.skip(proc, reasonUnreadable, err)
		return nil
	}
	seen := map[string]bool{} // mapped files, by device and inode as maps tells them
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		dir := proc + "/" + e.Name()
		path, err := os.Readlink(dir + "/exe")
		if err != nil {
			continue // a kernel thread, or gone
		}
		if err := r.linked(targets, dir+"/exe", path); err != nil {
			return err
		}
		maps, err := os.Open(dir + "/maps")
		if err != nil {
			continue // gone
		}
		found := executable(maps, seen)
		maps.Close()
		for _, m := range found {
			if err := r.linked(targets, dir+"/map_files/"+m.link, m.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// linked hands over the file behind one of the kernel's links, once. It looks at
// the file first without opening it, which nobody can hold.
func (r *run) linked(targets chan<- target, link, path string) error {
	if r.excluded(strings.TrimSuffix(path, " (deleted)"), false) {
		return nil
	}
	look, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // the process is gone, or a kernel without map_files
	}
	defer unix.Close(look)
	var st unix.Stat_t
	if err := unix.Fstat(look, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || r.once(&st) {
		return nil
	}
	volume := r.volumes.of(look).id
	if r.unchanged(&st, volume, path) {
		return nil
	}
	var f *os.File
	err = r.open(func() (err error) {
		f, err = openQuietly(fmt.Sprintf("/proc/self/fd/%d", look), path)
		return err
	}, func() { f.Close() })
	switch {
	case errors.Is(err, errAllHeld), err != nil && r.ctx.Err() != nil:
		return err
	case errors.Is(err, errHeld):
		r.skip(path, reasonHeld, err)
		return nil
	case err != nil:
		r.skip(path, openReason(err), err)
		return nil
	}
	return r.hand(targets, target{f, path, st, volume})
}

// executable reads /proc/PID/maps, lines like
//
//	7f0c1a000000-7f0c1a021000 r-xp 00001000 fe:00 131 /usr/lib/libc.so.6
//
// and returns the executable files that are not in seen, which it adds to.
func executable(maps io.Reader, seen map[string]bool) []mapping {
	var out []mapping
	lines := bufio.NewScanner(io.LimitReader(maps, maxMapsBytes))
	lines.Buffer(make([]byte, 16<<10), 16<<10)
	for lines.Scan() && len(out) < maxMappings {
		address, rest, _ := bytes.Cut(lines.Bytes(), []byte(" "))
		f := bytes.SplitN(rest, []byte(" "), 4) // perms, offset, device, inode and path
		if len(f) < 4 || len(f[0]) < 3 || f[0][2] != 'x' {
			continue
		}
		inode, path, _ := strings.Cut(string(f[3]), " ")
		path = unescape(strings.TrimLeft(path, " "))
		id := string(f[2]) + " " + inode
		if inode == "0" || inode == "" || !strings.HasPrefix(path, "/") || seen[id] {
			continue
		}
		if len(seen) < maxHanded {
			seen[id] = true
		}
		out = append(out, mapping{string(address), path})
	}
	return out
}

// unescape undoes the kernel's \012 for a line break in a path of maps.
func unescape(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
