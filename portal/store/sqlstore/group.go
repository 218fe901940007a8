package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/bulwarkhq/bulwark/portal/batching"
)

// A commit waits for the disk, and there is one writer: a fleet whose devices
// check in, deliver and enroll hundreds of times in a second would wait for it
// one by one. Their changes, which are small and independent of each other, are
// made together: one transaction for all that wait, each in a savepoint of its
// own so that one that fails takes nothing with it.

const (
	groupSize  = 256
	groupQueue = 1024
	// groupTime bounds the transaction of a group.
	groupTime = time.Minute
)

// change is a small one, which shares its transaction with others.
type change func(ctx context.Context, tx *transaction) error

// together makes a change in a transaction that it shares with others, and returns
// when that is on disk. The change must use the context that it is given: the end
// of another would end the transaction of all. It must be short, and may be made
// although the caller has given up.
func (s *Store) together(ctx context.Context, c change) error {
	err := s.group.Add(ctx, c)
	if errors.Is(err, batching.ErrClosed) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return fmt.Errorf("control database: %w", err)
	}
	return err
}

func (s *Store) runGroup(group []change) []error {
	ctx, cancel := context.WithTimeout(context.Background(), groupTime)
	defer cancel()
	results := make([]error, len(group))
	err := s.change(ctx, func(tx *transaction) error {
		for i, c := range group {
			if _, err := tx.ExecContext(ctx, `SAVEPOINT one`); err != nil {
				return fmt.Errorf("control database: %w", err)
			}
			end := `RELEASE one`
			if results[i] = c.guarded(ctx, tx); results[i] != nil {
				end = `ROLLBACK TO one; RELEASE one`
			}
			if _, err := tx.ExecContext(ctx, end); err != nil {
				// Some errors end the whole transaction.
				return errors.Join(results[i], fmt.Errorf("control database: %w", err))
			}
		}
		return nil
	})
	if err != nil {
		for i := range results {
			results[i] = err
		}
	}
	return results
}

// guarded runs the change; a panic in it becomes an error.
func (c change) guarded(ctx context.Context, tx *transaction) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return c(ctx, tx)
}

// execOne is together for one statement, and returns missing when it changed no
// row.
func (s *Store) execOne(ctx context.Context, missing error, query string, args ...any) error {
	n, err := s.exec(ctx, query, args...)
	if err == nil && n == 0 {
		err = missing
	}
	return err
}

// exec is together for one statement, and returns how many rows it changed.
func (s *Store) exec(ctx context.Context, query string, args ...any) (n int, err error) {
	err = s.together(ctx, func(ctx context.Context, tx *transaction) error {
		res, err := tx.ExecContext(ctx, query, args...)
		n, err = count(res, err)
		return err
	})
	return n, err
}
