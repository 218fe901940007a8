package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/test/need"
)

// pollContext is a context that ends at the n-th question whether it has, and
// counts the questions.
type pollContext struct {
	context.Context
	polls, end int64
	done       chan struct{}
}

func newPollContext(end int64) *pollContext {
	return &pollContext{Context: context.Background(), end: end, done: make(chan struct{})}
}

func (c *pollContext) Err() error {
	if c.polls++; c.polls >= c.end {
		if c.polls == c.end {
			close(c.done)
		}
		return context.Canceled
	}
	return nil
}

func (c *pollContext) Done() <-chan struct{} { return c.done }

// workReader counts the bytes that are read, and how many of them at most since
// the last poll.
type workReader struct {
	r        io.ReaderAt
	ctx      *pollContext
	polls    int64
	since    int64
	most     int64
	afterEnd int64
}

func (w *workReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.r.ReadAt(p, off)
	if w.ctx.polls != w.polls {
		w.polls, w.since = w.ctx.polls, 0
	}
	w.since += int64(n)
	w.most = max(w.most, w.since)
	if w.ctx.polls >= w.ctx.end {
		w.afterEnd += int64(n)
	}
	return n, err
}

// hostileFiles are files of the kinds whose curves bench/ draws, small enough
// to be scanned often.
func hostileFiles(t *testing.T) map[string][]byte {
	t.Helper()
	nested := []byte("needle")
	for range 12 {
		nested = zipOf(t, "inner.zip", nested)
	}
	var many []byte
	{
		args := []any{}
		for i := range 60 {
			args = append(args, fmt.Sprintf("f%d.txt", i), []byte(strings.Repeat("needle in a text ", 30)))
		}
		many = zipOf(t, args...)
	}
	return map[string][]byte{
		"near matches":  bytes.Repeat([]byte("needleneedlx"), need.Rounds(1<<9, 1<<6)),
		"zeros":         make([]byte, 1<<20),
		"regex bomb":    append([]byte("needle"), bytes.Repeat([]byte("a"), need.Rounds(3<<10, 1<<9))...),
		"gaps":          bytes.Repeat([]byte("abcd"), need.Rounds(1<<10, 1<<7)),
		"text":          bytes.Repeat([]byte("Words  of a Text \n"), need.Rounds(3<<10, 1<<8)),
		"page":          append([]byte("<html>"), bytes.Repeat([]byte("<a href=x>y&amp;</a><!-- z -->"), need.Rounds(2<<10, 1<<8))...),
		"base64":        bytes.Repeat([]byte("bmVlZGxlIG5lZWRsZSBuZWVkbGUg"), need.Rounds(2<<10, 1<<8)),
		"nested":        nested,
		"many members":  many,
		"archive bomb":  zipOf(t, "zeros", make([]byte, 2<<20)),
		"high entropy":  noise(1 << 20),
		"pdf":           append([]byte("%PDF-1.4\n"), bytes.Repeat([]byte("1 0 obj<</Length 4>>stream\nabcd\nendstream endobj\n"), need.Rounds(1<<8, 1<<5))...),
		"pe beginnings": bytes.Repeat([]byte("MZ\x90\x00PE\x00\x00"), 3<<10),
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// TestStops ends the context at many points of the scans of hostile files. The
// work between two questions whether it has ended is bounded, as is the work
// behind the one that says so: that is what keeps Scan within 50 ms of the end,
// whatever the machine.
func TestStops(t *testing.T) {
	e, rep := build(t, map[string]string{
		"h.hsb": "0000000000000000000000000000000000000000:*:Any:73\n",
		"n.ndb": "N1:0:*:6e6565646c65{-9}21\nN2:0:*:61{1-200}62{1-200}63646162*65656565\nN3:7:*:776f726473*6e6576657274686572\nN4:3:*:6e6f74686572652a\n",
		"l.ldb": "L1;Engine:81-255,Target:0;0&1;6e6565646c65;0/(a+)+b$/g\nL2;Engine:81-255,Target:0;(0|1)>100000,2;61626364;6263\n",
		"y.yar": `rule r { strings: $a = /need(le)+[a-z]*q/ $b = { 61 [0-200] 7a } condition: #a > 5 or for any i in (0..1000) : (uint8(i) == 300) or $b }`,
	})
	for _, p := range rep.Problems {
		t.Log(p)
	}
	// Bytes read at most between two polls: two windows with their margins, and
	// as much again for what lies elsewhere.
	const mostBytes = 4 * (window + 2*margin + slowSize)
	before := runtime.NumGoroutine()
	for name, data := range hostileFiles(t) {
		scan := func(end int64) (*pollContext, *workReader, error) {
			ctx := newPollContext(end)
			r := &workReader{r: bytes.NewReader(data), ctx: ctx}
			_, err := e.Scan(ctx, r, int64(len(data)), Options{Archives: true, Limits: Limits{Bytes: 16 << 20, Time: time.Hour}})
			return ctx, r, err
		}
		whole, r, err := scan(1 << 60)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.most > mostBytes {
			t.Errorf("%s: %d bytes read between two polls", name, r.most)
		}
		points := int64(need.Rounds(5, 2))
		for k := range points {
			end := 1 + whole.polls*k/points
			ctx, r, err := scan(end)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: ended at poll %d of %d: %v", name, end, whole.polls, err)
			}
			// Each layer of containers may ask once more on its way out.
			if more := ctx.polls - end; more > 64 || r.afterEnd > mostBytes {
				t.Errorf("%s: ended at poll %d of %d: %d polls and %d bytes more", name, end, whole.polls, more, r.afterEnd)
			}
		}
		t.Logf("%-14s %8d bytes %8d polls, at most %d bytes read between two", name, len(data), whole.polls, r.most)
	}
	// Those of decoders end a moment after the scan.
	for end := time.Now().Add(2 * time.Minute); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines before, %d behind", before, runtime.NumGoroutine())
		}
	}
}

// TestStopsElsewhere ends the context from another goroutine.
func TestStopsElsewhere(t *testing.T) {
	e, _ := build(t, map[string]string{"n.ndb": "N1:0:*:6e6565646c65{-9}21\n"})
	ctx, cancel := context.WithCancel(t.Context())
	var reads atomic.Int64
	r := readerFunc(func(p []byte, off int64) (int, error) {
		if reads.Add(1) == 20 {
			cancel()
		}
		clear(p)
		return len(p), nil
	})
	if _, err := e.Scan(ctx, r, 1<<40, Options{Limits: Limits{MaxSize: 1 << 40, Time: time.Hour}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := reads.Load(); n > 24 {
		t.Errorf("%d reads, the context ended at 20", n)
	}
}

// TestNormalisationAsksTheContext: the context is asked all the time while a page is
// normalised. Of this one nothing is left then, so that the search asks little.
func TestNormalisationAsksTheContext(t *testing.T) {
	e, _ := build(t, map[string]string{"n.ndb": "N:3:*:6e6565646c65\n"})
	page := strings.NewReader("<html><!-- " + strings.Repeat("z", 4<<20))
	ctx := newPollContext(1 << 60)
	v, err := e.Scan(ctx, page, page.Size(), Options{})
	if err != nil || v.FileType != filetype.HTML {
		t.Fatalf("%+v, %v", v, err)
	}
	if least := page.Size() >> 15; ctx.polls < least {
		t.Errorf("the context was asked %d times, want %d at least", ctx.polls, least)
	}
}

type readerFunc func(p []byte, off int64) (int, error)

func (f readerFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }
