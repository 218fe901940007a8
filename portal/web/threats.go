package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/quarantine"
)

// maxThreats bounds what the page of threats shows.
const maxThreats = 200

type threatsPage struct {
	Days    int
	Choices []int
	Search  string
	Threats []alert.Threat
	// Of is the threat whose devices are shown; Items are its files.
	Of, Hash string
	Items    []quarantine.Item
	// Devices count those that have the file, States what was ordered about it by
	// state.
	Devices int
	States  []stateCount
	// Ordered, Refused and Left say what became of an order to many devices.
	Ordered, Refused, Left string
	MayOrder               bool
	CSRF                   string
}

type stateCount struct {
	Status string
	Count  int
}

func (s *Site) threats(w http.ResponseWriter, r *http.Request) error {
	in := r.URL.Query()
	p := threatsPage{Days: 30, Choices: []int{1, 7, 30, 90, 365}, Search: in.Get("q"), Of: in.Get("name"), Hash: in.Get("sha256"), CSRF: visitOf(r.Context()).session.CSRF}
	for name, to := range map[string]*string{"ordered": &p.Ordered, "refused": &p.Refused, "left": &p.Left} {
		if n, err := strconv.Atoi(in.Get(name)); err == nil {
			*to = strconv.Itoa(n)
		}
	}
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
	var err error
	if p.Items, err = s.quarantine.Items(r.Context(), p.Of, p.Hash, s.cfg.Now().AddDate(0, 0, -p.Days)); err != nil {
		return err
	}
	kept, ordered := map[string]bool{}, map[string]bool{}
	for _, i := range p.Items {
		if i.Kept() && !i.Waiting() && !kept[i.Alert.DeviceID] {
			kept[i.Alert.DeviceID] = true
			p.Devices++
		}
		if i.Order == nil || ordered[i.Order.ID] {
			continue
		}
		ordered[i.Order.ID] = true
		n := slices.IndexFunc(p.States, func(c stateCount) bool { return c.Status == i.Order.Status })
		if n < 0 {
			p.States = append(p.States, stateCount{Status: i.Order.Status})
			n = len(p.States) - 1
		}
		p.States[n].Count++
	}
	return nil
}

// orderQuarantined restores or removes a file in the quarantine of all devices
// that have it.
func (s *Site) orderQuarantined(w http.ResponseWriter, r *http.Request) error {
	form, who := r.PostForm, access.From(r.Context())
	kind := map[string]string{"restore": response.RestoreFile, "remove": response.RemoveQuarantinedFile}[form.Get("do")]
	if kind == "" {
		return &invalid{http.StatusBadRequest, "Choose whether the file is to be restored or deleted."}
	}
	done, err := s.quarantine.Order(r.Context(), quarantine.Request{Type: kind, SHA256: strings.ToLower(form.Get("sha256")), Comment: form.Get("comment"), By: who.Name, Address: who.Address})
	if err != nil {
		return err
	}
	back := url.Values{"name": {form.Get("name")}, "sha256": {form.Get("sha256")}, "days": {form.Get("days")}, "ordered": {strconv.Itoa(len(done.Actions))}}
	if n := len(done.Refused); n > 0 {
		back.Set("refused", strconv.Itoa(n))
	}
	if done.Left > 0 {
		back.Set("left", strconv.Itoa(done.Left))
	}
	redirect(w, r, "/threats?"+back.Encode()+"#devices")
	return nil
}
