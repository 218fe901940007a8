//go:build system

package system

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/doctable"
	"github.com/bulwarkhq/bulwark/test/loopback"
	"github.com/bulwarkhq/bulwark/test/need"
	"github.com/bulwarkhq/bulwark/test/program"
)

var updateTelemetry = flag.Bool("update-telemetry", false, "write the table of docs/telemetry.md")

// observed is a category of the public comparison of Linux telemetry
// (EDR-Telemetry) with its weight there. The query finds the event of our
// stimulus: $T is the mark of this run, $P the test's process, $N a port.
type observed struct {
	name, weight string
	table        string
	where        string // KQL
	columns      string // that tell it, for the documentation
}

// observable are the 35 categories. Where the comparison's weights end, those
// of the last four are what is left of its total of 28.3 in equal parts.
func observable() []observed {
	const (
		process = "DeviceProcessEvents"
		file    = "DeviceFileEvents"
		network = "DeviceNetworkEvents"
		logons  = "DeviceLogonEvents"
		device  = "DeviceEvents"
	)
	echo := `ActionType == "ProcessCreated" and ProcessCommandLine has "$T-proc"`
	return []observed{
		{"Process Creation", "1", process, echo, "ActionType, ProcessCommandLine, FolderPath, InitiatingProcess*"},
		{"Process Termination", "0.5", process, `ActionType == "ProcessTerminated" and ProcessCommandLine has "$T-proc"`, "ActionType, AdditionalFields.ExitCode"},
		{"File Creation", "1", file, `ActionType == "FileCreated" and FileName == "$T.txt"`, "ActionType, FolderPath"},
		{"File Modification", "1", file, `ActionType == "FileModified" and FileName == "$T.txt"`, "ActionType, FolderPath"},
		{"File Deletion", "1", file, `ActionType == "FileDeleted" and FileName == "$T.txt"`, "ActionType, FolderPath"},
		{"User Logon", "0.7", logons, `ActionType == "LogonSuccess" and AccountName == "$T" and Protocol == "ssh"`, "ActionType, AccountName, LogonType, RemoteIP"},
		{"User Logoff", "0.4", logons, `ActionType == "Logoff" and AccountName == "$T"`, "ActionType, AccountName"},
		{"Logon Failed", "1", logons, `ActionType == "LogonFailed" and AccountName == "$T"`, "ActionType, FailureReason"},
		{"Script Content", "1", device, `ActionType == "ScriptContent" and AdditionalFields has "$T-script"`, "AdditionalFields.ScriptContent, SHA256"},
		{"Network Connection", "1", network, `ActionType in ("ConnectionSuccess", "ConnectionAttempt") and RemotePort == $N`, "ActionType, RemoteIP, RemotePort"},
		{"Network Socket Listen", "1", network, `ActionType == "ListeningConnectionCreated" and LocalPort == $N`, "ActionType, LocalIP, LocalPort"},
		{"DNS Query", "1", network, `ActionType == "DnsQueryRequest" and RemoteUrl has "$T"`, "RemoteUrl, AdditionalFields.QueryType"},
		{"Scheduled Task", "0.7", device, `ActionType == "ScheduledTaskCreated" and FileName == "$T"`, "ActionType, FolderPath, AdditionalFields.Command"},
		{"User Account Created", "1", device, `ActionType == "UserAccountCreated" and AccountName == "$T"`, "ActionType, AccountName"},
		{"User Account Modified", "1", device, `ActionType == "UserAccountModified" and AccountName == "$T"`, "ActionType, AdditionalFields.Changed"},
		{"User Account Deleted", "0.5", device, `ActionType == "UserAccountDeleted" and AccountName == "$T"`, "ActionType, AccountName"},
		{"Driver Load", "1", device, `ActionType startswith "DriverLoad" and FolderPath has "$T"`, "ActionType, FolderPath, AdditionalFields.ModuleName"},
		{"Driver Modification", "1", file, `ActionType == "FileModified" and FileName == "$T.ko"`, "ActionType, FolderPath"},
		{"Image Load", "1", "DeviceImageLoadEvents", `ActionType == "ImageLoaded" and FileName == "$T.so"`, "FolderPath, SHA256"},
		{"eBPF Event", "1", device, `ActionType == "BpfProgramLoaded" and InitiatingProcessId == $P`, "ActionType, AdditionalFields.ProgramName"},
		{"Raw Access Read", "1", device, `ActionType == "RawDeviceAccess" and InitiatingProcessId == $P`, "ActionType, FolderPath"},
		{"Process Access", "1", device, `ActionType == "ProcessTraced" and InitiatingProcessId == $P`, "ActionType, ProcessId, AdditionalFields.Method"},
		{"Process Tampering", "1", device, `ActionType == "ProcessTampering" and InitiatingProcessId == $P`, "ActionType, AdditionalFields.Method"},
		{"Service Creation", "1", device, `ActionType == "ServiceInstalled" and FileName == "$T.service"`, "ActionType, AdditionalFields.Command"},
		{"Service Modification", "0.7", device, `ActionType == "ServiceModified" and FileName == "$T.service"`, "ActionType, AdditionalFields.Changed"},
		{"Service Deletion", "0.6", device, `ActionType == "ServiceDeleted" and FileName == "$T.service"`, "ActionType, FolderPath"},
		{"Agent Start", "0.2", device, `ActionType == "AgentStarted"`, "ActionType"},
		{"Agent Stop", "0.8", device, `ActionType == "AgentStopped"`, "ActionType"},
		{"MD5", "1", process, echo + ` and strlen(MD5) == 32`, "MD5, InitiatingProcessMD5"},
		{"SHA", "1", process, echo + ` and strlen(SHA1) == 40 and strlen(SHA256) == 64`, "SHA1, SHA256"},
		{"Fuzzy Hash", "1", process, echo + ` and AdditionalFields has "ProcessFuzzyHash"`, "AdditionalFields.ProcessFuzzyHash"},
		{"Memory-backed file: creation", "0.3", device, `ActionType == "MemoryFileCreated" and InitiatingProcessId == $P`, "ActionType, FileName"},
		{"Memory-backed file: execution", "0.3", device, `ActionType == "MemoryFileExecuted" and FileName startswith "$T"`, "ActionType, FileName"},
		{"File entropy", "0.3", file, `FileName startswith "$T" and FileName endswith ".bin" and AdditionalFields has "FileEntropy"`, "AdditionalFields.FileEntropy"},
		{"File header bytes, size", "0.3", file, `FileName startswith "$T" and FileName endswith ".bin" and AdditionalFields has "FileHeader" and FileSize > 0`, "AdditionalFields.FileHeader, FileSize"},
	}
}

// TestTelemetry makes everything that the comparison looks for, by real system
// calls, before three agents at once: one with the best sensors of this kernel,
// one that has to do with the kernel's audit, and one with what is always
// there. What each of them finds, by queries to the portal, is the table of
// docs/telemetry.md.
func TestTelemetry(t *testing.T) {
	for _, program := range []string{"sshd", "ssh", "useradd"} {
		need.Command(t, program)
	}
	auditForItself(t)
	first := prepare(t)
	passive := `{"antivirusEngine": {"enforcementLevel": "passive"}}`
	first.write(first.dirs.Managed(), passive)
	first.startPortal()
	agents := []*product{first}
	for range 2 {
		p := prepare(t)
		p.write(p.dirs.Managed(), passive)
		p.portalAddr, p.portalData = first.portalAddr, first.portalData
		agents = append(agents, p)
	}
	// The first one before another switches audit on, or it would use that.
	sensors := []string{"", "audit,files,exec", "proc-connector,files,wtmp,exec"}
	run := func(i int) {
		p := agents[i]
		args := []string{"run", "--root", p.root, "--only-mounts", p.watch}
		if sensors[i] != "" {
			args = append(args, "--sensors", sensors[i])
		}
		p.agent = p.supervise("bulwarkd", nil, "bulwarkd", args...)
	}
	ready := func(p *product) {
		p.until("the sensors are attached and the portal is connected", func() error {
			r := p.run("health", "--details", "edr")
			last := false // the sensor of scripts is attached after all others
			for line := range strings.Lines(r.stdout) {
				last = last || strings.HasPrefix(line, "sensor_script ") && strings.Contains(line, "exec")
			}
			if !last {
				return fmt.Errorf("%s%s", r.stdout, r.stderr)
			}
			if r := p.run("health", "--field", "portal_status"); !strings.Contains(r.stdout, "connected") {
				return fmt.Errorf("%s%s", r.stdout, r.stderr)
			}
			return nil
		})
	}
	for i, p := range agents {
		p.onboard()
		run(i)
		if i == 0 {
			ready(p)
		}
	}
	for _, p := range agents[1:] {
		ready(p)
	}
	s := newStimuli(t)
	s.all()
	rows := observable()
	found := make([]map[string]bool, len(agents))
	hunt := newHunt(first)
	look := func(without ...string) {
		if *updateTelemetry { // what there is after a while is the table
			for range 6 {
				s.again(nil)
				time.Sleep(4 * time.Second)
			}
		}
		for i, p := range agents {
			// With the best sensors all must be found; of the others what the table
			// says that they can.
			may := without
			if i > 0 {
				may = append(slices.Clone(without), committedMisses(t, i)...)
			}
			p.until("what the sensors can tell is found", func() error {
				found[i] = hunt.find(s, p, rows)
				var late []string
				for _, name := range missingOf(rows, found[i]) {
					if !slices.Contains(may, name) {
						late = append(late, name)
					}
				}
				if len(late) > 0 && !*updateTelemetry {
					s.again(late)
					time.Sleep(time.Second)
					return fmt.Errorf("not yet: %s (sensors %q)", strings.Join(late, ", "), sensors[i])
				}
				return nil
			})
		}
	}
	const stop = "Agent Stop"
	look(stop)
	sources := make([]map[string]string, len(agents))
	for i, p := range agents {
		sources[i] = p.sources()
	}
	// The stop of an agent is told when it is back.
	for _, p := range agents {
		p.agent.stop()
	}
	for i := range agents {
		run(i)
	}
	for _, p := range agents {
		ready(p)
	}
	look()
	check(t, rows, found, sources)
}

func missingOf(rows []observed, found map[string]bool) []string {
	var out []string
	for _, r := range rows {
		if !found[r.name] {
			out = append(out, r.name)
		}
	}
	return out
}

const telemetryDoc = "../../docs/telemetry.md"

// committedMisses are the categories that the committed table has as not found
// by the sensors of column i.
func committedMisses(t *testing.T, i int) []string {
	t.Helper()
	doc, err := os.ReadFile(telemetryDoc)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(line, " | ")
		if len(cells) == 7 && strings.HasPrefix(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(cells[4+i]), "|")), "no") {
			out = append(out, strings.TrimPrefix(cells[0], "| "))
		}
	}
	return out
}

// check compares with the committed table, and says the scores.
func check(t *testing.T, rows []observed, found []map[string]bool, sources []map[string]string) {
	t.Helper()
	table := doctable.Table{Columns: []string{"Category", "Weight", "Table", "Columns", "eBPF", "audit", "fall-back"}}
	total, score := 0.0, make([]float64, len(found))
	for _, r := range rows {
		w, err := strconv.ParseFloat(r.weight, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += w
		cells := []string{r.name, r.weight, r.table, r.columns}
		for i := range found {
			cell := "no"
			if found[i][r.name] {
				score[i] += w
				cell = "yes, " + sources[i][categoryOf(r.name)]
			}
			cells = append(cells, cell)
		}
		table.Rows = append(table.Rows, cells)
	}
	cells := []string{"**Score**", fmt.Sprintf("%.1f", total), "", ""}
	for _, n := range score {
		cells = append(cells, fmt.Sprintf("**%.1f**", n))
	}
	table.Rows = append(table.Rows, cells)
	t.Logf("scores of %.1f: %.1f, %.1f, %.1f", total, score[0], score[1], score[2])
	doctable.Check(t, telemetryDoc, "telemetry", table, *updateTelemetry)
}

// categoryOf is the name in health of what a row is of.
func categoryOf(row string) string {
	for _, c := range []struct{ prefix, category string }{
		{"Process Cre", "process"},
		{"Process Term", "process"},
		{"MD5", "process"},
		{"SHA", "process"},
		{"Fuzzy", "process"},
		{"File", "file"},
		{"Driver Mod", "file"},
		{"User Log", "logon"},
		{"Logon", "logon"},
		{"Script", "script"},
		{"Network", "network"},
		{"DNS", "dns"},
		{"Scheduled", "scheduled_task"},
		{"User Account", "account"},
		{"Driver Load", "kernel_module"},
		{"Image", "image_load"},
		{"eBPF", "bpf"},
		{"Raw", "raw_device_access"},
		{"Process Acc", "process_access"},
		{"Process Tam", "process_tampering"},
		{"Service", "service"},
		{"Memory", "memory_file"},
	} {
		if strings.HasPrefix(row, c.prefix) {
			return c.category
		}
	}
	return "agent"
}

// sources are the sensors of an agent by category.
func (p *product) sources() map[string]string {
	p.t.Helper()
	out := map[string]string{"agent": "agent"}
	for line := range strings.Lines(p.must("health", "--details", "edr")) {
		name, value, _ := strings.Cut(line, ":")
		if category, ok := strings.CutPrefix(strings.TrimSpace(name), "sensor_"); ok {
			out[category] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return out
}

// auditForItself waits until no other test uses the kernel's audit, and checks
// at the end that it is as it was.
func auditForItself(t *testing.T) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "bulwark-audit-test.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		out, err := exec.Command("auditctl", "-s").Output()
		if err != nil {
			need.Missing(t, "auditctl: %v", err)
		}
		var keep []string
		for line := range strings.Lines(string(out)) {
			for _, name := range []string{"enabled ", "pid ", "backlog_limit ", "backlog_wait_time "} {
				if strings.HasPrefix(line, name) {
					keep = append(keep, strings.TrimSpace(line))
				}
			}
		}
		rules, err := exec.Command("auditctl", "-l").Output()
		if err != nil {
			t.Error(err)
		}
		return strings.Join(keep, ", ") + "\n" + string(rules)
	}
	before := state()
	if !strings.Contains(before, "pid 0") {
		need.Missing(t, "the kernel's audit is in use: %s", before)
	}
	t.Cleanup(func() { // after the agents' own
		if after := state(); after != before {
			t.Errorf("audit was\n%sand is\n%s", before, after)
		}
		lock.Close()
	})
}

// device is the id of an agent, which may not be running.
func (h *hunt) device(p *product) string {
	if h.devices[p] == "" {
		h.devices[p] = strings.Trim(strings.TrimSpace(p.must("health", "--field", "edr_machine_id")), `"`)
	}
	return h.devices[p]
}

// hunt asks the portal.
type hunt struct {
	rest
	devices map[*product]string
}

// newHunt makes a token, which may also do what the scopes say.
func newHunt(p *product, scopes ...string) *hunt {
	h := &hunt{rest: newRest(p, p.portalAddr, nil), devices: map[*product]string{}}
	h.token = strings.TrimSpace(p.portalCommand("token", "create", "--name", "hunt", "--scope", strings.Join(append(scopes, "AdvancedQuery.Read.All"), ",")))
	return h
}

// find gives the categories with an event of this agent.
func (h *hunt) find(s *stimuli, p *product, rows []observed) map[string]bool {
	h.p.t.Helper()
	device := h.device(p)
	var legs []string
	for _, r := range rows {
		legs = append(legs, fmt.Sprintf("(%s | where DeviceId == %q and %s | take 1 | extend Row = %q | project Row)", r.table, device, s.replace(r.where), r.name))
	}
	var results []struct{ Row string }
	h.run("union "+strings.Join(legs, ",\n"), &results)
	found := map[string]bool{}
	for _, r := range results {
		found[r.Row] = true
	}
	return found
}

// stimuli make the events.
type stimuli struct {
	t     *testing.T
	mark  string
	dir   string
	port  int
	pause time.Duration // between a change and the next one of the same thing
}

func newStimuli(t *testing.T) *stimuli {
	t.Helper()
	b := make([]byte, 4)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &stimuli{t: t, mark: "tl" + hex.EncodeToString(b), dir: dir, port: port, pause: time.Second}
}

func (s *stimuli) replace(query string) string {
	return strings.NewReplacer("$T", s.mark, "$P", strconv.Itoa(os.Getpid()), "$N", strconv.Itoa(s.port)).Replace(query)
}

func (s *stimuli) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

func (s *stimuli) command(name string, args ...string) {
	s.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (s *stimuli) in(name string) string { return filepath.Join(s.dir, s.mark+name) }

func (s *stimuli) all() {
	s.process()
	s.files()
	s.network()
	s.memory()
	s.others()
	s.host()
	s.accountsAndLogons()
}

// process lives long enough for a sensor that has to read about it.
func (s *stimuli) process() {
	s.t.Helper()
	s.command("/bin/sh", "-c", "sleep 0.3; : "+s.mark+"-proc")
}

// again makes what is told without hashes when the agent is busy, which does
// not hold up an event for them for ever. What was not found is made once more, with
// longer pauses: an agent that is busy may take a change and its undoing for none, or
// look at a process that has ended.
func (s *stimuli) again(late []string) {
	s.t.Helper()
	s.pause = min(2*s.pause, 8*time.Second)
	for _, m := range []struct {
		categories []string // prefixes
		make       func()
	}{
		{[]string{"File", "Script", "Driver", "Image"}, s.files},
		{[]string{"Network", "DNS"}, s.network},
		{[]string{"Memory"}, s.memory},
		{[]string{"eBPF", "Raw", "Process Access", "Process Tampering"}, s.others},
		{[]string{"Scheduled", "Service"}, s.host},
		{[]string{"User", "Logon"}, s.accountsAndLogons},
	} {
		isLate := func(prefix string) bool {
			return slices.ContainsFunc(late, func(name string) bool { return strings.HasPrefix(name, prefix) })
		}
		if slices.ContainsFunc(m.categories, isLate) {
			m.make()
		}
	}
	s.process()
	for range 10 {
		s.must("write", os.WriteFile(s.in("-"+rand.Text()+".bin"), []byte(rand.Text()), 0o644))
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *stimuli) files() {
	text := s.in(".txt")
	s.must("create", os.WriteFile(text, []byte("x"), 0o644))
	f, err := os.OpenFile(text, os.O_WRONLY|os.O_APPEND, 0)
	s.must("open", err)
	_, err = f.WriteString("more")
	s.must("modify", err)
	s.must("close", f.Close())
	s.must("delete", os.Remove(text))
	data := make([]byte, 8192)
	_, err = rand.Read(data)
	s.must("random", err)
	s.must("write", os.WriteFile(s.in(".bin"), data, 0o644))
	script := s.in(".sh")
	s.must("script", os.WriteFile(script, []byte("#!/bin/sh\n# "+s.mark+"-script\nsleep 0.2\n"), 0o755))
	s.command(script)
	// A driver, changed and loaded: the kernel looks at it and refuses.
	driver := s.in(".ko")
	s.must("driver", os.WriteFile(driver, []byte("no module"), 0o644))
	f, err = os.OpenFile(driver, os.O_RDWR|os.O_APPEND, 0)
	s.must("driver", err)
	_, err = f.WriteString(" at all")
	s.must("driver", err)
	s.must("driver", f.Close())
	f, err = os.Open(driver)
	s.must("driver", err)
	s.t.Cleanup(func() { f.Close() }) // audit tells the descriptor alone
	if err := unix.FinitModule(int(f.Fd()), "", 0); err == nil {
		s.t.Fatal("the kernel loaded nonsense")
	}
	// A library.
	lib, err := os.ReadFile("/bin/true")
	s.must("library", err)
	s.must("library", os.WriteFile(s.in(".so"), lib, 0o755))
	g, err := os.Open(s.in(".so"))
	s.must("library", err)
	defer g.Close()
	m, err := unix.Mmap(int(g.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	s.must("mmap", err)
	s.must("munmap", unix.Munmap(m))
}

func (s *stimuli) network() {
	l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(s.port))
	s.must("listen", err)
	defer l.Close()
	conn, err := net.Dial("tcp4", l.Addr().String())
	s.must("connect", err)
	defer conn.Close()
	in, err := l.Accept()
	s.must("accept", err)
	defer in.Close()
	// A question to a name server that need not be there (RFC 1035, section 4.1).
	dns, err := net.Dial("udp4", "127.0.0.1:53")
	s.must("dns", err)
	defer dns.Close()
	q := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range []string{s.mark, "example"} {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 1, 0, 1)
	_, err = dns.Write(q)
	s.must("dns", err)
}

func (s *stimuli) memory() {
	fd, err := unix.MemfdCreate(s.mark, 0)
	s.must("memfd_create", err)
	defer unix.Close(fd)
	program, err := os.ReadFile("/bin/true")
	s.must("program", err)
	_, err = unix.Write(fd, program)
	s.must("write", err)
	s.command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd))
}

func (s *stimuli) others() {
	// Another process.
	victim := exec.Command("sleep", "60")
	s.must("sleep", victim.Start())
	time.Sleep(s.pause) // until its execution has been reported
	runtime.LockOSThread()
	s.must("ptrace", unix.PtraceSeize(victim.Process.Pid))
	_ = unix.PtraceDetach(victim.Process.Pid) // it has not stopped
	runtime.UnlockOSThread()
	_ = victim.Process.Kill()
	_ = victim.Wait()
	// Its own memory through the file.
	f, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	s.must("memory", err)
	s.must("memory", f.Close())
	// A program in the kernel.
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: s.mark, Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	s.must("bpf", err)
	s.must("bpf", prog.Close())
	// A disk below its file system. Nobody has this loop device.
	disk := s.in("-disk")
	_ = os.Remove(disk) // of the last time, or none
	s.must("mknod", unix.Mknod(disk, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 201))))
	if f, err := os.Open(disk); err == nil {
		f.Close()
	}
}

// host changes what defines services and tasks, and puts it back.
func (s *stimuli) host() {
	s.t.Helper()
	task := "/etc/cron.d/" + s.mark
	unit := "/etc/systemd/system/" + s.mark + ".service"
	s.t.Cleanup(func() {
		_ = os.Remove(task)
		_ = os.Remove(unit)
	})
	for _, dir := range []string{filepath.Dir(task), filepath.Dir(unit)} {
		s.must("folder", os.MkdirAll(dir, 0o755))
	}
	pause := func() { time.Sleep(s.pause) } // a change and its undoing at once are none
	pause()
	s.must("task", os.WriteFile(task, []byte("# "+s.mark+"\n0 0 31 2 * root true\n"), 0o644))
	s.must("service", os.WriteFile(unit, []byte("[Service]\nExecStart=/bin/true\n"), 0o644))
	pause()
	s.must("service", os.WriteFile(unit, []byte("[Service]\nExecStart=/bin/false\n"), 0o644))
	pause()
	s.must("service", os.Remove(unit))
	s.must("task", os.Remove(task))
}

// accountsAndLogons makes an account, logs it on by a real sshd, fails to, and
// removes it.
func (s *stimuli) accountsAndLogons() {
	s.t.Helper()
	s.command("useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", s.mark)
	s.t.Cleanup(func() { _ = exec.Command("userdel", s.mark).Run() })
	time.Sleep(s.pause)
	s.command("usermod", "--comment", "changed", s.mark)
	time.Sleep(s.pause)

	key, hostKey, config := s.in("-key"), s.in("-host"), s.in("-sshd")
	for _, old := range []string{key, hostKey} {
		_ = os.Remove(old) // of the last time, or none
	}
	s.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	s.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey)
	number, err := loopback.Port()
	s.must("port", err)
	port := strconv.Itoa(number)
	s.must("sshd", os.MkdirAll("/run/sshd", 0o755))
	s.must("sshd", os.WriteFile(config, []byte(fmt.Sprintf(
		"Port %s\nListenAddress 127.0.0.1\nHostKey %s\nPidFile none\nUsePAM yes\nStrictModes no\nAuthorizedKeysFile %s.pub\nPasswordAuthentication yes\nPrintMotd no\n", port, hostKey, key)), 0o600))
	sshd, err := exec.LookPath("sshd")
	s.must("sshd", err)
	daemon := exec.Command(sshd, "-D", "-e", "-f", config)
	var said bytes.Buffer
	daemon.Stderr = &said
	server, err := program.Start(daemon, syscall.SIGKILL)
	s.must("sshd", err)
	defer server.Kill()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp4", "127.0.0.1:"+port); err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			server.Kill()
			s.t.Fatalf("sshd does not listen: %s", said.Bytes())
		}
	}
	options := []string{"-tt", "-F", "none", "-p", port, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", s.mark + "@127.0.0.1"}
	good := exec.Command("ssh", append([]string{"-i", key, "-o", "BatchMode=yes"}, append(options, "sleep 1")...)...)
	if out, err := good.CombinedOutput(); err != nil {
		s.t.Fatalf("ssh: %v\n%s", err, out)
	}
	ask := s.in("-ask")
	s.must("askpass", os.WriteFile(ask, []byte("#!/bin/sh\necho wrong\n"), 0o755))
	bad := exec.Command("ssh", append([]string{"-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", "-o", "PreferredAuthentications=password"}, options...)...)
	bad.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:0")
	if out, err := bad.CombinedOutput(); err == nil {
		s.t.Fatalf("a wrong password is right\n%s", out)
	}
	s.command("userdel", s.mark)
	time.Sleep(s.pause)
}
