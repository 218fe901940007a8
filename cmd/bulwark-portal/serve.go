package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/portal"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/pki"
	"github.com/bulwarkhq/bulwark/portal/status"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

type serveOptions struct {
	listen, metricsListen, hostName, portalURL, logLevel, logFormat, secondFactor, eventStore string
	retention, checkIn                                                                        days
	eventMemory, eventDisk, eventsPerMinute                                                   int
	definitionsEvery                                                                          days
	publisher                                                                                 publisherOptions
	repository                                                                                repositoryOptions
	signIn                                                                                    providerOptions
	archive                                                                                   archiveOptions

	// shown are the options as administrators are told them.
	shown []status.Option

	database string // a connection string; empty for the file in the data folder
}

func serveCommand() *cobra.Command {
	o := serveOptions{retention: days(30 * 24 * time.Hour), definitionsEvery: days(4 * time.Hour), checkIn: days(5 * time.Minute)}
	c := &cobra.Command{
		Use: "serve", Short: "Run the portal", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := dataDir(cmd)
			if err != nil {
				return err
			}
			log, err := newLogger(cmd, o.logLevel, o.logFormat)
			if err != nil {
				return err
			}
			if o.database, err = controlDatabase(cmd, dir, false); err != nil {
				return err
			}
			o.shown = shownOptions(cmd.Flags())
			return serve(cmd.Context(), dir, o, log)
		},
	}
	f := c.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8443", "address and port for agents, browsers and programs")
	f.StringVar(&o.metricsListen, "metrics-listen", "off", "loopback address and port of /metrics for Prometheus, or off")
	f.StringVar(&o.hostName, "host-name", "localhost,127.0.0.1", "host names and addresses of the portal, separated by commas; the first is the main one")
	f.StringVar(&o.portalURL, "portal-url", "", "address under which agents and browsers reach the portal, and by which security keys and the identity provider know it (default: the first host name and the port)")
	f.Var(&o.retention, "retention", "how long events are kept")
	f.Var(&o.checkIn, "check-in-interval", "how often agents report")
	f.Var(&o.definitionsEvery, "definitions-interval", "how often a release of definitions is built from definitions/sources in the data folder; 0 for never")
	o.publisher.flags(c)
	o.repository.flags(c)
	o.signIn.flags(c)
	o.archive.flags(c)
	f.IntVar(&o.eventsPerMinute, "device-events-per-minute", 300_000, "how many events a device may deliver in the long run, after an hour's worth at once; 0 for no limit")
	f.IntVar(&o.eventMemory, "event-memory", 1024, "memory limit of the event store in MiB")
	f.IntVar(&o.eventDisk, "event-disk", 0, "how large the embedded event store may become in MiB: beyond it the oldest hours go; 0 for no limit but the retention")
	f.StringVar(&o.eventStore, "event-store", embedded, "where events are kept: embedded, or clickhouse://[USER[:PASSWORD]@]HOST[:PORT][,HOST...]/DATABASE[?cluster=NAME&secure=true&max_bytes=N&password_file=PATH]")
	f.StringVar(&o.secondFactor, "require-second-factor", "none", "roles whose accounts must have a second factor, separated by commas; all or none")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	return c
}

func newLogger(cmd *cobra.Command, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usage("log level %q: use debug, info, warn or error", level)
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l})), nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l})), nil
	}
	return nil, usage("log format %q: use text or json", format)
}

func serve(ctx context.Context, dir string, o serveOptions, log *slog.Logger) (err error) {
	start := time.Now()
	hosts, err := portal.Names(o.hostName)
	if err != nil {
		return usage("--host-name: %w", err)
	}
	if o.eventMemory < 64 {
		return usage("--event-memory: at least 64 MiB are needed")
	}
	required, err := account.ParseRequired(o.secondFactor)
	if err != nil {
		return usage("--require-second-factor: %w", err)
	}
	if err := checkEventStore(o); err != nil {
		return err
	}
	// The address is not known yet; a mistake in the options is told before
	// anything is opened.
	if _, err := o.signIn.provider("https://localhost"); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(dir, "serve.lock"), false)
	if err != nil {
		return err
	}
	defer unlock()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", o.listen, err)
	}
	defer listener.Close() // Serve has closed it, or nothing used it
	metricsListener, err := listenMetrics(ctx, o.metricsListen)
	if err != nil {
		return err
	}
	if metricsListener != nil {
		defer metricsListener.Close()
	}
	url := o.portalURL
	if url == "" {
		url = portalURL(hosts[0], listener.Addr())
	}
	if err := writeServed(dir, served{URL: url, Names: hosts, Postgres: o.database != ""}); err != nil {
		return err
	}
	provider, err := o.signIn.provider(url)
	if err != nil {
		return err
	}
	ca, err := openCA(dir, hosts, log)
	if err != nil {
		return err
	}
	control, err := openControl(ctx, dir, o.database, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	events, err := openEvents(ctx, dir, o, control.EventWriters(), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	if o.database != "" && o.eventStore == embedded {
		log.Warn("events are kept by this portal alone: with several portals on one database, hunting and custom detections see a part of them; use --event-store")
	}
	archiver, err := o.archive.service(events, log)
	if err != nil {
		return err
	}
	publisher, err := o.publisher.publisher(dir, log)
	if err != nil {
		return err
	}
	p, err := portal.New(ctx, portal.Config{Control: control, Events: events, Archive: archiver, Definitions: publisher, Packages: o.repository.publisher(dir, url, ca, log), CA: ca, URL: url, Version: version, FilesDir: filepath.Join(dir, "files"), CheckInInterval: time.Duration(o.checkIn), EventsPerMinute: o.eventsPerMinute, SecondFactor: required, Provider: provider, LocalOff: !o.signIn.local, Listen: listener.Addr().String(), MetricsListen: addressOf(metricsListener), Options: o.shown, Logger: log})
	if err != nil {
		return err
	}
	log.Info("the portal serves", "url", url, "listen", listener.Addr().String(), "data", dir, "version", version, "started_in", time.Since(start).Round(time.Millisecond).String())
	ctx, stop := context.WithCancel(ctx)
	var builder sync.WaitGroup
	if every := time.Duration(o.definitionsEvery); every > 0 {
		builder.Go(func() { buildDefinitions(ctx, publisher, dir, max(every, time.Minute), log) })
	}
	err = p.Serve(ctx, listener, metricsListener)
	stop()
	builder.Wait()
	if err != nil {
		return err
	}
	log.Info("the portal has stopped")
	return nil
}

func listenMetrics(ctx context.Context, address string) (net.Listener, error) {
	if address == "off" || address == "" {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usage("--metrics-listen: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usage("--metrics-listen %s: metrics have no sign-in and are served on loopback only", address)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for metrics on %s: %w", address, err)
	}
	return l, nil
}

// addressOf is empty for no listener.
func addressOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

func portalURL(host string, addr net.Addr) string {
	_, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = "[" + host + "]"
	}
	if err != nil || port == "443" {
		return "https://" + host
	}
	return "https://" + host + ":" + port
}

// sqliteFile is the value of --database for the file in the data folder.
const sqliteFile = "sqlite"

// controlDatabase returns the connection string of --database, empty for the file
// in the data folder. Without the option the folder must not be of a portal that
// used another database: an empty file in its place would look like one that has
// lost everything.
func controlDatabase(cmd *cobra.Command, dir string, offline bool) (string, error) {
	text, err := cmd.Flags().GetString("database")
	if err != nil {
		return "", err
	}
	switch {
	case text == sqliteFile:
		return "", nil
	case sqlstore.IsPostgres(text):
		return text, nil
	case text != "": // not repeated: there may be a password in it
		return "", usage("--database is neither a connection string of the form postgres://USER@HOST[:PORT]/NAME nor %s", sqliteFile)
	}
	at, err := readServed(dir)
	if err != nil || !at.Postgres {
		return "", err
	}
	if offline {
		return "", usage("the portal of %s keeps its control data in PostgreSQL: give --database (or BULWARK_PORTAL_DATABASE) as for serve", dir)
	}
	return "", usage("the last portal of %s kept its control data in PostgreSQL: give --database, or --database %s to begin with the file in the data folder", dir, sqliteFile)
}

// openControl opens the control database.
func openControl(ctx context.Context, dir, database string, log *slog.Logger) (*sqlstore.Store, error) {
	if database == "" {
		return sqlstore.OpenSQLite(ctx, controlPath(dir))
	}
	return sqlstore.OpenPostgres(ctx, database, log)
}

func controlPath(dir string) string { return filepath.Join(dir, "control.db") }

// dataDir returns the data folder, which it makes.
func dataDir(cmd *cobra.Command) (string, error) {
	dir, err := cmd.Flags().GetString("data-dir")
	if err != nil {
		return "", err
	}
	if dir == "" {
		return "", usage("--data-dir is empty")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	return dir, nil
}

// openCA opens or makes the certificate authority, one process at a time.
func openCA(dir string, hosts []string, log *slog.Logger) (*pki.Authority, error) {
	unlock, err := lock(filepath.Join(dir, "pki.lock"), true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return pki.Open(filepath.Join(dir, "pki"), pki.Options{Names: hosts, Organization: "Bulwark", Log: log})
}

// lock takes an exclusive lock, waiting for it or failing when it is taken.
func lock(path string, wait bool) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another portal runs with the data folder %s: stop it first, or give this one another --data-dir", filepath.Dir(path))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil // closing releases the lock
}
