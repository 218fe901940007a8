package indicator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/event"
)

// Enforcement of network indicators.
const (
	Disabled  = "disabled"
	AuditOnly = "audit"
	Enforce   = "block"
)

// Options of a Manager.
type Options struct {
	// Local is the host's own list; Portal where the portal's is kept.
	Local, Portal string
	// Signatures is the folder into which the hashes are written for the scan
	// engine; Reload makes it read them.
	Signatures string
	Reload     func(ctx context.Context) error
	// PathsChanged is called when paths begin to be blocked: what was decided about
	// files, whatever their names, counts no more. Nil: nobody holds accesses.
	PathsChanged func()
	// Enforcement of network indicators, and whether Warn blocks.
	Enforcement func() (level string, warnBlocks bool)
	// Exempt says which programs, by their full path, are not reported for network
	// indicators; nil for none.
	Exempt func(program string) bool
	Alert  func(event.Alert)
	Log    *slog.Logger
	Now    func() time.Time
	// NetNS is a descriptor of a network namespace, for tests.
	NetNS int
}

// Manager keeps the indicators in force.
type Manager struct {
	opts    Options
	set     atomic.Pointer[Set]
	version atomic.Pointer[string]
	fw      firewall
	changed chan struct{}
	// blocksPaths is what BlocksPaths reports; set by Run only.
	blocksPaths atomic.Bool

	mu   sync.Mutex
	told map[string]time.Time // what was reported lately
	// problem is why something is not enforced.
	problem string
	applied string // the enforcement in force
}

// repeat is how long an indicator that was reported for a program is not
// reported again for it; maxTold bounds what is remembered.
const (
	repeat  = 10 * time.Minute
	maxTold = 10_000
)

// New makes a manager with the lists that are on disk.
func New(opts Options) *Manager {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	m := &Manager{opts: opts, changed: make(chan struct{}, 1), told: map[string]time.Time{}, fw: firewall{netns: opts.NetNS}}
	m.load()
	return m
}

// load makes the set of the lists on disk.
func (m *Manager) load() {
	var lists []api.List
	version := ""
	for _, file := range []string{m.opts.Portal, m.opts.Local} {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || file == "" {
			continue
		}
		var l api.List
		var wrong []error
		if err == nil {
			l, wrong, err = api.Parse(data)
		}
		if err != nil {
			m.opts.Log.Error("indicators cannot be read", "file", file, "error", err)
			continue
		}
		for _, w := range wrong {
			m.opts.Log.Warn("indicator left out", "file", file, "error", w)
		}
		if file == m.opts.Portal {
			version = l.Version
		}
		lists = append(lists, l)
	}
	m.version.Store(&version)
	m.set.Store(NewSet(m.opts.Now(), lists...))
}

// Version of the portal's list that is in force; empty for none.
func (m *Manager) Version() string { return *m.version.Load() }

// Len is the number of indicators in force.
func (m *Manager) Len() int { return m.set.Load().Len() }

// OfThreat gives the indicator of a file that the scan engine found by its hash,
// and whether it found it so. The indicator is nil when it is gone and the
// engine does not know yet.
func (m *Manager) OfThreat(name string) (i *api.Indicator, ours bool) {
	return m.set.Load().Named(name)
}

// ForgetPortal removes the portal's list, on a host that leaves its portal.
func (m *Manager) ForgetPortal() error {
	if err := os.Remove(m.opts.Portal); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the indicators of the portal: %w", err)
	}
	m.Reload()
	return nil
}

// SetPortal takes a list of the portal's.
func (m *Manager) SetPortal(data []byte) error {
	if _, _, err := api.Parse(data); err != nil {
		return err
	}
	if err := replace(m.opts.Portal, data); err != nil {
		return fmt.Errorf("keep the indicators of the portal: %w", err)
	}
	m.Reload()
	return nil
}

// Reload reads the lists again and puts them in force.
func (m *Manager) Reload() {
	m.load()
	m.Apply()
}

// Apply has Run look at the enforcement again, after a change of policy.
func (m *Manager) Apply() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// replace writes a file so that it is the old or the new one.
func replace(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	tmp := file + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// Run keeps the indicators in force until ctx ends; then the packet filter is
// as it was before.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	defer func() {
		if err := m.fw.remove(); err != nil {
			m.opts.Log.Error("blocked addresses are not released", "error", err)
		}
	}()
	m.enforce(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.changed:
		case <-tick.C:
			// Those that have expired since.
			before := m.Len()
			if m.load(); m.Len() == before {
				continue
			}
		}
		m.enforce(ctx)
	}
}

// enforce brings scan engine and packet filter to the set.
func (m *Manager) enforce(ctx context.Context) {
	set := m.set.Load()
	level, warn := m.opts.Enforcement()
	// Before the signatures, which may take long to load. While paths are blocked,
	// nothing that is kept depends on names: when others are, nothing is forgotten.
	if b := set.blocksPaths(m.opts.Now(), warn); !m.blocksPaths.Swap(b) && b && m.opts.PathsChanged != nil {
		m.opts.PathsChanged()
	}
	if err := m.signatures(ctx, set); err != nil {
		m.opts.Log.Error("indicators of files are not in force", "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if level != Enforce {
		if err := m.fw.remove(); err != nil && m.applied == Enforce {
			m.opts.Log.Error("blocked addresses are not released", "error", err)
		}
		m.applied, m.problem = level, ""
		return
	}
	ranges := set.blocked(m.opts.Now(), warn)
	if len(ranges) == 0 && len(set.domains) == 0 {
		if m.applied == Enforce {
			_ = m.fw.remove() // nothing to block: the next change tries again
		}
		m.applied, m.problem = "", ""
		return
	}
	if err := m.fw.apply(ranges); err != nil {
		m.problem = err.Error()
		m.opts.Log.Error("network indicators are not in force", "error", err)
		return
	}
	m.applied, m.problem = Enforce, ""
	m.opts.Log.Info("network indicators in force", "ranges", len(ranges), "names", len(set.domains))
}

// Problem says why network indicators are not in force; empty when they are or
// need not be.
func (m *Manager) Problem() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problem
}

// signatures writes the hashes in the form of ClamAV's databases, which the
// engine finds at constant cost, and has them loaded when they have changed.
func (m *Manager) signatures(ctx context.Context, set *Set) error {
	if m.opts.Signatures == "" {
		return nil
	}
	_, warn := m.opts.Enforcement()
	files := map[string]*strings.Builder{"blocked.hdb": {}, "blocked.hsb": {}, "allowed.fp": {}, "allowed.sfp": {}}
	now := m.opts.Now()
	for n := range set.all {
		i := &set.all[n]
		if i.Expired(now) {
			continue
		}
		short := i.Type == api.FileMD5
		if !short && i.Type != api.FileSHA1 && i.Type != api.FileSHA256 {
			continue
		}
		name := ""
		switch {
		case i.Action == api.Allow:
			name = map[bool]string{true: "allowed.fp", false: "allowed.sfp"}[short]
		case blocks(i, warn):
			name = map[bool]string{true: "blocked.hdb", false: "blocked.hsb"}[short]
		default:
			continue
		}
		fmt.Fprintf(files[name], "%s:*:%s%.*s:73\n", i.Value, threatPrefix, namedDigits, i.Value)
	}
	changed := false
	for name, text := range files {
		path := filepath.Join(m.opts.Signatures, name)
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if string(old) == text.String() {
			continue
		}
		changed = true
		if text.Len() == 0 {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		if err := replace(path, []byte(text.String())); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o644); err != nil { // the scanner's user reads it
			return err
		}
	}
	if !changed || m.opts.Reload == nil {
		return nil
	}
	return m.opts.Reload(ctx)
}

// See looks for indicators in an event and reports them.
func (m *Manager) See(ev *event.Event) {
	set := m.set.Load()
	if set.Len() == 0 {
		return
	}
	now := m.opts.Now()
	level, warn := m.opts.Enforcement()
	for _, i := range set.Match(ev, now) {
		network := i.Type == api.IPAddress || i.Type == api.IPNetwork || i.Type == api.Domain || i.Type == api.URL
		if network && (level == Disabled || m.exempt(ev)) {
			continue
		}
		blocked := network && level == Enforce && blocks(i, warn) && i.Type != api.URL
		if blocked && i.Type == api.Domain && ev.Action == event.DNSResponse {
			m.blockAnswers(ev)
		}
		alert := Alert(i, ev, newID())
		if alert == nil || !m.first(i, alert) {
			continue
		}
		if blocked && m.Problem() == "" {
			alert.Action = "blocked"
		}
		if m.opts.Alert != nil {
			m.opts.Alert(*alert)
		}
	}
}

// exempt reports whether the program of an event is left alone by network protection.
func (m *Manager) exempt(ev *event.Event) bool {
	program := ev.Initiating.FolderPath
	if ev.Class == event.ClassProcess {
		program = ev.Process.FolderPath
	}
	return m.opts.Exempt != nil && m.opts.Exempt(program)
}

// blockAnswers blocks the addresses of a name.
func (m *Manager) blockAnswers(ev *event.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, text := range strings.FieldsFunc(ev.Additional["Answers"], func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue // the name of an alias
		}
		if err := m.fw.addName(a.Unmap()); err != nil {
			m.opts.Log.Warn("address of a blocked name is not blocked", "name", ev.Network.RemoteURL, "address", text, "error", err)
		}
	}
}

// first reports whether an indicator was not reported lately for the program.
func (m *Manager) first(i *api.Indicator, a *event.Alert) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.opts.Now()
	key := i.Type + "\x00" + i.Value + "\x00" + a.Process.FolderPath
	if at, ok := m.told[key]; ok && now.Sub(at) < repeat {
		return false
	}
	if len(m.told) >= maxTold {
		for k, at := range m.told {
			if now.Sub(at) >= repeat {
				delete(m.told, k)
			}
		}
		if len(m.told) >= maxTold {
			clear(m.told)
		}
	}
	m.told[key] = now
	return true
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// BlockHash adds a hash to the host's own list, for a rule that says so.
func (m *Manager) BlockHash(sha256, title string) error {
	data, err := os.ReadFile(m.opts.Local)
	var l api.List
	if err == nil {
		if l, _, err = api.Parse(data); err != nil {
			return fmt.Errorf("%s: %w", m.opts.Local, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	i := api.Indicator{Type: api.FileSHA256, Value: sha256, Action: api.Block, Title: title, Severity: "High"}
	if err := i.Normalize(); err != nil {
		return err
	}
	if slices.ContainsFunc(l.Indicators, func(o api.Indicator) bool { return o.Type == i.Type && o.Value == i.Value }) {
		return nil
	}
	l.Indicators = append(l.Indicators, i)
	out, err := marshal(l)
	if err != nil {
		return err
	}
	if err := replace(m.opts.Local, out); err != nil {
		return err
	}
	m.Reload()
	return nil
}

func marshal(l api.List) ([]byte, error) {
	data, err := json.MarshalIndent(l, "", "  ")
	return append(data, '\n'), err
}
