package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

const (
	// keepVerdicts is far longer than groups of batches are looked at.
	keepVerdicts = 30 * 24 * time.Hour
	// keepWriters is longer than a portal runs without being started again. Of one
	// that is forgotten nobody says that it is dead.
	keepWriters = 2 * 365 * 24 * time.Hour
	// maxJudged bounds the writers or groups that one statement names.
	maxJudged = 500
)

// EventWriters returns the registry of those that write events.
//
// In PostgreSQL a writer is a session that holds an advisory lock: it ends with the
// process, at once, or with its machine, after some ten seconds. An SQLite file has
// one portal: whoever entered before is dead.
func (s *Store) EventWriters() eventstore.Registry { return &eventWriters{Store: s} }

type eventWriters struct {
	*Store
	current atomic.Uint64 // the writer of this process, where nobody else can be
}

var errNotEntered = errors.New("the connection that told others that this portal is alive is gone")

// writerSession is what a session that holds a writer's lock begins with: the
// server notices soon that its client's machine is gone, and ends it for nothing
// else.
const writerSession = `SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '10s';
	SELECT set_config('idle_session_timeout', '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'`

// Enter implements eventstore.Registry. No two of 2^63 numbers are expected to be
// the same. They are negative as PostgreSQL's keys, unlike those of other locks.
func (s *eventWriters) Enter(ctx context.Context) (eventstore.Writer, error) {
	number := rand.Uint64() | 1<<63 //nolint:gosec // it need not be secret
	place, err := s.place(ctx)
	if err != nil {
		return nil, err
	}
	var w eventstore.Writer = processWriter(number)
	if s.nodes != nil {
		conn, err := pgx.ConnectConfig(ctx, s.nodes.cfg)
		if err != nil {
			return nil, fmt.Errorf("control database: %w", err)
		}
		session := &sessionWriter{conn: conn, number: number}
		var locked bool
		if _, err = conn.Exec(ctx, writerSession); err == nil {
			err = conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(number)).Scan(&locked)
		}
		if err == nil && !locked {
			err = errors.New("another portal has the same number")
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("control database: entering as a writer of events: %w", err), session.Close())
		}
		w = session
	}
	now := s.now()
	err = s.change(ctx, func(tx *transaction) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM event_writers WHERE entered < ?`, micros(now.Add(-keepWriters))); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO event_writers (writer, place, entered) VALUES (?, ?, ?)`, hex(number), place, micros(now))
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("entering as a writer of events: %w", err), w.Close())
	}
	s.current.Store(number)
	return w, nil
}

// place names the database: not what is in it, which a copy has too.
func (s *eventWriters) place(ctx context.Context) (string, error) {
	var place string
	if s.nodes != nil {
		// The copies that a server makes for others to go on with have the same.
		err := s.read.QueryRowContext(ctx, `SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&place)
		if err != nil {
			return "", fmt.Errorf("control database: %w", err)
		}
		return place, nil
	}
	var path string
	if err := s.read.QueryRowContext(ctx, `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&path); err != nil {
		return "", fmt.Errorf("control database: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("control database: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("control database %s: the system does not say which file it is", path)
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("control database: %w", err)
	}
	return fmt.Sprintf("%s/%d/%d", strings.TrimSpace(string(machine)), st.Dev, st.Ino), nil
}

// Dead implements eventstore.Registry.
func (s *eventWriters) Dead(ctx context.Context, writers []uint64) (map[uint64]bool, error) {
	place, err := s.place(ctx)
	if err != nil {
		return nil, err
	}
	out := map[uint64]bool{}
	for part := range parts(writers) {
		args := []any{place}
		for _, w := range part {
			args = append(args, hex(w))
		}
		// Who is entered is looked for before who is alive: one that entered in
		// between is not known yet.
		known, err := rows(ctx, s.read, scanHex, `SELECT writer FROM event_writers WHERE place = ? AND writer IN (?`+marks(len(part)-1)+`)`, args...)
		if err != nil {
			return nil, err
		}
		alive := map[uint64]bool{s.current.Load(): true}
		if s.nodes != nil {
			if alive, err = s.locked(ctx); err != nil {
				return nil, err
			}
		}
		for _, w := range known {
			if !alive[w] {
				out[w] = true
			}
		}
	}
	return out, nil
}

// locked are the writers whose locks are held (PostgreSQL 15, 54.12: a key of 64
// bits is classid and objid, with objsubid 1).
func (s *eventWriters) locked(ctx context.Context) (map[uint64]bool, error) {
	list, err := rows(ctx, s.read, func(r scanner) (n uint64, err error) {
		var high, low int64
		err = r.Scan(&high, &low)
		return uint64(high)<<32 | uint64(low), err
	}, `SELECT classid::bigint, objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	if err != nil {
		return nil, err
	}
	out := map[uint64]bool{}
	for _, n := range list {
		out[n] = true
	}
	return out, nil
}

// Judge implements eventstore.Registry.
func (s *eventWriters) Judge(ctx context.Context, counts map[uint64]bool) (map[uint64]bool, error) {
	groups := make([]uint64, 0, len(counts))
	for g := range counts {
		groups = append(groups, g)
	}
	out := make(map[uint64]bool, len(counts))
	err := s.change(ctx, func(tx *transaction) error {
		now := s.now()
		if _, err := tx.ExecContext(ctx, `DELETE FROM event_verdicts WHERE judged < ?`, micros(now.Add(-keepVerdicts))); err != nil {
			return err
		}
		for _, g := range groups {
			if _, err := tx.ExecContext(ctx, `INSERT INTO event_verdicts (batch_group, counts, judged) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, hex(g), counts[g], micros(now)); err != nil {
				return err
			}
			var first bool
			if err := tx.QueryRowContext(ctx, `SELECT counts FROM event_verdicts WHERE batch_group = ?`, hex(g)).Scan(&first); err != nil {
				return err
			}
			out[g] = first
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("recording which groups of batches count: %w", err)
	}
	return out, nil
}

// parts are lists that one statement can name.
func parts(list []uint64) func(yield func([]uint64) bool) {
	return func(yield func([]uint64) bool) {
		for len(list) > 0 {
			n := min(len(list), maxJudged)
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

func hex(n uint64) string { return fmt.Sprintf("%016x", n) }

func scanHex(r scanner) (uint64, error) {
	var text string
	if err := r.Scan(&text); err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 16, 64)
}

// sessionWriter is a writer for as long as its session lasts.
type sessionWriter struct {
	conn   *pgx.Conn
	number uint64
}

// Number implements eventstore.Writer.
func (w *sessionWriter) Number() uint64 { return w.number }

// Confirm implements eventstore.Writer: the session answers, so it held its lock
// until now.
func (w *sessionWriter) Confirm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := w.conn.Ping(ctx); err != nil {
		return fmt.Errorf("control database: %w: %w", errNotEntered, err)
	}
	return nil
}

// Close implements eventstore.Writer.
func (w *sessionWriter) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	return w.conn.Close(ctx)
}

// processWriter is a writer for as long as its process lasts.
type processWriter uint64

// Number implements eventstore.Writer.
func (w processWriter) Number() uint64 { return uint64(w) }

// Confirm implements eventstore.Writer.
func (processWriter) Confirm(context.Context) error { return nil }

// Close implements eventstore.Writer.
func (processWriter) Close() error { return nil }
