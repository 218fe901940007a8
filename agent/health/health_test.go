package health

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "github.com/bulwarkhq/bulwark/api/control"
)

var discard = slog.New(slog.DiscardHandler)

func fixed(r Report) Source { return func(context.Context) Report { return r } }

func TestStates(t *testing.T) {
	degraded := Report{Issues: []api.Issue{{ID: "no active supplementary event provider"}}}
	unreachable := Report{Issues: []api.Issue{PortalUnreachable("https://p", time.Time{}, errors.New("refused"))}}
	missing := Report{Issues: []api.Issue{NotEnrolled("/etc/x")}}
	warning := Report{Issues: []api.Issue{{ID: "w", Warning: true}}}
	old := Product{Version: "1", Built: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, tt := range []struct {
		name    string
		reports []Report
		want    api.State
		issues  []string
	}{
		{"nothing wrong", nil, api.StateHealthy, []string{}},
		{"a warning", []Report{warning}, api.StateHealthy, []string{}},
		{"portal away", []Report{unreachable}, api.StateUnreachable, []string{Unreachable}},
		{"degraded and portal away", []Report{unreachable, degraded}, api.StateDegraded, []string{Unreachable, "no active supplementary event provider"}},
		{"expired", []Report{degraded, old.Source(time.Now)(context.Background())}, api.StateExpired, []string{"no active supplementary event provider", ProductExpired}},
		{"not enrolled", []Report{missing, degraded}, api.StateNotEnrolled, []string{MissingLicense, "no active supplementary event provider"}},
	} {
		r := NewRegistry(discard)
		for i, rep := range tt.reports {
			r.Register(string(rune('a'+i)), fixed(rep))
		}
		h, err := r.Health(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if h.State != tt.want || h.Healthy != (len(tt.issues) == 0) || !cmp.Equal(h.HealthIssues, tt.issues) {
			t.Errorf("%s: state %s healthy %v issues %v", tt.name, h.State, h.Healthy, h.HealthIssues)
		}
	}
}

func TestFillOrderDetailsAndManaged(t *testing.T) {
	r := NewRegistry(discard)
	r.Register("config", fixed(Report{Fill: func(h *api.Health) { h.CloudEnabled, h.LogLevel = true, "debug" }, Managed: []string{"cloud_enabled"}}))
	r.Register("log", fixed(Report{Fill: func(h *api.Health) { h.LogLevel += "!" }, Details: []api.Field{{Name: "x", Value: 1}}}))
	h, err := r.Health(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if h.LogLevel != "debug!" || !cmp.Equal(h.Managed, []string{"cloud_enabled"}) {
		t.Errorf("%q, managed %v", h.LogLevel, h.Managed)
	}
	managed := 0
	for _, f := range api.Fields(h) {
		if f.Managed {
			managed++
			if f.Name != "cloud_enabled" || f.Value != true {
				t.Errorf("managed field %+v", f)
			}
		}
	}
	if managed != 1 {
		t.Errorf("%d managed fields", managed)
	}
	d, err := r.HealthDetails(context.Background(), "log")
	if err != nil || len(d.Fields) != 1 || !cmp.Equal(d.Components, []string{"features", "log"}) {
		t.Errorf("details %+v, %v", d, err)
	}
	_, err = r.HealthDetails(context.Background(), "config")
	if !errors.Is(err, &api.Error{Code: api.NotFound}) || !strings.Contains(err.Error(), "features, log") {
		t.Errorf("unknown component: %v", err)
	}
	d, err = r.HealthDetails(context.Background(), "features")
	if err != nil || len(d.Fields) == 0 {
		t.Errorf("features: %+v, %v", d, err)
	}
}

func TestHangingAndPanickingComponents(t *testing.T) {
	r := NewRegistry(discard)
	r.timeout = 50 * time.Millisecond
	release := make(chan struct{})
	calls := 0
	var mu sync.Mutex
	r.Register("stuck", func(context.Context) Report {
		mu.Lock()
		calls++
		mu.Unlock()
		<-release
		return Report{}
	})
	r.Register("mad", func(context.Context) Report { panic("no") })
	r.Register("fine", fixed(Report{Fill: func(h *api.Health) { h.OrgID = "org" }}))
	for range 3 {
		h, err := r.Health(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(h.HealthIssues, []string{"stuck does not answer", "mad failed"}) || h.OrgID != "org" {
			t.Errorf("issues %v, org %q", h.HealthIssues, h.OrgID)
		}
		for _, i := range h.Issues {
			if i.Remedy == "" || i.Since.IsZero() || i.Component == "" {
				t.Errorf("issue %+v", i)
			}
		}
	}
	mu.Lock()
	if calls != 1 {
		t.Errorf("a hanging component is asked %d times", calls)
	}
	mu.Unlock()
	close(release)
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		h, err := r.Health(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if cmp.Equal(h.HealthIssues, []string{"mad failed"}) {
			return
		}
	}
	t.Error("the component stays hanging after it has answered")
}

func TestIssueKeepsItsTime(t *testing.T) {
	r := NewRegistry(discard)
	clock := time.Unix(1000, 0)
	r.now = func() time.Time { return clock }
	issues := []api.Issue{{ID: "x"}}
	r.Register("c", func(context.Context) Report { return Report{Issues: issues} })
	since := func() time.Time {
		h, err := r.Health(context.Background())
		if err != nil || len(h.Issues) != 1 {
			t.Fatal(h.Issues, err)
		}
		return h.Issues[0].Since
	}
	first := since()
	clock = clock.Add(time.Hour)
	if !since().Equal(first) {
		t.Error("an issue that stays gets a new time")
	}
	keep := issues
	issues = nil
	if _, err := r.Health(context.Background()); err != nil {
		t.Fatal(err)
	}
	issues = keep
	if !since().Equal(clock) {
		t.Error("an issue that comes back keeps its old time")
	}
}

func TestProductExpiry(t *testing.T) {
	built := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	p := Product{Version: "1.2.3", Built: built, MachineGUID: "g"}
	for _, tt := range []struct {
		now  time.Time
		want string
	}{
		{built, ""}, {built.AddDate(0, 8, 20), "product expires soon"}, {built.AddDate(0, 9, 1), ProductExpired},
	} {
		r := p.Source(func() time.Time { return tt.now })(context.Background())
		got := ""
		if len(r.Issues) > 0 {
			got = r.Issues[0].ID
		}
		if got != tt.want {
			t.Errorf("at %v: %q, want %q", tt.now, got, tt.want)
		}
	}
	if r := (Product{}).Source(time.Now)(context.Background()); len(r.Issues) > 0 {
		t.Error("a build without a date expires")
	}
}
