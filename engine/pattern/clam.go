package pattern

import (
	"encoding/binary"
	"strings"
)

// The bytes that ClamAV takes for a boundary before and behind a pattern. The
// lists are what clamscan 1.4.6 accepts, byte by byte.
const (
	clamBefore = " -./<@_"
	clamBehind = "\n\r \"'-/=>_"
	clamWithin = "\n\r \"'-./<=>@_"
)

func isAlnum(b byte) bool { return IsWord(b) && b != '_' }

// clamHolds decides ClamAV's assertions at a place.
func clamHolds(in Input, a Assertion, at int64) bool {
	if a&ClamNot != 0 {
		return !clamHolds(in, a&^ClamNot, at)
	}
	switch a {
	case ClamNoFeedBehind:
		d := in.Slice(at, 1)
		return len(d) == 0 || d[0] != '\n'
	case ClamWordBefore, ClamLineBefore, ClamOtherBefore:
		if at == 0 {
			return true
		}
		d := in.Slice(at-1, 1)
		if len(d) == 0 {
			return false
		}
		switch a {
		case ClamWordBefore:
			return strings.IndexByte(clamBefore, d[0]) >= 0
		case ClamLineBefore:
			return d[0] == '\n'
		}
		return !isAlnum(d[0])
	case ClamWordBehind, ClamLineBehind, ClamOtherBehind:
		d := in.Slice(at, 2)
		if len(d) == 0 {
			return at >= in.Size()
		}
		switch a {
		case ClamWordBehind:
			return strings.IndexByte(clamBehind, d[0]) >= 0
		case ClamLineBehind:
			return d[0] == '\n' || len(d) == 2 && d[0] == '\r' && d[1] == '\n'
		}
		return !isAlnum(d[0])
	}
	return false
}

// byteBefore decides ClamByteBefore.
func (m *machine) byteBefore(in []byte, at int64) bool {
	bounds := binary.LittleEndian.Uint32(in[4:])
	lo, hi := int64(bounds&0xffff), int64(bounds>>16)
	hi = min(hi, at-1)
	if lo > hi {
		return false
	}
	for _, b := range m.in.Slice(at-1-hi, int(hi-lo+1)) {
		if b&in[2] == in[3] {
			return true
		}
	}
	return false
}

// ByteBefore demands a byte like b lo to hi bytes before the place.
func ByteBefore(b *Node, lo, hi int) *Node {
	return &Node{Kind: Assert, Assert: ClamByteBefore, V: b.V, M: b.M, Min: lo, Max: hi}
}

// AssertNode is a condition on the place between two bytes.
func AssertNode(a Assertion) *Node { return &Node{Kind: Assert, Assert: a} }

// ClamWordWithin is the byte that (B) stands for inside of a pattern.
func ClamWordWithin() *Node {
	var s Set
	for i := range len(clamWithin) {
		s.Add(clamWithin[i])
	}
	return OneOf(s)
}

// ClamLineWithin is what (L) stands for inside of a pattern: LF or CR LF.
func ClamLineWithin() *Node {
	return OneOfNodes(Literal([]byte("\n")), Literal([]byte("\r\n")))
}

// ClamNoLineWithin is what !(L) stands for inside of a pattern: any byte that
// does not begin a line end.
func ClamNoLineWithin() *Node {
	var s Set
	s.Add('\n')
	s.Add('\r')
	return OneOfNodes(OneOf(s.Not()), Sequence(Masked('\r', 0xff), AssertNode(ClamNoFeedBehind)))
}

// ClamOtherWithin is the byte that (W) stands for: no letter or digit.
func ClamOtherWithin() *Node {
	var s Set
	for b := range 256 {
		if !isAlnum(byte(b)) {
			s.Add(byte(b))
		}
	}
	return OneOf(s)
}

// Holds decides one of ClamAV's assertions at a place of a text.
func Holds(text []byte, a Assertion, at int64) bool { return clamHolds(bytesInput(text), a, at) }
