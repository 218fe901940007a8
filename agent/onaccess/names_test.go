package onaccess

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// names are paths that are refused for what they are called.
type names struct{ list atomic.Pointer[[]string] }

func (n *names) block(paths ...string) { n.list.Store(&paths) }

func (n *names) apply(c *Config) {
	n.block()
	c.NamesMatter = func() bool { return len(*n.list.Load()) > 0 }
	c.ByName = func(a Access, v verdict.Verdict) verdict.Verdict {
		if slices.Contains(*n.list.Load(), a.Path) {
			v.Matches = append(slices.Clip(v.Matches), verdict.Match{Threat: "Test:Name", Type: verdict.Malware, Signature: "name"})
		}
		return v
	}
}

// TestNameIsNotTheContents: what the name of a file says is neither kept for its
// other names, nor hidden by what is known about its content, whether they are
// links or come by another mount.
func TestNameIsNotTheContents(t *testing.T) {
	dir := tmpfs(t)
	bind(t, filepath.Join(dir, "from"), filepath.Join(dir, "bound"))
	var n names
	r := newRigOn(t, dir, func(c *Config) {
		c.OnlyMounts = []string{dir, filepath.Join(dir, "bound")}
		n.apply(c)
	})
	for _, kind := range []string{"link", "bound"} {
		for _, blockedFirst := range []bool{false, true} {
			for _, op := range []string{"read", "exec"} {
				name := kind + op
				if blockedFirst {
					name += "first"
				}
				free := r.put(t, "from/"+name, "#!/bin/sh\n# "+name)
				blocked := r.path("bound/" + name)
				if kind == "link" {
					blocked = r.path(name)
					if err := os.Link(free, blocked); err != nil {
						t.Fatal(err)
					}
					settle()
				}
				n.block(blocked)
				r.Forget()
				before := r.scanner.scans.Load()
				if blockedFirst {
					r.refuses(t, op, blocked)
				}
				for range 2 {
					r.accessor.must(request{Op: op, Path: free})
					r.refuses(t, op, blocked)
				}
				if scans := r.scanner.scans.Load() - before; scans != 1 {
					t.Errorf("%s: scanned %d times, want once", name, scans)
				}
			}
		}
	}
	s := r.Stats(0)
	if s.CacheHits == 0 || s.Detections != s.Denied {
		t.Errorf("%d cache hits, %d detections, %d denied", s.CacheHits, s.Detections, s.Denied)
	}
}

// TestNameOfWhoJoined: who waits for the scan of a file that another process
// opened by another name is judged by his own.
func TestNameOfWhoJoined(t *testing.T) {
	var n names
	r := newRig(t, n.apply)
	free, blocked := r.put(t, "free", "harmless"), r.path("blocked")
	if err := os.Link(free, blocked); err != nil {
		t.Fatal(err)
	}
	settle()
	n.block(blocked)
	r.Forget()
	started, goOn := make(chan struct{}, 10), make(chan struct{})
	r.scanner.setBefore(func(ctx context.Context, _ Access) error {
		started <- struct{}{}
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return nil
	})
	first, second := make(chan reply, 1), make(chan reply, 1)
	go func() { first <- r.accessor.do(request{Op: "read", Path: free}) }()
	<-started
	other := startAccessor(t)
	go func() { second <- other.do(request{Op: "read", Path: blocked}) }()
	wait(t, "the second one waits for the same scan", func() bool { return r.Stats(0).Joined > 0 })
	close(goOn)
	if got := <-first; got.Err != "" {
		t.Errorf("by the free name: %s", got.Err)
	}
	if got := <-second; got.Errno != int(unix.EPERM) {
		t.Errorf("by the blocked name: %q, want it refused", got.Err)
	}
}

// TestNamesThatDoNotMatter: nobody is asked about names while none says anything.
func TestNamesThatDoNotMatter(t *testing.T) {
	asked, matter := 0, false
	w := &Watcher{cfg: Config{
		NamesMatter: func() bool { return matter },
		ByName:      func(_ Access, v verdict.Verdict) verdict.Verdict { asked++; return v },
	}}
	for _, want := range []int{0, 1} {
		if w.byName(Access{}, verdict.Verdict{}); asked != want {
			t.Errorf("names matter %v: asked %d times, want %d", matter, asked, want)
		}
		matter = true
	}
}

// TestExclusionHidesNoName: what is excluded by one name is still refused by
// another one, a link of the file's or a mount of its folder.
func TestExclusionHidesNoName(t *testing.T) {
	top := rootsTmpfs(t)
	excluded, bound := filepath.Join(top, "excluded"), filepath.Join(top, "bound")
	bind(t, excluded, bound)
	for what, without := range map[string][]Feature{"folders": nil, "files": {FeatureFolderIgnore}} {
		t.Run(what, func(t *testing.T) {
			var e excludes
			var n names
			r := newRigOn(t, top, func(c *Config) {
				c.OnlyMounts, c.Without = []string{top, bound}, without
				e.apply(c)
				n.apply(c)
			})
			if what == "folders" && !r.Capabilities().FolderIgnore {
				need.Missing(t, "the kernel has no FAN_MARK_IGNORE (6.0 has it)")
			}
			file := r.put(t, "excluded/file", "harmless")
			linked := r.path("linked")
			os.Remove(linked)
			if err := os.Link(file, linked); err != nil {
				t.Fatal(err)
			}
			settle()
			e.set(excluded)
			n.block(linked, filepath.Join(bound, "file"), file)
			r.Forget()
			r.ExclusionsChanged()
			for range 2 {
				r.accessor.must(request{Op: "read", Path: file}) // exclusions go before names
				r.refuses(t, "read", linked)
				r.refuses(t, "read", filepath.Join(bound, "file"))
			}
		})
	}
}
