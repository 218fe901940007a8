package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	server "github.com/bulwarkhq/bulwark/test/clickhouse"
)

// commandVariable has the test binary be the program: its arguments, with line feeds.
const commandVariable = "BULWARK_TEST_PORTAL_COMMAND"

func TestMain(m *testing.M) {
	if args := os.Getenv(commandVariable); args != "" {
		os.Exit(run(context.Background(), strings.Split(args, "\n"), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// TestEventsCopyKilled copies events into a real ClickHouse server and kills the
// command (SIGKILL) again and again at other places; the copy that ends by itself has
// every event once, and with what the devices were told.
func TestEventsCopyKilled(t *testing.T) {
	one := server.Start(t)
	address := fmt.Sprintf("clickhouse://%s:%s@%s/copied", server.User, url.PathEscape(server.Password), one.HTTP)
	dir := t.TempDir()
	batches := fillFolder(t, filepath.Join(dir, "events"))
	args := []string{"events", "copy", "--data-dir", dir, "--event-store", address}

	if code, out, errOut := portalCommand(t, append(args, "--dry-run")...); code != 0 || !strings.Contains(out, "are to be copied") {
		t.Fatalf("dry run: %d %s %s", code, out, errOut)
	}
	unlock, err := lock(filepath.Join(dir, "serve.lock"), false)
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := portalCommand(t, args...); code != 1 || !strings.Contains(errOut, "another portal runs") {
		t.Fatalf("beside a portal: %d %s", code, errOut)
	}
	unlock()

	journal := filepath.Join(dir, "events-copy.journal")
	lines := func() int {
		b, err := os.ReadFile(journal)
		if err != nil {
			return 0
		}
		return bytes.Count(b, []byte("\n"))
	}
	kills := 0
	for next := 2; ; next += 40 {
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), commandVariable+"="+strings.Join(args, "\n"))
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		killed := false
		for done := false; !done; {
			select {
			case err := <-ended:
				if done = true; err != nil && !killed {
					t.Fatalf("%v\n%s", err, &out)
				}
			case <-time.After(time.Millisecond):
				if !killed && lines() >= next {
					killed = true
					time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
					if cmd.Process.Kill() == nil {
						kills++
					}
				}
			}
		}
		if next = max(next, lines()); !killed {
			break
		}
	}
	if kills < 3 {
		t.Fatalf("the command was killed %d times", kills)
	}
	b, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills, %d hours made void", kills, bytes.Count(b, []byte(`"void"`)))

	// Once more it has nothing to do, and finds everything.
	before := lines()
	code, out, errOut := portalCommand(t, args...)
	if code != 0 || !strings.Contains(out, ", 0 of them are to be copied") || !strings.Contains(out, "are copied, and counted") || lines() != before {
		t.Errorf("a copy that is done: %d %s %s", code, out, errOut)
	}
	if code, _, errOut := portalCommand(t, "events", "copy", "--data-dir", dir, "--event-store", address+"2"); code != 1 || !strings.Contains(errOut, "copy to") {
		t.Errorf("to another database with the journal of the first: %d %s", code, errOut)
	}
	compareStores(t, filepath.Join(dir, "events"), address, batches)

	// Without some of its events the target is not taken for a copy.
	parsed, err := clickhouse.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	store, err := clickhouse.Open(t.Context(), parsed)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	line := b[bytes.LastIndex(b, []byte(`"group":`))+len(`"group":`):]
	var group uint64
	if _, err := fmt.Sscan(string(line[:bytes.IndexAny(line, ",}")]), &group); err != nil {
		t.Fatal(err)
	}
	if err := store.Abort(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := portalCommand(t, args...); code != 1 || !strings.Contains(out, "differs") || !strings.Contains(errOut, "do not have the same number") {
		t.Errorf("a copy that lost events: %d %s %s", code, out, errOut)
	}
}

// fillFolder makes an embedded store with open and closed hours of three days.
func fillFolder(t *testing.T, dir string) []*eventstore.Batch {
	t.Helper()
	now := time.Date(2026, 11, 28, 12, 30, 0, 0, time.UTC)
	store, err := duckdb.Open(t.Context(), duckdb.Config{Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rnd := rand.New(rand.NewPCG(5, 6))
	var out []*eventstore.Batch
	id := uint64(0)
	for i := range 60 {
		at := now.Add(time.Duration(i-60) * 50 * time.Minute)
		b := &eventstore.Batch{
			DeviceID: fmt.Sprint("device-", i%4), DeviceName: "host", SpoolID: fmt.Sprint("spool-", i%3), Sequence: uint64(i + 1), Received: at,
			Lost: map[string]uint64{"process": uint64(i % 3)},
		}
		for range 1 + rnd.IntN(400) {
			id++
			e := event.Event{ReportID: id, Time: at.Add(-time.Duration(rnd.IntN(1e9)))}
			if rnd.IntN(50) == 0 {
				e.Time = time.Time{} // that of the arrival
			}
			switch rnd.IntN(3) {
			case 0:
				e.Class, e.Action = event.ClassProcess, event.ProcessCreated
				e.Process = event.Process{PID: int64(rnd.IntN(3)), FileName: "ä\x00b\xff", CommandLine: strings.Repeat("x", rnd.IntN(9)), FileSize: rnd.Int64(), StartTime: e.Time}
			case 1:
				e.Class, e.Action = event.ClassLogon, event.LogonSuccess
				e.Logon = event.Logon{AccountName: "ann", IsLocalAdmin: rnd.IntN(2) == 0, RemoteIP: "198.51.100.1"}
			default:
				e.Class, e.Action = event.ClassNetwork, event.ConnectionSuccess
				e.Network = event.Network{RemoteIP: "203.0.113.1", RemotePort: int64(rnd.IntN(65536)), Protocol: "Tcp"}
			}
			b.Events = append(b.Events, e)
		}
		if err := store.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	now = now.Add(-2 * time.Hour) // the newest hours stay in the database
	if err := store.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}

// compareStores compares every event, mark and receipt.
func compareStores(t *testing.T, dir, address string, batches []*eventstore.Batch) {
	t.Helper()
	here, err := duckdb.Open(t.Context(), duckdb.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	cfg, err := clickhouse.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Gather = time.Millisecond
	there, err := clickhouse.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	scratch, err := duckdb.OpenScratch(t.Context(), duckdb.ScratchConfig{Dir: t.TempDir()}, there)
	if err != nil {
		t.Fatal(err)
	}
	defer scratch.Close()
	ask := func(s hunting.Store, query string) []string {
		r, err := hunting.New(s, time.Now).Run(t.Context(), "t", query, hunting.Limits{Rows: 1_000_000})
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		var out []string
		for _, row := range r.Rows {
			out = append(out, fmt.Sprint(row))
		}
		slices.Sort(out)
		return out
	}
	total := 0
	for _, table := range eventstore.TableNames() {
		want, got := ask(here, table), ask(scratch, table)
		if total += len(want); !slices.Equal(want, got) {
			t.Errorf("%s: %d rows, %d in the copy, or others", table, len(want), len(got))
		}
	}
	sum := 0
	for _, b := range batches {
		sum += len(b.Events)
	}
	if total != sum {
		t.Errorf("%d events were stored, %d are there", sum, total)
	}
	for _, b := range batches {
		want, err := here.Stored(t.Context(), b.DeviceID, b.SpoolID)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := there.Stored(t.Context(), b.DeviceID, b.SpoolID); err != nil || got != want || got == 0 {
			t.Errorf("spool %s of %s: %d %v, want %d", b.SpoolID, b.DeviceID, got, err, want)
		}
		receipts, err := here.Receipts(t.Context(), b.DeviceID)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := there.Receipts(t.Context(), b.DeviceID); err != nil || fmt.Sprint(got) != fmt.Sprint(receipts) {
			t.Errorf("receipts of %s: %v %v, want %v", b.DeviceID, got, err, receipts)
		}
	}
	// A batch whose answer the device did not get comes again.
	if err := there.Append(t.Context(), batches[len(batches)-1]); err != nil {
		t.Fatal(err)
	}
	if got := ask(scratch, "union Device* | count"); got[0] != fmt.Sprint([]any{int64(sum)}) {
		t.Errorf("after a batch came again: %v events, want %d", got, sum)
	}
}
