package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Document is one profile: the keys that it has, with values of the right
// types. The zero value is a profile without keys. Documents are immutable:
// With and Without return changed copies.
type Document struct {
	values map[string]any
}

// Get returns the value of a key by its name (Key.Name, no old spelling).
func (d Document) Get(name string) (any, bool) {
	v, ok := d.values[name]
	return v, ok
}

// Names returns the keys that the document has, in the order of Keys.
func (d Document) Names() []string {
	var names []string
	for _, k := range keys {
		if _, ok := d.values[k.Name]; ok {
			names = append(names, k.Name)
		}
	}
	return names
}

// With returns a copy of d with one more value, given in JSON and checked as
// Parse does. The error says what is wrong with it.
func (d Document) With(name string, value json.RawMessage) (Document, error) {
	key, err := Find(name)
	if err != nil {
		return d, err
	}
	if !json.Valid(value) {
		return d, fmt.Errorf("%s: %q is not valid JSON", key.Name, clip(string(value)))
	}
	profile := string(value)
	parts := strings.Split(key.Name, ".")
	for _, p := range slices.Backward(parts) {
		profile = fmt.Sprintf("{%q:%s}", p, profile)
	}
	one, problems := Parse([]byte(profile))
	for _, p := range problems {
		if !p.Warning {
			text := p.Message
			if p.Suggestion != "" {
				text += "; did you mean " + p.Suggestion + "?"
			}
			if p.Key == "" {
				p.Key = key.Name
			}
			return d, fmt.Errorf("%s: %s", p.Key, text)
		}
	}
	v, ok := one.values[key.Name]
	if !ok {
		return d, fmt.Errorf("%s: %q is no value for it", key.Name, clip(string(value)))
	}
	return d.with(key.Name, v), nil
}

func (d Document) with(name string, v any) Document {
	values := maps.Clone(d.values)
	if values == nil {
		values = map[string]any{}
	}
	values[name] = v
	return Document{values}
}

// Without returns a copy of d without some keys.
func (d Document) Without(names ...string) Document {
	values := maps.Clone(d.values)
	for _, n := range names {
		delete(values, n)
	}
	return Document{values}
}

// UnknownKeyError says that there is no key of that name.
type UnknownKeyError struct {
	Name string
	// Nearest is the key that was probably meant, or empty.
	Nearest string
}

func (e *UnknownKeyError) Error() string {
	s := fmt.Sprintf("there is no setting %q", clip(e.Name))
	if e.Nearest != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Nearest)
	}
	return s
}

// Find is Lookup with an error that names the nearest key.
func Find(name string) (Key, error) {
	if k, ok := Lookup(name); ok {
		return k, nil
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
	}
	near := nearest(name, names)
	if near == "" {
		near = suggestKey("", name[strings.LastIndexByte(name, '.')+1:])
	}
	return Key{}, &UnknownKeyError{Name: name, Nearest: near}
}

// MarshalJSON writes the profile, sections nested, in the order of Keys.
func (d Document) MarshalJSON() ([]byte, error) {
	root := &section{}
	for _, k := range keys {
		v, ok := d.values[k.Name]
		if !ok {
			continue
		}
		data, err := k.Encode(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		at := root
		parts := strings.Split(k.Name, ".")
		for _, p := range parts[:len(parts)-1] {
			at = at.sub(p)
		}
		at.members = append(at.members, sectionMember{name: k.Member(), value: data})
	}
	var b bytes.Buffer
	root.write(&b)
	return b.Bytes(), nil
}

// Encode is the JSON form of a value of the key, as profiles write it.
func (k Key) Encode(v any) (json.RawMessage, error) {
	switch v := v.(type) {
	case []string:
		if v == nil {
			return json.RawMessage("[]"), nil
		}
	case []Exclusion:
		if v == nil {
			return json.RawMessage("[]"), nil
		}
		if k.Name != KeyScopedExclusions {
			return unscoped(v)
		}
	case []Tag:
		if v == nil {
			return json.RawMessage("[]"), nil
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

type section struct {
	members []sectionMember
}

type sectionMember struct {
	name  string
	value []byte
	sub   *section
}

func (s *section) sub(name string) *section {
	for _, m := range s.members {
		if m.sub != nil && m.name == name {
			return m.sub
		}
	}
	sub := &section{}
	s.members = append(s.members, sectionMember{name: name, sub: sub})
	return sub
}

func (s *section) write(b *bytes.Buffer) {
	b.WriteByte('{')
	for i, m := range s.members {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, "%q:", m.name)
		if m.sub != nil {
			m.sub.write(b)
		} else {
			b.Write(m.value)
		}
	}
	b.WriteByte('}')
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "..."
	}
	return s
}
