package ebpf

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

func buffers(t *testing.T, f func(t *testing.T, opts ...Option)) {
	need.Root(t)
	t.Run("ring", func(t *testing.T) { f(t) })
	t.Run("perf", func(t *testing.T) { f(t, WithPerfBuffer()) })
}

func TestShortLivedProcesses(t *testing.T) {
	buffers(t, func(t *testing.T, opts ...Option) {
		table := sensortest.Table(t)
		s := New(table, sensortest.Log(t), opts...)
		sink := sensortest.Start(t, s, event.CategoryProcess)
		sensortest.ShortLived(t, table, sink, 500, true)
		if n := sink.LostOf(event.CategoryProcess); n != 0 {
			t.Errorf("%d lost", n)
		}
		if st := s.Stats(); st.Malformed != 0 || st.Seen < 1000 {
			t.Errorf("%+v", st)
		}
	})
}

func TestLongArguments(t *testing.T) {
	buffers(t, func(t *testing.T, opts ...Option) {
		sink := sensortest.Start(t, New(sensortest.Table(t), sensortest.Log(t), opts...), event.CategoryProcess)
		lengths := []int{15000, 16384, 30000}
		for _, n := range lengths {
			cmd := exec.Command("/bin/sleep", "600", "0"+strings.Repeat("0", n))
			must(t, cmd.Start())
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		}
		for _, n := range lengths {
			// A living process gives even what exceeds the kernel side's copy.
			want := "/bin/sleep 600 0" + strings.Repeat("0", n)
			sink.Wait(t, 1, fmt.Sprintf("%d bytes", n), func(e *event.Event) bool {
				return e.Action == event.ProcessCreated && e.Process.CommandLine == want && e.Additional["CommandLineLength"] == ""
			})
		}
		// One that is longer than an event may be says how long it was.
		if err := exec.Command("/bin/true", strings.Repeat("y", 100000)).Run(); err != nil {
			t.Fatal(err)
		}
		sink.Wait(t, 1, "length", func(e *event.Event) bool {
			return e.Action == event.ProcessCreated && strings.HasPrefix(e.Process.CommandLine, "/bin/true yyy") &&
				len(e.Process.CommandLine) > 16000 && e.Additional["CommandLineLength"] == fmt.Sprint(len("/bin/true ")+100000)
		})
	})
}

func TestPathsAndNames(t *testing.T) {
	need.Root(t)
	sink := sensortest.Start(t, New(sensortest.Table(t), sensortest.Log(t)), event.CategoryProcess)
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	deep := filepath.Join(dir, strings.Repeat("d", 200), strings.Repeat("e", 255), "mid dle", "\xff\xfe")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	prog := filepath.Join(deep, "pro gram")
	if err := os.WriteFile(prog, data, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(prog, link); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script.sh")
	if err := os.WriteFile(script, []byte("#!"+link+" opt\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := strings.ToValidUTF8(prog, "\uFFFD")
	for _, c := range []struct{ run, exec, line string }{
		{link, link, link + " a"},
		{script, link, link + " opt " + script + " a"},
	} {
		cmd := exec.Command(c.run, "a")
		cmd.Dir = deep
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		got := sink.Wait(t, 1, c.run, func(e *event.Event) bool {
			return e.Action == event.ProcessCreated && e.Process.PID == int64(cmd.Process.Pid)
		})[0]
		if got.Process.FolderPath != want || got.Process.FileName != "pro gram" || got.Process.WorkingDir != filepath.Dir(want) {
			t.Errorf("%s: %q in %q, want %q", c.run, got.Process.FolderPath, got.Process.WorkingDir, want)
		}
		if got.Process.CommandLine != c.line {
			t.Errorf("%s: command line %q, want %q", c.run, got.Process.CommandLine, c.line)
		}
		if got.Process.FileSize != int64(len(data)) {
			t.Errorf("size %d, want %d", got.Process.FileSize, len(data))
		}
	}
}

func TestKilledProcessHasSignal(t *testing.T) {
	need.Root(t)
	sink := sensortest.Start(t, New(sensortest.Table(t), sensortest.Log(t)), event.CategoryProcess)
	cmd := exec.Command("/bin/sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	sink.Wait(t, 1, "end by signal", func(e *event.Event) bool {
		return e.Action == event.ProcessTerminated && e.Process.PID == int64(cmd.Process.Pid) && e.Additional["ExitSignal"] == "9"
	})
}

func TestConnections(t *testing.T) {
	need.Root(t)
	sink := sensortest.Start(t, New(sensortest.Table(t), sensortest.Log(t)), event.CategoryNetwork)
	for _, network := range []string{"tcp4", "tcp6"} {
		addr := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network]
		l, err := net.Listen(network, addr)
		if err != nil {
			if network == "tcp6" {
				continue // no IPv6 here
			}
			t.Fatal(err)
		}
		host, _, _ := net.SplitHostPort(l.Addr().String())
		port := int64(l.Addr().(*net.TCPAddr).Port)
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		local := int64(c.LocalAddr().(*net.TCPAddr).Port)
		mine := func(e *event.Event) bool {
			return e.Initiating.PID == int64(os.Getpid()) && e.Initiating.FolderPath != ""
		}
		sink.Wait(t, 1, "listen", func(e *event.Event) bool {
			return e.Action == event.ListeningConnection && e.Network.LocalPort == port && mine(e)
		})
		sink.Wait(t, 1, "success", func(e *event.Event) bool {
			return e.Action == event.ConnectionSuccess && e.Network.RemotePort == port && e.Network.RemoteIP == host && e.Network.LocalPort == local && mine(e)
		})
		sink.Wait(t, 1, "accepted", func(e *event.Event) bool {
			return e.Action == event.InboundConnectionAccepted && e.Network.LocalPort == port && e.Network.RemotePort == local && mine(e)
		})
		c.Close()
		l.Close()
		if _, err := net.DialTimeout(network, l.Addr().String(), time.Second); err == nil {
			t.Fatal("a closed port was open")
		}
		sink.Wait(t, 1, "failed", func(e *event.Event) bool {
			return e.Action == event.ConnectionFailed && e.Network.RemotePort == port && mine(e)
		})
	}
}

// slow takes 200 events a second.
type slow struct{ *sensortest.Sink }

func (s slow) Emit(ev event.Event, image process.Image) {
	time.Sleep(5 * time.Millisecond)
	s.Sink.Emit(ev, image)
}

// What does not fit into the buffer is counted exactly, in all runs together:
// forks are no events.
func TestLossInTheKernel(t *testing.T) {
	need.Root(t)
	s := New(sensortest.Table(t), sensortest.Log(t))
	s.ringBytes = 16 << 10
	sink := sensortest.NewSink()
	for run := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, []event.Category{event.CategoryProcess}, slow{sink}) }()
		before, _ := s.kernel()
		for now := before; now.lost[kindFork] == before.lost[kindFork] || now.lost[kindExec] == before.lost[kindExec]; now, _ = s.kernel() {
			select {
			case err := <-done:
				t.Fatalf("run %d: %v", run, err)
			default:
			}
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do /bin/true & done; wait")
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	k, missed := s.kernel()
	lost := k.lost[kindExec] + k.lost[kindExit] + missed[kindExec] + missed[kindExit]
	st := s.Counts()[event.CategoryProcess]
	if told := sink.LostOf(event.CategoryProcess); lost == 0 || st.Lost != lost || told != lost {
		t.Errorf("%d events did not fit, %d counted, %d told", lost, st.Lost, told)
	}
	// At the end of a run some are in the buffer.
	if in := int64(st.Seen - st.Lost - st.Filtered - st.Malformed - st.Delivered); in < 0 || in > 2*(16<<10)/int64(recordSize) {
		t.Errorf("%d are nowhere: %+v", in, st)
	}
}

// Nothing may be left in the kernel when the sensor has ended.
func TestUnload(t *testing.T) {
	need.Root(t)
	ours := func() map[ebpf.ProgramID]bool {
		ids := make(map[ebpf.ProgramID]bool)
		for id := ebpf.ProgramID(0); ; {
			next, err := ebpf.ProgramGetNextID(id)
			if err != nil {
				return ids
			}
			id = next
			p, err := ebpf.NewProgramFromID(id)
			if err != nil {
				continue
			}
			if info, err := p.Info(); err == nil && strings.HasPrefix(info.Name, "bulwark_") {
				ids[id] = true
			}
			p.Close()
		}
	}
	before := ours() // of an agent that runs here, or of an earlier test
	added := make(map[ebpf.ProgramID]bool)
	t.Run("run", func(t *testing.T) {
		sensortest.Start(t, New(sensortest.Table(t), sensortest.Log(t)), event.CategoryProcess, event.CategoryDNS)
		for id := range ours() {
			if !before[id] {
				added[id] = true
			}
		}
		if len(added) < 4 {
			t.Errorf("%d programs loaded", len(added))
		}
	})
	left := func() (n int) {
		for id := range ours() {
			if added[id] {
				n++
			}
		}
		return n
	}
	deadline := time.Now().Add(2 * time.Minute) // the kernel frees them later
	for left() > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if n := left(); n > 0 {
		t.Errorf("%d programs are still loaded", n)
	}
}

// The committed object is what the source says.
func TestObjectIsBuiltFromSource(t *testing.T) {
	need.Command(t, "clang-14")
	need.Command(t, "llvm-strip-14")
	if _, err := os.Stat("/usr/include/bpf/bpf_helpers.h"); err != nil {
		need.Missing(t, "needs libbpf-dev (make setup installs it)")
	}
	out := filepath.Join(t.TempDir(), "sensor.o")
	if msg, err := exec.Command("bpf/build.sh", out).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, msg)
	}
	built, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(built, object) {
		t.Errorf("sensor.bpfel.o (%d bytes) differs from its source (%d bytes): run go generate", len(object), len(built))
	}
}
