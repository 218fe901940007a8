package diagnostic

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Thresholds: the first warns, the second is critical.
const (
	cpuWarning, cpuCritical               = 40.0, 70.0 // percent of one CPU
	scanWarning, scanCritical             = 100 * time.Millisecond, 500 * time.Millisecond
	diskWarning, diskCritical             = 85.0, 95.0 // percent used
	descriptorWarning, descriptorCritical = 5_000, 20_000
	definitionsAge                        = 24 * time.Hour
	memoryWarning                         = 512 << 20 // resident, of one process
	freeMemoryWarning                     = 64 << 20
)

// Analyze draws conclusions from facts. The findings are ordered by severity,
// the gravest first; an area without a problem has a finding that says so.
func Analyze(f api.Facts) api.Analysis {
	a := analysis{}
	a.health(f)
	a.cpu(f)
	a.scanning(f)
	a.conflicts(f)
	a.definitions(f)
	a.disks(f)
	a.descriptors(f)
	a.mounts(f)
	a.portal(f)
	a.service(f)
	a.configuration(f)
	a.log(f)
	slices.SortStableFunc(a.findings, func(x, y api.Finding) int { return cmp.Compare(rank(y.Severity), rank(x.Severity)) })
	out := api.Analysis{Time: f.Time, Worst: api.SeverityOK, Findings: a.findings, Facts: f}
	if len(a.findings) > 0 {
		out.Worst = a.findings[0].Severity
	}
	return out
}

func rank(s api.Severity) int {
	return slices.Index([]api.Severity{api.SeverityOK, api.SeverityInfo, api.SeverityWarning, api.SeverityCritical}, s)
}

type analysis struct{ findings []api.Finding }

func (a *analysis) add(s api.Severity, area, remedy, format string, args ...any) {
	a.findings = append(a.findings, api.Finding{Severity: s, Area: area, Message: fmt.Sprintf(format, args...), Remedy: remedy})
}

// clean adds that an area has no problem, when nothing was found in it.
func (a *analysis) clean(area, format string, args ...any) {
	if !slices.ContainsFunc(a.findings, func(f api.Finding) bool { return f.Area == area }) {
		a.add(api.SeverityOK, area, "", format, args...)
	}
}

// level is the severity of a value with two thresholds; SeverityOK below both.
func level[T cmp.Ordered](v, warning, critical T) api.Severity {
	switch {
	case v >= critical:
		return api.SeverityCritical
	case v >= warning:
		return api.SeverityWarning
	}
	return api.SeverityOK
}

func (a *analysis) health(f api.Facts) {
	for _, i := range f.Health.Issues {
		s := api.SeverityCritical
		switch {
		case i.Warning:
			s = api.SeverityWarning
		case i.State == api.StateStarting:
			s = api.SeverityInfo // no fault: it goes away by itself
		}
		a.add(s, "health", i.Remedy, "%s (%s): %s", i.ID, i.Component, i.Message)
	}
	a.clean("health", "no issues, state %s", f.Health.State)
}

func (a *analysis) cpu(f api.Facts) {
	for _, c := range f.Components {
		s := level(max(c.CPUPercent, c.AveragePercent), cpuWarning, cpuCritical)
		if s != api.SeverityOK {
			remedy := map[string]string{
				"daemon":  "the daemon answers file accesses and takes events: `bulwark diagnostic hot-event-sources files` and `bulwark diagnostic ebpf-statistics` name the causes",
				"scanner": "the scanner looks at files: `bulwark top` shows for whom, `bulwark diagnostic real-time-protection-statistics --suggest` names exclusions with their risk",
			}[c.Component]
			a.add(s, "cpu", remedy, "%s (pid %d) uses %.1f %% of a CPU now, %.1f %% since its start", c.Component, c.PID, c.CPUPercent, c.AveragePercent)
		}
		if c.Resident > memoryWarning {
			a.add(api.SeverityWarning, "memory", "the scanner shares its definitions with other processes; if the memory grows, make a bundle with `bulwark diagnostic create`",
				"%s (pid %d) has %d MB in memory", c.Component, c.PID, c.Resident>>20)
		}
	}
	if f.MemoryTotal > 0 && f.MemoryAvailable < freeMemoryWarning {
		a.add(api.SeverityWarning, "memory", "end or move programs that need much memory", "the host has only %d MB of memory left", f.MemoryAvailable>>20)
	}
	var parts []string
	for _, c := range f.Components {
		parts = append(parts, fmt.Sprintf("%s %.1f %%", c.Component, c.AveragePercent))
	}
	a.clean("cpu", "since the start, of one CPU: %s", strings.Join(parts, ", "))
	a.clean("memory", "enough: %d of %d MB available", f.MemoryAvailable>>20, f.MemoryTotal>>20)
}

func (a *analysis) scanning(f api.Facts) {
	slow := slices.Clone(f.OnAccess.Files)
	slices.SortFunc(slow, func(x, y api.OnAccessFile) int { return cmp.Compare(y.MaxScanNS, x.MaxScanNS) })
	for _, file := range slow[:min(5, len(slow))] {
		took := time.Duration(file.MaxScanNS)
		if s := level(took, scanWarning, scanCritical); s != api.SeverityOK {
			a.add(s, "scanning", "`bulwark explain "+string(file.Path)+"` says what the time goes into; exclude the file if it is known to be harmless",
				"a scan of %s took %d ms; it was scanned %d times", file.Path, took.Milliseconds(), file.Scans)
		}
	}
	if n := f.OnAccess.DeadlinesMissed; n > 0 {
		a.add(api.SeverityWarning, "scanning", "`bulwark top` shows which files take long", "%d accesses were let through because the scan took too long", n)
	}
	for _, x := range f.OnAccess.Suggestions {
		a.add(api.SeverityInfo, "scanning", "bulwark exclusion "+x.Type+" add --path "+string(x.Value),
			"excluding the %s %s would save %.0f %% of the scanning; risk %s: %s", x.Type, x.Value, 100*x.Share, x.Risk, x.Why)
	}
	a.clean("scanning", "%d accesses, %d scans, %d answered from the cache", f.OnAccess.Events, f.OnAccess.Scans, f.OnAccess.CacheHits)
}

func (a *analysis) conflicts(f api.Facts) {
	if c := f.Health.ConflictingApplications; len(c) > 0 {
		a.add(api.SeverityWarning, "conflicts", "let one product alone hold accesses: remove the other, or set enforcementLevel to audit or passive here",
			"other programs hold file accesses too: %s", strings.Join(c, ", "))
	}
	a.clean("conflicts", "no other program holds file accesses")
}

func (a *analysis) definitions(f api.Facts) {
	h := f.Health
	switch age := f.Time.Sub(h.DefinitionsUpdated); {
	case h.DefinitionsStatus == "unavailable":
		a.add(api.SeverityCritical, "definitions", "`bulwark definitions info` names what did not load", "no definitions are loaded")
	case h.DefinitionsUpdated.IsZero():
	case h.DefinitionsStatus == "out_of_date":
		a.add(api.SeverityCritical, "definitions", "bulwark definitions update", "the definitions are %d days old, more than policy allows", int(age.Hours()/24))
	case age > definitionsAge:
		a.add(api.SeverityInfo, "definitions", "bulwark definitions update", "the definitions are %d hours old", int(age.Hours()))
	}
	a.clean("definitions", "version %s, loaded", h.DefinitionsVersion)
}

func (a *analysis) disks(f api.Facts) {
	for _, d := range f.Disks {
		if s := level(d.UsedPercent, diskWarning, diskCritical); s != api.SeverityOK {
			a.add(s, "disk", "free space: logs, events for the portal, history and quarantine need it", "the file system of %s is full to %.0f %% (%d MB left)", d.Folder, d.UsedPercent, d.Free>>20)
		}
		if s := level(d.InodesUsedPercent, diskWarning, diskCritical); s != api.SeverityOK {
			a.add(s, "disk", "remove files that are not needed any more", "the file system of %s has used %.0f %% of its inodes", d.Folder, d.InodesUsedPercent)
		}
		if d.ReadOnly {
			a.add(api.SeverityCritical, "disk", "look at the kernel's log for errors of the disk, then mount it writable", "the file system of %s is read-only", d.Folder)
		}
	}
	for _, folder := range f.Folders {
		if folder.Writable {
			a.add(api.SeverityCritical, "permissions", "chmod o-w "+string(folder.Folder), "everybody may write to %s (mode %s)", folder.Folder, folder.Mode)
		} else if folder.Owner != 0 && f.Service.Installed {
			a.add(api.SeverityWarning, "permissions", "chown root "+string(folder.Folder), "%s belongs to user %d", folder.Folder, folder.Owner)
		}
	}
	a.clean("disk", "enough space on %d file systems", len(f.Disks))
	a.clean("permissions", "nobody else may write to the agent's folders")
}

func (a *analysis) descriptors(f api.Facts) {
	most := 0
	for _, c := range f.Components {
		most = max(most, c.Descriptors)
		s := level(c.Descriptors, descriptorWarning, descriptorCritical)
		if c.MaxDescriptors > 0 && int64(c.Descriptors) > c.MaxDescriptors*9/10 {
			s = api.SeverityCritical
		}
		if s != api.SeverityOK {
			a.add(s, "descriptors", "make a bundle with `bulwark diagnostic create` and restart the service bulwark", "%s (pid %d) has %d of %d files open", c.Component, c.PID, c.Descriptors, c.MaxDescriptors)
		}
	}
	a.clean("descriptors", "at most %d files open", most)
}

func (a *analysis) mounts(f api.Facts) {
	if len(f.Skipped) > 0 {
		a.add(api.SeverityInfo, "mounts", "`bulwark coverage` proves which mounts are protected; unmonitoredFilesystems and nonExecMountPolicy decide",
			"%d mounts are not under real-time protection, e.g. %s", len(f.Skipped), strings.Join(f.Skipped[:min(3, len(f.Skipped))], "; "))
	}
	a.clean("mounts", "%d mounts are watched", len(f.Watched))
}

func (a *analysis) portal(f api.Facts) {
	h := f.Health
	if h.Proxy != "" {
		a.add(api.SeverityInfo, "portal", "", "the proxy %s is used", h.Proxy)
	}
	if h.EventsWaiting > 0 && h.PortalStatus != "connected" {
		a.add(api.SeverityWarning, "portal", "`bulwark connectivity test` says what is in the way", "%d batches of events wait for the portal (%s)", h.EventsWaiting, h.PortalStatus)
	}
	if h.EventsLost > 0 {
		a.add(api.SeverityWarning, "portal", "see bulwark.log for the cause", "%d events were lost on their way", h.EventsLost)
	}
	a.clean("portal", "%s", h.PortalStatus)
}

func (a *analysis) service(f api.Facts) {
	s := f.Service
	switch {
	case !s.Installed && s.Manager == "systemd":
		a.add(api.SeverityInfo, "service", "install the package", "there is no unit bulwark.service: this daemon was started in another way")
	case s.Installed && !s.EnabledAtBoot:
		a.add(api.SeverityCritical, "service", "systemctl enable bulwark", "the service does not start with the system: after a reboot the host is not protected")
	}
	if len(s.DropIns) > 0 {
		a.add(api.SeverityInfo, "service", "", "the unit has additions: %s", strings.Join(s.DropIns, ", "))
	}
	a.clean("service", "starts with the system")
}

func (a *analysis) configuration(f api.Facts) {
	for _, p := range f.Problems {
		s := api.SeverityWarning
		if !p.Warning {
			s = api.SeverityCritical
		}
		a.add(s, "configuration", "correct the file; `bulwark config validate` checks it before it is put in place", "%s:%d: %s: %s", p.File, p.Line, p.Key, p.Message)
	}
	for _, x := range f.Exclusions {
		value := string(x.Path) + x.Extension + x.Name
		if x.Warning != "" {
			a.add(api.SeverityWarning, "configuration", "look whether it is still needed: `bulwark exclusion list`", "%s exclusion of %s: %s", x.Type, value, x.Warning)
		}
	}
	a.clean("configuration", "no problems, %d exclusions", len(f.Exclusions))
}

func (a *analysis) log(f api.Facts) {
	for _, e := range f.LogErrors[:min(5, len(f.LogErrors))] {
		a.add(api.SeverityInfo, "log", "see bulwark_err.log", "%d times: %s", e.Count, e.Name)
	}
	a.clean("log", "no errors or warnings lately")
}
