package scan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"golang.org/x/sys/unix"
)

// outgoing is a message to a scanner; with job set, its file goes along.
type outgoing struct {
	message wire.Message
	job     *job
}

// child is a running scanner process. The members below the line are guarded by
// Pool.mu.
type child struct {
	lane  *lane
	cmd   *exec.Cmd
	pid   int
	conn  *net.UnixConn
	out   chan outgoing
	quit  chan struct{} // closed when the process is gone
	words *tail         // the end of what it said on standard error
	since time.Time
	line  *line

	hello   wire.Hello
	endOnce sync.Once

	pending                      map[uint64]*job
	realTime, onDemand, suspects int
	direct                       int  // scans on the direct line
	dead                         bool // the direct line has seen its end; died comes soon
	answers                      uint64
	runaway                      bool // it was ended because of a job
}

// take adds (by 1) or removes (by -1) a job.
func (c *child) take(j *job, by int) {
	if by > 0 {
		c.pending[j.id] = j
	} else {
		delete(c.pending, j.id)
	}
	if j.realTime() {
		c.realTime += by
	} else {
		c.onDemand += by
	}
	if j.deaths > 0 {
		c.suspects += by
	}
}

// idle reports whether the process has nothing to do.
func (c *child) idle() bool { return len(c.pending) == 0 && c.direct == 0 }

func (c *child) kill() {
	// The process is a child of ours that is waited for only after conn ended,
	// so the number cannot belong to another one.
	_ = c.cmd.Process.Kill()
}

// close ends the process in peace: it exits when its socket closes.
func (c *child) close() { c.endOnce.Do(func() { c.conn.Close() }) }

// startProcess starts a scanner with the definitions file and sends the set-up.
func (p *Pool) startProcess(definitions *os.File, setup *wire.Setup) (*child, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making the scanner's socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "scanner"), os.NewFile(uintptr(fds[1]), "daemon")
	defer ours.Close()
	defer theirs.Close()
	generic, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("making the scanner's socket: %w", err)
	}
	conn := generic.(*net.UnixConn)
	// The direct line: its ends are waited on by threads of their own.
	fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("making the scanner's socket: %w", err)
	}
	theirLine := os.NewFile(uintptr(fds[1]), "daemon")
	defer theirLine.Close()

	c := &child{
		conn: conn, words: &tail{}, since: time.Now(),
		out: make(chan outgoing, 4*(setup.Workers+1)), quit: make(chan struct{}), pending: map[uint64]*job{},
	}
	c.line = &line{child: c, fd: fds[0]}
	newCommand := func(namespaces uintptr) *exec.Cmd {
		return &exec.Cmd{
			Path: p.cfg.Program, Args: append([]string{p.cfg.Program}, p.cfg.Args...),
			// GOTRACEBACK: a crash shows the goroutine that did it.
			Env: append([]string{"GOTRACEBACK=single", "LANG=C.UTF-8"}, p.cfg.Env...),
			Dir: "/", Stderr: c.words,
			ExtraFiles:  []*os.File{theirs, definitions, p.root, theirLine},
			SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: namespaces},
			WaitDelay:   time.Second,
		}
	}
	c.cmd = newCommand(unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	err = p.cfg.Start(c.cmd)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) {
		// No right to make namespaces, or a kernel without them: the sandbox report
		// says that the network is visible.
		c.cmd = newCommand(0)
		err = p.cfg.Start(c.cmd)
	}
	if err != nil {
		conn.Close()
		c.line.close()
		return nil, fmt.Errorf("starting the scanner %s: %w", p.cfg.Program, err)
	}
	c.pid = c.cmd.Process.Pid
	if err := p.limits.add(c.pid); err != nil {
		p.log.Warn("the scanner stays outside its cgroup", "error", err)
	}
	b, err := wire.Append(nil, setup)
	if err == nil {
		_, err = conn.Write(b)
	}
	if err != nil {
		c.close()
		c.kill()
		return nil, errors.Join(fmt.Errorf("setting up the scanner: %w", err), c.wait())
	}
	return c, nil
}

// receive waits for the one message that a process sends at its start.
func (c *child) receive(ctx context.Context, timeout time.Duration) (wire.Message, error) {
	stop := context.AfterFunc(ctx, func() { c.close() })
	defer stop()
	if err := c.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	b := make([]byte, wire.MaxMessage+1)
	n, err := c.conn.Read(b)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("the scanner was not ready after %s", timeout)
	case err != nil:
		return nil, fmt.Errorf("the scanner ended before it was ready: %w", err)
	}
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return wire.Decode(b[:n])
}

// wait collects the process after its socket closed; the error carries its last
// words.
func (c *child) wait() error {
	// One that ignores the closed socket is taken down.
	timer := time.AfterFunc(5*time.Second, c.kill)
	defer timer.Stop()
	err := c.cmd.Wait()
	c.line.close()
	if err == nil {
		return nil
	}
	if said := c.words.String(); said != "" {
		return fmt.Errorf("scanner process %d: %w; it said: %s", c.pid, err, said)
	}
	return fmt.Errorf("scanner process %d: %w", c.pid, err)
}

// write sends what is queued until the process is gone.
func (p *Pool) write(c *child) {
	var b []byte
	for {
		var o outgoing
		select {
		case o = <-c.out:
		case <-c.quit:
			return
		}
		var err error
		if b, err = wire.Append(b[:0], o.message); err == nil {
			err = c.send(b, o.job)
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrClosed) && o.job != nil:
			// The waiter gave up and closed its file before we got here.
			p.answered(c, &wire.Answer{ID: o.job.id, Error: err.Error()})
		default:
			return // the reading side sees the end of the process
		}
	}
}

// send writes a packet with the job's file. SyscallConn keeps the descriptor
// from being closed, and its number reused, meanwhile.
func (c *child) send(b []byte, j *job) error {
	if j == nil {
		_, err := c.conn.Write(b)
		return err
	}
	raw, err := j.req.File.SyscallConn()
	if err != nil {
		return os.ErrClosed
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) {
		_, _, sendErr = c.conn.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
	}); err != nil {
		return os.ErrClosed
	}
	if sendErr != nil {
		return fmt.Errorf("sending to the scanner: %w", sendErr)
	}
	return nil
}

// read takes answers until the process ends or says something it must not.
func (p *Pool) read(c *child) error {
	b := make([]byte, wire.MaxMessage+1)
	for {
		// Without room for control messages the kernel drops any descriptor that
		// the scanner might send.
		n, err := c.conn.Read(b)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return fmt.Errorf("reading from the scanner: %w", err)
		}
		m, err := wire.Decode(b[:n])
		if err != nil {
			return err
		}
		a, ok := m.(*wire.Answer)
		if !ok {
			return fmt.Errorf("%w: unexpected %T", wire.ErrProtocol, m)
		}
		if !p.answered(c, a) {
			return fmt.Errorf("%w: answer to nothing that was asked", wire.ErrProtocol)
		}
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-tailSize):]...)
	if extra := len(t.buf) - tailSize; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(b), nil
}

// String is what was kept in one line that may be logged: its lines with " | "
// between, without the spaces, tabs and ends of lines that stack traces have, and
// without what is left of a character that the cut went through.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf
	for len(t.buf) == tailSize && len(b) > 0 && len(t.buf)-len(b) < utf8.UTFMax-1 && !utf8.RuneStart(b[0]) {
		b = b[1:]
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); len(words) > 0 {
			lines = append(lines, strings.Join(words, " "))
		}
	}
	return wire.Clean(strings.Join(lines, " | "))
}

// unprivilegedUser finds the numbers to run as.
func unprivilegedUser(name string, log *slog.Logger) (uid, gid int) {
	const nobody = 65534
	u, err := user.Lookup(name)
	if err == nil {
		uid, err = strconv.Atoi(u.Uid)
	}
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil || uid == 0 || gid == 0 {
		log.Warn("scanners run as nobody", "instead_of", name, "error", err)
		return nobody, nobody
	}
	return uid, gid
}
