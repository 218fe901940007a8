package quarantine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/crash"
)

func TestMain(m *testing.M) {
	crash.Main(m, map[string]crash.Child{"store": useStore})
}

const victims = 2

func victimContent(n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "content of %d. ", n), 7000)
}

func victim(dir string, n int) string { return filepath.Join(dir, "files", fmt.Sprint(n)) }

// useStore quarantines the files, restores the first and removes the last.
func useStore(dir string, acknowledge func(string)) error {
	s, err := Open(filepath.Join(dir, "store"), Options{Reserve: 1})
	if err != nil {
		return err
	}
	var items []Item
	for n := range victims {
		f, err := os.Open(victim(dir, n))
		if err != nil {
			return err
		}
		item, err := s.Add(context.Background(), f, victim(dir, n), Meta{Threat: fmt.Sprint(n)})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		acknowledge(fmt.Sprintf("add %d", n))
		items = append(items, item)
	}
	if _, err := s.Restore(context.Background(), items[0].ID, ""); err != nil {
		return err
	}
	acknowledge("restore")
	if err := s.Remove(items[1].ID); err != nil {
		return err
	}
	acknowledge("remove")
	return nil
}

// Killed before any write, every file is whole in one place, and nothing else is
// left behind.
func TestKilledAtEveryWrite(t *testing.T) {
	prepare := func(dir string) {
		if err := os.Mkdir(filepath.Join(dir, "files"), 0o700); err != nil {
			t.Fatal(err)
		}
		for n := range victims {
			if err := os.WriteFile(victim(dir, n), victimContent(n), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	stored, original := 0, 0
	got := crash.Each(t, "store", crash.Options{Prepare: prepare}, func(t *testing.T, dir string, acknowledged []string) {
		done := func(what string) bool { return slices.Contains(acknowledged, what) }
		s, err := Open(filepath.Join(dir, "store"), Options{Reserve: 1})
		if err != nil {
			t.Fatal(err)
		}
		items := map[string]Item{}
		for _, i := range s.List() {
			items[i.Threat] = i
			if i.State == StateStored {
				t.Errorf("unfinished item after Open: %+v", i)
			}
		}
		for n := range victims {
			want := victimContent(n)
			there, err := os.ReadFile(victim(dir, n))
			isThere := err == nil && bytes.Equal(there, want)
			if err == nil && !isThere {
				t.Errorf("file %d is half there", n)
			}
			item, isStored := items[fmt.Sprint(n)]
			if isStored {
				var content bytes.Buffer
				if err := s.Content(t.Context(), item.ID, &content); err != nil || !bytes.Equal(content.Bytes(), want) {
					t.Errorf("file %d: the stored content is wrong: %v", n, err)
				}
			}
			switch {
			case n == 0 && done("restore"):
				if !isThere || isStored {
					t.Errorf("restored, and there: %v, stored: %v", isThere, isStored)
				}
			case n == 0 && done("add 0"): // being restored: one place at least
				if !isThere && !isStored {
					t.Error("lost while it was restored")
				}
			case n == 1 && done("restore") && !isThere && !isStored: // removed, or about to be
			case n == 1 && done("remove"):
				t.Errorf("removed, and there: %v, stored: %v", isThere, isStored)
			case isThere == isStored || done(fmt.Sprintf("add %d", n)) && !isStored:
				t.Errorf("file %d there: %v, stored: %v", n, isThere, isStored)
			case isStored:
				stored++
			default:
				original++
			}
		}
		entries, err := os.ReadDir(filepath.Join(dir, "store"))
		if err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(filepath.Join(dir, "files"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if strings.HasPrefix(e.Name(), ".") {
				t.Errorf("left behind: %s", e.Name())
			}
		}
		if len(entries) != 1+2*len(items) {
			t.Errorf("%d files for %d items", len(entries), len(items))
		}
	})
	if got.Kills < 30 || stored < 10 || original < 10 {
		t.Errorf("the test shows little: %+v, %d stored, %d not", got, stored, original)
	}
	t.Logf("%+v", got)
}
