package database

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// sample is a database with all that the format has: branches, overflowing
// pages, buckets in buckets (small ones inside of a page too) and free pages.
func sample(t testing.TB, seed uint64) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	path := filepath.Join(t.TempDir(), "sample.db")
	db, err := Open(path, quiet, bucket)
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		err := db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucket)
			for range 40 {
				key := fmt.Appendf(nil, "key %d", random.IntN(400))
				if random.IntN(4) == 0 {
					if err := b.Delete(key); err != nil {
						return err
					}
				} else if err := b.Put(key, bytes.Repeat([]byte("x"), random.IntN(800))); err != nil {
					return err
				}
			}
			inner, err := b.CreateBucketIfNotExists([]byte("inner"))
			if err != nil {
				return err
			}
			if err := inner.Put([]byte("big"), bytes.Repeat([]byte("y"), 10_000+random.IntN(10_000))); err != nil {
				return err
			}
			small, err := inner.CreateBucketIfNotExists([]byte("small"))
			if err != nil {
				return err
			}
			return small.Put([]byte("a"), []byte("b"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// use opens a file as a database and reads, changes and checks all of it; this
// must come to an end without a panic, whatever is in the file.
func use(t *testing.T, content []byte) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "data.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- fmt.Errorf("panic: %v", v)
			}
		}()
		done <- func() error {
			db, err := Open(path, quiet, bucket, []byte("other"))
			if err != nil {
				return err
			}
			err = db.Update(func(tx *bolt.Tx) error {
				b := tx.Bucket(bucket)
				for i := range 300 {
					if err := b.Put(fmt.Appendf(nil, "new %d", i), bytes.Repeat([]byte("z"), 300)); err != nil {
						return err
					}
				}
				for i := range 400 {
					if err := b.Delete(fmt.Appendf(nil, "key %d", i)); err != nil && b.Get(fmt.Appendf(nil, "key %d", i)) != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			err = db.View(func(tx *bolt.Tx) error {
				var first error
				for err := range tx.Check() {
					// Pages that nothing leads to any more are only lost room.
					if first == nil && !bytes.Contains([]byte(err.Error()), []byte("unreachable unfreed")) {
						first = err
					}
				}
				return first
			})
			if err != nil {
				return err
			}
			return db.Close()
		}()
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("opening or using the damaged database does not end")
	}
}

// damage changes some bytes; half of the changes are to what the pages say of
// themselves.
func damage(b []byte, random *rand.Rand) []byte {
	b = bytes.Clone(b)
	for range 1 + random.IntN(8) {
		at := random.IntN(len(b))
		switch random.IntN(8) {
		case 0: // the header of a page
			at = at/4096*4096 + random.IntN(16)
		case 1, 2, 3: // its elements
			at = at/4096*4096 + 16 + random.IntN(256)
		case 4: // a page takes the place of another
			copy(b[at/4096*4096:], b[random.IntN(len(b)/4096)*4096:][:4096])
			continue
		case 5:
			if random.IntN(4) == 0 {
				return b[:at]
			}
		}
		b[at] = byte(random.IntN(256))
		if random.IntN(2) == 0 {
			b[at] = byte(random.IntN(8)) // small numbers are page numbers and counts
		}
	}
	return b
}

func TestRandomDamage(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	whole := sample(t, 1)
	if err := check(bytes.NewReader(whole), int64(len(whole))); err != nil {
		t.Fatalf("a good database: %v", err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range rounds {
		use(t, damage(whole, random))
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(uint64(1), []byte(nil), uint32(0))
	f.Add(uint64(2), []byte{1, 2, 3, 4}, uint32(8192))
	whole := sample(f, 3)
	f.Fuzz(func(t *testing.T, seed uint64, patch []byte, at uint32) {
		b := damage(whole, rand.New(rand.NewPCG(seed, 7)))
		if int(at) < len(b) {
			copy(b[at:], patch)
		}
		use(t, b)
	})
}
