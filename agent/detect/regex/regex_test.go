package regex

import (
	"regexp"
	"strings"
	"sync"
	"testing"
)

func TestMatchString(t *testing.T) {
	for re, texts := range map[string][]string{
		``:                          {"", "a"},
		`^$`:                        {"", "a", "\n"},
		`(?m)^a$`:                   {"a", "b\na\nb", "ba", "ab", "\na"},
		`\bnc\b`:                    {"nc", "bench", "a nc", "nc -l", "/nc", "ncx", "_nc"},
		`\Bnc`:                      {"nc", "bench"},
		`^/(?:tmp|dev/shm)/\S+$`:    {"/tmp/a", "/dev/shm/", "x/tmp/a", "/tmp/a b", "/tmp/a\n"},
		`(?i)lse\.sh(?:\s|$)`:       {"LSE.SH", "lse.sh x", "lse.shx", "l\u017fe.sh"},
		`a.b`:                       {"a\nb", "axb", "a\u00e9b"},
		`(?s)a.b`:                   {"a\nb"},
		`[^a]`:                      {"a", "", "b", "\u00e9", "\xff"},
		`x{3,5}y`:                   {"xxy", "xxxy", "xxxxxxxy"},
		`(?:a|b)*?c`:                {"abac", "abad", "c"},
		`\A(?:abc|abd)\z`:           {"abc", "abd", "abcd"},
		`(a+)+$`:                    {strings.Repeat("a", 60) + "!", "aaa"},
		`[[:alpha:]]\pL`:            {"ab", "a1", "a\u00e9"},
		`(?i)k`:                     {"K", "k", "\u212a"},
		`\.(?:c|cc|cpp)(?:\s|$)|\$`: {"a.c", "a.cx", "a.cc b", "$"},
	} {
		fast, plain := compile(t, re), regexp.MustCompile(re)
		if fast.String() != re {
			t.Errorf("%q calls itself %q", re, fast)
		}
		for range 2 { // with the states and without
			for _, text := range texts {
				if got, want := fast.MatchString(text), plain.MatchString(text); got != want {
					t.Errorf("%q in %q: %v, want %v", re, text, got, want)
				}
			}
		}
	}
	if _, err := Compile(`a(`); err == nil || !strings.Contains(err.Error(), "missing closing )") {
		t.Errorf("a( : %v", err)
	}
}

func compile(t *testing.T, text string) *Regexp {
	t.Helper()
	re, err := Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return re
}

// An expression whose automaton has more states than there is room for forgets
// them, and gives up in texts that need ever more.
func TestBoundedStates(t *testing.T) {
	const text = `(?:a|b)*a(?:a|b){14}c`
	re, plain := compile(t, text), regexp.MustCompile(text)
	var long strings.Builder
	for i, x := 0, uint32(1); i < 20_000; i++ {
		x = x*1664525 + 1013904223
		long.WriteByte("ab"[x>>31])
	}
	for _, tail := range []string{"", "aaaaaaaaaaaaaaac"} {
		if re.MatchString(long.String()+tail) != plain.MatchString(long.String()+tail) {
			t.Errorf("with %q at the end: the answers differ", tail)
		}
	}
	if _, ok := re.a.match(long.String()); ok {
		t.Error("the automaton answered although it had to forget its states")
	}
	if re.a.bytes > maxBytes+8<<10 {
		t.Errorf("%d bytes of states", re.a.bytes)
	}
	if !re.MatchString("aaaaaaaaaaaaaaac") || re.MatchString("abc") {
		t.Error("short texts are wrong after that")
	}
}

func TestAtTheSameTime(t *testing.T) {
	re := compile(t, `\b(?:foo|bar)\d+$`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if !re.MatchString("a foo123") || re.MatchString("a foo123x") {
					t.Error("wrong")
				}
			}
		})
	}
	wg.Wait()
}

func FuzzMatchString(f *testing.F) {
	for _, seed := range [][2]string{
		{`\bnc\b +(?:-\S+ +)*\S+`, "nc -l 80"},
		{`(?i)^a|b$`, "xB"},
		{`(?:\s|^)x\B`, "a xy"},
		{`(?m)^\S+$`, "a\nb"},
		{`[^/]{2,4}\z`, "a/bcd"},
		{`(?:^|[/\s])(?:les2?\.(?:sh|pl))(?:\s|$)`, "/les.sh"},
		{`a{2}.*?(?:b|\n)`, "aa\u00e9b"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, expression, text string) {
		if len(expression) > 200 || len(text) > 2000 {
			return
		}
		plain, err := regexp.Compile(expression)
		fast, ferr := Compile(expression)
		if (err == nil) != (ferr == nil) {
			t.Fatalf("%q: %v and %v", expression, err, ferr)
		}
		if err != nil {
			return
		}
		for _, v := range []string{text, strings.ToLower(text), text + text, ""} {
			if got, want := fast.MatchString(v), plain.MatchString(v); got != want {
				t.Fatalf("%q in %q: %v, want %v", expression, v, got, want)
			}
		}
	})
}

// BenchmarkMatchString compares an expression of a shipped rule with package
// regexp; times are of one text.
func BenchmarkMatchString(b *testing.B) {
	const expression = `\b(?:nc|ncat|netcat)\b +(?:-\S+ +)*\S+ +\d+ *<|\b(?:cat|tar|dd|gzip|base64)\b.*\| *(?:nc|ncat|netcat|socat) |>\s*/dev/(?:tcp|udp)/`
	const text = "/tmp/bench/load/nothing -kind exec -rate 1000 -duration 10s load-dg5k3b-1234"
	fast, err := Compile(expression)
	if err != nil {
		b.Fatal(err)
	}
	for name, match := range map[string]func(string) bool{"automaton": fast.MatchString, "regexp": regexp.MustCompile(expression).MatchString} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for range b.N {
				match(text)
			}
		})
	}
}
