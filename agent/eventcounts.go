package agent

import (
	"cmp"
	"context"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// Bounds of one count: of the names that are kept apart, and of those in an
// answer, so that it fits a frame.
const (
	maxCountedNames = 20_000
	maxShownNames   = 100
)

// eventCounts counts the sensors' events for those who ask for it; without
// anybody it costs one lock of an empty set.
type eventCounts struct {
	a *Agent

	mu     sync.Mutex
	counts map[*eventCount]struct{}
}

// eventCount is one running count.
type eventCount struct {
	start                     time.Time
	lost                      uint64 // before it began
	files, initiators, others map[string]int64
	syscalls                  map[int]int64
	unnamed                   int64 // beyond maxCountedNames
}

// see counts an event.
func (c *eventCounts) see(e *event.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.counts {
		n.add(e)
	}
}

func (n *eventCount) add(e *event.Event) {
	file := e.File.FolderPath
	if e.Class == event.ClassProcess {
		file = e.Process.FolderPath
	}
	n.name(n.files, file)
	n.name(n.initiators, e.Initiating.FolderPath)
	n.others[strings.ToLower(e.Class.String())+"_count"]++
	n.others[e.Action+"_count"]++
	if nr, ok := syscallOf(e.Action); ok {
		n.syscalls[nr]++
	}
}

func (n *eventCount) name(in map[string]int64, name string) {
	if name == "" {
		return
	}
	if _, known := in[name]; !known && len(in) >= maxCountedNames {
		n.unnamed++
		return
	}
	in[name]++
}

// syscallOf is the number of the system call that an action stands for.
func syscallOf(action string) (int, bool) {
	numbers := map[string]int{ // x86_64
		event.ProcessCreated: 59, event.ProcessTerminated: 60, event.FileRenamed: 82, event.FileDeleted: 87,
		event.FileCreated: 257, event.ConnectionAttempt: 42, event.ConnectionSuccess: 42, event.ConnectionFailed: 42,
		event.InboundConnectionAccepted: 288, event.ListeningConnection: 50,
	}
	if runtime.GOARCH == "arm64" {
		numbers = map[string]int{
			event.ProcessCreated: 221, event.ProcessTerminated: 93, event.FileRenamed: 38, event.FileDeleted: 35,
			event.FileCreated: 56, event.ConnectionAttempt: 203, event.ConnectionSuccess: 203, event.ConnectionFailed: 203,
			event.InboundConnectionAccepted: 242, event.ListeningConnection: 201,
		}
	}
	nr, ok := numbers[action]
	return nr, ok
}

// FollowEventStatistics implements control.EventStatistics.
func (c *eventCounts) FollowEventStatistics(ctx context.Context, send func(api.EventStatistics) error) error {
	n := &eventCount{
		start: time.Now(), lost: c.lost(), files: map[string]int64{}, initiators: map[string]int64{},
		others: map[string]int64{}, syscalls: map[int]int64{},
	}
	c.mu.Lock()
	if c.counts == nil {
		c.counts = map[*eventCount]struct{}{}
	}
	c.counts[n] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.counts, n)
	}()
	return every(ctx, func() error { return send(c.report(n)) })
}

// lost is how many events the sensors have lost since the start.
func (c *eventCounts) lost() uint64 {
	var lost uint64
	for _, class := range c.a.pipeline.Health() {
		lost += class.Lost
	}
	return lost
}

func (c *eventCounts) report(n *eventCount) api.EventStatistics {
	out := api.EventStatistics{Start: n.start, End: time.Now(), Subsystem: "unavailable"}
	for _, class := range c.a.pipeline.Health() {
		if class.Category == event.CategoryProcess && class.Source != "" {
			out.Subsystem = class.Source
		}
	}
	dropped := c.lost() - n.lost
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := map[string]int64{}
	for nr, count := range n.syscalls {
		calls[strconv.Itoa(nr)] = count
	}
	out.Files, out.Initiators, out.Syscalls = mostFrequent(n.files), mostFrequent(n.initiators), mostFrequent(calls)
	others := maps.Clone(n.others)
	others["dropped_count"] = int64(dropped)
	others["unnamed_count"] = n.unnamed
	out.Counters = mostFrequent(others)
	return out
}

// mostFrequent lists names by their counts, as many as fit a frame.
func mostFrequent(counts map[string]int64) []api.NamedCount {
	out := make([]api.NamedCount, 0, len(counts))
	for name, count := range counts {
		out = append(out, api.NamedCount{Name: api.Path(name), Count: count})
	}
	slices.SortFunc(out, func(x, y api.NamedCount) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), strings.Compare(string(x.Name), string(y.Name)))
	})
	out = out[:min(len(out), maxShownNames)]
	left := pathBytes
	for i, n := range out {
		if left -= len(n.Name); left < 0 {
			return out[:i]
		}
	}
	return out
}
