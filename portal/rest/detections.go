package rest

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// detectionRule is the detectionRule of the reference product's Graph API
// (microsoft.graph.security.detectionRule), with members of our own: lookback,
// suppressHours, alertCount and the counts of the last run.
type detectionRule struct {
	ID              string           `json:"id"`
	DetectorID      string           `json:"detectorId"`
	DisplayName     string           `json:"displayName"`
	IsEnabled       bool             `json:"isEnabled"`
	CreatedBy       string           `json:"createdBy"`
	CreatedTime     time.Time        `json:"createdDateTime"`
	LastModifiedBy  string           `json:"lastModifiedBy"`
	LastModified    time.Time        `json:"lastModifiedDateTime"`
	QueryCondition  queryCondition   `json:"queryCondition"`
	Schedule        ruleSchedule     `json:"schedule"`
	DetectionAction detectionAction  `json:"detectionAction"`
	LastRun         *lastRunDetails  `json:"lastRunDetails"`
	AlertCount      int              `json:"alertCount"`
	Failures        int              `json:"consecutiveFailures"`
	Runs            []lastRunDetails `json:"runs,omitempty"`
}

type queryCondition struct {
	QueryText string `json:"queryText"`
}

type ruleSchedule struct {
	// Period is 5M, 15M, 30M, 1H, 3H, 12H or 24H.
	Period  string     `json:"period"`
	NextRun *time.Time `json:"nextRunDateTime,omitempty"`
	// LookbackHours is how far back a run reads; the usual of the period when 0.
	LookbackHours float64 `json:"lookbackHours,omitempty"`
}

type detectionAction struct {
	AlertTemplate   alertTemplate    `json:"alertTemplate"`
	ResponseActions []responseAction `json:"responseActions"`
	// SuppressHours makes one alert per device in that many hours; 0 one for each
	// row.
	SuppressHours float64 `json:"suppressHours"`
}

type alertTemplate struct {
	Title              string   `json:"title"`
	Description        string   `json:"description"`
	RecommendedActions string   `json:"recommendedActions"`
	Severity           string   `json:"severity"`
	Category           string   `json:"category"`
	MitreTechniques    []string `json:"mitreTechniques"`
}

type responseAction struct {
	// Type is scan or isolate.
	Type string `json:"type"`
}

type lastRunDetails struct {
	Time          time.Time `json:"lastRunDateTime"`
	Status        string    `json:"status"` // completed, partiallyCompleted or failed
	FailureReason string    `json:"failureReason"`
	Seconds       float64   `json:"durationSeconds"`
	Rows          int       `json:"rowCount"`
	NewAlerts     int       `json:"newAlerts"`
	Known         int       `json:"knownAlerts"`
	Orders        int       `json:"orders"`
}

func toRun(r detection.Run) lastRunDetails {
	status := map[string]string{"Succeeded": "completed", "Partly": "partiallyCompleted", "Failed": "failed"}[r.Status()]
	return lastRunDetails{r.Started, status, r.Failure, r.Took.Seconds(), r.Rows, r.New, r.Known, r.Orders}
}

func toDetectionRule(r detection.Rule) detectionRule {
	period, _ := detection.PeriodOf(r.Every)
	out := detectionRule{
		ID: r.ID, DetectorID: r.ID, DisplayName: r.Name, IsEnabled: r.Enabled, CreatedBy: r.CreatedBy, CreatedTime: r.Created, LastModifiedBy: r.UpdatedBy,
		LastModified: r.Updated, QueryCondition: queryCondition{r.Query}, Schedule: ruleSchedule{Period: period.Name, LookbackHours: r.Lookback.Hours()},
		DetectionAction: detectionAction{
			AlertTemplate:   alertTemplate{r.Title, r.Description, r.Recommended, strings.ToLower(string(r.Severity)), r.Category, append([]string{}, r.Techniques...)},
			ResponseActions: []responseAction{},
		},
		AlertCount: r.Alerts, Failures: r.Failures,
	}
	if r.Enabled {
		out.Schedule.NextRun = &r.Next
	}
	if r.PerDevice {
		out.DetectionAction.SuppressHours = r.Suppress.Hours()
	}
	if r.Action != detection.ActionNone {
		out.DetectionAction.ResponseActions = []responseAction{{r.Action}}
	}
	if !r.Last.Started.IsZero() {
		last := toRun(r.Last)
		out.LastRun = &last
	}
	return out
}

// detectionBody is what a program writes. Members that a PATCH does not have
// stay.
type detectionBody struct {
	DisplayName     *string         `json:"displayName"`
	IsEnabled       *bool           `json:"isEnabled"`
	QueryCondition  *queryCondition `json:"queryCondition"`
	Schedule        *ruleSchedule   `json:"schedule"`
	DetectionAction *struct {
		AlertTemplate   *alertTemplate    `json:"alertTemplate"`
		ResponseActions *[]responseAction `json:"responseActions"`
		SuppressHours   *float64          `json:"suppressHours"`
	} `json:"detectionAction"`
}

// maxHours keeps a number of hours from overflowing a duration.
const maxHours = 24 * 365

func hours(h float64) time.Duration {
	return time.Duration(max(0, min(h, maxHours)) * float64(time.Hour)).Truncate(time.Second)
}

func (b detectionBody) apply(r *detection.Rule) error {
	if b.DisplayName != nil {
		r.Name = *b.DisplayName
	}
	if b.IsEnabled != nil {
		r.Enabled = *b.IsEnabled
	}
	if b.QueryCondition != nil {
		r.Query = b.QueryCondition.QueryText
	}
	if b.Schedule != nil {
		r.Every = 0
		for _, p := range detection.Periods() {
			if strings.EqualFold(p.Name, b.Schedule.Period) {
				r.Every, r.Lookback = p.Every, p.Lookback
			}
		}
		if r.Every == 0 {
			return bad("period", "period is one of 5M, 15M, 30M, 1H, 3H, 12H, 24H, not %.16q", b.Schedule.Period)
		}
		if b.Schedule.LookbackHours != 0 {
			r.Lookback = hours(b.Schedule.LookbackHours)
		}
	}
	if b.DetectionAction == nil {
		return nil
	}
	if t := b.DetectionAction.AlertTemplate; t != nil {
		r.Title, r.Description, r.Recommended, r.Category, r.Techniques = t.Title, t.Description, t.RecommendedActions, t.Category, t.MitreTechniques
		r.Severity = event.Severity(upperFirst(t.Severity))
	}
	if list := b.DetectionAction.ResponseActions; list != nil {
		switch len(*list) {
		case 0:
			r.Action = detection.ActionNone
		case 1:
			r.Action = (*list)[0].Type
		default:
			return bad("responseActions", "a custom detection has at most one action")
		}
	}
	if h := b.DetectionAction.SuppressHours; h != nil {
		r.PerDevice, r.Suppress = *h > 0, hours(*h)
	}
	return nil
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (a *API) detections(w http.ResponseWriter, r *http.Request) error {
	list, err := a.cfg.Detections.List(r.Context())
	if err != nil {
		return err
	}
	values := make([]detectionRule, len(list))
	for i, d := range list {
		values[i] = toDetectionRule(d)
	}
	a.write(w, http.StatusOK, map[string]any{"value": values})
	return nil
}

func (a *API) detection(w http.ResponseWriter, r *http.Request) error {
	d, err := a.cfg.Detections.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	runs, err := a.cfg.Detections.Runs(r.Context(), d.ID)
	if err != nil {
		return err
	}
	out := toDetectionRule(d)
	for _, run := range runs {
		out.Runs = append(out.Runs, toRun(run))
	}
	a.write(w, http.StatusOK, out)
	return nil
}

func (a *API) createDetection(w http.ResponseWriter, r *http.Request) error {
	return a.putDetection(w, r, detection.Rule{Enabled: true}, http.StatusCreated)
}

func (a *API) updateDetection(w http.ResponseWriter, r *http.Request) error {
	d, err := a.cfg.Detections.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return a.putDetection(w, r, d, http.StatusOK)
}

func (a *API) putDetection(w http.ResponseWriter, r *http.Request, d detection.Rule, status int) error {
	var body detectionBody
	if err := readUpTo(maxQuery, w, r, &body); err != nil {
		return err
	}
	if err := body.apply(&d); err != nil {
		return err
	}
	kept, err := a.cfg.Detections.Put(r.Context(), d, access.From(r.Context()))
	var wrong *kql.Error
	if errors.As(err, &wrong) {
		line, column := kql.LineColumn(d.Query, wrong.Pos)
		return bad("queryText", "line %d, column %d: %s", line, column, wrong.Error())
	}
	if err != nil {
		return err
	}
	a.write(w, status, toDetectionRule(kept))
	return nil
}

func (a *API) deleteDetection(w http.ResponseWriter, r *http.Request) error {
	if err := a.cfg.Detections.Delete(r.Context(), r.PathValue("id"), access.From(r.Context())); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
