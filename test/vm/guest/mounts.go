package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// inode is a file's number.
func inode(info os.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Ino
}

// mounted is a line of the mount table.
type mounted struct {
	device uint64 // as the kernel has it inside: major << 20 | minor
	point  string
	fsType string
}

// mountTable reads /proc/self/mountinfo.
func mountTable() ([]mounted, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []mounted
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		f, s := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(s) < 1 {
			return nil, fmt.Errorf("mount table: line %q", line)
		}
		major, minor, _ := strings.Cut(f[2], ":")
		hi, err1 := strconv.ParseUint(major, 10, 32)
		lo, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("mount table: device %q", f[2])
		}
		out = append(out, mounted{hi<<20 | lo, f[4], s[0]})
	}
	return out, nil
}

// mountOf is the mount that a path is on: the last one with the longest point.
func mountOf(path string) (mounted, error) {
	table, err := mountTable()
	if err != nil {
		return mounted{}, err
	}
	var best mounted
	for _, m := range table {
		prefix := strings.TrimSuffix(m.point, "/") + "/"
		if (path == m.point || strings.HasPrefix(path, prefix)) && len(m.point) >= len(best.point) {
			best = m
		}
	}
	if best.point == "" {
		return best, fmt.Errorf("no mount has %s", path)
	}
	return best, nil
}

// superDevice is the device number of a file's file system, which is not always
// that of the file (btrfs).
func superDevice(path string) (uint64, error) {
	m, err := mountOf(path)
	return m.device, err
}
