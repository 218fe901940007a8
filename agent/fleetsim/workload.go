package fleetsim

import (
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"path"
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// kind is a sort of server: what it does, more often what is there more often.
type kind struct {
	name string
	does []activity
}

// maxSpan is how long an activity takes at most: nothing is told of the future.
const maxSpan = 5 * time.Second

// activity makes the events of one thing that a server does, with times from at
// to at + maxSpan.
type activity func(w *workload, at time.Time) []event.Event

var kinds = []kind{
	{"web", []activity{request, request, request, request, request, lookup, cron, guess, guess, monitor}},
	{"database", []activity{query, query, query, query, lookup, cron, backup, monitor, monitor}},
	{"build", []activity{compile, compile, compile, compile, fetch, lookup, cron, session}},
	{"container", []activity{request, request, start, lookup, lookup, probe, probe, monitor}},
	{"shell", []activity{session, session, lookup, fetch, cron, guess, upgrade, monitor}},
}

// workload makes events of one device. Only one goroutine uses it.
type workload struct {
	r        *rand.Rand
	d        *device
	reportID uint64
	pid      int64
	services map[string]event.Process
}

func newWorkload(d *device, r *rand.Rand) *workload {
	return &workload{r: r, d: d, pid: 1000 + r.Int64N(30_000), services: map[string]event.Process{}, reportID: uint64(time.Now().UnixMicro())}
}

// next makes the events of the next thing that the server does; at least one.
func (w *workload) next(at time.Time) []event.Event {
	es := w.d.kind.does[w.r.IntN(len(w.d.kind.does))](w, at.Add(-maxSpan))
	for i := range es {
		w.reportID++
		es[i].ReportID = w.reportID
	}
	return es
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// digest is the SHA-256 of the program or file of that name and release: the
// same on all devices that have the same.
func digest(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// service returns the process of a daemon, which is there since the boot.
func (w *workload) service(file, commandLine, account string, uid int64) event.Process {
	p, ok := w.services[file]
	if !ok {
		p = event.Process{
			PID: 300 + int64(len(w.services))*7, StartTime: w.d.started, FileName: path.Base(file), FolderPath: file, CommandLine: commandLine,
			SHA256: digest(file + w.d.info.OsVersion), UID: uid, AccountName: account, LoginUID: -1, WorkingDir: "/", ParentPID: 1, ParentFileName: "systemd",
		}
		w.services[file] = p
	}
	return p
}

// child is a new process of parent.
func (w *workload) child(parent event.Process, at time.Time, file, commandLine string) event.Process {
	w.pid = 300 + (w.pid+1+w.r.Int64N(5))%4_000_000
	p := parent
	p.PID, p.StartTime, p.FileName, p.FolderPath, p.CommandLine = w.pid, at, path.Base(file), file, commandLine
	p.SHA256 = digest(file + w.d.info.OsVersion)
	p.ParentPID, p.ParentFileName, p.ParentStartTime = parent.PID, parent.FileName, parent.StartTime
	return p
}

// runs are the events of a process from its beginning to its end.
func runs(parent, p event.Process, took time.Duration) []event.Event {
	return []event.Event{
		{Time: p.StartTime, Class: event.ClassProcess, Action: event.ProcessCreated, Process: p, Initiating: parent},
		{Time: p.StartTime.Add(took), Class: event.ClassProcess, Action: event.ProcessTerminated, Process: p, Initiating: p},
	}
}

func fileEvent(at time.Time, action string, p event.Process, file string, size int64) event.Event {
	return event.Event{Time: at, Class: event.ClassFile, Action: action, Initiating: p, File: event.File{FileName: path.Base(file), FolderPath: file, Size: size}}
}

func (w *workload) connection(at time.Time, action string, p event.Process, ip string, port int64, name string) event.Event {
	return event.Event{Time: at, Class: event.ClassNetwork, Action: action, Initiating: p, Network: event.Network{
		RemoteIP: ip, RemotePort: port, RemoteURL: name, LocalIP: w.d.address, LocalPort: 32_768 + w.r.Int64N(28_000), Protocol: "Tcp",
	}}
}

// visitor is an address of the Internet (TEST-NET-3 and a range for benchmarks,
// RFC 5737 and RFC 2544).
func (w *workload) visitor() string {
	return fmt.Sprintf("198.%d.%d.%d", 18+w.r.IntN(2), w.r.IntN(256), 1+w.r.IntN(254))
}

func (w *workload) neighbour() string { return fmt.Sprintf("10.0.%d.%d", w.r.IntN(4), 1+w.r.IntN(254)) }

func (w *workload) systemd() event.Process {
	return w.service("/usr/lib/systemd/systemd", "/sbin/init", "root", 0)
}

func request(w *workload, at time.Time) []event.Event {
	p := w.service("/usr/sbin/nginx", "nginx: worker process", "www-data", 33)
	return []event.Event{w.connection(at, event.InboundConnectionAccepted, p, w.visitor(), 1024+w.r.Int64N(60_000), "")}
}

func query(w *workload, at time.Time) []event.Event {
	p := w.service("/usr/lib/postgresql/15/bin/postgres", "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main", "postgres", 106)
	c := w.child(p, at, p.FolderPath, "postgres: 15/main: app app "+w.neighbour()+"(51234) idle")
	return append(runs(p, c, 3*time.Second),
		w.connection(at, event.InboundConnectionAccepted, c, w.neighbour(), 1024+w.r.Int64N(60_000), ""),
		fileEvent(at.Add(time.Millisecond), event.FileModified, c, fmt.Sprintf("/var/lib/postgresql/15/main/base/16384/%d", 16_384+w.r.IntN(4000)), 8192*w.r.Int64N(1000)))
}

func lookup(w *workload, at time.Time) []event.Event {
	p := w.service("/usr/lib/systemd/systemd-resolved", "/usr/lib/systemd/systemd-resolved", "systemd-resolve", 101)
	name := pick(w.r, "deb.example.org", "api.example.com", "ntp.example.net", "registry.example.com", "git.example.org", "metrics.example.net")
	e := event.Event{Time: at, Class: event.ClassNetwork, Action: event.DNSQuery, Initiating: p, Network: event.Network{
		RemoteIP: "10.0.0.53", RemotePort: 53, RemoteURL: name, LocalIP: w.d.address, LocalPort: 32_768 + w.r.Int64N(28_000), Protocol: "Udp",
	}, Additional: map[string]string{"QueryType": "A"}}
	answer := e
	answer.Time, answer.Action = at.Add(4*time.Millisecond), event.DNSResponse
	answer.Additional = map[string]string{"QueryType": "A", "ResponseCode": "NOERROR", "Answers": w.neighbour()}
	return []event.Event{e, answer}
}

func cron(w *workload, at time.Time) []event.Event {
	daemon := w.service("/usr/sbin/cron", "/usr/sbin/cron -f", "root", 0)
	line := pick(w.r, "/usr/local/bin/rotate --keep "+strconv.Itoa(w.r.IntN(30)), "test -x /usr/sbin/anacron || run-parts --report /etc/cron.hourly", "find /tmp -type f -atime +10 -delete")
	sh := w.child(daemon, at, "/bin/sh", "/bin/sh -c "+line)
	job := w.child(sh, at.Add(2*time.Millisecond), pick(w.r, "/usr/bin/find", "/usr/bin/run-parts", "/usr/bin/logrotate"), line)
	return append(runs(daemon, sh, 40*time.Millisecond), runs(sh, job, 30*time.Millisecond)...)
}

func monitor(w *workload, at time.Time) []event.Event {
	p := w.service("/usr/bin/node_exporter", "/usr/bin/node_exporter --collector.systemd", "prometheus", 110)
	return []event.Event{w.connection(at, event.InboundConnectionAccepted, p, "10.0.0.9", 1024+w.r.Int64N(60_000), "")}
}

// guess is what every server on the Internet sees all day.
func guess(w *workload, at time.Time) []event.Event {
	p := w.service("/usr/sbin/sshd", "sshd: /usr/sbin/sshd -D [listener]", "root", 0)
	return []event.Event{{Time: at, Class: event.ClassLogon, Action: event.LogonFailed, Initiating: p, Logon: event.Logon{
		Type: "RemoteInteractive", AccountName: pick(w.r, "root", "admin", "test", "ubuntu", "oracle", "git"), Protocol: "ssh",
		FailureReason: "InvalidCredentials", RemoteIP: w.visitor(), RemotePort: 1024 + w.r.Int64N(60_000),
	}}}
}

func session(w *workload, at time.Time) []event.Event {
	sshd := w.service("/usr/sbin/sshd", "sshd: /usr/sbin/sshd -D [listener]", "root", 0)
	user := pick(w.r, "ann", "bob", "carol", "deploy")
	shell := w.child(sshd, at, "/bin/bash", "-bash")
	shell.AccountName, shell.UID, shell.LoginUID, shell.LoginName, shell.Terminal, shell.WorkingDir = user, 1000, 1000, user, "pts/0", "/home/"+user
	out := []event.Event{{Time: at, Class: event.ClassLogon, Action: event.LogonSuccess, Initiating: sshd, Logon: event.Logon{
		Type: "RemoteInteractive", AccountName: user, Protocol: "ssh", RemoteIP: w.neighbour(), RemotePort: 50_000 + w.r.Int64N(9000),
	}}}
	out = append(out, runs(sshd, shell, 4*time.Second)...)
	for i := range 1 + w.r.IntN(5) {
		file, args := "/usr/bin/ls", "ls -l /srv/data/"+strconv.Itoa(w.r.IntN(1000))
		switch w.r.IntN(6) {
		case 0:
			file, args = "/usr/bin/vim", "vim /etc/nginx/sites-available/"+pick(w.r, "default", "shop", "intern")
		case 1:
			file, args = "/usr/bin/git", "git pull --ff-only"
		case 2:
			file, args = "/usr/bin/journalctl", "journalctl -u nginx --since -1h"
		case 3:
			file, args = "/usr/bin/sudo", "sudo systemctl restart nginx"
		}
		c := w.child(shell, at.Add(time.Duration(i+1)*500*time.Millisecond), file, args)
		out = append(out, runs(shell, c, 400*time.Millisecond)...)
	}
	return append(out, event.Event{Time: at.Add(4 * time.Second), Class: event.ClassLogon, Action: event.Logoff, Initiating: sshd, Logon: event.Logon{
		Type: "RemoteInteractive", AccountName: user, Protocol: "ssh",
	}})
}

func compile(w *workload, at time.Time) []event.Event {
	runner := w.service("/usr/bin/gitlab-runner", "/usr/bin/gitlab-runner run --working-directory /srv/builds", "gitlab-runner", 998)
	source := fmt.Sprintf("src/module%d/part%d.c", w.r.IntN(40), w.r.IntN(300))
	cc := w.child(runner, at, "/usr/bin/x86_64-linux-gnu-gcc-12", "gcc -O2 -g -Wall -Iinclude -c "+source+" -o "+source+".o")
	as := w.child(cc, at.Add(50*time.Millisecond), "/usr/bin/x86_64-linux-gnu-as", "as --64 -o "+source+".o /tmp/cc"+strconv.Itoa(w.r.IntN(1e6))+".s")
	out := append(runs(runner, cc, 200*time.Millisecond), runs(cc, as, 30*time.Millisecond)...)
	return append(out, fileEvent(at.Add(80*time.Millisecond), event.FileCreated, as, "/srv/builds/"+source+".o", w.r.Int64N(100_000)))
}

func fetch(w *workload, at time.Time) []event.Event {
	parent := w.systemd()
	name := pick(w.r, "git.example.org", "registry.example.com", "deb.example.org")
	p := w.child(parent, at, "/usr/bin/curl", "curl -fsSLO https://"+name+"/artifacts/"+strconv.Itoa(w.r.IntN(5000))+".tar.gz")
	return append(runs(parent, p, time.Second),
		w.connection(at.Add(20*time.Millisecond), event.ConnectionSuccess, p, w.neighbour(), 443, name),
		fileEvent(at.Add(900*time.Millisecond), event.FileCreated, p, "/var/cache/artifacts/"+strconv.Itoa(w.r.IntN(5000))+".tar.gz", w.r.Int64N(1<<26)))
}

func backup(w *workload, at time.Time) []event.Event {
	parent := w.service("/usr/sbin/cron", "/usr/sbin/cron -f", "root", 0)
	p := w.child(parent, at, "/usr/bin/restic", "restic -r sftp:backup@10.0.0.20:/srv/backup backup /var/lib/postgresql")
	return append(runs(parent, p, 4*time.Second), w.connection(at.Add(time.Second), event.ConnectionSuccess, p, "10.0.0.20", 22, ""))
}

func start(w *workload, at time.Time) []event.Event {
	daemon := w.service("/usr/bin/containerd-shim-runc-v2", "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io", "root", 0)
	p := w.child(daemon, at, "/usr/local/bin/server", "/usr/local/bin/server --port 8080 --config /etc/app/"+pick(w.r, "cart", "search", "pay")+".yaml")
	p.ContainerID = digest(strconv.FormatInt(p.PID, 10))
	p.ContainerImage, p.Pod = "registry.example.com/shop/"+pick(w.r, "cart", "search", "pay")+":1.4."+strconv.Itoa(w.r.IntN(20)), "shop/app-"+strconv.Itoa(w.r.IntN(50))
	listening := w.connection(at.Add(300*time.Millisecond), event.ListeningConnection, p, "", 0, "")
	listening.Network.LocalPort = 8080
	return append(runs(daemon, p, time.Hour)[:1], listening)
}

func probe(w *workload, at time.Time) []event.Event {
	kubelet := w.service("/usr/bin/kubelet", "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml", "root", 0)
	return []event.Event{w.connection(at, event.ConnectionSuccess, kubelet, w.neighbour(), 8080, "")}
}

func upgrade(w *workload, at time.Time) []event.Event {
	parent := w.systemd()
	apt := w.child(parent, at, "/usr/bin/apt-get", "apt-get -q -y dist-upgrade")
	out := runs(parent, apt, 5*time.Second)
	for i := range 3 + w.r.IntN(6) {
		when := at.Add(time.Duration(i) * 500 * time.Millisecond)
		pkg := pick(w.r, "libssl3", "curl", "openssh-server", "linux-image-amd64", "python3.11", "nginx")
		dpkg := w.child(apt, when, "/usr/bin/dpkg", "dpkg --unpack /var/cache/apt/archives/"+pkg+"_1."+strconv.Itoa(w.r.IntN(90))+"_amd64.deb")
		out = append(append(out, runs(apt, dpkg, 400*time.Millisecond)...), fileEvent(when, event.FileModified, dpkg, "/usr/share/doc/"+pkg+"/changelog.Debian.gz", w.r.Int64N(50_000)))
	}
	return out
}

// alertID is new in each run, also with the same seed.
func alertID() string {
	var id [16]byte
	_, _ = cryptorand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// alert is one of a few that fleets really see.
func (w *workload) alert(at time.Time) event.Alert {
	sshd := w.service("/usr/sbin/sshd", "sshd: /usr/sbin/sshd -D [listener]", "root", 0)
	shell := w.child(sshd, at.Add(-time.Minute), "/bin/bash", "-bash")
	a := event.Alert{ID: alertID(), Time: at, Source: event.SourceEDR, Ancestry: []event.Process{shell, sshd}}
	switch w.r.IntN(4) {
	case 0:
		file := "/srv/upload/" + strconv.Itoa(w.r.IntN(100_000)) + ".bin"
		a.Title, a.Severity, a.Category, a.Source = "Malware was found and quarantined", event.SeverityInformational, "Malware", event.SourceAntivirus
		a.ThreatName, a.ThreatFamily, a.Action = "Virus:DOS/EICAR_Test_File", "EICAR_Test_File", "quarantined"
		a.File = event.File{FileName: path.Base(file), FolderPath: file, Size: 68, SHA256: "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"}
		a.Process = w.child(shell, at, "/usr/bin/scp", "scp -t /srv/upload")
	case 1:
		a.Title, a.Severity, a.Category, a.Techniques = "A shell was connected to the network", event.SeverityHigh, "Execution", []string{"T1059.004"}
		a.Process = w.child(shell, at, "/bin/bash", "bash -i")
	case 2:
		a.Title, a.Severity, a.Category, a.Techniques = "A key was added to authorized_keys", event.SeverityMedium, "Persistence", []string{"T1098.004"}
		a.Process = w.child(shell, at, "/usr/bin/tee", "tee -a /root/.ssh/authorized_keys")
	default:
		a.Title, a.Severity, a.Category, a.Techniques = "The shell history was removed", event.SeverityLow, "DefenseEvasion", []string{"T1070.003"}
		a.Process = w.child(shell, at, "/usr/bin/rm", "rm -f /root/.bash_history")
	}
	a.DetectorID = "simulated"
	return a
}
