package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/policy"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/query"
)

type groupRow struct {
	fleet.Group
	Matches int
	Rollout fleet.Rollout
}

type groupsPage struct {
	Groups   []groupRow
	Other    fleet.Rollout // devices of no group
	Edit     fleet.Group
	MayWrite bool
	CSRF     string
}

func (s *Site) groups(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	list, err := s.cfg.Fleet.Groups(ctx)
	if err != nil {
		return err
	}
	rollout, err := s.cfg.Fleet.Rollout(ctx)
	if err != nil {
		return err
	}
	p := groupsPage{MayWrite: access.From(ctx).May(access.PolicyWrite), CSRF: visitOf(ctx).session.CSRF, Other: rollout[""], Edit: fleet.Group{Rank: 10 * (len(list) + 1)}}
	for _, g := range list {
		row := groupRow{Group: g, Rollout: rollout[g.ID]}
		if rule, err := fleet.ParseRule(g.Rule); err == nil {
			if _, row.Matches, err = s.cfg.Inventory.List(ctx, query.Query{Filter: rule, Top: 1, Count: true}); err != nil {
				return err
			}
		}
		if g.ID == r.URL.Query().Get("edit") {
			p.Edit = g
		}
		p.Groups = append(p.Groups, row)
	}
	return s.render(w, r, http.StatusOK, "groups", frame{Title: "Device groups", Section: "policies", Page: p})
}

func (s *Site) saveGroup(w http.ResponseWriter, r *http.Request) error {
	rank, err := strconv.Atoi(r.PostForm.Get("rank"))
	if err != nil {
		return &invalid{http.StatusBadRequest, "The rank is a number."}
	}
	p := access.From(r.Context())
	_, err = s.cfg.Fleet.PutGroup(r.Context(), fleet.Group{
		ID: r.PostForm.Get("id"), Name: r.PostForm.Get("name"), Description: r.PostForm.Get("description"), Rank: rank, Rule: r.PostForm.Get("rule"),
	}, p.Name, p.Address)
	if err != nil {
		return err
	}
	redirect(w, r, "/groups")
	return nil
}

func (s *Site) deleteGroup(w http.ResponseWriter, r *http.Request) error {
	p := access.From(r.Context())
	if err := s.cfg.Fleet.DeleteGroup(r.Context(), r.PathValue("id"), p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/groups")
	return nil
}

type policiesPage struct {
	Policies []policyRow
	Rollout  fleet.Rollout
	MayWrite bool
}

type policyRow struct {
	fleet.Policy
	GroupNames []string
	Settings   int
}

func (s *Site) policies(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	list, err := s.cfg.Fleet.Policies(ctx)
	if err != nil {
		return err
	}
	groups, err := s.cfg.Fleet.Groups(ctx)
	if err != nil {
		return err
	}
	rollout, err := s.cfg.Fleet.Rollout(ctx)
	if err != nil {
		return err
	}
	p := policiesPage{MayWrite: access.From(ctx).May(access.PolicyWrite)}
	for _, n := range rollout {
		p.Rollout.Applied += n.Applied
		p.Rollout.Pending += n.Pending
	}
	for _, one := range list {
		row := policyRow{Policy: one}
		doc, _ := policy.Parse(one.Document) // checked when it was stored
		for _, k := range policy.Keys() {
			if _, ok := doc.Get(k.Name); ok {
				row.Settings++
			}
		}
		for _, g := range groups {
			if slices.Contains(one.Groups, g.ID) {
				row.GroupNames = append(row.GroupNames, g.Name)
			}
		}
		p.Policies = append(p.Policies, row)
	}
	return s.render(w, r, http.StatusOK, "policies", frame{Title: "Policies", Section: "policies", Page: p})
}

// field is a setting of the editor.
type field struct {
	Name, Label, Doc, Input string
	Values                  []string
	Value                   string // as JSON or word; empty for not set
	Default                 string
	Min, Max                int
}

type section struct {
	Name   string
	Fields []field
	Set    int
}

type policyPage struct {
	Policy    fleet.Policy
	New       bool
	Text      string
	Sections  []section
	Groups    []fleet.Group
	Revisions []fleet.Revision
	Preview   []setting
	For       string // group that the preview is for
	MayWrite  bool
	CSRF      string
}

// setting is a value in force of the preview.
type setting struct {
	Name, Value string
	Set         bool // by a policy
}

func (s *Site) policy(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	p := fleet.Policy{Priority: 100, Enabled: true, Document: json.RawMessage("{}")}
	if id != "new" {
		var err error
		if p, err = s.cfg.Fleet.Policy(r.Context(), id); err != nil {
			return err
		}
	}
	return s.showPolicy(w, r, http.StatusOK, p, string(p.Document), "", r.URL.Query().Get("group"), nil)
}

// showPolicy shows a policy as it is, or as somebody has it in the editor with
// what is wrong about it.
func (s *Site) showPolicy(w http.ResponseWriter, r *http.Request, status int, p fleet.Policy, text, problem, group string, candidate *fleet.Policy) error {
	ctx := r.Context()
	groups, err := s.cfg.Fleet.Groups(ctx)
	if err != nil {
		return err
	}
	page := policyPage{Policy: p, New: p.ID == "", Text: indented(text), Groups: groups, For: group, MayWrite: access.From(ctx).May(access.PolicyWrite), CSRF: visitOf(ctx).session.CSRF}
	page.Sections = sections(text)
	if p.ID != "" {
		if page.Revisions, err = s.cfg.Fleet.Revisions(ctx, p.ID); err != nil {
			return err
		}
	}
	e, _, err := s.cfg.Fleet.Preview(ctx, group, candidate)
	if err != nil {
		return err
	}
	for _, k := range policy.Keys() {
		v := e.Get(k.Name)
		raw, err := k.Encode(policy.Shown(v.Value))
		if err != nil || k.Deprecated != "" {
			continue
		}
		page.Preview = append(page.Preview, setting{k.Name, strings.Trim(string(raw), `"`), v.Origin == policy.OriginPortal})
	}
	title := p.Name
	if title == "" {
		title = "New policy"
	}
	return s.render(w, r, status, "policy", frame{Title: title, Section: "policies", Problem: problem, Page: page})
}

func indented(text string) string {
	out, err := json.MarshalIndent(json.RawMessage(text), "", "  ")
	if err != nil {
		return text
	}
	return string(out)
}

// sections are the fields of the editor with what the profile has, as it has
// it. What is wrong about a profile is shown beside.
func sections(profile string) []section {
	var out []section
	var root map[string]json.RawMessage
	if err := json.Unmarshal([]byte(profile), &root); err != nil {
		root = nil
	}
	for _, k := range policy.Keys() {
		f := field{Name: k.Name, Label: words(k.Member()), Doc: k.Doc, Values: k.Values, Min: k.Min, Max: k.Max}
		switch k.Kind {
		case policy.Bool:
			f.Input, f.Values = "choice", []string{"true", "false"}
		case policy.Switch:
			f.Input, f.Values = "choice", []string{policy.Enabled, policy.Disabled}
		case policy.Enum:
			f.Input = "choice"
		case policy.Int:
			f.Input = "number"
			if k.ZeroOff {
				f.Min = 0
			}
		case policy.String:
			f.Input = "text"
		case policy.Strings, policy.Exclusions, policy.ThreatTypes, policy.Tags:
			f.Input = "json"
		}
		if k.Deprecated != "" {
			continue
		}
		f.Default = encoded(k)
		f.Value = valueAt(root, k.Name)
		name := k.Section()
		if name == "" {
			name = "general"
		}
		i := slices.IndexFunc(out, func(s section) bool { return s.Name == name })
		if i < 0 {
			out = append(out, section{Name: name})
			i = len(out) - 1
		}
		if f.Value != "" {
			out[i].Set++
		}
		out[i].Fields = append(out[i].Fields, f)
	}
	return out
}

// encoded is a key's default in a form field: words without quotes, others as
// JSON.
func encoded(k policy.Key) string {
	raw, err := k.Encode(k.Default)
	if err != nil {
		return ""
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// valueAt is the value of a key in a profile, as a form field has it.
func valueAt(root map[string]json.RawMessage, name string) string {
	for {
		first, rest, nested := strings.Cut(name, ".")
		raw := root[first]
		if !nested {
			var text string
			if json.Unmarshal(raw, &text) == nil {
				return text
			}
			return string(raw)
		}
		root = nil
		if json.Unmarshal(raw, &root) != nil {
			return ""
		}
		name = rest
	}
}

// documentOf makes the profile of the fields of the editor.
func documentOf(get func(string) string) ([]byte, error) {
	var doc policy.Document
	for _, k := range policy.Keys() {
		value := strings.TrimSpace(get("set." + k.Name))
		if value == "" {
			continue
		}
		raw := []byte(value)
		if k.Kind == policy.Switch || k.Kind == policy.Enum || k.Kind == policy.String {
			var err error
			if raw, err = json.Marshal(value); err != nil {
				return nil, fmt.Errorf("%s: %w", k.Name, err)
			}
		}
		var err error
		if doc, err = doc.With(k.Name, raw); err != nil {
			return nil, err
		}
	}
	return json.Marshal(doc)
}

// savePolicy keeps a policy, or only shows what it would mean.
func (s *Site) savePolicy(w http.ResponseWriter, r *http.Request) error {
	ctx, form := r.Context(), r.PostForm
	p := fleet.Policy{Name: form.Get("name"), Description: form.Get("description"), Enabled: form.Get("enabled") != "", Groups: form["groups"]}
	if id := r.PathValue("id"); id != "new" {
		p.ID = id
	}
	p.Priority, _ = strconv.Atoi(form.Get("priority")) // 0 is refused
	p.Version, _ = strconv.Atoi(form.Get("version"))
	text := form.Get("document")
	if form.Get("mode") == "fields" {
		raw, err := documentOf(form.Get)
		if err != nil {
			return s.showPolicy(w, r, http.StatusBadRequest, p, text, upperFirst(err.Error())+".", "", nil)
		}
		text = string(raw)
	}
	document, _, err := fleet.CheckDocument([]byte(text))
	var wrong *fleet.Invalid
	if errors.As(err, &wrong) {
		return s.showPolicy(w, r, http.StatusBadRequest, p, text, upperFirst(wrong.Message)+".", "", nil)
	}
	if err != nil {
		return err
	}
	p.Document = document
	if form.Get("do") == "preview" {
		group := form.Get("for")
		candidate := p
		candidate.Enabled, candidate.Groups = true, nil
		return s.showPolicy(w, r, http.StatusOK, p, text, "", group, &candidate)
	}
	who := access.From(ctx)
	kept, err := s.cfg.Fleet.PutPolicy(ctx, p, form.Get("comment"), who.Name, who.Address)
	if errors.As(err, &wrong) {
		return s.showPolicy(w, r, http.StatusBadRequest, p, text, upperFirst(wrong.Message)+".", "", nil)
	}
	if err != nil {
		return err
	}
	redirect(w, r, "/policies/"+kept.ID)
	return nil
}

func (s *Site) deletePolicy(w http.ResponseWriter, r *http.Request) error {
	p := access.From(r.Context())
	if err := s.cfg.Fleet.DeletePolicy(r.Context(), r.PathValue("id"), p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/policies")
	return nil
}

func (s *Site) revertPolicy(w http.ResponseWriter, r *http.Request) error {
	version, err := strconv.Atoi(r.PostForm.Get("to"))
	if err != nil {
		return &invalid{http.StatusBadRequest, "The version is missing."}
	}
	p := access.From(r.Context())
	if _, err := s.cfg.Fleet.Revert(r.Context(), r.PathValue("id"), version, p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/policies/"+r.PathValue("id"))
	return nil
}
