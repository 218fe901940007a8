package onaccess

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

const eperm = int(syscall.EPERM)

func TestDeniesOpenOfBadFile(t *testing.T) {
	pid := make(chan int32, 10)
	r := newRig(t, func(c *Config) {
		c.Describe = func(p int32) any { pid <- p; return "described" }
	})
	good, evil := r.put(t, "good", "harmless"), r.put(t, "evil", "x"+bad)
	if got := r.accessor.must(request{Op: "read", Path: good}); got.Content != "harmless" {
		t.Errorf("good file reads %q", got.Content)
	}
	if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
		t.Fatalf("bad file: error %q (%d), want EPERM", got.Err, got.Errno)
	}
	d := r.detection(t)
	if !d.Denied || d.Late || d.Access.Path != evil || d.Access.Kind != Open || d.Process != "described" {
		t.Errorf("detection %+v", d)
	}
	if p := <-pid; int(p) != r.accessor.cmd.Process.Pid {
		t.Errorf("described process %d, want %d", p, r.accessor.cmd.Process.Pid)
	}
	// The verdict is cached and still denies.
	scans := r.scanner.scans.Load()
	if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
		t.Errorf("second open of the bad file: %q", got.Err)
	}
	if n := r.scanner.scans.Load(); n != scans {
		t.Errorf("the bad file was scanned again (%d scans more)", n-scans)
	}
	if s := r.Stats(0); s.Denied != 2 || s.DeadlinesMissed != 0 {
		t.Errorf("stats: %d denied, %d deadlines missed", s.Denied, s.DeadlinesMissed)
	}
}

func TestDeniesExecution(t *testing.T) {
	r := newRig(t, nil)
	if !r.Capabilities().ExecEvents {
		need.Missing(t, "the kernel has no FAN_OPEN_EXEC_PERM (5.0 has it)")
	}
	good := r.put(t, "good", "#!/bin/sh\necho ran\n")
	evil := r.put(t, "evil", "#!/bin/sh\necho ran\n#"+bad)
	if got := r.accessor.must(request{Op: "exec", Path: good}); got.Content != "ran\n" {
		t.Errorf("good program printed %q", got.Content)
	}
	if got := r.accessor.do(request{Op: "exec", Path: evil}); got.Errno != eperm {
		t.Fatalf("bad program: %q, want EPERM", got.Err)
	}
	if d := r.detection(t); d.Access.Kind != Exec || !d.Denied {
		t.Errorf("detection %+v", d)
	}
}

func TestCleanFileIsScannedOnce(t *testing.T) {
	for _, ignore := range []IgnorePolicy{IgnoreOff, IgnoreSystem} {
		t.Run(string(ignore), func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Ignore = ignore })
			p := r.put(t, "file", "harmless")
			for range 100 {
				r.accessor.must(request{Op: "open", Path: p})
			}
			if n := r.scanner.scans.Load(); n != 1 {
				t.Errorf("scanned %d times, want once", n)
			}
			s := r.Stats(0)
			if ignore == IgnoreOff && s.CacheHits != 99 {
				t.Errorf("%d cache hits, want 99", s.CacheHits)
			}
			if ignore == IgnoreSystem && (s.CacheHits != 0 || s.IgnoreMarks != 1) {
				t.Errorf("%d cache hits and %d ignore marks, want 0 and 1", s.CacheHits, s.IgnoreMarks)
			}
		})
	}
}

// TestEveryWayOfWriting checks that a file with a kept clean verdict is
// looked at again after each way of putting bad content into it.
func TestEveryWayOfWriting(t *testing.T) {
	ways := map[string]func(r *rig, p string){
		"overwrite": func(r *rig, p string) { r.accessor.must(request{Op: "write", Path: p, Data: bad}) },
		"patch":     func(r *rig, p string) { r.accessor.must(request{Op: "patch", Path: p, Data: bad, Off: 10}) },
		"append": func(r *rig, p string) {
			r.accessor.must(request{Op: "patch", Path: p, Data: bad, Off: 4096})
		},
		"splice": func(r *rig, p string) { r.accessor.must(request{Op: "splice", Path: p, Data: bad, Off: 5}) },
		"mmap": func(r *rig, p string) {
			r.accessor.must(request{Op: "map", Path: p, N: 4096})
			r.accessor.must(request{Op: "store", Path: p, Data: bad, Off: 7})
			r.accessor.must(request{Op: "unmap", Path: p})
		},
		"mmap after close": func(r *rig, p string) {
			r.accessor.must(request{Op: "map", Path: p, N: 4096})
			r.accessor.must(request{Op: "closefd", Path: p})
			settle()
			r.accessor.must(request{Op: "store", Path: p, Data: bad, Off: 7})
			r.accessor.must(request{Op: "unmap", Path: p})
		},
		"rename over": func(r *rig, p string) {
			r.accessor.must(request{Op: "write", Path: p + ".new", Data: bad})
			r.accessor.must(request{Op: "rename", Path: p + ".new", To: p})
		},
		"copy_file_range": func(r *rig, p string) {
			r.accessor.must(request{Op: "copyrange", Path: p + ".source", To: p})
		},
	}
	for name, write := range ways {
		for _, ignore := range []IgnorePolicy{IgnoreOff, IgnoreAll} {
			t.Run(name+"/"+string(ignore), func(t *testing.T) {
				r := newRig(t, func(c *Config) {
					c.Ignore = ignore
					// The source of the copy may be opened.
					c.Excluded = func(a Access) bool { return filepath.Ext(a.Path) == ".source" }
				})
				r.put(t, "file.source", bad)
				p := r.put(t, "file", string(make([]byte, 4096)))
				r.accessor.must(request{Op: "open", Path: p})
				n := r.scanner.scans.Load()
				r.accessor.must(request{Op: "open", Path: p})
				if r.scanner.scans.Load() != n {
					t.Fatal("the clean verdict was not kept, so this test shows nothing")
				}
				write(r, p)
				if ignore == IgnoreAll && (name == "mmap" || name == "mmap after close") {
					// The mark goes when the CLOSE_WRITE is read, moments after unmapping.
					wait(t, "the bad content is noticed", func() bool {
						return r.accessor.do(request{Op: "open", Path: p}).Errno == eperm
					})
					return
				}
				if got := r.accessor.do(request{Op: "open", Path: p}); got.Errno != eperm {
					t.Errorf("opened after bad content was written: %q\n%+v\n%s", got.Err, r.Stats(3), r.log)
				}
			})
		}
	}
}

// TestBadContentRemoved: truncation and hole punching make a bad file clean.
func TestBadContentRemoved(t *testing.T) {
	for _, op := range []request{
		{Op: "truncate", Off: 100},
		{Op: "punch", Off: 4096, N: 4096},
	} {
		t.Run(op.Op, func(t *testing.T) {
			var allow atomic.Bool
			r := newRig(t, func(c *Config) {
				// Opening for writing must be possible to remove anything.
				c.Excluded = func(Access) bool { return allow.Load() }
			})
			p := r.put(t, "file", string(make([]byte, 4096))+bad+string(make([]byte, 8192)))
			if got := r.accessor.do(request{Op: "open", Path: p}); got.Errno != eperm {
				t.Fatalf("bad file: %q", got.Err)
			}
			allow.Store(true)
			op.Path = p
			r.accessor.must(op)
			allow.Store(false)
			if got := r.accessor.do(request{Op: "open", Path: p}); got.Err != "" {
				t.Errorf("after %s: %s", op.Op, got.Err)
			}
		})
	}
}

// TestMappedWriterIsNeverTrusted: while somebody has the file mapped for
// writing no verdict is kept, so that each open sees the present content.
func TestMappedWriterIsNeverTrusted(t *testing.T) {
	for _, fsType := range []string{"tmpfs", "ext4"} {
		t.Run(fsType, func(t *testing.T) { mappedWriterIsNeverTrusted(t, fsType) })
	}
}

func mappedWriterIsNeverTrusted(t *testing.T, fsType string) {
	dir := ""
	if fsType == "tmpfs" {
		dir = tmpfs(t)
	} else {
		dir = loopFS(t, fsType)
	}
	r := newRigOn(t, dir, func(c *Config) { c.Ignore, c.sweepPause = IgnoreAll, time.Millisecond })
	reader := startAccessor(t)
	p := r.put(t, "file", string(make([]byte, 4096)))
	r.accessor.must(request{Op: "map", Path: p, N: 4096})
	// The page is dirty and writable from here: later stores change no time.
	r.accessor.must(request{Op: "store", Path: p, Data: "x"})
	for i := range 5 {
		settle()
		for range 3 {
			reader.must(request{Op: "open", Path: p})
			time.Sleep(2 * time.Millisecond) // processes are looked through meanwhile
		}
		r.accessor.must(request{Op: "store", Path: p, Data: bad})
		if got := reader.do(request{Op: "open", Path: p}); got.Errno != eperm {
			t.Fatalf("round %d: opened with bad content: %q", i, got.Err)
		}
		r.accessor.must(request{Op: "store", Path: p, Data: string(make([]byte, len(bad)))})
	}
	r.accessor.must(request{Op: "unmap", Path: p})
}

func TestNewGenerationScansAgain(t *testing.T) {
	var generation atomic.Uint64
	r := newRig(t, func(c *Config) { c.Generation = generation.Load })
	p := r.put(t, "file", "harmless")
	r.accessor.must(request{Op: "open", Path: p})
	r.accessor.must(request{Op: "open", Path: p})
	if n := r.scanner.scans.Load(); n != 1 {
		t.Fatalf("scanned %d times, want once", n)
	}
	r.Forget()
	r.accessor.must(request{Op: "open", Path: p})
	if n := r.scanner.scans.Load(); n != 2 {
		t.Errorf("scanned %d times after Forget, want twice", n)
	}
	// Without being told, the ignore marks go within a second.
	generation.Add(1)
	wait(t, "the new generation is noticed", func() bool {
		r.accessor.must(request{Op: "open", Path: p})
		return r.scanner.scans.Load() == 3
	})
}

func TestWrittenFileIsScannedOnClose(t *testing.T) {
	r := newRig(t, nil)
	p := r.path("dropped")
	r.accessor.must(request{Op: "write", Path: p, Data: bad})
	d := r.detection(t)
	if d.Access.Kind != CloseWrite || d.Denied || d.Access.Path != p {
		t.Errorf("detection %+v", d)
	}
}

func TestAuditNeverDenies(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Mode = Audit })
	p := r.put(t, "evil", bad)
	r.accessor.must(request{Op: "read", Path: p})
	if d := r.detection(t); d.Denied || !d.Blocked || d.Access.Path != p {
		t.Errorf("detection %+v", d)
	}
}

func TestModesSwitchLive(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Mode = Passive })
	p := r.put(t, "evil", bad)
	r.accessor.must(request{Op: "read", Path: p})
	for _, m := range []struct {
		mode  Mode
		errno int
	}{{RealTime, eperm}, {Audit, 0}, {RealTime, eperm}, {OnDemand, 0}, {RealTime, eperm}, {Passive, 0}} {
		if err := r.SetMode(m.mode); err != nil {
			t.Fatal(err)
		}
		if got := r.accessor.do(request{Op: "read", Path: p}); got.Errno != m.errno {
			t.Errorf("mode %s: errno %d, want %d", m.mode, got.Errno, m.errno)
		}
	}
	if err := r.SetMode("off"); err == nil {
		t.Error("an unknown mode was accepted")
	}
}

func TestDeadlineAllowsAndScanGoesOn(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Deadline = 100 * time.Millisecond })
	release := make(chan struct{})
	r.scanner.setBefore(func(context.Context, Access) error { <-release; return nil })
	p := r.put(t, "evil", bad)
	if got := r.accessor.do(request{Op: "read", Path: p}); got.Err != "" {
		t.Fatalf("deadline passed but: %s", got.Err)
	}
	// It is counted after the answer.
	wait(t, "the missed deadline is counted, for the process too", func() bool {
		s := r.Stats(0)
		return s.DeadlinesMissed == 1 && slices.ContainsFunc(s.Processes, func(p ProcessStats) bool {
			return int(p.PID) == r.accessor.cmd.Process.Pid && p.DeadlinesMissed == 1
		})
	})
	close(release)
	if d := r.detection(t); d.Denied || !d.Late {
		t.Errorf("detection %+v, want late", d)
	}
	// The late verdict counts for the next one.
	r.scanner.setBefore(nil)
	if err := r.SetDeadlines(MaxDeadline, MaxDeadline); err != nil {
		t.Fatal(err)
	}
	if got := r.accessor.do(request{Op: "read", Path: p}); got.Errno != eperm {
		t.Errorf("second open: %q", got.Err)
	}
}

// TestHungScanner: after a few missed deadlines nobody is held any more, what
// has a verdict is still refused, and protection returns with the scanner.
func TestHungScanner(t *testing.T) {
	r := newRig(t, nil)
	evil := r.put(t, "evil", bad)
	if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
		t.Fatal("not denied")
	}
	if err := r.SetDeadlines(300*time.Millisecond, 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	r.scanner.setBefore(func(context.Context, Access) error { <-release; return nil })
	for i := range 20 {
		r.accessor.must(request{Op: "read", Path: r.put(t, "f"+strconv.Itoa(i), "harmless"+strconv.Itoa(i))})
	}
	s := r.Stats(0)
	// Eight of them, and a few of others who look at new files on this machine.
	if !s.Stalled || s.AllowedStalled == 0 || s.DeadlinesMissed > 14 {
		t.Errorf("stalled %v, %d allowed at once, %d deadlines missed", s.Stalled, s.AllowedStalled, s.DeadlinesMissed)
	}
	if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
		t.Errorf("a file with a verdict was opened while the scanner hung: %q", got.Err)
	}
	close(release)
	wait(t, "scans end", func() bool { return !r.Stats(0).Stalled })
	evil2 := r.put(t, "evil2", "2"+bad)
	wait(t, "protection returns", func() bool {
		return r.accessor.do(request{Op: "read", Path: evil2}).Errno == eperm
	})
}

func TestFullQueueAllows(t *testing.T) {
	r := newRig(t, func(c *Config) { c.QueueSize, c.Workers = 16, 1 })
	release := make(chan struct{})
	r.scanner.setBefore(func(context.Context, Access) error { <-release; return nil })
	for i := range 120 {
		r.put(t, "f"+strconv.Itoa(i), "harmless")
	}
	done := make(chan struct{})
	var others []*process
	for range 60 {
		others = append(others, startAccessor(t))
	}
	for i, o := range others {
		go func() {
			defer func() { done <- struct{}{} }()
			o.do(request{Op: "read", Path: r.path("f" + strconv.Itoa(i))})
		}()
	}
	wait(t, "the queue fills", func() bool { return r.Stats(0).QueueFull > 0 })
	close(release)
	for range others {
		<-done
	}
	if s := r.Stats(0); s.DeadlinesMissed != 0 {
		t.Errorf("%d deadlines missed", s.DeadlinesMissed)
	}
}

// TestManyOpenersShareOneScan also has one of them executing.
func TestManyOpenersShareOneScan(t *testing.T) {
	r := newRig(t, nil)
	release := make(chan struct{})
	r.scanner.setBefore(func(context.Context, Access) error { <-release; return nil })
	p := r.put(t, "file", "harmless")
	errs := make(chan reply, 8)
	for range 8 {
		o := startAccessor(t)
		go func() { errs <- o.do(request{Op: "read", Path: p}) }()
	}
	wait(t, "all wait", func() bool { return r.Stats(0).Held == 8 })
	close(release)
	for range 8 {
		if e := <-errs; e.Err != "" {
			t.Error(e.Err)
		}
	}
	if n := r.scanner.scans.Load(); n != 1 {
		t.Errorf("scanned %d times, want once", n)
	}
}

func TestPanicAllows(t *testing.T) {
	r := newRig(t, nil)
	r.scanner.setBefore(func(context.Context, Access) error { panic("broken scanner") })
	p := r.put(t, "file", "harmless")
	r.accessor.must(request{Op: "read", Path: p})
	// The reader is let go a moment before it is counted as gone.
	wait(t, "one panic and nobody held", func() bool { s := r.Stats(0); return s.Panics == 1 && s.Held == 0 })
}

func TestTrusted(t *testing.T) {
	dir := tmpfs(t)
	own := filepath.Join(dir, "own")
	if err := os.WriteFile(own, []byte("#!/bin/sh\n#"+bad), 0o755); err != nil {
		t.Fatal(err)
	}
	settle()
	r := newRigOn(t, dir, func(c *Config) { c.Trusted = []string{own} })
	r.accessor.must(request{Op: "exec", Path: own})
	if n := r.scanner.scans.Load(); n != 0 {
		t.Errorf("our own program was scanned %d times", n)
	}
	evil := r.put(t, "evil", bad)
	r.TrustPID(r.accessor.cmd.Process.Pid)
	r.accessor.must(request{Op: "read", Path: evil})
	r.UntrustPID(r.accessor.cmd.Process.Pid)
	if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
		t.Errorf("after UntrustPID: %q", got.Err)
	}
	// Changed, it is not ours any more.
	if err := os.WriteFile(own, []byte("#!/bin/sh\n#2"+bad), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := r.accessor.do(request{Op: "exec", Path: own}); got.Errno != eperm {
		t.Errorf("changed program: %q", got.Err)
	}
}

func TestShutdownReleasesEverybody(t *testing.T) {
	dir := tmpfs(t)
	s := &scanner{}
	hang := make(chan struct{})
	defer close(hang)
	s.setBefore(func(context.Context, Access) error { <-hang; return nil })
	w, err := New(Config{Log: discard(), Scan: s.scan, OnlyMounts: []string{dir}, Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, w)
	p := filepath.Join(dir, "f")
	if err := os.WriteFile(p, []byte("harmless"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := make(chan reply, 1)
	o := startAccessor(t)
	go func() { got <- o.do(request{Op: "read", Path: p}) }()
	wait(t, "the open is held", func() bool { return w.Stats(0).Held == 1 })
	stop()
	if r := <-got; r.Err != "" {
		t.Errorf("released with %s", r.Err)
	}
}

// TestKilledDaemonReleasesEverybody kills a process that holds accesses.
func TestKilledDaemonReleasesEverybody(t *testing.T) {
	dir := tmpfs(t)
	cmd := startDaemon(t, dir)
	p := filepath.Join(dir, "f")
	if err := os.WriteFile(p, []byte("harmless"), 0o644); err == nil {
		// Empty files are not scanned, so creating passes; whoever opens it again
		// is held.
		t.Log("written")
	}
	got := make(chan reply, 1)
	o := startAccessor(t)
	go func() { got <- o.do(request{Op: "read", Path: p}) }()
	select {
	case r := <-got:
		t.Fatalf("not held: %+v", r)
	case <-time.After(300 * time.Millisecond):
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	select {
	case r := <-got:
		if r.Err != "" {
			t.Errorf("released with %s", r.Err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("still held after the daemon was killed")
	}
}

func TestStatsPerProcess(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Ignore = IgnoreOff })
	p := r.put(t, "file", "harmless")
	for range 3 {
		r.accessor.must(request{Op: "open", Path: p})
	}
	s := r.Stats(0)
	i := slices.IndexFunc(s.Processes, func(p ProcessStats) bool { return int(p.PID) == r.accessor.cmd.Process.Pid })
	if i < 0 {
		t.Fatalf("no statistics of the accessor: %+v", s.Processes)
	}
	got := s.Processes[i]
	exe, _ := os.Readlink("/proc/self/exe")
	if got.Path != exe || !got.Active || got.Files != 1 || got.Bytes != 8 || got.CacheHits != 2 || got.TotalScan <= 0 || got.MaxScan != got.TotalScan {
		t.Errorf("statistics %+v", got)
	}
	if len(s.Files) != 1 || s.Files[0].Path != p || s.Files[0].Scans != 1 {
		t.Errorf("files %+v", s.Files)
	}
}
