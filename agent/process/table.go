// Package process keeps a table of the processes of the host: who started
// whom, with which program, arguments, user and container. Sensors feed it;
// everything that reports an event asks it.
//
// A process is identified by its pid and start time (Key), so a reused pid is
// another process. Entries stay for a while after the process ended, so that
// short-lived processes keep their command line and ancestry. The table is
// bounded by count, age and bytes.
package process

import (
	"container/list"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// MaxAncestry is the longest chain of parents that is reported.
const MaxAncestry = 32

// Key identifies a process for the life of the machine's boot.
type Key struct {
	PID   int
	Start uint64 // ticks of 10 ms since boot
}

// Options of a Table. Zero values mean the default.
type Options struct {
	ProcRoot   string        // "/proc"
	PasswdFile string        // "/etc/passwd"
	MaxExited  int           // ended processes kept; 16384
	MaxAge     time.Duration // how long; 10 min
	MaxLive    int           // living processes kept; 65536
	MaxBytes   int           // text of all entries; 24 MiB
	Boot       time.Time     // see Clock.Boot
	Now        func() time.Time
}

// Table is safe for use by many goroutines.
type Table struct {
	opts  Options
	clock *Clock
	users *Users
	slots chan struct{} // bounds readers of /proc that may hang

	mu      sync.Mutex
	live    map[int]*entry
	byKey   map[Key]*entry
	exited  *list.List     // of *entry, oldest first
	last    map[int]*entry // of exited: the one of each pid that began last
	ends    uint64         // processes that ended so far
	bytes   int
	evicted uint64
}

type entry struct {
	key    Key
	parent Key
	proc   event.Process
	// image says that the process is known to run its own program, not only
	// the copy that fork made of its parent.
	image    bool
	exitedAt time.Time
	elem     *list.Element // in exited; nil while it lives
	end      uint64        // how many had ended when it did
	size     int
	// children counts the entries that name this one as their parent: while
	// there are any, age alone does not remove it.
	children int
	counted  bool // its parent counts it
}

// Stats of a Table.
type Stats struct {
	Live, Exited, Bytes int
	Evicted             uint64 // entries given up for want of room
}

// New makes an empty table; see Seed.
func New(opts Options) (*Table, error) {
	if opts.ProcRoot == "" {
		opts.ProcRoot = "/proc"
	}
	if opts.PasswdFile == "" {
		opts.PasswdFile = "/etc/passwd"
	}
	if opts.MaxExited == 0 {
		opts.MaxExited = 16384
	}
	if opts.MaxAge == 0 {
		opts.MaxAge = 10 * time.Minute
	}
	if opts.MaxLive == 0 {
		opts.MaxLive = 65536
	}
	if opts.MaxBytes == 0 {
		opts.MaxBytes = 24 << 20
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	clock, err := NewClock(opts.Boot)
	if err != nil {
		return nil, fmt.Errorf("process table: %w", err)
	}
	return &Table{
		opts: opts, clock: clock, users: NewUsers(opts.PasswdFile),
		slots: make(chan struct{}, 4),
		live:  make(map[int]*entry), byKey: make(map[Key]*entry), exited: list.New(), last: make(map[int]*entry),
	}, nil
}

// Clock is the table's clock.
func (t *Table) Clock() *Clock { return t.clock }

// Users is the table's source of user names.
func (t *Table) Users() *Users { return t.users }

// Stats tells how full the table is.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{Live: len(t.live), Exited: t.exited.Len(), Bytes: t.bytes, Evicted: t.evicted}
}

// Seed enters the processes that run now. Attach the sensors first, so that
// none falls between; what they reported already is not touched.
func (t *Table) Seed(ctx context.Context) error {
	pids, err := t.Running()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("process table: %w", err)
		}
		t.enter(pid)
	}
	t.linkParents()
	return nil
}

// Running lists the processes that /proc shows.
func (t *Table) Running() ([]int, error) {
	dir, err := os.Open(t.opts.ProcRoot)
	if err != nil {
		return nil, fmt.Errorf("process table: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("process table: list %s: %w", t.opts.ProcRoot, err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Current says whether the table has pid with the program that it runs now.
func (t *Table) Current(pid int) bool {
	st, err := t.Stat(pid)
	if err != nil {
		return true // it ended: there is nothing to learn
	}
	p, ok := t.Get(int64(pid), t.clock.Start(st.Start))
	if !ok {
		return false
	}
	exe := t.exePath(pid)
	return exe == "" || exe == p.FolderPath
}

// linkParents completes entries whose parent was read after them.
func (t *Table) linkParents() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.live {
		if e.parent.Start == 0 && e.proc.ParentPID > 0 {
			if p := t.live[int(e.proc.ParentPID)]; p != nil && p.key.Start <= e.key.Start {
				t.link(e, p.key)
			}
		}
	}
}

// enter reads pid from /proc and enters it unless it is known.
func (t *Table) enter(pid int) (event.Process, bool) {
	p, st, err := t.Read(pid)
	if err != nil {
		return event.Process{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := Key{pid, st.Start}
	if e := t.byKey[key]; e != nil {
		lacks := e.proc.CommandLine == "" && p.CommandLine != "" // it was read in the middle of its exec
		if (e.proc.FolderPath != p.FolderPath || lacks) && e.elem == nil {
			// The sensor lags behind, or missed an exec: /proc is right.
			t.setProc(e, p)
			e.image = true
			t.link(e, t.parentKey(st.PPID, key))
		}
		return e.proc, true
	}
	e := &entry{key: key, image: true}
	t.setProc(e, p)
	t.insert(e)
	t.link(e, t.parentKey(st.PPID, key))
	return e.proc, true
}

func (t *Table) parentKey(ppid int, child Key) Key {
	if p := t.live[ppid]; p != nil && p.key.Start <= child.Start {
		return p.key
	}
	return Key{PID: ppid}
}

// ForkOf is Fork by a source that does not know the user: the parent's.
func (t *Table) ForkOf(child, parent Key) {
	uid := int64(-1)
	t.mu.Lock()
	if p := t.byKey[parent]; p != nil {
		uid = p.proc.UID
	}
	t.mu.Unlock()
	t.Fork(child, parent, uint32(uid))
}

// Fork enters a new process that still runs its parent's program.
func (t *Table) Fork(child, parent Key, uid uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[child] != nil {
		return // its exec was reported first
	}
	var proc event.Process
	if p := t.byKey[parent]; p != nil {
		proc = p.proc
	} else {
		proc = event.Process{LoginUID: -1, SessionID: -1}
	}
	proc.PID, proc.StartTime = int64(child.PID), t.clock.Start(child.Start)
	if proc.UID != int64(uid) || proc.AccountName == "" {
		proc.UID, proc.AccountName = int64(uid), t.users.Name(uid)
	}
	e := &entry{key: child}
	t.setProc(e, proc)
	t.insert(e)
	t.link(e, parent)
}

// Exec notes that a process runs another program now. proc needs neither
// StartTime, names nor Parent*: the table fills them in. It returns the
// process and its parent as events show them.
func (t *Table) Exec(key, parent Key, proc event.Process) (event.Process, event.Process) {
	proc.PID, proc.StartTime = int64(key.PID), t.clock.Start(key.Start)
	if proc.UID >= 0 && proc.AccountName == "" {
		proc.AccountName = t.users.Name(uint32(proc.UID))
	}
	if proc.LoginUID >= 0 && proc.LoginName == "" {
		proc.LoginName = t.users.Name(uint32(proc.LoginUID))
	}
	t.mu.Lock()
	e := t.byKey[key]
	if e == nil {
		e = &entry{key: key}
		t.setProc(e, proc)
		t.insert(e)
	} else {
		t.setProc(e, proc)
		if e.parent.Start != 0 {
			// Who forked it, even if that process has ended since.
			parent = e.parent
		}
	}
	e.image = true
	t.link(e, parent)
	full := e.proc
	full.CommandLine = proc.CommandLine // the table may keep a shorter one
	p := t.byKey[e.parent]
	if p != nil {
		pp := p.proc
		t.mu.Unlock()
		return full, pp
	}
	t.mu.Unlock()
	// The parent started before us and no one told: it may still be there.
	if pp, ok := t.enter(parent.PID); ok && (parent.Start == 0 || t.clock.TicksOf(pp.StartTime) == parent.Start) {
		full.ParentFileName, full.ParentStartTime = pp.FileName, pp.StartTime
		t.mu.Lock()
		t.link(e, Key{parent.PID, t.clock.TicksOf(pp.StartTime)})
		t.mu.Unlock()
		return full, pp
	}
	return full, event.Process{PID: int64(parent.PID), StartTime: full.ParentStartTime, LoginUID: -1, SessionID: -1, UID: -1}
}

// Exit notes the end of a process and returns it with its parent. known is
// false when the table had no entry, or had its end already; image says
// whether it had run a program of its own.
func (t *Table) Exit(key Key) (proc, parent event.Process, image, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byKey[key]
	if e == nil || e.elem != nil {
		return event.Process{PID: int64(key.PID), StartTime: t.clock.Start(key.Start)}, event.Process{}, false, false
	}
	t.retire(e)
	if p := t.byKey[e.parent]; p != nil {
		parent = p.proc
	}
	return e.proc, parent, e.image, true
}

// KeyOf is the key of a living process of the table.
func (t *Table) KeyOf(pid int) (Key, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.live[pid]; e != nil {
		return e.key, true
	}
	return Key{}, false
}

// LivePIDs lists the processes that the table takes to be running.
func (t *Table) LivePIDs() []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	pids := make([]int, 0, len(t.live))
	for pid := range t.live {
		pids = append(pids, pid)
	}
	return pids
}

// Facts are what is learned about a process after its event.
type Facts struct {
	Hashes    Hashes
	Package   string
	Container Container
}

func (f *Facts) set(p *event.Process) {
	if h := f.Hashes; h.SHA256 != "" {
		p.MD5, p.SHA1, p.SHA256, p.FileSize, p.FuzzyHash = h.MD5, h.SHA1, h.SHA256, h.Size, h.Fuzzy
	}
	if f.Package != "" {
		p.Package = f.Package
	}
	if c := f.Container; c != (Container{}) {
		p.ContainerName, p.ContainerImage, p.Pod = c.Name, c.Image, c.Pod
	}
}

// CopyFacts takes over what is known of the same process.
func CopyFacts(to, from *event.Process) {
	to.MD5, to.SHA1, to.SHA256, to.FileSize, to.FuzzyHash = from.MD5, from.SHA1, from.SHA256, from.FileSize, from.FuzzyHash
	to.Package, to.ContainerName, to.ContainerImage, to.Pod = from.Package, from.ContainerName, from.ContainerImage, from.Pod
}

// Complete adds facts to p and to its entry.
func (t *Table) Complete(p *event.Process, f Facts) {
	f.set(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byKey[Key{int(p.PID), t.clock.TicksOf(p.StartTime)}]
	if e == nil || e.proc.FolderPath != p.FolderPath {
		return
	}
	proc := e.proc
	f.set(&proc)
	t.setProc(e, proc)
}

// The functions below are called with t.mu held.

// setProc replaces what an entry says and keeps the count of bytes. Parent
// members are link's.
func (t *Table) setProc(e *entry, p event.Process) {
	p.ParentPID, p.ParentFileName, p.ParentStartTime = e.proc.ParentPID, e.proc.ParentFileName, e.proc.ParentStartTime
	if t.bytes > t.opts.MaxBytes/2 && len(p.CommandLine) > 1024 {
		// Memory is short: a long command line is in its own event, the table
		// keeps the beginning.
		p.CommandLine = clean(string([]byte(p.CommandLine[:1024])))
	}
	t.bytes -= e.size
	e.proc = p
	e.size = 600 + len(p.CommandLine) + len(p.FolderPath) + len(p.WorkingDir)
	t.bytes += e.size
}

func (t *Table) link(e *entry, parent Key) {
	t.uncount(e)
	e.parent = parent
	e.proc.ParentPID = int64(parent.PID)
	e.proc.ParentStartTime = time.Time{}
	e.proc.ParentFileName = ""
	if parent.Start != 0 {
		e.proc.ParentStartTime = t.clock.Start(parent.Start)
	}
	if p := t.byKey[parent]; p != nil && p != e {
		e.proc.ParentFileName = p.proc.FileName
		p.children++
		e.counted = true
	}
}

func (t *Table) uncount(e *entry) {
	if p := t.byKey[e.parent]; e.counted && p != nil && p.children > 0 {
		p.children--
	}
	e.counted = false
}

func (t *Table) insert(e *entry) {
	if old := t.live[e.key.PID]; old != nil {
		if old.key.Start > e.key.Start {
			// A late word about an earlier process of the same pid.
			t.byKey[e.key] = e
			t.retireList(e)
			t.shrink()
			return
		}
		t.retire(old) // the pid was reused and the end of old was lost
	}
	t.live[e.key.PID] = e
	t.byKey[e.key] = e
	t.shrink()
}

func (t *Table) retire(e *entry) {
	if t.live[e.key.PID] == e {
		delete(t.live, e.key.PID)
	}
	t.retireList(e)
	t.shrink()
}

// shrink gives up the oldest ended processes until the table fits.
func (t *Table) shrink() {
	oldest := t.opts.Now().Add(-t.opts.MaxAge)
	for front := t.exited.Front(); front != nil; front = t.exited.Front() {
		e := front.Value.(*entry)
		aged := e.exitedAt.Before(oldest)
		if !aged && t.exited.Len() <= t.opts.MaxExited && t.bytes <= t.opts.MaxBytes {
			break
		}
		if aged && e.children > 0 && t.exited.Len() <= t.opts.MaxExited && t.bytes <= t.opts.MaxBytes {
			e.exitedAt = t.opts.Now()
			t.exited.MoveToBack(e.elem)
			continue
		}
		if !aged {
			t.evicted++
		}
		t.forget(e)
	}
	for pid, e := range t.live {
		if len(t.live) <= t.opts.MaxLive && t.bytes <= t.opts.MaxBytes {
			break
		}
		// Any will do: it can be read again from /proc.
		delete(t.live, pid)
		t.evicted++
		t.forget(e)
	}
}

func (t *Table) forget(e *entry) {
	if e.elem != nil {
		t.exited.Remove(e.elem)
		if t.last[e.key.PID] == e {
			delete(t.last, e.key.PID)
		}
	}
	t.uncount(e)
	if t.byKey[e.key] == e {
		delete(t.byKey, e.key)
	}
	t.bytes -= e.size
}
