// Package agent is the daemon: it brings the capabilities below it together.
// Real-time protection, on-demand scans, sensors, detection, quarantine,
// history, the way to the portal and the local API each are a package of their
// own; here is only what passes between them.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/agent/config"
	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/identity"
	"github.com/bulwarkhq/bulwark/agent/indicator"
	"github.com/bulwarkhq/bulwark/agent/isolation"
	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/logging"
	"github.com/bulwarkhq/bulwark/agent/onaccess"
	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/quarantine"
	"github.com/bulwarkhq/bulwark/agent/respond"
	"github.com/bulwarkhq/bulwark/agent/sample"
	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/agent/scan/ondemand"
	"github.com/bulwarkhq/bulwark/agent/schedule"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/spawn"
	"github.com/bulwarkhq/bulwark/agent/spool"
	"github.com/bulwarkhq/bulwark/agent/supervise/notify"
	"github.com/bulwarkhq/bulwark/agent/threat"
	"github.com/bulwarkhq/bulwark/agent/update"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// Options of the daemon.
type Options struct {
	Dirs    layout.Dirs
	Version string
	Commit  string
	// Built is when, which the expiry counts from; zero for builds that do not
	// expire.
	Built time.Time
	// Program is the daemon's own executable; scanner processes are started
	// from it.
	Program string
	// OnlyMounts restricts real-time protection to these mount points; for tests
	// and side-by-side installations.
	OnlyMounts []string
	// Sensors are the names of the only sources of events that are used; empty
	// for the best of all. Naming audit lets it switch the kernel's audit on.
	Sensors []string
	// Console gets the log too; nil for none.
	Console io.Writer
}

// Agent is the daemon.
type Agent struct {
	opts       Options
	ownFolders []string // never scanned: they hold patterns and what was found

	log        *logging.Log
	config     *config.Manager
	identity   *identity.Identity
	history    *threat.History
	quarantine *quarantine.Store
	spool      *spool.Spool
	pool       *scan.Pool
	scans      *ondemand.Manager
	schedule   *schedule.Scheduler
	table      *process.Table
	hasher     *process.Hasher
	rules      *detect.Engine
	pipeline   *sensor.Pipeline
	uplink     *uplink.Uplink
	updater    *update.Updater
	health     *health.Registry
	product    health.Product
	notify     *notify.Notifier

	starter     *spawn.Starter
	isolation   *isolation.Manager
	live        *respond.Live
	indicators  *indicator.Manager
	responding  chan struct{} // to alerts of rules, see ruleresponse.go
	realtime    *realtime
	covered     *covered
	kernel      runningKernel
	remediation *remediation
	samples     *sample.Submitter
	selfTests   *selfTests
	counts      *eventCounts
	feed        *eventFeed
	latest      latest
	// diagnosticLevel is the setting as it was at the start.
	diagnosticLevel string
	moving          atomic.Bool // SetDefinitionsPath is at work
	signedOff       atomic.Bool // the uplink takes its leave: see uplink.Options.SignOff
	events          broadcast[api.AgentEvent]
	damaged         damagedDatabases
	parts           *components
}

// readyPatience bounds how long the start waits for real-time protection.
const readyPatience = 20 * time.Second

// Run is the life of the daemon: it returns when ctx has ended and everything
// is stopped, or with an error when the daemon cannot start.
func Run(ctx context.Context, opts Options) error {
	a, err := open(opts)
	if err != nil {
		return err
	}
	return errors.Join(a.run(ctx), a.close())
}

// open brings up everything that is needed before the first access is held. An
// error here is one that restarting does not cure by itself: it names the file.
func open(opts Options) (_ *Agent, err error) {
	d := opts.Dirs
	for dir, mode := range map[string]os.FileMode{
		d.Config: 0o755, filepath.Dir(d.Managed()): 0o755, d.State: 0o755, d.Definitions(): 0o755, d.Log: 0o755, d.Run: 0o755,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("the agent's folders: %w", err)
		}
	}
	n, err := notify.FromEnv()
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	a := &Agent{opts: opts, notify: n, starter: spawn.New(opts.Program), ownFolders: []string{shippedDefinitions(d), d.Definitions(), d.Quarantine(), compiledDir(d), d.Spool(), filepath.Join(d.State, "updates"), filepath.Join(d.State, "samples")}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.log, err = logging.Open(logging.Options{Dir: d.Log, Console: opts.Console}); err != nil {
		return nil, err
	}
	if a.config, err = config.Open(config.PathsUnder(d.Managed(), d.State), a.log.Logger("config")); err != nil {
		return nil, err
	}
	a.diagnosticLevel = a.config.Current().String(policy.KeyDiagnosticLevel)
	hardware, _ := identity.HardwareID("/") // without any source it still has an id
	if a.identity, err = identity.Load(d.Identity(), hardware); err != nil {
		return nil, err
	}
	if why := a.identity.Replaced; why != "" {
		a.log.Logger("identity").Warn("a new identity was made; the portal will see a new device", "reason", why)
	}
	if a.history, err = threat.Open(filepath.Join(d.State, "history.db"), a.log.Logger("history")); err != nil {
		return nil, err
	}
	if a.quarantine, err = quarantine.Open(d.Quarantine(), quarantine.Options{Log: a.log.Logger("quarantine")}); err != nil {
		return nil, err
	}
	if a.spool, err = spool.Open(d.Spool(), spool.Options{Log: a.log.Logger("spool")}); err != nil {
		return nil, err
	}
	if err := a.openUpdates(); err != nil {
		return nil, err
	}
	if err := a.openScanning(); err != nil {
		return nil, err
	}
	if err := a.openSensing(); err != nil {
		return nil, err
	}
	a.selfTests = &selfTests{a: a}
	a.counts = &eventCounts{a: a}
	a.feed = &eventFeed{a: a}
	a.remediation = &remediation{a: a, log: a.log.Logger("threats")}
	a.kernel = lookAtKernel(a.log.Logger("onaccess"))
	a.realtime = newRealtime(a)
	a.covered = newCovered(a)
	a.parts = newComponents(a.log.Logger("daemon"))
	if err := a.openUplink(); err != nil {
		return nil, err
	}
	a.live = a.newLive()
	if err := a.openIsolation(); err != nil {
		return nil, err
	}
	if err := a.openSamples(); err != nil {
		return nil, err
	}
	a.product = health.Product{Version: opts.Version, Commit: opts.Commit, Built: opts.Built, Ring: "Production", MachineGUID: a.identity.MachineGUID()}
	a.registerHealth()
	return a, nil
}

func compiledDir(d layout.Dirs) string { return filepath.Join(d.State, "compiled") }

// shippedDefinitions is where the package puts definitions.
func shippedDefinitions(d layout.Dirs) string { return filepath.Join(d.Program, "definitions") }

func (a *Agent) ownPrograms() []string {
	out := []string{a.opts.Program}
	for _, name := range []string{"bulwark", guardProgram} {
		if path := filepath.Join(filepath.Dir(a.opts.Program), name); fileExists(path) {
			out = append(out, path)
		}
	}
	return out
}

const (
	// guardProgram is the guard's own program, beside the daemon's; GuardMode is
	// the argument with which the daemon's becomes the guard where that is absent.
	guardProgram = "bulwark-guard"
	GuardMode    = "guard"
)

// startGuard starts the guard of real-time protection.
func (a *Agent) startGuard(cmd *exec.Cmd) error {
	cmd.Path, cmd.Args, cmd.Env = a.opts.Program, []string{a.opts.Program, GuardMode}, []string{}
	if path := filepath.Join(filepath.Dir(a.opts.Program), guardProgram); fileExists(path) {
		cmd.Args = []string{a.opts.Program, spawn.Subcommand, path}
	}
	return a.starter.Start(cmd)
}

func fileExists(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// run starts the parts and waits for the end.
func (a *Agent) run(ctx context.Context) error {
	listener, err := control.Listen(a.opts.Dirs.Socket())
	if err != nil {
		return err
	}
	cancelLevel := a.config.FollowLogLevel(a.log)
	defer cancelLevel()
	cancelPolicy := a.config.Subscribe(a.policyChanged)
	defer cancelPolicy()
	levels := &levelReport{report: a.report, until: a.config.PausedUntil()}
	cancelLevels := a.config.Subscribe(func(old, now policy.Effective) { levels.changed(old, now, a.config.PausedUntil()) })
	defer cancelLevels()
	cancelMoved := a.config.Subscribe(func(old, now policy.Effective) { a.definitionsMoved(ctx, old, now) })
	defer cancelMoved()
	cancelIndicators := a.config.Subscribe(func(policy.Effective, policy.Effective) { a.indicators.Apply() })
	defer cancelIndicators()

	// Whoever reports to the spool ends before the spool's reader, and both
	// before close.
	a.parts.start(ctx, "configuration", a.config.Run)
	a.parts.start(ctx, "isolation", a.isolation.Run)
	a.parts.start(ctx, "indicators", a.indicators.Run)
	a.parts.start(ctx, "scanner", a.pool.Run)
	a.parts.start(ctx, "sensors", a.pipeline.Run)
	a.parts.start(ctx, "real-time protection", a.realtime.run)
	a.parts.start(ctx, "coverage check", a.covered.run)
	a.parts.start(ctx, "portal", a.uplink.Run)
	a.parts.start(ctx, "samples", a.samples.Run)
	a.parts.start(ctx, "definitions guard", a.guardDefinitions)
	a.parts.start(ctx, "updates", a.updater.Run)
	a.parts.start(ctx, "retention", a.retain)
	a.parts.start(ctx, "damaged databases", func(ctx context.Context) error { return a.damaged.watch(ctx, a.opts.Dirs.State) })
	a.parts.start(ctx, "scheduled scans", a.runSchedule)
	a.parts.start(ctx, "local API", func(ctx context.Context) error {
		return control.New(a.services(), a.log.Logger("control")).Serve(ctx, listener)
	})
	a.report(&event.Event{Time: time.Now(), Class: event.ClassDevice, Action: event.AgentStarted, Additional: map[string]string{"Version": a.opts.Version}})
	logger := a.log.Logger("daemon")
	logger.Info("agent started", "version", a.opts.Version, "commit", a.opts.Commit, "enforcement_level", a.config.Current().EnforcementLevel())
	// The supervisor's "started" means protected. Definitions that take long to
	// compile do not hold it up for ever.
	select {
	case <-a.realtime.ready:
	case <-ctx.Done():
	case <-time.After(readyPatience):
		logger.Warn("real-time protection is not in place yet", "waited", readyPatience)
	}
	if err := a.notify.Ready(); err != nil {
		logger.Warn("supervisor not told that the agent is ready", "error", err)
	}
	go a.notify.KeepAlive(ctx, a.alive, func(err error) { logger.Error("watchdog not fed", "error", err) })

	<-ctx.Done()
	if err := a.notify.Stopping(); err != nil {
		logger.Warn("supervisor not told that the agent stops", "error", err)
	}
	logger.Info("agent stopping")
	a.report(&event.Event{Time: time.Now(), Class: event.ClassDevice, Action: event.AgentStopped})
	a.parts.wait()
	return nil
}

// alive is what the watchdog asks: whether the part that holds other processes
// answers. The watcher's own supervision handles slow scans; this is for a
// daemon that is stuck altogether.
func (a *Agent) alive() error {
	done := make(chan struct{})
	go func() {
		a.realtime.stats(onaccess.NoTop)
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(2 * time.Second):
		return errors.New("real-time protection does not answer")
	}
}

// close ends what open opened, in the reverse order.
func (a *Agent) close() error {
	var errs []error
	if a.spool != nil {
		errs = append(errs, a.spool.Close())
	}
	if a.scans != nil {
		errs = append(errs, a.scans.Close())
	}
	if a.history != nil {
		errs = append(errs, a.history.Close())
	}
	if a.log != nil {
		errs = append(errs, a.log.Close(2*time.Second))
	}
	return errors.Join(append(errs, a.notify.Close())...)
}

func (a *Agent) policyChanged(old, now policy.Effective) {
	a.realtime.changed(now)
	if err := a.pool.LimitCPU(now.Int(policy.KeyScannerCPU)); err != nil {
		a.log.Logger("scanner").Error("limit not applied", "error", err)
	}
	a.covered.changed()
	a.rules.SetModes(ruleModes(now))
	a.updater.Wake()
	a.announce("config", "configuration changed", nil)
}

// services are the parts of the agent that the local API reaches.
func (a *Agent) services() control.Services {
	t := threats{a}
	return control.Services{
		Licensed:     a.licensed,
		Health:       health.Service{Registry: a.health, Product: a.product},
		Scans:        scans{a},
		Threats:      t,
		Quarantine:   t,
		Definitions:  definitions{a},
		Config:       a.config,
		Exclusions:   a.config,
		Log:          config.LogService{Manager: a.config, Log: a.log},
		Connectivity: connectivity{a},
		SelfTest:     a.selfTests,
		Updates:      productUpdates{a, "/"},
		Diagnostics:  diagnostics{a},
		Statistics:   statistics{a},
		Coverage:     a.covered,
		EDR:          edr{config.EDRSettings{Manager: a.config}, a},
		Events:       events{a},
		EventCounts:  a.counts,
		SensorEvents: a.feed,
		Explain:      explanations{a},
		Offboard:     a,
		Isolation:    isolated{a},
	}
}

// events lets clients of the local API follow what the agent announces.
type events struct{ a *Agent }

func (e events) FollowEvents(ctx context.Context, send func(api.AgentEvent) error) error {
	viewer := e.a.viewer(ctx)
	return e.a.events.follow(ctx, func(event api.AgentEvent) error { return send(viewer.event(event)) })
}

// announce tells the followers of events.
func (a *Agent) announce(kind, text string, data any) {
	e := api.AgentEvent{Time: time.Now(), Kind: kind, Text: text}
	if data != nil {
		raw, err := json.Marshal(data)
		if err != nil {
			a.log.Logger("daemon").Error("announcement without data", "kind", kind, "error", err)
		}
		e.Data = raw
	}
	a.events.send(e)
}

// report sends an event to the portal.
func (a *Agent) report(e *event.Event) {
	a.spool.AddEvent(e)
	a.latest.event(e)
}

// raise sends an alert to the portal and tells who follows.
func (a *Agent) raise(al event.Alert) {
	if al.Severity != event.SeverityInformational && al.TestID == "" {
		al.Behaviors = a.rules.BehaviorsOf(al.Process, al.Ancestry)
	}
	if err := a.spool.AddAlert(al); err != nil {
		a.log.Logger("daemon").Error("alert not queued for the portal", "title", al.Title, "id", al.ID, "error", err)
	}
	a.latest.alert(al)
	a.selfTests.alert(al)
	if al.TestID != "" {
		return
	}
	if data, err := event.EncodeAlert(&al); err == nil {
		a.announce(eventAlert, al.Title, json.RawMessage(data))
	}
}

// retain removes what is older than policy keeps, once a day and after start.
func (a *Agent) retain(ctx context.Context) error {
	for {
		a.prune(a.log.Logger("retention"))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(24 * time.Hour):
		}
	}
}

func (a *Agent) prune(log *slog.Logger) {
	e := a.config.Current()
	cutoff := time.Now().AddDate(0, 0, -e.Int(policy.KeyRetentionDays))
	if n, err := a.history.Prune(cutoff, e.Int(policy.KeyHistoryItems)); err != nil || n > 0 {
		log.Info("protection history pruned", "removed", n, "error", err)
	}
	if n, err := a.scans.Prune(cutoff, e.Int(policy.KeyHistoryItems)); err != nil || n > 0 {
		log.Info("scan history pruned", "removed", n, "error", err)
	}
	if n, err := a.quarantine.Prune(cutoff); err != nil || n > 0 {
		log.Info("quarantine pruned", "removed", n, "error", err)
	}
}
