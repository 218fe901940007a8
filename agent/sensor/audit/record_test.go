package audit

import (
	"bufio"
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bulwarkhq/bulwark/test/need"
)

// groups puts the lines of a log together.
func groups(t *testing.T, log string) []*Group {
	t.Helper()
	var out []*Group
	c := NewCoalescer()
	sc := bufio.NewScanner(strings.NewReader(log))
	sc.Buffer(nil, 1<<20)
	now := time.Unix(1e9, 0)
	for sc.Scan() {
		if strings.TrimSpace(sc.Text()) == "" {
			continue
		}
		r, err := ParseLine(sc.Text())
		if err != nil {
			if !strings.Contains(err.Error(), "is not known") {
				t.Fatalf("%v: %.200s", err, sc.Text())
			}
			continue
		}
		c.Add(r, now, func(g *Group) { out = append(out, g) })
	}
	c.Flush(func(g *Group) { out = append(out, g) })
	return out
}

// TestPeersRecords reads the records that LAUREL is tested with and compares
// with what it makes of them.
func TestPeersRecords(t *testing.T) {
	dir := need.SharedTestdata(t, "audit-records")
	names, err := filepath.Glob(filepath.Join(dir, "record-*.json"))
	if err != nil || len(names) < 10 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	arguments, paths := 0, 0
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
			var want struct {
				Syscall struct {
					Exe, Comm, Success, Arch string
					PID, PPID                int64
					Syscall                  any
				} `json:"SYSCALL"`
				Execve    struct{ ARGV []string }
				Cwd       struct{ Cwd string }
				Path      []struct{ Name, NameType string }
				Proctitle struct{ ARGV []string }
			}
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(raw, &want); err != nil {
				return // of another form, e.g. of no system call
			}
			log, err := os.ReadFile(strings.TrimSuffix(name, ".json") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			var g *Group
			for _, one := range groups(t, string(log)) {
				if one.Type == typeSyscall {
					g = one
				}
			}
			if want.Syscall.Exe == "" && want.Syscall.Comm == "" {
				return // of no system call
			}
			if g == nil {
				t.Fatal("no system call")
			}
			// LAUREL writes bytes beyond ASCII in its own way.
			if !strings.Contains(want.Syscall.Exe, "%") && g.Fields["exe"] != want.Syscall.Exe || g.Fields["comm"] != want.Syscall.Comm || g.Fields["success"] != want.Syscall.Success {
				t.Errorf("exe %q comm %q success %q, want %+v", g.Fields["exe"], g.Fields["comm"], g.Fields["success"], want.Syscall)
			}
			if pid, _ := g.int("pid"); pid != want.Syscall.PID {
				t.Errorf("pid %d, want %d", pid, want.Syscall.PID)
			}
			if len(want.Execve.ARGV) > 0 && !strings.Contains(strings.Join(want.Execve.ARGV, ""), "<") {
				arguments++
				if d := gocmp.Diff(want.Execve.ARGV, g.Args); d != "" {
					t.Errorf("arguments: %.2000s", d)
				}
			}
			if g.Cwd != want.Cwd.Cwd {
				t.Errorf("cwd %q, want %q", g.Cwd, want.Cwd.Cwd)
			}
			if len(g.Paths) != len(want.Path) {
				t.Fatalf("%d paths, want %d", len(g.Paths), len(want.Path))
			}
			for i, p := range want.Path {
				paths++
				if g.Paths[i].Name != p.Name || g.Paths[i].NameType != p.NameType {
					t.Errorf("path %d: %+v, want %+v", i, g.Paths[i], p)
				}
			}
			if len(want.Proctitle.ARGV) > 0 && !strings.ContainsAny(strings.Join(want.Proctitle.ARGV, ""), "%<") && g.Title != strings.Join(want.Proctitle.ARGV, " ") {
				t.Errorf("title %q, want %q", g.Title, want.Proctitle.ARGV)
			}
		})
	}
	if arguments < 2 || paths < 10 {
		t.Errorf("only %d lists of arguments and %d paths were compared", arguments, paths)
	}
}

// TestPeersEvents compares with what go-libaudit's coalescing makes of records
// of nine kernels.
func TestPeersEvents(t *testing.T) {
	dir := need.SharedTestdata(t, "audit-coalesce")
	goldens, err := filepath.Glob(filepath.Join(dir, "aucoalesce/testdata/*.json.golden"))
	if err != nil || len(goldens) < 8 {
		t.Fatalf("%d files, %v", len(goldens), err)
	}
	compared := 0
	for _, golden := range goldens {
		raw, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		var tests []struct {
			Name  string `json:"test_name"`
			Event struct {
				Sequence uint32
				Result   string
				Session  string
				Process  struct {
					PID, PPID, Name, Exe, Title, CWD string
					Args                             []string
				}
				Paths []struct{ Name string }
				Data  map[string]string
			}
		}
		if err := json.Unmarshal(raw, &tests); err != nil {
			t.Fatal(err)
		}
		yml, err := os.ReadFile(strings.TrimSuffix(golden, ".json.golden") + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		bySerial := map[uint32]*Group{}
		var log strings.Builder
		for l := range strings.Lines(string(yml)) {
			if l = strings.TrimSpace(l); strings.HasPrefix(l, "type=") {
				log.WriteString(l + "\n")
			}
		}
		for _, g := range groups(t, log.String()) {
			if old := bySerial[g.Serial]; old == nil || g.Type == typeSyscall {
				bySerial[g.Serial] = g
			}
		}
		for _, want := range tests {
			g := bySerial[want.Event.Sequence]
			if g == nil {
				continue // of a kind that is not followed
			}
			if !g.Type.followed() {
				continue
			}
			compared++
			where := filepath.Base(golden) + ": " + want.Name
			for _, c := range [][3]string{
				{"pid", g.Fields["pid"], want.Event.Process.PID},
				{"exe", g.Fields["exe"], want.Event.Process.Exe},
				{"cwd", cmp.Or(g.Cwd, g.Fields["cwd"]), want.Event.Process.CWD},
				{"title", g.Title, want.Event.Process.Title},
				{"addr", g.Fields["addr"], want.Event.Data["addr"]},
				{"op", g.Fields["op"], want.Event.Data["op"]},
			} {
				if c[0] == "op" && g.Type == typeSyscall {
					continue // of another record
				}
				if c[2] != "" && c[1] != c[2] {
					t.Errorf("%s: %s is %q, want %q", where, c[0], c[1], c[2])
				}
			}
			if len(want.Event.Process.Args) > 0 {
				if d := gocmp.Diff(want.Event.Process.Args, g.Args); d != "" {
					t.Errorf("%s: arguments: %s", where, d)
				}
			}
			for i, p := range want.Event.Paths {
				if i >= len(g.Paths) || p.Name != "(null)" && g.Paths[i].Name != p.Name {
					t.Errorf("%s: path %d: %+v, want %q", where, i, g.Paths, p.Name)
				}
			}
		}
	}
	if compared < 25 {
		t.Errorf("only %d events were compared", compared)
	}
	for name, want := range map[string]int{"normal.log": 0, "out_of_order.log": 0, "lost_messages.log": 0, "rollover.log": 0} {
		log, err := os.ReadFile(filepath.Join(dir, "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		serials := map[uint32]bool{}
		for l := range strings.Lines(string(log)) {
			if r, err := ParseLine(l); err == nil {
				serials[r.Serial] = true
			}
		}
		got := map[uint32]int{}
		for _, g := range groups(t, string(log)) {
			got[g.Serial]++
		}
		for s := range serials {
			if got[s] != 1 {
				t.Errorf("%s: event %d was given %d times", name, s, got[s])
			}
		}
		_ = want
	}
}

func TestRecord(t *testing.T) {
	for _, tc := range []struct{ line, err string }{
		{"type=SYSCALL msg=audit(1.000:1): a=b", ""},
		{"node=n type=SYSCALL msg=audit(1.000:1): a=b", ""},
		{"type=UNKNOWN[1337] msg=audit(1.000:1): a=b", ""},
		{"type=NOSUCH msg=audit(1.000:1): a=b", "NOSUCH"},
		{"hello", "type="},
		{"type=SYSCALL msg=audit(1.000): a=b", "serial"},
		{"type=SYSCALL msg=audit(x:1): a=b", "time"},
		{"type=SYSCALL msg=audit(1.000:99999999999): a=b", "serial"},
		{"type=SYSCALL msg=audit(1.000:1", "no end"},
		{"type=SYSCALL msg=audit(1.000:1): " + strings.Repeat("a", maxRecord), "limit"},
	} {
		_, err := ParseLine(tc.line)
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%.60s: %v, want %q", tc.line, err, tc.err)
		}
	}
	r, err := ParseLine("type=USER_START msg=audit(1615113648.981:15220): pid=9460 uid=1000 auid=1000 ses=1 msg='op=PAM:accounting grantors=pam_permit acct=\"us er\" exe=2F612062 hostname=? addr=? terminal=/dev/pts/1 res=success'\x1dUID=\"user\"")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	each(r.Text, func(k, v string, raw bool) {
		if k == "exe" {
			v = decode(v, raw)
		}
		got[k] = v
	})
	want := map[string]string{
		"pid": "9460", "uid": "1000", "auid": "1000", "ses": "1", "op": "PAM:accounting", "grantors": "pam_permit",
		"acct": "us er", "exe": "/a b", "hostname": "?", "addr": "?", "terminal": "/dev/pts/1", "res": "success",
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestPendingIsBounded: records without an end do not fill the memory.
func TestPendingIsBounded(t *testing.T) {
	c := NewCoalescer()
	n := 0
	now := time.Unix(1e9, 0)
	for i := range uint32(3 * maxPending) {
		c.Add(Record{Type: typeSyscall, Serial: i, Text: "syscall=59"}, now, func(*Group) { n++ })
	}
	if len(c.pending) > maxPending || n != 2*maxPending {
		t.Errorf("%d wait, %d were given", len(c.pending), n)
	}
	c.Expire(now.Add(maxWait), func(*Group) { n++ })
	if n != 3*maxPending || len(c.pending) != 0 || len(c.order) != 0 {
		t.Errorf("%d given, %d wait", n, len(c.pending))
	}
	c.Add(Record{Type: typeSyscall, Serial: 1, Text: "syscall=59"}, now, func(*Group) {})
	long := strings.Repeat("41", 7000)
	for i := range 100 {
		text := "a0[" + string(rune('0'+i%10)) + "]=" + long
		c.Add(Record{Type: typeExecve, Serial: 1, Text: text}, now, func(*Group) {})
	}
	if g := c.pending[1]; !g.ArgsCut || g.argBytes > maxArgs+8000*100 || len(g.Args) != 1 || len(g.Args[0]) > maxArgs {
		t.Errorf("%d arguments, cut %v", len(g.Args), g.ArgsCut)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add("type=SYSCALL msg=audit(1.000:1): arch=c000003e syscall=59 success=yes exit=0 pid=1 exe=2F61 key=(null)\ntype=EXECVE msg=audit(1.000:1): argc=2 a0=\"x\" a1_len=2 a1[0]=6261\ntype=PATH msg=audit(1.000:1): item=0 name=\"/x\" mode=0100755 nametype=CREATE\ntype=SOCKADDR msg=audit(1.000:1): saddr=0200D903010203040000\ntype=PROCTITLE msg=audit(1.000:1): proctitle=6E63002D6C")
	f.Add("type=USER_START msg=audit(1.000:2): pid=1 msg='op=PAM:session_open acct=\"a\" exe=\"/usr/sbin/sshd\" addr=1.2.3.4 res=success'")
	f.Fuzz(func(t *testing.T, log string) {
		c, l := NewCoalescer(), newLogons(nil)
		m := newMapper(nil, nil)
		check := func(g *Group) {
			if len(g.Paths) > maxPaths || len(g.Fields) > 64 {
				t.Errorf("%d paths, %d fields", len(g.Paths), len(g.Fields))
			}
			l.event(g)
			accountEvent(g)
			m.events(g)
		}
		for line := range strings.Lines(log) {
			if r, err := ParseLine(line); err == nil {
				c.Add(r, time.Unix(1e9, 0), check)
			}
		}
		c.Flush(check)
	})
}

// followed says that events are made of records of this type.
func (t Type) followed() bool {
	return t == typeSyscall || t >= typeUser && t <= typeUserLast
}
