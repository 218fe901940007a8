package silence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

// fleet is a portal's stores with a clock.
type fleet struct {
	t       *testing.T
	control *sqlstore.Store
	alerts  *alert.Service
	devices *inventory.Service
	now     time.Time
	n       int
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	control, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	f := &fleet{t: t, control: control, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	f.alerts = alert.NewService(control.Alerts(), f.clock)
	f.devices = inventory.New(control.Inventory(), inventory.DefaultThresholds(), f.clock)
	return f
}

func (f *fleet) clock() time.Time { return f.now }

func (f *fleet) watch() *Watch {
	return New(Config{Devices: f.devices, Alerts: f.alerts, After: time.Hour, Log: slog.New(slog.DiscardHandler), Now: f.clock})
}

// device enrolls one, which reports its health now.
func (f *fleet) device(health string) string {
	f.t.Helper()
	f.n++
	id := fmt.Sprintf("%040x", f.n)
	info := &agentv1.DeviceInfo{HostName: fmt.Sprintf("host-%d", f.n), OsPlatform: "Linux"}
	err := f.control.Enroll().Enroll(f.t.Context(), enroll.Enrollment{
		Device:      enroll.Device{ID: id, HardwareID: "hw" + id, MachineGUID: "guid" + id, Enrolled: f.now, Info: info},
		Certificate: enroll.Certificate{Serial: "01" + id, DeviceID: id, NotBefore: f.now, NotAfter: f.now.Add(time.Hour)},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.report(id, health)
	return id
}

func (f *fleet) report(id, health string) {
	f.t.Helper()
	d := inventory.Describe(id, &agentv1.DeviceInfo{HostName: "host-" + id[38:], OsPlatform: "Linux"})
	d.Health = []byte(health)
	if err := f.devices.Put(f.t.Context(), d); err != nil {
		f.t.Fatal(err)
	}
}

// raised are the alerts of Watches about a device: severity and title.
func (f *fleet) raised(id string) []string {
	f.t.Helper()
	list, _, err := f.alerts.List(f.t.Context(), query.Query{Filter: query.And{
		Left:  query.Compare{Field: "machineId", Op: query.Eq, Value: id},
		Right: query.Compare{Field: "detectionSource", Op: query.Eq, Value: Source},
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	out := []string{}
	for _, a := range list {
		out = append(out, string(a.Detection.Severity)+": "+a.Detection.Title)
	}
	return out
}

func sweep(t *testing.T, w *Watch) {
	t.Helper()
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSweep(t *testing.T) {
	f := newFleet(t)
	const silent, stopped = "The agent stopped reporting without signing off", "The agent was stopped"
	w := f.watch()
	f.now = f.now.Add(2 * time.Hour)
	cases := []struct {
		name, health string
		tampered     bool
		want         []string
	}{
		{"protected", `{"tamper_protection":"audit"}`, false, []string{"Medium: " + silent}},
		{"protected, block", `{"tamper_protection":"block"}`, false, []string{"Medium: " + silent}},
		{"killed by somebody", `{"tamper_protection":"audit"}`, true, []string{"High: " + silent}},
		{"signed off", `{"tamper_protection":"audit","signed_off":true}`, false, nil},
		{"stopped by somebody", `{"tamper_protection":"block","signed_off":true}`, true, []string{"High: " + stopped}},
		{"not protected", `{"tamper_protection":"disabled"}`, true, nil},
		{"says nothing", `{}`, true, nil},
		{"says nonsense", `{"tamper_protection":["audit"],"signed_off":3}`, false, nil},
		{"left the portal", `{"tamper_protection":"audit"}`, false, nil},
	}
	ids := make([]string, len(cases))
	for i, tt := range cases {
		ids[i] = f.device(tt.health)
		if tt.tampered {
			d := event.Alert{
				ID: fmt.Sprintf("%032x", 1000+i), Time: f.now.Add(-time.Minute), Title: "Security software or auditing is switched off",
				Severity: event.SeverityMedium, Category: "DefenseEvasion", Source: event.SourceEDR, DetectorID: stoppers[0],
			}
			if _, err := f.alerts.Accept(t.Context(), ids[i], "host", d, f.now); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.control.Enroll().RevokeDevice(t.Context(), ids[len(ids)-1], f.now); err != nil {
		t.Fatal(err)
	}
	began := f.now
	check := func(when string, alerts bool) {
		t.Helper()
		for i, tt := range cases {
			want := tt.want
			if !alerts {
				want = nil
			}
			if got := strings.Join(f.raised(ids[i]), "; "); got != strings.Join(want, "; ") {
				t.Errorf("%s, %s: %q, want %q", tt.name, when, got, want)
			}
		}
	}
	f.now = began.Add(59 * time.Minute)
	sweep(t, w)
	check("before the time", false)
	f.now = began.Add(61 * time.Minute)
	sweep(t, f.watch())
	check("by a portal that was off itself", false)
	for range 2 {
		sweep(t, w)
		check("after the time, once", true)
		f.now = f.now.Add(time.Hour)
	}
	// It comes back and falls silent again: another alert.
	f.report(ids[0], cases[0].health)
	sweep(t, w)
	if got := f.raised(ids[0]); len(got) != 1 {
		t.Errorf("back again: %v", got)
	}
	f.now = f.now.Add(2 * time.Hour)
	sweep(t, w)
	if got := f.raised(ids[0]); len(got) != 2 {
		t.Errorf("silent again: %v", got)
	}
}

func TestManySilentDevices(t *testing.T) {
	f := newFleet(t)
	w := f.watch()
	f.now = f.now.Add(2 * time.Hour)
	for range MaxAlerts + 5 {
		f.device(`{"tamper_protection":"audit"}`)
	}
	f.now = f.now.Add(2 * time.Hour)
	count := func() int {
		_, n, err := f.alerts.List(t.Context(), query.Query{Filter: query.Compare{Field: "detectorId", Op: query.Eq, Value: Detector}, Top: 1, Count: true})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, want := range []int{MaxAlerts, MaxAlerts + 5, MaxAlerts + 5} {
		sweep(t, w)
		if got := count(); got != want {
			t.Errorf("%d alerts, want %d", got, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Sweep(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a store that does not answer: %v", err)
	}
}

// The rules that tell of security software that is ended are those that are
// shipped.
func TestStoppers(t *testing.T) {
	all, err := detection.ReadShipped(rules.FS())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range all {
		if strings.HasSuffix(r.File, "protection_stopped.yml") {
			ids = append(ids, r.ID)
		}
	}
	if len(ids) == 0 || !slices.Equal(ids, stoppers) {
		t.Errorf("shipped %v, known %v", ids, stoppers)
	}
}
