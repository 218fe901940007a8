package engine

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// clamscanOf runs Debian's clamscan with the databases on the files and returns
// the names it reports, by file.
func clamscanOf(t *testing.T, databases map[string]string, files map[string][]byte) map[string][]string {
	t.Helper()
	clamscan := need.Command(t, "clamscan")
	db, dir := t.TempDir(), t.TempDir()
	for name, text := range databases {
		if err := os.WriteFile(filepath.Join(db, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(clamscan, "--no-summary", "--allmatch", "--detect-pua", "--disable-cache", "-d", db, dir).Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("clamscan: %v\n%s%s", err, out, exit.Stderr)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		path, rest, ok := strings.Cut(strings.TrimSpace(line), ": ")
		name, isFound := strings.CutSuffix(rest, ".UNOFFICIAL FOUND")
		file := filepath.Base(path)
		if ok && isFound && !slices.Contains(found[file], name) {
			found[file] = append(found[file], name)
		}
	}
	return found
}

// compareClam holds our verdicts against clamscan's; known tells differences that
// docs/engine.md explains. It returns the number of
// matches that both have.
func compareClam(t *testing.T, databases map[string]string, files map[string][]byte, known func(line, file string) bool) int {
	t.Helper()
	e, rep := build(t, databases)
	for _, p := range rep.Problems {
		t.Errorf("%v", p)
	}
	want := clamscanOf(t, databases, files)
	lines := map[string]string{}
	for database, text := range databases {
		for line := range strings.Lines(text) {
			name, _, _ := strings.Cut(line, ":")
			name, _, _ = strings.Cut(name, ";")
			switch filepath.Ext(database) {
			case ".hdb", ".hdu", ".hsb", ".hsu", ".mdb", ".mdu", ".msb", ".msu", ".imp":
				name = strings.Split(strings.TrimSpace(line), ":")[2]
			}
			lines[name] = strings.TrimSpace(line)
		}
	}
	hits := 0
	for _, file := range slices.Sorted(maps.Keys(files)) {
		got := names(scanBytes(t, e, files[file], Options{Archives: true}))
		for _, name := range slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(got), want[file]...)))) {
			we, they := slices.Contains(got, name), slices.Contains(want[file], name)
			if we && they {
				hits++
			}
			if we != they && (known == nil || !known(lines[name], file)) {
				t.Errorf("%s: %s: we say %v, clamscan says %v: %s", file, name, we, they, lines[name])
			}
		}
	}
	return hits
}

// binaryFile begins so that nobody takes it for text.
func binaryFile(s string) []byte {
	return append(append(bytes.Repeat([]byte{0}, 32), s...), 0, 0, 0, 0)
}

// TestClamSpecialOracle compares the special sub-signatures.
func TestClamSpecialOracle(t *testing.T) {
	files := map[string][]byte{}
	for i, s := range []string{
		"needle abc123 needle ABC123", "needle xx12345yy", "needleneedle 0x1F end", "trigger 00255 needle 20",
		"needle\nabc\nabd\n", "needle AbC abc aBc", "abc needle", "needle aaaa bbbb aabb", "needle 1 needle 2 needle 3",
		"onetwothree", "one..two..three", "one...three two", "aaa123bbb", "aaa1bbb aaa1ccc", "aaabbb", "needle \xe9\xff\x80 x",
		"start needle end$", "needle foo.bar foo-bar", "ne3dle needle ff00ff00", "needle -5 needle", "needle \t7 x",
	} {
		files[fmt.Sprintf("f%02d", i)] = binaryFile(s)
	}
	for _, n := range []uint32{0, 1, 20, 255, 256, 0x14000000, 0x80000000} {
		files[fmt.Sprintf("le%d", n)] = binaryFile("needle" + string(binary.LittleEndian.AppendUint32(nil, n)) + "tail")
		files[fmt.Sprintf("be%d", n)] = binaryFile("needle" + string(binary.BigEndian.AppendUint32(nil, n)) + "tail")
	}
	for _, s := range []string{"20", "14", "0x14", "0x20", "2000", "0014", "x20", " 20", "20x", "1400"} {
		files["num"+strings.ReplaceAll(s, " ", "_")] = binaryFile("needle" + s + ";tail")
	}
	var ldb strings.Builder
	n := 0
	add := func(expr string, subs ...string) {
		fmt.Fprintf(&ldb, "L%02d;Engine:81-255,Target:0;%s;%s\n", n, expr, strings.Join(subs, ";"))
		n++
	}
	needle := "6e6565646c65" // "needle"
	for _, re := range []string{
		"0/abc/", "0/abc/i", "0/ABC\\d+/", "0/^abc/", "0/^abc$/m", "0/abc$/m", "0/a.c/s", "0/(a|b){4}/", "0/needle$/",
		"0/ne{2}dle\\s+[a-b]{4}/", "0/needle.*needle/", "0/needle.*?needle/s", "0/\\bfoo\\b/", "0/foo[.]bar/", "0/foo\\.bar/",
		"0/\\xe9\\xff/", "0/[\\x80-\\xff]{3}/", "0/[^a-z]needle/", "0/a b c/x", "0/needle \\x31/", "0/\\Astart/", "0/end\\x24/",
		"32:0/needle/", "33:0/needle/", "32:0/abc/r", "40:0/abc/", "32,10:0/abc/", "30,20:0/abc/", "30,20:0/abc/e", "30,9:0/needle/e", "0/needle/A",
		"0/(?i)ABC(?-i)123/", "0/(?:needle){2}/", "0/\\d{5}/", "0/[[:digit:]]{5}/", "0/N.EDLE/i", "EOF-8:0/needle/r", "EOF-30,30:0/needle/",
		"0/aBc$/U", "0/needle\\x20(?<x>.)/", "0/[^\\n]+\\n/", "32:0/^needle/", "40:0/^abc/r",
	} {
		add("0&1", needle, re)
	}
	for _, c := range []string{"1>1", "1=1", "1=2", "1=3", "1>0", "1<2&0"} {
		add(c, needle, "0/needle/g")
		add(c, needle, "0/abc/gi")
		add(c, needle, "0/needle/")
		add(c, needle, "0/aa/g")
		add(c, needle, "0/^needle/g")
	}
	add("2", needle, "616263", "0&1/needle/")
	add("2", needle, "616263", "0|1/abc/")
	add("2", needle, "616263", "0=3/needle 3/")
	add("0|2", "787878787878", needle, "1/abc/")
	for _, opt := range []string{"ib4", "il4", "ib1", "ib2", "il2", "hb4", "hl4", "db4", "ab4", "hb2", "db2", "hbe4", "dbe4", "hbe2", "dbe2", "hle2", "hle4", "de2", "d4"} {
		for _, cmp := range []string{"=20", "=0x20", ">0", "<21", ">19,<33", "=0x14000000", "=2000", "=0x1400", "=5120"} {
			add("0&1", needle, "0(>>6#"+opt+"#"+cmp+")")
		}
	}
	add("0&1", needle, "0(>>7#db1#=2)")
	add("0&1", needle, "0(<<1#ib1#=0)")
	add("0&1", needle, "0(<<0#ib1#=0x6e)")
	add("0&1", needle, "0(>>0x7#d2#=20)")
	add("0&1", needle, "0(>>8#d1#=3)")
	add("0&1=3", needle, "0(>>7#d1#>0)")
	add("0&1=1", needle, "0(>>7#d1#>0)")
	hits := compareClam(t, map[string]string{"d.ldb": ldb.String()}, files, func(line, file string) bool {
		// What clamscan makes of little-endian text and of the automatic form
		// where there are no digits is not a rule that one could follow.
		digits := strings.HasPrefix(file, "num")
		return strings.Contains(line, "#hl") && (!digits || file == "numx20") || strings.Contains(line, "#ab") && !digits ||
			strings.Contains(line, "#hle") && file != "num2000" && file != "num1400"
	})
	t.Logf("%d signatures, %d hits", n, hits)
	if hits < 300 {
		t.Errorf("only %d hits", hits)
	}
}

// TestClamMacros holds macros to the example of the manual ("Macro
// subsignatures"), which clamscan 1.4.6 itself does not find.
func TestClamMacros(t *testing.T) {
	e, rep := build(t, map[string]string{
		"m.ldb": "TestMacro;Engine:51-255,Target:0;0&1;616161;${6-7}12$\nNone;Engine:51-255,Target:0;0&1;616161;${6-7}13$\n",
		"m.ndb": "D1:0:$12:626262\nD2:0:$12:636363\nD3:0:$30:626264\n",
	})
	if len(rep.Problems) != 1 || !strings.Contains(rep.Problems[0].String(), "m.ldb:2: sub-signature 1: macro group 13 has no signatures") {
		t.Errorf("%v", rep.Problems)
	}
	for text, want := range map[string]bool{
		"aaa...bbb": true, "aaa....ccc": true, "aaa..bbb": false, "aaa.....bbb": false, "aaa...bbd": false, "bbb...aaa": false,
		"aaa aaa...ccc": true,
	} {
		if got := scanBytes(t, e, binaryFile(text), Options{}).Infected(); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// TestClamTextOracle compares what is found in texts, pages and mails, raw and
// normalised, by target type.
func TestClamTextOracle(t *testing.T) {
	files := map[string][]byte{
		"plain.txt": []byte("Some Plain   TEXT file\nwith UPPER and   spaces\n"),
		"script.sh": []byte("#!/bin/sh\necho UPPER   \"xx\"\n"),
		"page.html": []byte("<html><!-- secret --><BODY  onload=\"X()\">Hello &amp; &#65;  World<b>UPPER   text</b><a href=http://Ev.il>x</a></BODY></html>\n"),
		"mail.eml":  []byte("Received: from x\nFrom: a@b.c\nTo: UPPER\nSubject: HeLLo\n\nThe UPPER   Body\n"),
		"utf8.txt":  []byte("v\xc3\xa4UPPER   utf8 text\n"),
		"php.php":   []byte("<?php echo UPPER   ?>\n"),
		"binary":    append([]byte{0, 1, 2, 3, 0x90, 0xff, 0xfe, 0x81, 0, 0, 0, 0}, "UPPER   binary \xff\x00\x00\x00\x90\x90\x90\x90\x90\x90\x00\x00\x00"...),
	}
	var ndb, ldb strings.Builder
	n := 0
	for _, target := range []int{0, 3, 4, 7, 8, 14} {
		for _, s := range []string{
			"UPPER", "upper", "UPPER   ", "upper t", "upper a", "upper b", "body>", "the upper", "Hello", "hello &", "hello a", "From: a",
			"from: a", "<body onload", " world", "secret", "http://Ev.il", "http://ev.il", "some plain text", "plain   TEXT",
		} {
			fmt.Fprintf(&ndb, "T%d:%d:*:%x\n", n, target, s)
			fmt.Fprintf(&ldb, "U%d;Engine:81-255,Target:%d;0&1;%x::i;%x\n", n, target, s, "er")
			n++
		}
		fmt.Fprintf(&ldb, "V%d;Engine:81-255,Target:%d;0=0;%x\n", n, target, "neverthere")
		n++
	}
	hits := compareClam(t, map[string]string{"t.ndb": ndb.String(), "t.ldb": ldb.String()}, files, func(line, file string) bool {
		// Pages are searched as they are, too, by signatures for any file.
		return file == "page.html" && (strings.Contains(line, ":0:*:") || strings.Contains(line, "Target:0;"))
	})
	t.Logf("%d signatures, %d hits", n, hits)
	if hits < 80 {
		t.Errorf("only %d hits", hits)
	}
}

// storedZip is a zip file of stored members.
func storedZip(t *testing.T, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		f, err := w.CreateHeader(&zip.FileHeader{Name: members[i], Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(members[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestClamContainersOracle compares what depends on the containers around an
// object, and signatures about members.
func TestClamContainersOracle(t *testing.T) {
	needle := string(binaryFile("needle"))
	inner := storedZip(t, "deep.bin", needle)
	var tgz bytes.Buffer
	z := gzip.NewWriter(&tgz)
	if _, err := z.Write([]byte(needle)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"plain.bin": []byte(needle), "one.zip": storedZip(t, "a/evil.exe", needle, "b.txt", "plain text"), "two.zip": storedZip(t, "inner.zip", string(inner)),
		"clean.zip": storedZip(t, "b.txt", "plain text"), "one.gz": tgz.Bytes(),
	}
	// The same with the mark of encryption on every member.
	locked := bytes.Clone(files["clean.zip"])
	locked[6] |= 1
	locked[bytes.Index(locked, []byte("PK\x01\x02"))+8] |= 1
	files["locked.zip"] = locked
	var ldb strings.Builder
	for i, d := range []string{
		"Container:CL_TYPE_ANY", "Container:CL_TYPE_ZIP", "Container:CL_TYPE_GZ", "Container:CL_TYPE_RAR", "Intermediates:CL_TYPE_ZIP",
		"Intermediates:CL_TYPE_ZIP>CL_TYPE_ZIP", "Intermediates:CL_TYPE_ANY>CL_TYPE_ZIP", "Intermediates:CL_TYPE_GZ>CL_TYPE_ZIP", "Intermediates:CL_TYPE_GZ",
	} {
		fmt.Fprintf(&ldb, "C%d;Engine:81-255,%s,Target:0;0;6e6565646c65\n", i, d)
	}
	cdb := strings.Join([]string{
		`M0:CL_TYPE_ZIP:*:\.exe$:*:*:*:*:*:*`, `M1:CL_TYPE_ZIP:*:^evil:*:*:*:*:*:*`, `M2:*:*:b\.txt:*:10:*:2:*:*`, `M3:*:*:b\.txt:*:10-20:*:1:*:*`,
		fmt.Sprintf(`M4:CL_TYPE_ZIP:%d:.*:*:*:*:*:*:*`, len(files["clean.zip"])), `M5:CL_TYPE_RAR:*:.*:*:*:*:*:*:*`, `M6:CL_TYPE_ZIP:1-10:.*:*:*:*:*:*:*`,
		`M7:CL_TYPE_ZIP:*:txt$:*:1-9:*:*:*:*`, `M8:*:*:*:*:42:*:*:*:*`,
		`M9:CL_TYPE_ZIP:*:b.txt:10:10:0:*:*:*`, `MA:CL_TYPE_ZIP:*:b.txt:9:*:*:*:*:*`, `MB:CL_TYPE_ZIP:*:*:*:*:1:*:*:*`,
		fmt.Sprintf(`MC:CL_TYPE_ZIP:*:*:*:*:*:*:%08x:*`, crc32.ChecksumIEEE([]byte("plain text"))), `MD:CL_TYPE_ZIP:*:*:*:*:*:*:12345678:*`,
	}, "\n") + "\n"
	hits := compareClam(t, map[string]string{"c.ldb": ldb.String()}, files, nil)
	hits += compareClam(t, map[string]string{"c.cdb": cdb}, files, func(line, _ string) bool {
		return strings.HasPrefix(line, "MC:") || strings.HasPrefix(line, "MD:") // clamscan does not look at the CRC, against its manual
	})
	t.Logf("%d hits", hits)
	if hits < 15 {
		t.Errorf("only %d hits", hits)
	}
}
