package scan

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
	"golang.org/x/sys/unix"
)

const hostileVariable = "BULWARK_TEST_HOSTILE"

// hostileScanner is a scanner that a file has taken over: it starts well and
// answers the first scan with what the variable says.
func hostileScanner(behaviour string) {
	f := os.NewFile(3, "daemon")
	c, err := net.FileConn(f)
	if err != nil {
		panic(err)
	}
	conn := c.(*net.UnixConn)
	b := make([]byte, wire.MaxMessage)
	n, err := conn.Read(b)
	if err != nil {
		return
	}
	send := func(m wire.Message) {
		b, err := wire.Append(nil, m)
		if err != nil {
			panic(err)
		}
		conn.Write(b)
	}
	if m, err := wire.Decode(b[:n]); err != nil {
		panic(err)
	} else if m.(*wire.Setup).Compile {
		send(&wire.Compiled{})
		return
	}
	send(&wire.Hello{Info: wire.Info{Engine: "hostile\x1b[2J"}})
	if how, line := strings.CutPrefix(behaviour, "line "); line {
		go hostileLine(how)
	}
	for {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		m, err := wire.Decode(b[:n])
		if err != nil {
			panic(err)
		}
		s, ok := m.(*wire.Scan)
		if !ok {
			continue
		}
		if strings.HasPrefix(behaviour, "line ") {
			send(&wire.Answer{ID: s.ID})
			continue
		}
		switch behaviour {
		case "garbage":
			conn.Write([]byte("garbage"))
		case "oversized":
			conn.Write(make([]byte, 100<<10))
		case "other scan":
			send(&wire.Answer{ID: s.ID + 12345})
		case "twice":
			send(&wire.Answer{ID: s.ID})
			send(&wire.Answer{ID: s.ID})
		case "hello again":
			send(&wire.Hello{})
		case "descriptors":
			// Ten descriptors with each of a thousand answers: they must not pile up
			// in the daemon.
			packet, _ := wire.Append(nil, &wire.Answer{ID: s.ID, Verdict: verdict.Verdict{Size: 1}})
			fds := make([]int, 10)
			for i := range fds {
				fds[i] = 0
			}
			conn.WriteMsgUnix(packet, unix.UnixRights(fds...), nil)
		}
	}
}

// hostileLine answers the first scan of the direct line.
func hostileLine(behaviour string) {
	const line = 6
	b := make([]byte, wire.MaxMessage)
	n, _, _, _, err := unix.Recvmsg(line, b, make([]byte, 64), 0)
	if err != nil {
		panic(err)
	}
	m, err := wire.Decode(b[:n])
	if err != nil {
		panic(err)
	}
	switch behaviour {
	case "garbage":
		unix.Write(line, []byte("garbage"))
	case "empty":
		unix.Write(line, nil)
	case "other scan":
		packet, _ := wire.Append(nil, &wire.Answer{ID: m.(*wire.Scan).ID + 1})
		unix.Write(line, packet)
	case "closed":
		unix.Close(line)
	case "silence":
	}
}

// TestHostileLine: whatever a process says on its direct line but the answer, or
// when it says nothing, it gives no verdict and is replaced.
func TestHostileLine(t *testing.T) {
	need.Root(t)
	for _, behaviour := range []string{"garbage", "empty", "other scan", "closed", "silence"} {
		t.Run(behaviour, func(t *testing.T) {
			p, _ := newTestPool(t, func(c *Config) {
				c.Env = []string{hostileVariable + "=line " + behaviour}
				c.CancelGrace = 50 * time.Millisecond
			})
			wantMatch(t, p, "x", "") // the process is there
			before := p.Status().Processes[0].PID
			patience := time.Minute
			if behaviour == "silence" {
				patience = 50 * time.Millisecond
			}
			if _, _, err := direct(t, p, "x", patience); err == nil {
				t.Error("a verdict")
			}
			waitFor(t, "another process", func() bool {
				ps := p.Status().Processes
				return len(ps) > 0 && ps[0].PID != before
			})
			wantMatch(t, p, "x", "")
		})
	}
}

func TestHostileScanner(t *testing.T) {
	need.Root(t)
	for _, behaviour := range []string{"garbage", "oversized", "other scan", "hello again"} {
		t.Run(behaviour, func(t *testing.T) {
			p, _ := newTestPool(t, func(c *Config) { c.Env = []string{hostileVariable + "=" + behaviour} })
			if _, err := scan(t, p, "x"); !errors.Is(err, ErrCrashed) {
				t.Errorf("%v", err)
			}
			if s := p.Status(); s.Crashes != 2 {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		p, _ := newTestPool(t, func(c *Config) { c.Env = []string{hostileVariable + "=twice"} })
		for range 3 {
			// The answer may be taken before the second one ends the process.
			if _, err := scan(t, p, "x"); err != nil && !errors.Is(err, ErrCrashed) {
				t.Errorf("%v", err)
			}
		}
		waitFor(t, "the process to be ended", func() bool { return p.Status().Crashes > 0 })
	})
	t.Run("descriptors", func(t *testing.T) {
		p, _ := newTestPool(t, func(c *Config) { c.Env = []string{hostileVariable + "=descriptors"} })
		if _, err := scan(t, p, "x"); err != nil {
			t.Fatal(err)
		}
		count := func() int {
			fds, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(fds)
		}
		f := open(t, "y")
		before := count()
		for range 1000 {
			if _, err := p.Scan(t.Context(), Request{File: f, Path: f.Name()}); err != nil {
				t.Fatal(err)
			}
		}
		if after := count(); after > before+20 {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

func TestHostileWordsAreCleaned(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, func(c *Config) { c.Env = []string{hostileVariable + "=twice"} })
	waitFor(t, "the scanner", func() bool { return p.Generation() == 1 })
	if s := p.Status(); strings.Contains(s.Info.Engine, "\x1b") {
		t.Errorf("%q", s.Info.Engine)
	}
}

func TestCgroup(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, nil)
	wantMatch(t, p, "x", "")
	s := p.Status()
	if !strings.HasPrefix(s.Cgroup, "memory limited to") {
		need.Missing(t, "no writable memory cgroup: %s", s.Cgroup)
	}
	for _, dir := range p.limits.dirs {
		procs, err := os.ReadFile(dir + "/cgroup.procs")
		if err != nil || strings.TrimSpace(string(procs)) == "" {
			t.Errorf("%s: %q, %v", dir, procs, err)
		}
	}
}
