package onaccess

import (
	"strconv"
	"testing"
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
