package diagnostic

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// good is a host without anything to say about.
func good() api.Facts {
	return api.Facts{
		Time: now, MemoryTotal: 8 << 30, MemoryAvailable: 4 << 30,
		Health:     api.Health{State: api.StateHealthy, DefinitionsStatus: "up_to_date", DefinitionsUpdated: now.Add(-time.Hour), PortalStatus: "connected"},
		Components: []api.FactsProcess{{Component: "daemon", CPUPercent: 1, AveragePercent: 1, Descriptors: 50, MaxDescriptors: 65536}},
		Disks:      []api.FactsDisk{{Folder: "/var/opt/bulwark", UsedPercent: 50, InodesUsedPercent: 1}},
		Folders:    []api.FactsFolder{{Folder: "/var/opt/bulwark", Mode: "0755"}},
		Watched:    []string{"/ (ext4)"},
		Service:    api.FactsService{Manager: "systemd", Installed: true, EnabledAtBoot: true},
	}
}

func TestAnalyze(t *testing.T) {
	if a := Analyze(good()); a.Worst != api.SeverityOK || len(a.Findings) < 10 {
		t.Errorf("a good host: %s, %+v", a.Worst, a.Findings)
	}
	for name, tt := range map[string]struct {
		change   func(*api.Facts)
		severity api.Severity
		area     string
		contains string
	}{
		"CPU now":        {func(f *api.Facts) { f.Components[0].CPUPercent = 45 }, api.SeverityWarning, "cpu", "45.0 %"},
		"CPU on average": {func(f *api.Facts) { f.Components[0].AveragePercent = 70 }, api.SeverityCritical, "cpu", "70.0 %"},
		"memory":         {func(f *api.Facts) { f.Components[0].Resident = 600 << 20 }, api.SeverityWarning, "memory", "600 MB"},
		"host's memory":  {func(f *api.Facts) { f.MemoryAvailable = 1 << 20 }, api.SeverityWarning, "memory", "only 1 MB"},
		"slow file":      {func(f *api.Facts) { f.OnAccess.Files = []api.OnAccessFile{{Path: "/big", MaxScanNS: 150e6}} }, api.SeverityWarning, "scanning", "/big took 150 ms"},
		"very slow file": {func(f *api.Facts) { f.OnAccess.Files = []api.OnAccessFile{{Path: "/big", MaxScanNS: 500e6}} }, api.SeverityCritical, "scanning", "500 ms"},
		"deadlines":      {func(f *api.Facts) { f.OnAccess.DeadlinesMissed = 3 }, api.SeverityWarning, "scanning", "3 accesses"},
		"suggestion": {func(f *api.Facts) {
			f.OnAccess.Suggestions = []api.ExclusionSuggestion{{Type: "folder", Value: "/srv", Share: .5}}
		}, api.SeverityInfo, "scanning", "50 %"},
		"conflict":        {func(f *api.Facts) { f.Health.ConflictingApplications = []string{"other"} }, api.SeverityWarning, "conflicts", "other"},
		"no definitions":  {func(f *api.Facts) { f.Health.DefinitionsStatus = "unavailable" }, api.SeverityCritical, "definitions", "no definitions"},
		"old definitions": {func(f *api.Facts) { f.Health.DefinitionsUpdated = now.Add(-30 * time.Hour) }, api.SeverityInfo, "definitions", "30 hours"},
		"stale definitions": {func(f *api.Facts) {
			f.Health.DefinitionsStatus, f.Health.DefinitionsUpdated = "out_of_date", now.AddDate(0, 0, -10)
		}, api.SeverityCritical, "definitions", "10 days"},
		"disk":               {func(f *api.Facts) { f.Disks[0].UsedPercent = 86 }, api.SeverityWarning, "disk", "86 %"},
		"full disk":          {func(f *api.Facts) { f.Disks[0].UsedPercent = 95 }, api.SeverityCritical, "disk", "95 %"},
		"inodes":             {func(f *api.Facts) { f.Disks[0].InodesUsedPercent = 99 }, api.SeverityCritical, "disk", "inodes"},
		"read-only":          {func(f *api.Facts) { f.Disks[0].ReadOnly = true }, api.SeverityCritical, "disk", "read-only"},
		"writable folder":    {func(f *api.Facts) { f.Folders[0].Writable = true }, api.SeverityCritical, "permissions", "everybody"},
		"folder of somebody": {func(f *api.Facts) { f.Folders[0].Owner = 1000 }, api.SeverityWarning, "permissions", "user 1000"},
		"descriptors":        {func(f *api.Facts) { f.Components[0].Descriptors = 5000 }, api.SeverityWarning, "descriptors", "5000"},
		"descriptor limit":   {func(f *api.Facts) { f.Components[0].MaxDescriptors = 52 }, api.SeverityCritical, "descriptors", "50 of 52"},
		"mounts":             {func(f *api.Facts) { f.Skipped = []string{"/mnt (nfs): excluded"} }, api.SeverityInfo, "mounts", "/mnt (nfs)"},
		"waiting events":     {func(f *api.Facts) { f.Health.EventsWaiting, f.Health.PortalStatus = 7, "unreachable" }, api.SeverityWarning, "portal", "7 batches"},
		"proxy":              {func(f *api.Facts) { f.Health.Proxy = "http://p:1" }, api.SeverityInfo, "portal", "http://p:1"},
		"not at boot":        {func(f *api.Facts) { f.Service.EnabledAtBoot = false }, api.SeverityCritical, "service", "not protected"},
		"no unit":            {func(f *api.Facts) { f.Service = api.FactsService{Manager: "systemd"} }, api.SeverityInfo, "service", "no unit"},
		"configuration":      {func(f *api.Facts) { f.Problems = []api.ConfigProblem{{File: "m", Line: 2, Key: "k", Message: "wrong"}} }, api.SeverityCritical, "configuration", "m:2: k: wrong"},
		"exclusion":          {func(f *api.Facts) { f.Exclusions = []api.Exclusion{{Type: "folder", Path: "/", Warning: "everything"}} }, api.SeverityWarning, "configuration", "everything"},
		"issue":              {func(f *api.Facts) { f.Health.Issues = []api.Issue{{ID: "x", Component: "c", Message: "m"}} }, api.SeverityCritical, "health", "x (c): m"},
		"starting": {func(f *api.Facts) {
			f.Health.Issues = []api.Issue{{ID: "x", Component: "c", Message: "m", State: api.StateStarting}}
		}, api.SeverityInfo, "health", "x (c): m"},
		"log": {func(f *api.Facts) { f.LogErrors = []api.NamedCount{{Name: "error: x", Count: 4}} }, api.SeverityInfo, "log", "4 times: error: x"},
	} {
		f := good()
		tt.change(&f)
		a := Analyze(f)
		if a.Worst != tt.severity {
			t.Errorf("%s: worst is %s, want %s: %+v", name, a.Worst, tt.severity, a.Findings[0])
		}
		found := a.Findings[0]
		if found.Area != tt.area || !strings.Contains(found.Message, tt.contains) || found.Remedy == "" && tt.area != "portal" && tt.area != "health" {
			t.Errorf("%s: %+v", name, found)
		}
		// An area with a problem is not called good besides.
		if slices.ContainsFunc(a.Findings, func(x api.Finding) bool { return x.Area == tt.area && x.Severity == api.SeverityOK }) {
			t.Errorf("%s: the area is also called good", name)
		}
	}
}

func TestReport(t *testing.T) {
	f := good()
	f.OnAccess.Files = []api.OnAccessFile{{Path: `/tmp/<script>alert("x")</script>`, MaxScanNS: 1e9}}
	var page bytes.Buffer
	if err := Report(&page, Analyze(f)); err != nil {
		t.Fatal(err)
	}
	if s := page.String(); strings.Contains(s, "<script>") || !strings.Contains(s, "&lt;script&gt;") || !strings.HasSuffix(strings.TrimSpace(s), "</html>") {
		t.Error("a file's name is not escaped, or the page is not whole")
	}
}

func TestCollect(t *testing.T) {
	logs := filepath.Join(t.TempDir(), "bulwark_err.log")
	text := strings.Repeat("[1][scanner][2026-11-28 21:04:05.123456 UTC][error]: no verdict of 17 files password=Geheim\n", 3) +
		"[1][portal][2026-11-28 21:04:05.123456 UTC][warning]: waiting\nbroken\n[1][x][2026 UTC][info]: no problem\n"
	if err := os.WriteFile(logs, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), "/bin/sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait() // killed
	}()
	f := api.Facts{}
	if err := (Host{PID: os.Getpid(), Folders: []string{t.TempDir(), "/"}, ErrorLog: logs, Root: t.TempDir()}).Collect(t.Context(), &f); err != nil {
		t.Fatal(err)
	}
	if f.Kernel == "" || f.CPUs == 0 || f.MemoryTotal == 0 || f.UptimeSeconds == 0 || len(f.Load) != 3 || len(f.Disks) != 2 || f.Disks[1].Filesystem == "" || len(f.Folders) < 2 {
		t.Errorf("%+v", f)
	}
	if i := slices.IndexFunc(f.Components, func(p api.FactsProcess) bool { return p.PID == child.Process.Pid }); i < 0 ||
		f.Components[i].Component != "60" || f.Components[i].Threads != 1 || f.Components[i].Resident == 0 || f.Components[i].Descriptors == 0 {
		t.Errorf("the child is missing or wrong: %+v", f.Components)
	}
	if f.Components[0].PID != os.Getpid() || f.Components[0].Component != "daemon" {
		t.Errorf("%+v", f.Components[0])
	}
	if len(f.LogErrors) != 2 || f.LogErrors[0].Count != 3 || f.LogErrors[0].Name != "error: scanner: no verdict of N files password=xxxxx" {
		t.Errorf("%+v", f.LogErrors)
	}
	if f.Service.Installed || f.Service.EnabledAtBoot || f.Service.Manager != "other" {
		t.Errorf("%+v", f.Service)
	}
}

func TestService(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{
		"run/systemd/system/x", "usr/lib/systemd/system/bulwark.service", "etc/systemd/system/multi-user.target.wants/bulwark.service",
		"etc/systemd/system/bulwark.service.d/own.conf",
	} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if s := (Host{Root: root}).Service(); s.Manager != "systemd" || !s.Installed || !s.EnabledAtBoot || len(s.DropIns) != 1 {
		t.Errorf("%+v", s)
	}
}
