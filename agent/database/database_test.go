package database

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

var (
	quiet  = slog.New(slog.DiscardHandler)
	bucket = []byte("bucket")
)

func fill(t *testing.T, path string) {
	t.Helper()
	db, err := Open(path, quiet, bucket)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		err := db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(bucket).Put(fmt.Append(nil, i), bytes.Repeat([]byte("x"), 500))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, path string) (n int) {
	t.Helper()
	db, err := Open(path, quiet, bucket)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket(bucket).Stats().KeyN
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDamage(t *testing.T) {
	tests := map[string]func(b []byte) []byte{
		"garbage":       func([]byte) []byte { return []byte(strings.Repeat("garbage ", 2000)) },
		"short":         func([]byte) []byte { return []byte("x") },
		"cut":           func(b []byte) []byte { return b[:len(b)/2+100] },
		"pages zeroed":  func(b []byte) []byte { clear(b[2*4096:]); return b },
		"pages swapped": func(b []byte) []byte { copy(b[3*4096:], bytes.Repeat(b[:4096], len(b)/4096-3)); return b },
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "folder", "data.db")
			fill(t, path)
			if n := keys(t, path); n != 50 {
				t.Fatalf("%d keys", n)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if n := keys(t, path); n != 0 {
				t.Errorf("%d keys", n)
			}
			if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
				t.Errorf("set aside: %q", aside)
			}
			fill(t, path)
			if n := keys(t, path); n != 50 {
				t.Errorf("%d keys in the new one", n)
			}
		})
	}
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.db")
	db, err := Open(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := Open(path, quiet); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the database in use was moved away")
	}
}
