package doctable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	const head, tail = "# Title\n<!-- table a: made by a test -->\n", "<!-- end of table a -->\nrest\n"
	if err := os.WriteFile(file, []byte(head+"\n| x |\n|---|\n| 1 |\n\n"+tail), 0o644); err != nil {
		t.Fatal(err)
	}
	same := Table{[]string{"x"}, [][]string{{"1"}}}
	Check(t, file, "a", same, false)
	other := Table{[]string{"x", "y"}, [][]string{{"1", "2"}}}
	if found := failed(func(tb testing.TB) { Check(tb, file, "a", other, false) }); !found {
		t.Error("another table passes")
	}
	Check(t, file, "a", other, true)
	Check(t, file, "a", other, false)
	b, err := os.ReadFile(file)
	if err != nil || string(b) != head+"\n| x | y |\n|---|---|\n| 1 | 2 |\n\n"+tail {
		t.Errorf("written: %q, %v", b, err)
	}
	for _, doc := range []string{"", head, tail} {
		if _, _, err := replace(doc, "a", ""); err == nil {
			t.Errorf("no error for %q", doc)
		}
	}
}

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func failed(f func(testing.TB)) bool {
	r := &recorder{}
	f(r)
	return r.failed
}
