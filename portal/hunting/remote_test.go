package hunting_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	server "github.com/bulwarkhq/bulwark/test/clickhouse"
	"github.com/bulwarkhq/bulwark/test/need"
)

// seen is a source that remembers the scans.
type seen struct {
	hunting.Source
	mu    sync.Mutex
	scans []hunting.Scan
}

func (s *seen) Scan(ctx context.Context, scan hunting.Scan, counted bool, each func(*hunting.Block) error) error {
	s.mu.Lock()
	s.scans = append(s.scans, scan)
	s.mu.Unlock()
	return s.Source.Scan(ctx, scan, counted, each)
}

// remote is a hunter over a ClickHouse server.
func remote(t *testing.T) (*clickhouse.Store, *hunting.Hunter, *seen) {
	t.Helper()
	one := server.Start(t)
	cfg, err := clickhouse.Parse(fmt.Sprintf("clickhouse://%s:%s@%s/hunting", server.User, url.PathEscape(server.Password), one.HTTP))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Gather = time.Millisecond
	store, err := clickhouse.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	source := &seen{Source: store}
	scratch, err := duckdb.OpenScratch(t.Context(), duckdb.ScratchConfig{Dir: t.TempDir()}, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { scratch.Close() })
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	return store, hunting.New(scratch, func() time.Time { return now }), source
}

// TestRandomQueriesOverClickHouse compares random queries over rows in ClickHouse
// with the interpreter. BULWARK_RANDOM_QUERIES is their number, BULWARK_RANDOM_SEED
// repeats a run.
func TestRandomQueriesOverClickHouse(t *testing.T) {
	number, err := strconv.Atoi(os.Getenv("BULWARK_RANDOM_QUERIES"))
	if err != nil {
		number = need.Rounds(150, 60)
	}
	seed, err := strconv.ParseUint(os.Getenv("BULWARK_RANDOM_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("BULWARK_RANDOM_SEED=%d", seed)
	store, h, source := remote(t)
	random := &hunting.Random{Rand: rand.New(rand.NewPCG(seed, 2))}
	let, wrong := "", 0
	for i := range number {
		if i%25 == 0 {
			device := fmt.Sprint("device-", i)
			b := &eventstore.Batch{DeviceID: device, DeviceName: "host", SpoolID: "s", Sequence: 1, Received: time.Now()}
			for _, row := range random.NewTable() {
				b.Events = append(b.Events, logon(row))
			}
			if err := store.Append(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			// The rows of the device alone, as the query asks or as its user may.
			devices, only := []string{device}, fmt.Sprintf("| where DeviceId == '%s' ", device)
			limited := i/25%2 == 1
			if limited {
				only = ""
			}
			// Few devices stand in the statement, many go beside it, of too many all rows
			// come.
			for k := 0; i/25%4 == 3 && k < 1500; k++ {
				devices = append(devices, fmt.Sprint("none-", k))
			}
			h.MostDevices(map[bool]int{true: 1000, false: 2000}[i/25%8 == 7])
			h.Limit(func(context.Context) ([]string, bool, error) { return devices, limited, nil })
			let = fmt.Sprintf("let T = DeviceLogonEvents %s| project lKey = ReportId, lVal = InitiatingProcessId, "+
				"rVal = todouble(InitiatingProcessFileSize) / 4.0, sName = AccountName, bFlag = IsLocalAdmin, dWhen = InitiatingProcessCreationTime; ", only)
		}
		query, want := random.Query(t)
		got, err := h.Run(t.Context(), "tester", let+query, hunting.Limits{})
		if err != nil {
			t.Errorf("%s\n%v", query, err)
		} else if lines := hunting.Lines(got.Rows); !slices.Equal(lines, want) {
			t.Errorf("%s\ngot  %q\nwant %q", query, lines, want)
		}
		if t.Failed() {
			if wrong++; wrong == 8 {
				t.Fatal("eight are enough")
			}
		}
	}
	// The test is about conditions that the store checks.
	pushed, many := 0, 0
	for _, s := range source.scans {
		for _, p := range s.Where {
			if p.Column.Name != "DeviceId" {
				pushed++
			}
			if len(p.Values) > 1000 {
				many++
			}
		}
	}
	if many == 0 && number > 75 {
		t.Errorf("%d scans: none of many devices", len(source.scans))
	}
	if pushed == 0 {
		t.Errorf("%d scans: nothing but the device was left to the store", len(source.scans))
	}
}

// logon is an event with the values of a row of T.
func logon(row []any) event.Event {
	e := event.Event{Class: event.ClassLogon, Action: event.LogonFailed, Time: time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)}
	e.ReportID = uint64(row[0].(int64))
	if n, ok := row[1].(int64); ok {
		e.Initiating.PID = n
	}
	if x, ok := row[2].(float64); ok {
		e.Initiating.FileSize = int64(4 * x)
	}
	e.Logon.AccountName = row[3].(string)
	if b, ok := row[4].(bool); ok {
		e.Action, e.Logon.IsLocalAdmin = event.LogonSuccess, b
	}
	if at, ok := row[5].(time.Time); ok {
		e.Initiating.StartTime = at
	}
	return e
}
