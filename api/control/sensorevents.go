package control

import (
	"context"
	"net/url"
	"strconv"

	"github.com/bulwarkhq/bulwark/event"
)

// EventFilter chooses events of the sensors; empty members choose all.
type EventFilter struct {
	Category string // event.Category
	Action   string // ActionType
	// Text is in the name of the file, the program, its command line, the host
	// name or the address; letter case does not matter.
	Text string
	PID  int64 // of the process or of the one that did it
}

func (f EventFilter) query() string {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("category", f.Category)
	set("action", f.Action)
	set("text", f.Text)
	if f.PID != 0 {
		set("pid", strconv.FormatInt(f.PID, 10))
	}
	return v.Encode()
}

// SensorEvents are events in the order in which the agent passes them on.
type SensorEvents struct {
	Events []event.Event `json:"events"`
	// Missed counts the chosen events that came faster than they were fetched.
	Missed int64 `json:"missed"`
}

// ProcessTree is a process with those that it comes from and those that come
// from it.
type ProcessTree struct {
	// PID was asked for.
	PID int64 `json:"pid"`
	// Processes begin with the oldest known ancestor; the parent of each is the
	// last one before it of the depth above.
	Processes []TreeProcess `json:"processes"`
	// Cut says that there are more than an answer holds.
	Cut bool `json:"cut"`
}

// TreeProcess is a process of a tree.
type TreeProcess struct {
	Depth int  `json:"depth"`
	Ended bool `json:"ended"`
	event.Process
}

// RecentEvents asks for the last events of the sensors that the agent has in
// memory.
func (c *Client) RecentEvents(ctx context.Context, f EventFilter) (SensorEvents, error) {
	return call[SensorEvents](ctx, c, "GET", "/v1/edr/events?"+f.query(), nil)
}

// FollowSensorEvents calls each with the sensors' events from now on.
func (c *Client) FollowSensorEvents(ctx context.Context, f EventFilter, each func(SensorEvents) error) error {
	return stream(ctx, c, "GET", "/v1/edr/events/follow?"+f.query(), nil, each)
}

// ProcessTree asks for the tree of a process that runs or ended not long ago.
func (c *Client) ProcessTree(ctx context.Context, pid int64) (ProcessTree, error) {
	return call[ProcessTree](ctx, c, "GET", "/v1/edr/tree/"+strconv.FormatInt(pid, 10), nil)
}
