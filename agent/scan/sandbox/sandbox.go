// Package sandbox locks the calling process up for good, so that code which
// reads hostile bytes can do nothing but compute, read the descriptors it was
// handed and answer on the socket it has.
//
// Everything is done by the process itself, before it looks at the first
// hostile byte, and none of it can be undone. What the kernel lacks is left out
// and said so in the Report: the layers are independent, each one alone stops
// an attacker from reading or writing another file.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Profile says what the process still needs after Enter.
type Profile struct {
	// UID and GID to become when the process is root; 0 keeps root, which is an
	// error unless KeepRoot is set.
	UID, GID int
	// KeepRoot is for tests of the other layers.
	KeepRoot bool
	// Root is an open directory to chroot to; nil leaves the root alone. Use a
	// directory that has been removed: nothing can ever appear in it.
	Root *os.File
	// ReadDirs may be opened for reading; empty means that no file at all may be
	// opened.
	ReadDirs []string
	// ReadAll lets the process read ReadDirs whatever the permissions of files
	// and of the folders above say (CAP_DAC_READ_SEARCH). It has no effect without
	// Landlock, which is what confines the capability to ReadDirs.
	ReadAll bool
	// Output lets the process write to descriptors it holds, up to MaxFileSize.
	Output bool
	// MaxFileSize is RLIMIT_FSIZE in bytes. 0 makes the kernel refuse every write
	// to a regular file, also through a descriptor that is open for writing.
	MaxFileSize uint64
	// MaxData is RLIMIT_DATA in bytes (heap and other private writable memory,
	// enforced since Linux 4.7); 0 sets none.
	MaxData uint64
	// MaxFiles is RLIMIT_NOFILE.
	MaxFiles uint64
	// MaxProcesses is RLIMIT_NPROC: threads of the user, those of other
	// processes included; 0 sets none.
	MaxProcesses uint64
}

// Property is one layer of the sandbox.
type Property struct {
	// Name is one of the Property constants.
	Name string `json:"name"`
	// Active is true when the layer is in force, as found by asking the kernel
	// afterwards.
	Active bool `json:"active"`
	// Detail says what is in force, or why it is not.
	Detail string `json:"detail,omitempty"`
}

// The names of the layers.
const (
	PropertyUser         = "user"
	PropertyCapabilities = "capabilities"
	PropertyNoNewPrivs   = "no_new_privs"
	PropertyNotDumpable  = "not_dumpable"
	PropertyLimits       = "resource_limits"
	PropertyRoot         = "chroot"
	PropertyNetwork      = "network_namespace"
	PropertyLandlock     = "landlock"
	PropertySeccomp      = "seccomp"
	PropertyNoFiles      = "no_file_access"
)

// Report is what Enter achieved.
type Report struct {
	Properties []Property `json:"properties"`
}

// Property returns the layer of that name; the zero Property if Enter did not
// get to it.
func (r Report) Property(name string) Property {
	for _, p := range r.Properties {
		if p.Name == name {
			return p
		}
	}
	return Property{Name: name}
}

// Missing returns the names of the layers that are not in force.
func (r Report) Missing() []string {
	var out []string
	for _, p := range r.Properties {
		if !p.Active {
			out = append(out, p.Name)
		}
	}
	return out
}

func (r *Report) add(name string, err error, format string, args ...any) {
	p := Property{Name: name, Active: err == nil}
	if err != nil {
		p.Detail = err.Error()
	} else {
		p.Detail = fmt.Sprintf(format, args...)
	}
	r.Properties = append(r.Properties, p)
}

// ErrOpen means that the process could still open files after Enter: neither
// Landlock nor seccomp nor chroot is available, so it must not go on.
var ErrOpen = errors.New("the sandbox does not keep this process from opening files; it needs a kernel with seccomp filters (Linux 3.5) or Landlock (5.13)")

// Enter locks the process up: all its threads, now and later. An error means
// that the process is not safe to use and must end; layers that the kernel does
// not have are only marked in the Report.
func Enter(p Profile) (Report, error) {
	var r Report
	root := os.Geteuid() == 0
	if root && !p.KeepRoot && (p.UID == 0 || p.GID == 0) {
		return r, errors.New("sandbox: no unprivileged user to change to")
	}
	err := setLimits(p)
	r.add(PropertyLimits, err, "file size %d, data %d, open files %d", p.MaxFileSize, p.MaxData, p.MaxFiles)
	r.add(PropertyNetwork, networkEmpty(), "no interface but an unused loopback")

	// What is done thread by thread comes while /proc is still visible: with cgo
	// (race detector) the list of threads is read there.
	if root && !p.KeepRoot {
		if err := reduceCapabilities(p.readAll()); err != nil {
			return r, fmt.Errorf("sandbox: dropping capabilities: %w", err)
		}
	}
	err = allThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1)
	r.add(PropertyNoNewPrivs, err, "set on every thread")
	if root && p.readAll() && !p.KeepRoot {
		if err := dropUserKeepReading(p.UID, p.GID); err != nil {
			return r, fmt.Errorf("sandbox: giving up root: %w", err)
		}
		root = false
	}
	r.add(PropertyLandlock, restrictFiles(p.ReadDirs), "%s", landlockDetail(p.ReadDirs))

	if p.Root != nil {
		err = chroot(p.Root)
		r.add(PropertyRoot, err, "removed empty directory")
	}
	if root && !p.KeepRoot {
		if err := dropUser(p.UID, p.GID); err != nil {
			return r, fmt.Errorf("sandbox: giving up root: %w", err)
		}
	}
	err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	r.add(PropertyNotDumpable, err, "not traceable by its own user, no core files")
	r.userProperties()
	err = installFilter(len(p.ReadDirs) > 0, p.Output)
	r.add(PropertySeccomp, err, "on every thread; unknown calls are refused, attacks end the process")
	if len(p.ReadDirs) == 0 {
		err = probeOpen()
		r.add(PropertyNoFiles, err, "opening a file fails")
		if err != nil {
			return r, ErrOpen
		}
	}
	return r, nil
}

func (p Profile) readAll() bool {
	return p.ReadAll && len(p.ReadDirs) > 0 && landlockVersion() > 0
}

func setLimits(p Profile) error {
	limits := []struct {
		what int
		max  uint64
		set  bool
	}{
		{unix.RLIMIT_FSIZE, p.MaxFileSize, true},
		{unix.RLIMIT_CORE, 0, true},
		{unix.RLIMIT_NOFILE, p.MaxFiles, p.MaxFiles > 0},
		{unix.RLIMIT_DATA, p.MaxData, p.MaxData > 0},
		{unix.RLIMIT_NPROC, p.MaxProcesses, p.MaxProcesses > 0},
		{unix.RLIMIT_MEMLOCK, 0, true},
		{unix.RLIMIT_MSGQUEUE, 0, true},
	}
	for _, l := range limits {
		if !l.set {
			continue
		}
		var now unix.Rlimit
		if err := unix.Getrlimit(l.what, &now); err != nil {
			return fmt.Errorf("reading resource limit %d: %w", l.what, err)
		}
		limit := min(l.max, now.Max) // never above what was given to us
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("setting resource limit %d to %d: %w", l.what, limit, err)
		}
	}
	return nil
}

func chroot(dir *os.File) error {
	if err := unix.Fchdir(int(dir.Fd())); err != nil {
		return fmt.Errorf("entering the empty directory: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot to the empty directory: %w", err)
	}
	return nil
}

// dropUser changes to the user; with root go the last capabilities.
func dropUser(uid, gid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("dropping supplementary groups: %w", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("changing to group %d: %w", gid, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("changing to user %d: %w", uid, err)
	}
	return nil
}

// networkEmpty fails when any interface other than a loopback exists.
func networkEmpty() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil // no network at all
	}
	defer unix.Close(fd)
	for index := range 256 {
		req, err := unix.NewIfreq("x")
		if err != nil {
			return err
		}
		req.SetUint32(uint32(index))
		// SIOCGIFNAME turns an index into a name; an index without an interface
		// gives ENODEV.
		if err := ifname(fd, req); err != nil {
			continue
		}
		if req.Name() != "lo" {
			return fmt.Errorf("network interface %s is visible", req.Name())
		}
	}
	return nil
}

func restrictFiles(readDirs []string) error {
	if version := landlockVersion(); version < 1 {
		return errors.New("not in this kernel")
	}
	var rules []landlock.Rule
	if len(readDirs) > 0 {
		rules = append(rules, landlock.RODirs(readDirs...))
	}
	// Best effort: every right that this kernel knows is taken away.
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

func landlockDetail(readDirs []string) string {
	if len(readDirs) == 0 {
		return fmt.Sprintf("version %d, no file may be opened", landlockVersion())
	}
	return fmt.Sprintf("version %d, read only below %s", landlockVersion(), strings.Join(readDirs, ", "))
}

func landlockVersion() int {
	const createRulesetVersion = 1
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, createRulesetVersion)
	if errno != 0 {
		return 0
	}
	return int(v)
}

func probeOpen() error {
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err == nil {
		unix.Close(fd)
		return errors.New("the root directory could be opened")
	}
	return nil
}

// allThreadsPrctl calls prctl on every thread: privileges belong to threads,
// and the Go runtime has several long before main.
func allThreadsPrctl(option, arg uintptr) error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, option, arg, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
