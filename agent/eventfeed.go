package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// Bounds of what the local API shows of events.
const (
	recentEvents  = 1000 // kept in memory
	recentBehaved = 200  // behaviours, kept longer than the flood of all events
	feedQueue     = 4096 // of one who follows
	maxFollowers  = 16
	feedBytes     = 512 << 10 // of one answer, by rough size
	maxTreeNodes  = 500
	eventOverhead = 1200
)

// eventFeed keeps the last events for those who look, and passes new ones to
// those who follow.
type eventFeed struct {
	a *Agent

	mu        sync.Mutex
	all       ring // recentEvents
	behaviors ring // recentBehaved
	followers map[*follower]struct{}
}

// ring keeps the last events.
type ring struct {
	events []event.Event
	next   int
}

func (r *ring) add(e *event.Event, size int) {
	if len(r.events) < size {
		r.events = append(r.events, *e)
		return
	}
	r.events[r.next] = *e
	r.next = (r.next + 1) % size
}

// newest gives the i-th event, counted from the newest.
func (r *ring) newest(i int) *event.Event {
	return &r.events[(r.next+len(r.events)-1-i)%len(r.events)]
}

type follower struct {
	filter api.EventFilter
	events []event.Event
	missed int64
	wake   chan struct{}
}

// see takes an event that the pipeline passes on.
func (f *eventFeed) see(e *event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all.add(e, recentEvents)
	if e.Class == event.ClassBehavior {
		f.behaviors.add(e, recentBehaved)
	}
	for w := range f.followers {
		if !chosen(&w.filter, e) {
			continue
		}
		if len(w.events) >= feedQueue {
			w.missed++
			continue
		}
		w.events = append(w.events, *e)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func chosen(f *api.EventFilter, e *event.Event) bool {
	if f.Category != "" && f.Category != string(e.Category()) || f.Action != "" && !strings.EqualFold(f.Action, e.Action) {
		return false
	}
	if f.PID != 0 && e.Process.PID != f.PID && e.Initiating.PID != f.PID {
		return false
	}
	if f.Text == "" {
		return true
	}
	want := strings.ToLower(f.Text)
	for _, text := range []string{
		e.File.FolderPath, e.File.FileName, e.File.PreviousFolderPath, e.Process.FolderPath, e.Process.CommandLine, e.Initiating.FolderPath,
		e.Initiating.CommandLine, e.Network.RemoteURL, e.Network.RemoteIP, e.Network.LocalIP, e.Logon.AccountName,
	} {
		if strings.Contains(strings.ToLower(text), want) {
			return true
		}
	}
	return false
}

func roughSize(e *event.Event) int {
	n := eventOverhead + len(e.Process.CommandLine) + len(e.Initiating.CommandLine) + len(e.File.FolderPath)
	for k, v := range e.Additional {
		n += len(k) + len(v)
	}
	return n
}

func checkFilter(f api.EventFilter) error {
	if f.Category == "" {
		return nil
	}
	var known []string
	for _, c := range event.Categories() {
		if f.Category == string(c) {
			return nil
		}
		known = append(known, string(c))
	}
	return &api.Error{Code: api.InvalidArgument, Message: fmt.Sprintf("category %q is unknown; there are %s", f.Category, strings.Join(known, ", "))}
}

// RecentEvents implements control.SensorEvents: the newest that fit an answer,
// oldest first.
func (f *eventFeed) RecentEvents(_ context.Context, filter api.EventFilter) (api.SensorEvents, error) {
	out := api.SensorEvents{Events: []event.Event{}}
	if err := checkFilter(filter); err != nil {
		return out, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	left := feedBytes
	from := &f.all
	if filter.Category == string(event.CategoryBehavior) {
		from = &f.behaviors
	}
	for i := range from.events {
		e := from.newest(i)
		if !chosen(&filter, e) {
			continue
		}
		if left -= roughSize(e); left < 0 {
			break
		}
		out.Events = append(out.Events, *e)
	}
	for i, j := 0, len(out.Events)-1; i < j; i, j = i+1, j-1 {
		out.Events[i], out.Events[j] = out.Events[j], out.Events[i]
	}
	return out, nil
}

// FollowSensorEvents implements control.SensorEvents.
func (f *eventFeed) FollowSensorEvents(ctx context.Context, filter api.EventFilter, send func(api.SensorEvents) error) error {
	if err := checkFilter(filter); err != nil {
		return err
	}
	w := &follower{filter: filter, wake: make(chan struct{}, 1)}
	f.mu.Lock()
	if len(f.followers) >= maxFollowers {
		f.mu.Unlock()
		return &api.Error{Code: api.Unavailable, Message: fmt.Sprintf("%d others follow the events already", maxFollowers)}
	}
	if f.followers == nil {
		f.followers = make(map[*follower]struct{})
	}
	f.followers[w] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.followers, w)
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		f.mu.Lock()
		events, missed := w.events, w.missed
		w.events, w.missed = nil, 0
		f.mu.Unlock()
		for len(events) > 0 || missed > 0 {
			n, left := 0, feedBytes
			for n < len(events) && (n == 0 || left > 0) {
				left -= roughSize(&events[n])
				n++
			}
			if err := send(api.SensorEvents{Events: events[:n:n], Missed: missed}); err != nil {
				return err
			}
			events, missed = events[n:], 0
		}
	}
}

// ProcessTree implements control.SensorEvents.
func (f *eventFeed) ProcessTree(_ context.Context, pid int64) (api.ProcessTree, error) {
	nodes, cut := f.a.table.Tree(int(pid), maxTreeNodes)
	if len(nodes) == 0 {
		return api.ProcessTree{}, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("process %d is not known: it does not run and has not run lately", pid)}
	}
	out := api.ProcessTree{PID: pid, Cut: cut, Processes: make([]api.TreeProcess, 0, len(nodes))}
	for _, n := range nodes {
		out.Processes = append(out.Processes, api.TreeProcess{Depth: n.Depth, Ended: n.Ended, Process: n.Process})
	}
	return out, nil
}
