// Package detection runs custom detections: hunting queries of the organisation
// that the portal runs on a schedule over the events that arrived, and whose rows
// become alerts. Rules of behaviour that the devices themselves evaluate are in
// content/rules and package agent/detect.
package detection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// Source is the detection source of the alerts of custom detections.
const Source = "CustomDetection"

// Limits.
const (
	MaxRules       = 500
	MaxName        = 150 // bytes
	MaxText        = 4000
	MaxTechniques  = event.MaxTechniques
	MaxLookback    = 30 * 24 * time.Hour
	MaxSuppression = 7 * 24 * time.Hour
	// MaxAlerts is how many alerts one run may raise: a query that matches
	// everything must not bury the others.
	MaxAlerts = 100
	// MaxOrders is how many devices one run may give orders to.
	MaxOrders = 10
	// MaxRows is how many rows of a run are read.
	MaxRows = 2000
	// Timeout of the query of one run.
	Timeout = time.Minute
	// MaxRun is how long a run may take that somebody asks for: its query, that for
	// the evidence, and the orders.
	MaxRun = 3 * Timeout
	// MaxCatchUps is how many runs in a row may fail that read further back than
	// the lookback, before that is given up: a period that is too long for one
	// query must not stop the rule for ever.
	MaxCatchUps = 3
	// KeptRuns is how many runs of a rule are remembered.
	KeptRuns = 200
)

// Actions of a rule besides the alert.
const (
	ActionNone    = "none"
	ActionScan    = "scan"    // a quick antivirus scan of the device
	ActionIsolate = "isolate" // cut the device off
)

// Actions returns the values of Rule.Action.
func Actions() []string { return []string{ActionNone, ActionScan, ActionIsolate} }

// Periods returns how often a rule may run, and the usual lookback of each.
func Periods() []Period {
	return []Period{
		{5 * time.Minute, time.Hour, "5M"},
		{15 * time.Minute, time.Hour, "15M"},
		{30 * time.Minute, 2 * time.Hour, "30M"},
		{time.Hour, 4 * time.Hour, "1H"},
		{3 * time.Hour, 12 * time.Hour, "3H"},
		{12 * time.Hour, 48 * time.Hour, "12H"},
		{24 * time.Hour, MaxLookback, "24H"},
	}
}

// Period of a schedule.
type Period struct {
	Every, Lookback time.Duration
	// Name as the API writes it.
	Name string
}

// PeriodOf finds a period by how often it runs.
func PeriodOf(every time.Duration) (Period, bool) {
	for _, p := range Periods() {
		if p.Every == every {
			return p, true
		}
	}
	return Period{}, false
}

// Errors.
var (
	ErrNotFound = errors.New("there is no such custom detection")
	// ErrConflict means that somebody else has changed the rule since it was read.
	ErrConflict = errors.New("somebody else has changed the custom detection in the meantime: load it again")
	ErrTooMany  = errors.New("there are too many custom detections: delete some")
)

// Invalid is a rule that cannot be kept; Target names the member.
type Invalid struct{ Target, Message string }

func (e *Invalid) Error() string { return e.Message }

func invalid(target, format string, args ...any) error {
	return &Invalid{target, fmt.Sprintf(format, args...)}
}

// Rule is a custom detection.
type Rule struct {
	ID      string // 32 hex digits
	Version int    // grows with each change
	Name    string
	Enabled bool
	Query   string
	// Every is how often it runs, Lookback how far back each run reads, by when
	// events arrived at the portal. Runs overlap, so that an event is seen
	// together with what came before it; each raises its alert once.
	Every, Lookback time.Duration

	Title       string // of the alerts
	Description string
	Recommended string // what to do about one
	Severity    event.Severity
	Category    string
	Techniques  []string
	// PerDevice raises one alert of a device within Suppress, zero one for each
	// row.
	PerDevice bool
	Suppress  time.Duration
	Action    string

	Created, Updated     time.Time
	CreatedBy, UpdatedBy string

	// Next is when the rule runs next; Last how the last run went.
	Next time.Time
	Last Run
	// Covered is the start of the last run that did not fail, or when the rule was
	// enabled after that: the next run need not look at what arrived earlier,
	// except for its lookback.
	Covered  time.Time
	Failures int // runs that failed in a row
	Alerts   int // raised since the rule exists
}

// Run is one execution of a rule.
type Run struct {
	Started time.Time // zero for none
	Took    time.Duration
	// Since is how far back it read.
	Since time.Time
	Rows  int
	// New alerts; Known rows whose alert was there already.
	New, Known int
	// Orders that were given to devices.
	Orders int
	// Failure says why it failed, or what was left out with Partly.
	Failure string
	Partly  bool
}

// Status in a word: Succeeded, Partly, Failed, or empty for none.
func (r Run) Status() string {
	switch {
	case r.Started.IsZero():
		return ""
	case r.Failure == "":
		return "Succeeded"
	case r.Partly:
		return "Partly"
	}
	return "Failed"
}

// Note is the audit entry of a change.
type Note struct {
	Time                   time.Time
	Actor, Address, Detail string
}

// Store keeps rules and their runs. Implementations are safe for concurrent use.
type Store interface {
	Rules(ctx context.Context) ([]Rule, error)
	// Rule returns one, or ErrNotFound.
	Rule(ctx context.Context, id string) (Rule, error)
	// PutRule adds a rule of version 1, or replaces that of the version before
	// (ErrConflict when it is another), with the audit entry. Last, Failures and
	// Alerts stay as they are; Covered only grows.
	PutRule(ctx context.Context, r Rule, n Note) error
	DeleteRule(ctx context.Context, id string, n Note) error
	// AddRun stores a run, when the next one is due, and forgets all but the
	// newest keep. Unless the run failed, Covered grows to its start.
	AddRun(ctx context.Context, id string, run Run, next time.Time, keep int) error
	// Postpone moves the next run.
	Postpone(ctx context.Context, id string, next time.Time) error
	// Runs returns the runs of a rule, newest first.
	Runs(ctx context.Context, id string, limit int) ([]Run, error)
	// Exclusive runs a job unless another portal with the same store runs one of
	// that name, and says whether it did.
	Exclusive(ctx context.Context, name string, job func(context.Context) error) (ran bool, err error)
}

// check makes a rule fit to be kept, or says what is wrong with it.
func (r *Rule) check() error {
	r.Name, r.Title = strings.TrimSpace(r.Name), strings.TrimSpace(r.Title)
	r.Query = strings.ReplaceAll(r.Query, "\r\n", "\n")
	if r.Title == "" {
		r.Title = r.Name
	}
	if r.Action == "" {
		r.Action = ActionNone
	}
	for _, x := range []struct {
		target, value string
		limit         int
	}{{"displayName", r.Name, MaxName}, {"title", r.Title, MaxName}, {"description", r.Description, MaxText}, {"recommendedActions", r.Recommended, MaxText}, {"category", r.Category, 64}} {
		if len(x.value) > x.limit {
			return invalid(x.target, "%s is longer than %d bytes", x.target, x.limit)
		}
		if !utf8.ValidString(x.value) || strings.ContainsRune(x.value, 0) {
			return invalid(x.target, "%s is not text in UTF-8", x.target)
		}
	}
	period, ok := PeriodOf(r.Every)
	if r.Lookback == 0 {
		r.Lookback = period.Lookback
	}
	switch {
	case r.Name == "":
		return invalid("displayName", "a custom detection needs a name")
	case strings.TrimSpace(r.Query) == "" || len(r.Query) > kql.MaxBytes:
		return invalid("queryText", "the query is empty or longer than %d KiB", kql.MaxBytes>>10)
	case !ok:
		return invalid("period", "a custom detection runs every 5, 15 or 30 minutes, or 1, 3, 12 or 24 hours")
	case r.Lookback < r.Every || r.Lookback > MaxLookback:
		return invalid("lookback", "the lookback is at least the time between runs and at most 30 days")
	case !slices.Contains(alert.Severities(), string(r.Severity)):
		return invalid("severity", "severity is one of %s", strings.Join(alert.Severities(), ", "))
	case r.Category == "":
		return invalid("category", "a category is needed: an ATT&CK tactic, Malware, SuspiciousActivity or another")
	case !slices.Contains(Actions(), r.Action):
		return invalid("responseActions", "the action is one of %s", strings.Join(Actions(), ", "))
	case r.Suppress < 0 || r.Suppress > MaxSuppression:
		return invalid("suppress", "alerts of a device can be suppressed for up to 7 days")
	case r.PerDevice && r.Suppress < time.Hour:
		return invalid("suppress", "one alert per device needs the hours that it stands for: 1 to 168")
	case len(r.Techniques) > MaxTechniques:
		return invalid("mitreTechniques", "at most %d techniques", MaxTechniques)
	}
	for i, t := range r.Techniques {
		r.Techniques[i] = strings.ToUpper(strings.TrimSpace(t))
		if !Technique(r.Techniques[i]) {
			return invalid("mitreTechniques", "%.32q is no ATT&CK technique: they are written T1059 or T1059.004", t)
		}
	}
	return nil
}

// Technique reports whether a text is the id of an ATT&CK technique.
func Technique(s string) bool {
	if len(s) != 5 && len(s) != 9 || s[0] != 'T' {
		return false
	}
	for i, c := range s[1:] {
		if i == 4 {
			if c != '.' {
				return false
			}
		} else if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// required are the columns that a row needs to become an alert: they name the
// event. The reference product asks for the same.
var required = []struct {
	name string
	typ  hunting.Type
}{{"Timestamp", hunting.DateTime}, {"DeviceId", hunting.String}, {"ReportId", hunting.Long}}

// checkColumns says what is missing of a result.
func checkColumns(columns []hunting.Column) error {
	for _, want := range required {
		i := slices.IndexFunc(columns, func(c hunting.Column) bool { return c.Name == want.name })
		if i < 0 {
			return invalid("queryText", "the result has no column %s: a row needs Timestamp, DeviceId and ReportId of the event that it is about. After summarize, keep them with: summarize arg_max(Timestamp, ReportId), ... by DeviceId", want.name)
		}
		if got := columns[i].Type; got != want.typ && (want.typ != hunting.Long || got != hunting.Int) {
			return invalid("queryText", "the column %s is a %s, not a %s", want.name, got, want.typ)
		}
	}
	return nil
}
