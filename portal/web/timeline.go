package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// timelineRows is the number of rows that the timeline shows at first and
// adds at a time; newerRows how many of them are newer than the event around
// which it was opened.
const (
	timelineRows = 40
	newerRows    = 15
)

// timelineRow is an event with what is known around it.
type timelineRow struct {
	eventstore.Row
	// Alert that the event belongs to; nil for none.
	Alert *alert.Alert
	// Here is the event that the address names.
	Here bool
	// Around is the address of the timeline around the event, Tree that of the
	// processes around it, Hunt that of the query for it.
	Around, Tree, Hunt string
}

type timelinePart struct {
	Path   string
	Search string
	Table  string
	// From and To bound the time, as the fields of the form have it (UTC).
	From, To string
	Tables   []string
	Rows     []timelineRow
	// More is the address of the rows behind these, empty at the end.
	More string
	// NoScript is the address of the page that shows them.
	NoScript string
	// Newer is the address of the page with what is newer; empty when these are
	// the newest. Top is set for the first rows of a page.
	Newer string
	Top   bool
}

// minuteLayout is how a browser writes the value of a field for date and time.
const minuteLayout = "2006-01-02T15:04"

// cursorOf reads a position of the timeline from an address.
func cursorOf(in url.Values, name string) *eventstore.Cursor {
	us, err := strconv.ParseInt(in.Get(name), 10, 64)
	if err != nil || us <= 0 {
		return nil
	}
	report, err := strconv.ParseInt(in.Get("report"), 10, 64)
	if err != nil {
		report = 0
	}
	return &eventstore.Cursor{Time: time.UnixMicro(us).UTC(), ReportID: report}
}

func (s *Site) readTimeline(r *http.Request, device string) (timelinePart, error) {
	in := r.URL.Query()
	p := timelinePart{Path: "/devices/" + device, Search: in.Get("q"), Table: in.Get("table"), Tables: eventstore.TableNames(), Top: true}
	q := eventstore.TimelineQuery{DeviceID: device, Limit: timelineRows + 1}
	if len(p.Search) > 200 {
		p.Search = p.Search[:200]
	}
	q.Text = p.Search
	if slices.Contains(p.Tables, p.Table) {
		q.Tables = []string{p.Table}
	} else {
		p.Table = ""
	}
	if t, err := time.Parse(minuteLayout, in.Get("from")); err == nil {
		p.From, q.Since = in.Get("from"), t
	}
	if t, err := time.Parse(minuteLayout, in.Get("to")); err == nil {
		p.To, q.Until = in.Get("to"), t.Add(time.Minute) // the minute that is named belongs to it
	}
	q.After = cursorOf(in, "before")
	var newer []eventstore.Row
	at := cursorOf(in, "at")
	if at != nil {
		// The event itself, what came before it and some of what came after.
		up := q
		up.Before, up.After, up.Limit = at, nil, newerRows+1
		var err error
		if newer, err = s.cfg.Events.Timeline(r.Context(), up); err != nil {
			return p, err
		}
		q.After = &eventstore.Cursor{Time: at.Time, ReportID: at.ReportID + 1}
	}
	rows, err := s.cfg.Events.Timeline(r.Context(), q)
	if err != nil {
		return p, err
	}
	if len(newer) > newerRows {
		newer = newer[1:]
		p.Newer = p.Path + "?" + p.values("at", newer[0]).Encode() + "#timeline"
	} else if at == nil && q.After != nil && len(rows) > 0 {
		p.Newer = p.Path + "?" + p.values("at", rows[0]).Encode() + "#timeline"
	}
	if len(rows) > timelineRows {
		rows = rows[:timelineRows]
		v := p.values("before", rows[timelineRows-1])
		p.More = p.Path + "/timeline?" + v.Encode()
		p.NoScript = p.Path + "?" + v.Encode() + "#timeline"
	}
	rows = append(newer, rows...)
	flags, err := s.alertsOf(r, device, rows)
	if err != nil {
		return p, err
	}
	for _, row := range rows {
		t := timelineRow{Row: row, Alert: flags(row), Here: at != nil && row.Time.UnixMicro() == at.Time.UnixMicro() && row.ReportID == at.ReportID}
		place := url.Values{"at": {strconv.FormatInt(row.Time.UnixMicro(), 10)}, "report": {strconv.FormatInt(row.ReportID, 10)}}
		t.Around = p.Path + "?" + place.Encode() + "#here"
		if row.ProcessID != 0 || row.InitiatingID != 0 {
			t.Tree = p.Path + "/process?" + place.Encode()
		}
		t.Hunt = "/hunting?" + url.Values{"q": {fmt.Sprintf("%s\n| where DeviceId == %q and ReportId == %d\n| where Timestamp between (datetime(%s) .. 1s)", row.Table, device, row.ReportID, row.Time.Truncate(time.Second).Format(time.RFC3339))}}.Encode()
		p.Rows = append(p.Rows, t)
	}
	return p, nil
}

// values are those of an address of this timeline at the given row.
func (p timelinePart) values(name string, row eventstore.Row) url.Values {
	v := url.Values{name: {strconv.FormatInt(row.Time.UnixMicro(), 10)}, "report": {strconv.FormatInt(row.ReportID, 10)}}
	for key, value := range map[string]string{"q": p.Search, "table": p.Table, "from": p.From, "to": p.To} {
		if value != "" {
			v.Set(key, value)
		}
	}
	return v
}

// maxFlags is how many alerts are looked at to flag the rows of a timeline.
const maxFlags = 500

// alertsOf returns which alert an event belongs to: the one whose event it is, or
// of an antivirus alert the detection of the same file.
func (s *Site) alertsOf(r *http.Request, device string, rows []eventstore.Row) (func(eventstore.Row) *alert.Alert, error) {
	none := func(eventstore.Row) *alert.Alert { return nil }
	if len(rows) == 0 || !access.From(r.Context()).May(access.AlertRead) {
		return none, nil
	}
	const slack = 2 * time.Second
	field := func(op query.Op, at time.Time) query.Expr {
		return query.Compare{Field: "firstEventTime", Op: op, Value: at}
	}
	list, _, err := s.cfg.Alerts.List(r.Context(), query.Query{
		Filter: query.All(query.Compare{Field: "machineId", Op: query.Eq, Value: device}, field(query.Ge, rows[len(rows)-1].Time.Add(-slack)), field(query.Le, rows[0].Time.Add(slack))),
		Order:  []query.Order{{Field: "firstEventTime", Descending: true}}, Top: maxFlags,
	})
	if err != nil {
		return none, err
	}
	byReport := map[int64]*alert.Alert{}
	for i := range list {
		if e := list[i].Detection.Event; e != nil && e.ReportID != 0 {
			byReport[int64(e.ReportID)] = &list[i]
		}
	}
	return func(row eventstore.Row) *alert.Alert {
		if a := byReport[row.ReportID]; a != nil {
			return a
		}
		if row.Action != event.AntivirusDetection {
			return nil
		}
		for i := range list {
			d := &list[i].Detection
			if d.Event == nil && d.File.FolderPath == row.FolderPath && d.Time.Sub(row.Time).Abs() <= slack {
				return &list[i]
			}
		}
		return nil
	}, nil
}

// Bounds of a tree of processes.
const (
	maxAncestors   = 12
	maxDescendants = 200
	treeLookback   = 30 * 24 * time.Hour
)

// treeNode is a process of a tree.
type treeNode struct {
	PID                               int64
	FileName, Path, Command, Account  string
	SHA256                            string
	Started                           time.Time
	Report                            int64
	Here                              bool
	Around                            string
	Children                          []*treeNode
	parent                            int64
	parentName, parentPath, parentCmd string
	parentAccount                     string
}

type processPage struct {
	Device   string
	Name     string
	Event    timelineRow
	Top      *treeNode
	Children int
	// Cut: there are more children than are shown. Late: the time for the page
	// ended before the tree was whole.
	Cut, Late bool
}

// processTree shows the processes around an event: those that led to it, and
// those that came of its process.
func (s *Site) processTree(w http.ResponseWriter, r *http.Request) error {
	d, err := s.cfg.Inventory.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	at := cursorOf(r.URL.Query(), "at")
	if at == nil {
		return s.render(w, r, http.StatusOK, "process", frame{Title: "Processes", Section: "devices", Page: processPage{Device: d.ID, Name: d.HostName}})
	}
	rows, err := s.cfg.Events.Timeline(r.Context(), eventstore.TimelineQuery{
		DeviceID: d.ID, Limit: 1, After: &eventstore.Cursor{Time: at.Time, ReportID: at.ReportID + 1}, Since: at.Time, Until: at.Time.Add(time.Microsecond),
	})
	if err != nil {
		return err
	}
	if len(rows) == 0 || rows[0].ReportID != at.ReportID {
		return &invalid{http.StatusNotFound, "There is no such event any more: events are kept for a limited time."}
	}
	e := rows[0]
	p := processPage{Device: d.ID, Name: d.HostName, Event: timelineRow{Row: e}}
	subject := e.InitiatingID
	if e.ProcessID != 0 {
		subject = e.ProcessID
	}
	ctx, cancel := context.WithTimeout(r.Context(), pageQuery)
	defer cancel()
	look := func(where string) ([]*treeNode, error) { return s.processes(ctx, d.ID, where) }
	here := &treeNode{PID: subject, FileName: e.InitiatingFileName, Path: e.InitiatingFolderPath, Command: e.InitiatingCommandLine, Account: e.InitiatingAccount}
	if e.ProcessID != 0 {
		here = &treeNode{PID: subject, FileName: e.FileName, Path: e.FolderPath, Command: e.CommandLine, Account: e.Account}
	}
	if err := p.grow(look, here, e.Time); err != nil {
		if r.Context().Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, hunting.ErrBusy) {
			return err
		}
		p.Late = true
	}
	return s.render(w, r, http.StatusOK, "process", frame{Title: "Processes around an event", Section: "devices", Page: p})
}

// lookup reads the starts of processes that satisfy a condition.
type lookup func(where string) ([]*treeNode, error)

// start finds the last start of a process id before the given time; nil for
// none.
func (l lookup) start(pid int64, until time.Time) (*treeNode, error) {
	list, err := l(fmt.Sprintf("ProcessId == %d and Timestamp between (datetime(%s) .. datetime(%s)) | top 1 by Timestamp desc", pid, kqlTime(until.Add(-treeLookback)), kqlTime(until)))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// grow fills in the tree around a process, which is what the event says of it.
// After an error the page has what was found before.
func (p *processPage) grow(look lookup, here *treeNode, at time.Time) error {
	here.Here = true
	p.Top = here
	found, err := look.start(here.PID, at)
	if err != nil {
		return err
	}
	if found != nil { // else it began before the events that are kept
		*here = *found
		here.Here = true
	}
	p.Cut, err = look.descend(here, at)
	p.Children = len(here.Children)
	if err != nil {
		return err
	}
	for n := 0; n < maxAncestors && p.Top.parent > 0; n++ {
		up, err := look.start(p.Top.parent, p.Top.Started)
		if err != nil {
			return err
		}
		if up == nil || up.PID == p.Top.PID {
			up = &treeNode{PID: p.Top.parent, FileName: p.Top.parentName, Path: p.Top.parentPath, Command: p.Top.parentCmd, Account: p.Top.parentAccount}
		}
		up.Children = []*treeNode{p.Top}
		p.Top = up
	}
	return nil
}

// descend finds the children of a process and theirs, and reports whether there
// are more than are shown.
func (l lookup) descend(top *treeNode, around time.Time) (bool, error) {
	level, total := []*treeNode{top}, 0
	since := top.Started
	if since.IsZero() {
		since = around.Add(-time.Hour)
	}
	for range 3 {
		byPID := map[int64]*treeNode{}
		list := ""
		for _, n := range level {
			if byPID[n.PID] == nil {
				byPID[n.PID] = n
				list += fmt.Sprintf("%d,", n.PID)
			}
		}
		if list == "" || total >= maxDescendants {
			break
		}
		found, err := l(fmt.Sprintf("InitiatingProcessId in (%s) and Timestamp between (datetime(%s) .. datetime(%s)) | top %d by Timestamp asc",
			list[:len(list)-1], kqlTime(since), kqlTime(around.Add(24*time.Hour)), maxDescendants-total+1))
		if err != nil {
			return false, err
		}
		level = nil
		for _, c := range found {
			parent := byPID[c.parent]
			if parent == nil || c.PID == parent.PID || c.Started.Before(parent.Started) {
				continue
			}
			if total++; total > maxDescendants {
				return true, nil
			}
			parent.Children = append(parent.Children, c)
			level = append(level, c)
		}
	}
	return false, nil
}

func kqlTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z") }

// processes reads the starts of processes of a device that satisfy a condition.
func (s *Site) processes(ctx context.Context, device, where string) ([]*treeNode, error) {
	// The id comes from the inventory: hex digits.
	q := fmt.Sprintf("DeviceProcessEvents | where DeviceId == %q and ActionType == %q and %s | project ProcessId, FileName, FolderPath, ProcessCommandLine, AccountName, SHA256, Timestamp, ReportId,"+
		" InitiatingProcessId, InitiatingProcessFileName, InitiatingProcessFolderPath, InitiatingProcessCommandLine, InitiatingProcessAccountName", device, event.ProcessCreated, where)
	res, err := s.cfg.Hunter.Run(ctx, "tree "+access.From(ctx).ID, q, hunting.Limits{Rows: maxDescendants + 1, Timeout: pageQuery})
	if err != nil {
		return nil, fmt.Errorf("processes of %s: %w", device, err)
	}
	var out []*treeNode
	for _, row := range res.Rows {
		number := func(i int) int64 { n, _ := row[i].(int64); return n }
		text := func(i int) string { t, _ := row[i].(string); return t }
		at, _ := row[6].(time.Time)
		n := &treeNode{
			PID: number(0), FileName: text(1), Path: text(2), Command: text(3), Account: text(4), SHA256: text(5), Started: at, Report: number(7), parent: number(8),
			parentName: text(9), parentPath: text(10), parentCmd: text(11), parentAccount: text(12),
		}
		n.Around = "/devices/" + device + "?" + url.Values{"at": {strconv.FormatInt(at.UnixMicro(), 10)}, "report": {strconv.FormatInt(n.Report, 10)}}.Encode() + "#here"
		out = append(out, n)
	}
	return out, nil
}

// pageQuery is how long the queries may take together that a page makes for
// itself.
const pageQuery = 20 * time.Second
