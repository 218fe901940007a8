package onaccess

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// fsClass is how far a file system's answers can be trusted.
type fsClass uint8

const (
	// fsUnknown: not looked at yet.
	fsUnknown fsClass = iota
	// fsDisk: every change of content, through mappings too, changes ctime;
	// nobody changes files behind this kernel's back.
	fsDisk
	// fsCoarse: as fsDisk, but with change times of two seconds.
	fsCoarse
	// fsMemory: as fsDisk, but stores through a mapping leave ctime alone, so
	// that a cached verdict needs a look for writers.
	fsMemory
	// fsStacked: the content lives in another file system and can be changed
	// there without this one's events (overlay, ecryptfs): no ignore marks.
	fsStacked
	// fsRemote: a server or a user-space program decides what a file contains:
	// nothing is kept.
	fsRemote
)

// filesystems are the types that real-time protection covers: the reference
// product's list, nfs4 and squashfs, and other local types of the same kind.
var filesystems = map[string]fsClass{
	"btrfs": fsDisk, "ext2": fsDisk, "ext3": fsDisk, "ext4": fsDisk, "f2fs": fsDisk,
	"jfs": fsDisk, "reiserfs": fsDisk, "xfs": fsDisk, "udf": fsDisk, "iso9660": fsDisk,
	"squashfs": fsDisk, "erofs": fsDisk, "vfat": fsCoarse, "exfat": fsCoarse, "ntfs3": fsDisk,
	"tmpfs": fsMemory, "ramfs": fsMemory,
	"overlay": fsStacked, "ecryptfs": fsStacked,
	// ntfs-3g and the like: a user-space program, but on a local disk that the
	// kernel mounted for root.
	"fuseblk": fsRemote,
	"fuse":    fsRemote, "nfs": fsRemote, "nfs4": fsRemote,
	"cifs": fsRemote, "smb": fsRemote, "smb3": fsRemote,
}

// DefaultUnmonitored are the types that are left out unless policy says
// otherwise: their files are scanned where they are stored, and a dead server
// would make every access wait.
func DefaultUnmonitored() []string { return []string{"cifs", "fuse", "nfs", "nfs4", "smb"} }

// magics are the f_type values of statfs(2) of the types above, for files
// whose device number is not that of a mount (btrfs subvolumes, overlays).
var magics = map[int64]fsClass{
	unix.BTRFS_SUPER_MAGIC: fsDisk, unix.EXT4_SUPER_MAGIC: fsDisk, unix.F2FS_SUPER_MAGIC: fsDisk,
	0x3153464a: fsDisk /* jfs */, unix.REISERFS_SUPER_MAGIC: fsDisk, unix.XFS_SUPER_MAGIC: fsDisk,
	unix.UDF_SUPER_MAGIC: fsDisk, unix.ISOFS_SUPER_MAGIC: fsDisk, unix.SQUASHFS_MAGIC: fsDisk,
	unix.EROFS_SUPER_MAGIC_V1: fsDisk, unix.MSDOS_SUPER_MAGIC: fsCoarse, unix.EXFAT_SUPER_MAGIC: fsCoarse,
	unix.TMPFS_MAGIC: fsMemory, unix.RAMFS_MAGIC: fsMemory,
	unix.OVERLAYFS_SUPER_MAGIC: fsStacked, unix.ECRYPTFS_SUPER_MAGIC: fsStacked,
}

// classOf asks the file system of an open file. What is not known counts as
// remote.
func classOf(fd int) fsClass {
	var s unix.Statfs_t
	if err := unix.Fstatfs(fd, &s); err != nil {
		return fsRemote
	}
	if c, ok := magics[int64(s.Type)&0xffffffff]; ok {
		return c
	}
	return fsRemote
}

// coarse is the longest time, in ns, during which two changes of a file can
// leave the same ctime: the verdict of a file that changed so shortly before
// its scan is not kept. Kernels stamp files with the last timer tick, at most
// 10 ms ago.
// A ctime of a whole second may come from a file system that has no more (ext2,
// ext3 and ext4 with inodes of 128 bytes, reiserfs).
func (c fsClass) coarse(ctime int64) int64 {
	switch {
	case c == fsCoarse:
		return 2_500_000_000
	case ctime%1_000_000_000 == 0:
		return 1_020_000_000
	}
	return 20_000_000
}

// cacheable reports whether verdicts may be kept at all.
func (c fsClass) cacheable() bool { return c != fsRemote && c != fsUnknown }

// ignorable reports whether clean files may get a kernel ignore mark.
func (c fsClass) ignorable() bool { return c == fsDisk || c == fsCoarse || c == fsMemory }

// Reasons why a mount is not watched.
const (
	// SkipDevices: a tmpfs that holds devices.
	SkipDevices     = "device folder"
	SkipUnmonitored = "file system type is excluded by unmonitoredFilesystems"
	SkipNoexec      = "mounted noexec and nonExecMountPolicy is mute"
)

// leaves are the mounts that settings leave out.
type leaves struct {
	unmonitored []string // types of file systems
	muteNoexec  bool
}

// reason says why a mount is not watched; "" means that it is.
func (l leaves) reason(m mount) string {
	// "fuse.sshfs" and the like are fuse; "fuseblk" is a type of its own.
	base, _, _ := strings.Cut(m.fsType, ".")
	if _, known := filesystems[base]; !known {
		return "file system type is not monitored"
	}
	if slices.Contains(l.unmonitored, m.fsType) || slices.Contains(l.unmonitored, base) {
		return SkipUnmonitored
	}
	if l.muteNoexec && m.has("noexec") {
		return SkipNoexec
	}
	if m.fsType == "tmpfs" && !m.has("nodev") && (m.point == "/dev" || strings.HasSuffix(m.point, "/dev")) {
		return SkipDevices
	}
	// Only its owner may enter such a mount; root is refused, and a held open
	// that we cannot read is denied by the kernel.
	if base == "fuse" && !strings.Contains(","+m.superOptions+",", ",allow_other,") {
		return "FUSE mount without allow_other: not accessible for other users"
	}
	return ""
}

func classOfType(fsType string) fsClass {
	base, _, _ := strings.Cut(fsType, ".")
	return filesystems[base]
}
