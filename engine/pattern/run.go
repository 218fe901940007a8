package pattern

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Input is the data under a pattern.
type Input interface {
	// Slice returns the n bytes at off, fewer where the data begins or ends
	// within them. It is valid until the next call.
	Slice(off int64, n int) []byte
	// Size of the data in bytes.
	Size() int64
}

// ErrProgram is the error of Check.
var ErrProgram = errors.New("not a pattern program")

// Scratch is working memory for Match, reusable, not for concurrent use. Begin
// must be called before it is used with another Input.
type Scratch struct {
	heat map[*byte]int64 // steps of costly programs, by their first instruction
	dfas map[*byte]*dfa

	cur, next states
	stack     []uint32
	// Steps counts state transitions, so that callers can bound the work.
	Steps int64
}

// states is a sparse set of program counters.
type states struct {
	dense  []uint32
	sparse []uint32
}

func (s *states) reset(n int) {
	if len(s.sparse) < n {
		s.sparse = make([]uint32, n)
	}
	s.dense = s.dense[:0]
}

func (s *states) add(pc uint32) bool {
	if i := s.sparse[pc]; int(i) < len(s.dense) && s.dense[i] == pc {
		return false
	}
	s.sparse[pc] = uint32(len(s.dense))
	s.dense = append(s.dense, pc)
	return true
}

// Check validates a program that comes from a file, so that Match can rely on
// its structure. It returns the program's length in bytes.
func Check(p []byte) (int, error) {
	if len(p) < progHeader {
		return 0, fmt.Errorf("%w: header cut short", ErrProgram)
	}
	word := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(p[4*i:])) }
	a, b, c, d := word(1), word(2), word(3), word(5)&0xffff
	body := uint64(len(p) - progHeader)
	switch word(0) & 0xffff {
	case progLiteral:
		if a == 0 || a > body || b >= a {
			return 0, fmt.Errorf("%w: literal of %d bytes at %d", ErrProgram, a, b)
		}
		return progHeader + int(a), nil
	case progMasked:
		if a == 0 || 2*a > body || b >= a {
			return 0, fmt.Errorf("%w: masked literal of %d bytes at %d", ErrProgram, a, b)
		}
		return progHeader + int(2*a), nil
	case progStates:
		need := (a+b)*instBytes + c*32 + 2*d
		if a == 0 || b == 0 || a > maxInsts || b > maxInsts || c > 2*maxInsts || need > body {
			return 0, fmt.Errorf("%w: %d+%d instructions", ErrProgram, a, b)
		}
		for i := range a + b {
			n, last := a, i == a-1 || i == a+b-1
			if i >= a {
				n = b
			}
			in := p[progHeader+2*d+i*instBytes:]
			x, y := uint64(binary.LittleEndian.Uint32(in[4:])), uint64(binary.LittleEndian.Uint32(in[8:]))
			switch in[0] {
			case opByte, opAssert:
			case opClass:
				if x >= c {
					return 0, fmt.Errorf("%w: class %d of %d", ErrProgram, x, c)
				}
			case opSplit:
				if x >= n || y >= n {
					return 0, fmt.Errorf("%w: jump outside", ErrProgram)
				}
			case opJump:
				if x >= n {
					return 0, fmt.Errorf("%w: jump outside", ErrProgram)
				}
			case opMatch:
			default:
				return 0, fmt.Errorf("%w: instruction %d", ErrProgram, in[0])
			}
			if last && in[0] != opMatch {
				return 0, fmt.Errorf("%w: no end", ErrProgram)
			}
		}
		return progHeader + int(need), nil
	}
	return 0, fmt.Errorf("%w: kind %d", ErrProgram, word(0)&0xffff)
}

// Match runs a checked program where its atom stands at pos and calls emit for
// every match that contains it, once per start; it stops when emit says false.
func Match(p []byte, in Input, pos int64, s *Scratch, emit func(start, end int64) bool) {
	kind := binary.LittleEndian.Uint32(p)
	a := int(binary.LittleEndian.Uint32(p[4:]))
	b := int(binary.LittleEndian.Uint32(p[8:]))
	switch kind & 0xffff {
	case progLiteral:
		start := pos - int64(b)
		if start >= 0 && bytes.Equal(in.Slice(start, a), p[progHeader:progHeader+a]) {
			emit(start, start+int64(a))
		}
	case progMasked:
		start := pos - int64(b)
		if start < 0 {
			return
		}
		data := in.Slice(start, a)
		if len(data) < a {
			return
		}
		if maskedEqual(data, p[progHeader:progHeader+a], p[progHeader+a:progHeader+2*a]) {
			emit(start, start+int64(a))
		}
	case progStates:
		c := int(binary.LittleEndian.Uint32(p[12:]))
		limit := int64(binary.LittleEndian.Uint32(p[16:]))
		around := int(binary.LittleEndian.Uint32(p[20:]))
		d := around & 0xffff
		pos -= int64(around >> 16)
		if d > 0 {
			if pos < 0 {
				return
			}
			data := in.Slice(pos, d)
			if len(data) < d || !maskedEqual(data, p[progHeader:progHeader+d], p[progHeader+d:progHeader+2*d]) {
				return
			}
		}
		code := p[progHeader+2*d:]
		m := machine{
			in: in, s: s, limit: limit,
			classes: code[(a+b)*instBytes : (a+b)*instBytes+c*32],
		}
		var end int64
		var ok bool
		lazy := kind&flagLazy != 0
		m.asserts = kind&flagFwdAssert != 0
		if end, ok = m.forward(code[:a*instBytes], pos+int64(d), lazy); !ok {
			return
		}
		m.asserts = kind&flagRevAssert != 0
		m.run(code[a*instBytes:(a+b)*instBytes], pos, false, func(start int64) bool {
			return emit(start, end)
		})
	}
}

// StandsAt is whether a program's match begins at an offset; ok only for the
// programs that are plain or masked bytes.
func StandsAt(p []byte, in Input, off int64) (stands, ok bool) {
	kind := binary.LittleEndian.Uint32(p)
	a := int(binary.LittleEndian.Uint32(p[4:]))
	switch kind & 0xffff {
	case progLiteral:
		return off >= 0 && bytes.Equal(in.Slice(off, a), p[progHeader:progHeader+a]), true
	case progMasked:
		if off < 0 {
			return false, true
		}
		data := in.Slice(off, a)
		return len(data) == a && maskedEqual(data, p[progHeader:progHeader+a], p[progHeader+a:progHeader+2*a]), true
	}
	return false, false
}

// forward finds where a match ends: the last place, with lazy the first.
func (m *machine) forward(code []byte, pos int64, lazy bool) (end int64, ok bool) {
	s := m.s
	_, text := m.in.(bytesInput)
	if d := s.dfas[&code[0]]; d != nil {
		end, ok, done := d.run(m.in, s, pos, m.limit, lazy)
		if done {
			return end, ok
		}
		if d.flush(); d.flushes >= maxDFAFlushes {
			s.dfas[&code[0]] = nil // it stays with the set of states
		}
		d.flushes++
	}
	before := s.Steps
	m.run(code, pos, true, func(e int64) bool {
		end, ok = e, true
		return !lazy
	})
	if !m.asserts && !text {
		s.warm(code, m.classes, s.Steps-before)
	}
	return end, ok
}

// Search reports whether a program of CompileSearch matches anywhere in text.
// Only texts of up to 4096 bytes are searched to their end.
func Search(p []byte, text []byte, s *Scratch) bool {
	found := false
	Match(p, bytesInput(text), 0, s, func(_, _ int64) bool {
		found = true
		return false
	})
	return found
}

type bytesInput []byte

func (b bytesInput) Size() int64 { return int64(len(b)) }

func (b bytesInput) Slice(off int64, n int) []byte {
	if off < 0 || off >= int64(len(b)) {
		return nil
	}
	return b[off:min(int64(len(b)), off+int64(n))]
}

func maskedEqual(data, value, mask []byte) bool {
	i := 0
	for ; i+8 <= len(value); i += 8 {
		if binary.LittleEndian.Uint64(data[i:])&binary.LittleEndian.Uint64(mask[i:]) != binary.LittleEndian.Uint64(value[i:]) {
			return false
		}
	}
	for ; i < len(value); i++ {
		if data[i]&mask[i] != value[i] {
			return false
		}
	}
	return true
}

// machine runs one program over the input as a set of states.
type machine struct {
	in      Input
	s       *Scratch
	classes []byte
	limit   int64
	asserts bool
}

const chunk = 256

// run walks from pos forward or backward and reports every place where the
// program may end, nearest first, until report says false.
func (m *machine) run(code []byte, pos int64, forward bool, report func(int64) bool) {
	n := len(code) / instBytes
	s := m.s
	s.cur.reset(n)
	s.next.reset(n)
	matched, stop := false, false
	follow := func(set *states, pc uint32, at int64) {
		s.stack = append(s.stack[:0], pc)
		for len(s.stack) > 0 {
			pc := s.stack[len(s.stack)-1]
			s.stack = s.stack[:len(s.stack)-1]
			if !set.add(pc) {
				continue
			}
			in := code[pc*instBytes:]
			switch in[0] {
			case opSplit:
				s.stack = append(s.stack, binary.LittleEndian.Uint32(in[8:]), binary.LittleEndian.Uint32(in[4:]))
			case opJump:
				s.stack = append(s.stack, binary.LittleEndian.Uint32(in[4:]))
			case opAssert:
				if a := Assertion(in[1]); a == ClamByteBefore && m.byteBefore(in, at) || a != ClamByteBefore && m.holds(a, at) {
					s.stack = append(s.stack, pc+1)
				}
			case opMatch:
				matched = true
			}
		}
	}
	follow(&s.cur, 0, pos)
	at := pos
	var data []byte
	dataAt := int64(0) // offset of data[0]
	for {
		if matched {
			matched = false
			if !report(at) {
				stop = true
			}
		}
		if stop || len(s.cur.dense) == 0 || m.limit > 0 && max(at-pos, pos-at) >= m.limit {
			return
		}
		read := at
		if !forward {
			read = at - 1
		}
		if read < 0 || read >= m.in.Size() {
			return
		}
		if read < dataAt || read >= dataAt+int64(len(data)) {
			dataAt = read
			if !forward {
				dataAt = max(0, read-chunk+1)
			}
			data = m.in.Slice(dataAt, chunk)
			if read-dataAt >= int64(len(data)) {
				return
			}
		}
		c := data[read-dataAt]
		if forward {
			at++
		} else {
			at--
		}
		s.next.dense = s.next.dense[:0]
		s.Steps += int64(len(s.cur.dense))
		for _, pc := range s.cur.dense {
			in := code[pc*instBytes:]
			switch in[0] {
			case opByte:
				if c&in[2] != in[1] {
					continue
				}
			case opClass:
				x := binary.LittleEndian.Uint32(in[4:])
				if m.classes[x*32+uint32(c>>3)]>>(c&7)&1 == 0 {
					continue
				}
			default:
				continue
			}
			follow(&s.next, pc+1, at)
		}
		if m.asserts {
			// holds reads around at, which may have reused the slice.
			data, dataAt = nil, 0
		}
		s.cur, s.next = s.next, s.cur
	}
}

// IsWord reports whether b is an ASCII letter, digit or underscore.
func IsWord(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_'
}

func (m *machine) holds(a Assertion, at int64) bool {
	switch a {
	case AtStart:
		return at == 0
	case AtEnd:
		return at == m.in.Size()
	case WordBoundary:
		return m.boundary(at, 1)
	case NotWordBoundary:
		return !m.boundary(at, 1)
	case WideWordBoundary:
		return m.boundary(at, 2)
	case WideNotWordBoundary:
		return !m.boundary(at, 2)
	}
	return clamHolds(m.in, a, at)
}

// boundary reports whether a word begins or ends at a place between characters
// of one or two bytes.
func (m *machine) boundary(at, width int64) bool {
	if at < width || at+width > m.in.Size() {
		return true
	}
	word := func(off int64) bool {
		d := m.in.Slice(off, int(width))
		return len(d) == int(width) && IsWord(d[0]) && (width == 1 || d[1] == 0)
	}
	return word(at-width) != word(at)
}
