// Package isolation cuts a host off the network except for its portal: a table
// of our own in nftables drops everything but loopback, the agent's own channel,
// DNS, DHCP and what the order allows. It stays across restarts of the daemon
// and the host, is made again when a firewall's reload removes it, and ends by
// order of the portal or by a signed token of it (package response).
package isolation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/atomicfile"
)

const (
	// checkEvery is how often the rules are looked for while isolated: longer
	// than that nobody's reload can lift it.
	checkEvery = 2 * time.Second
	// resolveEvery is how often the names of the channel are resolved again.
	resolveEvery   = time.Minute
	resolveTimeout = 10 * time.Second
	maxState       = 64 << 10
	maxResolvers   = 8
	maxChannel     = 64
)

// ErrNotIsolated is the error of releasing a host that is not isolated.
var ErrNotIsolated = errors.New("this host is not isolated")

// State is an isolation.
type State struct {
	Order      string    `json:"order"`
	Since      time.Time `json:"since"`
	Allow      []string  `json:"allow,omitempty"`
	ReleaseKey []byte    `json:"release_key"`
	// Channel are the addresses of the portal as they were last resolved.
	Channel []netip.AddrPort `json:"channel"`
}

// Status is what is shown of an isolation.
type Status struct {
	Isolated bool
	State    State
	// Problem says why the rules are not in place; empty when they are.
	Problem string
	// Restored counts how often somebody had removed the rules.
	Restored int
}

// Options of a Manager.
type Options struct {
	// Path of the file that keeps the isolation across restarts.
	Path string
	// Channel returns the hosts and ports ("portal.example:443") that the agent
	// itself connects to: the portal's, or a proxy's.
	Channel func() []string
	// Resolvers are files in the form of resolv.conf.
	Resolvers []string
	// NetNS is a descriptor of the network namespace to isolate; 0 for the
	// process's own.
	NetNS int
	// Lookup resolves a name; net.DefaultResolver's when nil.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Log    *slog.Logger
	Now    func() time.Time
	// CheckEvery replaces the usual interval, for tests.
	CheckEvery time.Duration
}

// Manager isolates and releases. It is safe for concurrent use.
type Manager struct {
	opts Options
	fw   firewall

	mu       sync.Mutex
	state    *State
	applied  *plan
	problem  string
	restored int
	resolved time.Time
	wake     chan struct{}
}

// Open reads the state; Run enforces it.
func Open(o Options) (*Manager, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CheckEvery <= 0 {
		o.CheckEvery = checkEvery
	}
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	m := &Manager{opts: o, fw: firewall{o.NetNS}, wake: make(chan struct{}, 1)}
	data, err := os.ReadFile(o.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case err != nil:
		return nil, fmt.Errorf("isolation: %w", err)
	}
	var s State
	d := json.NewDecoder(bytes.NewReader(data[:min(len(data), maxState)]))
	if err := d.Decode(&s); err != nil || s.Order == "" {
		// Better a host that stays cut off and says so than one that is free
		// because a file was damaged; the portal can end it.
		o.Log.Error("the isolation's file is damaged; the host stays isolated until the portal releases it", "file", o.Path, "error", err)
		s = State{Order: "unknown", Since: o.Now().UTC()}
	}
	m.state = &s
	return m, nil
}

// Status returns whether the host is isolated.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == nil {
		return Status{}
	}
	return Status{Isolated: true, State: *m.state, Problem: m.problem, Restored: m.restored}
}

// Isolate isolates the host. When it fails, nothing has changed.
func (m *Manager) Isolate(ctx context.Context, p response.IsolateParameters) error {
	if p.Order == "" {
		return errors.New("isolate: the order has no id")
	}
	if _, err := response.ParsePeers(p.Allow); err != nil {
		return fmt.Errorf("isolate: %w", err)
	}
	channel := m.resolve(ctx, nil)
	if len(channel) == 0 {
		return errors.New("isolate: the portal's address cannot be found out; isolated, this host could not be released again")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.state
	m.state = &State{Order: p.Order, Since: m.opts.Now().UTC(), Allow: p.Allow, ReleaseKey: p.ReleaseKey, Channel: channel}
	err := m.applyLocked()
	if err == nil {
		err = m.saveLocked()
	}
	if err != nil {
		m.state = before
		if before == nil {
			err = errors.Join(err, m.fw.remove())
		}
		return fmt.Errorf("isolate: %w", err)
	}
	m.resolved = m.opts.Now()
	m.opts.Log.Warn("host isolated", "order", p.Order, "channel", channel, "allow", p.Allow)
	m.wakeUp()
	return nil
}

// Release ends the isolation; ErrNotIsolated when there is none.
func (m *Manager) Release(why string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == nil {
		return ErrNotIsolated
	}
	// First the file: a daemon that dies in between must not isolate again what
	// was released, and the table alone is removed at its next start.
	if err := os.Remove(m.opts.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release: %w", err)
	}
	if err := m.fw.remove(); err != nil {
		return fmt.Errorf("release: %w", errors.Join(err, m.saveLocked()))
	}
	order := m.state.Order
	m.state, m.applied, m.problem, m.restored = nil, nil, "", 0
	m.opts.Log.Warn("host released from isolation", "order", order, "why", why)
	return nil
}

// ReleaseWithToken ends the isolation with a token that the portal signed.
func (m *Manager) ReleaseWithToken(token, device string) error {
	s := m.Status()
	if !s.Isolated {
		return ErrNotIsolated
	}
	if err := response.CheckRelease(s.State.ReleaseKey, token, device, s.State.Order, m.opts.Now()); err != nil {
		return err
	}
	return m.Release("token")
}

// Run keeps the rules in place until ctx ends; they stay then.
func (m *Manager) Run(ctx context.Context) error {
	if !m.Status().Isolated {
		// What a daemon that died while it released has left.
		if left, err := m.fw.present(); err == nil && left {
			if err := m.fw.remove(); err != nil {
				m.opts.Log.Error("rules of an isolation that has ended not removed", "error", err)
			}
		}
	}
	for ctx.Err() == nil {
		m.enforce(ctx)
		interval := m.opts.CheckEvery
		if !m.Status().Isolated {
			interval = time.Hour
		}
		t := time.NewTimer(interval)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-m.wake:
		}
		t.Stop()
	}
	return nil
}

// enforce makes the rules when they are not there or not these.
func (m *Manager) enforce(ctx context.Context) {
	m.mu.Lock()
	state, due := m.state, m.opts.Now().Sub(m.resolved) >= resolveEvery
	m.mu.Unlock()
	if state == nil {
		return
	}
	channel := state.Channel
	if due {
		channel = m.resolve(ctx, state.Channel)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != state { // released or isolated anew meanwhile
		return
	}
	if due {
		m.resolved = m.opts.Now()
		if len(channel) > 0 && !slices.Equal(channel, state.Channel) {
			next := *state
			next.Channel = channel
			m.state = &next
			if err := m.saveLocked(); err != nil {
				m.opts.Log.Error("the portal's new address not kept", "error", err)
			}
		}
	}
	want, err := m.planLocked()
	if err == nil && m.applied != nil && want.equal(*m.applied) {
		intact, ierr := m.fw.intact(want)
		if ierr == nil && intact {
			m.problem = ""
			return
		}
		if ierr == nil {
			m.restored++
			m.opts.Log.Warn("the isolation's rules had been removed or changed; they are made again", "times", m.restored)
		}
	}
	if err == nil {
		err = m.applyLocked()
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != m.problem && text != "" {
		m.opts.Log.Error("the host should be isolated and is not", "error", err)
	}
	m.problem = text
}

func (m *Manager) planLocked() (plan, error) {
	peers, err := response.ParsePeers(m.state.Allow)
	return plan{channel: m.state.Channel, resolvers: m.resolvers(), peers: peers}, err
}

func (m *Manager) applyLocked() error {
	p, err := m.planLocked()
	if err != nil {
		return err
	}
	if err := m.fw.apply(p); err != nil {
		return err
	}
	m.applied = &p
	return nil
}

func (m *Manager) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// resolve returns the addresses of the channel; those of a name that cannot be
// resolved now stay as they were, which is all of before.
func (m *Manager) resolve(ctx context.Context, before []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	failed := false
	for _, hostPort := range m.opts.Channel() {
		host, portText, err := net.SplitHostPort(hostPort)
		if err != nil {
			m.opts.Log.Error("address of the portal or its proxy", "address", hostPort, "error", err)
			continue
		}
		port, err := net.DefaultResolver.LookupPort(ctx, "tcp", portText)
		if err != nil {
			m.opts.Log.Error("address of the portal or its proxy", "address", hostPort, "error", err)
			continue
		}
		addrs := []netip.Addr{}
		if a, err := netip.ParseAddr(host); err == nil {
			addrs = append(addrs, a)
		} else {
			lctx, cancel := context.WithTimeout(ctx, resolveTimeout)
			found, err := m.opts.Lookup(lctx, host)
			cancel()
			if err != nil {
				failed = true
				m.opts.Log.Warn("name of the portal or its proxy not resolved", "name", host, "error", err)
				continue
			}
			addrs = found
		}
		for _, a := range addrs {
			out = append(out, netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(port)))
		}
	}
	if failed {
		out = append(out, before...)
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	out = slices.Compact(out)
	return out[:min(len(out), maxChannel)]
}

// resolvers returns the name servers of the host; loopback ones need no rule.
func (m *Manager) resolvers() []netip.Addr {
	var out []netip.Addr
	for _, path := range m.opts.Resolvers {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // one of the two files is usual
		}
		for line := range strings.Lines(string(data[:min(len(data), maxState)])) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "nameserver" {
				continue
			}
			if a, err := netip.ParseAddr(fields[1]); err == nil && !a.IsLoopback() && len(out) < maxResolvers {
				out = append(out, a.Unmap().WithZone(""))
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// saveLocked writes the state so that a crash leaves the old or the new file.
func (m *Manager) saveLocked() error {
	data, err := json.MarshalIndent(m.state, "", "  ")
	if err != nil {
		return fmt.Errorf("isolation: %w", err)
	}
	if err := atomicfile.Write(m.opts.Path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("isolation: %w", err)
	}
	return nil
}
