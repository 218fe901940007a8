package sample

import (
	"encoding/base64"
	"errors"
	"math/rand/v2"

	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara"
)

var (
	errTooLarge = errors.New("too large for what the rule allows")
	errConflict = errors.New("two things at one place")
)

// image is a file that is being laid out, with the bytes that are decided.
type image struct {
	data []byte
	used []bool
}

func (m *image) grow(n int) {
	if n > len(m.data) {
		m.data = append(m.data, make([]byte, n-len(m.data))...)
		m.used = append(m.used, make([]bool, n-len(m.used))...)
	}
}

// put writes b at a place unless something else is decided there.
func (m *image) put(at int, b []byte) bool {
	m.grow(at + len(b))
	for i, c := range b {
		if m.used[at+i] && m.data[at+i] != c {
			return false
		}
	}
	for i, c := range b {
		m.data[at+i], m.used[at+i] = c, true
	}
	return true
}

// free finds n undecided bytes that begin between from and to, with one more on
// both sides; -1 when there are none. Beyond the end all are free.
func (m *image) free(n, from, to int) int {
search:
	for at := max(from, 0); at <= to; {
		for i := min(at+n, len(m.used)-1); i >= max(at-1, 0); i-- {
			if m.used[i] {
				at = i + 2
				continue search
			}
		}
		return at
	}
	return -1
}

// layout makes the file that the plan asks for.
func (s *solver) layout() (*File, error) {
	p := s.p
	f := &File{plan: p}
	m := &image{}
	for at, b := range p.bytes {
		m.grow(int(at) + 1)
		m.data[at], m.used[at] = b, true
	}
	if p.program.pe {
		if !m.put(0, s.pe()) {
			return nil, errConflict
		}
	} else if len(p.bytes) == 0 && s.g.IntN(2) == 0 {
		m.put(0, []byte("\n"))
	}
	var rest []*yara.String
	for _, x := range p.order {
		d := p.strings[x]
		left := d.count
		for _, at := range d.at {
			b := instance(s.g, x)
			if at > MaxSize-int64(len(b)) {
				return nil, errTooLarge
			}
			// Programs are not sacred: what must stand in one is written over it.
			if ok := m.over(int(at), b, p); !ok {
				return nil, errConflict
			}
			f.placed = append(f.placed, placed{x, int(at), int(at) + len(b)})
			left--
		}
		for range min(left, 1000) {
			rest = append(rest, x)
		}
	}
	// Those with a range first: others have room elsewhere.
	var last []*yara.String
	ranges := map[*yara.String]int{}
	for _, x := range rest {
		d := p.strings[x]
		if ranges[x] >= len(d.in) {
			last = append(last, x)
			continue
		}
		in := d.in[ranges[x]]
		ranges[x]++
		b := instance(s.g, x)
		at := m.free(len(b), int(max(in[0], 0)), int(min(in[1], MaxSize-int64(len(b)))))
		if at < 0 || !m.put(at, b) {
			return nil, errConflict
		}
		f.placed = append(f.placed, placed{x, at, at + len(b)})
	}
	cursor := 1
	if p.program.pe {
		cursor = len(m.data) + 2
	}
	for _, x := range last {
		b := instance(s.g, x)
		at := m.free(len(b), cursor, MaxSize)
		if at < 0 {
			return nil, errTooLarge
		}
		if !m.put(at, b) {
			return nil, errConflict
		}
		f.placed = append(f.placed, placed{x, at, at + len(b)})
		cursor = at + len(b)
	}
	size := len(m.data) + 2
	if int64(size) > p.hi {
		size = len(m.data)
	}
	if size = max(size, int(p.lo)); int64(size) > p.hi {
		return nil, errTooLarge
	}
	if p.program.noise {
		size = min(max(size, 2*len(m.data)+64<<10), int(p.hi))
	}
	m.grow(size)
	for i := range m.data {
		switch {
		case m.used[i]:
		case p.program.noise:
			m.data[i] = byte(s.g.Uint32())
		case !p.program.pe:
			m.data[i] = '\n'
		}
	}
	f.Data = m.data
	return f, nil
}

// over writes a string that must stand at a place; only what the plan fixes, and
// other strings there, are in its way.
func (m *image) over(at int, b []byte, p *plan) bool {
	m.grow(at + len(b))
	for i, c := range b {
		if want, ok := p.bytes[int64(at+i)]; ok && want != c {
			return false
		}
	}
	for i, c := range b {
		m.data[at+i], m.used[at+i] = c, true
	}
	return true
}

// write appends bytes that satisfy a pattern, apart from its assertions.
func write(g *rand.Rand, n *pattern.Node, out []byte) []byte {
	switch n.Kind {
	case pattern.Byte:
		return append(out, n.V|byte(g.IntN(256))&^n.M)
	case pattern.Class:
		for tries := 0; ; tries++ {
			b := byte(g.IntN(256))
			if tries < 200 {
				b = byte(' ' + g.IntN(95)) // text where it may be
			}
			if n.Set.Has(b) {
				return append(out, b)
			}
			if tries > 10_000 {
				return out // an empty class
			}
		}
	case pattern.Seq:
		for _, s := range n.Subs {
			out = write(g, s, out)
		}
	case pattern.Alt:
		return write(g, n.Subs[g.IntN(len(n.Subs))], out)
	case pattern.Repeat:
		times := n.Min
		if n.Max < 0 || n.Max > n.Min {
			times += g.IntN(3)
		}
		if n.Max >= 0 {
			times = min(times, n.Max)
		}
		for range times {
			out = write(g, n.Subs[0], out)
		}
	}
	return out
}

// instance is a form of a string as it may stand in a file.
func instance(g *rand.Rand, s *yara.String) []byte {
	var b []byte
	if s.Kind == yara.Text {
		b = append(b, s.Text...)
		if s.Mods.NoCase {
			for i, c := range b {
				if up := c &^ 0x20; up >= 'A' && up <= 'Z' && g.IntN(2) == 0 {
					b[i] = c ^ 0x20
				}
			}
		}
	} else {
		b = write(g, s.Node, nil)
	}
	if s.Mods.Base64 || s.Mods.Base64Wide {
		return encoded(g, s, b)
	}
	if s.Mods.Wide && (!s.Mods.ASCII || g.IntN(2) == 0) {
		b = wide(b)
	}
	if s.Mods.Xor {
		key := byte(s.Mods.XorMin + g.IntN(s.Mods.XorMax-s.Mods.XorMin+1))
		for i := range b {
			b[i] ^= key
		}
	}
	return b
}

func wide(b []byte) []byte {
	w := make([]byte, 0, 2*len(b))
	for _, c := range b {
		w = append(w, c, 0)
	}
	return w
}

// encoded is a text in base64, behind up to two other bytes.
func encoded(g *rand.Rand, s *yara.String, b []byte) []byte {
	if s.Mods.Wide && (!s.Mods.ASCII || g.IntN(2) == 0) {
		b = wide(b)
	}
	asWide := s.Mods.Base64Wide && (!s.Mods.Base64 || g.IntN(2) == 0)
	alphabet := s.Mods.Alphabet
	if asWide {
		alphabet = s.Mods.AlphabetWide
	}
	enc := base64.StdEncoding
	if len(alphabet) == 64 {
		enc = base64.NewEncoding(alphabet).WithPadding(base64.NoPadding)
	}
	plain := append(append(make([]byte, g.IntN(3)), b...), "  "...)
	b = []byte(enc.EncodeToString(plain))
	if asWide {
		b = wide(b)
	}
	return b
}
