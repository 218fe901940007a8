package audit

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

const helperVariable = "BULWARK_AUDIT_TEST_HELPER"

func TestMain(m *testing.M) {
	if file := os.Getenv(ownerVariable); file != "" {
		if err := ownAudit(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(helperVariable); dir != "" {
		if err := doCalls(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// kernel takes the kernel's audit for a test alone and checks at its end that
// it is as it was before: switched as it was, with its listener, its backlog
// and the host's rules. What a failed test leaves is put back.
func kernel(t *testing.T) *control {
	t.Helper()
	need.Root(t)
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "bulwark-audit-test.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	c, err := openControl()
	if err != nil {
		need.Missing(t, "the kernel's audit: %v", err)
	}
	before, err := c.status()
	if err != nil {
		need.Missing(t, "the kernel's audit: %v", err)
	}
	if before.Enabled == immutable || before.PID != 0 {
		need.Missing(t, "the kernel's audit is in use (enabled %d, pid %d)", before.Enabled, before.PID)
	}
	host, err := build("-a always,exit -F arch=b64 -S swapon", 0)
	if err != nil {
		t.Fatal(err)
	}
	host = bytes.Replace(host, []byte(Key), []byte("hostkey"), 1) // as long as ours
	if err := c.addRule(host); err != nil {
		t.Fatal(err)
	}
	rules, err := c.rules()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now, err := c.status()
		if err != nil {
			t.Error(err)
		}
		if now.Enabled != before.Enabled || now.PID != before.PID || now.BacklogLimit != before.BacklogLimit || now.BacklogWaitTime != before.BacklogWaitTime {
			t.Errorf("audit is left as %+v, it was %+v", now, before)
		}
		after, err := c.rules()
		if err != nil || !slices.EqualFunc(rules, after, bytes.Equal) {
			t.Errorf("the rules are not as before: %d, %d before, %v", len(after), len(rules), err)
		}
		_ = remove(c)
		_ = c.deleteRule(host)
		_ = c.set(statusEnabled|statusBacklogLimit|statusBacklogWaitTime, before)
		c.close()
		lock.Close()
	})
	return c
}

// doCalls makes the system calls that the test looks for.
func doCalls(dir string) error {
	var errs []string
	try := func(what string, err error) {
		if err != nil {
			errs = append(errs, what+": "+err.Error())
		}
	}
	// Files.
	a, b := filepath.Join(dir, "made file"), filepath.Join(dir, "renamed")
	try("create", os.WriteFile(a, []byte("x"), 0o644))
	try("modify", os.WriteFile(a, []byte("y"), 0o644))
	try("chmod", os.Chmod(a, 0o700))
	try("chown", os.Chown(a, 1, 1))
	try("rename", os.Rename(a, b))
	try("unlink", os.Remove(b))
	// The network.
	l, err := net.Listen("tcp4", "127.0.0.1:"+os.Getenv(helperVariable+"_PORT"))
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp4", l.Addr().String())
	try("connect", err)
	in, err := l.Accept()
	try("accept", err)
	conn.Close()
	in.Close()
	l.Close()
	_, err = net.Dial("tcp4", l.Addr().String())
	if err == nil {
		errs = append(errs, "connected to nobody")
	}
	// Memory files and other processes.
	fd, err := unix.MemfdCreate("made-up", 0)
	try("memfd", err)
	exe, err := os.ReadFile("/bin/true")
	try("read", err)
	_, err = unix.Write(fd, exe)
	try("write", err)
	try("exec", exec.Command("/proc/"+strconv.Itoa(os.Getpid())+"/fd/"+strconv.Itoa(fd)).Run())
	child := exec.Command("sleep", "60")
	try("child", child.Start())
	try("child", sleeps(child.Process.Pid)) // its execution is recorded when the call returns to it
	buf := make([]byte, 8)
	local := unix.Iovec{Base: &buf[0], Len: 8}
	remote := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&buf[0])), Len: 8}
	// That the address is not one of the child's makes the call fail: its own is
	// read instead.
	_, err = unix.ProcessVMReadv(os.Getpid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	try("process_vm_readv", err)
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(child.Process.Pid), 0, 0, 0, 0); e != 0 {
		try("ptrace", e)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	// Privileges and mounts, in a process that has them for itself.
	private := exec.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs none "+dir+" && umount "+dir)
	try("mount", private.Run())
	other := exec.Command("true")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	try("setuid", other.Run())
	if len(errs) > 0 {
		return fmt.Errorf("%s", strings.Join(errs, "\n"))
	}
	return nil
}

// sleeps waits until a process of sleep(1) does so.
func sleeps(pid int) error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		call, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid)) // proc_pid_syscall(5)
		if err != nil || strings.HasPrefix(string(call), strconv.Itoa(unix.SYS_CLOCK_NANOSLEEP)+" ") {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("it does not sleep: %s", call)
		}
	}
}

// TestKernel takes everything from the real kernel: the sensor switches audit
// on, and off again.
func TestKernel(t *testing.T) {
	c := kernel(t)
	before, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	table := sensortest.Table(t)
	file := filepath.Join(t.TempDir(), "bulwark.rules")
	s := New(table, sensortest.Log(t), Options{Own: true, RulesFile: file})
	t.Run("events", func(t *testing.T) {
		sink := sensortest.Start(t, s)
		if un := s.Unavailable(); len(un) > 0 {
			t.Fatalf("not available: %v", un)
		}
		now, err := c.status()
		if err != nil {
			t.Fatal(err)
		}
		if before.Enabled == 0 && (now.Enabled != 1 || now.PID != uint32(os.Getpid()) || now.BacklogWaitTime != 0 || now.RateLimit != before.RateLimit) {
			t.Errorf("while it runs: %+v", now)
		}
		if out, err := exec.Command("auditctl", "-l", "-k", Key).CombinedOutput(); err == nil && strings.Count(string(out), "key="+Key)+strings.Count(string(out), "-k "+Key) < 10 {
			t.Errorf("auditctl -l -k %s:\n%s", Key, out)
		}
		if complete := sensortest.ShortLived(t, table, sink, 30, true); complete < 30 {
			t.Errorf("%d complete", complete)
		}
		findCalls(t, sink)
		sink.Wait(t, 1, "the end of a process that was killed", func(e *event.Event) bool {
			return e.Action == event.ProcessTerminated && strings.HasPrefix(e.Process.CommandLine, "sleep 60")
		})
		st := s.Stats()
		if st.Lost != 0 || st.Malformed != 0 || st.Seen != st.Delivered+st.Filtered {
			t.Errorf("%+v", st)
		}
	})
}

func findCalls(t *testing.T, sink *sensortest.Sink) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperVariable+"="+dir, helperVariable+"_PORT="+port)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pid := int64(cmd.Process.Pid)
	file := filepath.Join(dir, "made file")
	mine := func(action string, more func(*event.Event) bool) func(*event.Event) bool {
		return func(e *event.Event) bool { return e.Action == action && e.Initiating.PID == pid && more(e) }
	}
	at := func(path string) func(*event.Event) bool {
		return func(e *event.Event) bool { return e.File.FolderPath == path }
	}
	remote := func(e *event.Event) bool {
		return e.Network.RemoteIP == "127.0.0.1" && strconv.FormatInt(e.Network.RemotePort, 10) == port
	}
	any := func(*event.Event) bool { return true }
	for name, match := range map[string]func(*event.Event) bool{
		"created":   mine(event.FileCreated, at(file)),
		"modified":  mine(event.FileModified, at(file)),
		"mode":      mine(event.FilePermissionsChanged, func(e *event.Event) bool { return at(file)(e) && e.Additional["Mode"] == "0700" }),
		"owner":     mine(event.FileOwnerChanged, at(file)),
		"renamed":   mine(event.FileRenamed, func(e *event.Event) bool { return e.File.PreviousFolderPath == file && e.File.FileName == "renamed" }),
		"deleted":   mine(event.FileDeleted, at(filepath.Join(dir, "renamed"))),
		"listening": mine(event.ListeningConnection, func(e *event.Event) bool { return strconv.FormatInt(e.Network.LocalPort, 10) == port }),
		"connect":   mine(event.ConnectionAttempt, remote),
		"accepted":  mine(event.InboundConnectionAccepted, func(e *event.Event) bool { return e.Network.RemoteIP == "127.0.0.1" }),
		"memfd":     mine(event.MemoryFileCreated, any),
		"memory file run": func(e *event.Event) bool {
			return e.Action == event.MemoryFileExecuted && e.File.FileName == "made-up" && e.Initiating.ParentPID == pid
		},
		"traced":  mine(event.ProcessTraced, func(e *event.Event) bool { return strings.HasPrefix(e.Process.CommandLine, "sleep 60") }),
		"read":    mine(event.ProcessMemoryRead, func(e *event.Event) bool { return e.Process.PID == pid }),
		"mounted": func(e *event.Event) bool { return e.Action == event.FileSystemMounted && e.File.FolderPath == dir },
		"unmounted": func(e *event.Event) bool {
			return e.Action == event.FileSystemUnmounted && e.File.FolderPath == dir
		},
		"namespace": func(e *event.Event) bool {
			return e.Action == event.NamespaceChanged && e.Initiating.FileName == "unshare"
		},
		"user": func(e *event.Event) bool { return e.Action == event.UserIDChanged && e.Additional["NewUID"] == "65534" },
	} {
		e := sink.Wait(t, 1, name, match)[0]
		if time.Since(e.Time) > time.Hour || e.Initiating.FolderPath == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestLogons: PAM reports what su does, a success, its end and a failure.
func TestLogons(t *testing.T) {
	kernel(t)
	need.Command(t, "su")
	table := sensortest.Table(t)
	var s sensor.Sensor = New(table, sensortest.Log(t), Options{Own: true, Logons: true})
	sink := sensortest.Start(t, s)
	if out, err := exec.Command("su", "-s", "/bin/sh", "-c", "sleep 0.5", "nobody").CombinedOutput(); err != nil {
		need.Missing(t, "su does not work: %v: %s", err, out)
	}
	is := func(action, account string) func(*event.Event) bool {
		return func(e *event.Event) bool {
			return e.Action == action && e.Logon.AccountName == account && e.Logon.Protocol == "su"
		}
	}
	in := sink.Wait(t, 1, "logon", is(event.LogonSuccess, "nobody"))[0]
	if in.Logon.Type != "Interactive" || in.Logon.IsLocalAdmin || in.Class != event.ClassLogon || !strings.HasSuffix(in.Initiating.FolderPath, "/su") {
		t.Errorf("%+v", in)
	}
	sink.Wait(t, 1, "logoff", is(event.Logoff, "nobody"))

	wrong := exec.Command("su", "root", "-c", "true")
	wrong.Stdin = strings.NewReader("not the password\n")
	wrong.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := wrong.Run(); err == nil {
		t.Fatal("su without password")
	}
	no := sink.Wait(t, 1, "failed logon", is(event.LogonFailed, "root"))
	if len(no) != 1 || no[0].Logon.FailureReason == "" || no[0].Initiating.PID != int64(wrong.Process.Pid) {
		t.Errorf("%+v", no)
	}
}

// TestBesideAuditd: a real auditd starts while we are the ones that the kernel
// sends to, takes over, and keeps its place; events come from beside it, its
// log has ours under our key, and it stays when we leave.
func TestBesideAuditd(t *testing.T) {
	c := kernel(t)
	before, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	auditd := need.Command(t, "auditd")
	dir := t.TempDir()
	log := filepath.Join(dir, "audit.log")
	conf := fmt.Sprintf("log_file = %s\nlog_format = RAW\nlog_group = root\nflush = NONE\nmax_log_file = 8\nnum_logs = 2\nmax_log_file_action = ROTATE\nspace_left = 2\nadmin_space_left = 1\nspace_left_action = IGNORE\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\ndisk_error_action = IGNORE\nname_format = NONE\nplugin_dir = %s\nlocal_events = yes\n", log, dir)
	if err := os.WriteFile(filepath.Join(dir, "auditd.conf"), []byte(conf), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	table := sensortest.Table(t)
	rulesFile := filepath.Join(dir, "bulwark.rules")
	defer func() {
		if _, err := os.Stat(rulesFile); err == nil {
			t.Error("the rules for auditd's next start are left")
		}
	}()
	t.Run("events", func(t *testing.T) {
		sink := sensortest.Start(t, New(table, sensortest.Log(t), Options{Own: true, RulesFile: rulesFile}))
		var daemon *exec.Cmd
		// The first one asks whether we live, and may give up; we are gone for the next.
		taken := func() bool {
			st, err := c.status()
			return err == nil && daemon != nil && st.PID == uint32(daemon.Process.Pid)
		}
		for range 5 {
			daemon = exec.Command(auditd, "-n", "-c", dir)
			if err := daemon.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = daemon.Wait(); close(ended) }()
			for end := time.Now().Add(2 * time.Minute); !taken() && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				select {
				case <-ended:
					end = time.Now()
				default:
				}
			}
			if taken() {
				t.Cleanup(func() {
					if !taken() {
						t.Error("auditd lost its place")
					}
					_ = daemon.Process.Signal(syscall.SIGTERM)
					<-ended
					// It leaves audit switched on.
					if err := c.set(statusEnabled|statusBacklogLimit|statusBacklogWaitTime, before); err != nil {
						t.Error(err)
					}
				})
				break
			}
			_ = daemon.Process.Kill()
			<-ended
		}
		if !taken() {
			t.Fatal("auditd cannot become what it is")
		}
		mark := fmt.Sprintf("beside-auditd-%d", time.Now().UnixNano())
		if err := exec.Command("/bin/echo", mark).Run(); err != nil {
			t.Fatal(err)
		}
		sink.Wait(t, 1, "an execution beside auditd", func(e *event.Event) bool {
			return e.Action == event.ProcessCreated && e.Process.CommandLine == "/bin/echo "+mark
		})
		for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			b, _ := os.ReadFile(log)
			if rules, err := os.ReadFile(rulesFile); err != nil || strings.Count(string(rules), "-k "+Key+"\n") < 10 {
				t.Fatalf("the rules for auditd's next start: %v\n%s", err, rules)
			}
			if i := strings.Index(string(b), mark); i > 0 && strings.Contains(string(b), `key="`+Key+`"`) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("auditd's log does not have it: %d bytes", len(b))
			}
		}
	})
}

// TestBacklogOfOthersIsKept: how long others may wait for audit, and how much may,
// belongs to whoever owns it. The sensor beside an owner changes neither, and
// what somebody sets while the sensor owns audit stays when it has ended.
func TestBacklogOfOthersIsKept(t *testing.T) {
	c := kernel(t)
	before, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	theirs := Status{Enabled: 1, BacklogLimit: 4321, BacklogWaitTime: 777}
	const backlog = statusBacklogLimit | statusBacklogWaitTime
	check := func(t *testing.T, when string) {
		t.Helper()
		if now, err := c.status(); err != nil || now.BacklogLimit != theirs.BacklogLimit || now.BacklogWaitTime != theirs.BacklogWaitTime {
			t.Errorf("%s: %+v, %v, want %+v", when, now, err, theirs)
		}
	}
	run := func(t *testing.T, while func(t *testing.T)) {
		t.Run("run", func(t *testing.T) {
			sink := sensortest.Start(t, New(sensortest.Table(t), sensortest.Log(t), Options{Own: true}), event.CategoryProcess)
			while(t)
			mark := fmt.Sprintf("backlog-%d", time.Now().UnixNano())
			if err := exec.Command("/bin/echo", mark).Run(); err != nil {
				t.Fatal(err)
			}
			sink.Wait(t, 1, "an execution", func(e *event.Event) bool {
				return e.Action == event.ProcessCreated && e.Process.CommandLine == "/bin/echo "+mark
			})
		})
	}
	t.Run("beside an owner", func(t *testing.T) {
		owner, err := openReader(false)
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() { // nobody waits for the owner
			defer close(read)
			for buf := make([]byte, maxRecord+unix.NLMSG_HDRLEN); ; {
				if _, err := owner.read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
					return
				}
			}
		}()
		defer func() { owner.close(); <-read }()
		if err := owner.own(uint32(os.Getpid())); err != nil {
			t.Fatal(err)
		}
		if err := c.set(statusEnabled|backlog, theirs); err != nil {
			t.Fatal(err)
		}
		run(t, func(t *testing.T) { check(t, "while the sensor runs") })
		check(t, "when it has ended")
		if now, err := c.status(); err != nil || now.PID != uint32(os.Getpid()) || now.Enabled != 1 {
			t.Errorf("the owner lost its place: %+v, %v", now, err)
		}
		if err := c.set(statusPID, Status{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("set while the sensor owns audit", func(t *testing.T) {
		if err := c.set(statusEnabled|backlog, before); err != nil {
			t.Fatal(err)
		}
		run(t, func(t *testing.T) {
			if now, err := c.status(); err != nil || now.BacklogWaitTime != 0 {
				t.Errorf("others may wait for the sensor: %+v, %v", now, err)
			}
			if err := c.set(backlog, theirs); err != nil {
				t.Fatal(err)
			}
		})
		check(t, "when it has ended")
	})
	if err := c.set(statusEnabled|backlog, before); err != nil {
		t.Error(err)
	}
}

// TestTaskNever: with the rule of some distributions that switches off the
// auditing of calls, the sensor says so and does not claim to work.
func TestTaskNever(t *testing.T) {
	c := kernel(t)
	off, err := build("-a never,task", 0)
	if err != nil {
		t.Fatal(err)
	}
	off = bytes.Replace(off, []byte(Key), []byte("hostkey"), 1)
	if err := c.addRule(off); err != nil {
		t.Fatal(err)
	}
	s := New(sensortest.Table(t), sensortest.Log(t), Options{Own: true})
	err = s.Run(t.Context(), s.Categories(), sensortest.NewSink())
	if err := c.deleteRule(off); err != nil {
		t.Error(err)
	}
	if err == nil || !strings.Contains(err.Error(), "task,never") {
		t.Errorf("%v; want the rule that is in the way", err)
	}
}
