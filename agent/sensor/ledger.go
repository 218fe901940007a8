package sensor

import (
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// Ledger follows the events of one category from the kernel to OnEvent. When
// nothing is on its way
//
//	Seen = KernelLost + Malformed + Filtered + Received
//	Received = QueueDropped + Muted + Passed
//
// and Unknown is zero.
type Ledger struct {
	// Seen is what the kernel side of the sensor made, KernelLost what did not
	// fit into its buffer, Malformed what could not be decoded, Filtered what was
	// decoded and is no event of its own (a fork, a repetition).
	Seen, KernelLost, Malformed, Filtered uint64
	// Received is what the pipeline got, QueueDropped what found its queue full,
	// Muted what an exclusion covers, Passed what OnEvent got.
	Received, QueueDropped, Muted, Passed uint64
}

// Lost is what was dropped for want of room, or could not be read.
func (l Ledger) Lost() uint64 { return l.KernelLost + l.Malformed + l.QueueDropped }

// Unknown is what is on its way, or unaccounted for.
func (l Ledger) Unknown() int64 {
	return int64(l.Seen-l.KernelLost-l.Malformed-l.Filtered-l.Received) + int64(l.Received-l.QueueDropped-l.Muted-l.Passed)
}

// CategoryHealth says where the events of a category come from.
type CategoryHealth struct {
	Category event.Category
	Source   string // empty: nobody delivers it
	// Reason is why the sensors before Source could not be used.
	Reason string
	Events uint64  // delivered to OnEvent
	Lost   uint64  // since the start
	Rate   float64 // events per second, of the last seconds
	// RecentlyLost is Lost of the last minutes.
	RecentlyLost uint64
	Ledger       Ledger
}

// account is what the pipeline knows of a category.
type account struct {
	source string // name of the running sensor, "" for none
	sensor Sensor
	reason string // why better ones are not used
	// reported are losses by the sensors' word; queueDropped by the pipeline.
	received, reported, queueDropped, muted, passed uint64

	told       uint64 // losses that are in EventsLost events
	rate       float64
	ratePassed uint64
	rateAt     time.Time
	recent     [recentSlots]uint64 // losses by minute
	recentAt   int64               // the minute of the newest slot
}

// recentSlots is how many minutes a loss is recent.
const recentSlots = 10

func (a *account) lost() uint64 { return a.reported + a.queueDropped }

// account is called with p.mu held, or before anything runs.
func (p *Pipeline) account(c event.Category) *account {
	a := p.accounts[c]
	if a == nil {
		a = &account{}
		p.accounts[c] = a
	}
	return a
}

// Health tells of each category where it comes from, in their order. A category
// that no sensor of this program has is listed without source.
func (p *Pipeline) Health() []CategoryHealth {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := make(map[Sensor]map[event.Category]Stats)
	var out []CategoryHealth
	for _, c := range event.Categories() {
		a := p.accounts[c]
		if a == nil {
			continue
		}
		a.forget(time.Now())
		h := CategoryHealth{Category: c, Source: a.source, Reason: a.reason, Events: a.passed, Lost: a.lost(), Rate: a.rate}
		for _, n := range a.recent {
			h.RecentlyLost += n
		}
		h.Ledger = Ledger{
			Seen: a.received + a.reported, KernelLost: a.reported,
			Received: a.received, QueueDropped: a.queueDropped, Muted: a.muted, Passed: a.passed,
		}
		if counter, ok := a.sensor.(Counter); ok {
			of := counts[a.sensor]
			if of == nil {
				of = counter.Counts()
				counts[a.sensor] = of
			}
			st := of[c]
			// What another sensor delivered before this one is not in its counts.
			if st.Delivered <= a.received {
				earlier := a.received - st.Delivered
				h.Ledger.Seen, h.Ledger.KernelLost = st.Seen+earlier, st.Lost
				h.Ledger.Malformed, h.Ledger.Filtered = st.Malformed, st.Filtered
			}
		}
		out = append(out, h)
	}
	return out
}

func (p *Pipeline) lost(category event.Category, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.account(category)
	a.reported += n
	a.remember(time.Now(), n)
}

// dropped counts an event that the queue has no room for.
func (p *Pipeline) dropped(category event.Category) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.account(category)
	a.received++
	a.queueDropped++
	a.remember(time.Now(), 1)
}

func (a *account) remember(now time.Time, n uint64) {
	a.forget(now)
	a.recent[a.recentAt%recentSlots] += n
}

// forget clears the minutes that have passed since the last look.
func (a *account) forget(now time.Time) {
	minute := now.Unix() / 60
	if a.recentAt == 0 || minute-a.recentAt > recentSlots || minute < a.recentAt {
		a.recent, a.recentAt = [recentSlots]uint64{}, minute
	}
	for a.recentAt < minute {
		a.recentAt++
		a.recent[a.recentAt%recentSlots] = 0
	}
}

// settle measures the rates and puts what was lost into the stream of events.
func (p *Pipeline) settle(now time.Time) {
	p.mu.Lock()
	var evs []event.Event
	for _, category := range event.Categories() {
		a := p.accounts[category]
		if a == nil {
			continue
		}
		if d := now.Sub(a.rateAt).Seconds(); !a.rateAt.IsZero() && d > 0 {
			a.rate = float64(a.passed-a.ratePassed) / d
		}
		a.rateAt, a.ratePassed = now, a.passed
		if n := a.lost() - a.told; n > 0 {
			a.told = a.lost()
			evs = append(evs, event.Event{
				Time: now.UTC(), Class: event.ClassDevice, Action: event.EventsLost,
				Additional: map[string]string{
					"Class": category.Class().TableName(), "Category": string(category),
					"Count": strconv.FormatUint(n, 10), "Source": a.source,
				},
			})
		}
	}
	p.mu.Unlock()
	for i := range evs {
		p.Log.Warn("events lost", "category", evs[i].Additional["Category"], "count", evs[i].Additional["Count"])
		if p.OnEvent != nil {
			p.guard("event callback", func() { p.OnEvent(&evs[i]) })
		}
	}
}
