package unpack

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// errFull ends a decoder because its output has reached a limit.
var errFull = errors.New("member is full")

// sink takes the output of a decoder of our own. Decoders push, so that each is
// one plain loop; what they wrote is at the same time the window for their back
// references. Every method fails at the limits, which ends the decoder.
type sink struct {
	w     *Walker
	m     *memory
	limit int64
	err   error
	tick  int64
}

func (s *sink) size() int64 { return s.m.size }

// room checks that n more bytes fit, and now and then the time.
func (s *sink) room(n int64) error {
	if s.err != nil {
		return s.err
	}
	if s.m.size+n > s.limit {
		s.err = errFull
		return s.err
	}
	if s.m.size-s.tick > 256<<10 {
		s.tick = s.m.size
		s.err = s.w.check()
	}
	return s.err
}

// WriteByte appends one byte.
func (s *sink) WriteByte(c byte) error {
	if err := s.room(1); err != nil {
		return err
	}
	s.m.push(c)
	return nil
}

// Write appends as much of p as fits.
func (s *sink) Write(p []byte) (int, error) {
	fits := min(int64(len(p)), max(0, s.limit-s.m.size))
	s.m.append(p[:fits])
	if err := s.room(int64(len(p)) - fits); err != nil {
		return int(fits), err
	}
	return int(fits), nil
}

// copy repeats n bytes from dist bytes back; from before the beginning come
// bytes of value fill, or damage when fill is negative.
func (s *sink) copy(dist int64, n, fill int) error {
	if dist <= 0 || fill < 0 && dist > s.m.size {
		return fmt.Errorf("%w: reference to %d bytes back at %d", errDamaged, dist, s.m.size)
	}
	if err := s.room(int64(n)); err != nil {
		if !errors.Is(err, errFull) {
			return err
		}
		n = int(max(0, s.limit-s.m.size))
	}
	for range n {
		if at := s.m.size - dist; at >= 0 {
			s.m.push(s.m.at(at))
		} else {
			s.m.push(byte(fill))
		}
	}
	return s.err
}

// readAll copies r to the sink.
func (s *sink) readAll(r io.Reader) error {
	for {
		if err := s.room(0); err != nil {
			return err
		}
		left := s.limit - s.m.size
		if left <= 0 {
			var one [1]byte
			if n, _ := io.ReadFull(r, one[:]); n == 0 {
				return nil
			}
			s.err = errFull
			return errFull
		}
		if _, err := s.m.readFrom(r, min(left, readStep)); err == io.EOF { //nolint:errorlint // the end; a wrapped one is damage
			return nil
		} else if err != nil {
			return err
		}
	}
}

// decode runs a decoder and returns what it wrote, also when it was cut short:
// a limit or damage is noted. The memory counts as held until release is called,
// and must not be read afterwards.
// An error is that of the context or errLimit: then nothing more is to be read.
func (w *Walker) decode(decoder func(*sink) error) (m *memory, release func(), err error) {
	b := w.budget
	s := &sink{w: w, m: &memory{scratch: b.Scratch}, limit: max(0, min(b.Bytes, b.MaxMember, b.MaxHeld-b.held))}
	err = decoder(s)
	held := s.m.size
	b.held += held
	release = func() {
		b.held -= held
		b.Scratch.takeBack(s.m)
	}
	switch {
	case err == nil:
	case errors.Is(err, errFull):
		w.note(verdict.LimitBytes)
		s.m.cut = true
		if err = nil; b.Bytes <= s.m.size {
			err = errLimit
		}
	case errors.Is(err, errLimit), w.ctx.Err() != nil:
		s.m.cut = true
	default:
		w.damaged()
		s.m.cut = w.cut
		err = nil
	}
	return s.m, release, err
}

// Produce gives the output of a decoder as a member. Damage and the limit of one
// member end that member only; what was decoded until then is looked at.
func (w *Walker) Produce(name string, decoder func(*sink) error) error {
	if err := w.member(); err != nil {
		return err
	}
	m, release, stop := w.decode(decoder)
	defer release()
	if stop != nil && !errors.Is(stop, errLimit) {
		return stop
	}
	w.budget.Bytes -= m.size
	w.budget.extracted += m.size
	if err := w.give(m.object(name)); err != nil {
		return err
	}
	if errors.Is(stop, errLimit) && w.budget.Bomb() && w.budget.Bytes <= 0 {
		w.note(verdict.LimitRatio)
	}
	return stop
}

// Bytes gives a member that is in memory already.
func (w *Walker) Bytes(name string, data []byte) error {
	return w.Produce(name, func(s *sink) error {
		for piece := range slices.Chunk(data, checkEvery) {
			if _, err := s.Write(piece); err != nil {
				return err
			}
		}
		return nil
	})
}

// load reads up to most bytes at off into memory of its own. The memory counts
// as held until release is called, and must not be used afterwards.
func (w *Walker) load(o Object, off, most int64) (data []byte, release func()) {
	n := max(0, min(most, o.Size-off, w.budget.MaxHeld-w.budget.held))
	if off < 0 {
		n = 0
	}
	data = w.budget.Scratch.buffer(n)
	k := int64(0)
	for k < n && w.ctx.Err() == nil {
		m, err := o.Data.ReadAt(data[k:min(n, k+4*checkEvery)], off+k)
		if k += int64(m); err != nil {
			break
		}
	}
	w.budget.held += n
	return data[:k], func() {
		w.budget.held -= n
		w.budget.Scratch.keep(data)
	}
}

// whole loads an object that a format must see as one piece; what exceeds maxText
// is not looked at, which is noted.
func (w *Walker) whole(o Object) (data []byte, release func()) {
	data, release = w.load(o, 0, maxText)
	if int64(len(data)) < o.Size {
		w.note(verdict.LimitBytes)
		w.cut = true
	}
	return data, release
}

// piece reads n bytes at off, fewer where the object ends.
func (o Object) piece(off int64, n int) []byte {
	if off < 0 || off >= o.Size || n <= 0 {
		return nil
	}
	b := make([]byte, min(int64(n), o.Size-off))
	k, _ := o.Data.ReadAt(b, off)
	return b[:k]
}

// sub is a part of an object, cut to what there is of it.
func (o Object) sub(name string, off, size int64) Object {
	off = max(0, min(off, o.Size))
	cut := o.Cut && size >= o.Size-off
	size = max(0, min(size, o.Size-off))
	return Object{Name: name, Data: io.NewSectionReader(o.Data, off, size), Size: size, Cut: cut}
}
