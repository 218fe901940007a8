package match

import (
	"encoding/binary"
	"unsafe"
)

const (
	block = 4096 // positions of one round of filters
	// slack is how many bytes behind a position the filters may read.
	slack = 24
	// zeroRun is the shortest run of zeros worth the interruption.
	zeroRun = 128
)

// scan is the state of one call of Scan.
type scan struct {
	m     *Matcher
	buf   []byte
	base  int64
	limit int // where the data in buf end
	emit  Emit
	list  list          // positions in the block that passed the last filter
	pairs [block]uint16 // the same for the pairs of tiny atoms
}

// Scan reports every candidate whose gram begins in buf[from:to]. base is the
// absolute offset of buf[0]. Consecutive ranges of one object report every
// candidate once; for that buf must hold, where the object has them, the Margin
// bytes before from and the Margin bytes after to.
func (m *Matcher) Scan(buf []byte, base int64, from, to int, emit Emit) {
	to = min(to, len(buf))
	if from >= to || len(m.atoms) == 0 {
		return
	}
	s := scan{m: m, buf: buf, base: base, limit: len(buf), emit: emit}
	last := min(to, len(buf)-slack)
	if from < last {
		s.span(from, last)
		from = last
	}
	if from < to {
		// The end of the data, with zeros behind it for the filters to read.
		var pad [4 * slack]byte
		start := max(0, from-Margin)
		n := copy(pad[:], buf[start:])
		s.buf, s.base, s.limit = pad[:], base+int64(start), n
		s.span(from-start, to-start)
	}
}

// span scans the positions from i to last; slack bytes must follow.
func (s *scan) span(i, last int) {
	long := len(s.m.classes[classLong].entries) > 0
	short := len(s.m.classes[classShort].entries) > 0 || len(s.m.tiny) > 0
	for i < last {
		end, next := s.piece(i, min(i+block, last), last)
		if long {
			s.long(i, end)
		}
		if short {
			s.short(i, end)
		}
		i = next
	}
}

// piece cuts the block at a run of zeros: end is where to stop in front of it
// and next where to go on behind it.
func (s *scan) piece(i, end, last int) (stop, next int) {
	if !s.m.zeros {
		return end, end
	}
	buf := s.buf
	for p := (i + 63) &^ 63; p+64 <= end; p += 64 {
		if le64(buf[p:]) != 0 {
			continue
		}
		z := p + 8
		for z+8 <= s.limit && le64(buf[z:]) == 0 {
			z += 8
		}
		if z-p < zeroRun {
			continue
		}
		// A window that begins at p or later and ends at z or before is all
		// zeros: a gram that begins at p+7 to z-8 is in no other.
		return min(p+window, last), max(p+window, min(z-window, last))
	}
	return end, end
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// long looks for the atoms of the long class whose gram begins in buf[i:end].
func (s *scan) long(i, end int) {
	c := &s.m.classes[classLong]
	i += int(-(s.base + int64(i)) & (stride - 1))
	if i >= end {
		return
	}
	data := s.buf[i : end+slack-stride]
	list := &s.list
	n := sieveLong(s.m.plain, unsafe.Pointer(unsafe.SliceData(data)), (end-i+stride-1)/stride, c.first, c.firstMask, list)
	k := 0
	for _, p := range list[:n] {
		w, bits := secondBits(hashLong(le64(data[int(p)*stride:])))
		list[k&(block-1)] = p
		k += b2i(c.second[w&c.secondMask]&bits == bits)
	}
	for _, p := range list[:k] {
		s.bucket(c, hashLong(le64(data[int(p)*stride:])), i+int(p)*stride)
	}
}

// short looks for the other atoms.
func (s *scan) short(i, end int) {
	m := s.m
	c := &m.classes[classShort]
	data := s.buf[i : end+slack-1]
	list, pairs := &s.list, &s.pairs
	n := sieveShort(m.plain, unsafe.Pointer(unsafe.SliceData(data)), end-i, (*[1 << 16]uint32)(m.pairSieve), list)
	pairMap := (*[1 << 10]uint64)(m.pairMap)
	k, t := 0, 0
	for _, p := range list[:n] {
		v := binary.LittleEndian.Uint32(data[p:]) | fold4
		w, bits := secondBits(hashShort(v))
		list[k&(block-1)] = p
		k += b2i(c.second[w&c.secondMask]&bits == bits)
		pairs[t&(block-1)] = p
		t += b2i(pairMap[uint16(v)>>6]&(1<<(v&63)) != 0)
	}
	for _, p := range list[:k] {
		s.bucket(c, hashShort(binary.LittleEndian.Uint32(data[p:])), i+int(p))
	}
	for _, p := range pairs[:t] {
		s.pair(i + int(p))
	}
}

// bucket looks up the gram at i whose hash is h.
func (s *scan) bucket(c *class, h uint64, i int) {
	b := h >> (c.startShift & 63)
	for _, e := range c.entries[c.starts[b]:c.starts[b+1]] {
		if e.tag == uint32(h) {
			s.verify(e.ref, i)
		}
	}
}

func (s *scan) pair(i int) {
	p := binary.LittleEndian.Uint16(s.buf[i:]) | fold2
	for _, ref := range s.m.tiny[s.m.pairs[p]:s.m.pairs[int(p)+1]] {
		s.verify(ref, i)
	}
}

// verify compares the window of the atom that has the gram at i.
func (s *scan) verify(ref uint32, i int) {
	a := &s.m.atoms[ref>>3]
	i -= int(ref & 7)
	if i < 0 || le64(s.buf[i:])&a.mask != a.window || i+a.span() > s.limit {
		return
	}
	s.emit(a.id, s.base+int64(i)-int64(a.back))
}
