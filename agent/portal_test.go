package agent

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// The portal hears at once of a scan that it ordered, and then now and then how
// far it is; a report that does not arrive holds nothing up.
func TestScanReport(t *testing.T) {
	var told []string
	r := scanReport{every: 30 * time.Second, log: slog.New(slog.DiscardHandler), report: func(m string) error {
		told = append(told, m)
		return errors.New("away")
	}}
	begin := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	p := api.ScanProgress{Scan: api.Scan{ID: "s1"}}
	for second := range 76 {
		p.Scan.Files, p.Scan.Unchanged = int64(second), int64(10*second)
		if second == 50 {
			p.Scan.Threats, p.FilesTotal, p.Counted = 1, 5000, true
		}
		r.tell(p, begin.Add(time.Duration(second)*time.Second))
	}
	if want := []string{"scan s1", "scan s1: 330 files so far, 0 threats", "scan s1: 660 of 5000 files so far, 1 threats"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
