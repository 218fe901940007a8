package onaccess

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
)

// Watcher watches file accesses; make one with New and run it once with Run.
type Watcher struct {
	cfg  Config
	caps Capabilities
	self int32
	// born is when the Watcher was made, and bornGuard the same on the guard's
	// clock. Times are counted from it, so that clock changes do not matter.
	born      time.Time
	bornGuard int64
	guardian  atomic.Pointer[guardian]

	mode     atomic.Pointer[Mode]
	leaves   atomic.Pointer[leaves]
	holding  atomic.Bool // accesses are held, not only observed
	started  atomic.Bool
	stopping atomic.Bool
	epoch    atomic.Uint64
	broken   atomic.Pointer[string] // why events are no longer understood
	stopFD   int                    // eventfd: readable when stopping

	groups     []*group
	deadlines  *deadlines
	queue      *queue
	known      *queue // accesses to content with a known verdict
	flights    *flights
	cache      *cache
	ignores    *ignores
	classes    classes
	limits     limits
	retick     chan struct{} // told after changes of limits; buffer of one
	load       *load
	costs      costs
	debts      debts
	written    *written
	mappings   *mappings
	probes     probes
	hot        hotTables
	processes  *processTable
	paths      pathTable
	detections chan Detection
	describing chan struct{} // calls of Describe in progress
	notices    chan string
	n          counters

	// owned counts the descriptors of accesses on their way; see pending.
	owned    atomic.Int64
	ownedMax int64

	// points are the mount points of watched mounts, by mount id.
	points atomic.Pointer[map[int]string]

	pids  atomic.Pointer[map[int32]struct{}]
	files atomic.Pointer[map[fileKey]fileState]

	// marksMu orders changes of mode and marks. Whoever has it may wait for a
	// file system, so nothing that answers accesses takes it.
	marksMu sync.Mutex
	running bool
	marks   markState
	tables  tableReader
	// neverHold and unignored say why accesses must not be held: the first is
	// Config.NeverHold, the second a kernel that does not ignore our program.
	neverHold, unignored string

	mu        sync.Mutex // of what follows; held for moments only
	readers   []*reader
	workers   []*worker
	conflicts []Holder
	seen      []MarkedMount // for Stats

	ready chan struct{}
}

const (
	// maxReaders per group: one, and those that help while it is stuck.
	maxReaders = 8
	// stuckRead is how long a read takes before another reader helps.
	stuckRead = 250 * time.Millisecond
	// drainTime is how long the end of Run waits for scans to return.
	drainTime = 2 * time.Second
	// hangGrace is how long after its time-out a scan may return.
	hangGrace     = 5 * time.Second
	maxDetections = 256
)

// New checks the configuration and finds out what the kernel can do. Without
// fanotify it succeeds too: Capabilities and Stats say that nothing is
// watched and why.
func New(cfg Config) (*Watcher, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	w := &Watcher{
		cfg: cfg, caps: probe(cfg.Without), self: int32(os.Getpid()), stopFD: -1,
		born: time.Now(), bornGuard: guard.Now(), tables: tableReader{seed: maphash.MakeSeed()},
		deadlines: newDeadlines(), load: newLoad(cfg.Workers), processes: newProcessTable(),
		cache: newCache(cfg.CacheSize), mappings: newMappings(cfg.sweepPause),
		describing: make(chan struct{}, 8), notices: make(chan string, 64),
		retick: make(chan struct{}, 1), written: newWritten(),
		ready: make(chan struct{}),
	}
	if w.caps.Available && !w.caps.Leases {
		cfg.Log.Warn("files of other users are scanned at every access: CAP_LEASE is missing, so it is not known whether they have writers")
	}
	w.limits.set(cfg.Deadline, cfg.ExecDeadline)
	size := w.fitDescriptors(cfg.QueueSize)
	w.queue, w.known, w.flights = newQueue(size), newQueue(size), newFlights(size)
	w.detections = make(chan Detection, min(size, maxDetections))
	w.ignores = newIgnores(w.caps, &w.holding, cfg.Starts)
	w.mode.Store(&cfg.Mode)
	w.leaves.Store(&leaves{cfg.UnmonitoredFilesystems, cfg.NonExecMountPolicy == "mute"})
	w.neverHold = cfg.NeverHold
	w.pids.Store(&map[int32]struct{}{})
	if err := w.TrustFiles(cfg.Trusted); err != nil {
		return nil, err
	}
	return w, nil
}

// fitDescriptors makes the queues small enough for the limit of open files,
// after raising it as far as it goes. It returns the size of a queue.
func (w *Watcher) fitDescriptors(size int) int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		lim.Cur = 1024
	}
	if lim.Cur < lim.Max {
		raised := unix.Rlimit{Cur: lim.Max, Max: lim.Max}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			lim = raised
		}
	}
	// Half for accesses, half for duplicates and the rest of the daemon.
	w.ownedMax = max(1, (int64(min(lim.Cur, math.MaxInt32))-64)/2)
	// Two queues of three rings each, and those who joined.
	fits := int(w.ownedMax / 7)
	if fits < size {
		w.cfg.Log.Warn("on-access queues are smaller than configured: the limit of open files (RLIMIT_NOFILE) is low",
			"limit", lim.Cur, "queue", fits, "configured", size)
	}
	return max(16, min(size, fits))
}

// Capabilities says what the kernel lets the Watcher use.
func (w *Watcher) Capabilities() Capabilities { return w.caps }

// Mode is the current mode.
func (w *Watcher) Mode() Mode { return *w.mode.Load() }

// Ready is closed when the first marks are in place (or are known to be
// impossible).
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Forget drops every cached verdict and ignore mark: call it when definitions
// or the policy changed. (Generation is also looked at once a second.)
func (w *Watcher) Forget() {
	w.epoch.Add(1)
	w.ignores.flush()
}

func (w *Watcher) stamp() stamp { return stamp{w.cfg.Generation(), w.epoch.Load()} }

// TrustPID lets a process (the scanner) access everything at once, until
// UntrustPID. Call it as soon as the process is started: what it opens before
// has to wait for a scanner.
func (w *Watcher) TrustPID(pid int) {
	w.changePIDs(func(m map[int32]struct{}) { m[int32(pid)] = struct{}{} })
}

// UntrustPID takes the trust back; call it before the process is waited for.
func (w *Watcher) UntrustPID(pid int) {
	w.changePIDs(func(m map[int32]struct{}) { delete(m, int32(pid)) })
}

func (w *Watcher) changePIDs(change func(map[int32]struct{})) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := make(map[int32]struct{})
	for pid := range *w.pids.Load() {
		next[pid] = struct{}{}
	}
	change(next)
	w.pids.Store(&next)
}

func (w *Watcher) trustedPID(pid int32) bool {
	_, ok := (*w.pids.Load())[pid]
	return ok
}

// TrustFiles replaces the list of our own programs (Config.Trusted), as they
// are now; call it again after an upgrade.
func (w *Watcher) TrustFiles(paths []string) error {
	next := make(map[fileKey]fileState, len(paths))
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("trusted program %s: %w", path, err)
		}
		s, err := stat(fd, w.caps.Statx)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("trusted program %s: %w", path, err)
		}
		next[s.key()] = s
	}
	w.files.Store(&next)
	return nil
}

func (w *Watcher) trustedFile(s fileState) bool {
	t, ok := (*w.files.Load())[s.key()]
	return ok && t.same(s)
}

// SetMode changes what is watched and whether accesses are held, at once.
func (w *Watcher) SetMode(m Mode) error {
	if !m.Valid() {
		return fmt.Errorf("mode %q is not one of real_time, audit, on_demand, passive", m)
	}
	w.marksMu.Lock()
	defer w.marksMu.Unlock()
	w.mode.Store(&m)
	if !w.running {
		return nil
	}
	return w.applyMarks()
}

// Run watches until ctx ends. Then everybody who is held is let go, the marks
// and the group go away, and Run returns. It may be called once.
func (w *Watcher) Run(ctx context.Context) error {
	if w.started.Swap(true) {
		return errors.New("on-access watcher was started before")
	}

	// Callbacks and loops end with this context; it ends after the last answer.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var loops sync.WaitGroup
	loop := func(f func(context.Context)) {
		loops.Go(func() { f(work) })
	}
	loop(w.logLoop)
	if !w.caps.Available {
		w.cfg.Log.Error("real-time protection is not available", "reason", w.caps.Reason)
		close(w.ready)
		<-ctx.Done()
		w.stopping.Store(true)
		cancel()
		loops.Wait()
		return nil
	}
	if err := w.open(); err != nil {
		close(w.ready)
		cancel()
		loops.Wait()
		return err
	}
	loop(w.deadlineLoop)
	loop(w.nameLoop)
	loop(w.writtenLoop)
	go w.sweepLoop(work)
	var handled sync.WaitGroup
	handled.Go(func() { w.detectionLoop(work) })
	scans, stopScans := context.WithCancel(work)
	defer stopScans()
	for range w.cfg.Workers {
		w.startWorker(scans, w.queue, prioBackground)
	}
	// One more for executions only: whoever opens many files that are slow to
	// scan does not delay or escape the scan of what he executes then.
	w.startWorker(scans, w.queue, prioExec)
	answers := 1
	if w.cfg.NamesMatter != nil {
		// Whoever opens what is refused, again and again, does not delay the others.
		answers = w.cfg.Workers
	}
	for range answers {
		w.startWorker(scans, w.known, prioBackground)
	}
	if w.cfg.Guard != nil {
		w.startGuard()
	}
	for _, g := range w.groups {
		w.startReader(g, false)
	}
	loop(func(ctx context.Context) { w.superviseLoop(ctx, scans) })
	table := w.openMountTable()
	loop(func(ctx context.Context) { w.mountLoop(ctx, table) })
	loop(w.conflictLoop)

	w.marksMu.Lock()
	w.running = true
	err := w.applyMarks()
	w.marksMu.Unlock()
	if err != nil {
		w.cfg.Log.Warn("not every file system is watched", "error", err)
	}
	close(w.ready)
	<-ctx.Done()
	w.shutdown(stopScans)
	cancel()
	loops.Wait()
	handled.Wait()
	return nil
}

// open makes the groups and the descriptor that wakes the readers.
func (w *Watcher) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("create eventfd: %w", err)
	}
	w.stopFD = fd
	for i, name := range groupNames {
		g, err := openGroup(name, i == groupRemote, w.caps)
		if err != nil {
			for _, other := range w.groups {
				other.close()
			}
			return err
		}
		w.groups = append(w.groups, g)
	}
	w.ignores.mu.Lock()
	w.ignores.groups = w.groups
	err = w.ignores.ignoreOwn()
	w.ignores.mu.Unlock()
	if err != nil {
		w.cfg.Log.Error("files are scanned after the fact only", "error", err)
		w.unignored = "the kernel does not ignore our own program: " + err.Error()
	}
	return nil
}

// shutdown lets everybody go. The marks go first: kernels before 5.1 can hang
// when a group is closed while events arrive.
func (w *Watcher) shutdown(stopScans func()) {
	w.stopping.Store(true)
	w.marksMu.Lock()
	w.running = false
	for _, g := range w.groups {
		if err := g.flushMarks(w.caps); err != nil {
			w.cfg.Log.Error("on-access shutdown", "error", err)
		}
	}
	w.marksMu.Unlock()
	_, _ = unix.Write(w.stopFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	for {
		p, next := w.deadlines.due(time.Unix(math.MaxInt32, 0))
		if p != nil {
			_, _ = p.answer(unix.FAN_ALLOW)
			continue
		}
		if next.IsZero() {
			break
		}
	}
	for _, q := range []*queue{w.queue, w.known} {
		for _, f := range q.close() {
			w.abandon(f)
		}
	}
	stopScans()
	// What was queued in the kernel before the marks went.
	var buf [eventLen]byte
	release := guard.HoldSignals()
	for _, g := range w.groups {
		for {
			n, err := g.read(&buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n <= 0 || !w.handleBatch(g, buf[:n]) {
				break
			}
		}
	}
	release()
	end := time.Now().Add(drainTime)
	for w.busy() && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
	// A group is closed when the guard's descriptor is closed too.
	w.stopGuard()
	for _, g := range w.groups {
		g.close()
	}
	// The number of the eventfd may only be used again when no reader polls it.
	if !w.busy() {
		unix.Close(w.stopFD)
	}
}
