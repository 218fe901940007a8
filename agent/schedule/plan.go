// Package schedule starts scans by the clock: quick ones every few hours and
// once a day, a quick or full one once a week.
//
// Times of day are those of the host's time zone, on each date once: when clocks
// are put back nothing runs twice, when they are put forward nothing is left
// out. What was due while the host was off or the daemon stopped is made up for
// once, at the next opportunity. What was done is kept on disk.
package schedule

import (
	"fmt"
	"hash/fnv"
	"time"
)

// Plan says when to scan. The zero value is never.
type Plan struct {
	// Interval between quick scans; 0 for none.
	Interval time.Duration
	// Daily is the minute of the day of a quick scan, 1 to 1440 (midnight at its
	// end); 0 for none.
	Daily int
	// WeeklyDay is the day of the weekly scan: 1 for Sunday to 7 for Saturday, 8
	// for every day, 0 for none. Weekly is the minute of the day, 0 to 1440.
	WeeklyDay, Weekly int
	// WeeklyFull makes the weekly scan a full one.
	WeeklyFull bool
	// Random is up to how much later daily and weekly scans start.
	Random time.Duration
	// WhenIdle lets the weekly full scan wait until the host is idle.
	WhenIdle bool
}

// Job is one of the three series of scans.
type Job string

// The jobs.
const (
	Interval Job = "interval"
	Daily    Job = "daily"
	Weekly   Job = "weekly"
)

var jobs = []Job{Weekly, Daily, Interval} // a full scan stands for the quick ones that are due

// full reports whether a job's scan is a full one.
func (p Plan) full(j Job) bool { return j == Weekly && p.WeeklyFull }

// key describes when a job runs: a job with another key has nothing to make up
// for. It is empty for a job that does not run.
func (p Plan) key(j Job) string {
	switch {
	case j == Interval && p.Interval > 0:
		return p.Interval.String()
	case j == Daily && p.Daily > 0:
		return fmt.Sprintf("at %d", p.Daily)
	case j == Weekly && p.WeeklyDay > 0:
		return fmt.Sprintf("on %d at %d", p.WeeklyDay, p.Weekly)
	}
	return ""
}

// maxRandom keeps a delayed daily scan before the next one, also on the short
// day on which clocks are put forward.
const maxRandom = 22 * time.Hour

// occurrence is one time that a daily or weekly job is due.
type occurrence struct {
	date  string // YYYY-MM-DD, which names it
	due   time.Time
	start time.Time // due and the random delay
}

// minute returns the minute of the day and the weekday (0: every day) of a job.
func (p Plan) minute(j Job) (minute, day int) {
	if j == Daily {
		return p.Daily, 0
	}
	return p.Weekly, p.WeeklyDay % 8
}

// latest returns the last occurrence of a daily or weekly job that was due at
// now or before. seed makes the delays of this host its own.
func (p Plan) latest(j Job, now time.Time, seed string) occurrence {
	minute, day := p.minute(j)
	// A minute of 1440 belongs to the day that ends with it.
	for back := 0; ; back++ {
		o := p.at(j, now, -back, minute, seed)
		if !o.due.After(now) && matches(now, -back, day) {
			return o
		}
	}
}

// next returns the first occurrence that is due after now.
func (p Plan) next(j Job, now time.Time, seed string) occurrence {
	minute, day := p.minute(j)
	for ahead := -1; ; ahead++ {
		o := p.at(j, now, ahead, minute, seed)
		if o.due.After(now) && matches(now, ahead, day) {
			return o
		}
	}
}

func matches(now time.Time, days, day int) bool {
	y, m, d := now.Date()
	return day == 0 || int(time.Date(y, m, d+days, 12, 0, 0, 0, now.Location()).Weekday()) == day-1
}

// at is the occurrence that many days after the day of now.
func (p Plan) at(j Job, now time.Time, days, minute int, seed string) occurrence {
	y, m, d := now.Date()
	noon := time.Date(y, m, d+days, 12, 0, 0, 0, now.Location()) // every day has one
	o := occurrence{
		date: noon.Format(time.DateOnly),
		due:  time.Date(y, m, d+days, minute/60, minute%60, 0, 0, now.Location()),
	}
	o.start = o.due
	if most := min(p.Random, maxRandom); most > 0 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %s %s", seed, j, o.date) // never fails
		o.start = o.due.Add(time.Duration(mix(h.Sum64()) % uint64(most)))
	}
	return o
}

// mix spreads the bits of a hash (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
