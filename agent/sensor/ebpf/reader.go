package ebpf

import (
	"errors"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/bulwarkhq/bulwark/agent/process"
)

// recordReader is the ring buffer or the perf buffer.
type recordReader interface {
	Read(*sample) error
	Close() error
}

type sample struct {
	data []byte
	lost uint64
}

type ringReader struct {
	*ringbuf.Reader
	rec ringbuf.Record
	// pause is that before the next look; it grows while nothing comes.
	pause time.Duration
	// some: records have come since the last look.
	some bool
}

// Read looks at the buffer from time to time, for the programs wake it for some
// kinds of records only.
func (r *ringReader) Read(s *sample) error {
	for {
		err := r.ReadInto(&r.rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if !r.some {
				r.pause = min(2*r.pause, idleInterval)
			}
			r.some = false
			r.SetDeadline(time.Now().Add(r.pause))
			continue
		}
		if r.pause > lookInterval { // what comes now may wake nobody
			r.pause = lookInterval
			r.SetDeadline(time.Now().Add(r.pause))
		}
		r.some = true
		s.data = r.rec.RawSample
		return err
	}
}

type perfReader struct {
	*perf.Reader
	rec perf.Record
}

func (r *perfReader) Read(s *sample) error {
	err := r.ReadInto(&r.rec)
	s.data, s.lost = r.rec.RawSample, r.rec.LostSamples
	return err
}

func newReader(m *ebpf.Map, ring bool) (recordReader, error) {
	if ring {
		r, err := ringbuf.NewReader(m)
		if err != nil {
			return nil, err
		}
		r.SetDeadline(time.Now().Add(lookInterval))
		return &ringReader{Reader: r, pause: lookInterval}, nil
	}
	r, err := perf.NewReader(m, perfBuffer)
	if err != nil {
		return nil, err
	}
	return &perfReader{Reader: r}, nil
}

// earlyExits keeps the last few thousand ends of processes. Nil keeps nothing.
type earlyExits struct {
	recent, older map[process.Key]Record
}

const maxEarlyExits = 2048

func (e *earlyExits) put(k process.Key, r Record) {
	if e == nil {
		return
	}
	if e.recent == nil || len(e.recent) >= maxEarlyExits {
		e.recent, e.older = make(map[process.Key]Record), e.recent
	}
	e.recent[k] = r
}

func (e *earlyExits) get(k process.Key) (Record, bool) {
	if e == nil {
		return Record{}, false
	}
	r, ok := e.recent[k]
	if !ok {
		r, ok = e.older[k]
	}
	return r, ok
}
