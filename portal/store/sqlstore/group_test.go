package sqlstore

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/batching"
)

func openGroup(t *testing.T) *Store {
	t.Helper()
	s, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := s.write.db.ExecContext(t.Context(), `CREATE TABLE numbers (n INTEGER PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Store) numbers(t *testing.T) (n int) {
	t.Helper()
	if err := s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM numbers`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// holdWriter keeps the groups waiting until it is called, so that what comes
// meanwhile is made together.
func (s *Store) holdWriter(t *testing.T) (release func()) {
	t.Helper()
	tx, err := s.write.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// Of changes that are made together each has its own result: one that fails,
// breaks a rule of the database, or panics takes nothing with it.
func TestTogether(t *testing.T) {
	s := openGroup(t)
	release := s.holdWriter(t)
	refused := errors.New("refused")
	insert := func(ctx context.Context, tx *transaction, n int) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO numbers VALUES (?)`, n)
		return err
	}
	const all = 600
	errs := make([]error, all)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			errs[i] = s.together(t.Context(), func(ctx context.Context, tx *transaction) error {
				n := i
				if i%10 == 3 {
					n = 0 // is there, or takes the place of the one that comes first
				}
				if err := insert(ctx, tx, n); err != nil {
					return err
				}
				switch i % 10 {
				case 5:
					return refused
				case 7:
					panic("broken")
				}
				return nil
			})
		})
	}
	time.Sleep(50 * time.Millisecond) // most wait by now
	release()
	wg.Wait()
	made, zero := 0, 0
	for i, err := range errs {
		switch {
		case i%10 == 3 || i == 0:
			if err == nil {
				zero++
				made++
			} else if !taken(err) {
				t.Errorf("change %d: %v", i, err)
			}
		case i%10 == 5 && !errors.Is(err, refused), i%10 == 7 && err == nil, i%10 != 5 && i%10 != 7 && err != nil:
			t.Errorf("change %d: %v", i, err)
		case err == nil:
			made++
		}
	}
	if n := s.numbers(t); n != made || zero != 1 {
		t.Errorf("%d rows, %d changes succeeded, %d of those with the same key", n, made, zero)
	}
}

// Who gives up while waiting has changed nothing; who gives up later has, and is
// told the result.
func TestTogetherGivenUp(t *testing.T) {
	s := openGroup(t)
	release := s.holdWriter(t)
	waits := s.write.db.Stats().WaitCount
	first := make(chan error, 1)
	go func() {
		_, err := s.exec(t.Context(), `INSERT INTO numbers VALUES (1)`)
		first <- err
	}()
	// The writer has taken the first and waits; the others stay in the queue.
	for s.write.db.Stats().WaitCount == waits {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() {
		_, err := s.exec(ctx, `INSERT INTO numbers VALUES (2)`)
		second <- err
	}()
	for s.group.Waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := s.numbers(t); n != 1 {
		t.Errorf("%d rows", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.exec(t.Context(), `INSERT INTO numbers VALUES (3)`); !errors.Is(err, batching.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
