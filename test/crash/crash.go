// Package crash kills a process (SIGKILL) at each of its writes to disk, one
// process per write, and has what is left checked.
//
// The test binary starts itself. The child puts a seccomp filter over itself
// that reports every call which changes files, and the test, which gets the
// reports, lets the first n pass and kills the child before the next one runs.
// Neither the code under test nor its timing matters: n = 0, 1, 2, ... until the
// child ends by itself covers every state that a kill can leave.
//
// A loss of power is worse than a kill: what was written and not synced may be
// there or not, page by page. Options.PowerLoss has that checked as well, for
// stores that keep everything in files of one name each.
package crash

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

const variable = "BULWARK_TEST_CRASH"

// The child's descriptors.
const (
	socket           = 3
	acknowledgements = 4
)

// Child is what the process does: it works below dir and calls acknowledge with
// what must not be lost any more. It ends by itself.
type Child func(dir string, acknowledge func(what string)) error

// Main is for TestMain: it runs the named child in a process that a test started
// and otherwise the tests.
func Main(m *testing.M, children map[string]Child) {
	name, dir, ok := strings.Cut(os.Getenv(variable), ":")
	if !ok {
		os.Exit(m.Run())
	}
	if err := runChild(children[name], dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(child Child, dir string) error {
	if child == nil {
		return errors.New("there is no such child")
	}
	if err := report(socket); err != nil {
		return fmt.Errorf("report the calls: %w", err)
	}
	out := os.NewFile(acknowledgements, "acknowledgements")
	return child(dir, func(what string) { fmt.Fprintln(out, what) })
}

// Options of a test.
type Options struct {
	// From is the first write at which the child is killed, Every the distance to
	// the next (1), Most how often it is killed (no bound).
	From, Every, Most int
	// Prepare is called with each new folder before the child starts in it.
	Prepare func(dir string)
	// PowerLoss checks two more states after each kill: all that was not synced
	// is gone, and a random part of it is.
	PowerLoss bool
}

// Result says how far a test came.
type Result struct {
	// Kills is the number of children that were killed.
	Kills int
	// Calls are the calls before which they were, by name.
	Calls map[string]int
}

// limit bounds the writes of a child.
const limit = 100_000

// Each starts the named child in new folders, kills it before each of its writes
// and calls check with the folder and what the child had acknowledged. The last
// child ends by itself and is checked, too.
func Each(t *testing.T, name string, o Options, check func(t *testing.T, dir string, acknowledged []string)) Result {
	t.Helper()
	result := Result{Calls: map[string]int{}}
	for n := o.From; ; n += max(1, o.Every) {
		if n > limit {
			t.Fatalf("the child writes more than %d times", limit)
		}
		parent := t.TempDir()
		dir := filepath.Join(parent, "now")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if o.Prepare != nil {
			o.Prepare(dir)
		}
		p := start(t, name, dir, n)
		if o.PowerLoss {
			p.synced = map[string][]byte{}
		}
		acknowledged, killed := p.wait(t)
		states := []string{dir}
		if o.PowerLoss {
			states = append(states, p.lose(t, filepath.Join(parent, "all"), func() bool { return true }),
				p.lose(t, filepath.Join(parent, "some"), func() bool { return rand.IntN(2) == 0 }))
		}
		for _, state := range states {
			check(t, state, acknowledged)
			if t.Failed() {
				t.Fatalf("the child %s, killed (%v) before write %d (%s); state %q; acknowledged %q", name, killed, n, p.last, filepath.Base(state), acknowledged)
			}
		}
		if !killed {
			return result
		}
		result.Kills++
		result.Calls[p.last]++
		if result.Kills == o.Most {
			return result
		}
		if err := os.RemoveAll(parent); err != nil {
			t.Fatal(err)
		}
	}
}

// process is a child as the test sees it.
type process struct {
	dir      string
	cmd      *exec.Cmd
	listener int
	kill     int // before this call, from 0
	last     string
	out      *os.File
	// synced is the content of the files when they were synced last, by path; of
	// interest for a loss of power only.
	synced map[string][]byte
	sync   string // the file that the call before synced
}

func start(t *testing.T, name, dir string, kill int) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket")
	defer ours.Close()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{dir: dir, kill: kill, out: out, cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), variable+"="+name+":"+dir)
	p.cmd.Stderr, p.cmd.ExtraFiles = os.Stderr, []*os.File{theirs, in}
	err = p.cmd.Start()
	theirs.Close()
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	if p.listener, err = receive(pair[0]); err != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		need.Missing(t, "needs seccomp user notifications (kernel 5.5): %v", err)
	}
	return p
}

// wait lets the child run until it is killed or ends.
func (p *process) wait(t *testing.T) (acknowledged []string, killed bool) {
	t.Helper()
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(p.out); lines.Scan(); {
			acknowledged = append(acknowledged, lines.Text())
		}
	})
	err := p.supervise()
	if err != nil {
		_ = p.cmd.Process.Kill()
	}
	waitErr := p.cmd.Wait()
	reading.Wait()
	err = errors.Join(err, unix.Close(p.listener), p.out.Close())
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) {
		status, ok := exit.Sys().(syscall.WaitStatus)
		killed = ok && status.Signal() == syscall.SIGKILL
	}
	if err != nil || waitErr != nil && !killed {
		t.Fatalf("the child: %v", errors.Join(err, waitErr))
	}
	return acknowledged, killed
}

// supervise answers the reports until the child is gone.
func (p *process) supervise() error {
	for n := 0; ; {
		c, err := next(p.listener)
		if errors.Is(err, io.EOF) {
			return p.keepSynced()
		}
		if err != nil {
			return err
		}
		path, counts := p.concerns(c)
		if err := p.keepSynced(); err != nil {
			return err
		}
		if counts {
			p.last = c.name
			if n == p.kill {
				return p.cmd.Process.Kill()
			}
			n++
			if c.syncs {
				p.sync = path
			}
		}
		if err := proceed(p.listener, c); err != nil {
			return err
		}
	}
}

// concerns tells whether a call is about a file below the folder, and which. Of
// calls that name their files all count.
func (p *process) concerns(c call) (path string, counts bool) {
	if !c.byDescriptor {
		return "", true
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.cmd.Process.Pid, c.fd))
	return path, err == nil && strings.HasPrefix(path, p.dir+"/")
}

// keepSynced takes down the file that has just been synced. The child waits.
func (p *process) keepSynced() error {
	if p.synced == nil || p.sync == "" {
		return nil
	}
	data, err := os.ReadFile(p.sync)
	if err == nil {
		p.synced[p.sync] = data
	}
	p.sync = ""
	return err
}

// lose makes a copy of the folder in which the pages that were not synced are
// gone if lost says so.
func (p *process) lose(t *testing.T, to string, lost func() bool) string {
	t.Helper()
	const page = 4096
	err := filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(p.dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, relative), 0o700)
		}
		now, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		before := p.synced[path]
		if before == nil && lost() {
			now = nil // there is only its name
		}
		for at := 0; at < min(len(now), len(before)); at += page {
			if end := min(at+page, len(now), len(before)); lost() {
				copy(now[at:end], before[at:end])
			}
		}
		if len(now) > len(before) && before != nil && lost() {
			now = now[:len(before)]
		}
		return os.WriteFile(filepath.Join(to, relative), now, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// giveUpAfter bounds the silence of a child.
const giveUpAfter = 2 * time.Minute
