package agent

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/sensor/audit"
	"github.com/bulwarkhq/bulwark/agent/sensor/ebpf"
	"github.com/bulwarkhq/bulwark/agent/sensor/hostconfig"
	"github.com/bulwarkhq/bulwark/agent/sensor/logon"
	"github.com/bulwarkhq/bulwark/agent/sensor/procfs"
	"github.com/bulwarkhq/bulwark/agent/sensor/script"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// openSensing makes the process table, the sensors and the behaviour rules.
func (a *Agent) openSensing() error {
	log := a.log.Logger("sensor")
	var err error
	if a.table, err = process.New(process.Options{}); err != nil {
		return fmt.Errorf("process table: %w", err)
	}
	a.hasher = process.NewHasher("/proc", process.HasherOptions{})
	a.rules = detect.New(detect.Options{Log: a.log.Logger("detect")})
	a.rules.SetModes(ruleModes(a.config.Current()))
	a.loadRules()
	a.openIndicators()
	scripts := script.New(log)
	sensors, err := a.sensors(scripts, log)
	if err != nil {
		return err
	}
	a.pipeline = &sensor.Pipeline{
		Sensors: sensors,
		Table:   a.table, Hasher: a.hasher, Detect: a.rules,
		Packages: process.NewHostPackages("/"), Containers: process.NewContainers("/"),
		OnEvent: func(e *event.Event) { a.counts.see(e); a.report(e); a.feed.see(e); scripts.See(e); a.indicators.See(e) },
		OnAlert: a.behaviourAlert,
		// What led to it has been counted and looked at as an event already.
		OnBehavior: func(e *event.Event) { a.report(e); a.feed.see(e) },
		Muted:      a.muted,
		Log:        log,
	}
	return nil
}

// sensors are the sources of events in order of preference, or those that
// Options.Sensors names.
func (a *Agent) sensors(scripts *script.Sensor, log *slog.Logger) ([]sensor.Sensor, error) {
	forced := len(a.opts.Sensors) > 0
	auditing := audit.Options{Own: forced, StateFile: filepath.Join(a.opts.Dirs.State, "audit.json")}
	if err := audit.Restore(auditing.StateFile); err != nil {
		log.Warn("the kernel's audit may have settings of an earlier run", "err", err)
	}
	if a.opts.Dirs == layout.Default() { // others share this host with the product
		auditing.RulesFile = audit.RulesFile
		if err := audit.Clean(audit.RulesFile); err != nil {
			log.Warn("audit rules of an earlier run are left", "err", err)
		}
	}
	reports := auditing
	reports.Logons = true
	var all []sensor.Sensor
	if forced || a.config.Current().String(policy.KeyEBPF) == policy.Enabled {
		all = append(all, ebpf.New(a.table, log))
	}
	all = append(all,
		audit.New(a.table, log, auditing),
		procfs.New(a.table, log), procfs.NewPolling(a.table, log),
		hostconfig.New(a.table, log, hostconfig.Options{}),
		audit.New(a.table, log, reports),
		logon.New(a.table, log, logon.Options{Journal: logon.Journal(a.starter.Command, a.starter.Start)}),
		scripts,
	)
	if !forced {
		return all, nil
	}
	var some []sensor.Sensor
	names := map[string]bool{}
	for _, s := range all {
		names[s.Name()] = true
		if slices.Contains(a.opts.Sensors, s.Name()) {
			some = append(some, s)
		}
	}
	for _, name := range a.opts.Sensors {
		if !names[name] {
			return nil, fmt.Errorf("sensor %q: there is none of this name; there are %s", name, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		}
	}
	return some, nil
}

// loadRules loads the product's rules and the administrators' own. A rule that
// does not load is named in the log and costs only itself.
func (a *Agent) loadRules() {
	log := a.log.Logger("detect")
	sources := []detect.Source{{Name: "built-in rules", FS: rules.FS(), Builtin: true}}
	own := filepath.Join(a.opts.Dirs.Config, "rules")
	if _, err := os.Stat(own); err == nil {
		sources = append(sources, detect.Source{Name: own, FS: os.DirFS(own)})
	}
	report := a.rules.Load(sources...)
	for _, p := range report.Problems {
		log.Warn("behaviour rule left out", "file", p.File, "line", p.Line, "rule", p.Rule, "error", p.Err)
	}
}

// ruleModes is what the configuration says of single rules.
func ruleModes(e policy.Effective) detect.Modes {
	return detect.Modes{Off: e.Strings(policy.KeyDisabledRules), RecordOnly: e.Strings(policy.KeyRecordOnlyRules)}
}

// behaviourAlert is the pipeline's OnAlert.
func (a *Agent) behaviourAlert(al event.Alert) {
	a.log.Logger("detect").Warn("behaviour alert", "title", al.Title, "severity", al.Severity, "rule", al.DetectorID,
		"process", al.Process.FolderPath, "pid", al.Process.PID, "command_line", al.Process.CommandLine)
	a.respondToRule(al)
}

// muted reports whether an exclusion of the scope global covers an event: what
// happens to an excluded file, or what an excluded program does.
func (a *Agent) muted(e *event.Event) bool {
	set := a.realtime.exclusions.Load()
	if set.Len() == 0 {
		return false
	}
	path, exe := e.File.FolderPath, e.Initiating.FolderPath
	if e.Class == event.ClassProcess {
		path, exe = e.Process.FolderPath, e.Process.FolderPath
	}
	if path == "" && exe == "" {
		return false // of the agent itself
	}
	x, muted := set.Match(policy.UseEDR, path, exe, time.Now())
	if muted {
		a.config.Hidden(x, policy.UseEDR, path)
	}
	return muted
}
