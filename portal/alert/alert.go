// Package alert keeps what somebody should look at: the alerts that devices
// raised, and what people did about them.
package alert

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Errors.
var (
	ErrNotFound = errors.New("there is no such alert")
	// ErrOwned means that another device has raised an alert of this id.
	ErrOwned = errors.New("the alert id belongs to another device")
)

// Invalid is a change that cannot be made; Target names the member.
type Invalid struct{ Target, Message string }

// Error says what is wrong.
func (e *Invalid) Error() string { return e.Message }

// Status of an alert.
const (
	New        = "New"
	InProgress = "InProgress"
	Resolved   = "Resolved"
)

// Statuses returns the values of Alert.Status, in the order in which a form
// offers them.
func Statuses() []string { return []string{New, InProgress, Resolved} }

// Classifications returns the values of Alert.Classification besides "".
func Classifications() []string {
	return []string{"TruePositive", "InformationalExpectedActivity", "FalsePositive"}
}

// Determinations returns the values of Alert.Determination besides "".
func Determinations() []string {
	return []string{
		"MultiStagedAttack", "MaliciousUserActivity", "CompromisedUser", "Malware", "Phishing",
		"UnwantedSoftware", "SecurityTesting", "LineOfBusinessApplication", "ConfirmedUserActivity", "Clean",
		"InsufficientData", "Other",
	}
}

// Severities returns the values of event.Severity, the gravest first.
func Severities() []string {
	return []string{string(event.SeverityHigh), string(event.SeverityMedium), string(event.SeverityLow), string(event.SeverityInformational)}
}

// Alert is a detection and its handling.
type Alert struct {
	// Detection is what the device reported. It never changes.
	Detection  event.Alert
	DeviceID   string
	DeviceName string // host name when the alert arrived
	// Received is when the portal stored the alert first, Updated when
	// somebody last changed it.
	Received time.Time
	Updated  time.Time
	Resolved time.Time // zero while open

	Status         string
	AssignedTo     string
	Classification string
	Determination  string
	// IncidentID is the incident that it belongs to; 0 for none.
	IncidentID int64
	// Comments, oldest first; filled by Store.Alert, not in lists.
	Comments []Comment
}

// Comment of a person or of the portal itself.
type Comment struct {
	Author string
	Time   time.Time
	Text   string
}

// Change is what one request changes; nil members stay.
type Change struct {
	Status         *string
	AssignedTo     *string
	Classification *string
	Determination  *string
	Comment        string
}

// Limits of what people write, in bytes.
const (
	MaxComment  = 4000
	MaxAssignee = 200
)

// Fields are what alerts can be filtered and ordered by, by their REST names.
func Fields() query.Schema {
	return query.Schema{
		"id": query.String, "title": query.String, "severity": query.String, "status": query.String,
		"category": query.String, "detectionSource": query.String, "detectorId": query.String,
		"threatName": query.String, "threatFamilyName": query.String, "assignedTo": query.String,
		"classification": query.String, "determination": query.String, "machineId": query.String,
		"computerDnsName": query.String, "alertCreationTime": query.Time, "firstEventTime": query.Time,
		"lastEventTime": query.Time, "lastUpdateTime": query.Time, "resolvedTime": query.Time,
		"incidentId": query.Int, "investigationId": query.Int, "fileName": query.String, "filePath": query.String,
		"sha256": query.String, "action": query.String, "mitreTechniques": query.Collection,
	}
}

// Open is the filter for alerts that nobody has resolved.
func Open() query.Expr {
	return query.Compare{Field: "status", Op: query.Ne, Value: Resolved}
}

// Arrival says when an alert of a self-test was stored.
type Arrival struct {
	AlertID string
	Source  string
	Arrived time.Time
}

// MaxDetectors bounds the groups of Store.AlertsByDetector.
const MaxDetectors = 5000

// Threat is a file that was recognised, over the whole fleet.
type Threat struct {
	Name, Family, SHA256 string
	// Path is where it was seen last, FileName its name there.
	Path, FileName string
	Alerts, Open   int
	Devices        int
	// Quarantined counts the alerts whose file was taken away, Allowed those whose
	// file was left.
	Quarantined, Allowed int
	First, Last          time.Time
}

// DetectorCount is how often something detected.
type DetectorCount struct {
	DetectorID string
	Source     string
	Techniques []string
	Count      int
	Open       int // of them not resolved
	False      int // of them classified as false positives
	Devices    int
	Last       time.Time
}

// Store keeps alerts. Implementations are safe for concurrent use.
type Store interface {
	// AddAlert stores an alert unless one with its id is there; it reports
	// whether it was new, and ErrOwned when the id is another device's.
	AddAlert(ctx context.Context, a Alert) (bool, error)
	// Alert returns the alert with its comments, or ErrNotFound.
	Alert(ctx context.Context, id string) (Alert, error)
	// KnownAlerts returns those of the ids that alerts have.
	KnownAlerts(ctx context.Context, ids []string) ([]string, error)
	// Alerts returns the page and, when asked, the number of all that match.
	Alerts(ctx context.Context, q query.Query) ([]Alert, int, error)
	// UpdateAlert changes the handling, adds the comment if there is one, and
	// writes the audit entry, all or nothing.
	UpdateAlert(ctx context.Context, id string, c Change, by, address string, at time.Time) (Alert, error)
	// OpenAlertCounts returns the number of alerts that are not resolved by
	// severity.
	OpenAlertCounts(ctx context.Context) (map[string]int, error)
	// AlertsPerDay counts alerts by UTC day since the given time.
	AlertsPerDay(ctx context.Context, since time.Time) (map[time.Time]int, error)
	// AlertsByDetector counts alerts since the given time, self-tests excepted, by
	// detector and techniques; the most frequent first, at most MaxDetectors.
	AlertsByDetector(ctx context.Context, since time.Time) ([]DetectorCount, error)
	// Threats groups the alerts since the given time that name a threat by its name
	// and the file's SHA-256; the last seen first, at most limit. A text restricts
	// them to names, hashes, paths and devices that contain it.
	Threats(ctx context.Context, since time.Time, text string, limit int) ([]Threat, error)
	// SelfTestAlerts returns the arrivals of a device's self-test.
	SelfTestAlerts(ctx context.Context, deviceID, testID string) ([]Arrival, error)
	// RemoveSelfTestAlerts removes them; with an empty deviceID, those of all
	// self-tests that arrived before the given time.
	RemoveSelfTestAlerts(ctx context.Context, deviceID, testID string, before time.Time) (int, error)
}

// Service is the alert handling.
type Service struct {
	store Store
	now   func() time.Time
}

// NewService makes the alert handling over a store; now is time.Now outside of
// tests.
func NewService(store Store, now func() time.Time) *Service { return &Service{store, now} }

// Accept stores the alert that a device delivered and reports whether it was
// new. The detection is kept as the device sent it, within the limits of
// event.EncodeAlert; whoever shows it makes it safe to look at.
func (s *Service) Accept(ctx context.Context, deviceID, deviceName string, d event.Alert, received time.Time) (bool, error) {
	if _, err := event.EncodeAlert(&d); err != nil {
		return false, &Invalid{"alert", err.Error()}
	}
	return s.store.AddAlert(ctx, Alert{
		Detection: d, DeviceID: deviceID, DeviceName: inventory.Clean(deviceName, 255),
		Received: received, Updated: received, Status: New,
	})
}

// Get returns the alert with its comments, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (Alert, error) {
	if !validID(id) {
		return Alert{}, ErrNotFound
	}
	return s.store.Alert(ctx, strings.ToLower(id))
}

// Known tells which of the ids (in lower case) alerts have.
func (s *Service) Known(ctx context.Context, ids []string) (map[string]bool, error) {
	list, err := s.store.KnownAlerts(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool, len(list))
	for _, id := range list {
		out[id] = true
	}
	return out, nil
}

// List returns a page of alerts and, when asked, how many match in all.
func (s *Service) List(ctx context.Context, q query.Query) ([]Alert, int, error) {
	if err := Fields().Check(q); err != nil {
		return nil, 0, err
	}
	return s.store.Alerts(ctx, q)
}

// Update changes the handling of an alert. The error is an *Invalid for values
// that are not allowed.
func (s *Service) Update(ctx context.Context, id string, c Change, by, address string) (Alert, error) {
	if !validID(id) {
		return Alert{}, ErrNotFound
	}
	if err := oneOf("status", c.Status, Statuses(), false); err != nil {
		return Alert{}, err
	}
	if err := oneOf("classification", c.Classification, Classifications(), true); err != nil {
		return Alert{}, err
	}
	if err := oneOf("determination", c.Determination, Determinations(), true); err != nil {
		return Alert{}, err
	}
	if c.AssignedTo != nil {
		a := strings.TrimSpace(*c.AssignedTo)
		if len(a) > MaxAssignee || inventory.Clean(a, MaxAssignee) != a {
			return Alert{}, &Invalid{"assignedTo", fmt.Sprintf("assignedTo is printable text of at most %d bytes", MaxAssignee)}
		}
		c.AssignedTo = &a
	}
	c.Comment = strings.TrimSpace(strings.ReplaceAll(c.Comment, "\r\n", "\n"))
	if len(c.Comment) > MaxComment {
		return Alert{}, &Invalid{"comment", fmt.Sprintf("a comment is at most %d bytes, this one has %d", MaxComment, len(c.Comment))}
	}
	lines := strings.Split(c.Comment, "\n")
	for i, l := range lines {
		lines[i] = inventory.Clean(l, MaxComment)
	}
	c.Comment = strings.Join(lines, "\n")
	if c.Status == nil && c.AssignedTo == nil && c.Classification == nil && c.Determination == nil && c.Comment == "" {
		return Alert{}, &Invalid{"", "nothing to change: give status, assignedTo, classification, determination or comment"}
	}
	return s.store.UpdateAlert(ctx, strings.ToLower(id), c, by, address, s.now())
}

// OpenCounts returns the number of open alerts by severity.
func (s *Service) OpenCounts(ctx context.Context) (map[string]int, error) {
	return s.store.OpenAlertCounts(ctx)
}

// Threats lists what was recognised within the last days.
func (s *Service) Threats(ctx context.Context, days int, text string, limit int) ([]Threat, error) {
	return s.store.Threats(ctx, s.now().AddDate(0, 0, -days), text, limit)
}

// ByDetector counts the alerts of the last days by what raised them.
func (s *Service) ByDetector(ctx context.Context, days int) ([]DetectorCount, error) {
	return s.store.AlertsByDetector(ctx, s.now().AddDate(0, 0, -days))
}

// PerDay returns the number of alerts of each of the last days, oldest first,
// today last.
func (s *Service) PerDay(ctx context.Context, days int) ([]DayCount, error) {
	today := s.now().UTC().Truncate(24 * time.Hour)
	since := today.AddDate(0, 0, -(days - 1))
	counts, err := s.store.AlertsPerDay(ctx, since)
	if err != nil {
		return nil, err
	}
	out := make([]DayCount, 0, days)
	for i := range days {
		day := since.AddDate(0, 0, i)
		out = append(out, DayCount{day, counts[day]})
	}
	return out, nil
}

// DayCount is the number of alerts of one UTC day.
type DayCount struct {
	Day   time.Time
	Count int
}

// FinishSelfTest returns the alerts of a device's self-test that have arrived
// and removes them when asked.
func (s *Service) FinishSelfTest(ctx context.Context, deviceID, testID string, remove bool) ([]Arrival, error) {
	arrivals, err := s.store.SelfTestAlerts(ctx, deviceID, testID)
	if err != nil || !remove || len(arrivals) == 0 {
		return arrivals, err
	}
	_, err = s.store.RemoveSelfTestAlerts(ctx, deviceID, testID, time.Time{})
	return arrivals, err
}

// SelfTestLeftovers is how long the alerts of a self-test that never finished
// stay.
const SelfTestLeftovers = time.Hour

// Sweep removes the alerts of self-tests that never finished.
func (s *Service) Sweep(ctx context.Context) (int, error) {
	return s.store.RemoveSelfTestAlerts(ctx, "", "", s.now().Add(-SelfTestLeftovers))
}

func oneOf(target string, v *string, allowed []string, emptyToo bool) error {
	if v == nil || (emptyToo && *v == "") {
		return nil
	}
	for _, a := range allowed {
		if strings.EqualFold(a, *v) {
			*v = a
			return nil
		}
	}
	return &Invalid{target, fmt.Sprintf("%s cannot be %.64q: one of %s", target, *v, strings.Join(allowed, ", "))}
}

func validID(id string) bool {
	if len(id) != 32 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
