package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// LocalStore keeps the settings made on this host (by the command line) in a
// file, a profile like the managed one. Every change is written whole, to a new
// file that takes the old one's place, so that a crash leaves one or the other.
type LocalStore struct {
	path string

	mu       sync.Mutex
	doc      Document
	problems []Problem
	damaged  bool
}

// OpenLocal reads the store at path; a file that does not exist is an empty
// one. A file that cannot be read as a profile leaves an empty document and
// problems; it is set aside (".damaged") at the next change.
func OpenLocal(path string) (*LocalStore, error) {
	s := &LocalStore{path: path}
	return s, s.Reload()
}

// Reload reads the file again.
func (s *LocalStore) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		s.doc, s.problems, s.damaged = Document{}, nil, false
		return nil
	}
	if err != nil {
		return fmt.Errorf("local settings: %w", err)
	}
	s.doc, s.problems = Parse(data)
	s.damaged = Broken(s.problems)
	return nil
}

// ReadFile reads a profile of at most MaxBytes. A larger one is read a little
// further, so that Parse says what is wrong. Only regular files are read.
func ReadFile(path string) ([]byte, error) {
	data, err := atomicfile.Read(path, MaxBytes)
	if errors.Is(err, atomicfile.ErrTooLarge) {
		err = nil
	}
	return data, err
}

// Path is the file's path.
func (s *LocalStore) Path() string { return s.path }

// Document returns the settings and what was wrong when the file was read.
func (s *LocalStore) Document() (Document, []Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doc, slices.Clone(s.problems)
}

// Set stores a value, given in JSON.
func (s *LocalStore) Set(name string, value json.RawMessage) error {
	return s.change(func(d Document) (Document, error) { return d.With(name, value) })
}

// Unset removes values; keys without one are no error.
func (s *LocalStore) Unset(names ...string) error {
	return s.change(func(d Document) (Document, error) { return d.Without(names...), nil })
}

// SetLevel stores an enforcement level and drops the deprecated keys, which
// would contradict it.
func (s *LocalStore) SetLevel(level string) error {
	return s.change(func(d Document) (Document, error) {
		d, err := d.With(KeyEnforcementLevel, json.RawMessage(fmt.Sprintf("%q", level)))
		return d.Without(KeyRealTime, KeyPassiveMode), err
	})
}

// ErrNoSuch is returned for removing what is not there.
var ErrNoSuch = errors.New("there is none")

// AddExclusion stores an exclusion in place of one that is the same.
func (s *LocalStore) AddExclusion(x Exclusion) (Exclusion, error) {
	x, err := x.Normalize()
	if err != nil {
		return x, err
	}
	x.Origin, x.resolved = "", ""
	err = s.change(func(d Document) (Document, error) {
		list, _ := d.values[KeyScopedExclusions].([]Exclusion)
		list = slices.DeleteFunc(slices.Clone(list), x.Same)
		return d.with(KeyScopedExclusions, append(list, x)), nil
	})
	return x, err
}

// RemoveExclusion removes an exclusion: type, value and scopes must be those it
// was added with. ErrNoSuch when there is none.
func (s *LocalStore) RemoveExclusion(x Exclusion) (Exclusion, error) {
	x, err := x.Normalize()
	if err != nil {
		return x, err
	}
	err = s.change(func(d Document) (Document, error) {
		for _, name := range []string{KeyScopedExclusions, KeyExclusions} {
			list, _ := d.values[name].([]Exclusion)
			rest := slices.DeleteFunc(slices.Clone(list), x.Same)
			if len(rest) < len(list) {
				return d.with(name, rest), nil
			}
		}
		return d, ErrNoSuch
	})
	return x, err
}

// AllowThreat stores a name (or "sha256:" and a hash) to let through.
func (s *LocalStore) AllowThreat(name string) error {
	return s.change(func(d Document) (Document, error) {
		list, _ := d.values[KeyAllowedThreats].([]string)
		if slices.Contains(list, name) {
			return d, nil
		}
		return d.with(KeyAllowedThreats, append(slices.Clone(list), name)), nil
	})
}

// DisallowThreat removes one; ErrNoSuch when there is none.
func (s *LocalStore) DisallowThreat(name string) error {
	return s.change(func(d Document) (Document, error) {
		list, _ := d.values[KeyAllowedThreats].([]string)
		i := slices.Index(list, name)
		if i < 0 {
			return d, ErrNoSuch
		}
		return d.with(KeyAllowedThreats, slices.Delete(slices.Clone(list), i, i+1)), nil
	})
}

// SetThreatType stores what to do with a type of threat.
func (s *LocalStore) SetThreatType(t ThreatType) error {
	return s.change(func(d Document) (Document, error) {
		value, err := json.Marshal([]ThreatType{t})
		if err != nil {
			return d, err
		}
		one, err := Document{}.With(KeyThreatTypes, value)
		if err != nil {
			return d, err
		}
		checked, _ := one.values[KeyThreatTypes].([]ThreatType)
		list, _ := d.values[KeyThreatTypes].([]ThreatType)
		list = slices.DeleteFunc(slices.Clone(list), func(o ThreatType) bool { return o.Type == t.Type })
		return d.with(KeyThreatTypes, append(list, checked...)), nil
	})
}

// change applies f and writes the outcome; when anything fails the settings
// stay as they were.
func (s *LocalStore) change(f func(Document) (Document, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := f(s.doc)
	if err != nil {
		return err
	}
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("local settings: %w", err)
	}
	if len(data) > MaxBytes {
		return fmt.Errorf("local settings would be larger than %d bytes", MaxBytes)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, data, "", "  "); err != nil {
		return fmt.Errorf("local settings: %w", err)
	}
	pretty.WriteByte('\n')
	if s.damaged {
		if err := os.Rename(s.path, s.path+".damaged"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set the damaged local settings aside: %w", err)
		}
	}
	if err := atomicfile.Write(s.path, pretty.Bytes(), 0o600); err != nil {
		return fmt.Errorf("local settings: %w", err)
	}
	s.doc, s.problems, s.damaged = next, nil, false
	return nil
}
