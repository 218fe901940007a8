package onaccess

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
)

// Feature is a kernel feature that can be switched off with Config.Without.
type Feature string

// The features, with the kernel version that brought them.
const (
	FeaturePermission      Feature = "permission"       // 2.6.37, CONFIG_FANOTIFY_ACCESS_PERMISSIONS
	FeatureExecEvents      Feature = "exec_events"      // 5.0, FAN_OPEN_EXEC_PERM
	FeatureFilesystemMarks Feature = "filesystem_marks" // 4.20, FAN_MARK_FILESYSTEM
	FeatureEvictable       Feature = "evictable_marks"  // 5.19, FAN_MARK_EVICTABLE
	FeatureFolderIgnore    Feature = "folder_ignore"    // 6.0, FAN_MARK_IGNORE
	FeatureStatx           Feature = "statx"            // 4.11
)

// Capabilities are what the running kernel lets us use; found by trying.
type Capabilities struct {
	// Available is false when there is no fanotify at all for us; Reason says
	// why.
	Available bool   `json:"available"`
	Reason    string `json:"reason,omitempty"`
	// Permission: accesses can be held. Without it files are scanned after the
	// fact.
	Permission bool `json:"permission"`
	// ExecEvents: executions are told from other opens.
	ExecEvents bool `json:"exec_events"`
	// FilesystemMarks: one mark covers a file system in every mount namespace.
	FilesystemMarks bool `json:"filesystem_marks"`
	// Evictable: ignore marks do not keep inodes in memory.
	Evictable bool `json:"evictable_marks"`
	// FolderIgnore: what happens in an excluded folder need not leave the kernel.
	FolderIgnore bool `json:"folder_ignore_marks"`
	// NoAtime: our reading leaves access times alone.
	NoAtime bool `json:"no_atime"`
	Statx   bool `json:"statx"`
	// Leases: the kernel tells whether a file has writers (needs CAP_LEASE for
	// files of other users).
	Leases bool `json:"leases"`
}

// probe tries the features on a group of its own. It marks an anonymous
// memory file only, so nothing on the host is touched.
func probe(without []Feature) Capabilities {
	c := Capabilities{}
	off := func(f Feature) bool { return slices.Contains(without, f) }

	c.NoAtime = true
	open := func(class uint) (int, error) {
		flags := uint(unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE|unix.FAN_UNLIMITED_MARKS) | class
		fd, err := unix.FanotifyInit(flags, uint(unix.O_RDONLY|oLargefile|unix.O_CLOEXEC|unix.O_NOATIME))
		if err == unix.EINVAL {
			c.NoAtime = false
			fd, err = unix.FanotifyInit(flags, uint(unix.O_RDONLY|oLargefile|unix.O_CLOEXEC))
		}
		return fd, err
	}
	fd, err := open(unix.FAN_CLASS_CONTENT)
	if err != nil {
		c.Reason = initReason(err)
		return c
	}
	defer unix.Close(fd)
	c.Available = true

	anonymous, err := guard.AnonymousFile("bulwark-probe")
	if err != nil {
		c.Reason = fmt.Sprintf("no file to try fanotify marks on: %v", err)
		return c
	}
	defer anonymous.Close()
	file := int(anonymous.Fd())

	// An inode mark that is added and removed; nobody opens this file between.
	try := func(flags uint, mask uint64) error {
		err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|flags, mask, file, "")
		if err == nil {
			err = unix.FanotifyMark(fd, unix.FAN_MARK_REMOVE|(flags&^unix.FAN_MARK_EVICTABLE), mask, file, "")
		}
		return err
	}
	c.Permission = !off(FeaturePermission) && try(0, unix.FAN_OPEN_PERM) == nil
	c.ExecEvents = !off(FeatureExecEvents) && try(0, unix.FAN_OPEN_EXEC) == nil
	c.Evictable = !off(FeatureEvictable) &&
		try(unix.FAN_MARK_IGNORED_MASK|unix.FAN_MARK_EVICTABLE, unix.FAN_OPEN_PERM) == nil
	// A kernel that does not know the flag refuses it with EINVAL before it
	// looks at the descriptor; one that knows it says EBADF.
	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN, -1, "")
	c.FilesystemMarks = !off(FeatureFilesystemMarks) && errors.Is(err, unix.EBADF)

	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORE_SURV, unix.FAN_OPEN, -1, "")
	c.FolderIgnore = !off(FeatureFolderIgnore) && errors.Is(err, unix.EBADF)

	var x unix.Statx_t
	c.Statx = !off(FeatureStatx) && statxFD(file, unix.AT_EMPTY_PATH, unix.STATX_INO, &x) == nil
	c.Leases = haveLeases(file)
	return c
}

func initReason(err error) string {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return "the kernel was built without fanotify (CONFIG_FANOTIFY)"
	case errors.Is(err, unix.EPERM):
		return "fanotify needs the capability CAP_SYS_ADMIN"
	case errors.Is(err, unix.EMFILE):
		return "the limit of fanotify groups per user is reached (sysctl user.max_fanotify_groups)"
	}
	return fmt.Sprintf("fanotify_init: %v", err)
}

// eventMask is what a mark subscribes to. Only CLOSE_WRITE, which holds
// nobody, is common to both ways.
func (c Capabilities) eventMask(hold bool) uint64 {
	mask := uint64(unix.FAN_CLOSE_WRITE)
	if hold && c.Permission {
		mask |= unix.FAN_OPEN_PERM
		if c.ExecEvents {
			mask |= unix.FAN_OPEN_EXEC_PERM
		}
		return mask
	}
	mask |= unix.FAN_OPEN
	if c.ExecEvents {
		mask |= unix.FAN_OPEN_EXEC
	}
	return mask
}

// ignoreMask is what a clean file's ignore mark silences. Executions are
// never in it: they are answered from the cache, in the order in which the
// kernel saw them and the closing of files, so that what is executed is
// always what was scanned.
func (c Capabilities) ignoreMask(hold bool) uint64 {
	if hold && c.Permission {
		return unix.FAN_OPEN_PERM
	}
	return unix.FAN_OPEN
}
