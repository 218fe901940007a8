// Command soak runs the real daemon for a long time under load, on a file
// system of its own, and fails when its memory or descriptors grow or when a
// test file is ever let through after it was written.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/bench/agent"
	"github.com/bulwarkhq/bulwark/bench/measure"
)

func main() {
	duration := flag.Duration("duration", time.Hour, "how long")
	program := flag.String("program", "bin/bulwarkd", "the daemon")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, *duration, *program, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		stop()
		os.Exit(1)
	}
}

// marker is what the definitions of the soak look for.
const (
	marker  = "bulwark soak test file"
	samples = 40
)

// sample is the state of the daemon and its scanners together.
type sample struct {
	memory      int64 // private, bytes
	descriptors int
}

type counts struct{ opens, refused, missed, late, left atomic.Int64 }

func soak(ctx context.Context, duration time.Duration, program string, out io.Writer) (err error) {
	root, err := os.MkdirTemp("", "bulwark-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	dirs, mount := layout.Under(root), filepath.Join(root, "watched")
	for _, dir := range []string{filepath.Dir(dirs.Managed()), dirs.Definitions(), mount} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("bulwark-soak", mount, "tmpfs", 0, "size=64m,mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(mount, unix.MNT_DETACH)) }()
	if err := os.WriteFile(dirs.Managed(), []byte(`{"antivirusEngine": {"enforcementLevel": "real_time"}}`), 0o600); err != nil {
		return err
	}
	definition := fmt.Sprintf("Soak.Test:0:*:%x\n", marker)
	if err := os.WriteFile(filepath.Join(dirs.Definitions(), "soak.ndb"), []byte(definition), 0o644); err != nil {
		return err
	}
	a, err := agent.Start(agent.Options{
		Program: program, Root: root, Mount: mount, Log: filepath.Join(root, "log"),
		Life: duration + 2*time.Minute, End: 20 * time.Second,
	})
	if err != nil {
		return err
	}
	defer func() { err = a.Stop(err) }()
	if err := a.Until(ctx, time.Minute, a.Blocking); err != nil {
		return err
	}
	var n counts
	var work sync.WaitGroup
	working, stop := context.WithTimeout(ctx, duration)
	defer stop()
	// Whoever works has it for reading.
	var gate sync.RWMutex
	for i := range 4 {
		work.Go(func() { clean(working, mount, i, &gate, &n) })
	}
	work.Go(func() { infected(working, mount, &gate, &n) })
	var seen []sample
	tick := time.NewTicker(max(duration/samples, 100*time.Millisecond))
	defer tick.Stop()
	for working.Err() == nil {
		select {
		case <-working.Done():
		case <-tick.C:
			gate.Lock()
			// What is in the quarantine is in memory too, and nothing else may grow.
			_, err := a.Control.QuarantineRemoveAll(ctx)
			s, lookErr := settled(ctx, a.PID())
			gate.Unlock()
			if err = errors.Join(err, lookErr); err != nil {
				stop()
				work.Wait()
				return err
			}
			seen = append(seen, s)
			fmt.Fprintf(out, "%5.0f%%  %6.1f MB private  %4d descriptors  %9d opens  %6d refused  %d missed  %d allowed at the deadline\n",
				100*float64(len(seen))/samples, float64(s.memory)/1e6, s.descriptors, n.opens.Load(), n.refused.Load(), n.missed.Load(), n.late.Load())
		}
	}
	work.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fmt.Fprintf(out, "%v of processor time used by the agent\n", measure.CPU(measure.Family(a.PID())).Round(time.Second))
	return judge(seen, &n)
}

// clean writes, opens, reads and removes harmless files.
func clean(ctx context.Context, mount string, worker int, gate *sync.RWMutex, n *counts) {
	dir := filepath.Join(mount, "clean"+strconv.Itoa(worker))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return
	}
	for i := 0; ctx.Err() == nil; i++ {
		gate.RLock()
		cleanFile(filepath.Join(dir, strconv.Itoa(i%50)), i, n)
		gate.RUnlock()
		time.Sleep(2 * time.Millisecond)
	}
}

func cleanFile(path string, i int, n *counts) {
	text := strings.Repeat(fmt.Sprintf("line %d of a harmless file\n", i), 1+i%400)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return
	}
	for range 5 {
		if _, err := os.ReadFile(path); err == nil {
			n.opens.Add(1)
		}
	}
	if i%7 == 0 {
		os.Remove(path)
	}
}

// taken is how long a file may wait for its place in the quarantine, where the
// disk is slow.
const taken = 2 * time.Minute

// infected writes test files and opens them: every open must be refused, or
// find the file gone to quarantine. The next one comes when the file is gone, so
// that a busy disk makes the soak slower and not the queue of the daemon longer.
func infected(ctx context.Context, mount string, gate *sync.RWMutex, n *counts) {
	for i := 0; ctx.Err() == nil; i++ {
		gate.RLock()
		infectedFile(ctx, filepath.Join(mount, "bad"+strconv.Itoa(i)), i, n)
		gate.RUnlock()
		time.Sleep(100 * time.Millisecond)
	}
}

func infectedFile(ctx context.Context, path string, i int, n *counts) {
	if err := os.WriteFile(path, []byte(fmt.Sprintf("%s %d %d\n", marker, i, time.Now().UnixNano())), 0o644); err != nil {
		return
	}
	start := time.Now()
	_, err := os.ReadFile(path)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, os.ErrNotExist):
		n.refused.Add(1)
	case err == nil && time.Since(start) > 1900*time.Millisecond:
		n.late.Add(1) // failed open, as promised; the host is overloaded
	case err == nil:
		n.missed.Add(1)
	}
	for ctx.Err() == nil {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Since(start) > taken {
			n.left.Add(1)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	os.Remove(path) // of one that was left, and at the end
}

// settled looks when what was queued is done: descriptors of files that wait are
// no leak. On a busy machine that takes a while, within bounds.
func settled(ctx context.Context, pid int) (sample, error) {
	best, err := look(pid)
	for same, tries := 0, 0; err == nil && ctx.Err() == nil && same < 5 && tries < 1200; tries++ {
		time.Sleep(50 * time.Millisecond)
		var s sample
		s, err = look(pid)
		if same++; s.descriptors < best.descriptors {
			same = 0
		}
		best = s
	}
	return best, err
}

// look adds up a process and those below it.
func look(pid int) (sample, error) {
	var s sample
	if _, err := measure.Stat(pid); err != nil {
		return s, fmt.Errorf("the daemon has ended: %w", err)
	}
	for _, p := range measure.Family(pid) {
		s.memory += measure.StatusBytes(p, "RssAnon:")
		if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p)); err == nil {
			s.descriptors += len(fds)
		}
	}
	return s, nil
}

// judge compares the least of the last quarter with the median of the second: the
// first is the start, and what waits its turn on a busy host, with its memory and
// descriptors, goes away again, which what leaks does not.
func judge(seen []sample, n *counts) error {
	if len(seen) < 8 {
		return fmt.Errorf("only %d samples: too short to judge", len(seen))
	}
	quarter := len(seen) / 4
	middle := func(part []sample, of func(sample) int64) int64 {
		var v []int64
		for _, s := range part {
			v = append(v, of(s))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	least := func(part []sample, of func(sample) int64) int64 {
		n := of(part[0])
		for _, s := range part {
			n = min(n, of(s))
		}
		return n
	}
	var errs []error
	early, late := seen[quarter:2*quarter], seen[len(seen)-quarter:]
	memory := func(s sample) int64 { return s.memory }
	if a, b := middle(early, memory), least(late, memory); b > a+a/4+(16<<20) {
		errs = append(errs, fmt.Errorf("memory grew from %.1f to %.1f MB", float64(a)/1e6, float64(b)/1e6))
	}
	descriptors := func(s sample) int64 { return int64(s.descriptors) }
	if a, b := middle(early, descriptors), least(late, descriptors); b > a+32 {
		errs = append(errs, fmt.Errorf("descriptors grew from %d to %d", a, b))
	}
	if m := n.missed.Load(); m > 0 {
		errs = append(errs, fmt.Errorf("%d detections missed", m))
	}
	if l := n.left.Load(); l > 0 {
		errs = append(errs, fmt.Errorf("%d files were not taken away within %s", l, taken))
	}
	if n.refused.Load() == 0 || n.opens.Load() == 0 {
		errs = append(errs, fmt.Errorf("%d opens, %d refused: nothing was tested", n.opens.Load(), n.refused.Load()))
	}
	return errors.Join(errs...)
}
