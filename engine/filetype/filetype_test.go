package filetype

import (
	"archive/tar"
	"bytes"
	"os"
	"testing"
)

func TestDetect(t *testing.T) {
	var old bytes.Buffer
	w := tar.NewWriter(&old)
	if err := w.WriteHeader(&tar.Header{Name: "x", Size: 0, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	pe := append([]byte("MZ"), make([]byte, 126)...)
	pe[60] = 80
	copy(pe[80:], "PE\x00\x00")
	for want, head := range map[string]string{
		Empty: "", ELF: "\x7fELF\x02", Zip: "PK\x03\x04", Gzip: "\x1f\x8b\x08", Script: "#!/bin/sh\n", HTML: " <HTML>\n",
		PDF: "\n%PDF-1.4", Text: "hello world\n", Data: "\x00\x01\x02", "java": "\xca\xfe\xba\xbe\x00\x00\x00\x34",
		MachO: "\xca\xfe\xba\xbe\x00\x00\x00\x02", Tar: old.String(), PE: string(pe), Mail: "Received: from x\nTo: y\n", XZ: "\xfd7zXZ\x00\x00",
		Compress: "\x1f\x9d\x90",
	} {
		if got := Detect([]byte(head)); got != want {
			t.Errorf("%.20q is %s, want %s", head, got, want)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if got := Detect(data[:HeadSize]); got != ELF {
		t.Errorf("this test is %s", got)
	}
}

func FuzzDetect(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add([]byte("\xca\xfe\xba\xbe"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if Detect(b) == "" {
			t.Error("no name")
		}
	})
}
