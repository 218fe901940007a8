package sensor

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

func TestFailuresRest(t *testing.T) {
	now := time.Now()
	for times, want := range map[int]time.Duration{0: 0, 1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 100: retryLimit} {
		f := failure{times: times, last: now}
		if want > 0 && !f.rests(now.Add(want-time.Second), retryLimit) {
			t.Errorf("%d failures: tried again before %v", times, want)
		}
		if f.rests(now.Add(want), retryLimit) {
			t.Errorf("%d failures: still rests after %v", times, want)
		}
		if want := min(want, blindLimit); f.rests(now.Add(want), blindLimit) {
			t.Errorf("%d failures: nobody else sees it, still rests after %v", times, want)
		}
	}
}

func TestFailuresAreForgotten(t *testing.T) {
	now := time.Now()
	for after, want := range map[time.Duration]failure{
		2 * retryLimit:               {6, now.Add(2 * retryLimit), true},
		2*retryLimit + time.Second:   {1, now.Add(2*retryLimit + time.Second), false},
		retryLimit + 2*retryInterval: {6, now.Add(retryLimit + 2*retryInterval), true}, // the longest rest is no success
	} {
		if got := (failure{5, now, true}).again(now.Add(after), false); got != want {
			t.Errorf("%v after the fifth failure: %+v, want %+v", after, got, want)
		}
	}
	if got, want := (failure{}).again(now, true), (failure{1, now, true}); got != want {
		t.Errorf("the first failure: %+v, want %+v", got, want)
	}
}

// attaching is a sensor that says when it was tried.
type attaching struct {
	name  string
	tried int
	err   error
}

func (a *attaching) Name() string { return a.name }

func (a *attaching) Categories() []event.Category { return []event.Category{event.CategoryProcess} }

func (a *attaching) Stats() Stats { return Stats{} }

func (a *attaching) Run(ctx context.Context, _ []event.Category, s Sink) error {
	a.tried++
	if a.err != nil {
		return a.err
	}
	s.Ready()
	<-ctx.Done()
	return nil
}

func TestBlindCategoryIsTriedSoon(t *testing.T) {
	ago := func(d time.Duration, worked bool) failure { return failure{20, time.Now().Add(-d), worked} }
	for name, c := range map[string]struct {
		first failure
		spare error // of the second sensor
		want  int
	}{
		"worked, too early":   {ago(blindLimit-time.Minute, true), errors.New("no"), 0},
		"worked":              {ago(blindLimit, true), errors.New("no"), 1},
		"worked, has another": {ago(blindLimit, true), nil, 0},
		"never worked":        {ago(blindLimit, false), errors.New("no"), 0},
		"never worked, long":  {ago(retryLimit, false), errors.New("no"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			first, spare := &attaching{name: "first"}, &attaching{name: "spare", err: c.spare}
			p := &Pipeline{Sensors: []Sensor{first, spare}}
			p.init()
			p.failed[first] = c.first
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			p.cover(ctx, &wg, map[Sensor][]event.Category{}, make(chan ended, 2))
			cancel()
			wg.Wait()
			if first.tried != c.want {
				t.Errorf("tried %d times, want %d", first.tried, c.want)
			}
		})
	}
}
