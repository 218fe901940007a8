package portal

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/ingest/ingesttest"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

func TestSink(t *testing.T) {
	ingesttest.Run(t, func(t *testing.T) *ingesttest.Harness {
		path := filepath.Join(t.TempDir(), "control.db")
		events := eventstoretest.NewMemory()
		var control *sqlstore.Store
		var alerts *alert.Service
		open := func(t *testing.T) ingest.Sink {
			if control != nil {
				control.Close()
			}
			var err error
			if control, err = sqlstore.OpenSQLite(t.Context(), path); err != nil {
				t.Fatal(err)
			}
			alerts = alert.NewService(control.Alerts(), time.Now)
			return newSink(events, alerts, inventory.New(control.Inventory(), inventory.DefaultThresholds(), time.Now), slog.New(slog.DiscardHandler), newMetrics())
		}
		h := &ingesttest.Harness{Sink: open(t), Reopen: open}
		t.Cleanup(func() { control.Close() })
		h.AddDevice = func(t *testing.T, id string) { addDevice(t, control, id, "host-"+id[:2]) }
		h.ReportIDs = func(t *testing.T, id string) []uint64 {
			var out []uint64
			for _, r := range eventstoretest.All(t, events, eventstore.TimelineQuery{DeviceID: id, Limit: 1000}) {
				out = append(out, uint64(r.ReportID))
			}
			return out
		}
		h.AlertIDs = func(t *testing.T, id string) []string {
			list, _, err := alerts.List(t.Context(), query.Query{Filter: query.Compare{Field: "machineId", Op: query.Eq, Value: id}})
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, a := range list {
				out = append(out, a.Detection.ID)
			}
			slices.Sort(out)
			return out
		}
		h.Lost = func(t *testing.T, id string) map[string]uint64 {
			lost, err := events.Lost(t.Context(), id, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			return lost
		}
		h.Resolve = func(t *testing.T, id string) {
			status := alert.Resolved
			if _, err := alerts.Update(t.Context(), id, alert.Change{Status: &status}, "ann", ""); err != nil {
				t.Fatal(err)
			}
		}
		h.Resolved = func(t *testing.T, id string) bool {
			a, err := alerts.Get(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return a.Status == alert.Resolved
		}
		return h
	})
}

// addDevice enrols a device as the EnrollmentService would.
func addDevice(t testing.TB, control *sqlstore.Store, id, host string) {
	t.Helper()
	now := time.Now()
	err := control.Enroll().Enroll(t.Context(), enroll.Enrollment{
		Device: enroll.Device{
			ID: id, HardwareID: "hw" + id, MachineGUID: "guid" + id, Enrolled: now,
			Info: &agentv1.DeviceInfo{HostName: host, OsPlatform: "Linux", OsDistribution: "debian", OsVersion: "12", IpAddresses: []string{"192.0.2.7"}},
		},
		Certificate: enroll.Certificate{Serial: "01" + id, DeviceID: id, NotBefore: now, NotAfter: now.Add(time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
}
