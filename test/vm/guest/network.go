package main

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// QEMU's network of the machine: its own address, and that of the machine's host.
var (
	guestAddress = netip.MustParsePrefix("10.0.2.15/24")
	hostAddress  = netip.MustParseAddr("10.0.2.2")
)

// networkUp brings up the network card and names the portal, which is on the
// machine's host.
func networkUp() error {
	const card = "eth0"
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	defer unix.Close(fd)
	address := guestAddress.Addr().As4()
	for _, step := range []struct {
		call  uint
		value []byte
	}{{unix.SIOCSIFADDR, address[:]}, {unix.SIOCSIFNETMASK, []byte{255, 255, 255, 0}}} {
		r, err := unix.NewIfreq(card)
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		if err := r.SetInet4Addr(step.value); err != nil {
			return fmt.Errorf("network: %w", err)
		}
		if err := unix.IoctlIfreq(fd, step.call, r); err != nil {
			return fmt.Errorf("address of %s: %w", card, err)
		}
	}
	if err := up(fd, card); err != nil {
		return err
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost bulwark-vm\n::1 localhost\n%s portal.example.org\n", hostAddress)
	return os.WriteFile("/etc/hosts", []byte(hosts), 0o644)
}

// up brings up an interface.
func up(fd int, name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}
