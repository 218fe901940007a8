package detect

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// Rule is one rule, parsed but not compiled.
type Rule struct {
	ID          string
	Title       string
	Description string
	Status      string
	Severity    event.Severity
	// Techniques are ATT&CK technique ids, Tactic the Category of the alert.
	Techniques []string
	Tactic     string
	// Category, Product and Service are the rule's logsource.
	Category, Product, Service string
	// File and Line say where the rule stands.
	File string
	Line int
	// Builtin rules are part of the product; only they may be self-tests.
	Builtin  bool
	SelfTest bool
	// Name is how correlations and filters refer to the rule besides its id.
	Name string
	// Action is the ActionType of its behaviours, where the rule has a name or is
	// the first of its file.
	Action string
	// Responses are what the agent does when the rule matches, besides the alert.
	Responses []Response
	// ExpectedFrom are those from whom what the rule finds is no alert.
	ExpectedFrom []string
	// Alerts is for informational rules about what is rare by nature: what they
	// find is a behaviour and, a few times a day, an Informational alert.
	Alerts bool

	// cond is nil for correlations of other rules.
	cond *expr
	// corr is set for correlations and for rules with an aggregation.
	corr *correlation
	// filters is set for filters: the ids and names of the rules that they change.
	filters []string
	// silent rules only feed correlations.
	silent bool
	// recordOnly rules make behaviours in place of alerts, because the policy
	// says so.
	recordOnly bool
	// fields and patterns that cond refers to are in its atoms.
	atoms []pattern
}

// errUnsupported marks rules that are correct but use what this engine has not.
var errUnsupported = errors.New("not supported")

// Problem is a rule that is not used, or not as written.
type Problem struct {
	File string
	Line int
	Rule string // title, where known
	Err  error
}

func (p Problem) Error() string {
	s := p.File
	if p.Line > 0 {
		s = fmt.Sprintf("%s:%d", s, p.Line)
	}
	if p.Rule != "" {
		s += fmt.Sprintf(": rule %q", p.Rule)
	}
	return s + ": " + p.Err.Error()
}

func (p Problem) Unwrap() error { return p.Err }

// parsed is what one file holds.
type parsed struct {
	rules     []*Rule
	pipelines []*pipeline
}

// ParseRules reads the rules of one file. Rules without a problem are returned
// also when others have one.
func ParseRules(file string, data []byte) ([]*Rule, []Problem) {
	p, problems := parseFile(file, data)
	return p.rules, problems
}

func parseFile(file string, data []byte) (parsed, []Problem) {
	problem := func(line int, rule string, err error) Problem {
		if le := (*lineError)(nil); errors.As(err, &le) && le.line > 0 {
			line = le.line
		}
		return Problem{File: file, Line: line, Rule: rule, Err: err}
	}
	docs, err := documents(data)
	if err != nil {
		return parsed{}, []Problem{problem(0, "", err)}
	}
	if len(docs) == 0 {
		return parsed{}, []Problem{problem(0, "", errors.New("no rule in this file"))}
	}
	var out parsed
	var problems []Problem
	for i := range docs {
		if isPipeline(&docs[i]) {
			p, err := parsePipeline(&docs[i])
			if err != nil {
				problems = append(problems, problem(docs[i].line, "", err))
				continue
			}
			p.name = first(p.name, file)
			out.pipelines = append(out.pipelines, p)
			continue
		}
		r, err := parseRule(&docs[i])
		if err != nil {
			problems = append(problems, problem(docs[i].line, r.Title, err))
			continue
		}
		r.File = file
		if r.Action = camel(r.Name); r.Action == "" && i == 0 {
			base := path.Base(file)
			r.Action = camel(strings.TrimSuffix(base, path.Ext(base)))
		}
		if r.ID == "" {
			// A file may hold several rules without an id.
			r.ID = first(r.Name, strings.TrimSuffix(file, ".yml"))
			if i > 0 && r.Name == "" {
				r.ID = fmt.Sprintf("%s#%d", r.ID, i+1)
			}
		}
		out.rules = append(out.rules, r)
	}
	return out, problems
}

func textOf(n *node) string {
	if n == nil || n.kind == listNode || n.kind == mapNode {
		return ""
	}
	return n.text
}

func parseRule(n *node) (*Rule, error) {
	r := &Rule{Line: n.line}
	if n.kind != mapNode {
		return r, atLine(n.line, "a rule is a mapping, this is %s", n.kind)
	}
	r.Title, r.ID = textOf(n.get("title")), textOf(n.get("id"))
	r.Description, r.Status = strings.TrimSpace(textOf(n.get("description"))), textOf(n.get("status"))
	if r.Title == "" {
		return r, atLine(n.line, "title: missing")
	}
	if len(r.Title) > 512 || len(r.ID) > 256 {
		return r, atLine(n.line, "title or id: too long")
	}
	r.Name = textOf(n.get("name"))
	if n.get("action") != nil {
		return r, atLine(n.get("action").line, "rule collections (action): %w", errUnsupported)
	}
	switch level := textOf(n.get("level")); level {
	case "informational":
		r.Severity = event.SeverityInformational
	case "low":
		r.Severity = event.SeverityLow
	case "medium", "":
		r.Severity = event.SeverityMedium
	case "high", "critical":
		r.Severity = event.SeverityHigh
	default:
		return r, atLine(n.get("level").line, "level: %q is not one of informational, low, medium, high, critical", level)
	}
	if err := r.parseTags(n.get("tags")); err != nil {
		return r, err
	}
	if err := r.parseResponses(n.get("response")); err != nil {
		return r, err
	}
	if err := r.parseExpected(n.get("expected_from")); err != nil {
		return r, err
	}
	if err := r.parseAlerts(n.get("alert")); err != nil {
		return r, err
	}
	if c := n.get("correlation"); c != nil {
		return r, r.parseCorrelation(c)
	}
	src := n.get("logsource")
	if src == nil || src.kind != mapNode {
		return r, atLine(n.line, "logsource: missing")
	}
	r.Category, r.Product, r.Service = textOf(src.get("category")), textOf(src.get("product")), textOf(src.get("service"))
	if f := n.get("filter"); f != nil && n.get("detection") == nil {
		return r, r.parseFilter(f)
	}
	det := n.get("detection")
	if det == nil || det.kind != mapNode {
		return r, atLine(n.line, "detection: missing")
	}
	return r, r.parseDetection(det)
}

var (
	techniqueTag = regexp.MustCompile(`^attack\.t\d{4}(\.\d{3})?$`)
	tactics      = map[string]string{
		"reconnaissance": "Reconnaissance", "resourcedevelopment": "ResourceDevelopment",
		"initialaccess": "InitialAccess", "execution": "Execution", "persistence": "Persistence",
		"privilegeescalation": "PrivilegeEscalation", "defenseevasion": "DefenseEvasion",
		"stealth": "DefenseEvasion", "defenseimpairment": "DefenseEvasion",
		"credentialaccess": "CredentialAccess", "discovery": "Discovery", "lateralmovement": "LateralMovement",
		"collection": "Collection", "commandandcontrol": "CommandAndControl", "exfiltration": "Exfiltration",
		"impact": "Impact",
	}
	tacticName = strings.NewReplacer("-", "", "_", "", "attack.", "")
)

func (r *Rule) parseTags(n *node) error {
	if n == nil || n.kind == nullNode {
		return nil
	}
	if n.kind != listNode {
		return atLine(n.line, "tags: must be a list, is %s", n.kind)
	}
	for i := range n.items {
		tag := strings.ToLower(textOf(&n.items[i]))
		switch {
		case techniqueTag.MatchString(tag):
			r.Techniques = append(r.Techniques, strings.ToUpper(strings.TrimPrefix(tag, "attack.")))
		case strings.HasPrefix(tag, "attack."):
			if t := tactics[tacticName.Replace(tag)]; t != "" && r.Tactic == "" {
				r.Tactic = t
			}
		case tag == "bulwark.selftest":
			r.SelfTest = true
		}
	}
	return nil
}

// parseDetection reads the searches and the condition.
func (r *Rule) parseDetection(det *node) error {
	cond := det.get("condition")
	if cond == nil {
		return atLine(det.line, "detection: condition is missing")
	}
	searches := make(map[string]*expr)
	var names []string
	for i, name := range det.keys {
		if name == "condition" || name == "timeframe" || name == "rules" && r.filters != nil {
			continue
		}
		e, err := r.search(&det.items[i])
		if err != nil {
			return fmt.Errorf("detection: %s: %w", name, err)
		}
		searches[name] = e
		names = append(names, name)
	}
	texts := []node{*cond}
	if cond.kind == listNode {
		texts = cond.items
	}
	any := &expr{op: opOr}
	for i := range texts {
		text, aggregation, found := strings.Cut(textOf(&texts[i]), "|")
		if found {
			if len(texts) > 1 || r.filters != nil {
				return atLine(texts[i].line, "condition: an aggregation must be the only condition")
			}
			if err := r.parseAggregation(aggregation, det.get("timeframe"), texts[i].line); err != nil {
				return err
			}
		}
		e, err := parseCondition(text, names, searches)
		if err != nil {
			return atLine(texts[i].line, "condition: %w", err)
		}
		any.kids = append(any.kids, e)
	}
	if len(any.kids) == 0 {
		return atLine(cond.line, "condition: empty")
	}
	r.cond = any.simplify()
	return nil
}

// search reads one named search: a mapping (all of its fields), a list of
// mappings (one of them) or a list of keywords (one of them, in any field).
func (r *Rule) search(n *node) (*expr, error) {
	switch n.kind {
	case mapNode:
		and := &expr{op: opAnd}
		for i, key := range n.keys {
			e, err := r.fieldMatch(key, &n.items[i])
			if err != nil {
				return nil, err
			}
			and.kids = append(and.kids, e)
		}
		if len(and.kids) == 0 {
			return nil, atLine(n.line, "is empty")
		}
		return and, nil
	case listNode:
		or := &expr{op: opOr}
		for i := range n.items {
			item := &n.items[i]
			if item.kind == listNode || item.kind == nullNode {
				return nil, atLine(item.line, "holds %s", item.kind)
			}
			e, err := r.search(item)
			if err != nil {
				return nil, err
			}
			or.kids = append(or.kids, e)
		}
		if len(or.kids) == 0 {
			return nil, atLine(n.line, "is empty")
		}
		return or, nil
	case nullNode:
		return nil, atLine(n.line, "is empty")
	}
	return r.fieldMatch("|contains", n) // a keyword
}
