package yara

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

// Span is where a string was found.
type Span struct{ Start, End int64 }

// Env is what a condition asks for while it is evaluated.
type Env interface {
	pattern.Input
	// Found reports whether string n of the rule was found; Matches returns
	// where, ordered by start and without duplicates.
	Found(n int) bool
	Matches(n int) []Span
	// Known reports whether Found and Matches need not search for string n.
	Known(n int) bool
	// StandsAt is whether string n begins at an offset, if that can be told
	// without a search.
	StandsAt(n int, off int64) (stands, ok bool)
	// Rule is the outcome of rule n among all rules; KnownRule says that it need
	// not be evaluated.
	Rule(n int) bool
	KnownRule(n int) bool
	// External is the value of external variable n (see Externals).
	External(n int) string
	// Module is the value of module n (see package modules) for the object.
	Module(n int) modules.Object
	// Stop reports that evaluation must end (the scan's time is over).
	Stop() bool
	// Spent is how many bytes the functions of modules were given so far (see
	// modules.Input).
	Spent() int64
}

// ErrCode is the error of Eval for code that Compile did not make.
var ErrCode = errors.New("damaged rule code")

// errStopped ends an evaluation whose Env says stop.
var errStopped = errors.New("evaluation stopped")

// typeUnknown is the type of what Decide leaves open.
const typeUnknown = typeObject + 1

var unknownValue = value{kind: typeUnknown}

// value is a result; the zero value is YARA's undefined.
type value struct {
	kind valueType // typeAny: undefined
	i    int64
	f    float64
	s    []byte
	o    any // a modules.Object, List, *Dict or Func
}

func boolean(b bool) value {
	if b {
		return value{kind: typeBool, i: 1}
	}
	return value{kind: typeBool}
}

func integer(i int64) value { return value{kind: typeInt, i: i} }

// truth is the value as a condition; undefined is false.
func (v value) truth() bool {
	switch v.kind {
	case typeBool, typeInt:
		return v.i != 0
	case typeFloat:
		return v.f != 0
	case typeText:
		return len(v.s) > 0
	}
	return false
}

// evaluator walks the code of one condition.
type evaluator struct {
	env     Env
	code    []byte
	pc      int
	vars    [maxVars]value
	slots   int // how many of vars were used
	current int // string of the innermost for ... of loop
	depth   int
	steps   int64
	asked   int64 // steps at the last question whether to stop
	most    int64 // how many steps the condition may take
	dry     bool  // what needs a search or a function is unknown
	scratch *pattern.Scratch
}

// The work of one evaluation is counted in steps, whatever its loops say: one for
// an operation and each item of a set or list, one for so many bytes of what
// functions read, texts that are compared and code that is checked, and for so
// many transitions of a regular expression. A condition may take maxSteps, and
// for each pass over the object that functions of modules make what it costs, up
// to maxPasses.
const (
	maxSteps       = 20_000_000
	maxPasses      = 16
	stepBytes      = 64
	stepMoves      = 4
	stepsPerAnswer = 4096 // between two questions whether to stop
)

// Scratch is working memory of evaluations, reusable, not for concurrent use.
// Evaluations may be nested: a condition asks for other rules.
type Scratch struct {
	Pattern pattern.Scratch
	free    []*evaluator
}

// Eval evaluates a rule's condition. Faults of the code and an end demanded by
// the Env are errors.
func Eval(code []byte, env Env, s *Scratch) (bool, error) {
	v, err := s.evaluate(code, env, false)
	return v.truth(), err
}

// Decide evaluates a rule's condition without searching for strings and without
// calling functions. It is not ok where the outcome depends on these.
func Decide(code []byte, env Env, s *Scratch) (result, ok bool, err error) {
	v, err := s.evaluate(code, env, true)
	return v.truth(), err == nil && v.kind != typeUnknown, err
}

func (s *Scratch) evaluate(code []byte, env Env, dry bool) (v value, err error) {
	var e *evaluator
	if n := len(s.free); n > 0 {
		e = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		e = &evaluator{scratch: &s.Pattern}
	}
	e.begin(code, env, dry)
	defer func() {
		if r := recover(); r != nil {
			x, ok := r.(error)
			if !ok || !errors.Is(x, ErrCode) && !errors.Is(x, errStopped) {
				panic(r)
			}
			v, err = value{}, x
		}
		e.begin(nil, nil, false)
		s.free = append(s.free, e)
	}()
	return e.eval(), nil
}

func (e *evaluator) begin(code []byte, env Env, dry bool) {
	clear(e.vars[:e.slots])
	e.env, e.code, e.dry = env, code, dry
	e.pc, e.current, e.depth, e.slots = 0, -1, 0, 0
	e.steps, e.asked, e.most = 0, 0, maxSteps
	if env != nil {
		e.most += max(0, env.Size()) / stepBytes * maxPasses
	}
}

// charge counts steps; it ends the evaluation when there were too many or the
// Env says so.
func (e *evaluator) charge(n int64) {
	e.steps += n
	if e.steps-e.asked < stepsPerAnswer {
		return
	}
	e.asked = e.steps
	if e.steps > e.most || e.env.Stop() {
		panic(errStopped)
	}
}

// chargeBytes counts the steps of work on so many bytes.
func (e *evaluator) chargeBytes(n int) { e.charge(int64(n) / stepBytes) }

// Stopped reports whether an error of Eval means that the Env said stop, or that
// the condition took too many steps: its outcome is not known.
func Stopped(err error) bool { return errors.Is(err, errStopped) }

func (e *evaluator) fail() { panic(ErrCode) }

func (e *evaluator) byte() byte {
	if e.pc >= len(e.code) {
		e.fail()
	}
	e.pc++
	return e.code[e.pc-1]
}

func (e *evaluator) num() int {
	v, n := binary.Uvarint(e.code[min(e.pc, len(e.code)):])
	if n <= 0 || v > 1<<31 {
		e.fail()
	}
	e.pc += n
	return int(v)
}

func (e *evaluator) bytes(n int) []byte {
	if n < 0 || n > len(e.code)-e.pc {
		e.fail()
	}
	e.pc += n
	return e.code[e.pc-n : e.pc]
}

// sub reads the length before a sized argument and returns where it ends.
func (e *evaluator) sub() int {
	n := int(binary.LittleEndian.Uint32(e.bytes(4)))
	if n > len(e.code)-e.pc {
		e.fail()
	}
	return e.pc + n
}

// str reads a string number.
func (e *evaluator) str() int {
	n := e.num() - 1
	if n < 0 {
		if e.current < 0 {
			e.fail()
		}
		return e.current
	}
	return n
}

func (e *evaluator) eval() value {
	if e.depth++; e.depth > 4*maxExprDepth {
		e.fail()
	}
	v := e.operation()
	e.depth--
	return v
}

// operation evaluates the operation at pc.
func (e *evaluator) operation() value {
	e.charge(1)
	switch op := e.byte(); op {
	case byte(OpInt):
		v, n := binary.Varint(e.code[e.pc:])
		if n <= 0 {
			e.fail()
		}
		e.pc += n
		return integer(v)
	case byte(OpBool):
		return boolean(e.num() != 0)
	case byte(OpFloat):
		return value{kind: typeFloat, f: math.Float64frombits(binary.LittleEndian.Uint64(e.bytes(8)))}
	case byte(OpString):
		return value{kind: typeText, s: e.bytes(e.num())}
	case byte(OpFilesize):
		return integer(e.env.Size())
	case byte(OpEntrypoint):
		return e.entrypoint()
	case codeExternal:
		return value{kind: typeText, s: []byte(e.env.External(e.num()))}
	case codeRule:
		n := e.num()
		if e.dry && !e.env.KnownRule(n) {
			return unknownValue
		}
		return boolean(e.env.Rule(n))
	case codeVar:
		n := e.num()
		if n >= maxVars {
			e.fail()
		}
		return e.vars[n]
	case byte(OpFound):
		n := e.str()
		if e.open(n) {
			return unknownValue
		}
		return boolean(e.env.Found(n))
	case byte(OpAt):
		n, at := e.str(), e.eval()
		switch at.kind {
		case typeUnknown:
			return at
		case typeInt:
			return e.foundIn(n, at.i, at.i)
		}
		return boolean(false)
	case byte(OpIn):
		n, from, to := e.str(), e.eval(), e.eval()
		if v, ok := integers(from, to); !ok {
			return v
		}
		return e.foundIn(n, from.i, to.i)
	case byte(OpCount):
		return e.count()
	case byte(OpOffset), byte(OpLength):
		return e.offset(op)
	case byte(OpRead):
		return e.read(e.num())
	case byte(OpNot):
		v := e.eval()
		if v.kind == typeAny || v.kind == typeUnknown {
			return v
		}
		return boolean(!v.truth())
	case byte(OpDefined):
		v := e.eval()
		if v.kind == typeUnknown {
			return v
		}
		return boolean(v.kind != typeAny)
	case byte(OpNeg):
		v := e.eval()
		v.i, v.f = -v.i, -v.f
		return v
	case byte(OpBitNot):
		v := e.eval()
		v.i = ^v.i
		return v
	case byte(OpAnd), byte(OpOr):
		return e.logic(op == byte(OpOr))
	case codeMatches:
		prog := e.regex()
		v := e.eval()
		if v.kind == typeUnknown {
			return v
		}
		if v.kind != typeText {
			return value{}
		}
		return boolean(e.searcher(prog).Match(v.s))
	case codeModule:
		if o := e.env.Module(e.num()); o != nil {
			return value{kind: typeObject, o: o}
		}
		return value{}
	case codeMember:
		return e.member()
	case codeIndex:
		return e.index()
	case codeCall:
		return e.call()
	case codeRegex:
		return value{kind: typeRegex, s: e.regex()}
	case codeOfStrings, codeOfRules:
		return e.of(op)
	case codeForStrings, codeForRange, codeForList, codeForValue:
		return e.loop(op)
	default:
		if Op(op) < OpEq || Op(op) > OpIEquals {
			e.fail()
		}
		a, b := e.eval(), e.eval()
		e.chargeBytes(len(a.s) + len(b.s))
		return binaryOp(Op(op), a, b)
	}
}

// open reports whether nothing may be asked about a string.
func (e *evaluator) open(n int) bool { return e.dry && !e.env.Known(n) }

// integers is not ok where one of its arguments is no integer; v is the result
// then.
func integers(args ...value) (v value, ok bool) {
	ok = true
	for _, a := range args {
		if a.kind == typeUnknown {
			return unknownValue, false
		}
		ok = ok && a.kind == typeInt
	}
	return value{}, ok
}

// foundIn is whether a string begins in a range.
func (e *evaluator) foundIn(n int, from, to int64) value {
	if !e.env.Known(n) && from == to {
		if stands, ok := e.env.StandsAt(n, from); ok {
			return boolean(stands)
		}
	}
	if e.open(n) {
		return unknownValue
	}
	matches := e.env.Matches(n)
	i := firstFrom(matches, from)
	return boolean(i < len(matches) && matches[i].Start <= to)
}

// firstFrom is the index of the first match that begins at an offset or behind.
func firstFrom(matches []Span, off int64) int {
	i, _ := slices.BinarySearchFunc(matches, off, func(m Span, off int64) int { return cmp.Compare(m.Start, off) })
	return i
}

func (e *evaluator) count() value {
	n, args := e.str(), e.num()
	if args == 0 {
		if e.open(n) {
			return unknownValue
		}
		return integer(int64(len(e.env.Matches(n))))
	}
	from, to := e.eval(), e.eval()
	if v, ok := integers(from, to); !ok {
		return v
	}
	if e.open(n) {
		return unknownValue
	}
	matches := e.env.Matches(n)
	first, behind := firstFrom(matches, from.i), len(matches)
	if to.i < math.MaxInt64 {
		behind = firstFrom(matches, to.i+1)
	}
	return integer(int64(max(0, behind-first)))
}

func (e *evaluator) offset(op byte) value {
	n, args := e.str(), e.num()
	i := integer(1)
	if args > 0 {
		i = e.eval()
	}
	if v, ok := integers(i); !ok {
		return v
	}
	if e.open(n) {
		return unknownValue
	}
	m := e.env.Matches(n)
	if i.i < 1 || i.i > int64(len(m)) {
		return value{}
	}
	if op == byte(OpOffset) {
		return integer(m[i.i-1].Start)
	}
	return integer(m[i.i-1].End - m[i.i-1].Start)
}

// read evaluates intXX and uintXX; which is an index of reads.
func (e *evaluator) read(which int) value {
	at := e.eval()
	if at.kind == typeUnknown {
		return at
	}
	width := []int{1, 2, 4}[which%3]
	if at.kind != typeInt || at.i < 0 || at.i > e.env.Size()-int64(width) {
		return value{}
	}
	b := e.env.Slice(at.i, width)
	if len(b) < width {
		return value{}
	}
	var v uint32
	for k := range width {
		if which < 6 {
			v |= uint32(b[k]) << (8 * k)
		} else {
			v = v<<8 | uint32(b[k])
		}
	}
	if which%6 < 3 { // signed
		shift := 32 - 8*width
		return integer(int64(int32(v<<shift) >> shift))
	}
	return integer(int64(v))
}

// logic evaluates and, or with as few arguments as decide it.
func (e *evaluator) logic(or bool) value {
	result, some := !or, false
	for n := e.num(); n > 0; n-- {
		end := e.sub()
		if result != or {
			v := e.eval()
			switch {
			case v.kind == typeUnknown:
				some = true
			case v.truth() == or:
				result = or
			}
		}
		e.pc = end
	}
	if some && result != or {
		return unknownValue
	}
	return boolean(result)
}
