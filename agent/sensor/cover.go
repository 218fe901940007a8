package sensor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

type ended struct {
	sensor Sensor
	err    error
}

// manage keeps every category covered by the best sensor that works.
func (p *Pipeline) manage(ctx context.Context, wg *sync.WaitGroup) {
	ends := make(chan ended, len(p.Sensors))
	running := make(map[Sensor][]event.Category)
	retry := time.NewTicker(retryInterval)
	defer retry.Stop()
	p.cover(ctx, wg, running, ends)
	close(p.ready)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-ends:
			p.release(running, e)
			p.cover(ctx, wg, running, ends)
		case <-retry.C:
			p.cover(ctx, wg, running, ends)
		}
	}
}

// failure is how often in a row a sensor has failed, when it did last, and
// whether it was attached in that row.
type failure struct {
	times  int
	last   time.Time
	worked bool
}

// rests reports whether it is too early to try the sensor again. Each failure
// doubles the time up to limit: attaching may be dear, above all where it takes
// so long that it is given up.
func (f failure) rests(now time.Time, limit time.Duration) bool {
	return f.times > 0 && now.Sub(f.last) < min(retryInterval<<min(f.times-1, 10), limit)
}

// again is the failure after one more. Long after the last one a new row begins.
func (f failure) again(now time.Time, worked bool) failure {
	if now.Sub(f.last) > 2*retryLimit {
		f = failure{}
	}
	return failure{f.times + 1, now, f.worked || worked}
}

func (p *Pipeline) release(running map[Sensor][]event.Category, e ended) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range running[e.sensor] {
		p.accounts[c].source = ""
	}
	delete(running, e.sensor)
	p.failed[e.sensor] = p.failed[e.sensor].again(time.Now(), true)
	p.Log.Error("sensor ended", "sensor", e.sensor.Name(), "err", e.err)
}

func (p *Pipeline) cover(ctx context.Context, wg *sync.WaitGroup, running map[Sensor][]event.Category, ends chan ended) {
	p.coverWith(ctx, wg, running, ends, func(f failure) bool { return !f.rests(time.Now(), retryLimit) })
	// What nobody sees now must not wait for hours for a sensor that can see it;
	// one that never could is not worth the cost of attaching it.
	p.coverWith(ctx, wg, running, ends, func(f failure) bool { return f.worked && !f.rests(time.Now(), blindLimit) })
}

// coverWith starts the sensors that may be tried for the categories that have
// none.
func (p *Pipeline) coverWith(ctx context.Context, wg *sync.WaitGroup, running map[Sensor][]event.Category, ends chan ended, may func(failure) bool) {
	for _, s := range p.Sensors {
		if ctx.Err() != nil {
			return
		}
		if running[s] != nil || !may(p.failed[s]) {
			continue
		}
		var want []event.Category
		p.mu.Lock()
		for _, c := range s.Categories() {
			if p.accounts[c].source == "" {
				want = append(want, c)
			}
		}
		p.mu.Unlock()
		if len(want) == 0 {
			continue
		}
		err := p.start(ctx, wg, s, want, ends)
		p.mu.Lock()
		missing := map[event.Category]error{}
		if u, ok := s.(Unavailable); ok && err == nil {
			missing = u.Unavailable()
		}
		for _, c := range want {
			why := err
			if why == nil {
				why = missing[c]
			}
			a := p.accounts[c]
			if why != nil {
				a.reason = fmt.Sprintf("%s: %v", s.Name(), why)
				continue
			}
			a.source, a.sensor = s.Name(), s
			if s == p.Sensors[0] {
				a.reason = ""
			}
		}
		p.mu.Unlock()
		if err != nil {
			p.failed[s] = p.failed[s].again(time.Now(), false)
			p.Log.Warn("sensor cannot be used on this host", "sensor", s.Name(), "err", err)
			continue
		}
		running[s] = want
	}
}

// start starts s and waits until it is attached.
func (p *Pipeline) start(ctx context.Context, wg *sync.WaitGroup, s Sensor, want []event.Category, ends chan ended) error {
	ctx, cancel := context.WithCancel(ctx)
	attached := make(chan struct{})
	result := make(chan error, 1)
	sink := &pipeSink{p: p, ready: sync.OnceFunc(func() { close(attached) })}
	wg.Add(1)
	go func() {
		defer wg.Done()
		err := errors.New("panic, see the log")
		p.guard(s.Name(), func() { err = s.Run(ctx, want, sink) })
		if err == nil && ctx.Err() == nil {
			err = errors.New("ended by itself")
		}
		result <- err
	}()
	timer := time.NewTimer(readyTimeout)
	defer timer.Stop()
	select {
	case err := <-result:
		cancel()
		if err == nil {
			err = ctx.Err()
		}
		return err
	case <-timer.C:
		cancel()
		return fmt.Errorf("not attached after %s", readyTimeout)
	case <-attached:
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer cancel()
		if err := <-result; err != nil && ctx.Err() == nil {
			ends <- ended{s, err}
		}
	}()
	return nil
}
