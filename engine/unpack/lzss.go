package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
)

// lzssParams describe the Storer-Szymanski coding with a ring buffer: a byte of
// eight flags, least significant first, then for each either a literal or two
// bytes with a place in the ring (12 bits) and a length (4 bits).
type lzssParams struct {
	ring, start int // size of the ring; where writing begins
	minimum     int // length of the shortest reference
	fill        func(at int) byte
}

func spaces(int) byte { return ' ' }

// lz5Fill is what LArc puts into its ring before it starts.
func lz5Fill(at int) byte {
	switch {
	case at < 18:
		return ' '
	case at < 18+256*13:
		return byte((at - 18) / 13)
	case at < 18+256*13+256:
		return byte(at - 18 - 256*13)
	case at < 18+256*13+512:
		return byte(255 - (at - 18 - 256*13 - 256))
	case at < 18+256*13+512+128:
		return 0
	}
	return ' '
}

// lzss decodes size bytes, or all there are when size is negative.
func lzss(r io.ByteReader, p lzssParams, size int64, out *sink) error {
	ring := make([]byte, p.ring)
	for i := range ring {
		ring[i] = p.fill(i)
	}
	at := p.start
	put := func(c byte) error {
		ring[at] = c
		at = (at + 1) % p.ring
		return out.WriteByte(c)
	}
	flags, left := byte(0), 0
	for size < 0 || out.size() < size {
		if left == 0 {
			c, err := r.ReadByte()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			flags, left = c, 8
		}
		literal := flags&1 == 1
		flags >>= 1
		left--
		c, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if literal {
			if err := put(c); err != nil {
				return err
			}
			continue
		}
		d, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		place := int(c) | int(d&0xf0)<<4
		for i := range int(d&15) + p.minimum {
			if size >= 0 && out.size() >= size {
				break
			}
			if err := put(ring[(place+i)%p.ring]); err != nil {
				return err
			}
		}
	}
	if size >= 0 && out.size() < size {
		return fmt.Errorf("%w: compressed data cut short", errDamaged)
	}
	return nil
}

// unszdd reads what MS-DOS COMPRESS.EXE writes: SZDD, mode A, the last letter of
// the name, and LZSS; also the form of QBasic ("SZ \x88") without the name.
func unszdd(w *Walker, o Object) error {
	h := o.piece(0, 14)
	p := lzssParams{ring: 4096, start: 4096 - 16, minimum: 3, fill: spaces}
	head := int64(14)
	if len(h) == 14 && string(h[:4]) == "SZDD" {
		if h[8] != 'A' {
			return fmt.Errorf("%w: SZDD mode %q", errDamaged, h[8])
		}
	} else if len(h) >= 12 {
		p.start, head = 4096-18, 12
	} else {
		return fmt.Errorf("%w: SZDD header", errDamaged)
	}
	size := int64(binary.LittleEndian.Uint32(h[head-4:]))
	name := "content"
	if o.Name != "" {
		name = path.Base(o.Name)
	}
	return w.Produce(name, func(out *sink) error {
		return lzss(bufio.NewReader(o.sub("", head, o.Size).reader()), p, size, out)
	})
}
