package unpack

import (
	"fmt"
	"io"
)

// Tables of RFC 1951 section 3.2.5 and, for Deflate64, of the PKWARE APPNOTE
// section 5.6: the same blocks with a window of 64 KB, two more distance codes
// and the last length code with 16 extra bits.
var (
	inflateLengths   = [31]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	inflateExtra     = [31]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	inflateCodeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// inflate64 decodes Deflate64.
func inflate64(r io.ByteReader, out *sink) error {
	b := &bitReader{r: r, order: lsbFirst}
	for {
		last := b.take(1) == 1
		var lit, dist *prefix
		var err error
		switch b.take(2) {
		case 0:
			err = inflateStored(b, out)
		case 1:
			lit, dist, err = inflateFixed()
		case 2:
			lit, dist, err = inflateDynamic(b)
		default:
			err = fmt.Errorf("%w: deflate block type", errDamaged)
		}
		if err == nil && lit != nil {
			err = inflateBlock(b, out, lit, dist)
		}
		if err != nil {
			return err
		}
		if last {
			return nil
		}
	}
}

func inflateStored(b *bitReader, out *sink) error {
	b.align(8)
	n, not := b.take(16), b.take(16)
	if n != not^0xffff {
		return fmt.Errorf("%w: stored block length", errDamaged)
	}
	for range n {
		c := byte(b.take(8))
		if b.err != nil {
			return b.err
		}
		if err := out.WriteByte(c); err != nil {
			return err
		}
	}
	return b.err
}

func inflateFixed() (lit, dist *prefix, err error) {
	var l [288]uint8
	for i := range l {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	var d [32]uint8
	for i := range d {
		d[i] = 5
	}
	if lit, err = newPrefix(l[:]); err == nil {
		dist, err = newPrefix(d[:])
	}
	return lit, dist, err
}

func inflateDynamic(b *bitReader) (lit, dist *prefix, err error) {
	nl, nd, nc := int(b.take(5))+257, int(b.take(5))+1, int(b.take(4))+4
	var lengths [320]uint8
	for i := range nc {
		lengths[inflateCodeOrder[i]] = uint8(b.take(3))
	}
	codes, err := newPrefix(lengths[:19])
	if err != nil {
		return nil, nil, err
	}
	clear(lengths[:])
	for i := 0; i < nl+nd; {
		s, err := b.symbol(codes)
		if err != nil {
			return nil, nil, err
		}
		var v uint8
		n := 1
		switch s {
		case 16:
			if i == 0 {
				return nil, nil, fmt.Errorf("%w: nothing to repeat", errDamaged)
			}
			v, n = lengths[i-1], 3+int(b.take(2))
		case 17:
			n = 3 + int(b.take(3))
		case 18:
			n = 11 + int(b.take(7))
		default:
			v = uint8(s)
		}
		if i+n > nl+nd {
			return nil, nil, fmt.Errorf("%w: too many code lengths", errDamaged)
		}
		for range n {
			lengths[i] = v
			i++
		}
	}
	if lit, err = newPrefix(lengths[:nl]); err == nil {
		dist, err = newPrefix(lengths[nl : nl+nd])
	}
	return lit, dist, err
}

func inflateBlock(b *bitReader, out *sink, lit, dist *prefix) error {
	for {
		s, err := b.symbol(lit)
		if err != nil {
			return err
		}
		switch {
		case s < 256:
			err = out.WriteByte(byte(s))
		case s == 256:
			return nil
		case s > 285:
			return fmt.Errorf("%w: length code", errDamaged)
		default:
			s -= 257
			n := int(inflateLengths[s]) + int(b.take(uint(inflateExtra[s])))
			if s == 28 {
				n = 3 + int(b.take(16))
			}
			d, e := b.symbol(dist)
			if e != nil {
				return e
			}
			back := int64(d) + 1
			if d >= 4 {
				extra := uint(d/2 - 1)
				back = 1 + int64(2+d&1)<<extra + int64(b.take(extra))
			}
			err = out.copy(back, n, -1)
		}
		if err != nil {
			return err
		}
	}
}
