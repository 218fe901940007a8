// Package testportal runs the portal's real enrollment and ingest services
// behind a real HTTPS server on loopback, over stores in memory, for tests of
// the agent (which must not import the portal).
package testportal

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/enroll/enrolltest"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/ingest/ingesttest"
	"github.com/bulwarkhq/bulwark/portal/pki"
	"github.com/bulwarkhq/bulwark/test/loopback"
)

// Portal is a running portal. The stores survive Stop and Start.
type Portal struct {
	Address  string // host:port
	URL      string
	CA       *pki.Authority
	Store    *enrolltest.Memory
	Sink     *ingesttest.Memory
	Commands *Commands
	Enroll   *enroll.Service
	Auth     *enroll.Authenticator
	// CheckIn is the interval that agents are told; set it before Start.
	CheckIn time.Duration
	// Wrap, when set, is put around the whole handler; set it before Start.
	Wrap func(http.Handler) http.Handler
	Log  *slog.Logger

	t      testing.TB
	mu     sync.Mutex
	server *http.Server
	ingest *ingest.Service
	done   chan struct{}
}

// New prepares a portal; Start starts it. The port is fixed from now on.
func New(t testing.TB) *Portal {
	t.Helper()
	addr, err := loopback.Address()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ca, err := pki.Open(t.TempDir(), pki.Options{Names: []string{"127.0.0.1", "localhost", "portal.test"}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	p := &Portal{
		Address: addr, URL: "https://" + addr, CA: ca, Store: enrolltest.NewMemory(), Sink: ingesttest.NewMemory(),
		Commands: NewCommands(), CheckIn: time.Second, Log: log, t: t,
	}
	p.Enroll = enroll.New(enroll.Config{Store: p.Store, CA: ca, OrgID: "test-org", PortalURL: p.URL, Version: "test", Log: log})
	p.Auth = enroll.NewAuthenticator(p.Store, ca, nil)
	t.Cleanup(p.Stop)
	return p
}

// Start starts the server.
func (p *Portal) Start() {
	p.t.Helper()
	svc, err := ingest.New(ingest.Config{Authenticator: p.Auth, Sink: p.Sink, Commands: p.Commands, CheckInInterval: p.CheckIn, Log: p.Log})
	if err != nil {
		p.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(p.Enroll.Handler())
	mux.Handle(svc.Handler())
	var h http.Handler = mux
	if p.Wrap != nil {
		h = p.Wrap(mux)
	}
	var l net.Listener
	for range 100 { // the port may be in use by a connection that is closing
		if l, err = net.Listen("tcp", p.Address); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	srv := &http.Server{Handler: h, TLSConfig: p.CA.TLSConfig(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.ServeTLS(l, "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.Log.Error("test portal", "error", err)
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server, p.ingest, p.done = srv, svc, done
}

// Stop stops the server hard: connections are cut.
func (p *Portal) Stop() {
	p.mu.Lock()
	srv, svc, done := p.server, p.ingest, p.done
	p.server = nil
	p.mu.Unlock()
	if srv == nil {
		return
	}
	svc.Close()
	if err := srv.Close(); err != nil {
		p.t.Logf("test portal: %v", err)
	}
	<-done
}

// Package makes an onboarding package.
func (p *Portal) Package(spec enroll.PackageSpec) []byte {
	p.t.Helper()
	_, text, err := p.Enroll.NewPackage(context.Background(), spec)
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// Commands is an ingest.Commands in memory.
type Commands struct {
	mu       sync.Mutex
	pending  map[string][]ingest.Command
	owner    map[string]string
	watchers map[string][]chan struct{}
	reports  []ingest.Completion
}

// NewCommands returns an empty queue.
func NewCommands() *Commands {
	return &Commands{pending: map[string][]ingest.Command{}, owner: map[string]string{}, watchers: map[string][]chan struct{}{}}
}

// Order puts a command into a device's queue.
func (c *Commands) Order(deviceID string, cmd ingest.Command) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[deviceID] = append(c.pending[deviceID], cmd)
	c.owner[cmd.ID] = deviceID
	for _, w := range c.watchers[deviceID] {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// Reports returns everything that devices reported.
func (c *Commands) Reports() []ingest.Completion {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.reports)
}

// Pending implements ingest.Commands.
func (c *Commands) Pending(_ context.Context, deviceID string) ([]ingest.Command, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.pending[deviceID]), nil
}

// Watch implements ingest.Commands.
func (c *Commands) Watch(deviceID string) (<-chan struct{}, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := make(chan struct{}, 1)
	c.watchers[deviceID] = append(c.watchers[deviceID], w)
	return w, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.watchers[deviceID] = slices.DeleteFunc(c.watchers[deviceID], func(o chan struct{}) bool { return o == w })
	}
}

// Complete implements ingest.Commands.
func (c *Commands) Complete(_ context.Context, deviceID string, x ingest.Completion) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner[x.ID] != deviceID {
		return ingest.ErrUnknownCommand
	}
	c.pending[deviceID] = slices.DeleteFunc(c.pending[deviceID], func(p ingest.Command) bool { return p.ID == x.ID })
	c.reports = append(c.reports, x)
	return nil
}

// The following spare tests of the agent the portal's types.

// NewPackage makes an onboarding package that is good for a time and a number
// of devices (0: any).
func (p *Portal) NewPackage(validity time.Duration, maxUses int64) []byte {
	p.t.Helper()
	return p.Package(enroll.PackageSpec{Validity: validity, MaxUses: maxUses, Tags: []enroll.Tag{{Key: "GROUP", Value: "test"}}})
}

// NamedPackage makes a package for https://portal.test, a name that nothing
// resolves: only a proxy that knows better leads there.
func (p *Portal) NamedPackage() []byte {
	p.t.Helper()
	svc := enroll.New(enroll.Config{Store: p.Store, CA: p.CA, OrgID: "test-org", PortalURL: "https://portal.test", Log: p.Log})
	_, text, err := svc.NewPackage(context.Background(), enroll.PackageSpec{Validity: time.Hour})
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// ExpiredPackage makes a signed package that is out of date.
func (p *Portal) ExpiredPackage() []byte {
	p.t.Helper()
	past := time.Now().Add(-48 * time.Hour)
	svc := enroll.New(enroll.Config{Store: p.Store, CA: p.CA, OrgID: "test-org", PortalURL: p.URL, Log: p.Log, Now: func() time.Time { return past }})
	_, text, err := svc.NewPackage(context.Background(), enroll.PackageSpec{Validity: time.Hour})
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// RevokeTokens revokes every token.
func (p *Portal) RevokeTokens() {
	p.t.Helper()
	ctx := context.Background()
	list, err := p.Store.Tokens(ctx)
	for _, t := range list {
		err = errors.Join(err, p.Store.RevokeToken(ctx, t.ID, time.Now()))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// Policy sets the policy that devices are to have.
func (p *Portal) Policy(version string, json []byte) {
	p.Sink.Reply(ingest.CheckInReply{Policy: json, PolicyVersion: version})
}

// ErrBusy is what a store says that has too much to do: the agent comes again.
var ErrBusy = ingest.ErrBusy

// OnStore calls fn in front of each stored batch; its error is the store's.
func (p *Portal) OnStore(fn func() error) {
	p.Sink.Fail(func(*ingest.Batch) error { return fn() })
}

// Order orders a command.
func (p *Portal) Order(deviceID, id, kind string) {
	p.Commands.Order(deviceID, ingest.Command{ID: id, Type: kind, Parameters: []byte(`{}`), Expires: time.Now().Add(time.Hour)})
}

// Impostor returns the TLS configuration of another portal with the same
// address.
func (p *Portal) Impostor() *tls.Config {
	p.t.Helper()
	ca, err := pki.Open(p.t.TempDir(), pki.Options{Names: []string{"127.0.0.1", "localhost"}, Organization: "Interceptor Ltd"})
	if err != nil {
		p.t.Fatal(err)
	}
	return ca.TLSConfig()
}
