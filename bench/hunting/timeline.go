package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
)

// timelines measures what the timeline of a device asks of the store: pages of
// 40 rows of one of the devices.
func timelines(ctx context.Context, s *duckdb.Store, rounds int) error {
	const limit = 41
	device := ""
	for i := range devices { // with few events, not every device has some
		device = fmt.Sprintf("%040x", i+1)
		newest, err := s.Timeline(ctx, eventstore.TimelineQuery{DeviceID: device, Limit: limit})
		if err != nil {
			return err
		}
		if len(newest) == limit {
			break
		}
	}
	middle := eventstore.Cursor{Time: until.Add(-hoursSpan / 2 * time.Hour), ReportID: 1 << 40}
	fmt.Printf("\n%-44s %10s %6s\n", "timeline of a device", "ms", "rows")
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
		ms, rows, err := shortest(rounds, func() (int, error) {
			list, err := s.Timeline(ctx, q.TimelineQuery)
			return len(list), err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		fmt.Printf("%-44s %10.1f %6d\n", q.name, ms, rows)
	}
	return nil
}
