package duckdb

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
)

const crashDir = "BULWARK_TEST_CRASH_DIR"

// TestMain lets the test program also be the process that TestCrash kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := storeUntilKilled(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// storeUntilKilled stores batches and prints the number of each that is stored.
func storeUntilKilled(ctx context.Context, dir string) error {
	s, err := Open(ctx, Config{Dir: dir})
	if err != nil {
		return err
	}
	seq, err := s.Stored(ctx, eventstoretest.DeviceA, "spool-1")
	if err != nil {
		return err
	}
	for i := int(seq); i < 5000; i++ {
		b := eventstoretest.Batch(eventstoretest.DeviceA, uint64(i+1), i*10, 10)
		// Old enough to be closed, so that the exports are hit too.
		b.Received = time.Now().Add(-3 * time.Hour)
		if err := s.Append(ctx, b); err != nil {
			return err
		}
		fmt.Printf("stored %d\n", i+1)
		if i%5 == 0 {
			s.foldWhen(0)
		}
		if i%7 == 0 {
			if err := s.Maintain(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Whatever the moment of a kill -9, what was acknowledged is there, whole
// batches only, and once.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Stderr = os.Stderr
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked, lines := 0, 0
		for sc := bufio.NewScanner(out); sc.Scan(); {
			n, ok := strings.CutPrefix(sc.Text(), "stored ")
			if !ok {
				continue
			}
			if acked, err = strconv.Atoi(n); err != nil {
				t.Fatal(err)
			}
			// Not at a round number, so that it falls between and into exports.
			if lines++; lines == 9+round*5 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		cancel()
		if lines == 0 {
			t.Fatal("the child stored nothing")
		}
		s := openAt(t, dir, time.Now, 0)
		seq, err := s.Stored(t.Context(), eventstoretest.DeviceA, "spool-1")
		if err != nil || int(seq) < acked {
			t.Fatalf("round %d: %d acknowledged, %d stored, %v", round, acked, seq, err)
		}
		rows := eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 1000})
		if len(rows) != int(seq)*10 {
			t.Errorf("round %d: %d events of %d batches, want %d", round, len(rows), seq, seq*10)
		}
		seen := map[int64]bool{}
		for _, r := range rows {
			if seen[r.ReportID] {
				t.Errorf("round %d: event %d is there twice", round, r.ReportID)
			}
			seen[r.ReportID] = true
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
