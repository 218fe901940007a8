package hunting

import (
	"database/sql"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// generator writes random queries. Names of columns begin with a letter for
// their type: long, real, string, bool and datetime.
type generator struct {
	*rand.Rand
	cols   []string
	fresh  int
	simple bool // conditions and values are such that stores can check and group by
}

func (g *generator) pick(of ...string) string { return of[g.IntN(len(of))] }

// col is a column of a type, or empty.
func (g *generator) col(kind byte) string {
	var of []string
	for _, c := range g.cols {
		if c[0] == kind {
			of = append(of, c)
		}
	}
	if len(of) == 0 {
		return ""
	}
	return g.pick(of...)
}

func (g *generator) name(kind byte) string {
	g.fresh++
	return fmt.Sprintf("%c_%d", kind, g.fresh)
}

func (g *generator) number() string { return strconv.Itoa(g.IntN(9) + 1) }

var words = []string{"", "ab", "abc", "AB-cd", "cd ab", "ab.cd", "q", "Ünï ab", "%", "a_b"}

func (g *generator) text() string { return strconv.Quote(g.pick(words...)) }

// expr is an expression of a type.
func (g *generator) expr(kind byte, depth int) string {
	if depth <= 0 || g.IntN(4) == 0 {
		if c := g.col(kind); c != "" && g.IntN(4) > 0 {
			return c
		}
		switch kind {
		case 'l':
			return g.number()
		case 'r':
			return g.number() + "." + g.number()
		case 's':
			return g.text()
		case 'b':
			return g.pick("true", "false")
		}
		return fmt.Sprintf("datetime(2026-11-%02d %02d:30:00)", g.IntN(28)+1, g.IntN(24))
	}
	d := depth - 1
	e := func(kind byte) string { return g.expr(kind, d) }
	if g.IntN(8) == 0 {
		switch g.IntN(3) {
		case 0:
			return fmt.Sprintf("iff(%s, %s, %s)", e('b'), e(kind), e(kind))
		case 1:
			return fmt.Sprintf("case(%s, %s, %s, %s, %s)", e('b'), e(kind), e('b'), e(kind), e(kind))
		}
		if kind != 'b' {
			return fmt.Sprintf("coalesce(%s, %s)", e(kind), e(kind))
		}
	}
	switch kind {
	case 'l':
		return g.pick(
			"("+e('l')+" + "+e('l')+")", "("+e('l')+" - "+e('l')+")", "("+e('l')+" * "+g.number()+")",
			"("+e('l')+" / "+g.number()+")", "("+e('l')+" % "+g.number()+")", "(-"+e('l')+")",
			"bin("+e('l')+", "+g.number()+")", "abs("+e('l')+")", "strlen("+e('s')+")",
			"countof("+e('s')+", \"b\")", "indexof("+e('s')+", \"b\")", "hourofday("+e('d')+")")
	case 'r':
		return g.pick("todouble("+e('l')+")", "("+e('r')+" + "+e('l')+")", "("+e('r')+" - "+e('r')+")", "("+e('l')+" * "+e('r')+")", "("+e('r')+" / "+g.number()+".0)")
	case 's':
		return g.pick(
			"strcat("+e('s')+", "+e('s')+")", "toupper("+e('s')+")", "tolower("+e('s')+")", "tostring("+e('l')+")",
			fmt.Sprintf("substring(%s, %d, %d)", e('s'), g.IntN(4), g.IntN(4)), "replace_string("+e('s')+", \"ab\", "+g.text()+")")
	case 'd':
		return g.pick("("+e('d')+" + "+g.number()+"h)", "("+e('d')+" - "+g.number()+"m)", "bin("+e('d')+", "+g.pick("1d", "1h", "15m")+")", "startofday("+e('d')+")")
	}
	switch g.IntN(8) {
	case 0:
		return "(" + e('b') + " " + g.pick("and", "or") + " " + e('b') + ")"
	case 1:
		return "not(" + e('b') + ")"
	case 2:
		return g.pick("isnull", "isnotnull", "isempty") + "(" + e("lrsd"[g.IntN(4)]) + ")"
	case 3:
		op := g.pick("==", "!=", "=~", "!~", "contains", "!contains", "contains_cs", "startswith", "!startswith", "endswith", "startswith_cs", "endswith_cs")
		if g.IntN(4) == 0 {
			return "(" + e('s') + " " + g.pick("has", "!has", "has_cs") + " " + strconv.Quote(g.pick("ab", "abc", "cd", "q", "AB")) + ")"
		}
		return "(" + e('s') + " " + op + " " + g.text() + ")"
	case 4:
		return "(" + e('s') + " " + g.pick("in", "!in", "in~", "!in~") + " (" + g.text() + ", " + g.text() + ", " + g.text() + "))"
	case 5:
		return "(" + e('l') + " " + g.pick("in", "!in") + " (" + g.number() + ", " + g.number() + "))"
	case 6:
		return "(" + e('l') + " " + g.pick("between", "!between") + " (" + g.number() + " .. " + g.number() + "))"
	}
	k := "lrd"[g.IntN(3)]
	return "(" + e(k) + " " + g.pick("==", "!=", "<", "<=", ">", ">=") + " " + e(k) + ")"
}

const kinds = "lrsbd"

func (g *generator) kind() byte { return kinds[g.IntN(len(kinds))] }

// ops writes up to n operators.
func (g *generator) ops(n int) string {
	var b strings.Builder
	for range g.IntN(n + 1) {
		b.WriteString(" | " + g.op())
	}
	return b.String()
}

func (g *generator) op() string {
	switch g.IntN(11) {
	case 0, 1:
		return "where " + g.expr('b', 3)
	case 2:
		k := g.kind()
		x, name := g.expr(k, 3), g.name(k)
		if c := g.col(k); g.IntN(4) == 0 && c != "" && c != "lKey" { // that one is never null
			name = c
		} else {
			defer func() { g.cols = append(g.cols, name) }()
		}
		return "extend " + name + " = " + x
	case 3:
		var cols, list []string
		for range 1 + g.IntN(4) {
			if c := g.pick(g.cols...); !slices.Contains(cols, c) && g.IntN(2) == 0 {
				cols, list = append(cols, c), append(list, c)
				continue
			}
			k := g.kind()
			x, name := g.expr(k, 2), g.name(k)
			cols, list = append(cols, name), append(list, name+" = "+x)
		}
		g.cols = cols
		return "project " + strings.Join(list, ", ")
	case 4:
		return g.summarize()
	case 5:
		var cols []string
		for range 1 + g.IntN(3) {
			if c := g.pick(g.cols...); !slices.Contains(cols, c) {
				cols = append(cols, c)
			}
		}
		g.cols = cols
		return "distinct " + strings.Join(cols, ", ")
	case 6:
		// All columns, so that the order is the same everywhere.
		var keys []string
		for _, i := range g.Perm(len(g.cols)) {
			keys = append(keys, g.cols[i]+g.pick("", " asc", " desc", " asc nulls last", " desc nulls first"))
		}
		return "sort by " + strings.Join(keys, ", ") + fmt.Sprintf(" | take %d", g.IntN(12))
	case 7:
		return g.join()
	case 8:
		return g.summarize()
	case 9:
		// One column, which says what the first rows are.
		c := g.pick(g.cols...)
		g.cols = []string{c}
		n := g.IntN(12)
		return "project " + c + " | " + g.pick(fmt.Sprintf("top %d by %s%s", n, c, g.pick("", " asc", " desc")), fmt.Sprintf("sort by %s%s | take %d", c, g.pick("", " asc"), n))
	}
	all := strings.Join(g.cols, ", ")
	for _, c := range g.cols {
		if !slices.Contains(base, c) {
			return "where " + g.expr('b', 2)
		}
	}
	return "union (T | where " + (&generator{Rand: g.Rand, cols: base}).expr('b', 2) + " | project " + all + ")"
}

// plain is a column or the bin of one, half of the times or always, which stores can
// group by.
func (g *generator) plain(kind byte, depth int) string {
	c := g.col(kind)
	switch {
	case c == "" || !g.simple && g.IntN(2) == 0:
		return g.expr(kind, depth)
	case kind == 'b' && g.simple:
		return g.condition()
	case kind == 'l' && g.IntN(3) == 0:
		return "bin(" + c + ", " + g.number() + ")"
	case kind == 'd' && g.IntN(3) > 0:
		return "bin(" + c + ", " + g.pick("1d", "7d", "1h", "90m", "1s") + ")"
	}
	return c
}

// condition is one that stores check.
func (g *generator) condition() string {
	if g.IntN(4) == 0 {
		return "(" + g.condition() + " " + g.pick("and", "or") + " " + g.condition() + ")"
	}
	kind := "lsd"[g.IntN(3)]
	c := g.col(kind)
	switch {
	case c == "":
		return g.expr('b', 1)
	case kind == 's' && g.IntN(4) == 0:
		return "(" + c + " matches regex @'" + g.pick("a.c", "^.b", "(?i)AB.?C?D", "^..?.?.?$", `\bab\b`, "[^a]b", `n.\s`, "ï", "^$", "(?:ab|q)$", `[[:punct:]]`) + "')"
	case kind == 's':
		return "(" + c + " " + g.pick("==", "!=", "contains_cs", "startswith_cs", "endswith_cs") + " " + g.text() + ")"
	case kind == 'd':
		return fmt.Sprintf("(%s %s datetime(2026-11-%02d %02d:30:00))", c, g.pick("<", ">="), g.IntN(6)+1, g.IntN(24))
	}
	return g.pick("("+c+" "+g.pick("==", "!=", "<", ">")+" "+g.number()+")", "("+c+" in ("+g.number()+", "+g.number()+"))")
}

// grouped writes operators that stores do, and a few behind them.
func (g *generator) grouped() string {
	g.simple = true
	var b strings.Builder
	for range g.IntN(3) {
		switch g.IntN(3) {
		case 0:
			b.WriteString(" | where " + g.condition())
		case 1:
			name, of := g.name('d'), g.col('d')
			if of == "" {
				continue
			}
			b.WriteString(" | extend " + name + " = bin(" + of + ", " + g.pick("1d", "1h", "90m") + ")")
			g.cols = append(g.cols, name)
		default:
			name, of := g.name('l'), g.col('l')
			if of == "lKey" {
				continue // joins name it
			}
			b.WriteString(" | project-rename " + name + " = " + of)
			g.cols[slices.Index(g.cols, of)] = name
		}
	}
	b.WriteString(" | " + g.summarize())
	g.simple = false
	return b.String() + g.ops(1)
}

func (g *generator) summarize() string {
	var aggs, by, cols []string
	for range g.IntN(3) {
		k := "lsbd"[g.IntN(4)]
		name := g.name(k)
		by, cols = append(by, name+" = "+g.plain(k, 1)), append(cols, name)
	}
	if k := "ld"[g.IntN(2)]; g.IntN(map[bool]int{true: 3, false: 8}[g.simple]) == 0 && g.col(k) != "" {
		// What the others of its columns are is not known where several rows have the
		// highest value, unless they follow from it.
		a, b, of := g.name(k), g.name('s'), g.plain(k, 1)
		also := map[byte]string{'l': "strcat(tostring(" + of + "), \"x\")", 'd': "iff(" + of + " > datetime(2026-11-03), \"late\", \"\")"}[k]
		cols = append(cols, a, b)
		aggs = []string{fmt.Sprintf("(%s, %s) = %s(%s, %s)", a, b, g.pick("arg_max", "arg_min"), of, also)}
	}
	for len(aggs) == 0 || len(cols) < 4 && g.IntN(2) == 0 {
		k := "lrsd"[g.IntN(4)]
		switch g.IntN(7) {
		case 0:
			k = 'l'
			aggs = append(aggs, "count()")
		case 1:
			k = 'l'
			aggs = append(aggs, "countif("+g.plain('b', 2)+")")
		case 2:
			k = 'l'
			aggs = append(aggs, "sum("+g.plain('l', 2)+")")
		case 6:
			aggs = append(aggs, "avg("+g.plain("lr"[g.IntN(2)], 1)+")")
			k = 'r'
		case 3:
			aggs = append(aggs, "dcount("+g.plain(k, 1)+")")
			k = 'l'
		case 4:
			aggs = append(aggs, "tostring(array_sort_asc("+g.pick("make_list", "make_set")+"("+g.expr('l', 1)+")))")
			k = 's'
		default:
			if k == 's' {
				k = 'l'
			}
			aggs = append(aggs, g.pick("min", "max")+"("+g.plain(k, 2)+")")
		}
		name := g.name(k)
		aggs[len(aggs)-1] = name + " = " + aggs[len(aggs)-1]
		cols = append(cols, name)
	}
	g.cols = cols
	out := "summarize " + strings.Join(aggs, ", ")
	if len(by) > 0 {
		out += " by " + strings.Join(by, ", ")
	}
	return out
}

func (g *generator) join() string {
	if !slices.Contains(g.cols, "lKey") {
		return "where " + g.expr('b', 2)
	}
	right := &generator{Rand: g.Rand, cols: []string{"lKey", "sName", "lVal"}}
	r := "T | project lKey, sName, lVal | where " + right.expr('b', 2)
	kind := g.pick("inner", "leftouter", "rightouter", "fullouter", "leftsemi", "leftanti", "rightsemi", "rightanti")
	switch kind {
	case "leftsemi", "leftanti":
	case "rightsemi", "rightanti":
		g.cols = right.cols
	default:
		for _, c := range right.cols {
			base := c
			for i := 1; slices.Contains(g.cols, c); i++ {
				c = fmt.Sprint(base, i)
			}
			g.cols = append(g.cols, c)
		}
		// The key may be null after it, and nulls are no keys here.
		return "join kind=" + kind + " (" + r + ") on lKey | where isnotnull(lKey)"
	}
	return "join kind=" + kind + " (" + r + ") on lKey"
}

var base = []string{"lKey", "lVal", "rVal", "sName", "bFlag", "dWhen"}

// randomTable is a table of a few rows with what is awkward.
func randomTable(rnd *rand.Rand) rowset {
	r := rowset{cols: []Column{{"lKey", Long}, {"lVal", Long}, {"rVal", Real}, {"sName", String}, {"bFlag", Bool}, {"dWhen", DateTime}}}
	maybe := func(v any) any {
		if rnd.IntN(4) == 0 {
			return nil
		}
		return v
	}
	for range rnd.IntN(25) {
		r.rows = append(r.rows, []any{
			int64(rnd.IntN(6)), maybe(int64(rnd.IntN(41) - 20)), maybe(float64(rnd.IntN(33)-16) / 4), words[rnd.IntN(len(words))],
			maybe(rnd.IntN(2) == 0), maybe(time.Date(2026, 11, 1+rnd.IntN(5), rnd.IntN(24), rnd.IntN(60), 0, 0, time.UTC)),
		})
	}
	return r
}

// sameKind makes the values of both sides the same.
func sameKind(v any) any {
	switch v := v.(type) {
	case int32:
		return float64(v)
	case int64:
		return float64(v)
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		return f
	}
	return v
}

func lines(rows [][]any) []string {
	var out []string
	for _, row := range rows {
		p := make([]any, len(row))
		for i, v := range row {
			p[i] = sameKind(v)
		}
		out = append(out, rowKey(p))
	}
	slices.Sort(out)
	return out
}

// TestRandomQueries compares random queries with the interpreter.
// BULWARK_RANDOM_QUERIES is their number, BULWARK_RANDOM_SEED repeats a run.
func TestRandomQueries(t *testing.T) {
	number, err := strconv.Atoi(os.Getenv("BULWARK_RANDOM_QUERIES"))
	if err != nil {
		number = 300
	}
	seed, err := strconv.ParseUint(os.Getenv("BULWARK_RANDOM_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("BULWARK_RANDOM_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))

	db, err := sql.Open("duckdb", "?disabled_optimizers="+DisabledOptimizers)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(tableT); err != nil {
		t.Fatal(err)
	}
	h := New(memory{db}, func() time.Time { return testNow })
	var table rowset
	wrong := 0
	for i := range number {
		if i%25 == 0 {
			table = randomTable(rnd)
			fillT(t, db, h, table)
		}
		g := &generator{Rand: rnd, cols: slices.Clone(base)}
		write := func() string { return g.ops(5) }
		if i%3 == 2 {
			write = g.grouped
		}
		query := "T" + write()
		q, err := kql.Parse(query)
		if err != nil {
			t.Fatalf("%s\n%v", query, err)
		}
		want := naive{map[string]rowset{"T": table}}.query(q)
		got, err := h.Run(t.Context(), "tester", query, Limits{})
		if err != nil {
			t.Errorf("%s\n%v", query, err)
		} else if g, w := lines(got.Rows), lines(want.rows); !slices.Equal(g, w) {
			t.Errorf("%s\non   %q\ngot  %q\nwant %q", query, lines(table.rows), g, w)
		}
		if t.Failed() {
			if wrong++; wrong == 8 {
				t.Fatal("five are enough")
			}
		}
	}
}

// What the first rows of one side of a join are does not depend on the other side
// (see DisabledOptimizers). Without the setting one run in twenty is wrong.
func TestTopBeforeJoin(t *testing.T) {
	db, err := sql.Open("duckdb", "?disabled_optimizers="+DisabledOptimizers)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(tableT); err != nil {
		t.Fatal(err)
	}
	h := New(memory{db}, func() time.Time { return testNow })
	const query = `T | sort by sName desc nulls first, lVal desc nulls first, lKey asc nulls last, bFlag, rVal desc nulls first, dWhen desc | take 11 |
		join kind=rightouter (T | project lKey, sName, lVal | where (lKey !between (3 .. 5))) on lKey | where isnotnull(lKey) | project sName`
	q, err := kql.Parse(query)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 40 {
		table := randomTable(rnd)
		fillT(t, db, h, table)
		want := lines(naive{map[string]rowset{"T": table}}.query(q).rows)
		for range 4 {
			got, err := h.Run(t.Context(), "tester", query, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if g := lines(got.Rows); !slices.Equal(g, want) {
				t.Fatalf("on   %q\ngot  %q\nwant %q", lines(table.rows), g, want)
			}
		}
	}
}

const tableT = `CREATE TABLE T (lKey BIGINT, lVal BIGINT, rVal DOUBLE, sName VARCHAR, bFlag BOOLEAN, dWhen TIMESTAMP)`

// fillT makes T the given table.
func fillT(t *testing.T, db *sql.DB, h *Hunter, table rowset) {
	t.Helper()
	if _, err := db.Exec(`DELETE FROM T`); err != nil {
		t.Fatal(err)
	}
	for _, row := range table.rows {
		if _, err := db.Exec(`INSERT INTO T VALUES (?, ?, ?, ?, ?, ?)`, row...); err != nil {
			t.Fatal(err)
		}
	}
	h.tables["T"] = Table{Name: "T", Columns: table.cols}
}
