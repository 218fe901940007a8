package onaccess

import "golang.org/x/sys/unix"

// mayHaveWriters reports whether somebody has the file open for writing or
// mapped shared and writable. The kernel grants a read lease only for files
// without writers, so a lease is taken and given back at once; a writer who
// comes in between waits for these two system calls. Where leases are not
// possible (network file systems, no CAP_LEASE) the answer is true: not known
// means not trusted.
func mayHaveWriters(fd int) bool {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return true
	}
	// The lease also ends when the descriptor is closed, so an error here (there
	// is none to expect) cannot leave it behind.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}

// haveLeases tries a lease on a file of somebody else, which is where the
// capability matters.
func haveLeases(fd int) bool {
	// memfds are opened for writing, so the lease itself is refused with EAGAIN;
	// a missing capability or missing support says something else.
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return err == nil || err == unix.EAGAIN
}
