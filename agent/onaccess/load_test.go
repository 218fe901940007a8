package onaccess

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// hammered is what an accessor's "hammer" found.
type hammered struct {
	Opens, Refused int
	// Longest is what an open took at most, Blocked how long of that the kernel held
	// it: without the time in which the process could have run and had no processor.
	Longest, Blocked time.Duration
	// Wrong are bad files that were opened after they had been refused, and good
	// ones that were refused.
	Wrong []string
}

// hammer opens files of a folder for q.N milliseconds as fast as it can: clean
// files from the list that q.To counts ("hot:cold:bad", numbers of files).
func hammer(q request) (string, error) {
	var hot, cold, bads int
	if _, err := fmt.Sscanf(q.To, "%d:%d:%d", &hot, &cold, &bads); err != nil {
		return "", err
	}
	var h hammered
	// The times below are those of a thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sched, err := os.Open("/proc/thread-self/schedstat")
	if err != nil {
		return "", err
	}
	defer sched.Close()
	refused := make([]bool, bads)
	end := time.Now().Add(time.Duration(q.N) * time.Millisecond)
	for n := 0; ; n++ {
		ready, err := readyTime(sched)
		if err != nil {
			return "", err
		}
		start := time.Now()
		if start.After(end) {
			break
		}
		name, isBad := "hot"+strconv.Itoa(rand.IntN(hot)), -1
		switch {
		case bads > 0 && n%64 == 7:
			isBad = rand.IntN(bads)
			name = "bad" + strconv.Itoa(isBad)
		case cold > 0 && n%4096 == 9:
			name = "cold" + strconv.Itoa(rand.IntN(cold))
		}
		fd, err := unix.Open(filepath.Join(q.Path, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		if took := time.Since(start); took > h.Blocked {
			now, err := readyTime(sched)
			if err != nil {
				return "", err
			}
			h.Longest, h.Blocked = max(h.Longest, took), max(h.Blocked, took-(now-ready))
		}
		h.Opens++
		switch {
		case errors.Is(err, unix.EPERM):
			h.Refused++
			if isBad < 0 {
				h.Wrong = append(h.Wrong, "refused: "+name)
			} else {
				refused[isBad] = true
			}
		case err != nil:
			return "", fmt.Errorf("open %s: %w", name, err)
		case isBad >= 0 && refused[isBad]:
			h.Wrong = append(h.Wrong, "opened: "+name)
		}
		if len(h.Wrong) > 10 {
			break
		}
	}
	out, err := json.Marshal(h)
	return string(out), err
}

// readyTime is how long a thread has run or has waited for a processor.
func readyTime(schedstat *os.File) (time.Duration, error) {
	var buf [64]byte
	n, err := schedstat.ReadAt(buf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	ran, waited, err := schedTimes(string(buf[:n]))
	return ran + waited, err
}

// schedTimes reads how long a thread has run and has waited for a processor
// (Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat).
func schedTimes(schedstat string) (ran, waited time.Duration, err error) {
	f := strings.Fields(schedstat)
	if len(f) < 2 {
		return 0, 0, fmt.Errorf("schedstat %q", schedstat)
	}
	run, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return 0, 0, err
	}
	wait, err := strconv.ParseInt(f[1], 10, 64)
	return time.Duration(run), time.Duration(wait), err
}

// lateness watches how late the timers of this process are until the test ends:
// what a busy machine adds to every wait of the watcher. The result is the most
// so far.
func lateness(t *testing.T) (most func() time.Duration) {
	t.Helper()
	var late atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 { // one alone may be luckier than the watcher's threads
		wg.Go(func() {
			runtime.LockOSThread()
			const nap = 5 * time.Millisecond
			for {
				began := time.Now()
				select {
				case <-stop:
					return
				case <-time.After(nap):
				}
				over := int64(time.Since(began) - nap)
				for seen := late.Load(); over > seen && !late.CompareAndSwap(seen, over); seen = late.Load() {
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); wg.Wait() })
	return func() time.Duration { return time.Duration(late.Load()) }
}

// storm lets 64 processes hammer a folder and returns what they found.
func storm(t *testing.T, actors []*process, dir, files string, length time.Duration, during func()) (total hammered) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for _, a := range actors {
		wg.Go(func() {
			r := a.do(request{Op: "hammer", Path: dir, To: files, N: int(length.Milliseconds())})
			var h hammered
			if err := json.Unmarshal([]byte(r.Content), &h); err != nil || r.Err != "" {
				t.Errorf("hammer: %s %v", r.Err, err)
			}
			mu.Lock()
			defer mu.Unlock()
			total.Opens += h.Opens
			total.Refused += h.Refused
			total.Longest, total.Blocked = max(total.Longest, h.Longest), max(total.Blocked, h.Blocked)
			total.Wrong = append(total.Wrong, h.Wrong...)
		})
	}
	during()
	wg.Wait()
	t.Logf("%d opens in %v (%.0f/s), %d refused, an open was held for %v at most, with its process's wait for a processor took %v",
		total.Opens, time.Since(began).Round(time.Millisecond), float64(total.Opens)/time.Since(began).Seconds(), total.Refused, total.Blocked, total.Longest)
	return total
}

// TestLoadAndFaults is the invariant under everything at once: 64 processes that
// open as fast as they can (clean files that the cache knows, files that were
// never seen, bad files), a tree of processes that keeps forking and executing,
// 10,000 ignore marks that are made and flushed, a scanner that is slow, hangs,
// fails and panics, and definitions that are swapped. No open waits for more than
// 100 ms past its deadline, and no bad file is opened once its verdict is known.
//
// What a machine without a free processor adds is told by control timers of the
// same process, and is no part of the promise: an access may wait once for the
// thread that reads its event and once for the one that sees its deadline.
func TestLoadAndFaults(t *testing.T) {
	const deadline = 400 * time.Millisecond
	length := 2 * time.Second
	if faultTime > 0 {
		length = faultTime
	}
	var generation atomic.Uint64
	r := newRig(t, func(c *Config) {
		c.Deadline, c.ExecDeadline = deadline, deadline
		c.ScanTimeout = 2 * time.Second
		c.Generation = generation.Load
		c.Guard = testGuard
	})
	late := lateness(t)
	r.scanner.setBefore(func(_ context.Context, a Access) error {
		if !strings.HasPrefix(filepath.Base(a.Path), "cold") {
			return nil
		}
		switch rand.IntN(8) {
		case 0:
			time.Sleep(2 * deadline) // slow
		case 1:
			time.Sleep(5 * deadline) // hung, beyond its own time
		case 2:
			return errors.New("scanner restarts")
		case 3:
			panic("scanner bug")
		}
		return nil
	})
	const hot, cold, bads = 50, 400, 10
	processes, marks := 64, 10_000
	if need.RaceDetector && faultTime == 0 {
		processes, marks = 12, 2_000 // each process is a program of ours with the detector
	}
	write := func(name, content string) {
		if err := os.WriteFile(r.path(name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range hot {
		write("hot"+strconv.Itoa(i), "harmless "+strconv.Itoa(i))
		// Half of them belong to somebody who can write them: no ignore mark, so
		// that every open comes to the watcher.
		if i%2 == 0 {
			if err := os.Chown(r.path("hot"+strconv.Itoa(i)), 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range cold {
		write("cold"+strconv.Itoa(i), "harmless "+strconv.Itoa(i))
	}
	for i := range bads {
		write("bad"+strconv.Itoa(i), bad+strconv.Itoa(i))
	}
	for i := range marks {
		write("mark"+strconv.Itoa(i), "x")
	}
	write("fork", "#!/bin/sh\n[ $1 -gt 0 ] && { $0 $(($1-1)) & $0 $(($1-1)) & wait; }\nexit 0\n")
	settle()
	var actors []*process
	for range processes {
		actors = append(actors, startAccessor(t))
	}
	files := fmt.Sprintf("%d:%d:%d", hot, cold, bads)

	r.events(t) // a CLOSE_WRITE that is read late takes a verdict away
	r.accessor.must(request{Op: "openeach", Path: r.path("mark"), N: marks})
	// All of them have a mark when opening them again leads to no event. On a busy
	// machine some are let go at their deadline and get theirs a moment later.
	wait(t, "all files are free to open", func() bool {
		opens := r.Stats(0).Opens
		r.accessor.must(request{Op: "openeach", Path: r.path("mark"), N: marks})
		r.events(t)
		return r.Stats(0).Opens == opens
	})
	if s := r.Stats(0); s.IgnoreMarks < uint64(marks) || s.IgnoreFailed > 0 {
		t.Errorf("%d ignore marks, %d failed", s.IgnoreMarks, s.IgnoreFailed)
	}
	// held looks at what the openers say and at the watcher's own record, from the
	// reading of an event to the answer.
	held := func(what string, h hammered) {
		t.Helper()
		more, own := late(), r.Stats(0).LongestHeld
		t.Logf("%s: held for %v at most, %v by the watcher's record, with a deadline of %v; timers were late by %v", what, h.Blocked, own, deadline, more)
		if longest := max(h.Blocked, own); longest > deadline+100*time.Millisecond+2*more {
			t.Errorf("%s: an access was held for %v with a deadline of %v, while timers were late by %v at most", what, longest, deadline, more)
		}
	}
	// First with the definitions that do not change: a known verdict is final.
	before := r.Stats(0)
	total := storm(t, actors, r.dir, files, length, func() { r.forkTree(t, 7) })
	held("storm", total)
	if len(total.Wrong) > 0 {
		t.Errorf("wrong: %v", total.Wrong)
	}
	if total.Refused == 0 {
		t.Error("nothing was refused")
	}
	s := r.Stats(0)
	t.Logf("events %d (%.0f/s), ignore marks %d, missed %d, guard %d, saturated %d, stalled %d, full %d, longest held %v with a deadline of %v",
		s.Events-before.Events, float64(s.Events-before.Events)/length.Seconds(), s.IgnoreMarks, s.DeadlinesMissed, s.ReleasedByGuard,
		s.AllowedSaturated, s.AllowedStalled, s.QueueFull, s.LongestHeld, deadline)

	// Then definitions are swapped, with all marks, while it goes on.
	held("swapped definitions", storm(t, actors, r.dir, files, length/2, func() {
		for range 20 {
			generation.Add(1)
			r.Forget()
			time.Sleep(length / 50)
		}
	}))
	wait(t, "nobody is held", func() bool { s := r.Stats(0); return s.Held == 0 })
	// It still protects, and notices changes of files that have a mark.
	r.scanner.setBefore(nil)
	p := r.path("mark" + strconv.Itoa(rand.IntN(marks)))
	r.accessor.must(request{Op: "patch", Path: p, Data: bad})
	wait(t, "a changed file is denied", func() bool {
		return r.accessor.do(request{Op: "read", Path: p}).Errno == eperm
	})
}

// forkTree runs 2^(depth+1)-1 processes, each of which executes a script on the
// watched file system.
func (r *rig) forkTree(t *testing.T, depth int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, r.path("fork"), strconv.Itoa(depth)).CombinedOutput()
	if err != nil {
		t.Errorf("tree of processes: %v\n%.500s", err, out)
	}
}
