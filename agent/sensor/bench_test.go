package sensor_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/sensor/ebpf"
	"github.com/bulwarkhq/bulwark/agent/sensor/procfs"
	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

func cpuTime() time.Duration {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkExec runs programs as fast as a shell can, with the whole pipeline
// on (enrichment, hashes, rules), and reports the CPU time that the pipeline
// took for each, how many programs had no event, and how many losses were
// counted. "off" is the same load without a sensor.
func BenchmarkExec(b *testing.B) {
	need.Root(b)
	for _, name := range []string{"off", "ebpf", "proc-connector"} {
		b.Run(name, func(b *testing.B) {
			table := sensortest.Table(b)
			engine := detect.New(detect.Options{})
			engine.Load(detect.Source{Name: "builtin", FS: rules.FS(), Builtin: true})
			mark := fmt.Sprintf("/bin/true bulwark-bench-%d-", time.Now().UnixNano())
			var seen atomic.Int64
			p := &sensor.Pipeline{Table: table, Hasher: process.NewHasher("", process.HasherOptions{}), Detect: engine, OnEvent: func(ev *event.Event) {
				if ev.Action == event.ProcessCreated && strings.HasPrefix(ev.Process.CommandLine, mark) {
					seen.Add(1)
				}
			}}
			switch name {
			case "ebpf":
				p.Sensors = []sensor.Sensor{ebpf.New(table, sensortest.Log(b))}
			case "proc-connector":
				p.Sensors = []sensor.Sensor{procfs.New(table, sensortest.Log(b))}
			}
			if len(p.Sensors) > 0 {
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan struct{})
				go func() { defer close(done); _ = p.Run(ctx) }()
				defer func() { cancel(); <-done }()
				<-p.Ready()
			}
			b.ResetTimer()
			before := cpuTime()
			load := exec.Command("/bin/sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s$i; i=$((i+1)); done", b.N, mark))
			if err := load.Run(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if len(p.Sensors) == 0 {
				return
			}
			// What is behind by now is late, not lost.
			for last := int64(-1); seen.Load() != last; time.Sleep(500 * time.Millisecond) {
				last = seen.Load()
			}
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/exec")
			b.ReportMetric(float64(int64(b.N)-seen.Load()), "missing")
			b.ReportMetric(float64(p.Health()[0].Lost), "lost")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exec/s")
		})
	}
}
