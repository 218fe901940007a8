package guard

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func newPage(t *testing.T) *Page {
	t.Helper()
	p, f, err := NewPage(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		f.Close()
	})
	return p
}

// TestOneAnswer: an access is answered by the daemon or by the guard, never by
// both and never by nobody, however they meet.
func TestOneAnswer(t *testing.T) {
	p := newPage(t)
	const fds, rounds = 8, 2000
	var answers [fds]atomic.Int64
	var stop atomic.Bool
	var guards sync.WaitGroup
	guards.Go(func() {
		for !stop.Load() {
			p.overdue(math.MaxInt64, func(fd int32) bool { answers[fd].Add(1); return true })
		}
	})
	var daemon sync.WaitGroup
	for fd := range int32(fds) {
		daemon.Go(func() {
			for round := range rounds {
				if !p.Hold(fd, 1) {
					t.Error("no room")
				}
				if p.Take(fd) {
					answers[fd].Add(1)
				}
				if got := answers[fd].Load(); got != int64(round)+1 {
					t.Errorf("descriptor %d: %d answers to %d accesses", fd, got, round+1)
					return
				}
			}
		})
	}
	daemon.Wait()
	stop.Store(true)
	guards.Wait()
}

func TestOverdue(t *testing.T) {
	p := newPage(t)
	p.Hold(5, 100)
	p.Hold(7, 300)
	p.Hold(60000, 200)
	if p.Hold(maxSlots, 1) || p.Hold(-1, 1) {
		t.Error("room for what is beyond the table")
	}
	var got []int32
	earliest := p.overdue(200, func(fd int32) bool { got = append(got, fd); return fd == 5 })
	if earliest != 300 || len(got) != 2 || got[0] != 5 || got[1] != 60000 {
		t.Errorf("answered %v, earliest of the others %d", got, earliest)
	}
	if n := p.Counts().Released; n != 1 {
		t.Errorf("%d released, want the one that was held", n)
	}
	if p.Take(5) || p.Take(60000) || !p.Take(7) || !p.Take(5) {
		t.Error("who answered is told wrongly")
	}
}

// TestDeadGuard: a guard that died while it answered does not keep the daemon
// from answering.
func TestDeadGuard(t *testing.T) {
	p := newPage(t)
	p.Hold(3, 1)
	p.store(header+3, claimed)
	if !p.Take(3) {
		t.Error("not answered")
	}
}

// TestPatience: the guard acts only when it was awake all the time that the
// daemon was silent.
func TestPatience(t *testing.T) {
	p := newPage(t)
	g := &guard{page: p, keeper: newKeeper(p, -1)}
	at := int64(time.Hour)
	ms := int64(time.Millisecond)
	if next, _ := g.look(at); g.sweptAt != 0 || next != at+250*ms {
		t.Error("acts before the first sign of life")
	}
	p.Beat(at, time.Second)
	if next, _ := g.look(at + 600*ms); g.sweptAt != 0 || next != at+600*ms+int64(closeTick) {
		t.Error("does not look closely at a silent daemon")
	}
	g.lateAt = at + 900*ms // the machine stood still
	if g.look(at + 1100*ms); g.sweptAt != 0 {
		t.Error("acts although the daemon had no time to answer")
	}
	g.lateAt = at + 1800*ms // and stands still all the time
	if g.look(at + 2100*ms); g.sweptAt == 0 {
		t.Error("never acts on a machine that is always late")
	}
}

// TestShortPatience: however short an open may be held, a daemon that is merely
// slow has its time, and one that is silent does not.
func TestShortPatience(t *testing.T) {
	p := newPage(t)
	g := &guard{page: p, keeper: newKeeper(p, -1)}
	at := int64(time.Hour)
	p.Beat(at, 100*time.Millisecond)
	if g.look(at + int64(minSilence) - 1); g.sweptAt != 0 {
		t.Error("acts before the shortest silence that counts")
	}
	if g.look(at + int64(minSilence)); g.sweptAt == 0 {
		t.Error("does not act")
	}
}

// TestTick: who may wait for a short time only is looked for more often.
func TestTick(t *testing.T) {
	for patience, want := range map[time.Duration]time.Duration{
		0: 100 * time.Millisecond, 100 * time.Millisecond: 100 * time.Millisecond, time.Second: 250 * time.Millisecond,
		2 * time.Second: 500 * time.Millisecond, time.Minute: 500 * time.Millisecond,
	} {
		if got := Tick(patience); got != want {
			t.Errorf("%v: %v, want %v", patience, got, want)
		}
	}
}
