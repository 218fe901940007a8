package modules

import (
	"bytes"
	"strconv"
	"strings"
)

const (
	maxNetTypeDepth = 16      // types in types
	maxNetRank      = 50      // of an array
	maxNetTypeText  = 4 << 10 // bytes of a type's name
	maxNetSignature = 1 << 16
)

// The types that have a name of their own (ECMA-335, II.23.1.16), as C# has it.
var netNames = map[byte]string{
	0x01: "void", 0x02: "bool", 0x03: "char", 0x04: "sbyte", 0x05: "byte", 0x06: "short", 0x07: "ushort",
	0x08: "int", 0x09: "uint", 0x0a: "long", 0x0b: "ulong", 0x0c: "float", 0x0d: "double", 0x0e: "string",
	0x16: "TypedReference", 0x18: "IntPtr", 0x19: "UIntPtr", 0x1c: "object",
}

// The other element types.
const (
	netPointer, netByRef, netValueType, netClass, netVar       = 0x0f, 0x10, 0x11, 0x12, 0x13
	netArray, netGeneric, netFunction, netVector, netMethodVar = 0x14, 0x15, 0x1b, 0x1d, 0x1e
	netRequired, netOptional                                   = 0x1f, 0x20
)

// netSignature is the rest of a signature (ECMA-335, II.23.2).
type netSignature struct {
	n *netClasses
	b []byte
}

func (n *netClasses) signature(blob uint32) *netSignature {
	s := &netSignature{n: n}
	if at, length, ok := n.heapBlob(blob); ok {
		s.b = bytes.Clone(n.in.Slice(at, int(min(length, maxNetSignature))))
	}
	return s
}

func (s *netSignature) byte() byte {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

// compressed reads an integer of bits bits (II.23.2); 0 where there is none.
func (s *netSignature) compressed() (v uint32, bits uint) {
	switch b := s.b; {
	case len(b) >= 1 && b[0]&0x80 == 0:
		v, bits, s.b = uint32(b[0]), 7, b[1:]
	case len(b) >= 2 && b[0]&0xc0 == 0x80:
		v, bits, s.b = uint32(b[0]&0x3f)<<8|uint32(b[1]), 14, b[2:]
	case len(b) >= 4 && b[0]&0xe0 == 0xc0:
		v, bits, s.b = uint32(b[0]&0x1f)<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3]), 29, b[4:]
	}
	return v, bits
}

func (s *netSignature) number() uint32 {
	v, _ := s.compressed()
	return v
}

// signed is a number whose sign is its lowest bit.
func (s *netSignature) signed() int64 {
	v, bits := s.compressed()
	if v&1 != 0 {
		return int64(v>>1) - int64(1)<<(bits-1)
	}
	return int64(v >> 1)
}

// typ is the name of the next type. ok is false where there is none, or one that
// is deeper or longer than any program's.
func (s *netSignature) typ(scope netScope, depth int) (name string, ok bool) {
	if len(s.b) == 0 || depth > maxNetTypeDepth || s.n.spent(1) {
		return "", false
	}
	name, ok = s.named(scope, depth)
	if len(name) > maxNetTypeText || s.n.spent(len(name)/16) {
		return "", false
	}
	return name, ok
}

func (s *netSignature) named(scope netScope, depth int) (string, bool) {
	kind := s.byte()
	if name, ok := netNames[kind]; ok {
		return name, true
	}
	switch kind {
	case netValueType, netClass:
		return s.n.typeName(s.number(), scope, depth+1)
	case netVar:
		return nth(scope.class, s.number())
	case netMethodVar:
		return nth(scope.method, s.number())
	case netRequired, netOptional:
		s.number()
		return s.typ(scope, depth+1)
	case netFunction:
		return s.function(scope, depth)
	}
	var before, after string
	switch kind {
	case netPointer:
		before, after = "Ptr<", ">"
	case netByRef:
		before = "ref "
	case netVector:
		after = "[]"
	case netArray, netGeneric:
	default:
		return "", false
	}
	inner, ok := s.typ(scope, depth+1)
	if !ok {
		return "", false
	}
	switch kind {
	case netArray:
		after, ok = s.bounds()
	case netGeneric:
		after, ok = s.list(s.number(), ",", scope, depth)
		after = "<" + after + ">"
	}
	if !ok {
		return "", false
	}
	return before + inner + after, true
}

func nth(names []string, i uint32) (string, bool) {
	if int64(i) >= int64(len(names)) {
		return "", false
	}
	return names[i], true
}

// list is count types with sep between; types without a name are left out.
func (s *netSignature) list(count uint32, sep string, scope netScope, depth int) (string, bool) {
	if count > maxNetParams {
		return "", false
	}
	var b strings.Builder
	for i := uint32(0); i < count && len(s.b) > 0 && b.Len() <= maxNetTypeText && s.n.budget >= 0; i++ {
		if t, ok := s.typ(scope, depth+1); ok {
			if i > 0 {
				b.WriteString(sep)
			}
			b.WriteString(t)
		}
	}
	return b.String(), true
}

// function is a pointer to a function: flags, the number of parameters, what it
// returns, the parameters.
func (s *netSignature) function(scope netScope, depth int) (string, bool) {
	s.byte()
	count := s.number()
	result, ok := s.typ(scope, depth+1)
	if !ok {
		return "", false
	}
	params, ok := s.list(count, ", ", scope, depth)
	if !ok {
		return "", false
	}
	return "FnPtr<" + result + "(" + params + ")>", true
}

// bounds are the dimensions of an array: their number, sizes and lower bounds
// (II.23.2.13).
func (s *netSignature) bounds() (string, bool) {
	rank := s.number()
	if rank == 0 || rank > maxNetRank {
		return "", false
	}
	var sizes, lows [maxNetRank]int64
	count := s.number()
	if count > rank {
		return "", false
	}
	for i := range count {
		sizes[i] = int64(s.number())
	}
	lowCount := s.number()
	if lowCount > rank {
		return "", false
	}
	for i := range lowCount {
		if lows[i] = s.signed(); i < count {
			sizes[i] += lows[i]
		}
	}
	var b strings.Builder
	for i := range rank {
		if i > 0 {
			b.WriteByte(',')
		}
		if lows[i] != 0 {
			b.WriteString(decimal(lows[i]) + "...")
		}
		if sizes[i] != 0 {
			b.WriteString(decimal(sizes[i]))
		}
	}
	return "[" + b.String() + "]", true
}

func decimal(v int64) string { return strconv.FormatInt(v, 10) }

// typeName is the full name behind a coded index TypeDefOrRef (II.24.2.6).
func (n *netClasses) typeName(coded uint32, scope netScope, depth int) (string, bool) {
	index := coded >> 2
	table, ok := map[uint32]int{0: netTypeDef, 1: netTypeRef, 2: netTypeSpec}[coded&3]
	if !ok || index == 0 {
		return "", false
	}
	r := n.row(table, index-1)
	if r == nil {
		return "", false
	}
	if table == netTypeSpec {
		return n.signature(n.column(table, r, 0)).typ(netScope{class: scope.class}, depth)
	}
	name, _ := n.label(n.column(table, r, 1))
	namespace, _ := n.label(n.column(table, r, 2))
	if table == netTypeDef && netNested(le.Uint32(r)) {
		namespace = netFullName(namespace, n.around(index, 1))
	}
	name = netFullName(name, namespace)
	return name, name != ""
}
