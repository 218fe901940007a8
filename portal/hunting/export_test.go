package hunting

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// Random makes random queries over a table T and what the interpreter answers, for
// tests of stores that import this package.
type Random struct {
	*rand.Rand
	table rowset
}

// NewTable makes T anew and returns its rows: a whole number from 1 to 6, another,
// a multiple of 1/4, a text, a truth value and a time; all but the first and the
// text may be nil. None of the numbers is 0, which some columns do not have.
func (r *Random) NewTable() [][]any {
	r.table = randomTable(r.Rand)
	for _, row := range r.table.rows {
		row[0] = row[0].(int64) + 1
		if row[1] == int64(0) {
			row[1] = nil
		}
		if row[2] == float64(0) {
			row[2] = nil
		}
	}
	return r.table.rows
}

// Query makes a query over T and the rows that answer it, as Lines writes them.
func (r *Random) Query(t *testing.T) (query string, want []string) {
	t.Helper()
	g := &generator{Rand: r.Rand, cols: slices.Clone(base)}
	write := func() string { return g.ops(5) }
	if r.IntN(2) == 0 {
		write = g.grouped
	}
	query = "T" + write()
	q, err := kql.Parse(query)
	if err != nil {
		t.Fatalf("%s\n%v", query, err)
	}
	return query, Lines(naive{map[string]rowset{"T": r.table}}.query(q).rows)
}

// MostDevices sets how many devices a scan is told by name.
func (h *Hunter) MostDevices(n int) { h.mostDevices = n }

// Lines writes rows as sorted lines.
func Lines(rows [][]any) []string { return lines(rows) }
