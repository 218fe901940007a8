package hunting_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
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

// remote is a hunter over a ClickHouse server, or over a cluster.
func remote(t *testing.T, cluster bool) (*clickhouse.Store, *hunting.Hunter, *seen) {
	t.Helper()
	hosts, options := "", ""
	if cluster {
		for _, s := range server.StartCluster(t) {
			hosts += "," + s.HTTP
		}
		options = "?cluster=" + server.Cluster
	} else {
		hosts = "," + server.Start(t).HTTP
	}
	cfg, err := clickhouse.Parse(fmt.Sprintf("clickhouse://%s:%s@%s/hunting%s", server.User, url.PathEscape(server.Password), hosts[1:], options))
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
	store, h, source := remote(t, false)
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
			columns := "project lKey = ReportId, lVal = InitiatingProcessId, " +
				"rVal = todouble(InitiatingProcessFileSize) / 4.0, sName = AccountName, bFlag = IsLocalAdmin, dWhen = InitiatingProcessCreationTime"
			let = fmt.Sprintf("let T = DeviceLogonEvents %s| %s; ", only, columns)
			switch i / 25 % 3 {
			case 1:
				let = fmt.Sprintf("let T = union (DeviceLogonEvents %[1]s| where ReportId < 4), (DeviceLogonEvents %[1]s| where ReportId >= 4) | %[2]s; ", only, columns)
			case 2:
				// No process is in it; its columns are others.
				let = fmt.Sprintf("let T = union DeviceLogonEvents, (DeviceFileEvents | where ActionType == 'none' | project-away InitiatingProcessId), "+
					"(datatable(DeviceId: string)[]) %s| %s; ", only, columns)
				if i/25%2 == 0 {
					let = strings.Replace(let, ", (datatable(DeviceId: string)[])", "", 1)
				}
			}
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
	pushed, many, kinds := 0, 0, map[string]int{}
	for _, s := range source.scans {
		switch {
		case s.Groups != nil:
			kinds["groups"]++
		case s.First != nil:
			kinds["first"]++
		case s.Distinct:
			kinds["distinct"]++
		}
		for _, p := range s.Where {
			if p.Column.Name != "DeviceId" {
				pushed++
			}
			if len(p.Values) > 1000 {
				many++
			}
		}
	}
	t.Logf("%d scans, of those %v", len(source.scans), kinds)
	if len(kinds) < 3 && number >= 600 {
		t.Errorf("%d scans, of those %v: something is never left to the store", len(source.scans), kinds)
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

// TestBothStores asks the same of the same events in an embedded store and in a
// ClickHouse server. What the server groups and sorts must come out as if all rows
// had been looked at, also where numbers overflow and times are far away.
func TestBothStores(t *testing.T) {
	t.Run("server", func(t *testing.T) { bothStores(t, false) })
	t.Run("cluster", func(t *testing.T) { bothStores(t, true) })
}

func bothStores(t *testing.T, cluster bool) {
	store, there, source := remote(t, cluster)
	embedded, err := duckdb.Open(t.Context(), duckdb.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	here := hunting.New(embedded, func() time.Time { return time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC) })

	b := &eventstore.Batch{DeviceID: "d", DeviceName: "host", SpoolID: "s", Sequence: 1, Received: time.Now()}
	at := time.Date(2026, 11, 27, 22, 15, 0, 123000, time.UTC)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 300 {
		at = at.Add(time.Duration(1+rnd.IntN(100_000)) * time.Millisecond)
		e := event.Event{ReportID: uint64(i + 1), Time: at, Class: event.ClassFile, Action: event.FileCreated}
		e.File = event.File{FileName: []string{"", "a", "b.log", "B.LOG", "ä.log", "a\nb", "a\x00b.log"}[rnd.IntN(7)], FolderPath: fmt.Sprint("/p/", rnd.IntN(5)), Size: rnd.Int64() - 1<<62}
		switch i % 5 {
		case 0:
			e.File.Size = int64(rnd.IntN(3)) // 0 is none
		case 1:
			e.File.Size = -int64(rnd.IntN(5000))
		case 2:
			e.Class, e.Action = event.ClassProcess, event.ProcessCreated
			e.Process = event.Process{PID: int64(rnd.IntN(9)), FileName: e.File.FileName, CommandLine: strings.Repeat("x", rnd.IntN(3)), FileSize: e.File.Size}
		}
		b.Events = append(b.Events, e)
	}
	for i, far := range []time.Time{
		time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1969, 12, 31, 23, 59, 59, 999999000, time.UTC),
		time.Date(1812, 2, 29, 1, 0, 0, 1000, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		e := event.Event{ReportID: uint64(1000 + i), Time: far, Class: event.ClassFile, Action: event.FileDeleted}
		e.File = event.File{FileName: "far", Size: []int64{math.MaxInt64, math.MinInt64, 1 << 53, -1<<53 - 1}[i]}
		b.Events = append(b.Events, e)
	}
	// Several groups, which go to the shards in turn.
	for events := range slices.Chunk(b.Events, 50) {
		for _, s := range []eventstore.Store{store, embedded} {
			part := *b
			part.Events = events
			if err := s.Append(t.Context(), &part); err != nil {
				t.Fatal(err)
			}
		}
		b.Sequence++
	}
	const both = "union DeviceFileEvents, DeviceProcessEvents"
	for _, q := range []struct {
		query string
		left  func(s hunting.Scan) bool // that to the server
	}{
		{"DeviceFileEvents | summarize count() by bin(Timestamp, 1h)", grouped},
		{"DeviceFileEvents | summarize n = count(), dcount(FileName) by bin(Timestamp, 7d), FolderPath", grouped},
		{"DeviceFileEvents | extend h = bin(Timestamp, 90m) | where FileName != 'a' | summarize c = count() * 2, avg(FileSize) by h, ActionType", grouped},
		{"DeviceFileEvents | summarize count() by bin(FileSize, 1000)", grouped},
		{"DeviceFileEvents | summarize count(), max(FileName), min(FileName), max(Timestamp), min(FileSize), max(FileSize), avg(FileSize)", grouped},
		{"DeviceFileEvents | summarize sum(FileSize)", grouped},
		{"DeviceFileEvents | summarize sum(FileSize) by FolderPath", grouped},
		{"DeviceFileEvents | where FileSize between (-10000 .. 10000) | summarize sum(FileSize), avg(FileSize), round(avg(FileSize), 3) by FileName", grouped},
		{"DeviceFileEvents | summarize countif(FileName startswith_cs 'a'), countif(FileSize > 0), countif(FileSize != 1) by ActionType", grouped},
		{"DeviceFileEvents | where FileName == 'none' | summarize count(), sum(FileSize), min(FileSize), max(Timestamp), min(FileName), avg(FileSize), dcount(FileName)", grouped},
		{"DeviceFileEvents | where FileName == 'none' | summarize count() by ActionType", grouped},
		{"DeviceFileEvents | summarize by FileName", grouped},
		{"DeviceFileEvents | summarize count() by ThreatName = tostring(FileName)", nil},
		{both + " | summarize count() by ActionType", grouped},
		{both + " | where DeviceName == 'host' | summarize count(), max(FileSize), dcount(ProcessCommandLine), max(ProcessCommandLine) by FileName, ProcessId", grouped},
		{"union withsource=From DeviceFileEvents, DeviceProcessEvents | summarize count(), dcount(From) by From, bin(Timestamp, 1d)", grouped},
		{"union (DeviceFileEvents | extend h = bin(Timestamp, 1h)), (DeviceProcessEvents | extend h = bin(Timestamp, 1d)) | summarize count() by h", nil},
		{both + " | where FileName == 'a' | sort by Timestamp desc | take 7", limited},
		{both + " | top 5 by Timestamp asc | project Timestamp, FileName", limited},
		{both + " | where FileName == 'b.log' and FileSize > 1 | count", nil},
		{"DeviceFileEvents | summarize arg_max(Timestamp, *) by FileName", first},
		{"DeviceFileEvents | summarize arg_min(Timestamp, FileName, FileSize) by bin(Timestamp, 1h)", first},
		{"DeviceFileEvents | summarize arg_max(FileSize, ReportId, FileName) by FolderPath", first},
		{"DeviceFileEvents | summarize arg_min(FileSize, ReportId, FileName)", first},
		{"DeviceFileEvents | where FileName == 'none' | summarize arg_max(Timestamp, FileName)", first},
		{both + " | summarize arg_max(ReportId, Timestamp, FileName, ProcessCommandLine) by ActionType, FolderPath", first},
		{both + " | distinct FileName, ProcessCommandLine", distinct},
		{"DeviceFileEvents | distinct bin(Timestamp, 1h), InitiatingProcessSHA256", distinct},
		{"DeviceFileEvents | where FileName matches regex @'^.\\.LOG' | count", nil},
		{"DeviceFileEvents | where FileName matches regex @'(?i)b.?\\.l[^a]g$' | project ReportId", nil},
		{"DeviceFileEvents | where FileName matches regex @'a.b' | project ReportId", nil},
		{"DeviceFileEvents | where FileName matches regex @'b' | project ReportId", nil},
	} {
		source.scans = nil
		got, err := there.Run(t.Context(), "t", q.query, hunting.Limits{})
		want, wrong := here.Run(t.Context(), "t", q.query, hunting.Limits{})
		switch {
		case (err == nil) != (wrong == nil), err != nil && err.Error() != wrong.Error():
			t.Errorf("%s\nClickHouse %v\nembedded   %v", q.query, err, wrong)
		case err == nil && !slices.Equal(hunting.Lines(got.Rows), hunting.Lines(want.Rows)):
			t.Errorf("%s\nClickHouse %q\nembedded   %q", q.query, hunting.Lines(got.Rows), hunting.Lines(want.Rows))
		}
		for _, s := range source.scans {
			if q.left != nil && !q.left(s) {
				t.Errorf("%s\nwas not left to the server: %+v", q.query, s)
			}
			if q.left == nil && s.Groups != nil {
				t.Errorf("%s\nwas left to the server: %+v", q.query, s)
			}
		}
	}
}

func grouped(s hunting.Scan) bool  { return s.Groups != nil }
func limited(s hunting.Scan) bool  { return s.Limit > 0 && s.Order != nil }
func first(s hunting.Scan) bool    { return s.First != nil }
func distinct(s hunting.Scan) bool { return s.Distinct }
