package unpack_test

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/test/need"
)

// testFiles is where Debian's package clamav-testfiles has its files: one small
// program, clam.exe, in 44 kinds of container and packer.
const testFiles = "/usr/share/clamav-testfiles"

// clamEXE is the signature of that program.
const clamEXE = "aa15bcf478d165efd2065190eb473bcb:544:Clam.Test\n"

// found are the files in which the program is found. One more or one less fails
// the test: the table in docs/engine.md must say the same.
var found = []string{
	"clam-aspack.exe",
	"clam-fsg.exe",
	"clam-mew.exe",
	"clam-nsis.exe",
	"clam-pespin.exe",
	"clam-petite.exe",
	"clam-upack.exe",
	"clam-upx.exe",
	"clam-wwpack.exe",
	"clam-yc.exe",
	"clam.7z",
	"clam.arj",
	"clam.bin-be.cpio",
	"clam.bin-le.cpio",
	"clam.bz2.zip",
	"clam.cab",
	"clam.chm",
	"clam.d64.zip",
	"clam.ea05.exe",
	"clam.ea06.exe",
	"clam.exe",
	"clam.exe.binhex",
	"clam.exe.bz2",
	"clam.exe.html",
	"clam.exe.mbox.base64",
	"clam.exe.mbox.uu",
	"clam.exe.rtf",
	"clam.exe.szdd",
	"clam.impl.zip",
	"clam.mail",
	"clam.newc.cpio",
	"clam.odc.cpio",
	"clam.ole.doc",
	"clam.pdf",
	"clam.ppt",
	"clam.sis",
	"clam.tar.gz",
	"clam.tnef",
	"clam.zip",
	"clam_IScab_ext.exe",
	"clam_IScab_int.exe",
	"clam_ISmsi_ext.exe",
	"clam_ISmsi_int.exe",
	"clam_cache_emax.tgz",
}

func clamEngine(t testing.TB) *engine.Engine {
	t.Helper()
	dir := t.TempDir()
	sig := filepath.Join(dir, "clam.hdb")
	if err := os.WriteFile(sig, []byte(clamEXE), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "d.bwd"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := definitions.Compile(context.Background(), out, []definitions.Source{{Path: sig}}, definitions.CompileOptions{}); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestClamAVTestFiles(t *testing.T) {
	entries, err := os.ReadDir(testFiles)
	if err != nil {
		need.Missing(t, "needs the package clamav-testfiles: %v", err)
	}
	if len(entries) != 44 {
		t.Errorf("%d files, not 44: another version of the package", len(entries))
	}
	e := clamEngine(t)
	for _, f := range entries {
		if st, err := f.Info(); err == nil && st.Size() > int64(need.Rounds(math.MaxInt32, 200_000)) {
			continue // half of the time under the race detector is that of six
		}
		t.Run(f.Name(), func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(testFiles, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			v, err := e.Scan(context.Background(), bytes.NewReader(data), int64(len(data)), engine.Options{Name: f.Name(), Archives: true})
			if err != nil {
				t.Fatal(err)
			}
			want := slices.Contains(found, f.Name())
			switch {
			case v.Infected() && !want:
				t.Errorf("found, which was not expected: record it in this test and in docs/engine.md")
			case !v.Infected() && want:
				t.Errorf("not found; type %s, %d objects, limits %v", v.FileType, v.Objects, v.Limits)
			}
			t.Logf("%v %s, %d objects, limits %v", v.Infected(), v.FileType, v.Objects, v.Limits)
		})
	}
}
