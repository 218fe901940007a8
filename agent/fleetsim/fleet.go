package fleetsim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/bulwarkhq/bulwark/agent/uplink"
)

// Limits and defaults of a Config.
const (
	MaxAgents         = 100_000
	DefaultBatchDelay = 5 * time.Second // what the agent's spool has
	DefaultRamp       = 200.0           // agents a second
	maxEventsPerAgent = 1000.0          // a second
)

// Config of a Fleet.
type Config struct {
	// Onboarding is the path of the onboarding package, in its JSON form.
	Onboarding string
	// Dir keeps the identities, one folder per agent: a second run with the same
	// folder is the same fleet, which need not enroll again.
	Dir string
	// Agents is how many, 1 to MaxAgents.
	Agents int
	// Events is how many events each agent makes per second, on average; 0 for
	// none. AlertsPerDay is how many alerts, of each agent.
	Events, AlertsPerDay float64
	// BatchDelay is how long events wait for others before they are delivered;
	// DefaultBatchDelay when zero.
	BatchDelay time.Duration
	// Ramp is how many agents start per second; DefaultRamp when zero.
	Ramp float64
	// MaxBackoff bounds the pause of an agent after failures; 5 min when zero, as
	// of agents.
	MaxBackoff time.Duration
	// Seed makes the same devices and the same work; not the same keys.
	Seed uint64
	Log  *slog.Logger
}

// Fleet is a running simulation. It is safe for concurrent use.
type Fleet struct {
	cfg   Config
	stats counters
}

// New checks the settings and reads the onboarding package. The caller calls
// Run.
func New(cfg Config) (*Fleet, error) {
	switch {
	case cfg.Agents < 1 || cfg.Agents > MaxAgents:
		return nil, fmt.Errorf("%d agents: use 1 to %d", cfg.Agents, MaxAgents)
	case cfg.Events < 0 || cfg.Events > maxEventsPerAgent:
		return nil, fmt.Errorf("%g events per second and agent: use 0 to %g", cfg.Events, maxEventsPerAgent)
	case cfg.AlertsPerDay < 0 || cfg.AlertsPerDay > 86_400:
		return nil, fmt.Errorf("%g alerts per day and agent: use 0 to 86400", cfg.AlertsPerDay)
	case cfg.Ramp < 0 || cfg.BatchDelay < 0 || cfg.MaxBackoff < 0:
		return nil, errors.New("times and rates must not be negative")
	case cfg.Dir == "":
		return nil, errors.New("a folder for the identities is needed")
	}
	if cfg.BatchDelay == 0 {
		cfg.BatchDelay = DefaultBatchDelay
	}
	if cfg.Ramp == 0 {
		cfg.Ramp = DefaultRamp
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkPackage(cfg.Onboarding); err != nil {
		return nil, err
	}
	return &Fleet{cfg: cfg}, nil
}

// checkPackage finds out early what every agent would stumble over.
func checkPackage(path string) error {
	p, err := uplink.ReadPackage(path)
	if err != nil {
		return fmt.Errorf("%w (the JSON form is needed: onboard.json)", err)
	}
	if err := p.Usable(time.Now()); err != nil {
		return fmt.Errorf("onboarding package %s: %w", path, err)
	}
	return nil
}

// Run starts the agents, Config.Ramp a second, and returns when ctx has ended
// and all have stopped, or when one cannot be made.
func (f *Fleet) Run(ctx context.Context) error {
	// One encoder for all: each has megabytes of state.
	enc, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	begin := time.Now()
	for i := range f.cfg.Agents {
		if err := sleepUntil(ctx, begin.Add(time.Duration(float64(i)/f.cfg.Ramp*float64(time.Second)))); err != nil {
			return nil // told to stop
		}
		d, err := newDevice(&f.cfg, i, enc, &f.stats)
		if err != nil {
			return fmt.Errorf("agent %d: %w", i+1, err)
		}
		f.stats.add(d)
		wg.Go(func() {
			if err := d.uplink.Run(ctx); err != nil {
				f.cfg.Log.Error("agent", "name", d.name, "error", err)
			}
		})
	}
	<-ctx.Done()
	return nil
}

func sleepUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// folder of an agent's identity; not all in one, for the sake of the file system.
func (c *Config) folder(i int) string {
	return filepath.Join(c.Dir, fmt.Sprintf("%03d", i/1000), fmt.Sprintf("%06d", i))
}

// random is the source of an agent's choices.
func (c *Config) random(i int) *rand.Rand {
	return rand.New(rand.NewPCG(c.Seed, uint64(i)+1)) //nolint:gosec // a simulation that can be repeated
}

// Finish ends the work: no agent makes events or alerts any more. They stay
// connected and deliver what they have made. When a Snapshot has nothing Waiting
// then, the portal has acknowledged everything.
func (f *Fleet) Finish() { f.stats.finished.Store(true) }

// Statuses returns the state of every agent that was started.
func (f *Fleet) Statuses() []uplink.Status {
	devices := f.stats.list()
	out := make([]uplink.Status, len(devices))
	for i, d := range devices {
		out[i] = d.uplink.Status()
	}
	return out
}
