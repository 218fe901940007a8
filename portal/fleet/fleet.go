// Package fleet sorts devices into groups and says which configuration each
// should have: groups are rules over the inventory, policies are managed
// configurations (package policy) that are assigned to groups. Agents get the
// result at their check-in.
package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/policy"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
	"github.com/bulwarkhq/bulwark/portal/rest/odata"
)

// Limits.
const (
	MaxGroups   = 200
	MaxPolicies = 200
	MaxDocument = 256 << 10 // bytes of a policy
	MaxRule     = 8 << 10
	maxName     = 100
)

// Errors.
var (
	ErrNotFound = errors.New("there is no such group or policy")
	// ErrConflict means that somebody else has changed it meanwhile.
	ErrConflict = errors.New("somebody else has changed it meanwhile: load it again")
	// ErrUnsorted means that a group was stored or removed, and that the devices are
	// in the groups of before until Regroup.
	ErrUnsorted = errors.New("its devices are sorted at the next pass")
)

// Invalid is a group or policy that cannot be kept; Target names the member.
type Invalid struct{ Target, Message string }

func (e *Invalid) Error() string { return e.Message }

func invalid(target, format string, args ...any) error {
	return &Invalid{target, fmt.Sprintf(format, args...)}
}

// Group is a set of devices. A device belongs to the group of the lowest rank
// whose rule it satisfies.
type Group struct {
	ID          string // 16 hex digits
	Name        string
	Description string
	Rank        int
	// Rule is a filter over the inventory as the REST API has it, for example
	// osDistribution eq 'debian' or machineTags/any(t: t eq 'web').
	Rule    string
	Updated time.Time
	By      string
}

// Policy is a managed configuration for the devices of some groups.
type Policy struct {
	ID          string // 16 hex digits
	Name        string
	Description string
	// Priority orders policies of one device: the value of the lowest number
	// counts; lists of exclusions and tags are joined.
	Priority int
	Enabled  bool
	// Groups that it is for; none for all devices.
	Groups []string
	// Document is the profile, a JSON object.
	Document json.RawMessage
	// Version grows by one with every change.
	Version int
	Updated time.Time
	By      string
}

// Revision is a state that a policy had.
type Revision struct {
	Policy
	Comment string
}

// Assignment is what a device should have and has.
type Assignment struct {
	DeviceID string
	GroupID  string // empty for none
	// Wanted is the version that the device should apply, Reported the one that
	// it says it applies; both empty for none.
	Wanted   string
	Reported string
	Changed  time.Time // of Wanted
}

// Rollout counts devices by whether they have what they should have.
type Rollout struct{ Applied, Pending int }

// Note is the audit entry of a change.
type Note struct {
	Time                   time.Time
	Actor, Address, Detail string
}

// Store keeps groups and policies. Changes and their audit entries are written
// together. Implementations are safe for concurrent use.
type Store interface {
	Groups(ctx context.Context) ([]Group, error)
	// PutGroup adds or replaces a group; DeleteGroup fails with ErrNotFound.
	PutGroup(ctx context.Context, g Group, n Note) error
	DeleteGroup(ctx context.Context, id string, n Note) error
	Policies(ctx context.Context) ([]Policy, error)
	// PutPolicy adds a policy (Version 1) or replaces the version before
	// (ErrConflict when that is not the current one), and keeps the revision.
	PutPolicy(ctx context.Context, p Policy, comment string, n Note) error
	DeletePolicy(ctx context.Context, id string, n Note) error
	// Revisions returns the states of a policy, newest first.
	Revisions(ctx context.Context, id string) ([]Revision, error)
	// PutAssignment keeps the assignment of a device when it differs.
	PutAssignment(ctx context.Context, a Assignment) error
	// PutGroups gives the group, the wanted version and the time of an assignment to
	// those of the devices that have called and are in another group.
	PutGroups(ctx context.Context, a Assignment, devices []string) error
	// Assignment returns the zero value for a device that has not called yet.
	Assignment(ctx context.Context, device string) (Assignment, error)
	// Rollout counts the devices by group id.
	Rollout(ctx context.Context) (map[string]Rollout, error)
}

// Service is the fleet.
type Service struct {
	store   Store
	devices *inventory.Service
	now     func() time.Time

	mu     sync.Mutex
	cached *snapshot
	loaded time.Time
}

// snapshot are groups with their compiled rules, and policies.
type snapshot struct {
	groups   []Group
	rules    []query.Expr
	policies []Policy
}

// snapshotAge is how long another portal's change may go unnoticed.
const snapshotAge = 30 * time.Second

// New makes the service.
func New(store Store, devices *inventory.Service, now func() time.Time) *Service {
	return &Service{store: store, devices: devices, now: now}
}

func newID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (s *Service) snapshot(ctx context.Context) (*snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cached != nil && s.now().Sub(s.loaded) < snapshotAge {
		return s.cached, nil
	}
	groups, err := s.store.Groups(ctx)
	if err != nil {
		return nil, err
	}
	policies, err := s.store.Policies(ctx)
	if err != nil {
		return nil, err
	}
	n := &snapshot{policies: policies}
	slices.SortStableFunc(groups, func(a, b Group) int { return a.Rank - b.Rank })
	slices.SortStableFunc(n.policies, func(a, b Policy) int { return a.Priority - b.Priority })
	for _, g := range groups {
		rule, err := ParseRule(g.Rule)
		if err != nil { // a field that a newer portal knew
			continue
		}
		n.groups, n.rules = append(n.groups, g), append(n.rules, rule)
	}
	s.cached, s.loaded = n, s.now()
	return n, nil
}

func (s *Service) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cached = nil
}

// ParseRule reads the rule of a group.
func ParseRule(rule string) (query.Expr, error) {
	if strings.TrimSpace(rule) == "" {
		return nil, invalid("Rule", "a rule is wanted, for example: machineTags/any(t: t eq 'web')")
	}
	if len(rule) > MaxRule {
		return nil, invalid("Rule", "a rule has at most %d bytes", MaxRule)
	}
	fields := inventory.Fields()
	delete(fields, "rbacGroupName") // the rule decides about it
	o, err := odata.Parse(url.Values{"$filter": {rule}}, fields)
	if err != nil {
		return nil, invalid("Rule", "%v", err)
	}
	return o.Query.Filter, nil
}

// GroupOf returns the group of a device; the zero Group for none.
func (s *Service) GroupOf(ctx context.Context, device string) (Group, error) {
	n, err := s.snapshot(ctx)
	if err != nil {
		return Group{}, err
	}
	me := query.Compare{Field: "id", Op: query.Eq, Value: device}
	for i, rule := range n.rules {
		found, _, err := s.devices.List(ctx, query.Query{Filter: query.All(me, rule), Top: 1})
		if err != nil {
			return Group{}, fmt.Errorf("rule of the group %s: %w", n.groups[i].Name, err)
		}
		if len(found) > 0 {
			return n.groups[i], nil
		}
	}
	return Group{}, nil
}

// CheckIn says what a device should have, and what it should apply when that
// differs from what it reports: nil for no change.
func (s *Service) CheckIn(ctx context.Context, device, reported string) (a Assignment, document []byte, err error) {
	g, err := s.GroupOf(ctx, device)
	if err != nil {
		return a, nil, err
	}
	n, err := s.snapshot(ctx)
	if err != nil {
		return a, nil, err
	}
	document, version, err := merge(n.policies, g.ID)
	if err != nil {
		return a, nil, err
	}
	a = Assignment{DeviceID: device, GroupID: g.ID, Wanted: version, Reported: reported, Changed: s.now().UTC()}
	if err := s.store.PutAssignment(ctx, a); err != nil {
		return Assignment{}, nil, err
	}
	if version == reported {
		return a, nil, nil
	}
	return a, document, nil
}

// NoPolicy is the version of the empty policy that a device gets which had one.
const NoPolicy = ""

// merge joins the policies of a group. Without any the document is {} and the
// version NoPolicy.
func merge(policies []Policy, group string) ([]byte, string, error) {
	var out map[string]any
	for _, p := range policies {
		if !p.Enabled || len(p.Groups) > 0 && !slices.Contains(p.Groups, group) {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(p.Document))
		d.UseNumber()
		var doc map[string]any
		if err := d.Decode(&doc); err != nil {
			return nil, "", fmt.Errorf("policy %s: %w", p.Name, err)
		}
		if out == nil {
			out = map[string]any{}
		}
		join(out, doc)
	}
	if out == nil {
		return []byte("{}"), NoPolicy, nil
	}
	document, err := json.Marshal(out) // members are sorted
	if err != nil {
		return nil, "", fmt.Errorf("joining policies: %w", err)
	}
	sum := sha256.Sum256(document)
	return document, hex.EncodeToString(sum[:8]), nil
}

// joined are the lists that add up; of others the first policy's counts.
var joined = []string{"exclusions", "tags", "allowedThreats", "disabledRules", "recordOnlyRules"}

// join adds to a what only b has.
func join(a, b map[string]any) {
	for k, theirs := range b {
		mine, ok := a[k]
		if !ok {
			a[k] = theirs
			continue
		}
		am, aok := mine.(map[string]any)
		bm, bok := theirs.(map[string]any)
		if aok && bok {
			join(am, bm)
			continue
		}
		al, aok := mine.([]any)
		bl, bok := theirs.([]any)
		if aok && bok && slices.Contains(joined, k) {
			a[k] = append(slices.Clip(al), bl...)
		}
	}
}

// Preview returns what a device of the group (empty for a device of none) would
// get, with candidate in place of the stored policy of its id.
func (s *Service) Preview(ctx context.Context, group string, candidate *Policy) (policy.Effective, []byte, error) {
	policies, err := s.store.Policies(ctx)
	if err != nil {
		return policy.Effective{}, nil, err
	}
	if candidate != nil {
		policies = slices.DeleteFunc(policies, func(p Policy) bool { return p.ID == candidate.ID })
		policies = append(policies, *candidate)
	}
	slices.SortStableFunc(policies, func(a, b Policy) int { return a.Priority - b.Priority })
	document, _, err := merge(policies, group)
	if err != nil {
		return policy.Effective{}, nil, err
	}
	doc, _ := policy.Parse(document) // what is wrong was refused when it was stored
	return policy.Resolve(doc, policy.Document{}, policy.Document{}), document, nil
}

func cleanName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxName || name != inventory.Clean(name, maxName) {
		return "", invalid("Name", "a name is 1 to %d bytes of printable text", maxName)
	}
	return name, nil
}

// Groups returns the groups by rank.
func (s *Service) Groups(ctx context.Context) ([]Group, error) { return s.store.Groups(ctx) }

// PutGroup adds a group (without id) or replaces one. With an error that wraps
// ErrUnsorted it is stored all the same.
func (s *Service) PutGroup(ctx context.Context, g Group, by, address string) (Group, error) {
	var err error
	if g.Name, err = cleanName(g.Name); err != nil {
		return g, err
	}
	if _, err := ParseRule(g.Rule); err != nil {
		return g, err
	}
	if g.Rank < 1 || g.Rank > 10_000 {
		return g, invalid("Rank", "a rank is between 1 and 10000")
	}
	g.Description = inventory.Clean(strings.TrimSpace(g.Description), 1000)
	list, err := s.store.Groups(ctx)
	if err != nil {
		return g, err
	}
	if g.ID == "" {
		if len(list) >= MaxGroups {
			return g, invalid("Name", "there are %d groups, which is the limit", MaxGroups)
		}
		g.ID = newID()
	} else if !slices.ContainsFunc(list, func(o Group) bool { return o.ID == g.ID }) {
		return g, ErrNotFound
	}
	if slices.ContainsFunc(list, func(o Group) bool { return o.ID != g.ID && strings.EqualFold(o.Name, g.Name) }) {
		return g, invalid("Name", "there is a group %q already", g.Name)
	}
	g.Updated, g.By = s.now().UTC(), by
	if err := s.store.PutGroup(ctx, g, Note{g.Updated, by, address, fmt.Sprintf("rank %d, rule %s", g.Rank, g.Rule)}); err != nil {
		return g, err
	}
	if err := s.Regroup(ctx); err != nil {
		return g, fmt.Errorf("the group %s is stored; %w: %w", g.Name, ErrUnsorted, err)
	}
	return g, nil
}

// Regroup sorts the devices that have called into the groups again: a device is
// sorted at its check-in, but one that is away has the tags, and its group the rule,
// that they have now. Who is limited to groups sees it there.
func (s *Service) Regroup(ctx context.Context) error {
	s.forget() // another node may have changed the groups
	n, err := s.snapshot(ctx)
	if err != nil {
		return err
	}
	sorted := map[string]bool{}
	put := func(group string, rule query.Expr) error {
		ids, err := s.devices.IDs(ctx, rule)
		if err != nil {
			return err
		}
		ids = slices.DeleteFunc(ids, func(id string) bool { return sorted[id] })
		for _, id := range ids {
			sorted[id] = true
		}
		_, wanted, err := merge(n.policies, group)
		if err != nil {
			return err
		}
		return s.store.PutGroups(ctx, Assignment{GroupID: group, Wanted: wanted, Changed: s.now().UTC()}, ids)
	}
	for i, g := range n.groups {
		if err := put(g.ID, n.rules[i]); err != nil {
			return fmt.Errorf("devices of the group %s: %w", g.Name, err)
		}
	}
	return put("", nil)
}

// DeleteGroup removes a group; policies that were for it alone are then for
// nobody. With an error that wraps ErrUnsorted it is removed all the same.
func (s *Service) DeleteGroup(ctx context.Context, id, by, address string) error {
	if err := s.store.DeleteGroup(ctx, id, Note{s.now().UTC(), by, address, ""}); err != nil {
		return err
	}
	if err := s.Regroup(ctx); err != nil {
		return fmt.Errorf("the group is removed; %w: %w", ErrUnsorted, err)
	}
	return nil
}

// Policies returns the policies by priority.
func (s *Service) Policies(ctx context.Context) ([]Policy, error) {
	list, err := s.store.Policies(ctx)
	slices.SortStableFunc(list, func(a, b Policy) int { return a.Priority - b.Priority })
	return list, err
}

// Policy returns one.
func (s *Service) Policy(ctx context.Context, id string) (Policy, error) {
	list, err := s.store.Policies(ctx)
	if err != nil {
		return Policy{}, err
	}
	i := slices.IndexFunc(list, func(p Policy) bool { return p.ID == id })
	if i < 0 {
		return Policy{}, ErrNotFound
	}
	return list[i], nil
}

// CheckDocument checks a profile as agents would read it, and returns it in the
// usual form. Warnings do not hinder.
func CheckDocument(data []byte) (json.RawMessage, []policy.Problem, error) {
	if len(data) > MaxDocument {
		return nil, nil, invalid("Document", "a policy has at most %d KiB", MaxDocument>>10)
	}
	_, problems := policy.Parse(data)
	for _, p := range problems {
		if !p.Warning {
			return nil, problems, invalid("Document", "%s", p.String())
		}
	}
	var out bytes.Buffer
	if err := json.Compact(&out, bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))); err != nil {
		return nil, problems, invalid("Document", "%v", err)
	}
	return out.Bytes(), problems, nil
}

// PutPolicy adds a policy (without id) or replaces the one of its id and
// version.
func (s *Service) PutPolicy(ctx context.Context, p Policy, comment, by, address string) (Policy, error) {
	var err error
	if p.Name, err = cleanName(p.Name); err != nil {
		return p, err
	}
	if p.Priority < 1 || p.Priority > 10_000 {
		return p, invalid("Priority", "a priority is between 1 and 10000")
	}
	if p.Document, _, err = CheckDocument(p.Document); err != nil {
		return p, err
	}
	groups, err := s.store.Groups(ctx)
	if err != nil {
		return p, err
	}
	for _, id := range p.Groups {
		if !slices.ContainsFunc(groups, func(g Group) bool { return g.ID == id }) {
			return p, invalid("Groups", "there is no group %.32q", id)
		}
	}
	list, err := s.store.Policies(ctx)
	if err != nil {
		return p, err
	}
	if p.ID == "" {
		if len(list) >= MaxPolicies {
			return p, invalid("Name", "there are %d policies, which is the limit", MaxPolicies)
		}
		p.ID, p.Version = newID(), 0
	} else if !slices.ContainsFunc(list, func(o Policy) bool { return o.ID == p.ID }) {
		return p, ErrNotFound
	}
	p.Description = inventory.Clean(strings.TrimSpace(p.Description), 1000)
	p.Version++
	p.Updated, p.By = s.now().UTC(), by
	comment = inventory.Clean(strings.TrimSpace(comment), 1000)
	defer s.forget()
	return p, s.store.PutPolicy(ctx, p, comment, Note{p.Updated, by, address, fmt.Sprintf("%s, version %d: %s", p.Name, p.Version, comment)})
}

// Revert makes an earlier state of a policy the current one, as a new version.
func (s *Service) Revert(ctx context.Context, id string, version int, by, address string) (Policy, error) {
	now, err := s.Policy(ctx, id)
	if err != nil {
		return now, err
	}
	list, err := s.store.Revisions(ctx, id)
	if err != nil {
		return now, err
	}
	i := slices.IndexFunc(list, func(r Revision) bool { return r.Version == version })
	if i < 0 {
		return now, ErrNotFound
	}
	old := list[i].Policy
	old.Version = now.Version
	groups, err := s.store.Groups(ctx)
	if err != nil {
		return now, err
	}
	had := len(old.Groups)
	old.Groups = slices.DeleteFunc(slices.Clone(old.Groups), func(id string) bool {
		return !slices.ContainsFunc(groups, func(g Group) bool { return g.ID == id })
	})
	if had > 0 && len(old.Groups) == 0 {
		// Its groups are gone: it must not become one for everybody.
		old.Enabled = false
	}
	return s.PutPolicy(ctx, old, fmt.Sprintf("back to version %d", version), by, address)
}

// DeletePolicy removes a policy with its history.
func (s *Service) DeletePolicy(ctx context.Context, id, by, address string) error {
	defer s.forget()
	return s.store.DeletePolicy(ctx, id, Note{s.now().UTC(), by, address, ""})
}

// Revisions returns the states of a policy, newest first.
func (s *Service) Revisions(ctx context.Context, id string) ([]Revision, error) {
	return s.store.Revisions(ctx, id)
}

// Assignment returns what a device should have and has.
func (s *Service) Assignment(ctx context.Context, device string) (Assignment, error) {
	return s.store.Assignment(ctx, device)
}

// Rollout counts the devices by group id.
func (s *Service) Rollout(ctx context.Context) (map[string]Rollout, error) {
	return s.store.Rollout(ctx)
}
