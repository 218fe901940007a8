package process

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// The program that everybody compares with gives the same for files of all
// sizes, random, of text, of one byte, and real programs.
func TestFuzzyHashIsSsdeeps(t *testing.T) {
	need.Command(t, "ssdeep")
	r := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	var files []string
	add := func(data []byte) {
		name := filepath.Join(dir, strconv.Itoa(len(files)))
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	for _, n := range []int{1, 7, 100, 192, 193, 1000, 4096, 20_000, 100_001, 300_000} {
		random := make([]byte, n)
		for i := range random {
			random[i] = byte(r.Uint32())
		}
		add(random)
		add(bytes.Repeat([]byte("the quick brown fox "), n/20+1)[:n])
		add(bytes.Repeat([]byte{'a'}, n))
		add(append(random[:n/2:n/2], make([]byte, n-n/2)...))
		// Fewer pieces than the size lets expect: a smaller block size is right.
		add(append(random[:n/4:n/4], make([]byte, n-n/4)...))
		add(append(random[:n/10:n/10], make([]byte, n-n/10)...))
	}
	files = append(files, "/bin/true", "/bin/bash", "/etc/passwd", "/etc/services")
	out, err := exec.Command("ssdeep", append([]string{"-s"}, files...)...).Output()
	if err != nil {
		t.Logf("ssdeep: %v", err) // it complains about small files
	}
	want := map[string]string{}
	for line := range strings.SplitSeq(string(out), "\n") {
		if hash, name, ok := strings.Cut(line, `,"`); ok {
			want[strings.TrimSuffix(name, `"`)] = hash
		}
	}
	if len(want) < len(files)-2 {
		t.Fatalf("ssdeep tells %d of %d files", len(want), len(files))
	}
	fast, again, slow := 0, map[int]int{}, 0
	for name, hash := range want {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f := newFuzzyHash()
		_, _ = f.Write(data[:len(data)/3])
		_, _ = f.Write(data[len(data)/3:])
		if got := f.String(); got != hash {
			t.Errorf("%s, %d bytes:\n%s\n%s", name, len(data), got, hash)
		}
		p := newFuzzyPair(int64(len(data)))
		_, _ = p.Write(data[:len(data)/5])
		_, _ = p.Write(data[len(data)/5:])
		if got, ok := p.sum(); ok {
			fast++
			if got != hash {
				t.Errorf("%s, %d bytes, the fast way:\n%s\n%s", name, len(data), got, hash)
			}
		}
		var h Hashes
		passes := 0
		c := newContent(int64(len(data)))
		_, _ = c.Write(data)
		err = c.into(&h, func(w io.Writer) error {
			passes++
			if _, all := w.(*fuzzyHash); all {
				slow++
			}
			_, err := w.Write(data)
			return err
		})
		if err != nil || h.Fuzzy != hash {
			t.Errorf("%s, %d bytes, read %d times: %v\n%s\n%s", name, len(data), 1+passes, err, h.Fuzzy, hash)
		}
		again[passes]++
	}
	// Every way was gone.
	if again[0] == 0 || again[1] == 0 || again[2] == 0 || slow == 0 || slow == again[1]+again[2] {
		t.Errorf("files by how often they were read again: %v, for all block sizes %d", again, slow)
	}
	if fast < len(want)/3 {
		t.Errorf("%d of %d files took the fast way", fast, len(want))
	}
}

func BenchmarkContent(b *testing.B) {
	data := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	b.SetBytes(int64(len(data)))
	for range b.N {
		_, _ = newContent(int64(len(data))).Write(data)
	}
}

func TestEntropy(t *testing.T) {
	for _, c := range []struct {
		data []byte
		want float64
	}{{nil, 0}, {bytes.Repeat([]byte{7}, 1000), 0}, {bytes.Repeat([]byte{1, 2}, 500), 1}, {bytes.Repeat([]byte{1, 2, 3, 4}, 500), 2}} {
		x := newContent(int64(len(c.data)))
		_, _ = x.Write(c.data)
		var h Hashes
		again := func(w io.Writer) error { _, err := w.Write(c.data); return err }
		if err := x.into(&h, again); err != nil {
			t.Fatal(err)
		}
		if d := h.Entropy - c.want; d > 1e-9 || d < -1e-9 {
			t.Errorf("%v, want %v", h.Entropy, c.want)
		}
	}
}
