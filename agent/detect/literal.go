package detect

import (
	"regexp/syntax"
	"slices"
	"strings"
)

// Bounds of what is looked for in place of a regular expression.
const (
	maxExact    = 24 // texts that a part may be, while they are put together
	maxRequired = 48 // texts of which a match has one
	maxClass    = 6  // characters of a class that are written out
)

// requiredLiterals finds texts in lower case of which every match of the
// regular expression contains at least one, those that are most often found
// first; none when there are no such, or when they are so short that nearly every
// value has them.
func requiredLiterals(re string) []string {
	s, err := syntax.Parse(re, syntax.Perl)
	if err != nil {
		return nil
	}
	best := needed(known(s.Simplify(), 0).best())
	if len(best) == 0 || len(best) > 1 && shortest(best) < 2 {
		return nil
	}
	slices.SortStableFunc(best, func(a, b string) int { return len(a) - len(b) })
	return append(best, foldedFar(s, 0)...)
}

// far are the letters outside ASCII that fold to letters of ASCII, k and s.
// What is known of an expression leaves them out: a match that has one of them
// is found by it.
var far = []string{"\u212a", "\u017f"}

// foldedFar gives those of far that a match may have in place of a letter.
func foldedFar(s *syntax.Regexp, depth int) []string {
	if depth > 100 {
		return far
	}
	var out []string
	for _, sub := range s.Sub {
		out = union(out, foldedFar(sub, depth+1))
	}
	switch {
	case s.Op == syntax.OpLiteral && s.Flags&syntax.FoldCase != 0:
		for _, r := range s.Rune {
			switch r {
			case 'k', 'K', '\u212a':
				out = union(out, far[:1])
			case 's', 'S', '\u017f':
				out = union(out, far[1:])
			}
		}
	case s.Op == syntax.OpCharClass:
		for i := 0; i+1 < len(s.Rune); i += 2 {
			if s.Rune[i] >= 0x80 && s.Rune[i] == s.Rune[i+1] && isFar(s.Rune[i]) {
				out = union(out, []string{string(s.Rune[i])})
			}
		}
	}
	return out
}

func isFar(r rune) bool { return slices.Contains(far, string(r)) }

// knowledge is what is known of the texts that a part of a regular expression
// matches: all of them (exact), or that each contains one of required. Neither:
// nothing is known.
type knowledge struct{ exact, required []string }

// best is the better of the two: longer texts are rarer, fewer are better.
func (k knowledge) best() []string {
	if better(k.exact, k.required) {
		return k.exact
	}
	return k.required
}

func better(a, b []string) bool {
	la, lb := shortest(a), shortest(b)
	if la != lb {
		return la > lb
	}
	return la > 0 && len(a) < len(b)
}

// needed leaves out the texts that contain another one.
func needed(texts []string) []string {
	var out []string
	for i, t := range texts {
		if !slices.ContainsFunc(texts, func(o string) bool { return o != t && strings.Contains(t, o) }) && !slices.Contains(texts[:i], t) {
			out = append(out, t)
		}
	}
	return out
}

// shortest is the length of the shortest text; 0 for none.
func shortest(texts []string) int {
	if len(texts) == 0 {
		return 0
	}
	n := len(texts[0])
	for _, t := range texts[1:] {
		n = min(n, len(t))
	}
	return n
}

func known(s *syntax.Regexp, depth int) knowledge {
	if depth > 100 {
		return knowledge{}
	}
	switch s.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return knowledge{exact: []string{""}}
	case syntax.OpLiteral:
		return knownLiteral(s)
	case syntax.OpCharClass:
		return knownClass(s)
	case syntax.OpCapture:
		return known(s.Sub[0], depth+1)
	case syntax.OpPlus:
		return knowledge{required: known(s.Sub[0], depth+1).best()}
	case syntax.OpRepeat:
		if s.Min > 0 {
			return knowledge{required: known(s.Sub[0], depth+1).best()}
		}
	case syntax.OpQuest:
		if k := known(s.Sub[0], depth+1); k.exact != nil && len(k.exact) < maxExact {
			return knowledge{exact: union(k.exact, []string{""})}
		}
	case syntax.OpConcat:
		return knownConcat(s.Sub, depth)
	case syntax.OpAlternate:
		return knownAlternate(s.Sub, depth)
	}
	return knowledge{}
}

func knownLiteral(s *syntax.Regexp) knowledge {
	if s.Flags&syntax.FoldCase == 0 {
		return knowledge{exact: []string{lower(string(s.Rune))}}
	}
	// Folding of other letters changes more than their case. What is between them
	// is certain.
	longest, part, whole := "", []rune(nil), true
	for _, r := range s.Rune {
		if r >= 0x80 {
			part, whole = nil, false
			continue
		}
		if part = append(part, r); len(part) > len(longest) {
			longest = lower(string(part))
		}
	}
	switch {
	case whole:
		return knowledge{exact: []string{longest}}
	case longest != "":
		return knowledge{required: []string{longest}}
	}
	return knowledge{}
}

func knownClass(s *syntax.Regexp) knowledge {
	var k knowledge
	for i := 0; i+1 < len(s.Rune); i += 2 {
		if s.Rune[i] == s.Rune[i+1] && isFar(s.Rune[i]) {
			continue
		}
		for r := s.Rune[i]; r <= s.Rune[i+1]; r++ {
			if r >= 0x80 || len(k.exact) == maxClass {
				return knowledge{}
			}
			k.exact = union(k.exact, []string{lower(string(r))})
		}
	}
	return k
}

// knownConcat puts exact parts together as long as they are few; the best of
// what was put together is required.
func knownConcat(subs []*syntax.Regexp, depth int) knowledge {
	var required []string
	consider := func(texts []string) {
		if better(texts, required) {
			required = texts
		}
	}
	exact, whole := []string{""}, true
	for _, sub := range subs {
		if sub.Op == syntax.OpPlus {
			// What is repeated stands behind what was before, and before what follows.
			if k := known(sub.Sub[0], depth+1); k.exact != nil && len(exact)*len(k.exact) <= maxExact {
				consider(product(exact, k.exact))
				exact, whole = k.exact, false
				continue
			}
		}
		k := known(sub, depth+1)
		if k.exact == nil {
			consider(exact)
			consider(k.required)
			exact, whole = []string{""}, false
			continue
		}
		if len(exact)*len(k.exact) > maxExact {
			consider(exact)
			exact, whole = []string{""}, false
		}
		exact = product(exact, k.exact)
	}
	if whole {
		return knowledge{exact: exact, required: required}
	}
	consider(exact)
	return knowledge{required: required}
}

func knownAlternate(subs []*syntax.Regexp, depth int) knowledge {
	var exact, required []string
	isExact, isRequired := true, true
	for _, sub := range subs {
		k := known(sub, depth+1)
		if isExact = isExact && k.exact != nil; isExact {
			exact = union(exact, k.exact)
		}
		best := k.best()
		if isRequired = isRequired && shortest(best) > 0; isRequired {
			required = union(required, best)
		}
		isExact, isRequired = isExact && len(exact) <= maxExact, isRequired && len(required) <= maxRequired
	}
	var k knowledge
	if isExact {
		k.exact = exact
	}
	if isRequired {
		k.required = required
	}
	return k
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, t := range b {
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

func product(a, b []string) []string {
	var out []string
	for _, x := range a {
		for _, y := range b {
			out = union(out, []string{x + y})
		}
	}
	return out
}
