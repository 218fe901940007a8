package indicator

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
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
	i := s.path(name, func(i *api.Indicator) bool {
		return !i.Expired(now) && (i.Action == api.Allow || blocks(i, warn))
	})
	if i == nil || i.Action == api.Allow {
		return nil
	}
	return i
}

// blocksPaths reports whether any path is blocked.
func (s *Set) blocksPaths(now time.Time, warn bool) bool {
	in := func(i *api.Indicator) bool { return !i.Expired(now) && blocks(i, warn) }
	if slices.ContainsFunc(s.patterns, in) {
		return true
	}
	for _, i := range s.paths {
		if in(i) {
			return true
		}
	}
	return false
}

// BlockedPath gives the name of the threat that a file is by being at name, which
// OfThreat knows; empty where no indicator blocks it. While BlocksPaths it is called for every
// access.
func (m *Manager) BlockedPath(name string) string {
	set := m.set.Load()
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
