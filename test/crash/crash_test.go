package crash_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulwarkhq/bulwark/test/crash"
)

func TestMain(m *testing.M) {
	crash.Main(m, map[string]crash.Child{"writer": writer})
}

// writer writes three lines to a file that it syncs only after the second, then
// renames it.
func writer(dir string, acknowledge func(string)) error {
	path := filepath.Join(dir, "file")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for i := range 3 {
		if _, err := fmt.Fprintf(f, "line %d\n", i); err != nil {
			return err
		}
		if i == 1 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		acknowledge(fmt.Sprint(i))
	}
	return errors.Join(f.Close(), os.Rename(path, path+".done"))
}

// Every state that the child goes through is seen once, in order.
func TestEach(t *testing.T) {
	var states []string
	look := func(t *testing.T, dir string, acknowledged []string) {
		content, err := os.ReadFile(filepath.Join(dir, "file"))
		if err != nil {
			content, err = os.ReadFile(filepath.Join(dir, "file.done"))
			if err == nil {
				content = append(content, "done"...)
			}
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		states = append(states, fmt.Sprintf("%d %v %q", len(acknowledged), err == nil, content))
	}
	got := crash.Each(t, "writer", crash.Options{}, look)
	want := []string{
		`0 false ""`, `0 true ""`, `1 true "line 0\n"`, `1 true "line 0\nline 1\n"`, `2 true "line 0\nline 1\n"`,
		`3 true "line 0\nline 1\nline 2\n"`, `3 true "line 0\nline 1\nline 2\ndone"`,
	}
	if !slices.Equal(states, want) {
		t.Errorf("%q", states)
	}
	if got.Kills != 6 || got.Calls["write"] != 3 || got.Calls["fsync"] != 1 || got.Calls["openat"] != 1 || got.Calls["renameat"] != 1 {
		t.Errorf("%+v", got)
	}
	states = nil
	crash.Each(t, "writer", crash.Options{From: 5, PowerLoss: true}, look)
	if states[0] != `3 true "line 0\nline 1\nline 2\n"` || states[1] != `3 true "line 0\nline 1\n"` {
		t.Errorf("a loss of power leaves %q", states)
	}
}
