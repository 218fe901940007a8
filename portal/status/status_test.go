package status

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// A part that hangs, fails or panics costs its own lines, not those of the others;
// one that hangs is not asked a second time meanwhile.
func TestReport(t *testing.T) {
	release, asked := make(chan struct{}), atomic.Int64{}
	var log strings.Builder
	s := New(Sources{
		Portal:       Portal{Version: "1.2.3"},
		Options:      []Option{{Name: "listen", Value: "a"}},
		Certificates: func() []Certificate { return []Certificate{{Use: "portal"}} },
		Control: func(context.Context) (Control, error) {
			asked.Add(1)
			<-release // whatever the context says
			return Control{Kind: "late"}, nil
		},
		Events: func(ctx context.Context) (eventstore.Inspection, error) {
			<-ctx.Done()
			return eventstore.Inspection{Kind: "half"}, ctx.Err()
		},
		Ingest:  func() Ingest { return Ingest{Events: 5} },
		Exports: func(context.Context) (Exports, error) { return Exports{}, errors.New("no table") },
		Archive: func() Archive { return Archive{} },
		SignIn:  func(context.Context) (SignIn, error) { panic("boom") },
		Definitions: func(context.Context) (Definitions, error) {
			return Definitions{Releases: []Release{{Version: "7"}}}, nil
		},
		Packages: func(context.Context) (Packages, error) { return Packages{}, nil },
		Log:      slog.New(slog.NewTextHandler(&log, nil)), Now: time.Now,
	})
	s.patience = 2 * time.Second // a busy machine must have the others answer
	for range 2 {
		r := s.Report(t.Context())
		late := "does not answer within 2s"
		if r.Control.Error != late || r.Control.Kind != "" || r.Events.Error != late || r.Events.Kind != "half" {
			t.Errorf("what hangs: %+v %+v", r.Control, r.Events)
		}
		if r.Exports.Error != "no table" || r.SignIn.Error != "the portal failed; its log says why" {
			t.Errorf("what fails: %+v %+v", r.Exports, r.SignIn)
		}
		if r.Portal.Version != "1.2.3" || r.Ingest.Events != 5 || r.Definitions.Error != "" || len(r.Definitions.Releases) != 1 || len(r.Options) != 1 || len(r.Certificate) != 1 {
			t.Errorf("the others: %+v", r)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("what hangs was asked %d times", n)
	}
	close(release)
	s.control <- struct{}{} // it has ended
	<-s.control
	if r := s.Report(t.Context()); r.Control.Kind != "late" || r.Control.Error != "" {
		t.Errorf("after it answers again: %+v", r.Control)
	}
	if !strings.Contains(log.String(), "boom") {
		t.Error("the panic is not in the log")
	}
}
