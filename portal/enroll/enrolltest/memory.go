package enrolltest

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/portal/enroll"
)

// Memory is an enroll.Store in memory.
type Memory struct {
	mu      sync.Mutex
	tokens  map[string]enroll.Token
	devices map[string]enroll.Device
	order   []string // device ids by latest enrollment, oldest first
	certs   map[string]enroll.Certificate
}

var _ enroll.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{tokens: map[string]enroll.Token{}, devices: map[string]enroll.Device{}, certs: map[string]enroll.Certificate{}}
}

func (m *Memory) CreateToken(ctx context.Context, t enroll.Token) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, o := range m.tokens {
		if o.ID == t.ID || o.Hash == t.Hash {
			return enroll.ErrExists
		}
	}
	t.Tags = slices.Clone(t.Tags)
	t.Created, t.Expires, t.Revoked = t.Created.UTC(), t.Expires.UTC(), t.Revoked.UTC()
	m.tokens[t.ID] = t
	return nil
}

func (m *Memory) TokenByHash(ctx context.Context, hash [32]byte) (enroll.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tokens {
		if t.Hash == hash {
			return t, ctx.Err()
		}
	}
	return enroll.Token{}, enroll.ErrNotFound
}

func (m *Memory) Tokens(ctx context.Context) ([]enroll.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ts []enroll.Token
	for _, t := range m.tokens {
		ts = append(ts, t)
	}
	slices.SortFunc(ts, func(a, b enroll.Token) int { return b.Created.Compare(a.Created) })
	return ts, ctx.Err()
}

func (m *Memory) RevokeToken(ctx context.Context, id string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tokens[id]
	if !ok {
		return enroll.ErrNotFound
	}
	if t.Revoked.IsZero() {
		t.Revoked = at.UTC()
		m.tokens[id] = t
	}
	return ctx.Err()
}

func (m *Memory) DeleteExpiredTokens(ctx context.Context, before time.Time) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for id, t := range m.tokens {
		if t.Expires.Before(before) {
			delete(m.tokens, id)
			n++
		}
	}
	return n, ctx.Err()
}

func (m *Memory) Enroll(ctx context.Context, e enroll.Enrollment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, ok := m.certs[e.Certificate.Serial]; ok {
		return enroll.ErrExists
	}
	if e.TokenID != "" {
		t, ok := m.tokens[e.TokenID]
		if !ok {
			return enroll.ErrNotFound
		}
		if t.MaxUses > 0 && t.Uses >= t.MaxUses {
			return enroll.ErrTokenUsedUp
		}
		t.Uses++
		m.tokens[e.TokenID] = t
	}
	d := e.Device
	d.Info = proto.CloneOf(d.Info)
	d.Enrolled = d.Enrolled.UTC()
	if old, ok := m.devices[d.ID]; ok {
		d.Enrolled, d.ReplacesID, d.Revoked = old.Enrolled, old.ReplacesID, old.Revoked
		if d.TokenID == "" {
			d.TokenID = old.TokenID
		}
	}
	m.devices[d.ID] = d
	m.order = append(slices.DeleteFunc(m.order, func(id string) bool { return id == d.ID }), d.ID)
	c := e.Certificate
	c.NotBefore, c.NotAfter = c.NotBefore.UTC(), c.NotAfter.UTC()
	m.certs[c.Serial] = c
	return nil
}

func (m *Memory) Device(ctx context.Context, id string) (enroll.Device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.device(ctx, id)
}

func (m *Memory) device(ctx context.Context, id string) (enroll.Device, error) {
	d, ok := m.devices[id]
	if !ok {
		return enroll.Device{}, enroll.ErrNotFound
	}
	d.Info = proto.CloneOf(d.Info)
	if d.Info == nil {
		d.Info = &agentv1.DeviceInfo{}
	}
	return d, ctx.Err()
}

func (m *Memory) DevicesByHardwareID(ctx context.Context, hardwareID string) ([]enroll.Device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ds []enroll.Device
	for _, id := range slices.Backward(m.order) {
		if m.devices[id].HardwareID == hardwareID {
			d, err := m.device(ctx, id)
			if err != nil {
				return nil, err
			}
			ds = append(ds, d)
		}
	}
	return ds, nil
}

func (m *Memory) Certificate(ctx context.Context, serial string) (enroll.Certificate, enroll.Device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.certs[serial]
	if !ok {
		return enroll.Certificate{}, enroll.Device{}, enroll.ErrNotFound
	}
	d, err := m.device(ctx, c.DeviceID)
	return c, d, err
}

func (m *Memory) RevokeCertificate(ctx context.Context, serial string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.certs[serial]
	if !ok {
		return enroll.ErrNotFound
	}
	if c.Revoked.IsZero() {
		c.Revoked = at.UTC()
		m.certs[serial] = c
	}
	return ctx.Err()
}

func (m *Memory) RevokeDevice(ctx context.Context, id string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.devices[id]
	if !ok {
		return enroll.ErrNotFound
	}
	if d.Revoked.IsZero() {
		d.Revoked = at.UTC()
		m.devices[id] = d
	}
	for s, c := range m.certs {
		if c.DeviceID == id && c.Revoked.IsZero() {
			c.Revoked = at.UTC()
			m.certs[s] = c
		}
	}
	return ctx.Err()
}
