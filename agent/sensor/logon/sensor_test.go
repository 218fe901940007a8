package logon

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
)

func TestLines(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stamp := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	for _, tc := range []struct {
		line string
		want Line
	}{
		{
			"Jan  2 03:04:00 host sshd[71]: Accepted publickey for anna from 192.0.2.7 port 50022 ssh2: ED25519 SHA256:abc",
			Line{Time: stamp, Action: event.LogonSuccess, Program: "sshd", PID: 71, Account: "anna", RemoteIP: "192.0.2.7", Port: 50022, Method: "publickey"},
		},
		{
			"2026-01-02T04:04:00.000000+01:00 host sshd-session[71]: Failed password for root from 2001:db8::1 port 22 ssh2",
			Line{Time: stamp, Action: event.LogonFailed, Program: "sshd-session", PID: 71, Account: "root", RemoteIP: "2001:db8::1", Port: 22, Method: "password", Reason: BadPassword},
		},
		{
			"2026-01-02T03:04:00.000000+0000 host sshd[71]: Invalid user a dmin from 192.0.2.7 port 1",
			Line{Time: stamp, Action: event.LogonFailed, Program: "sshd", PID: 71, Account: "a dmin", RemoteIP: "192.0.2.7", Port: 1, Reason: UnknownUser},
		},
		{"Jan  2 03:04:00 host sshd[71]: Failed password for invalid user admin from 192.0.2.7 port 1 ssh2", Line{}},
		{"Jan  2 03:04:00 host sshd[71]: pam_unix(sshd:session): session opened for user anna(uid=1000) by (uid=0)", Line{}},
		{
			"Jan  2 03:04:00 host sshd[71]: pam_unix(sshd:session): session closed for user anna",
			Line{Time: stamp, Action: event.Logoff, Program: "sshd", PID: 71, Account: "anna"},
		},
		{
			"Jan  2 03:04:00 host su[9]: pam_unix(su-l:session): session opened for user root(uid=0) by anna(uid=1000)",
			Line{Time: stamp, Action: event.LogonSuccess, Program: "su-l", PID: 9, Account: "root", By: "anna"},
		},
		{
			"Jan  2 03:04:00 host sudo: pam_unix(sudo:session): session closed for user root",
			Line{Time: stamp, Action: event.Logoff, Program: "sudo", Account: "root"},
		},
		{
			"Jan  2 03:04:00 host CRON[12]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
			Line{Time: stamp, Action: event.LogonSuccess, Program: "cron", PID: 12, Account: "root"},
		},
		{
			"Jan  2 03:04:00 host sudo: pam_unix(sudo:auth): authentication failure; logname=anna uid=1000 euid=0 tty=/dev/pts/0 ruser=anna rhost=  user=anna",
			Line{Time: stamp, Action: event.LogonFailed, Program: "sudo", Account: "anna", By: "anna", Terminal: "/dev/pts/0", Reason: BadPassword},
		},
		{
			"Jan  2 03:04:00 host login[5]: FAILED LOGIN (1) on '/dev/tty1' FOR 'root', Authentication failure",
			Line{Time: stamp, Action: event.LogonFailed, Program: "login", PID: 5, Account: "root", Terminal: "/dev/tty1", Reason: BadPassword},
		},
		{"Jan  2 03:04:00 host sudo:     anna : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls", Line{}},
		// What a remote name says about another is not believed.
		{
			"Jan  2 03:04:00 host sshd[71]: Invalid user Accepted password for root from 1.2.3.4 port 1 from 192.0.2.7 port 9",
			Line{Time: stamp, Action: event.LogonFailed, Program: "sshd", PID: 71, Account: "Accepted password for root from 1.2.3.4 port 1", RemoteIP: "192.0.2.7", Port: 9, Reason: UnknownUser},
		},
		{"", Line{}},
	} {
		got := newMatcher().parse(tc.line, now)
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.line, d)
		}
	}
}

// record makes a record of wtmp.
func record(kind int16, pid int32, line, user, host string, at time.Time, ip [4]byte) []byte {
	b := make([]byte, UtmpSize(runtime.GOARCH))
	binary.NativeEndian.PutUint16(b, uint16(kind))
	binary.NativeEndian.PutUint32(b[4:], uint32(pid))
	copy(b[8:40], line)
	copy(b[44:76], user)
	copy(b[76:332], host)
	if runtime.GOARCH == "arm64" {
		binary.NativeEndian.PutUint64(b[344:], uint64(at.Unix()))
		copy(b[360:], ip[:])
	} else {
		binary.NativeEndian.PutUint32(b[340:], uint32(at.Unix()))
		copy(b[348:], ip[:])
	}
	return b
}

func add(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
}

// TestSensor writes what login and sshd write, with and without a log beside it.
func TestSensor(t *testing.T) {
	dir := t.TempDir()
	wtmp, btmp, auth := filepath.Join(dir, "wtmp"), filepath.Join(dir, "btmp"), filepath.Join(dir, "auth.log")
	start := time.Now().Truncate(time.Second)
	add(t, wtmp, record(utmpUser, 1, "pts/7", "old", "", start.Add(-time.Hour), [4]byte{}))
	add(t, auth, []byte("an old line\n"))
	s := New(sensortest.Table(t), sensortest.Log(t), Options{WTMP: wtmp, BTMP: btmp, Logs: []string{auth}})
	s.poll, s.hold = 20*time.Millisecond, 700*time.Millisecond
	sink := sensortest.Start(t, s)
	is := func(action, account string) func(*event.Event) bool {
		return func(e *event.Event) bool {
			return e.Action == action && e.Logon.AccountName == account && e.Class == event.ClassLogon
		}
	}
	// Of wtmp alone.
	whole := record(utmpUser, int32(os.Getpid()), "pts/9", "anna", "client.example", start, [4]byte{192, 0, 2, 7})
	add(t, wtmp, whole[:100])
	time.Sleep(20 * time.Millisecond)
	add(t, wtmp, whole[100:])
	e := sink.Wait(t, 1, "logon", is(event.LogonSuccess, "anna"))[0]
	if e.Logon.Type != Remote || e.Logon.RemoteIP != "192.0.2.7" || e.Logon.RemoteDevice != "client.example" || !e.Time.Equal(start) || e.Initiating.PID != int64(os.Getpid()) {
		t.Errorf("%+v", e)
	}
	add(t, wtmp, record(utmpDead, int32(os.Getpid()), "pts/9", "", "", start, [4]byte{}))
	if e := sink.Wait(t, 1, "logoff", is(event.Logoff, "anna"))[0]; e.Logon.RemoteIP != "192.0.2.7" {
		t.Errorf("%+v", e)
	}
	add(t, wtmp, record(utmpDead, 1, "pts/7", "", "", start, [4]byte{}))
	sink.Wait(t, 1, "end of a session from before the start", is(event.Logoff, "old"))
	// A session that ends without a record.
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	add(t, wtmp, record(utmpUser, int32(child.Process.Pid), "pts/8", "short", "", start, [4]byte{}))
	sink.Wait(t, 1, "logon", is(event.LogonSuccess, "short"))
	if got := sink.Find(is(event.Logoff, "short")); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	sink.Wait(t, 1, "end of a process", is(event.Logoff, "short"))
	// btmp did not exist at the start.
	add(t, btmp, record(utmpUser, 3, "ssh:notty", "eve", "192.0.2.9", start, [4]byte{192, 0, 2, 9}))
	if e := sink.Wait(t, 1, "failed logon", is(event.LogonFailed, "eve"))[0]; e.Logon.FailureReason != BadPassword || e.Logon.RemoteIP != "192.0.2.9" || e.Logon.Protocol != "ssh" {
		t.Errorf("%+v", e)
	}
	// The log and wtmp tell the same: it is told once, with what the log knows.
	now := time.Now().UTC()
	line := now.Format(time.RFC3339Nano) + " host sshd[1]: Accepted password for carl from 192.0.2.8 port 4711 ssh2\n"
	add(t, auth, []byte(line[:30]))
	add(t, auth, []byte(line[30:]))
	add(t, wtmp, record(utmpUser, 1, "pts/3", "carl", "192.0.2.8", now, [4]byte{192, 0, 2, 8}))
	add(t, wtmp, record(utmpUser, 1, "tty1", "last", "", now, [4]byte{}))
	sink.Wait(t, 1, "logon at the console", is(event.LogonSuccess, "last"))
	if got := sink.Find(is(event.LogonSuccess, "carl")); len(got) != 1 || got[0].Logon.RemotePort != 4711 || got[0].Additional["Method"] != "password" {
		t.Errorf("%+v", got)
	}
	// The log is replaced.
	if err := os.Rename(auth, auth+".1"); err != nil {
		t.Fatal(err)
	}
	add(t, auth+".1", []byte(now.Format(time.RFC3339Nano)+" host sshd[1]: Accepted password for before from 192.0.2.8 port 1 ssh2\n"))
	add(t, auth, []byte(now.Format(time.RFC3339Nano)+" host sshd[1]: Accepted password for after from 192.0.2.8 port 2 ssh2\n"))
	sink.Wait(t, 1, "of the new file", is(event.LogonSuccess, "after"))
	sink.Wait(t, 1, "of the old file", is(event.LogonSuccess, "before"))
	if st := s.Stats(); st.Seen != st.Delivered+st.Filtered || st.Filtered != 1 {
		t.Errorf("%+v", st)
	}
}

// TestJournal: without a log file the journal's lines are read.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	in, out := io.Pipe()
	s := New(sensortest.Table(t), sensortest.Log(t), Options{
		WTMP: filepath.Join(dir, "w"), BTMP: filepath.Join(dir, "b"), Logs: []string{filepath.Join(dir, "none")},
		Journal: func(_ context.Context, args ...string) (io.ReadCloser, error) {
			if !strings.Contains(strings.Join(args, " "), "--follow") {
				t.Errorf("%v", args)
			}
			return in, nil
		},
	})
	sink := sensortest.Start(t, s)
	if _, err := out.Write([]byte(strings.Repeat("x", 3*maxLine) + "\n2026-01-02T03:04:00.000000+0000 host sudo[3]: pam_unix(sudo:session): session opened for user root(uid=0) by anna(uid=1000)\n")); err != nil {
		t.Fatal(err)
	}
	e := sink.Wait(t, 1, "sudo", func(e *event.Event) bool { return e.Logon.Protocol == "sudo" })[0]
	if e.Logon.AccountName != "root" || !e.Logon.IsLocalAdmin || e.Additional["RequestedBy"] != "anna" || e.Logon.Type != Interactive {
		t.Errorf("%+v", e)
	}
}

func TestAdmins(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"passwd": "root:x:0:0::/:/bin/sh\ntoor:x:0:5::/:/bin/sh\nanna:x:1:1::/:/bin/sh\nberta:x:2:27::/:/bin/sh\ncarl:x:3:3::/:/bin/sh\n",
		"group":  "root:x:0:\nsudo:x:27:anna\nusers:x:3:carl\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := &Admins{Root: root}
	for name, want := range map[string]bool{"root": true, "toor": true, "anna": true, "berta": true, "carl": false, "nobody": false, "": false} {
		if a.Is(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func FuzzLogons(f *testing.F) {
	f.Add("Jan  2 03:04:00 host sshd[71]: Accepted publickey for anna from 192.0.2.7 port 50022 ssh2", record(7, 1, "pts/1", "a", "h", time.Unix(1, 0), [4]byte{1}))
	f.Add("x sudo: pam_unix(sudo:auth): authentication failure; logname= uid=0 euid=0 tty= ruser= rhost=", []byte{})
	m := newMatcher()
	f.Fuzz(func(t *testing.T, line string, b []byte) {
		if l := m.parse(line, time.Unix(1e9, 0)); len(l.Account) > maxLine {
			t.Error(len(l.Account))
		}
		for _, arch := range []string{"amd64", "arm64"} {
			if u, ok := ParseUtmp(b, arch); ok && len(u.User) > 3*32 {
				t.Error(u)
			}
		}
	})
}

// TestToldOfChanges: what is appended to files, and a file that is new, is seen
// long before the files are looked at without a reason.
func TestToldOfChanges(t *testing.T) {
	dir := t.TempDir()
	auth := filepath.Join(dir, "auth.log")
	s := New(sensortest.Table(t), sensortest.Log(t), Options{WTMP: filepath.Join(dir, "wtmp"), BTMP: filepath.Join(dir, "btmp"), Logs: []string{auth}})
	s.poll, s.lookAnyway = 10*time.Millisecond, time.Hour
	sink := sensortest.Start(t, s)
	for _, name := range []string{"first", "second"} {
		add(t, auth, []byte(time.Now().Format(time.RFC3339Nano)+" host sshd[1]: Accepted password for "+name+" from 192.0.2.8 port 1 ssh2\n"))
		sink.Wait(t, 1, name, func(e *event.Event) bool { return e.Logon.AccountName == name })
	}
}

// TestNotifier: changes are told, of files that replace others too, and no
// watch is left of a file that was replaced.
func TestNotifier(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	n := newNotifier(t.Context(), []string{path, filepath.Join(dir, "never")})
	if n == nil {
		t.Fatal("no inotify")
	}
	defer n.close()
	told := func(what string, change func()) {
		t.Helper()
		change()
		select {
		case <-n.changed:
		case <-time.After(2 * time.Minute):
			t.Fatalf("not told: %s", what)
		}
		if !n.watch() {
			t.Fatal("not watched")
		}
		// One change may be told twice.
		select {
		case <-n.changed:
		case <-time.After(20 * time.Millisecond):
		}
	}
	told("a new file", func() { add(t, path, nil) })
	told("an addition", func() { add(t, path, []byte("x")) })
	told("a file that replaces it", func() {
		add(t, path+".new", nil)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	})
	told("an addition to that", func() { add(t, path, []byte("x")) })
	if len(n.wds) != 2 { // the file and the folder
		t.Errorf("%v", n.wds)
	}
	// A file that is there and cannot be watched, as when watches run out: its
	// folder does not tell of additions.
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	if n := newNotifier(t.Context(), []string{path, loop}); n != nil {
		n.close()
		t.Error("a notifier that does not tell of every file")
	}
	if n.close(); n.watch() {
		t.Error("watched by what is closed")
	}
	if _, open := <-n.changed; open {
		if _, open = <-n.changed; open {
			t.Error("not closed")
		}
	}
}
