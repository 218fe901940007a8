package logon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

const (
	// pollInterval is how often the files are looked at while they change, or
	// always where the kernel does not tell of changes.
	pollInterval = 500 * time.Millisecond
	// lookAnyway is how often, even if nobody tells of a change.
	lookAnyway = time.Minute
	// sessionPolls is after how many intervals it is looked whether the processes
	// of sessions are still there.
	sessionPolls = 10
	maxRead      = 1 << 20 // bytes of one file at one look
	maxSessions  = 4096
	// hold is how long what wtmp or btmp says waits for the same in the log,
	// which has more to tell; same is how far the two may be apart.
	hold = 2 * time.Second
	same = 5 * time.Second
)

// Options of the sensor. Zero values mean the host's own.
type Options struct {
	WTMP, BTMP string
	// Logs are files of the authentication's log.
	Logs []string
	// Journal starts `journalctl` with these arguments and gives its output; nil
	// for none. It is used where none of Logs is there.
	Journal func(ctx context.Context, args ...string) (io.ReadCloser, error)
}

// Sensor reports logons from wtmp, btmp and the log of the authentication.
type Sensor struct {
	table  *process.Table
	log    *slog.Logger
	opts   Options
	match  *matcher
	admins Admins
	// The constants; tests have others.
	poll, hold, lookAnyway time.Duration

	seen, delivered, filtered atomic.Uint64
}

// New makes the sensor. table says who a process is.
func New(table *process.Table, log *slog.Logger, opts Options) *Sensor {
	if opts.WTMP == "" {
		opts.WTMP = "/var/log/wtmp"
	}
	if opts.BTMP == "" {
		opts.BTMP = "/var/log/btmp"
	}
	if opts.Logs == nil {
		opts.Logs = []string{"/var/log/auth.log", "/var/log/secure"}
	}
	return &Sensor{table: table, log: log, opts: opts, match: newMatcher(), poll: pollInterval, hold: hold, lookAnyway: lookAnyway}
}

// Journal starts journalctl by start, which makes a command ready and runs it
// (see agent/spawn).
func Journal(command func(ctx context.Context, path string, args ...string) *exec.Cmd, start func(*exec.Cmd) error) func(context.Context, ...string) (io.ReadCloser, error) {
	return func(ctx context.Context, args ...string) (io.ReadCloser, error) {
		const socket = "/run/systemd/journal/socket"
		if _, err := os.Stat(socket); err != nil {
			return nil, fmt.Errorf("no journal on this host: %w", err)
		}
		path := ""
		for _, p := range []string{"/usr/bin/journalctl", "/bin/journalctl"} {
			if _, err := os.Stat(p); err == nil {
				path = p
				break
			}
		}
		if path == "" {
			return nil, errors.New("journalctl is not installed")
		}
		cmd := command(ctx, path, args...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := start(cmd); err != nil {
			return nil, err
		}
		return &child{out, cmd}, nil
	}
}

type child struct {
	io.ReadCloser
	cmd *exec.Cmd
}

func (c *child) Close() error {
	_ = c.cmd.Process.Kill()
	err := c.ReadCloser.Close()
	_ = c.cmd.Wait()
	return err
}

// Name implements sensor.Sensor.
func (s *Sensor) Name() string { return "wtmp" }

// Categories implements sensor.Sensor.
func (s *Sensor) Categories() []event.Category { return []event.Category{event.CategoryLogon} }

// Stats implements sensor.Sensor.
func (s *Sensor) Stats() sensor.Stats {
	return sensor.Stats{Seen: s.seen.Load(), Delivered: s.delivered.Load(), Filtered: s.filtered.Load()}
}

// run is one life of the sensor; its members belong to Run's goroutine.
type run struct {
	s        *Sensor
	sink     sensor.Sink
	wtmp     *tail
	btmp     *tail
	logs     []*tail
	sessions map[string]session // by terminal
	waiting  []waiting          // of wtmp and btmp
	told     []event.Event      // of the log, lately
}

type session struct {
	user, host, ip string
	// pid is the process of the session, start when it began; 0 when it was gone
	// already when we looked.
	pid   int
	start uint64
}

type waiting struct {
	ev   event.Event
	pid  int
	till time.Time
}

// Run implements sensor.Sensor.
func (s *Sensor) Run(ctx context.Context, _ []event.Category, sink sensor.Sink) error {
	r := &run{s: s, sink: sink, sessions: map[string]session{}}
	r.wtmp, r.btmp = newTail(s.opts.WTMP), newTail(s.opts.BTMP)
	defer r.wtmp.close()
	defer r.btmp.close()
	r.wtmp.back(1000, int64(utmpSize()))
	r.wtmp.records(utmpSize(), func(b []byte) { r.remember(b) })
	r.btmp.end()
	logs := false
	for _, p := range s.opts.Logs {
		t := newTail(p)
		defer t.close()
		t.end()
		r.logs = append(r.logs, t)
		logs = logs || t.f != nil
	}
	journal := make(chan string, 256)
	if !logs && s.opts.Journal != nil {
		out, err := s.opts.Journal(ctx, "--follow", "--lines=0", "--no-pager", "--output=short-iso-precise", "SYSLOG_FACILITY=4", "SYSLOG_FACILITY=10")
		if err != nil {
			s.log.Info("logons come from wtmp and btmp alone", "err", err)
		} else {
			go follow(ctx, out, journal)
			defer out.Close()
		}
	}
	told := newNotifier(ctx, append([]string{s.opts.WTMP, s.opts.BTMP}, s.opts.Logs...))
	if told != nil {
		defer told.close()
	}
	sink.Ready()
	// The first look finds what came before the notifications.
	timer := time.NewTimer(0)
	defer timer.Stop()
	var changed chan struct{}
	for {
		select {
		case <-ctx.Done():
			r.look(time.Now())
			r.release(time.Now().Add(s.hold))
			return nil
		case line := <-journal:
			r.guard(func() { r.line(line, time.Now()) })
		case _, ok := <-changed:
			if !ok {
				told = nil
			}
			changed = nil
			timer.Reset(s.poll) // for all that is written meanwhile
		case <-timer.C:
			changed = nil
			if told != nil && told.watch() {
				changed = told.changed
			}
			r.guard(func() { r.look(time.Now()) })
			if changed != nil {
				timer.Reset(r.pause(time.Now()))
			} else {
				timer.Reset(s.poll)
			}
		}
	}
}

// pause is how long nothing has to be done, unless a file changes.
func (r *run) pause(now time.Time) time.Duration {
	d := r.s.lookAnyway
	for _, s := range r.sessions {
		if s.pid != 0 {
			d = sessionPolls * r.s.poll
			break
		}
	}
	for _, w := range r.waiting {
		d = min(d, w.till.Sub(now))
	}
	return max(d, r.s.poll)
}

func (r *run) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			r.s.log.Error("logons", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// follow passes on the lines of a child.
func follow(ctx context.Context, out io.Reader, lines chan<- string) {
	in := bufio.NewReaderSize(out, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		select {
		case lines <- strings.TrimSuffix(string(line), "\n"):
		case <-ctx.Done():
			return
		}
	}
}

// look reads what is new.
func (r *run) look(now time.Time) {
	for _, t := range r.logs {
		t.lines(func(line string) { r.line(line, now) })
	}
	r.wtmp.records(utmpSize(), func(b []byte) { r.session(b, now) })
	r.btmp.records(utmpSize(), func(b []byte) { r.failure(b, now) })
	r.ended(now)
	r.release(now)
}

// line takes a line of the log.
func (r *run) line(text string, now time.Time) {
	l := r.s.match.parse(text, now)
	if l.Action == "" {
		return
	}
	ev := event.Event{Time: l.Time, Class: event.ClassLogon, Action: l.Action, Additional: map[string]string{}}
	ev.Logon.Type, ev.Logon.Protocol = Type(l.Program, l.Terminal)
	ev.Logon.AccountName, ev.Logon.RemoteIP, ev.Logon.RemotePort, ev.Logon.RemoteDevice = l.Account, l.RemoteIP, l.Port, l.Device
	ev.Logon.FailureReason = l.Reason
	for name, v := range map[string]string{"Program": l.Program, "Method": l.Method, "Terminal": strings.TrimPrefix(l.Terminal, "/dev/"), "RequestedBy": l.By} {
		if v != "" {
			ev.Additional[name] = v
		}
	}
	r.told = append(r.told, ev)
	if len(r.told) > maxSessions {
		r.told = r.told[1:]
	}
	r.emit(ev, l.PID)
}

// remember learns who is logged on from what wtmp had before the start.
func (r *run) remember(b []byte) {
	u, ok := ParseUtmp(b, runtime.GOARCH)
	if !ok || u.Line == "" {
		return
	}
	switch u.Type {
	case utmpUser:
		if len(r.sessions) < maxSessions {
			s := session{user: u.User, host: u.Host}
			if st, err := r.s.table.Stat(int(u.PID)); err == nil && u.PID > 1 {
				s.pid, s.start = int(u.PID), st.Start
			}
			if u.Addr.IsValid() {
				s.ip = u.Addr.String()
			}
			r.sessions[u.Line] = s
		}
	case utmpDead:
		delete(r.sessions, u.Line)
	}
}

// session takes a record of wtmp.
func (r *run) session(b []byte, now time.Time) {
	u, ok := ParseUtmp(b, runtime.GOARCH)
	if !ok || u.Line == "" || u.Line == "~" {
		return
	}
	ev := event.Event{Time: u.Time, Class: event.ClassLogon}
	switch u.Type {
	case utmpUser:
		ev.Action = event.LogonSuccess
	case utmpDead:
		ev.Action = event.Logoff
		old, known := r.sessions[u.Line]
		if !known {
			return
		}
		if u.User == "" {
			u.User = old.user
		}
		if u.Host == "" {
			u.Host = old.host
		}
		ev.Logon.RemoteIP = old.ip
	default:
		return
	}
	r.describe(&ev, u)
	r.remember(b)
	r.wait(ev, int(u.PID), now)
}

// ended finds sessions whose process is gone without a record in wtmp: some
// programs write none where there is no utmp, and none that are killed do.
func (r *run) ended(now time.Time) {
	for line, s := range r.sessions {
		if s.pid == 0 {
			continue
		}
		if st, err := r.s.table.Stat(s.pid); err == nil && st.Start == s.start {
			continue
		}
		ev := event.Event{Time: now.UTC(), Class: event.ClassLogon, Action: event.Logoff}
		r.describe(&ev, Utmp{Line: line, User: s.user, Host: s.host})
		ev.Logon.RemoteIP = s.ip
		if ev.Logon.RemoteDevice == s.ip {
			ev.Logon.RemoteDevice = ""
		}
		delete(r.sessions, line)
		r.wait(ev, s.pid, now)
	}
}

// failure takes a record of btmp.
func (r *run) failure(b []byte, now time.Time) {
	u, ok := ParseUtmp(b, runtime.GOARCH)
	if !ok || u.Type == 0 {
		return
	}
	ev := event.Event{Time: u.Time, Class: event.ClassLogon, Action: event.LogonFailed}
	r.describe(&ev, u)
	ev.Logon.FailureReason = BadPassword
	if u.User == "UNKNOWN" { // login(1) does not repeat what may be a password
		ev.Logon.FailureReason = UnknownUser
	}
	r.wait(ev, int(u.PID), now)
}

func (r *run) describe(ev *event.Event, u Utmp) {
	program := "login"
	if u.Host != "" || strings.HasPrefix(u.Line, "ssh") {
		program = "sshd"
	}
	ev.Logon.Type, ev.Logon.Protocol = Type(program, u.Line)
	ev.Logon.AccountName = u.User
	if u.Addr.IsValid() {
		ev.Logon.RemoteIP = u.Addr.String()
	}
	if u.Host != "" && u.Host != ev.Logon.RemoteIP {
		ev.Logon.RemoteDevice = u.Host
	}
	ev.Additional = map[string]string{"Terminal": u.Line}
}

func (r *run) wait(ev event.Event, pid int, now time.Time) {
	if len(r.waiting) < maxSessions {
		r.waiting = append(r.waiting, waiting{ev, pid, now.Add(r.s.hold)})
	}
}

// release gives what waited for the log, unless the log said the same.
func (r *run) release(now time.Time) {
	rest := r.waiting[:0]
	for _, w := range r.waiting {
		if now.Before(w.till) {
			rest = append(rest, w)
			continue
		}
		if r.known(w.ev) {
			r.s.seen.Add(1)
			r.s.filtered.Add(1)
			continue
		}
		r.emit(w.ev, w.pid)
	}
	r.waiting = rest
	for len(r.told) > 0 && now.Sub(r.told[0].Time) > time.Minute {
		r.told = r.told[1:]
	}
}

// known finds what the log told about the same, and uses it up.
func (r *run) known(ev event.Event) bool {
	for i, t := range r.told {
		d := t.Time.Sub(ev.Time)
		if t.Action == ev.Action && t.Logon.AccountName == ev.Logon.AccountName && t.Logon.Protocol == ev.Logon.Protocol && d < same && d > -same {
			r.told = append(r.told[:i:i], r.told[i+1:]...)
			return true
		}
	}
	return false
}

func (r *run) emit(ev event.Event, pid int) {
	if ev.Action != event.LogonFailed {
		ev.Logon.IsLocalAdmin = r.s.admins.Is(ev.Logon.AccountName)
	}
	if pid > 0 {
		ev.Initiating, _ = r.s.table.Describe(pid)
		if ev.Initiating.FolderPath == "" {
			if p, ok := r.s.table.Recent(pid); ok {
				ev.Initiating = p
			}
		}
	}
	r.s.seen.Add(1)
	r.s.delivered.Add(1)
	r.sink.Emit(ev, process.Image{})
}

// tail reads what is appended to a file, also when it is replaced by another.
type tail struct {
	path string
	f    *os.File
	id   [2]uint64
	at   int64
	part []byte
}

func newTail(path string) *tail { return &tail{path: filepath.Clean(path)} }

func (t *tail) close() {
	if t.f != nil {
		t.f.Close()
		t.f = nil
	}
}

// open opens the file when it is there and another than the one that is open.
func (t *tail) open() {
	var st unix.Stat_t
	if err := unix.Stat(t.path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	id := [2]uint64{st.Dev, st.Ino}
	if t.f != nil && id == t.id {
		if st.Size < t.at { // cut off, as copytruncate of logrotate does
			t.at, t.part = 0, nil
		}
		return
	}
	fd, err := unix.Open(t.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	t.close()
	t.f, t.id, t.at, t.part = os.NewFile(uintptr(fd), t.path), id, 0, nil
}

// back goes to n records of size bytes before the end, end to the end.
func (t *tail) back(n, size int64) {
	t.end()
	t.at = max(0, t.at/size-n) * size
}

func (t *tail) end() {
	t.open()
	if t.f == nil {
		return
	}
	if st, err := t.f.Stat(); err == nil {
		t.at = st.Size()
	}
}

// more reads what is new, at most maxRead bytes of it.
func (t *tail) more() []byte {
	var rest []byte
	if t.f != nil { // to its end before the file that replaced it
		rest = t.readOn(nil)
	}
	t.open()
	if t.f == nil {
		return rest
	}
	return t.readOn(rest)
}

func (t *tail) readOn(b []byte) []byte {
	if st, err := t.f.Stat(); err != nil || st.Size() <= t.at {
		return b
	}
	buf := make([]byte, 64<<10)
	for len(b) < maxRead {
		n, err := t.f.ReadAt(buf, t.at)
		b = append(b, buf[:n]...)
		t.at += int64(n)
		if err != nil || n == 0 {
			break
		}
	}
	return b
}

// records gives the complete records of size bytes that are new.
func (t *tail) records(size int, each func([]byte)) {
	b := append(t.part, t.more()...)
	for len(b) >= size {
		each(b[:size])
		b = b[size:]
	}
	t.part = append([]byte(nil), b...)
}

// lines gives the complete lines that are new.
func (t *tail) lines(each func(string)) {
	b := append(t.part, t.more()...)
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		each(string(b[:i]))
		b = b[i+1:]
	}
	if len(b) > maxLine {
		b = nil
	}
	t.part = append([]byte(nil), b...)
}
