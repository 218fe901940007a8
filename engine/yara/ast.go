// Package yara is the YARA 4 rule language: lexer, parser, compiler to a flat
// code and evaluator of that code.
//
// The syntax tree covers the whole language. What the compiler cannot express
// yet is an error of that one rule, with its place; it never drops a part of a
// rule in silence. See docs/engine.md for the list.
package yara

import (
	"fmt"

	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// Pos is a place in a file; both count from 1, columns in bytes.
type Pos struct{ Line, Column int }

// Error is a fault of a rule or of the text between rules.
type Error struct {
	Pos    Pos
	Rule   string // the rule's name, empty outside of rules
	Reason string
}

func (e *Error) Error() string {
	if e.Rule == "" {
		return fmt.Sprintf("%d:%d: %s", e.Pos.Line, e.Pos.Column, e.Reason)
	}
	return fmt.Sprintf("%d:%d: rule %s: %s", e.Pos.Line, e.Pos.Column, e.Rule, e.Reason)
}

func errAt(p Pos, format string, args ...any) *Error {
	return &Error{Pos: p, Reason: fmt.Sprintf(format, args...)}
}

// File is a parsed file: the rules that are well formed, in order.
type File struct {
	Imports  []Import
	Includes []Import
	Rules    []*Rule
}

// Import is an import or include statement.
type Import struct {
	Pos  Pos
	Name string
}

// Rule is one rule.
type Rule struct {
	Pos             Pos
	Name            string
	Global, Private bool
	Tags            []string
	Meta            []Meta
	Strings         []*String
	Condition       *Expr
}

// Meta is one entry of a rule's meta section; Value is a string, int64 or bool.
type Meta struct {
	Name  string
	Value any
}

// MetaString returns the last string value of a meta entry, or "".
func (r *Rule) MetaString(name string) string {
	v := ""
	for _, m := range r.Meta {
		if s, ok := m.Value.(string); ok && m.Name == name {
			v = s
		}
	}
	return v
}

// StringKind is how a string is written.
type StringKind uint8

// The kinds of strings.
const (
	Text StringKind = iota
	Hex
	Regex
)

// String is one entry of a rule's strings section.
type String struct {
	Pos  Pos
	ID   string // with its $; "$" when anonymous
	Kind StringKind
	Text []byte        // of Text
	Node *pattern.Node // of Hex and Regex
	Mods Modifiers
}

// Modifiers of a string.
type Modifiers struct {
	NoCase, Wide, ASCII, FullWord, Private bool
	Xor                                    bool
	XorMin, XorMax                         int
	Base64, Base64Wide                     bool
	Alphabet, AlphabetWide                 string
}

// Op is the operation of an Expr.
type Op uint8

// The operations. Args are in the order in which they are written.
const (
	OpInt    Op = iota // Int
	OpFloat            // Float
	OpString           // Str
	OpBool             // Int 0 or 1
	OpRegex            // Node; Str is the text
	OpFilesize
	OpEntrypoint
	OpName   // Str: a variable, a rule, a module or an external variable
	OpMember // Args[0] . Str
	OpIndex  // Args[0] [ Args[1] ]
	OpCall   // Args[0] ( Args[1:] )
	OpFound  // $Str
	OpAt     // $Str at Args[0]
	OpIn     // $Str in Args[0]..Args[1]
	OpCount  // #Str, or in Args[0]..Args[1]
	OpOffset // @Str[Args[0]], the first without Args
	OpLength // !Str[Args[0]]
	OpRead   // Str(Args[0]): uint16be and the like
	OpNot
	OpDefined
	OpNeg
	OpBitNot
	OpAnd
	OpOr
	OpEq
	OpNe
	OpLt
	OpLe
	OpGt
	OpGe
	OpAdd
	OpSub
	OpMul
	OpDiv
	OpMod
	OpBitAnd
	OpBitOr
	OpBitXor
	OpShl
	OpShr
	OpContains
	OpIContains
	OpStartsWith
	OpIStartsWith
	OpEndsWith
	OpIEndsWith
	OpIEquals
	OpMatches
	OpOf    // Quant of Set; Args: none, [at], or [from, to]
	OpForOf // for Quant of Set : (Args[0])
	OpForIn // for Quant Vars in Iter : (Args[last])
)

// Expr is a node of a condition.
type Expr struct {
	Op    Op
	Pos   Pos
	Int   int64
	Float float64
	Str   string
	Node  *pattern.Node
	Args  []*Expr
	Quant *Quantifier
	Set   *Set
	Vars  []string
	Iter  *Iterator
}

// QuantKind is how many a quantifier demands.
type QuantKind uint8

// The quantifiers.
const (
	QuantAll QuantKind = iota
	QuantAny
	QuantNone
	QuantCount   // at least N
	QuantPercent // at least N percent
)

// Quantifier is the part before "of" or after "for".
type Quantifier struct {
	Kind QuantKind
	N    *Expr
}

// Set is the part after "of": strings or rules. Them is all strings of the
// rule. A name may end in *.
type Set struct {
	Them    bool
	Strings []string // with their $
	Rules   []string
}

// Iterator is what a for loop runs over: a range, a list, or a value of a
// module.
type Iterator struct {
	From, To *Expr
	List     []*Expr
	Value    *Expr
}
