// Package silence raises an alert when a device that has tamper protection on
// calls no more and has not signed off, or did so just after somebody stopped
// security software there: whoever has root ends the agent, but not the portal.
package silence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Source is the source of these alerts (event.Alert.Source), Detector their
// DetectorID.
const (
	Source   = "TamperProtection"
	Detector = "device-silent"
)

const (
	// MaxAlerts is how many alerts one sweep raises; the next goes on.
	MaxAlerts = 100
	// longest is how long a silence is looked at after it began. A device that is
	// silent for longer has had its alert, or fell silent while the portal was off.
	longest = 24 * time.Hour
	// before is how long before the end of the calls an alert about the agent's
	// stopping counts.
	before = 15 * time.Minute
	page   = 500
	pages  = 200
)

// stoppers are the behaviour rules about security software that is ended
// (content/rules/protection_stopped.yml).
var stoppers = []string{"871f5ce1-bb20-5dc8-8062-e48b6261a416"}

// Config of a Watch.
type Config struct {
	Devices *inventory.Service
	Alerts  *alert.Service
	// After is how long a device may be silent.
	After time.Duration
	Log   *slog.Logger
	Now   func() time.Time
}

// Watch looks for silent devices.
type Watch struct {
	cfg   Config
	since time.Time // when it began
}

// New makes a Watch. It judges nothing until the portal has been up for
// Config.After: nobody could have called it before. A device that was shut down
// while the portal was off could not sign off, and has an alert then.
func New(cfg Config) *Watch { return &Watch{cfg: cfg, since: cfg.Now()} }

// report is what the last health of a device says about its end.
type report struct {
	TamperProtection string `json:"tamper_protection"`
	SignedOff        bool   `json:"signed_off"`
}

// reportOf reads a device's health; one that is no such thing says nothing.
func reportOf(health []byte) (r report) {
	if json.Unmarshal(health, &r) != nil {
		return report{}
	}
	return r
}

// Sweep raises the alerts that are due. An alert is raised once for each silence,
// however often it is called.
func (w *Watch) Sweep(ctx context.Context) error {
	now := w.cfg.Now()
	if now.Sub(w.since) < w.cfg.After {
		return nil
	}
	raised := 0
	for n := range pages {
		list, _, err := w.cfg.Devices.List(ctx, query.Query{
			Filter: query.And{
				Left:  query.Compare{Field: "lastSeen", Op: query.Lt, Value: now.Add(-w.cfg.After)},
				Right: query.Compare{Field: "lastSeen", Op: query.Gt, Value: now.Add(-w.cfg.After - longest)},
			},
			Order: []query.Order{{Field: "lastSeen"}, {Field: "id"}}, Top: page, Skip: n * page,
		})
		if err != nil {
			return fmt.Errorf("silent devices: %w", err)
		}
		ids := make([]string, len(list))
		for i := range list {
			ids[i] = alertID(&list[i])
		}
		known, err := w.cfg.Alerts.Known(ctx, ids)
		if err != nil {
			return fmt.Errorf("alerts about silent devices: %w", err)
		}
		for i := range list {
			if known[ids[i]] {
				continue
			}
			added, err := w.judge(ctx, &list[i])
			if err != nil {
				return err
			}
			if added {
				raised++
			}
			if raised >= MaxAlerts {
				w.cfg.Log.WarnContext(ctx, "many devices fell silent; the next sweep goes on", "alerts", raised)
				return nil
			}
		}
		if len(list) < page {
			break
		}
	}
	return nil
}

// judge raises the alert about a device, where there is reason to.
func (w *Watch) judge(ctx context.Context, d *inventory.Device) (bool, error) {
	r := reportOf(d.Health)
	if d.OnboardingStatus != "Onboarded" || !slices.Contains([]string{"audit", "block"}, r.TamperProtection) {
		return false, nil
	}
	stopped, err := w.stopped(ctx, d)
	if err != nil || r.SignedOff && stopped == "" {
		return false, err
	}
	a := describe(d, r.SignedOff, stopped)
	a.Time = w.cfg.Now()
	added, err := w.cfg.Alerts.Accept(ctx, d.ID, d.HostName, a, a.Time)
	if err != nil {
		return false, fmt.Errorf("alert about the silent device %s: %w", d.ID, err)
	}
	if added {
		w.cfg.Log.InfoContext(ctx, "a device with tamper protection is silent", "device", d.ID, "name", d.HostName, "last_seen", d.LastSeen, "signed_off", r.SignedOff, "alert", a.ID)
	}
	return added, nil
}

// stopped is the id of an alert about security software that was ended on the
// device shortly before its last call; empty for none.
func (w *Watch) stopped(ctx context.Context, d *inventory.Device) (string, error) {
	for _, rule := range stoppers {
		list, _, err := w.cfg.Alerts.List(ctx, query.Query{
			Filter: query.And{
				Left: query.Compare{Field: "machineId", Op: query.Eq, Value: d.ID},
				Right: query.And{
					Left:  query.Compare{Field: "detectorId", Op: query.Eq, Value: rule},
					Right: query.Compare{Field: "alertCreationTime", Op: query.Gt, Value: d.LastSeen.Add(-before)},
				},
			},
			Top: 1,
		})
		if err != nil {
			return "", fmt.Errorf("alerts of the silent device %s: %w", d.ID, err)
		}
		if len(list) > 0 {
			return list[0].Detection.ID, nil
		}
	}
	return "", nil
}

// alertID is the id of the alert about the silence of a device since its last
// call: the same each time.
func alertID(d *inventory.Device) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "silence\x00%s\x00%d", d.ID, d.LastSeen.UnixMicro()))
	return hex.EncodeToString(sum[:16])
}

// describe is the alert about a silence.
func describe(d *inventory.Device, signedOff bool, stopped string) event.Alert {
	last := d.LastSeen.UTC().Format(time.RFC3339)
	a := event.Alert{
		ID: alertID(d), Source: Source, DetectorID: Detector, Category: "DefenseEvasion",
		Techniques: []string{"T1562.001"}, Action: "none", Severity: event.SeverityMedium,
		Title: "The agent stopped reporting without signing off",
		Description: "The last call was at " + last + ". Tamper protection is on, and an agent that is stopped in order says so: " +
			"it was killed or taken away, the host lost its power or crashed, or it cannot reach the portal.",
	}
	if signedOff {
		a.Title = "The agent was stopped"
		a.Description = "The agent signed off at " + last + " and has not come back."
	}
	if stopped != "" {
		a.Severity = event.SeverityHigh
		a.Description += " Shortly before, the alert " + stopped + " was raised: security software was ended on this device."
	}
	return a
}
