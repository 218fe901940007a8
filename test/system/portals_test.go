//go:build system

package system

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/fleetsim"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	"github.com/bulwarkhq/bulwark/test/clickhouse"
	"github.com/bulwarkhq/bulwark/test/postgres"
	"github.com/bulwarkhq/bulwark/test/program"
)

// node is one of several portals with the same stores. It has no agent, and nobody
// starts it again.
type node struct {
	*product
	cmd *program.Process
}

func newNode(t *testing.T, name string, env []string) *node {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	return &node{product: &product{t: t, bin: bin, root: root, portalData: filepath.Join(root, name), portalAddr: freeAddress(t), portalEnv: env}}
}

// serve starts it and waits until it serves.
func (n *node) serve() {
	n.t.Helper()
	path := filepath.Join(n.root, "log")
	log, err := os.Create(path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(n.bin, "bulwark-portal"), "serve", "--listen", n.portalAddr, "--data-dir", n.portalData,
		"--host-name", "localhost,127.0.0.1", "--definitions-interval", "0")
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), n.portalEnv...)
	if n.cmd, err = program.Start(cmd, syscall.SIGKILL); err != nil {
		n.t.Fatalf("%v: make build makes it", err)
	}
	n.t.Cleanup(func() {
		n.cmd.Kill()
		if n.t.Failed() {
			b, _ := os.ReadFile(path)
			n.t.Logf("log of %s:\n%s", n.portalData, tail(b, 40))
		}
	})
	n.until("the portal serves", func() error {
		b, err := os.ReadFile(path)
		if err != nil || strings.Contains(string(b), "the portal serves") {
			return err
		}
		select {
		case <-n.cmd.Ended:
			n.t.Fatal("the portal has ended")
		default:
		}
		return errors.New("its log does not say so")
	})
}

// takeKeys copies from another node what docs/portal/stores.md says, but for the keys
// of what this test does not use.
func (n *node) takeKeys(from *node) {
	n.t.Helper()
	if err := os.Mkdir(n.portalData, 0o700); err != nil {
		n.t.Fatal(err)
	}
	cp := exec.Command("cp", "--archive", "--parents", "pki", "files/account.key", "files/export.key", n.portalData)
	cp.Dir = from.portalData
	if out, err := cp.CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
}

// count is the length of a list of the API.
func (h *hunt) count(path string) (int, error) {
	h.p.t.Helper()
	status, out := h.do(http.MethodGet, path+"?$count=true&$top=1", "")
	var list struct {
		Count int `json:"@odata.count"`
	}
	if err := json.Unmarshal(out, &list); err != nil || status != http.StatusOK {
		return 0, fmt.Errorf("%s: %d %s %w", path, status, out, err)
	}
	return list.Count, nil
}

// scan orders a scan and waits until the agent has said that it is done.
func (h *hunt) scan(device string) {
	h.p.t.Helper()
	status, out := h.do(http.MethodPost, "/api/machines/"+device+"/runAntiVirusScan", `{"Comment": "a test", "ScanType": "Quick"}`)
	var a struct{ ID, Status string }
	if err := json.Unmarshal(out, &a); err != nil || status != http.StatusCreated {
		h.p.t.Fatalf("ordering a scan: %d %s", status, out)
	}
	h.p.until("the scan is done", func() error {
		time.Sleep(500 * time.Millisecond) // there is a limit of requests in a minute
		_, out := h.do(http.MethodGet, "/api/machineactions/"+a.ID, "")
		if err := json.Unmarshal(out, &a); err != nil || a.Status != "Succeeded" {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
}

// TestTwoPortals has a fleet deliver to a portal on PostgreSQL and ClickHouse, kills
// the portal, and has the fleet go on with another one that uses the same servers.
// The other one has the devices, their alerts and each event that was acknowledged
// once, and its orders reach agents wherever they are connected. What the portal was
// just writing is taken by the other one at once.
func TestTwoPortals(t *testing.T) {
	t.Parallel()
	database, events := postgres.Start(t), clickhouse.Start(t)
	for _, tc := range []struct{ name, table string }{
		{"between groups", ""},
		{"before the deliveries", "deliveries"},  // a part of a group is stored
		{"before the confirmation", "confirmed"}, // all of it, and nobody says so
	} {
		t.Run(tc.name, func(t *testing.T) { twoPortals(t, database.NewDatabase(t), events, tc.table) })
	}
}

// stop is a way to ClickHouse. When it is armed, it keeps what the next group delivers
// from being acknowledged, and an INSERT of that group into the table never arrives: it
// waits until the portal is gone.
type stop struct {
	address string
	table   string
	silence atomic.Pointer[func()] // set when it is armed
	reached chan struct{}
}

func newStop(t *testing.T, events *clickhouse.Server, table string) *stop {
	s := &stop{table: table, reached: make(chan struct{})}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: events.HTTP})
	to.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // the portal dies
	var silent atomic.Bool                                                // a portal writes one group after another
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The end of the client is seen when all is read, and the proxy breaks off an
		// answer that begins before.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		into := func(table string) bool {
			return strings.HasPrefix(r.URL.Query().Get("query"), "INSERT INTO "+table+" ")
		}
		if silence := s.silence.Load(); silence != nil && into("deliveries") && silent.CompareAndSwap(false, true) {
			(*silence)()
		}
		if !silent.Load() || !into(s.table) {
			r.Body = io.NopCloser(bytes.NewReader(body))
			to.ServeHTTP(w, r)
			return
		}
		once.Do(func() { close(s.reached) })
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	return s
}

// twoPortals kills the first portal when it writes to the table; none for when it
// has written everything.
func twoPortals(t *testing.T, database string, events *clickhouse.Server, table string) {
	way := newStop(t, events, table)
	store := fmt.Sprintf("bulwark_%d", time.Now().UnixNano())
	env := func(at string) []string {
		return []string{
			"BULWARK_PORTAL_DATABASE=" + database,
			"BULWARK_PORTAL_EVENT_STORE=clickhouse://" + clickhouse.User + ":" + url.PathEscape(clickhouse.Password) + "@" + at + "/" + store,
		}
	}
	first, second := newNode(t, "first", env(way.address)), newNode(t, "second", env(events.HTTP))
	first.serve()
	second.takeKeys(first)
	second.serve()
	h := newHunt(second.product, "Alert.Read.All", "Machine.Read.All", "Machine.Scan")

	// The agents know one address. Behind it is the first portal that is there.
	w := newWire(t, first.portalAddr, second.portalAddr)
	onboard := filepath.Join(t.TempDir(), "onboard.json")
	first.portalCommand("onboarding", "create", "--portal-url", "https://"+w.Addr().String(), "--out", onboard)
	const agents = 20
	fleet, err := fleetsim.New(fleetsim.Config{
		Onboarding: onboard, Dir: t.TempDir(), Agents: agents, Events: 5, AlertsPerDay: 8640, BatchDelay: time.Second, Ramp: 100,
		MaxBackoff: time.Second, Seed: 1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- fleet.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	deliver := func(what string) {
		t.Helper()
		before := fleet.Snapshot()
		first.until(what, func() error {
			if s := fleet.Snapshot(); s.Connected < agents || s.Alerts < before.Alerts+5 || s.Events < before.Events+10*agents {
				return fmt.Errorf("%+v after %+v", s, before)
			}
			return nil
		})
	}
	deliver("the fleet delivers to the first portal")
	// An order at a portal without the device's stream.
	h.scan(fleet.Statuses()[0].DeviceID)

	first.until("all are connected", func() error {
		if s := fleet.Snapshot(); s.Connected < agents {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	// Each agent has a batch that is stored and whose acknowledgement it never gets.
	if table == "" {
		w.silence()
		untilStored(first, events, store, func() uint64 {
			s := fleet.Snapshot()
			if s.Waiting < agents {
				return math.MaxUint64
			}
			return s.Batches + agents
		})
	} else {
		silence := w.silence
		way.silence.Store(&silence)
		select {
		case <-way.reached:
		case <-time.After(patience):
			t.Fatalf("waited %s in vain for a row of %s", patience, table)
		}
	}
	last, err := events.Number(t.Context(), "SELECT max(batch_group) FROM "+store+".intents")
	if err != nil {
		t.Fatal(err)
	}
	ofDead := fmt.Sprintf("%s AND batch_group <= %d", openGroups(store), last)
	if n, err := events.Number(t.Context(), ofDead); err != nil || (n > 0) != (table != "") {
		t.Fatalf("%d groups have no end, %v", n, err)
	}
	first.cmd.Kill()
	killed := time.Now()
	w.cut()
	deliver("the fleet delivers to the second portal")
	before := fleet.Snapshot().Batches
	first.until("every agent has delivered what it had", func() error {
		if s := fleet.Snapshot(); s.Batches < before+agents {
			return fmt.Errorf("%+v", s)
		}
		if n, err := events.Number(t.Context(), ofDead); err != nil || n > 0 {
			return fmt.Errorf("%d groups of the dead portal have no end, %w", n, err)
		}
		// Some may still wait before they try again.
		all := fleet.Statuses()
		if i := slices.IndexFunc(all, func(s uplink.Status) bool { return s.State != uplink.Connected }); i >= 0 {
			return fmt.Errorf("agent %d: %+v", i, all[i])
		}
		return nil
	})
	t.Logf("the fleet goes on %s after the death of the portal", time.Since(killed).Round(time.Millisecond))
	h.scan(fleet.Statuses()[agents-1].DeviceID)

	fleet.Finish()
	first.until("everything is acknowledged", func() error {
		if s := fleet.Snapshot(); s.Waiting > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	s := fleet.Snapshot()
	if s.Lost > 0 || s.Commands != 2 {
		t.Errorf("the agents lost %d events and had %d commands", s.Lost, s.Commands)
	}
	var stored []struct{ Rows, Events, Devices uint64 }
	h.run(`union DeviceProcessEvents, DeviceFileEvents, DeviceNetworkEvents, DeviceLogonEvents, DeviceEvents
| summarize Times = count() by DeviceId, ReportId | summarize Rows = sum(Times), Events = count(), Devices = count_distinct(DeviceId)`, &stored)
	if len(stored) != 1 || stored[0].Rows != s.Events || stored[0].Events != s.Events || stored[0].Devices != agents {
		t.Errorf("%d events of %d devices are acknowledged, %+v are stored", s.Events, agents, stored)
	}
	first.until("the second portal has all alerts", func() error {
		if n, err := h.count("/api/alerts"); err != nil || uint64(n) != s.Alerts {
			return fmt.Errorf("%d of %d, %w", n, s.Alerts, err)
		}
		return nil
	})
	if n, err := h.count("/api/machines"); err != nil || n != agents {
		t.Errorf("the second portal has %d devices, %v", n, err)
	}
	t.Logf("%d events in %d batches, %d alerts", s.Events, s.Batches, s.Alerts)
}

// openGroups counts the groups without an end.
func openGroups(store string) string {
	return strings.ReplaceAll(`SELECT count() FROM (SELECT DISTINCT batch_group FROM STORE.intents) WHERE batch_group NOT IN (SELECT batch_group FROM STORE.confirmed)
AND batch_group NOT IN (SELECT batch_group FROM STORE.aborted)`, "STORE", store)
}

// untilStored waits until the portal has stored all that it was sent, and the store
// knows that it counts.
func untilStored(n *node, events *clickhouse.Server, store string, batches func() uint64) {
	n.t.Helper()
	number := func(query string) int64 {
		n.t.Helper()
		v, err := events.Number(n.t.Context(), query)
		if err != nil {
			n.t.Fatal(err)
		}
		return v
	}
	n.until("all batches are stored", func() error {
		stored := number("SELECT count() FROM (SELECT DISTINCT device_id, spool_id, sequence FROM " + store + ".deliveries)")
		open := number(openGroups(store))
		if made := batches(); uint64(stored) != made || open > 0 {
			return fmt.Errorf("%d of %d, %d groups are not confirmed", stored, made, open)
		}
		return nil
	})
}
