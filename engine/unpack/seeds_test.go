package unpack

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// seeds are small files of every kind: those that samples makes and those of
// testdata/seeds, which were made by the programs of TestRealPrograms.
func seeds(t testing.TB) map[string][]byte {
	t.Helper()
	out := samples(t)
	out["rar4"] = rar4("m", []byte(text), true, false)
	out["rar5"] = rar5("m", []byte(text), true, false)
	for _, method := range []byte{8} {
		out[fmt.Sprintf("upx-%d", method)] = upxELF(t, method, smallELF(), "UPX!")
	}
	files, err := filepath.Glob("testdata/seeds/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(f)] = data
	}
	return out
}
