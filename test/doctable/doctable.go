// Package doctable keeps tables in the documentation that tests make: a test
// fails when the committed table is not what it found, and writes it when told
// to.
package doctable

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Table is what a test found: the heads of its columns and its rows.
type Table struct {
	Columns []string
	Rows    [][]string
}

// String is the table in Markdown.
func (t Table) String() string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(t.Columns)
	b.WriteString(strings.Repeat("|---", len(t.Columns)) + "|\n")
	for _, r := range t.Rows {
		line(r)
	}
	return b.String()
}

// Check compares a table with the one of that name in a Markdown file, which
// stands between the lines
//
//	<!-- table NAME: made by a test -->
//	<!-- end of table NAME -->
//
// With update the file is written instead.
func Check(t testing.TB, file, name string, table Table, update bool) {
	t.Helper()
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	committed, replaced, err := replace(string(doc), name, table.String())
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if committed == table.String() {
		return
	}
	if !update {
		t.Errorf("the table %q of %s is not what the test found (-update writes it). Found:\n%s\ncommitted:\n%s", name, file, table, committed)
		return
	}
	if err := os.WriteFile(file, []byte(replaced), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replace returns the table of that name and the document with another one.
func replace(doc, name, table string) (old, changed string, err error) {
	begin, end := fmt.Sprintf("<!-- table %s: made by a test -->\n", name), fmt.Sprintf("<!-- end of table %s -->", name)
	before, rest, ok := strings.Cut(doc, begin)
	if !ok {
		return "", "", fmt.Errorf("no line %q", strings.TrimSpace(begin))
	}
	old, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", "", fmt.Errorf("no line %q", end)
	}
	return strings.Trim(old, "\n") + "\n", before + begin + "\n" + table + "\n" + end + after, nil
}
