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
	want := []Problem{{6, 1, "hexadecimal", ""}, {7, 1, "4 characters", ""}, {8, 34, "neither a number", ""}, {9, 36, "empty", ""}}
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
		{"A:3:*:deadbeef", 0, ""},

		{"A:15:*:deadbeef", 3, "not a number from 0 to 14"},
		{"A:x:*:deadbeef", 3, "not a number"},
		{"A:0:EP+0:deadbeef", 5, "needs target type"},
		{"A:1:EP-20,5:deadbeef", 0, ""},
		{"A:6:S3+0x1:deadbeef", 8, "not a number"},
		{"A:6:S3+12:deadbeef", 0, ""},
		{"A:9:SE2:deadbeef", 0, ""},
		{"A:9:SL+2,4:deadbeef", 0, ""},
		{"A:1:VI:deadbeef", 0, ""},
		{"A:6:VI:deadbeef", 5, "target type 1"},
		{"A:0:$12:deadbeef", 0, ""},
		{"A:0:$32:deadbeef", 5, "macro group"},
		{"A:0:zz:deadbeef", 5, "not known"},
		{"A:0:*:deadbee", 13, "two digits"},
		{"A:0:*:deadbxef", 12, "hexadecimal"},
		{"A:0:*:dead{4-2}ef", 11, "ends before"},
		{"A:0:*:dead{4", 11, "not closed"},
		{"A:0:*:dead(aa|bb", 11, "not closed"},
		{"A:0:*:dead(aa|)", 15, "empty"},
		{"A:0:*:dead!(aabb|cc)", 12, "one length"},
		{"A:0:*:dead!(aabb|ccdd)(B)", 0, ""},
		{"A:0:*:dead!(a?)11", 12, "wildcards"},
		{"A:0:*:dead(aa{1-2}|bb)11", 14, "one number"},
		{"A:0:*:dead((aa|bb{3})cc|dd)11", 0, ""},
		{"A:0:*:(B)dead(L)beef(W)", 0, ""},
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
	for _, line := range []string{
		"T;Engine:81-255,Target:0;1;aabb;0/a.c(?:d|e){2,3}\\x41[^\\]x]/gis",
		"T;Target:1,EntryPoint:5-70,NumberOfSections:3-4;1;aabb;EP+4,20:0&0/abc/re",
		"T;Target:0;1;aabb;0(>>0x5#hb2#=20,<0x30)",
		"T;Target:0;1;aabb;0(<<5#dbe2#>20)",
		"T;Target:0;0&1;aabb;${6-7}12$",
		"T;Target:0,Container:CL_TYPE_ZIP;0;aabb",
		"T;Target:0,Intermediates:CL_TYPE_ANY>CL_TYPE_ZIP;0;aabb;",
	} {
		if r, p, _ := read(t, "ldb", line); len(r) != 1 || len(p) != 0 {
			t.Errorf("%s: %+v", line, p)
		}
	}
	for line, want := range map[string]string{
		"T;Target:0;0&3;aabb;ccdd":                      "no sub-signature 3",
		"T;Target:0;(0;aabb":                            "expected )",
		"T;Target:0;0)x;aabb":                           "unexpected",
		"T;Target:0;0;0/aa/":                            "no sub-signature 0",
		"T;Target:0;1;aabb;0/a/q":                       "flag 'q'",
		"T;Target:0;1;aabb;0/a(?=b)/":                   "look-ahead",
		"T;Target:0;1;aabb;0/(a)\\1/":                   "back-reference",
		"T;Target:0;1;aabb;0/a++b/":                     "possessive",
		"T;Target:0;1;aabb;0/a{2000}/":                  "counts above 1000",
		"T;Target:0;1;aabb;/a/":                         "no trigger",
		"T;Target:0;1;aabb;0/(?>a)/":                    "atomic",
		"T;Target:0;0;0(>>5#hb2#=20)":                   "not an earlier",
		"T;Target:0;1;aa;0(>>5#hb2#~20)":                "one or two of",
		"T;Target:0;1;aa;0(>>5#ib3#=20)":                "1, 2, 4 or 8",
		"T;Target:0;1;aa;0(>>5#dl3#=20)":                "little-endian",
		"T;Target:0;0;${6-7}12$":                        "first sub-signature",
		"T;Target:0,IconGroup1:x;0;aabb":                "IconGroup1",
		"T;Target:0,Container:ZIP;0;aabb":               "CL_TYPE_",
		"T;Target:0;0;aabb::q":                          "modifier",
		"T;Target:0;0;aabb;ccdd":                        "uses 1 sub-signatures, there are 2",
		"T;Target:0;0":                                  "expected name",
		"T;Target:0;" + strings.Repeat("(", 99) + ";aa": "nested deeper",
	} {
		if _, p, _ := read(t, "ldb", line); len(p) != 1 || !strings.Contains(p[0].Reason, want) {
			t.Errorf("%s: %+v, want %q", line, p, want)
		}
	}
}

func TestIgnore(t *testing.T) {
	sum := "BC356BAE4C42F19A3DE16E333BA3569C"
	for _, format := range []Format{"ign", "ign2"} {
		recs, problems, _ := read(t, format, "Name.One\nName.Two:"+sum+"\nmain.ndb:17:Name.Three\n:"+sum+"\nx:ABCDEF\na:b:c:d\n")
		if len(recs) != 3 || len(problems) != 3 {
			t.Fatalf("%v %v", recs, problems)
		}
		for i, want := range []Ignore{{"Name.One", ""}, {"Name.Two", strings.ToLower(sum)}, {"Name.Three", ""}} {
			if got := *recs[i].Ignore; got != want {
				t.Errorf("%s: %+v, want %+v", format, got, want)
			}
		}
	}
}

func TestOtherLines(t *testing.T) {
	recs, problems, _ := read(t, "msb", "1024:aa15bcf478d165efd2065190eb473bcb:S.One\n*:aa15bcf478d165efd2065190eb473bcbaa15bcf4:S.Two:73\n1024:xx15bcf478d165efd2065190eb473bcb:Bad\nhuge:aa15bcf478d165efd2065190eb473bcb:Bad\n")
	if len(recs) != 2 || recs[0].Hash.Size != 1024 || recs[0].Hash.Of != OfSection || recs[1].Hash.Size != -1 {
		t.Errorf("%+v", recs)
	}
	if len(problems) != 2 || problems[0].Column != 6 || problems[1].Column != 1 {
		t.Errorf("%+v", problems)
	}
	recs, problems, _ = read(t, "cdb", "M:CL_TYPE_ZIP:*:^ab\\.exe$:1-5:*:1:2:1a2b3c4d:*:10\nM:ZIP:*:*:*:*:*:*:*:*\nM:*:*:(:*:*:*:*:*:*\n")
	if len(recs) != 1 || recs[0].Member.File != "^ab\\.exe$" || recs[0].Member.CRC != 0x1a2b3c4d || recs[0].Member.Packed.Max != 5 || recs[0].Member.Encrypted != 1 {
		t.Errorf("%+v", recs)
	}
	if len(problems) != 2 || problems[0].Column != 3 || problems[1].Column != 7 {
		t.Errorf("%+v", problems)
	}
	recs, problems, _ = read(t, "ftm", "0:0:504b0304:ZIP:CL_TYPE_ANY:CL_TYPE_ZIP\n1:*:3c68746d6c:HTML:CL_TYPE_ANY:CL_TYPE_HTML:1\n0:x:50:ZIP:CL_TYPE_ANY:CL_TYPE_ZIP\n")
	if len(recs) != 2 || string(recs[0].Magic.Bytes) != "PK\x03\x04" || len(problems) != 1 || problems[0].Column != 3 {
		t.Errorf("%+v %+v", recs, problems)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("hsb", "aa15bcf478d165efd2065190eb473bcb:544:Clam.Test")
	f.Add("ndb", "A:0:EOF-4,2:de??be?f*(aa|bb){5}!(aa|bb)11")
	f.Add("ldb", "T;Engine:51-255,Target:1;(0&1)>2,1|2=0;aabbccdd;EOF-20:11223344::iw;55??66::a")
	f.Add("ign2", "Name:aa")
	f.Add("ldb", `T;Target:0;1;aabb;0/a.c(?:d|e){2,3}\x41[^\]x](?i-x:b)\Qa\E/gis`)
	f.Add("ldb", "T;Target:1,EntryPoint:5-70,Container:CL_TYPE_ZIP;1;aabb;0(>>0x5#hb2#=20,<0x30);${6-7}12$")
	f.Add("ndb", "A:1:SE3:(B)aa!(aabb|ccdd)((11|22{3})33|44)(L)")
	f.Add("cdb", "M:CL_TYPE_ZIP:*:a$:1-5:*:1:2:1a2b3c4d:*:10")
	f.Add("ftm", "0:0:504b0304:ZIP:CL_TYPE_ANY:CL_TYPE_ZIP")
	f.Add("msb", "1024:aa15bcf478d165efd2065190eb473bcb:S.One")
	f.Fuzz(func(t *testing.T, ext, text string) {
		format, ok := FormatOf(ext)
		if !ok {
			return
		}
		read(t, format, text)
	})
}

func TestImageLines(t *testing.T) {
	for line, want := range map[string]string{
		"T;Target:5;0;fuzzy_img#af2ad01ed42993c7#3": "",
		"T;Target:5;0;fuzzy_img#af2ad01ed42993c7":   "",
		"T;Target:5;0;fuzzy_img#af2ad01ed42993c":    "sixteen hexadecimal digits",
		"T;Target:5;0;fuzzy_img#af2ad01ed42993c7#x": "from 0 to 63",
		"T;Target:5;0;fuzzy_img#1#2#3":              "expected fuzzy_img",
	} {
		recs, p, _ := read(t, "ldb", line)
		if want == "" && (len(recs) != 1 || recs[0].Logical.Subs[0].Image.Hash != 0xaf2ad01ed42993c7) || want != "" && (len(p) != 1 || !strings.Contains(p[0].Reason, want)) {
			t.Errorf("%s: %+v %+v, want %q", line, recs, p, want)
		}
	}
}

// What is not supported has a name, by which it is counted.
func TestUnsupported(t *testing.T) {
	for line, want := range map[string]string{
		"T;Engine:81-255,Target:1,IconGroup1:x;0;6162": "IconGroup1",
		"T;Target:0;0&1;6162;0/a(?=b)/":                "regular expression: look-ahead (?=...)",
		`T;Target:0;0&1;6162;0/(a)\1/`:                 `regular expression: back-reference \n`,
		"T;Target:0;0&1;6162;0/a++b/":                  "regular expression: possessive repetition ++",
		"T;Target:0;0&1;6162;0/a{2000}/":               "regular expression: counts above 1000, or as large in all",
		"T;Target:0,Colour:7;0;6162":                   "Colour in a target description",
		"T;Target:0;0;61zz":                            "",
	} {
		if _, p, _ := read(t, "ldb", line); len(p) != 1 || p[0].Unsupported != want {
			t.Errorf("%s: %+v, want %q", line, p, want)
		}
	}
}
