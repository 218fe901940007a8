package ondemand

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// pseudo file systems hold no stored files: reading them gives what the kernel
// makes up, without end or with effects. Magic numbers of statfs(2).
var pseudo = map[int64]string{
	0x9fa0: "proc", 0x62656572: "sysfs", 0x1cd1: "devpts", 0x27e0eb: "cgroup", 0x63677270: "cgroup2",
	0x64626720: "debugfs", 0x74726163: "tracefs", 0x73636673: "securityfs", 0x6165676c: "pstore",
	0xcafe4a11: "bpf", 0x62656570: "configfs", 0x19800202: "mqueue", 0x958458f6: "hugetlbfs",
	0x0187: "autofs", 0x42494e4d: "binfmt_misc", 0xde5e81e4: "efivarfs", 0x67596969: "rpc_pipefs",
	0x6e736673: "nsfs", 0x65735543: "fusectl", 0xf97cff8c: "selinuxfs", 0x5a3c69f0: "apparmorfs",
	0x7655821: "resctrl",
}

// types finds the names of file systems.
type types struct{ byDevice map[string]string }

// readTypes reads the mounted file systems; without the list only pseudo file
// systems have names.
func readTypes() types {
	t := types{byDevice: map[string]string{}}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return t
	}
	defer f.Close()
	t.read(bufio.NewScanner(f))
	return t
}

// read takes lines like "36 35 98:0 /root /point rw shared:1 - ext4 /dev/sda rw".
func (t types) read(lines *bufio.Scanner) {
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if ok && len(left) >= 3 && len(right) >= 1 {
			t.byDevice[left[2]] = right[0]
		}
	}
}

// of returns the type of the file system that an open folder is on, "" if
// unknown, and whether it is a pseudo file system.
func (t types) of(fd int) (name string, isPseudo bool) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil {
		// The field is signed on some machines.
		if name, ok := pseudo[int64(uint32(fs.Type))]; ok {
			return name, true
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", false
	}
	dev := uint64(st.Dev)
	return t.byDevice[fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))], false
}

// matches reports whether a type is in the list of unmonitored ones; "fuse"
// stands for fuse.sshfs as well, "smb" for smb3.
func matches(name string, list []string) bool {
	for _, l := range list {
		if name == l || l == "fuse" && strings.HasPrefix(name, "fuse") && name != "fusectl" || l == "smb" && strings.HasPrefix(name, "smb") {
			return true
		}
	}
	return false
}
