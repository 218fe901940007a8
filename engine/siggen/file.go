package siggen

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/exefmt"
	"github.com/bulwarkhq/bulwark/engine/exefmt/sample"
	"github.com/bulwarkhq/bulwark/engine/filetype"
)

// file is a file in the making: of its bytes those in [from, to) are free.
type file struct {
	data     []byte
	from, to int
	kind     string // of a program
	taken    []span
	l        *exefmt.Layout
}

// opening begins texts: clamscan does not search the first bytes of normalised
// text for regular expressions.
const opening = "some words of no meaning that stand at the beginning of every text that is made here, lest the first of its parts be passed over "

type span struct{ from, to int }

// layout is the layout of a program; nil for other files.
func (f *file) layout() *exefmt.Layout {
	if f.l == nil && f.kind != "" {
		if l, err := exefmt.Read(bytes.NewReader(f.data), int64(len(f.data)), f.kind); err == nil {
			f.l = l
		}
	}
	return f.l
}

// put writes bytes to a place that is free and not yet taken.
func (f *file) put(at int, b []byte) bool {
	if at < f.from || at+len(b) > f.to {
		return false
	}
	for _, s := range f.taken {
		if at < s.to && s.from < at+len(b) {
			return false
		}
	}
	copy(f.data[at:], b)
	f.taken = append(f.taken, span{at, at + len(b)})
	return true
}

// Version is the version information of the PE files.
var Version = [][2]string{{"CompanyName", "Example Ltd"}, {"FileVersion", "1.2.3"}, {"Comments", "abc"}}

// carrier is a file of a ClamAV target type.
func (g *Generator) carrier(target int) *file {
	free := make([]byte, 200+g.IntN(400))
	for i := range free {
		free[i] = g.filler()
	}
	wrap := func(head, tail []byte) *file {
		return &file{data: slices.Concat(head, free, tail), from: len(head), to: len(head) + len(free)}
	}
	switch target {
	case 1:
		return &file{data: sample.PE(free, Version), from: sample.TextAt, to: sample.TextAt + len(free), kind: filetype.PE}
	case 2:
		return wrap(ole2Head(), nil)
	case clamdb.TargetHTML:
		return wrap([]byte("<html><body><p>"+opening), []byte("</p></body></html>\n"))
	case clamdb.TargetMail:
		return wrap([]byte("Received: from example\nFrom: a@example.org\nTo: b@example.org\nSubject: x\n\n"+opening), []byte("\n"))
	case clamdb.TargetGraphics:
		return wrap([]byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"), nil)
	case 6:
		return elf64(free)
	case clamdb.TargetText:
		return wrap([]byte(opening), []byte("\n"))
	case 9:
		return macho32(free)
	case 10:
		return wrap([]byte("%PDF-1.4\n"), []byte("\n%%EOF\n"))
	case 11:
		return wrap(append([]byte("FWS\x06"), binary.LittleEndian.AppendUint32(nil, uint32(8+len(free)))...), nil)
	case 12:
		return wrap([]byte("\xca\xfe\xba\xbe\x00\x00\x00\x34\x00\x01"), nil)
	}
	return wrap(make([]byte, 32), make([]byte, 8))
}

// ole2Head is the header of a compound file without any stream ([MS-CFB] 2.2).
func ole2Head() []byte {
	h := make([]byte, 512)
	copy(h, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
	binary.LittleEndian.PutUint16(h[24:], 0x3e)
	binary.LittleEndian.PutUint16(h[26:], 3)
	binary.LittleEndian.PutUint16(h[28:], 0xfffe)
	binary.LittleEndian.PutUint16(h[30:], 9)
	binary.LittleEndian.PutUint16(h[32:], 6)
	for at := 48; at < 512; at += 4 {
		binary.LittleEndian.PutUint32(h[at:], 0xfffffffe)
	}
	return h
}

// elf64 is a program of one segment and two sections, its entry point 64 bytes
// into the first.
func elf64(free []byte) *file {
	const textAt, base = 0x100, 0x400000
	half := uint64(len(free) / 2)
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01\x00" + strings.Repeat("\x00", 8))
	le := func(v ...any) {
		for _, x := range v {
			_ = binary.Write(&b, binary.LittleEndian, x) // to a buffer
		}
	}
	shoff := uint64(textAt+len(free)+15) / 16 * 16
	le(uint16(2), uint16(62), uint32(1), uint64(base+textAt+64), uint64(64), shoff, uint32(0), uint16(64), uint16(56), uint16(1), uint16(64), uint16(3), uint16(0))
	le(uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), shoff, shoff, uint64(0x1000))
	b.Write(make([]byte, textAt-b.Len()))
	b.Write(free)
	b.Write(make([]byte, int(shoff)-b.Len()))
	b.Write(make([]byte, 64))
	for i := range uint64(2) {
		le(uint32(0), uint32(1), uint64(6), base+textAt+i*half, textAt+i*half, half, uint32(0), uint32(0), uint64(1), uint64(0))
	}
	return &file{data: b.Bytes(), from: textAt, to: textAt + len(free), kind: filetype.ELF}
}

// macho32 is a program of one segment and two sections, its entry point 32
// bytes into the first. (clamscan knows no entry point of 64-bit programs.)
func macho32(free []byte) *file {
	const textAt, base = 0x200, 0x10000
	half := uint32(len(free) / 2)
	var b bytes.Buffer
	le := func(v ...uint32) {
		for _, x := range v {
			b.Write(binary.LittleEndian.AppendUint32(nil, x))
		}
	}
	const segment, thread = 56 + 2*68, 16 + 16*4
	le(0xfeedface, 7, 3, 2, 2, segment+thread, 0)
	name := func(s string) { b.WriteString(s + strings.Repeat("\x00", 16-len(s))) }
	le(1, segment)
	name("__TEXT")
	le(base, 0x1000, 0, uint32(textAt+len(free)), 7, 5, 2, 0)
	for i := range uint32(2) {
		name("__s" + string(rune('0'+i)))
		name("__TEXT")
		le(base+textAt+i*half, half, textAt+i*half, 0, 0, 0, 0, 0, 0)
	}
	le(5, thread, 1, 16)
	for i := range 16 {
		v := uint32(0)
		if i == 10 {
			v = base + textAt + 32
		}
		le(v)
	}
	b.Write(make([]byte, textAt-b.Len()))
	b.Write(free)
	return &file{data: b.Bytes(), from: textAt, to: textAt + len(free), kind: filetype.MachO}
}
