package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bulwarkhq/bulwark/bench/events"
	process "github.com/bulwarkhq/bulwark/bench/measure"
	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// times is the processor time of this program and, with a pid, of a server, in ms.
func times(server int) (own, other float64, err error) {
	if own = cpu(); server == 0 {
		return own, 0, nil
	}
	if _, err := process.Stat(server); err != nil {
		return 0, 0, err
	}
	return own, float64(process.CPU([]int{server}).Milliseconds()), nil
}

// compare fills an embedded store and a ClickHouse server with the same events and
// asks both the same. It measures processor time, which other programs on the
// machine change little.
func compare(address string, server, count, rounds, limited int) error {
	ctx := context.Background()
	cfg, err := clickhouse.Parse(address)
	if err != nil {
		return err
	}
	now := func() time.Time { return until }
	cfg.Now, cfg.Gather = now, time.Millisecond
	dir, err := os.MkdirTemp("", "bulwark-bench-hunting-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	local, err := duckdb.Open(ctx, duckdb.Config{Dir: dir, Now: now, MemoryLimit: 4 << 30})
	if err != nil {
		return err
	}
	defer local.Close()
	remote, err := clickhouse.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer remote.Close()
	st, err := remote.Stats(ctx)
	if err != nil {
		return err
	}
	if st.Hot > 0 {
		return fmt.Errorf("the database %s has %d events already: name another one", cfg.Database, st.Hot)
	}
	scratch, err := duckdb.OpenScratch(ctx, duckdb.ScratchConfig{Dir: dir + "/queries", MemoryLimit: 4 << 30}, remote)
	if err != nil {
		return err
	}
	defer scratch.Close()
	fmt.Printf("%d events, processor time in ms: of this program, of the server\n\n%-16s %10s %10s %10s\n", count, "", "embedded", "portal", "ClickHouse")
	spent := func(f func() error) (own, other float64, err error) {
		a, b, err := times(server)
		if err != nil {
			return 0, 0, err
		}
		if err := f(); err != nil {
			return 0, 0, err
		}
		own, other, err = times(server)
		return own - a, other - b, err
	}
	row := func(name string, embedded, clickhouse func() error) error {
		a, _, err := spent(embedded)
		if err != nil {
			return fmt.Errorf("%s, embedded: %w", name, err)
		}
		b, c, err := spent(clickhouse)
		if err != nil {
			return fmt.Errorf("%s, ClickHouse: %w", name, err)
		}
		n := float64(rounds)
		if name == "ingest" {
			n = 1
		}
		fmt.Printf("%-16s %10.1f %10.1f %10.1f\n", name, a/n, b/n, c/n)
		return nil
	}
	if err := row("ingest", func() error { return events.Fill(ctx, local, count, devices, until) }, func() error { return events.Fill(ctx, remote, count, devices, until) }); err != nil {
		return err
	}
	if err := errors.Join(size(ctx, "embedded", local), size(ctx, "ClickHouse", remote)); err != nil {
		return err
	}
	here, there := hunting.New(local, now), hunting.New(scratch, now)
	if limited > 0 {
		may := make([]string, limited)
		for i := range may {
			may[i] = fmt.Sprintf("%040x", 4*i) // the devices of the events are the first ones
		}
		scope := func(context.Context) ([]string, bool, error) { return may, true, nil }
		here.Limit(scope)
		there.Limit(scope)
	}
	for _, q := range queries {
		var want, got int
		ask := func(h *hunting.Hunter, rows *int) func() error {
			return func() error {
				for range rounds {
					r, err := h.Run(ctx, "bench", q.kql, hunting.Limits{})
					if err != nil {
						return err
					}
					*rows = len(r.Rows)
				}
				return nil
			}
		}
		if err := row(q.name, ask(here, &want), ask(there, &got)); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s: %d rows with ClickHouse, %d embedded", q.name, got, want)
		}
	}
	return nil
}
