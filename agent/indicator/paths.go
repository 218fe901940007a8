package indicator

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"strings"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
)

// pathDigits stand for a path in the name of its threat, as the first digits of
// a hash do.
func pathDigits(value string) string {
	sum := sha256.Sum256([]byte(api.FilePath + "\x00" + value))
	return hex.EncodeToString(sum[:])[:namedDigits]
}

// blockedPath gives the indicator that blocks what is at a path; nil for none. The
// exact one goes first, then the patterns in their order: the first that blocks or
// allows decides, what only reports hides none.
func (s *Set) blockedPath(name string, now time.Time, warn bool) *api.Indicator {
	if name == "" {
		return nil
	}
	decides := func(i *api.Indicator) bool {
		return !i.Expired(now) && (i.Action == api.Allow || blocks(i, warn))
	}
	found := s.paths[name]
	if found == nil || !decides(found) {
		n := slices.IndexFunc(s.patterns, func(i *api.Indicator) bool {
			ok, err := path.Match(i.Value, name)
			return ok && err == nil && decides(i)
		})
		if n < 0 {
			return nil
		}
		found = s.patterns[n]
	}
	if found.Action == api.Allow {
		return nil
	}
	return found
}

// pathsInForce are the indicators that decide about paths, as one text, and
// whether any of them blocks.
func (s *Set) pathsInForce(now time.Time, warn bool) (text string, blocked bool) {
	var values []string
	for n := range s.all {
		i := &s.all[n]
		if i.Type != api.FilePath || i.Expired(now) {
			continue
		}
		if b := blocks(i, warn); b || i.Action == api.Allow {
			values = append(values, i.Action+" "+i.Value)
			blocked = blocked || b
		}
	}
	slices.Sort(values)
	return strings.Join(values, "\n"), blocked
}

// BlockedPath gives the name of the threat that a file is by being at name, which
// OfThreat knows; empty where no indicator blocks it. It is called for every file
// that is scanned.
func (m *Manager) BlockedPath(name string) string {
	set := m.set.Load()
	if len(set.paths)+len(set.patterns) == 0 {
		return ""
	}
	_, warn := m.opts.Enforcement()
	i := set.blockedPath(name, m.opts.Now(), warn)
	if i == nil {
		return ""
	}
	return threatPrefix + pathDigits(i.Value)
}

// BlocksPaths reports whether any path is blocked, so that the name under which
// a file is opened matters. It is called often: one atomic load.
func (m *Manager) BlocksPaths() bool { return m.blocksPaths.Load() }

// pathsChanged has what was decided about files forgotten when other paths are
// blocked than before.
func (m *Manager) pathsChanged(set *Set) {
	_, warn := m.opts.Enforcement()
	now, blocked := set.pathsInForce(m.opts.Now(), warn)
	if now == m.pathsApplied {
		return
	}
	m.pathsApplied = now
	m.blocksPaths.Store(blocked)
	if m.opts.PathsChanged != nil {
		m.opts.PathsChanged()
	}
}
