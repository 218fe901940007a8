package fleetsim

import (
	"maps"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/agent/uplink"
)

// maxFailures bounds the different failures that are told apart.
const maxFailures = 50

// counters count what happens to all agents.
type counters struct {
	batches, events, alerts, lost, checkIns, commands atomic.Uint64
	// waiting are the batches that were made and are not acknowledged; no more are
	// made when finished is set.
	waiting  atomic.Int64
	finished atomic.Bool
	// latency counts batches by the time between making and acknowledgement: the
	// buckets end at 1, 2, 4, ... ms.
	latency [32]atomic.Uint64

	mu       sync.Mutex
	devices  []*device
	failures map[string]uint64
}

// Snapshot is the state of a fleet at one moment. Counts are since the start.
type Snapshot struct {
	Agents    int `json:"agents"`    // that were started
	Connected int `json:"connected"` // whose last call succeeded
	// States counts the agents by state of their connection.
	States  map[uplink.State]int `json:"states"`
	Batches uint64               `json:"batches"`
	Events  uint64               `json:"events"`
	Alerts  uint64               `json:"alerts"`
	Lost    uint64               `json:"lost"`
	// Waiting is how many batches are not acknowledged now.
	Waiting  int64  `json:"waiting"`
	CheckIns uint64 `json:"check_ins"`
	Commands uint64 `json:"commands"`
	// AckP50, AckP90 and AckP99 are upper bounds (powers of two) of the milliseconds
	// between the making of a batch and its acknowledgement.
	AckP50 int64 `json:"ack_p50_ms"`
	AckP90 int64 `json:"ack_p90_ms"`
	AckP99 int64 `json:"ack_p99_ms"`
	// Failures counts calls that failed, by reason.
	Failures map[string]uint64 `json:"failures"`

	latency [32]uint64
}

func (c *counters) add(d *device) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.devices = append(c.devices, d)
}

// list returns the agents; those that are added later are not in it.
func (c *counters) list() []*device {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.devices
}

func (c *counters) delivered(events, alerts int, took time.Duration) {
	c.batches.Add(1)
	c.events.Add(uint64(events))
	c.alerts.Add(uint64(alerts))
	c.latency[min(bits.Len64(uint64(took.Milliseconds())), len(c.latency)-1)].Add(1)
}

// changed is told each change of an agent's connection.
func (c *counters) changed(s uplink.Status) {
	if s.Reason != "" && s.State != uplink.Enrolling {
		c.fail(string(s.State) + ": " + s.Reason)
	}
}

func (c *counters) fail(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures == nil {
		c.failures = map[string]uint64{}
	}
	if _, known := c.failures[reason]; !known && len(c.failures) >= maxFailures {
		reason = "others"
	}
	c.failures[reason]++
}

// Snapshot returns the state now.
func (f *Fleet) Snapshot() Snapshot {
	c := &f.stats
	s := Snapshot{
		Waiting: c.waiting.Load(), // first: what it leaves out is in the counts
		States:  map[uplink.State]int{}, Batches: c.batches.Load(), Events: c.events.Load(), Alerts: c.alerts.Load(),
		Lost: c.lost.Load(), CheckIns: c.checkIns.Load(), Commands: c.commands.Load(),
	}
	for _, st := range f.Statuses() {
		s.Agents++
		s.States[st.State]++
	}
	s.Connected = s.States[uplink.Connected]
	for i := range c.latency {
		s.latency[i] = c.latency[i].Load()
	}
	s.percentiles()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Failures = maps.Clone(c.failures)
	return s
}

// Since returns s with the counts and times of what happened after earlier.
func (s Snapshot) Since(earlier Snapshot) Snapshot {
	s.Batches -= earlier.Batches
	s.Events -= earlier.Events
	s.Alerts -= earlier.Alerts
	s.Lost -= earlier.Lost
	s.CheckIns -= earlier.CheckIns
	s.Commands -= earlier.Commands
	for i := range s.latency {
		s.latency[i] -= earlier.latency[i]
	}
	failures := map[string]uint64{}
	for reason, n := range s.Failures {
		if n -= earlier.Failures[reason]; n > 0 {
			failures[reason] = n
		}
	}
	s.Failures = failures
	s.percentiles()
	return s
}

func (s *Snapshot) percentiles() {
	s.AckP50, s.AckP90, s.AckP99 = percentile(&s.latency, 50), percentile(&s.latency, 90), percentile(&s.latency, 99)
}

// percentile returns the end of the bucket, in ms, that p of 100 values lie below.
func percentile(buckets *[32]uint64, p uint64) int64 {
	var total, below uint64
	for _, n := range buckets {
		total += n
	}
	if total == 0 {
		return 0
	}
	for i, n := range buckets {
		if below += n; below*100 >= total*p {
			return 1 << i
		}
	}
	return 0
}
