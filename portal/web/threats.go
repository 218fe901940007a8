package web

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// maxThreats and maxItems bound what the page of threats shows.
const (
	maxThreats = 200
	maxItems   = 500
)

type threatsPage struct {
	Days    int
	Choices []int
	Search  string
	Threats []alert.Threat
	// Of is the threat whose devices are shown; Items are its files.
	Of, Hash string
	Items    []quarantineItem
	MayOrder bool
	CSRF     string
}

// quarantineItem is a file that an agent took away, or left, on a device.
type quarantineItem struct {
	Alert alert.Alert
	// Restore is the last order to bring it back, nil for none.
	Restore *action.Action
}

// Kept reports whether the file is in the device's quarantine, as far as the
// portal knows.
func (q quarantineItem) Kept() bool {
	return q.Alert.Detection.Action == "quarantined" && (q.Restore == nil || q.Restore.Status != action.Succeeded)
}

func (s *Site) threats(w http.ResponseWriter, r *http.Request) error {
	in := r.URL.Query()
	p := threatsPage{Days: 30, Choices: []int{1, 7, 30, 90, 365}, Search: in.Get("q"), Of: in.Get("name"), Hash: in.Get("sha256"), CSRF: visitOf(r.Context()).session.CSRF}
	if n, err := strconv.Atoi(in.Get("days")); err == nil && slices.Contains(p.Choices, n) {
		p.Days = n
	}
	if len(p.Search) > 200 {
		p.Search = p.Search[:200]
	}
	p.MayOrder = access.From(r.Context()).May(access.MachineQuarantine)
	var err error
	if p.Threats, err = s.cfg.Alerts.Threats(r.Context(), p.Days, strings.ToValidUTF8(p.Search, ""), maxThreats); err != nil {
		return err
	}
	if p.Of != "" {
		if err := s.threatItems(r, &p); err != nil {
			return err
		}
	}
	return s.render(w, r, http.StatusOK, "threats", frame{Title: "Threats", Section: "threats", Page: p})
}

// threatItems reads where a threat was, and what was ordered about it.
func (s *Site) threatItems(r *http.Request, p *threatsPage) error {
	equal := func(field, value string) query.Expr { return query.Compare{Field: field, Op: query.Eq, Value: value} }
	since := query.Compare{Field: "firstEventTime", Op: query.Ge, Value: s.cfg.Now().AddDate(0, 0, -p.Days)}
	list, _, err := s.cfg.Alerts.List(r.Context(), query.Query{
		Filter: query.All(equal("threatName", p.Of), equal("sha256", p.Hash), since), Order: []query.Order{{Field: "firstEventTime", Descending: true}}, Top: maxItems,
	})
	if err != nil {
		return err
	}
	restores := map[string]*action.Action{}
	if access.From(r.Context()).May(access.MachineRead) && p.Hash != "" {
		orders, _, err := s.cfg.Actions.List(r.Context(), query.Query{
			Filter: query.All(equal("type", response.RestoreFile), query.Compare{Field: "creationDateTimeUtc", Op: query.Ge, Value: since.Value}),
			Order:  []query.Order{{Field: "creationDateTimeUtc", Descending: true}}, Top: query.MaxTop,
		})
		if err != nil {
			return err
		}
		for i, o := range orders {
			var what response.RestoreParameters
			if json.Unmarshal(o.Parameters, &what) == nil && strings.EqualFold(what.SHA256, p.Hash) && restores[o.DeviceID] == nil {
				restores[o.DeviceID] = &orders[i]
			}
		}
	}
	for _, a := range list {
		item := quarantineItem{Alert: a}
		if o := restores[a.DeviceID]; o != nil && o.Created.After(a.Detection.Time) {
			item.Restore = o
		}
		p.Items = append(p.Items, item)
	}
	return nil
}
