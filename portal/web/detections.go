package web

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// countedDays is the time over which the pages of rules count alerts.
const countedDays = 30

type detectionsPage struct {
	Rules    []detection.Rule
	Counts   map[string]alert.DetectorCount
	MayWrite bool
	CSRF     string
	Failing  int
}

// byDetector adds up what each detector raised within the counted days.
func (s *Site) byDetector(r *http.Request, days int) (map[string]alert.DetectorCount, []alert.DetectorCount, error) {
	list, err := s.cfg.Alerts.ByDetector(r.Context(), days)
	out := make(map[string]alert.DetectorCount, len(list))
	for _, c := range list {
		sum := out[c.DetectorID]
		sum.Count += c.Count
		sum.Open += c.Open
		sum.False += c.False
		sum.Devices = max(sum.Devices, c.Devices)
		if c.Last.After(sum.Last) {
			sum.Last = c.Last
		}
		out[c.DetectorID] = sum
	}
	return out, list, err
}

func (s *Site) detections(w http.ResponseWriter, r *http.Request) error {
	list, err := s.cfg.Detections.List(r.Context())
	if err != nil {
		return err
	}
	p := detectionsPage{Rules: list, MayWrite: access.From(r.Context()).May(access.DetectionWrite), CSRF: visitOf(r.Context()).session.CSRF}
	if p.Counts, _, err = s.byDetector(r, countedDays); err != nil {
		return err
	}
	for _, d := range list {
		if d.Enabled && d.Failures > 0 {
			p.Failing++
		}
	}
	return s.render(w, r, http.StatusOK, "detections", frame{Title: "Custom detections", Section: "detections", Page: p})
}

type shippedRow struct {
	detection.Shipped
	Hits alert.DetectorCount
	// Off and RecordOnly count the policies that have it so.
	Off, RecordOnly int
}

type shippedPage struct {
	listing
	Severities []string
	Tactics    []string
	Rules      []shippedRow
	All        int
}

func (s *Site) shipped(w http.ResponseWriter, r *http.Request) error {
	l := newListing(r.URL, []string{"severity", "tactic", "technique", "state"}, []string{"title", "severity", "hits"}, "title")
	counts, _, err := s.byDetector(r, countedDays)
	if err != nil {
		return err
	}
	all, err := s.rules()
	if err != nil {
		return err
	}
	policies, err := s.cfg.Fleet.Policies(r.Context())
	if err != nil {
		return err
	}
	modes := fleet.RulesOf(policies)
	p := shippedPage{Severities: alert.Severities(), All: len(all)}
	for _, x := range all {
		for _, t := range x.Tactics {
			if !slices.Contains(p.Tactics, t) {
				p.Tactics = append(p.Tactics, t)
			}
		}
		technique := l.Filter("technique")
		row := shippedRow{Shipped: x, Hits: counts[x.ID]}
		for _, of := range modes {
			switch of[x.ID] {
			case fleet.RuleOff:
				row.Off++
			case fleet.RuleRecordOnly:
				row.RecordOnly++
			}
		}
		switch state := l.Filter("state"); {
		case state == string(fleet.RuleOff) && row.Off == 0, state == string(fleet.RuleRecordOnly) && row.RecordOnly == 0:
			continue
		}
		switch {
		case l.Filter("severity") != "" && l.Filter("severity") != string(x.Severity),
			l.Filter("tactic") != "" && !slices.Contains(x.Tactics, l.Filter("tactic")),
			technique != "" && !slices.ContainsFunc(x.Techniques, func(t string) bool { return t == technique || strings.HasPrefix(t, technique+".") }),
			l.Search != "" && !strings.Contains(strings.ToLower(strings.Join([]string{x.Title, x.Description, x.ID, x.File, x.Source, strings.Join(x.Techniques, " ")}, "\n")), strings.ToLower(l.Search)):
			continue
		}
		p.Rules = append(p.Rules, row)
	}
	slices.Sort(p.Tactics)
	rank := alert.Severities()
	slices.SortStableFunc(p.Rules, func(a, b shippedRow) int {
		c := 0
		switch l.Sort {
		case "severity":
			c = cmp.Compare(slices.Index(rank, string(b.Severity)), slices.Index(rank, string(a.Severity)))
		case "hits":
			c = cmp.Compare(a.Hits.Count, b.Hits.Count)
		default:
			c = strings.Compare(strings.ToLower(a.Title), strings.ToLower(b.Title))
		}
		if l.Desc {
			return -c
		}
		return c
	})
	l.Total = len(p.Rules)
	from := min(len(p.Rules), (l.Number-1)*pageSize)
	p.Rules = p.Rules[from:min(len(p.Rules), from+pageSize)]
	l.Shown = len(p.Rules)
	p.listing = l
	return s.render(w, r, http.StatusOK, "shipped", frame{Title: "Rules on the devices", Section: "detections", Page: p})
}

type detectionPage struct {
	Rule       detection.Rule
	New        bool
	Techniques string
	Hours      int // of suppression
	Runs       []detection.Run
	Periods    []detection.Period
	Lookbacks  []time.Duration
	Severities []string
	Categories []string
	Actions    []string
	MayWrite   bool
	MayDo      func(string) bool
	CSRF       string
	Back       string // days of the trial
	Trial      *trialResult
	Wrong      *huntingResult // what is wrong with the query
	// Part: only the result of the test goes into the page that is there.
	Part bool
}

type trialResult struct {
	detection.Trial
	Cells [][]cell
	// Seconds that the query took.
	Seconds string
}

// trialRows is how many rows of a trial the page shows.
const trialRows = 20

// categories are what a custom detection may say that its alerts are: the
// tactics, and the kinds of the reference product that concern hosts.
func (s *Site) categories() []string {
	out := []string{"SuspiciousActivity", "Malware", "UnwantedSoftware"}
	for _, t := range s.attack.Tactics() {
		out = append(out, t.Name)
	}
	return out
}

// blank is what the editor of a new custom detection begins with.
func blank(query string) detection.Rule {
	return detection.Rule{
		Query: query, Every: time.Hour, Lookback: 4 * time.Hour, Severity: event.SeverityMedium, Category: "SuspiciousActivity", Action: detection.ActionNone, Suppress: 24 * time.Hour,
	}
}

// queryToDetection opens the editor with a query of the hunting page.
func (s *Site) queryToDetection(w http.ResponseWriter, r *http.Request) error {
	return s.showDetection(w, r, http.StatusOK, blank(strings.ReplaceAll(r.PostForm.Get("q"), "\r\n", "\n")), "", nil, nil)
}

func (s *Site) customDetection(w http.ResponseWriter, r *http.Request) error {
	d := blank("")
	if id := r.PathValue("id"); id != "new" {
		var err error
		if d, err = s.cfg.Detections.Get(r.Context(), id); err != nil {
			return err
		}
	}
	return s.showDetection(w, r, http.StatusOK, d, "", nil, nil)
}

func (s *Site) showDetection(w http.ResponseWriter, r *http.Request, status int, d detection.Rule, problem string, trial *trialResult, wrong *huntingResult) error {
	ctx := r.Context()
	who := access.From(ctx)
	p := detectionPage{
		Rule: d, New: d.ID == "", Techniques: strings.Join(d.Techniques, ", "), Hours: int(d.Suppress.Hours()), Periods: detection.Periods(), Severities: alert.Severities(),
		Categories: s.categories(), Actions: detection.Actions(), MayWrite: who.May(access.DetectionWrite), CSRF: visitOf(ctx).session.CSRF, Trial: trial, Wrong: wrong,
		Lookbacks: []time.Duration{time.Hour, 2 * time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour, 48 * time.Hour, 7 * 24 * time.Hour, 14 * 24 * time.Hour, 30 * 24 * time.Hour},
		Back:      r.PostForm.Get("back"),
	}
	if p.Part = r.Header.Get("HX-Request") == "true"; p.Part {
		status = http.StatusOK // htmx would not show anything else
	}
	if d.Lookback > 0 && !slices.Contains(p.Lookbacks, d.Lookback) {
		p.Lookbacks = append(p.Lookbacks, d.Lookback)
		slices.Sort(p.Lookbacks)
	}
	if d.Category != "" && !slices.Contains(p.Categories, d.Category) {
		p.Categories = append(p.Categories, d.Category)
	}
	p.MayDo = func(name string) bool {
		return name == detection.ActionNone || who.May(detection.Needs(name))
	}
	if d.ID != "" {
		var err error
		if p.Runs, err = s.cfg.Detections.Runs(ctx, d.ID); err != nil {
			return err
		}
	}
	title := d.Name
	if title == "" {
		title = "New custom detection"
	}
	return s.render(w, r, status, "detection", frame{Title: title, Section: "detections", Problem: problem, Page: p})
}

// detectionOf reads the form of a custom detection.
func (s *Site) detectionOf(r *http.Request) (detection.Rule, error) {
	f := r.PostForm
	d := detection.Rule{}
	if id := r.PathValue("id"); id != "new" {
		var err error
		if d, err = s.cfg.Detections.Get(r.Context(), id); err != nil {
			return d, err
		}
		version, err := strconv.Atoi(f.Get("version"))
		if err != nil {
			return d, &invalid{http.StatusBadRequest, "The form is incomplete: load the page again."}
		}
		d.Version = version
	}
	minutes := func(name string) time.Duration {
		n, err := strconv.Atoi(f.Get(name))
		if err != nil || n < 0 || n > 60*24*365 {
			return -1 // refused by the check, with the values that may be
		}
		return time.Duration(n) * time.Minute
	}
	d.Name, d.Query, d.Title, d.Description, d.Recommended = f.Get("name"), strings.ReplaceAll(f.Get("q"), "\r\n", "\n"), f.Get("title"), strings.ReplaceAll(f.Get("description"), "\r\n", "\n"), strings.ReplaceAll(f.Get("recommended"), "\r\n", "\n")
	d.Enabled, d.Every, d.Lookback = f.Get("enabled") != "", minutes("every"), minutes("lookback")
	d.Severity, d.Category, d.Action = event.Severity(f.Get("severity")), f.Get("category"), f.Get("action")
	d.Techniques = strings.FieldsFunc(f.Get("techniques"), func(c rune) bool { return c == ',' || c == ' ' || c == ';' || c == '\n' || c == '\r' || c == '\t' })
	d.PerDevice = f.Get("per") == "device"
	if hours, err := strconv.Atoi(f.Get("suppress")); err == nil && hours >= 0 && hours <= 24*365 {
		d.Suppress = time.Duration(hours) * time.Hour
	}
	return d, nil
}

// refused shows the form again with what is wrong with it, when err is of that
// kind.
func (s *Site) refused(w http.ResponseWriter, r *http.Request, d detection.Rule, err error) error {
	var wrong *kql.Error
	var bad *detection.Invalid
	switch {
	case errors.As(err, &wrong):
		return s.showDetection(w, r, http.StatusBadRequest, d, "", nil, problemOf(d.Query, wrong))
	case errors.As(err, &bad):
		return s.showDetection(w, r, http.StatusBadRequest, d, upperFirst(bad.Message)+".", nil, nil)
	case errors.Is(err, detection.ErrForbidden):
		return s.showDetection(w, r, http.StatusForbidden, d, upperFirst(err.Error())+".", nil, nil)
	case errors.Is(err, detection.ErrConflict):
		return s.showDetection(w, r, http.StatusConflict, d, upperFirst(err.Error())+".", nil, nil)
	}
	return err
}

func (s *Site) saveDetection(w http.ResponseWriter, r *http.Request) error {
	d, err := s.detectionOf(r)
	if err != nil {
		return err
	}
	kept, err := s.cfg.Detections.Put(r.Context(), d, access.From(r.Context()))
	if err != nil {
		return s.refused(w, r, d, err)
	}
	redirect(w, r, "/detections/custom/"+kept.ID)
	return nil
}

// testDetection tries what is in the form on what has happened, without keeping
// anything.
func (s *Site) testDetection(w http.ResponseWriter, r *http.Request) error {
	d, err := s.detectionOf(r)
	if err != nil {
		return err
	}
	days, err := strconv.Atoi(r.PostForm.Get("back"))
	if err != nil {
		days = 7
	}
	p := access.From(r.Context())
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "detection.test", d.ID, hunting.Excerpt(d.Query)); err != nil {
		return err
	}
	if d.Name == "" {
		d.Name = "New custom detection" // a test needs no name
	}
	trial, err := s.cfg.Detections.Try(r.Context(), d, time.Duration(days)*24*time.Hour, "user "+p.ID)
	if err != nil {
		var wrong *kql.Error
		var bad *detection.Invalid
		if !errors.As(err, &wrong) && !errors.As(err, &bad) && r.Context().Err() == nil {
			return s.showDetection(w, r, http.StatusOK, d, upperFirst(err.Error())+".", nil, nil)
		}
		return s.refused(w, r, d, err)
	}
	shown := &trialResult{Trial: trial, Seconds: strconv.FormatFloat(trial.Elapsed.Seconds(), 'f', 2, 64)}
	for _, row := range trial.Rows[:min(len(trial.Rows), trialRows)] {
		shown.Cells = append(shown.Cells, cells(trial.Columns, row))
	}
	return s.showDetection(w, r, http.StatusOK, d, "", shown, nil)
}

// switchDetection turns a custom detection on or off.
func (s *Site) switchDetection(w http.ResponseWriter, r *http.Request) error {
	d, err := s.cfg.Detections.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	d.Enabled = r.PostForm.Get("enabled") == "true"
	if _, err := s.cfg.Detections.Put(r.Context(), d, access.From(r.Context())); err != nil {
		return s.refused(w, r, d, err)
	}
	redirect(w, r, "/detections")
	return nil
}

// runDetection runs a custom detection now, whether it is enabled or not.
func (s *Site) runDetection(w http.ResponseWriter, r *http.Request) error {
	d, err := s.cfg.Detections.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	if !p.May(detection.Needs(d.Action)) {
		return s.refused(w, r, d, detection.ErrForbidden)
	}
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "detection.run", d.ID, d.Name); err != nil {
		return err
	}
	if _, err := s.cfg.Detections.Run(r.Context(), d); err != nil {
		return err
	}
	redirect(w, r, "/detections/custom/"+d.ID+"#runs")
	return nil
}

func (s *Site) deleteDetection(w http.ResponseWriter, r *http.Request) error {
	if err := s.cfg.Detections.Delete(r.Context(), r.PathValue("id"), access.From(r.Context())); err != nil {
		return err
	}
	redirect(w, r, "/detections")
	return nil
}
