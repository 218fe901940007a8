// Package config keeps the configuration in force: it reads the managed file,
// the portal's policy and the local settings, watches the files, resolves them
// (package policy) and tells whoever wants to know. It also implements the
// resources of the local API that are configuration.
package config

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/policy"
)

// pollInterval is how often the files are looked at. One lstat each: cheaper
// and surer than inotify, which misses changes on network file systems and
// folders that are replaced.
const pollInterval = time.Second

// Paths are the files.
type Paths struct {
	Managed string // the administrator's profile (layout.Dirs.Managed)
	Local   string // settings made on this host
	Portal  string // the last policy from the portal, with its version
	Kept    string // the last managed profile without errors
	Pause   string // an enforcement level that was set for a time
}

// PathsUnder returns the files' usual places in the state folder.
func PathsUnder(managed, state string) Paths {
	return Paths{
		Managed: managed, Local: filepath.Join(state, "local.json"),
		Portal: filepath.Join(state, "portal-policy.json"), Kept: filepath.Join(state, "managed-policy.json"),
		Pause: filepath.Join(state, "pause.json"),
	}
}

// Manager is the configuration. It is safe for concurrent use.
type Manager struct {
	paths Paths
	log   *slog.Logger
	now   func() moment
	local *policy.LocalStore
	// changes serializes reloading and notification.
	changes sync.Mutex
	current atomic.Pointer[state]
	hits    hits

	mu          sync.Mutex
	subscribers map[int]func(old, new policy.Effective)
	nextID      int
}

// state is one consistent configuration.
type state struct {
	effective        policy.Effective
	portal, managed  policy.Document
	portalVersion    string
	problems         []Problem
	managedStamp     stamp
	localStamp       stamp
	localUnavailable error
	pause            *pause // nil for none
	unpaused         string // the enforcement level after it
}

// Problem is a problem in one of the files.
type Problem struct {
	File string
	policy.Problem
}

// String is the problem in one line: file:line:column: ...
func (p Problem) String() string { return p.File + ":" + p.Problem.String() }

// stamp identifies a version of a file.
type stamp struct {
	exists     bool
	dev, ino   uint64
	size       int64
	mtim, ctim syscall.Timespec
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}
	}
	return stamp{true, uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// Open reads the files. What is wrong in them is no error: it is among the
// problems, and the rest applies.
func Open(paths Paths, log *slog.Logger) (*Manager, error) {
	m := &Manager{paths: paths, log: log, now: clocks(), subscribers: map[int]func(old, new policy.Effective){}}
	local, err := policy.OpenLocal(paths.Local)
	if local == nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	m.local = local
	first := &state{localUnavailable: err}
	first.portal, first.portalVersion = m.loadPortal()
	first.managed = m.loadKept()
	first.pause = m.loadPause()
	m.current.Store(first)
	m.reload(true)
	return m, nil
}

// portalFile is the form of Paths.Portal.
type portalFile struct {
	Version string          `json:"version"`
	Policy  json.RawMessage `json:"policy"`
}

func (m *Manager) loadPortal() (policy.Document, string) {
	data, err := policy.ReadFile(m.paths.Portal)
	if errors.Is(err, os.ErrNotExist) {
		return policy.Document{}, ""
	}
	var f portalFile
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		// Without a version the portal sends the policy again.
		m.log.Error("the stored portal policy cannot be read; waiting for the portal to send it again", "file", m.paths.Portal, "err", err)
		return policy.Document{}, ""
	}
	doc, _ := policy.Parse(f.Policy)
	return doc, f.Version
}

// Current is the configuration in force.
func (m *Manager) Current() policy.Effective { return m.current.Load().effective }

// Problems are what is wrong in the files now.
func (m *Manager) Problems() []Problem { return slices.Clone(m.current.Load().problems) }

// PolicyVersion is the version of the portal's policy in force, or empty.
func (m *Manager) PolicyVersion() string { return m.current.Load().portalVersion }

// Subscribe calls f after every change with what was and what is in force, one
// call at a time. f must not call Subscribe or change settings. The returned
// function ends it.
func (m *Manager) Subscribe(f func(old, new policy.Effective)) (cancel func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.nextID
	m.nextID++
	m.subscribers[id] = f
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.subscribers, id)
	}
}

// Run watches the files until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			m.reload(false)
			m.checkPause()
		}
	}
}

// Reload looks at the files now, as Run does by itself every second.
func (m *Manager) Reload() { m.reload(true) }

// ApplyPortal puts the portal's policy in force and keeps it over restarts. A
// policy that cannot be read at all is refused and leaves the old one.
func (m *Manager) ApplyPortal(data []byte, version string) ([]policy.Problem, error) {
	doc, problems := policy.Parse(data)
	if policy.Broken(problems) {
		return problems, fmt.Errorf("policy %q from the portal: %s", version, problems[0])
	}
	file, err := json.Marshal(portalFile{Version: version, Policy: data})
	if err != nil {
		return problems, fmt.Errorf("policy %q from the portal: %w", version, err)
	}
	if err := atomicfile.Write(m.paths.Portal, file, 0o600); err != nil {
		return problems, fmt.Errorf("keep policy %q from the portal: %w", version, err)
	}
	m.update(func(s *state) { s.portal, s.portalVersion = doc, version })
	return problems, nil
}

// ForgetPortal ends the portal's policy, for good.
func (m *Manager) ForgetPortal() error {
	if err := os.Remove(m.paths.Portal); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget the portal's policy: %w", err)
	}
	m.update(func(s *state) { s.portal, s.portalVersion = policy.Document{}, "" })
	return nil
}

// reload reads the files that have changed, or all with force.
func (m *Manager) reload(force bool) {
	managed, local := stampOf(m.paths.Managed), stampOf(m.paths.Local)
	now := m.current.Load()
	if !force && managed == now.managedStamp && local == now.localStamp {
		return
	}
	m.update(func(s *state) {
		if force || local != s.localStamp {
			s.localUnavailable = m.local.Reload()
			s.localStamp = local
		}
		if force || managed != s.managedStamp {
			m.readManaged(s)
			s.managedStamp = managed
		}
	})
}

// readManaged reads the managed file into s. When it cannot be read the profile
// before it stays in force.
func (m *Manager) readManaged(s *state) {
	s.problems = slices.DeleteFunc(slices.Clone(s.problems), func(p Problem) bool { return p.File == m.paths.Managed })
	whole := func(format string, args ...any) {
		s.problems = append(s.problems, Problem{m.paths.Managed, policy.Problem{Line: 1, Column: 1, Message: fmt.Sprintf(format, args...)}})
	}
	if err := trusted(m.paths.Managed); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			s.managed = policy.Document{}
			if err := os.Remove(m.paths.Kept); err != nil && !errors.Is(err, os.ErrNotExist) {
				m.log.Warn("the kept profile is not removed", "err", err)
			}
			return
		}
		whole("%v: what was in force before stays", err)
		return
	}
	data, err := policy.ReadFile(m.paths.Managed)
	if err != nil {
		whole("%v: what was in force before stays", err)
		return
	}
	doc, problems := policy.Parse(data)
	wrong := false
	for _, p := range problems {
		if !p.Warning {
			wrong = true
			doc = keepBefore(doc, s.managed, &p)
		}
		s.problems = append(s.problems, Problem{m.paths.Managed, p})
	}
	if policy.Broken(problems) {
		return
	}
	s.managed = doc
	if !wrong {
		m.keepManaged(doc)
	}
}

// keepBefore gives doc the value that a key had before, where its value now is
// wrong: a typing error in the enforcement level must not end protection.
func keepBefore(doc, before policy.Document, p *policy.Problem) policy.Document {
	value, ok := before.Get(p.Key)
	if _, set := doc.Get(p.Key); !ok || set {
		return doc
	}
	k, known := policy.Lookup(p.Key)
	if !known {
		return doc
	}
	raw, err := k.Encode(value)
	if err != nil {
		return doc
	}
	kept, err := doc.With(p.Key, raw)
	if err != nil {
		return doc
	}
	p.Message += fmt.Sprintf("; the value before, %s, stays in force", raw)
	return kept
}

// keepManaged stores the last managed profile without errors, so that "before"
// survives a restart.
func (m *Manager) keepManaged(doc policy.Document) {
	data, err := doc.MarshalJSON()
	if err != nil {
		m.log.Error("the managed profile is not kept", "err", err)
		return
	}
	if have, err := policy.ReadFile(m.paths.Kept); err == nil && bytes.Equal(have, data) {
		return
	}
	if err := atomicfile.Write(m.paths.Kept, data, 0o600); err != nil {
		m.log.Warn("the managed profile is not kept: errors in a later one will fall back to defaults after a restart", "file", m.paths.Kept, "err", err)
	}
}

// loadKept reads the profile of keepManaged; empty when there is none.
func (m *Manager) loadKept() policy.Document {
	data, err := policy.ReadFile(m.paths.Kept)
	if err != nil {
		return policy.Document{}
	}
	doc, _ := policy.Parse(data)
	return doc
}

// trusted refuses a profile that somebody else than the administrator could
// have written.
func trusted(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("the file may be written by everybody: chmod o-w it")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the file belongs to user %d: chown it to root", st.Uid)
	}
	return nil
}

// update changes the state, resolves and notifies.
func (m *Manager) update(change func(*state)) {
	m.changes.Lock()
	defer m.changes.Unlock()
	old := m.current.Load()
	next := *old
	change(&next)
	local, localProblems := m.local.Document()
	next.problems = slices.DeleteFunc(slices.Clone(next.problems), func(p Problem) bool { return p.File != m.paths.Managed })
	for _, p := range localProblems {
		next.problems = append(next.problems, Problem{m.paths.Local, p})
	}
	if next.localUnavailable != nil {
		next.problems = append(next.problems, Problem{m.paths.Local, policy.Problem{Line: 1, Column: 1, Message: next.localUnavailable.Error()}})
	}
	next.effective = policy.Resolve(next.portal, next.managed, m.settle(&next, local)).WithResolvedPaths(resolveLinks)
	m.current.Store(&next)
	for _, p := range next.problems {
		if !slices.Contains(old.problems, p) {
			level := slog.LevelError
			if p.Warning {
				level = slog.LevelWarn
			}
			m.log.Log(context.Background(), level, "configuration: "+p.String())
		}
	}
	m.mu.Lock()
	ids := make([]int, 0, len(m.subscribers))
	for id := range m.subscribers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	calls := make([]func(old, new policy.Effective), len(ids))
	for i, id := range ids {
		calls[i] = m.subscribers[id]
	}
	m.mu.Unlock()
	for _, f := range calls {
		f(old.effective, next.effective)
	}
}

func resolveLinks(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return path
}

// changeLocal makes a change of the local settings and puts it in force, together
// with what else is to change in the state. Where the settings
// cannot be stored nothing changes.
func (m *Manager) changeLocal(change func(*policy.LocalStore) error, also ...func(*state)) error {
	if err := change(m.local); err != nil {
		return err
	}
	m.update(func(s *state) {
		s.localStamp = stampOf(m.paths.Local)
		s.localUnavailable = nil
		for _, f := range also {
			f(s)
		}
	})
	return nil
}
