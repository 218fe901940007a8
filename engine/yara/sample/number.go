package sample

import (
	"strings"

	"github.com/bulwarkhq/bulwark/engine/yara"
)

var negated = map[yara.Op]yara.Op{
	yara.OpEq: yara.OpNe, yara.OpNe: yara.OpEq, yara.OpLt: yara.OpGe, yara.OpGe: yara.OpLt, yara.OpGt: yara.OpLe, yara.OpLe: yara.OpGt,
}

var mirrored = map[yara.Op]yara.Op{
	yara.OpEq: yara.OpEq, yara.OpNe: yara.OpNe, yara.OpLt: yara.OpGt, yara.OpGt: yara.OpLt, yara.OpLe: yara.OpGe, yara.OpGe: yara.OpLe,
}

// value is the number that an expression is known to have.
func (s *solver) value(e *yara.Expr) (int64, bool) {
	switch e.Op {
	case yara.OpInt, yara.OpBool:
		return e.Int, true
	case yara.OpFilesize:
		return s.p.lo, s.p.lo == s.p.hi
	case yara.OpName:
		if v := s.lookup(e.Str); v != nil && v.kind == 'n' {
			return v.n, true
		}
	case yara.OpNeg:
		v, ok := s.value(e.Args[0])
		return -v, ok
	case yara.OpBitNot:
		v, ok := s.value(e.Args[0])
		return ^v, ok
	case yara.OpRead:
		at, ok := s.value(e.Args[0])
		if !ok {
			return 0, false
		}
		width, big, signed := readOf(e.Str)
		v := uint64(0)
		for i := range width {
			b, ok := s.p.bytes[at+int64(i)]
			if !ok {
				return 0, false
			}
			if big {
				v = v<<8 | uint64(b)
			} else {
				v |= uint64(b) << (8 * i)
			}
		}
		if signed {
			shift := 64 - 8*width
			return int64(v<<shift) >> shift, true
		}
		return int64(v), true
	case yara.OpOffset:
		x := s.str(e.Str)
		if d := s.p.strings[x]; d != nil && len(d.at) == 1 && s.first(e) {
			return d.at[0], true
		}
	case yara.OpMember, yara.OpIndex, yara.OpCall:
		return s.moduleValue(e)
	case yara.OpAdd, yara.OpSub, yara.OpMul, yara.OpDiv, yara.OpMod, yara.OpBitAnd, yara.OpBitOr, yara.OpBitXor, yara.OpShl, yara.OpShr:
		a, ok := s.value(e.Args[0])
		b, ok2 := s.value(e.Args[1])
		if !ok || !ok2 {
			return 0, false
		}
		return arithmetic(e.Op, a, b)
	}
	return 0, false
}

func arithmetic(op yara.Op, a, b int64) (int64, bool) {
	switch op {
	case yara.OpAdd:
		return a + b, true
	case yara.OpSub:
		return a - b, true
	case yara.OpMul:
		return a * b, true
	case yara.OpBitAnd:
		return a & b, true
	case yara.OpBitOr:
		return a | b, true
	case yara.OpBitXor:
		return a ^ b, true
	}
	if b <= 0 || op != yara.OpDiv && op != yara.OpMod && b > 63 {
		return 0, false
	}
	switch op {
	case yara.OpDiv:
		return a / b, true
	case yara.OpMod:
		return a % b, true
	case yara.OpShl:
		return a << b, true
	default:
		return a >> b, true
	}
}

// first reports whether @s or !s speaks of the first match.
func (s *solver) first(e *yara.Expr) bool {
	if len(e.Args) == 0 {
		return true
	}
	n, ok := s.value(e.Args[0])
	return ok && n == 1
}

// readOf takes the name of a function like uint16be apart.
func readOf(name string) (width int, big, signed bool) {
	name, big = strings.CutSuffix(name, "be")
	signed = name[0] == 'i'
	switch strings.TrimLeft(name, "uint") {
	case "8":
		return 1, big, signed
	case "16":
		return 2, big, signed
	}
	return 4, big, signed
}

// settle is a number that an expression has, or is given now.
func (s *solver) settle(e *yara.Expr) (int64, bool) {
	if v, ok := s.value(e); ok {
		return v, true
	}
	switch e.Op {
	case yara.OpFilesize:
		v := min(max(s.p.lo, 16<<10), s.p.hi)
		s.p.lo, s.p.hi = v, v
		return v, true
	case yara.OpCount:
		x := s.str(e.Str)
		if x == nil || !s.find(x, true, nil) {
			return 0, false
		}
		return int64(s.p.strings[x].count), true
	case yara.OpOffset:
		// Somewhere behind the header, after those that were settled before.
		v := int64(0x1000)
		for _, d := range s.p.strings {
			for _, at := range d.at {
				v = max(v, at+0x100)
			}
		}
		return v, s.give(e, v)
	case yara.OpLength:
		if x := s.str(e.Str); x != nil && x.Kind == yara.Text {
			return int64(len(x.Text)), s.find(x, true, nil)
		}
		return 0, false
	case yara.OpRead:
		width, _, _ := readOf(e.Str)
		v := int64(0x80)
		if at, ok := s.value(e.Args[0]); ok && at == 0x3c && width == 4 {
			v = peHeader
		}
		return v, s.give(e, v)
	case yara.OpAdd, yara.OpSub, yara.OpMul, yara.OpDiv, yara.OpMod, yara.OpBitAnd, yara.OpBitOr, yara.OpBitXor, yara.OpShl, yara.OpShr:
		a, ok := s.settle(e.Args[0])
		if !ok {
			return 0, false
		}
		b, ok := s.settle(e.Args[1])
		if !ok {
			return 0, false
		}
		return arithmetic(e.Op, a, b)
	}
	return 0, false
}

// compare notes what makes a comparison true.
func (s *solver) compare(op yara.Op, a, b *yara.Expr) bool {
	if ok, known := s.compareTexts(op, a, b); known {
		return ok
	}
	_, okA := s.value(a)
	v, okB := s.value(b)
	if okA && !okB {
		a, b, op = b, a, mirrored[op]
		v, okB = s.value(b)
	}
	if !okB {
		if b.Op == yara.OpFloat {
			return s.floatCondition(op, a)
		}
		if v, okB = s.settle(b); !okB {
			return false
		}
	}
	if x, ok := s.value(a); ok {
		return holds(op, x, v)
	}
	switch a.Op {
	case yara.OpFilesize:
		return s.sized(op, v)
	case yara.OpCount:
		return s.counted(op, a, v)
	case yara.OpOffset: // with room for what stands there
		switch op {
		case yara.OpLt:
			return s.give(a, max(0, v-0x80))
		case yara.OpGt:
			return s.give(a, v+0x80)
		}
	case yara.OpCall:
		if s.floatCondition(op, a) {
			return true
		}
	}
	if op == yara.OpNe && v == 0 && a.Op == yara.OpBitAnd {
		if mask, ok := s.value(a.Args[1]); ok && mask != 0 {
			return s.give(a, mask)
		}
	}
	return s.give(a, pick(op, v))
}

func holds(op yara.Op, a, b int64) bool {
	switch op {
	case yara.OpEq:
		return a == b
	case yara.OpNe:
		return a != b
	case yara.OpLt:
		return a < b
	case yara.OpLe:
		return a <= b
	case yara.OpGt:
		return a > b
	default:
		return a >= b
	}
}

// pick is a number x for which x op v.
func pick(op yara.Op, v int64) int64 {
	switch op {
	case yara.OpNe, yara.OpGt:
		return v + 1
	case yara.OpLt:
		return v - 1
	}
	return v
}

func (s *solver) sized(op yara.Op, v int64) bool {
	p := s.p
	switch op {
	case yara.OpEq:
		p.lo, p.hi = max(p.lo, v), min(p.hi, v)
	case yara.OpNe:
		if p.lo == v {
			p.lo++
		} else if p.hi == v {
			p.hi--
		}
	default:
		switch op {
		case yara.OpLt, yara.OpLe:
			p.hi = min(p.hi, pick(op, v))
		default:
			p.lo = max(p.lo, pick(op, v))
		}
	}
	return p.lo <= p.hi
}

func (s *solver) counted(op yara.Op, e *yara.Expr, v int64) bool {
	x := s.str(e.Str)
	n := pick(op, v)
	if x == nil || n < 0 && op != yara.OpGe && op != yara.OpGt || n > 1000 {
		return false
	}
	var where []int64
	if len(e.Args) > 0 {
		var ok bool
		if where, ok = s.where(e.Args); !ok {
			return false
		}
	}
	if n <= 0 {
		if op == yara.OpGe || op == yara.OpGt || op == yara.OpLe {
			return true
		}
		return s.find(x, false, where)
	}
	if op == yara.OpLe || op == yara.OpLt {
		n = 1
	}
	if len(where) == 0 {
		if !s.find(x, true, nil) {
			return false
		}
		d := s.demand(x)
		if d.exact {
			return int64(d.count) == n || op != yara.OpEq && holds(op, int64(d.count), v)
		}
		if op == yara.OpEq && int64(d.count) > n {
			return false
		}
		d.count, d.exact = max(d.count, int(n)), op == yara.OpEq
		return true
	}
	for range n {
		if !s.find(x, true, where) {
			return false
		}
	}
	return true
}

// give notes what gives an expression a number.
func (s *solver) give(e *yara.Expr, v int64) bool {
	if have, ok := s.value(e); ok {
		return have == v
	}
	switch e.Op {
	case yara.OpFilesize:
		return s.sized(yara.OpEq, v)
	case yara.OpCount:
		return s.counted(yara.OpEq, e, v)
	case yara.OpRead:
		at, ok := s.settle(e.Args[0])
		return ok && s.write(at, e.Str, v)
	case yara.OpOffset:
		return s.first(e) && s.find(s.str(e.Str), true, []int64{v})
	case yara.OpLength:
		return s.find(s.str(e.Str), true, nil)
	case yara.OpNeg:
		return s.give(e.Args[0], -v)
	case yara.OpBitNot:
		return s.give(e.Args[0], ^v)
	case yara.OpMember, yara.OpIndex, yara.OpCall:
		return s.moduleNumber(e, v)
	case yara.OpAdd, yara.OpSub, yara.OpMul, yara.OpDiv, yara.OpMod, yara.OpBitAnd, yara.OpBitOr, yara.OpBitXor, yara.OpShl, yara.OpShr:
		return s.giveOperand(e, v)
	}
	return false
}

// giveOperand gives one side of an operation the value that makes the whole v.
func (s *solver) giveOperand(e *yara.Expr, v int64) bool {
	a, b := e.Args[0], e.Args[1]
	if k, ok := s.value(a); ok {
		switch e.Op {
		case yara.OpAdd:
			return s.give(b, v-k)
		case yara.OpSub:
			return s.give(b, k-v)
		case yara.OpBitXor:
			return s.give(b, v^k)
		case yara.OpBitAnd, yara.OpBitOr, yara.OpMul:
			a, b = b, a
		default:
			return false
		}
	}
	k, ok := s.settle(b)
	if !ok {
		return false
	}
	switch e.Op {
	case yara.OpAdd:
		return s.give(a, v-k)
	case yara.OpSub:
		return s.give(a, v+k)
	case yara.OpMul:
		return k != 0 && v%k == 0 && s.give(a, v/k)
	case yara.OpDiv:
		return s.give(a, v*k)
	case yara.OpMod:
		return v >= 0 && v < k && s.give(a, v)
	case yara.OpBitAnd:
		return v&k == v && s.give(a, v)
	case yara.OpBitOr:
		return v&k == k && s.give(a, v)
	case yara.OpBitXor:
		return s.give(a, v^k)
	case yara.OpShl:
		return k >= 0 && k < 64 && v>>k<<k == v && s.give(a, v>>k)
	case yara.OpShr:
		return k >= 0 && k < 32 && s.give(a, v<<k)
	}
	return false
}

// write fixes the bytes that a read function reads.
func (s *solver) write(at int64, name string, v int64) bool {
	width, big, signed := readOf(name)
	if at < 0 || at > MaxSize-8 || !signed && (v < 0 || v>>(8*width) != 0) || signed && (v < -1<<(8*width-1) || v>>(8*width-1) > 0) {
		return false
	}
	for i := range width {
		shift := 8 * i
		if big {
			shift = 8 * (width - 1 - i)
		}
		b := byte(v >> shift)
		if have, ok := s.p.bytes[at+int64(i)]; ok && have != b {
			return false
		}
		s.p.bytes[at+int64(i)] = b
	}
	if s.p.lo = max(s.p.lo, at+int64(width)); s.p.lo > s.p.hi {
		return false
	}
	return true
}
