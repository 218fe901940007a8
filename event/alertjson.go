package event

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Limits of an alert in its JSON form (api/schemas/alert.schema.json).
const (
	// MaxAlertBytes is the largest JSON text of one alert.
	MaxAlertBytes = 256 << 10
	// MaxAncestry is the number of parents that an alert carries.
	MaxAncestry = 32
	// MaxTechniques is the number of ATT&CK techniques that an alert carries.
	MaxTechniques = 32
	// MaxAlertBehaviors is the number of behaviours that an alert carries.
	MaxAlertBehaviors = 20
	// MaxAlertConditions is the number of conditions that an alert carries, and
	// maxCondition the bytes of a text of theirs.
	MaxAlertConditions = 20
	maxCondition       = 512
)

// EncodeAlert returns the JSON object of a. Text is cut until the result fits
// MaxAlertBytes, so that an alert is never lost because a command line was
// long. It fails for an alert that DecodeAlert would refuse.
func EncodeAlert(a *Alert) ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	for _, limit := range []int{MaxString, 4 << 10, 512, 64} {
		c := a.clipped(limit)
		b, err := json.Marshal(&c)
		if err != nil {
			return nil, fmt.Errorf("alert %s: %w", a.ID, err)
		}
		if len(b) <= MaxAlertBytes {
			return b, nil
		}
	}
	return nil, fmt.Errorf("alert %s does not fit %d bytes", a.ID, MaxAlertBytes)
}

// DecodeAlert reads the JSON object of one alert within the limits above.
// Unknown members are ignored. The error names the member that is wrong.
func DecodeAlert(data []byte) (Alert, error) {
	if len(data) > MaxAlertBytes {
		return Alert{}, fmt.Errorf("alert of %d bytes: the limit is %d", len(data), MaxAlertBytes)
	}
	var a Alert
	if err := json.Unmarshal(data, &a); err != nil {
		return Alert{}, fmt.Errorf("alert is not valid JSON: %w", err)
	}
	a = a.clipped(MaxString)
	if err := a.check(); err != nil {
		return Alert{}, err
	}
	return a, nil
}

// check says what keeps a from being stored.
func (a *Alert) check() error {
	if !IsHex(a.ID, 32) {
		return fmt.Errorf("alert: id %.64q is not 32 hex digits", a.ID)
	}
	if a.Title == "" {
		return fmt.Errorf("alert %s: title is empty", a.ID)
	}
	if a.Time.IsZero() || a.Time.Before(firstTime) || a.Time.After(lastTime) {
		return fmt.Errorf("alert %s: time is missing or out of range", a.ID)
	}
	switch a.Severity {
	case SeverityInformational, SeverityLow, SeverityMedium, SeverityHigh:
	default:
		return fmt.Errorf("alert %s: severity %.32q is none of Informational, Low, Medium, High", a.ID, a.Severity)
	}
	if a.Source == "" {
		return fmt.Errorf("alert %s: source is empty", a.ID)
	}
	return nil
}

// IsHex reports whether s is so many hex digits in lower case, as hashes and ids are.
func IsHex(s string, digits int) bool {
	if len(s) != digits {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// clipped returns a with every text cut to limit bytes and every list to its
// limit. It shares nothing that it changes with a.
func (a *Alert) clipped(limit int) Alert {
	c := *a
	trim := func(to ...*string) {
		for _, s := range to {
			*s = clip(*s, limit)
		}
	}
	c.Time = c.Time.UTC()
	trim(&c.Title, &c.Description, &c.Category, &c.Source, &c.DetectorID, &c.ThreatName, &c.ThreatFamily,
		&c.Action, &c.ActionDetail, &c.TestID)
	c.Techniques = slices.Clone(c.Techniques[:min(len(c.Techniques), MaxTechniques)])
	for i := range c.Techniques {
		trim(&c.Techniques[i])
	}
	c.File.clip(limit)
	c.Process.clip(limit)
	c.Ancestry = slices.Clone(c.Ancestry[:min(len(c.Ancestry), MaxAncestry)])
	for i := range c.Ancestry {
		c.Ancestry[i].clip(limit)
	}
	c.Conditions = slices.Clone(c.Conditions[:min(len(c.Conditions), MaxAlertConditions)])
	for i := range c.Conditions {
		k := &c.Conditions[i]
		for _, s := range []*string{&k.Field, &k.Modifier, &k.Value} {
			*s = clip(*s, min(limit, maxCondition))
		}
	}
	c.Behaviors = slices.Clone(c.Behaviors[:min(len(c.Behaviors), MaxAlertBehaviors)])
	for i := range c.Behaviors {
		b := &c.Behaviors[i]
		b.Time = within(b.Time)
		trim(&b.ID, &b.Action, &b.Description, &b.CommandLine)
		b.Techniques = slices.Clone(b.Techniques[:min(len(b.Techniques), MaxTechniques)])
		for k := range b.Techniques {
			trim(&b.Techniques[k])
		}
	}
	if c.Event != nil {
		e := *c.Event
		e.clip(limit)
		c.Event = &e
	}
	return c
}

func (e *Event) clip(limit int) {
	e.Time = within(e.Time)
	e.Action = clip(e.Action, limit)
	e.Process.clip(limit)
	e.Initiating.clip(limit)
	e.File.clip(limit)
	for _, s := range []*string{
		&e.Network.RemoteIP, &e.Network.RemoteURL, &e.Network.LocalIP, &e.Network.Protocol,
		&e.Logon.Type, &e.Logon.AccountName, &e.Logon.Protocol, &e.Logon.FailureReason, &e.Logon.RemoteIP, &e.Logon.RemoteDevice,
	} {
		*s = clip(*s, limit)
	}
	if len(e.Additional) == 0 {
		return
	}
	kept := make(map[string]string, min(len(e.Additional), MaxAdditional))
	keys := make([]string, 0, len(e.Additional))
	for k := range e.Additional {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys[:min(len(keys), MaxAdditional)] {
		kept[clip(k, limit)] = clip(e.Additional[k], limit)
	}
	e.Additional = kept
}

func (p *Process) clip(limit int) {
	p.StartTime, p.ParentStartTime = within(p.StartTime), within(p.ParentStartTime)
	for _, s := range []*string{
		&p.FileName, &p.FolderPath, &p.CommandLine, &p.WorkingDir, &p.SHA1, &p.SHA256, &p.MD5,
		&p.AccountName, &p.LoginName, &p.Terminal, &p.ContainerID, &p.ParentFileName,
	} {
		*s = clip(*s, limit)
	}
}

func (f *File) clip(limit int) {
	for _, s := range []*string{&f.FileName, &f.FolderPath, &f.PreviousFileName, &f.PreviousFolderPath, &f.SHA1, &f.SHA256, &f.MD5} {
		*s = clip(*s, limit)
	}
}

// within returns t in UTC, or the zero time when it is out of the range of the
// wire encoding (JSON could not carry it either).
func within(t time.Time) time.Time {
	if t.IsZero() || t.Before(firstTime) || t.After(lastTime) {
		return time.Time{}
	}
	return t.UTC()
}
