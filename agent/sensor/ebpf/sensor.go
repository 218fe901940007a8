// Package ebpf reports what processes do with CO-RE programs: processes and TCP
// connections from raw tracepoints; files, images, datagrams, access to other
// processes and to the kernel from the end of system calls; DNS from control
// group v2. It needs a kernel with BTF and the helpers of Linux 5.5; it pins
// nothing, so everything is gone when the process is.
//
// Filters are in the kernel: a file is reported as modified at its first write
// after an open, an image once for each program and user, a process's file
// events up to a rate. What they leave out is counted as filtered.
package ebpf

//go:generate bpf/build.sh ../sensor.bpfel.o

import (
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

//go:embed sensor.bpfel.o
var object []byte

// perfBuffer is the perf buffer per CPU in bytes, for kernels without ring
// buffer.
const perfBuffer = 512 << 10

// A record that wakes nobody (see wakeup in bpf/sensor.bpf.c) waits in the ring
// for the next one that does, or until the ring is looked at: lookInterval after
// the last record, then less and less often, up to idleInterval, to let a host at
// rest sleep.
const (
	lookInterval = 50 * time.Millisecond
	idleInterval = time.Second
)

// countInterval is how often it is asked, while records come, whether the
// programs lost any; idleCount, while none do.
const (
	countInterval = time.Second
	idleCount     = time.Minute
)

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

	// own reports the files of this process, too.
	own bool
	// ringBytes is the size of the ring buffer; 0: that in the object.
	ringBytes uint32

	lastNS     [7]uint32 // of namespaces, used by the reader only
	lastNSText string
	lastCaps   [2]capabilityText // used by the reader only

	kinds      [kindMax]counts
	complained atomic.Bool
	coll       atomic.Pointer[ebpf.Collection] // while it runs

	mu          sync.Mutex
	unavailable map[event.Category]error
	ended       kernelCounts    // of the runs that have ended
	missed      [kindMax]uint64 // runs of programs that the kernel skipped, in all runs
}

// capabilityText is how events show a set of capabilities.
type capabilityText struct {
	set  uint64
	text string
}

// counts of one kind of record. read is what came out of the buffer; derived
// are events that a record of another kind told of.
type counts struct {
	read, delivered, malformed, filtered, derived atomic.Uint64
}

// Option changes a Sensor.
type Option func(*Sensor)

// WithPerfBuffer uses the perf buffer also where the kernel has a ring buffer.
func WithPerfBuffer() Option { return func(s *Sensor) { s.forcePerf = true } }

// WithOwnFiles reports the files that this process itself writes, too. The
// agent leaves them out: to write down an event would make the next one.
func WithOwnFiles() Option { return func(s *Sensor) { s.own = true } }

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
	var out []event.Category
	for kind := uint32(kindExec); kind < kindMax; kind++ {
		if c := categoryOf(kind); !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// Unavailable implements sensor.Unavailable.
func (s *Sensor) Unavailable() map[event.Category]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.unavailable)
}

// read hands on what is in the buffer, and tells by came that something was.
func (s *Sensor) read(r recordReader, came chan<- struct{}, sink sensor.Sink) error {
	var rec sample
	for {
		if err := r.Read(&rec); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("ebpf: read events: %w", err)
		}
		select {
		case came <- struct{}{}:
		default:
		}
		if rec.lost > 0 {
			// Of the perf buffer; the programs' own counter has them by kind.
			continue
		}
		s.handle(rec.data, sink)
	}
}

// handle never panics: a record that breaks something is counted.
func (s *Sensor) handle(data []byte, sink sensor.Sink) {
	kind := kindOf(data)
	if kind >= kindMax {
		kind = 0
	}
	n := &s.kinds[kind]
	n.read.Add(1)
	defer func() {
		if p := recover(); p != nil {
			s.bad(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), kind, sink)
		}
	}()
	var err error
	switch kind {
	case kindExec, kindFork, kindExit:
		err = s.processRecord(data, sink)
	case kindConn, kindNet:
		var c Conn
		if c, err = ParseConn(data); err == nil {
			s.conn(&c, sink)
		}
	case kindDNS:
		var d DNS
		var ok bool
		if d, ok, err = ParseDNS(data); err == nil {
			s.dns(&d, ok, sink)
		}
	default:
		var a Activity
		if a, err = ParseActivity(data); err == nil {
			s.activity(&a, sink)
		}
	}
	if err != nil {
		s.bad(err, kind, sink)
	}
}

// emit delivers an event that a record of the kind told of.
func (s *Sensor) emit(sink sensor.Sink, kind uint32, ev event.Event, image process.Image) {
	if ev.Category() != categoryOf(kind) {
		// A second event of one record: it is counted in its own category.
		s.filtered(kind)
		for k := uint32(kindExec); k < kindMax; k++ {
			if categoryOf(k) == ev.Category() {
				kind = k
				break
			}
		}
		s.kinds[kind].derived.Add(1)
	}
	s.kinds[kind].delivered.Add(1)
	sink.Emit(ev, image)
}

// also is emit for an event that a record tells of besides its own.
func (s *Sensor) also(sink sensor.Sink, kind uint32, ev event.Event) {
	s.kinds[kind].derived.Add(1)
	s.kinds[kind].delivered.Add(1)
	sink.Emit(ev, process.Image{})
}

func (s *Sensor) filtered(kind uint32) { s.kinds[kind].filtered.Add(1) }

func (s *Sensor) bad(err error, kind uint32, sink sensor.Sink) {
	s.kinds[kind].malformed.Add(1)
	if s.complained.CompareAndSwap(false, true) {
		s.log.Error("eBPF record cannot be decoded; further ones are only counted", "kind", kind, "err", err)
	}
	sink.Lost(categoryOf(kind), 1)
}
