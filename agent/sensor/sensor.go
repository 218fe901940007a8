// Package sensor turns what the kernel reports into events. Each source
// (eBPF, process connector, audit) is a Sensor; Pipeline runs the best one for
// each class of events, detects on what they deliver and hands it on.
//
// Loss is part of the interface: a sensor reports every event that it knows it
// missed, and every queue here is bounded and counts what it turns away.
package sensor

import (
	"context"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/event"
)

// Sink takes what a sensor sees. Its methods may be called from any goroutine,
// do not block and do not keep a reference to ev.
type Sink interface {
	// Ready says that the sensor is attached: what happens from now on is seen.
	Ready()
	// Emit delivers an event. image is the file of the executable of ev.Process as
	// far as the kernel told it.
	Emit(ev event.Event, image process.Image)
	// Lost reports n events of a category that the sensor could not deliver.
	Lost(category event.Category, n uint64)
}

// Sensor is one source of events.
type Sensor interface {
	// Name says in health what the source is, e.g. "ebpf".
	Name() string
	// Categories are what it can deliver.
	Categories() []event.Category
	// Run attaches, reports to the sink until ctx ends, and detaches. An error
	// before Ready means that this host cannot have it. only is the set of
	// categories that are wanted; the others come from another sensor.
	Run(ctx context.Context, only []event.Category, sink Sink) error
	// Stats are counters since Run began.
	Stats() Stats
}

// Stats of one sensor. Seen counts what the kernel side reported, Delivered
// what reached the sink, Malformed what could not be decoded; Seen = Delivered
// + Lost + Malformed + Filtered once the sensor is idle.
type Stats struct {
	Seen, Delivered, Lost, Malformed, Filtered uint64
}

// Counter is a sensor that keeps its Stats by category, too. The sums over the
// categories are those of Stats.
type Counter interface {
	Counts() map[event.Category]Stats
}

// Unavailable is a sensor that works and says which of its categories this host
// does not give it, and why. The pipeline looks for another source for them.
// It is asked once, after Ready.
type Unavailable interface {
	Unavailable() map[event.Category]error
}
