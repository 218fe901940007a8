package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// setUp does what systemd would have done before it starts this program.
func setUp() error {
	var errs []error
	for _, m := range []struct{ fsType, point string }{
		{"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		// The initial RAM disk may have left it there.
		if err := unix.Mount(m.fsType, m.point, m.fsType, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.point, err))
		}
	}
	for _, dir := range []string{"/run/rpcbind", "/run/lock"} {
		errs = append(errs, os.MkdirAll(dir, 0o755))
	}
	// As the unit has it.
	errs = append(errs, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 65536, Max: 65536}))
	errs = append(errs, os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), os.Setenv("HOME", "/root"), loopbackUp())
	out, err := exec.Command("modprobe", "-a", "virtio_console", "loop").CombinedOutput()
	if err != nil {
		errs = append(errs, fmt.Errorf("modprobe: %w: %s", err, out))
	}
	return errors.Join(errs...)
}

// loopbackUp brings up the interface that the NFS server is reached by.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	defer unix.Close(fd)
	return up(fd, "lo")
}

// loopDevice attaches a file to a block device, which goes with its last user.
func loopDevice(image string, readOnly bool) (device *os.File, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("free loop device: %w", err)
	}
	mode, flags := os.O_RDWR, uint32(unix.LO_FLAGS_AUTOCLEAR)
	if readOnly {
		mode, flags = os.O_RDONLY, flags|unix.LO_FLAGS_READ_ONLY
	}
	back, err := os.OpenFile(image, mode, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	device, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", number), mode, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: flags}}
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s to %s: %w", image, device.Name(), err), device.Close())
	}
	return device, nil
}

// mountImage mounts a file with a file system.
func mountImage(f *filesystem) error {
	device, err := loopDevice(f.image(), f.readOnly)
	if err != nil {
		return err
	}
	var flags uintptr
	if f.readOnly {
		flags = unix.MS_RDONLY
	}
	if err = unix.Mount(device.Name(), f.point(), f.name, flags, ""); err != nil {
		err = fmt.Errorf("mount %s of type %s: %w", device.Name(), f.name, err)
	}
	return errors.Join(err, device.Close()) // the file system has it open
}
