package ebpf

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
)

// execRecord makes a record as the kernel side writes it.
func execRecord(flags uint32, filename, exe, cwd, cgroup, args string) []byte {
	b := make([]byte, recordSize)
	le := binary.LittleEndian
	le.PutUint32(b, kindExec)
	le.PutUint32(b[4:], flags)
	le.PutUint64(b[16:], 5e9)
	le.PutUint32(b[32:], 4711)
	le.PutUint32(b[36:], 47)
	le.PutUint32(b[96:], uint32(len(args)))
	le.PutUint32(b[100:], uint32(len(args)))
	for i, s := range []string{filename, exe, cwd, cgroup} {
		le.PutUint16(b[104+2*i:], uint16(len(s)))
	}
	copy(b[112:], "comm")
	copy(b[128:], "pts3")
	return slices.Concat(b, []byte(filename+exe+cwd+cgroup+args))
}

func TestParseRecord(t *testing.T) {
	r, err := ParseRecord(execRecord(0, "./x\x00", "x\x00bin\x00", "", "c2\x00c1\x00", "./x\x00a b\x00\x00\xff\x00"))
	if err != nil {
		t.Fatal(err)
	}
	if r.PID != 4711 || r.PPID != 47 || r.Filename != "./x" || r.Exe != "/bin/x" || r.Cwd != "/" || r.Cgroup != "/c1/c2" ||
		r.CommandLine != "./x a b  \uFFFD" || r.Comm != "comm" || r.TTY != "pts3" {
		t.Errorf("%+v", r)
	}
	// A path that was cut is not given as the whole one.
	r, err = ParseRecord(execRecord(flagPathCut, "/given\x00", "x\x00", "", "", ""))
	if p, _ := r.image(); err != nil || p != "/given" || r.Exe != ".../x" {
		t.Errorf("%+v %v", r, err)
	}
	whole := execRecord(0, "a\x00", "b\x00", "c\x00", "d\x00", "args")
	for n := range len(whole) {
		if _, err := ParseRecord(whole[:n]); err == nil {
			t.Errorf("%d bytes of %d are taken for a record", n, len(whole))
		}
	}
	for what, change := range map[string]func([]byte){
		"kind":        func(b []byte) { b[0] = 99 },
		"pid 0":       func(b []byte) { copy(b[32:], "\x00\x00\x00\x00") },
		"args length": func(b []byte) { copy(b[100:], "\xff\xff\xff\xff") },
		"path length": func(b []byte) { copy(b[106:], "\xff\xff") },
	} {
		b := append([]byte(nil), whole...)
		change(b)
		if _, err := ParseRecord(b); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// The perf buffer may deliver the records of one process in any order.
func TestRecordsOutOfOrder(t *testing.T) {
	rec := func(kind byte, pid uint32) []byte {
		b := execRecord(0, "/bin/x\x00", "x\x00bin\x00", "", "", "x\x00")
		b[0] = kind
		binary.LittleEndian.PutUint32(b[32:], pid)
		return b
	}
	table := sensortest.Table(t)
	s := New(table, sensortest.Log(t))
	s.early = &earlyExits{}
	sink := sensortest.NewSink()
	for _, k := range []byte{kindExit, kindExec, kindFork} {
		s.handle(rec(k, 4000001), sink)
	}
	for _, k := range []byte{kindFork, kindExit, kindExec} {
		s.handle(rec(k, 4000002), sink)
	}
	for _, k := range []byte{kindExit, kindFork} {
		s.handle(rec(k, 4000003), sink)
	}
	var got []string
	for _, e := range sink.Find(func(*event.Event) bool { return true }) {
		got = append(got, fmt.Sprint(e.Action, " ", e.Process.PID, " ", e.Process.CommandLine))
	}
	want := []string{"ProcessCreated 4000001 x", "ProcessTerminated 4000001 x", "ProcessCreated 4000002 x", "ProcessTerminated 4000002 x"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if n := table.Stats().Live; n > 1 { // the parent of the records may be a real process
		t.Errorf("%d processes still live", n)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(execRecord(0, "./x\x00", "x\x00bin\x00", "", "c2\x00c1\x00", "./x\x00a b\x00"))
	conn := make([]byte, connSize)
	conn[0], conn[32] = kindConn, 10
	f.Add(conn)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRecord(b); err == nil {
			for _, s := range []string{r.Exe, r.Cwd, r.Cgroup, r.CommandLine, r.Filename, r.Comm, r.TTY} {
				if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 || len(s) > 3*len(b)+3 {
					t.Errorf("%q", s)
				}
			}
			if p, name := r.image(); strings.Contains(name, "/") && name != "/" {
				t.Errorf("name %q of %q", name, p)
			}
		}
		if c, err := ParseConn(b); err == nil && (!c.Local.Addr().IsValid() || !c.Remote.Addr().IsValid()) {
			t.Errorf("%+v", c)
		}
	})
}
