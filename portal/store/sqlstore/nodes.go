package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// commandChannel is where nodes tell each other of new commands; the payload is
	// the id of the device.
	commandChannel = "bulwark_commands"
	// jobConnections bounds how many jobs a node runs at once.
	jobConnections = 32
	// jobCheck is how often it is looked whether a job still has its lock.
	jobCheck = 2 * time.Second
	// longestPause is the longest between attempts to listen again.
	longestPause = 30 * time.Second
)

var errLockLost = errors.New("control database: the connection that kept this job to one node is gone")

// nodes is what a portal has to do with the others at the same database.
type nodes struct {
	cfg      *pgx.ConnConfig
	locks    *sql.DB
	stop     context.CancelFunc
	listened chan struct{} // closed when nothing listens any more
}

func joinNodes(cfg *pgx.ConnConfig, watch *watchers, log *slog.Logger) *nodes {
	ctx, cancel := context.WithCancel(context.Background())
	n := &nodes{cfg: cfg, locks: openPostgres(cfg, jobConnections, `SET application_name = 'bulwark-portal jobs'`), stop: cancel, listened: make(chan struct{})}
	n.locks.SetMaxIdleConns(2)
	go func() {
		defer close(n.listened)
		listen(ctx, cfg, watch, log)
	}()
	return n
}

func (n *nodes) close() error {
	n.stop()
	<-n.listened
	return n.locks.Close()
}

// listen wakes the streams of devices that have new commands, until ctx ends.
func listen(ctx context.Context, cfg *pgx.ConnConfig, watch *watchers, log *slog.Logger) {
	for pause := time.Second; ; pause = min(2*pause, longestPause) {
		heard, err := listenOnce(ctx, cfg, watch)
		if ctx.Err() != nil {
			return
		}
		log.WarnContext(ctx, "the control database does not tell of new commands; devices of this node get those of others later", "error", err)
		if heard {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// listenOnce listens on one connection until that breaks; heard says whether it
// came to that.
func listenOnce(ctx context.Context, cfg *pgx.ConnConfig, watch *watchers) (heard bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+commandChannel); err != nil {
		return false, err
	}
	watch.notifyAll() // of what was missed
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return true, err
		}
		watch.notify(n.Payload)
	}
}

// Exclusive runs a job unless another node runs one of that name, and says whether
// it did. The context of the job ends when it is no longer certain that it is
// alone. An SQLite file has one portal, whose jobs keep to themselves.
func (s *Store) Exclusive(ctx context.Context, name string, job func(context.Context) error) (ran bool, err error) {
	if s.nodes == nil {
		return true, job(ctx)
	}
	conn, err := s.nodes.locks.Conn(ctx)
	if err != nil {
		return false, fmt.Errorf("control database: %w", err)
	}
	defer conn.Close()
	h := fnv.New32a()
	h.Write([]byte(name))
	key := int32(h.Sum32())
	var alone bool
	if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1, $2)`, int32(lockJobs), key).Scan(&alone); err != nil {
		return false, fmt.Errorf("control database: %w", err)
	}
	if !alone {
		return false, nil
	}
	jobCtx, cancel := context.WithCancelCause(ctx)
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		keepLock(jobCtx, conn, cancel)
	}()
	defer func() {
		cancel(nil)
		<-checked
		last, done := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		defer done()
		if _, unlock := conn.ExecContext(last, `SELECT pg_advisory_unlock($1, $2)`, int32(lockJobs), key); unlock != nil {
			// The connection must not go back to the others with the lock.
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		}
	}()
	return true, job(jobCtx)
}

// keepLock ends a job when its connection breaks, with which the lock goes.
func keepLock(ctx context.Context, conn *sql.Conn, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(jobCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// Not of ctx: that would break the connection when the job ends.
		check, done := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		err := conn.PingContext(check)
		done()
		if err != nil {
			cancel(fmt.Errorf("%w: %w", errLockLost, err))
			return
		}
	}
}
