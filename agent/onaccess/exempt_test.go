package onaccess

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// excludes is a set of excluded folders that a test can change.
type excludes struct{ folders atomic.Pointer[[]string] }

func (e *excludes) set(folders ...string) { e.folders.Store(&folders) }

func (e *excludes) apply(c *Config) {
	e.set()
	c.ExcludedFolders = func() []string { return *e.folders.Load() }
	c.Excluded = func(a Access) bool {
		for _, f := range *e.folders.Load() {
			if strings.HasPrefix(a.Path, f+"/") {
				return true
			}
		}
		return false
	}
	c.ExcludedPath = c.Excluded
}

// TestExcludedMountHasNoMark: accesses on an excluded mount raise no event, and
// are held again as soon as the exclusion ends.
func TestExcludedMountHasNoMark(t *testing.T) {
	for _, scope := range []MarkScope{ScopeMount, ScopeFilesystem} {
		t.Run(string(scope), func(t *testing.T) {
			var e excludes
			r := newRig(t, func(c *Config) {
				c.Scope, c.Ignore = scope, IgnoreOff
				e.apply(c)
			})
			if scope == ScopeFilesystem && !r.Capabilities().FilesystemMarks {
				t.Log("this kernel has no file-system marks: mount marks are tried again")
			}
			p := r.put(t, "bad", bad)
			refused := func() bool { return r.accessor.do(request{Op: "read", Path: p}).Errno == int(unix.EPERM) }
			if !refused() {
				t.Fatal("not refused before the exclusion")
			}
			e.set(r.dir)
			r.Forget()
			r.ExclusionsChanged()
			before := r.Stats(0)
			r.accessor.must(request{Op: "read", Path: p})
			after := r.Stats(0)
			if after.Events != before.Events || after.Excluded != before.Excluded {
				t.Errorf("%d events on an excluded mount", after.Events-before.Events)
			}
			if len(after.MarkedMounts) != 0 || len(after.SkippedMounts) != 1 || after.SkippedMounts[0].Reason != SkipExcluded {
				t.Errorf("marked %v, skipped %v", after.MarkedMounts, after.SkippedMounts)
			}
			e.set()
			r.Forget()
			r.ExclusionsChanged()
			if !refused() {
				t.Error("not refused after the exclusion ended")
			}
		})
	}
}

// TestExcludedBindMount: a file system stays watched through its other mount.
func TestExcludedBindMount(t *testing.T) {
	dir := tmpfs(t)
	sub := filepath.Join(dir, "sub")
	other := t.TempDir()
	bind(t, sub, other)
	for _, scope := range []MarkScope{ScopeMount, ScopeFilesystem} {
		t.Run(string(scope), func(t *testing.T) {
			var e excludes
			r := newRigOn(t, dir, func(c *Config) {
				c.Scope, c.Ignore, c.OnlyMounts = scope, IgnoreOff, []string{dir, other}
				e.apply(c)
			})
			r.put(t, "sub/bad", bad)
			e.set(other)
			r.Forget()
			r.ExclusionsChanged()
			before := r.events(t)
			r.accessor.must(request{Op: "read", Path: filepath.Join(other, "bad")})
			if n := r.events(t) - before; n != 0 {
				t.Errorf("%d events through the excluded mount", n)
			}
			r.refuses(t, "read", filepath.Join(sub, "bad"))
			e.set()
			r.Forget()
			r.ExclusionsChanged()
			r.refuses(t, "read", filepath.Join(other, "bad"))
		})
	}
}

// TestExcludedFileIsIgnored: an excluded file that only root can write is asked
// about once; one that others can write every time, because they could move
// what they wrote elsewhere.
func TestExcludedFileIsIgnored(t *testing.T) {
	var e excludes
	r := newRig(t, func(c *Config) {
		e.apply(c)
		c.Without = []Feature{FeatureFolderIgnore}
	})
	if err := os.Mkdir(r.path("excluded"), 0o777); err != nil {
		t.Fatal(err)
	}
	roots, others := r.put(t, "excluded/roots", bad), r.put(t, "excluded/others", bad)
	if err := os.Chmod(others, 0o666); err != nil {
		t.Fatal(err)
	}
	e.set(r.path("excluded"))
	r.Forget()
	r.ExclusionsChanged()
	settle()
	asked := func(path string) uint64 {
		before := r.Stats(0).Excluded
		for range 3 {
			r.accessor.must(request{Op: "read", Path: path})
		}
		return r.Stats(0).Excluded - before
	}
	if n := asked(roots); n != 1 {
		t.Errorf("root's file: asked %d times, want once", n)
	}
	if n := asked(others); n != 3 {
		t.Errorf("others' file: asked %d times, want every time", n)
	}
	// Others' file is scanned where it is moved to.
	moved := r.path("moved")
	r.accessor.must(request{Op: "rename", Path: others, To: moved})
	r.refuses(t, "read", moved)
	// A modification ends the mark, the end of the exclusion does too.
	before := r.Stats(0).Excluded
	r.accessor.must(request{Op: "write", Path: roots, Data: bad + "!"})
	r.accessor.must(request{Op: "read", Path: roots})
	wait(t, "the modified file is asked about", func() bool { return r.Stats(0).Excluded > before })
	e.set()
	r.Forget()
	r.ExclusionsChanged()
	time.Sleep(10 * time.Millisecond)
	r.refuses(t, "read", roots)
}

// TestExcludedFolderIsIgnored: accesses to files of an excluded folder come to
// the watcher once, whoever can write them, and what is moved out of it is
// scanned; a folder that others could move gets no mark.
func TestExcludedFolderIsIgnored(t *testing.T) {
	var e excludes
	top := rootsTmpfs(t)
	r := newRigOn(t, top, e.apply)
	if !r.Capabilities().FolderIgnore {
		need.Missing(t, "the kernel has no FAN_MARK_IGNORE (6.0 has it)")
	}
	for _, dir := range []string{"excluded", "excluded/sub", "excluded/sub/sub"} {
		if err := os.Mkdir(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Whoever may write sub can move sub/sub, but not sub.
	if err := os.Chmod(r.path("excluded/sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range []string{"excluded/a", "excluded/b", "excluded/sub/a", "excluded/sub/b", "excluded/sub/sub/a", "excluded/sub/sub/b"} {
		p := r.put(t, name, bad)
		if err := os.Chmod(p, 0o666); err != nil {
			t.Fatal(err)
		}
		files = append(files, p)
	}
	e.set(r.path("excluded"))
	r.Forget()
	r.ExclusionsChanged()
	settle()
	for i, want := range []uint64{1, 0, 1, 0, 2, 2} {
		before := r.Stats(0)
		for range 2 {
			r.accessor.must(request{Op: "read", Path: files[i]})
		}
		if got := r.Stats(0).Excluded - before.Excluded; got != want {
			t.Errorf("%s: asked %d times, want %d", files[i], got, want)
		}
	}
	// Writing there ends no mark.
	before := r.events(t)
	r.accessor.must(request{Op: "write", Path: files[1], Data: bad + "!"})
	r.accessor.must(request{Op: "read", Path: files[1]})
	if n := r.events(t) - before; n != 0 {
		t.Errorf("%d events from an ignored folder", n)
	}
	// What is moved out, or has a name elsewhere too, is scanned there.
	moved, linked := r.path("moved"), r.path("linked")
	r.accessor.must(request{Op: "rename", Path: files[1], To: moved})
	if err := os.Link(files[0], linked); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{moved, linked} {
		r.refuses(t, "read", p)
	}
	e.set()
	r.Forget()
	r.ExclusionsChanged()
	r.refuses(t, "read", files[2])
}
