package config

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

func TestHidden(t *testing.T) {
	dir := t.TempDir()
	m, err := Open(PathsUnder(dir+"/managed.json", dir), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.AddExclusion(t.Context(), api.Exclusion{Type: "folder", Path: "/srv/data"}); err != nil {
		t.Fatal(err)
	}
	x := m.Current().Exclusions().All()[0]
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for range 10 {
				m.Hidden(x, policy.UseRealTime, "/srv/data/x")
			}
			m.Hidden(x, policy.UseScan, fmt.Sprint("/srv/data/", i))
		})
	}
	wg.Wait()
	m.Hidden(x, policy.UseScan, "/srv/data/last")
	// The counts stay when the configuration changes.
	if _, err := m.AddExclusion(t.Context(), api.Exclusion{Type: "process", Name: "cat"}); err != nil {
		t.Fatal(err)
	}
	list, err := m.Exclusions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		switch {
		case e.Type == "process" && e.Hidden != nil:
			t.Errorf("hides nothing: %+v", e.Hidden)
		case e.Type == "folder" && (e.Hidden == nil || e.Hidden.Accesses != 200 || e.Hidden.Scans != 21 || e.Hidden.LastPath != "/srv/data/last" || e.Hidden.LastTime.IsZero()):
			t.Errorf("%+v", e.Hidden)
		}
	}
	answer, err := m.TestExclusion(t.Context(), api.ExclusionQuery{Path: "/srv/data/y"})
	if err != nil || len(answer.Matches) != 1 || answer.Matches[0].Hidden == nil {
		t.Errorf("%+v, %v", answer, err)
	}
	// The number of exclusions that are counted is bounded.
	for i := range maxHits + 5 {
		m.Hidden(policy.Exclusion{Type: policy.ExcludeFile, Value: fmt.Sprint("/", i)}, policy.UseScan, "/x")
	}
	if n := len(m.hits.all); n != maxHits {
		t.Errorf("%d exclusions counted", n)
	}
}
