// Package clickhouse is the event store for large fleets: a ClickHouse server or a
// cluster of them with shards and replicas. Several portals may use one.
//
// # Once, and all of it
//
// A batch has rows in several tables, and ClickHouse changes one table at a time.
// So batches are written in groups, and each row of a group has its number:
//
//  1. The batches of the group go into the table intents.
//  2. Whoever else is about to write one of them, or did, is found there and in
//     deliveries: then this group is given up and begins anew without them.
//  3. The events go into their tables.
//  4. The batches go into the table deliveries, as one block of one partition,
//     which is stored whole or not at all. Now they are acknowledged.
//  5. The group goes into the table confirmed: now it counts for other portals too.
//     When that fails it does so when it is older than certainAge, and nothing else
//     is recorded about it.
//
// Whatever fails on the way ends with the number of the group in the table aborted,
// and so does what has an unknown outcome, unless it is found in deliveries. Rows of
// such groups do not count and no reader sees them, also when a server brings them
// back later; the batches are written again with another number, elsewhere.
//
// # Portals that die
//
// A portal that dies leaves a group without an end. Where there is a Registry, the
// intents name their writer, and whoever is given a batch of theirs again asks
// whether that one lives. Of one that is dead, the group counts when it is in
// deliveries, and else is aborted. Each such verdict is recorded in the registry
// first, where the first one holds, also about groups that are to count because they
// are old. A portal acknowledges only when the registry
// confirms, after its deliveries are stored, that it was not taken for dead.
//
// Without a registry, and for groups of writers that it does not know, time decides:
// such a group is aborted when it is older than orphanAge. The deliveries of a group
// older than groupAge are not written any more, and nobody gives up one that has
// them. A portal that finds that it wrote them later, because it stood still in
// between, looks whether the group was given up before it acknowledges.
//
// # Clusters
//
// Each group goes to one shard; groups go to the servers in turn. An insert returns
// when all replicas of the shard have it (insert_quorum), so that any replica of each
// shard answers reads, and what is acknowledged outlives the loss of a server. A
// shard that lacks one takes nothing until it is back; the others do.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/portal/batching"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// Limits of the writer.
const (
	queueLength   = 8192
	groupBatches  = 2000
	groupEvents   = 100_000
	queuePatience = 5 * time.Second
	// insertTime is how long one insert may take, quorumTime how long it waits for
	// the other replicas, busyTime for another portal that writes to the table.
	insertTime = 30 * time.Second
	quorumTime = 10 * time.Second
	busyTime   = 5 * time.Second
	// groupAge is how old a group may be when its deliveries are written, orphanAge
	// how old one without them must be that another portal aborts. Between them lies
	// what the clocks of the servers may differ by.
	groupAge  = 3 * time.Minute
	orphanAge = 15 * time.Minute
	// certainAge is how old a group of deliveries must be that may count without being
	// confirmed: who wrote it no longer writes, and nobody gives it up yet.
	certainAge = 9 * time.Minute
	// settleAge is how old a group may be whose writer finds out what became of it:
	// far older than orphanAge, far younger than keepDays.
	settleAge = 24 * time.Hour
	// groupBits are the random bits of a group's number, below its time.
	groupBits = 22
	// maxMarks bounds the spools whose highest sequence is kept in memory.
	maxMarks = 1_000_000
)

// Store is an open event store.
type Store struct {
	cfg    Config
	client *client
	tables []*eventTable
	byName map[string]*eventTable
	queue  *batching.Queue[*eventstore.Batch]
	upkeep eventstore.UpkeepRecord

	mu    sync.Mutex
	marks map[spool]uint64

	// What follows belongs to the writer: the groups that must be settled before
	// anything else, those that count and are not yet in the table confirmed, and the
	// server that took the last group (nil before the first), which is told so.
	unsettled, unconfirmed []uint64
	confirmAt              *endpoint
	// writer is this portal among others; nil before the first group and when it is
	// not certain that others take it for alive.
	writer eventstore.Writer
}

type spool struct{ device, id string }

// Open connects to the servers and makes the tables that are missing.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.complete()
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("event store: no server is named")
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, client: newClient(cfg), tables: eventTables(), byName: map[string]*eventTable{}, marks: map[spool]uint64{}}
	for _, t := range s.tables {
		s.byName[t.name] = t
	}
	if err := s.prepare(ctx); err != nil {
		s.client.close()
		return nil, fmt.Errorf("event store: %w", err)
	}
	s.queue = batching.New(batching.Config[*eventstore.Batch]{
		Length: queueLength, Patience: queuePatience, Busy: eventstore.ErrBusy,
		Group: groupBatches, Size: func(b *eventstore.Batch) int { return len(b.Events) }, Full: groupEvents,
		Pause: func(_ int, took time.Duration) time.Duration { return max(0, cfg.Gather-took) },
		Store: s.store, After: s.confirm,
	})
	return s, nil
}

// Close waits for the writer. Closing again does nothing.
func (s *Store) Close() error {
	s.queue.Close()
	s.client.close()
	return s.leave()
}

// Append implements eventstore.Store.
func (s *Store) Append(ctx context.Context, b *eventstore.Batch) error {
	if b.Sequence <= s.mark(spool{b.DeviceID, b.SpoolID}) {
		return nil
	}
	return s.queue.Add(ctx, b)
}

func (s *Store) mark(k spool) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks[k]
}

// note keeps marks that are known to be stored.
func (s *Store) note(marks map[spool]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, n := range marks {
		if len(s.marks) >= maxMarks {
			for old := range s.marks { // any: the store knows it
				delete(s.marks, old)
				break
			}
		}
		s.marks[k] = max(n, s.marks[k])
	}
}

// Stored implements eventstore.Store. What other portals stored since this one read
// the mark of the spool may be missing; Append finds it.
func (s *Store) Stored(ctx context.Context, deviceID, spoolID string) (uint64, error) {
	k := spool{deviceID, spoolID}
	if n := s.mark(k); n > 0 {
		return n, nil
	}
	voids, err := s.voids(ctx)
	if err != nil {
		return 0, fmt.Errorf("event store: %w", err)
	}
	found, err := s.storedMarks(ctx, []spool{k}, voids, nil)
	if err != nil {
		return 0, fmt.Errorf("event store: %w", err)
	}
	s.note(found.marks)
	return found.marks[k], nil
}

// newGroup makes the number of a group: the time, so that numbers of one time are
// stored side by side, and random bits.
func (s *Store) newGroup() uint64 {
	return groupAt(s.cfg.Now()) | uint64(rand.Uint32N(1<<groupBits)) //nolint:gosec // it need not be secret
}

// insert writes a block to an endpoint's own table and waits until its replicas
// have it.
func (s *Store) insert(ctx context.Context, e shard, name string, columns []column, rows int) error {
	ctx, cancel := context.WithTimeout(ctx, insertTime)
	defer cancel()
	settings := map[string]string{}
	if e.replicas > 0 {
		settings["insert_quorum"] = strconv.Itoa(e.replicas)
		settings["insert_quorum_timeout"] = strconv.FormatInt(quorumTime.Milliseconds(), 10)
	}
	statement := "INSERT INTO " + s.local(name) + " ("
	for i := range columns {
		if i > 0 {
			statement += ", "
		}
		statement += columns[i].name
	}
	statement += ") FORMAT Native"
	block := encode(columns, rows)
	begin := time.Now()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := s.client.do(ctx, e.endpoint, settings, statement, block)
		var said *Error
		if !errors.As(err, &said) || said.Code != codeUnsatisfiedQuorum || time.Since(begin) > busyTime {
			if err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
			return nil
		}
		// Another portal writes to the table: nothing was stored.
		select {
		case <-ctx.Done():
			return fmt.Errorf("table %s: %w", name, err)
		case <-time.After(wait):
		}
	}
}

var _ eventstore.Store = (*Store)(nil)
