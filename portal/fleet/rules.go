package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/policy"
)

// RuleMode is how the devices of a policy treat a behaviour rule.
type RuleMode string

// The modes. A device that has several policies takes the strictest one, in this
// order: Off, RecordOnly, On.
const (
	RuleOn         RuleMode = "on"
	RuleRecordOnly RuleMode = "recordOnly" // a behaviour, no alert
	RuleOff        RuleMode = "off"        // not evaluated
)

// RuleModes are all modes.
func RuleModes() []RuleMode { return []RuleMode{RuleOn, RuleRecordOnly, RuleOff} }

// ruleKeys are the policy's lists of rules by mode.
var ruleKeys = map[RuleMode]string{RuleOff: policy.KeyDisabledRules, RuleRecordOnly: policy.KeyRecordOnlyRules}

// Rules is what the policy says of the rules that are not as shipped, by id.
func (p Policy) Rules() map[string]RuleMode {
	doc, _ := policy.Parse(p.Document) // checked when it was stored
	out := map[string]RuleMode{}
	for _, mode := range []RuleMode{RuleRecordOnly, RuleOff} { // off where a rule is in both
		if v, ok := doc.Get(ruleKeys[mode]); ok {
			list, _ := v.([]string)
			for _, rule := range list {
				out[rule] = mode
			}
		}
	}
	return out
}

// RulesOf is what each of the policies says of the rules.
func RulesOf(policies []Policy) []map[string]RuleMode {
	out := make([]map[string]RuleMode, len(policies))
	for i := range policies {
		out[i] = policies[i].Rules()
	}
	return out
}

// RuleMode is what the policy says of a rule.
func (p Policy) RuleMode(rule string) RuleMode {
	if mode, ok := p.Rules()[rule]; ok {
		return mode
	}
	return RuleOn
}

// SetRule makes a policy treat a behaviour rule in a mode, as a new version of the
// policy. It changes nothing when the policy has it so.
func (s *Service) SetRule(ctx context.Context, id, rule string, mode RuleMode, comment, by, address string) (Policy, error) {
	if !slices.Contains(RuleModes(), mode) {
		return Policy{}, invalid("mode", "%.32q is not one of on, recordOnly, off", mode)
	}
	p, err := s.Policy(ctx, id)
	if err != nil {
		return p, err
	}
	if p.RuleMode(rule) == mode {
		return p, nil
	}
	if p.Document, err = withRule(p.Document, rule, mode); err != nil {
		return p, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	if comment = strings.TrimSpace(comment); comment != "" {
		comment = ": " + comment
	}
	return s.PutPolicy(ctx, p, fmt.Sprintf("behaviour rule %s %s%s", rule, mode, comment), by, address)
}

// withRule puts the rule into the list of the mode and takes it out of the
// others. What else the profile has stays as it is, also what only other systems
// know.
func withRule(document json.RawMessage, rule string, mode RuleMode) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	doc := map[string]any{}
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	for m, key := range ruleKeys {
		section, member, _ := strings.Cut(key, ".")
		in, ok := doc[section].(map[string]any)
		if !ok {
			if doc[section] != nil {
				return nil, invalid("Document", "%s is no object", section)
			}
			in = map[string]any{}
		}
		list, _ := in[member].([]any)
		list = slices.DeleteFunc(slices.Clone(list), func(v any) bool { return v == any(rule) })
		if m == mode {
			list = append(list, rule)
		}
		if in[member] = list; len(list) == 0 {
			delete(in, member)
		}
		if doc[section] = in; len(in) == 0 {
			delete(doc, section)
		}
	}
	return json.Marshal(doc)
}
