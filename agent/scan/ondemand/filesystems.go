package ondemand

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/boot"
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

// trusted are the file systems on which a file whose change time, size and inode
// are the same has the same content: they live on a disk of this host and set
// the change time of every write themselves. A server or a FUSE program can say
// what it likes; a file on tmpfs can be changed through a mapping without a
// trace; removable disks may have been changed elsewhere.
var trusted = map[string]bool{
	"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "f2fs": true,
	"jfs": true, "reiserfs": true, "bcachefs": true, "zfs": true, "overlay": true,
}

// volumes knows the file systems of a scan. It is safe for concurrent use.
type volumes struct {
	mu       sync.Mutex
	names    map[string]string // device "8:1" -> type
	byDevice map[uint64]volume
	boot     string
}

// volume is one file system.
type volume struct {
	kind   string // "ext4"; "" if unknown
	pseudo bool
	// id tells it from others, also after a restart; "" where files are always
	// scanned.
	id string
}

func newVolumes() *volumes {
	// Without its name, anonymous devices are not told apart over restarts.
	v := &volumes{names: map[string]string{}, byDevice: map[uint64]volume{}, boot: boot.ID()}
	v.refresh()
	return v
}

// refresh reads the mounted file systems; without the list only pseudo file
// systems have names.
func (v *volumes) refresh() {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer f.Close()
	v.read(bufio.NewScanner(f))
}

// read takes lines like "36 35 98:0 /root /point rw shared:1 - ext4 /dev/sda rw".
func (v *volumes) read(lines *bufio.Scanner) {
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if ok && len(left) >= 3 && len(right) >= 1 {
			v.names[left[2]] = right[0]
		}
	}
}

// of returns the file system that an open folder or file is on.
func (v *volumes) of(fd int) volume {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return volume{}
	}
	dev := uint64(st.Dev)
	v.mu.Lock()
	defer v.mu.Unlock()
	out, ok := v.byDevice[dev]
	if !ok {
		out = v.look(fd, dev)
		v.byDevice[dev] = out
	}
	return out
}

// on returns the file system of a device that of has seen.
func (v *volumes) on(device uint64) volume {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.byDevice[device]
}

func (v *volumes) look(fd int, dev uint64) volume {
	number := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	name, ok := v.names[number]
	if !ok {
		v.refresh() // mounted meanwhile
		name = v.names[number]
	}
	out := volume{kind: name}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return out
	}
	// The field is signed on some machines.
	if name, ok := pseudo[int64(uint32(fs.Type))]; ok {
		return volume{kind: name, pseudo: true}
	}
	if name == "" && fs.Type == btrfsMagic {
		name, out.kind = "btrfs", "btrfs" // each subvolume has a device number that no mount shows
	}
	if !trusted[name] || removable(dev) {
		return out
	}
	out.id = fmt.Sprintf("%s %s %x", name, number, fs.Fsid.Val)
	if unix.Major(dev) == 0 && name != "btrfs" && name != "zfs" {
		out.id += " " + v.boot // the number belongs to something else after a restart
	}
	return out
}

const btrfsMagic = 0x9123683e

// removable reports whether a block device can be taken to another machine, or
// is made of a file that somebody may exchange.
func removable(dev uint64) bool {
	const loop = 7
	if unix.Major(dev) == 0 {
		return false
	}
	path, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	if unix.Major(dev) == loop || strings.Contains(path, "/usb") {
		return true
	}
	if err != nil {
		return false // sysfs is not mounted
	}
	for _, p := range []string{path, filepath.Dir(path)} { // a partition's disk is the folder above
		if b, err := os.ReadFile(filepath.Join(p, "removable")); err == nil && strings.TrimSpace(string(b)) == "1" {
			return true
		}
	}
	return false
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
