package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/need"
)

// childSocket makes the test binary a client of that socket: it reads, then
// tries a change, and prints the codes.
const childSocket = "BULWARK_TEST_CHILD_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(childSocket); socket != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		c := api.Dial(socket)
		_, readErr := c.LogLevel(ctx)
		_, changeErr := c.SetLogLevel(ctx, api.LogLevel{Level: "debug"})
		fmt.Printf("read: %v\nchange: %v\n", readErr, changeErr)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeLog is a log whose level is any word.
type fakeLog struct {
	mu    sync.Mutex
	level string
}

func (l *fakeLog) LogLevel(context.Context) (api.LogLevel, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return api.LogLevel{Level: l.level}, nil
}

func (l *fakeLog) SetLogLevel(_ context.Context, n api.LogLevel) (api.LogLevel, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.level = n.Level
	return n, nil
}

// fakeEvents sends events as fast as it can, or none.
type fakeEvents struct {
	size    int
	sent    atomic.Int64
	stopped chan error
}

func (e *fakeEvents) FollowEvents(ctx context.Context, send func(api.AgentEvent) error) error {
	text := strings.Repeat("x", e.size)
	for ctx.Err() == nil {
		if err := send(api.AgentEvent{Kind: "threat", Text: text}); err != nil {
			e.stopped <- err
			return err
		}
		e.sent.Add(1)
	}
	e.stopped <- ctx.Err()
	return ctx.Err()
}

// panicky fails in every way.
type panicky struct{}

func (panicky) Version(context.Context) (api.Version, error) { panic("no version") }

func (panicky) Health(context.Context) (api.Health, error) {
	return api.Health{}, fmt.Errorf("state of the scanner: %w", errors.New("disk on fire"))
}

func (panicky) HealthDetails(_ context.Context, c string) (api.HealthDetails, error) {
	return api.HealthDetails{}, fmt.Errorf("details: %w", &api.Error{Code: api.NotFound, Message: "no " + c, Hint: "look"})
}

func serve(t testing.TB, s Services) string {
	t.Helper()
	return serveWith(t, New(s, slog.New(slog.DiscardHandler)))
}

func serveWith(t testing.TB, s *Server) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // other users connect too
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "run", "bulwark.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * time.Minute):
			t.Error("the server does not end")
		}
	})
	return socket
}

func client(t testing.TB, socket string) *api.Client {
	c := api.Dial(socket)
	t.Cleanup(c.Close)
	return c
}

func TestOthersMayReadOnly(t *testing.T) {
	need.Root(t)
	log := &fakeLog{level: "info"}
	socket := serve(t, Services{Log: log})
	// A copy of this program where everybody can run it.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(filepath.Dir(filepath.Dir(socket)), "child")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	child := func(cred *syscall.Credential) string {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = []string{childSocket + "=" + socket}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	out := child(&syscall.Credential{Uid: 65534, Gid: 65534})
	if !strings.Contains(out, "read: <nil>") || !strings.Contains(out, `change: this changes the agent and is for root and members of the group "bulwark"`) {
		t.Errorf("as nobody: %s", out)
	}
	if l, _ := log.LogLevel(t.Context()); l.Level != "info" {
		t.Errorf("nobody has changed the level to %s", l.Level)
	}
	if out := child(&syscall.Credential{Uid: 0, Gid: 0}); !strings.Contains(out, "change: <nil>") {
		t.Errorf("as root: %s", out)
	}
}

func TestMembersOfTheGroup(t *testing.T) {
	a := adminCheck{group: "daemon"} // gid 1 on every Linux
	for _, tt := range []struct {
		c    Caller
		want bool
	}{
		{Caller{UID: 0, known: true}, true},
		{Caller{UID: 0}, false}, // no request at all
		{Caller{UID: 1000, GID: 1000, Groups: []uint32{1000}, known: true}, false},
		{Caller{UID: 1000, GID: 1, Groups: []uint32{}, known: true}, true},
		{Caller{UID: 1000, GID: 1000, Groups: []uint32{4, 1}, known: true}, true},
		{Caller{UID: 99999, GID: 99999, known: true}, false}, // kernel tells no groups
	} {
		if got := a.allowed(tt.c); got != tt.want {
			t.Errorf("%+v: %v", tt.c, got)
		}
	}
	if (adminCheck{group: "no-such-group-here"}).allowed(Caller{UID: 1000, GID: 1, known: true}) {
		t.Error("a group that does not exist has members")
	}
}

func TestPeerGroupsOfTheKernel(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	caller := accepted.(*peerConn).caller
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if int(caller.UID) != os.Geteuid() || int(caller.PID) != os.Getpid() || len(caller.Groups) != len(groups) {
		t.Errorf("caller %+v, groups %v", caller, groups)
	}
}

func TestErrors(t *testing.T) {
	c := client(t, serve(t, Services{Health: panicky{}}))
	ctx := t.Context()
	_, err := c.Version(ctx)
	if !errors.Is(err, &api.Error{Code: api.Internal}) || !strings.Contains(err.Error(), "a fault in the daemon") {
		t.Errorf("panic: %v", err)
	}
	_, err = c.Health(ctx)
	if !errors.Is(err, &api.Error{Code: api.Internal}) || !strings.Contains(err.Error(), "state of the scanner: disk on fire") {
		t.Errorf("error: %v", err)
	}
	_, err = c.HealthDetails(ctx, "a/../b c")
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.NotFound || e.Hint != "look" || e.Message != "details: no a/../b c" {
		t.Errorf("wrapped: %v", err)
	}
	_, err = c.Threats(ctx)
	if !errors.Is(err, &api.Error{Code: api.Unavailable}) {
		t.Errorf("absent part: %v", err)
	}
	if _, err := client(t, filepath.Join(t.TempDir(), "none")).Health(ctx); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("no socket: %v", err)
	}
}

// raw sends a request as it is and returns the status line and the body.
func raw(t testing.TB, socket, request string) (string, string) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(context.Background(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	go io.WriteString(c, request) // the server may close before it has read all
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.Status, err.Error()
	}
	return resp.Status, string(body)
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func TestHostileRequests(t *testing.T) {
	socket := serve(t, Services{Log: &fakeLog{}, Scans: noScans{}, Quarantine: noQuarantine{}})
	long := strings.Repeat("x", api.MaxRequestBytes+1)
	for _, tt := range []struct{ name, request, status, body string }{
		{"unknown path", "GET /v9/x HTTP/1.1\r\nHost: x\r\n\r\n", "404", "the API has no GET /v9/x"},
		{"wrong method", "DELETE /v1/log/level HTTP/1.1\r\nHost: x\r\n\r\n", "404", "the API has no DELETE"},
		{"no HTTP", "hello\r\n\r\n", "400", ""},
		{"no JSON", post("/v1/log/level", "{"), "400", "not as the API wants it"},
		{"unknown member", post("/v1/log/level", `{"level": "info", "x": 1}`), "400", `unknown field \"x\"`},
		{"wrong type", post("/v1/log/level", `{"level": 1}`), "400", "not as the API wants it"},
		{"something behind", post("/v1/log/level", `{} {}`), "400", "something after"},
		{"deep", post("/v1/log/level", strings.Repeat("[", 100_000)), "400", ""},
		{"too large", post("/v1/log/level", `"`+long+`"`), "413", "larger than 1048576 bytes"},
		{"scan type", post("/v1/scans", `{"type": "x"}`), "400", "want quick, full, custom or processes"},
		{"no path", post("/v1/scans", `{"type": "custom"}`), "400", "needs a path"},
		{"paths", post("/v1/scans", `{"type": "full", "paths": ["/a"]}`), "400", "takes no paths"},
		{"relative", post("/v1/scans", `{"type": "custom", "paths": ["a"]}`), "400", "is not absolute"},
		{"NUL", post("/v1/scans", `{"type": "custom", "paths": ["/a\u0000"]}`), "400", "NUL"},
		{"long path", post("/v1/scans", `{"type": "custom", "paths": ["/`+strings.Repeat("a", 5000)+`"]}`), "413", "5001 bytes"},
		{"many paths", post("/v1/scans", `{"type": "custom", "paths": [`+strings.Repeat(`"/a",`, 1000)+`"/a"]}`), "413", "at most 1000"},
		{"bad base64", post("/v1/scans", `{"type": "custom", "paths": [{"base64": "!"}]}`), "400", "want a string or"},
		{"restore both", post("/v1/quarantine/restore", `{"id": "a", "path": "/b"}`), "400", "one of them"},
		{"restore relative", post("/v1/quarantine/restore", `{"id": "a", "destination": "b"}`), "400", "not absolute"},
		{"no id", post("/v1/quarantine/remove", `{}`), "400", "want the id or the path"},
	} {
		status, body := raw(t, socket, tt.request)
		if !strings.HasPrefix(status, tt.status) || !strings.Contains(body, tt.body) {
			t.Errorf("%s: %s: %s", tt.name, status, body)
		}
	}
	if status, body := raw(t, socket, post("/v1/log/level", "")); !strings.HasPrefix(status, "200") {
		t.Errorf("the server does not work any more: %s %s", status, body)
	}
}

// noScans and noQuarantine must never be reached by the requests above.
type (
	noScans      struct{ Scans }
	noQuarantine struct{ Quarantine }
)

func TestFiftyClients(t *testing.T) {
	events := &fakeEvents{size: 100, stopped: make(chan error, 100)}
	socket := serve(t, Services{Log: &fakeLog{level: "info"}, Events: events})
	var wg sync.WaitGroup
	enough := errors.New("enough")
	for range 50 {
		wg.Go(func() {
			c := api.Dial(socket)
			defer c.Close()
			for range 20 {
				if _, err := c.LogLevel(t.Context()); err != nil {
					t.Error(err)
				}
			}
			n := 0
			err := c.FollowEvents(t.Context(), func(e api.AgentEvent) error {
				if n++; n == 100 {
					return enough
				}
				return nil
			})
			if !errors.Is(err, enough) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for range 50 {
		select {
		case <-events.stopped:
		case <-time.After(2 * time.Minute):
			t.Fatal("a stream goes on although its client has gone")
		}
	}
}

// A client that does not read what it asked for is given up.
func TestStalledClient(t *testing.T) {
	events := &fakeEvents{size: 10_000, stopped: make(chan error, 1)}
	s := New(Services{Events: events}, slog.New(slog.DiscardHandler))
	s.writeTimeout = 200 * time.Millisecond
	c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", serveWith(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-events.stopped:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the stream ends with %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("a client that does not read holds the stream")
	}
	if events.sent.Load() == 0 {
		t.Error("nothing was sent")
	}
}

func TestAdministratorsAreNotLockedOut(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- New(Services{Log: &fakeLog{level: "info"}}, slog.New(slog.DiscardHandler)).Serve(ctx, l)
	}()
	limit := maxUserConnections
	if os.Geteuid() == 0 {
		limit = maxConnections
	}
	var open []net.Conn
	for range limit {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	c := client(t, socket)
	if _, err := c.LogLevel(ctx); !errors.Is(err, &api.Error{Code: api.Busy}) {
		t.Errorf("one too many: %v", err)
	}
	open[0].Close()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		_, err := c.LogLevel(ctx)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a free place is not given away: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, c := range open {
		c.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStreamEndsWithTheDaemon(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	events := &fakeEvents{stopped: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- New(Services{Events: events}, slog.New(slog.DiscardHandler)).Serve(ctx, l)
	}()
	first := true
	err = client(t, filepath.Join(dir, "s")).FollowEvents(t.Context(), func(api.AgentEvent) error {
		if first {
			first = false
			cancel()
		}
		return nil
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err != nil && !errors.Is(err, &api.Error{Code: api.Internal}) && !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("the client gets %v", err)
	}
}

func TestListen(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "run", "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := Listen(socket); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon: %v", err)
	}
	// A daemon that was killed leaves its socket.
	l.(*peerListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = Listen(socket); err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	l.Close()
	if err := os.WriteFile(socket, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(socket); err == nil {
		t.Error("a file is replaced")
	}
	if data, err := os.ReadFile(socket); err != nil || string(data) != "data" {
		t.Errorf("the file is damaged: %q, %v", data, err)
	}
}

func TestUnlicensed(t *testing.T) {
	licensed := atomic.Bool{}
	c := client(t, serve(t, Services{Log: &fakeLog{}, Licensed: licensed.Load}))
	calls := 0
	c.OnUnlicensed = func() { calls++ }
	for range 3 {
		if _, err := c.LogLevel(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 1 {
		t.Errorf("%d warnings", calls)
	}
	licensed.Store(true)
	again := client(t, "")
	again.OnUnlicensed = func() { calls++ }
	if calls != 1 {
		t.Errorf("%d warnings when licensed", calls)
	}
}

// FuzzRequests sends bodies to every call that takes one; the parts behind are
// real enough to be reached.
func FuzzRequests(f *testing.F) {
	paths := []string{"/v1/scans", "/v1/quarantine/restore", "/v1/threats/allowed/add", "/v1/exclusions/test", "/v1/log/level", "/v1/config/set"}
	f.Add(uint8(0), []byte(`{"type": "custom", "paths": ["/a", {"base64": "L2E="}]}`))
	f.Add(uint8(1), []byte(`{"id": "a", "destination": "/b/../c"}`))
	f.Add(uint8(2), []byte(`{"name": "x"}`))
	f.Add(uint8(4), []byte(`{"level": "\ud800"}`))
	s := New(Services{Log: &fakeLog{}, Scans: echoScans{}, Quarantine: echoQuarantine{}}, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		r, err := http.NewRequestWithContext(context.WithValue(context.Background(), callerKey{}, Caller{known: true}),
			"POST", "http://x"+paths[int(which)%len(paths)], bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		w := &recorder{header: http.Header{}}
		s.recover(s.mux).ServeHTTP(w, r)
		if !json.Valid(w.body.Bytes()) {
			t.Fatalf("answer %q", w.body.String())
		}
		if strings.Contains(w.body.String(), "a fault in the daemon") {
			t.Fatalf("panic for %q", body)
		}
	})
}

// recorder is a ResponseWriter with deadlines that do nothing.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header              { return r.header }
func (r *recorder) Write(p []byte) (int, error)      { return r.body.Write(p) }
func (r *recorder) WriteHeader(int)                  {}
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

type echoScans struct{ Scans }

func (echoScans) StartScan(_ context.Context, r api.ScanRequest) (api.Scan, error) {
	for _, p := range r.Paths {
		if !filepath.IsAbs(string(p)) || strings.ContainsRune(string(p), 0) {
			panic("path " + p)
		}
	}
	return api.Scan{Type: r.Type, Paths: r.Paths}, nil
}

type echoQuarantine struct{ Quarantine }

func (echoQuarantine) RestoreFromQuarantine(_ context.Context, r api.RestoreRequest) (api.Restored, error) {
	if r.Destination != "" && !filepath.IsAbs(string(r.Destination)) {
		panic("destination " + r.Destination)
	}
	return api.Restored{ID: r.ID, Path: r.Path}, nil
}
