package onaccess

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// TestFewDescriptors: the kernel refuses accesses for which it can give us no
// descriptor, so a daemon with few of them must not use them up, even with a
// scanner that never returns one.
func TestFewDescriptors(t *testing.T) {
	dir := tmpfs(t)
	startDaemon(t, dir, "BULWARK_ONACCESS_NOFILE=150")
	for i := range 60 {
		if err := os.WriteFile(filepath.Join(dir, "f"+strconv.Itoa(i)), []byte("harmless"+strconv.Itoa(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	settle()
	var wg sync.WaitGroup
	for i := range 60 {
		o := startAccessor(t)
		wg.Go(func() {
			for j := range 3 {
				p := filepath.Join(dir, "f"+strconv.Itoa((i+20*j)%60))
				if r := o.do(request{Op: "read", Path: p}); r.Err != "" {
					t.Error(r.Err)
				}
			}
		})
	}
	wg.Wait()
}

// TestDescribeThatHangs costs its own time only.
func TestDescribeThatHangs(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	r := newRig(t, func(c *Config) {
		c.DescribeTimeout = 30 * time.Millisecond
		c.Describe = func(int32) any { <-hang; return nil }
	})
	p := r.put(t, "evil", bad)
	for range 12 { // more than may hang at once
		if got := r.accessor.do(request{Op: "read", Path: p}); got.Errno != eperm {
			t.Fatalf("%q", got.Err)
		}
		if d := r.detection(t); d.Process != nil || d.Late {
			t.Errorf("%+v", d)
		}
	}
}

// TestHandlerThatHangs loses detections, counts them, and still denies.
func TestHandlerThatHangs(t *testing.T) {
	hang := make(chan struct{})
	r := newRig(t, func(c *Config) {
		c.QueueSize = 16
		c.OnDetection = func(d Detection) { d.File.Close(); <-hang }
	})
	defer close(hang)
	p := r.put(t, "evil", bad)
	for range 40 {
		if got := r.accessor.do(request{Op: "read", Path: p}); got.Errno != eperm {
			t.Fatalf("%q", got.Err)
		}
	}
	wait(t, "losses are counted", func() bool { return r.Stats(0).DetectionsLost > 0 })
}

// TestSlowFilesDoNotHideExecution: files that take for ever to scan keep
// all workers busy; what is executed meanwhile is still looked at.
func TestSlowFilesDoNotHideExecution(t *testing.T) {
	// The deadlines are long: others on this machine may open these files too, and
	// a scanner that lets many of them pass counts as hung.
	r := newRig(t, nil)
	if !r.Capabilities().ExecEvents {
		need.Missing(t, "the kernel has no FAN_OPEN_EXEC_PERM (5.0 has it)")
	}
	release := make(chan struct{})
	r.scanner.setBefore(func(_ context.Context, a Access) error {
		if filepath.Ext(a.Path) == ".slow" {
			<-release
		}
		return nil
	})
	evil := r.put(t, "evil", "#!/bin/sh\n#"+bad)
	var opening sync.WaitGroup
	for i := range 6 { // there are four workers
		o, path := startAccessor(t), r.put(t, strconv.Itoa(i)+".slow", "harmless")
		opening.Go(func() { o.must(request{Op: "read", Path: path}) })
	}
	wait(t, "more slow scans wait than there are workers", func() bool { return r.Stats(0).Held >= 6 })
	if got := r.accessor.do(request{Op: "exec", Path: evil}); got.Errno != eperm {
		t.Errorf("executed: %q; %+v", got.Err, r.Stats(NoTop))
	}
	close(release)
	opening.Wait()
}

// TestBusyBigFileIsHeldOnce: a file that takes longer than the deadline and is
// kept open by a writer does not cost everybody the deadline again and again.
func TestBusyBigFileIsHeldOnce(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Deadline = 100 * time.Millisecond })
	// So slow that the file rests for longer than a busy machine takes for the opens below.
	r.scanner.setBefore(func(context.Context, Access) error { time.Sleep(2 * time.Second); return nil })
	p := r.put(t, "database", "harmless")
	r.accessor.must(request{Op: "map", Path: p, N: 8})
	wait(t, "the first scan ends", func() bool { return r.Stats(0).Scans > 0 })
	for range 10 {
		r.accessor.must(request{Op: "open", Path: p})
	}
	s := r.Stats(0)
	missed := uint64(0) // by our own process: others may look at new files, too
	for _, p := range s.Processes {
		if int(p.PID) == r.accessor.cmd.Process.Pid {
			missed += p.DeadlinesMissed
		}
	}
	if missed > 2 || s.AllowedResting < 8 {
		t.Errorf("%d deadlines missed, %d allowed at once", missed, s.AllowedResting)
	}
	r.accessor.must(request{Op: "unmap", Path: p})
}

// TestStuckReader: the reader's own open of a file waits for somebody who has
// a lease on it; accesses to other files go on.
func TestStuckReader(t *testing.T) {
	r := newRig(t, nil)
	leased, other := r.put(t, "leased", "harmless"), r.put(t, "other", "harmless")
	// Ours, so opening it raises nothing; the lease is what a file server takes.
	f, err := os.OpenFile(leased, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wait(t, "a lease (the reader still has the file of its own event open)", func() bool {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
		return err == nil
	})
	waiting := make(chan reply, 1)
	o := startAccessor(t)
	go func() { waiting <- o.do(request{Op: "read", Path: leased}) }()
	wait(t, "the reader is stuck", func() bool {
		return r.readersStuck(r.groups[groupLocal], time.Now())
	})
	if got := r.accessor.must(request{Op: "read", Path: other}); got.Content != "harmless" {
		t.Errorf("read %q", got.Content)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	if got := <-waiting; got.Err != "" {
		t.Error(got.Err)
	}
}

// TestStuckReaders: several opens of the readers wait, each for somebody else,
// among accesses to other files. A read that took more than one event would
// keep those that it had already taken.
func TestStuckReaders(t *testing.T) {
	r := newRig(t, nil)
	leases := []string{"leased-0", "leased-1", "leased-2"}
	var files []*os.File
	for i, name := range leases {
		leases[i] = r.put(t, name, "harmless "+name)
		f, err := os.OpenFile(leases[i], os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		wait(t, "a lease", func() bool {
			_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
			return err == nil
		})
		files = append(files, f)
	}
	// All processes are there before the first waits, so that their accesses
	// come within one of the supervisor's looks.
	waiting, others := make(chan reply, len(leases)), make(chan reply, 12)
	read := func(path string, to chan reply) func() {
		o := startAccessor(t)
		return func() { go func() { to <- o.do(request{Op: "read", Path: path}) }() }
	}
	first := read(leases[0], waiting)
	var rest []func()
	for i := range cap(others) {
		rest = append(rest, read(r.put(t, fmt.Sprintf("other-%d", i), "harmless"), others))
		if i%6 == 3 {
			rest = append(rest, read(leases[1+i/6], waiting))
		}
	}
	first()
	wait(t, "the reader is stuck", func() bool { return r.readersStuck(r.groups[groupLocal], time.Now()) })
	for _, read := range rest {
		read()
		time.Sleep(time.Millisecond)
	}
	for range cap(others) {
		select {
		case got := <-others:
			if got.Content != "harmless" {
				t.Errorf("read %q: %s", got.Content, got.Err)
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("an access is held by readers that are stuck in the opens of other files")
		}
	}
	for _, f := range files {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
			t.Fatal(err)
		}
	}
	for range leases {
		if got := <-waiting; got.Err != "" {
			t.Error(got.Err)
		}
	}
}

// TestOtherHolders finds another daemon by what it does.
func TestOtherHolders(t *testing.T) {
	dir := tmpfs(t)
	cmd := startDaemon(t, dir)
	holders, err := OtherHolders()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(holders, func(h Holder) bool { return int(h.PID) == cmd.Process.Pid })
	exe, _ := os.Readlink("/proc/self/exe")
	if i < 0 || !holders[i].Permission || holders[i].Path != exe {
		t.Fatalf("holders %+v", holders)
	}
	// Who yields only observes while the other one is there.
	r := newRig(t, func(c *Config) { c.YieldToOthers, c.Guard = true, testGuard })
	wait(t, "yielding", func() bool { return !r.Stats(0).Holding })
	if slices.ContainsFunc(r.Stats(0).Conflicts, func(h Holder) bool { return int64(h.PID) == r.guardian.Load().pid.Load() }) {
		t.Error("our own guard counts as another holder")
	}
	evil := r.put(t, "evil", bad)
	// While the marks are exchanged, moments after it has stopped holding, an
	// access may go unseen.
	wait(t, "the access is observed", func() bool {
		r.accessor.must(request{Op: "read", Path: evil})
		select {
		case d := <-r.detections:
			if d.Denied {
				t.Error("denied although yielding")
			}
			return true
		case <-time.After(200 * time.Millisecond):
			return false
		}
	})
	// Its end is noticed long before the next look at all processes.
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	wait(t, "its end is noticed", func() bool {
		return !slices.ContainsFunc(r.Stats(0).Conflicts, func(h Holder) bool { return int(h.PID) == cmd.Process.Pid })
	})
	if s := r.Stats(0); len(s.Conflicts) > 0 {
		t.Logf("others hold accesses on this machine too: %+v", s.Conflicts)
		return
	}
	wait(t, "denying again", func() bool { return r.accessor.do(request{Op: "read", Path: r.path("evil")}).Errno == eperm })
}

// TestUnmountWhileScansWait: files that wait for a background scan do not keep
// their file system busy, and are scanned by the names they have.
func TestUnmountWhileScansWait(t *testing.T) {
	dir := loopFS(t, "ext4")
	r := newRigOn(t, dir, func(c *Config) { c.Workers = 1 })
	release := make(chan struct{})
	r.scanner.setBefore(func(context.Context, Access) error { <-release; return nil })
	// The worker is busy with a file elsewhere.
	elsewhere := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(elsewhere, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(elsewhere, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	busy := &pending{group: r.groups[groupLocal], fd: int32(fd), kind: CloseWrite, owned: &r.owned, state: fileState{ino: 1}}
	r.owned.Add(1)
	r.submit(busy, prioBackground, nil)
	for i := range 20 {
		r.accessor.must(request{Op: "write", Path: r.path("f" + strconv.Itoa(i)), Data: bad})
	}
	r.accessor.must(request{Op: "rename", Path: r.path("f0"), To: r.path("renamed")})
	wait(t, "the files wait", func() bool { return r.Stats(0).QueueDepth == 20 })
	out, err := exec.Command("umount", dir).CombinedOutput()
	if err != nil {
		t.Errorf("umount: %v %s", err, out)
	}
	close(release)
	wait(t, "the files are given up", func() bool { return r.Stats(0).QueueDepth == 0 && r.Stats(0).Gone == 20 })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil { // for the clean-up
		t.Fatal(err)
	}
}

// TestParkedFileIsFoundAgain also under a new name.
func TestParkedFileIsFoundAgain(t *testing.T) {
	for _, fsType := range []string{"tmpfs", "ext4", "overlay"} {
		t.Run(fsType, func(t *testing.T) {
			dir := ""
			if fsType == "tmpfs" {
				dir = tmpfs(t)
			} else {
				dir = loopFS(t, fsType)
			}
			r := newRigOn(t, dir, func(c *Config) { c.Workers = 1 })
			release := make(chan struct{})
			r.scanner.setBefore(func(context.Context, Access) error { <-release; return nil })
			r.accessor.must(request{Op: "write", Path: r.path("first"), Data: "harmless"})
			wait(t, "the worker is busy", func() bool { return r.scanner.scans.Load() == 1 })
			r.accessor.must(request{Op: "write", Path: r.path("evil"), Data: bad})
			wait(t, "the file waits", func() bool { return r.Stats(0).QueueDepth == 1 })
			r.accessor.must(request{Op: "rename", Path: r.path("evil"), To: r.path("renamed")})
			close(release)
			if d := r.detection(t); d.Access.Path != r.path("renamed") {
				t.Errorf("path %s", d.Access.Path)
			}
		})
	}
}

// TestStorm lets many processes loose on a scanner that is slow, fails and
// panics at random, while modes and generations change; nobody may stay held
// and nothing may leak.
func TestStorm(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Deadline = 50 * time.Millisecond
		c.ExecDeadline = 100 * time.Millisecond
		c.QueueSize = 32
	})
	r.scanner.setBefore(func(context.Context, Access) error {
		switch rand.IntN(20) {
		case 0:
			time.Sleep(150 * time.Millisecond)
		case 1:
			return fmt.Errorf("scanner restarts")
		case 2:
			panic("scanner bug")
		}
		return nil
	})
	for i := range 40 {
		r.put(t, "f"+strconv.Itoa(i), "harmless"+strconv.Itoa(i))
	}
	before := openDescriptors(t)
	stop := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		modes := []Mode{RealTime, RealTime, Audit, RealTime, Passive}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			r.Forget()
			if i%10 == 0 {
				if err := r.SetMode(modes[i/10%len(modes)]); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	for range 12 {
		o := startAccessor(t)
		wg.Go(func() {
			for range 80 {
				name := r.path("f" + strconv.Itoa(rand.IntN(40)))
				q := request{Op: "read", Path: name}
				if rand.IntN(4) == 0 {
					q = request{Op: "write", Path: name, Data: "harmless again"}
				}
				got := o.do(q)
				if got.Err != "" {
					t.Errorf("%s: %s", q.Op, got.Err)
				}
				mu.Lock()
				took = append(took, got.Took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	close(stop)
	churn.Wait()
	slices.Sort(took)
	t.Logf("median %v, longest %v", took[len(took)/2], took[len(took)-1])
	r.scanner.setBefore(nil)
	wait(t, "nothing is held or queued", func() bool { s := r.Stats(0); return s.Held == 0 && s.QueueDepth == 0 })
	wait(t, "all descriptors are closed", func() bool { return openDescriptors(t) <= before+2 })
	wait(t, "every scan is off the register", func() bool {
		r.flights.mu.Lock()
		defer r.flights.mu.Unlock()
		return len(r.flights.byFile) == 0 && r.flights.joined == 0
	})
}

// openDescriptors counts descriptors that fanotify may have given us: regular
// files.
func openDescriptors(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && filepath.IsAbs(target) && filepath.Dir(filepath.Dir(target)) != "/proc" {
			n++
		}
	}
	return n
}

// TestSaturatedHoldsOnlyExecutions: when those who wait already need longer
// than an open may be held, opens pass at once and executions are still held.
func TestSaturatedHoldsOnlyExecutions(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Workers, c.Deadline = 1, 20*time.Second })
	if !r.Capabilities().ExecEvents {
		need.Missing(t, "the kernel has no FAN_OPEN_EXEC_PERM (5.0 has it)")
	}
	for range 200 { // as if scans took 4 s on average
		r.load.done(4 * time.Second)
	}
	release := make(chan struct{})
	r.scanner.setBefore(func(_ context.Context, a Access) error {
		if a.Kind != Exec {
			<-release
		}
		return nil
	})
	for i := range 20 {
		r.put(t, strconv.Itoa(i), "harmless")
	}
	evil := r.put(t, "evil", "#!/bin/sh\n#"+bad)
	var wg sync.WaitGroup
	for i := range 8 {
		o := startAccessor(t)
		wg.Go(func() { o.do(request{Op: "read", Path: r.path(strconv.Itoa(i))}) })
	}
	wait(t, "three wait for the only worker", func() bool { return r.Stats(0).QueueDepth >= 3 })
	r.accessor.must(request{Op: "read", Path: r.path("19")})
	if r.Stats(0).AllowedSaturated == 0 {
		t.Error("an open did not pass at once")
	}
	if !r.Stats(0).Saturated {
		t.Error("not said to be saturated")
	}
	if got := r.accessor.do(request{Op: "exec", Path: evil}); got.Errno != eperm {
		t.Errorf("executed: %q; %+v", got.Err, r.Stats(NoTop))
	}
	close(release)
	wg.Wait()
}

// TestFailedScanIsTriedAgain: what was written while the scanner was in trouble
// is looked at when it is well again, without anybody opening it.
func TestFailedScanIsTriedAgain(t *testing.T) {
	r := newRig(t, nil)
	var failures atomic.Int64
	r.scanner.setBefore(func(context.Context, Access) error {
		if failures.Add(1) <= maxTries {
			return errors.New("the scanner was replaced")
		}
		return nil
	})
	r.accessor.must(request{Op: "write", Path: r.path("evil"), Data: bad})
	if d := r.detection(t); d.Access.Path != r.path("evil") || d.Access.Kind != CloseWrite {
		t.Errorf("%+v", d)
	}
	// Not for ever.
	failures.Store(-1000)
	before := r.Stats(0).ScanErrors
	r.accessor.must(request{Op: "write", Path: r.path("strange"), Data: "harmless"})
	wait(t, "it is given up", func() bool { return r.Stats(0).ScanErrors == before+1+maxTries && r.Stats(0).QueueDepth == 0 })
}
