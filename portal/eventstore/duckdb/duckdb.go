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
	"time"

	duckdb "github.com/duckdb/duckdb-go/v2"

	"github.com/bulwarkhq/bulwark/portal/batching"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Config of the store.
type Config struct {
	// Dir holds events.duckdb and the folder segments.
	Dir string
	// Retention is how long events are kept after they arrived; zero for ever.
	Retention time.Duration
	// MaxBytes is how large the store may become on disk, Parquet files and database
	// together; zero for no limit. Beyond it the oldest closed hours go.
	MaxBytes int64
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

	queue *batching.Queue[*eventstore.Batch]
	once  sync.Once

	mu      sync.RWMutex
	marks   map[spool]uint64
	garbage map[string]time.Time // files to delete, and when

	// compactWait are files that could not be joined, and until when they are left
	// alone. It belongs to Maintain.
	compactWait map[string]time.Time
	upkeep      eventstore.UpkeepRecord
}

type spool struct{ device, id string }

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
		cfg: cfg, tables: tables(), connector: connector, db: sql.OpenDB(connector), marks: map[spool]uint64{}, garbage: map[string]time.Time{}, compactWait: map[string]time.Time{},
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
	s.queue = batching.New(batching.Config[*eventstore.Batch]{
		Length: queueLength, Patience: queuePatience, Busy: eventstore.ErrBusy,
		Group: groupBatches, Size: func(b *eventstore.Batch) int { return len(b.Events) }, Full: groupEvents,
		Pause: pause, Store: s.store, After: func() { s.foldWhen(foldRows) },
	})
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
		s.queue.Close()
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
	return s.queue.Add(ctx, b)
}

// Stored implements eventstore.Store.
func (s *Store) Stored(_ context.Context, deviceID, spoolID string) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.marks[spool{deviceID, spoolID}], nil
}

// pause is how long a group waits for company after one of so many events.
func pause(events int, took time.Duration) time.Duration {
	if events >= largeGroup {
		return 0
	}
	return min(3*took, gatherTime)
}

// store stores a group of batches, each for itself where together they fail: one
// bad batch must not fail the others.
func (s *Store) store(group []*eventstore.Batch) []error {
	err := s.commit(group)
	if err == nil {
		return nil
	}
	if len(group) == 1 {
		return []error{err}
	}
	errs := make([]error, len(group))
	for i, b := range group {
		errs[i] = s.commit([]*eventstore.Batch{b})
	}
	return errs
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

// commit stores a group of batches in one transaction.
func (s *Store) commit(group []*eventstore.Batch) (err error) {
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
	for _, b := range group {
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
