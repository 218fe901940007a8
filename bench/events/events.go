// Package events makes events like those of servers, for benchmarks of what keeps
// and reads them.
package events

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

const (
	batchSize = 5000
	// Span is the time that the events lie in.
	Span = 48 * time.Hour
	// Hash is one that files and programs have.
	Hash = "0000000000000000000000000000000000000000000000000000000000000000"
)

// Device is who has events.
type Device struct{ ID, Name string }

// Devices are n made-up devices.
func Devices(n int) []Device {
	list := make([]Device, n)
	for i := range list {
		list[i] = Device{ID: fmt.Sprintf("%040x", i+1), Name: fmt.Sprintf("host-%03d", i)}
	}
	return list
}

var programs = []string{"bash", "sh", "python3", "curl", "sshd", "sudo", "cron", "systemctl", "apt-get", "nginx", "postgres", "node", "java", "git", "rsync", "tar", "find", "grep", "awk", "sed"}

// maker makes events like those of servers: half of them processes, a quarter
// files, the rest connections, with few names that come often and many that are
// rare.
type maker struct {
	*rand.Rand
	n uint64
}

func (m *maker) program() string {
	// The square prefers the first ones.
	f := m.Float64()
	return programs[int(f*f*float64(len(programs)))]
}

func (m *maker) hash() string {
	return strings.Repeat(fmt.Sprintf("%016x", m.Uint64N(20_000)*0x9e3779b97f4a7c15), 4)
}

func (m *maker) process(at time.Time) event.Process {
	name := m.program()
	users := []string{"root", "www-data", "postgres", "ann", "bob"}
	return event.Process{
		PID: int64(m.IntN(1 << 22)), StartTime: at, FileName: name, FolderPath: "/usr/bin/" + name,
		CommandLine: fmt.Sprintf("%s --job %d --from /srv/data/%d", name, m.IntN(1000), m.IntN(100_000)),
		SHA256:      m.hash(), AccountName: users[m.IntN(len(users))], ParentFileName: m.program(),
	}
}

func (m *maker) event(at time.Time) event.Event {
	m.n++
	e := event.Event{ReportID: m.n, Time: at, Initiating: m.process(at)}
	switch k := m.IntN(100); {
	case k < 50:
		e.Class, e.Action, e.Process = event.ClassProcess, event.ProcessCreated, m.process(at)
	case k < 75:
		e.Class, e.Action = event.ClassFile, []string{event.FileCreated, event.FileModified, event.FileDeleted}[m.IntN(3)]
		name := fmt.Sprintf("part-%d.log", m.IntN(50_000))
		e.File = event.File{FileName: name, FolderPath: "/var/log/app/" + name, SHA256: m.hash(), Size: int64(m.IntN(1 << 20))}
	case k < 97:
		e.Class, e.Action = event.ClassNetwork, event.ConnectionSuccess
		e.Network = event.Network{
			RemoteIP: fmt.Sprintf("203.0.%d.%d", m.IntN(16), m.IntN(256)), RemotePort: []int64{443, 80, 22, 5432, 8080}[m.IntN(5)],
			LocalIP: "10.0.0.1", LocalPort: int64(32768 + m.IntN(20000)), Protocol: "Tcp",
		}
	default:
		e.Class, e.Action = event.ClassLogon, []string{event.LogonSuccess, event.LogonFailed}[m.IntN(2)]
		e.Logon = event.Logon{Type: "RemoteInteractive", AccountName: []string{"root", "ann", "bob", "admin"}[m.IntN(4)], RemoteIP: fmt.Sprintf("198.51.100.%d", m.IntN(256))}
	}
	return e
}

// Store takes events.
type Store interface {
	eventstore.Store
	Maintain(ctx context.Context) error
}

// Fill puts n events of the devices into the store, of the Span that ends at until,
// the same ones each time; the older ones as closed segments.
func Fill(ctx context.Context, s Store, n int, devices []Device, until time.Time) error {
	m := &maker{Rand: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // the same events each time
	batches := max(1, n/batchSize)
	step := Span / time.Duration(batches)
	// Many devices deliver at the same time.
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range batches {
		at := until.Add(step * time.Duration(i-batches))
		d := devices[m.IntN(len(devices))]
		b := &eventstore.Batch{DeviceID: d.ID, DeviceName: d.Name, SpoolID: fmt.Sprint("bench-", i), Sequence: 1, Received: at}
		for j := range batchSize {
			b.Events = append(b.Events, m.event(at.Add(step*time.Duration(j)/batchSize)))
		}
		g.Go(func() error { return s.Append(gctx, b) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.Maintain(ctx)
}
