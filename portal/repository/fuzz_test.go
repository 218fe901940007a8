package repository

import (
	"bytes"
	"os"
	"testing"
)

func FuzzReadDeb(f *testing.F) {
	f.Add([]byte("!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\ncontrol.tar     0           0     0     100644  0         `\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := readDeb(bytes.NewReader(data), int64(len(data)))
		if err == nil && !debName.MatchString(c.get("Package")) {
			t.Errorf("a package without a name: %v", c)
		}
	})
}

func FuzzParseControl(f *testing.F) {
	f.Add([]byte("Package: a\nVersion: 1\nDescription: x\n y\n .\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseControl(data)
		if err != nil {
			return
		}
		// What is written into the index is one paragraph still.
		var out bytes.Buffer
		for _, x := range c {
			out.WriteString(x.name + ": " + x.value + "\n")
		}
		if len(c) > 0 && bytes.Contains(out.Bytes(), []byte("\n\n")) {
			t.Errorf("two paragraphs: %q", out.Bytes())
		}
	})
}

func FuzzReadRPM(f *testing.F) {
	b, err := os.ReadFile("testdata/sample.rpm")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readRPM(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if _, err := r.files(); err != nil {
			return
		}
		for _, k := range dependencyTags {
			r.relations(k.name, k.flags, k.version)
		}
		_ = encodeSignatures(r.signatures.tags)
	})
}
