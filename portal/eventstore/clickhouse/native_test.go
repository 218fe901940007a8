package clickhouse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// sample is a block with every kind of column.
func sample() []byte {
	text := column{name: "t", typ: typeText}
	number := column{name: "n", typ: nullable(typeInt64)}
	small, day, group := column{name: "i", typ: typeInt32}, column{name: "d", typ: typeDate}, column{name: "g", typ: typeUInt64}
	flag := column{name: "f", typ: nullable(typeUInt8)}
	for i, s := range []string{"", "a\x00b", strings.Repeat("ü", 300)} {
		text.text(s)
		number.null(i == 1)
		number.int64(int64(i) - 2)
		small.int32(int32(-i))
		day.uint16(uint16(65535 - i))
		group.uint64(math.MaxUint64)
		flag.null(i == 2)
		flag.flag(i == 0)
	}
	return encode([]column{text, number, small, day, group, flag}, 3)
}

func TestNative(t *testing.T) {
	two := append(sample(), sample()...)
	r := newReader(bytes.NewReader(two))
	want := &hunting.Block{Rows: 3, Columns: []hunting.Vector{
		{Texts: []string{"", "a\x00b", strings.Repeat("ü", 300)}},
		{Ints: []int64{-2, -1, 0}, Nulls: []bool{false, true, false}},
		{Ints: []int64{0, -1, -2}},
		{Ints: []int64{65535, 65534, 65533}},
		{Ints: []int64{-1, -1, -1}},
		{Ints: []int64{1, 0, 0}, Nulls: []bool{false, false, true}},
	}}
	for range 2 {
		if got, err := r.next(); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for n := 1; n < len(sample()); n += 7 {
		if _, err := newReader(bytes.NewReader(sample()[:n])).next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d bytes of a block: %v", n, err)
		}
	}
	r = newReader(strings.NewReader(string(sample()) + "Code: 241, e.displayText() = DB::Exception: Memory limit exceeded, e.what() = DB::Exception"))
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	var said *Error
	if _, err := r.next(); !errors.As(err, &said) || said.Code != 241 || said.Message != "ClickHouse: Code: 241: Memory limit exceeded" {
		t.Errorf("an error in the middle of an answer: %v", err)
	}
}

// TestBlockMemory: values that are short on the wire count as what they take.
func TestBlockMemory(t *testing.T) {
	for _, tc := range []struct {
		left int
		ok   bool
	}{{10*valueBytes + 10, true}, {10*valueBytes + 9, false}} {
		r := newReader(bytes.NewReader(make([]byte, 10)))
		r.left = tc.left
		var v hunting.Vector
		if err := r.vector(&v, typeUInt8, 10); (err == nil) != tc.ok {
			t.Errorf("%d bytes left: %v", tc.left, err)
		}
	}
}

// TestKinds: what a server answers has the columns that were asked for.
func TestKinds(t *testing.T) {
	b := &hunting.Block{Rows: 1, Columns: []hunting.Vector{{Texts: []string{"a"}}, {Ints: []int64{1}}}}
	for of, ok := range map[kinds]bool{"": true, "tn": true, "t": false, "tnn": false, "nt": false, "tt": false, "nn": false} {
		if err := of.check(b); (err == nil) != ok {
			t.Errorf("%q: %v", of, err)
		}
	}
}

// TestSilent: a server that accepts and does not answer is asked last from then on,
// unless it was the caller who went away.
func TestSilent(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newClient(Config{Endpoints: []string{l.Addr().String(), "127.0.0.1:1"}})
	defer c.close()
	e := c.endpoints[0]
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.do(canceled, e, nil, "SELECT 1", nil); !errors.Is(err, context.Canceled) || !e.rest.IsZero() {
		t.Errorf("a caller who went away: %v, the server rests until %s", err, e.rest)
	}
	late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.do(late, e, nil, "SELECT 1", nil); !errors.Is(err, context.DeadlineExceeded) || e.rest.IsZero() {
		t.Errorf("no answer: %v, the server rests until %s", err, e.rest)
	}
}

// TestTurns: the servers get the groups in turn, whatever is read between them.
func TestTurns(t *testing.T) {
	empty := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer empty.Close()
	at := empty.Listener.Addr().String()
	for reads := range 9 {
		cfg := Config{Endpoints: []string{at, at, at, at}}
		s := &Store{cfg: cfg, client: newClient(cfg)}
		defer s.client.close()
		var last int
		for group := range 9 {
			for range reads {
				if err := s.client.read(t.Context(), "SELECT 1", "", nil); err != nil {
					t.Fatal(err)
				}
			}
			e, err := s.target(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n := slices.Index(s.client.endpoints, e.endpoint)
			if group > 0 && n != (last+1)%4 {
				t.Fatalf("%d reads for each group: a group goes to server %d, the one before to %d", reads, n, last)
			}
			last = n
		}
	}
}

// FuzzNative reads what a server might send.
func FuzzNative(f *testing.F) {
	f.Add(sample())
	f.Add([]byte("Code: 1, e"))
	f.Add([]byte{1, 0xff, 0xff, 0x3f, 1, 'x', 6, 'S', 't', 'r', 'i', 'n', 'g', 0xff, 0xff, 0xff, 0x1f})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReader(bytes.NewReader(data))
		for {
			b, err := r.next()
			if err != nil {
				return
			}
			for _, v := range b.Columns {
				if n := len(v.Texts) + len(v.Ints); n != b.Rows || (v.Nulls != nil && len(v.Nulls) != n) {
					t.Fatalf("%d values in a block of %d rows", n, b.Rows)
				}
			}
		}
	})
}

func TestHours(t *testing.T) {
	for _, tc := range []struct {
		micros int64
		hour   int32
	}{{0, 0}, {-1, -1}, {microsPerHour - 1, 0}, {microsPerHour, 1}, {math.MinInt64, math.MinInt32}, {math.MaxInt64, math.MaxInt32}} {
		if got := hourOf(tc.micros); got != tc.hour {
			t.Errorf("hour of %d is %d, want %d", tc.micros, got, tc.hour)
		}
	}
	if got := dayOf(time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)); got != 0 {
		t.Errorf("a day before 1970 is %d", got)
	}
}

// TestSpans: the ranges of a timeline cover what is asked for, once, the nearest
// first.
func TestSpans(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	cursor := &eventstore.Cursor{Time: now.Add(-time.Hour), ReportID: 5}
	for name, tc := range map[string]struct {
		q     eventstore.TimelineQuery
		whole span
	}{
		"everything": {eventstore.TimelineQuery{}, span{math.MinInt64, math.MaxInt64}},
		"after":      {eventstore.TimelineQuery{After: cursor}, span{math.MinInt64, cursor.Time.UnixMicro() + 1}},
		"before":     {eventstore.TimelineQuery{Before: cursor}, span{cursor.Time.UnixMicro(), math.MaxInt64}},
		"a minute":   {eventstore.TimelineQuery{Since: now.Add(-time.Minute), Until: now}, span{now.Add(-time.Minute).UnixMicro(), now.UnixMicro()}},
		"long ago":   {eventstore.TimelineQuery{Until: now.AddDate(-9, 0, 0), After: cursor}, span{math.MinInt64, now.AddDate(-9, 0, 0).UnixMicro()}},
		"the future": {eventstore.TimelineQuery{Since: now.AddDate(1, 0, 0)}, span{now.AddDate(1, 0, 0).UnixMicro(), math.MaxInt64}},
	} {
		list := spans(tc.q, now)
		if len(list) == 0 {
			t.Errorf("%s: no range", name)
			continue
		}
		whole := list[0]
		for _, s := range list[1:] {
			if tc.q.Before != nil && s.from == whole.until {
				whole.until = s.until
			} else if tc.q.Before == nil && s.until == whole.from {
				whole.from = s.from
			} else {
				t.Errorf("%s: %v does not join %v", name, s, whole)
			}
		}
		if whole != tc.whole {
			t.Errorf("%s: %v, want %v", name, whole, tc.whole)
		}
	}
}

// TestLiterals: no text ends a literal.
func TestLiterals(t *testing.T) {
	for text, want := range map[string]string{"": "''", "it's": `'it\'s'`, `a\`: `'a\\'`, "\x00\n": "'\\0\n'"} {
		if got := literal(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
