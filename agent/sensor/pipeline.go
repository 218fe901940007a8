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
	maxQueuedBytes  = 24 << 20 // of the events in the queue
	maxReadingBytes = 8 << 20  // of those whose files are to be read
	defaultHashWait = 200 * time.Millisecond
	lossInterval    = 5 * time.Second
	readyTimeout    = time.Minute // the verifier of a slow kernel
	retryInterval   = time.Minute // after the first failure
	retryLimit      = 2 * time.Hour
	blindLimit      = 5 * time.Minute // for a sensor that worked and whose categories have no other
)

// Pipeline runs the sensors and passes on what they see: each event gets its
// hashes, then goes to OnEvent, then through the behaviour rules, and alerts to
// OnAlert. The callbacks are called from one goroutine, in order; events whose
// file is read (created, written) come half a second after the others. Set the
// members before Run and do not change them afterwards.
type Pipeline struct {
	// Sensors in order of preference. For each class the first that works is
	// used.
	Sensors []Sensor
	Table   *process.Table
	Hasher  *process.Hasher // nil: events have no hashes
	// Packages and Containers complete processes; nil: they do not.
	Packages   *process.Packages
	Containers *process.Containers
	Detect     *detect.Engine // nil: no alerts
	// OnEvent gets each event once, and keeps no reference to it. It may set
	// ReportID, which the alert's copy of the event then has too.
	OnEvent func(*event.Event)
	// Muted says that an event is excluded: it goes to nobody. Nil: none is.
	Muted   func(*event.Event) bool
	OnAlert func(event.Alert)
	// OnBehavior gets what rules of the level informational recognise; like
	// OnEvent it may set ReportID.
	OnBehavior func(*event.Event)
	Log        *slog.Logger
	// Queue is how many events may wait; 8192. HashWait is how long an event
	// waits for the hashes of a program that was not seen before; 200 ms, less
	// when many wait.
	Queue    int
	HashWait time.Duration

	once   sync.Once
	inbox  *inbox
	panics atomic.Uint64
	ready  chan struct{}
	// files are events whose files are to be read, enriched those that were. They
	// have room of their own, reading in bytes: they wait for long, and must not
	// take that of the others.
	files    chan *item
	enriched chan *item
	reading  int64 // used by work only

	mu       sync.Mutex
	accounts map[event.Category]*account
	failed   map[Sensor]failure
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
		p.inbox = newInbox(p.Queue)
		p.ready = make(chan struct{})
		p.files, p.enriched = make(chan *item, fileQueue), make(chan *item, 64)
		p.accounts = make(map[event.Category]*account)
		p.failed = make(map[Sensor]failure)
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
	return PipelineStats{int(p.inbox.count.Load()), p.panics.Load()}
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

func (s *pipeSink) Emit(ev event.Event, image process.Image) {
	if !s.p.inbox.put(&ev, image) {
		s.p.dropped(ev.Category())
	}
}

// While events come all the time, which is so when the last ones came less than
// busyInterval ago, they are looked at every pause only.
const (
	busyInterval = 20 * time.Millisecond
	pause        = 2 * time.Millisecond
)

// work passes events on until the sensors have ended and the queues are empty.
func (p *Pipeline) work(sensorsDone <-chan struct{}) {
	losses := time.NewTicker(lossInterval)
	defer losses.Stop()
	hurry := make(chan struct{})
	go p.enrichFiles(hurry)
	wake := p.inbox.wake
	var last time.Time
	over := time.NewTimer(time.Hour)
	defer over.Stop()
	for sensorsDone != nil {
		select {
		case <-wake:
			p.handleAll(losses.C)
			now := time.Now()
			if now.Sub(last) < busyInterval {
				wake = nil
				over.Reset(pause)
			}
			last = now
		case <-over.C:
			wake = p.inbox.wake
		case it := <-p.enriched:
			p.passRead(it)
		case <-losses.C:
			p.settle(time.Now())
		case <-sensorsDone:
			sensorsDone = nil
		}
	}
	p.handleAll(losses.C)
	close(hurry)
	close(p.files)
	for it := range p.enriched {
		p.passRead(it)
	}
	p.settle(time.Now())
}

// handleAll handles what waits. That may take minutes when each event waits for
// hashes, so that what else is due is done between the events.
func (p *Pipeline) handleAll(losses <-chan time.Time) {
	p.inbox.take(func(it *item) {
		size := it.size
		if p.handle(it) {
			p.inbox.reuse(it)
		}
		p.inbox.done(size)
		for more := true; more; {
			select {
			case it := <-p.enriched:
				p.passRead(it)
			default:
				more = false
			}
		}
		select {
		case <-losses:
			p.settle(time.Now())
		default:
		}
	})
}

// passRead passes on an event whose file was read.
func (p *Pipeline) passRead(it *item) {
	p.reading -= it.size
	p.pass(&it.ev)
	p.inbox.reuse(it)
}

// handle completes an event and passes it on. It reports whether that was all:
// the item is not done when its file is to be read.
func (p *Pipeline) handle(it *item) bool {
	ev := &it.ev
	muted := false
	if p.Muted != nil {
		p.guard("exclusions", func() { muted = p.Muted(ev) })
	}
	if muted {
		p.mu.Lock()
		a := p.account(ev.Category())
		a.received++
		a.muted++
		p.mu.Unlock()
		return true
	}
	p.guard("enrichment", func() { p.complete(ev, it.image) })
	if _, reads := readsFile(ev); reads && (p.Hasher != nil || p.Packages != nil) && p.reading+it.size <= maxReadingBytes {
		select {
		case p.files <- it:
			p.reading += it.size
			return false
		default: // without what the file says rather than late
		}
	}
	p.pass(ev)
	return true
}

// pass passes a complete event on.
func (p *Pipeline) pass(ev *event.Event) {
	p.mu.Lock()
	a := p.account(ev.Category())
	a.received++
	a.passed++
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
		o := m.Outcome(ev, ancestry)
		if o.Behavior {
			p.behavior(m, o, ev, ancestry)
		}
		if o.Alert {
			p.alert(m, ev, ancestry)
		}
	}
}

func (p *Pipeline) alert(m detect.Match, ev *event.Event, ancestry []event.Process) {
	alert, report := p.Detect.Alert(m, ev, ancestry)
	if report && p.OnAlert != nil {
		p.OnAlert(alert)
	}
}

// behavior records what a rule recognised and nobody need be woken for. Rules
// about behaviours see it also when it is not recorded because it repeats.
func (p *Pipeline) behavior(m detect.Match, o detect.Outcome, ev *event.Event, ancestry []event.Process) {
	b, record := p.Detect.Behavior(m, o, ev, ancestry)
	if record && p.OnBehavior != nil {
		p.OnBehavior(&b)
	}
	for _, m := range p.Detect.Evaluate(&b) {
		switch o := m.Outcome(&b, ancestry); {
		case o.Alert: // a behaviour of it would feed itself
			p.alert(m, &b, ancestry)
		case o.RecordOnly:
			// Nobody looks at it again, for the same reason.
			if b, record := p.Detect.Behavior(m, o, &b, ancestry); record && p.OnBehavior != nil {
				p.OnBehavior(&b)
			}
		}
	}
}
