package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
)

// A segment file is a sequence of records. A record is a header of 72 bytes,
// little endian, and a payload:
//
//	0  magic "BWS1"
//	4  uint32 length of the payload
//	8  uint32 CRC-32C of the header from byte 12 and the payload
//	12 uint32 number of behaviours (class 7)
//	16 uint64 sequence, growing over all segments
//	24 uint64 highest ReportID in the record, 0 for none
//	32 int64  time of writing, nanoseconds since 1970
//	40 8 uint32: number of events by class (0 to 6), number of alerts
//
// The payload is a DeliverRequest of the agent protocol without spool and
// sequence.
const (
	headerSize = 72
	// maxPayload bounds what a damaged length can make us read.
	maxPayload = 16 << 20
)

var (
	magic      = [4]byte{'B', 'W', 'S', '1'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// counts are numbers by event class; the last is that of alerts.
type counts [9]uint32

const (
	alertCount = 8
	// headerCounts are the classes 0 to 6, which with the alerts behind them have
	// their place from byte 40 on; that of behaviours is byte 12.
	headerCounts  = 7
	behaviorCount = int(event.ClassBehavior)
)

// name returns the class name of an index.
func countName(i int) string {
	if i == alertCount {
		return "alert"
	}
	return event.Class(i).String()
}

// counts64 are sums of counts.
type counts64 [len(counts{})]uint64

func (c *counts64) add(of counts) {
	for i, n := range of {
		c[i] += uint64(n)
	}
}

// byClass names the counts that are not zero.
func (c *counts64) byClass() map[string]uint64 {
	out := make(map[string]uint64)
	for i, n := range c {
		if n > 0 {
			out[countName(i)] += n
		}
	}
	return out
}

func (c *counts) total() (n uint64) {
	for _, v := range c {
		n += uint64(v)
	}
	return n
}

// header is the decoded header of a record.
type header struct {
	length   int
	sum      uint32
	seq      uint64
	reportID uint64
	time     time.Time
	counts   counts
}

// record is a record in memory.
type record struct {
	header
	payload []byte
}

func (r *record) size() int64 { return headerSize + int64(len(r.payload)) }

// encode returns the bytes of the record.
func (r *record) encode() []byte {
	b := make([]byte, headerSize, headerSize+len(r.payload))
	copy(b, magic[:])
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(len(r.payload)))
	le.PutUint64(b[16:], r.seq)
	le.PutUint64(b[24:], r.reportID)
	le.PutUint64(b[32:], uint64(r.time.UnixNano()))
	for i, c := range r.counts[:headerCounts] {
		le.PutUint32(b[40+4*i:], c)
	}
	le.PutUint32(b[40+4*headerCounts:], r.counts[alertCount])
	le.PutUint32(b[12:], r.counts[behaviorCount])
	b = append(b, r.payload...)
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

var (
	errTorn    = errors.New("the record is cut off")
	errDamaged = errors.New("the record is damaged")
)

// decodeHeader reads a header without judging the payload.
func decodeHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	if [4]byte(b[:4]) != magic {
		return header{}, fmt.Errorf("%w: no record begins here", errDamaged)
	}
	h := header{
		length: int(le.Uint32(b[4:])), sum: le.Uint32(b[8:]), seq: le.Uint64(b[16:]), reportID: le.Uint64(b[24:]),
		time: time.Unix(0, int64(le.Uint64(b[32:]))),
	}
	for i := range headerCounts {
		h.counts[i] = le.Uint32(b[40+4*i:])
	}
	h.counts[alertCount] = le.Uint32(b[40+4*headerCounts:])
	h.counts[behaviorCount] = le.Uint32(b[12:])
	if h.length > maxPayload || h.counts.total() > event.MaxBatchEvents {
		return h, fmt.Errorf("%w: a length of %d bytes and %d events cannot be", errDamaged, h.length, h.counts.total())
	}
	return h, nil
}

// readRecord reads the record at an offset. io.EOF means a clean end; errTorn
// that the file ends inside the record; errDamaged that its bytes are wrong.
// The header is returned as far as it could be read.
func readRecord(f *os.File, offset int64) (*record, error) {
	var b [headerSize]byte
	n, err := f.ReadAt(b[:], offset)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return nil, io.EOF
	case n < headerSize && errors.Is(err, io.EOF):
		return nil, errTorn
	case n < headerSize:
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	h, err := decodeHeader(b[:])
	if err != nil {
		return nil, err
	}
	// A wrong length must not cost memory.
	if info, err := f.Stat(); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	} else if offset+headerSize+int64(h.length) > info.Size() {
		return &record{header: h}, errTorn
	}
	r := &record{header: h, payload: make([]byte, h.length)}
	n, err = f.ReadAt(r.payload, offset+headerSize)
	switch {
	case n < h.length && errors.Is(err, io.EOF):
		return r, errTorn
	case n < h.length:
		return r, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if crc32.Update(crc32.Checksum(b[12:], castagnoli), castagnoli, r.payload) != h.sum {
		return r, fmt.Errorf("%w: its checksum does not match", errDamaged)
	}
	return r, nil
}

// told returns the loss counters inside the record.
func (r *record) told() map[string]uint64 {
	m, err := r.content()
	if err != nil {
		return nil
	}
	return m.Lost
}

// content decodes the payload.
func (r *record) content() (*agentv1.DeliverRequest, error) {
	var m agentv1.DeliverRequest
	if err := proto.Unmarshal(r.payload, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return &m, nil
}
