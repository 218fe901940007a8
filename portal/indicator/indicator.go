// Package indicator keeps the organisation's indicators: files, addresses and
// names that devices report, block, or leave alone. People and programs make
// them; each device gets those that are for its group as one list, and fetches
// it again when a check-in names another version.
package indicator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Limits of what people write, in bytes, and of one request.
const (
	MaxTitle  = 200
	MaxText   = 1000
	MaxGroups = 50
	MaxBatch  = 500 // indicators of a request of the API
)

// Errors.
var (
	ErrNotFound = errors.New("there is no such indicator")
	// ErrTaken means that another indicator has the type and value already.
	ErrTaken = errors.New("there is an indicator of this type and value already")
)

// Invalid is an indicator that cannot be kept; Target names the member as the
// REST API has it.
type Invalid struct{ Target, Message string }

func (e *Invalid) Error() string { return e.Message }

func invalid(target, format string, args ...any) error {
	return &Invalid{target, fmt.Sprintf(format, args...)}
}

// Indicator is one entry. Type, Action and Severity have the values of package
// api/indicator.
type Indicator struct {
	ID          int64
	Type        string
	Value       string
	Action      string
	Title       string
	Description string
	Severity    string
	// Recommended is what to do when it is seen.
	Recommended string
	Application string // that it is about; only kept
	EducateURL  string // for the people concerned; only kept
	Alerts      bool   // whether an alert is raised when it is seen
	Expires     time.Time
	// Groups are the ids of the device groups that it is for; none for all
	// devices.
	Groups []string

	Created   time.Time
	CreatedBy string
	// Source is User or AadApp (a program with an API token).
	Source    string
	Updated   time.Time
	UpdatedBy string
	// Size is the number of bytes that it takes in a list.
	Size int
}

// Who changes something.
type Who struct{ Name, Source, Address string }

// Sources of indicators.
const (
	SourceUser    = "User"
	SourceProgram = "AadApp"
)

// Applied is the list that a device should have and has.
type Applied struct {
	DeviceID         string
	Wanted, Reported string // versions
	Count            int    // indicators in force on the device, its own too
	Changed          time.Time
}

// Note is the audit entry of a change.
type Note struct {
	Time                                   time.Time
	Actor, Address, Action, Target, Detail string
}

// Fields are what indicators can be filtered and ordered by, by their REST
// names.
func Fields() query.Schema {
	return query.Schema{
		"id": query.Int, "indicatorValue": query.String, "indicatorType": query.String, "action": query.String, "title": query.String,
		"description": query.String, "severity": query.String, "application": query.String, "generateAlert": query.Bool,
		"expirationTime": query.Time, "creationTimeDateTimeUtc": query.Time, "lastUpdateTime": query.Time,
		"createdBy": query.String, "createdByDisplayName": query.String, "lastUpdatedBy": query.String,
		"sourceType": query.String, "rbacGroupIds": query.Collection,
	}
}

// Store keeps indicators. Changes and their audit entries are written together.
// Implementations are safe for concurrent use.
type Store interface {
	Indicators(ctx context.Context, q query.Query) ([]Indicator, int, error)
	// Indicator and IndicatorOf return ErrNotFound.
	Indicator(ctx context.Context, id int64) (Indicator, error)
	IndicatorOf(ctx context.Context, kind, value string) (Indicator, error)
	// PutIndicators adds or replaces, all or nothing. One with an id replaces
	// that (ErrNotFound, ErrTaken), one without the one of its type and value.
	// The error is an *Invalid when there would be more than maxEntries or more
	// than maxBytes. It returns the ids, and how many are new.
	PutIndicators(ctx context.Context, list []Indicator, maxEntries, maxBytes int, n Note) (ids []int64, added int, err error)
	// DeleteIndicators returns how many there were.
	DeleteIndicators(ctx context.Context, ids []int64, n Note) (int, error)
	// DeleteExpiredIndicators removes those that expired before the time.
	DeleteExpiredIndicators(ctx context.Context, before time.Time, n Note) (int, error)
	// EachIndicator calls f for those of a group (empty for devices of no group
	// that is named anywhere) in the order of their ids, until f fails.
	EachIndicator(ctx context.Context, group string, f func(*Indicator) error) error
	// ScopedGroups returns the groups that indicators name.
	ScopedGroups(ctx context.Context) ([]string, error)
	// IndicatorsRevision grows with every change.
	IndicatorsRevision(ctx context.Context) (int64, error)
	// PutApplied keeps what a device has when it differs; Applied returns the
	// zero value for a device that has not called yet.
	PutApplied(ctx context.Context, a Applied) error
	Applied(ctx context.Context, device string) (Applied, error)
	// AppliedCounts counts the devices that have what they should have, and the
	// others.
	AppliedCounts(ctx context.Context) (current, pending int, err error)
}

// Groups are the device groups; fleet.Service has them.
type Groups interface {
	Groups(ctx context.Context) ([]fleet.Group, error)
}

// Service is the indicators.
type Service struct {
	store  Store
	groups Groups
	now    func() time.Time

	building chan struct{} // has room for the one that reads or builds the lists
	revision int64
	scoped   []string
	lists    map[string]*list // by group
	// rest is until when the lists are not made anew, see build.
	rest time.Time
}

// New makes the service; now is time.Now outside of tests.
func New(store Store, groups Groups, now func() time.Time) *Service {
	return &Service{store: store, groups: groups, now: now, building: make(chan struct{}, 1), revision: -1}
}

// List returns a page of indicators and, when asked, how many match in all.
func (s *Service) List(ctx context.Context, q query.Query) ([]Indicator, int, error) {
	if err := Fields().Check(q); err != nil {
		return nil, 0, err
	}
	return s.store.Indicators(ctx, q)
}

// Get returns an indicator, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (Indicator, error) {
	n, err := parseID(id)
	if err != nil {
		return Indicator{}, err
	}
	return s.store.Indicator(ctx, n)
}

// OfDetector returns the indicator that an alert is about, by the alert's
// detector id, or ErrNotFound.
func (s *Service) OfDetector(ctx context.Context, detector string) (Indicator, error) {
	rest, ok := strings.CutPrefix(detector, "indicator:")
	kind, value, found := strings.Cut(rest, ":")
	if !ok || !found {
		return Indicator{}, ErrNotFound
	}
	return s.store.IndicatorOf(ctx, kind, value)
}

func parseID(id string) (int64, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 {
		return 0, ErrNotFound
	}
	return n, nil
}

// Wire is the form in which devices get it, without the id.
func (i *Indicator) Wire() api.Indicator {
	return api.Indicator{
		Type: i.Type, Value: i.Value, Action: i.Action, Title: i.Title, Description: i.Description, Severity: i.Severity,
		Expires: i.Expires, Silent: !i.Alerts,
	}
}

// normalize checks an indicator and brings it into the form in which it is
// kept. The error is an *Invalid.
func (i *Indicator) normalize(now time.Time, groups []fleet.Group) error {
	if strings.EqualFold(i.Type, "CertificateThumbprint") {
		return invalid("indicatorType", "certificates are no indicators on Linux: use the hash of the file")
	}
	for _, t := range []struct {
		name string
		text *string
		max  int
	}{{"title", &i.Title, MaxTitle}, {"description", &i.Description, MaxText}, {"recommendedActions", &i.Recommended, MaxText}, {"application", &i.Application, MaxTitle}, {"educateUrl", &i.EducateURL, MaxText}} {
		lines := strings.Split(strings.ReplaceAll(strings.TrimSpace(*t.text), "\r\n", "\n"), "\n")
		for n, l := range lines {
			lines[n] = inventory.Clean(l, t.max+1)
		}
		*t.text = strings.Join(lines, "\n")
		if len(*t.text) > t.max {
			return invalid(t.name, "%s has at most %d bytes", t.name, t.max)
		}
	}
	if i.Title == "" {
		return invalid("title", "a title is wanted: it is the title of the alerts")
	}
	w := i.Wire()
	w.Silent = false
	if err := w.Normalize(); err != nil {
		what, _, _ := strings.Cut(err.Error(), ":")
		what, _, _ = strings.Cut(what, " ")
		target := map[string]string{"type": "indicatorType", "value": "indicatorValue"}[what]
		if target == "" {
			target = what
		}
		return invalid(target, "%v", err)
	}
	audit := w.Action == api.Audit
	if audit && !i.Alerts {
		return invalid("generateAlert", "an indicator that only audits must raise alerts")
	}
	i.Type, i.Value, i.Action, i.Severity = w.Type, w.Value, w.Action, w.Severity
	i.Alerts = i.Alerts && i.Action != api.Allow
	if i.Type == api.URL && (i.Action == api.Block || i.Action == api.Remediate || i.Action == api.Warn) {
		return invalid("action", "%s cannot be blocked, only reported: use Audit, or the domain", i.Type)
	}
	if i.Action == api.Remediate && (i.Type == api.FilePath || !strings.HasPrefix(i.Type, "File")) {
		return invalid("action", "BlockAndRemediate is for the hashes of files: use Block")
	}
	if !i.Expires.IsZero() {
		i.Expires = i.Expires.UTC().Truncate(time.Second)
		if !i.Expires.After(now) {
			return invalid("expirationTime", "the time of expiry has passed")
		}
	}
	if len(i.Groups) > MaxGroups {
		return invalid("rbacGroupNames", "at most %d groups", MaxGroups)
	}
	ids, err := groupIDs(i.Groups, groups)
	if err != nil {
		return err
	}
	i.Groups = ids
	w = i.Wire()
	data, err := json.Marshal(w)
	if err != nil {
		return invalid("", "%v", err)
	}
	i.Size = len(data) + 1
	return nil
}

// groupIDs replaces names of groups by their ids.
func groupIDs(names []string, groups []fleet.Group) ([]string, error) {
	var out []string
	for _, name := range names {
		n := slices.IndexFunc(groups, func(g fleet.Group) bool { return g.ID == name || strings.EqualFold(g.Name, strings.TrimSpace(name)) })
		if n < 0 {
			return nil, invalid("rbacGroupNames", "there is no device group %.64q", name)
		}
		if !slices.Contains(out, groups[n].ID) {
			out = append(out, groups[n].ID)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Result is what became of one indicator of a batch.
type Result struct {
	ID    int64 // 0 when it failed
	Value string
	Err   error // an *Invalid
}

// maxBytes leaves room for what is around the entries of a list.
const maxBytes = api.MaxBytes - 1024

// Put adds an indicator, or replaces the one of its id or else of its type and
// value. The error is an *Invalid for what is not allowed.
func (s *Service) Put(ctx context.Context, i Indicator, who Who) (Indicator, error) {
	results, err := s.PutAll(ctx, []Indicator{i}, who)
	if err != nil {
		return i, err
	}
	if results[0].Err != nil {
		return i, results[0].Err
	}
	return s.store.Indicator(ctx, results[0].ID)
}

// PutAll adds or replaces those that are right and says of each what became of
// it. Of several for the same the last counts.
func (s *Service) PutAll(ctx context.Context, list []Indicator, who Who) ([]Result, error) {
	groups, err := s.groups.Groups(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now().UTC()
	results := make([]Result, len(list))
	good := make([]Indicator, 0, len(list))
	where := make([]int, 0, len(list))
	for n := range list {
		i := list[n]
		results[n].Value = i.Value
		if err := i.normalize(now, groups); err != nil {
			results[n].Err = err
			continue
		}
		i.Created, i.CreatedBy, i.Source, i.Updated, i.UpdatedBy = now, who.Name, who.Source, now, who.Name
		good, where = append(good, i), append(where, n)
	}
	if len(good) == 0 {
		return results, nil
	}
	n := Note{
		Time: now, Actor: who.Name, Address: who.Address, Action: "indicator.update", Target: good[0].Type + " " + good[0].Value,
		Detail: fmt.Sprintf("%s, %q, groups %v", good[0].Action, good[0].Title, good[0].Groups),
	}
	if !good[0].Expires.IsZero() {
		n.Detail += ", until " + good[0].Expires.Format(time.RFC3339)
	}
	if len(good) > 1 {
		n.Action, n.Target, n.Detail = "indicator.import", fmt.Sprintf("%d indicators", len(good)), "the first is "+n.Target+": "+n.Detail
	}
	ids, _, err := s.store.PutIndicators(ctx, good, api.MaxEntries, maxBytes, n)
	if err != nil {
		return nil, err
	}
	for k, id := range ids {
		results[where[k]].ID = id
	}
	return results, nil
}

// Delete removes indicators and returns how many there were.
func (s *Service) Delete(ctx context.Context, ids []string, who Who) (int, error) {
	list := make([]int64, 0, len(ids))
	for _, id := range ids {
		n, err := parseID(id)
		if err != nil {
			return 0, err
		}
		list = append(list, n)
	}
	note := Note{Time: s.now().UTC(), Actor: who.Name, Address: who.Address, Action: "indicator.delete", Target: fmt.Sprintf("%d indicators", len(list))}
	if len(list) == 1 {
		i, err := s.store.Indicator(ctx, list[0])
		if err != nil {
			return 0, err
		}
		note.Target, note.Detail = i.Type+" "+i.Value, i.Action+", "+strconv.Quote(i.Title)
	}
	return s.store.DeleteIndicators(ctx, list, note)
}

// KeepExpired is how long an indicator stays to be seen after it has expired.
const KeepExpired = 30 * 24 * time.Hour

// Sweep removes what expired long ago.
func (s *Service) Sweep(ctx context.Context) (int, error) {
	return s.store.DeleteExpiredIndicators(ctx, s.now().Add(-KeepExpired), Note{Time: s.now().UTC(), Actor: "portal", Action: "indicator.expire"})
}

// Applied returns the list that a device should have and has.
func (s *Service) Applied(ctx context.Context, device string) (Applied, error) {
	return s.store.Applied(ctx, device)
}

// AppliedCounts counts the devices that have what they should have, and the
// others.
func (s *Service) AppliedCounts(ctx context.Context) (current, pending int, err error) {
	return s.store.AppliedCounts(ctx)
}
