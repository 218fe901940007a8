package ondemand

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// words is a scanner that finds "EICAR", fails over "broken", stops short over
// "partly" and finds "locked" encrypted. It holds each scan while hold is locked.
type words struct {
	hold        sync.RWMutex
	err         error
	definitions atomic.Int64
	pause       atomic.Int64

	mu    sync.Mutex
	paths []string
	asked []scan.Request
}

// slow makes each scan take some time.
func (w *words) slow(d time.Duration) { w.pause.Store(int64(d)) }

func (w *words) Scan(ctx context.Context, r scan.Request) (verdict.Verdict, error) {
	w.hold.RLock()
	defer w.hold.RUnlock()
	if w.err != nil {
		return verdict.Verdict{}, w.err
	}
	if err := ctx.Err(); err != nil {
		return verdict.Verdict{}, err
	}
	b, err := io.ReadAll(io.NewSectionReader(r.File, 0, 1<<20))
	if err != nil {
		return verdict.Verdict{}, err
	}
	time.Sleep(time.Duration(w.pause.Load()))
	w.mu.Lock()
	w.paths = append(w.paths, r.Path)
	w.asked = append(w.asked, r)
	w.mu.Unlock()
	v := verdict.Verdict{Size: int64(len(b)), Engine: "1", Definitions: fmt.Sprint(w.definitions.Load())}
	switch content := string(b); {
	case strings.Contains(content, "broken"):
		return v, &scan.EngineError{Path: r.Path, Reason: "bad sector"}
	case strings.Contains(content, "partly"):
		v.Limits = []verdict.Limit{verdict.LimitDepth}
	case strings.Contains(content, "locked"):
		v.Limits = []verdict.Limit{verdict.Encrypted}
	case strings.Contains(content, "EICAR"):
		v.Matches = []verdict.Match{{Threat: "EICAR", Type: verdict.Test}}
	}
	return v, nil
}

// harness is a manager with its scanner and what it found.
type harness struct {
	*Manager
	scanner *words
	mu      sync.Mutex
	found   []Finding
}

func newHarness(t *testing.T, change func(*Config)) *harness {
	t.Helper()
	h := &harness{scanner: &words{}}
	cfg := Config{
		Scanner: h.scanner, History: filepath.Join(t.TempDir(), "scans.db"), proc: t.TempDir(), settled: -time.Hour, OpenTimeout: 3 * time.Second,
		Definitions: func() string { return fmt.Sprint("1 ", h.scanner.definitions.Load()) },
		Found: func(_ context.Context, f Finding) Outcome {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.found = append(h.found, f)
			return Outcome{TrackingID: fmt.Sprint("id-", len(h.found)), Action: "quarantined"}
		},
	}
	if change != nil {
		change(&cfg)
	}
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Manager = m
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// scan runs one and returns its record.
func (h *harness) scan(t *testing.T, s Spec) Record {
	t.Helper()
	started, err := h.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := h.Follow(ctx, started.ID, time.Millisecond, func(control.ScanProgress) error { return nil }); err != nil {
		t.Fatal(err)
	}
	r, err := h.Get(started.ID)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func custom(paths ...string) Spec {
	return Spec{Type: control.ScanCustom, Paths: paths, Threads: 2}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCustomScan(t *testing.T) {
	h := newHarness(t, nil)
	dir, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "a/b/evil"), "EICAR")
	write(t, filepath.Join(dir, "a/clean"), "nothing")
	write(t, filepath.Join(dir, "new\nline \xff"), "EICAR")
	write(t, filepath.Join(dir, "broken"), "broken")
	write(t, filepath.Join(dir, "partly"), "partly")
	write(t, filepath.Join(outside, "evil"), "EICAR")
	for name, target := range map[string]string{"link": outside, "file-link": filepath.Join(outside, "evil"), "loop": dir} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := h.scan(t, custom(dir))
	if r.State != control.ScanSucceeded || r.Files != 4 || r.Threats != 2 || r.Errors != 1 || r.End.Before(r.Start) || len(r.ThreatIDs) != 2 {
		t.Errorf("%+v", r.Scan)
	}
	want := map[string]int64{reasonLink: 3, reasonNotRegular: 1, reasonScan: 1, reasonPartly: 1}
	if diff := cmp.Diff(want, r.SkippedBy); diff != "" {
		t.Error(diff)
	}
	var reasons []string
	for _, s := range r.SkippedFiles {
		reasons = append(reasons, filepath.Base(string(s.Path))+": "+s.Reason)
	}
	slices.Sort(reasons)
	if diff := cmp.Diff([]string{
		fmt.Sprintf("broken: scan failed: scanning %q: bad sector", filepath.Join(dir, "broken")),
		"fifo: not a regular file", "partly: scanned in part: max depth",
	}, reasons); diff != "" {
		t.Error(diff)
	}
	var found []string
	for _, f := range h.found {
		found = append(found, f.Path)
		if f.ScanID != r.ID || f.Type != control.ScanCustom || f.Remediate {
			t.Errorf("%+v", f)
		}
	}
	slices.Sort(found)
	if diff := cmp.Diff([]string{filepath.Join(dir, "a/b/evil"), filepath.Join(dir, "new\nline \xff")}, found); diff != "" {
		t.Error(diff)
	}
	for _, a := range h.scanner.asked {
		if a.Priority != scan.PriorityOnDemand || a.Archives {
			t.Errorf("%+v", a)
		}
	}
}

func TestSingleFileAndNamedLink(t *testing.T) {
	h := newHarness(t, nil)
	dir := t.TempDir()
	file := filepath.Join(dir, "evil")
	write(t, file, "EICAR")
	if err := os.Symlink(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	// The person named the link, so what it leads to is meant.
	for _, path := range []string{file, filepath.Join(dir, "link")} {
		r := h.scan(t, Spec{Type: control.ScanCustom, Paths: []string{path}, Archives: true, LowPriority: true, Remediate: true})
		if r.Files != 1 || r.Threats != 1 {
			t.Errorf("%s: %+v", path, r.Scan)
		}
	}
	if a := h.scanner.asked[0]; a.Priority != scan.PriorityLow || !a.Archives {
		t.Errorf("%+v", a)
	}
	if f := h.found[1]; !f.Remediate || f.Path != file {
		t.Errorf("%+v", f)
	}
}

func TestBadSpecs(t *testing.T) {
	h := newHarness(t, nil)
	for name, s := range map[string]Spec{
		"no path":          {Type: control.ScanCustom},
		"relative":         custom("x"),
		"missing":          custom("/nonexistent/path"),
		"NUL":              custom("/tmp/\x00"),
		"too many":         custom(make([]string, 1001)...),
		"path for quick":   {Type: control.ScanQuick, Paths: []string{"/tmp"}},
		"unknown type":     {Type: "slow"},
		"too many at once": {Type: control.ScanFull, Threads: 65},
	} {
		if _, err := h.Start(t.Context(), s); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := h.List(0); err != nil || len(l) != 0 {
		t.Errorf("%v, %v", l, err)
	}
	for _, err := range []error{
		func() error { _, err := h.Cancel(t.Context(), "current"); return err }(),
		func() error { _, err := h.Get("x"); return err }(),
		h.Follow(t.Context(), "x", 0, nil),
	} {
		if !errors.Is(err, ErrNoScan) {
			t.Error(err)
		}
	}
}

func TestCancelAndFollow(t *testing.T) {
	h := newHarness(t, nil)
	dir := t.TempDir()
	for i := range 200 {
		write(t, filepath.Join(dir, fmt.Sprint(i)), "x")
	}
	write(t, filepath.Join(dir, "0"), "EICAR")
	h.scanner.hold.Lock()
	started, err := h.Start(t.Context(), custom(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Start(t.Context(), custom(dir)); !errors.Is(err, ErrRunning) {
		t.Errorf("second scan: %v", err)
	}
	if l, err := h.List(0); err != nil || len(l) != 1 || l[0].State != control.ScanRunning {
		t.Errorf("%+v, %v", l, err)
	}
	frames := make(chan []control.ScanProgress, 1)
	go func() {
		var all []control.ScanProgress
		if err := h.Follow(context.Background(), "current", time.Millisecond, func(p control.ScanProgress) error {
			all = append(all, p)
			return nil
		}); err != nil {
			t.Error(err)
		}
		frames <- all
	}()
	cancelled := make(chan control.Scan, 1)
	go func() {
		s, err := h.Cancel(context.Background(), started.ID)
		if err != nil {
			t.Error(err)
		}
		cancelled <- s
	}()
	// Let it be cancelled before the scanner goes on.
	r := h.find("current")
	<-r.ctx.Done()
	h.scanner.hold.Unlock()
	s := <-cancelled
	if s.State != control.ScanCancelled || s.Reason != "cancelled" || s.Files >= 200 {
		t.Errorf("%+v", s)
	}
	all := <-frames
	last := all[len(all)-1]
	if !last.Scan.State.Final() || last.Scan.ID != started.ID || all[0].Scan.State != control.ScanRunning && len(all) > 1 {
		t.Errorf("%d frames, last %+v", len(all), last)
	}
	// The next scan runs, and its frames name every detection once.
	started, err = h.Start(t.Context(), custom(dir))
	if err != nil {
		t.Fatal(err)
	}
	var detections []control.ScanDetection
	var final control.ScanProgress
	if err := h.Follow(t.Context(), started.ID, time.Millisecond, func(p control.ScanProgress) error {
		detections, final = append(detections, p.Detections...), p
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(detections) != 1 || detections[0].Name != "EICAR" || detections[0].Action != "quarantined" {
		t.Errorf("%+v", detections)
	}
	if final.Scan.State != control.ScanSucceeded || final.FilesTotal != 200 || !final.Counted || final.Scan.Files != 200 {
		t.Errorf("%+v", final)
	}
	// A past scan has one frame.
	n := 0
	if err := h.Follow(t.Context(), started.ID, time.Millisecond, func(p control.ScanProgress) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d frames, %v", n, err)
	}
}

func TestScannerUnavailable(t *testing.T) {
	h := newHarness(t, nil)
	h.scanner.err = scan.ErrNoDefinitions
	dir := t.TempDir()
	write(t, filepath.Join(dir, "x"), "x")
	r := h.scan(t, custom(dir))
	if r.State != control.ScanFailed || r.Reason != scan.ErrNoDefinitions.Error() || r.Files != 0 {
		t.Errorf("%+v", r.Scan)
	}
}

func TestPanicEndsTheScan(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Excluded = func(string, bool) bool { panic("boom") } })
	dir := t.TempDir()
	write(t, filepath.Join(dir, "x"), "x")
	if r := h.scan(t, custom(dir)); r.State != control.ScanFailed || !strings.Contains(r.Reason, "boom") {
		t.Errorf("%+v", r.Scan)
	}
}

func TestHistorySurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scans.db")
	open := func() *harness { return newHarness(t, func(c *Config) { c.History = path }) }
	h := open()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "evil \xff"), "EICAR")
	first := h.scan(t, custom(dir))
	if err := h.history.put(Record{Scan: control.Scan{ID: "interrupted", State: control.ScanRunning, Start: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = open()
	l, err := h.List(0)
	if err != nil || len(l) != 2 || l[0].ID != "interrupted" || l[0].State != control.ScanFailed || l[0].Reason == "" {
		t.Fatalf("%+v, %v", l, err)
	}
	if diff := cmp.Diff(first.Scan, l[1]); diff != "" {
		t.Error(diff)
	}
}

func TestExclusions(t *testing.T) {
	dir := t.TempDir()
	var hidden []string
	h := newHarness(t, func(c *Config) {
		c.Excluded = func(path string, tell bool) bool {
			excluded := strings.HasPrefix(path, filepath.Join(dir, "excluded"))
			if excluded && tell {
				hidden = append(hidden, path) // the walk is one goroutine
			}
			return excluded
		}
		c.Own = []string{filepath.Join(dir, "quarantine")}
	})
	write(t, filepath.Join(dir, "excluded/evil"), "EICAR")
	write(t, filepath.Join(dir, "quarantine/evil"), "EICAR")
	write(t, filepath.Join(dir, "evil"), "EICAR")
	if r := h.scan(t, custom(dir)); r.Threats != 1 || r.SkippedBy[reasonExcluded] != 1 || r.SkippedBy[reasonOwn] != 1 {
		t.Errorf("%+v", r)
	}
	s := custom(dir)
	s.IgnoreExclusions = true
	if r := h.scan(t, s); r.Threats != 2 {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff([]string{filepath.Join(dir, "excluded/evil")}, hidden); diff != "" {
		t.Errorf("told as hidden, once for each file and scan that left it out:\n%s", diff)
	}
}

func TestQuickScan(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// What is looked at, and what only with All.
	inside := []string{
		"usr/lib/evil.so", "usr/lib/evil.so.1.2", "usr/lib/modules/evil.ko.xz", "usr/bin/evil", "srv/www/evil.php", "srv/www/a/b/c/d/EVIL.PY",
		"tmp/a/b/c/d/e/evil", "var/tmp/evil", "etc/a/evil", "home/evil", "home/a/evil", "home/a/Downloads/b/evil", "home/a/.ssh/evil", "home/a/b/c/.evil", "root/evil", "root/a/b/evil", "root/.cache/a/b/c/evil.sh",
	}
	left := []string{"usr/share/evil", "usr/lib/evil.1.2", "usr/lib/so", "srv/evil.html", "var/lib/evil.db", "home/a/b/c/d/evil", "home/a/.cache/b/evil", "root/a/b/c/evil", "root/a/.b/evil", "tmpx/evil"}
	for _, p := range append(slices.Clone(inside), left...) {
		write(t, filepath.Join(base, p), "EICAR")
	}
	if err := os.Chmod(filepath.Join(base, "usr/bin/evil"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/lib", filepath.Join(base, "lib")); err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, func(c *Config) {
		c.proc, c.Root = "/proc", base
		for _, p := range []string{"home", "root", "tmp", "tmpx", "var", "srv", "etc", "lib", "usr", "absent"} {
			c.QuickPaths = append(c.QuickPaths, filepath.Join(base, p))
		}
	})
	found := func(s Spec) (Record, []string) {
		t.Helper()
		h.found = nil
		r := h.scan(t, s)
		if r.State != control.ScanSucceeded {
			t.Errorf("%+v", r)
		}
		var paths []string
		for _, f := range h.found {
			rel, err := filepath.Rel(base, f.Path)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, rel)
		}
		slices.Sort(paths)
		return r, paths
	}
	r, got := found(Spec{Type: control.ScanQuick})
	slices.Sort(inside)
	if diff := cmp.Diff(inside, got); diff != "" {
		t.Error(diff)
	}
	if n := r.SkippedBy[reasonNotQuick]; n != int64(len(left)) {
		t.Errorf("%d files left out, want %d", n, len(left))
	}
	if slices.ContainsFunc(r.SkippedFiles, func(f control.SkippedFile) bool { return within(string(f.Path), base) }) {
		t.Errorf("files left out are named: %v", r.SkippedFiles)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(h.scanner.paths, exe) {
		t.Error("running programs are not scanned")
	}
	h.cfg.proc = t.TempDir()
	if r, got = found(Spec{Type: control.ScanQuick, All: true}); len(got) != len(inside)+len(left) || r.SkippedBy[reasonNotQuick] != 0 {
		t.Errorf("with All: %q, %v", got, r.SkippedBy)
	}
}

func TestStartableIsSorted(t *testing.T) {
	if !slices.IsSorted(startable) {
		t.Errorf("%q are searched as sorted", startable)
	}
}
