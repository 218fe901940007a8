package agent

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/scan/ondemand"
	"github.com/bulwarkhq/bulwark/agent/schedule"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// updateTimeout bounds fetching definitions before a scheduled scan.
const updateTimeout = 10 * time.Minute

// openSchedule makes the scheduler of scans.
func (a *Agent) openSchedule() error {
	var err error
	a.schedule, err = schedule.New(schedule.Config{
		Log: a.log.Logger("schedule"), State: filepath.Join(a.opts.Dirs.State, "schedule.json"),
		Plan:        func() schedule.Plan { return planOf(a.config.Current()) },
		Definitions: a.definitionsInForce,
		AfterUpdate: func() bool {
			e := a.config.Current()
			return e.Bool(policy.KeyScanAfterUpdate) && e.EnforcementLevel() == policy.RealTime
		},
		Running: a.scans.Running,
		Start:   a.startScheduled,
	})
	return err
}

// planOf is what policy says about scheduled scans.
func planOf(e policy.Effective) schedule.Plan {
	if e.String(policy.KeyScheduledScan) != policy.Enabled {
		return schedule.Plan{}
	}
	return schedule.Plan{
		Interval:  time.Duration(e.Int(policy.KeyDailyInterval)) * time.Hour,
		Daily:     e.Int(policy.KeyDailyTime),
		WeeklyDay: e.Int(policy.KeyWeeklyDay), Weekly: e.Int(policy.KeyWeeklyTime), WeeklyFull: e.String(policy.KeyWeeklyType) == string(api.ScanFull),
		Random:   time.Duration(e.Int(policy.KeyScanRandomize)) * time.Hour,
		WhenIdle: e.Bool(policy.KeyScanWhenIdle),
	}
}

// runSchedule resumes the scan that the last stop interrupted, and starts
// scheduled ones until ctx ends.
func (a *Agent) runSchedule(ctx context.Context) error {
	switch resumed, err := a.scans.Resume(ctx); {
	case err == nil:
		a.log.Logger("ondemand").Info("scan resumed", "scan", resumed.ID, "type", resumed.Type, "times", resumed.Resumed)
		a.announceScan(resumed)
	case !errors.Is(err, ondemand.ErrNoScan) && ctx.Err() == nil:
		a.log.Logger("ondemand").Error("the interrupted scan is not resumed", "error", err)
	}
	return a.schedule.Run(ctx)
}

// startScheduled is the scheduler's Start.
func (a *Agent) startScheduled(ctx context.Context, s schedule.Scan) error {
	e := a.config.Current()
	kind := api.ScanQuick
	switch {
	case s.Processes:
		kind = api.ScanProcesses
	case s.Full:
		kind = api.ScanFull
	}
	automatic := e.Bool(policy.KeyAutomaticUpdate) && !a.updateSettings().Periodic
	if !s.Processes && (e.Bool(policy.KeyScanUpdateFirst) || automatic) {
		a.updater.BeforeScan(ctx, updateTimeout)
	}
	spec := a.scanSpec(kind)
	spec.Scheduled = true
	spec.LowPriority = s.LowPriority || e.Bool(policy.KeyScanLowPriority)
	spec.IgnoreExclusions = !s.Processes && e.Bool(policy.KeyScanIgnoreExclusions)
	started, err := a.scans.Start(ctx, spec)
	if err != nil {
		return err
	}
	a.announceScan(started)
	return nil
}

// scheduleHealth tells when the next scans are.
func (a *Agent) scheduleHealth(context.Context) health.Report {
	e := a.config.Current()
	jobs, err := a.schedule.Status()
	r := health.Report{Details: []api.Field{{Name: "scheduled_scan", Value: e.String(policy.KeyScheduledScan)}}}
	for _, j := range jobs {
		kind := "quick"
		if j.Full {
			kind = "full"
		}
		name := string(j.Job) + "_scan"
		r.Details = append(r.Details,
			api.Field{Name: name + "_type", Value: kind},
			api.Field{Name: name + "_next", Value: j.Start},
			api.Field{Name: name + "_last", Value: timeOrNever(j.Last)},
		)
		if j.Waiting != "" {
			r.Details = append(r.Details, api.Field{Name: name + "_waits_for", Value: j.Waiting})
		}
	}
	for _, key := range []string{policy.KeyScanRandomize, policy.KeyScanWhenIdle, policy.KeyScanLowPriority, policy.KeyScanUpdateFirst, policy.KeyScanIgnoreExclusions} {
		k, _ := policy.Lookup(key)
		r.Details = append(r.Details, api.Field{Name: k.Member(), Value: e.Get(key).Value})
	}
	if err != nil {
		r.Issues = append(r.Issues, api.Issue{
			ID: "scheduled scan not started", Warning: true, Message: err.Error(),
			Remedy: "it is tried again every five minutes; see bulwark.log for the cause",
		})
	}
	return r
}

func timeOrNever(t time.Time) any {
	if t.IsZero() {
		return "never"
	}
	return t
}

// lastScans are the newest scans that succeeded, for the antivirus details.
func (a *Agent) lastScans() []api.Field {
	list, err := a.scans.List(100)
	if err != nil {
		return nil
	}
	var out []api.Field
	for _, kind := range []api.ScanType{api.ScanQuick, api.ScanFull} {
		last := any("never")
		for _, s := range list {
			if s.Type == kind && s.State == api.ScanSucceeded {
				last = s.End
				break
			}
		}
		out = append(out, api.Field{Name: "last_" + string(kind) + "_scan", Value: last})
	}
	return out
}
