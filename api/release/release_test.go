package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func sample() Set {
	sum := strings.Repeat("ab", 32)
	return Set{
		Format: Format, Channel: Production, Version: "2026.1101.1", Sequence: 1, Engine: "1.0.0",
		Files: []File{{Name: "a/b.yar", Size: 10, SHA256: sum, Deltas: []Delta{{From: strings.Repeat("cd", 32)}}}},
	}
}

func TestParseSet(t *testing.T) {
	text := func(change func(*Set)) []byte {
		s := sample()
		change(&s)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := ParseSet(text(func(*Set) {})); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Set){
		"format":             func(s *Set) { s.Format = "x" },
		"channel":            func(s *Set) { s.Channel = "../x" },
		"version":            func(s *Set) { s.Version = "../1" },
		"sequence":           func(s *Set) { s.Sequence = 0 },
		"no files":           func(s *Set) { s.Files = nil },
		"up":                 func(s *Set) { s.Files[0].Name = "../x" },
		"absolute":           func(s *Set) { s.Files[0].Name = "/etc/passwd" },
		"hidden":             func(s *Set) { s.Files[0].Name = "a/.x" },
		"backslash":          func(s *Set) { s.Files[0].Name = `a\b` },
		"deep":               func(s *Set) { s.Files[0].Name = "a/b/c/d/e" },
		"size":               func(s *Set) { s.Files[0].Size = -1 },
		"too large":          func(s *Set) { s.Files[0].Size = MaxBytes + 1 },
		"sum":                func(s *Set) { s.Files[0].SHA256 = strings.Repeat("AB", 32) },
		"short sum":          func(s *Set) { s.Files[0].SHA256 = "ab" },
		"delta":              func(s *Set) { s.Files[0].Deltas[0].From = "../x" },
		"twice":              func(s *Set) { s.Files = append(s.Files, s.Files[0]) },
		"twice but for case": func(s *Set) { s.Files = append(s.Files, s.Files[0]); s.Files[1].Name = "A/b.yar" },
		"file and folder":    func(s *Set) { s.Files = append(s.Files, s.Files[0]); s.Files[1].Name = "a" },
	} {
		if s, err := ParseSet(text(change)); !errors.Is(err, ErrSet) {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
	if _, err := ParseSet([]byte("{")); !errors.Is(err, ErrSet) {
		t.Error(err)
	}
}

// TestDelta makes and applies deltas of random changes.
func TestDelta(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		return b
	}
	for i := range 200 {
		old := random(r.IntN(5000))
		if i%4 == 0 {
			old = bytes.Repeat([]byte("the same line again\n"), r.IntN(300))
		}
		new := bytes.Clone(old)
		for range r.IntN(6) {
			at := r.IntN(len(new) + 1)
			switch r.IntN(3) {
			case 0:
				new = append(new[:at:at], append(random(r.IntN(100)), new[at:]...)...)
			case 1:
				new = append(new[:at:at], new[min(len(new), at+r.IntN(200)):]...)
			case 2: // a piece moves
				end := min(len(new), at+r.IntN(1000))
				new = append(new[:at:at], append(bytes.Clone(new[end:]), new[at:end]...)...)
			}
		}
		var delta, got bytes.Buffer
		if err := WriteDelta(&delta, old, new); err != nil {
			t.Fatal(err)
		}
		patch := bytes.Clone(delta.Bytes())
		if err := ApplyDelta(&got, &delta, bytes.NewReader(old), int64(len(new))); err != nil || !bytes.Equal(got.Bytes(), new) {
			t.Fatalf("round %d: %v, %d bytes for %d", i, err, got.Len(), len(new))
		}
		if err := ApplyDelta(io.Discard, bytes.NewReader(patch), bytes.NewReader(old), int64(len(new))+1); !errors.Is(err, ErrDelta) {
			t.Errorf("another size: %v", err)
		}
	}
	// A line in the middle of a megabyte costs little.
	old := random(1 << 20)
	new := append(append(bytes.Clone(old[:500_000]), "a line\n"...), old[500_000:]...)
	var delta bytes.Buffer
	if err := WriteDelta(&delta, old, new); err != nil || delta.Len() > 200 {
		t.Errorf("%v, %d bytes", err, delta.Len())
	}
}

// endless is a source that never stops sending, or never begins.
type endless struct{ silent bool }

func (endless) String() string { return "endless" }
func (e endless) Open(ctx context.Context, _ string) (io.ReadCloser, error) {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	if !e.silent {
		go func() {
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}()
	}
	return r, nil
}

func TestFetchBounds(t *testing.T) {
	var b bytes.Buffer
	if n, err := fetch(t.Context(), endless{}, "x", 10_000, &b); !errors.Is(err, ErrEndless) || n > 10_001 {
		t.Errorf("%d bytes, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := fetch(ctx, endless{silent: true}, "x", 10_000, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestFolderSource(t *testing.T) {
	dir := t.TempDir()
	s := &FolderSource{Dir: dir}
	if _, err := s.Open(t.Context(), "absent"); !errors.Is(err, ErrAbsent) {
		t.Errorf("%v", err)
	}
	if _, err := s.Open(t.Context(), "../x"); err == nil {
		t.Error("it leaves its folder")
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), "folder"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "60": time.Minute, "-5": 0, "999999999": 24 * time.Hour, "soon": 0, now.Add(time.Hour).Format(http.TimeFormat): time.Hour,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzParseSet(f *testing.F) {
	b, err := json.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":"bulwark-definitions/1","files":[{"name":"a"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSet(data)
		if err != nil {
			return
		}
		for _, file := range s.Files {
			if !filepath.IsLocal(file.Name) || strings.Contains(file.Name, "..") && strings.HasPrefix(file.Name, "..") {
				t.Errorf("%q", file.Name)
			}
		}
	})
}

func FuzzApplyDelta(f *testing.F) {
	var delta bytes.Buffer
	old := []byte(strings.Repeat("an old file ", 20))
	if err := WriteDelta(&delta, old, append([]byte("new: "), old...)); err != nil {
		f.Fatal(err)
	}
	f.Add(delta.Bytes())
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		err := ApplyDelta(&out, bytes.NewReader(data), bytes.NewReader(old), 1000)
		if out.Len() > 1000 || err == nil && out.Len() != 1000 {
			t.Errorf("%d bytes, %v", out.Len(), err)
		}
	})
}

func FuzzRootVersion(f *testing.F) {
	f.Add([]byte(`{"signatures":[],"signed":{"_type":"root","version":1,"roles":{"root":{"keyids":[],"threshold":0}}}}`))
	f.Add([]byte(fmt.Sprintf(`{"signed":{"_type":"root","expires":"2030-01-01T00:00:00Z","keys":{"%064x":{"keytype":"ed25519"}}}}`, 1)))
	f.Fuzz(func(_ *testing.T, data []byte) { RootVersion(data) })
}
