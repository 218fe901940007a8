package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/logging"
	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/agent/scan/ondemand"
	"github.com/bulwarkhq/bulwark/agent/threat"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// openScanning makes the scanner pool and the on-demand scans.
func (a *Agent) openScanning() error {
	d := a.opts.Dirs
	var err error
	a.pool, err = scan.NewPool(scan.Config{
		Log: a.log.Logger("scanner"), Dir: compiledDir(d),
		Sources: a.definitionSources(), KnownClean: a.knownClean(),
		Program: a.opts.Program, Args: []string{"scanner"}, Start: a.starter.Start,
		CPUPercent: a.config.Current().Int(policy.KeyScannerCPU),
	})
	if err != nil {
		return err
	}
	a.scans, err = ondemand.Open(ondemand.Config{
		Log: a.log.Logger("ondemand"), Skipped: a.log.File(logging.ScanSkipFile, "ondemand"), Scanner: a.pool, History: filepath.Join(d.State, "scans.db"),
		Found: a.foundByScan,
		Excluded: func(path string, tell bool) bool {
			x, excluded := a.config.Current().Exclusions().Match(policy.UseScan, path, "", time.Now())
			if excluded && tell {
				a.config.Hidden(x, policy.UseScan, path)
			}
			return excluded
		},
		Unmonitored: func() []string { return unmonitored(a.config.Current()) },
		Threads:     func() int { return a.config.Current().Int(policy.KeyScanThreads) },
		Own:         a.ownFolders,
		Known:       filepath.Join(d.State, "known-files"),
		Definitions: a.definitionsInForce,
	})
	if err != nil {
		return err
	}
	return a.openSchedule()
}

// definitionsInForce identifies what judges files now; "" while nothing does.
func (a *Agent) definitionsInForce() string {
	info := a.pool.Info()
	return ondemand.DefinitionsOf(info.Engine, info.Definitions)
}

// foundByScan is the on-demand scans' Found.
func (a *Agent) foundByScan(ctx context.Context, f ondemand.Finding) ondemand.Outcome {
	found := finding{
		path: f.Path, file: f.File, verdict: f.Verdict,
		scan: threat.Scan{ID: f.ScanID, Type: string(f.Type)}, remediate: f.Remediate,
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.File.Fd()), &st); err == nil {
		found.user = a.userName(st.Uid)
	}
	row := a.remediation.handle(ctx, found)
	return ondemand.Outcome{TrackingID: row.TrackingID, Action: string(row.Status)}
}

// userName is the name of a user id, or the number where it has none.
func (a *Agent) userName(uid uint32) string {
	if name := a.table.Users().Name(uid); name != "" {
		return name
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// scans is the local API's resource of on-demand scans.
type scans struct{ a *Agent }

// updateBeforeScan bounds the update before a scan, where there are no periodic
// ones.
const updateBeforeScan = time.Minute

// followEvery is how often a follower hears of a running scan.
const followEvery = 200 * time.Millisecond

func (s scans) StartScan(ctx context.Context, r api.ScanRequest) (api.Scan, error) {
	spec := s.a.scanSpec(r.Type)
	spec.IgnoreExclusions, spec.Threads, spec.LowPriority, spec.All = r.IgnoreExclusions, r.Threads, r.LowPriority, r.All
	spec.StartedBy = s.a.userName(control.CallerFrom(ctx).UID)
	for _, p := range r.Paths {
		spec.Paths = append(spec.Paths, string(p))
	}
	if s.a.config.Current().Bool(policy.KeyAutomaticUpdate) && !s.a.updateSettings().Periodic {
		s.a.updater.BeforeScan(ctx, updateBeforeScan)
	}
	started, err := s.a.scans.Start(ctx, spec)
	switch {
	case errors.Is(err, ondemand.ErrRunning):
		return api.Scan{}, &api.Error{Code: api.Conflict, Message: err.Error(), Hint: "bulwark scan status --follow, or bulwark scan cancel"}
	case errors.Is(err, ondemand.ErrSpec):
		return api.Scan{}, &api.Error{Code: api.InvalidArgument, Message: err.Error()}
	case err != nil:
		return api.Scan{}, err
	}
	s.a.announceScan(started)
	return started, nil
}

// scanSpec is a scan of that type as policy wants it.
func (a *Agent) scanSpec(kind api.ScanType) ondemand.Spec {
	e := a.config.Current()
	return ondemand.Spec{
		Type: kind, Archives: e.Bool(policy.KeyScanArchives),
		// Passive and audit mode report only.
		Remediate: policy.ActsInScans(e.EnforcementLevel()),
	}
}

// announceScan tells followers and the portal of a scan's start, and of its end
// when that comes.
func (a *Agent) announceScan(started api.Scan) {
	a.announce(eventScan, fmt.Sprintf("%s scan started", started.Type), started)
	go a.announceEnd(started.ID)
}

// announceEnd tells followers and the portal how a scan ended.
func (a *Agent) announceEnd(id string) {
	err := protect(func() error {
		return a.scans.Follow(context.Background(), id, time.Second, func(p api.ScanProgress) error {
			if !p.Scan.State.Final() {
				return nil
			}
			a.announce(eventScan, fmt.Sprintf("%s scan: %s, %d files, %d threats", p.Scan.Type, p.Scan.State, p.Scan.Files, p.Scan.Threats), p.Scan)
			a.report(&event.Event{
				Time: time.Now(), Class: event.ClassDevice, Action: event.AntivirusScanCompleted,
				Additional: map[string]string{
					"ScanId": id, "ScanType": string(p.Scan.Type), "State": string(p.Scan.State),
					"Files": strconv.FormatInt(p.Scan.Files, 10), "Threats": strconv.FormatInt(p.Scan.Threats, 10),
				},
			})
			return nil
		})
	})
	if err != nil {
		a.log.Logger("ondemand").Error("end of a scan not announced", "scan", id, "error", err)
	}
}

func (s scans) CancelScan(ctx context.Context, id string) (api.Scan, error) {
	out, err := s.a.scans.Cancel(ctx, id)
	return out, noScan(err)
}

func (s scans) FollowScan(ctx context.Context, id string, send func(api.ScanProgress) error) error {
	viewer := s.a.viewer(ctx)
	return noScan(s.a.scans.Follow(ctx, id, followEvery, func(p api.ScanProgress) error {
		return send(viewer.progress(p))
	}))
}

func (s scans) ScanHistory(ctx context.Context) ([]api.Scan, error) {
	list, err := s.a.scans.List(0)
	viewer := s.a.viewer(ctx)
	for i := range list {
		list[i] = viewer.scan(list[i])
	}
	return list, err
}

func (s scans) Scan(ctx context.Context, id string) (api.ScanDetails, error) {
	r, err := s.a.scans.Get(id)
	if err != nil {
		return api.ScanDetails{}, notFound(err, ondemand.ErrNoScan, "no scan has the id "+id, "bulwark scan list shows the scans")
	}
	viewer := s.a.viewer(ctx)
	out := api.ScanDetails{Scan: viewer.scan(r.Scan), SkippedFiles: r.SkippedFiles}
	if out.SkippedFiles == nil || !viewer.all {
		out.SkippedFiles = []api.SkippedFile{}
	}
	return out, nil
}

func noScan(err error) error {
	return notFound(err, ondemand.ErrNoScan, "no such scan is running", "bulwark scan list shows the scans")
}
