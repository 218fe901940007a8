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

// cpuTime is that of this process, or of its children that have ended.
func cpuTime(who int) time.Duration {
	var ru unix.Rusage
	_ = unix.Getrusage(who, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkExec runs programs as fast as a shell can, with the whole pipeline
// on (enrichment, hashes, rules), and reports the CPU time that the pipeline
// took for each, how many programs had no event, and how many losses were
// counted; and the CPU time of the load itself (load-µs/exec), in which is what
// the kernel's side of the sensor costs. "off" is the same load without a
// sensor. What else happens on the machine counts, too: events/exec says how
// much that was.
func BenchmarkExec(b *testing.B) {
	need.Root(b)
	for _, name := range []string{"off", "ebpf", "proc-connector"} {
		b.Run(name, func(b *testing.B) {
			table := sensortest.Table(b)
			engine := detect.New(detect.Options{})
			engine.Load(detect.Source{Name: "builtin", FS: rules.FS(), Builtin: true})
			mark := fmt.Sprintf("/bin/true bulwark-bench-%d-", time.Now().UnixNano())
			var seen, all atomic.Int64
			p := &sensor.Pipeline{Table: table, Hasher: process.NewHasher("", process.HasherOptions{}), Packages: process.NewPackages("/var/lib/dpkg"), Detect: engine, OnEvent: func(ev *event.Event) {
				all.Add(1)
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
			before, loadBefore := cpuTime(unix.RUSAGE_SELF), cpuTime(unix.RUSAGE_CHILDREN)
			load := exec.Command("/bin/sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s$i; i=$((i+1)); done", b.N, mark))
			if err := load.Run(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64((cpuTime(unix.RUSAGE_CHILDREN)-loadBefore).Microseconds())/float64(b.N), "load-µs/exec")
			if len(p.Sensors) == 0 {
				return
			}
			// What is behind by now is late, not lost: hashing a large new program
			// holds the others up for a moment. What does not come in a minute is
			// missing.
			for deadline := time.Now().Add(time.Minute); seen.Load() < int64(b.N) && time.Now().Before(deadline); {
				time.Sleep(50 * time.Millisecond)
			}
			b.ReportMetric(float64((cpuTime(unix.RUSAGE_SELF)-before).Microseconds())/float64(b.N), "cpu-µs/exec")
			b.ReportMetric(float64(all.Load())/float64(b.N), "events/exec")
			b.ReportMetric(float64((cpuTime(unix.RUSAGE_SELF)-before).Microseconds())/float64(max(all.Load(), 1)), "cpu-µs/event")
			b.ReportMetric(float64(int64(b.N)-seen.Load()), "missing")
			b.ReportMetric(float64(p.Health()[0].Lost), "lost")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exec/s")
		})
	}
}
