// Package sample builds small programs for tests.
package sample

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
)

const (
	fileAlign = 0x200
	memAlign  = 0x1000
	// TextAt is the file offset of the first section of PE, which begins with
	// the bytes given to it; its entry point is EntryIn bytes in.
	TextAt  = 0x400
	EntryIn = 16
)

func le16(b []byte, v ...uint16) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint16(b, x)
	}
	return b
}

func le32(b []byte, v ...uint32) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

func pad(b []byte, align int) []byte {
	for len(b)%align != 0 {
		b = append(b, 0)
	}
	return b
}

// PE is a 32-bit program of three sections: text, imports (functions of two
// libraries, one by number), and resources with version information of the
// given keys and values.
func PE(text []byte, version [][2]string) []byte {
	sections := [][]byte{append([]byte{}, text...), imports(2 * memAlign), resources(3*memAlign, version)}
	h := append([]byte("MZ"), make([]byte, 58)...)
	h = le32(h, 0x80)
	h = append(h, make([]byte, 0x80-len(h))...)
	h = append(h, "PE\x00\x00"...)
	h = le16(h, 0x14c, uint16(len(sections)))
	h = le32(h, 0x5f000000, 0, 0)
	h = le16(h, 224, 0x102)
	h = le16(h, 0x10b, 0x0e)
	h = le32(h, fileAlign, 2*fileAlign, 0, memAlign+EntryIn, memAlign, 2*memAlign, 0x400000, memAlign, fileAlign)
	h = le16(h, 5, 0, 0, 0, 5, 0)
	h = le32(h, 0, uint32(len(sections)+1)*memAlign, TextAt, 0)
	h = le16(h, 3, 0)
	h = le32(h, 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
	for i := range 16 {
		switch i {
		case 1:
			h = le32(h, 2*memAlign, 60)
		case 2:
			h = le32(h, 3*memAlign, uint32(len(sections[2])))
		default:
			h = le32(h, 0, 0)
		}
	}
	at := uint32(TextAt)
	var body []byte
	for i, s := range sections {
		h = append(h, []byte{'.', 's', byte('0' + i), 0, 0, 0, 0, 0}...)
		size := uint32(len(s))
		s = pad(s, fileAlign)
		h = le32(h, size, uint32(i+1)*memAlign, uint32(len(s)), at, 0, 0, 0, 0x60000020)
		body = append(body, s...)
		at += uint32(len(s))
	}
	return append(append(h, make([]byte, TextAt-len(h))...), body...)
}

func imports(rva uint32) []byte {
	// Two descriptors and an empty one, two tables, names.
	const tables, names = 60, 100
	var b []byte
	b = le32(b, rva+tables, 0, 0, rva+names, rva+tables)
	b = le32(b, rva+tables+12, 0, 0, rva+names+16, rva+tables+12)
	b = append(b, make([]byte, 20)...)
	b = le32(b, rva+names+32, rva+names+48, 0)
	b = le32(b, 1<<31|23, rva+names+64, 0)
	b = append(b, make([]byte, names-len(b))...)
	for _, s := range []string{"KERNEL32.dll", "WS2_32.dll", "\x00\x00ExitProcess", "\x00\x00Sleep", "\x00\x00WSASend"} {
		b = append(append(b, s...), make([]byte, 16-len(s))...)
	}
	return b
}

func text16(s string) []byte {
	var b []byte
	return le16(b, append(utf16.Encode([]rune(s)), 0)...)
}

// versionBlock is a structure of the version information.
func versionBlock(key string, typ uint16, value []byte, valueLen int, children ...[]byte) []byte {
	b := le16(nil, 0, uint16(valueLen), typ)
	b = pad(append(b, text16(key)...), 4)
	b = append(b, value...)
	for _, c := range children {
		b = append(pad(b, 4), c...)
	}
	binary.LittleEndian.PutUint16(b, uint16(len(b)))
	return b
}

func resources(rva uint32, version [][2]string) []byte {
	var texts [][]byte
	for _, kv := range version {
		v := text16(kv[1])
		texts = append(texts, versionBlock(kv[0], 1, v, len(v)/2))
	}
	table := versionBlock("040904b0", 1, nil, 0, texts...)
	info := versionBlock("StringFileInfo", 1, nil, 0, table)
	fixed := le32(nil, 0xfeef04bd, 0x10000)
	fixed = append(fixed, make([]byte, 52-len(fixed))...)
	data := versionBlock("VS_VERSION_INFO", 0, fixed, len(fixed), info)
	dir := func(id, to uint32) []byte {
		b := append(make([]byte, 12), 0, 0, 1, 0)
		return le32(b, id, to)
	}
	var b bytes.Buffer
	b.Write(dir(16, 1<<31|24))
	b.Write(dir(1, 1<<31|48))
	b.Write(dir(0x409, 72))
	b.Write(le32(nil, rva+88, uint32(len(data)), 0, 0))
	b.Write(data)
	return b.Bytes()
}
