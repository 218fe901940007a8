package clickhouse_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	server "github.com/bulwarkhq/bulwark/test/clickhouse"
)

// patience is how long a test waits for what a server does by itself.
const patience = 3 * time.Minute

// sender delivers batches of a device as an agent does: one after the other, each
// until it is acknowledged.
type sender struct {
	device string
	acked  atomic.Int64 // batches
}

const batchEvents = 20

func (d *sender) run(ctx context.Context, s eventstore.Store, more func() bool) error {
	for more() {
		n := int(d.acked.Load())
		b := eventstoretest.Batch(d.device, uint64(n+1), n*batchEvents, batchEvents)
		for {
			err := s.Append(ctx, b)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("device %s, batch %d: %w", d.device, n+1, err)
			case <-time.After(50 * time.Millisecond):
			}
		}
		d.acked.Add(1)
	}
	return nil
}

// check compares what is stored of the device with what was acknowledged, event by
// event.
func (d *sender) check(t *testing.T, s eventstore.Store) {
	t.Helper()
	want := int(d.acked.Load()) * batchEvents
	count := map[int64]int{}
	for _, r := range eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: d.device, Limit: eventstore.MaxTimeline}) {
		count[r.ReportID]++
	}
	for id := range want {
		if n := count[int64(id+1)]; n != 1 {
			t.Errorf("device %s: event %d is there %d times", d.device, id+1, n)
		}
	}
	if len(count) != want {
		t.Errorf("device %s: %d events, %d were acknowledged", d.device, len(count), want)
	}
	receipts, err := s.Receipts(t.Context(), d.device)
	if err != nil {
		t.Fatal(err)
	}
	sum := uint64(0)
	for r := range maps.Values(receipts) {
		sum += r.Stored
	}
	if sum != uint64(want) {
		t.Errorf("device %s: the ledger has %d events, %d were acknowledged", d.device, sum, want)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain for %s", patience, what)
		}
	}
}

// TestCluster kills servers of a cluster of two shards with two replicas while
// devices deliver: what was acknowledged is there once, whichever replicas are left.
func TestCluster(t *testing.T) {
	servers := server.StartCluster(t)
	to := address("?cluster="+server.Cluster, servers...)
	cfg, err := clickhouse.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, to, nil)

	var devices []*sender
	for i := range 4 {
		devices = append(devices, &sender{device: fmt.Sprintf("%040x", i+1)})
	}
	total := func() (n int64) {
		for _, d := range devices {
			n += d.acked.Load()
		}
		return n
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var wg sync.WaitGroup
	var stop atomic.Bool
	for _, d := range devices {
		wg.Go(func() {
			if err := d.run(ctx, s, func() bool { return !stop.Load() }); err != nil {
				t.Error(err)
			}
		})
	}
	await := func(what string, more int64) {
		t.Helper()
		until := total() + more
		eventually(t, what, func() bool { return total() >= until || ctx.Err() != nil })
	}
	await("batches of the whole cluster", 40)
	eventually(t, "groups on both shards", func() bool {
		for _, of := range []*server.Server{servers[0], servers[2]} {
			if n, err := of.Number(t.Context(), "SELECT count() FROM "+cfg.Database+".deliveries_local"); err != nil || n == 0 {
				return false
			}
		}
		return true
	})
	whole, err := eventstoretest.Inspect(t, s)
	if err != nil || len(whole.Servers) != 4 || whole.Events == 0 {
		t.Errorf("the whole cluster: %+v, %v", whole, err)
	}
	for i, of := range whole.Servers {
		if !of.Up || of.Wanted != 2 || of.Replicas != 2 || of.ReadOnly != 0 || of.Shard == "" || of.Replica == "" || of.Address != servers[i].HTTP {
			t.Errorf("server %d of the whole cluster: %+v", i, of)
		}
	}
	servers[0].Kill()
	await("batches while a server is away", 20)
	part, err := eventstoretest.Inspect(t, s)
	if err != nil || part.Events < whole.Events || part.Servers[0].Up || part.Servers[0].Error == "" || part.Servers[0].Events != 0 {
		t.Errorf("while a server is away: %+v, %v", part, err)
	}
	eventually(t, "the other replica to miss it", func() bool {
		part, err := s.Inspect(t.Context())
		return err == nil && part.Servers[1].Up && part.Servers[1].Replicas == 1 && part.Servers[2].Replicas == 2
	})
	// A portal that starts now finds its tables.
	second := open(t, to, nil)
	for _, d := range devices {
		if n, err := second.Stored(t.Context(), d.device, "spool-1"); err != nil || n == 0 {
			t.Errorf("another portal: the mark of %s is %d, %v", d.device, n, err)
		}
	}
	servers[0].Start(t)
	await("batches after the server came back", 20)
	stop.Store(true)
	wg.Wait()
	for _, d := range devices {
		d.check(t, s)
	}
	if t.Failed() {
		return
	}
	// Its replica goes: the one that was away has all. Until it has fetched what it
	// missed, a read of it would miss something.
	eventually(t, "the replica to have what it missed", func() bool { return caughtUp(t, servers[0]) })
	servers[1].Kill()
	servers[2].Kill()
	for _, d := range devices {
		d.check(t, second)
	}
	// Hunting reads both shards.
	n := int64(0)
	err = second.Scan(t.Context(), hunting.Scan{Table: "DeviceProcessEvents"}, true, func(b *hunting.Block) error {
		n += b.Columns[0].Ints[0]
		return nil
	})
	want := int64(0)
	for _, d := range devices {
		for i := range int(d.acked.Load()) * batchEvents {
			if e := eventstoretest.Event(i); e.Class.TableName() == "DeviceProcessEvents" {
				want++
			}
		}
	}
	if err != nil || n != want {
		t.Errorf("hunting counts %d processes, %v, want %d", n, err, want)
	}
	// So does a scan of many devices, which go beside the statement.
	of := hunting.Scan{Table: "DeviceProcessEvents", Where: []hunting.Predicate{devicesBeside(devices[0].device, devices[1].device)}}
	n, want = 0, 0
	err = second.Scan(t.Context(), of, true, func(b *hunting.Block) error {
		n += b.Columns[0].Ints[0]
		return nil
	})
	for _, d := range devices[:2] {
		for i := range int(d.acked.Load()) * batchEvents {
			if e := eventstoretest.Event(i); e.Class.TableName() == "DeviceProcessEvents" {
				want++
			}
		}
	}
	if err != nil || n != want {
		t.Errorf("hunting counts %d processes of two devices, %v, want %d", n, err, want)
	}
	// No shard is complete: nothing is acknowledged.
	next := int(devices[0].acked.Load())
	if err := s.Append(t.Context(), eventstoretest.Batch(devices[0].device, uint64(next+1), next*batchEvents, batchEvents)); err == nil {
		t.Error("a batch is acknowledged although no shard is complete")
	}
}

// devicesBeside is the condition of being one of these devices, or of many others
// with odd names.
func devicesBeside(devices ...string) hunting.Predicate {
	p := hunting.Predicate{Op: "in", Column: hunting.Column{Name: "DeviceId", Type: hunting.String}}
	for i := range 1500 {
		p.Values = append(p.Values, fmt.Sprintf("none-%d'\\\x00\n\t--\r\n%s", i, strings.Repeat("x", i%300)))
	}
	for _, d := range devices {
		p.Values = append(p.Values, d)
	}
	return p
}

// manyValues: conditions with many values, of which two stand in one statement.
func manyValues(t *testing.T, one *server.Server) {
	s := open(t, address("", one), nil)
	for i, device := range []string{eventstoretest.DeviceA, eventstoretest.DeviceB} {
		if err := s.Append(t.Context(), eventstoretest.Batch(device, 1, 0, 12*(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	a, none := devicesBeside(eventstoretest.DeviceA), devicesBeside()
	for name, c := range map[string]struct {
		where hunting.Predicate
		want  int64
	}{
		"one":     {a, 2},
		"both":    {devicesBeside(eventstoretest.DeviceA, eventstoretest.DeviceB), 6},
		"none":    {none, 0},
		"or":      {hunting.Predicate{Op: "or", Of: []hunting.Predicate{a, none, devicesBeside(eventstoretest.DeviceB)}}, 6},
		"and":     {hunting.Predicate{Op: "and", Of: []hunting.Predicate{a, devicesBeside(eventstoretest.DeviceA)}}, 2},
		"and not": {hunting.Predicate{Op: "and", Of: []hunting.Predicate{a, {Op: "!in", Column: a.Column, Values: none.Values}}}, 2},
	} {
		n := int64(0)
		err := s.Scan(t.Context(), hunting.Scan{Table: "DeviceProcessEvents", Where: []hunting.Predicate{c.where}}, true, func(b *hunting.Block) error {
			n += b.Columns[0].Ints[0]
			return nil
		})
		if err != nil || n != c.want {
			t.Errorf("%s: %d processes, %v, want %d", name, n, err, c.want)
		}
	}
}

// caughtUp reports whether a server has nothing left to fetch.
func caughtUp(t *testing.T, of *server.Server) bool {
	t.Helper()
	n, err := of.Number(t.Context(), "SELECT sum(queue_size) + sum(is_readonly) + 4 * (count() = 0) FROM system.replicas")
	return err == nil && n == 0
}
