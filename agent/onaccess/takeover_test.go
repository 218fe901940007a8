package onaccess

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReleasedByGuardIsScanned: what the guard took from the kernel's queue and let
// go while the daemon was stopped is scanned when the daemon goes on, although
// nobody opens it again: also when the daemon was stopped for so long that the guard
// keeps no file open any more, which would keep its file system mounted.
func TestReleasedByGuardIsScanned(t *testing.T) {
	for _, long := range []bool{false, true} {
		t.Run(fmt.Sprintf("long %v", long), func(t *testing.T) {
			dir, other := tmpfs(t), tmpfs(t)
			evil := filepath.Join(dir, "evil")
			written := filepath.Join(dir, "written")
			for path, content := range map[string]string{evil: bad, filepath.Join(other, "harmless"): "harmless"} {
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			actor := startAccessor(t)
			daemon, out := startTalkingDaemon(t, dir+string(filepath.ListSeparator)+other,
				"BULWARK_ONACCESS_DEADLINE=1s", "BULWARK_ONACCESS_SCANNING=1")
			guardOf(t, daemon, 0)
			signalTo(t, daemon.Process.Pid, unix.SIGSTOP)
			actor.must(request{Op: "read", Path: evil})
			actor.must(request{Op: "write", Path: written, Data: bad})
			actor.must(request{Op: "read", Path: filepath.Join(other, "harmless")})
			if long {
				wait(t, "nothing keeps the file system mounted", func() bool { return unix.Unmount(other, 0) == nil })
				if err := unix.Mount("tmpfs", other, "tmpfs", 0, ""); err != nil { // for the test's own end
					t.Fatal(err)
				}
			}
			signalTo(t, daemon.Process.Pid, unix.SIGCONT)
			// One scan is enough for the writer's open and close.
			one := map[string]string{
				"open " + evil + " late true denied false":            evil,
				"open " + written + " late true denied false":         written,
				"close_write " + written + " late false denied false": written,
			}
			missing := map[string]bool{evil: true, written: true}
			for lines := bufio.NewScanner(out); len(missing) > 0 && lines.Scan(); {
				path, known := one[lines.Text()]
				if !known {
					t.Errorf("found %q", lines.Text())
				}
				delete(missing, path)
			}
			if len(missing) > 0 {
				t.Errorf("not found: %v", missing)
			}
		})
	}
}
