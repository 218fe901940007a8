package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// TestMain is also the process that the crash test kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SPOOL_CRASH_DIR"); dir != "" {
		if err := crashChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashChild adds without end and tells which alerts are durable, and which
// batches it has delivered.
func crashChild(dir string) error {
	s, err := Open(dir, Options{FlushInterval: time.Millisecond, BatchDelay: time.Millisecond, SegmentBytes: 64 << 10})
	if err != nil {
		return err
	}
	start, err := strconv.Atoi(os.Getenv("SPOOL_CRASH_START"))
	if err != nil {
		return err
	}
	for i := start; ; i++ {
		for j := range 50 {
			s.AddEvent(fileEvent(j))
			e := processEvent(j)
			s.AddEvent(e)
			if j == 49 {
				fmt.Println("report", e.ReportID)
			}
		}
		if err := s.AddAlert(anAlert(i)); err != nil {
			return err
		}
		if err := s.Flush(context.Background()); err != nil {
			return err
		}
		fmt.Println("alert", i)
		if i%3 == 0 {
			b, err := s.Next(context.Background())
			if err != nil {
				return err
			}
			for _, a := range b.Alerts {
				fmt.Println("sent", b.Sequence, string(a[7:39]))
			}
			if err := s.Ack(b.Sequence); err != nil {
				return err
			}
		}
	}
}

// A kill at any moment loses nothing that was durable, delivers nothing under
// two numbers, and gives no ReportID twice.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	durable := map[string]bool{}
	sent := map[string]string{} // alert -> batch
	next, highest := 0, uint64(0)
	// More rounds where the machine lets a child do little before it is killed.
	for round := 0; round < 8 || len(durable) < 20 && round < 60; round++ {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "SPOOL_CRASH_DIR="+dir, "SPOOL_CRASH_START="+strconv.Itoa(next))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		// Its time begins with the first thing that is durable: how long a process
		// takes to start is not ours to say.
		kill := func() { cmd.Process.Kill() } // it may have ended
		stop := time.AfterFunc(2*time.Minute, kill)
		lines := bufio.NewScanner(out)
		first, told := true, false
		for lines.Scan() {
			if !told && strings.HasPrefix(lines.Text(), "alert") {
				told = true
				stop.Reset(time.Duration(60+37*round) * time.Millisecond)
			}
			f := strings.Fields(lines.Text())
			switch f[0] {
			case "alert":
				n, err := strconv.Atoi(f[1])
				must(t, err)
				durable[anAlert(n).ID] = true
				next = n + 1
			case "report":
				id, err := strconv.ParseUint(f[1], 10, 64)
				must(t, err)
				if first && id <= highest {
					t.Fatalf("round %d: ReportID %d was given before (%d)", round, id, highest)
				}
				first, highest = false, max(highest, id)
			case "sent":
				if old, ok := sent[f[2]]; ok && old != f[1] {
					t.Fatalf("alert %s was in batch %s and in batch %s", f[2], old, f[1])
				}
				sent[f[2]] = f[1]
			}
		}
		stop.Stop()
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		next += 2 // one may be durable that was not told
	}
	if len(durable) < 20 {
		t.Fatalf("only %d alerts written: the test shows nothing", len(durable))
	}
	s := open(t, dir, quick())
	c := newContent().drain(t, s)
	c.once(t)
	for id := range durable {
		if c.alerts[id] == 0 && sent[id] == "" {
			t.Errorf("alert %s was durable and is gone", id)
		}
	}
	for id := range c.alerts {
		// One whose acknowledgement was cut off comes again under its number, by
		// which the portal knows the repetition.
		if b, ok := sent[id]; ok && b != strconv.FormatUint(c.batchOf[id], 10) {
			t.Errorf("alert %s was sent in batch %s and comes again in batch %d", id, b, c.batchOf[id])
		}
	}
}

// On a full disk nobody waits, alerts and events still reach the consumer from
// memory, losses are counted, and it recovers when there is room.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		need.Missing(t, "cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(dir, Options{FlushInterval: time.Hour, BatchDelay: time.Millisecond, SegmentBytes: 64 << 10, MaxMemory: 256 << 10})
	must(t, err)
	defer func() {
		if err := s.Close(); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Error(err)
		}
	}()
	// Somebody else takes the rest of the disk.
	hog, err := os.Create(dir + "/hog")
	must(t, err)
	if _, err := io.CopyN(hog, zeros{}, 1<<20); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk did not fill: %v", err)
	}
	for i := range 500 {
		s.AddEvent(processEvent(i))
	}
	must(t, s.AddAlert(anAlert(1)))
	if err := s.Flush(t.Context()); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("flush on a full disk: %v", err)
	}
	if st := s.Stats(); !errors.Is(st.Err, unix.ENOSPC) {
		t.Errorf("stats tell %v", st.Err)
	}
	c := newContent().drain(t, s)
	if len(c.alerts) != 1 || len(c.reports) != 500 {
		t.Fatalf("from memory: %d alerts, %d events", len(c.alerts), len(c.reports))
	}
	// Nobody takes anything: memory is bounded, losses are counted.
	for i := range 60000 {
		s.AddEvent(fileEvent(i))
		if i%200 == 0 {
			s.Flush(t.Context()) // it fails, see above
		}
	}
	must(t, s.AddAlert(anAlert(2)))
	s.Flush(t.Context()) // it fails, see above
	s.disk.Lock()
	kept := s.memoryBytes()
	s.disk.Unlock()
	if kept > 128<<10 {
		t.Errorf("%d bytes kept in memory", kept)
	}
	must(t, hog.Truncate(0)) // a scanner that has it open keeps no room then
	must(t, hog.Close())
	must(t, os.Remove(dir+"/hog"))
	must(t, s.AddAlert(anAlert(3)))
	s.Flush(t.Context()) // fails while records wait in memory
	c.drain(t, s)
	c.once(t)
	if len(c.alerts) != 3 {
		t.Errorf("%d of 3 alerts arrived", len(c.alerts))
	}
	s.AddEvent(processEvent(1))
	must(t, s.Flush(t.Context()))
	c.drain(t, s)
	if st := s.Stats(); st.Err != nil || st.Lost["file"] == 0 || uint64(len(c.reports))+st.Lost["file"] != 60501 || c.lost["file"] != st.Lost["file"] {
		t.Errorf("%d events delivered, %v told, stats %+v", len(c.reports), c.lost, st)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
