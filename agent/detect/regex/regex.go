// Package regex says whether a text matches a regular expression, and nothing
// else: without what matched where, a deterministic automaton can do it, which
// looks at each byte once. The automaton is built while it is used (the states
// that texts really lead to are few) and bounded; where it does not apply,
// package regexp answers. Both always agree.
package regex

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"sync"
)

// Bounds of the automaton of one expression.
const (
	// maxBytes of its states: beyond it they are forgotten and found anew.
	maxBytes = 32 << 10
	// maxForgotten is how often that may happen in one text; regexp, which needs
	// no states, reads it then.
	maxForgotten = 2
	// maxProgram bounds the expression: the steps of a transition.
	maxProgram = 4000
)

// Regexp is an expression. It is safe for use by many goroutines.
//
// What it is compiled to is made when a text is first compared with it: most
// expressions of a set of rules never meet a text that has their literals, and
// compiled they were half of what our rules take of memory (9.0 MB; 4.1 now).
type Regexp struct {
	text string

	mu sync.Mutex // of the automaton
	a  *automaton // nil before it is needed, and where it does not apply
	no bool       // it does not apply

	once sync.Once
	re   *regexp.Regexp // of once
}

// Compile reads an expression with the syntax of package regexp.
func Compile(text string) (*Regexp, error) {
	if _, err := regexp.Compile(text); err != nil {
		return nil, err //nolint:wrapcheck // says "error parsing regexp" and where
	}
	return &Regexp{text: text}, nil
}

// String is the expression as it was given.
func (r *Regexp) String() string { return r.text }

// MatchString says whether text contains a match.
func (r *Regexp) MatchString(text string) bool {
	// Whoever finds the automaton in use does not wait for it.
	if !r.mu.TryLock() {
		return r.plain(text)
	}
	defer r.mu.Unlock()
	if r.a == nil && !r.no {
		r.a = newAutomaton(r.text)
		r.no = r.a == nil
	}
	if r.no {
		return r.plain(text)
	}
	matched, ok := r.a.match(text)
	if !ok {
		return r.plain(text)
	}
	return matched
}

// plain asks package regexp.
func (r *Regexp) plain(text string) bool {
	r.once.Do(func() { r.re = regexp.MustCompile(r.text) }) // Compile has tried it
	return r.re.MatchString(text)
}

// Kinds of what stands before a position, as far as assertions (^ $ \b) ask.
const (
	atBegin = iota
	atLine  // after a line feed
	atWord
	atOther
)

// before are runes of each kind, for syntax.EmptyOpContext.
var before = [...]rune{atBegin: -1, atLine: '\n', atWord: 'a', atOther: ' '}

// Transitions that lead to no state. States have numbers from 0.
const (
	unknown = -1 - iota
	matches
	fails
	beyond // the byte is no ASCII
)

// automaton is the deterministic form of a program as far as it was needed. A
// state is the instructions at which the program may stand before a byte, and
// what came before it: only then is known which assertions hold.
type automaton struct {
	prog     *syntax.Prog
	anchored bool // a match begins where the text does
	class    [256]uint8
	sample   []byte // a byte of each class
	width    int    // classes; the last one is what is no ASCII

	states []state
	next   []int32 // by state and class
	ids    map[string]int32
	bytes  int

	// Working memory.
	set, out []uint32
	stack    []uint32
	seen     []uint32 // by instruction: mark of the run that saw it
	mark     uint32
	key      []byte
}

type state struct {
	insts []uint32 // sorted
	kind  uint8
	ends  int32 // what is so when the text ends here: unknown, matches or fails
}

// newAutomaton returns nil for an expression that is too large.
func newAutomaton(text string) *automaton {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(prog.Inst) > maxProgram {
		return nil
	}
	a := &automaton{prog: prog, anchored: prog.StartCond()&syntax.EmptyBeginText != 0, seen: make([]uint32, len(prog.Inst))}
	a.classes()
	a.forget()
	return a
}

// classes finds the bytes that no instruction and no assertion tells apart.
func (a *automaton) classes() {
	var consumers []*syntax.Inst
	for i := range a.prog.Inst {
		switch in := &a.prog.Inst[i]; in.Op {
		case syntax.InstRune, syntax.InstRune1:
			consumers = append(consumers, in)
		}
	}
	of := make(map[string]uint8)
	key := make([]byte, len(consumers)/8+2)
	for c := range 128 {
		clear(key)
		key[len(key)-1] = kindOf(byte(c))
		for i, in := range consumers {
			if in.MatchRune(rune(c)) {
				key[i/8] |= 1 << (i % 8)
			}
		}
		id, ok := of[string(key)]
		if !ok {
			id = uint8(len(a.sample))
			of[string(key)] = id
			a.sample = append(a.sample, byte(c))
		}
		a.class[c] = id
	}
	for c := 128; c < 256; c++ {
		a.class[c] = uint8(len(a.sample)) // at most 128
	}
	a.width = len(a.sample) + 1
}

func kindOf(c byte) uint8 {
	switch {
	case c == '\n':
		return atLine
	case syntax.IsWordChar(rune(c)):
		return atWord
	}
	return atOther
}

// forget begins anew with the state before the text.
func (a *automaton) forget() {
	a.states, a.next, a.bytes = a.states[:0], a.next[:0], 0
	a.ids = make(map[string]int32)
	a.set = append(a.set[:0], uint32(a.prog.Start))
	a.state(a.set, atBegin)
}

// state gives the number of a state. The instructions are sorted.
func (a *automaton) state(insts []uint32, kind uint8) int32 {
	a.key = append(a.key[:0], kind)
	for _, in := range insts {
		a.key = append(a.key, byte(in), byte(in>>8))
	}
	if id, ok := a.ids[string(a.key)]; ok {
		return id
	}
	id := int32(len(a.states))
	a.ids[string(a.key)] = id
	a.states = append(a.states, state{insts: slices.Clone(insts), kind: kind, ends: unknown})
	for range a.width - 1 {
		a.next = append(a.next, unknown)
	}
	a.next = append(a.next, beyond)
	a.bytes += 64 + len(a.key) + 4*len(insts) + 4*a.width
	return id
}

// match reads text; ok is false where the automaton cannot say.
func (a *automaton) match(text string) (matched, ok bool) {
	at, forgotten := int32(0), 0
	for i := range len(text) {
		c := a.class[text[i]]
		to := a.next[int(at)*a.width+int(c)]
		if to == unknown {
			if a.bytes > maxBytes {
				if forgotten++; forgotten > maxForgotten {
					return false, false
				}
				here := a.states[at]
				a.forget()
				at = a.state(here.insts, here.kind)
			}
			to = a.step(at, a.sample[c])
			a.next[int(at)*a.width+int(c)] = to
		}
		if to < 0 {
			return to == matches, to != beyond
		}
		at = to
	}
	s := &a.states[at]
	if s.ends == unknown {
		s.ends = fails
		if a.follow(s, -1) {
			s.ends = matches
		}
	}
	return s.ends == matches, true
}

// step finds where a byte leads from a state.
func (a *automaton) step(from int32, c byte) int32 {
	if a.follow(&a.states[from], rune(c)) {
		return matches
	}
	a.out = a.out[:0]
	for _, pc := range a.set {
		if in := &a.prog.Inst[pc]; consumes(in, c) {
			a.out = append(a.out, in.Out)
		}
	}
	if !a.anchored {
		a.out = append(a.out, uint32(a.prog.Start)) // or a match begins behind it
	}
	slices.Sort(a.out)
	a.out = slices.Compact(a.out)
	if len(a.out) == 0 {
		return fails
	}
	return a.state(a.out, kindOf(c))
}

func consumes(in *syntax.Inst, c byte) bool {
	switch in.Op {
	case syntax.InstRune, syntax.InstRune1:
		return in.MatchRune(rune(c))
	case syntax.InstRuneAny:
		return true
	case syntax.InstRuneAnyNotNL:
		return c != '\n'
	}
	return false
}

// follow leaves in a.set the instructions that wait for a rune, and reports a
// match. The rune is the next one, of which assertions ask; -1 for none.
func (a *automaton) follow(s *state, next rune) bool {
	a.mark++
	if a.mark == 0 { // after 2^32 runs the old marks would count again
		clear(a.seen)
		a.mark = 1
	}
	holds := syntax.EmptyOpContext(before[s.kind], next)
	a.set = a.set[:0]
	a.stack = append(a.stack[:0], s.insts...)
	for len(a.stack) > 0 {
		pc := a.stack[len(a.stack)-1]
		a.stack = a.stack[:len(a.stack)-1]
		if a.seen[pc] == a.mark {
			continue
		}
		a.seen[pc] = a.mark
		switch in := &a.prog.Inst[pc]; in.Op {
		case syntax.InstMatch:
			return true
		case syntax.InstAlt, syntax.InstAltMatch:
			a.stack = append(a.stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			a.stack = append(a.stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^holds == 0 {
				a.stack = append(a.stack, in.Out)
			}
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			a.set = append(a.set, pc)
		}
	}
	return false
}
