package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/identity"
	"github.com/bulwarkhq/bulwark/agent/spool"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/testportal"
)

// agent is an uplink with everything that it needs.
type agent struct {
	*Uplink
	t       *testing.T
	id      *identity.Identity
	spool   *spool.Spool
	pkg     string
	mu      sync.Mutex
	proxy   string
	policy  string
	done    []string
	stopRun func()
	// signs: the agent signs off; signed: it was asked whether to.
	signs, signed atomic.Bool
}

const hardware = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func newAgent(t *testing.T, dir string) *agent {
	t.Helper()
	a := &agent{t: t, pkg: filepath.Join(dir, "onboard.json")}
	var err error
	if a.id, err = identity.Load(filepath.Join(dir, "identity"), hardware); err != nil {
		t.Fatal(err)
	}
	if a.spool, err = spool.Open(filepath.Join(dir, "spool"), spool.Options{FlushInterval: 20 * time.Millisecond, BatchDelay: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	a.Uplink, err = New(Options{
		Onboarding: a.pkg, Identity: a.id, Spool: a.spool, Version: "1.2.3",
		Proxy: func() string { a.mu.Lock(); defer a.mu.Unlock(); return a.proxy },
		Health: func(context.Context) []byte {
			if a.signed.Load() {
				return []byte(`{"signed_off":true}`)
			}
			return []byte(`{"healthy":true}`)
		},
		SignOff:       func() bool { a.signed.Store(true); return a.signs.Load() },
		PolicyVersion: func() string { a.mu.Lock(); defer a.mu.Unlock(); return a.policy },
		ApplyPolicy:   func(v string, _ []byte) error { a.mu.Lock(); defer a.mu.Unlock(); a.policy = v; return nil },
		Command: func(ctx context.Context, c *agentv1.Command, report Report) {
			a.mu.Lock()
			a.done = append(a.done, c.Id)
			a.mu.Unlock()
			if err := report(ctx, "Succeeded", "done", []byte(`{"n":1}`)); err != nil {
				t.Error(err)
			}
		},
		WatchInterval: 20 * time.Millisecond, MaxBackoff: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.stop)
	return a
}

func (a *agent) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			a.t.Error(err)
		}
	}()
	a.stopRun = func() { cancel(); <-done }
}

// stop ends the agent in order; a second call does nothing.
func (a *agent) stop() {
	if a.stopRun != nil {
		a.stopRun()
		a.stopRun = nil
	}
	if err := a.spool.Close(); err != nil {
		a.t.Error(err)
	}
}

func (a *agent) onboard(text []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.pkg+".new", text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(a.pkg+".new", a.pkg); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) device() string {
	e, _ := a.id.Enrollment()
	return e.DeviceID
}

// eventually waits for something to become true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("did not happen: %s", what)
}

func (a *agent) wantState(want State) Status {
	a.t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if a.Status().State == want {
			return a.Status()
		}
	}
	a.t.Fatalf("state %+v, want %s", a.Status(), want)
	return Status{}
}

func testAlert(n int) event.Alert {
	return event.Alert{ID: fmt.Sprintf("%032x", n), Time: time.Now(), Title: "found", Severity: event.SeverityHigh, Source: event.SourceAntivirus}
}

func TestOnboardDeliverAndOffboard(t *testing.T) {
	p := testportal.New(t)
	p.Policy("7", []byte(`{}`))
	p.Start()
	a := newAgent(t, t.TempDir())
	a.start()
	a.wantState(NotEnrolled)
	if err := a.spool.AddAlert(testAlert(1)); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		a.spool.AddEvent(&event.Event{Time: time.Now(), Class: event.ClassProcess, Action: event.ProcessCreated, Process: event.Process{PID: int64(i)}})
	}
	a.onboard(p.NewPackage(time.Hour, 0)) // noticed without a restart
	st := a.wantState(Connected)
	if st.Portal != p.URL || st.OrgID != "test-org" || st.DeviceID == "" {
		t.Errorf("status %+v", st)
	}
	eventually(t, "100 events and the alert at the portal", func() bool {
		return len(p.Sink.Events(a.device())) == 100 && len(p.Sink.Alerts(a.device())) == 1
	})
	eventually(t, "check-in and policy", func() bool {
		c, ok := p.Sink.LastCheckIn(a.device())
		return ok && c.PolicyVersion == "7" && string(c.Health) == `{"healthy":true}` && c.Info.AgentVersion == "1.2.3" &&
			c.Info.Kernel != "" && c.Info.OsDistribution != "" && len(c.Info.Tags) == 1
	})
	p.Order(a.device(), "c1", "RunAntiVirusScan")
	eventually(t, "command done", func() bool {
		r := p.Commands.Reports()
		return len(r) == 1 && r[0].Status == "Succeeded" && string(r[0].Result) == `{"n":1}`
	})
	test := testAlert(2)
	test.TestID = "self"
	if err := a.spool.AddAlert(test); err != nil {
		t.Fatal(err)
	}
	eventually(t, "self-test alert arrived", func() bool {
		as, err := a.FinishSelfTest(t.Context(), "self", true)
		return err == nil && len(as) == 1 && as[0].AlertID == test.ID && !as[0].Arrived.IsZero()
	})
	for _, r := range a.ConnectivityTest(t.Context()) {
		if !r.OK {
			t.Errorf("connectivity %+v", r)
		}
	}
	first := a.device()
	if err := a.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := p.Store.Device(t.Context(), first); err != nil || d.Revoked.IsZero() {
		t.Errorf("the portal does not know that the device left: %+v, %v", d, err)
	}
	if err := os.Remove(a.pkg); err != nil {
		t.Fatal(err)
	}
	a.wantState(NotEnrolled)
	if err := a.id.Forget(); err != nil {
		t.Fatal(err)
	}
	a.onboard(p.NewPackage(time.Hour, 0))
	a.wantState(Connected)
	if d, err := p.Store.Device(t.Context(), a.device()); err != nil || !d.Revoked.IsZero() || d.ID == first {
		t.Errorf("enrolled again: %+v, %v", d, err)
	}
	if err := os.Remove(a.pkg); err != nil {
		t.Fatal(err)
	}
	a.wantState(NotEnrolled)
	if _, err := a.FinishSelfTest(t.Context(), "self", true); err == nil {
		t.Error("self-test without a portal")
	}
}

// At its end the agent delivers the alert that waits and says that it ends; where
// it is not to, or the portal is away, it just ends.
func TestSignOff(t *testing.T) {
	for _, c := range []struct{ signs, staysBusy bool }{{true, false}, {true, true}, {false, false}} {
		signs := c.signs
		p := testportal.New(t)
		p.Start()
		a := newAgent(t, t.TempDir())
		a.signs.Store(signs)
		a.start()
		a.onboard(p.NewPackage(time.Hour, 0))
		a.wantState(Connected)
		eventually(t, "a check-in", func() bool { _, ok := p.Sink.LastCheckIn(a.device()); return ok })
		// The portal is busy until the agent ends.
		var refused atomic.Int32
		p.OnStore(func() error {
			if a.signed.Load() && !c.staysBusy {
				return nil
			}
			refused.Add(1)
			return testportal.ErrBusy
		})
		if err := a.spool.AddAlert(testAlert(1)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a refusal", func() bool { return refused.Load() > 0 })
		device := a.device()
		a.stop()
		last, _ := p.Sink.LastCheckIn(device)
		if got := string(last.Health) == `{"signed_off":true}`; got != signs {
			t.Errorf("signs off %v: the last check-in has %s", signs, last.Health)
		}
		if got := len(p.Sink.Alerts(device)) == 1; got != (signs && !c.staysBusy) {
			t.Errorf("%+v: alerts %v", c, p.Sink.Alerts(device))
		}
	}
	p := testportal.New(t)
	p.Start()
	a := newAgent(t, t.TempDir())
	a.signs.Store(true)
	a.start()
	a.onboard(p.NewPackage(time.Hour, 0))
	a.wantState(Connected)
	p.Stop()
	a.stop() // returns
}

// The portal is away while something is found, also across a restart of the
// agent: it arrives, once, under the same identity.
func TestPortalStoppedAndStarted(t *testing.T) {
	p := testportal.New(t)
	p.Start()
	dir := t.TempDir()
	a := newAgent(t, dir)
	a.onboard(p.NewPackage(time.Hour, 1)) // the token is for one enrollment
	a.start()
	a.wantState(Connected)
	device := a.device()
	p.Stop()
	eventually(t, "a reason that says what is wrong", func() bool {
		st := a.Status()
		return st.State == Unreachable && strings.Contains(st.Reason, "connection refused")
	})
	if err := a.spool.AddAlert(testAlert(1)); err != nil {
		t.Fatal(err)
	}
	a.stop()
	a = newAgent(t, dir)
	a.start()
	if err := a.spool.AddAlert(testAlert(2)); err != nil {
		t.Fatal(err)
	}
	a.wantState(Unreachable)
	p.Start()
	a.wantState(Connected)
	eventually(t, "both alerts", func() bool { return len(p.Sink.Alerts(device)) == 2 })
	if a.device() != device {
		t.Error("the device id changed")
	}
}

// Answers get lost after the portal has stored: nothing is stored twice.
func TestLostAnswers(t *testing.T) {
	p := testportal.New(t)
	var drop atomic.Int32
	p.Wrap = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/Deliver") && drop.Add(1)%2 == 1 {
				h.ServeHTTP(&swallow{header: http.Header{}}, r)
				panic(http.ErrAbortHandler) // cuts the connection
			}
			h.ServeHTTP(w, r)
		})
	}
	p.Start()
	a := newAgent(t, t.TempDir())
	a.onboard(p.NewPackage(time.Hour, 0))
	a.start()
	a.wantState(Connected)
	for n := range 10 {
		if err := a.spool.AddAlert(testAlert(n)); err != nil {
			t.Fatal(err)
		}
		a.spool.AddEvent(&event.Event{Time: time.Now(), Class: event.ClassFile, Action: event.FileCreated})
		eventually(t, "acknowledged", func() bool {
			s := a.spool.Stats()
			return s.Written > 0 && s.Acknowledged == s.Written && s.MemoryBytes == 0
		})
	}
	if got := len(p.Sink.Alerts(a.device())); got != 10 {
		t.Errorf("%d alerts", got)
	}
	seen := map[uint64]bool{}
	for _, e := range p.Sink.Events(a.device()) {
		if seen[e.ReportID] {
			t.Errorf("event %d twice", e.ReportID)
		}
		seen[e.ReportID] = true
	}
	if len(seen) != 10 || drop.Load() < 20 {
		t.Errorf("%d events, %d deliveries", len(seen), drop.Load())
	}
}

type swallow struct{ header http.Header }

func (s *swallow) Header() http.Header         { return s.header }
func (s *swallow) Write(b []byte) (int, error) { return len(b), nil }
func (s *swallow) WriteHeader(int)             {}

func TestRefusals(t *testing.T) {
	p := testportal.New(t)
	p.Start()
	a := newAgent(t, t.TempDir())
	a.start()
	a.onboard([]byte("{"))
	if st := a.wantState(BadPackage); !strings.Contains(st.Reason, "line 1") || !strings.Contains(st.Reason, a.pkg) {
		t.Errorf("damaged: %+v", st)
	}
	a.onboard(p.ExpiredPackage())
	if st := a.wantState(ExpiredPackage); !strings.Contains(st.Reason, "make a new one") {
		t.Errorf("expired: %+v", st)
	}
	if r := a.ConnectivityTest(t.Context()); len(r) != 1 || r[0].OK || !strings.Contains(r[0].Detail, "expired") {
		t.Errorf("connectivity with an expired package: %+v", r)
	}
	revoked := p.NewPackage(time.Hour, 0)
	p.RevokeTokens()
	a.onboard(revoked)
	if st := a.wantState(Refused); !strings.Contains(st.Reason, "was revoked") {
		t.Errorf("revoked: %+v", st)
	}
	a.onboard(p.NewPackage(time.Hour, 0))
	a.wantState(Connected)
	// Offboarded by the portal: refused, and quiet until a new package comes.
	if err := p.Auth.RevokeDevice(t.Context(), a.device()); err != nil {
		t.Fatal(err)
	}
	if st := a.wantState(Refused); !strings.Contains(st.Reason, "offboarded") {
		t.Errorf("offboarded: %+v", st)
	}
}

// Another portal with the same address: the agent tells it nothing.
func TestInterceptor(t *testing.T) {
	p := testportal.New(t)
	p.Start()
	pkg := p.NewPackage(time.Hour, 0)
	p.Stop()
	l, err := tls.Listen("tcp", p.Address, p.Impostor())
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) })}
	go srv.Serve(l) // ends with Close
	defer srv.Close()
	a := newAgent(t, t.TempDir())
	a.onboard(pkg)
	a.start()
	st := a.wantState(Unreachable)
	if !strings.Contains(st.Reason, "TLS inspection in the path: certificate issued by") || !strings.Contains(st.Reason, "Interceptor Ltd") {
		t.Errorf("reason %q", st.Reason)
	}
	rs := a.ConnectivityTest(t.Context())
	if last := rs[len(rs)-1]; last.OK || last.Step != "tls" || !strings.Contains(last.Detail, "Interceptor Ltd") {
		t.Errorf("connectivity %+v", rs)
	}
	if requests.Load() != 0 {
		t.Errorf("the interceptor got %d requests", requests.Load())
	}
}

// startProxy starts a forward proxy that knows CONNECT only and leads
// everything to target.
func startProxy(t *testing.T, target string, refuse bool) (addr string, used *atomic.Int32) {
	used = &atomic.Int32{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		used.Add(1)
		if refuse || r.Method != http.MethodConnect {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		up, err := net.Dial("tcp", target)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer up.Close()
		down, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		io.WriteString(down, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() {
			io.Copy(up, buf)
			up.Close()
		}()
		io.Copy(down, up)
	})}
	go srv.Serve(l) // ends with Close
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String(), used
}

func TestProxy(t *testing.T) {
	t.Setenv("NO_PROXY", "")
	t.Setenv("no_proxy", "")
	p := testportal.New(t)
	p.Start()
	good, used := startProxy(t, p.Address, false)
	bad, _ := startProxy(t, p.Address, true)
	a := newAgent(t, t.TempDir())
	setProxy := func(v string) { a.mu.Lock(); defer a.mu.Unlock(); a.proxy = v }
	setProxy("http://" + bad)
	a.onboard(p.NamedPackage())
	a.start()
	if st := a.wantState(Unreachable); !strings.Contains(st.Reason, "Forbidden") {
		t.Errorf("refusing proxy: %q", st.Reason)
	}
	rs := a.ConnectivityTest(t.Context())
	if last := rs[len(rs)-1]; last.OK || last.Step != "tls" || !strings.Contains(last.Detail, "the proxy http://"+bad+" refuses") {
		t.Errorf("connectivity through a refusing proxy %+v", rs)
	}
	setProxy(good) // noticed without a restart
	if st := a.wantState(Connected); st.Proxy != "http://"+good || used.Load() == 0 {
		t.Errorf("status %+v, proxy used %d times", st, used.Load())
	}
	for _, r := range a.ConnectivityTest(t.Context()) {
		if !r.OK {
			t.Errorf("connectivity %+v", r)
		}
	}
	a.mu.Lock()
	a.proxy = "http://proxy/wpad.dat"
	a.mu.Unlock()
	if st := a.wantState(Unreachable); !strings.Contains(st.Reason, "PAC, WPAD") {
		t.Errorf("reason %q", st.Reason)
	}
	rs = a.ConnectivityTest(t.Context())
	if last := rs[len(rs)-1]; last.OK || last.Step != "proxy" {
		t.Errorf("connectivity %+v", rs)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{max: 10 * time.Second}
	for range 100 {
		if d := b.next(0); d < 50*time.Millisecond || d > 10*time.Second {
			t.Fatalf("pause %s", d)
		}
	}
	if d := b.next(time.Minute); d < time.Minute {
		t.Errorf("the portal's advice is not kept: %s", d)
	}
	b.ran(9 * time.Second)
	if b.n != 101 {
		t.Errorf("%d failures in a row, want 101", b.n)
	}
	b.ran(time.Hour)
	if d := b.next(0); d > time.Second {
		t.Errorf("pause %s after an hour of success", d)
	}
}

// A slow store and a slow line delay, and lose nothing.
func TestSlowPortal(t *testing.T) {
	p := testportal.New(t)
	var n atomic.Int32
	p.OnStore(func() error {
		time.Sleep(100 * time.Millisecond)
		if n.Add(1) < 4 {
			return errors.New("not now")
		}
		return nil
	})
	p.Start()
	a := newAgent(t, t.TempDir())
	a.onboard(p.NewPackage(time.Hour, 0))
	a.start()
	for i := range 5 {
		if err := a.spool.AddAlert(testAlert(i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all alerts", func() bool { return len(p.Sink.Alerts(a.device())) == 5 })
}

func TestOSRelease(t *testing.T) {
	m := osRelease([]byte("# x\nID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"A \\\"B\\\" \\$C\"\nX='y'\nbroken\n"))
	for k, want := range map[string]string{"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": `A "B" $C`, "X": "y"} {
		if m[k] != want {
			t.Errorf("%s = %q, want %q", k, m[k], want)
		}
	}
}

func FuzzOSRelease(f *testing.F) {
	f.Add([]byte("A=\"\\\"\nB='"))
	f.Fuzz(func(_ *testing.T, b []byte) { osRelease(b) })
}
