package yara

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/definitions"
)

// BenchmarkCompile compiles the rules from an installed folder.
func BenchmarkCompile(b *testing.B) {
	dir := installed(b)
	for b.Loop() {
		out, err := os.Create(filepath.Join(b.TempDir(), "rules.bwd"))
		if err != nil {
			b.Fatal(err)
		}
		report, err := definitions.Compile(b.Context(), out, []definitions.Source{{Path: dir}}, definitions.CompileOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(report.Bytes), "file-bytes")
		_ = out.Close()
	}
}

// BenchmarkScan scans programs and texts of the distribution, held in memory, by
// one thread and without looking into containers. The rate per processor second
// does not depend on what else the machine does.
func BenchmarkScan(b *testing.B) {
	e, _ := compiled(b)
	for name, pattern := range map[string]string{"programs": "/usr/bin/*", "texts": "/usr/share/perl/*/*.p[ml]"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			b.Fatal(err)
		}
		var total int64
		contents := map[string][]byte{}
		for _, path := range paths {
			st, err := os.Stat(path)
			if err != nil || !st.Mode().IsRegular() || total+st.Size() > 200<<20 {
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			contents[path] = data
			total += int64(len(data))
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(total)
			before := cpuSeconds(b)
			for b.Loop() {
				for path, data := range contents {
					if _, err := scan(b.Context(), e, path, data, false); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(total)*float64(b.N)/(cpuSeconds(b)-before)/1e6, "MB/cpu-s")
		})
	}
}

// cpuSeconds is the processor time of this process so far.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
