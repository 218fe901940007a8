package match

import "unsafe"

const (
	block = 4096 // positions of one round of filters
	// slack is how many bytes behind a position the filters may read.
	slack = 96
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
	list  list // positions in the block that passed the last filter of the long class
	hits  shortHits
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
	short := len(s.m.classes[classShort].entries) > 0
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
		// zeros: a gram that begins at p+7 to z-9 is in no other, as it begins
		// at most one byte before its window.
		return min(p+window, last), max(p+window, min(z-window-1, last))
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
	n := sieveLong(s.m.lanes, unsafe.Pointer(unsafe.SliceData(data)), (end-i+stride-1)/stride, c.first, c.firstMask, s.m.salt, list)
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

// bucket looks up the gram at i whose hash is h.
func (s *scan) bucket(c *class, h uint64, i int) {
	b := h >> (c.startShift & 63)
	for _, e := range c.entries[c.starts[b]:c.starts[b+1]] {
		if e.tag == uint32(h) {
			s.verify(e.ref>>3, i-int(e.ref&7))
		}
	}
}

// verify compares the window of an atom at i.
func (s *scan) verify(atom uint32, i int) {
	a := &s.m.atoms[atom]
	if i < 0 || le64(s.buf[i:])&a.mask != a.window || i+a.span() > s.limit {
		return
	}
	s.emit(a.id, s.base+int64(i)-int64(a.back))
}
