// Package sample makes files that satisfy a YARA rule, and files that narrowly
// miss it: for testing rules, and for testing engines against each other.
//
// A condition is solved by choosing, at every "or" and "of", which part is to
// hold, and noting what that demands of the file: strings (how often, where),
// bytes at places, the size, properties of a program. Then the file is laid out.
// Choices are random, so that a second attempt may succeed where the first did
// not; whether a file does satisfy the rule is for an engine to say. Not solved
// are hashes and other one-way functions.
package sample

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/yara"
)

// MaxSize is the largest file that is made.
const MaxSize = 16 << 20

// maxMiss is the size from which files are not filled up to be too large.
const maxMiss = 1 << 20

// ErrUnsolved is wrapped by the errors of attempts that did not come to a file.
var ErrUnsolved = errors.New("no file found that satisfies the rule")

// Maker makes files for the rules of a set.
type Maker struct {
	// Rules are those that others may refer to, by name.
	Rules map[string]*yara.Rule
	// Externals are the values of external variables during the scan.
	Externals map[string]string
}

// File is a file made for a rule.
type File struct {
	Data []byte
	plan *plan
	// Where strings begin and end that were asked for.
	placed []placed
}

type placed struct {
	s          *yara.String
	start, end int
}

// demand is what is asked of one string.
type demand struct {
	count int     // at least
	exact bool    // and not more
	at    []int64 // it must begin at each of these
	in    [][2]int64
}

// plan is what is asked of a file.
type plan struct {
	strings map[*yara.String]*demand
	order   []*yara.String
	without map[*yara.String]bool
	bytes   map[int64]byte
	lo, hi  int64 // bounds of the size, included
	program program
}

func (p *plan) clone() *plan {
	c := *p
	c.strings = make(map[*yara.String]*demand, len(p.strings))
	for s, d := range p.strings {
		e := *d
		e.at, e.in = slices.Clone(d.at), slices.Clone(d.in)
		c.strings[s] = &e
	}
	c.order = slices.Clone(p.order)
	c.without = maps.Clone(p.without)
	c.bytes = maps.Clone(p.bytes)
	c.program = p.program.clone()
	return &c
}

// Satisfy makes one attempt at a file that satisfies a rule. The same generator
// in the same state gives the same file.
func (m *Maker) Satisfy(r *yara.Rule, g *rand.Rand) (*File, error) {
	s := &solver{maker: m, g: g, p: &plan{
		strings: map[*yara.String]*demand{}, without: map[*yara.String]bool{}, bytes: map[int64]byte{}, hi: MaxSize,
	}}
	if !s.rule(r) {
		return nil, fmt.Errorf("rule %s: %w", r.Name, ErrUnsolved)
	}
	f, err := s.layout()
	if err != nil {
		return nil, fmt.Errorf("rule %s: %w: %w", r.Name, ErrUnsolved, err)
	}
	return f, nil
}

// Misses are files like f that differ in one thing that was asked for: a bit of a
// string, a place, a byte, the size. Some may satisfy the rule all the same, in
// another way.
func (f *File) Misses(g *rand.Rand) [][]byte {
	var out [][]byte
	if len(f.placed) > 0 {
		// A bit of a string; and every copy of one string gone.
		p := f.placed[g.IntN(len(f.placed))]
		b := slices.Clone(f.Data)
		b[p.start+g.IntN(p.end-p.start)] ^= 1 << g.IntN(8)
		out = append(out, b)
		gone := slices.Clone(f.Data)
		for _, q := range f.placed {
			if q.s == p.s {
				clear(gone[q.start:q.end])
			}
		}
		out = append(out, gone)
	}
	if len(f.plan.bytes) > 0 {
		at := slices.Sorted(maps.Keys(f.plan.bytes))
		b := slices.Clone(f.Data)
		b[at[g.IntN(len(at))]] ^= 1 << g.IntN(8)
		out = append(out, b)
	}
	for _, d := range f.plan.strings {
		if len(d.at) > 0 || len(d.in) > 0 {
			out = append(out, append([]byte{0}, f.Data...)) // everything one byte later
			break
		}
	}
	if f.plan.lo > 0 {
		out = append(out, f.Data[:f.plan.lo-1])
	}
	if f.plan.hi < maxMiss {
		most := make([]byte, f.plan.hi+1)
		copy(most, f.Data)
		out = append(out, most, most[:f.plan.hi]) // too large, and just not
	}
	return out
}
