package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/attack"
	"github.com/bulwarkhq/bulwark/portal/detection"
)

// matrixCell is a technique of the matrix, or one of its sub-techniques.
type matrixCell struct {
	attack.Technique
	// Rules on the devices, Custom detections that are enabled, and Alerts within
	// the time.
	Rules, Custom, Alerts int
	Subs                  []matrixCell
	// Covered are the sub-techniques with a rule.
	Covered int
	// Anchor is the id of the cell, where the technique is met first: one may be
	// under several tactics.
	Anchor string
}

// State of a cell in a word, for its colour: what was seen comes before what
// could be.
func (c matrixCell) State() string {
	switch {
	case c.Total() > 0:
		return "seen"
	case c.Rules+c.Custom+c.Covered > 0:
		return "covered"
	}
	return "open"
}

// Total alerts of the technique and its sub-techniques.
func (c matrixCell) Total() int {
	n := c.Alerts
	for _, s := range c.Subs {
		n += s.Alerts
	}
	return n
}

// AllRules of the technique and its sub-techniques.
func (c matrixCell) AllRules() int {
	n := c.Rules + c.Custom
	for _, s := range c.Subs {
		n += s.Rules + s.Custom
	}
	return n
}

type matrixColumn struct {
	attack.Tactic
	Cells         []matrixCell
	Covered, Seen int
}

type attackPage struct {
	Days    int
	Choices []int
	Only    string
	Columns []matrixColumn
	// Techniques and sub-techniques, those with a rule, those with alerts.
	Of, Covered, Seen int
	// Foreign are techniques of alerts and rules that the matrix does not have.
	Foreign []string
}

func (s *Site) attackMatrix(w http.ResponseWriter, r *http.Request) error {
	p := attackPage{Days: 30, Choices: []int{1, 7, 30, 90, 365}, Only: r.URL.Query().Get("only")}
	if n, err := strconv.Atoi(r.URL.Query().Get("days")); err == nil && slices.Contains(p.Choices, n) {
		p.Days = n
	}
	_, counts, err := s.byDetector(r, p.Days)
	if err != nil {
		return err
	}
	alerts, rules, custom := map[string]int{}, map[string]int{}, map[string]int{}
	for _, c := range counts {
		for _, t := range c.Techniques {
			alerts[t] += c.Count
		}
	}
	shipped, err := s.rules()
	if err != nil {
		return err
	}
	for _, x := range shipped {
		for _, t := range x.Techniques {
			rules[t]++
		}
	}
	list, err := s.cfg.Detections.List(r.Context())
	if err != nil {
		return err
	}
	for _, d := range list {
		if d.Enabled {
			for _, t := range d.Techniques {
				custom[t]++
			}
		}
	}
	for _, x := range s.attack.Techniques("") {
		p.Of++
		if rules[x.ID]+custom[x.ID] > 0 {
			p.Covered++
		}
		if alerts[x.ID] > 0 {
			p.Seen++
		}
	}
	for _, m := range []map[string]int{alerts, rules, custom} {
		for id := range m {
			if s.attack.Name(id) == "" && detection.Technique(id) && !slices.Contains(p.Foreign, id) && len(p.Foreign) < 100 {
				p.Foreign = append(p.Foreign, id)
			}
		}
	}
	slices.Sort(p.Foreign)
	met := map[string]bool{}
	for _, tactic := range s.attack.Tactics() {
		column := matrixColumn{Tactic: tactic}
		var cells []matrixCell
		for _, x := range s.attack.Techniques(tactic.ID) {
			c := matrixCell{Technique: x, Rules: rules[x.ID], Custom: custom[x.ID], Alerts: alerts[x.ID]}
			if !met[x.ID] {
				met[x.ID], c.Anchor = true, x.ID
			}
			if i := len(cells) - 1; i >= 0 && strings.HasPrefix(x.ID, cells[i].ID+".") {
				cells[i].Subs = append(cells[i].Subs, c)
				if c.Rules+c.Custom > 0 {
					cells[i].Covered++
				}
				continue
			}
			cells = append(cells, c)
		}
		for _, c := range cells {
			switch c.State() {
			case "seen":
				column.Seen++
				column.Covered++
			case "covered":
				column.Covered++
			}
			if p.Only == "" || p.Only == c.State() || p.Only == "covered" && c.AllRules() > 0 {
				column.Cells = append(column.Cells, c)
			}
		}
		p.Columns = append(p.Columns, column)
	}
	return s.render(w, r, http.StatusOK, "attack", frame{Title: "ATT&CK", Section: "attack", Page: p})
}
