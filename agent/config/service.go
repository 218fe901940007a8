package config

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// setting is a setting as everybody on the host may see it: without passwords.
func (m *Manager) setting(e policy.Effective, k policy.Key) (api.Setting, error) {
	v := e.Get(k.Name)
	value, err := k.Encode(policy.Shown(v.Value))
	if err != nil {
		return api.Setting{}, fmt.Errorf("%s: %w", k.Name, err)
	}
	def, err := k.Encode(k.Default)
	if err != nil {
		return api.Setting{}, fmt.Errorf("%s: %w", k.Name, err)
	}
	out := api.Setting{Key: k.Name, Value: value, Origin: string(v.Origin), Locked: v.Locked, Default: def, Restart: k.Restart, Doc: k.Description()}
	if p := m.current.Load().pause; p != nil && isLevel(k.Name) {
		out.Until = p.Until
	}
	return out, nil
}

func find(name string) (policy.Key, error) {
	k, err := policy.Find(name)
	var unknown *policy.UnknownKeyError
	if errors.As(err, &unknown) {
		return k, &api.Error{Code: api.NotFound, Message: err.Error(), Hint: "bulwark config show lists all settings"}
	}
	return k, err
}

// Settings returns every setting in force.
func (m *Manager) Settings(context.Context) (api.Settings, error) {
	e := m.Current()
	out := api.Settings{Settings: []api.Setting{}, Problems: APIProblems(m.Problems())}
	for _, k := range policy.Keys() {
		s, err := m.setting(e, k)
		if err != nil {
			return out, err
		}
		out.Settings = append(out.Settings, s)
	}
	return out, nil
}

// Setting returns one setting in force.
func (m *Manager) Setting(_ context.Context, key string) (api.Setting, error) {
	k, err := find(key)
	if err != nil {
		return api.Setting{}, err
	}
	return m.setting(m.Current(), k)
}

func managed(what string, o policy.Origin) error {
	by := "the managed configuration file"
	if o == policy.OriginPortal {
		by = "the portal's policy"
	}
	return &api.Error{
		Code: api.Managed, Message: fmt.Sprintf("%s is managed by %s and cannot be changed here", what, by),
		Hint: "ask your administrator",
	}
}

// changeable refuses a local change of what policy or tamper protection keeps.
func (m *Manager) changeable(k policy.Key) error {
	if v := m.Current().Get(k.Name); v.Locked {
		return managed(k.Name, v.Origin)
	}
	if guarded(k.Name) {
		return m.tamper(k.Name)
	}
	return nil
}

// Set makes a local setting. The deprecated keys about the enforcement level
// set the level itself. With a time it ends by itself.
func (m *Manager) Set(ctx context.Context, r api.SetRequest) (api.Setting, error) {
	k, err := find(r.Key)
	if err != nil {
		return api.Setting{}, err
	}
	if err := m.changeable(k); err != nil {
		return api.Setting{}, err
	}
	if k.Kind == policy.Exclusions {
		return api.Setting{}, &api.Error{Code: api.InvalidArgument, Message: k.Name + " is changed one exclusion at a time", Hint: "use bulwark exclusion"}
	}
	if r.ForSeconds != 0 {
		return m.setFor(ctx, k, r)
	}
	if err := refuseFixed(k, r.Value); err != nil {
		return api.Setting{}, err
	}
	if isLevel(k.Name) {
		err = m.setLevel(k.Name, r.Value)
	} else {
		err = m.changeLocal(func(s *policy.LocalStore) error { return s.Set(k.Name, r.Value) })
	}
	if err != nil {
		return api.Setting{}, storeError(err)
	}
	m.log.Info("setting changed", "key", k.Name, "value", policy.HidePasswords(string(r.Value)))
	return m.Setting(ctx, k.Name)
}

// refuseFixed refuses a value that would have no effect.
func refuseFixed(k policy.Key, value json.RawMessage) error {
	if k.Fixed == "" {
		return nil
	}
	doc, err := (policy.Document{}).With(k.Name, value)
	if err != nil {
		return storeError(err)
	}
	if v, _ := doc.Get(k.Name); v != k.Default {
		return &api.Error{Code: api.InvalidArgument, Message: k.Name + " cannot be changed: " + k.Fixed}
	}
	return nil
}

// setLevel sets the enforcement level without a time, which ends a pause in the
// same step.
func (m *Manager) setLevel(key string, value json.RawMessage) error {
	if _, err := (policy.Document{}).With(key, value); err != nil {
		return err
	}
	now := m.current.Load()
	if now.pause != nil && key == policy.KeyRealTime && string(value) == "true" && policy.WatchesFiles(now.unpaused) {
		m.update(m.dropPause) // what was paused goes on, audit too
		return nil
	}
	level, ok := levelFor(key, string(value), now.base())
	if !ok {
		if err := json.Unmarshal(value, &level); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return m.changeLocal(func(s *policy.LocalStore) error { return s.SetLevel(level) }, m.dropPause)
}

// levelFor translates the switches of real-time protection and passive mode.
// Turning passive mode off leaves real-time protection off until it is turned
// on: nothing starts to block that nobody asked for.
func levelFor(key, value, now string) (string, bool) {
	switch key + "=" + strings.TrimSpace(value) {
	case policy.KeyRealTime + "=true":
		return policy.RealTime, true
	case policy.KeyRealTime + "=false":
		if now == policy.Passive {
			return policy.Passive, true
		}
		return policy.OnDemand, true
	case policy.KeyPassiveMode + "=true":
		return policy.Passive, true
	case policy.KeyPassiveMode + "=false":
		if now == policy.Passive {
			return policy.OnDemand, true
		}
		return now, true
	}
	return "", false
}

// storeError tells a value that is wrong from a disk that is full.
func storeError(err error) error {
	var path interface{ Timeout() bool } // fs.PathError and syscall.Errno have it
	if errors.As(err, &path) {
		return &api.Error{Code: api.Internal, Message: "the setting could not be stored: " + err.Error(), Hint: "look at the space on the disk with df"}
	}
	return &api.Error{Code: api.InvalidArgument, Message: err.Error()}
}

// Unset removes a local setting.
func (m *Manager) Unset(ctx context.Context, key string) (api.Setting, error) {
	k, err := find(key)
	if err != nil {
		return api.Setting{}, err
	}
	if err := m.changeable(k); err != nil {
		return api.Setting{}, err
	}
	var also []func(*state)
	if isLevel(k.Name) {
		also = append(also, m.dropPause)
	}
	names := []string{k.Name}
	if k.Name == policy.KeyEnforcementLevel {
		names = append(names, policy.KeyRealTime, policy.KeyPassiveMode)
	}
	if err := m.changeLocal(func(s *policy.LocalStore) error { return s.Unset(names...) }, also...); err != nil {
		return api.Setting{}, storeError(err)
	}
	return m.Setting(ctx, k.Name)
}

// APIProblems converts problems for the local API.
func APIProblems(problems []Problem) []api.ConfigProblem {
	out := []api.ConfigProblem{}
	for _, p := range problems {
		out = append(out, api.ConfigProblem{
			File: p.File, Line: p.Line, Column: p.Column, Key: p.Key,
			Message: p.Message, Suggestion: p.Suggestion, Warning: p.Warning,
		})
	}
	return out
}

func fromAPI(x api.Exclusion) (policy.Exclusion, error) {
	out := policy.Exclusion{Type: policy.ExclusionType(x.Type), Owner: x.Owner, Reason: x.Reason, Expires: x.Expires}
	set := 0
	for _, v := range []string{string(x.Path), x.Extension, x.Name} {
		if v != "" {
			set++
			out.Value = v
		}
	}
	if set > 1 {
		return out, &api.Error{Code: api.InvalidArgument, Message: "an exclusion has one path, extension or name"}
	}
	scopes := x.Scopes
	if len(scopes) == 0 {
		scopes = []string{"epp"} // the command line's default
	}
	var err error
	if out.Scopes, err = policy.ParseScope(scopes); err == nil {
		out, err = out.Normalize()
	}
	if err != nil {
		return out, &api.Error{Code: api.InvalidArgument, Message: err.Error()}
	}
	return out, nil
}

func toAPI(x policy.Exclusion, now time.Time) api.Exclusion {
	out := api.Exclusion{Type: string(x.Type), Scopes: x.Scopes.Names(), Origin: string(x.Origin), Owner: x.Owner, Reason: x.Reason, Expires: x.Expires}
	switch {
	case x.Type == policy.ExcludeExtension:
		out.Extension = x.Value
	case x.Type == policy.ExcludeProcess && !strings.ContainsRune(x.Value, '/'):
		out.Name = x.Value
	default:
		out.Path = api.Path(x.Value)
	}
	switch {
	case x.Expired(now):
		out.Warning = "expired: it does not apply any more"
	case x.Resolved() != x.Value:
		out.Warning = fmt.Sprintf("%s is or goes through a symbolic link: %s is excluded", x.Value, x.Resolved())
	default:
		out.Warning = x.Broad()
	}
	return out
}

// Describe is how the local API shows exclusions.
func (m *Manager) Describe(list []policy.Exclusion) []api.Exclusion {
	var out []api.Exclusion
	for _, x := range list {
		shown := toAPI(x, m.now().wall)
		shown.Hidden = m.hiddenBy(x)
		out = append(out, shown)
	}
	return out
}

// Exclusions returns all exclusions in force.
func (m *Manager) Exclusions(context.Context) ([]api.Exclusion, error) {
	return m.Describe(m.Current().Exclusions().All()), nil
}

func (m *Manager) exclusionsLocked() error {
	for _, k := range []string{policy.KeyExclusionsMerge, policy.KeyScopedMerge} {
		if v := m.Current().Get(k); v.Value == policy.AdminOnly {
			return managed("exclusions", v.Origin)
		}
	}
	return nil
}

// AddExclusion stores a local exclusion.
func (m *Manager) AddExclusion(_ context.Context, x api.Exclusion) (api.Exclusion, error) {
	if err := m.exclusionsLocked(); err != nil {
		return x, err
	}
	if err := m.tamper("the list of exclusions"); err != nil {
		return x, err
	}
	add, err := fromAPI(x)
	if err != nil {
		return x, err
	}
	if add.Scopes&policy.ScopeGlobal != 0 {
		if _, err := filepath.EvalSymlinks(add.Value); err != nil {
			return x, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("%s: a global exclusion needs a path that exists", add.Value)}
		}
	}
	if err := m.changeLocal(func(s *policy.LocalStore) error { _, err := s.AddExclusion(add); return err }); err != nil {
		return x, storeError(err)
	}
	m.log.Info("exclusion added", "type", add.Type, "value", add.Value, "scopes", strings.Join(add.Scopes.Names(), ","))
	add.Origin = policy.OriginLocal
	for _, now := range m.Current().Exclusions().All() { // with its links resolved
		if now.Same(add) && now.Origin == policy.OriginLocal {
			add = now
		}
	}
	return toAPI(add, m.now().wall), nil
}

// RemoveExclusion removes a local exclusion.
func (m *Manager) RemoveExclusion(_ context.Context, x api.Exclusion) (api.Exclusion, error) {
	remove, err := fromAPI(x)
	if err != nil {
		return x, err
	}
	err = m.changeLocal(func(s *policy.LocalStore) error { _, err := s.RemoveExclusion(remove); return err })
	if errors.Is(err, policy.ErrNoSuch) {
		hint := "bulwark exclusion list shows them; the scope must be the one it was added with"
		for _, now := range m.Current().Exclusions().All() {
			if now.Same(remove) && now.Origin.Administrative() {
				return x, managed("this exclusion", now.Origin)
			}
			if now.Type == remove.Type && now.Value != remove.Value && now.Resolved() == remove.Value {
				hint = fmt.Sprintf("the exclusion of %q leads there: remove it by that name", now.Value)
			}
		}
		return x, &api.Error{
			Code:    api.NotFound,
			Message: fmt.Sprintf("there is no %s exclusion of %q with the scope %s", remove.Type, remove.Value, strings.Join(remove.Scopes.Names(), ", ")),
			Hint:    hint,
		}
	}
	if err != nil {
		return x, storeError(err)
	}
	m.log.Info("exclusion removed", "type", remove.Type, "value", remove.Value)
	return toAPI(remove, m.now().wall), nil
}

// TestExclusion says which exclusions apply to a file in real time or in scans.
func (m *Manager) TestExclusion(_ context.Context, q api.ExclusionQuery) (api.ExclusionAnswer, error) {
	resolved, exe := resolveLinks(string(q.Path)), string(q.Process)
	if exe != "" {
		exe = resolveLinks(exe)
	}
	a := api.ExclusionAnswer{Path: q.Path, Resolved: api.Path(resolved), Matches: []api.Exclusion{}}
	a.Matches = append(a.Matches, m.Describe(m.Current().Exclusions().Matches(policy.UseRealTime, resolved, exe, m.now().wall))...)
	a.Excluded = len(a.Matches) > 0
	return a, nil
}
