package unpack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// uncompress reads what compress(1) writes (.Z): a header of three bytes, then LZW
// codes of 9 to 16 bits, least significant bit first. Where the width of the codes
// changes, the rest of the group of eight codes is padding.
func uncompress(w *Walker, o Object) error {
	return w.Produce(bare(o.Name, ".taz", ".tar", ".tZ", ".tar", ".Z", ""), func(out *sink) error {
		return lzw(bufio.NewReaderSize(o.reader(), 32<<10), out)
	})
}

const (
	lzwFirst = 9 // bits of the first codes
	lzwMost  = 16
	lzwClear = 256 // in block mode: the table begins anew
)

// lzwCodes reads codes in groups of eight.
type lzwCodes struct {
	r     io.ByteReader
	acc   uint32
	n     uint // bits in acc
	width uint
	read  uint // codes of the group
}

// next is the next code; io.EOF at the end, where what is less than a code is
// padding.
func (c *lzwCodes) next() (int, error) {
	for c.n < c.width {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, err
		}
		c.acc |= uint32(b) << c.n
		c.n += 8
	}
	code := int(c.acc & (1<<c.width - 1))
	c.acc >>= c.width
	c.n -= c.width
	c.read = (c.read + 1) % 8
	return code, nil
}

// setWidth leaves the group of codes.
func (c *lzwCodes) setWidth(width uint) error {
	for c.read != 0 {
		if _, err := c.next(); err != nil {
			return err
		}
	}
	c.acc, c.n, c.width = 0, 0, width
	return nil
}

func lzw(r io.ByteReader, out *sink) error {
	var head [3]byte
	for i := range head {
		b, err := r.ReadByte()
		if err != nil {
			return fmt.Errorf("%w: header of compress", errDamaged)
		}
		head[i] = b
	}
	most, blocks := uint(head[2]&31), head[2]&0x80 != 0
	if head[0] != 0x1f || head[1] != 0x9d || most < lzwFirst || most > lzwMost {
		return fmt.Errorf("%w: header of compress: %#x", errDamaged, head)
	}
	err := lzwBody(&lzwCodes{r: r, width: lzwFirst}, most, blocks, out)
	if errors.Is(err, io.EOF) {
		return nil // there is no mark of the end, and no length
	}
	return err
}

// lzwBody ends with io.EOF at the end of the input.
func lzwBody(codes *lzwCodes, most uint, blocks bool, out *sink) error {
	var (
		prefix [1 << lzwMost]uint16
		suffix [1 << lzwMost]byte
		stack  [1 << lzwMost]byte
	)
	for i := range 256 {
		suffix[i] = byte(i)
	}
	free := 256
	if blocks {
		free++
	}
	old, first := -1, byte(0)
	for {
		if free > 1<<codes.width-1 && codes.width < most {
			if err := codes.setWidth(codes.width + 1); err != nil {
				return err
			}
		}
		code, err := codes.next()
		if err != nil {
			return err
		}
		if old < 0 {
			if code > 255 {
				return fmt.Errorf("%w: compress begins with code %d", errDamaged, code)
			}
			old, first = code, byte(code)
			if err := out.WriteByte(first); err != nil {
				return err
			}
			continue
		}
		if blocks && code == lzwClear {
			// The next code makes an entry that none can name.
			free = lzwClear
			if err := codes.setWidth(lzwFirst); err != nil {
				return err
			}
			continue
		}
		given, at := code, len(stack)
		if code >= free {
			if code > free {
				return fmt.Errorf("%w: compress code %d of %d", errDamaged, code, free)
			}
			at--
			stack[at] = first
			code = old
		}
		for ; code > 255 && at > 1; code = int(prefix[code]) {
			at--
			stack[at] = suffix[code]
		}
		first = byte(code)
		at--
		stack[at] = first
		if _, err := out.Write(stack[at:]); err != nil {
			return err
		}
		if free < 1<<most {
			prefix[free], suffix[free] = uint16(old), first
			free++
		}
		old = given
	}
}
