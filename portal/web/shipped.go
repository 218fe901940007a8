package web

import (
	"net/http"
	"slices"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/fleet"
)

type shippedRulePage struct {
	Rule     detection.Shipped
	Hits     alert.DetectorCount
	Policies []ruleInPolicy
	Modes    []string
	MayWrite bool
	CSRF     string
}

// ruleInPolicy is how a policy treats the rule, and for whom.
type ruleInPolicy struct {
	fleet.Policy
	Mode       string
	GroupNames []string
}

func ruleModes() []string {
	var out []string
	for _, m := range fleet.RuleModes() {
		out = append(out, string(m))
	}
	return out
}

func (s *Site) shippedByID(id string) (detection.Shipped, error) {
	all, err := s.rules()
	if err != nil {
		return detection.Shipped{}, err
	}
	i := slices.IndexFunc(all, func(x detection.Shipped) bool { return x.ID == id })
	if i < 0 {
		return detection.Shipped{}, &invalid{http.StatusNotFound, "There is no such rule in this version of the portal."}
	}
	return all[i], nil
}

func (s *Site) shippedRule(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	rule, err := s.shippedByID(r.PathValue("id"))
	if err != nil {
		return err
	}
	counts, _, err := s.byDetector(r, countedDays)
	if err != nil {
		return err
	}
	groups, err := s.cfg.Fleet.Groups(ctx)
	if err != nil {
		return err
	}
	list, err := s.cfg.Fleet.Policies(ctx)
	if err != nil {
		return err
	}
	p := shippedRulePage{Rule: rule, Hits: counts[rule.ID], Modes: ruleModes(), MayWrite: access.From(ctx).May(access.PolicyWrite), CSRF: visitOf(ctx).session.CSRF}
	for _, one := range list {
		row := ruleInPolicy{Policy: one, Mode: string(one.RuleMode(rule.ID))}
		for _, g := range groups {
			if slices.Contains(one.Groups, g.ID) {
				row.GroupNames = append(row.GroupNames, g.Name)
			}
		}
		p.Policies = append(p.Policies, row)
	}
	return s.render(w, r, http.StatusOK, "shipped-rule", frame{Title: rule.Title, Section: "detections", Page: p})
}

// setShippedRule changes how policies treat a rule: those whose mode in the form
// is another than the one that they have.
func (s *Site) setShippedRule(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	rule, err := s.shippedByID(r.PathValue("id"))
	if err != nil {
		return err
	}
	if rule.SelfTest {
		return &invalid{http.StatusBadRequest, "The rule of the self-test cannot be switched off."}
	}
	list, err := s.cfg.Fleet.Policies(ctx)
	if err != nil {
		return err
	}
	who := access.From(ctx)
	for _, one := range list {
		// A policy whose row was not changed stays as somebody else may have made it
		// meanwhile.
		mode := fleet.RuleMode(r.PostForm.Get("mode." + one.ID))
		if mode == "" || string(mode) == r.PostForm.Get("was."+one.ID) {
			continue
		}
		if _, err := s.cfg.Fleet.SetRule(ctx, one.ID, rule.ID, mode, rule.Title+". "+r.PostForm.Get("comment"), who.Name, who.Address); err != nil {
			return err
		}
	}
	redirect(w, r, "/detections/shipped/"+rule.ID+"#policies")
	return nil
}
