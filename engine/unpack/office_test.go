package unpack

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// compressedVBA is a text as [MS-OVBA] section 2.4.1 has it, of literals only.
func compressedVBA(text string) []byte {
	out := []byte{1}
	for len(text) > 0 {
		n := min(len(text), 3600) // of 4096 that a chunk may stand for
		var chunk []byte
		for i := 0; i < n; i += 8 {
			chunk = append(append(chunk, 0), text[i:min(i+8, n)]...)
		}
		out = binary.LittleEndian.AppendUint16(out, 0xb000|uint16(len(chunk)-1))
		out = append(out, chunk...)
		text = text[n:]
	}
	return out
}

// The source of macros comes out of a workbook in the form of today (zip) as out
// of the OLE2 file inside it, which msibuild writes.
func TestMacros(t *testing.T) {
	msibuild := need.Command(t, "msibuild")
	source := "Attribute VB_Name = \"Module1\"\r\nSub AutoOpen()\r\n  Shell \"calc.exe\"\r\nEnd Sub\r\n" + strings.Repeat("' words\r\n", 600)
	dir := t.TempDir()
	module := append(bytes.Repeat([]byte{0xcc}, 777), compressedVBA(source)...) // behind compiled code
	must(t, os.WriteFile(filepath.Join(dir, "module"), module, 0o600))
	cmd := exec.Command(msibuild, "vba.bin", "-a", "Module1", "module")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	project, err := os.ReadFile(filepath.Join(dir, "vba.bin"))
	must(t, err)
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, data := range map[string][]byte{"[Content_Types].xml": []byte("<?xml version=\"1.0\"?><Types/>"), "xl/vbaProject.bin": project} {
		f, err := w.Create(name)
		must(t, err)
		_, err = f.Write(data)
		must(t, err)
	}
	must(t, w.Close())
	for kind, data := range map[string][]byte{"ole2": project, "zip": b.Bytes()} {
		got, limits, err := tree(data, budget(data))
		if err != nil || len(limits) > 0 || !slices.Contains(got, source) {
			t.Errorf("%s: %d objects, limits %v, %v", kind, len(got), limits, err)
		}
	}
}
