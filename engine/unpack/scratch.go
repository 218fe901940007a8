package unpack

import (
	"bufio"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
)

const (
	// keptChunks is how many chunks of members wait for the next one, keptText
	// how long a text's buffer may be to be kept.
	keptChunks = 4
	keptText   = 4 << 20
	// inputSize is how much of a container is read at a time.
	inputSize = 32 << 10
)

// Scratch is working memory that one scan after the other uses again: most
// members are small, and making and clearing their memory anew takes longer
// than unpacking them. It serves one scan at a time. What it hands out is
// dirty; nothing reads beyond what was written.
type Scratch struct {
	chunks [][]byte
	text   []byte
	inputs []*bufio.Reader
	gzips  []*gzip.Reader
	flates []io.ReadCloser
}

// pop takes the last of a list, the zero value when there is none.
func pop[T any](list *[]T) (v T) {
	if n := len(*list); n > 0 {
		v = (*list)[n-1]
		clear((*list)[n-1:])
		*list = (*list)[:n-1]
	}
	return v
}

// chunk is room of memoryChunk bytes, nil when none is kept.
func (s *Scratch) chunk() []byte { return pop(&s.chunks) }

// takeBack keeps the chunks of a member that nobody looks at any more.
func (s *Scratch) takeBack(m *memory) {
	for _, c := range m.chunks {
		if cap(c) == memoryChunk && len(s.chunks) < keptChunks {
			s.chunks = append(s.chunks, c[:0])
		}
	}
	m.chunks, m.size = nil, 0
}

// buffer is room for n bytes of text; keep gives it back.
func (s *Scratch) buffer(n int64) []byte {
	if n <= int64(cap(s.text)) {
		b := s.text[:n]
		s.text = nil
		return b
	}
	return make([]byte, n)
}

func (s *Scratch) keep(b []byte) {
	if cap(b) > cap(s.text) && cap(b) <= keptText {
		s.text = b[:0]
	}
}

// input is a buffered reader of r; done gives it back.
func (s *Scratch) input(r io.Reader) *bufio.Reader {
	if b := pop(&s.inputs); b != nil {
		b.Reset(r)
		return b
	}
	return bufio.NewReaderSize(r, inputSize)
}

func (s *Scratch) done(b *bufio.Reader) {
	b.Reset(nil)
	s.inputs = append(s.inputs, b)
}

// gzip reads a gzip file; a reader without error is given back to gzips.
func (s *Scratch) gzip(r *bufio.Reader) (*gzip.Reader, error) {
	if z := pop(&s.gzips); z != nil {
		return z, z.Reset(r)
	}
	return gzip.NewReader(r)
}

// flate reads deflated data; it is given back to flates.
func (s *Scratch) flate(r *bufio.Reader) io.ReadCloser {
	if f := pop(&s.flates); f != nil {
		if f.(flate.Resetter).Reset(r, nil) == nil {
			return f
		}
	}
	return flate.NewReader(r)
}
