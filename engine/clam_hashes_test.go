package engine

import (
	"archive/zip"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/siggen"
	"github.com/bulwarkhq/bulwark/test/need"
)

// TestClamGeneratedHashes makes hash signatures of every kind, exceptions,
// ignore lists and signatures about members, for files and for files that they
// miss by a digit or a byte, and compares with clamscan.
func TestClamGeneratedHashes(t *testing.T) {
	need.Command(t, "clamscan")
	hits := 0
	for seed := range seeds(t) {
		g := siggen.New(seed + 1000)
		lists := map[string][]string{}
		files := map[string][]byte{}
		n := 0
		add := func(format, line string) {
			if line != "" {
				lists["h."+format] = append(lists["h."+format], line)
			}
			n++
		}
		name := func() string { return fmt.Sprintf("H%d", n) }
		for i := range 12 {
			data := g.Plain()
			files[fmt.Sprintf("plain%d", i)] = data
			for _, near := range []bool{false, false, true} {
				line, format := g.FileHash(data, name(), near)
				if g.IntN(4) == 0 {
					format = format[:2] + "u" // potentially unwanted
				}
				add(format, line)
			}
			if i%6 == 0 {
				line, format := g.FileHash(data, name(), i == 6)
				add(map[string]string{"hdb": "fp", "hsb": "sfp"}[format], line)
			}
		}
		for i := range 5 {
			data := g.Program()
			files[fmt.Sprintf("program%d.exe", i)] = data
			for _, near := range []bool{false, false, true} {
				line, format := g.SectionHash(data, name(), near)
				if g.IntN(4) == 0 {
					format = format[:2] + "u"
				}
				add(format, line)
			}
			add("imp", g.ImportHash(data, name(), i == 1))
			line, format := g.FileHash(data, name(), false)
			add(format, line)
		}
		for i := range 4 {
			inner := g.Plain()
			files[fmt.Sprintf("inner%d", i)] = inner
			data := storedZip(t, fmt.Sprintf("evil%d.exe", i), string(inner), "b.txt", strings.Repeat("text ", i+1))
			files[fmt.Sprintf("z%d.zip", i)] = data
			z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			for k, f := range z.File {
				for _, near := range []bool{false, false, true} {
					add("cdb", g.Member(data, f, k+1, name(), near))
				}
			}
			line, format := g.FileHash(inner, name(), false)
			add(format, line)
			// The first container, and what is in the second, are known good.
			switch i {
			case 0:
				line, format = g.FileHash(data, name(), false)
				add(map[string]string{"hdb": "fp", "hsb": "sfp"}[format], line)
			case 1:
				line, format = g.FileHash(inner, name(), false)
				add(map[string]string{"hdb": "fp", "hsb": "sfp"}[format], line)
			}
		}
		// (clamscan 1.4.6 refuses the form with the MD5 of a line.)
		nameOf := func(l string) string { return strings.Split(l, ":")[2] }
		add("ign2", nameOf(lists["h.hsb"][0]))
		add("ign2", "h.hsb:2:"+nameOf(lists["h.hsb"][1]))
		add("ign", "h.hdb:1:"+nameOf(lists["h.hdb"][0]))
		add("ign", nameOf(lists["h.hdb"][1]))
		// Of two names for one hash clamscan keeps one.
		doubled, first := map[string]bool{}, map[string]string{}
		for _, l := range lists {
			for _, line := range l {
				for _, f := range strings.Split(line, ":") {
					if f = strings.ToLower(f); len(f) >= 32 && first[f] != "" {
						doubled[line], doubled[first[f]] = true, true
					} else if len(f) >= 32 {
						first[f] = line
					}
				}
			}
		}
		text := map[string]string{}
		for _, r := range acceptedByClamscan(t, lists) {
			t.Errorf("seed %d: clamscan refuses %s", seed, r)
		}
		for file, l := range lists {
			text[file] = strings.Join(l, "\n") + "\n"
		}
		hits += compareClam(t, text, files, func(line, _ string) bool { return doubled[line] })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d hits", hits)
	if hits < 20*int(seeds(t)) {
		t.Errorf("only %d hits", hits)
	}
}

// TestClamMagicOracle gives file type magic of our own to both; the built-in
// magic of clamscan is then none.
func TestClamMagicOracle(t *testing.T) {
	body := "\x01\x02needle\x00\x00\x00\x00\xff\xfe\x01"
	files := map[string][]byte{}
	for i, head := range []string{"ABCD", "ABCE", "xxABCD", "xxEFGH", "EFGH", "IJ\x00\x01\x02", "\x00\x00\x00\x00"} {
		files[fmt.Sprintf("f%d", i)] = []byte(head + body)
	}
	var ndb, ldb strings.Builder
	for _, target := range []int{0, 1, 2, 5, 6, 10, 11, 12, 14} {
		fmt.Fprintf(&ndb, "N%d:%d:*:6e6565646c65\n", target, target)
		fmt.Fprintf(&ldb, "L%d;Engine:81-255,Target:%d;0;6e6565646c65\n", target, target)
	}
	ftm := strings.Join([]string{
		"0:0:41424344:Mine:CL_TYPE_ANY:CL_TYPE_GRAPHICS", "0:2:45464748:Other:CL_TYPE_ANY:CL_TYPE_SWF", "0:0:494a00:Third:CL_TYPE_ANY:CL_TYPE_MSOLE2:73",
		"0:0:00000000:Never:CL_TYPE_ANY:CL_TYPE_JAVA:300",
	}, "\n") + "\n"
	if hits := compareClam(t, map[string]string{"m.ndb": ndb.String(), "m.ldb": ldb.String(), "m.ftm": ftm}, files, nil); hits < 20 {
		t.Errorf("only %d hits", hits)
	}
}
