package clamdb

import (
	"strings"
	"testing"
)

func read(t testing.TB, f Format, text string) (recs []Record, problems []Problem, s Skipped) {
	t.Helper()
	s, err := Read(strings.NewReader(text), f, func(_ int, _ []byte, r Record) {
		if r.Hash != nil {
			h := *r.Hash
			h.Sum = append([]byte{}, h.Sum...)
			r.Hash = &h
		}
		recs = append(recs, r)
	}, func(p Problem) { problems = append(problems, p) })
	if err != nil {
		t.Fatal(err)
	}
	return
}

func TestHashLines(t *testing.T) {
	recs, problems, skipped := read(t, "hsb", strings.Join([]string{
		"# comment",
		"aa15bcf478d165efd2065190eb473bcb:544:Clam.Test",
		"aa15bcf478d165efd2065190eb473bcbaa15bcf4:*:Clam.Any:73\r",
		"aa15bcf478d165efd2065190eb473bcb:544:Future:9999",
		"aa15bcf478d165efd2065190eb473bcb:544:Old:1:50",
		"xx15bcf478d165efd2065190eb473bcb:544:Bad",
		"aa15:544:Short",
		"aa15bcf478d165efd2065190eb473bcb:huge:Bad",
		"aa15bcf478d165efd2065190eb473bcb:5:",
	}, "\n"))
	if len(recs) != 2 || recs[0].Hash.Size != 544 || recs[0].Hash.Sum[0] != 0xaa || recs[1].Hash.Size != -1 || len(recs[1].Hash.Sum) != 20 || recs[1].Hash.Name != "Clam.Any" {
		t.Errorf("records %+v", recs)
	}
	if skipped.Level != 2 {
		t.Errorf("skipped %+v", skipped)
	}
	want := []Problem{{6, 1, "hexadecimal"}, {7, 1, "4 characters"}, {8, 34, "neither a number"}, {9, 36, "empty"}}
	if len(problems) != len(want) {
		t.Fatalf("problems %+v", problems)
	}
	for i, w := range want {
		if p := problems[i]; p.Line != w.Line || p.Column != w.Column || !strings.Contains(p.Reason, w.Reason) {
			t.Errorf("problem %+v, want %+v", p, w)
		}
	}
}

func TestBodyLines(t *testing.T) {
	for _, c := range []struct {
		line   string
		col    int
		reason string // "" when good
	}{
		{"A:0:*:deadbeef", 0, ""},
		{"A:0:0:de??be?f*(aa|bb|ccdd){5}{-7}{3-}{2-9}[1-4]!(aa|bb)(W)11", 0, ""},
		{"A:1:EOF-100,20:deadbeef:51:255", 0, ""},
		{"A:0:*", 1, "expected"},
		{"A:3:*:deadbeef", 3, "target type 3 is not supported"},
		{"A:x:*:deadbeef", 3, "not a number"},
		{"A:0:EP+0:deadbeef", 5, "not supported"},
		{"A:0:zz:deadbeef", 5, "not known"},
		{"A:0:*:deadbee", 13, "two digits"},
		{"A:0:*:deadbxef", 12, "hexadecimal"},
		{"A:0:*:dead{4-2}ef", 11, "ends before"},
		{"A:0:*:dead{4", 11, "not closed"},
		{"A:0:*:dead(aa|bb", 11, "not closed"},
		{"A:0:*:dead(aa|)", 15, "empty"},
		{"A:0:*:dead!(aabb|cc)", 12, "negated"},
		{"A:0:*:(B)dead", 8, "(B) is not supported"},
		{"A:0:*:", 7, "empty"},
	} {
		recs, problems, _ := read(t, "ndb", c.line)
		switch {
		case c.reason == "":
			if len(problems) != 0 || len(recs) != 1 {
				t.Errorf("%s: %+v", c.line, problems)
			}
		case len(problems) != 1 || problems[0].Column != c.col || !strings.Contains(problems[0].Reason, c.reason):
			t.Errorf("%s: %+v, want column %d %q", c.line, problems, c.col, c.reason)
		}
	}
}

func TestLogicalLines(t *testing.T) {
	good := "T;Engine:51-255,Target:1,FileSize:10-2000;(0&1)>2,1|2=0;aabbccdd;EOF-20:11223344::iw;55??66::a"
	recs, problems, _ := read(t, "ldb", good)
	if len(recs) != 1 {
		t.Fatalf("%+v", problems)
	}
	l := recs[0].Logical
	if l.Target != 1 || l.MaxSize != 2000 || len(l.Subs) != 3 || l.Expr.Kind != ExprOr || l.Expr.Subs[0].Cmp != '>' || l.Expr.Subs[0].Distinct != 1 {
		t.Errorf("%+v %+v", l, l.Expr)
	}
	for line, reason := range map[string]string{
		"T;Target:0;0&3;aabb;ccdd":                      "no sub-signature 3",
		"T;Target:0;(0;aabb":                            "expected )",
		"T;Target:0;0)x;aabb":                           "unexpected",
		"T;Target:0;0;0/aa/":                            "regular expression",
		"T;Target:0;0;0(>>5#hb2#=20)":                   "byte comparison",
		"T;Target:0,IconGroup1:x;0;aabb":                "IconGroup1",
		"T;Target:0;0;aabb::q":                          "modifier",
		"T;Target:0;0;aabb;ccdd":                        "uses 1 sub-signatures, there are 2",
		"T;Target:0;0":                                  "expected name",
		"T;Target:0;" + strings.Repeat("(", 99) + ";aa": "nested deeper",
	} {
		if _, p, _ := read(t, "ldb", line); len(p) != 1 || !strings.Contains(p[0].Reason, reason) {
			t.Errorf("%s: %+v", line, p)
		}
	}
}

func TestIgnore(t *testing.T) {
	recs, problems, _ := read(t, "ign2", "Name.One\nName.Two:ABCDEF\n:x\n")
	if len(recs) != 2 || recs[1].Ignore.Line != "abcdef" || len(problems) != 1 {
		t.Errorf("%+v %+v", recs, problems)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("hsb", "aa15bcf478d165efd2065190eb473bcb:544:Clam.Test")
	f.Add("ndb", "A:0:EOF-4,2:de??be?f*(aa|bb){5}!(aa|bb)11")
	f.Add("ldb", "T;Engine:51-255,Target:1;(0&1)>2,1|2=0;aabbccdd;EOF-20:11223344::iw;55??66::a")
	f.Add("ign2", "Name:aa")
	f.Fuzz(func(t *testing.T, ext, text string) {
		format, ok := FormatOf(ext)
		if !ok {
			return
		}
		read(t, format, text)
	})
}
