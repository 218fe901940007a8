// Package portal is the server: it puts the stores, the certificate authority,
// the agent protocol, the REST API and the pages together behind one TLS
// listener.
package portal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/api/release"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/archive"
	"github.com/bulwarkhq/bulwark/portal/definitions"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/export"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/identity"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/pki"
	"github.com/bulwarkhq/bulwark/portal/repository"
	"github.com/bulwarkhq/bulwark/portal/rest"
	"github.com/bulwarkhq/bulwark/portal/sample"
	"github.com/bulwarkhq/bulwark/portal/seal"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
	"github.com/bulwarkhq/bulwark/portal/silence"
	"github.com/bulwarkhq/bulwark/portal/status"
	"github.com/bulwarkhq/bulwark/portal/web"
)

// Control is the store of control data; portal/store/sqlstore implements it.
type Control interface {
	Organisation(ctx context.Context, newID func() string) (id, name string, err error)
	Enroll() enroll.Store
	Inventory() inventory.Store
	Alerts() alert.Store
	Accounts() account.Store
	Commands() ingest.Commands
	Hunting() hunting.Library
	Actions() action.Store
	Fleet() fleet.Store
	Indicators() indicator.Store
	Detections() detection.Store
	Incidents() incident.Store
	Exports() export.Store
	// Inspect says what it is and how it fares.
	Inspect(ctx context.Context) (status.Control, error)
}

// Events is what the portal needs of the event store.
type Events interface {
	eventstore.Store
	hunting.Store
}

// Maintainer is an event store that needs regular maintenance.
type Maintainer interface {
	Maintain(ctx context.Context) error
}

// Config of a Portal. The stores stay the caller's: it closes them after Serve
// returned.
type Config struct {
	Control Control
	Events  Events
	CA      *pki.Authority
	// Definitions publishes definitions; nil for a portal without.
	Definitions *definitions.Publisher
	// Packages publishes the product's packages; nil for a portal without.
	Packages *repository.Publisher
	// Archive copies closed days of events elsewhere; nil for a portal without.
	Archive *archive.Service
	// URL is the address under which agents reach the portal, https://host[:port].
	URL     string
	Version string
	// CheckInInterval is what agents are told; zero for the default of package
	// ingest.
	CheckInInterval time.Duration
	// EventsPerMinute is how many events a device may deliver in the long run; zero
	// for no limit.
	EventsPerMinute int
	Thresholds      inventory.Thresholds // zero for the defaults
	HashCost        account.HashCost     // zero for the default
	// FilesDir is the folder for what devices send for actions and for the
	// library of live response, and for the keys of the secrets of exports and of
	// second factors; empty for a portal without.
	FilesDir string
	// SecondFactor are the roles whose accounts must have a second factor.
	SecondFactor []access.Role
	// Provider is the identity provider; nil for none. LocalOff makes it the only
	// way to sign in.
	Provider *identity.Provider
	LocalOff bool
	// Listen and MetricsListen are the addresses that administrators are told, Options
	// what the program was told by which option.
	Listen, MetricsListen string
	Options               []status.Option
	Logger                *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Portal is a portal that is ready to serve.
type Portal struct {
	cfg       Config
	log       *slog.Logger
	handler   http.Handler
	metrics   *metrics
	accounts  *account.Service
	alerts    *alert.Service
	inventory *inventory.Service
	enroll    *enroll.Service
	ingest    *ingest.Service
	api       *rest.API
	site      *web.Site
	hunter    *hunting.Hunter
	actions   *action.Service
	files     *action.Files
	fleet     *fleet.Service
	samples   *sample.Store // nil without
	// indicators are the organisation's.
	indicators *indicator.Service
	detection  *detection.Service
	incidents  *incident.Service
	silence    *silence.Watch
	exports    *export.Service // nil without
	sink       *sink
	status     *status.Service
}

// New puts a portal together.
func New(ctx context.Context, cfg Config) (*Portal, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Thresholds == (inventory.Thresholds{}) {
		cfg.Thresholds = inventory.DefaultThresholds()
	}
	if cfg.HashCost == (account.HashCost{}) {
		cfg.HashCost = account.DefaultHashCost()
	}
	u, err := checkURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	org, _, err := cfg.Control.Organisation(ctx, NewOrganisationID)
	if err != nil {
		return nil, err
	}
	p := &Portal{cfg: cfg, log: cfg.Logger, metrics: newMetrics()}
	signIn := account.Options{SecondFactor: cfg.SecondFactor, LocalOff: cfg.LocalOff}
	if cfg.Provider != nil {
		signIn.Issuer, signIn.ProviderGroups = cfg.Provider.Issuer(), cfg.Provider.DecidesDevices()
	} else if cfg.LocalOff {
		return nil, errors.New("without local accounts and without an identity provider nobody could sign in")
	}
	if cfg.FilesDir != "" {
		if signIn.Key, err = seal.OpenKey(filepath.Join(cfg.FilesDir, "account.key")); err != nil {
			return nil, fmt.Errorf("key of the second factors: %w", err)
		}
	} else if len(cfg.SecondFactor) > 0 {
		return nil, errors.New("second factors are required, and there is no folder for the key of their secrets")
	}
	if signIn.Keys, err = securitykey.New(cfg.URL); errors.Is(err, securitykey.ErrNoName) {
		cfg.Logger.InfoContext(ctx, "no security keys as a second factor", "reason", err, "url", cfg.URL)
	} else if err != nil {
		return nil, err
	}
	p.accounts = account.New(cfg.Control.Accounts(), cfg.HashCost, cfg.Now, signIn)
	p.alerts = alert.NewService(cfg.Control.Alerts(), cfg.Now)
	p.incidents = incident.New(cfg.Control.Incidents(), p.alerts, cfg.Now)
	p.inventory = inventory.New(cfg.Control.Inventory(), cfg.Thresholds, cfg.Now)
	p.silence = silence.New(silence.Config{Devices: p.inventory, Alerts: p.alerts, After: cfg.Thresholds.ImpairedAfter, Log: cfg.Logger, Now: cfg.Now})
	var root func() ([]byte, error)
	if cfg.Definitions != nil {
		root = cfg.Definitions.Root
	}
	p.enroll = enroll.New(enroll.Config{Store: cfg.Control.Enroll(), CA: cfg.CA, OrgID: org, PortalURL: cfg.URL, Version: cfg.Version, DefinitionsRoot: root, Log: cfg.Logger, Now: cfg.Now})
	var files ingest.Files
	var taken ingest.Samples
	if cfg.FilesDir != "" {
		if p.files, err = action.NewFiles(cfg.FilesDir, cfg.Control.Actions(), cfg.Now); err != nil {
			return nil, err
		}
		files = transfers{p.files}
		if p.samples, err = sample.Open(filepath.Join(cfg.FilesDir, "samples"), cfg.Now); err != nil {
			return nil, err
		}
		taken = samples{p.samples, p.alerts}
		key, err := export.OpenKey(filepath.Join(cfg.FilesDir, "export.key"))
		if err != nil {
			return nil, err
		}
		p.exports = export.New(export.Config{Store: cfg.Control.Exports(), Key: key, URL: strings.TrimSuffix(cfg.URL, "/"), Version: cfg.Version, Logger: cfg.Logger, Now: cfg.Now})
		p.metrics.registry.MustRegister(newExportGauges(p.exports))
	}
	p.metrics.registry.MustRegister(newGauges(p.inventory, cfg.Events))
	if cfg.Archive != nil {
		p.metrics.registry.MustRegister(newArchiveGauges(cfg.Archive))
	}
	p.fleet = fleet.New(cfg.Control.Fleet(), p.inventory, cfg.Now)
	sink := newSink(cfg.Events, p.alerts, p.inventory, cfg.Logger, p.metrics)
	p.indicators = indicator.New(cfg.Control.Indicators(), p.fleet, cfg.Now)
	sink.fleet, sink.indicators = p.fleet, p.indicators
	p.sink = sink
	if p.ingest, err = ingest.New(ingest.Config{
		Authenticator: enroll.NewAuthenticator(cfg.Control.Enroll(), cfg.CA, cfg.Now),
		Sink:          sink,
		Commands:      cfg.Control.Commands(), Files: files, Samples: taken, Indicators: indicatorLists{p.fleet, p.indicators}, CheckInInterval: cfg.CheckInInterval, EventsPerMinute: cfg.EventsPerMinute, Log: cfg.Logger, Now: cfg.Now,
	}); err != nil {
		return nil, err
	}
	p.actions = action.NewService(cfg.Control.Actions(), p.inventory, cfg.Now)
	p.hunter = hunting.New(cfg.Events, cfg.Now, huntable(p.alerts, p.inventory)...)
	p.hunter.Limit(devicesOf(p.inventory))
	events := scoped{cfg.Events, p.inventory}
	p.detection = detection.New(detection.Config{
		Store: cfg.Control.Detections(), Hunter: p.hunter, Alerts: p.alerts, Devices: p.inventory, Actions: p.actions, Logger: cfg.Logger, Now: cfg.Now, Observe: p.metrics.observeRun,
	})
	p.metrics.registry.MustRegister(newRefusedCounters(p.ingest))
	p.status = status.New(p.sources(cfg.Now()))
	p.api = rest.New(rest.Config{Status: p.status, Exports: p.exports, Rules: rules.FS(), Receipts: events.Receipts, Indicators: p.indicators, Incidents: p.incidents, Fleet: p.fleet, Packages: p.enroll, PackageTokens: cfg.Control.Enroll(), Detections: p.detection, Inventory: p.inventory, Alerts: p.alerts, Accounts: p.accounts, Hunter: p.hunter, Actions: p.actions, Files: p.files, Logger: cfg.Logger, Now: cfg.Now})
	if p.site, err = web.New(web.Config{
		Status:    p.status,
		Inventory: p.inventory, Alerts: p.alerts, Accounts: p.accounts, Events: events, Onboarding: p.enroll,
		Hunter: p.hunter, Actions: p.actions, Files: p.files, Fleet: p.fleet, Samples: p.samples, Exports: p.exports, Detections: p.detection, Rules: rules.FS(), Indicators: p.indicators, Incidents: p.incidents, Host: u.Hostname(), Provider: cfg.Provider, Queries: cfg.Control.Hunting(), Tokens: cfg.Control.Enroll(), Version: cfg.Version, Logger: cfg.Logger, Now: cfg.Now,
	}); err != nil {
		return nil, err
	}
	p.handler = p.mount()
	return p, nil
}

// NewOrganisationID returns a new organisation's id: 32 hex digits.
func NewOrganisationID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || (u.Path != "" && u.Path != "/") {
		return nil, fmt.Errorf("the portal's address %q is not of the form https://host[:port]", text)
	}
	return u, nil
}

// Accounts are the portal's accounts, for offline commands and tests.
func (p *Portal) Accounts() *account.Service { return p.accounts }

// Enrollment makes onboarding packages.
func (p *Portal) Enrollment() *enroll.Service { return p.enroll }

// Handler serves everything that the TLS listener serves. Requests must come
// with the TLS state of a listener with the configuration of Config.CA.
func (p *Portal) Handler() http.Handler { return p.handler }

func (p *Portal) mount() http.Handler {
	mux := http.NewServeMux()
	path, h := p.enroll.Handler()
	mux.Handle(path, p.observed("enroll", limitBody(h, 256<<10)))
	path, h = p.ingest.Handler()
	mux.Handle(path, p.observed("agent", h))
	if p.cfg.Definitions != nil {
		mux.Handle(release.Path, p.observed("definitions", p.cfg.Definitions.Handler()))
	}
	if p.cfg.Packages != nil {
		mux.Handle(repository.Path, p.observed("packages", p.cfg.Packages.Handler()))
	}
	mux.Handle("/api/", p.observed("api", deadline(p.api)))
	mux.Handle("/", p.observed("web", deadline(p.site)))
	return mux
}

// pageTime is how long a request of a person or program may take.
const pageTime = 30 * time.Second

// transferTime is how long a file may take that somebody fetches or uploads.
const transferTime = 30 * time.Minute

// timeOf is the time for a request: hunting takes longer than everything else.
func timeOf(path string) time.Duration {
	if rest, ok := strings.CutPrefix(path, "/api/v1.0/"); ok {
		path = "/api/" + rest
	}
	switch path {
	case "/hunting/run", "/hunting/export", "/api/advancedqueries/run", "/api/advancedqueries/export", "/api/advancedhunting/run":
		return huntTime + pageTime
	}
	if strings.HasPrefix(path, "/detections/custom/") && (strings.HasSuffix(path, "/test") || strings.HasSuffix(path, "/run")) {
		return 3*detection.Timeout + pageTime
	}
	if strings.HasSuffix(path, "/package") || strings.HasSuffix(path, "/sample") || strings.HasPrefix(path, "/library") || path == "/indicators/import" || path == "/indicators/export" {
		return transferTime
	}
	return pageTime
}

// deadline bounds requests that are not streams of agents.
func deadline(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := time.Now().Add(timeOf(r.URL.Path))
		rc := http.NewResponseController(w)
		// Not every server can set deadlines; then its own hold.
		_ = errors.Join(rc.SetReadDeadline(at), rc.SetWriteDeadline(at.Add(pageTime)))
		ctx, cancel := context.WithDeadline(r.Context(), at)
		defer cancel()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

func limitBody(h http.Handler, limit int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		h.ServeHTTP(w, r)
	})
}

// observed counts requests and keeps a panic to its request.
func (p *Portal) observed(part string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler { //nolint:errorlint // recover returns any
				p.log.ErrorContext(r.Context(), "a request panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if rec.status == 0 {
					http.Error(rec, "the portal failed; its log says why", http.StatusInternalServerError)
				}
			}
			status := rec.status
			if status == 0 {
				status = http.StatusOK
			}
			p.metrics.requests.WithLabelValues(part, strconv.Itoa(status)).Observe(time.Since(start).Seconds())
			p.log.DebugContext(r.Context(), "request", "part", part, "method", r.Method, "path", r.URL.Path, "status", status, "from", r.RemoteAddr, "took", time.Since(start))
		}()
		h.ServeHTTP(rec, r)
	})
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader remembers the first status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Flush is for streams.
func (r *recorder) Flush() {
	if f, ok := r.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// shutdownTime is how long requests may finish when the portal stops.
const shutdownTime = 10 * time.Second

// Serve answers on the listener, and metrics on metricsListener when that is
// not nil, until ctx ends; then it lets requests finish. It closes both
// listeners.
func (p *Portal) Serve(ctx context.Context, listener, metricsListener net.Listener) error {
	errorLog := slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)
	server := &http.Server{
		Handler: p.handler, TLSConfig: p.cfg.CA.TLSConfig(), ErrorLog: errorLog,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, WriteTimeout: 2 * time.Minute, IdleTimeout: 5 * time.Minute,
		MaxHeaderBytes: 32 << 10,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: 100, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: time.Minute},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2)
	fail := func(err error) {
		failed <- err
		cancel()
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.maintain(ctx) })
	wg.Go(func() { p.detection.Loop(ctx) })
	if p.exports != nil {
		wg.Go(func() { p.exports.Loop(ctx) })
	}
	if p.cfg.Archive != nil {
		wg.Go(func() { p.cfg.Archive.Loop(ctx) })
	}
	wg.Go(func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fail(fmt.Errorf("serving on %s: %w", listener.Addr(), err))
		}
	})
	var side *http.Server
	if metricsListener != nil {
		side = &http.Server{
			Handler: p.metrics.handler(), ErrorLog: errorLog, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
			WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		}
		wg.Go(func() {
			if err := side.Serve(metricsListener); !errors.Is(err, http.ErrServerClosed) {
				fail(fmt.Errorf("serving metrics on %s: %w", metricsListener.Addr(), err))
			}
		})
	}
	<-ctx.Done()
	p.ingest.Close() // ends the agents' streams
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer done()
	err := server.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		p.log.Warn("some requests did not finish in time and were cut off")
		err = server.Close()
	}
	if side != nil {
		err = errors.Join(err, side.Close())
	}
	wg.Wait()
	close(failed)
	for f := range failed {
		err = errors.Join(f, err)
	}
	return err
}

// maintainEvery is how often the stores are looked after.
const maintainEvery = 5 * time.Minute

// maintain looks after the stores until ctx ends.
func (p *Portal) maintain(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		p.maintainOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Portal) maintainOnce(ctx context.Context) {
	defer func() {
		if v := recover(); v != nil {
			p.log.ErrorContext(ctx, "the maintenance panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	for _, job := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"sessions", func(ctx context.Context) error { _, err := p.accounts.Sweep(ctx); return err }},
		{"self-test alerts", func(ctx context.Context) error { _, err := p.alerts.Sweep(ctx); return err }},
		{"indicators", func(ctx context.Context) error { _, err := p.indicators.Sweep(ctx); return err }},
		{"incidents", p.incidents.Sweep},
		{"silent devices", p.silence.Sweep},
		{"device groups", p.fleet.Regroup},
		{"files of actions", func(ctx context.Context) error {
			if p.files == nil {
				return nil
			}
			return p.files.Sweep(ctx)
		}},
		{"samples", func(ctx context.Context) error {
			if p.samples == nil {
				return nil
			}
			return p.samples.Sweep(ctx)
		}},
		{"definitions", func(context.Context) error {
			if p.cfg.Definitions == nil {
				return nil
			}
			return p.cfg.Definitions.Renew()
		}},
		{"packages", func(ctx context.Context) error {
			if p.cfg.Packages == nil {
				return nil
			}
			return p.cfg.Packages.Renew(ctx)
		}},
		{"events", func(ctx context.Context) error {
			if m, ok := p.cfg.Events.(Maintainer); ok {
				return m.Maintain(ctx)
			}
			return nil
		}},
	} {
		if err := job.run(ctx); err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "maintenance failed; it is tried again", "of", job.name, "error", err)
		}
	}
}

// Names splits a list of host names and addresses at commas and checks it.
func Names(list string) ([]string, error) {
	var out []string
	for n := range strings.SplitSeq(list, ",") {
		n = strings.TrimSpace(n)
		if n == "" {
			continue
		}
		if strings.ContainsAny(n, "/: \t") && net.ParseIP(n) == nil {
			return nil, fmt.Errorf("%q is neither a host name nor an IP address (no scheme, no port)", n)
		}
		out = append(out, n)
	}
	if len(out) == 0 {
		return nil, errors.New("no host name given")
	}
	return out, nil
}
