package scan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
)

// generation is a set of compiled definitions with the processes that use it.
// Its members are guarded by Pool.mu, but for the constant ones.
type generation struct {
	number uint64
	file   *os.File // constant; read-only
	info   wire.Info

	main, background *lane // nil while not wanted
}

// lane is one process and its successors.
type lane struct {
	low   bool
	file  *os.File
	child *child // nil while there is none
	// retired lanes get no more work and end when the last scan does.
	retired bool
	idle    *time.Timer
	failure error // why there is no process
}

// startChild starts a process for a lane and waits until it is ready.
func (p *Pool) startChild(ctx context.Context, l *lane) (*child, error) {
	workers := p.cfg.Workers + p.cfg.OnDemandWorkers
	setup := &wire.Setup{
		Workers: workers, Threads: p.cfg.Threads, LowPriority: l.low,
		MemoryLimit: p.cfg.MemoryLimit * 3 / 4, // the collector works harder before the hard limit
		UID:         p.uid, GID: p.gid,
		MaxData:  uint64(p.cfg.MemoryLimit) + 256<<20,
		MaxFiles: uint64(2*workers + 64),
	}
	setup.MaxProcesses = 4096 // threads of the user, other processes of it included
	c, err := p.startProcess(l.file, setup)
	if err != nil {
		return nil, err
	}
	c.lane = l
	m, err := c.receive(ctx, p.cfg.StartTimeout)
	if err == nil {
		hello, ok := m.(*wire.Hello)
		switch {
		case !ok:
			err = fmt.Errorf("%w: unexpected %T", wire.ErrProtocol, m)
		case hello.Error != "":
			err = errors.New(hello.Error)
		default:
			c.hello = *hello
			return c, nil
		}
	}
	c.close()
	if waitErr := c.wait(); waitErr != nil {
		p.log.Debug("scanner ended at its start", "error", waitErr)
		if m == nil {
			err = errors.Join(err, waitErr)
		}
	}
	return nil, err
}

// runLane keeps a lane's process alive. first is a process that is ready
// already, or nil.
func (p *Pool) runLane(ctx context.Context, l *lane, first *child) {
	const shortest, longest, healthy = 20 * time.Millisecond, 30 * time.Second, 10 * time.Second
	pause := shortest
	for c := first; ; c = nil {
		var err error
		if c == nil {
			c, err = p.startChild(ctx, l)
		}
		if err != nil {
			p.mu.Lock()
			l.failure = err
			gone := l.retired || p.closed
			if !gone && !p.otherLaneWorksLocked(l) {
				p.failWaitingLocked(fmt.Errorf("%w: %w", ErrNoDefinitions, err))
			}
			p.mu.Unlock()
			if gone || ctx.Err() != nil {
				return
			}
			p.log.Error("the scanner does not start", "error", err, "pause", pause)
		} else {
			p.serve(l, c)
			p.mu.Lock()
			gone := l.retired || p.closed
			if !gone {
				p.counts.restarts++
			}
			// A file that kills scanners must not keep protection down: only
			// processes that die without having answered anything wait longer.
			if c.answers > 0 || time.Since(c.since) > healthy {
				pause = shortest
			}
			p.mu.Unlock()
			if gone {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// otherLaneWorksLocked reports whether another process serves the waiting scans.
func (p *Pool) otherLaneWorksLocked(l *lane) bool {
	return p.gen != nil && (p.gen.main != l && p.gen.main != nil || p.gen.background != l && p.gen.background != nil && l.low)
}

// serve lets a ready process work until it ends.
func (p *Pool) serve(l *lane, c *child) {
	p.mu.Lock()
	if l.retired || p.closed {
		c.close()
	} else {
		l.child, l.failure = c, nil
		if !l.low && p.gen != nil && p.gen.main == l {
			p.line.Store(c.line)
		}
		p.dispatchLocked()
	}
	p.mu.Unlock()
	p.goSafely("scanner writer", func() { p.write(c) })
	err := p.read(c)
	if err != nil {
		p.log.Error("scanner broke the rules; ending it", "pid", c.pid, "error", err)
		c.kill()
	}
	c.close()
	// The jobs go back first, so that they do not wait for the exit; the process
	// has no way to answer any more.
	p.line.CompareAndSwap(c.line, nil)
	p.died(c)
	close(c.quit)
	if err := c.wait(); err != nil {
		p.mu.Lock()
		level := slog.LevelWarn
		if l.retired || p.closed {
			level = slog.LevelDebug // it was ended on purpose
		}
		p.mu.Unlock()
		p.log.Log(context.Background(), level, "scanner process ended", "error", err)
	}
}

// ensureLanesLocked starts the processes that waiting scans need and that are
// absent.
func (p *Pool) ensureLanesLocked() {
	if p.gen == nil || p.closed || p.ctx == nil {
		return
	}
	low := p.queues[PriorityLow].Len() > 0
	main := p.queues[PriorityExec].Len()+p.queues[PriorityOpen].Len()+p.queues[PriorityOnDemand].Len() > 0
	for e := p.suspects.Front(); e != nil; e = e.Next() {
		low = low || e.Value.(*job).low()
		main = main || !e.Value.(*job).low()
	}
	if low && p.gen.background == nil {
		p.gen.background = p.startLaneLocked(&lane{low: true, file: p.gen.file}, nil)
	}
	if main && p.gen.main == nil {
		p.unloaded = false
		p.gen.main = p.startLaneLocked(&lane{file: p.gen.file}, nil)
	}
}

func (p *Pool) startLaneLocked(l *lane, first *child) *lane {
	ctx := p.ctx
	p.goSafely("scanner lane", func() { p.runLane(ctx, l, first) })
	return l
}

// retireLocked ends a lane when its last scan has ended, or at the drain
// timeout; what is unfinished then is done by the successor.
func (p *Pool) retireLocked(l *lane) {
	if l == nil || l.retired {
		return
	}
	l.retired = true
	c := l.child
	if c == nil {
		return
	}
	p.line.CompareAndSwap(c.line, nil)
	if c.idle() {
		c.close()
		return
	}
	time.AfterFunc(p.cfg.DrainTimeout, c.kill)
}

// idleLocked ends the low-priority process some time after its last scan, and
// with unloadIdle the other one too.
func (p *Pool) idleLocked(l *lane) {
	if l.idle != nil {
		l.idle.Stop()
	}
	l.idle = time.AfterFunc(p.cfg.IdleTimeout, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.gen != nil && p.gen.main == l && p.unloadIdle && p.waitingLocked() == 0 && (l.child == nil || l.child.idle()) {
			p.unloadLocked()
			return
		}
		if p.gen != nil && p.gen.background == l && l.child != nil && l.child.idle() && p.queues[PriorityLow].Len() == 0 {
			p.retireLocked(l)
			p.gen.background = nil
		}
	})
}

// switchTo makes a generation the current one.
func (p *Pool) switchTo(file *os.File, first *child) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		first.close()
		return ErrClosed
	}
	old, wasUnloaded := p.gen, p.unloaded
	p.lastGen++
	// Before the number: who knows it gets no verdict by the definitions before.
	p.line.Store(nil)
	p.gen = &generation{number: p.lastGen, file: file, info: first.hello.Info}
	p.number.Store(p.lastGen)
	p.gen.main = p.startLaneLocked(first.lane, first)
	p.starting, p.unloaded, p.loadErr = false, false, nil
	clear(p.deaths)
	if old != nil {
		p.retireLocked(old.main)
		p.retireLocked(old.background)
		// Their processes have descriptors of their own; a start that is under way
		// fails and finds its lane retired.
		old.file.Close()
	}
	if wasUnloaded || p.unloadIdle && p.waitingLocked() == 0 {
		p.unloadLocked()
	}
	p.ensureLanesLocked()
	return nil
}
