package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// generate writes signatures into a folder: half of the hashes as MD5 and half
// as SHA-256, each with a size; bodies of 16 to 40 random bytes, one in ten with
// wildcards, for files of any type.
func generate(dir string, seed uint64, hashes, bodies int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // repeatable, not secret
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	hash := func(n int) func(int) string {
		return func(i int) string {
			return fmt.Sprintf("%x:%d:Bench.Hash%d-%d", random(n), 64+rng.IntN(2<<20), n, i)
		}
	}
	body := func(i int) string {
		b := random(16 + rng.IntN(25))
		text := fmt.Sprintf("%x", b)
		if cut := 2 * (8 + rng.IntN(4)); rng.IntN(10) == 0 {
			text = text[:cut] + []string{"??", "{4}", "{2-6}", "*"}[rng.IntN(4)] + text[cut:]
		}
		return fmt.Sprintf("Bench.Body-%d:0:*:%s", i, text)
	}
	for _, f := range []struct {
		name string
		n    int
		line func(int) string
	}{
		{"bench.hdb", hashes / 2, hash(16)},
		{"bench.hsb", hashes - hashes/2, hash(32)},
		{"bench.ndb", bodies, body},
	} {
		out, err := os.Create(filepath.Join(dir, f.name))
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(out, 1<<20)
		for i := range f.n {
			if _, err := fmt.Fprintln(w, f.line(i)); err != nil {
				out.Close()
				return err
			}
		}
		if err := w.Flush(); err != nil {
			out.Close()
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
	}
	return nil
}
