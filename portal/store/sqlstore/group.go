package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
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

// small is a change that waits for its group.
type small struct {
	f       func(ctx context.Context, tx *transaction) error
	claimed atomic.Bool
	reply   chan error
}

var errClosed = errors.New("control database: it is closed")

// together runs f in a transaction that it shares with others, and returns when
// that is on disk. f must use the context that it is given: the end of another
// would end the transaction of all. It must be short, and may be run although the
// caller has given up.
func (s *Store) together(ctx context.Context, f func(ctx context.Context, tx *transaction) error) error {
	c := &small{f: f, reply: make(chan error, 1)}
	select {
	case s.group <- c:
	case <-ctx.Done():
		return fmt.Errorf("control database: %w", ctx.Err())
	case <-s.groupDone:
		return errClosed
	}
	select {
	case err := <-c.reply:
		return err
	case <-ctx.Done():
		if c.claimed.CompareAndSwap(false, true) {
			return fmt.Errorf("control database: %w", ctx.Err())
		}
	case <-s.groupDone:
		if c.claimed.CompareAndSwap(false, true) {
			return errClosed
		}
	}
	return <-c.reply
}

// runGroups makes the changes that wait until the store is closed.
func (s *Store) runGroups() {
	defer close(s.groupDone)
	for {
		var first *small
		select {
		case first = <-s.group:
		case <-s.groupStop:
			return
		}
		var group []*small
		for c := first; c != nil; {
			if c.claimed.CompareAndSwap(false, true) {
				group = append(group, c)
			}
			c = nil
			if len(group) < groupSize {
				select {
				case c = <-s.group:
				default:
				}
			}
		}
		if len(group) > 0 {
			s.runGroup(group)
		}
	}
}

func (s *Store) runGroup(group []*small) {
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
	for i, c := range group {
		if err != nil {
			results[i] = err
		}
		c.reply <- results[i]
	}
}

// guarded runs the change; a panic in it becomes an error.
func (c *small) guarded(ctx context.Context, tx *transaction) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return c.f(ctx, tx)
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
