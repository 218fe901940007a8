// Package modules is the modules that YARA rules import: pe, elf, dotnet, math,
// hash, string, time and console.
//
// A module has a type, by which rules are compiled, and a function that makes
// its value for one object. Values are computed when a rule first asks for
// them, and a value that cannot be had is nil, which is YARA's undefined. The
// parsers read hostile files: each reads through Input only, in bounded pieces,
// and each list is bounded.
package modules

import (
	"slices"
	"strings"
	"sync"
)

// Input is the object that a module describes.
type Input interface {
	// Slice returns the n bytes at off, fewer where the object begins or ends
	// within them. It is valid until the next call.
	Slice(off int64, n int) []byte
	// Size of the object in bytes.
	Size() int64
	// Stop reports that work must end.
	Stop() bool
	// Spend notes that a function looks at n bytes. A rule may call one in a
	// loop: who evaluates rules bounds the sum.
	Spend(n int)
}

// Kind is what a value is.
type Kind uint8

// The kinds of values: int64, float64, string, bool (as an argument only),
// Regexp (as an argument only), Object, List, Dict and Func.
const (
	Int Kind = iota
	Float
	String
	Bool
	Regex
	Struct
	Array
	Map
	Function
)

var letters = map[Kind]byte{Int: 'i', Float: 'f', String: 's', Bool: 'b', Regex: 'r'}

// Letter stands for the kind in the signatures of functions; 0 where the kind
// cannot be an argument.
func (k Kind) Letter() byte { return letters[k] }

func (k Kind) String() string {
	return [...]string{"an integer", "a float", "a string", "a boolean", "a regular expression", "a structure", "an array", "a dictionary", "a function"}[k]
}

// Type is the static type of a value.
type Type struct {
	Kind   Kind
	Fields map[string]*Type // of a Struct
	Elem   *Type            // of an Array or a Map
	// Args are the argument lists that a Function accepts, one letter each, and
	// Result is what it returns.
	Args   []string
	Result Kind
}

// Accepts reports whether a function may be called with these arguments.
func (t *Type) Accepts(args string) bool { return slices.Contains(t.Args, args) }

// EntryPoint is the member of pe and elf behind the keyword entrypoint. Rules
// cannot name it, as other members that begin with a zero byte.
const EntryPoint = "\x00entrypoint"

// Object is the value of a Struct. An entry may be a Lazy.
type Object map[string]any

// Lazy is a value that is computed when it is first asked for.
type Lazy func() any

// Get is a member's value; nil is undefined.
func (o Object) Get(name string) any {
	v := o[name]
	if f, ok := v.(Lazy); ok {
		o[name] = nil // a value that asks for itself is undefined
		v = f()
		o[name] = v
	}
	return v
}

// List is the value of an Array.
type List struct {
	N  int
	At func(i int) any
}

// Dict is the value of a Map; Keys in the order in which they were found.
type Dict struct {
	Keys   []string
	Values map[string]any
}

func (d *Dict) set(key string, v any) {
	if d.Values == nil {
		d.Values = map[string]any{}
	}
	if _, ok := d.Values[key]; !ok {
		d.Keys = append(d.Keys, key)
	}
	d.Values[key] = v
}

// Regexp is a regular expression as an argument.
type Regexp interface{ Match(text []byte) bool }

// Func is the value of a Function. Its arguments are defined and of one of the
// declared lists.
type Func func(args []any) any

// Module is something that can be imported.
type Module struct {
	Name string
	// Type is a Struct.
	Type *Type
	// Open makes the module's value for an object.
	Open func(in Input) Object
}

// Names are the modules in the order of their numbers. The order is part of
// the form of compiled rules: new ones go to the end.
var names = []string{"pe", "elf", "dotnet", "math", "hash", "string", "time", "console"}

var table = sync.OnceValue(func() []*Module {
	return []*Module{
		{"pe", peType(), openPE},
		{"elf", elfType(), openELF},
		{"dotnet", dotnetType(), openDotnet},
		{"math", mathType(), openMath},
		{"hash", hashType(), openHash},
		{"string", stringType(), openString},
		{"time", timeType(), openTime},
		{"console", consoleType(), openConsole},
	}
})

// Find returns the number of a module, and whether it exists.
func Find(name string) (int, bool) {
	i := slices.Index(names, name)
	return i, i >= 0
}

// Get returns a module by its number, nil if there is none.
func Get(n int) *Module {
	if n < 0 || n >= len(names) {
		return nil
	}
	return table()[n]
}

// The types are written as short texts: "name:i" for a member, i f s for
// integer, float and string, (..) for a structure, [..] for an array, {..} for
// a dictionary, and i/s/ss for a function that returns i and takes s or ss
// (i/- for one without arguments).
type typeParser struct {
	s string
	i int
}

func (p *typeParser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func kindOf(c byte) Kind {
	switch c {
	case 'f':
		return Float
	case 's':
		return String
	}
	return Int
}

func (p *typeParser) value() *Type {
	c := p.peek()
	p.i++
	switch c {
	case '(':
		t := p.members()
		p.i++
		return t
	case '[', '{':
		t := &Type{Kind: Array}
		if c == '{' {
			t.Kind = Map
		}
		t.Elem = p.value()
		p.i++
		return t
	}
	if p.peek() != '/' {
		return &Type{Kind: kindOf(c)}
	}
	from := p.i + 1
	for strings.IndexByte(" \n\t)", p.peek()) < 0 && p.peek() != 0 {
		p.i++
	}
	args := strings.Split(p.s[from:p.i], "/")
	for i, a := range args {
		if a == "-" {
			args[i] = ""
		}
	}
	return &Type{Kind: Function, Result: kindOf(c), Args: args}
}

func (p *typeParser) members() *Type {
	t := &Type{Kind: Struct, Fields: map[string]*Type{}}
	for {
		for strings.IndexByte(" \n\t", p.peek()) >= 0 && p.peek() != 0 {
			p.i++
		}
		colon := strings.IndexByte(p.s[p.i:], ':')
		if p.peek() == 0 || p.peek() == ')' || colon < 0 {
			return t
		}
		name := p.s[p.i : p.i+colon]
		p.i += colon + 1
		t.Fields[name] = p.value()
	}
}

// structOf reads a type and adds integer constants to it.
func structOf(text string, constants ...map[string]int64) *Type {
	t := (&typeParser{s: text}).members()
	for _, c := range constants {
		for name := range c {
			t.Fields[name] = &Type{Kind: Int}
		}
	}
	return t
}

func withConstants(o Object, constants map[string]int64) Object {
	for name, v := range constants {
		o[name] = v
	}
	return o
}

// list is a List of values at hand.
func list(v []any) List {
	return List{N: len(v), At: func(i int) any { return v[i] }}
}

// IsConstant reports whether a member of a module is a number that does not
// depend on the object.
func IsConstant(module int, member string) bool {
	var ok bool
	switch module {
	case 0:
		_, ok = peConstants[member]
	case 1:
		_, ok = elfConstants[member]
	default:
		ok = member == "MEAN_BYTES"
	}
	return ok
}
