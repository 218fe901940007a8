package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// launcher starts the program. It holds everything a start needs, so that a
// start opens no file but the program itself.
type launcher struct {
	path    string
	args    []string
	env     []string
	files   []uintptr // standard input, output, error
	account *syscall.Credential
}

func newLauncher(c Config, socket string, in, out *os.File) (*launcher, error) {
	path, err := exec.LookPath(c.Program[0])
	if err != nil {
		return nil, fmt.Errorf("program to supervise: %w", err)
	}
	l := &launcher{
		path:  path,
		args:  c.Program,
		env:   environment(os.Environ(), c, socket),
		files: []uintptr{in.Fd(), out.Fd(), out.Fd()},
	}
	if c.User != "" {
		if l.account, err = account(c.User); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// environment replaces what concerns supervision in env: an outer supervisor's
// settings are not for the program.
func environment(env []string, c Config, socket string) []string {
	var out []string
	for _, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		switch key {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID":
		default:
			out = append(out, kv)
		}
	}
	if c.Simple {
		return out
	}
	out = append(out, "NOTIFY_SOCKET="+socket)
	if c.Watchdog > 0 {
		out = append(out, "WATCHDOG_USEC="+strconv.FormatInt(c.Watchdog.Microseconds(), 10))
	}
	return out
}

// account looks up the ids of a user and of all its groups.
func account(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user to run the program as: %w", err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %s: %w", name, err)
	}
	id := func(s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), err
	}
	cred := &syscall.Credential{}
	if cred.Uid, err = id(u.Uid); err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	if cred.Gid, err = id(u.Gid); err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	for _, g := range groups {
		gid, err := id(g)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		cred.Groups = append(cred.Groups, gid)
	}
	return cred, nil
}

// start runs the program as leader of a process group of its own. It dies with
// the supervisor: without it, nobody would end a program that hangs. The death
// signal belongs to the calling thread, which must live as long as the program.
func (l *launcher) start() (pid int, err error) {
	pid, err = syscall.ForkExec(l.path, l.args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   l.env,
		Files: l.files,
		Sys: &syscall.SysProcAttr{
			Setpgid:    true,
			Pdeathsig:  syscall.SIGKILL,
			Credential: l.account,
		},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", l.path, err)
	}
	return pid, nil
}

// reap collects all children that have ended. When the process pid is among
// them, what is left of its process group is killed first, while its id cannot
// have been given to another process.
func reap(pid int) (ended bool, status unix.WaitStatus) {
	if pid > 0 && hasEnded(pid) {
		// ESRCH: the group is empty.
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	for {
		var s unix.WaitStatus
		got, err := unix.Wait4(-1, &s, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got <= 0 {
			return ended, status
		}
		if got == pid {
			ended, status = true, s
		}
	}
}

// hasEnded says whether a child has ended, without collecting it.
func hasEnded(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo == int32(unix.SIGCHLD)
}

// describe puts the end of a process into words.
func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return fmt.Sprintf("killed by %s", unix.SignalName(s.Signal()))
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

// pauses gives the waiting times between restarts.
type pauses struct {
	min, max, next time.Duration
}

// after returns the pause after a run that lasted ran.
func (p *pauses) after(ran time.Duration) time.Duration {
	if ran >= p.max || p.next < p.min {
		p.next = p.min
	}
	d := p.next
	p.next = min(2*p.next, p.max)
	return d
}

// starts remembers when the program was started, for the start limit.
type starts struct {
	limit    int
	interval time.Duration
	times    []time.Time
}

// allow says whether one more start is within the limit, and counts it.
func (s *starts) allow(now time.Time) bool {
	if s.limit == 0 {
		return true
	}
	if len(s.times) == s.limit {
		if now.Sub(s.times[0]) < s.interval {
			return false
		}
		s.times = s.times[1:]
	}
	s.times = append(s.times, now)
	return true
}
