// Package need states what a test needs of the machine. Without it the test is
// skipped on a developer's machine and fails under CI=true, so that a check
// never disappears unnoticed.
package need

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Missing ends the test because the machine lacks something.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("needed under CI=true: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Root is for tests that use privileged kernel interfaces.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// Command is for tests that run a program of the distribution; it returns its
// path.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "needs the program %s (make setup installs it)", name)
	}
	return path
}

// SharedTestdata is for tests over third-party rule sets that are not part of
// the repository. It returns the path of the named folder and skips, also
// under CI, where the folder is absent.
func SharedTestdata(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("not inside the module")
		}
		dir = parent
	}
	path := filepath.Join(dir, "..", "shared", "testdata", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("third-party test data not here: %s", name)
	}
	return path
}

// NoRaceDetector is for tests that the race detector makes impossible, such as
// those of memory limits. It skips under the detector, also under CI: packages
// that call it are tested once more without (see .ci/test).
func NoRaceDetector(t testing.TB) {
	t.Helper()
	if RaceDetector {
		t.Skip("not under the race detector")
	}
}

// Rounds is for tests of many rounds that the race detector makes ten times as
// slow although nothing in them runs in parallel: it says how many to do, fewer
// under the detector. Packages that call it are tested once more without (see
// .ci/test).
func Rounds(all, detected int) int {
	if RaceDetector {
		return detected
	}
	return all
}
