package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Bounds of Apple's disk images.
const (
	dmgTrailer   = 512
	dmgSector    = 512
	maxDMGList   = 16 << 20 // bytes of the property list
	maxDMGTables = 256      // tables of blocks: partitions
	maxDMGBlocks = 1 << 17  // blocks of one table
	maxDMGBlock  = 64 << 20 // bytes of one block; hdiutil makes them of 256 KiB to 1 MiB
)

// Kinds of blocks.
const (
	dmgZero    = 0
	dmgRaw     = 1
	dmgIgnore  = 2
	dmgComment = 0x7ffffffe
	dmgADC     = 0x80000004
	dmgZlib    = 0x80000005
	dmgBzip2   = 0x80000006
	dmgLZFSE   = 0x80000007
	dmgXZ      = 0x80000008
	dmgEnd     = 0xffffffff
)

// Trailer names the container that the end of an object says that it is, besides
// what its beginning says; empty for none. Apple's disk images (UDIF) begin with
// the first block of their contents.
func Trailer(o Object) string {
	var h [12]byte
	if o.Size < dmgTrailer {
		return ""
	}
	if n, _ := o.Data.ReadAt(h[:], o.Size-dmgTrailer); n < len(h) || string(h[:4]) != "koly" || binary.BigEndian.Uint32(h[8:]) != dmgTrailer {
		return ""
	}
	return filetype.DMG
}

// undmg gives the partitions of an Apple disk image (UDIF). There is no published
// description: the layout is that of the trailer "koly" and the tables "mish", as
// the free programs that read them have it. Images that are encrypted, of several
// segments, or with their tables in a resource fork are not opened.
func undmg(w *Walker, o Object) error {
	be := binary.BigEndian
	h := o.piece(o.Size-dmgTrailer, dmgTrailer)
	if len(h) < dmgTrailer || string(h[:4]) != "koly" {
		return fmt.Errorf("%w: disk image without its end", errDamaged)
	}
	data := o.sub("", clampOffset(be.Uint64(h[24:])), clampOffset(be.Uint64(h[32:])))
	at, size := clampOffset(be.Uint64(h[216:])), clampOffset(be.Uint64(h[224:]))
	if size == 0 || at > o.Size || size > o.Size-at {
		return fmt.Errorf("%w: property list of a disk image", errDamaged)
	}
	if size > maxDMGList {
		w.note(verdict.LimitBytes)
	}
	list, release := w.load(o, at, min(size, maxDMGList))
	defer release()
	_, rest, ok := bytes.Cut(list, []byte("<key>blkx</key>"))
	if !ok {
		return fmt.Errorf("%w: disk image without tables", errDamaged)
	}
	rest, _, _ = bytes.Cut(rest, []byte("</array>"))
	for n := 0; ; n++ {
		_, next, found := bytes.Cut(rest, []byte("<data>"))
		if !found {
			return nil
		}
		text, behind, _ := bytes.Cut(next, []byte("</data>"))
		rest = behind
		if n >= maxDMGTables {
			w.note(verdict.LimitFiles)
			return nil
		}
		if err := w.dmgPartition(fmt.Sprintf("partition %d", n), data, text); err != nil {
			return err
		}
	}
}

// clampOffset makes an offset or length fit, so that what is too large lies
// outside.
func clampOffset(v uint64) int64 { return int64(min(v, 1<<62)) }

// dmgPartition gives what a table, in base64, describes.
func (w *Walker) dmgPartition(name string, data Object, text []byte) error {
	be := binary.BigEndian
	t := dmgTable(text)
	if t == nil {
		w.damaged()
		return nil
	}
	base, count := clampOffset(be.Uint64(t[24:])), int64(be.Uint32(t[200:]))
	if blocks := int64(len(t)-204) / 40; count > blocks || count > maxDMGBlocks {
		w.damaged()
		count = min(blocks, maxDMGBlocks)
	}
	return w.Produce(name, func(out *sink) error {
		for i := range count {
			if err := w.check(); err != nil {
				return err
			}
			b := t[204+40*i:]
			block := dmgBlock{
				kind: be.Uint32(b), at: clampOffset(be.Uint64(b[8:])), sectors: clampOffset(be.Uint64(b[16:])),
				stored: base + clampOffset(be.Uint64(b[24:])), packed: clampOffset(be.Uint64(b[32:])),
			}
			if block.kind == dmgEnd {
				return nil
			}
			if block.kind == dmgComment {
				continue
			}
			if err := block.write(w, data, out); err != nil {
				return err
			}
		}
		return nil
	})
}

// dmgTable decodes a table; nil where it is none.
func dmgTable(text []byte) []byte {
	t := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(t, bytes.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, text))
	if t = t[:n]; err != nil || len(t) < 204 || string(t[:4]) != "mish" {
		return nil
	}
	return t
}

// dmgBlock is a piece of a partition.
type dmgBlock struct {
	kind    uint32
	at      int64 // sector of the partition
	sectors int64
	stored  int64 // offset in the data
	packed  int64 // bytes there
}

// write appends the block at its place. A block that cannot be read is damage,
// and zeros.
func (b dmgBlock) write(w *Walker, data Object, out *sink) error {
	if b.at > 1<<40 || b.sectors > 1<<40 {
		return fmt.Errorf("%w: block of a disk image at sector %d", errDamaged, b.at)
	}
	if b.at*dmgSector < out.m.size {
		w.damaged() // over another block: its contents are seen behind it
	}
	if err := out.zeros(b.at*dmgSector - out.m.size); err != nil {
		return err
	}
	size := b.sectors * dmgSector
	end := out.m.size + size
	if b.kind != dmgZero && b.kind != dmgIgnore {
		if b.kind != dmgRaw && size > maxDMGBlock || b.stored > data.Size || b.packed > data.Size-b.stored {
			w.damaged()
		} else if err := b.contents(data, size, out); out.err != nil {
			return out.err
		} else if err != nil {
			w.damaged()
		}
	}
	return out.zeros(end - out.m.size)
}

// contents appends what is stored of a block of the given size.
func (b dmgBlock) contents(data Object, size int64, out *sink) error {
	src := bufio.NewReader(data.sub("", b.stored, b.packed).reader())
	var r io.Reader
	var err error
	switch b.kind {
	case dmgRaw:
		r = src
	case dmgADC:
		return adc(src, size, out)
	case dmgZlib:
		r, err = zlib.NewReader(src)
	case dmgBzip2:
		r = bzip2.NewReader(src)
	case dmgXZ:
		// It has no end of its own: more than the block would move those behind it.
		limit := out.limit
		out.limit = min(limit, out.m.size+size)
		err := decodeXZ(src, out)
		if errors.Is(out.err, errFull) && out.limit < limit {
			out.err, err = nil, fmt.Errorf("%w: a block of a disk image has more than it says", errDamaged)
		}
		out.limit = limit
		return err
	case dmgLZFSE:
		err = fmt.Errorf("%w: block of LZFSE", errDamaged)
	default:
		err = fmt.Errorf("%w: block of kind %#x", errDamaged, b.kind)
	}
	if err != nil {
		return err
	}
	return out.readAll(io.LimitReader(r, size))
}

// zeros appends n of them.
func (s *sink) zeros(n int64) error {
	var z [4096]byte
	for n > 0 {
		k, err := s.Write(z[:min(n, int64(len(z)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// adc decodes Apple Data Compression: runs of bytes as they are, and references
// of two and three bytes to what came before in the same block.
func adc(r *bufio.Reader, size int64, out *sink) error {
	begin := out.m.size
	for out.m.size-begin < size {
		var b [3]byte
		c, err := r.ReadByte()
		if err != nil {
			return fmt.Errorf("%w: block cut short: %w", errDamaged, err)
		}
		left := size - (out.m.size - begin)
		if c&0x80 != 0 {
			if _, err := io.CopyN(out, r, min(int64(c&0x7f)+1, left)); err != nil {
				return fmt.Errorf("%w: block cut short: %w", errDamaged, err)
			}
			continue
		}
		more := b[:1]
		if c&0x40 != 0 {
			more = b[:2]
		}
		if _, err := io.ReadFull(r, more); err != nil {
			return fmt.Errorf("%w: block cut short: %w", errDamaged, err)
		}
		n, dist := int64(c>>2)+3, int64(c&3)<<8|int64(b[0])
		if len(more) == 2 {
			n, dist = int64(c&0x3f)+4, int64(b[0])<<8|int64(b[1])
		}
		if dist++; dist > out.m.size-begin {
			return fmt.Errorf("%w: reference to %d bytes back", errDamaged, dist)
		}
		if err := out.copy(dist, int(min(n, left)), -1); err != nil {
			return err
		}
	}
	return nil
}
