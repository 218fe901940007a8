package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/config"
	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/logging"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// The tests here hold the command line to its contract with the API: the
// server, the configuration, health and log are the real ones, the rest of the
// agent is fakeAgent. Whole-system tests with the real daemon are in test/.

var start = time.Date(2026, 11, 28, 21, 4, 5, 0, time.UTC)

// fakeAgent answers with fixed data and remembers what it was asked to do.
type fakeAgent struct {
	mu         sync.Mutex
	threats    []api.Threat
	quarantine []api.QuarantineItem
	scans      []api.Scan
	released   bool          // from isolation
	running    chan struct{} // closed when the running scan is cancelled
	coverage   api.Coverage  // of the last check
	offline    bool          // the connectivity test fails
}

func eicar(path string, others ...api.Path) api.Threat {
	return api.Threat{
		ID: "3f2a", Name: "EICAR-Test-File", Type: "test", Status: "quarantined", Path: api.Path(path), OtherPaths: others, Count: int64(1 + len(others)),
		SHA256: strings.Repeat("27", 32), Size: 68, Time: start, Source: "real_time", Signature: "EICAR", Definitions: "7",
		Process: &api.ThreatProcess{PID: 4242, Name: "cat", Path: "/usr/bin/cat", CommandLine: "cat eicar.com"},
		User:    "alice",
		History: []api.ThreatHistory{{Time: start, Status: "blocked", Detail: "open"}, {Time: start.Add(time.Second), Status: "quarantined"}},
	}
}

// others is a threat of another user, as the daemon gives it to a caller who is
// no administrator.
func others() api.Threat {
	t := eicar("")
	t.ID, t.Process, t.User, t.Restricted = "9c1d", nil, "", true
	return t
}

func newFakeAgent() *fakeAgent {
	return &fakeAgent{
		threats: []api.Threat{eicar("/tmp/evil\n\x1b[2Jname"), eicar("/tmp/bad\xffname", "/tmp/copy\n", "/tmp/other"), others()},
		quarantine: []api.QuarantineItem{{
			ID: "q1", Name: "EICAR-Test-File", Type: "test", Path: "/tmp/eicar.com",
			SHA256: strings.Repeat("27", 32), Size: 68, Owner: "alice", Mode: "-rw-r--r--", Time: start,
		}, {ID: "q2", Name: "EICAR-Test-File", Type: "test", Mode: "-rw-r--r--", Time: start, Restricted: true}},
		scans: []api.Scan{{ID: "s1", Type: api.ScanQuick, State: api.ScanSucceeded, Start: start, End: start.Add(time.Minute), Files: 12345, Bytes: 1 << 30, Unchanged: 77}},
	}
}

func (f *fakeAgent) StartScan(_ context.Context, r api.ScanRequest) (api.Scan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.scans[0].State == api.ScanRunning {
		return api.Scan{}, &api.Error{Code: api.Conflict, Message: "a scan is running already", Hint: "bulwark scan cancel ends it"}
	}
	s := api.Scan{ID: "s2", Type: r.Type, State: api.ScanRunning, Paths: r.Paths, Start: start, StartedBy: "root"}
	f.running = make(chan struct{})
	f.scans = append([]api.Scan{s}, f.scans...)
	return s, nil
}

// FollowScan ends a scan by itself unless its path says otherwise: "infected"
// finds a threat, "endless" runs until it is cancelled, "failing" fails.
func (f *fakeAgent) FollowScan(ctx context.Context, id string, send func(api.ScanProgress) error) error {
	f.mu.Lock()
	s := f.scans[0]
	running := f.running
	f.mu.Unlock()
	if id == control.CurrentScan {
		id = s.ID
	}
	if s.ID != id {
		return &api.Error{Code: api.NotFound, Message: "there is no scan " + id}
	}
	kind := ""
	if len(s.Paths) > 0 {
		kind = filepath.Base(string(s.Paths[0]))
	}
	s.Files, s.Bytes = 1, 100
	if err := send(api.ScanProgress{Scan: s, Current: "/tmp/x", FilesTotal: 3, BytesTotal: 300, Counted: true}); err != nil {
		return err
	}
	s.Files, s.Bytes, s.State, s.End = 3, 300, api.ScanSucceeded, start.Add(2*time.Second)
	s.SkippedBy = map[string]int64{"symbolic link": 8}
	s.Skipped = 8
	p := api.ScanProgress{}
	switch kind {
	case "endless":
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-running:
			s.State, s.Reason = api.ScanCancelled, "by root"
		}
	case "infected":
		s.Threats, s.ThreatIDs = 1, []string{"3f2a"}
		p.Detections = []api.ScanDetection{{ID: "3f2a", Name: "EICAR-Test-File", Path: "/tmp/infected/a.zip", Inside: []string{"b/eicar.com"}, Action: "quarantined"}}
	case "leftovers":
		s.Unchanged, s.Partly, s.Encrypted, s.Errors, s.Skipped, s.Resumed = 12345, 3, 2, 4, 14, 1
		s.SkippedBy = map[string]int64{"symbolic link": 8, "excluded": 5, "not a regular file": 1, "scanned in part": 3, "cannot be opened": 4}
	case "failing":
		s.State, s.Reason = api.ScanFailed, "the scanner does not start"
	}
	p.Scan = s
	f.mu.Lock()
	f.scans[0] = s
	f.mu.Unlock()
	return send(p)
}

func (f *fakeAgent) CancelScan(_ context.Context, id string) (api.Scan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.scans[0]
	if s.State != api.ScanRunning || id != s.ID && id != control.CurrentScan {
		return api.Scan{}, &api.Error{Code: api.NotFound, Message: "no scan is running"}
	}
	close(f.running)
	s.State = api.ScanCancelled
	return s, nil
}

func (f *fakeAgent) Scan(_ context.Context, id string) (api.ScanDetails, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.scans {
		if s.ID == id {
			return api.ScanDetails{Scan: s, SkippedFiles: []api.SkippedFile{{Path: "/srv/bad\xff\n.zip", Reason: "scanned in part: encrypted"}}}, nil
		}
	}
	return api.ScanDetails{}, &api.Error{Code: api.NotFound, Message: "no scan has the id " + id}
}

func (f *fakeAgent) ScanHistory(context.Context) ([]api.Scan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]api.Scan(nil), f.scans...), nil
}

// threatsWithPolicy joins the history with the configuration's part, as the
// daemon does.
type threatsWithPolicy struct {
	*config.Manager
	agent *fakeAgent
}

func (t threatsWithPolicy) ListThreats(context.Context) ([]api.Threat, error) {
	t.agent.mu.Lock()
	defer t.agent.mu.Unlock()
	return append([]api.Threat(nil), t.agent.threats...), nil
}

func (t threatsWithPolicy) Threat(ctx context.Context, id string) (api.Threat, error) {
	all, err := t.ListThreats(ctx)
	for _, th := range all {
		if th.ID == id {
			return th, err
		}
	}
	return api.Threat{}, &api.Error{Code: api.NotFound, Message: "there is no threat " + id, Hint: "bulwark threat list shows them"}
}

func (f *fakeAgent) ListQuarantine(context.Context) ([]api.QuarantineItem, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]api.QuarantineItem(nil), f.quarantine...), nil
}

func (f *fakeAgent) AddToQuarantine(_ context.Context, t api.ThreatID) error {
	if t.ID != "3f2a" && t.Path != "/tmp/eicar.com" {
		return &api.Error{Code: api.NotFound, Message: "there is no threat " + t.ID + string(t.Path)}
	}
	return nil
}

func (f *fakeAgent) RemoveFromQuarantine(_ context.Context, t api.ThreatID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, item := range f.quarantine {
		if item.ID == t.ID || item.Path != "" && item.Path == t.Path {
			f.quarantine = slices.Delete(f.quarantine, i, i+1)
			return nil
		}
	}
	return &api.Error{Code: api.NotFound, Message: "there is no quarantined file " + t.ID + string(t.Path)}
}

func (f *fakeAgent) EmptyQuarantine(context.Context) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.quarantine)
	f.quarantine = nil
	return n, nil
}

func (f *fakeAgent) RestoreFromQuarantine(_ context.Context, r api.RestoreRequest) (api.Restored, error) {
	if r.ID != "q1" && r.Path != "/tmp/eicar.com" {
		return api.Restored{}, &api.Error{Code: api.NotFound, Message: "there is no such quarantined file"}
	}
	folder := "/tmp"
	if r.Destination != "" {
		folder = string(r.Destination)
	}
	return api.Restored{ID: "q1", Path: api.Path(filepath.Join(folder, "eicar.com"))}, nil
}

func (f *fakeAgent) Definitions(context.Context) (api.Definitions, error) {
	return api.Definitions{
		Version: "7", Engine: "1.0", Updated: start, Status: "up_to_date", Folder: "/var/opt/bulwark/definitions", Signatures: 1234,
		Sources: []api.DefinitionsSource{{Name: "own.ndb", Format: "ndb", Signatures: 1234, Unsupported: 2}}, Problems: []api.ConfigProblem{},
		Update: api.DefinitionsUpdate{Source: "https://portal.example/definitions", Release: "2026.1128.7", Offline: "disabled", Verify: "enabled", Held: []string{}},
	}, nil
}

func (f *fakeAgent) UpdateDefinitions(ctx context.Context, send func(api.DefinitionsProgress) error) error {
	d, err := f.Definitions(ctx)
	return errors.Join(err,
		send(api.DefinitionsProgress{Text: "Fetching release 7", Done: 1 << 20, Total: 2 << 20}),
		send(api.DefinitionsProgress{Result: &api.DefinitionsResult{Message: "Definitions are up to date", Definitions: d}}))
}

func (f *fakeAgent) ReloadDefinitions(ctx context.Context) (api.DefinitionsResult, error) {
	d, err := f.Definitions(ctx)
	d.Problems = []api.ConfigProblem{{File: "/defs/broken.ndb", Line: 2, Message: "not a signature: expected name:type:offset:pattern"}}
	return api.DefinitionsResult{Changed: true, Message: "Definitions reloaded", Definitions: d}, err
}

func (f *fakeAgent) RestoreDefinitions(ctx context.Context) (api.DefinitionsResult, error) {
	d, err := f.Definitions(ctx)
	return api.DefinitionsResult{Changed: true, Message: "Definitions restored", Definitions: d}, err
}

func (f *fakeAgent) SetDefinitionsPath(ctx context.Context, folder string) (api.DefinitionsResult, error) {
	if folder == "/nonexistent" {
		return api.DefinitionsResult{}, &api.Error{Code: api.InvalidArgument, Message: "definitions cannot be taken from there"}
	}
	d, err := f.Definitions(ctx)
	if folder != "" {
		d.Folder = api.Path(folder)
	}
	return api.DefinitionsResult{Changed: true, Message: "Definitions reloaded", Definitions: d}, err
}

func (f *fakeAgent) Isolation(context.Context) (api.Isolation, error) {
	if f.released {
		return api.Isolation{Status: api.NotIsolated}, nil
	}
	return api.Isolation{Status: api.Isolated, Order: "0123", Since: time.Date(2026, 11, 29, 1, 2, 3, 0, time.UTC), Allowed: []string{"10.1.0.0/16:22"}, Portal: []string{"192.0.2.1:443"}}, nil
}

func (f *fakeAgent) ReleaseIsolation(_ context.Context, token string) (api.Done, error) {
	if token != "bulwark-release-v1.good" {
		return api.Done{}, &api.Error{Code: api.PermissionDenied, Message: "this is not a release token", Hint: "make a new one"}
	}
	f.released = true
	return api.Done{Message: "Host released from isolation"}, nil
}

func (f *fakeAgent) Offboard(context.Context) (api.Done, error) {
	return api.Done{Message: "Host offboarded"}, nil
}

func (f *fakeAgent) Explain(_ context.Context, r api.ExplainRequest) (api.Explanation, error) {
	if filepath.Base(string(r.Path)) == "missing" {
		return api.Explanation{}, &api.Error{Code: api.NotFound, Message: string(r.Path) + ": there is no such file"}
	}
	e := api.Explanation{
		Path: r.Path, Resolved: r.Path, Size: 68, Mode: "-rw-r--r--", Owner: "alice", Modified: "2026-11-28T21:04:05Z", SHA256: strings.Repeat("27", 32),
		Decision: api.DecisionBlocked, Reason: "the signature EICAR-Test-File matches, and policy blocks that type", EnforcementLevel: "real_time",
		Mount: "/", Filesystem: "ext4", Watched: true, Exclusions: []api.Exclusion{}, ScanExclusions: []api.Exclusion{{Type: "extension", Extension: ".x", Scopes: []string{"epp"}, Origin: "local"}},
		Verdict: &api.ExplainedVerdict{
			Engine: "1.0", Definitions: "7", Objects: 1, Bytes: 68, DurationMS: 1.25, Limits: []string{},
			Matches: []api.ExplainedMatch{{Name: "EICAR-Test-File", Type: "test", Signature: "EICAR", Source: "own.ndb", Offset: 0, Bytes: "58354f2150", Action: "block"}},
		},
		Way: []api.ExplainedStep{{Name: "verdict cache", Result: "known: an access is answered at once"}, {Name: "scan", Result: "1 signatures matched", DurationMS: 1.25}},
	}
	t := eicar("/tmp/x")
	e.Threat = &t
	return e, nil
}

// sensed is an event as sensors deliver it, with text that must not reach a
// terminal as it is.
func sensed() event.Event {
	return event.Event{
		ReportID: 7, Time: start, Class: event.ClassNetwork, Action: event.DNSResponse,
		Initiating: event.Process{PID: 42, StartTime: start, FileName: "cu\x1b[2Jrl", FolderPath: "/usr/bin/curl"},
		Network:    event.Network{RemoteIP: "192.0.2.53", RemotePort: 53, RemoteURL: "example.org", Protocol: "Udp"},
		Additional: map[string]string{"QueryType": "A", "Answers": "192.0.2.1"},
	}
}

func (f *fakeAgent) RecentEvents(_ context.Context, filter api.EventFilter) (api.SensorEvents, error) {
	if filter.Category == "nonsense" {
		return api.SensorEvents{}, &api.Error{Code: api.InvalidArgument, Message: "category \"nonsense\" is unknown"}
	}
	return api.SensorEvents{Events: []event.Event{sensed()}}, nil
}

func (f *fakeAgent) FollowSensorEvents(ctx context.Context, _ api.EventFilter, send func(api.SensorEvents) error) error {
	if err := send(api.SensorEvents{Events: []event.Event{sensed()}, Missed: 3}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (f *fakeAgent) ProcessTree(_ context.Context, pid int64) (api.ProcessTree, error) {
	if pid != 42 {
		return api.ProcessTree{}, &api.Error{Code: api.NotFound, Message: "process is not known"}
	}
	return api.ProcessTree{PID: pid, Processes: []api.TreeProcess{
		{Process: event.Process{PID: 1, StartTime: start, FileName: "init", FolderPath: "/sbin/init", AccountName: "root"}},
		{Depth: 1, Ended: true, Process: event.Process{PID: 42, StartTime: start, FileName: "curl", CommandLine: "curl ex\x1b[2Jample.org", AccountName: "root"}},
	}}, nil
}

func (f *fakeAgent) FollowEventStatistics(ctx context.Context, send func(api.EventStatistics) error) error {
	for n := int64(1); ; n++ {
		err := send(api.EventStatistics{
			Start: start, End: start.Add(time.Duration(n) * time.Minute), Subsystem: "ebpf",
			Files:      []api.NamedCount{{Name: "/usr/bin/true", Count: n}},
			Initiators: []api.NamedCount{{Name: "/usr/bin/ma\x1b[2Jke", Count: n}},
			Syscalls:   []api.NamedCount{{Name: "59", Count: n}},
			Counters:   []api.NamedCount{{Name: "process_count", Count: n}, {Name: "dropped_count"}},
		})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (f *fakeAgent) CheckProductUpdate(context.Context) (api.ProductUpdate, error) {
	return api.ProductUpdate{
		Installed: version, Latest: version, State: api.UpdateNone, Channel: "prod", Published: start.AddDate(0, 0, -3), Rollout: 100,
		Source: "https://portal.example:8443/repo", Entry: "/etc/apt/sources.list.d/bulwark-prod.list",
		Command: "apt-get update && apt-get install --only-upgrade bulwark", Expiry: api.ExpiryValid, Expires: start.AddDate(0, 8, 0), Checked: start,
	}, nil
}

func (f *fakeAgent) TestConnectivity(_ context.Context, send func(api.ConnectivityResult) error) error {
	if err := send(api.ConnectivityResult{URL: "https://portal.example:8443/", Purpose: "portal", OK: true, DurationMS: 12}); err != nil {
		return err
	}
	f.mu.Lock()
	offline := f.offline
	f.mu.Unlock()
	if !offline {
		return nil
	}
	return send(api.ConnectivityResult{URL: "https://mirror.example/", Purpose: "definitions", Detail: "connection refused", Hint: "look at the proxy setting"})
}

func (f *fakeAgent) SelfTest(_ context.Context, send func(api.SelfTestStep) error) error {
	return errors.Join(
		send(api.SelfTestStep{Name: "a test file is blocked", Status: api.StepOK, DurationMS: 1.5}),
		send(api.SelfTestStep{Name: "the alert reaches the portal", Status: api.StepSkipped, Detail: "not enrolled", Hint: "enroll"}))
}

func (f *fakeAgent) CreateDiagnostic(_ context.Context, r api.DiagnosticRequest) (api.Diagnostic, error) {
	folder := "/var/opt/bulwark/diagnostic"
	if r.Folder != "" {
		folder = string(r.Folder)
	}
	return api.Diagnostic{Path: api.Path(folder + "/bundle.zip"), Size: 1000}, nil
}

func (f *fakeAgent) Facts(context.Context) (api.Facts, error) {
	facts := api.Facts{
		Time: start, Kernel: "6.1", Distribution: "Debian", CPUs: 2, MemoryTotal: 1 << 32, MemoryAvailable: 1 << 31, Load: []float64{1}, SELinux: "absent",
		Health: api.Health{
			State: api.StateHealthy, DefinitionsStatus: "up_to_date", DefinitionsUpdated: start, PortalStatus: "connected",
			HealthIssues: []string{}, Managed: []string{}, ConflictingApplications: []string{}, Issues: []api.Issue{}, EDRDeviceTags: []api.Tag{},
		},
		Components: []api.FactsProcess{{Component: "daemon", PID: 10, CPUPercent: 80, AveragePercent: 1}},
		Disks:      []api.FactsDisk{{Folder: "/var/opt/bulwark", Filesystem: "ext4", Total: 1 << 30, Free: 1 << 27, UsedPercent: 87.5}},
		Folders:    []api.FactsFolder{}, Watched: []string{"/ (ext4)"}, Skipped: []string{}, Exclusions: []api.Exclusion{}, Problems: []api.ConfigProblem{},
		Service:  api.FactsService{Manager: "systemd", Installed: true, EnabledAtBoot: true, DropIns: []string{}},
		OnAccess: api.OnAccess{Processes: []api.OnAccessProcess{}, Files: []api.OnAccessFile{{Path: "/srv/<b>big", Scans: 2, MaxScanNS: 700_000_000}}, Suggestions: []api.ExclusionSuggestion{}},
		Sysctls:  map[string]string{"kernel.pid_max": "4194304"}, LogErrors: []api.NamedCount{{Name: "error: scanner: N files", Count: 3}},
	}
	return facts, nil
}

func (f *fakeAgent) Outgoing(context.Context) (api.Outgoing, error) {
	return api.Outgoing{
		Portal: "https://portal.example:8443/", Status: "connected", DiagnosticLevel: "required", SampleSubmission: "safe",
		Device: []byte(`{"hostName":"h"}`), Health: []byte(`{"healthy":true}`), EventsWaiting: 1, EventsByClass: map[string]int64{"process": 1234},
		Events: []json.RawMessage{[]byte(`{"action":"ProcessCreated"}`)}, Alerts: []json.RawMessage{}, Notes: []string{"Files: none."},
		Samples: []api.OutgoingSample{{Path: "/tmp/evil\n\x1b[2Jname", SHA256: strings.Repeat("27", 32), Size: 68, Kind: "script", Found: start, AlertID: "a1"}},
	}, nil
}

func (f *fakeAgent) RealTimeStatistics(context.Context) ([]api.Counter, error) {
	return []api.Counter{
		{ID: 10, Name: "cat", Path: "/usr/bin/cat", FilesScanned: 5, ScanTime: 5000, MaxFileScanTime: 4000},
		{ID: 20, Active: true, Name: "make", Path: "/usr/bin/make", FilesScanned: 50, ScanTime: 50000, MaxFileScanTime: 9000},
	}, nil
}

func (f *fakeAgent) Coverage(context.Context) (api.Coverage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.coverage, nil
}

func (f *fakeAgent) CheckCoverage(context.Context) (api.Coverage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.coverage = api.Coverage{
		Checked: start, DurationMS: 12.5, Namespaces: 2, Percent: 50, Protected: 1, Unprotected: 1, NotApplicable: 1,
		Mounts: []api.CoverageMount{
			{Point: "/", Filesystem: "ext4", Namespace: "1", Status: "protected"},
			{Point: "/proc", Filesystem: "proc", Namespace: "1", Status: "not_applicable", Reason: "the kernel's own file system: holds no files"},
			{Point: "/mnt/\x1b[2Jshare", Filesystem: "nfs", Namespace: "2", PID: 77, Process: "/usr/sbin/nginx", Status: "unprotected", Reason: "file system type is excluded by unmonitoredFilesystems"},
		},
	}
	return f.coverage, nil
}

func (f *fakeAgent) FollowOnAccess(ctx context.Context, send func(api.OnAccess) error) error {
	for n := int64(1); ; n++ {
		err := send(api.OnAccess{
			Time: start.Add(time.Duration(n) * time.Second), Mode: "real_time", Holding: true, Events: 1000 * n, Scans: 55, CacheHits: 900, Denied: 2,
			Processes: []api.OnAccessProcess{
				{PID: 10, Name: "cat", Path: "/usr/bin/cat", Files: 5, Bytes: 9_000_000, CacheHits: 2, Denied: 2, ScanNS: 5_000_000, MaxScanNS: 4_000_000},
				{PID: 20, Name: "ma\x1b[2Jke", Path: "/usr/bin/make", Active: true, Files: 50, Bytes: 1000, CacheHits: 898, ScanNS: 50_000_000, MaxScanNS: 9_000_000},
			},
			Files: []api.OnAccessFile{{Path: "/tmp/x\ny", Scans: 50, Bytes: 1000, Denied: 2, ScanNS: 50_000_000, MaxScanNS: 9_000_000}},
			Suggestions: []api.ExclusionSuggestion{{
				Type: "folder", Value: "/srv/data", Scans: 50, SavesNS: 900_000_000, Share: 0.9, Risk: "medium", Why: "the user 33 or a group can write there",
			}},
		})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (f *fakeAgent) FollowHotEventSources(ctx context.Context, kind string, send func(api.HotEventSources) error) error {
	path := map[string]api.Path{"files": "/var/log/syslog", "executables": "/usr/bin/make"}[kind]
	for n := int64(1); ; n++ {
		err := send(api.HotEventSources{Start: start.UnixMicro(), End: start.Add(12 * time.Second).UnixMicro(), Total: 120 * n, Sources: []api.HotEventSource{
			{Auth: 100, Notify: 10, Path: path, Processes: 3}, {Auth: 10, Path: "/tmp/\x1b[2J", Processes: 1},
		}})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (f *fakeAgent) FollowEvents(ctx context.Context, send func(api.AgentEvent) error) error {
	if err := send(api.AgentEvent{Time: start, Kind: "health", Text: "healthy"}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// fakeEDR keeps tags in the configuration, as the daemon does.
type fakeEDR struct{ config.EDRSettings }

func (e fakeEDR) EDR(context.Context) (api.EDR, error) {
	out := api.EDR{
		MachineID: strings.Repeat("ab", 20), OrgID: "org", Portal: "https://portal.example:8443/", PortalStatus: "connected",
		Sensors: map[string]string{"process": "ebpf"}, MissingClasses: []string{"dns"}, Tags: []api.Tag{},
	}
	for _, t := range e.Manager.Current().Tags() {
		out.Tags = append(out.Tags, api.Tag{Key: t.Key, Value: t.Value})
	}
	return out, nil
}

func (e fakeEDR) Rules(context.Context) (api.Rules, error) {
	return api.Rules{Rules: []api.Rule{
		{ID: "r1", Title: "Cheap rule", Severity: "Low", Techniques: []string{"T1033"}, Stream: "process_creation", File: "a.yml", Builtin: true, State: "active", Evaluated: 10, Matched: 1, MeanNanoseconds: 900},
		{ID: "r2", Title: "Dear rule", Severity: "High", Techniques: []string{}, Stream: "file_event", File: "/etc/opt/bulwark/rules/b.yml", State: "paused", Evaluated: 5000, Matched: 2, Skipped: 7, MeanNanoseconds: 120000},
		{ID: "r3", Title: "Windows rule", Severity: "Medium", Techniques: []string{}, File: "c.yml", State: "inactive", Reason: "is for product windows"},
	}}, nil
}

// daemon is a running fake daemon.
type daemon struct {
	agent    *fakeAgent
	manager  *config.Manager
	dirs     layout.Dirs
	licensed bool
}

// startDaemon serves the API below root until the returned function is called.
func startDaemon(root string, licensed bool) (*daemon, func() error, error) {
	dirs := layout.Under(root)
	discard := slog.New(slog.DiscardHandler)
	manager, err := config.Open(config.PathsUnder(dirs.Managed(), dirs.State), discard)
	if err != nil {
		return nil, nil, err
	}
	log, err := logging.Open(logging.Options{Dir: dirs.Log})
	if err != nil {
		return nil, nil, err
	}
	d := &daemon{agent: newFakeAgent(), manager: manager, dirs: dirs, licensed: licensed}
	product := health.Product{Version: version, Commit: commit, Built: start.AddDate(0, -1, 0), MachineGUID: "guid"}
	registry := health.NewRegistry(discard)
	registry.Register("product", product.Source(func() time.Time { return start }))
	registry.Register("config", manager.HealthReport)
	registry.Register("log", log.HealthReport)
	registry.Register("portal", func(context.Context) health.Report {
		r := health.Report{Fill: func(h *api.Health) {
			h.Licensed = licensed
			if licensed {
				h.OrgID, h.PortalStatus, h.PortalURL = "org", "connected", "https://portal.example:8443/"
			}
		}, Details: []api.Field{{Name: "portal_status", Value: "connected"}, {Name: "attempts", Value: 3}}}
		if !licensed {
			r.Issues = []api.Issue{health.NotEnrolled(dirs.Onboarding())}
		}
		return r
	})
	registry.Register("definitions", func(context.Context) health.Report {
		return health.Report{Fill: func(h *api.Health) {
			h.EngineVersion, h.EngineLoadStatus, h.DefinitionsVersion, h.DefinitionsStatus = "1.0", "Engine load succeeded", "7", "up_to_date"
			h.DefinitionsUpdated, h.DefinitionsUpdatedMinAgo = start, 5
		}, Issues: []api.Issue{{ID: "definitions are old", Warning: true, Message: "they are 8 days old", Remedy: "run bulwark definitions update"}}}
	})
	server := control.New(control.Services{
		Licensed: func() bool { return licensed },
		Health:   health.Service{Registry: registry, Product: product},
		Scans:    d.agent, Threats: threatsWithPolicy{manager, d.agent}, Quarantine: d.agent, Definitions: d.agent,
		Config: manager, Exclusions: manager, Log: config.LogService{Manager: manager, Log: log},
		Connectivity: d.agent, SelfTest: d.agent, Updates: d.agent, Diagnostics: d.agent, Statistics: d.agent, Coverage: d.agent, EDR: fakeEDR{config.EDRSettings{Manager: manager}}, Events: d.agent,
		EventCounts: d.agent, SensorEvents: d.agent, Explain: d.agent, Offboard: d.agent, Isolation: d.agent,
	}, discard)
	listener, err := control.Listen(dirs.Socket())
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	return d, func() error {
		cancel()
		return errors.Join(<-served, log.Close(5*time.Second))
	}, nil
}

func runDaemon(t *testing.T, licensed bool) *daemon {
	t.Helper()
	d, stop, err := startDaemon(t.TempDir(), licensed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}
