package ebpf

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/agent/spool"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
)

// replay is the sensor without the kernel: it handles n times the records of a
// process that is forked, runs a program and ends.
type replay struct {
	*Sensor
	n    int
	wait chan struct{} // holds a place for each process that is under way
}

func (r *replay) Run(ctx context.Context, _ []event.Category, sink sensor.Sink) error {
	sink.Ready()
	parent := processRecord(kindExec, 900, 1, 5e9, "/bin/sh", "sh\x00-c\x00make\x00")
	r.handle(parent, sink)
	exe := "true\x00bin\x00usr\x00"
	for i := range r.n {
		r.wait <- struct{}{}
		pid, start := uint32(5_000_000+i%30000), uint64(10e9)+uint64(i)*1e7
		r.handle(processRecord(kindFork, pid, 900, start, "", ""), sink)
		r.handle(processRecord(kindExec, pid, 900, start, "/usr/bin/true", fmt.Sprintf("/usr/bin/true\x00--number\x00%d\x00", i), exe), sink)
		r.handle(processRecord(kindExit, pid, 900, start, "", ""), sink)
	}
	<-ctx.Done()
	return nil
}

func (r *replay) Counts() map[event.Category]sensor.Stats { return nil }

// processRecord lays a record out as the programs do.
func processRecord(kind, pid, ppid uint32, start uint64, name, args string, exe ...string) []byte {
	var b [recordSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[:], kind)
	le.PutUint64(b[8:], start+1e6)
	le.PutUint64(b[16:], start)
	le.PutUint64(b[24:], 5e9)
	le.PutUint32(b[32:], pid)
	le.PutUint32(b[36:], ppid)
	le.PutUint32(b[52:], 0xffffffff)
	le.PutUint32(b[56:], 0xffffffff)
	copy(b[112:], "true")
	if kind != kindExec {
		return b[:]
	}
	image := ""
	if len(exe) > 0 {
		image = exe[0]
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			le.PutUint64(b[64:], st.Ino)
			le.PutUint64(b[72:], uint64(st.Size))
			le.PutUint32(b[80:], unix.Major(st.Dev)<<20|unix.Minor(st.Dev))
			le.PutUint64(b[184:], uint64(st.Ctim.Nano()))
		}
	}
	cwd, cgroup := "sens\x00w\x00tmp\x00", "ssh.service\x00system.slice\x00"
	le.PutUint32(b[96:], uint32(len(args)))
	le.PutUint32(b[100:], uint32(len(args)))
	le.PutUint16(b[104:], uint16(len(name)+1))
	le.PutUint16(b[106:], uint16(len(image)))
	le.PutUint16(b[108:], uint16(len(cwd)))
	le.PutUint16(b[110:], uint16(len(cgroup)))
	return append(b[:], name+"\x00"+image+cwd+cgroup+args...)
}

// BenchmarkRecords is what a short process costs the agent from the kernel's
// records to the spool: decoding, table, hashes, package, rules, queue on disk.
// Unlike BenchmarkExec it does not depend on what else happens on the machine.
func BenchmarkRecords(b *testing.B) {
	table := sensortest.Table(b)
	engine := detect.New(detect.Options{})
	engine.Load(detect.Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	q, err := spool.Open(b.TempDir(), spool.Options{MaxBytes: 2 << 30, MaxMemory: 256 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	r := &replay{Sensor: New(table, sensortest.Log(b)), n: b.N, wait: make(chan struct{}, 1000)}
	created, ended, done := 0, 0, make(chan struct{})
	p := &sensor.Pipeline{
		Sensors: []sensor.Sensor{r}, Table: table, Detect: engine, Hasher: process.NewHasher("", process.HasherOptions{}),
		Packages: process.NewPackages("/var/lib/dpkg"), Containers: process.NewContainers("/"),
		OnEvent: func(e *event.Event) {
			q.AddEvent(e)
			switch {
			case e.Action == event.ProcessTerminated:
				<-r.wait
				if ended++; ended == b.N {
					close(done)
				}
			case e.Process.PID != 900 && e.Process.SHA256 != "":
				created++
			}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan struct{})
	b.ReportAllocs()
	before := cpuTime()
	go func() { defer close(finished); _ = p.Run(ctx) }()
	<-done
	cancel()
	<-finished
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/1000, "cpu-µs/exec")
	b.ReportMetric(float64(b.N-created), "without-hash")
	if st := q.Stats(); len(st.Lost) > 0 {
		b.Fatalf("the spool lost %v", st.Lost)
	}
}
