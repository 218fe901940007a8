package config

import (
	"sync"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// maxHits bounds the exclusions that are counted.
const maxHits = 10_000

// hits counts what exclusions hide, since the start.
type hits struct {
	mu  sync.Mutex
	all map[hitKey]*api.ExclusionHits
}

// hitKey is what makes an exclusion the same over changes of the configuration.
type hitKey struct {
	kind   policy.ExclusionType
	value  string
	scopes policy.Scope
}

func keyOf(x policy.Exclusion) hitKey { return hitKey{x.Type, x.Value, x.Scopes} }

// Hidden notes that an exclusion hid a file from real-time protection or a scan.
func (m *Manager) Hidden(x policy.Exclusion, use policy.Use, path string) {
	now := m.now().wall.UTC().Truncate(time.Second)
	m.hits.mu.Lock()
	defer m.hits.mu.Unlock()
	h := m.hits.all[keyOf(x)]
	if h == nil {
		if len(m.hits.all) >= maxHits {
			return
		}
		if m.hits.all == nil {
			m.hits.all = map[hitKey]*api.ExclusionHits{}
		}
		h = &api.ExclusionHits{}
		m.hits.all[keyOf(x)] = h
	}
	if use == policy.UseScan {
		h.Scans++
	} else {
		h.Accesses++
	}
	h.LastPath, h.LastTime = api.Path(path), now
}

// hiddenBy is what an exclusion has hidden; nil for nothing.
func (m *Manager) hiddenBy(x policy.Exclusion) *api.ExclusionHits {
	m.hits.mu.Lock()
	defer m.hits.mu.Unlock()
	h := m.hits.all[keyOf(x)]
	if h == nil {
		return nil
	}
	out := *h
	return &out
}
