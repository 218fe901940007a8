package ebpf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

// treeMember is a member of a random tree: it starts its children and waits for
// some of them only, so that others lose their parent. Its path is in its
// arguments, and so in the event. The test program itself would be slow to start
// under the race detector. A child is let go when it has begun its program, as
// fork and exec of Go do it.
const treeMember = `
my ($mark, $path) = @ARGV;
srand $ENV{TREE_SEED};
exit 0 if ($path =~ tr/.//) > 3;
my $children = int rand 4;
for my $i (0..$children - 1) {
	$ENV{TREE_SEED} = int rand 2**31;
	pipe my $begun, my $close_on_exec or die;
	my $pid = fork // die;
	if (!$pid) { exec $^X, $0, $mark, "$path.$i" or exit 1 }
	close $close_on_exec;
	readline $begun;
	waitpid $pid, 0 if rand(3) >= 1;
}
`

// Whatever the shape of a tree of processes that live for milliseconds, and
// whoever of them ends first, each event names the right parent and the right
// ancestors: the path of a process is in its arguments.
func TestRandomTreesKeepTheirAncestry(t *testing.T) {
	need.Root(t)
	need.Command(t, "perl")
	script := filepath.Join(t.TempDir(), "member")
	must(t, os.WriteFile(script, []byte(treeMember), 0o600))
	table := sensortest.Table(t)
	s := New(table, sensortest.Log(t))
	sink := sensortest.Start(t, s, event.CategoryProcess)
	mark := strconv.FormatInt(time.Now().UnixNano(), 36)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const trees = 20
	for i := range trees {
		root := fmt.Sprintf("%s-%d", mark, i)
		cmd := exec.Command("perl", script, "bulwark-tree", root)
		cmd.Env = []string{"TREE_SEED=" + strconv.FormatUint(uint64(r.Uint32()>>1), 10)}
		must(t, cmd.Run())
	}
	pathOf := func(line string) string {
		_, path, _ := strings.Cut(line, "bulwark-tree ")
		return path
	}
	of := func(e *event.Event) bool {
		return strings.HasPrefix(pathOf(e.Process.CommandLine), mark) && (e.Action == event.ProcessCreated || e.Action == event.ProcessTerminated)
	}
	// Those whose parent did not wait end after it: wait for the last end, but
	// not for ever, and then for what nobody expects.
	var got []event.Event
	count := func(action string) (n int) {
		for i := range got {
			if got[i].Action == action {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(2 * time.Minute); ; {
		last := len(got)
		time.Sleep(500 * time.Millisecond)
		got = sink.Find(of)
		if last == len(got) && count(event.ProcessCreated) == count(event.ProcessTerminated) && last > 0 || time.Now().After(end) {
			break
		}
	}
	created, ended := 0, 0
	t.Logf("%d events", len(got))
	for i := range got {
		e := &got[i]
		path := pathOf(e.Process.CommandLine)
		if e.Action == event.ProcessTerminated {
			ended++
			continue
		}
		created++
		parent := ""
		if at := strings.LastIndexByte(path, '.'); at >= 0 {
			parent = path[:at]
		}
		if pathOf(e.Initiating.CommandLine) != parent || e.Process.ParentPID != e.Initiating.PID || !e.Process.ParentStartTime.Equal(e.Initiating.StartTime) {
			t.Errorf("%s: parent %q (%d)", path, e.Initiating.CommandLine, e.Initiating.PID)
		}
		chain := table.AncestryOf(e.Process)
		for depth := strings.Count(path, "."); depth > 0; depth-- {
			at := strings.LastIndexByte(path, '.')
			path = path[:at]
			if len(chain) == 0 || pathOf(chain[0].CommandLine) != path {
				t.Errorf("%s: ancestor %q is missing", pathOf(e.Process.CommandLine), path)
				break
			}
			chain = chain[1:]
		}
	}
	if created < trees || ended != created || sink.LostOf(event.CategoryProcess) != 0 {
		t.Errorf("%d created, %d ended, %d lost", created, ended, sink.LostOf(event.CategoryProcess))
	}
}

// A pid that the kernel gives again and again is another process every time:
// no event has the command line or the parent of an earlier holder.
func TestReusedPID(t *testing.T) {
	need.Root(t)
	need.Command(t, "perl")
	table := sensortest.Table(t)
	sink := sensortest.Start(t, New(table, sensortest.Log(t)), event.CategoryProcess)
	const n = 40
	mark := strconv.FormatInt(time.Now().UnixNano(), 36)
	// clone3 with set_tid asks for a pid, as checkpoint/restore does; each child
	// of another parent.
	script := `
my ($mark, $n) = @ARGV;
my $pid = fork // die; if (!$pid) { exit 0 } waitpid $pid, 0; # a free number
select undef, undef, undef, 0.02; # the clock of identities ticks in 10 ms
for my $i (1..$n) {
	my $middle = fork // die;
	if (!$middle) {
		my $tid = pack "i", $pid;
		my $args = pack "Q10", 0, 0, 0, 0, 17, 0, 0, 0, unpack("Q", pack("p", $tid)), 1;
		my $child = syscall 435, $args, length $args;
		exit 3 if $child < 0;
		if (!$child) { exec { "/bin/true" } "$mark-child-$i" or exit 4 }
		waitpid $child, 0;
		exec { "/bin/true" } "$mark-middle-$i" or exit 4;
	}
	waitpid $middle, 0;
	exit($? >> 8) if $?;
	select undef, undef, undef, 0.02;
}
print $pid;
`
	out, err := exec.Command("perl", "-e", script, mark, strconv.Itoa(n)).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 3 {
			need.Missing(t, "needs clone3 with set_tid")
		}
		t.Fatal(err)
	}
	pid, err := strconv.ParseInt(string(out), 10, 64)
	must(t, err)
	got := sink.Wait(t, n, "children", func(e *event.Event) bool {
		return e.Action == event.ProcessCreated && strings.HasPrefix(e.Process.CommandLine, mark+"-child-")
	})
	seen := map[time.Time]bool{}
	for _, e := range got {
		if e.Process.PID != pid {
			t.Errorf("%s: pid %d, want %d", e.Process.CommandLine, e.Process.PID, pid)
		}
		if seen[e.Process.StartTime] {
			t.Errorf("two processes of pid %d have the start %v", pid, e.Process.StartTime)
		}
		seen[e.Process.StartTime] = true
		// The parent is the middle process of the same round, which ran perl then.
		i := strings.TrimPrefix(e.Process.CommandLine, mark+"-child-")
		middle := sink.Wait(t, 1, "middle "+i, func(m *event.Event) bool {
			return m.Action == event.ProcessCreated && m.Process.CommandLine == mark+"-middle-"+i
		})[0]
		if e.Process.ParentPID != middle.Process.PID || e.Initiating.FileName != "perl" {
			t.Errorf("round %s: parent %d %s, want %d", i, e.Process.ParentPID, e.Initiating.FileName, middle.Process.PID)
		}
		if p, ok := table.Get(pid, e.Process.StartTime); !ok || p.CommandLine != e.Process.CommandLine {
			t.Errorf("the table has %q for %q", p.CommandLine, e.Process.CommandLine)
		}
		ends := sink.Wait(t, 1, "end "+i, func(x *event.Event) bool {
			return x.Action == event.ProcessTerminated && x.Process.PID == pid && x.Process.StartTime.Equal(e.Process.StartTime)
		})
		if len(ends) != 1 || ends[0].Process.CommandLine != e.Process.CommandLine {
			t.Errorf("%d ends, %q", len(ends), ends[0].Process.CommandLine)
		}
	}
}
