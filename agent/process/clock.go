package process

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the resolution of a process's start time in /proc/pid/stat (USER_HZ
// is 100 on every Linux that we run on). The table uses it everywhere, so that
// all sources agree on a process's identity.
const tick = 10 * time.Millisecond

// Clock turns the kernel's clocks into wall-clock time.
type Clock struct {
	// Boot is the wall-clock time at which CLOCK_BOOTTIME was zero. It is taken
	// once, so that a process's StartTime does not move when the wall clock is
	// set.
	Boot time.Time

	monoOffset  atomic.Int64 // wall minus CLOCK_MONOTONIC, ns
	monoChecked atomic.Int64 // CLOCK_MONOTONIC of the last look, ns
}

// NewClock reads the clocks. A boot other than zero is used as Clock.Boot: keep
// it over restarts of the agent to keep StartTime of living processes.
func NewClock(boot time.Time) (*Clock, error) {
	c := &Clock{Boot: boot}
	if boot.IsZero() {
		var ts unix.Timespec
		id := int32(unix.CLOCK_BOOTTIME)
		if err := unix.ClockGettime(id, &ts); err != nil {
			return nil, fmt.Errorf("clock_gettime(CLOCK_BOOTTIME): %w", err)
		}
		// Whole ticks: two readings in a row then agree almost always.
		c.Boot = time.Now().Add(-time.Duration(ts.Nano())).Round(tick).UTC()
	}
	c.refresh(monotonic())
	return c, nil
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

func (c *Clock) refresh(mono int64) {
	c.monoChecked.Store(mono)
	c.monoOffset.Store(time.Now().UnixNano() - mono)
}

// Mono gives the wall-clock time of a CLOCK_MONOTONIC reading in nanoseconds.
func (c *Clock) Mono(ns uint64) time.Time {
	// The wall clock may be set at any time: look again when a second passed.
	if int64(ns)-c.monoChecked.Load() > int64(time.Second) {
		c.refresh(monotonic())
	}
	return time.Unix(0, int64(ns)+c.monoOffset.Load()).UTC()
}

// Ticks gives the identity part of a start time on CLOCK_BOOTTIME in ns.
func Ticks(bootNS uint64) uint64 { return bootNS / uint64(tick) }

// Start gives the wall-clock start time of a process that started ticks after
// the machine did.
func (c *Clock) Start(ticks uint64) time.Time {
	return c.Boot.Add(time.Duration(ticks) * tick)
}

// TicksOf is the inverse of Start.
func (c *Clock) TicksOf(start time.Time) uint64 {
	d := start.Sub(c.Boot)
	if d < 0 {
		return 0
	}
	return uint64(d / tick)
}
