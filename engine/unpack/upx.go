package unpack

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

const (
	// upxHead is how far from the beginning the first block's header is looked
	// for, maxUPXBlocks how many there may be.
	upxHead      = 2 << 10
	maxUPXBlocks = 4096
	// maxUPXBlock is how long one block may be when unpacked.
	maxUPXBlock = 64 << 20
)

// unelf unpacks programs packed by UPX (all its methods, versions 2 to 5): behind
// the program headers stand a header of 12 bytes and one with the original's
// size, then blocks, each with its lengths and method: first the original's
// headers, then its segments in order, and behind the loader what lies between
// the segments and after them. The mark "UPX!" is not demanded, since malware
// wipes it out: a first block that unpacks to an ELF header is proof enough.
func unelf(w *Walker, o Object) error {
	w.quiet = true
	head := o.piece(0, upxHead)
	if len(head) < 64 {
		return nil
	}
	u := &upx{w: w, o: o, order: binary.LittleEndian}
	if head[5] == 2 {
		u.order = binary.BigEndian
	}
	phoff, phnum, size := uint64(u.order.Uint32(head[28:])), int(u.order.Uint16(head[44:])), 32
	if head[4] == 2 {
		phoff, phnum, size = u.order.Uint64(head[32:]), int(u.order.Uint16(head[56:])), 56
	}
	var starts []int64
	if i := bytes.Index(head, []byte("UPX!")); i >= 0 {
		starts = append(starts, int64(i)+8+12)
	}
	if phoff < upxHead && phnum < 16 {
		starts = append(starts, int64(phoff)+int64(phnum*size)+24)
	}
	for _, at := range starts {
		if u.first(at) {
			return u.unpack(at)
		}
	}
	return nil
}

type upx struct {
	w        *Walker
	o        Object
	order    binary.ByteOrder
	segments []upxSegment // of the original
	size     int64        // of the original
	method   byte
}

type upxSegment struct{ at, size int64 }

// upxBlock is the header of a block.
type upxBlock struct {
	size, packed   int64
	method, filter byte
	marker         byte
	data           int64 // where it stands
}

// block reads the header of a block, and whether it can be one.
func (u *upx) block(at int64) (b upxBlock, ok bool) {
	h := u.o.piece(at, 12)
	if len(h) < 12 {
		return b, false
	}
	b = upxBlock{
		size: int64(u.order.Uint32(h)), packed: int64(u.order.Uint32(h[4:])), method: h[8], filter: h[9], marker: h[10], data: at + 12,
	}
	return b, b.size > 0 && b.size <= maxUPXBlock && b.packed > 0 && b.packed <= b.size && b.packed <= u.o.Size-b.data
}

// first reads the first block, the original's headers.
func (u *upx) first(at int64) bool {
	b, ok := u.block(at)
	if !ok || b.size < 52 || b.size > 8<<10 {
		return false
	}
	m := u.open(b)
	if m == nil || m[0] != 0x7f || string(m[1:4]) != "ELF" {
		return false
	}
	u.method = b.method
	phoff, phnum, size := int64(u.order.Uint32(m[28:])), int(u.order.Uint16(m[44:])), int64(32)
	wide := m[4] == 2
	if wide {
		if len(m) < 64 {
			return false
		}
		phoff, phnum, size = int64(u.order.Uint64(m[32:])), int(u.order.Uint16(m[56:])), 56
	}
	for i := range int64(phnum) {
		if phoff < 0 || phoff > int64(len(m)) || phoff+(i+1)*size > int64(len(m)) {
			break
		}
		h := m[phoff+i*size:]
		if u.order.Uint32(h) != 1 { // PT_LOAD
			continue
		}
		s := upxSegment{int64(u.order.Uint32(h[4:])), int64(u.order.Uint32(h[16:]))}
		if wide {
			s = upxSegment{int64(u.order.Uint64(h[8:])), int64(u.order.Uint64(h[32:]))}
		}
		if s.at < 0 || s.size < 0 || s.at > 1<<32 || s.size > 1<<32 {
			return false
		}
		u.segments = append(u.segments, s)
		u.size = max(u.size, s.at+s.size)
	}
	if info := u.o.piece(at-8, 4); len(info) == 4 && len(u.segments) > 0 {
		u.size = max(u.size, int64(u.order.Uint32(info)))
	}
	// A small program that claims to be large is none of UPX.
	return len(u.segments) > 0 && u.size <= 256*u.o.Size+1<<20
}

// unpack gives the original. Blocks that cannot be read leave zeros.
func (u *upx) unpack(at int64) error {
	most := min(u.w.budget.Bytes, u.w.budget.MaxMember, u.w.budget.MaxHeld-u.w.budget.held)
	return u.w.Produce("unpacked-upx", func(out *sink) error {
		total := min(u.size, most)
		zeros := make([]byte, 64<<10)
		for out.size() < total {
			if _, err := out.Write(zeros[:min(int64(len(zeros)), total-out.size())]); err != nil {
				return err
			}
		}
		var gaps []upxSegment
		for i, s := range u.segments {
			next := u.size
			if i+1 < len(u.segments) {
				next = u.segments[i+1].at
			}
			if end := s.at + s.size; next > end {
				gaps = append(gaps, upxSegment{end, next - end})
			}
			var err error
			if at, err = u.fill(out, s, at); err != nil {
				return err
			}
		}
		for _, g := range gaps {
			start, err := u.find(g, at)
			if err != nil || start < 0 {
				return err
			}
			if at, err = u.fill(out, g, start); err != nil {
				return err
			}
		}
		return nil
	})
}

// fill unpacks blocks into a part of the original and returns where the next one
// stands.
func (u *upx) fill(out *sink, s upxSegment, at int64) (int64, error) {
	for done := int64(0); done < s.size; {
		if err := u.w.check(); err != nil {
			return at, err
		}
		b, ok := u.block(at)
		if !ok || b.size > s.size-done {
			return at, fmt.Errorf("%w: UPX block at %d", errDamaged, at)
		}
		data := u.open(b)
		if data == nil {
			return at, fmt.Errorf("%w: UPX block at %d", errDamaged, at)
		}
		for i, c := range data {
			if to := s.at + done + int64(i); to < out.m.size {
				out.m.set(to, c)
			}
		}
		done += b.size
		at = b.data + b.packed
	}
	return at, nil
}

// find looks behind the loader for the first block of a gap: one of its length,
// or of the length of the longest blocks.
func (u *upx) find(g upxSegment, from int64) (int64, error) {
	var want [4]byte
	u.order.PutUint32(want[:], uint32(g.size))
	data, release := u.w.load(u.o, from, u.o.Size-from)
	defer release()
	tries := 0
	for i := 0; ; {
		k := bytes.Index(data[i:], want[:])
		if k < 0 {
			return -1, nil
		}
		i += k
		if b, ok := u.block(from + int64(i)); ok && (b.method == u.method || b.packed == b.size) {
			if u.open(b) != nil {
				return from + int64(i), nil
			}
			if tries++; tries > 16 {
				return -1, nil
			}
		}
		if err := u.w.check(); err != nil {
			return -1, err
		}
		i++
	}
}

// open unpacks one block and undoes its filter; nil when it is damaged.
func (u *upx) open(b upxBlock) []byte {
	packed := u.o.piece(b.data, int(b.packed))
	if b.packed == b.size {
		return packed // stored
	}
	out := &sink{w: u.w, m: &memory{}, limit: b.size}
	var err error
	switch b.method {
	case 2, 3, 4, 5, 6, 7, 8, 9, 10:
		n := &nrv{in: packed, step: [3]int{4, 1, 2}[(b.method-2)%3]}
		err = n.decode("BDE"[(b.method-2)/3], out)
	case 14:
		if len(packed) < 3 {
			return nil
		}
		pb, lp, lc := packed[0]&7, packed[1]>>4, packed[1]&15
		props := u.lzmaProps(pb, lp, lc, b.size)
		var r io.Reader
		if r, err = lzmaReader(bytes.NewReader(packed[2:]), props, b.size); err == nil {
			err = out.readAll(r)
		}
	case 15:
		err = out.readAll(flate.NewReader(bytes.NewReader(packed)))
	case 16:
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary)); err == nil {
			err = out.readAll(onlyReader{z})
			z.Close()
		}
	default:
		return nil
	}
	if err != nil || out.size() != b.size {
		return nil
	}
	data := out.m.object("").piece(0, int(b.size))
	upxFilter(data, b.filter, b.marker)
	return data
}

func (u *upx) lzmaProps(pb, lp, lc byte, size int64) []byte {
	dict := uint32(1) << bits.Len64(uint64(size))
	return binary.LittleEndian.AppendUint32([]byte{(pb*5+lp)*9 + lc}, dict)
}

// upxFilter undoes the translation of the targets of calls and jumps from
// absolute to relative. marker is the highest byte by which translated targets
// are known.
func upxFilter(b []byte, id, marker byte) {
	le, be := binary.LittleEndian, binary.BigEndian
	switch id {
	case 0x11, 0x12, 0x13, 0x14, 0x15, 0x16: // every call, jump, or both
		calls, jumps := id != 0x12 && id != 0x15, id != 0x11 && id != 0x14
		for i := 0; i+5 <= len(b); i++ {
			if calls && b[i] == 0xe8 || jumps && b[i] == 0xe9 {
				v := le.Uint32(b[i+1:])
				if id >= 0x14 {
					v = be.Uint32(b[i+1:])
				}
				le.PutUint32(b[i+1:], v-uint32(i)-1)
				i += 4
			}
		}
	case 0x24, 0x25, 0x26, 0x36, 0x46, 0x49: // those with the marker
		conditional := id >= 0x36
		last := 0
		for i := 0; i+5 < len(b); i++ {
			c := b[i]
			hit := c == 0xe8 && id != 0x25 || c == 0xe9 && id != 0x24 ||
				conditional && i > 0 && i != last && b[i-1] == 0x0f && c >= 0x80 && c <= 0x8f
			if !hit || b[i+1] != marker {
				continue
			}
			le.PutUint32(b[i+1:], be.Uint32(b[i+1:])-uint32(i)-1-uint32(marker)<<24)
			i += 4
			last = i + 1
		}
	case 0x50, 0x51: // ARM: bl
		for i := 0; i+4 <= len(b); i += 4 {
			v := le.Uint32(b[i:])
			if id == 0x51 {
				v = be.Uint32(b[i:])
			}
			if v>>24&0x0f != 0x0b {
				continue
			}
			v = v&0xff000000 | (v-uint32(i)/4)&0xffffff
			if id == 0x51 {
				be.PutUint32(b[i:], v)
			} else {
				le.PutUint32(b[i:], v)
			}
		}
	case 0x52: // ARM64: b, bl
		for i := 0; i+4 <= len(b); i += 4 {
			if v := le.Uint32(b[i:]); v>>26&0x1f == 5 {
				le.PutUint32(b[i:], v&0xfc000000|(v-uint32(i)/4)&0x03ffffff)
			}
		}
	case 0xd0: // PowerPC: bl
		for i := 0; i+4 <= len(b); i += 4 {
			if v := be.Uint32(b[i:]); v&0xfc000003 == 0x48000001 {
				be.PutUint32(b[i:], 0x48000001|(v-uint32(i))&0x03fffffc)
			}
		}
	}
}
