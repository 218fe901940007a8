// Package procfs reports processes without eBPF: from the kernel's process
// connector, which says who forked, executed and ended, with /proc for the
// details. Where the connector is missing too it compares /proc with what it
// knew, four times a second, and says that it cannot see shorter processes.
package procfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

// pollInterval of /proc, where there is no connector.
const pollInterval = 250 * time.Millisecond

// Sensor is the process connector, or polling.
type Sensor struct {
	table   *process.Table
	log     *slog.Logger
	polling bool

	seen, delivered, lost, malformed, filtered atomic.Uint64
}

// New makes the sensor that uses the process connector.
func New(table *process.Table, log *slog.Logger) *Sensor {
	return &Sensor{table: table, log: log}
}

// NewPolling makes the sensor that only compares /proc.
func NewPolling(table *process.Table, log *slog.Logger) *Sensor {
	return &Sensor{table: table, log: log, polling: true}
}

// Name implements sensor.Sensor.
func (s *Sensor) Name() string {
	if s.polling {
		return "proc-polling"
	}
	return "proc-connector"
}

// Categories implements sensor.Sensor.
func (s *Sensor) Categories() []event.Category {
	return []event.Category{event.CategoryProcess}
}

// Stats implements sensor.Sensor.
func (s *Sensor) Stats() sensor.Stats {
	return sensor.Stats{Seen: s.seen.Load(), Delivered: s.delivered.Load(), Lost: s.lost.Load(), Malformed: s.malformed.Load(), Filtered: s.filtered.Load()}
}

// Run implements sensor.Sensor.
func (s *Sensor) Run(ctx context.Context, _ []event.Category, sink sensor.Sink) error {
	if s.polling {
		return s.poll(ctx, sink)
	}
	c, err := openConnector()
	if err != nil {
		return err
	}
	defer c.close()
	if err := s.table.Seed(ctx); err != nil {
		return fmt.Errorf("process connector: %w", err)
	}
	sink.Ready()
	defer context.AfterFunc(ctx, c.wake)()

	buf := make([]byte, 64<<10)
	next := make(map[uint32]uint32) // by CPU
	for {
		n, err := c.read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed):
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("process connector: %w", err)
		case errors.Is(err, unix.ENOBUFS):
			// How many is seen from the gap in the next message of each CPU.
			continue
		case err != nil:
			return fmt.Errorf("process connector: %w", err)
		}
		err = ParseMessages(buf[:n], func(m Message) {
			if want, ok := next[m.CPU]; ok && m.Seq != want {
				if gap := m.Seq - want; gap < 1<<31 {
					s.seen.Add(uint64(gap))
					s.lost.Add(uint64(gap))
					sink.Lost(event.CategoryProcess, uint64(gap))
				}
			}
			if len(next) < 8192 {
				next[m.CPU] = m.Seq + 1
			}
			s.seen.Add(1)
			s.handle(m, sink)
		})
		if err != nil {
			s.seen.Add(1)
			if s.malformed.Add(1) == 1 {
				s.log.Error("process connector: further ones are only counted", "err", err)
			}
			sink.Lost(event.CategoryProcess, 1)
		}
	}
}

func (s *Sensor) handle(m Message, sink sensor.Sink) {
	defer func() {
		if p := recover(); p != nil {
			s.malformed.Add(1)
			s.log.Error("process connector message", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	switch {
	case m.TGID <= 0:
		s.malformed.Add(1)
	case m.What == procEventFork && m.PID == m.TGID:
		s.fork(m)
		s.filtered.Add(1)
	case m.What == procEventExec:
		s.exec(m.TGID, s.table.Clock().Mono(m.Time), sink)
	case m.What == procEventExit && m.PID == m.TGID:
		s.exit(m.TGID, s.table.Clock().Mono(m.Time), process.ExitStatus(m.Code), sink)
	default: // threads, user and session changes, ...
		s.filtered.Add(1)
	}
}

func (s *Sensor) fork(m Message) {
	st, err := s.table.Stat(m.TGID)
	var start uint64
	if err == nil {
		start = st.Start
	} else {
		// It ended already. It was forked at the time of the message.
		start = s.table.Clock().TicksOf(s.table.Clock().Mono(m.Time))
	}
	parent, ok := s.table.KeyOf(m.ParentID)
	if !ok {
		parent = process.Key{PID: m.ParentID}
	}
	s.table.ForkOf(process.Key{PID: m.TGID, Start: start}, parent)
}

func (s *Sensor) exec(pid int, at time.Time, sink sensor.Sink) {
	p, st, err := s.table.Read(pid)
	if err != nil {
		// It ended before we could look: that it ran a program is all we know,
		// with who its parent was.
		key, ok := s.table.KeyOf(pid)
		if !ok {
			s.lost.Add(1)
			sink.Lost(event.CategoryProcess, 1)
			return
		}
		old, _ := s.table.Lookup(pid)
		parent := process.Key{PID: int(old.ParentPID), Start: s.table.Clock().TicksOf(old.ParentStartTime)}
		old.FolderPath, old.FileName, old.CommandLine = "", "", ""
		proc, pp := s.table.Exec(key, parent, old)
		s.emit(sink, event.Event{Time: at, Class: event.ClassProcess, Action: event.ProcessCreated, Process: proc, Initiating: pp, Additional: incomplete()})
		return
	}
	parent, ok := s.table.KeyOf(st.PPID)
	if !ok {
		parent = process.Key{PID: st.PPID}
	}
	proc, pp := s.table.Exec(process.Key{PID: pid, Start: st.Start}, parent, p)
	ev := event.Event{Time: at, Class: event.ClassProcess, Action: event.ProcessCreated, Process: proc, Initiating: pp}
	if p.FolderPath == "" && !st.KernelThread {
		ev.Additional = incomplete() // a zombie has a name, but no program any more
	}
	s.emit(sink, ev)
}

func incomplete() map[string]string {
	return map[string]string{"Incomplete": "the process ended before it could be read"}
}

func (s *Sensor) exit(pid int, at time.Time, status map[string]string, sink sensor.Sink) {
	key, ok := s.table.KeyOf(pid)
	if !ok {
		s.filtered.Add(1)
		return
	}
	proc, pp, image, known := s.table.Exit(key)
	if !known || !image {
		s.filtered.Add(1)
		return
	}
	s.emit(sink, event.Event{Time: at, Class: event.ClassProcess, Action: event.ProcessTerminated, Process: proc, Initiating: pp, Additional: status})
}

func (s *Sensor) emit(sink sensor.Sink, ev event.Event) {
	s.delivered.Add(1)
	sink.Emit(ev, process.Image{})
}

// poll compares /proc with the table.
func (s *Sensor) poll(ctx context.Context, sink sensor.Sink) error {
	if err := s.table.Seed(ctx); err != nil {
		return fmt.Errorf("proc polling: %w", err)
	}
	sink.Ready()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.compare(ctx, sink); err != nil {
				return fmt.Errorf("proc polling: %w", err)
			}
		}
	}
}

func (s *Sensor) compare(ctx context.Context, sink sensor.Sink) error {
	pids, err := s.table.Running()
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	running := make(map[int]bool, len(pids))
	for _, pid := range pids {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to end: no failure of the sensor
		}
		running[pid] = true
		if s.table.Current(pid) {
			continue
		}
		s.seen.Add(1)
		s.exec(pid, now, sink)
	}
	for _, pid := range s.table.LivePIDs() {
		if !running[pid] {
			s.seen.Add(1)
			s.exit(pid, now, nil, sink)
		}
	}
	return nil
}
