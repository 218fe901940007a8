package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// serverPatience is how long one server may take to tell about itself.
const serverPatience = 1500 * time.Millisecond

// Inspect implements eventstore.Inspector. Every server is asked about itself, and
// one that answered about all.
func (s *Store) Inspect(ctx context.Context) (eventstore.Inspection, error) {
	in := eventstore.Inspection{
		Kind: "ClickHouse", Location: s.cfg.Location(), RetentionHours: s.cfg.Retention.Hours(), MaxBytes: s.cfg.MaxBytes,
		Waiting: s.queue.Waiting(), Queue: queueLength, Upkeep: s.upkeep.Upkeep(), Servers: make([]eventstore.Server, len(s.client.endpoints)),
	}
	var wg sync.WaitGroup
	for i, e := range s.client.endpoints {
		wg.Go(func() { in.Servers[i] = s.inspectServer(ctx, e) })
	}
	wg.Wait()
	var first *endpoint
	for i, e := range s.client.endpoints {
		if in.Servers[i].Up {
			first, in.Version = e, in.Servers[i].Version
			break
		}
	}
	if first == nil {
		return in, errors.New("event store: no server answers")
	}
	err := s.client.selectAt(ctx, first, s.partsSQL("toInt64(sum(rows)), toInt64(sum(bytes_on_disk)), min(partition), max(partition)", ""), "nntt", func(b *hunting.Block) (err error) {
		in.Events, in.Bytes = b.Columns[0].Ints[0], b.Columns[1].Ints[0]
		if in.Events == 0 {
			return nil
		}
		if in.Oldest, err = s.arrival(ctx, first, "min", b.Columns[2].Texts[0]); err == nil {
			in.Newest, err = s.arrival(ctx, first, "max", b.Columns[3].Texts[0])
		}
		return err
	})
	if err != nil {
		return in, fmt.Errorf("event store: sizes: %w", err)
	}
	return in, nil
}

// arrival is when the first (min) or last (max) event of a partition arrived.
func (s *Store) arrival(ctx context.Context, e *endpoint, which, partition string) (at time.Time, err error) {
	day := literal(strings.Trim(partition, "'"))
	var parts []string
	for _, t := range s.tables {
		parts = append(parts, fmt.Sprintf("SELECT %s(%s) AS at, count() AS n FROM %s WHERE %s = %s", which, columnIngestion, t.name, columnDay, day))
	}
	query := "SELECT toInt64(" + which + "(at)) FROM (" + strings.Join(parts, " UNION ALL ") + ") WHERE n > 0"
	err = s.client.selectAt(ctx, e, query, "n", func(b *hunting.Block) error {
		if us := b.Columns[0].Ints[0]; us > 0 {
			at = time.UnixMicro(us).UTC()
		}
		return nil
	})
	return at, err
}

// inspectServer asks a server about itself.
func (s *Store) inspectServer(ctx context.Context, e *endpoint) (at eventstore.Server) {
	at.Address = e.address
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Logger.Error("asking a server about itself panicked", "server", e.address, "panic", v, "stack", string(debug.Stack()))
			at.Error = "the portal failed; its log says why"
		}
	}()
	ask, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	if err := s.askServer(ask, e, &at); err != nil {
		at.Error = err.Error()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			at.Error = fmt.Sprintf("does not answer within %s", serverPatience)
		}
	}
	return at
}

func (s *Store) askServer(ctx context.Context, e *endpoint, at *eventstore.Server) error {
	database := literal(s.cfg.Database)
	one := func(query string, of kinds, take func(*hunting.Block)) error {
		return s.client.selectAt(ctx, e, query, of, func(b *hunting.Block) error {
			take(b)
			return nil
		})
	}
	if err := one("SELECT version()", "t", func(b *hunting.Block) { at.Version, at.Up = b.Columns[0].Texts[0], true }); err != nil {
		return err
	}
	var tables []string
	for _, t := range s.tables {
		tables = append(tables, literal(s.local(t.name)))
	}
	if err := one(fmt.Sprintf("SELECT toInt64(sum(rows)), toInt64(sum(bytes_on_disk)) FROM system.parts WHERE active AND database = %s AND table IN (%s)", database, strings.Join(tables, ", ")), "nn", func(b *hunting.Block) {
		at.Events, at.Bytes = b.Columns[0].Ints[0], b.Columns[1].Ints[0]
	}); err != nil {
		return err
	}
	// Versions of before 2019 do not tell.
	free := one("SELECT toInt64(min(free_space)) FROM system.disks", "n", func(b *hunting.Block) { at.Free = b.Columns[0].Ints[0] })
	var said *Error
	if free != nil && !errors.As(free, &said) {
		return free
	}
	if s.cfg.Cluster == "" {
		return nil
	}
	if err := one("SELECT macro, substitution FROM system.macros WHERE macro IN ('shard', 'replica')", "tt", func(b *hunting.Block) {
		for i, name := range b.Columns[0].Texts {
			*map[bool]*string{true: &at.Shard, false: &at.Replica}[name == "shard"] = b.Columns[1].Texts[i]
		}
	}); err != nil {
		return err
	}
	if err := one("SELECT toInt64(sum(is_readonly OR is_session_expired)), toInt64(min(active_replicas)), toInt64(max(total_replicas)), toInt64(sum(queue_size)), toInt64(max(absolute_delay)) FROM system.replicas WHERE database = "+database, "nnnnn", func(b *hunting.Block) {
		for i, to := range []*int64{&at.ReadOnly, &at.Replicas, &at.Wanted, &at.Queue, &at.DelaySeconds} {
			*to = b.Columns[i].Ints[0]
		}
	}); err != nil {
		return err
	}
	return one("SELECT last_exception FROM system.replication_queue WHERE database = "+database+" AND last_exception != '' ORDER BY last_attempt_time DESC LIMIT 1", "t", func(b *hunting.Block) {
		at.Error = serverError(b.Columns[0].Texts[0]).Message
	})
}

// Location names the servers and the database, and the user without the password.
func (c *Config) Location() string {
	user := ""
	if c.User != "" {
		user = c.User + "@"
	}
	text := Scheme + "://" + user + strings.Join(c.Endpoints, ",") + "/" + c.Database
	if c.Cluster != "" {
		text += " in the cluster " + c.Cluster
	}
	if c.TLS {
		text += " over HTTPS"
	}
	return text
}

var _ eventstore.Inspector = (*Store)(nil)
