package scan

import (
	"archive/zip"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

func newEnginePool(t *testing.T) (*Pool, string) {
	t.Helper()
	return newTestPool(t, func(c *Config) {
		c.Env = []string{engineVariable + "=1"}
		if err := os.Remove(filepath.Join(c.Sources[0], "a.txt")); err != nil {
			t.Fatal(err)
		}
	})
}

// The real engine inside the real sandbox.
func TestEngine(t *testing.T) {
	need.Root(t)
	p, sources := newEnginePool(t)
	v, err := scan(t, p, string(definitions.EICAR()))
	if err != nil || !v.Infected() || v.SHA256 == "" || v.Engine == "" {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, err := scan(t, p, "clean"); err != nil || v.Infected() || !v.Complete() {
		t.Errorf("%+v, %v", v, err)
	}

	path := filepath.Join(t.TempDir(), "a.zip")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	w, err := z.Create("inner/eicar.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(definitions.EICAR()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	f, err = os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err = p.Scan(context.Background(), Request{File: f, Path: path, Archives: true})
	if err != nil || !v.Infected() || v.Primary().Type != verdict.Test || strings.Join(v.Primary().Inside, ">") != "inner/eicar.com" {
		t.Errorf("zip: %+v, %v", v, err)
	}

	// A signature of one's own, and one that is wrong.
	writeFile(t, filepath.Join(sources, "own.ndb"), "Own.Worm:0:*:"+"62756c7761726b2d776f726d"+"\nnot a signature\n")
	writeFile(t, filepath.Join(sources, "own.yar"), "rule OwnRule { strings: $a = \"yara-worm\" condition: $a }\n")
	report, err := p.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) != 1 || report.Problems[0].File != filepath.Join(sources, "own.ndb") || report.Problems[0].Line != 2 {
		t.Errorf("%+v", report.Problems)
	}
	for content, want := range map[string]string{"a bulwark-worm in here": "Own.Worm", "a yara-worm in here": "OwnRule"} {
		if v, err := scan(t, p, content); err != nil || !v.Infected() || v.Primary().Signature != want {
			t.Errorf("%s: %+v, %v", want, v, err)
		}
	}
	s := p.Status()
	if s.Generation != 2 || s.Info.Total < 3 || s.Info.Definitions == "" || s.Crashes != 0 {
		t.Errorf("%+v", s)
	}

	// Compiled definitions in the format of an earlier version are compiled again.
	compiled := filepath.Join(p.cfg.Dir, currentFile)
	data, err := os.ReadFile(compiled)
	if err != nil {
		t.Fatal(err)
	}
	version := binary.LittleEndian.Uint32(data[8:])
	binary.LittleEndian.PutUint32(data[8:], version-1)
	if err := os.WriteFile(compiled, data, 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := NewPool(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	runPool(t, again)
	if v, err := scan(t, again, "a yara-worm in here"); err != nil || !v.Infected() {
		t.Errorf("%+v, %v", v, err)
	}
	// They are in use before they are in their place.
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if data, err = os.ReadFile(compiled); err == nil && binary.LittleEndian.Uint32(data[8:]) == version {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("%v: the file was not compiled again", err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p, err := NewPool(Config{Dir: b.TempDir(), Program: exe, Env: []string{engineVariable + "=1"}, User: "nobody"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	path := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(path, []byte(strings.Repeat("some text ", 10000)), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := p.Scan(ctx, Request{File: f, Path: path}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(100000)
	for b.Loop() {
		if _, err := p.Scan(ctx, Request{File: f, Path: path}); err != nil {
			b.Fatal(err)
		}
	}
}
