package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
)

// flushBytes is the amount of queued events that is written without waiting.
const flushBytes = 512 << 10

// run is the goroutine that writes.
func (s *Spool) run() {
	defer close(s.done)
	var due <-chan time.Time // never, while nothing waits
	for {
		var reply chan error
		last := false
		select {
		case <-s.stop:
			last = true
		case <-s.wake:
		case <-s.first:
			if due == nil {
				due = time.After(s.opts.FlushInterval)
			}
			continue
		case <-due:
		case reply = <-s.flushes:
		}
		due = nil
		err := s.guarded()
		if err != nil { // it is tried again
			due = time.After(s.opts.FlushInterval)
		}
		if reply != nil {
			reply <- err
		}
		if last {
			return
		}
	}
}

// guarded is flush; a defect in it costs what was being written, not the
// daemon.
func (s *Spool) guarded() (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("spool: panic while writing", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("spool: panic while writing: %v", p)
		}
	}()
	return s.flush()
}

// flush takes what is queued and writes it: alerts first.
func (s *Spool) flush() error {
	s.mu.Lock()
	bufs := s.pending
	// The room of the buffers stays taken until they are written.
	lost := s.lost
	some := s.queued() > 0
	s.pending = [ranks]queue{}
	if some {
		s.lost = map[string]uint64{}
	}
	needIDs := s.reserved < s.nextID+reserveIDs/2
	upTo := s.nextID + reserveIDs
	s.mu.Unlock()

	s.disk.Lock()
	defer s.disk.Unlock()
	defer func() { s.disked.Store(s.diskBytes()) }()
	var errs []error
	if needIDs {
		s.state.reportID = upTo
		if err := s.state.save(true); err != nil {
			errs = append(errs, err)
		} else {
			s.mu.Lock()
			s.reserved = upTo
			s.mu.Unlock()
		}
	}
	for r := ranks - 1; r >= 0; r-- {
		for _, b := range bufs[r] {
			rec, err := s.record(b, lost)
			lost = nil // told once
			if err == nil {
				if err = s.write(r, rec); err != nil {
					s.keepInMemory(rec)
				}
			}
			if err != nil {
				errs = append(errs, err)
			}
			// Its compressed form is all that is held until the next sync.
			s.mu.Lock()
			s.bytes -= b.bytes
			if len(s.spare) < maxSpare && cap(b.data) > 0 && cap(b.data) <= 2*maxBuffer {
				s.spare = append(s.spare, b.data[:0])
			}
			s.mu.Unlock()
		}
		// One sync for all that a rank has: on a slow disk, where much waits, each
		// record's own would make more wait than can be written.
		if err := s.sync(s.tracks[r]); err != nil {
			errs = append(errs, err)
		}
	}
	err := errors.Join(errs...)
	if some || err != nil {
		if err != nil && s.writeErr == nil {
			s.log.Error("spool: cannot write; events are kept in memory as far as there is room: free some space", "dir", s.dir, "error", err)
		}
		if err == nil && s.writeErr != nil && len(s.memory) == 0 {
			s.log.Info("spool: writing works again", "dir", s.dir)
		}
		if err != nil || len(s.memory) == 0 {
			s.writeErr = err
		}
		select {
		case s.written <- struct{}{}:
		default:
		}
	}
	if err == nil && len(s.memory) > 0 {
		return s.writeErr // what is in memory only is not durable
	}
	return err
}

// record makes the record of a buffer.
func (s *Spool) record(b *buffer, lost map[string]uint64) (*record, error) {
	m := &agentv1.DeliverRequest{AlertsJson: b.alerts, Lost: lost}
	if len(b.data) > 0 {
		m.EventsZstd = s.enc.EncodeAll(b.data, nil)
		m.EventCount = uint32(b.counts.total()) - b.counts[alertCount]
	}
	payload, err := proto.Marshal(m)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, c := range b.counts {
			s.lose(countName(i), uint64(c))
		}
		return nil, fmt.Errorf("spool: %w", err)
	}
	s.seq++
	return &record{header: header{seq: s.seq, reportID: b.reportID, time: time.Now(), counts: b.counts}, payload: payload}, nil
}

// write appends a record to its track, making room when there is none. It is
// durable after sync.
func (s *Spool) write(r rank, rec *record) error {
	for {
		if s.diskBytes()+rec.size() > s.opts.MaxBytes {
			if !s.makeRoom(r) {
				return fmt.Errorf("spool: the limit of %d bytes is reached", s.opts.MaxBytes)
			}
			continue
		}
		err := s.append(r, rec)
		if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && s.makeRoom(r) {
			continue
		}
		return err
	}
}

// makeRoom deletes the oldest file of the lowest rank that is not above r.
func (s *Spool) makeRoom(r rank) bool {
	for victim := low; victim <= r; victim++ {
		t := s.tracks[victim]
		floor := max(s.state.acked, s.state.inflight)
		lost, told, ok := t.evict(floor)
		if !ok && len(t.segments) > 0 {
			// Only the file that is being written is left: end it.
			if err := s.closeOut(t); err != nil {
				s.log.Warn("spool: the newest file could not be written in full", "error", err)
			}
			lost, told, ok = t.evict(floor)
		}
		if !ok {
			continue
		}
		s.loseCounts(lost)
		s.tellAgain(told)
		s.log.Warn("spool: no room; the oldest file was dropped", "rank", victim.String(), "lost", lost.total())
		return true
	}
	return false
}

// closeOut ends the file that is being written. What could not be made durable
// is in memory then.
func (s *Spool) closeOut(t *track) error {
	if t.out == nil {
		return nil
	}
	err := s.sync(t)
	if t.out != nil {
		t.out.Close() // every write was synced, or taken back
		t.out = nil
	}
	return err
}

// append writes a record at the end of its track.
func (s *Spool) append(r rank, rec *record) error {
	t := s.tracks[r]
	if n := len(t.segments); t.out != nil && t.segments[n-1].size >= s.opts.SegmentBytes {
		if err := s.closeOut(t); err != nil {
			return err
		}
	}
	if t.out == nil {
		if err := s.begin(t, rec.seq); err != nil {
			return err
		}
	}
	seg := t.segments[len(t.segments)-1]
	n, err := t.out.WriteAt(rec.encode(), seg.size)
	if err != nil {
		return s.takeBack(t, seg.size, err)
	}
	seg.size += int64(n)
	t.unsynced = append(t.unsynced, rec)
	return nil
}

// sync makes what was appended to a track durable. What cannot be is taken back
// and kept in memory.
func (s *Spool) sync(t *track) error {
	if len(t.unsynced) == 0 {
		return nil
	}
	seg := t.segments[len(t.segments)-1]
	recs := t.unsynced
	t.unsynced = nil
	if err := s.fsync(t.out); err != nil {
		err = s.takeBack(t, t.synced, err)
		for _, rec := range recs {
			s.keepInMemory(rec)
		}
		return err
	}
	s.unread += seg.size - t.synced
	t.synced = seg.size
	return nil
}

// takeBack leaves the file that is being written with its first size bytes: what
// a failed write left of a record must not look like damage later.
func (s *Spool) takeBack(t *track, size int64, err error) error {
	seg := t.segments[len(t.segments)-1]
	if size == 0 { // an empty file is of no use, and would count as room to make
		t.out.Close()
		t.out = nil
		if t.in != nil && len(t.segments) == 1 {
			t.closeIn()
		}
		t.segments = t.segments[:len(t.segments)-1]
		return fmt.Errorf("spool: %s: %w", seg.path, errors.Join(err, os.Remove(seg.path)))
	}
	seg.size = size
	if terr := t.out.Truncate(size); terr != nil {
		// The file ends here; what it has is read as far as it is right.
		err = errors.Join(err, terr)
		if serr := s.fsync(t.out); serr != nil {
			err = errors.Join(err, serr)
			for _, rec := range t.unsynced {
				s.keepInMemory(rec)
			}
		} else {
			s.unread += size - t.synced
		}
		t.out.Close()
		t.out, t.unsynced = nil, nil
	}
	return fmt.Errorf("spool: %s at byte %d: %w", seg.path, size, err)
}

// begin opens a file for appending: a new one.
func (s *Spool) begin(t *track, seq uint64) error {
	path := filepath.Join(s.dir, segmentName(seq, t.rank))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if d, err := os.Open(s.dir); err == nil {
		err = errors.Join(d.Sync(), d.Close())
		if err != nil {
			s.log.Debug("spool: cannot sync the directory", "error", err)
		}
	}
	t.out, t.synced = f, 0
	t.segments = append(t.segments, &segment{path: path, first: seq})
	return nil
}

// keepInMemory holds a record that the disk did not take, for delivery from
// memory: it goes to the portal in its turn, or is lost if the agent stops
// before. Without room the record of lowest worth, the oldest first, is lost.
func (s *Spool) keepInMemory(rec *record) {
	s.memory = append(s.memory, rec)
	for s.memoryBytes() > int64(s.opts.MaxMemory)/2 {
		victim := 0
		for i, r := range s.memory {
			if worth(r) < worth(s.memory[victim]) {
				victim = i
			}
		}
		s.loseCounts(s.memory[victim].counts)
		s.tellAgain(s.memory[victim].told())
		s.memory = slices.Delete(s.memory, victim, victim+1)
	}
}

// tellAgain puts loss counters, whose record was dropped, into the next one.
func (s *Spool) tellAgain(told map[string]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for class, n := range told {
		s.lost[class] += n
	}
}

// worth orders records by what they hold.
func worth(r *record) rank {
	switch {
	case r.counts[alertCount] > 0:
		return alert
	case r.counts[event.ClassProcess]+r.counts[event.ClassLogon]+r.counts[event.ClassDevice]+r.counts[event.ClassBehavior] > 0:
		return mid
	}
	return low
}

func (s *Spool) memoryBytes() (n int64) {
	for _, r := range s.memory {
		n += r.size()
	}
	return n
}

func (s *Spool) diskBytes() (n int64) {
	for _, t := range s.tracks {
		n += t.bytes()
	}
	return n
}
