package policy

import (
	"slices"
	"strings"
	"time"
)

// Origin is the source of a value.
type Origin string

// The origins, the strongest first.
const (
	OriginPortal  Origin = "portal"
	OriginManaged Origin = "managed"
	OriginLocal   Origin = "local"
	OriginDefault Origin = "default"
)

// Administrative reports whether the origin is the administrator's policy,
// which local users cannot change.
func (o Origin) Administrative() bool { return o == OriginPortal || o == OriginManaged }

// Value is a value in force.
type Value struct {
	// Value has the Go type of the key's kind.
	Value  any
	Origin Origin
	// Locked: a local value has no effect.
	Locked bool
}

// Effective is the configuration in force. It is immutable and safe for
// concurrent use. The zero value is the defaults.
type Effective struct {
	values      map[string]Value
	exclusions  *ExclusionSet
	threatTypes []ThreatPolicy
	allowed     []Allowed
}

// ThreatPolicy is what is done with a type of threat, and who says so.
type ThreatPolicy struct {
	Type, Action string
	Origin       Origin
	Locked       bool
}

// Allowed is a threat that is let through.
type Allowed struct {
	Name   string // a threat name, or "sha256:" and a hash
	Origin Origin
}

// source is a document with its rank.
type source struct {
	doc    Document
	origin Origin
}

// Resolve decides which value of each key is in force: the portal's, else the
// managed file's, else the local one, else the default. Lists that merge are
// described at Effective.Exclusions, ThreatPolicies and AllowedThreats.
func Resolve(portal, managed, local Document) Effective {
	sources := []source{{portal, OriginPortal}, {managed, OriginManaged}, {local, OriginLocal}}
	e := Effective{values: make(map[string]Value, len(keys))}
	for _, k := range keys {
		v := Value{Value: k.Default, Origin: OriginDefault}
		for _, s := range sources {
			if val, ok := s.doc.values[k.Name]; ok && k.Fixed == "" {
				v = Value{Value: val, Origin: s.origin, Locked: s.origin.Administrative()}
				break
			}
		}
		e.values[k.Name] = v
	}
	e.level(sources)
	e.consent(sources)
	e.mergeExclusions(sources)
	e.mergeThreatTypes(sources)
	e.mergeAllowed(sources)
	return e
}

// EnforcementLevel is what the document says about the level, with the
// deprecated keys where it does not have the key itself.
func (d Document) EnforcementLevel() (string, bool) {
	if v, ok := d.values[KeyEnforcementLevel].(string); ok {
		return v, true
	}
	passive, hasPassive := d.values[KeyPassiveMode].(bool)
	realTime, hasRealTime := d.values[KeyRealTime].(bool)
	switch {
	case hasPassive && passive:
		return Passive, true
	case hasRealTime && realTime:
		return RealTime, true
	case hasRealTime || hasPassive:
		return OnDemand, true
	}
	return "", false
}

// level makes the three keys about the level agree: the strongest source that
// has any of them decides.
func (e *Effective) level(sources []source) {
	v := e.values[KeyEnforcementLevel]
	v.Value, v.Origin, v.Locked = keyDefault(KeyEnforcementLevel), OriginDefault, false
	for _, s := range sources {
		if level, ok := s.doc.EnforcementLevel(); ok {
			v = Value{Value: level, Origin: s.origin, Locked: s.origin.Administrative()}
			break
		}
	}
	e.values[KeyEnforcementLevel] = v
	e.values[KeyRealTime] = Value{Value: v.Value == RealTime || v.Value == Audit, Origin: v.Origin, Locked: v.Locked}
	e.values[KeyPassiveMode] = Value{Value: v.Value == Passive, Origin: v.Origin, Locked: v.Locked}
}

// consent makes the two keys about samples agree.
func (e *Effective) consent(sources []source) {
	v := Value{Value: keyDefault(KeySampleConsent), Origin: OriginDefault}
	for _, s := range sources {
		word, ok := s.doc.values[KeySampleConsent]
		if !ok {
			submit, has := s.doc.values[KeySampleSubmission].(bool)
			if !has {
				continue
			}
			word = "none"
			if submit {
				word = "safe"
			}
		}
		v = Value{Value: word, Origin: s.origin, Locked: s.origin.Administrative()}
		break
	}
	e.values[KeySampleConsent] = v
	e.values[KeySampleSubmission] = Value{Value: v.Value != "none", Origin: v.Origin, Locked: v.Locked}
}

func keyDefault(name string) any {
	k, _ := Lookup(name)
	return k.Default
}

func (e *Effective) adminOnly(name string) bool { return e.String(name) == AdminOnly }

func (e *Effective) mergeExclusions(sources []source) {
	// Both policies govern local exclusions; the stricter one counts.
	adminOnly := e.adminOnly(KeyExclusionsMerge) || e.adminOnly(KeyScopedMerge)
	var all []Exclusion
	for _, s := range sources {
		if adminOnly && s.origin == OriginLocal {
			continue
		}
		for _, name := range []string{KeyExclusions, KeyScopedExclusions} {
			list, _ := s.doc.values[name].([]Exclusion)
			for _, x := range list {
				x.Origin = s.origin
				all = append(all, x)
			}
		}
	}
	e.exclusions = NewExclusionSet(all)
	for _, name := range []string{KeyExclusions, KeyScopedExclusions} {
		v := e.values[name]
		v.Locked = adminOnly
		e.values[name] = v
	}
}

func (e *Effective) mergeThreatTypes(sources []source) {
	adminOnly := e.adminOnly(KeyThreatTypesMerge)
	defaults, _ := keyDefault(KeyThreatTypes).([]ThreatType)
	e.threatTypes = nil
	var values []ThreatType
	for _, d := range defaults {
		p := ThreatPolicy{Type: d.Type, Action: d.Action, Origin: OriginDefault, Locked: adminOnly}
		for _, s := range sources {
			list, _ := s.doc.values[KeyThreatTypes].([]ThreatType)
			i := slices.IndexFunc(list, func(t ThreatType) bool { return t.Type == d.Type })
			if i < 0 || adminOnly && s.origin == OriginLocal {
				continue
			}
			p.Action, p.Origin = list[i].Action, s.origin
			p.Locked = adminOnly || s.origin.Administrative()
			break
		}
		e.threatTypes = append(e.threatTypes, p)
		values = append(values, ThreatType{p.Type, p.Action})
	}
	v := e.values[KeyThreatTypes]
	v.Value, v.Locked = values, adminOnly
	e.values[KeyThreatTypes] = v
}

func (e *Effective) mergeAllowed(sources []source) {
	forbidden := e.Disallowed(ActionAllow)
	var names []string
	for _, s := range sources {
		if forbidden && s.origin == OriginLocal {
			continue
		}
		list, _ := s.doc.values[KeyAllowedThreats].([]string)
		for _, n := range list {
			if !slices.Contains(names, n) {
				names = append(names, n)
				e.allowed = append(e.allowed, Allowed{n, s.origin})
			}
		}
	}
	v := e.values[KeyAllowedThreats]
	v.Value, v.Locked = names, forbidden
	e.values[KeyAllowedThreats] = v
}

// Get returns the value of a key in force; of an unknown key the zero Value.
func (e Effective) Get(name string) Value {
	if e.values == nil {
		return defaults().values[name]
	}
	return e.values[name]
}

// defaults is what the zero value stands for.
func defaults() Effective { return Resolve(Document{}, Document{}, Document{}) }

// Bool returns the value of a Bool key, or whether a Switch is enabled.
func (e Effective) Bool(name string) bool {
	switch v := e.Get(name).Value.(type) {
	case bool:
		return v
	case string:
		return v == Enabled
	}
	return false
}

// Int returns the value of an Int key.
func (e Effective) Int(name string) int {
	i, _ := e.Get(name).Value.(int)
	return i
}

// String returns the value of a String, Enum or Switch key.
func (e Effective) String(name string) string {
	s, _ := e.Get(name).Value.(string)
	return s
}

// Strings returns the value of a Strings key.
func (e Effective) Strings(name string) []string {
	s, _ := e.Get(name).Value.([]string)
	return slices.Clone(s)
}

// EnforcementLevel is RealTime, Audit, OnDemand or Passive.
func (e Effective) EnforcementLevel() string { return e.String(KeyEnforcementLevel) }

// Exclusions are those of the administrator (portal and managed file together)
// and, unless a merge policy says admin_only, the local ones.
func (e Effective) Exclusions() *ExclusionSet {
	if e.exclusions == nil {
		return NewExclusionSet(nil)
	}
	return e.exclusions
}

// ThreatPolicies says what to do with each type of threat: the strongest source
// that has the type decides; local ones do not count under admin_only.
func (e Effective) ThreatPolicies() []ThreatPolicy {
	if e.threatTypes == nil {
		return defaults().threatTypes
	}
	return slices.Clone(e.threatTypes)
}

// ThreatAction is the action on a type of threat: ActionOff, ActionAudit or
// ActionBlock. Types without a setting of their own (malware, test) are
// blocked.
func (e Effective) ThreatAction(threatType string) string {
	for _, p := range e.ThreatPolicies() {
		if p.Type == threatType {
			return p.Action
		}
	}
	return ActionBlock
}

// AllowedThreats are those of all sources; the local ones do not count where
// disallowedThreatActions has "allow".
func (e Effective) AllowedThreats() []Allowed { return slices.Clone(e.allowed) }

// Allows reports whether a threat is let through by its name or content
// (lower-case hex SHA-256; may be empty).
func (e Effective) Allows(name, sha256 string) bool {
	for _, a := range e.allowed {
		if a.Name == name {
			return true
		}
		if hash, ok := strings.CutPrefix(a.Name, "sha256:"); ok && sha256 != "" && strings.EqualFold(hash, sha256) {
			return true
		}
	}
	return false
}

// Disallowed reports whether local users may not do an action (ActionAllow,
// ActionRestore) about threats.
func (e Effective) Disallowed(action string) bool {
	return slices.Contains(e.Strings(KeyDisallowedActions), action)
}

// Tags are the tags of the device.
func (e Effective) Tags() []Tag {
	t, _ := e.Get(KeyTags).Value.([]Tag)
	return slices.Clone(t)
}

// UpdateInterval is the time between definition updates, 0 for none.
func (e Effective) UpdateInterval() time.Duration {
	return time.Duration(e.Int(KeyUpdateInterval)) * time.Second
}

// WithResolvedPaths returns e with the paths of exclusions resolved: resolve
// gets a path without wildcards and returns it with symbolic links followed,
// or the path itself. Both are then excluded.
func (e Effective) WithResolvedPaths(resolve func(string) string) Effective {
	all := e.Exclusions().All()
	for i, x := range all {
		if x.hasPath() && !hasWildcard(x.Value) {
			if r := resolve(x.Value); r != x.Value {
				all[i].resolved = r
			}
		}
	}
	e.exclusions = NewExclusionSet(all)
	return e
}
