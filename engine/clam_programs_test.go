package engine

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/exefmt"
	"github.com/bulwarkhq/bulwark/engine/exefmt/sample"
	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/test/need"
)

// programs are two PE of our own, a small one of clamav-testfiles, and an ELF.
func programs(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{
		"sample.exe": sample.PE([]byte("0123456789abcdef entry point and more text"), [][2]string{{"CompanyName", "Example Ltd"}, {"FileVersion", "1.2"}}),
	}
	files["other.exe"] = sample.PE(bytes.Repeat([]byte("longer text over several blocks; "), 70), nil)
	for _, path := range []string{"/bin/true", "/usr/share/clamav-testfiles/clam.exe"} {
		data, err := os.ReadFile(path)
		if err != nil {
			need.Missing(t, "the package clamav-testfiles: %v", err)
		}
		files[strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "_")] = data
	}
	return files
}

// TestClamProgramsOracle compares the offsets, target descriptions and hashes
// that need the layout of a program. Every signature is made from a file and
// our idea of its layout, so that clamscan finds it only where that is right.
func TestClamProgramsOracle(t *testing.T) {
	files := programs(t)
	var ndb, ldb, mdb, msb, imp strings.Builder
	n, seen := 0, map[string]bool{}
	for name, data := range files {
		target, typ := 1, filetype.PE
		if !strings.HasSuffix(name, ".exe") {
			target, typ = 6, filetype.ELF
		}
		l, err := exefmt.Read(bytes.NewReader(data), int64(len(data)), typ)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		add := func(off string, at int64) {
			// Exact, one byte off, and with room to move.
			for k, o := range []string{off, off, off + ",8"} {
				if k == 2 && (strings.HasPrefix(off, "SE") || off == "VI") {
					continue
				}
				from := at + []int64{0, 1, 3}[k]
				if from < 0 || from+8 > int64(len(data)) || bytes.Count(data[from:from+8], data[from:from+1]) > 6 {
					continue
				}
				fmt.Fprintf(&ndb, "P%d:%d:%s:%x\n", n, target, o, data[from:from+8])
				n++
			}
		}
		add("EP+0", l.Entry)
		add("EP+7", l.Entry+7)
		add("EP-5", l.Entry-5)
		for i, s := range l.Sections {
			if i > 8 || s.Size < 40 {
				continue
			}
			add(fmt.Sprintf("S%d+0", i), s.Offset)
			add(fmt.Sprintf("S%d+11", i), s.Offset+11)
			add(fmt.Sprintf("SE%d", i), s.Offset+20)
			add(fmt.Sprintf("SE%d", i), s.Offset+s.Size-1)
			add(fmt.Sprintf("SE%d", i), s.Offset+s.Size)
			add(fmt.Sprintf("SE%d", i), s.Offset-9)
		}
		if len(l.Sections) > 0 {
			add("SL+0", l.Sections[len(l.Sections)-1].Offset)
			add("SL+4", l.Sections[len(l.Sections)-1].Offset+4)
		}
		for _, at := range l.VersionTexts() {
			add("VI", at)
			add("VI", at+2)
		}
		pattern := hex.EncodeToString(data[l.Entry : l.Entry+8])
		for _, d := range []string{
			fmt.Sprintf("EntryPoint:%d-%d", l.Entry, l.Entry), fmt.Sprintf("EntryPoint:%d-%d", l.Entry+1, l.Entry+9),
			fmt.Sprintf("NumberOfSections:%d-%d", len(l.Sections), len(l.Sections)), fmt.Sprintf("NumberOfSections:%d-%d", len(l.Sections)+1, 99),
			fmt.Sprintf("FileSize:%d-%d", len(data), len(data)), "Container:CL_TYPE_ANY", "Container:CL_TYPE_ZIP",
		} {
			fmt.Fprintf(&ldb, "Q%d;Engine:81-255,%s,Target:%d;0;%s\n", n, d, target, pattern)
			n++
		}
		if target != 1 {
			continue
		}
		for _, s := range l.Sections {
			if s.Size == 0 {
				continue
			}
			b := data[s.Offset : s.Offset+s.Size]
			if seen[string(b)] {
				continue // clamscan keeps one name of a hash
			}
			seen[string(b)] = true
			fmt.Fprintf(&mdb, "%d:%x:M%d\n", s.Size, md5.Sum(b), n)
			fmt.Fprintf(&mdb, "%d:%x:MN%d\n", s.Size+1, md5.Sum(b), n)
			fmt.Fprintf(&msb, "*:%x:MS%d:73\n", sha256.Sum256(b), n)
			n++
		}
		if text := l.ImportText(); text != "" && !seen[text] {
			seen[text] = true
			fmt.Fprintf(&imp, "%x:%d:I%d\n", md5.Sum([]byte(text)), len(text), n)
			n++
		}
	}
	databases := map[string]string{"p.ndb": ndb.String(), "p.ldb": ldb.String(), "p.mdb": mdb.String(), "p.imp": imp.String()}
	hits := compareClam(t, databases, files, nil)
	// Of a section whose MD5 matched clamscan reports no SHA-256.
	hits += compareClam(t, map[string]string{"p.msb": msb.String()}, files, nil)
	t.Logf("%d signatures, %d hits", n, hits)
	if hits < 100 {
		t.Errorf("only %d hits", hits)
	}
}
