package quarantine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The test starts this binary as the process that quarantines, and kills it
// (SIGKILL) at a random moment.
const crashVariable = "BULWARK_TEST_QUARANTINE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashVariable); dir != "" {
		if err := quarantineForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func victimContent(n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "content of %d. ", n), 20000)
}

// quarantineForEver makes files and quarantines them, one after the other. It
// prints the number of each file once that is complete.
func quarantineForEver(dir string) error {
	s, err := Open(filepath.Join(dir, "store"), Options{Reserve: 1})
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		path := filepath.Join(dir, fmt.Sprintf("file-%d", n))
		if err := os.WriteFile(path, victimContent(n), 0o600); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		fmt.Println(n)
		if _, err := s.Add(context.Background(), f, path, Meta{Threat: fmt.Sprint(n)}); err != nil {
			return err
		}
		f.Close()
	}
}

func TestKilledAtAnyPoint(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	states := map[string]int{}
	for range rounds {
		dir := t.TempDir()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crashVariable+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		last := -1
		kill := time.AfterFunc(20*time.Millisecond+time.Duration(rand.IntN(60_000))*time.Microsecond, func() { cmd.Process.Kill() })
		for lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
				t.Fatal(err)
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("the process was not killed: %v", err)
		}
		kill.Stop()

		// Before and after the store has cleaned up, every file is whole in one
		// place at least.
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
		for n := 0; n <= last; n++ {
			want := victimContent(n)
			original, originalErr := os.ReadFile(filepath.Join(dir, fmt.Sprintf("file-%d", n)))
			item, stored := items[fmt.Sprint(n)]
			if stored {
				var got bytes.Buffer
				if err := s.Content(t.Context(), item.ID, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
					t.Fatalf("file %d: stored content is wrong: %v", n, err)
				}
			}
			switch {
			case stored && originalErr == nil:
				t.Fatalf("file %d: both places after Open, item %+v", n, item)
			case !stored && (originalErr != nil || !bytes.Equal(original, want)):
				t.Fatalf("file %d is lost: %v", n, originalErr)
			case stored:
				states["stored"]++
			default:
				states["original"]++
			}
		}
		left, err := filepath.Glob(filepath.Join(dir, ".bulwark-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		entries, err := os.ReadDir(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 1+2*len(items) {
			t.Errorf("%d files for %d items", len(entries), len(items))
		}
	}
	t.Logf("after the kills: %v", states)
	if states["stored"] == 0 || !testing.Short() && states["original"] == 0 {
		t.Error("the kills never hit the interesting moments")
	}
}
