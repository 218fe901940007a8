package duckdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// resultDir is where results of queries are written; what is in it when the store
// is opened is left from a portal that was killed.
func (s *Store) resultDir() string { return filepath.Join(s.cfg.Dir, "results") }

// sizeInterval is how often the size of a file is looked at that is being written.
const sizeInterval = 200 * time.Millisecond

// Parquet implements hunting.Session.
func (s *session) Parquet(ctx context.Context, statement string, limit int64) (*os.File, int64, error) {
	f, err := os.CreateTemp(s.dir, "*.parquet")
	if err != nil {
		return nil, 0, fmt.Errorf("result of the query: %w", err)
	}
	path := f.Name()
	defer os.Remove(path)
	f.Close()
	tooLarge := fmt.Errorf("the result has more than %d MiB as a file: select fewer columns or rows", limit>>20)
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(sizeInterval):
				if info, err := os.Stat(path); err == nil && info.Size() > limit {
					cancel(tooLarge)
				}
			}
		}
	}()
	var rows int64
	err = s.conn.QueryRowContext(ctx, "COPY ("+statement+") TO "+literal(path)+" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480, USE_TMP_FILE false)").Scan(&rows)
	cause := context.Cause(ctx)
	cancel(nil)
	<-done
	if errors.Is(cause, tooLarge) {
		return nil, 0, tooLarge
	}
	if err != nil {
		return nil, 0, err
	}
	if f, err = os.Open(path); err != nil {
		return nil, 0, fmt.Errorf("result of the query: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() > limit {
		f.Close()
		return nil, 0, errors.Join(err, tooLarge)
	}
	return f, rows, nil
}
