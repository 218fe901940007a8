package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// reduceCapabilities leaves every thread only what changing root directory and
// user still needs; the change of user takes that too.
func reduceCapabilities() error {
	// The bounding set needs CAP_SETPCAP, so it goes first.
	for c := uintptr(0); c <= 63; c++ {
		if on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil || on == 0 {
			continue
		}
		if err := allThreadsPrctl(unix.PR_CAPBSET_DROP, c); err != nil {
			return fmt.Errorf("dropping capability %d from the bounding set: %w", c, err)
		}
	}
	// Ambient capabilities are newer (4.3) than the oldest kernel supported.
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); errno != 0 && errno != unix.EINVAL {
		return fmt.Errorf("clearing ambient capabilities: %w", errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	const keep = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SYS_CHROOT
	sets := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	if errno != 0 {
		return fmt.Errorf("reducing the capability sets: %w", errno)
	}
	return nil
}

// userProperties asks the kernel who the process now is.
func (r *Report) userProperties() {
	ruid, euid, suid := unix.Getresuid()
	_, egid, _ := unix.Getresgid()
	groups, err := unix.Getgroups()
	switch {
	case err != nil:
		r.add(PropertyUser, fmt.Errorf("reading groups: %w", err), "")
	case ruid == 0 || euid == 0 || suid == 0:
		r.add(PropertyUser, fmt.Errorf("still root (uid %d/%d/%d)", ruid, euid, suid), "")
	default:
		r.add(PropertyUser, nil, "uid %d, gid %d, %d supplementary groups", euid, egid, len(groups))
	}

	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		r.add(PropertyCapabilities, fmt.Errorf("reading capabilities: %w", err), "")
		return
	}
	for _, h := range have {
		if h.Effective|h.Permitted|h.Inheritable != 0 {
			r.add(PropertyCapabilities, fmt.Errorf("still holds capabilities %#x", h.Permitted), "")
			return
		}
	}
	bounding := 0
	for c := uintptr(0); c <= 63; c++ {
		if on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil && on == 1 {
			bounding++
		}
	}
	r.add(PropertyCapabilities, nil, "none; %d in the bounding set", bounding)
}

func ifname(fd int, req *unix.Ifreq) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(req)))
	if errno != 0 {
		return errno
	}
	return nil
}
