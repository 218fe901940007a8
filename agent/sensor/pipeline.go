package sensor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strconv"
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

	mu      sync.Mutex
	classes map[event.Class]*classState
	failed  map[Sensor]time.Time
}

type item struct {
	ev   *event.Event
	ino  uint64
	size int64
}

type classState struct {
	source string // name of the running sensor, "" for none
	reason string // why better ones are not used
	events uint64
	lost   uint64
	told   uint64 // of lost, in EventsLost events
}

// ClassHealth says where the events of a class come from.
type ClassHealth struct {
	Class  event.Class
	Source string // empty: nobody delivers this class
	// Reason is why the sensors before Source could not be used.
	Reason string
	Events uint64 // delivered to OnEvent
	Lost   uint64
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
		p.classes = make(map[event.Class]*classState)
		p.failed = make(map[Sensor]time.Time)
		for _, s := range p.Sensors {
			for _, c := range s.Classes() {
				p.classes[c] = &classState{}
			}
		}
	})
}

// Ready is closed when every class has a running sensor, or none that works.
func (p *Pipeline) Ready() <-chan struct{} {
	p.init()
	return p.ready
}

// Health tells of each class where it comes from, in order of class.
func (p *Pipeline) Health() []ClassHealth {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []ClassHealth
	for c, s := range p.classes {
		out = append(out, ClassHealth{c, s.source, s.reason, s.events, s.lost})
	}
	slices.SortFunc(out, func(a, b ClassHealth) int { return int(a.Class) - int(b.Class) })
	return out
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

type ended struct {
	sensor Sensor
	err    error
}

// manage keeps every class covered by the best sensor that works.
func (p *Pipeline) manage(ctx context.Context, wg *sync.WaitGroup) {
	ends := make(chan ended, len(p.Sensors))
	running := make(map[Sensor][]event.Class)
	retry := time.NewTicker(retryInterval)
	defer retry.Stop()
	p.cover(ctx, wg, running, ends)
	close(p.ready)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-ends:
			p.release(running, e)
			p.cover(ctx, wg, running, ends)
		case <-retry.C:
			p.cover(ctx, wg, running, ends)
		}
	}
}

func (p *Pipeline) release(running map[Sensor][]event.Class, e ended) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range running[e.sensor] {
		p.classes[c].source = ""
	}
	delete(running, e.sensor)
	p.failed[e.sensor] = time.Now()
	p.Log.Error("sensor ended", "sensor", e.sensor.Name(), "err", e.err)
}

func (p *Pipeline) cover(ctx context.Context, wg *sync.WaitGroup, running map[Sensor][]event.Class, ends chan ended) {
	for _, s := range p.Sensors {
		if ctx.Err() != nil {
			return
		}
		if running[s] != nil || time.Since(p.failed[s]) < retryInterval {
			continue
		}
		var want []event.Class
		p.mu.Lock()
		for _, c := range s.Classes() {
			if p.classes[c].source == "" {
				want = append(want, c)
			}
		}
		p.mu.Unlock()
		if len(want) == 0 {
			continue
		}
		err := p.start(ctx, wg, s, want, ends)
		p.mu.Lock()
		for _, c := range want {
			if err != nil {
				p.classes[c].reason = fmt.Sprintf("%s: %v", s.Name(), err)
			} else {
				p.classes[c].source = s.Name()
				if s == p.Sensors[0] {
					p.classes[c].reason = ""
				}
			}
		}
		p.mu.Unlock()
		if err != nil {
			p.failed[s] = time.Now()
			p.Log.Warn("sensor cannot be used on this host", "sensor", s.Name(), "err", err)
			continue
		}
		running[s] = want
	}
}

// start starts s and waits until it is attached.
func (p *Pipeline) start(ctx context.Context, wg *sync.WaitGroup, s Sensor, want []event.Class, ends chan ended) error {
	ctx, cancel := context.WithCancel(ctx)
	attached := make(chan struct{})
	result := make(chan error, 1)
	sink := &pipeSink{p: p, ready: sync.OnceFunc(func() { close(attached) })}
	wg.Add(1)
	go func() {
		defer wg.Done()
		err := errors.New("panic, see the log")
		p.guard(s.Name(), func() { err = s.Run(ctx, want, sink) })
		if err == nil && ctx.Err() == nil {
			err = errors.New("ended by itself")
		}
		result <- err
	}()
	timer := time.NewTimer(readyTimeout)
	defer timer.Stop()
	select {
	case err := <-result:
		cancel()
		if err == nil {
			err = ctx.Err()
		}
		return err
	case <-timer.C:
		cancel()
		return fmt.Errorf("not attached after %s", readyTimeout)
	case <-attached:
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer cancel()
		if err := <-result; err != nil && ctx.Err() == nil {
			ends <- ended{s, err}
		}
	}()
	return nil
}

// pipeSink is what a sensor of the pipeline delivers to.
type pipeSink struct {
	p     *Pipeline
	ready func()
}

func (s *pipeSink) Ready() { s.ready() }

func (s *pipeSink) Lost(class event.Class, n uint64) { s.p.lost(class, n) }

func (s *pipeSink) Emit(ev event.Event, ino uint64) {
	p := s.p
	size := int64(1500 + len(ev.Process.CommandLine) + len(ev.Initiating.CommandLine))
	if p.queued.Add(size) > maxQueuedBytes {
		p.queued.Add(-size)
		p.lost(ev.Class, 1)
		return
	}
	select {
	case p.queue <- &item{&ev, ino, size}:
	default:
		p.queued.Add(-size)
		p.lost(ev.Class, 1)
	}
}

func (p *Pipeline) lost(class event.Class, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.classes[class]
	if c == nil {
		c = &classState{}
		p.classes[class] = c
	}
	c.lost += n
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
			p.reportLosses()
		case <-sensorsDone:
			for {
				select {
				case it := <-p.queue:
					p.handle(it)
				default:
					p.reportLosses()
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
	if muted {
		return
	}
	p.guard("enrichment", func() { p.hash(ev, it.ino) })
	p.mu.Lock()
	if c := p.classes[ev.Class]; c != nil {
		c.events++
	}
	p.mu.Unlock()
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

// reportLosses puts what was lost into the stream of events.
func (p *Pipeline) reportLosses() {
	p.mu.Lock()
	var evs []event.Event
	for class, c := range p.classes {
		if n := c.lost - c.told; n > 0 {
			c.told = c.lost
			evs = append(evs, event.Event{
				Time: time.Now().UTC(), Class: event.ClassDevice, Action: event.EventsLost,
				Additional: map[string]string{"Class": ClassName(class), "Count": strconv.FormatUint(n, 10), "Source": c.source},
			})
		}
	}
	p.mu.Unlock()
	for i := range evs {
		p.Log.Warn("events lost", "class", evs[i].Additional["Class"], "count", evs[i].Additional["Count"])
		if p.OnEvent != nil {
			p.guard("event callback", func() { p.OnEvent(&evs[i]) })
		}
	}
}

// ClassName is the hunting table of a class.
func ClassName(c event.Class) string {
	switch c {
	case event.ClassProcess:
		return "DeviceProcessEvents"
	case event.ClassFile:
		return "DeviceFileEvents"
	case event.ClassNetwork:
		return "DeviceNetworkEvents"
	case event.ClassLogon:
		return "DeviceLogonEvents"
	case event.ClassImageLoad:
		return "DeviceImageLoadEvents"
	case event.ClassDevice:
		return "DeviceEvents"
	}
	return "class " + strconv.Itoa(int(c))
}
