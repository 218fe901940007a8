package threat

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// AllowedKind is what an allowance names.
type AllowedKind string

const (
	AllowedName AllowedKind = "name" // all contents with that threat name
	AllowedHash AllowedKind = "hash" // one content (SHA-256)
)

// ErrNotAllowed means that there is no such allowance to remove.
var ErrNotAllowed = errors.New("is not in the list of allowed threats")

// Allowed is a threat that the administrator permits.
type Allowed struct {
	Kind   AllowedKind `json:"kind"`
	Value  string      `json:"value"`
	Time   time.Time   `json:"time"`
	By     string      `json:"by,omitempty"` // user
	Reason string      `json:"reason,omitempty"`
	// Until ends the allowance, e.g. the grace time of a restored file; zero is
	// never.
	Until time.Time `json:"until,omitzero"`
}

func allowedKey(kind AllowedKind, value string) string { return string(kind) + ":" + value }

func (a *Allowed) check() error {
	switch a.Kind {
	case AllowedName:
		if a.Value == "" || len(a.Value) > maxText || strings.ContainsAny(a.Value, "\x00\n\r\x1b") {
			return fmt.Errorf("%q is not a threat name", a.Value)
		}
	case AllowedHash:
		a.Value = strings.ToLower(a.Value)
		return validHash(a.Value)
	default:
		return fmt.Errorf("unknown kind of allowance %q", a.Kind)
	}
	return nil
}

// Allow adds to the list, or replaces the entry of the same kind and value.
func (h *History) Allow(a Allowed) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("allowing a threat: %w", err)
	}
	if a.Time.IsZero() {
		a.Time = time.Now()
	}
	a.Time = a.Time.UTC().Round(0)
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("allowing %q: %w", a.Value, err)
	}
	h.allowing.Lock()
	defer h.allowing.Unlock()
	err = h.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketAllowed).Put([]byte(allowedKey(a.Kind, a.Value)), b)
	})
	if err != nil {
		return fmt.Errorf("allowing %q: %w", a.Value, err)
	}
	return h.loadAllowed()
}

// Disallow removes from the list; ErrNotAllowed if it is not there.
func (h *History) Disallow(kind AllowedKind, value string) error {
	h.allowing.Lock()
	defer h.allowing.Unlock()
	err := h.db.Update(func(tx *bolt.Tx) error {
		b, key := tx.Bucket(bucketAllowed), []byte(allowedKey(kind, value))
		if b.Get(key) == nil {
			return fmt.Errorf("%q %w", value, ErrNotAllowed)
		}
		return b.Delete(key)
	})
	if err != nil {
		return err
	}
	return h.loadAllowed()
}

// AllowedList returns what is allowed now, oldest first.
func (h *History) AllowedList() ([]Allowed, error) {
	var out []Allowed
	err := h.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketAllowed).ForEach(func(_, v []byte) error {
			var a Allowed
			if err := json.Unmarshal(v, &a); err != nil {
				return err
			}
			if a.Until.IsZero() || time.Now().Before(a.Until) {
				out = append(out, a)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the allowed threats: %w", err)
	}
	slices.SortStableFunc(out, func(a, b Allowed) int { return a.Time.Compare(b.Time) })
	return out, nil
}

// IsAllowed reports whether a threat of that name, or that content, is allowed.
// It only looks into memory: real-time protection asks it.
func (h *History) IsAllowed(name, sha256 string) bool {
	allowed := *h.allowed.Load()
	now := time.Now()
	for _, key := range []string{allowedKey(AllowedName, name), allowedKey(AllowedHash, sha256)} {
		if until, ok := allowed[key]; ok && (until.IsZero() || now.Before(until)) {
			return true
		}
	}
	return false
}

// Allowance is the entry by which a threat of that name, or that content, is
// allowed now, and whether there is one.
func (h *History) Allowance(name, sha256 string) (Allowed, bool) {
	list, err := h.AllowedList()
	if err != nil {
		return Allowed{}, false
	}
	for _, a := range list {
		if a.Kind == AllowedName && a.Value == name || a.Kind == AllowedHash && a.Value == sha256 {
			return a, true
		}
	}
	return Allowed{}, false
}

func (h *History) loadAllowed() error {
	list, err := h.AllowedList()
	if err != nil {
		return err
	}
	allowed := make(map[string]time.Time, len(list))
	for _, a := range list {
		allowed[allowedKey(a.Kind, a.Value)] = a.Until
	}
	h.allowed.Store(&allowed)
	return nil
}
