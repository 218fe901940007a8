package transfer

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// A journal says the same when it is read again, also when its last line was not
// written whole.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(path, "there")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry{
		{Step: "begin", Table: "A", Hour: 3600, Group: 7},
		{Step: "done", Table: "A", Hour: 3600, Group: 7, Rows: 5},
		{Step: "begin", Table: "A", Hour: 7200, Group: 8},
		{Step: "void", Table: "A", Hour: 7200, Group: 8},
		{Step: "begin", Table: "B", Hour: 3600, Group: 9},
	} {
		if err := j.add(e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.file.WriteString(`{"step":"done","table":"B"`); err != nil {
		t.Fatal(err)
	}
	j.file.Close()
	for range 2 {
		if j, err = openJournal(path, "there"); err != nil {
			t.Fatal(err)
		}
		j.file.Close()
		if len(j.done) != 1 || j.done[hourKey{"A", 3600}].Rows != 5 || len(j.begun) != 1 || j.begun[9].Table != "B" {
			t.Fatalf("done %v, begun %v", j.done, j.begun)
		}
	}
	if _, err := openJournal(path, "elsewhere"); err == nil || !strings.Contains(err.Error(), "copy to there") {
		t.Errorf("a journal of another copy: %v", err)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("{\"destination\":\"x\"}\n{\"step\":\"begin\",\"table\":\"A\",\"hour\":1,\"group\":2}\n{\"step\":\"done\",\"table\":\"A\",\"hour\":1,\"group\":2,\"rows\":3}\n{\"st"))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var j journal
		end, err := j.read(bytes.NewReader(b), "x")
		if end > int64(len(b)) || err == nil && end > 0 && b[end-1] != '\n' {
			t.Fatalf("the end is %d of %d", end, len(b))
		}
		again := journal{}
		if n, err := again.read(bytes.NewReader(b[:end]), "x"); err != nil || n != end || len(again.done) != len(j.done) || len(again.begun) != len(j.begun) {
			t.Fatalf("what was read before reads otherwise: %d %v", n, err)
		}
	})
}
