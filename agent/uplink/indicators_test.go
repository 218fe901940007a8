package uplink

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// lists is a portal that has a list of indicators and nothing else.
type lists struct {
	agentv1connect.AgentServiceClient
	checkIn func() (version string)
	fetch   func(version string) ([]byte, error)
}

func (l *lists) CheckIn(context.Context, *connect.Request[agentv1.CheckInRequest]) (*connect.Response[agentv1.CheckInResponse], error) {
	return connect.NewResponse(&agentv1.CheckInResponse{IndicatorsVersion: l.checkIn(), CheckInIntervalSeconds: 1}), nil
}

func (l *lists) FetchIndicators(_ context.Context, r *connect.Request[agentv1.FetchIndicatorsRequest]) (*connect.Response[agentv1.FetchIndicatorsResponse], error) {
	data, err := l.fetch(r.Msg.Version)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&agentv1.FetchIndicatorsResponse{Data: data, Size: uint64(len(data))}), nil
}

// A list that cannot be applied is not fetched at each check-in; another version
// is at once, and so is one that the portal could not give.
func TestRefusedIndicators(t *testing.T) {
	a := newAgent(t, t.TempDir())
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	inForce, fetched := "", 0
	a.opts.Now = func() time.Time { return now }
	a.opts.Indicators = func() (string, int) { return inForce, 1 }
	a.opts.ApplyIndicators = func(list []byte) error {
		if string(list) == "bad" || string(list) == "bad too" {
			return errors.New("no space left on device")
		}
		inForce = string(list)
		return nil
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	steps := []struct {
		after   time.Duration
		version string
		fetched int // in all, before the check-in
	}{
		{0, "bad", 0},
		{0, "bad", 1},
		{30 * time.Second, "bad", 1},
		{30 * time.Second, "bad", 1}, // a minute after the first
		{time.Minute, "bad", 2},      // two minutes are to pass
		{time.Minute, "bad", 2},
		{-48 * time.Hour, "bad", 3}, // the clock was set back
		{0, "bad too", 4},
		{0, "bad too", 5},
		{0, "unavailable", 5},
		{0, "unavailable", 6},
		{0, "good", 7},
		{0, "good", 8},
		{0, "good", 8},
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	checked := 0
	portal := &lists{fetch: func(version string) ([]byte, error) {
		fetched++
		if version == "unavailable" {
			return nil, connect.NewError(connect.CodeUnavailable, errors.New("restarting"))
		}
		return enc.EncodeAll([]byte(version), nil), nil
	}, checkIn: func() string {
		step := steps[checked]
		now = now.Add(step.after)
		if fetched != step.fetched {
			t.Errorf("check-in %d: fetched %d times, want %d", checked, fetched, step.fetched)
		}
		if checked++; checked == len(steps) {
			cancel()
		}
		a.CheckInSoon()
		return step.version
	}}
	s := &session{u: a.Uplink, p: &onboarding.Package{}, agent: portal, poll: make(chan struct{}, 1)}
	if err := s.checkIns(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if inForce != "good" || checked != len(steps) {
		t.Errorf("%d check-ins, in force %q", checked, inForce)
	}
}

func TestRefusalGrowsToAnHour(t *testing.T) {
	var r refusal
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	for i, minutes := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
		want := time.Duration(minutes) * time.Minute
		if got := r.add("v", errors.New("no"), now); got != want || r.due("v", now.Add(got-1)) || !r.due("v", now.Add(got)) {
			t.Errorf("pause %d is %v, want %v", i, got, want)
		}
	}
	for range 100 {
		r.add("v", errors.New("no"), now)
	}
	if got := r.add("v", errors.New("no"), now); got != mostRefusal {
		t.Errorf("pause %v", got)
	}
}
