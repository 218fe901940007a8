package unpack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// carveAutoIt opens the files in a script compiled by AutoIt 3: behind a mark of
// 16 bytes stand the version, EA05 or EA06, and records whose fields are combined
// with constants and whose texts and data are under a generator of random
// numbers. There is no published description; the constants are in the loader
// of every such program.
func (w *Walker) carveAutoIt(o Object, at int64) (end int64, err error) {
	le := binary.LittleEndian
	h := o.piece(at, 24+16)
	if len(h) < 40 {
		return 0, nil
	}
	a := &autoIt{}
	switch string(h[16:24]) {
	case "AU3!EA05":
		a.ea05 = true
		a.data = 0x22af
		for _, c := range h[24:40] {
			a.data += uint32(c)
		}
	case "AU3!EA06":
		a.data = 0x2477
	default:
		return 0, nil
	}
	pos := at + 40
	for i := 0; i < maxISFiles; i++ {
		if err := w.check(); err != nil {
			return 0, err
		}
		mark := o.piece(pos, 8)
		if len(mark) < 8 || string(mark[:4]) != a.mark() {
			break
		}
		pos += 4
		var texts [2]string
		for k := range texts {
			b := o.piece(pos, 4)
			if len(b) < 4 {
				return pos, nil
			}
			key := a.texts()[k]
			n := int64(le.Uint32(b) ^ key.length)
			seed := uint32(n) + key.seed
			if !a.ea05 {
				n *= 2
			}
			if n < 0 || n > 4096 || n > o.Size-pos {
				return pos, nil
			}
			text := o.piece(pos+4, int(n))
			a.cipher(text, seed)
			texts[k] = cString(text)
			if !a.ea05 {
				texts[k] = utf16Text(text)
			}
			pos += 4 + n
		}
		b := o.piece(pos, 13)
		if len(b) < 13 {
			return pos, nil
		}
		key := uint32(0x87bc)
		if a.ea05 {
			key = 0x45aa
		}
		packed := int64(le.Uint32(b[1:]) ^ key)
		pos += 13 + 16 // sizes, checksum; two times of the file
		if packed > o.Size-pos {
			break
		}
		data, release := w.load(o, pos, packed)
		a.cipher(data, a.data)
		name := texts[1]
		if name == "" {
			name = fmt.Sprintf("autoit-%d", i)
		}
		if b[0] == 1 {
			err = w.Produce(name, func(out *sink) error { return a.unpack(data, out) })
		} else {
			err = w.Bytes(name, data)
		}
		release()
		if err != nil {
			return 0, err
		}
		pos += packed
	}
	if pos == at+40 {
		return 0, nil
	}
	return pos, nil
}

type autoIt struct {
	ea05 bool
	data uint32 // seed of data
}

type autoItKey struct{ length, seed uint32 }

func (a *autoIt) mark() string {
	b := []byte("FILE")
	a.cipher(b, map[bool]uint32{true: 0x16fa, false: 0x18ee}[a.ea05])
	return string(b)
}

func (a *autoIt) texts() [2]autoItKey {
	if a.ea05 {
		return [2]autoItKey{{0x29bc, 0xa25e}, {0x29ac, 0xf25e}}
	}
	return [2]autoItKey{{0xadbc, 0xb33f}, {0xf820, 0xf479}}
}

// cipher combines bytes with random numbers, in both directions.
func (a *autoIt) cipher(b []byte, seed uint32) {
	if a.ea05 {
		m := newTwister(seed)
		for i := range b {
			b[i] ^= byte(m.next() >> 1)
		}
		return
	}
	r := newRanRot(seed)
	for i := range b {
		b[i] ^= r.next()
	}
}

// unpack decodes LZSS: a bit says literal or reference; references have 15 bits
// of distance and a length of growing classes.
func (a *autoIt) unpack(data []byte, out *sink) error {
	if len(data) < 8 {
		return fmt.Errorf("%w: AutoIt data", errDamaged)
	}
	size := int64(binary.BigEndian.Uint32(data[4:]))
	b := &bitReader{r: bufio.NewReader(bytes.NewReader(data[8:])), order: msbFirst}
	literal := uint32(0)
	if !a.ea05 {
		literal = 1
	}
	for out.size() < size {
		if b.err != nil {
			return b.err
		}
		if b.take(1) == literal {
			if err := out.WriteByte(byte(b.take(8))); err != nil {
				return err
			}
			continue
		}
		back := int64(b.take(15))
		n := b.take(2)
		if n == 3 {
			n = 3 + b.take(3)
			if n == 3+7 {
				n = 10 + b.take(5)
				if n == 10+31 {
					for n = 0x29; ; {
						m := b.take(8)
						n += m
						if m != 255 || b.err != nil {
							break
						}
					}
				}
			}
		}
		if err := out.copy(back, int(min(int64(n)+3, size-out.size())), -1); err != nil {
			return err
		}
	}
	return nil
}

// twister is MT19937 (Matsumoto and Nishimura, 1998).
type twister struct {
	state [624]uint32
	at    int
}

func newTwister(seed uint32) *twister {
	m := &twister{at: 624}
	m.state[0] = seed
	for i := 1; i < 624; i++ {
		m.state[i] = 1812433253*(m.state[i-1]^m.state[i-1]>>30) + uint32(i)
	}
	return m
}

func (m *twister) next() uint32 {
	if m.at == 624 {
		m.at = 0
		for i := range m.state {
			y := m.state[i]&0x80000000 | m.state[(i+1)%624]&0x7fffffff
			v := m.state[(i+397)%624] ^ y>>1
			if y&1 == 1 {
				v ^= 0x9908b0df
			}
			m.state[i] = v
		}
	}
	y := m.state[m.at]
	m.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// ranRot is a generator of A. Fog's family "RANROT", type B, with 17 words.
type ranRot struct {
	words  [17]uint32
	p1, p2 int
}

func newRanRot(seed uint32) *ranRot {
	r := &ranRot{p2: 10}
	for i := range r.words {
		seed = 1 - seed*0x53a9b4fb
		r.words[i] = seed
	}
	for range 9 {
		r.step()
	}
	return r
}

// step is a number in [0, 1).
func (r *ranRot) step() float64 {
	a, b := r.words[r.p1], r.words[r.p2]
	v := (a<<9 | a>>23) + (b<<13 | b>>19)
	r.words[r.p1] = v
	r.p1 = (r.p1 + 16) % 17
	r.p2 = (r.p2 + 16) % 17
	return math.Float64frombits(uint64(v)<<20|0x3ff<<52) - 1
}

func (r *ranRot) next() byte {
	r.step()
	return byte(min(int(r.step()*256), 255))
}
