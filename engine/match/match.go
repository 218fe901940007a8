// Package match finds many literals at once.
//
// The matcher is a prefilter over 4-byte grams followed by a hash lookup and a
// comparison of a window of up to seven bytes. What it reports are candidates:
// places where the literal's window stands. The filter does not tell bytes
// apart that differ in bit 0x20 only (upper and lower case ASCII letters), so
// that literals in either case need no more entries. The caller verifies the whole pattern there; package pattern does that.
//
// A literal of at least seven bytes is indexed under four consecutive grams, so
// that the scan may advance by four bytes; one of five or six bytes under two
// (advance by two); four bytes under one; shorter ones go through a direct
// table of byte pairs. Which window of a literal is indexed is decided by how
// rare its grams are in ordinary files (rarity.go), which is what keeps the
// number of candidates low on real data.
//
// The tables are one flat block of bytes, little-endian, made by Build and used
// in place by Load (it may be a read-only mapping of a file). A Matcher is
// immutable and safe for concurrent use; scanning allocates nothing.
package match

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

const (
	fold4 = 0x20202020
	fold1 = 0x20
	mult  = 0x9E3779B97F4A7C15

	// MaxAtoms is how many atoms one table can hold.
	MaxAtoms = 1 << 29

	windowLong  = 7 // bytes of a window that is found at a stride of 4
	windowMid   = 5 // at a stride of 2
	windowShort = 4 // at a stride of 1
)

// The gram classes, in the order in which they are stored.
const (
	classLong  = iota // stride 4
	classMid          // stride 2
	classShort        // stride 1
	gramClasses
)

var strides = [gramClasses]int{4, 2, 1}

// ErrFormat is the error of Load for bytes that are not a table.
var ErrFormat = errors.New("not a matcher table")

// entry says that an atom has a gram: ref is the atom's index times four plus
// the gram's offset in the atom's window.
type entry struct {
	gram uint32
	ref  uint32
}

// atomRec is one indexed atom: its window (little-endian, the length in the top
// byte), which of its bits count, the caller's id and how far into the literal
// the window starts.
type atomRec struct {
	window uint64
	mask   uint64
	id     uint32
	back   uint32
}

// at reports whether the window stands at buf[i:].
func (a *atomRec) at(buf []byte, i int) bool {
	if i >= 0 && i+8 <= len(buf) {
		return binary.LittleEndian.Uint64(buf[i:])&a.mask == a.window&(1<<56-1)
	}
	n := int(a.window >> 56)
	if i < 0 || i+n > len(buf) {
		return false
	}
	var v uint64
	for k := range n {
		v |= uint64(buf[i+k]) << (8 * k)
	}
	return v&a.mask == a.window&(1<<56-1)
}

type class struct {
	bloom   []uint64 // blocked Bloom filter, two bits per gram in one word
	starts  []uint32 // bucket -> first entry; one more than there are buckets
	entries []entry
	bloomSh uint
	startSh uint
}

// Matcher is a set of literals ready to scan for.
type Matcher struct {
	classes [gramClasses]class
	atoms   []atomRec
	pairMap []uint64 // 65536 bits: first two folded bytes of the tiny atoms (one byte: with any second)
	pairs   []uint32 // 65537 starts into tiny
	tiny    []uint32 // atom indexes
}

// Emit receives a candidate: the literal's id and the absolute offset at which
// the literal starts.
type Emit func(id uint32, pos int64)

// Atoms is the number of literals in the set.
func (m *Matcher) Atoms() int { return len(m.atoms) }

// Scan reports every candidate whose gram begins in buf[from:to]. base is the
// absolute offset of buf[0]. Consecutive ranges of one object report every
// candidate once; for that buf must hold, where the object has them, the eight
// bytes before from and the eight after to.
func (m *Matcher) Scan(buf []byte, base int64, from, to int, emit Emit) {
	to = min(to, len(buf))
	if from >= to {
		return
	}
	m.scanLong(buf, base, from, to, emit)
	if len(m.classes[classMid].entries) > 0 {
		m.scanClass(classMid, buf, base, from, to, emit)
	}
	m.scanShort(buf, base, from, to, emit)
	if len(m.tiny) > 0 {
		m.scanPairs(buf, base, from, to, emit)
	}
}

// scanLong is scanClass for the class that matters most, with the loop opened
// by four: the loads of the filter overlap.
func (m *Matcher) scanLong(buf []byte, base int64, from, to int, emit Emit) {
	c := &m.classes[classLong]
	if len(c.entries) == 0 {
		return
	}
	i := from + int((4-(base+int64(from))&3)&3)
	bloom, sh := c.bloom, c.bloomSh
	for ; i+16 <= to; i += 16 {
		b := buf[i : i+16 : i+16]
		h0 := uint64(binary.LittleEndian.Uint32(b)|fold4) * mult
		h1 := uint64(binary.LittleEndian.Uint32(b[4:])|fold4) * mult
		h2 := uint64(binary.LittleEndian.Uint32(b[8:])|fold4) * mult
		h3 := uint64(binary.LittleEndian.Uint32(b[12:])|fold4) * mult
		w0, w1, w2, w3 := bloom[h0>>sh], bloom[h1>>sh], bloom[h2>>sh], bloom[h3>>sh]
		t0 := w0 >> (h0 >> 26 & 63) & (w0 >> (h0 >> 20 & 63))
		t1 := w1 >> (h1 >> 26 & 63) & (w1 >> (h1 >> 20 & 63))
		t2 := w2 >> (h2 >> 26 & 63) & (w2 >> (h2 >> 20 & 63))
		t3 := w3 >> (h3 >> 26 & 63) & (w3 >> (h3 >> 20 & 63))
		if (t0|t1|t2|t3)&1 == 0 {
			continue
		}
		if t0&1 != 0 {
			m.bucket(c, h0, buf, base, i, emit)
		}
		if t1&1 != 0 {
			m.bucket(c, h1, buf, base, i+4, emit)
		}
		if t2&1 != 0 {
			m.bucket(c, h2, buf, base, i+8, emit)
		}
		if t3&1 != 0 {
			m.bucket(c, h3, buf, base, i+12, emit)
		}
	}
	m.scanClass(classLong, buf, base, i, to, emit)
}

// scanShort is scanClass for the stride of 1, four positions to a load.
func (m *Matcher) scanShort(buf []byte, base int64, from, to int, emit Emit) {
	c := &m.classes[classShort]
	if len(c.entries) == 0 {
		return
	}
	bloom, sh := c.bloom, c.bloomSh
	last := min(to-4, len(buf)-8)
	i := from
	for ; i <= last; i += 4 {
		v := binary.LittleEndian.Uint64(buf[i:]) | fold4<<32 | fold4
		h0 := uint64(uint32(v)) * mult
		h1 := uint64(uint32(v>>8)) * mult
		h2 := uint64(uint32(v>>16)) * mult
		h3 := uint64(uint32(v>>24)) * mult
		w0, w1, w2, w3 := bloom[h0>>sh], bloom[h1>>sh], bloom[h2>>sh], bloom[h3>>sh]
		t0 := w0 >> (h0 >> 26 & 63) & (w0 >> (h0 >> 20 & 63))
		t1 := w1 >> (h1 >> 26 & 63) & (w1 >> (h1 >> 20 & 63))
		t2 := w2 >> (h2 >> 26 & 63) & (w2 >> (h2 >> 20 & 63))
		t3 := w3 >> (h3 >> 26 & 63) & (w3 >> (h3 >> 20 & 63))
		if (t0|t1|t2|t3)&1 == 0 {
			continue
		}
		if t0&1 != 0 {
			m.bucket(c, h0, buf, base, i, emit)
		}
		if t1&1 != 0 {
			m.bucket(c, h1, buf, base, i+1, emit)
		}
		if t2&1 != 0 {
			m.bucket(c, h2, buf, base, i+2, emit)
		}
		if t3&1 != 0 {
			m.bucket(c, h3, buf, base, i+3, emit)
		}
	}
	m.scanClass(classShort, buf, base, i, to, emit)
}

func (m *Matcher) scanClass(ci int, buf []byte, base int64, from, to int, emit Emit) {
	c := &m.classes[ci]
	stride := strides[ci]
	i := from + int((int64(stride)-(base+int64(from))%int64(stride))%int64(stride))
	bloom, sh := c.bloom, c.bloomSh
	last := min(to, len(buf)-3)
	for ; i < last; i += stride {
		h := uint64(binary.LittleEndian.Uint32(buf[i:])|fold4) * mult
		w := bloom[h>>sh]
		if w>>(h>>26&63)&(w>>(h>>20&63))&1 != 0 {
			m.bucket(c, h, buf, base, i, emit)
		}
	}
}

// bucket looks up the gram at buf[i:] whose hash is h.
func (m *Matcher) bucket(c *class, h uint64, buf []byte, base int64, i int, emit Emit) {
	b := h >> c.startSh
	lo, hi := c.starts[b], c.starts[b+1]
	if lo == hi {
		return
	}
	gram := binary.LittleEndian.Uint32(buf[i:]) | fold4
	for _, e := range c.entries[lo:hi] {
		if e.gram != gram {
			continue
		}
		a := &m.atoms[e.ref>>2]
		k := int(e.ref & 3)
		if a.at(buf, i-k) {
			emit(a.id, base+int64(i-k)-int64(a.back))
		}
	}
}

// scanPairs looks for the atoms of one to three bytes.
func (m *Matcher) scanPairs(buf []byte, base int64, from, to int, emit Emit) {
	last := min(to, len(buf)-1)
	for i := from; i < last; i++ {
		p := uint32(binary.LittleEndian.Uint16(buf[i:])) | fold4&0xffff
		if m.pairMap[p>>6]>>(p&63)&1 != 0 {
			m.pair(p, buf, base, i, emit)
		}
	}
	// The last byte of all data begins no pair; only one-byte atoms fit there.
	if to == len(buf) && to > from {
		i := to - 1
		p := uint32(buf[i] | fold1)
		m.pair(p|fold1<<8, buf, base, i, emit)
	}
}

func (m *Matcher) pair(p uint32, buf []byte, base int64, i int, emit Emit) {
	for _, ai := range m.tiny[m.pairs[p]:m.pairs[p+1]] {
		if a := &m.atoms[ai]; a.at(buf, i) {
			emit(a.id, base+int64(i)-int64(a.back))
		}
	}
}

// The flat form: a header of 32-bit words (magic, then per section its offset
// and count), then the sections, each aligned to eight bytes.
const (
	magic       = 0x314d5742 // "BWM1"
	sections    = 3*gramClasses + 4
	headerBytes = 8 + 16*sections
)

type layout struct {
	out []byte
	n   int
}

func (l *layout) add(p unsafe.Pointer, count, size int) {
	for len(l.out)%8 != 0 {
		l.out = append(l.out, 0)
	}
	binary.LittleEndian.PutUint64(l.out[8+16*l.n:], uint64(len(l.out)))
	binary.LittleEndian.PutUint64(l.out[16+16*l.n:], uint64(count))
	if count > 0 {
		l.out = append(l.out, unsafe.Slice((*byte)(p), count*size)...)
	}
	l.n++
}

func addSlice[T any](l *layout, s []T) {
	var zero T
	l.add(unsafe.Pointer(unsafe.SliceData(s)), len(s), int(unsafe.Sizeof(zero)))
}

func (m *Matcher) marshal() []byte {
	l := &layout{out: make([]byte, headerBytes)}
	binary.LittleEndian.PutUint32(l.out, magic)
	for i := range m.classes {
		addSlice(l, m.classes[i].bloom)
		addSlice(l, m.classes[i].starts)
		addSlice(l, m.classes[i].entries)
	}
	addSlice(l, m.atoms)
	addSlice(l, m.pairMap)
	addSlice(l, m.pairs)
	addSlice(l, m.tiny)
	return l.out
}

func view[T any](b []byte, n *int, err *error) []T {
	if *err != nil {
		return nil
	}
	off := binary.LittleEndian.Uint64(b[8+16**n:])
	count := binary.LittleEndian.Uint64(b[16+16**n:])
	*n++
	var zero T
	size := uint64(unsafe.Sizeof(zero))
	if off > uint64(len(b)) || count > (uint64(len(b))-off)/size || off%8 != 0 {
		*err = fmt.Errorf("%w: section %d lies outside", ErrFormat, *n-1)
		return nil
	}
	if count == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[off])), count)
}

func powerOfTwo(n int) (uint, bool) {
	for s := range uint(31) {
		if n == 1<<s {
			return s, true
		}
	}
	return 0, false
}

// Load uses a table made by Build in place; b must stay unchanged and mapped
// for as long as the Matcher is used, and begin at an address divisible by
// eight. Sizes, indexes and orders that the scan relies on are checked here.
func Load(b []byte) (*Matcher, error) {
	if len(b) < headerBytes || binary.LittleEndian.Uint32(b) != magic {
		return nil, fmt.Errorf("%w: no header", ErrFormat)
	}
	if uintptr(unsafe.Pointer(&b[0]))%8 != 0 {
		return nil, fmt.Errorf("%w: not aligned to eight bytes", ErrFormat)
	}
	m := &Matcher{}
	n, err := 0, error(nil)
	for i := range m.classes {
		c := &m.classes[i]
		c.bloom = view[uint64](b, &n, &err)
		c.starts = view[uint32](b, &n, &err)
		c.entries = view[entry](b, &n, &err)
	}
	m.atoms = view[atomRec](b, &n, &err)
	m.pairMap = view[uint64](b, &n, &err)
	m.pairs = view[uint32](b, &n, &err)
	m.tiny = view[uint32](b, &n, &err)
	if err != nil {
		return nil, err
	}
	return m, m.check()
}

func (m *Matcher) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrFormat, what) }
	for i := range m.classes {
		c := &m.classes[i]
		if len(c.entries) == 0 {
			continue
		}
		bits, ok := powerOfTwo(len(c.bloom))
		if !ok || bits == 0 {
			return bad("filter size")
		}
		c.bloomSh = 64 - bits
		bits, ok = powerOfTwo(len(c.starts) - 1)
		if !ok || bits == 0 {
			return bad("bucket count")
		}
		c.startSh = 64 - bits
		if !ordered(c.starts, len(c.entries)) {
			return bad("bucket order")
		}
		for _, e := range c.entries {
			if int(e.ref>>2) >= len(m.atoms) {
				return bad("atom index")
			}
		}
	}
	for i := range m.atoms {
		if n := m.atoms[i].window >> 56; n == 0 || n > windowLong {
			return bad("window length")
		}
	}
	if len(m.tiny) > 0 {
		if len(m.pairMap) != 1024 || len(m.pairs) != 65537 || !ordered(m.pairs, len(m.tiny)) {
			return bad("pair table")
		}
	}
	for _, ai := range m.tiny {
		if int(ai) >= len(m.atoms) {
			return bad("atom index")
		}
	}
	return nil
}

func ordered(starts []uint32, n int) bool {
	prev := uint32(0)
	for _, s := range starts {
		if s < prev {
			return false
		}
		prev = s
	}
	return int(prev) <= n
}

// EachID asks ok about the id of every atom; the first refusal is an error.
func (m *Matcher) EachID(ok func(id uint32) bool) error {
	for i := range m.atoms {
		if !ok(m.atoms[i].id) {
			return fmt.Errorf("%w: unknown id %d", ErrFormat, m.atoms[i].id)
		}
	}
	return nil
}

// Stats says how many grams are looked for at each stride (4, 2, 1), and how
// many byte pairs lead to atoms of up to three bytes.
func (m *Matcher) Stats() [4]int {
	return [4]int{len(m.classes[classLong].entries), len(m.classes[classMid].entries), len(m.classes[classShort].entries), len(m.tiny)}
}
