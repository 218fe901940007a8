package ingesttest

import (
	"testing"

	"github.com/bulwarkhq/bulwark/portal/ingest"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) *Harness {
		m := NewMemory()
		return &Harness{
			Sink: m,
			ReportIDs: func(_ *testing.T, device string) (ids []uint64) {
				for _, e := range m.Events(device) {
					ids = append(ids, e.ReportID)
				}
				return ids
			},
			AlertIDs: func(_ *testing.T, device string) (ids []string) {
				for _, a := range m.Alerts(device) {
					ids = append(ids, a.ID)
				}
				return ids
			},
			Lost:     func(_ *testing.T, device string) map[string]uint64 { return m.Lost(device) },
			Resolve:  func(_ *testing.T, id string) { m.Resolve(id) },
			Resolved: func(_ *testing.T, id string) bool { return m.Resolved(id) },
			Reopen:   func(*testing.T) ingest.Sink { return m },
		}
	})
}
