package rest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/fleet"
)

// behaviorRule is a rule that the product ships, with the policies that change
// how devices treat it. It is our own: the reference product's cannot be seen.
type behaviorRule struct {
	ID              string       `json:"id"`
	DisplayName     string       `json:"displayName"`
	Description     string       `json:"description"`
	Severity        string       `json:"severity"`
	Tactics         []string     `json:"tactics"`
	MitreTechniques []string     `json:"mitreTechniques"`
	LogSource       string       `json:"logSource"`
	Policies        []rulePolicy `json:"policies"`
}

type rulePolicy struct {
	ID      string         `json:"policyId"`
	Name    string         `json:"policyName"`
	Enabled bool           `json:"policyEnabled"`
	Mode    fleet.RuleMode `json:"mode"`
}

func toBehaviorRule(r detection.Shipped, policies []fleet.Policy, modes []map[string]fleet.RuleMode) behaviorRule {
	out := behaviorRule{
		ID: r.ID, DisplayName: r.Title, Description: r.Description, Severity: strings.ToLower(string(r.Severity)), Tactics: append([]string{}, r.Tactics...),
		MitreTechniques: append([]string{}, r.Techniques...), LogSource: r.Source, Policies: []rulePolicy{},
	}
	for i, p := range policies {
		if mode, ok := modes[i][r.ID]; ok {
			out.Policies = append(out.Policies, rulePolicy{p.ID, p.Name, p.Enabled, mode})
		}
	}
	return out
}

func (a *API) behaviorRules(w http.ResponseWriter, r *http.Request) error {
	list, err := a.rules()
	if err != nil {
		return err
	}
	policies, err := a.cfg.Fleet.Policies(r.Context())
	if err != nil {
		return err
	}
	out, modes := make([]behaviorRule, len(list)), fleet.RulesOf(policies)
	for i, rule := range list {
		out[i] = toBehaviorRule(rule, policies, modes)
	}
	a.write(w, http.StatusOK, map[string]any{"value": out})
	return nil
}

func (a *API) shipped(id string) (detection.Shipped, error) {
	list, err := a.rules()
	if err != nil {
		return detection.Shipped{}, err
	}
	i := slices.IndexFunc(list, func(x detection.Shipped) bool { return x.ID == id })
	if i < 0 {
		return detection.Shipped{}, &failure{http.StatusNotFound, "ResourceNotFound", "there is no such rule in this version of the portal", "id"}
	}
	return list[i], nil
}

func (a *API) behaviorRule(w http.ResponseWriter, r *http.Request) error {
	rule, err := a.shipped(r.PathValue("id"))
	if err != nil {
		return err
	}
	policies, err := a.cfg.Fleet.Policies(r.Context())
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, toBehaviorRule(rule, policies, fleet.RulesOf(policies)))
	return nil
}

// setRuleMode makes a policy treat a rule in a mode.
func (a *API) setRuleMode(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		PolicyID string         `json:"policyId"`
		Mode     fleet.RuleMode `json:"mode"`
		Comment  string         `json:"comment"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	rule, err := a.shipped(r.PathValue("id"))
	if err != nil {
		return err
	}
	if rule.SelfTest {
		return bad("id", "the rule of the self-test cannot be switched off")
	}
	p := access.From(r.Context())
	if _, err := a.cfg.Fleet.SetRule(r.Context(), body.PolicyID, rule.ID, body.Mode, body.Comment, p.Name, p.Address); err != nil {
		return err
	}
	return a.behaviorRule(w, r)
}
