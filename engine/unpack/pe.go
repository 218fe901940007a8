package unpack

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/bulwarkhq/bulwark/engine/filetype"
)

// section of a program.
type peSection struct {
	name             string
	addr, size       uint32 // in memory, relative to the image
	rawAt, rawLength uint32
	flags            uint32
}

// peFile is what is needed of a PE file ([PE Format], Microsoft).
type peFile struct {
	at          int64 // of the PE signature
	machine     uint16
	plus        bool
	entry       uint32
	base        uint64
	image       uint32
	alignment   uint32
	dirs        int64 // offset of the data directories
	numDirs     int
	sections    []peSection
	headers     uint32
	tableEnd    int64
	end         int64 // of headers, sections and certificates
	overlay     int64 // of headers and sections
	imageImport [2]uint32
}

// maxPESections is more than Windows loads.
const maxPESections = 96

// parsePE reads the headers of a program at the beginning of an object; ok is
// false when there is none.
func parsePE(o Object) (p peFile, ok bool) {
	le := binary.LittleEndian
	h := o.piece(0, 64)
	if len(h) < 64 || h[0] != 'M' || h[1] != 'Z' {
		return p, false
	}
	p.at = int64(le.Uint32(h[60:]))
	c := o.piece(p.at, 24+240)
	if len(c) < 24+96 || string(c[:4]) != "PE\x00\x00" {
		return p, false
	}
	p.machine = le.Uint16(c[4:])
	sections, optional := int(le.Uint16(c[6:])), int64(le.Uint16(c[20:]))
	opt := c[24:]
	p.plus = le.Uint16(opt) == 0x20b
	p.entry = le.Uint32(opt[16:])
	p.base = uint64(le.Uint32(opt[28:]))
	p.alignment = le.Uint32(opt[32:])
	p.image, p.headers = le.Uint32(opt[56:]), le.Uint32(opt[60:])
	dirs := 96
	if p.plus {
		p.base = le.Uint64(opt[24:])
		dirs = 112
	}
	p.dirs = p.at + 24 + int64(dirs)
	if len(opt) >= dirs {
		p.numDirs = int(min(le.Uint32(opt[dirs-4:]), 16))
	}
	if sections == 0 || sections > maxPESections {
		return p, false
	}
	table := p.at + 24 + optional
	p.tableEnd = table + int64(sections)*40
	p.overlay = p.tableEnd
	for i := range sections {
		s := o.piece(table+int64(i)*40, 40)
		if len(s) < 40 {
			break
		}
		e := peSection{name: cString(s[:8]), size: le.Uint32(s[8:]), addr: le.Uint32(s[12:]), rawLength: le.Uint32(s[16:]), rawAt: le.Uint32(s[20:]), flags: le.Uint32(s[36:])}
		p.sections = append(p.sections, e)
		if e.rawLength > 0 {
			p.overlay = max(p.overlay, int64(e.rawAt&^0x1ff)+int64(e.rawLength))
		}
	}
	p.end = p.overlay
	if cert := p.directory(o, 4); cert[1] > 0 {
		if end := int64(cert[0]) + int64(cert[1]); end <= o.Size {
			p.end = max(p.end, end)
		}
	}
	p.imageImport = p.directory(o, 1)
	return p, len(p.sections) > 0
}

// directory is the place and size of an entry of the data directories.
func (p *peFile) directory(o Object, n int) [2]uint32 {
	if n >= p.numDirs {
		return [2]uint32{}
	}
	b := o.piece(p.dirs+8*int64(n), 8)
	if len(b) < 8 {
		return [2]uint32{}
	}
	return [2]uint32{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}
}

// unpe looks for what a Windows program carries: the archive of an installer,
// files stored in it, and its own code when that is packed.
func unpe(w *Walker, o Object) error {
	w.quiet = true
	p, ok := parsePE(o)
	if ok {
		if err := w.unpackPE(o, &p); err != nil {
			return err
		}
		if p.overlay < o.Size {
			if err := w.installShield(o, p.overlay); err != nil {
				return err
			}
		}
	}
	return w.carve(o, 64)
}

// Bounds of carving.
const (
	carveWindow = 256 << 10
	maxCarved   = 256 // files in one object
)

// embedded is a format that is looked for inside of others, by its magic and how
// many bytes before that it begins. open returns where what was found ends, 0
// when it is nothing, -1 when its size is not known.
type embedded struct {
	magic  string
	before int64
	open   func(w *Walker, o Object, at int64) (end int64, err error)
}

func embeddedFormats() []embedded {
	return []embedded{
		{"MZ", 0, (*Walker).carvePE},
		{"PK\x03\x04", 0, (*Walker).carveRest},
		{"MSCF\x00\x00\x00\x00", 0, (*Walker).carveCAB},
		{"Rar!\x1a\x07", 0, (*Walker).carveRest},
		{"7z\xbc\xaf\x27\x1c", 0, (*Walker).carveRest},
		{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0, (*Walker).carveRest},
		{"\xef\xbe\xad\xdeNullsoftInst", 4, (*Walker).carveNSIS},
		{"\xa3\x48\x4b\xbe\x98\x6c\x4a\xa9\x99\x4c\x53\x0a\x86\xd6\x48\x7dAU3!EA0", 0, (*Walker).carveAutoIt},
		{"InstallShield\x00", 0, (*Walker).carveISMSI},
	}
}

// carve looks for files of other formats inside an object, from an offset on.
// What is found is not looked into twice: the search goes on behind it, except
// where its size is not known.
func (w *Walker) carve(o Object, from int64) error {
	formats := embeddedFormats()
	buf := make([]byte, carveWindow)
	const overlap = 32
	found, opened := 0, 0
	last := from - 1   // where something was looked at
	var whole [16]bool // formats of unknown size that were given already
	for at := from; at < o.Size; {
		if err := w.check(); err != nil {
			return err
		}
		n, _ := o.Data.ReadAt(buf[:min(carveWindow, o.Size-at)], at)
		if n == 0 {
			return nil
		}
		b := buf[:n]
		skip := int64(0)
		// Where each magic is next; searched for again only behind that, so
		// that a file full of one of them takes no longer.
		next := make([]int, len(formats))
		for k := range next {
			next[k] = -1
		}
		for pos := 0; pos < len(b); {
			best, kind := len(b), -1
			for k := range formats {
				if whole[k] {
					continue
				}
				if next[k] < pos {
					next[k] = len(b)
					if i := bytes.Index(b[pos:], []byte(formats[k].magic)); i >= 0 {
						next[k] = pos + i
					}
				}
				if next[k] < best {
					best, kind = next[k], k
				}
			}
			if kind < 0 {
				break
			}
			e := formats[kind]
			start := at + int64(best) - e.before
			pos = best + 1
			if start <= last {
				continue
			}
			last = start
			if opened++; opened&0xff == 0 {
				if err := w.check(); err != nil {
					return err
				}
			}
			end, err := e.open(w, o, start)
			if err != nil {
				return err
			}
			switch {
			case end < 0:
				whole[kind] = true
			case end > start:
				if found++; found >= maxCarved {
					return nil
				}
				if end-at >= int64(len(b)) {
					skip = end - at
					pos = len(b)
				} else {
					pos = int(end - at)
				}
			}
		}
		switch {
		case skip > 0:
			at += skip
		case at+int64(n) >= o.Size:
			return nil
		default:
			at += int64(n) - overlap
		}
	}
	return nil
}

// carvePE gives a program. end is where it stops, or 0 when there is none.
func (w *Walker) carvePE(o Object, at int64) (end int64, err error) {
	head := o.piece(at, 64)
	if len(head) < 64 || binary.LittleEndian.Uint32(head[60:]) > 1<<16 {
		return 0, nil
	}
	rest := o.sub("", at, o.Size)
	p, ok := parsePE(rest)
	if !ok {
		return 0, nil
	}
	size := min(p.end, rest.Size)
	return at + size, w.Section(fmt.Sprintf("embedded-%x.exe", at), o, at, size)
}

// carveRest gives everything from here on: archives find their own end.
func (w *Walker) carveRest(o Object, at int64) (end int64, err error) {
	head := o.piece(at, 512)
	kind := filetype.Detect(head)
	if !Supports(kind) || kind == filetype.Zip && !plausibleZip(head) {
		return 0, nil
	}
	return -1, w.Section(fmt.Sprintf("embedded-%x.%s", at, kind), o, at, o.Size-at)
}

// plausibleZip reports whether a local header makes sense: packed archives keep
// its first bytes.
func plausibleZip(h []byte) bool {
	le := binary.LittleEndian
	if len(h) < 31 || le.Uint16(h[4:])&0xff > 100 || le.Uint16(h[4:])>>8 > 20 || le.Uint16(h[8:]) > 100 {
		return false
	}
	n := int(le.Uint16(h[26:]))
	return n > 0 && n <= 1024 && bytes.IndexByte(h[30:min(len(h), 30+n)], 0) < 0
}

func (w *Walker) carveCAB(o Object, at int64) (end int64, err error) {
	h := o.piece(at, 12)
	if len(h) < 12 {
		return 0, nil
	}
	size := int64(binary.LittleEndian.Uint32(h[8:]))
	if size < 36 || size > o.Size-at {
		return 0, nil
	}
	return at + size, w.Section(fmt.Sprintf("embedded-%x.cab", at), o, at, size)
}
