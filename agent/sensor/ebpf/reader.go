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
}

// Read looks at the buffer again after lookInterval, for the programs wake it
// for some kinds of records only.
func (r *ringReader) Read(s *sample) error {
	for {
		err := r.ReadInto(&r.rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.SetDeadline(time.Now().Add(lookInterval))
			continue
		}
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
		return &ringReader{Reader: r}, nil
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
