package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/policy"
)

// Values of portal_status.
const (
	portalConnected   = "connected"
	portalConnecting  = "connecting"
	portalUnreachable = "unreachable"
	portalNotEnrolled = "not_enrolled"
	portalRefused     = "refused"
)

// The states of a command, as the protocol has them.
const (
	commandRunning   = "InProgress"
	commandSucceeded = "Succeeded"
	commandFailed    = "Failed"
	commandCancelled = "Cancelled"
)

// openUplink makes the connection to the portal.
func (a *Agent) openUplink() error {
	var err error
	a.uplink, err = uplink.New(uplink.Options{
		Onboarding: a.opts.Dirs.Onboarding(), Identity: a.identity, Spool: a.spool, Version: a.opts.Version,
		Proxy: func() string { return a.config.Current().String(policy.KeyProxy) },
		Tags: func() []onboarding.Tag {
			var out []onboarding.Tag
			for _, t := range a.config.Current().Tags() {
				out = append(out, onboarding.Tag{Key: t.Key, Value: t.Value})
			}
			return out
		},
		Health:        a.healthJSON,
		PolicyVersion: a.config.PolicyVersion,
		SignOff: func() bool {
			if a.config.Current().String(policy.KeyTamperProtection) == policy.Disabled {
				return false
			}
			a.signedOff.Store(true)
			return true
		},
		ApplyPolicy: func(version string, data []byte) error {
			problems, err := a.config.ApplyPortal(data, version)
			for _, p := range problems {
				a.log.Logger("config").Warn("the portal's policy", "problem", p.String())
			}
			return err
		},
		Indicators:      func() (string, int) { return a.indicators.Version(), a.indicators.Len() },
		ApplyIndicators: func(list []byte) error { return a.indicators.SetPortal(list) },
		Command:         a.command,
		Changed: func(s uplink.Status) {
			a.announce("health", "portal: "+string(s.State), nil)
		},
		Log: a.log.Logger("portal"),
	})
	return err
}

// command carries out a response action.
func (a *Agent) command(ctx context.Context, c *agentv1.Command, report uplink.Report) {
	log := a.log.Logger("respond")
	log.Info("command from the portal", "id", c.GetId(), "type", c.GetType())
	var out outcome
	err := protect(func() (err error) {
		out, err = a.carryOut(ctx, c, report)
		return err
	})
	if errors.Is(err, errReported) {
		return
	}
	if err != nil {
		out.status, out.message = commandFailed, err.Error()
	}
	log.Info("command ended", "id", c.GetId(), "type", c.GetType(), "status", out.status, "message", out.message)
	var result []byte
	if out.result != nil {
		if result, err = json.Marshal(out.result); err != nil {
			log.Error("result of a command left out", "id", c.GetId(), "error", err)
		}
	}
	if err := report(ctx, out.status, out.message, result); err != nil {
		log.Error("end of a command not reported", "id", c.GetId(), "error", err)
	}
}

// commandedScan runs the scan of a RunAntiVirusScan command to its end.
func (a *Agent) commandedScan(ctx context.Context, c *agentv1.Command, report uplink.Report) (status, message string, err error) {
	var p struct{ ScanType string }
	if err := json.Unmarshal(c.GetParametersJson(), &p); err != nil {
		return "", "", fmt.Errorf("parameters of the scan: %w", err)
	}
	types := map[string]api.ScanType{"Quick": api.ScanQuick, "Full": api.ScanFull}
	kind, ok := types[p.ScanType]
	if !ok {
		return "", "", fmt.Errorf("scan type %q is not one of Quick, Full", p.ScanType)
	}
	spec := a.scanSpec(kind)
	spec.StartedBy = "portal"
	started, err := a.scans.Start(ctx, spec)
	if err != nil {
		return "", "", err
	}
	progress := scanReport{every: scanReportEvery, log: a.log.Logger("respond"), report: func(message string) error {
		// The end of the scan is not to wait for a portal that is away now.
		ctx, cancel := context.WithTimeout(ctx, scanReportPatience)
		defer cancel()
		return report(ctx, commandRunning, message, nil)
	}}
	progress.tell(api.ScanProgress{Scan: started}, time.Now())
	go a.announceEnd(started.ID)
	err = a.scans.Follow(ctx, started.ID, 5*time.Second, func(p api.ScanProgress) error {
		if !p.Scan.State.Final() {
			progress.tell(p, time.Now())
			return nil
		}
		message = fmt.Sprintf("%d files, %d threats", p.Scan.Files, p.Scan.Threats)
		switch p.Scan.State {
		case api.ScanSucceeded:
			status = commandSucceeded
		case api.ScanCancelled:
			status = commandCancelled
		case api.ScanFailed, api.ScanRunning:
			status, message = commandFailed, p.Scan.Reason
		}
		return nil
	})
	return status, message, err
}

const (
	// scanReportEvery is how often the portal hears how far a scan is that it
	// ordered: seldom enough for an order to all devices of a large fleet.
	scanReportEvery    = 30 * time.Second
	scanReportPatience = 15 * time.Second
)

// scanReport tells the portal how far a scan is.
type scanReport struct {
	every  time.Duration
	report func(message string) error
	log    *slog.Logger
	last   time.Time
}

func (r *scanReport) tell(p api.ScanProgress, now time.Time) {
	if !r.last.IsZero() && now.Sub(r.last) < r.every {
		return
	}
	message := "scan " + p.Scan.ID
	if !r.last.IsZero() {
		of := ""
		if p.Counted {
			of = fmt.Sprintf(" of %d", p.FilesTotal)
		}
		message += fmt.Sprintf(": %d%s files so far, %d threats", p.Scan.Files+p.Scan.Unchanged, of, p.Scan.Threats)
	}
	r.last = now
	if err := r.report(message); err != nil {
		r.log.Warn("progress of a scan not reported", "scan", p.Scan.ID, "error", err)
	}
}

// licensed reports whether the host is enrolled.
func (a *Agent) licensed() bool { return licensed(a.uplink.Status()) }

func licensed(s uplink.Status) bool {
	return s.DeviceID != "" && s.State != uplink.NotEnrolled && s.State != uplink.Refused
}

func (a *Agent) portalHealth(context.Context) health.Report {
	s := a.uplink.Status()
	enrolled := s.DeviceID != ""
	status := portalUnreachable
	var issues []api.Issue
	switch s.State {
	case uplink.Connected:
		status = portalConnected
	case uplink.NotEnrolled:
		status = portalNotEnrolled
		issues = append(issues, health.NotEnrolled(a.opts.Dirs.Onboarding()))
	case uplink.Enrolling:
		status = portalConnecting
		if !enrolled {
			issues = append(issues, api.Issue{
				ID: health.MissingLicense, State: api.StateNotEnrolled,
				Message: "this host is being enrolled: " + s.Reason, Remedy: "wait, or run `bulwark connectivity test`",
			})
		}
	case uplink.Unreachable:
		issues = append(issues, health.PortalUnreachable(s.Portal, s.LastContact, errors.New(s.Reason)))
		if !enrolled {
			issues = append(issues, api.Issue{
				ID: health.MissingLicense, State: api.StateNotEnrolled,
				Message: "this host could not be enrolled yet: " + s.Reason, Remedy: "run `bulwark connectivity test`",
			})
		}
	case uplink.ExpiredPackage, uplink.BadPackage:
		status = portalNotEnrolled
		issues = append(issues, api.Issue{
			ID: health.MissingLicense, State: api.StateNotEnrolled,
			Message: "the onboarding package cannot be used: " + s.Reason,
			Remedy:  "download a new package in the portal and put it at " + a.opts.Dirs.Onboarding(),
		})
	case uplink.Refused:
		status = portalRefused
		issues = append(issues, api.Issue{
			ID: "refused by the portal", State: api.StateNotEnrolled,
			Message: "the portal refuses this host: " + s.Reason,
			Remedy:  "download a new onboarding package in the portal and put it at " + a.opts.Dirs.Onboarding(),
		})
	}
	e := a.config.Current()
	return health.Report{
		Fill: func(h *api.Health) {
			h.Licensed = licensed(s)
			if s.OrgID != "" {
				h.OrgID = s.OrgID
			}
			h.EDRMachineID, h.PortalURL, h.PortalStatus, h.PortalLastSeen = s.DeviceID, s.Portal, status, s.LastContact
			if s.Proxy != "" {
				h.Proxy = s.Proxy
			}
			h.EDRConfigurationVersion = a.config.PolicyVersion()
		},
		Issues: issues,
		Details: []api.Field{
			{Name: "portal_url", Value: s.Portal},
			{Name: "portal_status", Value: status},
			{Name: "portal_detail", Value: s.Reason},
			{Name: "proxy", Value: s.Proxy},
			{Name: "proxy_configured", Value: e.String(policy.KeyProxy) != ""},
		},
	}
}

// connectivity is the local API's connectivity test.
type connectivity struct{ a *Agent }

func (c connectivity) TestConnectivity(ctx context.Context, send func(api.ConnectivityResult) error) error {
	var results []network.Result
	// A host without a portal may have mirrors only.
	if c.a.uplink.Status().State != uplink.NotEnrolled || len(c.a.updater.Endpoints()) == 0 {
		results = c.a.uplink.ConnectivityTest(ctx)
	}
	for _, r := range append(results, c.a.updater.ConnectivityTest(ctx)...) {
		err := send(api.ConnectivityResult{
			URL: r.URL, Purpose: r.Step, OK: r.OK, Detail: r.Detail, Hint: r.Hint, DurationMS: r.Duration.Milliseconds(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
