// Package spool is the queue of events and alerts on their way to the portal.
// It is on disk, bounded, survives crashes of the agent and of the machine,
// and never makes its callers wait for the disk: they put events into a
// bounded memory buffer that a goroutine writes out.
//
// What cannot be kept is counted by class, and the counts travel to the portal
// with the next batch. When there is no room the oldest events of little value
// go first (file, network, image load), then the others, alerts last.
package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/event"
)

const corruptSuffix = ".corrupt"

// Options of a spool; zero values mean the defaults.
type Options struct {
	// MaxBytes is the room on disk; 512 MiB.
	MaxBytes int64
	// MaxMemory is the room for what is not yet written; 16 MiB. Events of low
	// rank may use half of it.
	MaxMemory int
	// SegmentBytes is the size at which a new file is begun; 4 MiB.
	SegmentBytes int64
	// FlushInterval is how long an event may be in memory only; 1 s.
	FlushInterval time.Duration
	// BatchDelay is how long events wait for others before they are delivered;
	// 5 s. Alerts never wait.
	BatchDelay time.Duration
	// BatchBytes is the size, in uncompressed bytes, at which a batch is full;
	// 1 MiB.
	BatchBytes int
	Log        *slog.Logger
}

// Stats describe a spool.
type Stats struct {
	SpoolID string
	// DiskBytes is the size of the segments, MemoryBytes that of what is not
	// written yet.
	DiskBytes   int64
	MemoryBytes int
	// Acknowledged is the highest batch number that is at the portal, Written
	// the highest that exists.
	Acknowledged uint64
	Written      uint64
	// Lost counts what was dropped since the spool was opened, by class.
	Lost map[string]uint64
	// Offered counts what was given to the spool since it was opened, by class,
	// and Delivered what the portal has acknowledged, of which Inherited was in
	// the spool before. When nothing waits, Offered + Inherited = Delivered + Lost
	// unless something of before was lost.
	Offered, Delivered, Inherited map[string]uint64
	// Err is why the last write failed; nil when it did not. Until it succeeds
	// again events are kept in memory as far as there is room.
	Err error
	// SetAside are damaged files that somebody may look at and delete.
	SetAside []string
}

// Batch is what is delivered together.
type Batch struct {
	SpoolID  string
	Sequence uint64
	// Events is an Events message (see package event), uncompressed.
	Events     []byte
	EventCount int
	// Alerts are JSON objects.
	Alerts [][]byte
	Lost   map[string]uint64

	counts  counts
	earlier counts // of those, from before the spool was opened
}

// buffer is what waits in memory to be written as one record.
type buffer struct {
	data     []byte // events
	alerts   [][]byte
	bytes    int // of both
	counts   counts
	reportID uint64
}

// maxBuffer is the size at which a buffer is full: with one event or alert
// more a record stays below the limits of the protocol even when nothing can be
// compressed.
const maxBuffer = 1 << 20

// queue is the buffers of one rank; the last one takes what comes.
type queue []*buffer

// open returns the buffer to add to.
func (q *queue) open() *buffer {
	if n := len(*q); n > 0 {
		if b := (*q)[n-1]; b.bytes < maxBuffer && b.counts.total() < batchEvents && b.counts[alertCount] < batchAlerts {
			return b
		}
	}
	b := &buffer{}
	*q = append(*q, b)
	return b
}

// maxSpare bounds the room that is kept for the next buffers.
const maxSpare = 2

// Spool is an open spool. Its methods are safe for concurrent use; Next and
// Ack are for one consumer.
type Spool struct {
	dir  string
	opts Options
	log  *slog.Logger
	lock *os.File

	// mu guards what callers add; it is never held while the disk is used.
	mu       sync.Mutex
	pending  [ranks]queue
	spare    [][]byte // room of written buffers, to be used again; at most maxSpare
	bytes    int      // of pending, and of what is being written or kept in memory
	lost     map[string]uint64
	total    map[string]uint64
	offered  counts64
	carried  counts64 // acknowledged
	earlier  counts64 // of those, from before the spool was opened
	closed   bool
	nextID   uint64        // next ReportID
	reserved uint64        // ReportIDs below are reserved on disk
	first    chan struct{} // an event has come and nothing waited before
	wake     chan struct{}

	// disk guards the files.
	disk        sync.Mutex
	state       *stateFile
	tracks      [ranks]*track
	memory      []*record // records that could not be written, by sequence
	seq         uint64    // last sequence given
	openSeq     uint64    // when the spool was opened
	unread      int64     // bytes written since the last batch
	memoryTaken uint64    // records in memory up to here were taken
	inflight    *Batch
	writeErr    error
	setAside    []string
	enc         *zstd.Encoder
	dec         *zstd.Decoder
	fsync       func(*os.File) error // (*os.File).Sync; tests have slow and broken disks

	written chan struct{} // told after each write; buffer of one
	flushes chan chan error
	stop    chan struct{}
	done    chan struct{}
	disked  atomic.Int64 // bytes on disk, for Stats without the lock
}

// reserveIDs is how many ReportIDs are reserved at a time; a crash skips what
// is left of them.
const reserveIDs = 1 << 16

// Open opens the spool in dir, making it when needed, and repairs what a crash
// left. Only one process can have it open.
func Open(dir string, opts Options) (*Spool, error) {
	defaults(&opts)
	s := &Spool{
		dir: dir, opts: opts, log: opts.Log, fsync: (*os.File).Sync, lost: map[string]uint64{}, total: map[string]uint64{},
		first: make(chan struct{}, 1), wake: make(chan struct{}, 1), written: make(chan struct{}, 1), flushes: make(chan chan error), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var err error
	if s.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: %s is in use by another process: is the daemon running twice?", dir), s.lock.Close())
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("spool %s: %w", dir, err), s.lock.Close())
	}
	if s.enc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: %w", err), s.lock.Close())
	}
	if s.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*maxPayload), zstd.WithDecoderLowmem(true)); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: %w", err), s.lock.Close())
	}
	go s.run()
	return s, nil
}

func defaults(o *Options) {
	set := func(to *int64, v int64) {
		if *to <= 0 {
			*to = v
		}
	}
	set(&o.MaxBytes, 512<<20)
	set(&o.SegmentBytes, 4<<20)
	o.SegmentBytes = min(o.SegmentBytes, max(o.MaxBytes/8, 64<<10))
	if o.MaxMemory <= 0 {
		o.MaxMemory = 16 << 20
	}
	if o.FlushInterval <= 0 {
		o.FlushInterval = time.Second
	}
	if o.BatchDelay <= 0 {
		o.BatchDelay = 5 * time.Second
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 1 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// load reads state and segments.
func (s *Spool) load() error {
	state, fresh, lostState, err := openState(filepath.Join(s.dir, "state"))
	if err != nil {
		return err
	}
	s.state = state
	if s.tracks, s.setAside, err = listSegments(s.dir); err != nil {
		return err
	}
	s.seq = max(state.acked, state.inflight)
	ids := state.reportID
	for _, t := range s.tracks {
		rep, err := t.checkTail()
		if err != nil {
			// One unreadable file must not keep the agent from working.
			s.log.Error("spool: cannot check the newest file; what it holds may be lost", "file", t.segments[len(t.segments)-1].path, "error", err)
			s.lose("unknown", 1)
		}
		s.seq = max(s.seq, rep.lastSeq)
		ids = max(ids, rep.reportID+1)
		if rep.torn > 0 {
			n := rep.lost.total()
			for i, c := range rep.lost {
				s.lose(countName(i), uint64(c))
			}
			if rep.unknown {
				s.lose("unknown", 1)
				n = 1
			}
			s.log.Warn("spool: the last record was not written completely (the agent or the machine was stopped); it was cut off",
				"file", t.segments[len(t.segments)-1].path, "offset", rep.at, "bytes", rep.torn, "lost", n)
		}
	}
	if fresh && lostState {
		// Numbers that were given before must not be given again.
		ids = max(ids, uint64(time.Now().Unix())*1000)
		s.log.Error("spool: the file with its state was damaged and is new now; events that were delivered already may be delivered again",
			"file", filepath.Join(s.dir, "state"))
	}
	state.reportID = ids + reserveIDs
	if err := state.save(true); err != nil {
		// A full disk is no reason not to run.
		s.log.Error("spool: cannot write the state", "error", err)
	}
	s.nextID, s.reserved, s.openSeq = ids, state.reportID, s.seq
	s.disked.Store(s.diskBytes())
	return nil
}

// ID returns the spool's id, 32 hex digits.
func (s *Spool) ID() string { return s.state.id() }

// lose counts a loss. mu must be held, or the spool not yet be shared.
func (s *Spool) lose(class string, n uint64) {
	if n > 0 {
		s.lost[class] += n
		s.total[class] += n
	}
}

// AddEvent gives e its ReportID and queues it. It does not wait: when memory
// is full the event is dropped and counted. e may be used again afterwards.
func (s *Spool) AddEvent(e *event.Event) {
	r := rankOf(e.Class)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.ReportID = s.nextID
	s.nextID++
	s.offered[min(int(e.Class), alertCount-1)]++
	limit := s.opts.MaxMemory
	if r == low {
		limit /= 2
	}
	if s.closed || s.bytes >= limit {
		s.lose(e.Class.String(), 1)
		return
	}
	if s.queued() == 0 {
		select {
		case s.first <- struct{}{}:
		default:
		}
	}
	b := s.pending[r].open()
	if n := len(s.spare); b.data == nil && n > 0 {
		b.data, s.spare = s.spare[n-1], s.spare[:n-1]
	}
	before := len(b.data)
	b.data = event.AppendEvent(b.data, e)
	n := len(b.data) - before
	b.bytes += n
	s.bytes += n
	b.counts[min(int(e.Class), alertCount-1)]++
	b.reportID = e.ReportID
	if b.bytes >= flushBytes && before < flushBytes || s.reserved-s.nextID == reserveIDs/2 {
		s.signal()
	}
}

// AddAlert queues an alert and has it written at once. It does not wait. The
// error is for an alert that is not valid or cannot be kept.
func (s *Spool) AddAlert(a event.Alert) error {
	text, err := event.EncodeAlert(&a)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offered[alertCount]++
	if s.closed || s.bytes+len(text) > s.opts.MaxMemory+maxAlertMemory {
		s.lose("alert", 1)
		return fmt.Errorf("spool: alert %s is lost: no room in memory and the disk does not take more", a.ID)
	}
	b := s.pending[alert].open()
	b.alerts = append(b.alerts, text)
	b.bytes += len(text)
	s.bytes += len(text)
	b.counts[alertCount]++
	s.signal()
	return nil
}

// maxAlertMemory is memory for alerts beyond MaxMemory.
const maxAlertMemory = 4 << 20

// queued is how many buffers wait to be written. mu must be held.
func (s *Spool) queued() (n int) {
	for _, q := range s.pending {
		n += len(q)
	}
	return n
}

func (s *Spool) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Flush writes what is queued and returns when it is durable, or why it is
// not.
func (s *Spool) Flush(ctx context.Context) error {
	res := make(chan error, 1)
	select {
	case s.flushes <- res:
	case <-s.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-res:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = errors.New("spool is closed")

// Stats returns the state of the spool. It does not wait for the disk for long.
func (s *Spool) Stats() Stats {
	s.disk.Lock()
	st := Stats{SpoolID: s.state.id(), Acknowledged: s.state.acked, Written: s.seq, Err: s.writeErr, SetAside: append([]string(nil), s.setAside...)}
	s.disk.Unlock()
	st.DiskBytes = s.disked.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.MemoryBytes, st.Lost = s.bytes, maps.Clone(s.total)
	st.Offered, st.Delivered, st.Inherited = s.offered.byClass(), s.carried.byClass(), s.earlier.byClass()
	return st
}

// Close writes what is queued and closes the spool.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.done
	s.disk.Lock()
	defer s.disk.Unlock()
	// Nothing adds any more: give back the ids that were not used.
	s.mu.Lock()
	s.state.reportID = s.nextID
	s.mu.Unlock()
	err := errors.Join(s.writeErr, s.state.save(true), s.state.f.Close())
	for _, t := range s.tracks {
		t.closeIn()
		if t.out != nil {
			err = errors.Join(err, t.out.Close())
			t.out = nil
		}
	}
	if n := len(s.memory); n > 0 {
		s.log.Error("spool: closed while the disk takes nothing; what was kept in memory is lost", "records", n)
	}
	s.dec.Close()
	if err = errors.Join(err, s.enc.Close(), s.lock.Close()); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}
