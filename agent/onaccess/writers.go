package onaccess

import (
	"errors"

	"golang.org/x/sys/unix"
)

// mayHaveWriters reports whether somebody has the file open for writing or
// mapped shared and writable. The kernel grants a read lease only for files
// without writers, so a lease is taken and given back at once; a writer who
// comes in between waits for these two system calls. Where leases are not
// possible (network file systems, no CAP_LEASE) the answer is true: not known
// means not trusted.
func mayHaveWriters(fd int) bool { return readLease(fd) != nil }

// hasWriters reports whether it is known that somebody has.
func hasWriters(fd int) bool { return errors.Is(readLease(fd), unix.EAGAIN) }

// readLease takes a read lease and gives it back.
func readLease(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return err
	}
	// The lease also ends when the descriptor is closed, so an error here (there
	// is none to expect) cannot leave it behind.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return nil
}

// haveLeases reports whether leases can be had for every user's files: the
// kernel has them (always, unless CONFIG_FILE_LOCKING is off) and we have
// CAP_LEASE.
func haveLeases(fd int) bool {
	// The probe's file may have a writer (EAGAIN); other errors mean that there
	// are no leases.
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	}
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return false
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false
	}
	return sets[0].Effective&(1<<unix.CAP_LEASE) != 0
}
