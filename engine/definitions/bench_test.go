package definitions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// BenchmarkRealAtoms scans with each group's matcher of the public YARA rules
// alone. Other work on the machine only makes runs slower, so the best of them
// by processor time is reported.
func BenchmarkRealAtoms(b *testing.B) {
	out, err := os.CreateTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	if _, err := Compile(context.Background(), out, []Source{{need.SharedTestdata(b, "yara")}}, CompileOptions{}); err != nil {
		b.Fatal(err)
	}
	s, err := Open(out)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var data []byte
	names, _ := filepath.Glob("/usr/bin/*")
	for _, n := range names {
		if f, err := os.ReadFile(n); err == nil && len(data) < 16<<20 {
			data = append(data, f[:min(len(f), 1<<20)]...)
		}
	}
	if len(data) < 1<<20 {
		need.Missing(b, "no system files to scan")
	}
	for g, m := range s.Matchers {
		if m == nil {
			continue
		}
		b.Run(fmt.Sprintf("group=%d/atoms=%d", g, m.Atoms()), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			low, found := time.Hour, 0
			for b.Loop() {
				start := threadTime(b)
				found = 0
				m.Scan(data, 0, 0, len(data), func(uint32, int64) { found++ })
				low = min(low, threadTime(b)-start)
			}
			b.SetBytes(int64(len(data)))
			b.ReportMetric(float64(len(data))/1e6/low.Seconds(), "best-MB/s")
			b.ReportMetric(float64(found)/float64(len(data))*1e3, "candidates/KB")
		})
	}
}

func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
