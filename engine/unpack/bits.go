package unpack

import (
	"errors"
	"fmt"
	"io"
)

// The orders in which formats put bits into bytes.
const (
	lsbFirst = iota // deflate, implode
	msbFirst        // LHA, ARJ, bzip2
	words16         // LZX: 16-bit little-endian words, most significant bit first
)

// maxPast is how many bits a decoder may read behind the end of its input, as
// the last codes of some formats are padded by nothing.
const maxPast = 64

// bitReader reads bits. Behind the end of the input it yields zeros; err is then set
// as soon as more than maxPast of them were used.
type bitReader struct {
	r     io.ByteReader
	order int
	acc   uint64 // lsbFirst: next bit lowest; else: next bit highest
	n     uint
	past  int
	err   error
}

func (b *bitReader) next() uint64 {
	c, err := b.r.ReadByte()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			b.err = err
		}
		if b.past += 8; b.past > maxPast && b.err == nil {
			b.err = fmt.Errorf("%w: compressed data cut short", errDamaged)
		}
		return 0
	}
	return uint64(c)
}

// need puts at least n bits (at most 32) into acc.
func (b *bitReader) need(n uint) {
	for b.n < n {
		switch b.order {
		case lsbFirst:
			b.acc |= b.next() << b.n
			b.n += 8
		case msbFirst:
			b.acc |= b.next() << (56 - b.n)
			b.n += 8
		default:
			lo := b.next()
			b.acc |= (b.next()<<8 | lo) << (48 - b.n)
			b.n += 16
		}
	}
}

// take reads n bits, at most 32.
func (b *bitReader) take(n uint) uint32 {
	if n == 0 {
		return 0
	}
	b.need(n)
	var v uint64
	if b.order == lsbFirst {
		v = b.acc & (1<<n - 1)
		b.acc >>= n
	} else {
		v = b.acc >> (64 - n)
		b.acc <<= n
	}
	b.n -= n
	return uint32(v)
}

// align drops the bits up to the next byte (or word).
func (b *bitReader) align(width uint) { b.take(b.n % width) }

// prefix is a canonical prefix code (Huffman or Shannon-Fano): codes of one
// length are successive numbers in the order of their symbols.
type prefix struct {
	count   [33]int
	symbols []uint16
	single  bool // one symbol that takes no bits
	invert  bool // the bits of codes are complemented
}

// newPrefix builds the code from the length of every symbol's code, zero for
// symbols without. Codes that are not complete are allowed as some formats have
// them; those with more codes than there is room for are damage.
func newPrefix(lengths []uint8) (*prefix, error) {
	p := &prefix{symbols: make([]uint16, 0, len(lengths))}
	for _, l := range lengths {
		if l > 32 {
			return nil, fmt.Errorf("%w: code of %d bits", errDamaged, l)
		}
		p.count[l]++
	}
	p.count[0] = 0
	left := int64(1)
	for l := 1; l <= 32; l++ {
		left = left<<1 - int64(p.count[l])
		if left < 0 {
			return nil, fmt.Errorf("%w: too many codes of %d bits", errDamaged, l)
		}
	}
	for l := uint8(1); l <= 32; l++ {
		if p.count[l] == 0 {
			continue
		}
		for s, have := range lengths {
			if have == l {
				p.symbols = append(p.symbols, uint16(s))
			}
		}
	}
	return p, nil
}

// constant is the code that always means s.
func constant(s uint16) *prefix { return &prefix{symbols: []uint16{s}, single: true} }

// symbol decodes one symbol.
func (b *bitReader) symbol(p *prefix) (int, error) {
	if p.single {
		return int(p.symbols[0]), b.err
	}
	code, first, index := 0, 0, 0
	for l := 1; l <= 32; l++ {
		bit := int(b.take(1))
		if p.invert {
			bit ^= 1
		}
		code |= bit
		n := p.count[l]
		if code-n < first {
			return int(p.symbols[index+code-first]), b.err
		}
		index += n
		first = (first + n) << 1
		code <<= 1
	}
	if b.err != nil {
		return 0, b.err
	}
	return 0, fmt.Errorf("%w: unknown code", errDamaged)
}
