package clamdb

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// ErrCode is the error of EvalLogical for code that AppendCode did not make.
var ErrCode = errors.New("damaged logical signature")

// AppendCode appends the expression in the form EvalLogical reads: kind and
// comparison bytes, count, distinct, then the number of the sub-signature or of
// the arguments, and the arguments.
func (e *Expr) AppendCode(code []byte) []byte {
	code = append(code, byte(e.Kind), e.Cmp)
	code = binary.AppendUvarint(code, uint64(e.Count))
	code = binary.AppendUvarint(code, uint64(e.Distinct))
	if e.Kind == ExprSub {
		return binary.AppendUvarint(code, uint64(e.N))
	}
	code = binary.AppendUvarint(code, uint64(len(e.Subs)))
	for _, s := range e.Subs {
		code = s.AppendCode(code)
	}
	return code
}

// EvalLogical evaluates an expression; count says how often a sub-signature
// matched.
func EvalLogical(code []byte, count func(n int) int64) (bool, error) {
	e := logicalEval{code: code, count: count}
	r := e.eval(0)
	if e.bad {
		return false, ErrCode
	}
	return r.ok, nil
}

type logicalEval struct {
	code  []byte
	count func(int) int64
	bad   bool
}

// logicalResult is what a node is worth; ids are the sub-signatures that count
// to it, as bits.
type logicalResult struct {
	ok    bool
	count int64
	ids   uint64
}

func (e *logicalEval) byte() byte {
	if len(e.code) == 0 {
		e.bad = true
		return 0
	}
	b := e.code[0]
	e.code = e.code[1:]
	return b
}

func (e *logicalEval) num() int64 {
	v, n := binary.Uvarint(e.code)
	if n <= 0 || v > 1<<40 {
		e.bad = true
		return 0
	}
	e.code = e.code[n:]
	return int64(v)
}

func (e *logicalEval) eval(depth int) logicalResult {
	kind, cmp := ExprKind(e.byte()), e.byte()
	want, distinct, n := e.num(), e.num(), e.num()
	var r logicalResult
	switch {
	case e.bad || depth > 2*maxDepth*maxTerms || kind > ExprOr || kind != ExprSub && n > maxTerms:
		e.bad = true
		return r
	case kind == ExprSub:
		r.count = e.count(int(n))
		r.ok, r.ids, distinct = r.count > 0, 1<<(n&63), 0
	default:
		r.ok = kind == ExprAnd
		for range n {
			s := e.eval(depth + 1)
			if e.bad {
				return r
			}
			r.count += s.count
			r.ids |= s.ids
			if kind == ExprAnd {
				r.ok = r.ok && s.ok
			} else {
				r.ok = r.ok || s.ok
			}
		}
		if !r.ok {
			r.count, r.ids = 0, 0
		}
	}
	switch cmp {
	case '=':
		r.ok = r.count == want
	case '<':
		r.ok = r.count < want
	case '>':
		r.ok = r.count > want
	}
	if cmp != 0 && distinct > 0 && int64(bits.OnesCount64(r.ids)) < distinct {
		r.ok = false
	}
	switch {
	case !r.ok:
		return logicalResult{}
	case cmp != 0 && kind != ExprSub:
		r.ids = 0 // as in clamscan
	}
	return r
}
