package detect

import (
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/content/rules"
)

func TestRequiredLiterals(t *testing.T) {
	for re, want := range map[string][]string{
		`foo\d+barbaz`: {"barbaz"}, `(abc|abd)x`: {"abcx", "abdx"}, `a?b*`: nil, `(?i)hello`: {"hello"}, `(?i)risk`: {"risk", "\u212a", "\u017f"},
		`(Abc)+`: {"abc"}, `x{2,3}yy`: {"xxyy"}, `^$`: nil, `(`: nil, `.*`: nil, `[a-z]+`: nil,
		`(?:^|/)(?:wget|curl)(?: |$)`: {"wget", "curl"}, `\b[wW]get\b.*https?://`: {"http://", "https://"},
		`(?:nc|ncat)\s+-e`: {"\t-e", "\n-e", "\f-e", "\r-e", " -e"}, `(?:a|b)\d`: nil, `\bpython[23]?\b`: {"python"},
		`(?:x.*y|\d)`: nil, `nc +-e`: {"nc "}, `\b(?:nc|ncat)\b +\S+`: {"nc ", "ncat "}, `(?i)[sx]y`: {"sy", "xy", "\u017f"}, `(?:ab\d|cd\d)+`: {"ab", "cd"},
	} {
		got := requiredLiterals(re)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", re, got, want)
		}
	}
}

// TestRequiredLiteralsAreThere makes texts that the regular expressions of our
// rules match, and looks for the literals in them.
func TestRequiredLiteralsAreThere(t *testing.T) {
	e := New(Options{})
	e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	seen := map[string]bool{}
	for _, set := range e.active.Load().sets {
		for i := range set.atoms {
			if re := set.atoms[i].re; re != nil {
				seen[re.String()] = true
			}
		}
	}
	if len(seen) < 20 {
		t.Fatalf("%d regular expressions: the rules are not there", len(seen))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	bounded, matched := 0, 0
	for text := range seen {
		lits := requiredLiterals(text)
		if len(lits) > 0 {
			bounded++
		}
		parsed, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile(text)
		for range 40 {
			v := anyMatch(parsed, rnd)
			if !re.MatchString(v) { // word boundaries are not looked after
				continue
			}
			matched++
			if len(lits) > 0 && !slices.ContainsFunc(lits, func(l string) bool { return strings.Contains(lower(v), l) }) {
				t.Errorf("%s matches %q, which has none of %q", text, v, lits)
				break
			}
		}
	}
	t.Logf("%d of %d regular expressions have literals, %d texts", bounded, len(seen), matched)
	if matched < 10*len(seen) || bounded < len(seen)/2 {
		t.Errorf("%d texts for %d regular expressions, %d of them with literals: hardly anything was tested", matched, len(seen), bounded)
	}
}

// anyMatch makes a text that s matches, but for its boundaries.
func anyMatch(s *syntax.Regexp, rnd *rand.Rand) string {
	repeat := func(from, to int) string {
		var b strings.Builder
		for range from + rnd.IntN(to-from+1) {
			b.WriteString(anyMatch(s.Sub[0], rnd))
		}
		return b.String()
	}
	switch s.Op {
	case syntax.OpLiteral:
		v := string(s.Rune)
		if s.Flags&syntax.FoldCase != 0 && rnd.IntN(2) == 0 {
			v = strings.NewReplacer("k", "\u212a", "K", "\u212a", "s", "\u017f", "S", "\u017f").Replace(strings.ToUpper(v))
		}
		return v
	case syntax.OpCharClass:
		i := 2 * rnd.IntN(len(s.Rune)/2)
		return string(s.Rune[i] + rnd.Int32N(min(s.Rune[i+1]-s.Rune[i]+1, 64)))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return string(rune(' ' + rnd.IntN(90)))
	case syntax.OpCapture:
		return anyMatch(s.Sub[0], rnd)
	case syntax.OpStar:
		return repeat(0, 3)
	case syntax.OpPlus:
		return repeat(1, 3)
	case syntax.OpQuest:
		return repeat(0, 1)
	case syntax.OpRepeat:
		return repeat(s.Min, max(s.Min+2, min(s.Max, s.Min+2)))
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range s.Sub {
			b.WriteString(anyMatch(sub, rnd))
		}
		return b.String()
	case syntax.OpAlternate:
		return anyMatch(s.Sub[rnd.IntN(len(s.Sub))], rnd)
	}
	return ""
}
