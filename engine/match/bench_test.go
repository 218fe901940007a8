package match

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// corpus is up to 64 MB of the system's programs and libraries.
func corpus(b *testing.B) []byte {
	var data []byte
	for _, dir := range []string{"/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"} {
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, n := range names {
			if len(data) > 64<<20 {
				return data
			}
			if f, err := os.ReadFile(n); err == nil {
				data = append(data, f[:min(len(f), 1<<20)]...)
			}
		}
	}
	if len(data) < 1<<20 {
		need.Missing(b, "no system files to scan")
	}
	return data
}

// randomAtoms are n random literals of 8 to 24 bytes.
func randomAtoms(n int) []Atom {
	rng := rand.New(rand.NewPCG(5, 6))
	atoms := make([]Atom, n)
	for i := range atoms {
		w := make([]byte, 8+rng.IntN(17))
		for k := range w {
			w[k] = byte(rng.Uint32())
		}
		atoms[i] = Atom{Bytes: w, ID: uint32(i)}
	}
	return atoms
}

// threadTime is the processor time of the calling thread.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// best reports the lowest processor time of the runs of one benchmark: other
// work on the machine makes single runs slower, none faster.
func best(b *testing.B, bytes int, run func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	low := time.Duration(1<<63 - 1)
	for b.Loop() {
		start := threadTime(b)
		run()
		low = min(low, threadTime(b)-start)
	}
	b.SetBytes(int64(bytes))
	b.ReportMetric(float64(bytes)/1e6/low.Seconds(), "best-MB/s")
}

func BenchmarkScan(b *testing.B) {
	data := corpus(b)
	b.Run("reading", func(b *testing.B) {
		var sum uint64
		best(b, len(data), func() {
			for i := 0; i+8 <= len(data); i += 8 {
				sum += le64(data[i:])
			}
		})
		runtime.KeepAlive(sum)
	})
	for _, n := range []int{1000, 10000, 100000, 1000000} {
		b.Run(fmt.Sprintf("literals=%d", n), func(b *testing.B) {
			t, err := Build(randomAtoms(n))
			if err != nil {
				b.Fatal(err)
			}
			m, err := Load(aligned(t))
			if err != nil {
				b.Fatal(err)
			}
			for _, lanes := range append(vectorLanes(), 1) {
				b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
					m.lanes = lanes
					candidates := 0
					best(b, len(data), func() {
						candidates = 0
						m.Scan(data, 0, 0, len(data), func(uint32, int64) { candidates++ })
					})
					b.ReportMetric(float64(len(t))/float64(n), "B/literal")
					b.ReportMetric(float64(candidates), "candidates")
				})
			}
		})
	}
}
