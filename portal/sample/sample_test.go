package sample_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/sample"
	"github.com/bulwarkhq/bulwark/test/need"
)

func open(t *testing.T, dir string, now *time.Time) *sample.Store {
	t.Helper()
	s, err := sample.Open(dir, func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// A file comes in parts, some of them twice, over a restart, and is found again
// in a zip; what is on disk does not show it.
func TestReceive(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	s := open(t, dir, &now)
	content := []byte(strings.Repeat("evil program ", 100_000))
	sum, size := hash(content), uint64(len(content))
	part := func(from, to uint64) sample.Part {
		return sample.Part{SHA256: sum, Size: size, Offset: from, Data: content[from:to]}
	}
	for _, step := range []struct {
		part   sample.Part
		next   uint64
		stored bool
	}{
		{sample.Part{SHA256: sum, Size: size}, 0, false},
		{part(0, 333_333), 333_333, false},
		{part(0, 333_333), 333_333, false},           // again
		{part(500_000, 600_000), 333_333, false},     // a hole
		{part(333_333, 1_000_001), 1_000_001, false}, // not at a block
		{sample.Part{SHA256: sum, Size: size}, 1_000_001, false},
		{part(1_000_001, size), size, true},
		{part(0, 10), size, true},
	} {
		next, stored, err := s.Receive("d", step.part)
		if err != nil || next != step.next || stored != step.stored {
			t.Fatalf("part at %d of %d bytes: %d, %v, %v", step.part.Offset, len(step.part.Data), next, stored, err)
		}
		s = open(t, dir, &now)
	}
	info, err := s.Get(sum)
	if err != nil || info.Size != int64(size) {
		t.Errorf("%+v, %v", info, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 {
		t.Errorf("%q", files)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || bytes.Contains(b, []byte("evil")) {
			t.Errorf("%s shows the content; %v", f, err)
		}
		if st, err := os.Stat(f); err != nil || st.Mode().Perm()&0o177 != 0 {
			t.Errorf("%s: %v, %v", f, st.Mode(), err)
		}
	}
	var out bytes.Buffer
	if err := s.Zip(t.Context(), sum, &out); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil || len(z.File) != 1 || z.File[0].Name != sum || z.File[0].Flags&1 == 0 || bytes.Contains(out.Bytes(), []byte("evil")) {
		t.Errorf("the zip: %+v, %v", z, err)
	}
	path := filepath.Join(t.TempDir(), "s.zip")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	unzip := need.Command(t, "unzip")
	if got, err := exec.Command(unzip, "-p", "-P", sample.Password, path).Output(); err != nil || !bytes.Equal(got, content) {
		t.Errorf("unzip gives %d bytes of %d: %v", len(got), size, err)
	}
	if err := exec.Command(unzip, "-t", "-P", "other", path).Run(); err == nil {
		t.Error("any password opens it")
	}

	now = now.Add(sample.Retention + time.Hour)
	if err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(sum); !errors.Is(err, sample.ErrNotFound) {
		t.Errorf("kept for ever: %v", err)
	}
}

func TestRefused(t *testing.T) {
	now := time.Now()
	s := open(t, t.TempDir(), &now)
	content := []byte("content")
	for name, tt := range map[string]struct {
		part sample.Part
		want error
	}{
		"no hash":       {sample.Part{SHA256: "../../etc/passwd", Size: 7, Data: content}, sample.ErrNotFound},
		"upper case":    {sample.Part{SHA256: strings.ToUpper(hash(content)), Size: 7, Data: content}, sample.ErrNotFound},
		"another hash":  {sample.Part{SHA256: hash([]byte("x")), Size: 7, Data: content}, sample.ErrRefused},
		"empty":         {sample.Part{SHA256: hash(nil)}, sample.ErrRefused},
		"too large":     {sample.Part{SHA256: hash(content), Size: sample.MaxSize + 1}, sample.ErrRefused},
		"part too long": {sample.Part{SHA256: hash(content), Size: sample.MaxSize, Data: make([]byte, sample.MaxPart+1)}, sample.ErrRefused},
		"behind":        {sample.Part{SHA256: hash(content), Size: 7, Offset: 8}, sample.ErrRefused},
		"beyond":        {sample.Part{SHA256: hash(content), Size: 7, Offset: 1, Data: content}, sample.ErrRefused},
		"overflow":      {sample.Part{SHA256: hash(content), Size: 7, Offset: 1<<64 - 2, Data: content}, sample.ErrRefused},
	} {
		if _, stored, err := s.Receive("d", tt.part); !errors.Is(err, tt.want) || stored {
			t.Errorf("%s: %v, %v", name, stored, err)
		}
	}
	// What one device sends in a day is bounded; another one still may.
	var err error
	big := sample.Part{SHA256: hash(content), Size: sample.MaxSize, Offset: 1, Data: make([]byte, sample.MaxPart)}
	for range 300 {
		if _, _, err = s.Receive("d", big); err != nil {
			break
		}
	}
	if !errors.Is(err, sample.ErrTooMany) {
		t.Errorf("no bound: %v", err)
	}
	if _, _, err := s.Receive("e", big); err != nil {
		t.Errorf("another device: %v", err)
	}
	now = now.Add(24 * time.Hour)
	if _, _, err := s.Receive("d", big); err != nil {
		t.Errorf("the next day: %v", err)
	}
}
