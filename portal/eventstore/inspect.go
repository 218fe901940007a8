package eventstore

import (
	"context"
	"sync"
	"time"
)

// Inspector is a store that tells administrators about itself.
type Inspector interface {
	// Inspect returns what could be found out also beside an error.
	Inspect(ctx context.Context) (Inspection, error)
}

// Inspection is what a store is and how it fares. Of times that are zero nothing is
// known.
type Inspection struct {
	// Kind is that of the store, Version that of its database, Location where it is,
	// without a password.
	Kind     string `json:"kind"`
	Version  string `json:"version,omitempty"`
	Location string `json:"location"`
	// Events is how many are stored, Bytes their size on disk; with replicas each
	// event counts once. Files are Parquet files.
	Events int64 `json:"events"`
	Bytes  int64 `json:"bytes"`
	Files  int64 `json:"files,omitempty"`
	// Oldest and Newest are when the oldest and the newest of them arrived.
	Oldest time.Time `json:"oldestArrival,omitzero"`
	Newest time.Time `json:"newestArrival,omitzero"`
	// RetentionHours is how long events are kept, MaxBytes how large they may become;
	// zero for no limit.
	RetentionHours float64 `json:"retentionHours,omitempty"`
	MaxBytes       int64   `json:"maxBytes,omitempty"`
	// Waiting batches of Queue, the most that may, are not being stored yet.
	Waiting int    `json:"batchesWaiting"`
	Queue   int    `json:"batchesMayWait"`
	Upkeep  Upkeep `json:"upkeep"`
	// Servers are those of a store on several.
	Servers []Server `json:"servers,omitempty"`
}

// Upkeep is what was done to keep a store in order since it was opened.
type Upkeep struct {
	// Succeeded is the end of the last pass that went well; Failed that of the last
	// one that did not, with its Error, when none went well since.
	Succeeded time.Time `json:"lastSuccess,omitzero"`
	Failed    time.Time `json:"lastFailure,omitzero"`
	Error     string    `json:"lastError,omitempty"`
	// Compacted is when files were joined last.
	Compacted time.Time `json:"lastCompaction,omitzero"`
	// ByAge and BySize are the last removals of events: because they were too old, and
	// because there were too many.
	ByAge  Removal `json:"removedByAge,omitzero"`
	BySize Removal `json:"removedBySize,omitzero"`
}

// Removal of events.
type Removal struct {
	At time.Time `json:"at"`
	// Before is a time from which on nothing was removed, by arrival.
	Before time.Time `json:"arrivedBefore"`
}

// Server is one that has events.
type Server struct {
	Address string `json:"address"`
	Version string `json:"version,omitempty"`
	// Shard and Replica are the server's names in its cluster; empty for one alone.
	Shard   string `json:"shard,omitempty"`
	Replica string `json:"replica,omitempty"`
	Events  int64  `json:"events"`
	Bytes   int64  `json:"bytes"`
	// Free is the room on its disk in bytes.
	Free int64 `json:"bytesFree,omitempty"`
	// Replicas of the Wanted ones of its tables are there, the fewest of any table.
	Replicas int64 `json:"replicas,omitempty"`
	Wanted   int64 `json:"replicasWanted,omitempty"`
	// ReadOnly are its tables that take nothing: they lost ZooKeeper or Keeper.
	ReadOnly int64 `json:"tablesReadOnly,omitempty"`
	// Queue is what its replicas have to fetch and to merge yet, DelaySeconds how far
	// the one that is furthest behind is.
	Queue        int64 `json:"replicationQueue"`
	DelaySeconds int64 `json:"replicationDelaySeconds"`
	// Error is why it does not answer, or the last one of its replication.
	Error string `json:"error,omitempty"`
	Up    bool   `json:"answers"`
}

// UpkeepRecord notes what a store does to keep itself in order. The zero one is
// empty. It is safe for concurrent use.
type UpkeepRecord struct {
	mu sync.Mutex
	u  Upkeep
}

// Passed notes the end of a pass of Maintain.
func (r *UpkeepRecord) Passed(at time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.u.Succeeded, r.u.Failed, r.u.Error = at, time.Time{}, ""
		return
	}
	r.u.Failed, r.u.Error = at, err.Error()
}

// Compacted notes that files were joined.
func (r *UpkeepRecord) Compacted(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.u.Compacted = at
}

// RemovedByAge notes that events which arrived before a time were too old.
func (r *UpkeepRecord) RemovedByAge(at, before time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.u.ByAge = Removal{at, before}
}

// RemovedBySize notes that events which arrived before a time were too many.
func (r *UpkeepRecord) RemovedBySize(at, before time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.u.BySize = Removal{at, before}
}

// Upkeep is what was noted.
func (r *UpkeepRecord) Upkeep() Upkeep {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.u
}
