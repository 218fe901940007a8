package match

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"
)

// The flat form: a header (magic, the salts, then per section its offset and count), then
// the sections, each aligned to 64 bytes.
const (
	magic       = 0x364d5742 // "BWM6"
	sections    = 4*gramClasses + 2
	sectionsAt  = 16
	headerBytes = sectionsAt + 16*sections
	align       = 64
)

type layout struct {
	out []byte
	n   int
}

func (l *layout) add(p unsafe.Pointer, count, size int) {
	for len(l.out)%align != 0 {
		l.out = append(l.out, 0)
	}
	binary.LittleEndian.PutUint64(l.out[sectionsAt+16*l.n:], uint64(len(l.out)))
	binary.LittleEndian.PutUint64(l.out[sectionsAt+8+16*l.n:], uint64(count))
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
	binary.LittleEndian.PutUint32(l.out[4:], m.salt)
	binary.LittleEndian.PutUint32(l.out[8:], m.shortSalt)
	for i := range m.classes {
		addSlice(l, m.classes[i].first)
		addSlice(l, m.classes[i].second)
		addSlice(l, m.classes[i].starts)
		addSlice(l, m.classes[i].entries)
	}
	addSlice(l, m.atoms)
	addSlice(l, m.kinds)
	return l.out
}

func view[T any](b []byte, n *int, err *error) []T {
	if *err != nil {
		return nil
	}
	off := binary.LittleEndian.Uint64(b[sectionsAt+16**n:])
	count := binary.LittleEndian.Uint64(b[sectionsAt+8+16**n:])
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
	m := &Matcher{salt: binary.LittleEndian.Uint32(b[4:]), shortSalt: binary.LittleEndian.Uint32(b[8:]), lanes: bestLanes}
	n, err := 0, error(nil)
	for i := range m.classes {
		c := &m.classes[i]
		c.first = view[uint32](b, &n, &err)
		c.second = view[uint64](b, &n, &err)
		c.starts = view[uint32](b, &n, &err)
		c.entries = view[entry](b, &n, &err)
	}
	m.atoms = view[atomRec](b, &n, &err)
	m.kinds = view[uint8](b, &n, &err)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func powerOfTwo(n int) bool { return n > 0 && n&(n-1) == 0 }

func (m *Matcher) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrFormat, what) }
	short := len(m.classes[classShort].entries) > 0
	for i, used := range [gramClasses]bool{len(m.classes[classLong].entries) > 0, short} {
		if !used {
			continue
		}
		if what := m.classes[i].check(i, len(m.atoms)); what != "" {
			return bad(what)
		}
	}
	m.zeros = true
	for i := range m.atoms {
		a := &m.atoms[i]
		if a.mask == 0 || a.window&^a.mask != 0 {
			return bad("window")
		}
		m.zeros = m.zeros && a.window != 0
	}
	if short {
		if !powerOfTwo(len(m.kinds)) || len(m.kinds) < kindsMin || len(m.kinds) > kindsMost {
			return bad("size of the kinds")
		}
		m.kindsShift = kindsShift(len(m.kinds))
	}
	return nil
}

// check sets what follows from the sizes and returns what is wrong, if anything.
func (c *class) check(kind, atoms int) string {
	if !powerOfTwo(len(c.first)) || len(c.first) > firstMost || !powerOfTwo(len(c.second)) {
		return "filter size"
	}
	c.firstMask, c.secondMask = uint32(len(c.first)-1), uint64(len(c.second)-1)
	if !powerOfTwo(len(c.starts)-1) || len(c.starts) < 3 {
		return "bucket count"
	}
	c.startShift = 64 - uint(bits.TrailingZeros(uint(len(c.starts)-1)))
	if !ordered(c.starts, len(c.entries)) {
		return "bucket order"
	}
	shift := 3
	if kind == classShort {
		shift = 7
	}
	for _, e := range c.entries {
		if int(e.ref>>shift) >= atoms {
			return "atom index"
		}
	}
	return ""
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
