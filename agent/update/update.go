// Package update keeps the agent's definitions up to date: from the portal, from
// an offline mirror (a web server or a folder), and from a mirror of ClamAV
// databases.
//
// What it fetches lies in sets, folders that are never changed once they are
// complete. A new set is tried first: when it does not load, or flags a file
// that is known to be clean, the set before stays in force, and the bad one is
// not tried again by itself. See docs/definitions.md.
package update

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/engine/clamdb/mirror"
)

// Settings are the parts of the policy that matter here.
type Settings struct {
	// Periodic updates are made every Interval; zero for none.
	Periodic bool
	Interval time.Duration
	// Mirror is the URL or folder of an offline mirror; empty for none. Fallback
	// says to ask the portal where that does not work.
	Mirror   string
	Fallback bool
	// ClamAV is "official" or the URL of a mirror; empty for none.
	ClamAV string
}

// Options of an Updater. Dir, Settings, Portal, Proxy and Load are needed.
type Options struct {
	// Dir keeps sets, what was trusted and the state.
	Dir      string
	Settings func() Settings
	// Portal returns the onboarding package and a client for its portal.
	Portal func() (*onboarding.Package, *http.Client, error)
	// Proxy returns the proxy in force.
	Proxy func() (*network.Proxy, error)
	// RootFile, when it is there, is the root metadata to trust instead of that
	// of the onboarding package; KeysFile the keys of ClamAV databases instead of
	// the published ones. Both are the administrator's.
	RootFile, KeysFile string
	// Load compiles the folders together with the host's own definitions and puts
	// the result to use; on an error what is in use stays. Refused reports
	// whether such an error is the fault of the definitions.
	Load    func(ctx context.Context, folders []string) error
	Refused func(error) bool
	Version string
	Log     *slog.Logger
	Now     func() time.Time
	// FirstPause is the time from the start to the first periodic update (10 s).
	FirstPause time.Duration
}

// Errors of Update.
var (
	// ErrNoSource: there is nowhere to fetch from.
	ErrNoSource = errors.New("no source of definitions is configured")
	// ErrHeld: the newest set is one that was refused or restored from before.
	ErrHeld = errors.New("the newest definitions are held back")
)

// Progress tells how far an update is.
type Progress struct {
	// Text is what is being done.
	Text string
	// Done of Total bytes; Total is 0 where it is not known.
	Done, Total int64
}

// Outcome says what an update did.
type Outcome struct {
	Changed bool
	// Messages say in words what became of each source.
	Messages []string
}

// Updater updates definitions. It is safe for concurrent use.
type Updater struct {
	opts Options
	log  *slog.Logger
	busy chan struct{} // token: one update at a time
	wake chan struct{} // settings changed

	mu       sync.Mutex
	state    state
	updating bool
	next     time.Time
}

// state survives restarts.
type state struct {
	Release feed `json:"release"`
	ClamAV  feed `json:"clamav"`
	// Checked is when sources were asked last, Succeeded when all of them had
	// answered; Failure is why the last one did not.
	Checked   time.Time `json:"checked,omitzero"`
	Succeeded time.Time `json:"succeeded,omitzero"`
	Failure   string    `json:"failure,omitempty"`
	// Source is where the release was taken from, or asked for, last.
	Source string `json:"source,omitempty"`
}

// feed is one kind of set.
type feed struct {
	Current  *set `json:"current,omitempty"`
	Previous *set `json:"previous,omitempty"`
	// Held are sets that are not put to use again by themselves, with the reason.
	Held map[string]string `json:"held,omitempty"`
}

// set is a folder of definitions.
type set struct {
	// Folder is its name below the folder of sets.
	Folder string `json:"folder"`
	// Version is for people; ID tells it apart from every other.
	Version string    `json:"version"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

// maxHeld bounds the memory of bad sets.
const maxHeld = 20

// New reads the state.
func New(o Options) (*Updater, error) {
	if o.Dir == "" || o.Settings == nil || o.Portal == nil || o.Proxy == nil || o.Load == nil {
		return nil, errors.New("update: folder, settings, portal, proxy and loader are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Refused == nil {
		o.Refused = func(error) bool { return true }
	}
	if o.FirstPause <= 0 {
		o.FirstPause = 10 * time.Second
	}
	u := &Updater{opts: o, log: o.Log, busy: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	// Scanners read the sets as another user.
	if err := os.MkdirAll(u.setsDir(), 0o755); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	u.readState()
	u.clearUp()
	return u, nil
}

func (u *Updater) setsDir() string           { return filepath.Join(u.opts.Dir, "sets") }
func (u *Updater) statePath() string         { return filepath.Join(u.opts.Dir, "state.json") }
func (u *Updater) folder(s *set) string      { return filepath.Join(u.setsDir(), s.Folder) }
func (u *Updater) clamavDir() string         { return filepath.Join(u.opts.Dir, "clamav") }
func (u *Updater) trustDir(id string) string { return filepath.Join(u.opts.Dir, "trust", id) }

func (u *Updater) readState() {
	data, err := os.ReadFile(u.statePath())
	if err == nil {
		err = json.Unmarshal(data, &u.state)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		u.log.Error("the state of updates is damaged; definitions are fetched anew", "path", u.statePath(), "error", err)
		u.state = state{}
	}
	for _, f := range []*feed{&u.state.Release, &u.state.ClamAV} {
		for _, s := range []**set{&f.Current, &f.Previous} {
			if *s == nil {
				continue
			}
			if st, err := os.Stat(u.folder(*s)); !validFolder((*s).Folder) || err != nil || !st.IsDir() {
				u.log.Error("a set of definitions is gone", "version", (*s).Version)
				*s = nil
			}
		}
		if f.Current == nil {
			f.Current, f.Previous = f.Previous, nil
		}
	}
}

func validFolder(name string) bool {
	return name != "" && name != "." && !strings.ContainsAny(name, "/") && !strings.HasPrefix(name, "..")
}

// save writes the state; u.mu is held.
func (u *Updater) saveLocked() error {
	data, err := json.MarshalIndent(u.state, "", " ")
	if err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	if err := atomicfile.Write(u.statePath(), data, 0o644); err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	return nil
}

// clearUp removes folders that no feed knows.
func (u *Updater) clearUp() {
	known := map[string]bool{}
	for _, f := range []feed{u.state.Release, u.state.ClamAV} {
		for _, s := range []*set{f.Current, f.Previous} {
			if s != nil {
				known[s.Folder] = true
			}
		}
	}
	entries, err := os.ReadDir(u.setsDir())
	if err != nil {
		u.log.Warn("old sets of definitions are not cleared up", "error", err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			os.RemoveAll(filepath.Join(u.setsDir(), e.Name()))
		}
	}
	for _, path := range atomicfile.Leftovers(u.statePath()) {
		os.Remove(path)
	}
}

// Folders are those of the sets in force.
func (u *Updater) Folders() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.foldersLocked(u.state.Release.Current, u.state.ClamAV.Current)
}

func (u *Updater) foldersLocked(sets ...*set) []string {
	var out []string
	for _, s := range sets {
		if s != nil {
			out = append(out, u.folder(s))
		}
	}
	return out
}

// Update asks all sources and puts what is new to use. When by is false, it was
// asked for by nobody: sets that are held back stay so.
func (u *Updater) Update(ctx context.Context, by bool, progress func(Progress)) (Outcome, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	select {
	case u.busy <- struct{}{}:
		defer func() { <-u.busy }()
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	}
	u.mu.Lock()
	u.updating = true
	u.mu.Unlock()
	var out Outcome
	err := u.update(ctx, by, progress, &out)
	u.mu.Lock()
	u.updating = false
	now := u.opts.Now()
	u.state.Checked, u.state.Failure = now, ""
	if err != nil {
		u.state.Failure = network.Explain(err)
		if errors.Is(err, ErrNoSource) {
			u.state.Checked = time.Time{}
		}
	} else {
		u.state.Succeeded = now
	}
	saveErr := u.saveLocked()
	u.mu.Unlock()
	return out, errors.Join(err, saveErr)
}

func (u *Updater) update(ctx context.Context, by bool, progress func(Progress), out *Outcome) error {
	s := u.opts.Settings()
	released, err := u.updateRelease(ctx, s, by, progress, out)
	if s.ClamAV == "" {
		if !released && err == nil {
			return ErrNoSource
		}
		if derr := u.dropClamAV(ctx); derr != nil {
			err = errors.Join(err, derr)
		}
		return err
	}
	// A portal that does not answer is no reason to leave ClamAV's databases old.
	return errors.Join(err, u.updateClamAV(ctx, s.ClamAV, by, progress, out))
}

// dropClamAV takes the databases out of force when the setting is gone.
func (u *Updater) dropClamAV(ctx context.Context) error {
	u.mu.Lock()
	current, release := u.state.ClamAV.Current, u.state.Release.Current
	u.mu.Unlock()
	if current == nil {
		return nil
	}
	if err := u.opts.Load(ctx, u.foldersLocked(release)); err != nil {
		return fmt.Errorf("taking ClamAV's databases out of use: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state.ClamAV = feed{}
	u.clearUp()
	return u.saveLocked()
}

// newSet makes an empty folder for a set.
func (u *Updater) newSet(prefix string) (string, error) {
	dir, err := os.MkdirTemp(u.setsDir(), prefix+"-*")
	if err != nil {
		return "", fmt.Errorf("definitions: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("definitions: %w", err)
	}
	return filepath.Base(dir), nil
}

// adopt puts a set to use. Where the definitions are at fault, the set before
// stays, and this one is held back.
func (u *Updater) adopt(ctx context.Context, of func(*state) *feed, s *set) error {
	u.mu.Lock()
	next := u.state
	*of(&next) = feed{Current: s}
	folders := u.foldersLocked(next.Release.Current, next.ClamAV.Current)
	u.mu.Unlock()
	err := u.opts.Load(ctx, folders)
	u.mu.Lock()
	defer u.mu.Unlock()
	f := of(&u.state)
	if err != nil {
		os.RemoveAll(u.folder(s))
		if ctx.Err() == nil && u.opts.Refused(err) {
			hold(f, s.ID, err.Error())
			return fmt.Errorf("definitions %s are not used, and not tried again by themselves; those before stay: %w", s.Version, err)
		}
		return fmt.Errorf("definitions %s: %w", s.Version, err)
	}
	drop := f.Previous
	f.Previous, f.Current = f.Current, s
	delete(f.Held, s.ID)
	if drop != nil {
		os.RemoveAll(u.folder(drop))
	}
	return u.saveLocked()
}

func hold(f *feed, id, why string) {
	if f.Held == nil || len(f.Held) >= maxHeld {
		f.Held = map[string]string{}
	}
	f.Held[id] = why
}

// Restore goes back to the definitions of the package: all sets are taken out of
// use, and held back until there are newer ones or somebody asks for an update.
func (u *Updater) Restore(ctx context.Context) error {
	select {
	case u.busy <- struct{}{}:
		defer func() { <-u.busy }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := u.opts.Load(ctx, nil); err != nil {
		return fmt.Errorf("the definitions of the package: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range []*feed{&u.state.Release, &u.state.ClamAV} {
		if f.Current != nil {
			hold(f, f.Current.ID, "it was left with `bulwark definitions restore`")
		}
		f.Current, f.Previous = nil, nil
	}
	u.clearUp()
	return u.saveLocked()
}

// FallBack is for sets that were in force and do not load any more, after an
// upgrade for example: those before take their place, or else those of the
// package.
func (u *Updater) FallBack(ctx context.Context, why string) error {
	select {
	case u.busy <- struct{}{}:
		defer func() { <-u.busy }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var err error
	for range 2 {
		u.mu.Lock()
		next := u.state
		for _, f := range []*feed{&next.Release, &next.ClamAV} {
			if f.Current != nil {
				f.Held = maps.Clone(f.Held)
				hold(f, f.Current.ID, why)
				u.log.Error("a set of definitions does not load any more", "version", f.Current.Version, "reason", why)
			}
			f.Current, f.Previous = f.Previous, nil
		}
		folders := u.foldersLocked(next.Release.Current, next.ClamAV.Current)
		u.mu.Unlock()
		if err = u.opts.Load(ctx, folders); err != nil && ctx.Err() != nil {
			return err
		}
		u.mu.Lock()
		u.state = next
		u.clearUp()
		saveErr := u.saveLocked()
		u.mu.Unlock()
		if err == nil {
			return saveErr
		}
		why = err.Error()
	}
	return err
}

// Run updates periodically until ctx ends.
func (u *Updater) Run(ctx context.Context) error {
	failures := 0
	pause := u.opts.FirstPause
	last := u.opts.Settings()
	for {
		s := u.opts.Settings()
		var timer <-chan time.Time
		u.mu.Lock()
		if u.next = (time.Time{}); s.Periodic && s.Interval > 0 {
			u.next = u.opts.Now().Add(pause)
			timer = time.After(pause)
		}
		u.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-u.wake:
			if now := u.opts.Settings(); now != last {
				last, pause, failures = now, u.opts.FirstPause, 0
			}
			continue
		case <-timer:
		}
		out, err := u.Update(ctx, false, nil)
		failures++
		if ctx.Err() != nil {
			continue // to the end
		}
		switch {
		case errors.Is(err, ErrNoSource):
			u.log.Debug("no update of definitions", "reason", err)
		case err != nil:
			u.log.Warn("definitions not updated", "reason", network.Explain(err))
		default:
			failures = 0
			if out.Changed {
				u.log.Info("definitions updated", "what", strings.Join(out.Messages, "; "))
			}
		}
		pause = u.pause(u.opts.Settings().Interval, failures)
	}
}

// pause is the time to the next update: the interval, a tenth more or less at
// random, so that a fleet does not come at once; sooner after a failure.
func (u *Updater) pause(interval time.Duration, failures int) time.Duration {
	if failures > 0 {
		interval = min(interval, time.Minute<<min(failures-1, 10))
	}
	spread := int64(interval / 5)
	return interval - interval/10 + time.Duration(rand.Int64N(max(spread, 1))) //nolint:gosec // jitter need not be unguessable
}

// Wake makes Run look at the settings again.
func (u *Updater) Wake() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// SetStatus describes a set.
type SetStatus struct {
	Version string
	Created time.Time
}

// Status is the state for health and people.
type Status struct {
	Updating bool
	// Release and ClamAV are in force; the zero value for none.
	Release, Previous, ClamAV SetStatus
	// Held sets with the reasons.
	Held map[string]string
	// Source is where releases were taken from, or asked for, last.
	Source             string
	Checked, Succeeded time.Time
	Failure            string
	// Next is when the next update is due; zero for never.
	Next time.Time
}

// Newest is when the newest set in force was made; zero where none is.
func (s Status) Newest() time.Time {
	if s.ClamAV.Created.After(s.Release.Created) {
		return s.ClamAV.Created
	}
	return s.Release.Created
}

// Status returns the present state.
func (u *Updater) Status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	of := func(s *set) SetStatus {
		if s == nil {
			return SetStatus{}
		}
		return SetStatus{s.Version, s.Created}
	}
	st := Status{
		Updating: u.updating, Release: of(u.state.Release.Current), Previous: of(u.state.Release.Previous), ClamAV: of(u.state.ClamAV.Current),
		Held: map[string]string{}, Source: u.state.Source, Checked: u.state.Checked, Succeeded: u.state.Succeeded, Failure: u.state.Failure, Next: u.next,
	}
	for _, f := range []feed{u.state.Release, u.state.ClamAV} {
		for id, why := range f.Held {
			st.Held[id] = why
		}
	}
	return st
}

// mirrorURL is the address of a ClamAV mirror.
func mirrorURL(setting string) string {
	if setting == "official" {
		return mirror.Official
	}
	return setting
}

// Endpoints are the addresses of mirrors that are in use, for the connectivity
// test: the address to show, the one to ask for, and what it is.
func (u *Updater) Endpoints() []Endpoint {
	s := u.opts.Settings()
	var out []Endpoint
	if s.Mirror != "" {
		out = append(out, Endpoint{Address: s.Mirror, File: "metadata/timestamp.json", Purpose: "definitions mirror"})
	}
	if s.ClamAV != "" {
		out = append(out, Endpoint{Address: mirrorURL(s.ClamAV), File: "daily.cvd", Purpose: "ClamAV mirror"})
	}
	return out
}

// Endpoint is an address that updates need.
type Endpoint struct{ Address, File, Purpose string }

// isURL tells addresses from folders.
func isURL(s string) bool {
	return slices.ContainsFunc([]string{"http://", "https://"}, func(p string) bool { return strings.HasPrefix(s, p) })
}
