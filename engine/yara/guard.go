package yara

import (
	"slices"

	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

// Guard is what a file must be like for a rule to hold at all, as far as it is
// known before the file is searched: its size, its first bytes and its format.
// A rule whose guard does not let a file pass is false for it.
type Guard struct {
	// MinSize and MaxSize bound the size in bytes, both included.
	MinSize, MaxSize int64
	// Heads are alternatives for the first four bytes (as a little-endian
	// number); none of them: any.
	Heads []Head
	// Needs are formats that the file must have: bits NeedPE and NeedELF.
	Needs uint32
}

// Head is a demand on the first four bytes: b&Mask == Value.
type Head struct{ Value, Mask uint32 }

// The formats a Guard can need.
const (
	NeedPE = 1 << iota
	NeedELF
)

// MaxHeads is how many alternatives a Guard has at most.
const MaxHeads = 4

const anySize = 1<<63 - 1

func open() Guard { return Guard{MaxSize: anySize} }

// both is the guard of a condition that needs a and b.
func both(a, b Guard) Guard {
	g := Guard{MinSize: max(a.MinSize, b.MinSize), MaxSize: min(a.MaxSize, b.MaxSize), Needs: a.Needs | b.Needs, Heads: a.Heads}
	if len(a.Heads) == 0 || len(b.Heads) > 0 && len(b.Heads) < len(a.Heads) {
		g.Heads = b.Heads
	}
	return g
}

// either is the guard of a condition that needs a or b.
func either(a, b Guard) Guard {
	g := Guard{MinSize: min(a.MinSize, b.MinSize), MaxSize: max(a.MaxSize, b.MaxSize), Needs: a.Needs & b.Needs}
	if len(a.Heads) > 0 && len(b.Heads) > 0 {
		g.Heads = slices.Clone(a.Heads)
		for _, h := range b.Heads {
			if !slices.Contains(g.Heads, h) {
				g.Heads = append(g.Heads, h)
			}
		}
		if len(g.Heads) > MaxHeads {
			g.Heads = nil
		}
	}
	return g
}

// guard derives what must be true of the file for e to be true; with without,
// for e to be true although none of the strings was found that are looked for
// in every file.
func (c *compiler) guard(e *Expr, without bool) Guard {
	switch e.Op {
	case OpAnd:
		g := open()
		for _, a := range e.Args {
			g = both(g, c.guard(a, without))
		}
		return g
	case OpOr:
		g, some := open(), false
		for _, a := range e.Args {
			switch {
			case without && c.constant(a) == no:
			case some:
				g = either(g, c.guard(a, without))
			default:
				g, some = c.guard(a, without), true
			}
		}
		return g
	case OpName:
		if r, ok := c.rules[e.Str]; ok {
			return r.guard
		}
	case OpEq, OpLt, OpLe, OpGt, OpGe:
		g := open()
		g.Needs = c.needs(e)
		return both(g, compareGuard(e))
	case OpForIn:
		g := open()
		switch {
		case e.Iter.Value != nil && e.Quant.Kind == QuantAny:
			// Over nothing, only a loop for none or all can be true.
			g.Needs = c.needs(e.Iter.Value)
		case e.Iter.From != nil:
			g.Needs = c.needs(e.Iter.From) | c.needs(e.Iter.To)
		}
		return g
	}
	g := open()
	g.Needs = c.needs(e)
	if e.Op == OpMember && e.Str == "is_pe" {
		g.Needs |= c.format(e)
	}
	return g
}

// needs are the formats without which e is undefined.
func (c *compiler) needs(e *Expr) uint32 {
	switch e.Op {
	case OpMember:
		if base := e.Args[0]; base.Op == OpName {
			// Constants and is_pe are there for every file.
			n, ok := modules.Find(base.Str)
			if !ok || !c.isModule(base.Str) || e.Str == "is_pe" || modules.IsConstant(n, e.Str) {
				return 0
			}
			return c.format(e)
		}
		return c.needs(e.Args[0])
	case OpIndex:
		return c.needs(e.Args[0]) | c.needs(e.Args[1])
	case OpCall, OpNot, OpNeg, OpBitNot, OpEq, OpNe, OpLt, OpLe, OpGt, OpGe, OpAdd, OpSub, OpMul, OpDiv, OpMod,
		OpBitAnd, OpBitOr, OpBitXor, OpShl, OpShr, OpContains, OpIContains, OpStartsWith, OpIStartsWith,
		OpEndsWith, OpIEndsWith, OpIEquals, OpMatches, OpRead:
		n := uint32(0)
		for _, a := range e.Args {
			n |= c.needs(a)
		}
		return n
	}
	return 0
}

func (c *compiler) isModule(name string) bool {
	for _, v := range c.vars {
		if v.name == name {
			return false
		}
	}
	return c.imports[name]
}

// format is what the module of a member describes.
func (c *compiler) format(e *Expr) uint32 {
	if base := e.Args[0]; base.Op == OpName && c.isModule(base.Str) {
		switch base.Str {
		case "pe", "dotnet":
			return NeedPE
		case "elf":
			return NeedELF
		}
	}
	return 0
}

var turned = map[Op]Op{OpEq: OpEq, OpLt: OpGt, OpLe: OpGe, OpGt: OpLt, OpGe: OpLe}

// compareGuard is the guard of a comparison with a constant.
func compareGuard(e *Expr) Guard {
	g := open()
	a, b, op := e.Args[0], e.Args[1], e.Op
	if a.Op == OpInt {
		a, b, op = b, a, turned[op]
	}
	if b.Op != OpInt {
		return g
	}
	v := b.Int
	switch {
	case a.Op == OpFilesize:
		switch op {
		case OpEq:
			g.MinSize, g.MaxSize = v, v
		case OpLt:
			g.MaxSize = v - 1
		case OpLe:
			g.MaxSize = v
		case OpGt:
			g.MinSize = v + 1
		case OpGe:
			g.MinSize = v
		}
	case a.Op == OpRead && op == OpEq && a.Args[0].Op == OpInt && a.Args[0].Int >= 0 && a.Args[0].Int < 4:
		g.Heads = readHeads(a.Str, int(a.Args[0].Int), v)
	}
	return g
}

// readHeads is what an unsigned read of the first four bytes demands.
func readHeads(read string, at int, v int64) []Head {
	width, big := 0, false
	switch read {
	case "uint8", "uint8be":
		width = 1
	case "uint16":
		width = 2
	case "uint16be":
		width, big = 2, true
	case "uint32":
		width = 4
	case "uint32be":
		width, big = 4, true
	}
	if width == 0 || at+width > 4 || v < 0 || v>>(8*width) != 0 {
		return nil
	}
	h := Head{}
	for i := range width {
		b := byte(v >> (8 * i))
		if big {
			b = byte(v >> (8 * (width - 1 - i)))
		}
		h.Value |= uint32(b) << (8 * (at + i))
		h.Mask |= 0xff << (8 * (at + i))
	}
	return []Head{h}
}
