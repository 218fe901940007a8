package yara

import (
	"bytes"
	"math"
)

func compareInts(op Op, a, b int64) bool {
	switch op {
	case OpEq:
		return a == b
	case OpNe:
		return a != b
	case OpLt:
		return a < b
	case OpLe:
		return a <= b
	case OpGt:
		return a > b
	}
	return a >= b
}

// arithmetic is integer arithmetic; ok is false where YARA's is undefined.
func arithmetic(op Op, a, b int64) (int64, bool) {
	switch op {
	case OpAdd:
		return a + b, true
	case OpSub:
		return a - b, true
	case OpMul:
		return a * b, true
	case OpDiv, OpMod:
		if b == 0 || a == math.MinInt64 && b == -1 {
			return 0, false
		}
		if op == OpDiv {
			return a / b, true
		}
		return a % b, true
	case OpBitAnd:
		return a & b, true
	case OpBitOr:
		return a | b, true
	case OpBitXor:
		return a ^ b, true
	}
	// Shifts.
	if b < 0 {
		return 0, false
	}
	if b >= 64 {
		return 0, true
	}
	if op == OpShl {
		return a << b, true
	}
	return a >> b, true
}

func binaryOp(op Op, a, b value) value {
	if a.kind == typeUnknown || b.kind == typeUnknown {
		return unknownValue
	}
	if a.kind == typeAny || b.kind == typeAny {
		return value{}
	}
	if op >= OpContains {
		if a.kind != typeText || b.kind != typeText {
			return value{}
		}
		return boolean(textOp(op, a.s, b.s))
	}
	if a.kind == typeText || b.kind == typeText {
		if a.kind != b.kind || op > OpGe {
			return value{}
		}
		return boolean(compareInts(op, int64(bytes.Compare(a.s, b.s)), 0))
	}
	if a.kind == typeFloat || b.kind == typeFloat {
		return floatOp(op, a, b)
	}
	if op <= OpGe {
		return boolean(compareInts(op, a.i, b.i))
	}
	v, ok := arithmetic(op, a.i, b.i)
	if !ok {
		return value{}
	}
	return integer(v)
}

func floatOp(op Op, a, b value) value {
	x, y := a.f, b.f
	if a.kind != typeFloat {
		x = float64(a.i)
	}
	if b.kind != typeFloat {
		y = float64(b.i)
	}
	switch op {
	case OpAdd:
		return value{kind: typeFloat, f: x + y}
	case OpSub:
		return value{kind: typeFloat, f: x - y}
	case OpMul:
		return value{kind: typeFloat, f: x * y}
	case OpDiv:
		return value{kind: typeFloat, f: x / y}
	case OpEq:
		return boolean(x == y)
	case OpNe:
		return boolean(x != y)
	case OpLt:
		return boolean(x < y)
	case OpLe:
		return boolean(x <= y)
	case OpGt:
		return boolean(x > y)
	case OpGe:
		return boolean(x >= y)
	}
	return value{}
}

func textOp(op Op, a, b []byte) bool {
	switch op {
	case OpIContains, OpIStartsWith, OpIEndsWith, OpIEquals:
		a, b = lower(a), lower(b)
	}
	switch op {
	case OpContains, OpIContains:
		return bytes.Contains(a, b)
	case OpStartsWith, OpIStartsWith:
		return bytes.HasPrefix(a, b)
	case OpEndsWith, OpIEndsWith:
		return bytes.HasSuffix(a, b)
	}
	return bytes.Equal(a, b)
}

// lower folds ASCII letters only, as libyara does.
func lower(b []byte) []byte {
	out := bytes.Clone(b)
	for i, c := range out {
		if c >= 'A' && c <= 'Z' {
			out[i] = c + 32
		}
	}
	return out
}
