// Package script reports what interpreters run: when a shell, Python, Perl or
// the like starts with a script file, the beginning of the file and its hash
// become an event. It is told of executions by the sensor of processes.
package script

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

const (
	// MaxContent is how much of a script is in its event, in bytes.
	MaxContent = 8 << 10
	maxFile    = 16 << 20 // of a script that is hashed
	maxWaiting = 1024     // executions
	maxKnown   = 4096     // scripts
	// again is how long a script that did not change is not told again.
	again = 10 * time.Minute
)

// Sensor is the source of script events.
type Sensor struct {
	log   *slog.Logger
	queue chan event.Process
	lost  atomic.Uint64 // not told yet
	// losing wakes Run to tell of them.
	losing chan struct{}
	known  map[identity]time.Time

	seen, delivered, filtered, allLost atomic.Uint64
}

// identity of a script's content and who ran it.
type identity struct {
	dev, ino            uint64
	size, mtime, ctime  int64
	uid                 int64
	interpreter, script string
}

// New makes a sensor.
func New(log *slog.Logger) *Sensor {
	return &Sensor{log: log, queue: make(chan event.Process, maxWaiting), losing: make(chan struct{}, 1), known: map[identity]time.Time{}}
}

// Name implements sensor.Sensor.
func (s *Sensor) Name() string { return "exec" }

// Categories implements sensor.Sensor.
func (s *Sensor) Categories() []event.Category { return []event.Category{event.CategoryScript} }

// Stats implements sensor.Sensor. Seen counts executions of scripts, Filtered
// those whose content was told lately.
func (s *Sensor) Stats() sensor.Stats {
	return sensor.Stats{Seen: s.seen.Load(), Delivered: s.delivered.Load(), Filtered: s.filtered.Load(), Lost: s.allLost.Load()}
}

// See is told of every event. It does not wait.
func (s *Sensor) See(ev *event.Event) {
	if ev.Action != event.ProcessCreated || ev.Process.Script == "" && !interpreter(ev.Process.FileName) {
		return
	}
	select {
	case s.queue <- ev.Process:
	default:
		s.lost.Add(1)
		select {
		case s.losing <- struct{}{}:
		default: // it is awake
		}
	}
}

// Run implements sensor.Sensor.
func (s *Sensor) Run(ctx context.Context, _ []event.Category, sink sensor.Sink) error {
	sink.Ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-s.queue:
			s.handle(p, sink)
		case <-s.losing:
			if n := s.lost.Swap(0); n > 0 {
				s.seen.Add(n)
				s.allLost.Add(n)
				sink.Lost(event.CategoryScript, n)
			}
		}
	}
}

func (s *Sensor) handle(p event.Process, sink sensor.Sink) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("script", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	name := p.Script
	if name == "" {
		if name = argument(p.FileName, p.CommandLine); name == "" {
			return
		}
	}
	if !path.IsAbs(name) {
		name = path.Join(p.WorkingDir, name)
	}
	f, id, err := open(p, name)
	if err != nil {
		// It is gone, or the first argument was no file after all.
		return
	}
	defer f.Close()
	s.seen.Add(1)
	id.uid, id.interpreter, id.script = p.UID, p.FolderPath, name
	now := time.Now()
	if at, ok := s.known[id]; ok && now.Sub(at) < again {
		s.filtered.Add(1)
		return
	}
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[id] = now
	ev, err := describe(f, id.size)
	if err != nil {
		s.filtered.Add(1)
		s.log.Debug("script not read", "path", name, "err", err)
		return
	}
	ev.Time, ev.Class, ev.Action, ev.Initiating = now.UTC(), event.ClassDevice, event.ScriptContent, p
	ev.File.FolderPath, ev.File.FileName = name, path.Base(name)
	s.delivered.Add(1)
	sink.Emit(ev, process.Image{})
}

var errNoFile = errors.New("no regular file")

// open opens a regular file as the process sees it, and nothing else: a
// device or a pipe is not touched.
func open(p event.Process, name string) (*os.File, identity, error) {
	if p.ContainerID != "" {
		name = filepath.Join("/proc", strconv.FormatInt(p.PID, 10), "root", name)
	}
	at, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, identity{}, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, identity{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, identity{}, fmt.Errorf("%s: %w", name, errNoFile)
	}
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(at), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, identity{}, err
	}
	return f, identity{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}, nil
}

// describe reads a script.
func describe(r io.Reader, size int64) (event.Event, error) {
	head := make([]byte, MaxContent)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return event.Event{}, err
	}
	head = head[:n]
	h := sha256.New()
	h.Write(head)
	rest, err := io.Copy(h, io.LimitReader(r, maxFile-int64(n)))
	if err != nil {
		return event.Event{}, err
	}
	ev := event.Event{Additional: map[string]string{}}
	ev.File.Size = size
	if int64(n)+rest < maxFile {
		ev.File.SHA256 = hex.EncodeToString(h.Sum(nil))
	}
	if bytes.IndexByte(head, 0) >= 0 {
		ev.Additional["ContentType"] = "binary"
		return ev, nil
	}
	ev.Additional["ScriptContent"] = strings.ToValidUTF8(string(head), "\uFFFD")
	if rest > 0 {
		ev.Additional["ScriptContentCut"] = "true"
	}
	return ev, nil
}
