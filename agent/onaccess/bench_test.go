package onaccess

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkOpenClose measures one open and close of a small known file by
// another process: without marks, with the verdict from our cache, and with
// the kernel's ignore mark. The metric µs/open is the median; ns/op includes
// the talk with that process.
func BenchmarkOpenClose(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(*Config)
	}{
		{"none", func(c *Config) { c.Mode = Passive }},
		{"cached", func(c *Config) { c.Ignore = IgnoreOff }},
		{"ignore_mark", func(c *Config) { c.Ignore = IgnoreAll }},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, c.change)
			p := r.put(b, "file", "harmless")
			r.accessor.must(request{Op: "open", Path: p})
			b.ResetTimer()
			got := r.accessor.must(request{Op: "loop", Path: p, N: max(b.N, 1000)})
			b.StopTimer()
			ns, err := strconv.ParseFloat(got.Content, 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(ns/1000, "µs/open")
		})
	}
}

// BenchmarkManyOpeners is 64 processes that open known files as fast as they
// can: without marks, with a program that does nothing but allow (what the
// kernel makes possible), with our verdict cache and with ignore marks. The
// metrics are processor time per open, of everybody and of the watcher alone,
// and opens per second; only the last depends on what else the machine does.
func BenchmarkManyOpeners(b *testing.B) {
	const openers = 64
	for _, c := range []struct {
		name   string
		change func(*Config)
		bare   bool
	}{
		{"none", func(c *Config) { c.Mode = Passive }, false},
		{"bare_allow", func(c *Config) { c.Mode = Passive }, true},
		{"cached", func(c *Config) { c.Ignore = IgnoreOff }, false},
		{"ignore_mark", func(c *Config) { c.Ignore = IgnoreAll }, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, c.change)
			if c.bare {
				allowEverybody(b, r.dir)
			}
			var actors []*process
			r.putMany(b, "f", openers)
			for i := range openers {
				actors = append(actors, startAccessor(b))
				actors[i].must(request{Op: "open", Path: r.path("f" + strconv.Itoa(i))})
			}
			each := max(b.N/openers, 200)
			own, others := processorTime(b, "self"), time.Duration(0)
			for _, a := range actors {
				others -= processorTime(b, strconv.Itoa(a.cmd.Process.Pid))
			}
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, a := range actors {
				wg.Go(func() { a.must(request{Op: "loop", Path: r.path("f" + strconv.Itoa(i)), N: each}) })
			}
			wg.Wait()
			b.StopTimer()
			own = processorTime(b, "self") - own
			for _, a := range actors {
				others += processorTime(b, strconv.Itoa(a.cmd.Process.Pid))
			}
			n := float64(each * openers)
			b.ReportMetric(n/b.Elapsed().Seconds(), "opens/s")
			b.ReportMetric(float64((own+others).Microseconds())/n, "cpu-µs/open")
			b.ReportMetric(float64(own.Microseconds())/n, "watcher-cpu-µs/open")
		})
	}
}

// processorTime is what the threads of a process have used.
func processorTime(tb testing.TB, pid string) (sum time.Duration) {
	tb.Helper()
	threads, err := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
	if err != nil || len(threads) == 0 {
		tb.Fatalf("threads of process %s: %v, %v", pid, threads, err)
	}
	for _, f := range threads {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // has ended
		}
		ran, _, err := schedTimes(string(b))
		if err != nil {
			tb.Fatal(err)
		}
		sum += ran
	}
	return sum
}

// allowEverybody holds opens below dir and allows them at once, for as long as
// the benchmark runs.
func allowEverybody(b *testing.B, dir string) {
	b.Helper()
	g, err := openGroup("bare", false, Capabilities{Permission: true})
	if err != nil {
		b.Fatal(err)
	}
	if err := g.markPath(unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_OPEN_PERM, dir); err != nil {
		b.Fatal(err)
	}
	deadman := time.AfterFunc(4*time.Minute, g.close)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var buf [eventLen]byte
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, err := g.read(&buf)
			if err != nil {
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}}, 10)
				continue
			}
			for rest := buf[:n]; len(rest) > 0; {
				var ev kernelEvent
				if ev, rest, err = nextEvent(rest); err != nil {
					return
				}
				_ = g.respond(ev.fd, unix.FAN_ALLOW)
				unix.Close(int(ev.fd))
			}
		}
	}()
	b.Cleanup(func() {
		close(stop)
		<-done
		g.close()
		deadman.Stop()
	})
}

// BenchmarkLookForMounts is what the watcher does every second when nothing
// happens: 10 ms would be one percent of a processor.
func BenchmarkLookForMounts(b *testing.B) {
	r := newRig(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		r.marksMu.Lock()
		err := r.syncForeign()
		r.marksMu.Unlock()
		if err != nil {
			b.Fatal(err)
		}
	}
}
