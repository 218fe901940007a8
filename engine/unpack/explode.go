package unpack

import (
	"fmt"
	"io"
)

// explode decodes method 6 of zip, "imploding" (PKWARE APPNOTE section 5.3): two
// or three Shannon-Fano trees, then literals and references. Flags are those of
// the zip header: bit 1 says that the window has 8 KB, bit 2 that literals are
// coded. size is the length of the output, which the stream does not tell.
func explode(r io.ByteReader, flags uint16, size int64, out *sink) error {
	b := &bitReader{r: r, order: lsbFirst}
	low, minimum := uint(6), 2
	if flags&2 != 0 {
		low = 7
	}
	var lit *prefix
	var err error
	if flags&4 != 0 {
		minimum = 3
		if lit, err = explodeTree(b, 256); err != nil {
			return err
		}
	}
	length, err := explodeTree(b, 64)
	if err != nil {
		return err
	}
	dist, err := explodeTree(b, 64)
	if err != nil {
		return err
	}
	for out.size() < size {
		if b.take(1) == 1 {
			c := 0
			if lit == nil {
				c = int(b.take(8))
			} else if c, err = b.symbol(lit); err != nil {
				return err
			}
			if b.err != nil {
				return b.err
			}
			if err := out.WriteByte(byte(c)); err != nil {
				return err
			}
			continue
		}
		back := int64(b.take(low))
		high, err := b.symbol(dist)
		if err != nil {
			return err
		}
		n, err := b.symbol(length)
		if err != nil {
			return err
		}
		if n == 63 {
			n += int(b.take(8))
		}
		n = int(min(int64(n+minimum), size-out.size()))
		if err := out.copy(back+int64(high)<<low+1, n, 0); err != nil {
			return err
		}
	}
	return nil
}

// explodeTree reads the lengths of a tree's codes: a byte with the number of
// bytes that follow, in each the length and how many symbols have it. The bits
// of the codes are complemented.
func explodeTree(b *bitReader, symbols int) (*prefix, error) {
	lengths := make([]uint8, 0, symbols)
	for range b.take(8) + 1 {
		v := b.take(8)
		for range v>>4 + 1 {
			lengths = append(lengths, uint8(v&15)+1)
		}
		if len(lengths) > symbols {
			break
		}
	}
	if b.err != nil {
		return nil, b.err
	}
	if len(lengths) != symbols {
		return nil, fmt.Errorf("%w: tree of %d symbols", errDamaged, len(lengths))
	}
	p, err := newPrefix(lengths)
	if err == nil {
		p.invert = true
	}
	return p, err
}
