package ebpf

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/test/need"
)

// BenchmarkSystemCall measures what the sensor adds to calls that give no
// event, in CPU time of this process: one that is not looked at, the opening and
// closing of a file, a read, and a write to a file that is written already.
func BenchmarkSystemCall(b *testing.B) {
	need.Root(b)
	name := filepath.Join(b.TempDir(), "file")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 1)
	calls := []struct {
		name string
		do   func()
	}{
		{"getppid", func() { _, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) }},
		{"open+close", func() {
			if fd, err := unix.Open(name, unix.O_RDONLY, 0); err == nil {
				_ = unix.Close(fd)
			}
		}},
		{"read", func() { _, _ = unix.Pread(int(f.Fd()), buf, 0) }},
		{"write", func() { _, _ = unix.Pwrite(int(f.Fd()), buf, 0) }},
	}
	for _, sensor := range []string{"off", "on"} {
		if sensor == "on" {
			sensortest.Start(b, New(sensortest.Table(b), sensortest.Log(b), WithOwnFiles()))
		}
		for _, c := range calls {
			b.Run(sensor+"/"+c.name, func(b *testing.B) {
				before := cpuTime()
				for range b.N {
					c.do()
				}
				b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// cpuTime is the CPU time of this process in ns.
func cpuTime() int64 {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	return ru.Utime.Nano() + ru.Stime.Nano()
}
