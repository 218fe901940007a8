package unpack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
)

// uncab reads Microsoft cabinets ([MS-CAB]). Files of a folder are parts of one
// stream of blocks, each of at most 32 KB of data; a folder is decoded once, up
// to the limit of a member.
func uncab(w *Walker, o Object) error {
	le := binary.LittleEndian
	h := o.piece(0, 36)
	if len(h) < 36 || string(h[:4]) != "MSCF" {
		return fmt.Errorf("%w: cabinet header", errDamaged)
	}
	filesAt, folders, files, flags := int64(le.Uint32(h[16:])), int(le.Uint16(h[26:])), int(le.Uint16(h[28:])), le.Uint16(h[30:])
	at, folderExtra, blockExtra := int64(36), int64(0), int64(0)
	if flags&4 != 0 {
		r := o.piece(at, 4)
		if len(r) < 4 {
			return fmt.Errorf("%w: cabinet header", errDamaged)
		}
		folderExtra, blockExtra = int64(r[2]), int64(r[3])
		at += 4 + int64(le.Uint16(r))
	}
	for _, bit := range []uint16{1, 2} { // cabinets before and after: name and disk
		for range 2 {
			if flags&bit != 0 {
				at += int64(len(cString(o.piece(at, 257)))) + 1
			}
		}
	}
	list, err := cabFiles(w, o, filesAt, files)
	if err != nil {
		return err
	}
	for i := range folders {
		f := o.piece(at+int64(i)*(8+folderExtra), 8)
		if len(f) < 8 {
			return fmt.Errorf("%w: cabinet folder", errDamaged)
		}
		mine := list[i]
		if len(mine) == 0 {
			continue
		}
		c := cabFolder{at: int64(le.Uint32(f)), blocks: int(le.Uint16(f[4:])), method: le.Uint16(f[6:]), extra: blockExtra}
		if err := w.cabFolder(o, c, mine); err != nil {
			return err
		}
	}
	return nil
}

type cabFile struct {
	name      string
	off, size int64
}

type cabFolder struct {
	at     int64
	blocks int
	method uint16
	extra  int64
}

// cabFiles reads the records of the files, by folder.
func cabFiles(w *Walker, o Object, at int64, n int) (map[int][]cabFile, error) {
	le := binary.LittleEndian
	list := map[int][]cabFile{}
	for i := range n {
		if i&0xff == 0 {
			if err := w.check(); err != nil {
				return nil, err
			}
		}
		h := o.piece(at, 16+257)
		if len(h) < 17 {
			w.damaged()
			return list, nil
		}
		name := cString(h[16:])
		folder := int(le.Uint16(h[8:]))
		switch folder {
		case 0xfffd, 0xffff: // continued from the cabinet before: in the first folder
			folder = 0
		case 0xfffe:
			folder = 1<<16 - 1
		}
		list[folder] = append(list[folder], cabFile{name: name, size: int64(le.Uint32(h)), off: int64(le.Uint32(h[4:]))})
		at += 16 + int64(len(name)) + 1
	}
	return list, nil
}

// cString is what stands before the first zero byte.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func (w *Walker) cabFolder(o Object, c cabFolder, files []cabFile) error {
	m, release, err := w.decode(func(out *sink) error { return cabDecode(o, c, out) })
	defer release()
	if err != nil && !errors.Is(err, errLimit) {
		return err
	}
	defer w.within(m)()
	for _, f := range files {
		if f.off > m.size {
			w.damaged()
			continue
		}
		if e := w.Section(f.name, m.object(""), f.off, f.size); e != nil {
			return e
		}
	}
	return err
}

// cabBlocks yields the data blocks of a folder.
type cabBlocks struct {
	o    Object
	c    cabFolder
	at   int64
	left int
	size int // of the block's data when decoded
}

func (b *cabBlocks) next() ([]byte, error) {
	if b.left == 0 {
		return nil, io.EOF
	}
	b.left--
	h := b.o.piece(b.at, 8)
	if len(h) < 8 {
		return nil, fmt.Errorf("%w: cabinet data cut short", errDamaged)
	}
	n := int(binary.LittleEndian.Uint16(h[4:]))
	b.size = int(binary.LittleEndian.Uint16(h[6:]))
	data := b.o.piece(b.at+8+b.c.extra, n)
	b.at += 8 + b.c.extra + int64(n)
	if len(data) < n {
		return nil, fmt.Errorf("%w: cabinet data cut short", errDamaged)
	}
	return data, nil
}

// cabStream is the data blocks as one stream, for LZX.
type cabStream struct {
	b    *cabBlocks
	rest []byte
}

func (s *cabStream) ReadByte() (byte, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	c := s.rest[0]
	s.rest = s.rest[1:]
	return c, nil
}

func cabDecode(o Object, c cabFolder, out *sink) error {
	b := &cabBlocks{o: o, c: c, at: c.at, left: c.blocks}
	var z *lzx
	s := &cabStream{b: b}
	switch c.method & 15 {
	case 0, 1:
	case 3:
		var err error
		if z, err = newLZX(s, uint(c.method>>8&31), out); err != nil {
			return err
		}
		defer z.finish()
	default:
		return fmt.Errorf("%w: cabinet method %d", errDamaged, c.method&15)
	}
	var dict []byte
	for {
		data, err := b.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if b.size > lzxFrame {
			return fmt.Errorf("%w: cabinet block of %d bytes", errDamaged, b.size)
		}
		switch c.method & 15 {
		case 0:
			_, err = out.Write(data)
		case 1:
			dict, err = mszip(data, dict, out)
		case 3:
			s.rest = append(s.rest, data...)
			err = z.frame(int64(b.size))
		}
		if err != nil {
			return err
		}
	}
}

// mszip decodes a block: "CK" and deflate, with what the block before decoded to
// as its dictionary, which it returns for the next.
func mszip(data, dict []byte, out *sink) ([]byte, error) {
	if len(data) < 2 || data[0] != 'C' || data[1] != 'K' {
		return nil, fmt.Errorf("%w: MSZIP block", errDamaged)
	}
	r := flate.NewReaderDict(bufio.NewReader(bytes.NewReader(data[2:])), dict)
	block, err := io.ReadAll(io.LimitReader(r, lzxFrame))
	if _, e := out.Write(block); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if len(block) < lzxFrame { // a short block does not replace all of the window
		block = append(dict, block...)
		block = block[max(0, len(block)-lzxFrame):]
	}
	return block, nil
}
