package supervise

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Main is the sub-command: it parses args, runs until it is told to stop and
// returns the exit status of the process.
func Main(args []string, stderr io.Writer) int {
	c, err := ParseArgs(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "bulwarkd supervise: %v (see bulwarkd supervise --help)\n", err)
		return 2
	}
	if err := Run(context.Background(), c); err != nil {
		fmt.Fprintf(stderr, "bulwarkd supervise: %v\n", err)
		return 1
	}
	return 0
}

// ErrStartLimit is returned by [Run] when the program ends again and again.
var ErrStartLimit = errors.New("start limit reached")

// Run supervises the program until a signal or the end of ctx, stops it and
// returns nil. It needs a process for itself: it handles the process's signals
// and collects every child.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	// The program's death signal is tied to the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	pid, err := lockPidFile(c.PidFile)
	if err != nil {
		return err
	}
	defer func() { _ = pid.release() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	out, err := openLog(c.LogFile)
	if err != nil {
		return err
	}
	defer out.Close()
	log := slog.New(slog.NewTextHandler(out, nil)).With("supervisor", os.Getpid(), "program", c.Name)

	socketPath := c.PidFile + ".notify"
	launch, err := newLauncher(c, socketPath, null, out.File)
	if err != nil {
		return err
	}
	owner := os.Geteuid()
	if launch.account != nil {
		owner = int(launch.account.Uid)
	}
	socket, err := openNotifySocket(socketPath, owner)
	if err != nil {
		return err
	}
	defer func() { _ = socket.close() }()
	// Orphans of the program come to us instead of init and are collected.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		log.Warn("orphaned processes of the program will go to init", "error", err)
	}

	s := &supervisor{
		config: c, log: log, output: out, launch: launch,
		pauses: pauses{min: c.MinPause, max: c.MaxPause},
		starts: starts{limit: c.StartLimit, interval: c.StartInterval},
		timer:  time.NewTimer(0),
	}
	defer s.timer.Stop()
	return s.loop(ctx, socket)
}

// state says what the supervisor is waiting for, and with it what the end of
// its timer means.
type state int

const (
	pausing  state = iota // before a start: start
	starting              // READY=1: kill
	running               // WATCHDOG=1: abort
	aborting              // the end after SIGABRT: kill
	stopping              // the end after a request: kill
	killed                // the end after SIGKILL: say that it takes long
)

type supervisor struct {
	config Config
	log    *slog.Logger
	output *output
	launch *launcher
	pauses pauses
	starts starts

	state   state
	timer   *time.Timer
	stop    bool // asked to end
	pid     int  // of the program; 0 when it does not run
	started time.Time
}

// loop reacts to signals, messages and time until the work is done.
func (s *supervisor) loop(ctx context.Context, socket *notifySocket) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	messages, done := make(chan message), make(chan struct{})
	defer close(done)
	go socket.receive(messages, done)

	cancelled := ctx.Done()
	for {
		var err error
		select {
		case sig := <-signals:
			s.onSignal(sig)
		case <-cancelled:
			cancelled = nil
			s.requestStop(syscall.SIGTERM)
		case m := <-messages:
			s.onMessage(m)
		case <-s.timer.C:
			err = s.onTimer()
		}
		// A full channel may have swallowed SIGCHLD, so every event looks for
		// ended children; it costs two system calls.
		s.collect()
		if err != nil {
			return err
		}
		if s.stop && s.pid == 0 {
			s.log.Info("stopped")
			return nil
		}
	}
}

func (s *supervisor) onSignal(sig os.Signal) {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT:
		s.requestStop(syscall.SIGTERM)
	case syscall.SIGHUP:
		s.signal(syscall.SIGHUP)
	}
}

func (s *supervisor) requestStop(sig syscall.Signal) {
	if s.stop {
		return
	}
	s.stop = true
	if s.pid == 0 {
		return
	}
	s.log.Info("stopping", "pid", s.pid)
	s.signal(sig)
	if s.state != killed && s.state != aborting {
		s.enter(stopping, s.config.StopTimeout)
	}
}

func (s *supervisor) onMessage(m message) {
	if s.pid == 0 || m.pid != s.pid {
		return // a helper process of the program, or a late word of its predecessor
	}
	if m.status != "" {
		s.log.Info("status", "pid", s.pid, "status", m.status)
	}
	if m.ready && s.state == starting {
		s.log.Info("ready", "pid", s.pid, "after", time.Since(s.started).Round(time.Millisecond))
		s.enterRunning()
		return
	}
	if m.alive && s.state == running {
		s.enterRunning()
	}
}

// enterRunning begins, or begins again, to wait for a sign of life.
func (s *supervisor) enterRunning() {
	if s.config.Simple {
		s.enter(running, 0)
		return
	}
	s.enter(running, s.config.Watchdog)
}

func (s *supervisor) onTimer() error {
	switch s.state {
	case pausing:
		return s.start()
	case starting:
		s.kill(fmt.Sprintf("not ready within %v", s.config.StartTimeout))
	case running:
		s.abort(fmt.Sprintf("silent for more than %v (watchdog)", s.config.Watchdog))
	case aborting:
		s.kill("not ended by SIGABRT")
	case stopping:
		s.kill(fmt.Sprintf("not ended within %v after SIGTERM", s.config.StopTimeout))
	case killed:
		s.log.Error("the killed program has not ended yet; it waits inside the kernel", "pid", s.pid)
		s.enter(killed, 10*time.Second)
	}
	return nil
}

func (s *supervisor) start() error {
	if !s.starts.allow(time.Now()) {
		err := fmt.Errorf("%w: %s was started %d times within %v; see its log, then start it again",
			ErrStartLimit, s.config.Name, s.config.StartLimit, s.config.StartInterval)
		s.log.Error("giving up", "error", err)
		return err
	}
	s.output.limit()
	s.started = time.Now()
	pid, err := s.launch.start()
	if err != nil {
		s.pause(err.Error())
		return nil
	}
	s.pid = pid
	s.log.Info("started", "pid", pid)
	if s.config.Simple {
		s.enterRunning()
	} else {
		s.enter(starting, s.config.StartTimeout)
	}
	return nil
}

// abortTime is how long a program that hangs may take to say what it is doing.
const abortTime = time.Second

// abort ends a program that hangs with the signal that makes it write down what
// it is doing: a Go program prints all its goroutines. systemd does the same.
func (s *supervisor) abort(why string) {
	s.log.Error("aborting the program", "pid", s.pid, "why", why)
	s.signal(syscall.SIGABRT)
	s.enter(aborting, abortTime)
}

func (s *supervisor) kill(why string) {
	s.log.Error("killing the program", "pid", s.pid, "why", why)
	s.signal(syscall.SIGKILL)
	s.enter(killed, 10*time.Second)
}

// collect notices the program's end.
func (s *supervisor) collect() {
	ended, status := reap(s.pid)
	if !ended {
		return
	}
	pid := s.pid
	s.pid = 0
	if s.stop {
		s.log.Info("ended", "pid", pid, "how", describe(status))
		return
	}
	s.pause(describe(status))
}

// pause waits before the next start.
func (s *supervisor) pause(why string) {
	d := s.pauses.after(time.Since(s.started))
	s.log.Warn("ended; starting again after a pause", "how", why, "pause", d)
	s.enter(pausing, d)
}

// enter changes the state; d is the time until its timer ends, 0 for never.
func (s *supervisor) enter(st state, d time.Duration) {
	s.state = st
	s.timer.Stop()
	if d > 0 {
		s.timer.Reset(d)
	}
}

// signal sends sig to the program. It cannot hit another process: the program
// keeps its id until collect has seen its end.
func (s *supervisor) signal(sig syscall.Signal) {
	if s.pid == 0 {
		return
	}
	if err := syscall.Kill(s.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.log.Error("cannot signal the program", "pid", s.pid, "signal", unix.SignalName(sig), "error", err)
	}
}
