package agent

import (
	"context"
	"fmt"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// The feed keeps the newest events and chooses by every member of the filter;
// who follows slowly is told what was missed.
func TestEventFeed(t *testing.T) {
	f := &eventFeed{}
	for i := range recentEvents + 10 {
		f.see(&event.Event{
			ReportID: uint64(i), Class: event.ClassFile, Action: event.FileCreated, File: event.File{FolderPath: fmt.Sprintf("/Tmp/x%d", i)},
			Initiating: event.Process{PID: int64(i)},
		})
	}
	for _, c := range []struct {
		filter api.EventFilter
		want   int
	}{
		{api.EventFilter{Text: "/tmp/x1009"}, 1},
		{api.EventFilter{Text: "/tmp/x9"}, 110},
		{api.EventFilter{PID: 500}, 1},
		{api.EventFilter{PID: 9}, 0},
		{api.EventFilter{Category: "file", Action: "filecreated", PID: 700}, 1},
		{api.EventFilter{Category: "dns"}, 0},
		{api.EventFilter{Action: "FileDeleted"}, 0},
	} {
		got, err := f.RecentEvents(t.Context(), c.filter)
		if err != nil || len(got.Events) != c.want {
			t.Errorf("%+v: %d events, want %d; %v", c.filter, len(got.Events), c.want, err)
		}
	}
	all, err := f.RecentEvents(t.Context(), api.EventFilter{})
	if n := len(all.Events); err != nil || n < 100 || all.Events[n-1].ReportID != recentEvents+9 || all.Events[0].ReportID != uint64(recentEvents+10-n) {
		t.Errorf("%d events, %v", n, err)
	}
	if _, err := f.RecentEvents(t.Context(), api.EventFilter{Category: "nonsense"}); err == nil {
		t.Error("an unknown category is taken")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	total, missed := 0, int64(0)
	const n = feedQueue + 500
	go func() { // until it follows
		for ctx.Err() == nil {
			f.mu.Lock()
			following := len(f.followers) > 0
			f.mu.Unlock()
			if following {
				f.see(&event.Event{Initiating: event.Process{PID: 1}})
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	err = f.FollowSensorEvents(ctx, api.EventFilter{PID: 1}, func(s api.SensorEvents) error {
		if total == 0 { // more than the queue holds while this one is busy
			for range n {
				f.see(&event.Event{Initiating: event.Process{PID: 1}})
			}
		}
		total += len(s.Events)
		missed += s.Missed
		if total+int(missed) >= n+1 {
			cancel()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if total+int(missed) != n+1 || missed == 0 {
		t.Errorf("%d events and %d missed of %d", total, missed, n+1)
	}
}
