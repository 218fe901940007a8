package unpack

import "fmt"

// rangeCoder is the binary range decoder of LZMA. Its methods read up to
// lzmaMost bytes of in beyond at without looking whether they are there.
type rangeCoder struct {
	width, code uint32
	in          []byte
	at          int
}

// begin reads the five bytes at the beginning.
func (c *rangeCoder) begin() error {
	if c.in[c.at] != 0 {
		return fmt.Errorf("%w: LZMA stream begins with %#x", errDamaged, c.in[c.at])
	}
	c.width, c.code = 1<<32-1, 0
	for _, b := range c.in[c.at+1 : c.at+5] {
		c.code = c.code<<8 | uint32(b)
	}
	c.at += 5
	return nil
}

// bit decodes one bit, and learns.
func (c *rangeCoder) bit(p *uint16) uint32 {
	v := uint32(*p)
	bound := c.width >> 11 * v
	b := uint32(0)
	if c.code < bound {
		c.width = bound
		*p = uint16(v + (2048-v)>>5)
	} else {
		c.width -= bound
		c.code -= bound
		*p = uint16(v - v>>5)
		b = 1
	}
	if c.width < lzmaTop {
		c.width <<= 8
		c.code = c.code<<8 | uint32(c.in[c.at])
		c.at++
	}
	return b
}

// matched decodes a byte after a match, of which expected would have been the
// next byte; up to the first bit that differs, that has models of its own.
func (c *rangeCoder) matched(model *[0x300]uint16, expected uint32) byte {
	width, code, at, in := c.width, c.code, c.at, c.in
	symbol, same := uint32(1), uint32(0x100)
	for symbol < 0x100 {
		expected <<= 1
		is := expected & same
		p := &model[same+is+symbol]
		v := uint32(*p)
		if bound := width >> 11 * v; code < bound {
			width = bound
			*p = uint16(v + (2048-v)>>5)
			symbol <<= 1
			same &^= is
		} else {
			width -= bound
			code -= bound
			*p = uint16(v - v>>5)
			symbol = symbol<<1 | 1
			same = is
		}
		if width < lzmaTop {
			width <<= 8
			code = code<<8 | uint32(in[at])
			at++
		}
	}
	c.width, c.code, c.at = width, code, at
	return byte(symbol)
}

// tree decodes a number below len(model), a power of two, highest bit first.
func (c *rangeCoder) tree(model []uint16) uint32 {
	width, code, at, in := c.width, c.code, c.at, c.in
	symbol := 1
	for symbol < len(model) {
		p := &model[symbol]
		v := uint32(*p)
		if bound := width >> 11 * v; code < bound {
			width = bound
			*p = uint16(v + (2048-v)>>5)
			symbol <<= 1
		} else {
			width -= bound
			code -= bound
			*p = uint16(v - v>>5)
			symbol = symbol<<1 | 1
		}
		if width < lzmaTop {
			width <<= 8
			code = code<<8 | uint32(in[at])
			at++
		}
	}
	c.width, c.code, c.at = width, code, at
	return uint32(symbol - len(model))
}

// reverse decodes bits, the lowest first.
func (c *rangeCoder) reverse(model []uint16, bits uint32) uint32 {
	symbol, value := uint32(1), uint32(0)
	for i := range bits {
		b := c.bit(&model[symbol])
		symbol = symbol<<1 | b
		value |= b << i
	}
	return value
}

// direct decodes bits that are as often set as not, the highest first.
func (c *rangeCoder) direct(bits uint32) uint32 {
	width, code, at, in := c.width, c.code, c.at, c.in
	value := uint32(0)
	for range bits {
		width >>= 1
		code -= width
		below := uint32(int32(code) >> 31) // all ones when the bit is not set
		code += width & below
		value = value<<1 + below + 1
		if width < lzmaTop {
			width <<= 8
			code = code<<8 | uint32(in[at])
			at++
		}
	}
	c.width, c.code, c.at = width, code, at
	return value
}

// length decodes the length of a match.
func (c *rangeCoder) length(l *lzmaLengths, posState uint32) int {
	if c.bit(&l.choice) == 0 {
		return lzmaShort + int(c.tree(l.low[posState&15][:]))
	}
	if c.bit(&l.choice2) == 0 {
		return lzmaShort + 8 + int(c.tree(l.mid[posState&15][:]))
	}
	return lzmaShort + 16 + int(c.tree(l.high[:]))
}
