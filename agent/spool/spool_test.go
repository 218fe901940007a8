package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/event"
)

func open(t testing.TB, dir string, opts Options) *Spool {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) // tests that care close themselves
	return s
}

func fileEvent(n int) *event.Event {
	return &event.Event{Time: time.Unix(int64(n), 0), Class: event.ClassFile, Action: event.FileCreated, File: event.File{FolderPath: fmt.Sprintf("/tmp/%d", n)}}
}

func processEvent(n int) *event.Event {
	return &event.Event{Time: time.Unix(int64(n), 0), Class: event.ClassProcess, Action: event.ProcessCreated, Process: event.Process{PID: int64(n)}}
}

func anAlert(n int) event.Alert {
	return event.Alert{ID: fmt.Sprintf("%032x", n), Time: time.Unix(1, 0), Title: "t", Severity: event.SeverityHigh, Source: event.SourceAntivirus}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is what came out of a spool.
type content struct {
	reports map[uint64]int
	alerts  map[string]int
	classes map[event.Class]int
	lost    map[string]uint64
	last    uint64
	batches int
	batchOf map[string]uint64 // alert -> batch
}

func newContent() *content {
	return &content{batchOf: map[string]uint64{}, reports: map[uint64]int{}, alerts: map[string]int{}, classes: map[event.Class]int{}, lost: map[string]uint64{}}
}

func (c *content) add(t testing.TB, b *Batch) {
	t.Helper()
	if b.Sequence <= c.last {
		t.Fatalf("batch %d after %d", b.Sequence, c.last)
	}
	c.last = b.Sequence
	c.batches++
	n := 0
	must(t, event.DecodeEvents(b.Events, func(e *event.Event) error {
		n++
		c.reports[e.ReportID]++
		c.classes[e.Class]++
		return nil
	}))
	if n != b.EventCount {
		t.Fatalf("%d events, EventCount %d", n, b.EventCount)
	}
	for _, a := range b.Alerts {
		x, err := event.DecodeAlert(a)
		must(t, err)
		c.alerts[x.ID]++
		c.batchOf[x.ID] = b.Sequence
	}
	for k, v := range b.Lost {
		c.lost[k] += v
	}
}

// drain delivers until nothing comes for a while, and nothing waits. Of what was
// damaged some may wait for ever.
func (c *content) drain(t testing.TB, s *Spool) *content {
	t.Helper()
	for quiet := 0; ; {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		b, err := s.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			st := s.Stats()
			if quiet++; st.MemoryBytes == 0 && st.Written == st.Acknowledged || quiet == 5 {
				return c
			}
			continue
		}
		must(t, err)
		quiet = 0
		c.add(t, b)
		must(t, s.Ack(b.Sequence))
	}
}

func (c *content) once(t testing.TB) {
	t.Helper()
	for id, n := range c.reports {
		if n != 1 {
			t.Fatalf("event %d delivered %d times", id, n)
		}
	}
	for id, n := range c.alerts {
		if n != 1 {
			t.Fatalf("alert %s delivered %d times", id, n)
		}
	}
}

func quick() Options {
	return Options{FlushInterval: 20 * time.Millisecond, BatchDelay: 50 * time.Millisecond}
}

func TestRoundTripAndRestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	var last uint64
	for i := range 1000 {
		e := fileEvent(i)
		if i%2 == 0 {
			e = processEvent(i)
		}
		s.AddEvent(e)
		if e.ReportID <= last {
			t.Fatalf("ReportID %d after %d", e.ReportID, last)
		}
		last = e.ReportID
	}
	must(t, s.AddAlert(anAlert(1)))
	must(t, s.Close())
	must(t, s.Close())

	s2 := open(t, dir, quick())
	if s2.ID() != s.ID() {
		t.Error("the spool's id changed")
	}
	e := fileEvent(1)
	s2.AddEvent(e)
	if e.ReportID != last+1 {
		t.Errorf("ReportID %d after a clean restart, want %d", e.ReportID, last+1)
	}
	c := newContent().drain(t, s2)
	c.once(t)
	if st := s2.Stats(); st.Inherited["file"] != 500 || st.Inherited["alert"] != 1 || st.Delivered["file"] != 501 || st.Offered["file"] != 1 {
		t.Errorf("%+v", st)
	}
	if len(c.reports) != 1001 || len(c.alerts) != 1 {
		t.Fatalf("%d events, %d alerts", len(c.reports), len(c.alerts))
	}
	must(t, s2.Close())
	s3 := open(t, dir, quick())
	if c := newContent().drain(t, s3); c.batches != 0 {
		t.Fatalf("%d batches after everything was acknowledged", c.batches)
	}
	if st := s3.Stats(); st.Err != nil || len(st.Lost) != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// A batch that was on its way when the agent stopped comes again as it was.
func TestBatchIsRepeatedAsItWas(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	for i := range 10 {
		s.AddEvent(processEvent(i))
	}
	must(t, s.AddAlert(anAlert(1)))
	must(t, s.Flush(t.Context()))
	first, err := s.Next(t.Context())
	must(t, err)
	again, err := s.Next(t.Context())
	must(t, err)
	if first != again {
		t.Error("another batch before the first was acknowledged")
	}
	must(t, s.AddAlert(anAlert(2)))
	s.AddEvent(processEvent(11))
	must(t, s.Close())
	s = open(t, dir, quick())
	repeated, err := s.Next(t.Context())
	must(t, err)
	if repeated.Sequence != first.Sequence || !bytes.Equal(repeated.Events, first.Events) || len(repeated.Alerts) != len(first.Alerts) {
		t.Fatalf("repeated batch %d with %d events, %d alerts; first %d with %d, %d", repeated.Sequence, repeated.EventCount, len(repeated.Alerts),
			first.Sequence, first.EventCount, len(first.Alerts))
	}
	if err := s.Ack(repeated.Sequence + 1); err == nil {
		t.Error("acknowledged a batch that is not on its way")
	}
	must(t, s.Ack(repeated.Sequence))
	c := newContent().drain(t, s)
	if len(c.reports) != 1 || len(c.alerts) != 1 {
		t.Fatalf("then %d events, %d alerts", len(c.reports), len(c.alerts))
	}
}

func TestAlertsDoNotWait(t *testing.T) {
	s := open(t, t.TempDir(), Options{FlushInterval: time.Hour, BatchDelay: time.Hour})
	s.AddEvent(fileEvent(1))
	must(t, s.AddAlert(anAlert(1)))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b, err := s.Next(ctx)
	must(t, err)
	if len(b.Alerts) != 1 {
		t.Fatalf("%d alerts", len(b.Alerts))
	}
	if err := s.AddAlert(event.Alert{}); err == nil {
		t.Error("an invalid alert was taken")
	}
}

func TestOnlyOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, quick())
	if _, err := Open(dir, quick()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("second open: %v", err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := open(t, t.TempDir(), Options{FlushInterval: time.Hour, MaxMemory: 64 << 10})
	// The writer cannot take anything while the disk is held.
	s.disk.Lock()
	for i := range 5000 {
		s.AddEvent(fileEvent(i))
	}
	low := s.bytes
	for i := range 5000 {
		s.AddEvent(processEvent(i))
	}
	must(t, s.AddAlert(anAlert(1)))
	if low > 33<<10 || s.bytes > 80<<10 {
		t.Errorf("memory %d then %d bytes", low, s.bytes)
	}
	s.disk.Unlock()
	must(t, s.Flush(t.Context()))
	st := s.Stats()
	if st.Lost["file"] == 0 || st.Lost["process"] == 0 || st.Lost["alert"] != 0 {
		t.Fatalf("lost %v", st.Lost)
	}
	c := newContent().drain(t, s)
	if got := uint64(len(c.reports)) + c.lost["file"] + c.lost["process"]; got != 10000 || len(c.alerts) != 1 {
		t.Fatalf("delivered %d, told lost %v", len(c.reports), c.lost)
	}
}

func TestSizeLimitDropsLowFirst(t *testing.T) {
	s := open(t, t.TempDir(), Options{FlushInterval: time.Hour, BatchDelay: time.Millisecond, MaxBytes: 1 << 20, SegmentBytes: 64 << 10})
	r := rand.New(rand.NewPCG(1, 1))
	noise := func() string {
		b := make([]byte, 1000)
		for i := range b {
			b[i] = "0123456789abcdef"[r.IntN(16)]
		}
		return string(b)
	}
	added := map[event.Class]uint64{}
	for i := range 100 {
		for range 20 {
			e := fileEvent(i)
			e.File.SHA256 = noise()
			s.AddEvent(e)
			added[e.Class]++
		}
		e := processEvent(i)
		e.Process.CommandLine = noise()
		s.AddEvent(e)
		added[e.Class]++
		must(t, s.AddAlert(anAlert(i)))
		must(t, s.Flush(t.Context()))
		if st := s.Stats(); st.DiskBytes > 1<<20 {
			t.Fatalf("%d bytes on disk", st.DiskBytes)
		}
	}
	st := s.Stats()
	if st.Lost["file"] == 0 || st.Lost["process"] != 0 || st.Lost["alert"] != 0 {
		t.Fatalf("lost %v", st.Lost)
	}
	c := newContent().drain(t, s)
	s.AddEvent(processEvent(1)) // carries the last counters
	must(t, s.Flush(t.Context()))
	c.drain(t, s)
	c.once(t)
	// The ledger: what was offered was delivered or is counted as lost.
	st = s.Stats()
	for class, n := range map[string]uint64{"file": added[event.ClassFile], "process": added[event.ClassProcess] + 1, "alert": 100} {
		if st.Offered[class] != n || st.Delivered[class]+st.Lost[class] != n {
			t.Errorf("%s: %d offered (%d), %d delivered, %d lost", class, st.Offered[class], n, st.Delivered[class], st.Lost[class])
		}
	}
	if len(c.alerts) != 100 || uint64(c.classes[event.ClassProcess]) != added[event.ClassProcess]+1 {
		t.Errorf("%d alerts, %d process events", len(c.alerts), c.classes[event.ClassProcess])
	}
	if uint64(c.classes[event.ClassFile])+c.lost["file"] != added[event.ClassFile] {
		t.Errorf("files: %d delivered, %d told lost, %d added", c.classes[event.ClassFile], c.lost["file"], added[event.ClassFile])
	}
}

func TestManyBatches(t *testing.T) {
	s := open(t, t.TempDir(), Options{FlushInterval: 5 * time.Millisecond, BatchDelay: time.Millisecond, SegmentBytes: 64 << 10, BatchBytes: 64 << 10})
	var wg sync.WaitGroup
	const workers, each = 4, 5000
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if i%3 == 0 {
					s.AddEvent(processEvent(i))
				} else {
					s.AddEvent(fileEvent(i))
				}
				if i%500 == 0 {
					if err := s.AddAlert(anAlert(w*each + i)); err != nil {
						t.Error(err)
					}
				}
				s.Stats()
			}
		})
	}
	c := newContent()
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		c.drain(t, s)
	}
	c.drain(t, s)
	c.once(t)
	if len(c.reports) != workers*each || len(c.alerts) != workers*each/500 {
		t.Fatalf("%d events, %d alerts; stats %+v", len(c.reports), len(c.alerts), s.Stats())
	}
	if st := s.Stats(); st.DiskBytes > 3*80<<10 {
		t.Errorf("%d bytes on disk after everything was acknowledged", st.DiskBytes)
	}
}

func TestDiscard(t *testing.T) {
	s := open(t, t.TempDir(), quick())
	s.AddEvent(processEvent(1))
	must(t, s.AddAlert(anAlert(1)))
	must(t, s.Flush(t.Context()))
	b, err := s.Next(t.Context())
	must(t, err)
	must(t, s.Discard(b.Sequence))
	s.AddEvent(processEvent(2))
	c := newContent().drain(t, s)
	if c.lost["alert"] != 1 || c.lost["process"] != 1 || len(c.reports) != 1 {
		t.Fatalf("lost %v, events %d", c.lost, len(c.reports))
	}
}

// fill makes a closed spool with several files and returns how much is in it.
func fill(t testing.TB, dir string) (events, alerts int) {
	t.Helper()
	s := open(t, dir, Options{FlushInterval: time.Hour, SegmentBytes: 64 << 10})
	for i := range 40 {
		for j := range 20 {
			s.AddEvent(fileEvent(i*100 + j))
			s.AddEvent(processEvent(i*100 + j))
		}
		must(t, s.AddAlert(anAlert(i)))
		must(t, s.Flush(t.Context()))
	}
	must(t, s.Close())
	return 1600, 40
}

func segments(t testing.TB, dir, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	must(t, err)
	if len(list) == 0 {
		t.Fatalf("no %s", pattern)
	}
	return list
}

func TestTornTail(t *testing.T) {
	for _, cut := range []int64{1, 10, 71, 72, 73, 100} {
		dir := t.TempDir()
		events, alerts := fill(t, dir)
		path := segments(t, dir, "*.mid.seg")[0]
		info, err := os.Stat(path)
		must(t, err)
		must(t, os.Truncate(path, info.Size()-cut))
		var out bytes.Buffer
		opts := quick()
		opts.Log = slog.New(slog.NewTextHandler(&out, nil))
		s := open(t, dir, opts)
		if log := out.String(); !strings.Contains(log, "not written completely") || !strings.Contains(log, path) || !strings.Contains(log, "offset=") {
			t.Errorf("cut %d: log %q", cut, log)
		}
		s.AddEvent(processEvent(1))
		c := newContent().drain(t, s)
		c.once(t)
		if len(c.alerts) != alerts || len(c.reports) != events-20+1 || c.lost["process"]+c.lost["unknown"] == 0 {
			t.Fatalf("cut %d: %d events, %d alerts, lost %v", cut, len(c.reports), len(c.alerts), c.lost)
		}
	}
}

func TestCorruptSegment(t *testing.T) {
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 7))
		dir := t.TempDir()
		events, alerts := fill(t, dir)
		files := segments(t, dir, "*.seg")
		path := files[r.IntN(len(files))]
		data, err := os.ReadFile(path)
		must(t, err)
		n := 1 + r.IntN(64)
		at := r.IntN(len(data)/2 - n) // not the tail
		for i := range n {
			data[at+i] ^= byte(1 + r.IntN(255))
		}
		must(t, os.WriteFile(path, data, 0o600))
		var out bytes.Buffer
		opts := quick()
		opts.Log = slog.New(slog.NewTextHandler(&out, nil))
		s := open(t, dir, opts)
		s.AddEvent(processEvent(1))
		c := newContent().drain(t, s)
		c.once(t)
		if len(c.reports) < events-80 || len(c.alerts) < alerts-3 {
			t.Fatalf("seed %d: only %d events, %d alerts", seed, len(c.reports), len(c.alerts))
		}
		if len(c.reports) == events+1 && len(c.alerts) == alerts {
			t.Fatalf("seed %d: nothing is missing after damage", seed)
		}
		if log := out.String(); !strings.Contains(log, path) || !strings.Contains(log, "delete the file") {
			t.Errorf("seed %d: log %q", seed, log)
		}
		if aside := segments(t, dir, "*.corrupt"); len(aside) != 1 || aside[0] != path+corruptSuffix {
			t.Errorf("seed %d: set aside %v", seed, aside)
		}
		var lost uint64
		for _, v := range s.Stats().Lost {
			lost += v
		}
		if lost == 0 {
			t.Errorf("seed %d: no loss counted", seed)
		}
		must(t, s.Close())
	}
}

func TestStateDamaged(t *testing.T) {
	dir := t.TempDir()
	events, alerts := fill(t, dir)
	path := filepath.Join(dir, "state")
	data, err := os.ReadFile(path)
	must(t, err)
	// One slot damaged: the other is used.
	newest := int64(0)
	a, _ := decodeState(data)
	if b, ok := decodeState(data[slotSize:]); ok && b.generation > a.generation {
		newest = slotSize
	}
	half := bytes.Clone(data)
	half[newest+20] ^= 1
	must(t, os.WriteFile(path, half, 0o600))
	s := open(t, dir, quick())
	id := s.ID()
	must(t, s.Close())
	// Both: a new spool id, all is delivered, report ids do not return.
	must(t, os.WriteFile(path, make([]byte, 2*slotSize), 0o600))
	s = open(t, dir, quick())
	if s.ID() == id {
		t.Error("the id stayed although the state was lost")
	}
	e := processEvent(1)
	s.AddEvent(e)
	c := newContent().drain(t, s)
	c.once(t)
	if len(c.reports) != events+1 || len(c.alerts) != alerts {
		t.Fatalf("%d events, %d alerts", len(c.reports), len(c.alerts))
	}
	for id := range c.reports {
		if id > e.ReportID {
			t.Fatalf("report id %d was given after %d", e.ReportID, id)
		}
	}
}

// FuzzSegment: whatever is in a file, the spool opens and delivers the rest.
func FuzzSegment(f *testing.F) {
	rec := record{header: header{seq: 1, reportID: 5, time: time.Unix(1, 0), counts: counts{1: 1}}, payload: []byte{0x2a, 0x01, '{'}}
	good := rec.encode()
	f.Add(good, []byte{})
	f.Add(append(bytes.Clone(good), good[:30]...), make([]byte, 8192))
	f.Add([]byte("BWS1"), []byte("BWSS"))
	f.Fuzz(func(t *testing.T, data, st []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, segmentName(1, low)), data, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, segmentName(2, mid)), rec2(2), 0o600))
		if len(st) > 0 {
			must(t, os.WriteFile(filepath.Join(dir, "state"), st, 0o600))
		}
		s, err := Open(dir, Options{BatchDelay: time.Nanosecond})
		must(t, err)
		for range 10 {
			s.disk.Lock()
			b, _ := s.next(time.Now())
			s.disk.Unlock()
			if b == nil {
				continue
			}
			must(t, s.Ack(b.Sequence))
		}
		must(t, s.Close())
	})
}

func rec2(seq uint64) []byte {
	r := record{header: header{seq: seq, time: time.Unix(1, 0), counts: counts{1: 1}}}
	return r.encode()
}

// What waits while the disk is slow is made durable with one sync, not with one
// for each record.
func TestOneSyncForAll(t *testing.T) {
	s := open(t, t.TempDir(), Options{FlushInterval: time.Hour, BatchDelay: time.Millisecond, MaxMemory: 64 << 20, SegmentBytes: 1 << 30})
	entered, release := make(chan struct{}, 1), make(chan struct{})
	syncs := 0 // of the writer's goroutine, read after Flush
	s.disk.Lock()
	s.fsync = func(f *os.File) error {
		if syncs++; syncs == 1 {
			entered <- struct{}{}
			<-release
		}
		return f.Sync()
	}
	s.disk.Unlock()
	s.AddEvent(processEvent(0))
	done := make(chan error, 1)
	go func() { done <- s.Flush(context.Background()) }()
	<-entered
	const n = 60_000
	for i := range n { // several buffers of 1 MiB or 20,000 events each
		s.AddEvent(processEvent(i))
	}
	s.mu.Lock()
	buffers := len(s.pending[mid])
	s.mu.Unlock()
	close(release)
	must(t, <-done)
	must(t, s.Flush(t.Context()))
	if buffers < 3 || syncs != 2 {
		t.Errorf("%d buffers waited; %d syncs in all, want 2", buffers, syncs)
	}
	c := newContent().drain(t, s)
	c.once(t)
	if len(c.reports) != n+1 {
		t.Errorf("%d of %d events delivered", len(c.reports), n+1)
	}
}

// Records whose sync fails are delivered from memory, once each, in their turn.
func TestSyncFails(t *testing.T) {
	s := open(t, t.TempDir(), Options{FlushInterval: time.Hour, BatchDelay: time.Millisecond})
	s.AddEvent(processEvent(1))
	must(t, s.Flush(t.Context()))
	broken := errors.New("broken disk")
	s.disk.Lock()
	s.fsync = func(*os.File) error { return broken }
	s.disk.Unlock()
	for i := range 30_000 {
		s.AddEvent(processEvent(i))
	}
	must(t, s.AddAlert(anAlert(1)))
	if err := s.Flush(t.Context()); !errors.Is(err, broken) {
		t.Fatalf("flush says %v", err)
	}
	s.disk.Lock()
	s.fsync = (*os.File).Sync
	kept, segments := len(s.memory), len(s.tracks[mid].segments)
	s.disk.Unlock()
	if kept < 3 || segments != 1 {
		t.Errorf("%d records in memory, %d files of processes", kept, segments)
	}
	c := newContent().drain(t, s)
	s.AddEvent(processEvent(2))
	must(t, s.Flush(t.Context()))
	c.drain(t, s)
	c.once(t)
	if len(c.reports) != 30_002 || len(c.alerts) != 1 || s.Stats().Err != nil {
		t.Errorf("%d of 30,002 events and %d alerts delivered; %v", len(c.reports), len(c.alerts), s.Stats().Err)
	}
}

// A record that cannot be written leaves alone those before it whose sync is
// still to come, even where the file cannot be cut: they are durable or kept in
// memory, and delivered once.
func TestNeitherWrittenNorCut(t *testing.T) {
	for name, fsync := range map[string]func(*os.File) error{
		"synced": (*os.File).Sync,
		"not":    func(*os.File) error { return errors.New("broken disk") },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), Options{FlushInterval: time.Hour, BatchDelay: time.Millisecond})
			s.AddEvent(processEvent(1))
			must(t, s.Flush(t.Context()))
			s.disk.Lock()
			next := func(n int) *record {
				s.AddEvent(processEvent(n))
				s.mu.Lock()
				b := s.pending[mid][0]
				s.pending[mid] = nil
				s.bytes -= b.bytes
				s.mu.Unlock()
				rec, err := s.record(b, nil)
				must(t, err)
				return rec
			}
			must(t, s.write(mid, next(2)))
			track := s.tracks[mid]
			unread, size := s.unread, track.segments[0].size-track.synced
			s.fsync = fsync
			must(t, track.out.Close())
			var err error
			track.out, err = os.Open(track.segments[0].path) // it can be neither written nor cut
			must(t, err)
			rec := next(3)
			if err := s.write(mid, rec); !errors.Is(err, unix.EBADF) || !errors.Is(err, unix.EINVAL) {
				t.Errorf("write says %v", err)
			}
			s.keepInMemory(rec)
			if want := map[bool]int{true: 1, false: 2}[name == "synced"]; len(s.memory) != want {
				t.Errorf("%d records in memory, want %d", len(s.memory), want)
			}
			if name == "synced" && s.unread != unread+size {
				t.Errorf("%d bytes to be read, want %d", s.unread, unread+size)
			}
			s.fsync = (*os.File).Sync
			s.disk.Unlock()
			c := newContent().drain(t, s)
			s.AddEvent(processEvent(4))
			must(t, s.Flush(t.Context()))
			c.drain(t, s)
			c.once(t)
			if len(c.reports) != 4 {
				t.Errorf("%d of 4 events delivered", len(c.reports))
			}
		})
	}
}

func BenchmarkAddEvent(b *testing.B) {
	s := open(b, b.TempDir(), Options{MaxBytes: 64 << 20})
	e := processEvent(1)
	e.Process.CommandLine = strings.Repeat("x ", 60)
	b.ReportAllocs()
	for b.Loop() {
		s.AddEvent(e)
	}
	b.ReportMetric(float64(s.Stats().Lost["process"])/float64(b.N), "lost/op")
}
