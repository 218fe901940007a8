package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// reduceCapabilities leaves every thread only what changing root directory and
// user still needs; the change of user takes that too.
func reduceCapabilities(readAll bool) error {
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
	keep := uint32(1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SYS_CHROOT)
	if readAll {
		keep |= 1 << unix.CAP_DAC_READ_SEARCH
	}
	return setCapabilities(keep)
}

// setCapabilities makes keep the permitted and effective set of every thread.
func setCapabilities(keep uint32) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	sets := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	if errno != 0 {
		return fmt.Errorf("reducing the capability sets: %w", errno)
	}
	return nil
}

// dropUserKeepReading changes to the user with CAP_DAC_READ_SEARCH as the only
// capability left.
func dropUserKeepReading(uid, gid int) error {
	if err := allThreadsPrctl(unix.PR_SET_KEEPCAPS, 1); err != nil {
		return fmt.Errorf("keeping a capability: %w", err)
	}
	if err := dropUser(uid, gid); err != nil {
		return err
	}
	if err := allThreadsPrctl(unix.PR_SET_KEEPCAPS, 0); err != nil {
		return fmt.Errorf("keeping a capability: %w", err)
	}
	return setCapabilities(1 << unix.CAP_DAC_READ_SEARCH)
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
	detail := "none"
	for i, h := range have {
		held := h.Effective | h.Permitted | h.Inheritable
		if i == 0 && held == 1<<unix.CAP_DAC_READ_SEARCH {
			detail = "only CAP_DAC_READ_SEARCH, which Landlock confines"
			held = 0
		}
		if held != 0 {
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
	r.add(PropertyCapabilities, nil, "%s; %d in the bounding set", detail, bounding)
}

func ifname(fd int, req *unix.Ifreq) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(req)))
	if errno != 0 {
		return errno
	}
	return nil
}
