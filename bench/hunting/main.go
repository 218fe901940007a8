// Command hunting measures queries in KQL beside the same question in SQL that
// a person wrote, on the embedded event store.
//
//	go run ./bench/hunting -events 1000000
//	go run ./bench/hunting -event-store clickhouse://127.0.0.1/bench -server $(pidof clickhouse-server)
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/bench/events"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// until is the end of the time that the events lie in.
var until = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// devices are those that have events.
var devices = events.Devices(200)

func main() {
	count := flag.Int("events", 1_000_000, "how many events")
	rounds := flag.Int("rounds", 3, "times that each query runs; the shortest counts")
	only := flag.Bool("timeline", false, "measure the timeline of a device only")
	remote := flag.String("event-store", "", "clickhouse://... with a new database: compare it with the embedded store")
	server := flag.Int("server", 0, "process of the ClickHouse server, when it runs here")
	limited := flag.Int("limited", 0, "with -event-store: who asks may read this many devices, a quarter of those with events among them; 0 for all")
	flag.Parse()
	if *remote != "" {
		if err := compare(*remote, *server, *count, *rounds, *limited); err != nil {
			fmt.Fprintln(os.Stderr, "hunting:", err)
			os.Exit(1)
		}
		return
	}
	if err := measure(*count, *rounds, *only); err != nil {
		fmt.Fprintln(os.Stderr, "hunting:", err)
		os.Exit(1)
	}
}

func measure(count, rounds int, only bool) error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "bulwark-bench-hunting-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	now := func() time.Time { return until }
	store, err := duckdb.Open(ctx, duckdb.Config{Dir: dir, Now: now, MemoryLimit: 4 << 30})
	if err != nil {
		return err
	}
	defer store.Close()
	begin := time.Now()
	if err := events.Fill(ctx, store, count, devices, until); err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Printf("%d events of %d devices in %d hours, %d processors: stored in %.1f s (%.0f events/s)\n\n",
		count, len(devices), events.Span/time.Hour, runtime.NumCPU(), took.Seconds(), float64(count)/took.Seconds())
	if err := size(ctx, "the store", store); err != nil {
		return err
	}
	if only {
		return timelines(ctx, store, rounds)
	}
	fmt.Printf("%-16s %10s %10s %7s\n", "query", "KQL ms", "SQL ms", "ratio")
	h := hunting.New(store, now)
	for _, q := range queries {
		kql, rows, err := shortest(rounds, func() (int, error) {
			r, err := h.Run(ctx, "bench", q.kql, hunting.Limits{})
			if err != nil {
				return 0, err
			}
			return len(r.Rows), nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", q.kql, err)
		}
		sql, want, err := shortest(rounds, func() (int, error) {
			s, err := store.Hunt(ctx)
			if err != nil {
				return 0, err
			}
			defer s.Close()
			n := 0
			err = s.Select(ctx, q.sql, func([]any) error { n++; return nil })
			return n, err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", q.sql, err)
		}
		if rows != min(want, 10_000) {
			return fmt.Errorf("%s: %d rows, by hand %d", q.name, rows, want)
		}
		fmt.Printf("%-16s %10.1f %10.1f %7.2f\n", q.name, kql, sql, kql/sql)
	}
	return timelines(ctx, store, rounds)
}

// size prints what the events take on the disk.
func size(ctx context.Context, name string, s eventstore.Store) error {
	st, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s has %d MB on disk for %d events, %.0f bytes each; %d MB of it in %d closed segments of %d events\n\n", name, (st.HotBytes+st.ArchivedBytes)>>20,
		st.Hot+st.Archived, float64(st.HotBytes+st.ArchivedBytes)/float64(max(1, st.Hot+st.Archived)), st.ArchivedBytes>>20, st.Segments, st.Archived)
	return nil
}

// shortest runs f and returns the shortest time in ms.
func shortest(rounds int, f func() (int, error)) (ms float64, rows int, err error) {
	var times []float64
	for range rounds {
		begin := time.Now()
		if rows, err = f(); err != nil {
			return 0, 0, err
		}
		times = append(times, float64(time.Since(begin).Microseconds())/1000)
	}
	return slices.Min(times), rows, nil
}
