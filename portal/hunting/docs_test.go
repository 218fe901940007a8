package hunting

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

var update = flag.Bool("update", false, "write the list of functions into the documentation")

// TestDocumentation holds the page for users against what there is.
func TestDocumentation(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "portal", "hunting.md")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "-update` -->\n", "<!-- end of functions -->"
	before, rest, ok1 := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the page has no place for the functions")
	}
	var list strings.Builder
	line := 0
	for i, name := range newLibrary().names() {
		word := "`" + name + "`"
		if i > 0 {
			list.WriteString(",")
			line++
		}
		if line+len(word) > 86 {
			list.WriteString("\n")
			line = 0
		} else if i > 0 {
			list.WriteString(" ")
			line++
		}
		list.WriteString(word)
		line += len(word)
	}
	want := before + begin + list.String() + ".\n" + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want != string(b) && !*update {
		t.Error("docs/portal/hunting.md does not list the functions as they are: run with -update")
	}
	for _, op := range kql.Operators() {
		if !strings.Contains(want, "`"+op+"`") {
			t.Errorf("docs/portal/hunting.md does not name the operator %s", op)
		}
	}
}

// TestErrors: what is wrong is said with its place, and what was meant.
func TestErrors(t *testing.T) {
	h := newHunter(t)
	for _, tc := range []struct {
		query, want string
		line, col   int
	}{
		{"Q | take 1", "there is no table Q", 1, 1},
		{"DeviceProcesEvents | take 1", "did you mean DeviceProcessEvents?", 1, 1},
		{"P | where Devcie == 'x'", "there is no column Devcie; did you mean Device?", 1, 11},
		{"P\n| where Pid == 'x'", "a long cannot be compared with a string; convert one of them", 2, 13},
		{"P | extend x = Pid + Name", "a long + a string is not possible", 1, 20},
		{"P | where strlen(Pid) > 1", "strlen() needs a text here, not a long", 1, 18},
		{"P | where strlenn(Name) > 1", "there is no function strlenn; did you mean strlen?", 1, 11},
		{"P | where substring(Name) == ''", "substring() takes 2 to 3 arguments, not 1", 1, 11},
		{"P | where count() > 1", "count() aggregates rows: it belongs into summarize", 1, 11},
		{"P | where Pid", "a condition is expected here, not a long", 1, 11},
		{"P | join N on Missing", "there is no column Missing", 1, 15},
		{"P | join N on $left.Pid == $right.Device", "a long cannot be compared with a string", 1, 25},
		{"P | where N == 1", "there is no column N", 1, 11},
		{"let x = 5; x | take 1", "x is a value, not a table", 1, 12},
		{"P | project a = Name matches regex '('", "the regular expression is not valid", 1, 0},
		{"P | mv-expand Pid", "mv-expand needs a dynamic value", 1, 15},
		{"P | take 'x'", "a number of rows is expected here", 1, 10},
		{"P | evaluate autocluster()", "the plug-in autocluster is not supported", 1, 14},
		{"print x = 'a' + 'b'", "write strcat(a, b)", 1, 15},
		{"P | render timechart | take 1", "render must be the last operator", 1, 5},
		{"P | extend x = case(true, 1, 'b')", "has values of the types", 1, 0},
		{"P | summarize by Pid | where Name == ''", "there is no column Name", 1, 30},
		{"print x = bin(1, 'a')", "cannot be put into bins", 1, 11},
		{"print x = datetime(2026-01-01) + 5", "a datetime + a long is not possible", 1, 32},
	} {
		_, err := h.Run(t.Context(), "tester", tc.query, Limits{})
		e, ok := errors.AsType[*kql.Error](err)
		if !ok || !strings.Contains(e.Error(), tc.want) {
			t.Errorf("%s\n got %v\nwant %s", tc.query, err, tc.want)
			continue
		}
		if line, col := kql.LineColumn(tc.query, e.Pos); tc.col > 0 && (line != tc.line || col != tc.col) {
			t.Errorf("%s: at %d:%d, want %d:%d", tc.query, line, col, tc.line, tc.col)
		}
	}
}

// TestBounds: what would grow without end is refused, and results are cut.
func TestBounds(t *testing.T) {
	h := newHunter(t)
	doubled := "let v0 = 'x';"
	tables := "let t0 = P;"
	for i := range 30 {
		n, m := string(rune('0'+i/10))+string(rune('0'+i%10)), string(rune('0'+(i+1)/10))+string(rune('0'+(i+1)%10))
		if i == 0 {
			doubled, tables = "let v00 = tolower('x');", "let t00 = P;"
		}
		doubled += "let v" + m + " = strcat(v" + n + ", v" + n + ");"
		tables += "let t" + m + " = union t" + n + ", t" + n + ";"
	}
	for _, q := range []string{doubled + "print v30", tables + "t30 | count", "print " + strings.Repeat("not(", 90) + "true" + strings.Repeat(")", 90) + strings.Repeat(" or true", 120)} {
		if _, err := h.Run(t.Context(), "tester", q, Limits{}); err == nil && !strings.HasPrefix(q, "print") {
			t.Errorf("%.80s...: no error", q)
		}
	}
	r, err := h.Run(t.Context(), "tester", "range x from 1 to 1000 step 1", Limits{Rows: 10})
	if err != nil || len(r.Rows) != 10 || !strings.Contains(r.Truncated, "first 10 rows") {
		t.Errorf("%v, %+v", err, r)
	}
	r, err = h.Run(t.Context(), "tester", "range x from 1 to 1000 step 1 | extend t = strrep('a', 1000)", Limits{Bytes: 100_000})
	if err != nil || len(r.Rows) > 100 || r.Truncated == "" {
		t.Errorf("%v, %d rows, %q", err, len(r.Rows), r.Truncated)
	}
	if _, err := h.Run(t.Context(), "tester", "range x from 1 to 1000000 step 1 | extend k = 1 | join kind=inner (range y from 1 to 1000000 step 1 | extend k = 1) on k | summarize sum(x * y % 7)", Limits{Timeout: 300_000_000}); err == nil || !strings.Contains(err.Error(), "took longer") {
		t.Errorf("a long query: %v", err)
	}
}

// FuzzTranslate: whatever parses becomes a statement that the store can read,
// or an error with a place; never more than one statement.
func FuzzTranslate(f *testing.F) {
	for _, q := range []string{
		"P | where Name has 'a' and Pid in (1, 2) | summarize count() by bin(When, 1h)", "union P, N | project-away Pid | take 5",
		"let f = (x:long) { x + 1 }; P | extend y = f(Pid) | join kind=leftouter N on Pid", "print x = dynamic({'a':[1]}) | mv-expand x | extend z = x.a[0]",
	} {
		f.Add(q)
	}
	h := New(memory{}, func() time.Time { return testNow })
	h.tables["P"] = Table{Name: "P", Columns: []Column{{"When", DateTime}, {"Name", String}, {"Pid", Long}, {"Extra", Dynamic}}}
	h.tables["N"] = Table{Name: "N", Columns: []Column{{"Pid", Long}, {"Ip", String}}}
	h.names = append(h.names, "P", "N")
	f.Fuzz(func(t *testing.T, q string) {
		err := h.Check(q)
		if err == nil {
			return
		}
		e, ok := errors.AsType[*kql.Error](err)
		if !ok || e.Message == "" || int(e.Pos) > len(q) {
			t.Fatalf("%q: %v", q, err)
		}
	})
}
