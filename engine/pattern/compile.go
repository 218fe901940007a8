package pattern

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/match"
)

// Errors of Compile.
var (
	// ErrNoLiteral is for patterns without a single fixed byte to look for.
	ErrNoLiteral = errors.New("has no fixed byte to look for")
	// ErrTooLarge is for patterns whose program would pass the limits.
	ErrTooLarge = errors.New("is too large")
)

const (
	maxInsts     = 1 << 15
	maxVariants  = 256
	maxLocalGap  = 256  // wider gaps split the pattern into parts
	maxUnbounded = 4096 // bytes an unbounded repetition may cover in one match
	maxParts     = 64
	maxAround    = 64 // bytes around a literal that are compared with it
	crossedCost  = 8  // by which literals are worse that a repetition can run over
)

// Options of Compile.
type Options struct {
	// Split lets wide and unbounded gaps split the pattern into parts that are
	// looked for by themselves (the gap forms of hex strings and ClamAV
	// signatures). Without it unbounded repetitions cover at most 4096 bytes.
	Split bool
	// SplitAll makes every gap of variable length (Gap) divide the pattern, so
	// that matches can be counted by their last parts.
	SplitAll bool
	// Loose accepts parts without a literal: their variant has no Atom, and its
	// program must be tried wherever Prefix allows.
	Loose bool
}

// Part is a piece of a pattern between wide gaps. A pattern matches when its
// parts match in order, each GapMin to GapMax bytes (GapMax < 0: any number)
// behind the end of the one before.
type Part struct {
	GapMin, GapMax int64
	Variants       []Variant
}

// Variant is one way to find a part: where Atom stands (in either case), run
// Prog. A part matches when one of its variants does.
type Variant struct {
	Atom []byte
	Mask []byte // of the atom; nil when every bit counts
	Prog []byte
	// Context is the atom with the bytes around it that are fixed but for
	// ContextMask, of which Lead stand before the atom: what a matcher may
	// compare before it lets Prog run.
	Context, ContextMask []byte
	Lead                 int
}

// The program kinds; a program is a header of six little-endian 32-bit words
// (kind and flags, a, b, c, limit, d) and its body.
const (
	progLiteral = iota // a bytes; the atom stands b bytes in
	progMasked         // a values, a masks; the atom stands b bytes in
	// progStates has the values and masks of the atom with the bytes around it
	// that are fixed but for masks (d: their number, and in the upper half how
	// many stand before the atom), which are compared first; then a forward
	// instructions to run behind them, b backward ones to run before, and c
	// classes.
	progStates
	progHeader = 24

	flagLazy      = 1 << 16 // the shortest match is wanted
	flagFwdAssert = 1 << 17 // the forward instructions have assertions
	flagRevAssert = 1 << 18
)

// The instructions of progStates, 12 bytes each: op, v, m, unused, x, y.
const (
	opByte   = iota // consume b with b&m == v
	opClass         // consume one of class x
	opSplit         // go on at x and at y
	opJump          // go on at x
	opAssert        // go on if assertion v holds; ClamByteBefore has its value behind m and its bounds in x
	opMatch
	instBytes = 12
)

// Compile turns a pattern into parts. The node must not be used afterwards.
func Compile(n *Node, o Options) ([]Part, error) {
	seq := flatten(n, nil)
	parts := []Part{}
	cur := Part{}
	var nodes []*Node
	flush := func() error {
		vs, err := variants(nodes, 0)
		if o.Loose && errors.Is(err, ErrNoLiteral) {
			var prog []byte
			if prog, err = stateProgram(nodes, 0, 0); err == nil {
				vs = []Variant{{Prog: prog}}
			}
		}
		if err != nil {
			if len(parts) > 0 || o.Split {
				return fmt.Errorf("part %d: %w", len(parts)+1, err)
			}
			return err
		}
		cur.Variants = vs
		parts = append(parts, cur)
		nodes = nil
		return nil
	}
	for _, s := range seq {
		wide := s.Kind == Repeat && s.Subs[0].IsAny() && (s.Max < 0 || s.Max > maxLocalGap || o.SplitAll && s.Lazy && s.Min != s.Max)
		if !o.Split || !wide || len(nodes) == 0 {
			if o.Split && wide && len(parts) == 0 {
				// A gap before everything else demands no more than its minimum.
				for range min(s.Min, maxUnbounded) {
					nodes = append(nodes, Any())
				}
				continue
			}
			nodes = append(nodes, s)
			continue
		}
		if err := flush(); err != nil {
			return nil, err
		}
		if len(parts) >= maxParts {
			return nil, fmt.Errorf("%w: more than %d parts", ErrTooLarge, maxParts)
		}
		cur = Part{GapMin: int64(s.Min), GapMax: int64(s.Max)}
	}
	if len(nodes) == 0 && len(parts) > 0 {
		return parts, nil // a gap at the very end
	}
	if err := flush(); err != nil {
		return nil, err
	}
	return parts, nil
}

// run is a piece of a sequence that is a literal but for the case of letters.
type run struct {
	at, n int
	atom  []byte
	mask  []byte
	cost  float64
}

func bestRun(seq []*Node) (run, bool) {
	best, ok := run{}, false
	for i := 0; i < len(seq); {
		if seq[i].Kind != Byte || !match.Fixed(seq[i].V, seq[i].M) {
			i++
			continue
		}
		r := run{at: i}
		for i < len(seq) && seq[i].Kind == Byte && match.Fixed(seq[i].V, seq[i].M) {
			r.atom = append(r.atom, seq[i].V)
			r.mask = append(r.mask, seq[i].M)
			i++
		}
		r.n = len(r.atom)
		r.cost = match.Cost(r.atom)
		if crossed(seq, r.atom) {
			r.cost *= crossedCost
		}
		if !ok || r.cost < best.cost {
			best, ok = r, true
		}
	}
	return best, ok
}

// crossed reports whether a long repetition of the sequence can run over the
// literal. Where none can, the bytes between two places of the literal are
// looked at for these two only; otherwise a file full of it costs the length of
// the repetition at each.
func crossed(seq []*Node, literal []byte) bool {
	return slices.ContainsFunc(seq, func(s *Node) bool {
		if s.Kind != Repeat || s.Max >= 0 && s.Max <= maxLocalGap {
			return false
		}
		sub := s.Subs[0]
		for _, b := range literal {
			switch {
			case sub.Kind == Byte && b&sub.M == sub.V:
			case sub.Kind == Class && sub.Set.Has(b):
			default:
				return false
			}
		}
		return true
	})
}

// addContext takes in up to maxAround bytes on both sides of the run.
func (v *Variant) addContext(seq []*Node, r run) {
	from, to := r.at, r.at+r.n
	for from > 0 && r.at-from < maxAround && seq[from-1].Kind == Byte {
		from--
	}
	for to < len(seq) && to-r.at-r.n < maxAround && seq[to].Kind == Byte {
		to++
	}
	v.Lead = r.at - from
	for _, s := range seq[from:to] {
		v.Context = append(v.Context, s.V)
		v.ContextMask = append(v.ContextMask, s.M)
	}
}

// variants finds the literals of a sequence. Where it has none, or a poor one,
// and an alternative offers better, there is one variant per branch.
func variants(seq []*Node, depth int) ([]Variant, error) {
	best, ok := bestRun(seq)
	if (!ok || best.cost > 1e-4) && depth < 4 {
		alts, cost := bestAlternative(seq)
		if alts != nil && (!ok || cost*2 < best.cost) {
			var out []Variant
			for _, s := range alts {
				v, err := variants(s, depth+1)
				if err != nil {
					out = nil
					break
				}
				out = append(out, v...)
			}
			if out != nil && len(out) <= maxVariants {
				return out, nil
			}
		}
	}
	if !ok {
		return nil, ErrNoLiteral
	}
	prog, err := program(seq, best)
	if err != nil {
		return nil, err
	}
	v := Variant{Atom: best.atom, Prog: prog}
	if slices.ContainsFunc(best.mask, func(m byte) bool { return m != 0xff }) {
		v.Mask = best.mask
	}
	v.addContext(seq, best)
	return []Variant{v}, nil
}

// bestAlternative opens the alternative of the sequence whose branches are
// found most cheaply; cost is the sum over the branches.
func bestAlternative(seq []*Node) ([][]*Node, float64) {
	var best [][]*Node
	bestCost := 0.0
	for i, s := range seq {
		var branches []*Node
		switch {
		case s.Kind == Alt && len(s.Subs) <= 64:
			branches = s.Subs
		case s.Kind == Class && s.Set.Len() <= 4 && s.Set.Len() > 0:
			for b := range 256 {
				if s.Set.Has(byte(b)) {
					branches = append(branches, Masked(byte(b), 0xff))
				}
			}
		case s.Kind == Repeat && s.Min == 0 && s.Max == 1:
			branches = []*Node{{Kind: Seq}, s.Subs[0]}
		default:
			continue
		}
		var opened [][]*Node
		cost := 0.0
		for _, br := range branches {
			one := append([]*Node{}, seq[:i]...)
			one = flatten(br, one)
			one = append(one, seq[i+1:]...)
			r, ok := bestRun(one)
			if !ok {
				r.cost = 1
			}
			cost += r.cost
			opened = append(opened, one)
		}
		if best == nil || cost < bestCost {
			best, bestCost = opened, cost
		}
	}
	return best, bestCost
}

func header(kind, a, b, c, limit, d int) []byte {
	h := make([]byte, progHeader)
	for i, v := range []int{kind, a, b, c, limit, d} {
		binary.LittleEndian.PutUint32(h[4*i:], uint32(v))
	}
	return h
}

// program compiles a sequence around its chosen literal.
func program(seq []*Node, r run) ([]byte, error) {
	fixed, exact := true, true
	for _, s := range seq {
		if s.Kind != Byte {
			fixed = false
			break
		}
		exact = exact && s.M == 0xff
	}
	if fixed {
		kind := progMasked
		if exact {
			kind = progLiteral
		}
		p := header(kind, len(seq), r.at, 0, 0, 0)
		for _, s := range seq {
			p = append(p, s.V)
		}
		if !exact {
			for _, s := range seq {
				p = append(p, s.M)
			}
		}
		return p, nil
	}
	return stateProgram(seq, r.at, r.n)
}

// stateProgram is the program of a sequence whose literal is the n elements
// from at.
func stateProgram(seq []*Node, at, n int) ([]byte, error) {
	from, to := at, at+n
	for n > 0 && from > 0 && at-from < maxAround && seq[from-1].Kind == Byte {
		from--
	}
	for n > 0 && to < len(seq) && to-at-n < maxAround && seq[to].Kind == Byte {
		to++
	}
	if to-from > 0xffff {
		return nil, fmt.Errorf("%w: a literal of %d bytes beside something else", ErrTooLarge, n)
	}
	var fwd, rev emitter
	for _, s := range seq[to:] {
		fwd.node(s, false)
	}
	fwd.inst(opMatch, 0, 0, 0)
	for i := from - 1; i >= 0; i-- {
		rev.node(seq[i], true)
	}
	rev.inst(opMatch, 0, 0, 0)
	if fwd.err != nil {
		return nil, fwd.err
	}
	if rev.err != nil {
		return nil, rev.err
	}
	// Class numbers of the backward program follow those of the forward one.
	for i := 0; i < len(rev.code); i += instBytes {
		if rev.code[i] == opClass {
			x := binary.LittleEndian.Uint32(rev.code[i+4:])
			binary.LittleEndian.PutUint32(rev.code[i+4:], x+uint32(len(fwd.classes)))
		}
	}
	classes := append(fwd.classes, rev.classes...)
	limit := 0
	if fwd.unbounded || rev.unbounded {
		limit = maxUnbounded
	}
	kind := progStates
	if fwd.lazy {
		kind |= flagLazy
	}
	if fwd.asserts {
		kind |= flagFwdAssert
	}
	if rev.asserts {
		kind |= flagRevAssert
	}
	p := header(kind, len(fwd.code)/instBytes, len(rev.code)/instBytes, len(classes), limit, (to-from)|(at-from)<<16)
	for _, s := range seq[from:to] {
		p = append(p, s.V)
	}
	for _, s := range seq[from:to] {
		p = append(p, s.M)
	}
	p = append(p, fwd.code...)
	p = append(p, rev.code...)
	for _, c := range classes {
		for _, w := range c {
			p = binary.LittleEndian.AppendUint64(p, w)
		}
	}
	return p, nil
}

type emitter struct {
	code      []byte
	classes   []Set
	unbounded bool
	lazy      bool
	asserts   bool
	err       error
}

func (e *emitter) pc() int { return len(e.code) / instBytes }

// inst appends an instruction; its second target is patched in later.
func (e *emitter) inst(op, v, m byte, x int) int {
	at := e.pc()
	if at >= maxInsts {
		e.err = fmt.Errorf("%w: more than %d steps", ErrTooLarge, maxInsts)
		return 0
	}
	e.code = append(e.code, op, v, m, 0)
	e.code = binary.LittleEndian.AppendUint32(e.code, uint32(x))
	e.code = binary.LittleEndian.AppendUint32(e.code, 0)
	return at
}

func (e *emitter) patch(at, word, target int) {
	if e.err == nil {
		binary.LittleEndian.PutUint32(e.code[at*instBytes+4+4*word:], uint32(target))
	}
}

func (e *emitter) node(n *Node, reverse bool) {
	if e.err != nil {
		return
	}
	switch n.Kind {
	case Byte:
		e.inst(opByte, n.V, n.M, 0)
	case Class:
		id := -1
		for i := range e.classes {
			if e.classes[i] == n.Set {
				id = i
			}
		}
		if id < 0 {
			id = len(e.classes)
			e.classes = append(e.classes, n.Set)
		}
		e.inst(opClass, 0, 0, id)
	case Assert:
		e.asserts = true
		at := e.inst(opAssert, byte(n.Assert), n.M, n.Min&0xffff|n.Max<<16)
		if e.err == nil {
			e.code[at*instBytes+3] = n.V
		}
	case Seq:
		for i := range n.Subs {
			if reverse {
				e.node(n.Subs[len(n.Subs)-1-i], true)
			} else {
				e.node(n.Subs[i], false)
			}
		}
	case Alt:
		var ends []int
		for i, s := range n.Subs {
			if i == len(n.Subs)-1 {
				e.node(s, reverse)
				break
			}
			split := e.inst(opSplit, 0, 0, e.pc()+1)
			e.node(s, reverse)
			ends = append(ends, e.inst(opJump, 0, 0, 0))
			e.patch(split, 1, e.pc())
		}
		for _, at := range ends {
			e.patch(at, 0, e.pc())
		}
	case Repeat:
		if n.Lazy {
			e.lazy = true
		}
		for range n.Min {
			e.node(n.Subs[0], reverse)
			if e.err != nil {
				return
			}
		}
		if n.Max < 0 {
			e.unbounded = true
			split := e.inst(opSplit, 0, 0, e.pc()+1)
			e.node(n.Subs[0], reverse)
			e.inst(opJump, 0, 0, split)
			e.patch(split, 1, e.pc())
			return
		}
		var splits []int
		for range n.Max - n.Min {
			splits = append(splits, e.inst(opSplit, 0, 0, e.pc()+1))
			e.node(n.Subs[0], reverse)
			if e.err != nil {
				return
			}
		}
		for _, at := range splits {
			e.patch(at, 1, e.pc())
		}
	}
}

// CompileSearch compiles a pattern for Search: it needs no literal.
func CompileSearch(n *Node) ([]byte, error) {
	seq := flatten(n, nil)
	// Matching starts anywhere: a leading gap that is not part of the match.
	seq = append([]*Node{Gap(0, -1)}, seq...)
	return stateProgram(seq, 0, 0)
}
