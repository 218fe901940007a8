package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// route registers a page.
type route func(pattern string, need access.Permission, h func(http.ResponseWriter, *http.Request) error)

func (s *Site) indicatorRoutes(get, post route) {
	get("/indicators", access.IndicatorRead, s.indicators)
	get("/indicators/export", access.IndicatorRead, s.exportIndicators)
	get("/indicators/import", access.IndicatorWrite, s.importPage)
	get("/indicators/{id}", access.IndicatorRead, s.indicator)
	post("/indicators", access.IndicatorWrite, s.saveIndicator)
	post("/indicators/delete", access.IndicatorWrite, s.deleteIndicators)
	post("/indicators/import", access.IndicatorWrite, s.importIndicators)
}

func indicatorWho(r *http.Request) indicator.Who {
	p := access.From(r.Context())
	return indicator.Who{Name: p.Name, Source: indicator.SourceUser, Address: p.Address}
}

type indicatorRow struct {
	indicator.Indicator
	GroupNames []string
	Expired    bool
}

func (s *Site) indicatorRow(i indicator.Indicator, groups []fleet.Group) indicatorRow {
	return indicatorRow{i, indicator.GroupNames(i.Groups, groups), !i.Expires.IsZero() && !s.cfg.Now().Before(i.Expires)}
}

// states are the values of the filter "state".
var states = []string{"Active", "Expired", "Expiring in 7 days"}

type indicatorsPage struct {
	listing
	Types, Actions, Severities, States []string
	Groups                             []fleet.Group
	Indicators                         []indicatorRow
	Current, Behind                    int // devices that have their list, and others
	MayWrite                           bool
	CSRF                               string
	// ExportURL is the address of the list as a file, without its format.
	ExportURL string
}

// indicatorFilter is the filter of the list's address.
func (s *Site) indicatorFilter(l listing) query.Expr {
	var state query.Expr
	now := s.cfg.Now()
	never := query.Compare{Field: "expirationTime", Op: query.Eq, Value: nil}
	switch l.Filter("state") {
	case states[0]:
		state = query.Or{Left: never, Right: query.Compare{Field: "expirationTime", Op: query.Gt, Value: now}}
	case states[1]:
		state = query.Compare{Field: "expirationTime", Op: query.Le, Value: now}
	case states[2]:
		state = query.And{
			Left:  query.Compare{Field: "expirationTime", Op: query.Gt, Value: now},
			Right: query.Compare{Field: "expirationTime", Op: query.Le, Value: now.Add(7 * 24 * time.Hour)},
		}
	}
	var group query.Expr
	if g := l.Filter("group"); g != "" {
		group = query.Any{Field: "rbacGroupIds", Value: g}
	}
	return query.All(l.contains("indicatorValue", "title", "description", "createdBy"), l.equals("type", "indicatorType", api.Types()),
		l.equals("action", "action", api.Actions()), l.equals("severity", "severity", alert.Severities()), state, group)
}

func indicatorListing(r *http.Request) listing {
	return newListing(r.URL, []string{"type", "action", "severity", "state", "group"},
		[]string{"indicatorType", "indicatorValue", "action", "title", "severity", "expirationTime", "lastUpdateTime", "createdBy"}, "-lastUpdateTime")
}

func (s *Site) indicators(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	l := indicatorListing(r)
	list, total, err := s.cfg.Indicators.List(ctx, l.query(s.indicatorFilter(l)))
	if err != nil {
		return err
	}
	l.Total, l.Shown = total, len(list)
	p := indicatorsPage{
		listing: l, Types: api.Types(), Actions: api.Actions(), Severities: alert.Severities(), States: states,
		MayWrite: access.From(ctx).May(access.IndicatorWrite), CSRF: visitOf(ctx).session.CSRF,
	}
	export := listing{path: "/indicators/export", values: l.values}
	if p.ExportURL = export.address(l.values); strings.Contains(p.ExportURL, "?") {
		p.ExportURL += "&"
	} else {
		p.ExportURL += "?"
	}
	if p.Groups, err = s.cfg.Fleet.Groups(ctx); err != nil {
		return err
	}
	for _, i := range list {
		p.Indicators = append(p.Indicators, s.indicatorRow(i, p.Groups))
	}
	if p.Current, p.Behind, err = s.cfg.Indicators.AppliedCounts(ctx); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "indicators", frame{Title: "Indicators", Section: "indicators", Page: p})
}

type indicatorPage struct {
	Indicator                  indicatorRow
	New                        bool
	Types, Actions, Severities []string
	Groups                     []fleet.Group
	// Expires is the value of the form's field, UTC.
	Expires     string
	Alerts      []alert.Alert // that it raised, the newest
	AlertsTotal int
	MayWrite    bool
	CSRF        string
}

// expiryLayout is the form of <input type="datetime-local">.
const expiryLayout = "2006-01-02T15:04"

func (s *Site) indicator(w http.ResponseWriter, r *http.Request) error {
	i := indicator.Indicator{Type: api.FileSHA256, Action: api.Block, Severity: "Medium", Alerts: true}
	if id := r.PathValue("id"); id != "new" {
		var err error
		if i, err = s.cfg.Indicators.Get(r.Context(), id); err != nil {
			return err
		}
	} else if v := r.URL.Query().Get("value"); v != "" && len(v) <= api.MaxValue {
		i.Value = v
		if t := r.URL.Query().Get("type"); t != "" {
			i.Type = t
		}
	}
	return s.showIndicator(w, r, http.StatusOK, i, "")
}

func (s *Site) showIndicator(w http.ResponseWriter, r *http.Request, status int, i indicator.Indicator, problem string) error {
	ctx := r.Context()
	p := indicatorPage{
		New: i.ID == 0, Types: api.Types(), Actions: api.Actions(), Severities: alert.Severities(),
		MayWrite: access.From(ctx).May(access.IndicatorWrite), CSRF: visitOf(ctx).session.CSRF,
	}
	var err error
	if p.Groups, err = s.cfg.Fleet.Groups(ctx); err != nil {
		return err
	}
	p.Indicator = s.indicatorRow(i, p.Groups)
	if !i.Expires.IsZero() {
		p.Expires = i.Expires.UTC().Format(expiryLayout)
	}
	title := i.Title
	if p.New {
		title = "New indicator"
	} else {
		p.Alerts, p.AlertsTotal, err = s.cfg.Alerts.List(ctx, query.Query{
			Filter: query.Compare{Field: "detectorId", Op: query.Eq, Value: "indicator:" + i.Type + ":" + i.Value},
			Order:  []query.Order{{Field: "firstEventTime", Descending: true}}, Top: 10, Count: true,
		})
		if err != nil {
			return err
		}
	}
	return s.render(w, r, status, "indicator", frame{Title: title, Section: "indicators", Problem: problem, Page: p})
}

func (s *Site) saveIndicator(w http.ResponseWriter, r *http.Request) error {
	form := r.PostForm
	i := indicator.Indicator{
		Type: form.Get("type"), Value: form.Get("value"), Action: form.Get("action"), Title: form.Get("title"), Description: form.Get("description"),
		Severity: form.Get("severity"), Recommended: form.Get("recommended"), Alerts: form.Get("alerts") != "", Groups: form["groups"],
	}
	if id := form.Get("id"); id != "" && id != "0" {
		before, err := s.cfg.Indicators.Get(r.Context(), id)
		if err != nil {
			return err
		}
		i.ID, i.Application, i.EducateURL = before.ID, before.Application, before.EducateURL
		i.Created, i.CreatedBy, i.Updated, i.UpdatedBy = before.Created, before.CreatedBy, before.Updated, before.UpdatedBy
	}
	if v := form.Get("expires"); v != "" {
		var err error
		if i.Expires, err = time.Parse(expiryLayout, v); err != nil {
			return s.showIndicator(w, r, http.StatusBadRequest, i, "The time of expiry is not of the form 2027-01-31T12:00.")
		}
	}
	kept, err := s.cfg.Indicators.Put(r.Context(), i, indicatorWho(r))
	var wrong *indicator.Invalid
	switch {
	case errors.As(err, &wrong):
		return s.showIndicator(w, r, http.StatusBadRequest, i, upperFirst(wrong.Message)+".")
	case errors.Is(err, indicator.ErrTaken):
		return s.showIndicator(w, r, http.StatusConflict, i, upperFirst(indicator.ErrTaken.Error())+".")
	case err != nil:
		return err
	}
	redirect(w, r, "/indicators/"+strconv.FormatInt(kept.ID, 10))
	return nil
}

func (s *Site) deleteIndicators(w http.ResponseWriter, r *http.Request) error {
	ids := r.PostForm["id"]
	if len(ids) == 0 || len(ids) > indicator.MaxBatch {
		return &invalid{http.StatusBadRequest, fmt.Sprintf("Choose 1 to %d indicators.", indicator.MaxBatch)}
	}
	if _, err := s.cfg.Indicators.Delete(r.Context(), ids, indicatorWho(r)); err != nil {
		return err
	}
	redirect(w, r, "/indicators")
	return nil
}

type importPage struct {
	CSRF    string
	Columns []string
	Report  *indicator.Report
	Checked bool // nothing was stored
}

func (s *Site) importPage(w http.ResponseWriter, r *http.Request) error {
	return s.render(w, r, http.StatusOK, "indicators-import", frame{Title: "Import indicators", Section: "indicators", Page: importPage{CSRF: visitOf(r.Context()).session.CSRF, Columns: indicator.Columns()}})
}

func (s *Site) importIndicators(w http.ResponseWriter, r *http.Request) error {
	f := frame{Title: "Import indicators", Section: "indicators"}
	p := importPage{CSRF: visitOf(r.Context()).session.CSRF, Columns: indicator.Columns(), Checked: r.PostForm.Get("do") == "check"}
	file, _, err := r.FormFile("file")
	if err != nil {
		return &invalid{http.StatusBadRequest, "Choose a file."}
	}
	defer file.Close()
	report, err := s.cfg.Indicators.Import(r.Context(), file, p.Checked, indicatorWho(r))
	var wrong *indicator.Invalid
	status := http.StatusOK
	switch {
	case errors.As(err, &wrong):
		status, f.Problem = http.StatusBadRequest, upperFirst(wrong.Message)+"."
	case err != nil:
		return err
	default:
		p.Report = &report
	}
	f.Page = p
	return s.render(w, r, status, "indicators-import", f)
}

// exportIndicators gives the list as its address filters it.
func (s *Site) exportIndicators(w http.ResponseWriter, r *http.Request) error {
	filter := s.indicatorFilter(indicatorListing(r))
	if r.URL.Query().Get("format") == "json" {
		return s.exportJSON(w, r, filter)
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="indicators.csv"`)
	if err := s.cfg.Indicators.Export(r.Context(), filter, w); err != nil {
		s.cfg.Logger.WarnContext(r.Context(), "the indicators were not sent to their end", "error", err)
	}
	return nil
}

// exportJSON gives the list in the form of a host's own file.
func (s *Site) exportJSON(w http.ResponseWriter, r *http.Request, filter query.Expr) error {
	list := api.List{Indicators: []api.Indicator{}}
	err := s.cfg.Indicators.Each(r.Context(), filter, func(i *indicator.Indicator) error {
		w := i.Wire()
		w.ID = strconv.FormatInt(i.ID, 10)
		list.Indicators = append(list.Indicators, w)
		return nil
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="indicators.json"`)
	return json.NewEncoder(w).Encode(list)
}
