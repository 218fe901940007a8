// Package duckdb is the embedded event store: a DuckDB database for the hours
// that are still open, and one Parquet file per table and closed hour, which
// stay queryable in place and readable by any other program.
//
// It is the only package, besides the portal's main package, that links
// DuckDB (cgo).
//
// Writing: one goroutine owns the writing connection. It takes the batches
// that wait, appends them and their sequence marks in one transaction, commits
// (durable in DuckDB's write-ahead log) and answers all of them. So a batch is
// stored whole or not at all, and once.
package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	duckdb "github.com/duckdb/duckdb-go/v2"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Config of the store.
type Config struct {
	// Dir holds events.duckdb and the folder segments.
	Dir string
	// Retention is how long events are kept after they arrived; zero for ever.
	Retention time.Duration
	// MemoryLimit bounds DuckDB's own memory, in bytes; zero for 1 GiB.
	MemoryLimit int64
	Logger      *slog.Logger
	// Now is time.Now outside of tests.
	Now func() time.Time
}

// Limits of the writer.
const (
	queueLength   = 4096
	groupBatches  = 4096
	groupEvents   = 100_000
	queuePatience = 5 * time.Second
	// A transaction costs a fixed amount of work, 10 ms and more of CPU time, for
	// the tables with their many columns: after a small one the next waits for
	// company, three times as long as the last one took, gatherTime at most. After
	// a large one, of largeGroup events and more, it does not pay.
	gatherTime = 250 * time.Millisecond
	largeGroup = 2000
)

// Store is an open event store.
type Store struct {
	cfg       Config
	tables    []table
	connector *duckdb.Connector
	db        *sql.DB
	writer    *writer
	// writing is held by whoever changes the database.
	writing sync.Mutex

	queue chan *request
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu      sync.RWMutex
	marks   map[spool]uint64
	garbage map[string]time.Time // files to delete, and when

	// compactWait are files that could not be joined, and until when they are left
	// alone. It belongs to Maintain.
	compactWait map[string]time.Time
}

type spool struct{ device, id string }

// request is a batch on its way to the writer. The caller may give up while
// it still waits, not while it is being written: its events are borrowed.
type request struct {
	batch   *eventstore.Batch
	claimed atomic.Bool
	reply   chan error
}

// checkpointBytes is how large DuckDB's write-ahead log may become before what it
// says goes into the tables: each time, the rows since the last time are
// compressed anew with those of their row group, which costs more than the
// storing when it happens often (DuckDB's own choice, 16 MB, doubled the CPU time
// per event). What it says is in memory too, so a quarter of that is the limit.
const checkpointBytes = 256 << 20

// options are DuckDB's settings, for all connections alike.
func (cfg *Config) options() map[string]string {
	return map[string]string{
		"autoinstall_known_extensions": "false",
		"autoload_known_extensions":    "false",
		"threads":                      strconv.Itoa(max(1, min(runtime.NumCPU(), 16))),
		"memory_limit":                 strconv.FormatInt(cfg.MemoryLimit>>20, 10) + "MiB",
		"disabled_optimizers":          hunting.DisabledOptimizers,
		"checkpoint_threshold":         strconv.FormatInt(min(checkpointBytes, cfg.MemoryLimit/4)>>20, 10) + "MiB",
	}
}

// Open opens or creates the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MemoryLimit == 0 {
		cfg.MemoryLimit = 1 << 30
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	if strings.ContainsAny(dir, "*?[") {
		return nil, fmt.Errorf("event store: the path %s contains one of * ? [, which DuckDB would take for a pattern: choose another", dir)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(filepath.Join(dir, "segments"), 0o700); err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	results := filepath.Join(dir, "results")
	if err := errors.Join(os.RemoveAll(results), os.Mkdir(results, 0o700)); err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	path, options := filepath.Join(dir, "events.duckdb"), cfg.options()
	dsn := path + "?"
	for name, value := range options {
		dsn += name + "=" + value + "&"
	}
	connector, err := duckdb.NewConnector(dsn, nil)
	if err != nil {
		return nil, fmt.Errorf("event store %s: %w", dir, err)
	}
	s := &Store{
		cfg: cfg, tables: tables(), connector: connector, db: sql.OpenDB(connector), queue: make(chan *request, queueLength),
		stop: make(chan struct{}), done: make(chan struct{}), marks: map[spool]uint64{}, garbage: map[string]time.Time{}, compactWait: map[string]time.Time{},
	}
	n, err := connectNative(path, options)
	if err != nil {
		s.db.Close()
		connector.Close()
		return nil, fmt.Errorf("event store %s: %w", dir, err)
	}
	s.writer = newWriter(n, s.tables)
	if err := s.prepare(ctx); err != nil {
		s.writer.close()
		s.db.Close()
		connector.Close()
		return nil, fmt.Errorf("event store %s: %w", dir, err)
	}
	go s.write()
	return s, nil
}

func (s *Store) prepare(ctx context.Context) error {
	if err := createSchema(ctx, s.db, s.tables); err != nil {
		return err
	}
	if err := s.fold(); err != nil {
		return err
	}
	if err := s.sweepFiles(ctx); err != nil {
		return err
	}
	if err := s.completeSpans(ctx); err != nil {
		return err
	}
	for _, t := range s.tables {
		files, err := s.segmentFiles(ctx, s.db, t.Name)
		if err != nil {
			return err
		}
		if _, err := s.db.ExecContext(ctx, t.viewSQL(s.segmentDir(), files)); err != nil {
			return fmt.Errorf("making view %s: %w", t.Name, err)
		}
	}
	rows, err := s.db.QueryContext(ctx, `SELECT device_id, spool_id, sequence FROM spools`)
	if err != nil {
		return fmt.Errorf("reading the batches' marks: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var k spool
		var seq uint64
		if err := rows.Scan(&k.device, &k.id, &seq); err != nil {
			return fmt.Errorf("reading the batches' marks: %w", err)
		}
		s.marks[k] = seq
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading the batches' marks: %w", err)
	}
	return nil
}

// Close waits for the writer and closes the database. Closing again does
// nothing.
func (s *Store) Close() (err error) {
	s.once.Do(func() {
		close(s.stop)
		<-s.done
		s.writer.close()
		err = errors.Join(s.db.Close(), s.connector.Close())
	})
	return err
}

// Append implements eventstore.Store.
func (s *Store) Append(ctx context.Context, b *eventstore.Batch) error {
	if n, err := s.Stored(ctx, b.DeviceID, b.SpoolID); err != nil || b.Sequence <= n {
		return err
	}
	r := &request{batch: b, reply: make(chan error, 1)}
	patience := time.NewTimer(queuePatience)
	defer patience.Stop()
	select {
	case s.queue <- r:
	case <-patience.C:
		return fmt.Errorf("%w: %d batches wait", eventstore.ErrBusy, queueLength)
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return errors.New("the event store is closed")
	}
	var cause error
	select {
	case err := <-r.reply:
		return err
	case <-ctx.Done():
		cause = ctx.Err()
	case <-s.done:
		cause = errors.New("the event store is closed")
	}
	if r.claimed.CompareAndSwap(false, true) {
		return cause
	}
	return <-r.reply
}

// Stored implements eventstore.Store.
func (s *Store) Stored(_ context.Context, deviceID, spoolID string) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.marks[spool{deviceID, spoolID}], nil
}

// write is the writer's loop.
func (s *Store) write() {
	defer close(s.done)
	var next time.Time // before which a group waits for company
	for {
		var group []*request
		var events int
		select {
		case <-s.stop:
			return
		case r := <-s.queue:
			group, events = s.gather(r, next)
		}
		if len(group) == 0 {
			continue
		}
		begin := time.Now()
		err := s.commit(group)
		next = time.Time{}
		if events < largeGroup {
			next = time.Now().Add(min(3*time.Since(begin), gatherTime))
		}
		if err != nil && len(group) > 1 {
			// One bad batch must not fail the others.
			for _, r := range group {
				r.reply <- s.commit([]*request{r})
			}
			continue
		}
		for _, r := range group {
			r.reply <- err
		}
		s.foldWhen(foldRows)
	}
}

// foldWhen folds as soon as there are so many rows. A failure is tried again
// after as many more: they are counted where they are.
func (s *Store) foldWhen(rows int) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writer.unfolded < rows {
		return
	}
	if err := s.fold(); err != nil {
		s.writer.unfolded = 0
		s.cfg.Logger.Error("event store", "error", err)
	}
}

// joinRollback ends a transaction that failed.
func joinRollback(err error, exec func(string, ...any) error) error {
	return errors.Join(err, exec("ROLLBACK"))
}

// gather claims the first request and those that wait behind it or come until the
// given time. It returns how many events they have, too.
func (s *Store) gather(first *request, until time.Time) (group []*request, events int) {
	take := func(r *request) {
		if r.claimed.CompareAndSwap(false, true) {
			group = append(group, r)
			events += len(r.batch.Events)
		}
	}
	take(first)
	wait := time.NewTimer(time.Until(until))
	defer wait.Stop()
	for len(group) < groupBatches && events < groupEvents {
		select {
		case r := <-s.queue:
			take(r)
			continue
		default:
		}
		select {
		case r := <-s.queue:
			take(r)
			continue
		case <-wait.C:
		case <-s.stop:
		}
		break
	}
	return group, events
}

// commit stores a group of batches in one transaction.
func (s *Store) commit(group []*request) (err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	// What callers want stored is stored also while they give up.
	ctx := context.Background()
	exec := s.writer.exec
	if err := exec("BEGIN"); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("event store: %w", joinRollback(err, exec))
		}
	}()
	marks := map[spool]uint64{}
	fresh := make([]*eventstore.Batch, 0, len(group))
	for _, r := range group {
		b := r.batch
		k := spool{b.DeviceID, b.SpoolID}
		high, ok := marks[k]
		if !ok {
			high, _ = s.Stored(ctx, k.device, k.id)
		}
		if b.Sequence <= high {
			continue
		}
		marks[k] = b.Sequence
		fresh = append(fresh, b)
	}
	if err := s.writer.append(fresh); err != nil {
		return err
	}
	if err := s.writer.deliveries(fresh); err != nil {
		return err
	}
	for _, add := range []func() (string, []any){
		func() (string, []any) { return lossRows(fresh) },
		func() (string, []any) { return receiptRows(fresh) },
	} {
		q, args := add()
		if len(args) == 0 {
			continue
		}
		if err := exec(q, args...); err != nil {
			return err
		}
	}
	if err := exec("COMMIT"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, seq := range marks {
		s.marks[k] = seq
	}
	return nil
}

// lossRows is the statement that keeps what the devices lost.
func lossRows(batches []*eventstore.Batch) (q string, args []any) {
	for _, b := range batches {
		for class, n := range b.Losses() {
			args = append(args, b.DeviceID, b.Received, class, n)
		}
	}
	return "INSERT INTO losses VALUES " + marksOf(args), args
}

// receiptRows is the statement that adds the losses of the batches to their
// devices' ledgers, each line once.
func receiptRows(batches []*eventstore.Batch) (q string, args []any) {
	type line struct{ device, class string }
	sums := map[line]eventstore.Receipt{}
	for _, b := range batches {
		for class, n := range b.Losses() {
			k := line{b.DeviceID, class}
			sums[k] = sums[k].Plus(eventstore.Receipt{Lost: n})
		}
	}
	for k, r := range sums {
		args = append(args, k.device, k.class, uint64(0), r.Lost)
	}
	return "INSERT INTO receipts VALUES " + marksOf(args) + addToReceipts, args
}

// addToReceipts makes a statement that inserts into receipts one that adds.
var addToReceipts = " ON CONFLICT (device_id, class) DO UPDATE SET stored = " + atMost("stored::HUGEINT + excluded.stored") +
	", lost = " + atMost("lost::HUGEINT + excluded.lost")

// atMost is a HUGEINT as UBIGINT, the largest one for more: what a device says
// that it lost may be anything, and must not make a statement fail.
func atMost(sum string) string {
	return "least(" + sum + ", 18446744073709551615::HUGEINT)::UBIGINT"
}

// marksOf are the parameter marks of rows of four columns.
func marksOf(args []any) string {
	return strings.TrimSuffix(strings.Repeat("(?, ?, ?, ?),", len(args)/4), ",")
}

var (
	_ eventstore.Store = (*Store)(nil)
	_ io.Closer        = (*Store)(nil)
)
