package duckdb

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
)

// cpuTime is the processor time that the program has used, in ms.
func cpuTime(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}

// BenchmarkAppend stores batches of one device, each in a transaction of its own:
// the worst case. BenchmarkAppendMany stores those of many devices that deliver
// at the same time. BenchmarkAppendFleet is a fleet: many devices with a few
// events each, every few seconds. CPU time is what other work on the machine
// does not change.
func BenchmarkAppend(b *testing.B)      { benchmarkAppend(b, 1, 5000) }
func BenchmarkAppendMany(b *testing.B)  { benchmarkAppend(b, 64, 1000) }
func BenchmarkAppendSmall(b *testing.B) { benchmarkAppend(b, 1, 5) }
func BenchmarkAppendFleet(b *testing.B) { benchmarkAppend(b, 1000, 10) }

func benchmarkAppend(b *testing.B, devices, events int) {
	s, err := Open(b.Context(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	batches := make([]*eventstore.Batch, devices)
	for d := range batches {
		batches[d] = eventstoretest.Batch(fmt.Sprintf("%040x", d+1), 0, 0, events)
	}
	begin := cpuTime(b)
	for b.Loop() {
		var all sync.WaitGroup
		for _, batch := range batches {
			batch.Sequence++
			all.Go(func() {
				if err := s.Append(b.Context(), batch); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
	}
	stored := float64(devices * events * b.N)
	b.ReportMetric((cpuTime(b)-begin)/stored*1000, "cpu-ms/1000events")
	b.ReportMetric((cpuTime(b)-begin)/float64(devices*b.N)*1000, "cpu-us/batch")
	b.ReportMetric(stored/b.Elapsed().Seconds(), "events/s")
}
