package unpack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Bounds of squashfs images.
const (
	squashMeta     = 8192
	maxSquashBlock = 1 << 20
	maxSquashTable = 64 << 20 // bytes of the inode table, and of the directories
)

// squash reads squashfs 4.0 images (Documentation/filesystems/squashfs.rst of
// Linux). Inodes are taken in the order of their table, so that files are found
// that no directory names.
type squash struct {
	w     *Walker
	o     Object
	block int64
	comp  uint16
	frags []byte // the index of fragments: 16 bytes each
	names map[uint32]string
}

func unsquash(w *Walker, o Object) error {
	le := binary.LittleEndian
	h := o.piece(0, 96)
	if len(h) < 96 || string(h[:4]) != "hsqs" || le.Uint16(h[28:]) != 4 {
		return fmt.Errorf("%w: squashfs superblock", errDamaged)
	}
	s := &squash{w: w, o: o, block: int64(le.Uint32(h[12:])), comp: le.Uint16(h[20:]), names: map[uint32]string{}}
	if s.block < 4096 || s.block > maxSquashBlock {
		return fmt.Errorf("%w: squashfs blocks of %d bytes", errDamaged, s.block)
	}
	inodes, dirs, frags := int64(le.Uint64(h[64:])), int64(le.Uint64(h[72:])), int64(le.Uint64(h[80:]))
	if inodes < 0 || dirs < inodes || dirs > o.Size {
		return fmt.Errorf("%w: squashfs tables", errDamaged)
	}
	dirEnd := o.Size
	if frags > dirs && frags < o.Size {
		if err := s.fragments(frags, int64(le.Uint32(h[16:]))); err != nil {
			return err
		}
		if b := o.piece(frags, 8); len(b) == 8 {
			dirEnd = min(dirEnd, int64(le.Uint64(b)))
		}
	}
	table, free, err := s.table(inodes, dirs)
	defer free()
	if err != nil {
		return err
	}
	listing, freeDirs, err := s.table(dirs, dirEnd)
	defer freeDirs()
	if err != nil {
		return err
	}
	s.directories(listing)
	return s.inodes(table)
}

// table decodes the metadata blocks between two places.
func (s *squash) table(at, end int64) ([]byte, func(), error) {
	m, free, err := s.w.decode(func(out *sink) error {
		out.limit = min(out.limit, maxSquashTable)
		for at < end {
			b, n, err := s.meta(at)
			if err != nil {
				if out.size() > 0 { // what follows is another table
					return nil
				}
				return err
			}
			if _, err := out.Write(b); err != nil {
				return err
			}
			at += n
		}
		return nil
	})
	if err != nil {
		return nil, free, err
	}
	b := make([]byte, m.size)
	_, _ = m.ReadAt(b, 0)
	return b, free, nil
}

// meta decodes one metadata block; n is how far the next is.
func (s *squash) meta(at int64) (b []byte, n int64, err error) {
	h := s.o.piece(at, 2)
	if len(h) < 2 {
		return nil, 0, fmt.Errorf("%w: squashfs metadata", errDamaged)
	}
	v := binary.LittleEndian.Uint16(h)
	size := int64(v & 0x7fff)
	if size == 0 || size > squashMeta {
		return nil, 0, fmt.Errorf("%w: squashfs metadata block of %d bytes", errDamaged, size)
	}
	b = s.o.piece(at+2, int(size))
	if v&0x8000 == 0 {
		b, err = s.expand(b, squashMeta)
	}
	return b, size + 2, err
}

// expand decompresses a block of at most most bytes.
func (s *squash) expand(b []byte, most int64) ([]byte, error) {
	var r io.Reader
	var err error
	switch s.comp {
	case 1:
		r, err = zlib.NewReader(bytes.NewReader(b))
	case 2:
		r, err = lzmaAlone(b)
	case 3:
		out := &sink{w: s.w, m: &memory{}, limit: most}
		if err := lzo1x(b, out); err != nil && !errors.Is(err, errFull) {
			return nil, err
		}
		return out.m.object("").piece(0, int(out.m.size)), nil
	case 4:
		out := &sink{w: s.w, m: &memory{}, limit: most}
		if err := decodeXZ(bufio.NewReader(bytes.NewReader(b)), out); err != nil && !errors.Is(err, errFull) {
			return nil, err
		}
		return out.m.object("").piece(0, int(out.m.size)), nil
	case 5:
		out := make([]byte, most)
		n, err := lz4.UncompressBlock(b, out)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		return out[:n], nil
	case 6:
		d, e := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if e != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, e)
		}
		defer d.Close()
		r = d
	default:
		return nil, fmt.Errorf("%w: squashfs compression %d", errDamaged, s.comp)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	out, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return out, nil
}

func lzmaAlone(b []byte) (io.Reader, error) {
	if len(b) < 13 {
		return nil, fmt.Errorf("%w: LZMA block", errDamaged)
	}
	return lzmaReader(bytes.NewReader(b[13:]), b[:5], int64(binary.LittleEndian.Uint64(b[5:])))
}

// fragments reads the index of the blocks that hold the ends of files.
func (s *squash) fragments(at, n int64) error {
	for i := int64(0); i < (n*16+squashMeta-1)/squashMeta; i++ {
		p := s.o.piece(at+8*i, 8)
		if len(p) < 8 || len(s.frags) > maxSquashTable {
			break
		}
		if err := s.w.check(); err != nil {
			return err
		}
		b, _, err := s.meta(int64(binary.LittleEndian.Uint64(p)))
		if err != nil {
			s.w.damaged()
			break
		}
		s.frags = append(s.frags, b...)
	}
	return nil
}

// directories notes the names of inodes. Directories of different parents are
// stored one after the other, so that the whole table reads as one list.
func (s *squash) directories(b []byte) {
	le := binary.LittleEndian
	for len(b) >= 12 {
		count, base := le.Uint32(b), le.Uint32(b[8:])
		b = b[12:]
		if count > 255 {
			return
		}
		for range count + 1 {
			if len(b) < 8 {
				return
			}
			n := int(le.Uint16(b[6:])) + 1
			if n > 256 || len(b) < 8+n {
				return
			}
			s.names[base+uint32(int32(int16(le.Uint16(b[2:]))))] = string(b[8 : 8+n])
			b = b[8+n:]
		}
	}
}

// inodes walks the table; only regular files matter.
func (s *squash) inodes(b []byte) error {
	le := binary.LittleEndian
	const noFragment = math.MaxUint32
	for len(b) >= 16 {
		kind, number := le.Uint16(b), le.Uint32(b[12:])
		need := map[uint16]int{1: 32, 2: 32, 3: 24, 4: 24, 5: 24, 6: 20, 7: 20, 8: 40, 9: 56, 10: 24, 11: 28, 12: 28, 13: 24, 14: 24}[kind]
		if need == 0 || len(b) < need {
			if len(b) >= 16 {
				s.w.damaged()
			}
			return nil
		}
		var start, size, fragAt int64
		frag := uint32(noFragment)
		switch kind {
		case 2:
			start, frag, fragAt, size = int64(le.Uint32(b[16:])), le.Uint32(b[20:]), int64(le.Uint32(b[24:])), int64(le.Uint32(b[28:]))
		case 9:
			start, size, frag, fragAt = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:])), le.Uint32(b[44:]), int64(le.Uint32(b[48:]))
		case 3, 10: // a link: its target follows
			n := int64(le.Uint32(b[20:]))
			if kind == 10 {
				n += 4
			}
			if n > int64(len(b)-24) {
				return nil
			}
			b = b[24+n:]
			continue
		case 8: // a large directory: its index follows
			n := int(le.Uint16(b[32:]))
			b = b[40:]
			for range n {
				if len(b) < 12 || len(b) < 12+int(le.Uint32(b[8:])&0xffff)+1 {
					return nil
				}
				b = b[12+int(le.Uint32(b[8:])&0xffff)+1:]
			}
			continue
		default:
			b = b[need:]
			continue
		}
		b = b[need:]
		blocks := size / s.block
		if frag == noFragment && size%s.block != 0 {
			blocks++
		}
		if size < 0 || blocks < 0 || blocks > int64(len(b)/4) {
			s.w.damaged()
			return nil
		}
		list := b[:4*blocks]
		b = b[4*blocks:]
		if size == 0 {
			continue
		}
		name := s.names[number]
		if name == "" {
			name = fmt.Sprintf("inode-%d", number)
		}
		err := s.w.Produce(name, func(out *sink) error { return s.file(out, start, size, list, frag, fragAt) })
		if err != nil {
			return err
		}
	}
	return nil
}

// file writes the blocks of a file and its end from a fragment.
func (s *squash) file(out *sink, at, size int64, list []byte, frag uint32, fragAt int64) error {
	for ; len(list) >= 4; list = list[4:] {
		v := binary.LittleEndian.Uint32(list)
		want := min(s.block, size-out.size())
		b, n, err := s.data(at, v, want)
		if err != nil {
			return err
		}
		at += n
		if _, err := out.Write(b[:min(int64(len(b)), want)]); err != nil {
			return err
		}
	}
	if frag == math.MaxUint32 {
		return nil
	}
	i := int64(frag) * 16
	if i+16 > int64(len(s.frags)) {
		return fmt.Errorf("%w: squashfs fragment", errDamaged)
	}
	e := s.frags[i:]
	b, _, err := s.data(int64(binary.LittleEndian.Uint64(e)), binary.LittleEndian.Uint32(e[8:]), s.block)
	if err != nil {
		return err
	}
	n := size % s.block
	if fragAt+n > int64(len(b)) {
		return errors.Join(errDamaged, errors.New("squashfs fragment too short"))
	}
	_, err = out.Write(b[fragAt : fragAt+n])
	return err
}

// data reads a block; bit 24 of its size says that it is not compressed, size 0
// that it is a hole of want bytes.
func (s *squash) data(at int64, v uint32, want int64) ([]byte, int64, error) {
	size := int64(v & (1<<24 - 1))
	if size == 0 {
		return make([]byte, want), 0, nil
	}
	if size > maxSquashBlock {
		return nil, 0, fmt.Errorf("%w: squashfs block of %d bytes", errDamaged, size)
	}
	b := s.o.piece(at, int(size))
	if int64(len(b)) < size {
		return nil, 0, fmt.Errorf("%w: squashfs block cut short", errDamaged)
	}
	if v>>24&1 == 0 {
		var err error
		if b, err = s.expand(b, s.block); err != nil {
			return nil, 0, err
		}
	}
	return b, size, nil
}
