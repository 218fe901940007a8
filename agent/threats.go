package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/quarantine"
	"github.com/bulwarkhq/bulwark/agent/threat"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// threats is the local API's protection history and quarantine. The list of
// allowed threats and the policies are configuration.
type threats struct{ a *Agent }

func (t threats) ListThreats(ctx context.Context) ([]api.Threat, error) {
	rows, err := t.a.history.List(0)
	if err != nil && len(rows) == 0 {
		return nil, fmt.Errorf("protection history: %w", err)
	}
	if err != nil {
		t.a.log.Logger("history").Error("rows of the protection history left out", "error", err)
	}
	out, viewer := make([]api.Threat, 0, len(rows)), t.a.viewer(ctx)
	for _, row := range rows {
		out = append(out, viewer.threat(apiThreat(row)))
	}
	return out, nil
}

func (t threats) Threat(ctx context.Context, id string) (api.Threat, error) {
	row, err := t.a.history.Get(id)
	if err != nil {
		return api.Threat{}, notFound(err, threat.ErrNotFound, "no threat has the id "+id, "bulwark threat list shows the ids")
	}
	return t.a.viewer(ctx).threat(apiThreat(row)), nil
}

func (t threats) AllowedThreats(ctx context.Context) ([]api.AllowedThreat, error) {
	return t.a.config.AllowedThreats(ctx)
}

func (t threats) AllowThreat(ctx context.Context, n api.ThreatName) error {
	return t.a.config.AllowThreat(ctx, n)
}

func (t threats) DisallowThreat(ctx context.Context, n api.ThreatName) error {
	return t.a.config.DisallowThreat(ctx, n)
}

func (t threats) ThreatPolicies(ctx context.Context) ([]api.ThreatPolicy, error) {
	return t.a.config.ThreatPolicies(ctx)
}

func (t threats) SetThreatPolicy(ctx context.Context, p api.ThreatPolicy) error {
	return t.a.config.SetThreatPolicy(ctx, p)
}

func apiThreat(row threat.Threat) api.Threat {
	out := api.Threat{
		ID: row.TrackingID, Name: row.Name, Type: string(row.Type), Status: string(row.Status),
		Inside: row.Inside, SHA256: row.SHA256, Size: row.Size, Time: row.Last, Count: int64(min(row.Count, math.MaxInt64)),
		Source: row.Scan.Type, ScanID: row.Scan.ID, Signature: row.Signature, Definitions: row.Source, User: row.User,
		History: make([]api.ThreatHistory, 0, len(row.History)),
	}
	if row.Scan.ID != "" {
		out.Source = "scan"
	}
	if len(row.Paths) > 0 {
		out.Path = api.Path(row.Paths[0])
		for _, p := range row.Paths[1:] {
			out.OtherPaths = append(out.OtherPaths, api.Path(p))
		}
	}
	if p := row.Process; p.PID != 0 {
		out.Process = &api.ThreatProcess{PID: int(p.PID), Name: p.Name, Path: api.Path(p.Path), CommandLine: p.CommandLine}
	}
	for _, c := range row.History {
		out.History = append(out.History, api.ThreatHistory{Time: c.Time, Status: string(c.Status), Detail: c.Detail})
	}
	return out
}

func (t threats) ListQuarantine(ctx context.Context) ([]api.QuarantineItem, error) {
	items := t.a.quarantine.List()
	out, viewer := make([]api.QuarantineItem, 0, len(items)), t.a.viewer(ctx)
	for _, i := range items {
		out = append(out, viewer.quarantined(api.QuarantineItem{
			ID: i.ID, Name: i.Threat, Type: i.ThreatType, Path: api.Path(i.Path), SHA256: i.SHA256, Size: i.Size,
			Owner: t.a.userName(i.UID), Mode: fs.FileMode(i.Mode & 0o777).String(), Time: i.Time,
		}))
	}
	return out, nil
}

// AddToQuarantine moves the file of a threat that was only reported or blocked,
// as long as it is still the content that was found.
func (t threats) AddToQuarantine(ctx context.Context, which api.ThreatID) error {
	row, err := t.row(which)
	if err != nil {
		return err
	}
	id, paths := row.TrackingID, row.Paths
	if which.Path != "" {
		paths = []string{string(which.Path)}
	}
	var errs []error
	for _, path := range paths {
		item, err := t.quarantineFile(ctx, row, path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, err = t.a.history.Update(id, func(r *threat.Threat) {
			r.QuarantineIDs = append([]string{item.ID}, r.QuarantineIDs...)
			r.Status = threat.StatusQuarantined
			r.History = append(r.History, threat.Change{Time: time.Now(), Status: threat.StatusQuarantined, Detail: path})
		})
		return errors.Join(err, t.endGrace(row.SHA256))
	}
	if len(errs) == 0 {
		return &api.Error{Code: api.NotFound, Message: "the history has no path for threat " + id}
	}
	texts := make([]string, 0, len(errs))
	for _, err := range errs {
		texts = append(texts, strings.ToValidUTF8(err.Error(), "?"))
	}
	return &api.Error{
		Code: api.Conflict, Message: "not quarantined: " + strings.Join(texts, "; "),
		Hint: "what was found is not there any more; bulwark scan custom --path looks for where it is now, bulwark threat quarantine list shows what is quarantined already",
	}
}

// endGrace ends the grace time of a restored content, if it has one: the user
// thinks better of it.
func (t threats) endGrace(sha256 string) error {
	a, ok := t.a.history.Allowance("", sha256)
	if !ok || a.Reason != restoredReason {
		return nil
	}
	if err := t.a.history.Disallow(a.Kind, a.Value); err != nil && !errors.Is(err, threat.ErrNotAllowed) {
		return fmt.Errorf("end of the grace time of the restored file: %w", err)
	}
	t.a.realtime.policyChanged()
	return nil
}

// row finds a threat of the history.
func (t threats) row(which api.ThreatID) (threat.Threat, error) {
	if which.ID != "" {
		row, err := t.a.history.Get(which.ID)
		return row, notFound(err, threat.ErrNotFound, "no threat has the id "+which.ID, "bulwark threat list shows the ids")
	}
	rows, err := t.a.history.List(0)
	for _, row := range rows {
		if slices.Contains(row.Paths, string(which.Path)) {
			return row, nil
		}
	}
	if err != nil {
		return threat.Threat{}, fmt.Errorf("protection history: %w", err)
	}
	return threat.Threat{}, &api.Error{Code: api.NotFound, Message: "no threat was found at " + string(which.Path), Hint: "bulwark threat list shows where; bulwark scan custom --path looks again"}
}

func (t threats) quarantineFile(ctx context.Context, row threat.Threat, path string) (quarantine.Item, error) {
	// O_NONBLOCK: whatever is at that path by now, opening it does not wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return quarantine.Item{}, fmt.Errorf("%q: %w", path, errors.Unwrap(err))
	}
	defer func() { _ = f.Close() }() // read-only
	sum, err := hashFile(ctx, f)
	if err != nil {
		return quarantine.Item{}, fmt.Errorf("%q: %w", path, err)
	}
	if sum != row.SHA256 {
		return quarantine.Item{}, fmt.Errorf("%q is not the file any more that was found (SHA-256 %s)", path, sum)
	}
	return t.a.quarantine.Add(ctx, f, path, quarantine.Meta{
		Threat: row.Name, ThreatType: string(row.Type), DetectionID: row.TrackingID, Inside: row.Inside,
	})
}

func (t threats) RemoveFromQuarantine(_ context.Context, which api.ThreatID) error {
	item, err := t.find(api.RestoreRequest{ID: which.ID, Path: which.Path})
	if err == nil {
		err = t.a.quarantine.Remove(item.ID)
	}
	if err != nil {
		return notFound(err, quarantine.ErrNotFound, "the quarantine has no item "+item.ID, "bulwark threat quarantine list shows the ids")
	}
	t.note(item, threat.StatusRemoved, "deleted from the quarantine")
	return nil
}

func (t threats) EmptyQuarantine(context.Context) (int, error) {
	items := t.a.quarantine.List()
	n, err := t.a.quarantine.RemoveAll()
	for _, item := range items {
		if _, gone := t.a.quarantine.Get(item.ID); errors.Is(gone, quarantine.ErrNotFound) {
			t.note(item, threat.StatusRemoved, "deleted from the quarantine")
		}
	}
	return n, err
}

// restoredReason is the reason of the allowance that a restored content has for
// its grace time.
const restoredReason = "restored from the quarantine"

// RestoreFromQuarantine puts a file back. Its content is let through from then
// on until the grace time ends, or it would be quarantined again at once.
func (t threats) RestoreFromQuarantine(ctx context.Context, r api.RestoreRequest) (api.Restored, error) {
	if t.a.config.Current().Disallowed(policy.ActionRestore) {
		return api.Restored{}, &api.Error{Code: api.Managed, Message: "restoring threats is not allowed by policy (disallowedThreatActions)", Hint: "ask your administrator"}
	}
	item, err := t.find(r)
	if err != nil {
		return api.Restored{}, err
	}
	// An allowance of the user's own for longer stays as it is.
	grace := threat.Allowed{Kind: threat.AllowedHash, Value: item.SHA256, Time: time.Now(), Reason: restoredReason, Until: time.Now().Add(t.restoreGrace())}
	before, allowed := t.a.history.Allowance("", item.SHA256)
	if !allowed || !before.Until.IsZero() && before.Until.Before(grace.Until) {
		if err := t.a.history.Allow(grace); err != nil {
			return api.Restored{}, fmt.Errorf("grace time of the restored file: %w", err)
		}
		t.a.realtime.policyChanged()
	}
	path, err := t.a.quarantine.Restore(ctx, item.ID, string(r.Destination))
	if err != nil {
		if !allowed { // else another copy of it may have been restored
			err = errors.Join(err, t.a.history.Disallow(threat.AllowedHash, item.SHA256))
		}
		if errors.Is(err, quarantine.ErrExists) {
			return api.Restored{}, &api.Error{Code: api.Conflict, Message: err.Error(), Hint: "--destination-path restores to another folder"}
		}
		return api.Restored{}, err
	}
	t.note(item, threat.StatusRestored, path)
	return api.Restored{ID: item.ID, Path: api.Path(path)}, nil
}

// restoreGrace is how long a restored file is not detected again.
func (t threats) restoreGrace() time.Duration {
	return time.Duration(t.a.config.Current().Int(policy.KeyRestoreGrace)) * time.Minute
}

func (t threats) find(r api.RestoreRequest) (quarantine.Item, error) {
	items := t.a.quarantine.List() // newest first
	i := slices.IndexFunc(items, func(i quarantine.Item) bool {
		if r.ID != "" {
			return i.ID == r.ID
		}
		return i.Path == string(r.Path)
	})
	if i >= 0 {
		return items[i], nil
	}
	// The id of a threat names its item too.
	if row, err := t.a.history.Get(r.ID); r.ID != "" && err == nil {
		for _, id := range row.QuarantineIDs {
			if item, err := t.a.quarantine.Get(id); err == nil {
				return item, nil
			}
		}
	}
	what := "of id " + r.ID
	if r.ID == "" {
		what = "from " + string(r.Path)
	}
	return quarantine.Item{}, &api.Error{Code: api.NotFound, Message: "the quarantine has no item " + what, Hint: "bulwark threat quarantine list shows what there is"}
}

// note appends to the history of an item's threat, where there is one.
func (t threats) note(item quarantine.Item, s threat.Status, detail string) {
	row, err := t.a.history.ByHash(item.SHA256)
	if err == nil {
		_, err = t.a.history.SetStatus(row.TrackingID, threat.Change{Time: time.Now(), Status: s, Detail: detail})
	}
	if err != nil && !errors.Is(err, threat.ErrNotFound) {
		t.a.log.Logger("history").Error("status of a threat not recorded", "sha256", item.SHA256, "status", s, "error", err)
	}
}

// notFound gives err a message and hint of its own when it is missing.
func notFound(err, missing error, message, hint string) error {
	if errors.Is(err, missing) {
		return &api.Error{Code: api.NotFound, Message: message, Hint: hint}
	}
	return err
}
