package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/event"
)

func newTable(t testing.TB, opts Options) *Table {
	t.Helper()
	table, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func run(t *Table, pid int, start uint64, ppid int, pstart uint64, line string) event.Process {
	p, _ := t.Exec(Key{pid, start}, Key{ppid, pstart}, event.Process{FolderPath: "/bin/" + line, FileName: line, CommandLine: line, UID: 0, LoginUID: -1, SessionID: -1})
	return p
}

func lines(ps []event.Process) (out []string) {
	for _, p := range ps {
		out = append(out, p.CommandLine)
	}
	return out
}

func TestPIDReuse(t *testing.T) {
	table := newTable(t, Options{ProcRoot: t.TempDir()})
	run(table, 100, 10, 1, 1, "login")
	run(table, 200, 20, 100, 10, "first")
	first := run(table, 300, 30, 200, 20, "child-of-first")
	if _, _, image, known := table.Exit(Key{200, 20}); !known || !image {
		t.Fatal("exit of first")
	}
	// The pid 200 is used again by another process, below another parent.
	run(table, 101, 11, 1, 1, "cron")
	run(table, 200, 40, 101, 11, "second")
	second := run(table, 301, 41, 200, 40, "child-of-second")
	if diff := cmp.Diff([]string{"first", "login"}, lines(table.AncestryOf(first))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"second", "cron"}, lines(table.AncestryOf(second))); diff != "" {
		t.Error(diff)
	}
	if p, _ := table.Lookup(200); p.CommandLine != "second" {
		t.Errorf("Lookup: %s", p.CommandLine)
	}
	// The end of the first was reported: hearing of it again changes nothing.
	if _, _, _, known := table.Exit(Key{200, 20}); known {
		t.Error("it ended twice")
	}
	// The end of 200/40 is lost; its pid appears again.
	run(table, 200, 60, 101, 11, "third")
	if p, _ := table.Lookup(200); p.CommandLine != "third" {
		t.Errorf("Lookup: %s", p.CommandLine)
	}
	// A late word of a process before does not replace the present one.
	table.Fork(Key{200, 50}, Key{101, 11}, 0)
	if p, _ := table.Lookup(200); p.CommandLine != "third" {
		t.Errorf("Lookup after a late fork: %s", p.CommandLine)
	}
}

func TestForkInheritsUntilExec(t *testing.T) {
	table := newTable(t, Options{ProcRoot: t.TempDir()})
	run(table, 10, 1, 1, 1, "sh")
	table.Fork(Key{11, 2}, Key{10, 1}, 1000)
	p, ok := table.Lookup(11)
	if !ok || p.CommandLine != "sh" || p.ParentPID != 10 || p.ParentFileName != "sh" || p.UID != 1000 || p.PID != 11 {
		t.Errorf("%+v", p)
	}
	if _, _, image, known := table.Exit(Key{11, 2}); image || !known {
		t.Error("a fork without exec counts as a program")
	}
	// Exec reported before its fork: the fork changes nothing.
	run(table, 12, 3, 10, 1, "ls")
	table.Fork(Key{12, 3}, Key{10, 1}, 0)
	if p, _ := table.Lookup(12); p.CommandLine != "ls" {
		t.Errorf("%+v", p)
	}
	// The parent ends, and exec names the new parent (init): the one that
	// forked stays the parent.
	table.Fork(Key{13, 4}, Key{10, 1}, 0)
	table.Exit(Key{10, 1})
	if p := run(table, 13, 4, 1, 0, "late"); p.ParentPID != 10 || p.ParentFileName != "sh" {
		t.Errorf("%+v", p)
	}
}

func TestBounds(t *testing.T) {
	now := time.Unix(1e9, 0)
	table := newTable(t, Options{ProcRoot: t.TempDir(), MaxExited: 100, MaxLive: 50, MaxBytes: 1 << 20, MaxAge: time.Minute, Now: func() time.Time { return now }})
	for i := range 1000 {
		run(table, 1000+i, uint64(i+10), 1, 1, fmt.Sprint("p", i))
		table.Exit(Key{1000 + i, uint64(i + 10)})
	}
	if s := table.Stats(); s.Exited != 100 || s.Live != 0 || s.Evicted != 900 {
		t.Errorf("%+v", s)
	}
	// A parent that ended stays as long as a child lives; others go with age.
	run(table, 5000, 5000, 1, 1, "parent")
	child := run(table, 5001, 5001, 5000, 5000, "child")
	table.Exit(Key{5000, 5000})
	now = now.Add(2 * time.Minute)
	run(table, 5002, 5002, 1, 1, "other")
	if diff := cmp.Diff([]string{"parent"}, lines(table.AncestryOf(child))); diff != "" {
		t.Error(diff)
	}
	if s := table.Stats(); s.Exited != 1 {
		t.Errorf("%+v", s)
	}
	table.Exit(Key{5001, 5001})
	now = now.Add(3 * time.Minute)
	run(table, 5003, 5003, 1, 1, "other")
	now = now.Add(3 * time.Minute)
	run(table, 5004, 5004, 1, 1, "other")
	if s := table.Stats(); s.Exited != 0 {
		t.Errorf("%+v", s)
	}
	for i := range 200 {
		table.Exec(Key{6000 + i, uint64(6000 + i)}, Key{1, 1}, event.Process{FolderPath: "/" + strings.Repeat("d", 4000), CommandLine: strings.Repeat("x", 30000)})
	}
	if s := table.Stats(); s.Live > 50 || s.Bytes > 1<<20 {
		t.Errorf("%+v", s)
	}
}

func TestChainIsBoundedAndEnds(t *testing.T) {
	table := newTable(t, Options{ProcRoot: t.TempDir()})
	for i := 1; i < 100; i++ {
		run(table, 100+i, uint64(i), 99+i, uint64(i-1), "x")
	}
	if n := len(table.Ancestry(199)); n != MaxAncestry {
		t.Errorf("%d", n)
	}
	// A record that makes a process its own parent must not make a loop.
	run(table, 500, 1, 500, 1, "loop")
	if n := len(table.Ancestry(500)); n > MaxAncestry {
		t.Errorf("%d", n)
	}
}

func TestSeedAndDescribe(t *testing.T) {
	table := newTable(t, Options{})
	if err := table.Seed(context.Background()); err != nil {
		t.Fatal(err)
	}
	me, ok := table.Lookup(os.Getpid())
	exe, _ := os.Executable()
	cwd, _ := os.Getwd()
	if !ok || me.FolderPath != exe || me.CommandLine != strings.Join(os.Args, " ") || me.WorkingDir != cwd ||
		me.UID != int64(os.Getuid()) || me.ParentPID != int64(os.Getppid()) || me.ParentFileName == "" {
		t.Errorf("%+v", me)
	}
	if d := time.Since(me.StartTime); d < 0 || d > time.Hour {
		t.Errorf("started %v ago", d)
	}
	// One that was started afterwards is not in the table yet.
	cmd := exec.Command("/bin/sleep", "30")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	waitFor(t, func() bool { p, _ := table.Describe(cmd.Process.Pid); return p.CommandLine == "/bin/sleep 30" })
	p, chain := table.Describe(cmd.Process.Pid)
	if p.FileName != "sleep" || len(chain) < 1 || chain[0].PID != int64(os.Getpid()) || p.ParentFileName != filepath.Base(exe) {
		t.Errorf("%+v\n%+v", p, chain)
	}
	if p, _ := table.Describe(1 << 22); p.PID != 1<<22 || p.FolderPath != "" || p.UID != -1 {
		t.Errorf("%+v", p)
	}
	// Without a seed the whole chain comes from /proc.
	fresh := newTable(t, Options{})
	p, chain = fresh.Describe(cmd.Process.Pid)
	if p.CommandLine != "/bin/sleep 30" || len(chain) < 2 || chain[0].PID != int64(os.Getpid()) || chain[1].PID != int64(os.Getppid()) {
		t.Errorf("%+v\n%+v", p, chain)
	}
	if !p.StartTime.Equal(mustDescribe(table, cmd.Process.Pid).StartTime) {
		t.Log("two clocks differ by a tick")
	}
}

// TestDescribeAfterExec: what was read in the middle of an exec, when the program
// is there and its arguments are not, is read again.
func TestDescribeAfterExec(t *testing.T) {
	table := newTable(t, Options{})
	want, _ := table.Describe(os.Getpid())
	if want.CommandLine == "" {
		t.Fatalf("%+v", want)
	}
	table.mu.Lock()
	for _, e := range table.byKey {
		if e.proc.PID == int64(os.Getpid()) {
			e.proc.CommandLine = ""
		}
	}
	table.mu.Unlock()
	if got, _ := table.Describe(os.Getpid()); got.CommandLine != want.CommandLine {
		t.Errorf("%q, want %q", got.CommandLine, want.CommandLine)
	}
}

func mustDescribe(t *Table, pid int) event.Process { p, _ := t.Describe(pid); return p }

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 10 s")
		}
	}
}

// Describe must answer when /proc hangs.
// Who wrote a file may have ended before anybody asks.
func TestDescribeEnded(t *testing.T) {
	table := newTable(t, Options{ProcRoot: t.TempDir()})
	run(table, 77, 5, 1, 1, "earlier")
	table.Exit(Key{77, 5})
	run(table, 77, 9, 1, 1, "later")
	table.Exit(Key{77, 9})
	if p, _ := table.Describe(77); p.CommandLine != "later" {
		t.Errorf("%+v", p)
	}
	if p, _ := table.Describe(78); p.FileName != "" || p.PID != 78 {
		t.Errorf("%+v", p)
	}
}

func TestDescribeIsBounded(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "77")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Opening a pipe that nobody writes to waits, as a hanging /proc does.
	fifo := filepath.Join(dir, "stat")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	table := newTable(t, Options{ProcRoot: root})
	run(table, 77, 5, 1, 1, "held")
	for range 10 { // more than there are readers
		if p, _ := table.Describe(77); p.CommandLine != "held" {
			t.Errorf("%+v", p)
		}
	}
	// Let the readers go.
	waitFor(t, func() bool {
		if f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			f.Close()
		}
		return len(table.slots) == 0
	})
}

func TestConcurrentUse(t *testing.T) {
	table := newTable(t, Options{MaxExited: 64})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 300 {
				k := Key{10000 + i, uint64(1000*g + i + 1)}
				table.Fork(k, Key{1, 1}, 0)
				p, _ := table.Exec(k, Key{1, 1}, event.Process{FolderPath: "/x", CommandLine: "x", UID: -1, LoginUID: -1})
				table.Complete(&p, Facts{Hashes: Hashes{SHA256: "aa"}})
				table.AncestryOf(p)
				table.Describe(os.Getpid())
				table.Exit(k)
			}
		})
	}
	wg.Wait()
}

func TestParseStat(t *testing.T) {
	const line = "1234 (a) b (c) S 1 1234 1200 34817 1234 4194560 90 0 0 0 0 0 0 0 20 0 1 0 98765 8192 10 18446744073709551615 1 1 0"
	got, err := ParseStat([]byte(line))
	want := Stat{PID: 1234, Comm: "a) b (c", PPID: 1, Session: 1200, TTY: 34817, Start: 98765}
	if err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	if TTYName(got.TTY) != "pts/1" || TTYName(1025) != "tty1" || TTYName(1088) != "ttyS0" || TTYName(0) != "" {
		t.Errorf("%s %s %s", TTYName(got.TTY), TTYName(1025), TTYName(1088))
	}
	for _, bad := range []string{"", "1", "1 (a", "x (a) S", "0 (a) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "1 (a) S 1 1", strings.Replace(line, "98765", "x", 1)} {
		if _, err := ParseStat([]byte(bad)); !errors.Is(err, errFormat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestContainerID(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for path, want := range map[string]string{
		"/docker/" + id:                         id,
		"/system.slice/docker-" + id + ".scope": id,
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope": id,
		"/kubepods/besteffort/pod12/" + id + "/init.scope":                    id,
		"/machine.slice/libpod-" + id + ".scope/container":                    id,
		"/machine.slice/libpod-conmon-" + id + ".scope":                       "",
		"/kubepods-besteffort-pod1.slice:cri-containerd:" + id:                id,
		"/lxc.payload.web1/system.slice/ssh.service":                          "web1",
		"/machine.slice/machine-web\\x2d1.scope":                              "web-1",
		"/user.slice/user-1000.slice/session-3.scope":                         "",
		"/process_api/5388d7d3165464a7a781a202c61c50a6":                       "",
		"/x" + id: "",
	} {
		if got := ContainerID(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if got := ParseCgroup([]byte("12:pids:/docker/" + id + "\n0::/\n")); got != id {
		t.Errorf("%q", got)
	}
}

func TestUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n#c:x:5:\nbroken\nbad:x:-1:0:\nann:x:1000:1000::/h:/bin/sh")
	u := NewUsers(file)
	if u.Name(0) != "root" || u.Name(1000) != "ann" || u.Name(5) != "" || u.Name(7) != "" {
		t.Errorf("%v", u.names)
	}
	write("eve:x:1000:1000::/h:/bin/sh\n")
	u.checked = time.Time{}
	if u.Name(1000) != "eve" || u.Name(0) != "" {
		t.Errorf("%v", u.names)
	}
}

// hasThread reports whether a thread of the test has a name.
func hasThread(t *testing.T, name string) bool {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(threads, func(file string) bool {
		comm, err := os.ReadFile(file)
		return err == nil && strings.TrimSpace(string(comm)) == name
	})
}

func TestHasher(t *testing.T) {
	h := NewHasher("", HasherOptions{Cache: 2, MaxFile: 1 << 20, Queue: 4})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir := t.TempDir()
	prog := filepath.Join(dir, "prog")
	data, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(prog, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(prog, "30")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	sum := sha256.Sum256(data)
	want := hex.EncodeToString(sum[:])
	p := event.Process{PID: int64(cmd.Process.Pid), FolderPath: prog}

	// Nobody computes yet: the caller's time is over, the work stays queued.
	short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	if _, err := h.Executable(&p, Image{}).Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	stop()
	go h.Run(ctx)
	// The thread that computes has a name, which those who measure look for.
	for deadline := time.Now().Add(2 * time.Minute); !hasThread(t, HasherThread); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no thread has the hasher's name")
		}
	}
	// The file is gone: the running process still has it.
	if err := os.Remove(prog); err != nil {
		t.Fatal(err)
	}
	got, err := h.Executable(&p, Image{}).Wait(ctx)
	if err != nil || got.SHA256 != want || got.Size != int64(len(data)) || len(got.MD5) != 32 || len(got.SHA1) != 40 {
		t.Errorf("%+v %v", got, err)
	}
	// A process that ended, whose file was replaced, gets no wrong hash.
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("new"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Executable(&event.Process{PID: 1 << 22, FolderPath: other}, Image{Inode: 12345}).Wait(ctx); err == nil {
		t.Errorf("%+v", got)
	}
	if got, err := h.Executable(&event.Process{PID: 1 << 22, FolderPath: other}, Image{}).Wait(ctx); err != nil || got.Size != 3 {
		t.Errorf("%+v %v", got, err)
	}
	// A write changes the identity, so the hash is computed anew.
	if err := os.WriteFile(other, []byte("new2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Executable(&event.Process{PID: 1 << 22, FolderPath: other}, Image{}).Wait(ctx); err != nil || got.Size != 4 {
		t.Errorf("%+v %v", got, err)
	}
	if s := h.Stats(); s.Cached != 2 || s.Computed < 3 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	// Too large to hash; no regular file.
	if err := os.Truncate(other, 2<<20); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Executable(&event.Process{PID: 1 << 22, FolderPath: other}, Image{}).Wait(ctx); err != nil || got.SHA256 != "" || got.Size != 2<<20 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := h.Executable(&event.Process{PID: 1 << 22, FolderPath: dir}, Image{}).Wait(ctx); err == nil {
		t.Error("a folder has a hash")
	}
}

func FuzzProc(f *testing.F) {
	f.Add([]byte("1234 (a) b (c) S 1 1234 1200 34817 1234 4194560 90 0 0 0 0 0 0 0 20 0 1 0 98765 8192"))
	f.Add([]byte("Name:\tx\nUid:\t0\t0\t0\t0\n"))
	f.Add([]byte("12:pids:/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n0::/\n"))
	f.Add([]byte("root:x:0:0::/root:/bin/sh\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseStat(b); err == nil && s.PID <= 0 {
			t.Errorf("%+v", s)
		}
		_, _ = ParseStatusUID(b)
		if len(ParseCgroup(b)) > len(b)*3 {
			t.Error("longer than the input")
		}
		ParsePasswd(b)
		if s := CommandLine(b); len(s) > 3*MaxCommandLine || strings.ToValidUTF8(s, "") != s {
			t.Error("not bounded text")
		}
	})
}

// Recent gives the one that ended last, also where an earlier one of the same pid
// was kept longer for its child; nobody whose pid may be another's by now.
func TestRecent(t *testing.T) {
	now := time.Unix(1e9, 0)
	table := newTable(t, Options{ProcRoot: t.TempDir(), MaxAge: time.Minute, Now: func() time.Time { return now }})
	recent := func(pid int) string {
		p, _ := table.Recent(pid)
		return p.CommandLine
	}
	run(table, 77, 5, 1, 1, "parent")
	run(table, 78, 6, 77, 5, "child")
	table.Exit(Key{77, 5})
	now = now.Add(40 * time.Second)
	run(table, 77, 9, 1, 1, "later")
	if got := recent(77); got != "later" {
		t.Errorf("while it lives: %q", got)
	}
	table.Exit(Key{77, 9})
	now = now.Add(30 * time.Second)
	run(table, 79, 10, 1, 1, "other") // the parent is aged: it goes to the end of the list
	if got := recent(77); got != "later" || table.Stats().Exited != 2 {
		t.Errorf("after its end: %q, %+v", got, table.Stats())
	}
	now = now.Add(40 * time.Second)
	run(table, 80, 11, 1, 1, "other")
	if got := recent(77); got == "later" || table.Stats().Exited != 1 {
		t.Errorf("forgotten, and %q: %+v", got, table.Stats())
	}
	run(table, 81, 12, 1, 1, "before many")
	table.Exit(Key{81, 12})
	for i := range maxLookBack {
		if got := recent(81); got != "before many" {
			t.Fatalf("%q after %d", got, i)
		}
		run(table, 1000+i, uint64(100+i), 1, 1, "many")
		table.Exit(Key{1000 + i, uint64(100 + i)})
	}
	if got := recent(81); got != "" {
		t.Errorf("%q ended too long ago", got)
	}
}
