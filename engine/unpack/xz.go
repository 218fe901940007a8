package unpack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Filters of the .xz format (section 5.3 of its description).
const (
	xzDelta = 0x03
	xzX86   = 0x04
	xzLZMA2 = 0x21
)

// unxz reads .xz files. The blocks are read one by one: what each asks for in
// memory is known before it is taken, and the filters of executables are undone.
func unxz(w *Walker, o Object) error {
	sc := w.budget.Scratch
	in := sc.input(o.reader())
	defer sc.done(in)
	return w.Produce(bare(o.Name, ".txz", ".tar", ".xz", ""), func(out *sink) error { return decodeXZ(in, out) })
}

// decodeXZ decodes the streams of an .xz file: a header of 12 bytes, blocks, an
// index and a footer each, with zeros between them. Checksums are not verified:
// what a lenient program would unpack is to be seen.
func decodeXZ(r *bufio.Reader, out *sink) error {
	for first, n := true, 0; ; first, n = false, n+1 {
		if n&0xffff == 0 { // there may be much padding
			if err := out.w.check(); err != nil {
				return err
			}
		}
		h, err := r.Peek(12)
		if len(h) >= 4 && binary.LittleEndian.Uint32(h) == 0 && !first {
			_, _ = r.Discard(4) // padding
			continue
		}
		if len(h) == 0 && !first {
			return nil
		}
		if err != nil || string(h[:6]) != "\xfd7zXZ\x00" || h[6] != 0 || h[7] > 15 {
			return fmt.Errorf("%w: xz header", errDamaged)
		}
		check := [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[h[7]]
		_, _ = r.Discard(12)
		for {
			more, err := xzBlock(r, check, out)
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
		if err := xzIndex(r, out.w.check); err != nil {
			return err
		}
	}
}

// xzBlock decodes one block; more is false at the index, which is not read.
func xzBlock(r *bufio.Reader, check int, out *sink) (more bool, err error) {
	one, err := r.Peek(1)
	if err != nil {
		return false, fmt.Errorf("%w: xz block: %w", errDamaged, err)
	}
	if one[0] == 0 {
		return false, nil
	}
	head := make([]byte, (int(one[0])+1)*4)
	if _, err := io.ReadFull(r, head); err != nil {
		return false, fmt.Errorf("%w: xz block header: %w", errDamaged, err)
	}
	if err := out.w.check(); err != nil {
		return false, err
	}
	chain, packed, err := xzFilters(head[:len(head)-4], r)
	if err != nil {
		return false, err
	}
	if err := out.readAll(chain); err != nil {
		return false, err
	}
	if _, err := r.Discard(int(-packed.taken&3) + check); err != nil {
		return false, fmt.Errorf("%w: xz block: %w", errDamaged, err)
	}
	return true, nil
}

// xzFilters makes the chain of decoders that a block header demands; packed is the
// first of it.
func xzFilters(head []byte, src *bufio.Reader) (chain io.Reader, packed *lzmaDecoder, err error) {
	at := 2
	number := func() uint64 {
		v, k := binary.Uvarint(head[min(at, len(head)):])
		at += max(k, 1)
		return v
	}
	for _, has := range []byte{0x40, 0x80} { // sizes
		if head[1]&has != 0 {
			number()
		}
	}
	type filter struct {
		id    uint64
		props []byte
	}
	var filters []filter
	for range int(head[1]&3) + 1 {
		id, n := number(), number()
		if at > len(head) || n > uint64(len(head)-at) {
			return nil, nil, fmt.Errorf("%w: xz filter flags", errDamaged)
		}
		filters = append(filters, filter{id, head[at : at+int(n)]})
		at += int(n)
	}
	for i := len(filters) - 1; i >= 0; i-- {
		f := filters[i]
		switch {
		case f.id == xzLZMA2 && i == len(filters)-1 && len(f.props) == 1 && f.props[0] <= 40:
			packed = newLZMA2(src, int(min(lzma2Dictionary(f.props[0]), maxDictionary)))
			chain = packed
		case f.id == xzDelta && i < len(filters)-1 && len(f.props) == 1:
			chain = &filtered{r: chain, convert: (&deltaFilter{distance: int(f.props[0]) + 1}).convert}
		case f.id > xzDelta && f.id < xzLZMA2 && i < len(filters)-1 && len(f.props)&^4 == 0:
			start := uint32(0)
			if len(f.props) == 4 {
				start = binary.LittleEndian.Uint32(f.props)
			}
			convert := branchFilter(f.id, start)
			if convert == nil {
				return nil, nil, fmt.Errorf("%w: xz filter %#x", errDamaged, f.id)
			}
			chain = &filtered{r: chain, convert: convert}
		default:
			return nil, nil, fmt.Errorf("%w: xz filter %#x", errDamaged, f.id)
		}
	}
	if packed == nil {
		return nil, nil, fmt.Errorf("%w: xz block without LZMA2", errDamaged)
	}
	return chain, packed, nil
}

// xzIndex passes over the index of a stream and its footer.
func xzIndex(r *bufio.Reader, check func() error) error {
	src := &counting{r: r}
	_, _ = src.ReadByte()
	records, err := binary.ReadUvarint(src)
	for i := uint64(0); err == nil && i < records; i++ {
		if i&0xffff == 0xffff {
			if err := check(); err != nil {
				return err
			}
		}
		if _, err = binary.ReadUvarint(src); err == nil {
			_, err = binary.ReadUvarint(src)
		}
	}
	if err == nil {
		_, err = r.Discard(int(-src.n&3) + 4 + 12)
	}
	if err != nil {
		return fmt.Errorf("%w: xz index: %w", errDamaged, err)
	}
	return nil
}
