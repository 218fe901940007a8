package config

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/boot"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/policy"
)

// How long an enforcement level may be set for.
const (
	MinPause = time.Minute
	MaxPause = 24 * time.Hour
)

// pause is an enforcement level that holds for a time, in place of the local
// settings' own, which stay as they are: whatever happens to the daemon, the end
// is only a matter of the clock.
type pause struct {
	Level string    `json:"enforcementLevel"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Boot is the run of the kernel for which BootUntil counts, "" for none.
	Boot string `json:"boot,omitempty"`
	// BootUntil is the end by the clock since the boot, which nobody can set
	// back, in nanoseconds.
	BootUntil time.Duration `json:"bootUntil,omitempty"`
}

// moment is the time by both clocks.
type moment struct {
	wall time.Time
	boot string        // the run of the kernel, "" where it has no name
	up   time.Duration // since the boot, time asleep included
}

// clocks returns what reads both clocks.
func clocks() func() moment {
	id := boot.ID()
	return func() moment {
		m := moment{wall: time.Now()}
		var up unix.Timespec
		if id != "" && unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) == nil {
			m.boot, m.up = id, time.Duration(up.Nano())
		}
		return m
	}
}

// bind makes the rest of the pause count by the clock since the boot, too.
func (p *pause) bind(now moment) { p.Boot, p.BootUntil = now.boot, now.up+p.Until.Sub(now.wall) }

// holds reports whether it is in force: until the sooner end by the two clocks. A
// clock that was set back before its begin ends it too.
func (p *pause) holds(now moment) bool {
	return p != nil && !now.wall.Before(p.Since) && now.wall.Before(p.Until) &&
		(p.Boot == "" || p.Boot != now.boot || now.up < p.BootUntil)
}

// over is the local settings with the pause in force.
func (p *pause) over(local policy.Document) (policy.Document, error) {
	with, err := local.With(policy.KeyEnforcementLevel, json.RawMessage(fmt.Sprintf("%q", p.Level)))
	return with.Without(policy.KeyRealTime, policy.KeyPassiveMode), err
}

// loadPause reads the pause that an earlier daemon left; nil where there is none.
func (m *Manager) loadPause() *pause {
	data, err := policy.ReadFile(m.paths.Pause)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var p pause
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err == nil {
		_, err = p.over(policy.Document{})
	}
	if err == nil && (p.Until.Before(p.Since) || p.Until.Sub(p.Since) > MaxPause) {
		err = fmt.Errorf("from %s to %s is more than %s", p.Since, p.Until, MaxPause)
	}
	if err != nil {
		m.log.Error("the stored pause of protection is wrong and has ended", "file", m.paths.Pause, "err", err)
		m.removePause()
		return nil
	}
	if now := m.now(); p.Boot != now.boot && p.holds(now) {
		p.bind(now)
		if err := m.keepPause(&p); err != nil {
			m.log.Warn("a pause of protection ends by the host's clock alone", "err", err)
		}
	}
	return &p
}

// keepPause stores a pause for the next daemon.
func (m *Manager) keepPause(p *pause) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("pause of protection: %w", err)
	}
	return atomicfile.Write(m.paths.Pause, data, 0o600)
}

func (m *Manager) removePause() {
	if err := os.Remove(m.paths.Pause); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.log.Warn("the stored pause of protection is not removed; it has ended all the same", "err", err)
	}
}

// settle takes a pause out of a state in which it does not hold, or has no effect
// because a policy says the level. It returns the local settings to resolve with.
func (m *Manager) settle(s *state, local policy.Document) policy.Document {
	s.unpaused = ""
	if s.pause == nil {
		return local
	}
	base := policy.Resolve(s.portal, s.managed, local).Get(policy.KeyEnforcementLevel)
	why := ""
	switch {
	case base.Locked:
		why = "a policy says the enforcement level"
	case !s.pause.holds(m.now()):
		why = "its time is over"
	}
	with, err := s.pause.over(local)
	if err != nil {
		why = err.Error()
	}
	level, _ := base.Value.(string)
	if why != "" {
		m.log.Info("pause of protection ended", "paused", s.pause.Level, "until", s.pause.Until, "enforcement_level", level, "why", why)
		s.pause = nil
		m.removePause()
		return local
	}
	s.unpaused = level
	return with
}

// checkPause ends a pause whose time is over.
func (m *Manager) checkPause() {
	if p := m.current.Load().pause; p != nil && !p.holds(m.now()) {
		m.update(func(*state) {})
	}
}

// base is the enforcement level without a pause.
func (s *state) base() string {
	if s.pause != nil {
		return s.unpaused
	}
	return s.effective.EnforcementLevel()
}

// dropPause takes a pause out of a state because somebody set the level.
func (m *Manager) dropPause(s *state) {
	if s.pause == nil {
		return
	}
	m.log.Info("pause of protection ended", "paused", s.pause.Level, "until", s.pause.Until, "why", "the enforcement level was set")
	m.removePause()
	s.pause = nil
}

// isLevel reports whether a key is about the enforcement level.
func isLevel(key string) bool {
	return slices.Contains([]string{policy.KeyEnforcementLevel, policy.KeyRealTime, policy.KeyPassiveMode}, key)
}

// setFor sets the enforcement level for a time.
func (m *Manager) setFor(ctx context.Context, k policy.Key, r api.SetRequest) (api.Setting, error) {
	invalid := func(hint, format string, args ...any) (api.Setting, error) {
		return api.Setting{}, &api.Error{Code: api.InvalidArgument, Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	if !isLevel(k.Name) {
		return invalid("", "%s cannot be set for a time: only the enforcement level can", k.Name)
	}
	least, most := int64(MinPause/time.Second), int64(MaxPause/time.Second)
	if r.ForSeconds < least || r.ForSeconds > most {
		return invalid("", "a time of %d seconds: want %d to %d (%s to %s)", r.ForSeconds, least, most, "1m", "24h")
	}
	s := m.current.Load()
	base := s.base()
	level, ok := levelFor(k.Name, string(r.Value), s.effective.EnforcementLevel())
	if !ok {
		if err := json.Unmarshal(r.Value, &level); err != nil {
			return invalid("", "%s: %v", k.Name, err)
		}
	}
	now := m.now()
	begin := now.wall.UTC().Truncate(time.Second)
	p := &pause{Level: level, Since: begin, Until: begin.Add(time.Duration(r.ForSeconds) * time.Second)}
	if _, err := p.over(policy.Document{}); err != nil {
		return invalid("", "%v", err)
	}
	if level == base {
		return invalid("without --for it stays so, and ends a pause", "the enforcement level is %s without a time, too", level)
	}
	p.bind(now)
	if err := m.keepPause(p); err != nil {
		return api.Setting{}, storeError(err)
	}
	m.log.Info("enforcement level set for a time", "enforcement_level", level, "until", p.Until, "then", base)
	m.update(func(s *state) { s.pause = p })
	return m.Setting(ctx, k.Name)
}

// PausedUntil is the end of an enforcement level that was set for a time; zero
// without one.
func (m *Manager) PausedUntil() time.Time {
	if p := m.current.Load().pause; p != nil {
		return p.Until
	}
	return time.Time{}
}

// pauseIssue is what health says of a level for a time that protects less.
func (m *Manager) pauseIssue() (until time.Time, issues []api.Issue) {
	s := m.current.Load()
	if s.pause == nil || !policy.Weaker(s.pause.Level, s.unpaused) {
		return time.Time{}, nil
	}
	return s.pause.Until, []api.Issue{{
		ID: "protection paused", Component: "config", Warning: true, Since: s.pause.Since,
		Message: fmt.Sprintf("the enforcement level is %s until %s, then %s again", s.pause.Level, s.pause.Until.Format(time.RFC3339), s.unpaused),
		Remedy:  "it ends by itself; `bulwark config enforcement-level --value " + s.unpaused + "` ends it now",
	}}
}
