// Package sample sends suspicious files to the portal, as far as the setting
// cloudService.automaticSampleSubmissionConsent allows it: none, those of kinds
// that commonly hold no personal data ("safe"), or all.
//
// What is to be sent waits in a folder, as a note for each file: the content
// stays where it is, in the quarantine or at its path, and is looked at again
// before it goes. The setting counts then, too, so that a consent that is taken
// back stops what waits.
package sample

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/nolink"
	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/engine/filetype"
)

// Consent says which files may be sent.
type Consent string

// The values of the setting.
const (
	None Consent = "none"
	Safe Consent = "safe"
	All  Consent = "all"
)

// safe are the kinds of files that commonly hold no personal data: programs,
// libraries and scripts. Documents, archives, mail and text may.
var safe = []string{filetype.ELF, filetype.PE, filetype.MachO, filetype.Script}

// Allows reports whether files of a kind (package filetype) may be sent.
func (c Consent) Allows(kind string) bool {
	return c == All || c == Safe && slices.Contains(safe, kind)
}

// Bounds.
const (
	// MaxSize is the largest file that is sent.
	MaxSize = 32 << 20
	// maxWaiting bounds the notes, maxAge how long one waits.
	maxWaiting = 200
	maxAge     = 7 * 24 * time.Hour
	// perHour and bytesPerHour bound what is sent.
	perHour      = 30
	bytesPerHour = 128 << 20
	maxNote      = 16 << 10
	// shortest and longest pause before a file is tried again; the alert may
	// arrive a little after it.
	firstRetry = 3 * time.Second
	lastRetry  = 6 * time.Hour
	// lookEvery is how often the files are looked at whose time has come.
	lookEvery = 3 * time.Second
)

// ErrRefused is wrapped by the errors of Options.Send for a file that the portal
// does not take, now or later.
var ErrRefused = errors.New("the portal does not take the file")

// File is a suspicious file.
type File struct {
	AlertID string `json:"alert_id"`
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
	// Kind is the format, as package filetype names it.
	Kind string `json:"kind"`
	// Path where it was found; any bytes.
	Path []byte `json:"path"`
	// QuarantineID is set when the content is in the quarantine.
	QuarantineID string    `json:"quarantine_id,omitempty"`
	Found        time.Time `json:"found"`
}

// Options of a Submitter. All are needed but Now and Log.
type Options struct {
	// Dir keeps the notes; a folder of the daemon's own.
	Dir string
	// Consent is the present setting.
	Consent func() Consent
	// Quarantined copies the content of an item of the quarantine to w.
	Quarantined func(ctx context.Context, id string, w io.Writer) error
	// Ready reports whether there is a portal to send to.
	Ready func() bool
	// Send sends a file.
	Send func(ctx context.Context, f File, content io.ReaderAt) error
	Log  *slog.Logger
	Now  func() time.Time
}

// Submitter is the queue. Its methods may be called from any goroutine.
type Submitter struct {
	o    Options
	wake chan struct{}

	mu       sync.Mutex
	waiting  map[string]*note // by SHA-256
	sent     int64
	dropped  int64
	hour     time.Time
	inHour   int
	ofBytes  int64
	lastSent time.Time
}

// note is a file that waits.
type note struct {
	File
	tries int
	next  time.Time
}

// Open reads the queue.
func Open(o Options) (*Submitter, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Submitter{o: o, wake: make(chan struct{}, 1), waiting: map[string]*note{}}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("samples: %w", err)
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("samples: %w", err)
	}
	for _, e := range entries {
		f, err := s.read(e.Name())
		if err != nil || len(s.waiting) >= maxWaiting {
			// Of a crash or damaged; a note is not worth more than its file.
			o.Log.Warn("a waiting sample is given up", "file", e.Name(), "error", err)
			if err := os.Remove(filepath.Join(o.Dir, e.Name())); err != nil {
				return nil, fmt.Errorf("samples: %w", err)
			}
			continue
		}
		s.waiting[f.SHA256] = &note{File: f}
	}
	return s, nil
}

const noteSuffix = ".json"

func (s *Submitter) path(sum string) string { return filepath.Join(s.o.Dir, sum+noteSuffix) }

func (s *Submitter) read(name string) (File, error) {
	b, err := atomicfile.Read(filepath.Join(s.o.Dir, name), maxNote)
	if err != nil {
		return File{}, err
	}
	f, err := decode(b)
	if err == nil && name != f.SHA256+noteSuffix {
		err = fmt.Errorf("the note is about %q", f.SHA256)
	}
	return f, err
}

func decode(b []byte) (File, error) {
	var f File
	if err := json.Unmarshal(b, &f); err != nil {
		return File{}, fmt.Errorf("not a note: %w", err)
	}
	return f, f.check()
}

func (f File) check() error {
	switch b, err := hex.DecodeString(f.SHA256); {
	case err != nil || len(b) != sha256.Size || strings.ToLower(f.SHA256) != f.SHA256:
		return fmt.Errorf("%q is no SHA-256", f.SHA256)
	case f.Size <= 0:
		return errors.New("the file is empty")
	case f.Size > MaxSize:
		return fmt.Errorf("%d bytes are more than %d", f.Size, MaxSize)
	case f.AlertID == "" || len(f.AlertID) > 64:
		return fmt.Errorf("%q is no id of an alert", f.AlertID)
	case len(f.Path) > 4096:
		return fmt.Errorf("a path of %d bytes", len(f.Path))
	}
	return nil
}

// Add notes a file for sending, if the setting allows it. It says why one will
// not be sent, and nil for one that will or that waits already.
func (s *Submitter) Add(f File) error {
	if c := s.o.Consent(); !c.Allows(f.Kind) {
		return fmt.Errorf("files of the kind %q are not sent: sample submission is set to %q", f.Kind, c)
	}
	if err := f.check(); err != nil {
		return err
	}
	f.Found = s.o.Now().UTC().Round(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[f.SHA256] != nil {
		return nil
	}
	if len(s.waiting) >= maxWaiting {
		return fmt.Errorf("%d files wait already", len(s.waiting))
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := writeWhole(s.path(f.SHA256), b); err != nil {
		return fmt.Errorf("note a sample: %w", err)
	}
	s.waiting[f.SHA256] = &note{File: f}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// writeWhole writes a file so that a crash leaves all or nothing of it.
func writeWhole(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close(), os.Rename(path+".new", path))
}

// Waiting returns the files that wait, the oldest first.
func (s *Submitter) Waiting() []File {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []File
	for _, n := range s.waiting {
		out = append(out, n.File)
	}
	slices.SortFunc(out, func(a, b File) int {
		if c := a.Found.Compare(b.Found); c != 0 {
			return c
		}
		return strings.Compare(a.SHA256, b.SHA256)
	})
	return out
}

// Clear forgets what waits: the host leaves its portal.
func (s *Submitter) Clear() {
	for _, f := range s.Waiting() {
		s.drop(f, errors.New("the host leaves the portal"))
	}
}

// Stats are counted since the start.
type Stats struct {
	Waiting, Sent, Dropped int64
	LastSent               time.Time
}

// Stats returns the counters.
func (s *Submitter) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{int64(len(s.waiting)), s.sent, s.dropped, s.lastSent}
}

// Run sends until ctx ends.
func (s *Submitter) Run(ctx context.Context) error {
	for {
		s.Once(ctx)
		var again <-chan time.Time // never, while nothing waits
		if s.Stats().Waiting > 0 {
			again = time.After(lookEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-s.wake:
		}
	}
}

// Once tries the files whose time has come.
func (s *Submitter) Once(ctx context.Context) {
	for _, f := range s.Waiting() {
		if ctx.Err() != nil {
			return
		}
		if c := s.o.Consent(); !c.Allows(f.Kind) {
			s.drop(f, fmt.Errorf("sample submission is now set to %q", c))
			continue
		}
		if s.o.Now().Sub(f.Found) > maxAge {
			s.drop(f, errors.New("it has waited too long"))
			continue
		}
		if !s.o.Ready() || !s.due(f) {
			continue
		}
		switch err := s.send(ctx, f); {
		case err == nil:
			s.finished(f)
		case ctx.Err() != nil:
		case errors.Is(err, ErrRefused), errors.Is(err, errGone):
			s.drop(f, err)
		default:
			s.later(f, err)
		}
	}
}

// due reports whether it is a file's turn, within the bounds of the hour.
func (s *Submitter) due(f File) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	if hour := now.Truncate(time.Hour); !hour.Equal(s.hour) {
		s.hour, s.inHour, s.ofBytes = hour, 0, 0
	}
	n := s.waiting[f.SHA256]
	if n == nil || now.Before(n.next) || s.inHour >= perHour || s.ofBytes+f.Size > bytesPerHour {
		return false
	}
	s.inHour++
	s.ofBytes += f.Size
	return true
}

// errGone means that the content is not there any more.
var errGone = errors.New("its content is not there any more")

// send copies the content to a file without a name, makes sure that it is what
// was found, and sends it.
func (s *Submitter) send(ctx context.Context, f File) error {
	tmp, err := os.CreateTemp(s.o.Dir, ".sample-")
	if err != nil {
		return err
	}
	defer tmp.Close() // without a name it is gone
	if err := os.Remove(tmp.Name()); err != nil {
		return err
	}
	h := sha256.New()
	w := io.MultiWriter(tmp, h)
	if f.QuarantineID != "" {
		err = s.o.Quarantined(ctx, f.QuarantineID, w)
	} else {
		err = copyPath(string(f.Path), w)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != f.SHA256 {
		return fmt.Errorf("%w: its SHA-256 is %s now", errGone, sum)
	}
	head := make([]byte, 64<<10)
	n, err := tmp.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if kind, c := filetype.Detect(head[:n]), s.o.Consent(); !c.Allows(kind) {
		return fmt.Errorf("%w: files of the kind %q are not sent: sample submission is set to %q", errGone, kind, c)
	}
	return s.o.Send(ctx, f, tmp)
}

// copyPath copies a regular file. A link on the way, or a file that is not one,
// is not followed.
func copyPath(path string, w io.Writer) error {
	dir, err := nolink.OpenFolder(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, filepath.Base(path), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // read-only
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() > MaxSize {
		return fmt.Errorf("%q is another file now", path)
	}
	_, err = io.Copy(w, io.LimitReader(f, MaxSize+1))
	return err
}

func (s *Submitter) remove(f File) {
	if s.waiting[f.SHA256] == nil {
		return
	}
	delete(s.waiting, f.SHA256)
	if err := os.Remove(s.path(f.SHA256)); err != nil {
		s.o.Log.Error("the note of a sample cannot be removed; it would be sent again after a restart", "sha256", f.SHA256, "error", err)
	}
}

func (s *Submitter) finished(f File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(f)
	s.sent++
	s.lastSent = s.o.Now()
	s.o.Log.Info("sample sent to the portal", "path", string(f.Path), "sha256", f.SHA256, "bytes", f.Size, "alert", f.AlertID)
}

func (s *Submitter) drop(f File, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(f)
	s.dropped++
	s.o.Log.Info("sample not sent to the portal", "path", string(f.Path), "sha256", f.SHA256, "reason", why)
}

func (s *Submitter) later(f File, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.waiting[f.SHA256]
	if n == nil {
		return
	}
	n.next = s.o.Now().Add(min(firstRetry<<min(n.tries, 13), lastRetry))
	n.tries++
	s.o.Log.Debug("sample is sent later", "sha256", f.SHA256, "at", n.next, "error", why)
}
