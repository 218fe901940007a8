// Package pattern is the byte patterns of all signature languages in one form:
// literals, masked bytes, classes, alternatives, repetitions and assertions.
//
// A parser builds a tree of Nodes; Compile chooses the literal by which
// package match finds the pattern and turns the rest into a small program that
// Match runs at each place where the literal stands. Matching never
// backtracks: fixed patterns are compared, all others run as a set of states,
// so the cost at one place is bounded by the program's length times the number
// of bytes it may cover.
package pattern

import "math/bits"

// Kind says what a Node is.
type Kind uint8

// The kinds of nodes.
const (
	Byte   Kind = iota // one byte b with b&M == V
	Class              // one byte of Set
	Seq                // Subs one after the other
	Alt                // one of Subs
	Repeat             // Subs[0], Min to Max times (Max < 0: without bound)
	Assert             // a condition on the place between two bytes
)

// Assertion is what an Assert node demands.
type Assertion uint8

// The assertions.
const (
	AtStart Assertion = iota // offset 0
	AtEnd                    // end of the data
	// As in libyara, both ends of the data are boundaries, whatever stands there.
	WordBoundary    // between a word character and another
	NotWordBoundary // anywhere else
	// The boundaries of ClamAV's body signatures at the ends of a pattern: what
	// stands before it, or behind it, is the file's end or a certain byte.
	ClamWordBefore  // punctuation that begins a word
	ClamWordBehind  // punctuation or space that ends a word
	ClamLineBefore  // a line feed
	ClamLineBehind  // a line feed, or CR LF
	ClamOtherBefore // no letter or digit
	ClamOtherBehind
	// The word boundaries of wide patterns, where every character is followed by
	// a zero byte.
	WideWordBoundary
	WideNotWordBoundary
	ClamNoFeedBehind // no line feed follows
	ClamByteBefore   // Min to Max bytes before stands one b with b&M == V
	// ClamNot is added to one of ClamAV's assertions to demand its contrary.
	ClamNot Assertion = 0x80
)

// Set is a set of byte values.
type Set [4]uint64

// Add puts b in the set.
func (s *Set) Add(b byte) { s[b>>6] |= 1 << (b & 63) }

// AddRange puts lo to hi, both included, in the set.
func (s *Set) AddRange(lo, hi byte) {
	for b := int(lo); b <= int(hi); b++ {
		s.Add(byte(b))
	}
}

// Has reports whether b is in the set.
func (s *Set) Has(b byte) bool { return s[b>>6]>>(b&63)&1 != 0 }

// Not returns the set of all other values.
func (s Set) Not() Set { return Set{^s[0], ^s[1], ^s[2], ^s[3]} }

// Len is the number of values in the set.
func (s *Set) Len() int {
	return bits.OnesCount64(s[0]) + bits.OnesCount64(s[1]) + bits.OnesCount64(s[2]) + bits.OnesCount64(s[3])
}

// FoldCase adds the other case of every ASCII letter in the set.
func (s *Set) FoldCase() {
	for b := byte('a'); b <= 'z'; b++ {
		if s.Has(b) || s.Has(b-32) {
			s.Add(b)
			s.Add(b - 32)
		}
	}
}

// Node is one element of a pattern. Trees are not shared: transformations may
// return their argument changed.
type Node struct {
	Kind     Kind
	V, M     byte
	Set      Set
	Subs     []*Node
	Min, Max int
	// Lazy repetitions make Match report the shortest match, others the longest.
	Lazy   bool
	Assert Assertion
}

// Literal is the sequence of the given bytes.
func Literal(b []byte) *Node {
	n := &Node{Kind: Seq, Subs: make([]*Node, len(b))}
	for i, c := range b {
		n.Subs[i] = Masked(c, 0xff)
	}
	return n
}

// Masked is one byte b with b&mask == value&mask.
func Masked(value, mask byte) *Node { return &Node{Kind: Byte, V: value & mask, M: mask} }

// Any is one byte, whatever it is.
func Any() *Node { return &Node{Kind: Byte} }

// OneOf is one byte of a set; where a mask says the same, it is a Byte node.
func OneOf(s Set) *Node {
	n := s.Len()
	if n > 0 && n&(n-1) == 0 {
		var and, or byte = 0xff, 0
		for b := range 256 {
			if s.Has(byte(b)) {
				and &= byte(b)
				or |= byte(b)
			}
		}
		m := ^(and ^ or)
		if 1<<bits.OnesCount8(^m) == n {
			return Masked(and, m)
		}
	}
	return &Node{Kind: Class, Set: s}
}

// Sequence is its arguments one after the other.
func Sequence(subs ...*Node) *Node { return &Node{Kind: Seq, Subs: subs} }

// OneOfNodes is an alternative.
func OneOfNodes(subs ...*Node) *Node { return &Node{Kind: Alt, Subs: subs} }

// Times repeats sub min to max times; max < 0 is without bound.
func Times(sub *Node, min, max int, lazy bool) *Node {
	return &Node{Kind: Repeat, Subs: []*Node{sub}, Min: min, Max: max, Lazy: lazy}
}

// Gap is min to max arbitrary bytes; max < 0 is without bound.
func Gap(min, max int) *Node { return Times(Any(), min, max, true) }

// IsAny reports whether the node is one arbitrary byte.
func (n *Node) IsAny() bool { return n.Kind == Byte && n.M == 0 }

// NoCase lets every ASCII letter stand for both of its cases.
func (n *Node) NoCase() *Node {
	switch n.Kind {
	case Byte:
		c := n.V | 0x20
		if n.M == 0xff && c >= 'a' && c <= 'z' {
			return Masked(n.V, 0xdf)
		}
	case Class:
		n.Set.FoldCase()
	}
	for i, s := range n.Subs {
		n.Subs[i] = s.NoCase()
	}
	return n
}

// Wide puts a zero byte after every byte, which is UTF-16LE for ASCII.
func (n *Node) Wide() *Node {
	switch n.Kind {
	case Byte, Class:
		return Sequence(n, Masked(0, 0xff))
	case Assert:
		switch n.Assert {
		case WordBoundary:
			n.Assert = WideWordBoundary
		case NotWordBoundary:
			n.Assert = WideNotWordBoundary
		}
	}
	for i, s := range n.Subs {
		n.Subs[i] = s.Wide()
	}
	return n
}

// Clone is a deep copy.
func (n *Node) Clone() *Node {
	c := *n
	c.Subs = make([]*Node, len(n.Subs))
	for i, s := range n.Subs {
		c.Subs[i] = s.Clone()
	}
	return &c
}

// flatten returns the node as a plain sequence: nested sequences are opened,
// small exact repetitions written out, and the obligatory part of a repeated
// literal byte separated from the rest so that it can serve as a literal.
func flatten(n *Node, out []*Node) []*Node {
	switch n.Kind {
	case Seq:
		for _, s := range n.Subs {
			out = flatten(s, out)
		}
	case Repeat:
		sub := n.Subs[0]
		single := sub.Kind == Byte || sub.Kind == Class
		switch {
		case n.Max == 0:
		case n.Min == 1 && n.Max == 1:
			out = flatten(sub, out)
		case n.Min == n.Max && (single && n.Min <= 256 || n.Min <= 8):
			for range n.Min {
				out = flatten(sub, out)
			}
		case n.Min > 0 && n.Min <= 16 && !sub.IsAny():
			for range n.Min {
				out = flatten(sub, out)
			}
			rest := *n
			rest.Min = 0
			if rest.Max > 0 {
				rest.Max -= n.Min
			}
			out = append(out, &rest)
		default:
			out = append(out, n)
		}
	case Alt:
		if len(n.Subs) == 1 {
			return flatten(n.Subs[0], out)
		}
		out = append(out, n)
	default:
		out = append(out, n)
	}
	return out
}
