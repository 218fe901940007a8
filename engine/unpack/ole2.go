package unpack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/klauspost/compress/zlib"
)

// Bounds of compound files.
const (
	maxFAT       = 16 << 20 // bytes of the allocation table: 2 GB of sectors
	maxDirectory = 100_000  // entries
	maxModule    = 16 << 20 // bytes of a stream that is searched for macros
)

// compound is a compound file ([MS-CFB]): sectors in chains, small streams in
// chains of small sectors inside one stream.
type compound struct {
	o         Object
	shift     uint
	fat, mini []uint32
	small     *chain // the stream with the small sectors
	cutoff    int64
}

// chain is the sectors of a stream, as one object.
type chain struct {
	in      io.ReaderAt
	base    int64
	shift   uint
	sectors []uint32
	size    int64
}

// ReadAt is io.ReaderAt. Sectors that follow each other are read at once.
func (c *chain) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset %d", off)
	}
	n := 0
	for n < len(p) && off < c.size {
		i := int(off >> c.shift)
		in := off & (1<<c.shift - 1)
		last := i
		want := min(int64(len(p)-n), c.size-off)
		for int64(last-i+1)<<c.shift-in < want && c.sectors[last+1] == c.sectors[last]+1 {
			last++
		}
		want = min(want, int64(last-i+1)<<c.shift-in)
		got, err := c.in.ReadAt(p[n:n+int(want)], c.base+int64(c.sectors[i])<<c.shift+in)
		n += got
		off += int64(got)
		if int64(got) < want {
			// A sector behind the end of the file: the stream ends there.
			if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// follow reads a chain, up to size bytes (or to its end when negative).
func follow(table []uint32, start uint32, shift uint, size int64) []uint32 {
	var out []uint32
	for s := start; s < uint32(len(table)) && len(out) <= len(table); s = table[s] {
		if size >= 0 && int64(len(out))<<shift >= size {
			break
		}
		out = append(out, s)
	}
	return out
}

func openCompound(w *Walker, o Object) (*compound, []byte, error) {
	le := binary.LittleEndian
	h := o.piece(0, 512)
	if len(h) < 512 {
		return nil, nil, fmt.Errorf("%w: compound file header", errDamaged)
	}
	c := &compound{o: o, shift: uint(le.Uint16(h[30:])), cutoff: int64(le.Uint32(h[56:]))}
	if c.shift < 7 || c.shift > 16 || le.Uint16(h[32:]) != 6 {
		return nil, nil, fmt.Errorf("%w: sectors of 2^%d bytes", errDamaged, c.shift)
	}
	sector := int64(1) << c.shift
	base := max(512, sector) // sector 0 stands behind the header's
	most := int(min(maxFAT, o.Size>>c.shift*4+sector) / sector)
	var tables []uint32
	for i := 0; i < 109 && len(tables) < most; i++ {
		if s := le.Uint32(h[76+4*i:]); s < 0xfffffffa {
			tables = append(tables, s)
		}
	}
	next := le.Uint32(h[68:])
	for range most {
		if next >= 0xfffffffa || len(tables) >= most {
			break
		}
		b := o.piece(base+int64(next)<<c.shift, int(sector))
		if int64(len(b)) < sector {
			break
		}
		for ; len(b) > 4; b = b[4:] {
			if s := le.Uint32(b); s < 0xfffffffa && len(tables) < most {
				tables = append(tables, s)
			}
		}
		next = le.Uint32(b)
	}
	words := func(b []byte, to []uint32) []uint32 {
		for ; len(b) >= 4; b = b[4:] {
			to = append(to, le.Uint32(b))
		}
		return to
	}
	for _, s := range tables {
		b := o.piece(base+int64(s)<<c.shift, int(sector))
		if len(b) == 0 {
			w.damaged()
			break
		}
		c.fat = words(b, c.fat)
	}
	read := func(start uint32, most int64) []byte {
		ch := &chain{in: o.Data, base: base, shift: c.shift, sectors: follow(c.fat, start, c.shift, most)}
		ch.size = min(int64(len(ch.sectors))<<c.shift, o.Size, most)
		return Object{Data: ch, Size: ch.size}.piece(0, int(ch.size))
	}
	c.mini = words(read(le.Uint32(h[60:]), maxFAT), nil)
	dir := read(le.Uint32(h[48:]), maxDirectory*128)
	if len(dir) < 128 {
		return nil, nil, fmt.Errorf("%w: no directory", errDamaged)
	}
	root := dir[:128]
	c.small = &chain{in: o.Data, base: base, shift: c.shift, sectors: follow(c.fat, le.Uint32(root[116:]), c.shift, -1)}
	c.small.size = int64(len(c.small.sectors)) << c.shift
	return c, dir, nil
}

// stream is the object of a directory entry.
func (c *compound) stream(name string, start uint32, size int64) Object {
	var ch *chain
	if size < c.cutoff {
		ch = &chain{in: c.small, shift: 6, sectors: follow(c.mini, start, 6, size)}
	} else {
		ch = &chain{in: c.o.Data, base: max(512, int64(1)<<c.shift), shift: c.shift, sectors: follow(c.fat, start, c.shift, size)}
	}
	ch.size = min(size, int64(len(ch.sectors))<<ch.shift)
	return Object{Name: name, Data: ch, Size: ch.size, Cut: c.o.Cut}
}

// unole2 gives every stream of a compound file, and what is known to be in some:
// macros, embedded files, objects of presentations.
func unole2(w *Walker, o Object) error {
	c, dir, err := openCompound(w, o)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	for ; len(dir) >= 128; dir = dir[128:] {
		if err := w.check(); err != nil {
			return err
		}
		e := dir[:128]
		size := int64(le.Uint64(e[120:]))
		if c.shift == 9 {
			size &= 0xffffffff // version 3 leaves the upper half undefined
		}
		if e[66] != 2 || size <= 0 {
			continue
		}
		n := min(int(le.Uint16(e[64:])), 64)
		s := c.stream(streamName(e[:max(0, n-2)]), le.Uint32(e[116:]), size)
		if s.Size < size {
			w.damaged()
		}
		if err := w.oleStream(s); err != nil {
			return err
		}
	}
	return nil
}

// streamName decodes a name; those of Windows Installer hold two letters in one.
func streamName(b []byte) string {
	const set = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
	var out strings.Builder
	for ; len(b) >= 2; b = b[2:] {
		switch v := binary.LittleEndian.Uint16(b); {
		case v >= 0x3800 && v < 0x4800:
			out.WriteByte(set[(v-0x3800)&63])
			out.WriteByte(set[(v-0x3800)>>6])
		case v >= 0x4800 && v < 0x4840:
			out.WriteByte(set[v-0x4800])
		case v == 0x4840:
			out.WriteByte('!')
		default:
			out.WriteString(string(utf16.Decode([]uint16{v})))
		}
	}
	return out.String()
}

func (w *Walker) oleStream(s Object) error {
	switch s.Name {
	case "EncryptedPackage":
		w.encrypted()
	case "\x01Ole10Native":
		if name, file, ok := olePackage(s, 4); ok {
			return w.Section(name, file, 0, file.Size)
		}
	case "PowerPoint Document":
		if err := w.presentation(s); err != nil {
			return err
		}
	}
	if err := w.Section(s.Name, s, 0, s.Size); err != nil {
		return err
	}
	if s.Size <= maxModule {
		return w.macros(s)
	}
	return nil
}

// presentation gives the embedded objects of a PowerPoint document ([MS-PPT]
// section 2.10.34, ExOleObjStg).
func (w *Walker) presentation(s Object) error {
	le := binary.LittleEndian
	for at := int64(0); at+8 <= s.Size; {
		if err := w.check(); err != nil {
			return err
		}
		h := s.piece(at, 12)
		if len(h) < 8 {
			return nil
		}
		instance, kind, size := le.Uint16(h)>>4, le.Uint16(h[2:]), int64(le.Uint32(h[4:]))
		at += 8
		if h[0]&15 == 15 { // a container: its records follow
			continue
		}
		if kind == 0x1011 && size > 4 {
			part := s.sub(fmt.Sprintf("object-%d", at), at, size)
			var err error
			if instance == 1 {
				part = s.sub(part.Name, at+4, size-4)
				err = w.Produce(part.Name, func(out *sink) error {
					r, err := zlib.NewReader(bufio.NewReader(part.reader()))
					if err != nil {
						return fmt.Errorf("%w: %w", errDamaged, err)
					}
					return out.readAll(r)
				})
			} else {
				err = w.Section(part.Name, part, 0, part.Size)
			}
			if err != nil {
				return err
			}
		}
		at += size
	}
	return nil
}

// macroStart is how the source of every VBA module begins when compressed: a
// byte of flags without references, then literals.
var macroStart = []byte("\x00Attribut\x00e")

// macros gives the source of a VBA module ([MS-OVBA] section 2.4.1). Where it
// begins in the stream is said elsewhere; as the beginning is always the same it
// is looked for instead, which finds it also when the rest is damaged.
func (w *Walker) macros(s Object) error {
	data, release := w.load(s, 0, maxModule)
	defer release()
	i := bytes.Index(data, macroStart)
	if i < 3 || data[i-3] != 1 {
		return nil
	}
	return w.Produce(s.Name+".vba", func(out *sink) error { return ovba(data[i-2:], out) })
}

// ovba decodes the chunks of a compressed container, without its first byte.
func ovba(data []byte, out *sink) error {
	for len(data) >= 2 {
		h := binary.LittleEndian.Uint16(data)
		if h>>12&7 != 3 {
			return nil // the end
		}
		n := min(int(h&0xfff)+3, len(data))
		chunk := data[2:n]
		data = data[n:]
		if h&0x8000 == 0 { // not compressed
			if _, err := out.Write(chunk); err != nil {
				return err
			}
			continue
		}
		start := out.size()
		for len(chunk) > 0 {
			flags := chunk[0]
			chunk = chunk[1:]
			for bit := 0; bit < 8 && len(chunk) > 0; bit++ {
				if flags>>bit&1 == 0 {
					if err := out.WriteByte(chunk[0]); err != nil {
						return err
					}
					chunk = chunk[1:]
					continue
				}
				if len(chunk) < 2 {
					return nil
				}
				token := binary.LittleEndian.Uint16(chunk)
				chunk = chunk[2:]
				done := out.size() - start
				width := uint(4)
				for 1<<width < done {
					width++
				}
				if width > 12 {
					return fmt.Errorf("%w: VBA chunk", errDamaged)
				}
				back := int64(token>>(16-width)) + 1
				if back > done {
					return fmt.Errorf("%w: VBA reference", errDamaged)
				}
				if err := out.copy(back, int(token&(0xffff>>width))+3, -1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
