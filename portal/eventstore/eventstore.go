// Package eventstore says what the portal asks of the store that keeps the
// events of all devices. Two kinds exist: the embedded one (package duckdb)
// and, for large fleets, a cluster. The suite in eventstoretest holds for all.
//
// Hunting reads the same tables through SQL that the query planner makes; it
// will add its own interface beside Store, on the same tables.
package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// ErrBusy is returned (wrapped) when the store cannot take more now.
var ErrBusy = errors.New("the event store is busy")

// Batch is one delivery of a device.
type Batch struct {
	DeviceID   string
	DeviceName string
	SpoolID    string
	// Sequence grows within a spool; a batch whose sequence is not above the
	// highest stored one is a repetition and is not stored again.
	Sequence uint64
	// Events may be reused by the caller after Append returned. One without a time
	// is stored with Received.
	Events []event.Event
	// Lost counts what the agent dropped since the previous batch, by class.
	Lost     map[string]uint64
	Received time.Time
}

// Store keeps events. Implementations are safe for concurrent use.
type Store interface {
	// Append stores a batch, all of it and durably when it returns nil, once
	// however often it comes.
	Append(ctx context.Context, b *Batch) error
	// Stored returns the highest sequence that is stored of a device's spool,
	// zero for none.
	Stored(ctx context.Context, deviceID, spoolID string) (uint64, error)
	// Timeline returns the events of a device, newest first.
	Timeline(ctx context.Context, q TimelineQuery) ([]Row, error)
	// Lost returns how many events a device lost since the given time, by class.
	Lost(ctx context.Context, deviceID string, since time.Time) (map[string]uint64, error)
	// Receipts returns the ledger of a device since the portal knows it, by class:
	// what is in every event's table once, or was when it came.
	Receipts(ctx context.Context, deviceID string) (map[string]Receipt, error)
	// Stats returns sizes for the metrics.
	Stats(ctx context.Context) (Stats, error)
	Close() error
}

// Receipt is the portal's side of the ledger of one class of a device's events.
// What the agent has as delivered is Stored here, and what it dropped is Lost, as
// soon as the batch is acknowledged; a batch that came twice counts once.
type Receipt struct{ Stored, Lost uint64 }

// Plus is the sum. What a device says that it lost may be anything: the sum ends
// at the largest number.
func (r Receipt) Plus(o Receipt) Receipt {
	return Receipt{plus(r.Stored, o.Stored), plus(r.Lost, o.Lost)}
}

func plus(a, b uint64) uint64 {
	return a + min(b, math.MaxUint64-a)
}

// LossClass is the name under which a loss is counted: that of a class, "alert",
// or "other" for anything else that a device says, which could otherwise make any
// number of counters.
func LossClass(name string) string {
	if name == "alert" {
		return name
	}
	for c := event.ClassProcess; c.String() != event.ClassUnknown.String(); c++ {
		if c.String() == name {
			return name
		}
	}
	return "other"
}

// Losses is Lost by the names of LossClass.
func (b *Batch) Losses() map[string]uint64 {
	out := make(map[string]uint64, len(b.Lost))
	for name, n := range b.Lost {
		class := LossClass(name)
		out[class] = plus(out[class], n)
	}
	return out
}

// Classes counts the events of a batch by class.
func (b *Batch) Classes() map[string]uint64 {
	out := map[string]uint64{}
	for i := range b.Events {
		out[b.Events[i].Class.String()]++
	}
	return out
}

// Receipts makes the receipts of a batch.
func (b *Batch) Receipts() map[string]Receipt {
	out := map[string]Receipt{}
	for class, n := range b.Classes() {
		out[class] = Receipt{Stored: n}
	}
	for class, n := range b.Losses() {
		out[class] = out[class].Plus(Receipt{Lost: n})
	}
	return out
}

// Cursor is a position in a timeline: the last row that was read.
type Cursor struct {
	Time     time.Time
	ReportID int64
}

// TimelineQuery asks for events of one device.
type TimelineQuery struct {
	DeviceID string
	// Since and Until bound the time: [Since, Until); zero is open.
	Since, Until time.Time
	// After continues behind the given row; nil for the newest.
	After *Cursor
	// Before gives the rows directly before the given row instead, that is the
	// oldest of those that are newer; they too come newest first.
	Before *Cursor
	// Tables are the hunting tables to read; none for all.
	Tables []string
	// Text must occur, without regard to case, in a file name or path, a
	// command line, an account, an address or the action.
	Text  string
	Limit int // 1 to MaxTimeline
}

// MaxTimeline is the most rows that one TimelineQuery returns.
const MaxTimeline = 1000

// Check reports what is wrong with the query.
func (q TimelineQuery) Check() error {
	if q.DeviceID == "" {
		return errors.New("timeline: no device")
	}
	if q.Limit < 1 || q.Limit > MaxTimeline {
		return fmt.Errorf("timeline: limit %d is not within 1 to %d", q.Limit, MaxTimeline)
	}
	if q.After != nil && q.Before != nil {
		return errors.New("timeline: rows are wanted after a row or before one, not both")
	}
	if len(q.Text) > 512 {
		return errors.New("timeline: the search text is longer than 512 bytes")
	}
	names := TableNames()
	for _, t := range q.Tables {
		if !slices.Contains(names, t) {
			return fmt.Errorf("timeline: there is no table %.64q", t)
		}
	}
	return nil
}

// TableNames returns the hunting tables of events.
func TableNames() []string {
	tables := event.Tables()
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Name
	}
	return names
}

// Row is one event of a timeline, the columns that a person reads.
type Row struct {
	Time        time.Time
	Table       string
	Action      string
	ReportID    int64
	FileName    string
	FolderPath  string
	SHA256      string
	ProcessID   int64
	CommandLine string
	Account     string
	RemoteIP    string
	RemotePort  int64
	RemoteURL   string
	LocalIP     string
	LocalPort   int64
	Protocol    string
	LogonType   string
	Failure     string
	// The process that did it.
	InitiatingFileName    string
	InitiatingFolderPath  string
	InitiatingID          int64
	InitiatingCommandLine string
	InitiatingAccount     string
	// Additional is the AdditionalFields column, a JSON object or empty.
	Additional string
}

// Stats are the sizes of the store.
type Stats struct {
	// Hot is the number of events in the database, Archived of those in
	// Segments Parquet files of ArchivedBytes. HotBytes is what the database has on
	// disk, zero where it does not say.
	Hot           int64
	HotBytes      int64
	Archived      int64
	Segments      int64
	ArchivedBytes int64
}
