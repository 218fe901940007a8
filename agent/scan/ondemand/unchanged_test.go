package ondemand

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/need"
)

// diskDir is a folder on a file system whose files can be known.
func diskDir(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/var/tmp", "."} {
		dir, err := os.MkdirTemp(parent, "scan-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		id := newVolumes().of(int(f.Fd())).id
		f.Close()
		if id != "" {
			abs, err := filepath.Abs(dir)
			if err != nil {
				t.Fatal(err)
			}
			return abs
		}
	}
	need.Missing(t, "no folder on a file system of a local disk")
	return ""
}

func knowing(t *testing.T, dir string) *harness {
	return newHarness(t, func(c *Config) {
		c.Root, c.Known = dir, filepath.Join(t.TempDir(), "known")
		c.QuickPaths = []string{dir}
	})
}

var full = Spec{Type: control.ScanFull, Archives: true}

func TestUnchangedFilesAreNotScannedAgain(t *testing.T) {
	dir := diskDir(t)
	write(t, filepath.Join(dir, "a"), "clean")
	write(t, filepath.Join(dir, "folder/b"), "clean too")
	write(t, filepath.Join(dir, "evil"), "EICAR")
	write(t, filepath.Join(dir, "partly"), "partly")
	write(t, filepath.Join(dir, "zip"), "locked")
	h := knowing(t, dir)
	expect := func(what string, s Spec, files, unchanged, threats int64) Record {
		t.Helper()
		r := h.scan(t, s)
		if r.State != control.ScanSucceeded || r.Files != files || r.Unchanged != unchanged || r.Threats != threats {
			t.Errorf("%s: %d scanned, %d unchanged, %d threats, want %d, %d, %d (%+v)", what, r.Files, r.Unchanged, r.Threats, files, unchanged, threats, r.Scan)
		}
		return r
	}
	r := expect("first", full, 5, 0, 1)
	if r.Partly != 2 || r.Encrypted != 1 || r.SkippedFiles[0].Reason == "" {
		t.Errorf("%+v", r)
	}
	if r = expect("second", full, 1, 4, 1); r.UnchangedBytes != int64(len("clean")+len("clean too")+len("partly")+len("locked")) {
		t.Errorf("%d bytes unchanged", r.UnchangedBytes)
	}
	// What could not be looked at is told in every scan.
	if r.Partly != 2 || r.Encrypted != 1 || r.SkippedBy[reasonPartly] != 2 {
		t.Errorf("%+v", r)
	}
	all := full
	all.All = true
	expect("all", all, 5, 0, 1)
	expect("custom", Spec{Type: control.ScanCustom, Paths: []string{dir}}, 5, 0, 1)
	without := full
	without.Archives = false
	expect("less thorough", without, 1, 4, 1)

	// Same size, and its modification time set back: the change time tells.
	path := filepath.Join(dir, "a")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // more than the kernel's tick
	write(t, path, "EICAR")
	if err := os.Chtimes(path, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	expect("changed", full, 2, 3, 2)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("removed", full, 1, 3, 1)
	h.scanner.definitions.Add(1)
	expect("new definitions", full, 4, 0, 1)
	expect("again", full, 1, 3, 1)
	h.scanner.definitions.Add(-1)
	expect("old definitions again", full, 4, 0, 1)
}

// What may still be changed without a trace is not remembered.
func TestFreshFilesAreNotRemembered(t *testing.T) {
	dir := diskDir(t)
	write(t, filepath.Join(dir, "a"), "clean")
	h := knowing(t, dir)
	h.cfg.settled = settled
	for range 2 {
		if r := h.scan(t, full); r.Files != 1 || r.Unchanged != 0 {
			t.Errorf("%+v", r.Scan)
		}
	}
	if r := knowing(t, dir); r.known == nil {
		t.Error("no store")
	}
}

func TestUntrustedVolumes(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		need.Missing(t, "cannot mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	write(t, filepath.Join(dir, "a"), "clean")
	h := knowing(t, dir)
	for range 2 {
		if r := h.scan(t, full); r.Files != 1 || r.Unchanged != 0 {
			t.Errorf("%+v", r.Scan)
		}
	}
}

// A full scan that the daemon's end interrupted goes on under its id, and looks
// at every file once in all.
func TestResume(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint("all ", all), func(t *testing.T) {
			dir, state := diskDir(t), t.TempDir()
			const n = 50
			for i := range n {
				write(t, filepath.Join(dir, fmt.Sprint(i)), "clean")
			}
			write(t, filepath.Join(dir, "evil"), "EICAR")
			scanned := 0
			open := func(limit int) *harness {
				h := newHarness(t, func(c *Config) {
					c.Root, c.Known, c.History = dir, filepath.Join(state, "known"), filepath.Join(state, "scans.db")
					found := c.Found
					c.Found = func(ctx context.Context, f Finding) Outcome {
						if err := os.Remove(f.Path); err != nil { // as quarantine does
							t.Error(err)
						}
						return found(ctx, f)
					}
				})
				return h
			}
			s := Spec{Type: control.ScanFull, Archives: true, All: all, Threads: 1}
			if !all {
				h := open(n) // all of it is known, but with other definitions
				h.scanner.definitions.Store(7)
				if err := os.Rename(filepath.Join(dir, "evil"), dir+".evil"); err != nil {
					t.Fatal(err)
				}
				h.scan(t, s)
				if err := errors.Join(h.Close(), os.Rename(dir+".evil", filepath.Join(dir, "evil"))); err != nil {
					t.Fatal(err)
				}
			}
			// Files are remembered with the second in which they are scanned; what was
			// in the second of the start may be scanned twice.
			h := open(10)
			h.scanner.slow(100 * time.Millisecond)
			started, err := h.Start(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			for h.find("current").snapshot().Files < 20 {
				time.Sleep(5 * time.Millisecond)
			}
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			scanned += len(h.scanner.paths)
			h = open(n)
			l, err := h.List(0)
			if err != nil || l[0].ID != started.ID || l[0].State != control.ScanRunning {
				t.Fatalf("%+v, %v", l, err)
			}
			resumed, err := h.Resume(t.Context())
			if err != nil || resumed.ID != started.ID || resumed.Resumed != 1 {
				t.Fatalf("%+v, %v", resumed, err)
			}
			if err := h.Follow(t.Context(), started.ID, time.Millisecond, func(control.ScanProgress) error { return nil }); err != nil {
				t.Fatal(err)
			}
			r, err := h.Get(started.ID)
			if err != nil || r.State != control.ScanSucceeded || !r.Start.Equal(started.Start) || r.Threats != 1 || r.Unchanged != 0 {
				t.Errorf("%+v, %v", r.Scan, err)
			}
			// The infected file is among those scanned by the first run or the second.
			if r.Files != n && r.Files != n+1 {
				t.Errorf("%d files", r.Files)
			}
			if scanned += len(h.scanner.paths); scanned > n+1+12 {
				t.Errorf("%d of %d files were scanned twice", scanned-n-1, n)
			}
			if _, err := h.Resume(t.Context()); !errors.Is(err, ErrNoScan) {
				t.Errorf("resumed twice: %v", err)
			}
		})
	}
}

// When the daemon stops, its scanner may be gone before the scan is told: that is no
// failure of the scan, which goes on afterwards.
func TestScannerStopsFirst(t *testing.T) {
	dir, history := t.TempDir(), filepath.Join(t.TempDir(), "scans.db")
	write(t, filepath.Join(dir, "a"), "clean")
	change := func(c *Config) { c.Root, c.History = dir, history }
	h := newHarness(t, change)
	h.scanner.err = scan.ErrClosed
	started, err := h.Start(t.Context(), full)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Follow(t.Context(), started.ID, time.Millisecond, func(control.ScanProgress) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = newHarness(t, change)
	resumed, err := h.Resume(t.Context())
	if err != nil || resumed.ID != started.ID {
		t.Fatalf("%+v, %v; want that scan %s goes on", resumed, err, started.ID)
	}
	if err := h.Follow(t.Context(), started.ID, time.Millisecond, func(control.ScanProgress) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if r, err := h.Get(started.ID); err != nil || r.State != control.ScanSucceeded || r.Files != 1 {
		t.Errorf("%+v, %v", r.Scan, err)
	}
}

// A scan with which the daemon dies again and again is given up.
func TestCrashingScanIsGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scans.db")
	h := newHarness(t, func(c *Config) { c.History = path })
	s := full
	if err := h.history.put(Record{Scan: control.Scan{ID: "x", Type: s.Type, State: control.ScanRunning, Start: time.Now()}, Spec: &s}); err != nil {
		t.Fatal(err)
	}
	for i := 1; ; i++ {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		h = newHarness(t, func(c *Config) { c.History = path })
		if h.resume == nil {
			if i != maxCrashes {
				t.Errorf("given up after %d crashes", i)
			}
			break
		}
	}
	if l, err := h.List(0); err != nil || l[0].State != control.ScanFailed || !strings.Contains(l[0].Reason, "stopped") {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestPruneHistory(t *testing.T) {
	h := newHarness(t, nil)
	for i := range 20 {
		r := Record{
			Scan:         control.Scan{ID: fmt.Sprint(i), State: control.ScanSucceeded, Start: time.Unix(int64(1000*i), 0)},
			SkippedFiles: []control.SkippedFile{{Path: "/x\xff", Reason: "because"}},
		}
		if i == 3 {
			r.State = control.ScanRunning
		}
		if err := h.history.put(r); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := h.Prune(time.Unix(5000, 0), 100); err != nil || n != 4 {
		t.Errorf("%d by age, %v", n, err)
	}
	if n, err := h.Prune(time.Unix(5000, 0), 10); err != nil || n != 6 {
		t.Errorf("%d by number, %v", n, err)
	}
	l, err := h.List(0)
	if err != nil || len(l) != 10 || l[0].ID != "19" || l[9].ID != "3" {
		t.Errorf("%d: %+v, %v", len(l), l, err)
	}
	if r, err := h.Get("19"); err != nil || len(r.SkippedFiles) != 1 || r.SkippedFiles[0].Path != "/x\xff" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := h.Get("5"); !errors.Is(err, ErrNoScan) {
		t.Errorf("%v", err)
	}
}
