package yara

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/match"
	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

// Form is one way a string may stand in a file (plain, wide, one xor key...):
// parts as in package pattern.
type Form struct {
	Parts    []pattern.Part
	FullWord bool
	Wide     bool
}

// CompiledString is a string of a rule.
type CompiledString struct {
	ID    string
	Forms []Form
	// All says that the condition asks for every match, not only whether there
	// is one.
	All bool
	// Loose says that a part has no fixed byte to look for. Late strings are
	// searched only when a condition asks for them.
	Loose, Late bool
}

// CompiledRule is a rule ready to evaluate. Strings and rules are numbered in
// Code relative to the rule and to the file.
type CompiledRule struct {
	Rule    *Rule
	Strings []CompiledString
	Code    []byte
	// Always says that the condition can hold although no string was found, so
	// the rule must be evaluated for every file.
	Always bool
	// Guard is what the file must be like; AlwaysGuard for the condition to hold
	// although no string was found.
	Guard, AlwaysGuard Guard
}

// The code is the condition in prefix order: an operation byte, its operands as
// varints, then its arguments. The operations are those of the syntax tree
// where they can be, and these.
const (
	codeExternal byte = 128 + iota // n
	codeRule                       // n
	codeVar                        // slot
	codeOfStrings
	codeOfRules
	codeForStrings
	codeForRange
	codeForList
	codeMatches  // length, program; argument
	codeModule   // n
	codeMember   // length, name; structure
	codeIndex    // array or dictionary, index
	codeCall     // number of arguments; function, arguments
	codeRegex    // length, program
	codeForValue // quantifier, slot, number of variables; value, body
)

// Externals are the external variables that rules may use; all are strings,
// empty where the scan does not know them.
var Externals = []string{"filename", "filepath", "extension", "filetype", "owner"}

// reads are the functions that read an integer from the file.
var reads = []string{
	"int8", "int16", "int32", "uint8", "uint16", "uint32",
	"int8be", "int16be", "int32be", "uint8be", "uint16be", "uint32be",
}

type valueType uint8

const (
	typeAny valueType = iota
	typeBool
	typeInt
	typeFloat
	typeText
	typeRegex
	typeObject
)

func (t valueType) String() string {
	return [...]string{"a value", "a boolean", "an integer", "a float", "a string", "a regular expression", "an object"}[t]
}

type compiler struct {
	rules     map[string]scoped
	externals map[string]any
	imports   map[string]bool
	rule      *Rule
	out       *CompiledRule
	index     map[string]int // string id -> index
	code      []byte
	vars      []loopVar
	modules   uint32       // bit set of those used
	inSet     int          // depth of "for of" bodies, where $ means the current string
	late      map[int]bool // strings that are searched late
}

// maxVars is how many loop variables can be in scope.
const maxVars = 32

// Scope is what the rules of several files share: they may refer to rules of
// files before theirs, as when yara is given several files without namespaces.
// Unlike there, a name may be used again in another file, which then means its
// own rule.
type Scope struct {
	// Externals are external variables with fixed values: string, int64,
	// float64 or bool. Those of Externals come on top.
	Externals map[string]any

	rules map[string]scoped
}

// scoped is a rule that others can refer to.
type scoped struct {
	index int // among all rules
	guard Guard
}

// Compile turns the rules of one file into code. Rules that cannot be compiled
// are left out and reported.
func Compile(f *File) ([]*CompiledRule, []*Error) { return (&Scope{}).Compile(f, 0) }

// Compile turns the rules of a file into code; base is the number of its first
// rule among all rules. Rules that cannot be compiled are left out and reported.
func (s *Scope) Compile(f *File, base int) ([]*CompiledRule, []*Error) {
	var rules []*CompiledRule
	var errs []*Error
	if s.rules == nil {
		s.rules = map[string]scoped{}
	}
	c := &compiler{rules: s.rules, externals: s.Externals, imports: map[string]bool{}}
	own := map[string]bool{}
	for _, im := range f.Imports {
		c.imports[im.Name] = true
	}
	for _, r := range f.Rules {
		if own[r.Name] {
			errs = append(errs, &Error{r.Pos, r.Name, "a rule of this name exists already"})
			continue
		}
		out, err := c.compile(r)
		if err != nil {
			err.Rule = r.Name
			errs = append(errs, err)
			continue
		}
		own[r.Name] = true
		c.rules[r.Name] = scoped{base + len(rules), out.Guard}
		rules = append(rules, out)
	}
	return rules, errs
}

func (c *compiler) compile(r *Rule) (*CompiledRule, *Error) {
	c.rule, c.out = r, &CompiledRule{Rule: r}
	c.index, c.code, c.vars, c.inSet = map[string]int{}, nil, nil, 0
	c.modules = 0
	for i, s := range r.Strings {
		cs := CompiledString{ID: s.ID}
		forms, err := stringForms(s)
		if err != nil {
			return nil, errAt(s.Pos, "string %s %v", s.ID, err)
		}
		cs.Forms = forms
		eachVariant(forms, func(v *pattern.Variant) { cs.Loose = cs.Loose || len(v.Atom) == 0 })
		if s.ID != "$" {
			c.index[s.ID] = i
		}
		c.out.Strings = append(c.out.Strings, cs)
	}
	always := c.chooseLate() != no
	if _, err := c.expr(r.Condition); err != nil {
		return nil, err
	}
	c.out.Code = c.code
	c.out.Always = always
	c.out.Guard = c.guard(r.Condition, false)
	if always {
		c.out.AlwaysGuard = c.guard(r.Condition, true)
	}
	return c.out, nil
}

func eachVariant(forms []Form, f func(v *pattern.Variant)) {
	for _, form := range forms {
		for _, p := range form.Parts {
			for i := range p.Variants {
				f(&p.Variants[i])
			}
		}
	}
}

// The costs that decide which strings of a rule are looked for in every file,
// in the unit of match.Cost.
const (
	literalCost = 1e-6 // of a literal: it fills the matcher's filters
	shortCost   = 1e-4 // of one shorter than shortLiteral: it is seen at more places
	// shortLiteral is the length from which literals are looked for at every
	// fourth place only.
	shortLiteral = 8
)

// stringCost is the cost of looking for a string in every file; infinite for one
// without a fixed byte.
func stringCost(s *CompiledString) float64 {
	if s.Loose {
		return math.Inf(1)
	}
	sum := 0.0
	eachVariant(s.Forms, func(v *pattern.Variant) {
		sum += match.Cost(v.Atom) + literalCost
		if len(v.Atom) < shortLiteral {
			sum += shortCost
		}
	})
	return sum
}

// chooseLate decides which strings are searched late: only when a condition
// asks for them. Looked for in every file are as few and as rare strings as
// will do: such that without any of them the condition is false, whatever is
// found of the others. It returns what the condition is without any of them.
func (c *compiler) chooseLate() tri {
	n := len(c.out.Strings)
	c.late = make(map[int]bool, n)
	cost := make([]float64, n)
	var order []int
	for i := range n {
		c.late[i] = true
		cost[i] = stringCost(&c.out.Strings[i])
		if !c.out.Strings[i].Loose {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(cost[a], cost[b]), cmp.Compare(a, b)) })
	taken := 0
	for taken < len(order) && c.constant(c.rule.Condition) != no {
		delete(c.late, order[taken])
		taken++
	}
	if c.constant(c.rule.Condition) != no {
		// It may be true without any: it is evaluated for every file anyway.
		taken = 0
	}
	for _, i := range slices.Backward(order[:taken]) {
		// Those that others have made superfluous, the costliest first.
		c.late[i] = true
		if c.constant(c.rule.Condition) != no {
			delete(c.late, i)
		}
	}
	for i := range c.out.Strings {
		c.out.Strings[i].Late = c.late[i]
	}
	return c.constant(c.rule.Condition)
}

func (c *compiler) op(o Op) { c.code = append(c.code, byte(o)) }

func (c *compiler) num(v int) { c.code = binary.AppendUvarint(c.code, uint64(v)) }

// str appends the number of a string plus one; 0 is the current string of a
// loop.
func (c *compiler) str(e *Expr, all bool) *Error {
	if e.Str == "$" {
		if c.inSet == 0 {
			return errAt(e.Pos, "$ without a name stands only inside for ... of")
		}
		c.num(0)
		return nil
	}
	i, ok := c.index[e.Str]
	if !ok {
		return errAt(e.Pos, "undefined string %s", e.Str)
	}
	if all {
		c.out.Strings[i].All = true
	}
	c.num(i + 1)
	return nil
}

// want compiles an expression that must have one of the types.
func (c *compiler) want(e *Expr, types ...valueType) (valueType, *Error) {
	t, err := c.expr(e)
	if err != nil || t == typeAny {
		return t, err
	}
	for _, w := range types {
		if t == w {
			return t, nil
		}
	}
	return t, errAt(e.Pos, "expected %v, found %v", types[0], t)
}

func (c *compiler) expr(e *Expr) (valueType, *Error) {
	switch e.Op {
	case OpInt:
		c.op(OpInt)
		c.code = binary.AppendVarint(c.code, e.Int)
		return typeInt, nil
	case OpBool:
		c.op(OpBool)
		c.num(int(e.Int))
		return typeBool, nil
	case OpFloat:
		c.op(OpFloat)
		c.code = binary.LittleEndian.AppendUint64(c.code, math.Float64bits(e.Float))
		return typeFloat, nil
	case OpString:
		c.op(OpString)
		c.num(len(e.Str))
		c.code = append(c.code, e.Str...)
		return typeText, nil
	case OpFilesize:
		c.op(OpFilesize)
		return typeInt, nil
	case OpEntrypoint:
		c.op(OpEntrypoint)
		return typeInt, nil
	case OpName:
		return c.name(e)
	case OpMember, OpIndex, OpCall:
		return c.value(e)
	case OpRegex:
		return 0, errAt(e.Pos, "a regular expression stands only behind matches")
	case OpFound, OpAt, OpIn, OpCount, OpOffset, OpLength:
		return c.stringOp(e)
	case OpRead:
		c.op(OpRead)
		for i, n := range reads {
			if n == e.Str {
				c.num(i)
			}
		}
		_, err := c.want(e.Args[0], typeInt)
		return typeInt, err
	case OpNot:
		c.op(OpNot)
		_, err := c.want(e.Args[0], typeBool, typeInt, typeFloat, typeText)
		return typeBool, err
	case OpDefined:
		c.op(OpDefined)
		_, err := c.expr(e.Args[0])
		return typeBool, err
	case OpNeg:
		c.op(OpNeg)
		return c.want(e.Args[0], typeInt, typeFloat)
	case OpBitNot:
		c.op(OpBitNot)
		return c.want(e.Args[0], typeInt)
	case OpAnd, OpOr:
		c.op(e.Op)
		c.num(len(e.Args))
		// Those that need a late search are asked last.
		for _, last := range []bool{false, true} {
			for _, a := range e.Args {
				if c.asksLate(a) != last {
					continue
				}
				if _, err := c.sized(a, typeBool, typeInt, typeFloat, typeText); err != nil {
					return 0, err
				}
			}
		}
		return typeBool, nil
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe:
		return c.compare(e)
	case OpAdd, OpSub, OpMul, OpDiv:
		c.op(e.Op)
		a, err := c.want(e.Args[0], typeInt, typeFloat)
		if err != nil {
			return 0, err
		}
		b, err := c.want(e.Args[1], typeInt, typeFloat)
		if a == typeFloat || b == typeFloat {
			a = typeFloat
		}
		return a, err
	case OpMod, OpBitAnd, OpBitOr, OpBitXor, OpShl, OpShr:
		c.op(e.Op)
		if _, err := c.want(e.Args[0], typeInt); err != nil {
			return 0, err
		}
		_, err := c.want(e.Args[1], typeInt)
		return typeInt, err
	case OpContains, OpIContains, OpStartsWith, OpIStartsWith, OpEndsWith, OpIEndsWith, OpIEquals:
		c.op(e.Op)
		if _, err := c.want(e.Args[0], typeText); err != nil {
			return 0, err
		}
		_, err := c.want(e.Args[1], typeText)
		return typeBool, err
	case OpMatches:
		r := e.Args[1]
		if r.Op != OpRegex {
			return 0, errAt(r.Pos, "expected a regular expression")
		}
		c.code = append(c.code, codeMatches)
		if err := c.regex(r); err != nil {
			return 0, err
		}
		_, err := c.want(e.Args[0], typeText)
		return typeBool, err
	case OpOf:
		return c.of(e)
	case OpForOf:
		return c.forOf(e)
	case OpForIn:
		return c.forIn(e)
	}
	return 0, errAt(e.Pos, "this expression is not supported")
}

// sized compiles an argument with its length before it, so that evaluation can
// skip it.
func (c *compiler) sized(e *Expr, types ...valueType) (valueType, *Error) {
	at := len(c.code)
	c.code = append(c.code, 0, 0, 0, 0)
	t, err := c.want(e, types...)
	binary.LittleEndian.PutUint32(c.code[at:], uint32(len(c.code)-at-4))
	return t, err
}

func (c *compiler) compare(e *Expr) (valueType, *Error) {
	c.op(e.Op)
	a, err := c.want(e.Args[0], typeInt, typeFloat, typeText, typeBool)
	if err != nil {
		return 0, err
	}
	b, err := c.want(e.Args[1], typeInt, typeFloat, typeText, typeBool)
	if err != nil {
		return 0, err
	}
	if a != typeAny && b != typeAny && (a == typeText) != (b == typeText) {
		return 0, errAt(e.Pos, "%v and %v cannot be compared", a, b)
	}
	return typeBool, nil
}

func (c *compiler) name(e *Expr) (valueType, *Error) {
	for i := len(c.vars) - 1; i >= 0; i-- {
		if c.vars[i].name == e.Str {
			return c.value(e)
		}
	}
	if r, ok := c.rules[e.Str]; ok {
		c.code = append(c.code, codeRule)
		c.num(r.index)
		return typeBool, nil
	}
	if v, ok := c.externals[e.Str]; ok {
		return c.fixed(e, v)
	}
	for i, x := range Externals {
		if x == e.Str {
			c.code = append(c.code, codeExternal)
			c.num(i)
			return typeText, nil
		}
	}
	if c.imports[e.Str] {
		if _, ok := modules.Find(e.Str); !ok {
			return 0, errAt(e.Pos, "module %q is not supported", e.Str)
		}
		return 0, errAt(e.Pos, "module %q is no value", e.Str)
	}
	return 0, errAt(e.Pos, "undefined identifier %q", e.Str)
}

// fixed compiles an external variable with a value that is known.
func (c *compiler) fixed(e *Expr, v any) (valueType, *Error) {
	x := &Expr{Pos: e.Pos}
	switch v := v.(type) {
	case string:
		x.Op, x.Str = OpString, v
	case int64:
		x.Op, x.Int = OpInt, v
	case int:
		x.Op, x.Int = OpInt, int64(v)
	case float64:
		x.Op, x.Float = OpFloat, v
	case bool:
		x.Op = OpBool
		if v {
			x.Int = 1
		}
	default:
		return 0, errAt(e.Pos, "external variable %q is a %T; it must be a string, an integer, a float or a boolean", e.Str, v)
	}
	return c.expr(x)
}

func (c *compiler) stringOp(e *Expr) (valueType, *Error) {
	c.op(e.Op)
	t := typeBool
	if e.Op == OpCount || e.Op == OpOffset || e.Op == OpLength {
		t = typeInt
	}
	if err := c.str(e, e.Op != OpFound); err != nil {
		return 0, err
	}
	if e.Op == OpCount || e.Op == OpOffset || e.Op == OpLength {
		c.num(len(e.Args))
	}
	for _, a := range e.Args {
		if _, err := c.want(a, typeInt); err != nil {
			return 0, err
		}
	}
	return t, nil
}
