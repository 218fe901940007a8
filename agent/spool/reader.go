package spool

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// Limits of a batch besides Options.BatchBytes; those of the protocol are
// wider.
const (
	batchEvents = 20_000
	batchAlerts = 100
	// keepAside is the number of damaged files that are kept.
	keepAside = 5
)

// Next returns the next batch to deliver, waiting until there is one. Until it
// is acknowledged the same batch is returned again, also after a restart: the
// portal can tell a repetition by its sequence. The batch belongs to the spool
// and must not be changed.
func (s *Spool) Next(ctx context.Context) (*Batch, error) {
	for {
		s.disk.Lock()
		b, wait := s.next(time.Now())
		s.disk.Unlock()
		if b != nil {
			return b, nil
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-s.written:
		case <-timer:
		case <-s.done:
			return nil, errClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// next returns a batch, or how long to wait for one (0: until something is
// written).
func (s *Spool) next(now time.Time) (*Batch, time.Duration) {
	if s.inflight != nil {
		return s.inflight, 0
	}
	if end := s.state.inflight; end > s.state.acked {
		// Chosen before a restart; it may be at the portal already, so it must
		// end where it ended then.
		if b := s.collect(end); b.Sequence != 0 {
			b.Sequence = end
			s.inflight = b
			return b, 0
		}
		s.state.acked = end
	}
	first := s.peek()
	if first == nil {
		return nil, 0
	}
	age := now.Sub(first.time)
	urgent := s.tracks[alert].peeked != nil || slices.ContainsFunc(s.memory, func(r *record) bool { return r.counts[alertCount] > 0 })
	if !urgent && s.unread < int64(s.opts.BatchBytes)/4 && age >= 0 && age < s.opts.BatchDelay {
		return nil, s.opts.BatchDelay - age
	}
	b := s.collect(0)
	if b.Sequence == 0 { // nothing of it could be read
		return nil, time.Millisecond
	}
	s.unread = 0
	s.state.inflight = b.Sequence
	if err := s.state.save(true); err != nil {
		// Only a crash now would make a repetition of it; better than silence.
		s.log.Error("spool: cannot note the batch that is delivered", "error", err)
	}
	s.inflight = b
	return b, 0
}

// peek returns the record with the lowest sequence that was not taken.
func (s *Spool) peek() *record {
	var best *record
	for _, t := range s.tracks {
		if r := t.peek(s.state.acked, s.damaged); r != nil && (best == nil || r.seq < best.seq) {
			best = r
		}
	}
	for _, r := range s.memory {
		if r.seq > max(s.state.acked, s.memoryTaken) && (best == nil || r.seq < best.seq) {
			best = r
		}
	}
	return best
}

// take marks the record that peek returned as taken.
func (s *Spool) take(r *record) {
	for _, t := range s.tracks {
		if t.peeked == r {
			t.take()
			// A failing disk may have what is kept in memory as well.
			s.memory = slices.DeleteFunc(s.memory, func(same *record) bool { return same.seq == r.seq })
			return
		}
	}
	s.memoryTaken = r.seq
}

// collect takes records into a batch: those up to the sequence end, or, when
// end is 0, as many as fit. Its Sequence is 0 when there are none.
func (s *Spool) collect(end uint64) *Batch {
	b := &Batch{SpoolID: s.state.id()}
	alertBytes := 0
	for {
		r := s.peek()
		if r == nil || end > 0 && r.seq > end {
			return b
		}
		full := b.EventCount+int(r.counts.total()) > batchEvents || len(b.Alerts)+int(r.counts[alertCount]) > batchAlerts || len(b.Events)+alertBytes >= s.opts.BatchBytes
		if end == 0 && b.Sequence != 0 && full {
			return b
		}
		s.take(r)
		m, err := r.content()
		var plain []byte
		if err == nil && len(m.EventsZstd) > 0 {
			plain, err = s.dec.DecodeAll(m.EventsZstd, nil)
		}
		b.Sequence = r.seq
		if err != nil { // written so, since its checksum is right
			s.log.Error("spool: a record cannot be decoded and is lost", "sequence", r.seq, "error", err)
			s.loseCounts(r.counts)
			continue
		}
		b.Events = append(b.Events, plain...)
		b.EventCount += int(m.EventCount)
		b.Alerts = append(b.Alerts, m.AlertsJson...)
		for _, a := range m.AlertsJson {
			alertBytes += len(a)
		}
		for k, v := range m.Lost {
			if b.Lost == nil {
				b.Lost = map[string]uint64{}
			}
			b.Lost[k] += v
		}
		for i, c := range r.counts {
			if r.seq <= s.openSeq {
				b.earlier[i] += c
			}
			b.counts[i] += c
		}
	}
}

// loseCounts counts a loss.
func (s *Spool) loseCounts(c counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range c {
		s.lose(countName(i), uint64(n))
	}
}

// damaged notes damage that reading met.
func (s *Spool) damaged(d damage) {
	n := d.lost.total()
	s.loseCounts(d.lost)
	if n == 0 {
		s.mu.Lock()
		s.lose("unknown", 1)
		s.mu.Unlock()
	}
	s.log.Error("spool: a file is damaged; what can still be read of it is delivered, then it is set aside. Check the disk; delete the file when it is of no interest",
		"file", d.path, "offset", d.offset, "set_aside_as", d.path+corruptSuffix, "lost", max(n, 1), "error", d.err)
}

// Ack says that the batch with this sequence is stored by the portal.
func (s *Spool) Ack(sequence uint64) error {
	s.disk.Lock()
	defer s.disk.Unlock()
	if s.inflight == nil || s.inflight.Sequence != sequence {
		return fmt.Errorf("spool: batch %d is acknowledged but not on its way", sequence)
	}
	s.mu.Lock()
	s.carried.add(s.inflight.counts)
	s.earlier.add(s.inflight.earlier)
	s.mu.Unlock()
	s.inflight = nil
	s.state.acked = sequence
	s.memory = slices.DeleteFunc(s.memory, func(r *record) bool { return r.seq <= sequence })
	release := false
	for _, t := range s.tracks {
		t.peek(sequence, s.damaged) // finishes files that are read to the end
		release = release || t.releasable(sequence)
	}
	// Before files go away it must be certain that their numbers are not given
	// again: the portal would take new batches for repetitions.
	if err := s.state.save(release); err != nil {
		s.log.Error("spool: cannot note an acknowledged batch", "error", err)
		return nil // the files stay until it works
	}
	if !release {
		return nil
	}
	for _, t := range s.tracks {
		s.setAside = append(s.setAside, t.release(sequence)...)
	}
	for len(s.setAside) > keepAside {
		if err := os.Remove(s.setAside[0]); err != nil {
			s.log.Warn("spool: cannot remove a damaged file", "error", err)
		}
		s.setAside = s.setAside[1:]
	}
	s.disked.Store(s.diskBytes())
	return nil
}

// Discard gives up the batch with this sequence because the portal will never
// take it; its content is counted as lost.
func (s *Spool) Discard(sequence uint64) error {
	s.disk.Lock()
	b := s.inflight
	s.disk.Unlock()
	if b != nil && b.Sequence == sequence {
		s.loseCounts(b.counts)
	}
	return s.Ack(sequence)
}
