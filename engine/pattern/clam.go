package pattern

import "strings"

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
	switch a {
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
