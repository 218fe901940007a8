package rest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/indicator"
)

// maxImport is the largest body with a batch of indicators.
const maxImport = 2 << 20

// indicatorObject is the Indicator of the API.
type indicatorObject struct {
	ID                   string     `json:"id"`
	IndicatorValue       string     `json:"indicatorValue"`
	IndicatorType        string     `json:"indicatorType"`
	Action               string     `json:"action"`
	Application          *string    `json:"application"`
	Source               string     `json:"source"`
	SourceType           string     `json:"sourceType"`
	CreatedBySource      string     `json:"createdBySource"`
	CreatedBy            string     `json:"createdBy"`
	CreatedByDisplayName string     `json:"createdByDisplayName"`
	LastUpdatedBy        string     `json:"lastUpdatedBy"`
	Title                string     `json:"title"`
	Description          string     `json:"description"`
	Severity             string     `json:"severity"`
	RecommendedActions   *string    `json:"recommendedActions"`
	EducateURL           *string    `json:"educateUrl"`
	GenerateAlert        bool       `json:"generateAlert"`
	ExpirationTime       *time.Time `json:"expirationTime"`
	CreationTime         time.Time  `json:"creationTimeDateTimeUtc"`
	LastUpdateTime       time.Time  `json:"lastUpdateTime"`
	RBACGroupNames       []string   `json:"rbacGroupNames"`
	RBACGroupIDs         []string   `json:"rbacGroupIds"`
}

func toIndicator(i *indicator.Indicator, groups []fleet.Group) indicatorObject {
	return indicatorObject{
		ID: strconv.FormatInt(i.ID, 10), IndicatorValue: i.Value, IndicatorType: i.Type, Action: i.Action, Application: present(i.Application),
		Source: i.Source, SourceType: i.Source, CreatedBySource: i.CreatedBy, CreatedBy: i.CreatedBy, CreatedByDisplayName: i.CreatedBy,
		LastUpdatedBy: i.UpdatedBy, Title: i.Title, Description: i.Description, Severity: i.Severity, RecommendedActions: present(i.Recommended),
		EducateURL: present(i.EducateURL), GenerateAlert: i.Alerts, ExpirationTime: moment(i.Expires), CreationTime: i.Created, LastUpdateTime: i.Updated,
		RBACGroupNames: indicator.GroupNames(i.Groups, groups), RBACGroupIDs: append([]string{}, i.Groups...),
	}
}

// indicatorBody is what a program submits.
type indicatorBody struct {
	IndicatorValue     string     `json:"indicatorValue"`
	IndicatorType      string     `json:"indicatorType"`
	Action             string     `json:"action"`
	Title              string     `json:"title"`
	Description        string     `json:"description"`
	Application        string     `json:"application"`
	ExpirationTime     *time.Time `json:"expirationTime"`
	Severity           string     `json:"severity"`
	RecommendedActions string     `json:"recommendedActions"`
	RBACGroupNames     []string   `json:"rbacGroupNames"`
	EducateURL         string     `json:"educateUrl"`
	GenerateAlert      *bool      `json:"generateAlert"`
}

func (b *indicatorBody) indicator() indicator.Indicator {
	i := indicator.Indicator{
		Type: b.IndicatorType, Value: b.IndicatorValue, Action: b.Action, Title: b.Title, Description: b.Description, Application: b.Application,
		Severity: b.Severity, Recommended: b.RecommendedActions, Groups: b.RBACGroupNames, EducateURL: b.EducateURL,
		Alerts: b.GenerateAlert == nil || *b.GenerateAlert,
	}
	if b.ExpirationTime != nil {
		i.Expires = *b.ExpirationTime
	}
	return i
}

func who(r *http.Request) indicator.Who {
	p := access.From(r.Context())
	source := indicator.SourceUser
	if p.Kind == "token" {
		source = indicator.SourceProgram
	}
	return indicator.Who{Name: p.Name, Source: source, Address: p.Address}
}

func (a *API) indicators(w http.ResponseWriter, r *http.Request) error {
	o, err := parse(r, indicator.Fields())
	if err != nil {
		return err
	}
	list, count, err := a.cfg.Indicators.List(r.Context(), o.Query)
	if err != nil {
		return err
	}
	groups, err := a.cfg.Fleet.Groups(r.Context())
	if err != nil {
		return err
	}
	values := make([]indicatorObject, len(list))
	for n := range list {
		values[n] = toIndicator(&list[n], groups)
	}
	a.write(w, http.StatusOK, newPage(r, "Indicators", o.Query, values, len(values), count))
	return nil
}

func (a *API) writeIndicator(w http.ResponseWriter, r *http.Request, i indicator.Indicator) error {
	groups, err := a.cfg.Fleet.Groups(r.Context())
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, toIndicator(&i, groups))
	return nil
}

func (a *API) indicator(w http.ResponseWriter, r *http.Request) error {
	i, err := a.cfg.Indicators.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return a.writeIndicator(w, r, i)
}

// putIndicator adds an indicator, or replaces the one of its type and value.
func (a *API) putIndicator(w http.ResponseWriter, r *http.Request) error {
	var body indicatorBody
	if err := read(w, r, &body); err != nil {
		return err
	}
	i, err := a.cfg.Indicators.Put(r.Context(), body.indicator(), who(r))
	if err != nil {
		return err
	}
	return a.writeIndicator(w, r, i)
}

// importResult is what became of one indicator of a batch.
type importResult struct {
	ID            *string `json:"id"`
	Indicator     string  `json:"indicator"`
	IsFailed      bool    `json:"isFailed"`
	FailureReason *string `json:"failureReason"`
}

func (a *API) importIndicators(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Indicators []indicatorBody }
	if err := readUpTo(maxImport, w, r, &body); err != nil {
		return err
	}
	if n := len(body.Indicators); n == 0 || n > indicator.MaxBatch {
		return bad("Indicators", "a batch has 1 to %d indicators, this one %d", indicator.MaxBatch, n)
	}
	list := make([]indicator.Indicator, len(body.Indicators))
	for n := range body.Indicators {
		list[n] = body.Indicators[n].indicator()
	}
	results, err := a.cfg.Indicators.PutAll(r.Context(), list, who(r))
	if err != nil {
		return err
	}
	values := make([]importResult, len(results))
	for n, one := range results {
		values[n] = importResult{Indicator: one.Value}
		if one.Err != nil {
			values[n].IsFailed, values[n].FailureReason = true, present(one.Err.Error())
			continue
		}
		values[n].ID = present(strconv.FormatInt(one.ID, 10))
	}
	a.write(w, http.StatusOK, page{Context: "/api/$metadata#Collection(ImportIndicatorResult)", Value: values})
	return nil
}

func (a *API) deleteIndicator(w http.ResponseWriter, r *http.Request) error {
	n, err := a.cfg.Indicators.Delete(r.Context(), []string{r.PathValue("id")}, who(r))
	if err != nil {
		return err
	}
	if n == 0 {
		return indicator.ErrNotFound
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) deleteIndicators(w http.ResponseWriter, r *http.Request) error {
	var body struct{ IndicatorIds []string }
	if err := read(w, r, &body); err != nil {
		return err
	}
	if n := len(body.IndicatorIds); n == 0 || n > indicator.MaxBatch {
		return bad("IndicatorIds", "a batch has 1 to %d ids, this one %d", indicator.MaxBatch, n)
	}
	if _, err := a.cfg.Indicators.Delete(r.Context(), body.IndicatorIds, who(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
