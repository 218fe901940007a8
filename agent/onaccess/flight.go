package onaccess

import (
	"context"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// flight is one scan, waiting or in progress. Accesses to the same content
// that come in meanwhile join it instead of being scanned again.
type flight struct {
	owner *pending
	// known is the verdict on the content, from the cache: nothing is left to scan.
	known *verdict.Verdict
	// What the reader began (direct.go): a scan that goes on, with when it began
	// and the state of definitions then, or its outcome.
	rest  Rest
	began time.Time
	under stamp
	given *outcome

	// The rest is guarded by flights.mu.
	prio    priority
	started bool
	// handedOn: what the reader started is for a worker to end.
	handedOn bool
	// dirty: a writer closed the file after the scan started.
	dirty   bool
	joiners []*pending
	sibling *flight // other flights of the same inode
}

// flights are all scans that wait or run, by inode.
type flights struct {
	mu      sync.Mutex
	byFile  map[fileKey]*flight
	joined  int // joiners of all flights
	maxJoin int
}

func newFlights(maxJoin int) *flights {
	return &flights{byFile: make(map[fileKey]*flight), maxJoin: maxJoin}
}

// joinResult says what became of an access.
type joinResult uint8

const (
	joinNew     joinResult = iota // a new flight was registered: push it
	joinJoined                    // waits for the returned flight
	joinUpgrade                   // as joinJoined, and the flight should also be pushed with its new priority
	joinDrop                      // a background scan that another flight makes needless
	joinFull                      // no room to wait
)

// enter registers an access: it joins a flight for the same content or
// becomes the owner of a new one.
func (fs *flights) enter(p *pending, prio priority, known *verdict.Verdict) (*flight, joinResult) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	k := p.state.key()
	for f := fs.byFile[k]; f != nil; f = f.sibling {
		// A scan that has not started will look at the newest content.
		if p.kind == CloseWrite && !f.started && f.known == nil && p.sameFile(f.owner) {
			return f, joinDrop
		}
		if prio == prioBackground || f.dirty || f.known != nil || known != nil ||
			!f.owner.state.same(p.state) || f.owner.stamp != p.stamp {
			continue
		}
		if fs.joined >= fs.maxJoin {
			return nil, joinFull
		}
		fs.joined++
		f.joiners = append(f.joiners, p)
		if (!f.started || f.handedOn) && prio < f.prio {
			f.prio = prio
			return f, joinUpgrade
		}
		return f, joinJoined
	}
	f := &flight{owner: p, prio: prio, known: known, sibling: fs.byFile[k]}
	fs.byFile[k] = f
	return f, joinNew
}

// start marks a flight as running; false when it already is (it was queued
// twice to raise its priority).
func (fs *flights) start(f *flight) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.handedOn {
		f.handedOn = false
		return true
	}
	if f.started {
		return false
	}
	f.started = true
	f.dirty = false
	return true
}

// alone registers a flight that its caller starts at once; nil when there is
// another one of the same inode.
func (fs *flights) alone(p *pending, prio priority) *flight {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	k := p.state.key()
	if fs.byFile[k] != nil {
		return nil
	}
	f := &flight{owner: p, prio: prio, started: true}
	fs.byFile[k] = f
	return f
}

// handOn makes a flight of alone one for the workers.
func (fs *flights) handOn(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.rest != nil || f.given != nil {
		f.handedOn = true
	} else {
		f.started = false
	}
}

// endRest ends a scan for which nobody waits any more.
func (f *flight) endRest() {
	rest := f.rest
	if rest == nil {
		return
	}
	f.rest = nil
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	go func() { _, _ = rest(ctx) }()
}

// wrote tells running flights of an inode that their content may be old.
func (fs *flights) wrote(k fileKey) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for f := fs.byFile[k]; f != nil; f = f.sibling {
		f.dirty = true
	}
}

func (fs *flights) isDirty(f *flight) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return f.dirty
}

// leave takes a flight off the register and returns who waited for it.
func (fs *flights) leave(f *flight) []*pending {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	k := f.owner.state.key()
	var before *flight
	for g := fs.byFile[k]; g != nil; before, g = g, g.sibling {
		if g != f {
			continue
		}
		switch {
		case before != nil:
			before.sibling = f.sibling
		case f.sibling != nil:
			fs.byFile[k] = f.sibling
		default:
			delete(fs.byFile, k)
		}
		break
	}
	f.started, f.handedOn = true, false // a second place in the queue is not run
	joiners := f.joiners
	f.joiners, f.sibling = nil, nil
	fs.joined -= len(joiners)
	return joiners
}
