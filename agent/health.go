package agent

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/logging"
	"github.com/bulwarkhq/bulwark/agent/onaccess"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// Values of engine_load_status, the reference product's words.
const (
	engineLoaded    = "Engine load succeeded"
	engineNotLoaded = "Engine not loaded"
)

// maxConflicts is how many other fanotify programs health names.
const maxConflicts = 10

func (a *Agent) registerHealth() {
	a.health = health.NewRegistry(a.log.Logger("health"))
	a.health.Register("product", a.product.Source(time.Now))
	a.health.Register("config", a.config.HealthReport)
	a.health.Register("antivirus", a.antivirusHealth)
	a.health.Register("definitions", a.definitionsHealth)
	a.health.Register("scheduled_scan", a.scheduleHealth)
	a.health.Register("edr", a.edrHealth)
	a.health.Register("portal", a.portalHealth)
	a.health.Register("isolation", a.isolationHealth)
	a.health.Register("samples", a.samplesHealth)
	a.health.Register("daemon", a.daemonHealth)
	a.health.Register("service", a.serviceHealth)
	a.health.Register("network_protection", a.networkHealth)
}

func (a *Agent) antivirusHealth(context.Context) health.Report {
	st, pool := a.realtime.stats(onaccess.NoTop), a.pool.Status()
	starting := a.realtime.starting()
	level := a.config.Current().EnforcementLevel()
	wanted := policy.WatchesFiles(level)
	loaded := pool.Generation > 0 && !pool.Unloaded
	var r health.Report
	conflicts := []string{}
	for _, c := range st.Conflicts[:min(len(st.Conflicts), maxConflicts)] {
		conflicts = append(conflicts, fmt.Sprintf("%s (pid %d)", c.Name, c.PID))
	}
	r.Fill = func(h *api.Health) {
		h.EngineVersion = pool.Info.Engine
		h.EngineLoadStatus = engineNotLoaded
		if loaded {
			h.EngineLoadStatus = engineLoaded
		}
		h.RealTimeSubsystem = st.Subsystem
		h.RealTimeAvailable = st.Subsystem == "fanotify"
		h.RealTimeEnabled = wanted && h.RealTimeAvailable
		h.ConflictingApplications = conflicts
		a.covered.fill(h)
	}
	if wanted && !loaded {
		r.Issues = append(r.Issues, engineIssue(pool.LoadError))
	}
	if wanted {
		r.Issues = append(r.Issues, a.kernel.issues(a.config.Current())...)
	}
	if wanted && loaded {
		r.Issues = append(r.Issues, realtimeIssues(st, level, conflicts, a.kernel.mustNotHold(a.config.Current()), starting)...)
	}
	for _, p := range pool.Processes {
		if p.Failure != "" {
			r.Issues = append(r.Issues, api.Issue{
				ID: "scanner not running", Message: p.Failure,
				Remedy: "see " + logging.MainFile + "; it is started again by itself",
			})
		}
	}
	r.Details = a.antivirusDetails(st)
	return r
}

func engineIssue(loadError string) api.Issue {
	if loadError == "" {
		return api.Issue{
			ID: "engine not loaded", Message: "the scan engine is being loaded", State: api.StateStarting,
			Remedy: "wait a few seconds; `bulwark health --details antivirus` shows the progress",
		}
	}
	return api.Issue{
		ID: "engine not loaded", Message: "the scan engine could not load definitions: " + loadError,
		Remedy: "mend or remove the named file and run `bulwark definitions reload`",
	}
}

func realtimeIssues(st onaccess.Stats, level string, conflicts []string, neverHold string, starting bool) []api.Issue {
	var out []api.Issue
	switch {
	case starting:
		out = append(out, api.Issue{
			ID: "real-time protection starting", Message: st.Reason, State: api.StateStarting, Remedy: "wait a few seconds",
		})
	case st.Subsystem != "fanotify":
		out = append(out, api.Issue{
			ID: "real-time protection not available", Message: st.Reason,
			Remedy: "the kernel needs CONFIG_FANOTIFY and CONFIG_FANOTIFY_ACCESS_PERMISSIONS, and the daemon CAP_SYS_ADMIN; on-demand scans work without",
		})
	case level == policy.RealTime && !st.Holding:
		why := "the kernel cannot hold accesses"
		if neverHold != "" {
			why = "this kernel is known to be bad for that: " + neverHold
		} else if len(conflicts) > 0 {
			why = "another program holds accesses: " + strings.Join(conflicts, ", ")
		}
		out = append(out, api.Issue{
			ID: "real-time protection does not block", Message: why + "; files are scanned after the fact",
			Remedy: "remove the other program, or set enforcementLevel to audit to accept this",
		})
	case len(st.MarkedMounts) == 0:
		out = append(out, api.Issue{
			ID: "no file system watched", Message: "no mounted file system is under real-time protection",
			Remedy: "see `bulwark health --details antivirus` for the reasons",
		})
	}
	if st.Stalled {
		out = append(out, api.Issue{
			ID: "scanner does not answer", Message: "accesses are allowed without a verdict until it does",
			Remedy: "the scanner is restarted by itself; if this stays, make a bundle with `bulwark diagnostic create`",
		})
	}
	if st.Saturated {
		out = append(out, api.Issue{
			ID: "scanner saturated", Warning: true, Message: "only executions are held, opens are scanned after the fact",
			Remedy: "see `bulwark diagnostic real-time-protection-statistics --sort --top 5` and exclude what is known to be harmless",
		})
	}
	return out
}

func (a *Agent) antivirusDetails(st onaccess.Stats) []api.Field {
	out := []api.Field{
		{Name: "enforcement_level", Value: string(st.Mode)},
		{Name: "blocking", Value: st.Holding},
		{Name: "watched_mounts", Value: mountList(st.MarkedMounts)},
		{Name: "skipped_mounts", Value: mountList(st.SkippedMounts)},
		{Name: "events", Value: st.Events},
		{Name: "scans", Value: st.Scans},
		{Name: "cache_hits", Value: st.CacheHits},
		{Name: "detections", Value: st.Detections},
		{Name: "denied", Value: st.Denied},
		{Name: "deadlines_missed", Value: st.DeadlinesMissed},
		{Name: "longest_held_ms", Value: st.LongestHeld.Milliseconds()},
		{Name: "guard_running", Value: st.Guarded},
		{Name: "released_by_guard", Value: st.ReleasedByGuard},
		{Name: "taken_over_from_guard", Value: st.TakenOver},
		{Name: "lost_by_guard", Value: st.LostByGuard},
		{Name: "allowed_queue_full", Value: st.QueueFull},
		{Name: "allowed_saturated", Value: st.AllowedSaturated},
		{Name: "allowed_scanner_stalled", Value: st.AllowedStalled},
		{Name: "scan_errors", Value: st.ScanErrors},
		{Name: "kernel_queue_overflows", Value: st.KernelOverflows},
	}
	if w := a.realtime.watcher.Load(); w != nil {
		c := w.Capabilities()
		out = append(out,
			api.Field{Name: "kernel_permission_events", Value: c.Permission},
			api.Field{Name: "kernel_exec_events", Value: c.ExecEvents},
			api.Field{Name: "kernel_filesystem_marks", Value: c.FilesystemMarks},
			api.Field{Name: "kernel_evictable_marks", Value: c.Evictable},
			api.Field{Name: "kernel_folder_ignore_marks", Value: c.FolderIgnore},
		)
	}
	out = append(out, a.covered.details()...)
	out = append(out, a.lastScans()...)
	pool := a.pool.Status()
	out = append(out,
		api.Field{Name: "scanner_restarts", Value: pool.Restarts},
		api.Field{Name: "scanner_crashes", Value: pool.Crashes},
		api.Field{Name: "scanner_timeouts", Value: pool.Timeouts},
		api.Field{Name: "scanner_limits", Value: pool.Cgroup},
	)
	for i, p := range pool.Processes {
		sandboxed := "complete"
		if missing := p.Sandbox.Missing(); len(missing) > 0 {
			sandboxed = "without " + strings.Join(missing, ", ")
		}
		out = append(out, api.Field{
			Name:  fmt.Sprintf("scanner_%d", i+1),
			Value: fmt.Sprintf("pid %d, %d MiB private, sandbox %s", p.PID, p.Private>>20, sandboxed),
		})
	}
	return out
}

func mountList(mounts []onaccess.MarkedMount) []string {
	out := []string{}
	for _, m := range mounts {
		s := m.Point + " (" + m.Filesystem + ")"
		if m.Reason != "" {
			s += ": " + m.Reason
		}
		out = append(out, s)
	}
	return out
}

func (a *Agent) definitionsHealth(context.Context) health.Report {
	d := definitions{a}.describe(a.pool.Status())
	var r health.Report
	r.Fill = func(h *api.Health) {
		h.DefinitionsVersion, h.DefinitionsUpdated, h.DefinitionsStatus = d.Version, d.Updated, d.Status
		if !d.Updated.IsZero() {
			h.DefinitionsUpdatedMinAgo = int64(time.Since(d.Updated).Minutes())
		}
	}
	r.Details = []api.Field{
		{Name: "definitions_version", Value: d.Version},
		{Name: "definitions_updated", Value: d.Updated},
		{Name: "definitions_status", Value: d.Status},
		{Name: "definitions_path", Value: string(d.Folder)},
		{Name: "signatures", Value: d.Signatures},
		{Name: "definitions_update_source_uri", Value: d.Update.Source},
		{Name: "definitions_update_fail_reason", Value: d.Update.Failure},
		{Name: "offline_definition_url_configured", Value: d.Update.Mirror},
		{Name: "offline_definition_update", Value: d.Update.Offline},
		{Name: "offline_definition_update_verify_sig", Value: d.Update.Verify},
		{Name: "offline_definition_update_fallback_to_cloud", Value: d.Update.Fallback},
		{Name: "release_version", Value: d.Update.Release},
		{Name: "clamav_version", Value: d.Update.ClamAVVersion},
		{Name: "last_check", Value: d.Update.Checked},
		{Name: "next_check", Value: d.Update.Next},
	}
	for _, s := range d.Sources {
		r.Details = append(r.Details, api.Field{Name: "signatures_" + s.Name, Value: s.Signatures})
	}
	if d.Status == definitionsOld {
		r.Issues = append(r.Issues, api.Issue{
			ID: "definitions out of date", Warning: true,
			Message: fmt.Sprintf("the definitions are of %s, older than definitionUpdateDue allows", d.Updated.UTC().Format(time.DateOnly)),
			Remedy:  staleRemedy(d.Update.Failure),
		})
	}
	for _, held := range d.Update.Held {
		r.Issues = append(r.Issues, api.Issue{
			ID: "definitions held back", Warning: true, Message: held,
			Remedy: "they are left alone until newer ones come; `bulwark definitions update` tries them again",
		})
	}
	if n := len(d.Problems); n > 0 {
		first := d.Problems[0]
		r.Issues = append(r.Issues, api.Issue{
			ID: "definitions with problems", Warning: true,
			Message: fmt.Sprintf("%d signatures were left out; the first: %s:%d: %s", n, first.File, first.Line, first.Message),
			Remedy:  "mend the file and run `bulwark definitions reload`, which lists all",
		})
	}
	return r
}

func staleRemedy(failure string) string {
	if failure == "" {
		return "bulwark definitions update"
	}
	return "updates fail: " + failure + "; see bulwark connectivity test"
}

// sensorState says in a word how a category is covered.
func sensorState(c sensor.CategoryHealth) string {
	switch {
	case c.Source == "":
		return "missing"
	case c.RecentlyLost > 0:
		return "losing"
	}
	return "active"
}

func (a *Agent) edrHealth(context.Context) health.Report {
	var r health.Report
	subsystem := "unavailable"
	st := a.spool.Stats()
	attached := false // until then a class without a source is no issue
	select {
	case <-a.pipeline.Ready():
		attached = true
	default:
		r.Issues = append(r.Issues, api.Issue{
			ID: "sensors starting", Message: "the sensors are being attached", State: api.StateStarting, Remedy: "wait a few seconds",
		})
	}
	for _, c := range a.pipeline.Health() {
		name := string(c.Category)
		r.Details = append(r.Details,
			api.Field{Name: "sensor_" + name, Value: orNone(c.Source)},
			api.Field{Name: "state_" + name, Value: sensorState(c)},
			api.Field{Name: "rate_" + name, Value: math.Round(c.Rate*10) / 10},
			api.Field{Name: "events_" + name, Value: c.Events},
			api.Field{Name: "lost_" + name, Value: c.Lost},
			api.Field{Name: "seen_" + name, Value: c.Ledger.Seen},
			api.Field{Name: "filtered_" + name, Value: c.Ledger.Filtered},
			api.Field{Name: "on_the_way_" + name, Value: c.Ledger.Unknown()},
		)
		if c.RecentlyLost > 0 {
			r.Issues = append(r.Issues, api.Issue{
				ID: name + " events lost", Warning: true,
				Message: fmt.Sprintf("%d %s events were lost in the last minutes: %d in the kernel's buffer, %d in the agent's queue since the start",
					c.RecentlyLost, name, c.Ledger.KernelLost, c.Ledger.QueueDropped),
				Remedy: "more happens on this host than the agent may keep up with; `bulwark diagnostic ebpf-statistics` names the programs, a global exclusion leaves them out",
			})
		}
		if c.Source == "" && attached {
			r.Issues = append(r.Issues, api.Issue{
				ID: "no " + name + " events", Message: "no sensor delivers " + name + " events: " + c.Reason,
				Remedy: "eBPF needs CAP_BPF, a kernel with BTF and control group v2 mounted; the process connector needs CONFIG_PROC_EVENTS",
			})
		} else if c.Category == event.CategoryProcess && c.Source != "" {
			subsystem = c.Source
		}
	}
	e := a.config.Current()
	r.Fill = func(h *api.Health) {
		h.SupplementarySubsystem = subsystem
		h.BehaviorMonitoring = e.String(policy.KeyBehaviorMonitoring)
		h.EventsWaiting = int64(st.Written - st.Acknowledged)
		h.EventsLost = sum(st.Lost)
	}
	loaded, off, recorded := 0, []string{}, []string{}
	for _, rule := range a.rules.Rules() {
		switch {
		case rule.Off:
			off = append(off, rule.Rule.Title)
		case rule.Inactive == "":
			loaded++
			if rule.RecordOnly {
				recorded = append(recorded, rule.Rule.Title)
			}
		}
	}
	behaviors := a.rules.BehaviorStats()
	r.Details = append(r.Details,
		api.Field{Name: "behaviour_rules", Value: loaded},
		api.Field{Name: "behaviours_recorded", Value: behaviors.Recorded},
		api.Field{Name: "behaviours_repeated", Value: behaviors.Repeated},
		api.Field{Name: "behaviours_limited", Value: behaviors.Limited},
		api.Field{Name: "behaviour_rules_off", Value: off, Managed: len(off) > 0},
		api.Field{Name: "behaviour_rules_record_only", Value: recorded, Managed: len(recorded) > 0},
		api.Field{Name: "behaviour_rules_unknown", Value: append([]string{}, a.rules.UnknownModes()...), Managed: len(a.rules.UnknownModes()) > 0},
		api.Field{Name: "spool_bytes", Value: st.DiskBytes},
		api.Field{Name: "spool_batches_waiting", Value: st.Written - st.Acknowledged},
		api.Field{Name: "events_lost", Value: sum(st.Lost)},
	)
	for _, class := range slices.Sorted(maps.Keys(st.Offered)) {
		r.Details = append(r.Details,
			api.Field{Name: "spooled_" + class, Value: st.Offered[class] + st.Inherited[class]},
			api.Field{Name: "delivered_" + class, Value: st.Delivered[class]},
			api.Field{Name: "spool_lost_" + class, Value: st.Lost[class]},
		)
	}
	if st.Err != nil {
		r.Issues = append(r.Issues, api.Issue{
			ID: "events not written", Message: st.Err.Error(),
			Remedy: "free space on the file system of " + a.opts.Dirs.Spool() + "; protection goes on, events beyond the memory buffer are lost and counted",
		})
	}
	if n := sum(st.Lost); n > 0 {
		r.Issues = append(r.Issues, api.Issue{
			ID: "events lost", Warning: true,
			Message: fmt.Sprintf("%d events and alerts were lost on their way to the portal since the agent started: %s", n, lossByClass(st.Lost)),
			Remedy:  "see " + logging.MainFile + " for the cause: a damaged or full disk, or more events than the spool holds",
		})
	}
	for _, path := range st.SetAside {
		r.Issues = append(r.Issues, api.Issue{
			ID: "damaged spool file", Warning: true, Message: path + " was damaged and has been set aside; the rest was kept",
			Remedy: "look at the disk's health, then delete the file",
		})
	}
	return r
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// lossByClass lists counts by class, in a fixed order.
func lossByClass(lost map[string]uint64) string {
	var out []string
	for _, class := range slices.Sorted(maps.Keys(lost)) {
		if lost[class] > 0 {
			out = append(out, fmt.Sprintf("%s %d", class, lost[class]))
		}
	}
	return strings.Join(out, ", ")
}

func sum(counts map[string]uint64) int64 {
	var n uint64
	for _, c := range counts {
		n += c
	}
	return int64(n)
}

// daemonHealth names parts of the daemon that failed, and the log's troubles.
func (a *Agent) daemonHealth(context.Context) health.Report {
	var r health.Report
	for name, why := range a.parts.failures() {
		r.Issues = append(r.Issues, api.Issue{
			ID: name + " not running", Message: why,
			Remedy: "it is started again by itself; if this stays, make a bundle with `bulwark diagnostic create`",
		})
	}
	if err := a.log.Err(); err != nil {
		r.Issues = append(r.Issues, api.Issue{
			ID: "log not written", Warning: true, Message: err.Error(),
			Remedy: "free space on the file system of " + a.opts.Dirs.Log,
		})
	}
	for _, path := range a.damaged.list() {
		r.Issues = append(r.Issues, api.Issue{
			ID: "damaged database", Warning: true, Message: path + " was damaged and has been set aside; an empty one was begun",
			Remedy: "look at the disk's health, then delete the file",
		})
	}
	r.Fill = func(h *api.Health) {
		h.LogLevel = a.log.Level()
		h.SignedOff = a.signedOff.Load()
	}
	return r
}
