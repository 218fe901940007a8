package engine

import (
	"context"
	"encoding/base64"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/test/need"
)

// systemFiles reads up to most bytes of the system's programs and libraries.
func systemFiles(b *testing.B, most int) [][]byte {
	var files [][]byte
	total := 0
	for _, dir := range []string{"/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/share/perl"} {
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, n := range names {
			st, err := os.Stat(n)
			if err != nil || !st.Mode().IsRegular() || total+int(st.Size()) > most {
				continue
			}
			data, err := os.ReadFile(n)
			if err != nil {
				continue
			}
			total += len(data)
			files = append(files, data)
		}
	}
	if total < 1<<20 {
		need.Missing(b, "no system files to scan")
	}
	return files
}

func benchmarkScan(b *testing.B, e *Engine, files [][]byte) {
	total := 0
	for _, f := range files {
		total += len(f)
	}
	b.SetBytes(int64(total))
	for b.Loop() {
		for _, f := range files {
			if _, err := e.Scan(context.Background(), sliceReader(f), int64(len(f)), Options{}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkRealRules scans with the public YARA rules of the test data; yara
// 4.2.3 does 37 MB/s with them on the machine this was written on.
func BenchmarkRealRules(b *testing.B) {
	e, _ := compile(b, definitions.Source{Path: need.SharedTestdata(b, "yara")})
	benchmarkScan(b, e, systemFiles(b, 50<<20))
}

// BenchmarkNoRules is the cost of reading, typing and the built-in rules.
func BenchmarkNoRules(b *testing.B) {
	e, _ := compile(b)
	benchmarkScan(b, e, systemFiles(b, 50<<20))
}

// BenchmarkTexts opens what can be opened in documentation: texts, pages and
// compressed texts; MB/s are of what was looked at, members included, once by the
// clock and once by processor time.
func BenchmarkTexts(b *testing.B) {
	e, _ := compile(b)
	names, _ := filepath.Glob("/usr/share/doc/*/*")
	var files [][]byte
	read := 0
	for _, n := range names {
		if data, err := os.ReadFile(n); err == nil && read < 20<<20 {
			read += len(data)
			files = append(files, data)
		}
	}
	if read < 1<<20 {
		need.Missing(b, "no documentation to scan")
	}
	start, total := processorTime(b), int64(0)
	for b.Loop() {
		seen := int64(0)
		for _, f := range files {
			v, err := e.Scan(context.Background(), sliceReader(f), int64(len(f)), Options{Archives: true})
			if err != nil {
				b.Fatal(err)
			}
			seen += v.Bytes
		}
		b.SetBytes(seen)
		total += seen
	}
	b.ReportMetric(float64(total)/1e6/(processorTime(b)-start).Seconds(), "MB/cpu-s")
}

// BenchmarkEncodedTexts scans files of 100 KB with the rules that we ship: random bytes,
// these as base64 in one line and in lines of 76, words, and letters in lines of
// about 17, which may all be base64.
func BenchmarkEncodedTexts(b *testing.B) {
	e, _ := compile(b, definitions.Source{Path: "../content/yara"})
	const size = 100 << 10
	rng := rand.New(rand.NewPCG(1, 2))
	of := func(next func() byte) []byte {
		data := make([]byte, size)
		for i := range data {
			data[i] = next()
		}
		return data
	}
	random := of(func() byte { return byte(rng.Uint32()) })
	line := base64.StdEncoding.EncodeToString(random)
	var lines strings.Builder
	for chunk := range slices.Chunk([]byte(line), 76) {
		lines.Write(append(slices.Clip(chunk), '\n'))
	}
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"random", random},
		{"base64", []byte(line[:size])},
		{"lines", []byte(lines.String()[:size])},
		{"words", of(func() byte { return "etaoinshrdlu \n"[rng.IntN(14)] })},
		{"short", of(func() byte { return "abcdefghijklmnop\n"[rng.IntN(17)] })},
	} {
		b.Run(c.name, func(b *testing.B) {
			start, total := processorTime(b), 0
			for b.Loop() {
				if _, err := e.Scan(context.Background(), sliceReader(c.data), size, Options{Archives: true}); err != nil {
					b.Fatal(err)
				}
				total += size
			}
			b.ReportMetric(float64(total)/1e6/(processorTime(b)-start).Seconds(), "MB/cpu-s")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
