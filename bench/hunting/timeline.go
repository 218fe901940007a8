package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/bench/events"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
)

// timelines measures what the timeline of a device asks of the store: pages of
// 40 rows of one of the devices.
func timelines(ctx context.Context, s *duckdb.Store, rounds int) error {
	const limit = 41
	device, most := "", 0
	for _, d := range devices { // with few events, not every device has some
		device = d.ID
		newest, err := s.Timeline(ctx, eventstore.TimelineQuery{DeviceID: device, Limit: limit})
		if err != nil {
			return err
		}
		if most = max(most, len(newest)); len(newest) == limit {
			break
		}
	}
	if most < limit {
		return fmt.Errorf("no device has the %d events of a page, at most %d: measure with more events", limit, most)
	}
	middle := eventstore.Cursor{Time: until.Add(-events.Span / 2), ReportID: 1 << 40}
	fmt.Printf("\n%-44s %10s %10s %6s\n", "timeline of a device", "ms", "CPU ms", "rows")
	for _, q := range []struct {
		name string
		eventstore.TimelineQuery
	}{
		{"newest", eventstore.TimelineQuery{}},
		{"behind a row in the middle", eventstore.TimelineQuery{After: &middle}},
		{"before a row in the middle", eventstore.TimelineQuery{Before: &middle}},
		{"processes only, behind a row in the middle", eventstore.TimelineQuery{After: &middle, Tables: []string{"DeviceProcessEvents"}}},
		{"an hour", eventstore.TimelineQuery{Since: middle.Time.Add(-time.Hour), Until: middle.Time}},
		{"text that is frequent", eventstore.TimelineQuery{Text: "nginx"}},
		{"text that nothing has", eventstore.TimelineQuery{Text: "no such text"}},
		{"text that nothing has, within an hour", eventstore.TimelineQuery{Text: "no such text", Since: middle.Time.Add(-time.Hour), Until: middle.Time}},
	} {
		q.DeviceID, q.Limit = device, limit
		used := 1e9 // of the round that used least
		ms, rows, err := shortest(rounds, func() (int, error) {
			begin := cpu()
			list, err := s.Timeline(ctx, q.TimelineQuery)
			used = min(used, cpu()-begin)
			return len(list), err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		fmt.Printf("%-44s %10.1f %10.1f %6d\n", q.name, ms, used, rows)
	}
	return nil
}

// cpu is the processor time that the program has used, in ms.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}
