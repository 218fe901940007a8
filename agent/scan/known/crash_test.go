package known

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulwarkhq/bulwark/test/crash"
)

func TestMain(m *testing.M) {
	crash.Main(m, map[string]crash.Child{"grow": grow})
}

func grow(dir string, acknowledge func(string)) error {
	s, err := Open(filepath.Join(dir, "known"), Options{Reserve: 1})
	if err != nil {
		return err
	}
	acknowledge("open")
	for i := 0; s.Size() == 65*pageSize; i++ {
		if err := s.Add(file(first+i), when); err != nil {
			return err
		}
		if i == 0 {
			acknowledge("one")
		}
	}
	acknowledge("grown")
	return s.Close()
}

// first is where the child begins; the numbers below are for the test.
const first = 1_000_000

// crowdedStore returns a store that is about to grow: in at most 64 entries, as
// many as there are between two copies of it, plus those until it is full.
func crowdedStore(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "known")
	s := open(t, path, Options{})
	var last []byte
	for i := 0; s.Size() == 65*pageSize; i++ {
		if i%64 == 0 {
			var err error
			if last, err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
		}
		add(t, s, file(i))
	}
	return last
}

// Killed at any write, growing included, it opens again, knows what was added,
// and nothing else.
func TestKilledAtEveryWrite(t *testing.T) {
	check := func(t *testing.T, dir string, acknowledged []string) {
		s, err := Open(filepath.Join(dir, "known"), Options{Reserve: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if slices.Contains(acknowledged, "one") {
			if _, _, ok := s.Scanned(file(first)); !ok {
				t.Error("an entry is lost")
			}
		}
		if slices.Contains(acknowledged, "grown") && s.Size() <= 65*pageSize {
			t.Error("it shrank")
		}
		for i := range 100 {
			changed := file(first + i)
			changed.Size++
			if _, _, ok := s.Scanned(changed); ok {
				t.Fatal("a changed file is known")
			}
		}
		if err := s.Add(file(1), when); err != nil {
			t.Error(err)
		}
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(left) > 2 {
			t.Errorf("%q", left)
		}
	}
	early := crash.Each(t, "grow", crash.Options{Most: 10}, check)
	store := crowdedStore(t)
	crowded := func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "known"), store, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	late := crash.Each(t, "grow", crash.Options{Prepare: crowded, Every: 9}, check)
	if early.Kills != 10 || early.Calls["renameat"] != 1 || late.Kills < 10 {
		t.Errorf("the test shows little: %+v, %+v", early, late)
	}
	t.Logf("%+v, %+v", early, late)
}
