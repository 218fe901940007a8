package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/bulwarkhq/bulwark/portal"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// embedded is the event store of the portal itself, as a value of --event-store.
const embedded = "embedded"

// events is an open event store.
type events interface {
	portal.Events
	io.Closer
}

// remoteEvents are events in ClickHouse: queries run here, over the rows that they
// need.
type remoteEvents struct {
	*clickhouse.Store
	scratch *duckdb.Scratch
}

// Hunt implements hunting.Store.
func (e remoteEvents) Hunt(ctx context.Context) (hunting.Session, error) { return e.scratch.Hunt(ctx) }

// Close closes both.
func (e remoteEvents) Close() error { return errors.Join(e.scratch.Close(), e.Store.Close()) }

// checkEventStore tells of mistakes before anything is opened.
func checkEventStore(o serveOptions) error {
	if o.eventStore == embedded {
		if o.eventDisk != 0 && o.eventDisk < 1024 {
			return usage("--event-disk: at least 1024 MiB, or 0 for no limit")
		}
		return nil
	}
	if o.eventDisk != 0 {
		return usage("--event-disk is for the embedded event store: ClickHouse takes max_bytes in --event-store")
	}
	if _, err := clickhouse.Parse(o.eventStore); err != nil {
		return usage("--event-store: %w (or %s for the portal's own)", err, embedded)
	}
	return nil
}

// openEvents opens the event store. The registry is for one that several portals
// write to.
func openEvents(ctx context.Context, dir string, o serveOptions, registry eventstore.Registry, log *slog.Logger) (events, error) {
	dir = filepath.Join(dir, "events")
	memory := int64(o.eventMemory) << 20
	if o.eventStore == embedded {
		return duckdb.Open(ctx, duckdb.Config{Dir: dir, Retention: time.Duration(o.retention), MaxBytes: int64(o.eventDisk) << 20, MemoryLimit: memory, Logger: log})
	}
	cfg, err := clickhouse.Parse(o.eventStore)
	if err != nil {
		return nil, err
	}
	cfg.Retention, cfg.Registry, cfg.Logger = time.Duration(o.retention), registry, log
	store, err := clickhouse.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	scratch, err := duckdb.OpenScratch(ctx, duckdb.ScratchConfig{Dir: dir, MemoryLimit: memory}, store)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	log.Info("events are in ClickHouse", "servers", len(cfg.Endpoints), "database", cfg.Database, "cluster", cfg.Cluster)
	return remoteEvents{store, scratch}, nil
}
