package unpack

import (
	"bufio"
	"fmt"
	"io"
)

// nsisBzip2 decodes bzip2 as NSIS writes it: no header, blocks of 900,000 bytes
// that begin with '1' instead of the six bytes, no checksums, 0x17 at the end.
type nsisBzip2 struct {
	b    *bitReader
	tt   []uint32
	left int
	pos  uint32
	err  error
	// run lengths
	last, run, repeat int
}

const bzip2Block = 900_000

func newNSISBzip2(r *bufio.Reader) *nsisBzip2 {
	return &nsisBzip2{b: &bitReader{r: r, order: msbFirst}, last: -1}
}

// Read is io.Reader.
func (z *nsisBzip2) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if z.repeat > 0 {
			p[n] = byte(z.last)
			z.repeat--
			n++
			continue
		}
		if z.left == 0 {
			if z.err == nil {
				z.err = z.block()
			}
			if z.err != nil {
				break
			}
			continue
		}
		z.pos = z.tt[z.pos]
		c := int(z.pos & 0xff)
		z.pos >>= 8
		z.left--
		if z.run == 4 { // four equal bytes are followed by how many more there are
			z.repeat, z.run = c, 0
			continue
		}
		if c == z.last {
			z.run++
		} else {
			z.run, z.last = 1, c
		}
		p[n] = byte(c)
		n++
	}
	if n > 0 {
		return n, nil
	}
	return 0, z.err
}

// block decodes the Huffman codes, move-to-front and prepares the inverse
// Burrows-Wheeler transform.
func (z *nsisBzip2) block() error {
	b := z.b
	switch b.take(8) {
	case '1':
	case 0x17:
		return io.EOF
	default:
		return fmt.Errorf("%w: bzip2 block", errDamaged)
	}
	origin := b.take(24)
	var used []byte
	groups := b.take(16)
	for i := range 16 {
		if groups>>(15-i)&1 == 0 {
			continue
		}
		bitsOf := b.take(16)
		for k := range 16 {
			if bitsOf>>(15-k)&1 == 1 {
				used = append(used, byte(16*i+k))
			}
		}
	}
	tables, selectors := int(b.take(3)), int(b.take(15))
	if len(used) == 0 || tables < 2 || tables > 6 || selectors == 0 {
		return fmt.Errorf("%w: bzip2 tables", errDamaged)
	}
	order := []byte{0, 1, 2, 3, 4, 5}
	choice := make([]byte, selectors)
	for i := range choice {
		k := 0
		for b.take(1) == 1 {
			if k++; k >= tables {
				return fmt.Errorf("%w: bzip2 selector", errDamaged)
			}
		}
		c := order[k]
		copy(order[1:k+1], order[:k])
		order[0] = c
		choice[i] = c
	}
	codes := make([]*prefix, tables)
	for t := range codes {
		lengths := make([]uint8, len(used)+2)
		l := int(b.take(5))
		for i := range lengths {
			for b.take(1) == 1 {
				l += 1 - 2*int(b.take(1))
				if l < 1 || l > 20 || b.err != nil {
					return fmt.Errorf("%w: bzip2 code length", errDamaged)
				}
			}
			if l < 1 || l > 20 {
				return fmt.Errorf("%w: bzip2 code length", errDamaged)
			}
			lengths[i] = uint8(l)
		}
		var err error
		if codes[t], err = newPrefix(lengths); err != nil {
			return err
		}
	}
	if err := z.symbols(codes, choice, used); err != nil {
		return err
	}
	if int(origin) >= len(z.tt) {
		return fmt.Errorf("%w: bzip2 origin", errDamaged)
	}
	var sums [256]uint32
	for _, v := range z.tt {
		sums[v&0xff]++
	}
	total := uint32(0)
	for i, n := range sums {
		sums[i] = total
		total += n
	}
	for i := range z.tt {
		c := z.tt[i] & 0xff
		z.tt[sums[c]] |= uint32(i) << 8
		sums[c]++
	}
	z.pos = z.tt[origin] >> 8
	z.left = len(z.tt)
	z.last, z.run = -1, 0
	return nil
}

func (z *nsisBzip2) symbols(codes []*prefix, choice, used []byte) error {
	z.tt = z.tt[:0]
	run, weight := 0, 1
	for n := 0; ; n++ {
		if n/50 >= len(choice) {
			return fmt.Errorf("%w: bzip2 selectors", errDamaged)
		}
		s, err := z.b.symbol(codes[choice[n/50]])
		if err != nil {
			return err
		}
		if s <= 1 {
			run += weight << s
			weight <<= 1
			if run > bzip2Block {
				return fmt.Errorf("%w: bzip2 run", errDamaged)
			}
			continue
		}
		if len(z.tt)+run+1 > bzip2Block {
			return fmt.Errorf("%w: bzip2 block too long", errDamaged)
		}
		for range run {
			z.tt = append(z.tt, uint32(used[0]))
		}
		run, weight = 0, 1
		if s == len(used)+1 {
			return nil
		}
		c := used[s-1]
		copy(used[1:s], used[:s-1])
		used[0] = c
		z.tt = append(z.tt, uint32(c))
	}
}
