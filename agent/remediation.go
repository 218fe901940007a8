package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/loaded"
	"github.com/bulwarkhq/bulwark/agent/onaccess"
	"github.com/bulwarkhq/bulwark/agent/quarantine"
	"github.com/bulwarkhq/bulwark/agent/threat"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

const (
	// quarantineTimeout bounds moving one file; a bigger one stays where it is,
	// denied to everybody.
	quarantineTimeout = 5 * time.Minute
	// realertAfter is how long further detections of the same content at the
	// same path raise no alert of their own. At other paths it raises up to
	// maxAlertsPerContent in that time: a file that is copied about a thousand
	// times is one thing to look at.
	realertAfter        = time.Hour
	maxAlertsPerContent = 10
	maxAlertCounters    = 4096
)

// described is what is known about the process that touched a file, captured
// while the kernel held it.
type described struct {
	process  event.Process
	ancestry []event.Process
}

// describe is the watcher's Describe.
func (a *Agent) describe(pid int32) any {
	p, ancestry := a.table.Describe(int(pid))
	return described{p, ancestry}
}

// blocks decides for the watcher whether a verdict denies the access: some
// match must be of a type that policy blocks and of a name that is not allowed.
func (a *Agent) blocks(v verdict.Verdict) bool {
	e := a.config.Current()
	for _, m := range v.Matches {
		if e.ThreatAction(string(m.Type)) == policy.ActionBlock && !a.allowed(e, m, v) {
			return true
		}
	}
	return false
}

func (a *Agent) allowed(e policy.Effective, m verdict.Match, v verdict.Verdict) bool {
	return e.Allows(m.Threat, v.SHA256) || a.history.IsAllowed(m.Threat, v.SHA256)
}

// finding is an infected file, however it was found.
type finding struct {
	path    string
	file    *os.File // open for reading; belongs to the caller
	verdict verdict.Verdict
	scan    threat.Scan
	process described
	user    string // who touched it, or whose it is
	// denied: the process was refused the file. remediate: quarantine it.
	denied, remediate bool
}

// remediation does what policy wants about infected files: quarantine, history,
// alert.
type remediation struct {
	a   *Agent
	log *slog.Logger

	mu     sync.Mutex              // orders history and alerts of the same content
	alerts map[string]alertCounter // by SHA-256, or path where there is none

	sums sums
}

// alertCounter counts the alerts about one content since a time.
type alertCounter struct {
	since time.Time
	n     int
}

// fromRealTime is the watcher's OnDetection.
func (r *remediation) fromRealTime(ctx context.Context, d onaccess.Detection) {
	defer func() { _ = d.File.Close() }() // read-only
	f := finding{
		path: d.Access.Path, file: d.File, verdict: d.Verdict,
		scan:   threat.Scan{Type: "real_time"},
		denied: d.Denied, remediate: r.a.config.Current().EnforcementLevel() == policy.RealTime,
	}
	if p, ok := d.Process.(described); ok {
		f.process = p
		f.user = p.process.AccountName
	}
	r.handle(ctx, f)
}

// handle deals with one finding and returns the row of the history, or the zero
// row where policy wants none.
func (r *remediation) handle(ctx context.Context, f finding) threat.Threat {
	match, ok := r.relevant(f)
	if !ok {
		return threat.Threat{}
	}
	if r.onlyByPath(f.verdict) {
		if err := r.sums.into(ctx, &f.verdict, f.file); err != nil {
			r.log.Error("detection goes without the file's hash", "path", f.path, "threat", match.Threat, "error", err)
		}
	}
	if r.onlyBlocked(f.verdict.Matches) {
		f.remediate = false
	}
	// A file that is being quarantined has another name, and then none. Who knows
	// it was at a path knows no such names.
	item, gone := r.quarantined(f)
	if gone {
		f.path = item.Path
	}
	testID := r.a.selfTests.idOf(f.path)
	status, detail := threat.StatusDetected, ""
	if f.denied {
		status = threat.StatusBlocked
	}
	killed := r.killLoaded(f)
	switch {
	case gone:
		status = threat.StatusQuarantined
	case f.remediate:
		status, detail, item = r.quarantine(ctx, f, match, status)
	}
	if f.verdict.SHA256 == "" {
		f.verdict.SHA256 = item.SHA256 // too large for the engine, but moved and read now
	}

	if len(killed) > 0 {
		detail = strings.TrimPrefix(detail+"; processes that ran the file were ended: "+strings.Join(killed, ", "), "; ")
	}

	if r.late(&f); f.user == "" {
		f.user = f.process.process.AccountName
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	row, alert := threat.Threat{}, true
	if testID == "" {
		row, alert = r.record(f, match, status, detail, item)
	}
	r.log.Warn("threat found", "name", match.Threat, "path", f.path, "sha256", f.verdict.SHA256,
		"action", status, "detail", detail, "process", f.process.process.FolderPath, "pid", f.process.process.PID)
	if !alert {
		return row
	}
	a := r.alert(f, match, status, detail)
	a.TestID = testID
	if i, ours := r.indicator(match); ours {
		if i == nil || i.Silent {
			return row
		}
		asIndicator(&a, i)
	}
	r.a.raise(a)
	if testID == "" {
		r.submit(a.ID, f, item)
	}
	e := &event.Event{
		Time: a.Time, Class: event.ClassDevice, Action: event.AntivirusDetection,
		Initiating: f.process.process, File: a.File,
		Additional: map[string]string{
			"ThreatName": match.Threat, "ThreatType": string(match.Type), "Signature": match.Signature,
			"Action": string(status), "AlertId": a.ID,
		},
	}
	if len(killed) > 0 {
		e.Additional["ProcessesKilled"] = strings.Join(killed, ", ")
	}
	r.a.report(e)
	return row
}

// late fills in a process that had ended before anybody could look at it, and
// that the sensor tells of a little later than the file's events come.
func (r *remediation) late(f *finding) {
	pid := f.process.process.PID
	for n := 0; pid > 0 && f.process.process.FileName == "" && n < 5; n++ {
		if n > 0 {
			time.Sleep(50 * time.Millisecond)
		}
		f.process.process, f.process.ancestry = r.a.table.Describe(int(pid))
	}
}

// maxKilledNamed is how many processes an alert names.
const maxKilledNamed = 20

// killLoaded ends the processes that run the file (its execution had begun
// before it was known, or they have it loaded), where policy wants that, and
// names them. As in the reference product they are no threats of their own.
func (r *remediation) killLoaded(f finding) []string {
	e := r.a.config.Current()
	if !f.remediate || e.EnforcementLevel() != policy.RealTime || e.String(policy.KeyRemediateLoaded) != policy.Enabled {
		return nil
	}
	file, err := loaded.FileOf(f.file, f.path)
	if err != nil {
		r.log.Error("processes that run an infected file not looked for", "path", f.path, "error", err)
		return nil
	}
	own := r.a.ownPrograms()
	found, err := loaded.Kill(file, func(pid int) bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err == nil && slices.Contains(own, exe)
	})
	if err != nil {
		r.log.Error("not all processes that run an infected file were found", "path", f.path, "error", err)
	}
	var killed []string
	for _, p := range found {
		if !p.Killed {
			r.log.Error("process that runs an infected file not ended", "pid", p.PID, "program", p.Path, "path", f.path, "error", p.Err)
			continue
		}
		r.log.Warn("process that runs an infected file ended", "pid", p.PID, "program", p.Path, "as", p.How, "path", f.path)
		switch {
		case len(killed) < maxKilledNamed:
			killed = append(killed, fmt.Sprintf("%d %s (%s)", p.PID, p.Path, p.How))
		case len(killed) == maxKilledNamed:
			killed = append(killed, "...")
		}
	}
	return killed
}

// relevant picks the match to act upon. What policy has off is nothing; what it
// has on audit goes to the log alone, as in the reference product.
func (r *remediation) relevant(f finding) (verdict.Match, bool) {
	if r.a.own(f.path) {
		return verdict.Match{}, false
	}
	e := r.a.config.Current()
	for _, m := range f.verdict.Matches {
		if r.a.allowed(e, m, f.verdict) {
			r.log.Info("allowed threat", "name", m.Threat, "path", f.path, "sha256", f.verdict.SHA256)
			continue
		}
		switch e.ThreatAction(string(m.Type)) {
		case policy.ActionBlock:
			return m, true
		case policy.ActionAudit:
			r.log.Warn("audited, not blocked by policy", "name", m.Threat, "type", m.Type, "path", f.path, "sha256", f.verdict.SHA256)
		}
	}
	return verdict.Match{}, false
}

// quarantine moves the file away; before is the status if that fails.
func (r *remediation) quarantine(ctx context.Context, f finding, m verdict.Match, before threat.Status) (threat.Status, string, quarantine.Item) {
	ctx, cancel := context.WithTimeout(ctx, quarantineTimeout)
	defer cancel()
	item, err := r.a.quarantine.Add(ctx, f.file, f.path, quarantine.Meta{
		Threat: m.Threat, ThreatType: string(m.Type), Inside: m.Inside,
		ContainerID: f.process.process.ContainerID,
	})
	switch {
	case err != nil:
		r.log.Error("not quarantined", "path", f.path, "error", err)
		if before == threat.StatusBlocked {
			return before, "not quarantined: " + err.Error(), item
		}
		return threat.StatusQuarantineFailed, err.Error(), item
	case item.State == quarantine.StateQuarantined:
		return threat.StatusQuarantined, "", item
	}
	return before, "a copy is in the quarantine, the original is still there: " + item.StateReason, item
}

// quarantined finds the item of a file that is in the quarantine already and
// has no name left: several processes may have met the same file before it went.
func (r *remediation) quarantined(f finding) (quarantine.Item, bool) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil || st.Nlink > 0 {
		return quarantine.Item{}, false
	}
	return r.a.quarantine.Of(&st, f.verdict.SHA256)
}

// record writes the history; alert says whether the detection deserves one. The
// history is one of contents: a file too large for a hash has no row in it.
func (r *remediation) record(f finding, m verdict.Match, status threat.Status, detail string, item quarantine.Item) (row threat.Threat, alert bool) {
	if f.verdict.SHA256 == "" {
		return row, r.mayAlert("at " + f.path)
	}
	before, err := r.a.history.ByHash(f.verdict.SHA256)
	known := err == nil && time.Since(before.Last) < realertAfter && slices.Contains(before.Paths, f.path)
	p := f.process.process
	row, fresh, err := r.a.history.Record(threat.Detection{
		Time: time.Now(), Name: m.Threat, Type: m.Type, Signature: m.Signature, Source: m.Source, Inside: m.Inside,
		Path: f.path, SHA256: f.verdict.SHA256, Size: f.verdict.Size,
		Process: threat.Process{PID: p.PID, Name: p.FileName, Path: p.FolderPath, CommandLine: p.CommandLine},
		User:    f.user, Scan: f.scan, Status: status, Detail: detail, QuarantineID: item.ID,
	})
	if err != nil {
		r.log.Error("threat not recorded in the history", "path", f.path, "error", err)
		return row, true
	}
	r.a.announce(eventThreat, fmt.Sprintf("%s %s: %s", m.Threat, status, f.path), row)
	return row, fresh || !known && r.mayAlert(f.verdict.SHA256)
}

// mayAlert counts an alert about a content, or about a path whose content has no
// hash, and says whether it is not one too many.
func (r *remediation) mayAlert(what string) bool {
	c := r.alerts[what]
	if time.Since(c.since) > realertAfter {
		c = alertCounter{since: time.Now()}
	}
	c.n++
	if r.alerts == nil || len(r.alerts) >= maxAlertCounters {
		r.alerts = map[string]alertCounter{}
	}
	r.alerts[what] = c
	return c.n <= maxAlertsPerContent
}

func (r *remediation) alert(f finding, m verdict.Match, status threat.Status, detail string) event.Alert {
	prevented := f.denied || status == threat.StatusQuarantined
	a := event.Alert{
		ID: newAlertID(), Time: time.Now(), Severity: severity(m.Type, prevented), Category: "Malware",
		Source: event.SourceAntivirus, DetectorID: m.Signature,
		ThreatName: m.Threat, ThreatFamily: family(m.Threat), Action: string(status), ActionDetail: detail,
		File: event.File{
			FileName: path.Base(f.path), FolderPath: f.path, Size: f.verdict.Size,
			SHA256: f.verdict.SHA256, SHA1: f.verdict.SHA1, MD5: f.verdict.MD5,
		},
		Process: f.process.process, Ancestry: f.process.ancestry,
	}
	if m.Type == verdict.PUA {
		a.Category = "UnwantedSoftware"
	}
	outcome := "was detected"
	if prevented {
		outcome = "was prevented"
	}
	a.Title = fmt.Sprintf("'%s' malware %s", m.Threat, outcome)
	if m.Type == verdict.PUA {
		a.Title = fmt.Sprintf("'%s' unwanted software %s", m.Threat, outcome)
	}
	a.Description = fmt.Sprintf("The file %s matches the signature %s (%s).", f.path, m.Signature, m.Source)
	if len(m.Inside) > 0 {
		a.Description += fmt.Sprintf(" The match is inside it, at %s.", strings.Join(m.Inside, " > "))
	}
	return a
}

// severity is lower for what did no harm.
func severity(t verdict.Type, prevented bool) event.Severity {
	switch {
	case t == verdict.PUA || t == verdict.ArchiveBomb || t == verdict.Test:
		return event.SeverityLow
	case prevented:
		return event.SeverityMedium
	}
	return event.SeverityHigh
}

// family is the part of a threat name that variants share: "Trojan:Linux/Example.A"
// and "Trojan:Linux/Example.B" are of the family Example.
func family(threatName string) string {
	_, name, found := strings.Cut(threatName, "/")
	if !found {
		return ""
	}
	name, _, _ = strings.Cut(name, ".")
	return name
}

func newAlertID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
