package detect

import (
	"slices"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
)

// BenchmarkShipped evaluates the shipped rules: for what a system does all day,
// and for a program in a temporary folder, at which many rules look. With -v it
// names the rules that were evaluated.
func BenchmarkShipped(b *testing.B) {
	temporary := event.Event{
		Class: event.ClassProcess, Action: event.ProcessCreated, Time: time.Unix(1, 0),
		Process:    event.Process{FolderPath: "/tmp/bulwark-bench-3653519888/load/nothing", FileName: "nothing", CommandLine: "/tmp/bulwark-bench-3653519888/load/nothing bulwark-load-dg5k3b-1234", WorkingDir: "/root/src", AccountName: "root"},
		Initiating: event.Process{FolderPath: "/tmp/go-build/sensor", FileName: "sensor", CommandLine: "/tmp/go-build/sensor load -kind exec -rate 1000 -duration 10s -dir /tmp/bulwark-bench-3653519888/load -mark bulwark-load-dg5k3b", AccountName: "root"},
	}
	for name, evs := range map[string][]event.Event{"everyday": benchEvents(100), "temporary": {temporary}} {
		b.Run(name, func(b *testing.B) {
			e := New(Options{})
			e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
			b.ReportAllocs()
			b.ResetTimer()
			report := cpuTime(b)
			for i := range b.N {
				e.Evaluate(&evs[i%len(evs)])
			}
			report()
			list := e.Rules()
			slices.SortFunc(list, func(x, y RuleInfo) int {
				return int(y.Cost)*int(y.Evaluated) - int(x.Cost)*int(x.Evaluated)
			})
			for _, r := range list[:15] {
				b.Logf("%8d evaluated, %8s each: %s", r.Evaluated, r.Cost, r.Rule.Title)
			}
		})
	}
}
