package filetype

import "encoding/binary"

// diskImage names the file system or partition table in a head; "" for none. Each
// has a mark of two bytes only, so that other fields must make sense, too.
func diskImage(head []byte) string {
	switch {
	case isExt(head):
		return Ext
	case len(head) < 512 || head[510] != 0x55 || head[511] != 0xaa:
	case isFAT(head):
		return FAT
	case isPartitioned(head):
		return Partitions
	}
	return ""
}

// isExt looks at the superblock of ext2 to ext4, at 1024.
func isExt(head []byte) bool {
	if len(head) < 2048 {
		return false
	}
	le := binary.LittleEndian
	s := head[1024:]
	return le.Uint16(s[56:]) == 0xef53 && // magic
		le.Uint32(s) > 10 && le.Uint32(s[4:]) > 0 && // inodes, blocks
		le.Uint32(s[20:]) <= 1 && le.Uint32(s[24:]) <= 6 && // first block, size of a block
		le.Uint32(s[32:]) > 0 && le.Uint32(s[40:]) > 0 && // blocks and inodes per group
		le.Uint16(s[58:]) <= 7 && le.Uint32(s[72:]) <= 4 && le.Uint32(s[76:]) <= 1 // state, system, revision
}

func powerOfTwo(n uint16) bool { return n > 0 && n&(n-1) == 0 }

// isFAT looks at the parameters in the boot sector; NTFS and exFAT have no count
// of tables there.
func isFAT(head []byte) bool {
	le := binary.LittleEndian
	sector, tables, media := le.Uint16(head[11:]), head[16], head[21]
	return (head[0] == 0xeb || head[0] == 0xe9) && powerOfTwo(sector) && sector >= 512 && sector <= 4096 &&
		powerOfTwo(uint16(head[13])) && le.Uint16(head[14:]) > 0 && (tables == 1 || tables == 2) &&
		(media == 0xf0 || media >= 0xf8) && (le.Uint16(head[22:]) > 0 || le.Uint32(head[36:]) > 0)
}

// isPartitioned looks at the four entries of the partition table.
func isPartitioned(head []byte) bool {
	used := false
	for i := range 4 {
		e := head[446+16*i:]
		if e[0] != 0 && e[0] != 0x80 {
			return false
		}
		if e[4] == 0 {
			continue
		}
		if binary.LittleEndian.Uint32(e[8:]) == 0 || binary.LittleEndian.Uint32(e[12:]) == 0 {
			return false
		}
		used = true
	}
	return used
}
