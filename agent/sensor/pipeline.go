package sensor

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/event"
)

// Defaults and limits of a Pipeline.
const (
	defaultQueue    = 8192
	maxQueuedBytes  = 32 << 20 // of the events that wait
	defaultHashWait = 200 * time.Millisecond
	lossInterval    = 5 * time.Second
	readyTimeout    = 30 * time.Second
	retryInterval   = time.Minute
)

// Pipeline runs the sensors and passes on what they see: each event gets its
// hashes, then goes to OnEvent, then through the behaviour rules, and alerts to
// OnAlert. The callbacks are called from one goroutine, in order. Set the
// members before Run and do not change them afterwards.
type Pipeline struct {
	// Sensors in order of preference. For each class the first that works is
	// used.
	Sensors []Sensor
	Table   *process.Table
	Hasher  *process.Hasher // nil: events have no hashes
	Detect  *detect.Engine  // nil: no alerts
	// OnEvent gets each event once. It may set ReportID, which the alert's copy
	// of the event then has too.
	OnEvent func(*event.Event)
	// Muted says that an event is excluded: it goes to nobody. Nil: none is.
	Muted   func(*event.Event) bool
	OnAlert func(event.Alert)
	Log     *slog.Logger
	// Queue is how many events may wait; 8192. HashWait is how long an event
	// waits for the hashes of a program that was not seen before; 200 ms, less
	// when many wait.
	Queue    int
	HashWait time.Duration

	once   sync.Once
	queue  chan *item
	queued atomic.Int64 // bytes
	panics atomic.Uint64
	ready  chan struct{}

	mu       sync.Mutex
	accounts map[event.Category]*account
	failed   map[Sensor]time.Time
}

type item struct {
	ev   *event.Event
	ino  uint64
	size int64
}

// PipelineStats of the whole.
type PipelineStats struct {
	Queued int
	Panics uint64
}

func (p *Pipeline) init() {
	p.once.Do(func() {
		if p.Queue == 0 {
			p.Queue = defaultQueue
		}
		if p.HashWait == 0 {
			p.HashWait = defaultHashWait
		}
		if p.Log == nil {
			p.Log = slog.New(slog.DiscardHandler)
		}
		p.queue = make(chan *item, p.Queue)
		p.ready = make(chan struct{})
		p.accounts = make(map[event.Category]*account)
		p.failed = make(map[Sensor]time.Time)
		for _, s := range p.Sensors {
			for _, c := range s.Categories() {
				p.account(c)
			}
		}
	})
}

// Ready is closed when every class has a running sensor, or none that works.
func (p *Pipeline) Ready() <-chan struct{} {
	p.init()
	return p.ready
}

// Stats tells how full the queue is and how many panics were caught.
func (p *Pipeline) Stats() PipelineStats {
	p.init()
	return PipelineStats{len(p.queue), p.panics.Load()}
}

// Run runs until ctx ends; what the sensors delivered by then is passed on
// before it returns.
func (p *Pipeline) Run(ctx context.Context) error {
	p.init()
	if p.Table == nil || len(p.Sensors) == 0 {
		return errors.New("sensor pipeline: needs a process table and sensors")
	}
	var wg sync.WaitGroup
	if p.Hasher != nil {
		hashCtx, stop := context.WithCancel(context.Background())
		defer stop()
		go p.guard("hasher", func() { p.Hasher.Run(hashCtx) })
	}
	workDone := make(chan struct{})
	sensorsDone := make(chan struct{})
	go func() {
		defer close(workDone)
		p.work(sensorsDone)
	}()
	p.manage(ctx, &wg)
	wg.Wait()
	close(sensorsDone)
	<-workDone
	return nil
}

// guard keeps a panic from leaving a goroutine.
func (p *Pipeline) guard(what string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			p.panics.Add(1)
			p.Log.Error("panic caught", "in", what, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// pipeSink is what a sensor of the pipeline delivers to.
type pipeSink struct {
	p     *Pipeline
	ready func()
}

func (s *pipeSink) Ready() { s.ready() }

func (s *pipeSink) Lost(category event.Category, n uint64) { s.p.lost(category, n) }

func (s *pipeSink) Emit(ev event.Event, ino uint64) {
	p := s.p
	size := int64(1500 + len(ev.Process.CommandLine) + len(ev.Initiating.CommandLine))
	if p.queued.Add(size) > maxQueuedBytes {
		p.queued.Add(-size)
		p.dropped(ev.Category())
		return
	}
	select {
	case p.queue <- &item{&ev, ino, size}:
	default:
		p.queued.Add(-size)
		p.dropped(ev.Category())
	}
}

// work passes events on until the sensors have ended and the queue is empty.
func (p *Pipeline) work(sensorsDone <-chan struct{}) {
	losses := time.NewTicker(lossInterval)
	defer losses.Stop()
	for {
		select {
		case it := <-p.queue:
			p.handle(it)
		case <-losses.C:
			p.settle(time.Now())
		case <-sensorsDone:
			for {
				select {
				case it := <-p.queue:
					p.handle(it)
				default:
					p.settle(time.Now())
					return
				}
			}
		}
	}
}

func (p *Pipeline) handle(it *item) {
	p.queued.Add(-it.size)
	ev := it.ev
	muted := false
	if p.Muted != nil {
		p.guard("exclusions", func() { muted = p.Muted(ev) })
	}
	p.mu.Lock()
	a := p.account(ev.Category())
	a.received++
	if muted {
		a.muted++
	} else {
		a.passed++
	}
	p.mu.Unlock()
	if muted {
		return
	}
	p.guard("enrichment", func() { p.hash(ev, it.ino) })
	if p.OnEvent != nil {
		p.guard("event callback", func() { p.OnEvent(ev) })
	}
	if p.Detect != nil {
		p.guard("detection", func() { p.detect(ev) })
	}
}

func (p *Pipeline) detect(ev *event.Event) {
	matches := p.Detect.Evaluate(ev)
	if len(matches) == 0 {
		return
	}
	subject := ev.Process
	if ev.Class != event.ClassProcess {
		subject = ev.Initiating
	}
	ancestry := p.Table.AncestryOf(subject)
	for _, m := range matches {
		alert, report := p.Detect.Alert(m, ev, ancestry)
		if report && p.OnAlert != nil {
			p.OnAlert(alert)
		}
	}
}

// hash completes the hashes of the processes of ev.
func (p *Pipeline) hash(ev *event.Event, ino uint64) {
	if p.Hasher == nil {
		return
	}
	wait := p.HashWait
	if len(p.queue) > p.Queue/4 {
		wait = 0 // catching up is more important
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if ev.Action == event.ProcessCreated {
		p.hashProcess(ctx, &ev.Process, ino)
	}
	p.hashProcess(ctx, &ev.Initiating, 0)
}

func (p *Pipeline) hashProcess(ctx context.Context, proc *event.Process, ino uint64) {
	if proc.FolderPath == "" || proc.SHA256 != "" {
		return
	}
	if known, ok := p.Table.Get(proc.PID, proc.StartTime); ok && known.FolderPath == proc.FolderPath && known.SHA256 != "" {
		proc.MD5, proc.SHA1, proc.SHA256, proc.FileSize = known.MD5, known.SHA1, known.SHA256, known.FileSize
		return
	}
	h, err := p.Hasher.Executable(ctx, *proc, ino)
	if err != nil || h.SHA256 == "" {
		return // counted by the hasher
	}
	proc.MD5, proc.SHA1, proc.SHA256, proc.FileSize = h.MD5, h.SHA1, h.SHA256, h.Size
	p.Table.SetHashes(*proc, h)
}
