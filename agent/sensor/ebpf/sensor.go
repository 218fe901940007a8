// Package ebpf reports processes and TCP connections from raw tracepoints with
// CO-RE programs. It needs a kernel with BTF and the helpers of Linux 5.5; it
// pins nothing, so everything is gone when the process is.
package ebpf

//go:generate bpf/build.sh ../sensor.bpfel.o

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

//go:embed sensor.bpfel.o
var object []byte

// perfBuffer is the perf buffer per CPU in bytes, for kernels without ring
// buffer.
const perfBuffer = 512 << 10

// lookInterval bounds how long a record that wakes nobody waits in the ring.
const lookInterval = 100 * time.Millisecond

// Sensor is the eBPF source.
type Sensor struct {
	table *process.Table
	log   *slog.Logger
	// forcePerf uses the perf buffer also where the kernel has the ring buffer.
	forcePerf bool
	// early are ends that were read before the fork or exec of their process:
	// the perf buffer keeps no order between CPUs. Nil with the ring buffer,
	// which does.
	early *earlyExits

	seen, delivered, lost, malformed, filtered atomic.Uint64
}

// Option changes a Sensor.
type Option func(*Sensor)

// WithPerfBuffer uses the perf buffer also where the kernel has a ring buffer.
func WithPerfBuffer() Option { return func(s *Sensor) { s.forcePerf = true } }

// New makes a sensor that keeps table up to date.
func New(table *process.Table, log *slog.Logger, opts ...Option) *Sensor {
	s := &Sensor{table: table, log: log}
	for _, o := range opts {
		o(s)
	}
	return s
}

// Name implements sensor.Sensor.
func (s *Sensor) Name() string { return "ebpf" }

// Categories implements sensor.Sensor.
func (s *Sensor) Categories() []event.Category {
	return []event.Category{event.CategoryProcess, event.CategoryNetwork}
}

// Stats implements sensor.Sensor.
func (s *Sensor) Stats() sensor.Stats {
	return sensor.Stats{Seen: s.seen.Load(), Delivered: s.delivered.Load(), Lost: s.lost.Load(), Malformed: s.malformed.Load(), Filtered: s.filtered.Load()}
}

type program struct {
	name, tracepoint string
	category         event.Category
}

var programs = []program{
	{"bulwark_fork", "sched_process_fork", event.CategoryProcess},
	{"bulwark_exec", "sched_process_exec", event.CategoryProcess},
	{"bulwark_exit", "sched_process_exit", event.CategoryProcess},
	{"bulwark_sock", "inet_sock_set_state", event.CategoryNetwork},
}

// Run implements sensor.Sensor.
func (s *Sensor) Run(ctx context.Context, only []event.Category, sink sensor.Sink) error {
	ring := !s.forcePerf && features.HaveMapType(ebpf.RingBuf) == nil
	if !ring {
		s.early = &earlyExits{}
	}
	coll, err := load(ring)
	if err != nil {
		return err
	}
	defer coll.Close()
	reader, err := newReader(coll.Maps["events"], ring)
	if err != nil {
		return fmt.Errorf("ebpf: open the event buffer: %w", err)
	}
	defer reader.Close()

	for _, p := range programs {
		if !slices.Contains(only, p.category) {
			continue
		}
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: p.tracepoint, Program: coll.Programs[p.name]})
		if err != nil {
			return fmt.Errorf("ebpf: attach to %s: %w", p.tracepoint, err)
		}
		defer l.Close()
	}
	// Attached first: no process falls between the reading of /proc and this.
	if err := s.table.Seed(ctx); err != nil {
		return fmt.Errorf("ebpf: %w", err)
	}
	sink.Ready()
	s.log.Info("eBPF sensor attached", "ring_buffer", ring, "categories", only)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	countersDone := make(chan struct{})
	go func() {
		defer close(countersDone)
		s.watchCounters(ctx, coll, sink)
	}()
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer stop()
	err = s.read(reader, sink)
	cancel()
	<-countersDone
	return err
}

// load loads the programs with maps for this kernel.
func load(ring bool) (*ebpf.Collection, error) {
	// Kernels before 5.11 charge BPF memory to RLIMIT_MEMLOCK.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("ebpf: raise RLIMIT_MEMLOCK: %w", err)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("ebpf: read the embedded object: %w", err)
	}
	if !ring {
		m := spec.Maps["events"]
		m.Type, m.MaxEntries, m.KeySize, m.ValueSize = ebpf.PerfEventArray, 0, 4, 4
		if err := spec.Variables["use_ring"].Set(uint32(0)); err != nil {
			return nil, fmt.Errorf("ebpf: set use_ring: %w", err)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	// The kernel's type information was some megabytes.
	debug.FreeOSMemory()
	if err != nil {
		return nil, fmt.Errorf("ebpf: load the programs (needs BTF and Linux 5.5): %w", err)
	}
	return coll, nil
}

func (s *Sensor) read(r recordReader, sink sensor.Sink) error {
	var rec sample
	for {
		if err := r.Read(&rec); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("ebpf: read events: %w", err)
		}
		if rec.lost > 0 {
			// Of the perf buffer; the programs' own counter has them by kind.
			continue
		}
		s.seen.Add(1)
		s.handle(rec.data, sink)
	}
}

// handle never panics: a record that breaks something is counted.
func (s *Sensor) handle(data []byte, sink sensor.Sink) {
	defer func() {
		if p := recover(); p != nil {
			s.malformed.Add(1)
			s.log.Error("eBPF record", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if kindOf(data) == kindConn {
		c, err := ParseConn(data)
		if err != nil {
			s.bad(err, event.CategoryNetwork, sink)
			return
		}
		s.conn(&c, sink)
		return
	}
	r, err := ParseRecord(data)
	if err != nil {
		s.bad(err, event.CategoryProcess, sink)
		return
	}
	key := process.Key{PID: int(r.PID), Start: process.Ticks(r.Start)}
	parent := process.Key{PID: int(r.PPID), Start: process.Ticks(r.ParentStart)}
	switch r.Kind {
	case kindFork:
		s.table.Fork(key, parent, r.UID)
		if _, ok := s.early.get(key); ok {
			s.table.Exit(key)
		}
		s.filtered.Add(1)
	case kindExec:
		proc, pp := s.exec(&r, key, parent, sink)
		if end, ok := s.early.get(key); ok {
			s.table.Exit(key)
			s.filtered.Add(^uint64(0)) // was counted when it came too early
			s.exit(&end, proc, pp, sink)
		}
	case kindExit:
		proc, pp, image, known := s.table.Exit(key)
		if !known || !image {
			s.early.put(key, r)
			s.filtered.Add(1)
			return
		}
		s.exit(&r, proc, pp, sink)
	}
}

func (s *Sensor) exit(r *Record, proc, parent event.Process, sink sensor.Sink) {
	s.emit(sink, event.Event{
		Time: s.table.Clock().Mono(r.Time), Class: event.ClassProcess, Action: event.ProcessTerminated,
		Process: proc, Initiating: parent, Additional: process.ExitStatus(r.ExitCode),
	}, 0)
}

func (s *Sensor) exec(r *Record, key, parent process.Key, sink sensor.Sink) (proc, pp event.Process) {
	file, name := r.image()
	p := event.Process{
		FolderPath: file, FileName: name, CommandLine: r.CommandLine, WorkingDir: r.Cwd,
		FileSize: int64(r.Size), UID: int64(r.UID), LoginUID: process.AuditID(r.LoginUID),
		SessionID: process.AuditID(r.SessionID), Terminal: process.TTYKernelName(r.TTY),
		ContainerID: process.ContainerID(r.Cgroup),
	}
	extra := make(map[string]string, 4)
	if r.Flags&(flagArgsUnreadable|flagArgsCut) != 0 {
		// Longer than the kernel side copies, or swapped out: /proc has it all
		// while the process lives.
		if full, st, err := s.table.Read(key.PID); err == nil && st.Start == key.Start && len(full.CommandLine) > len(p.CommandLine) {
			p.CommandLine = full.CommandLine
		}
		if n := int(r.ArgsTotal) - 1; n > len(p.CommandLine) {
			extra["CommandLineLength"] = strconv.Itoa(n)
		}
	}
	if p.CommandLine == "" {
		p.CommandLine = r.Filename
	}
	if r.Filename != file {
		extra["ExecFileName"] = r.Filename
	}
	if r.Flags&flagUnlinked != 0 {
		extra["ImageDeleted"] = "true"
	}
	if r.EUID != r.UID {
		extra["EffectiveUid"] = strconv.FormatUint(uint64(r.EUID), 10)
	}
	proc, pp = s.table.Exec(key, parent, p)
	if len(extra) == 0 {
		extra = nil
	}
	s.emit(sink, event.Event{
		Time: s.table.Clock().Mono(r.Time), Class: event.ClassProcess, Action: event.ProcessCreated,
		Process: proc, Initiating: pp, Additional: extra,
	}, r.Inode)
	return proc, pp
}

// States of a TCP socket (include/net/tcp_states.h).
const (
	tcpEstablished = 1
	tcpSynSent     = 2
	tcpSynRecv     = 3
	tcpClose       = 7
	tcpListen      = 10
)

func (s *Sensor) conn(c *Conn, sink sensor.Sink) {
	var action string
	switch {
	case c.New == tcpSynSent:
		action = event.ConnectionAttempt
	case c.Old == tcpSynSent && c.New == tcpEstablished:
		action = event.ConnectionSuccess
	case c.Old == tcpSynSent && c.New == tcpClose:
		action = event.ConnectionFailed
	case c.Old == tcpSynRecv && c.New == tcpEstablished:
		action = event.InboundConnectionAccepted
	case c.New == tcpListen:
		action = event.ListeningConnection
	default:
		s.filtered.Add(1)
		return
	}
	ev := event.Event{Time: s.table.Clock().Mono(c.Time), Class: event.ClassNetwork, Action: action}
	ev.Network = event.Network{
		LocalIP: c.Local.Addr().String(), LocalPort: int64(c.Local.Port()), Protocol: "Tcp",
	}
	if action != event.ListeningConnection {
		ev.Network.RemoteIP, ev.Network.RemotePort = c.Remote.Addr().String(), int64(c.Remote.Port())
	}
	if c.PID != 0 {
		start := s.table.Clock().Start(process.Ticks(c.Start))
		p, ok := s.table.Get(int64(c.PID), start)
		if !ok {
			p = event.Process{PID: int64(c.PID), StartTime: start, UID: -1, LoginUID: -1, SessionID: -1}
		}
		ev.Initiating = p
	}
	s.emit(sink, ev, 0)
}

func (s *Sensor) emit(sink sensor.Sink, ev event.Event, ino uint64) {
	s.delivered.Add(1)
	sink.Emit(ev, ino)
}

func (s *Sensor) bad(err error, class event.Category, sink sensor.Sink) {
	if s.malformed.Add(1) == 1 {
		s.log.Error("eBPF record cannot be decoded; further ones are only counted", "err", err)
	}
	sink.Lost(class, 1)
}

// watchCounters reports what the programs could not put into the buffer.
func (s *Sensor) watchCounters(ctx context.Context, coll *ebpf.Collection, sink sensor.Sink) {
	var last [kindMax]uint64
	var missed uint64
	look := func() {
		for kind := uint32(kindExec); kind < kindMax; kind++ {
			var perCPU []uint64
			if err := coll.Maps["lost"].Lookup(kind, &perCPU); err != nil {
				continue
			}
			var n uint64
			for _, v := range perCPU {
				n += v
			}
			if n > last[kind] {
				class := event.CategoryProcess
				if kind == kindConn {
					class = event.CategoryNetwork
				}
				s.lost.Add(n - last[kind])
				s.seen.Add(n - last[kind])
				sink.Lost(class, n-last[kind])
				last[kind] = n
			}
		}
		// Runs that the kernel skipped because the program was busy on that CPU.
		var now uint64
		for _, p := range programs {
			if info, err := coll.Programs[p.name].Stats(); err == nil {
				now += info.RecursionMisses
			}
		}
		if now > missed {
			s.lost.Add(now - missed)
			s.seen.Add(now - missed)
			sink.Lost(event.CategoryProcess, now-missed)
			missed = now
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			look()
			return
		case <-tick.C:
			look()
		}
	}
}
