package onaccess

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of a mountinfo file. The kernel's own default limit is 100,000
// mounts per namespace (fs.mount-max).
const (
	maxMounts    = 200_000
	maxMountLine = 64 << 10
)

// mount is one line of /proc/PID/mountinfo; see proc_pid_mountinfo(5).
type mount struct {
	id           int
	dev          uint64
	point        string // below the root of the process that read it
	options      string // per mount, comma separated
	fsType       string
	superOptions string
}

func (m mount) has(option string) bool {
	return strings.Contains(","+m.options+",", ","+option+",")
}

// superReadOnly reports whether the file system itself is mounted read-only.
func (m mount) superReadOnly() bool {
	return strings.HasPrefix(m.superOptions+",", "ro,")
}

// readMounts reads /proc/self/mountinfo or that of another process.
func readMounts(path string) ([]mount, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	defer f.Close()
	mounts, err := parseMounts(f)
	if err != nil {
		return mounts, fmt.Errorf("mount table %s: %w", path, err)
	}
	return mounts, nil
}

// parseMounts reads a mountinfo file. Lines that cannot be understood are
// left out and reported together with the rest.
func parseMounts(r io.Reader) ([]mount, error) {
	var mounts []mount
	var errs []error
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 0, 4096), maxMountLine)
	for n := 1; scan.Scan(); n++ {
		if len(mounts) >= maxMounts {
			errs = append(errs, fmt.Errorf("line %d: more than %d mounts, the rest is not watched", n, maxMounts))
			break
		}
		m, err := parseMount(scan.Text())
		if err != nil {
			if len(errs) < 8 {
				errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			}
			continue
		}
		mounts = append(mounts, m)
	}
	if err := scan.Err(); err != nil {
		errs = append(errs, err)
	}
	return mounts, errors.Join(errs...)
}

func parseMount(line string) (mount, error) {
	left, right, ok := strings.Cut(line, " - ")
	if !ok {
		return mount{}, errors.New("no separator \" - \"")
	}
	f := strings.Split(left, " ")
	s := strings.Split(right, " ")
	if len(f) < 6 || len(s) < 2 {
		return mount{}, fmt.Errorf("%d+%d fields, need 6+2", len(f), len(s))
	}
	id, err := strconv.Atoi(f[0])
	if err != nil || id < 0 {
		return mount{}, fmt.Errorf("mount id %q is not a number", f[0])
	}
	maj, min, ok := strings.Cut(f[2], ":")
	major, err1 := strconv.ParseUint(maj, 10, 32)
	minor, err2 := strconv.ParseUint(min, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return mount{}, fmt.Errorf("device %q is not major:minor", f[2])
	}
	m := mount{id: id, dev: unix.Mkdev(uint32(major), uint32(minor)), point: unescape(f[4]), options: f[5], fsType: unescape(s[0])}
	if len(s) > 2 {
		m.superOptions = s[2]
	}
	if !strings.HasPrefix(m.point, "/") {
		return mount{}, fmt.Errorf("mount point %q is not absolute", m.point)
	}
	return m, nil
}

// unescape undoes the kernel's octal escapes (\040 for a blank).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// openMount opens a mount point (O_PATH: raises no events, opens no device)
// and makes sure that it is that mount and not what it was mounted on or what
// was mounted over it: between reading the table and opening the path the
// mount may have gone, and a mark would then hit the file system below.
func openMount(path string, id int) (fd int, err error) {
	fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open mount point %s: %w", path, err)
	}
	got, err := mountID(fd)
	if err == nil && got != id {
		err = errors.New("another mount is in its place")
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount point %s: %w", path, err)
	}
	return fd, nil
}

// mountID reads a descriptor's mount id from fdinfo (3.15), or from the path's
// handle where the kernel is older.
func mountID(fd int) (int, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	_, id, err := unix.NameToHandleAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return 0, fmt.Errorf("no mount id: %w", err)
	}
	return id, nil
}
