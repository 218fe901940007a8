// Package logging writes the daemon's logs. A call never waits: a line is put
// into a bounded queue and written by a goroutine of the file; when the queue is
// full the line is dropped and counted, and the log says so as soon as it can.
// A full disk loses lines, never stops the daemon.
//
// Lines have the form of the reference product:
//
//	[pid][component][2026-11-28 21:04:05.123456 UTC][level]: message key=value
package logging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/DeRuina/timberjack"
)

// Names of the log files.
const (
	MainFile     = "bulwark.log"
	ErrorFile    = "bulwark_err.log"       // warnings and errors only
	ScanSkipFile = "bulwark_scan_skip.log" // files that scans left out, with the reason
)

// LevelVerbose is below slog.LevelDebug.
const LevelVerbose = slog.LevelDebug - 4

var levelNames = []struct {
	name  string
	level slog.Level
}{
	{"error", slog.LevelError},
	{"warning", slog.LevelWarn},
	{"info", slog.LevelInfo},
	{"debug", slog.LevelDebug},
	{"verbose", LevelVerbose},
	{"trace", LevelVerbose}, // the analyzer's word for verbose
}

// ParseLevel reads the name of a level.
func ParseLevel(name string) (slog.Level, error) {
	var names []string
	for _, l := range levelNames {
		if l.name == name {
			return l.level, nil
		}
		names = append(names, l.name)
	}
	return 0, fmt.Errorf("log level %q is not one of %s", name, strings.Join(names[:len(names)-1], ", "))
}

// LevelName is the name of a level.
func LevelName(l slog.Level) string {
	for _, n := range levelNames {
		if l >= n.level {
			return n.name
		}
	}
	return "verbose"
}

// Options say where and how much to log.
type Options struct {
	// Dir is the folder of the log files; it is made when missing. Empty logs to
	// Console only.
	Dir string
	// Level is the name of the first level; empty is "info".
	Level string
	// MaxCurrentMB is the size at which a file is rotated, MaxRotatedMB what the
	// rotated ones of one log may take; 0 takes 10 and 100.
	MaxCurrentMB, MaxRotatedMB int
	// Console gets every line of level info and above too; may be nil.
	Console io.Writer
}

// Log is the set of log files. Loggers made from it may be used by many
// goroutines.
type Log struct {
	options Options
	level   slog.LevelVar
	main    *sink
	errors  *sink
	console *sink

	mu    sync.Mutex // guards named and the sizes in options
	named map[string]*sink
}

// queueLines is the length of a file's queue.
const queueLines = 4096

// Open starts the log. Files that cannot be written now are tried again with
// every line; Err tells about them.
func Open(o Options) (*Log, error) {
	if o.Level == "" {
		o.Level = "info"
	}
	if o.MaxCurrentMB == 0 {
		o.MaxCurrentMB = 10
	}
	if o.MaxRotatedMB == 0 {
		o.MaxRotatedMB = 100
	}
	level, err := ParseLevel(o.Level)
	if err != nil {
		return nil, err
	}
	l := &Log{options: o, named: map[string]*sink{}}
	l.level.Set(level)
	if o.Dir != "" {
		l.main = newSink(l.file(MainFile))
		l.errors = newSink(l.file(ErrorFile))
	}
	if o.Console != nil {
		l.console = newSink(nopCloser{o.Console})
	}
	return l, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func (l *Log) file(name string) io.WriteCloser {
	return &timberjack.Logger{
		Filename:         filepath.Join(l.options.Dir, name),
		MaxSize:          l.options.MaxCurrentMB,
		MaxBackups:       max(1, l.options.MaxRotatedMB/l.options.MaxCurrentMB),
		BackupTimeFormat: "2006-01-02T15-04-05.000",
		Compression:      "none", // diagnostic bundles are compressed as a whole
		FileMode:         0o640,
	}
}

// SetRotation changes the sizes, in MB, as in Options. It does not wait: each
// file changes before its next line.
func (l *Log) SetRotation(currentMB, rotatedMB int) {
	if currentMB <= 0 || rotatedMB <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.options.Dir == "" || currentMB == l.options.MaxCurrentMB && rotatedMB == l.options.MaxRotatedMB {
		return
	}
	l.options.MaxCurrentMB, l.options.MaxRotatedMB = currentMB, rotatedMB
	l.main.replace(l.file(MainFile))
	l.errors.replace(l.file(ErrorFile))
	for name, s := range l.named {
		s.replace(l.file(name))
	}
}

// Logger returns the logger of a component of the daemon.
func (l *Log) Logger(component string) *slog.Logger {
	return slog.New(&handler{log: l, component: component, sinks: func(level slog.Level) []*sink {
		sinks := make([]*sink, 0, 3)
		if l.main != nil {
			sinks = append(sinks, l.main)
		}
		if l.errors != nil && level >= slog.LevelWarn {
			sinks = append(sinks, l.errors)
		}
		if l.console != nil && level >= slog.LevelInfo {
			sinks = append(sinks, l.console)
		}
		return sinks
	}})
}

// File returns a logger to a file of its own in the log folder (a plain name),
// such as ScanSkipFile. Without a folder it discards.
func (l *Log) File(name, component string) *slog.Logger {
	if l.options.Dir == "" || name != filepath.Base(name) {
		return slog.New(slog.DiscardHandler)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.named[name]
	if s == nil {
		s = newSink(l.file(name))
		l.named[name] = s
	}
	only := []*sink{s}
	return slog.New(&handler{log: l, component: component, sinks: func(slog.Level) []*sink { return only }})
}

// SetLevel changes the level of all loggers at once.
func (l *Log) SetLevel(name string) error {
	level, err := ParseLevel(name)
	if err != nil {
		return err
	}
	l.level.Set(level)
	return nil
}

// Level is the name of the level.
func (l *Log) Level() string { return LevelName(l.level.Level()) }

// Stats counts lines since the start, over all files.
type Stats struct {
	Written int64
	// Dropped lines found the queue full, Failed ones could not be written.
	Dropped, Failed int64
}

func (l *Log) sinks() []*sink {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []*sink{l.main, l.errors, l.console}
	for _, s := range l.named {
		all = append(all, s)
	}
	return slices.DeleteFunc(all, func(s *sink) bool { return s == nil })
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	var st Stats
	for _, s := range l.sinks() {
		st.Written += s.written.Load()
		st.Dropped += s.dropped.Load()
		st.Failed += s.failed.Load()
	}
	return st
}

// Err is the error of the last line that could not be written, nil when the
// last lines could be.
func (l *Log) Err() error {
	var errs []error
	for _, s := range l.sinks() {
		if err := s.lastErr.Load(); err != nil && *err != nil {
			errs = append(errs, *err)
		}
	}
	return errors.Join(errs...)
}

// Close writes what is queued, for at most timeout, and closes the files.
func (l *Log) Close(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var errs []error
	for _, s := range l.sinks() {
		errs = append(errs, s.close(ctx))
	}
	return errors.Join(errs...)
}

// sink writes lines to one file from a goroutine of its own.
type sink struct {
	w       io.WriteCloser
	queue   chan []byte
	swap    chan io.WriteCloser // takes the place of w
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once

	written, dropped, failed atomic.Int64
	lastErr                  atomic.Pointer[error]
}

func newSink(w io.WriteCloser) *sink {
	s := &sink{w: w, queue: make(chan []byte, queueLines), swap: make(chan io.WriteCloser, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	go s.run()
	return s
}

// replace gives the sink another file; one that has not been taken up yet is
// forgotten, it has not been opened either.
func (s *sink) replace(w io.WriteCloser) {
	select {
	case <-s.swap:
	default:
	}
	s.swap <- w
}

// put never waits.
func (s *sink) put(line []byte) {
	select {
	case s.queue <- line:
	default:
		s.dropped.Add(1)
	}
}

func (s *sink) run() {
	defer close(s.stopped)
	var reported int64
	for {
		select {
		case w := <-s.swap:
			if err := s.w.Close(); err != nil {
				s.lastErr.Store(&err)
			}
			s.w = w
		case line := <-s.queue:
			s.write(line)
		case <-s.stop:
			for {
				select {
				case line := <-s.queue:
					s.write(line)
				default:
					return
				}
			}
		}
		if lost := s.dropped.Load() + s.failed.Load(); lost > reported && len(s.queue) < cap(s.queue)/2 {
			if s.write(format(time.Now(), "log", slog.LevelWarn, "lines were lost here", []slog.Attr{slog.Int64("lines", lost-reported)})) {
				reported = lost
			} else {
				reported = s.dropped.Load() + s.failed.Load()
			}
		}
	}
}

func (s *sink) write(line []byte) (ok bool) {
	defer func() {
		// The rotation library is not ours: its faults cost a line.
		if v := recover(); v != nil {
			err := fmt.Errorf("write log: %v", v)
			s.lastErr.Store(&err)
			s.failed.Add(1)
			ok = false
		}
	}()
	if _, err := s.w.Write(line); err != nil {
		s.lastErr.Store(&err)
		s.failed.Add(1)
		return false
	}
	if s.lastErr.Load() != nil {
		s.lastErr.Store(nil)
	}
	s.written.Add(1)
	return true
}

func (s *sink) close(ctx context.Context) error {
	s.once.Do(func() { close(s.stop) })
	select {
	case <-s.stopped:
		return s.w.Close()
	case <-ctx.Done():
		return fmt.Errorf("close log: lines were still waiting: %w", ctx.Err())
	}
}

// DirProblem says what keeps the log folder from working, or nil.
func DirProblem(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("log folder: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("log folder %s is no folder", dir)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("log folder %s may be written by others than its owner (mode %04o)", dir, info.Mode().Perm())
	}
	return nil
}
