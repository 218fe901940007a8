package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// A component that fails is started again after a pause that doubles up to
// maxRestartPause; one that ran longer than that starts over with the shortest.
const (
	minRestartPause = time.Second
	maxRestartPause = time.Minute
)

// components runs the parts of the daemon. A part that returns an error or
// panics costs nothing but itself: it is logged, shown in health and started
// again.
type components struct {
	log  *slog.Logger
	wg   sync.WaitGroup
	mu   sync.Mutex
	down map[string]string // name -> why it is not running
}

func newComponents(log *slog.Logger) *components {
	return &components{log: log, down: map[string]string{}}
}

// start runs run until ctx ends. A return of nil means that the component has
// nothing more to do.
func (c *components) start(ctx context.Context, name string, run func(context.Context) error) {
	c.wg.Go(func() {
		pause := minRestartPause
		for {
			began := time.Now()
			err := protect(func() error { return run(ctx) })
			if ctx.Err() != nil || err == nil {
				if err != nil && !errors.Is(err, context.Canceled) {
					c.log.Warn("component ended with an error at shutdown", "component", name, "error", err)
				}
				return
			}
			if time.Since(began) > maxRestartPause {
				pause = minRestartPause
			}
			c.set(name, err.Error())
			c.log.Error("component failed; it will be started again", "component", name, "error", err, "pause", pause)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, maxRestartPause)
			c.set(name, "")
		}
	})
}

func (c *components) set(name, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why == "" {
		delete(c.down, name)
		return
	}
	c.down[name] = why
}

// failures returns the components that are waiting to be started again and why.
func (c *components) failures() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]string, len(c.down))
	for name, why := range c.down {
		out[name] = why
	}
	return out
}

func (c *components) wait() { c.wg.Wait() }

// protect turns a panic of f into an error with its stack.
func protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
