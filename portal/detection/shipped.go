package detection

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/bulwarkhq/bulwark/event"
)

// Shipped is a rule of behaviour that the product ships and every agent
// evaluates.
type Shipped struct {
	File           string
	ID             string
	Title          string
	Description    string
	Status         string
	Severity       event.Severity
	Tactics        []string // as ATT&CK writes them: command-and-control
	Techniques     []string
	Source         string // category or service of the log source
	Correlation    bool
	FalsePositives []string
	// SelfTest: it belongs to the self-test and cannot be switched off.
	SelfTest bool
	// Text is the rule as it is, in Sigma format.
	Text string
}

// ReadShipped reads the rules of a folder, by title.
func ReadShipped(dir fs.FS) ([]Shipped, error) {
	files, err := fs.Glob(dir, "*.yml")
	if err != nil {
		return nil, fmt.Errorf("shipped rules: %w", err)
	}
	var out []Shipped
	for _, name := range files {
		raw, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("shipped rules: %w", err)
		}
		list, err := readShipped(name, raw)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	slices.SortFunc(out, func(a, b Shipped) int { return strings.Compare(strings.ToLower(a.Title), strings.ToLower(b.Title)) })
	return out, nil
}

// document is what the pages need of a Sigma rule.
type document struct {
	Title          string         `yaml:"title"`
	ID             string         `yaml:"id"`
	Status         string         `yaml:"status"`
	Description    string         `yaml:"description"`
	Level          string         `yaml:"level"`
	Tags           []string       `yaml:"tags"`
	FalsePositives []string       `yaml:"falsepositives"`
	LogSource      logSource      `yaml:"logsource"`
	Correlation    map[string]any `yaml:"correlation"`
}

type logSource struct {
	Category string `yaml:"category"`
	Service  string `yaml:"service"`
}

// readShipped reads one file: the rules of it that raise alerts. Those without
// tags only feed the correlations of their file.
func readShipped(name string, raw []byte) ([]Shipped, error) {
	var out []Shipped
	source := ""
	parts := strings.Split("\n"+string(raw), "\n---\n")
	for _, part := range parts {
		var d document
		if err := yaml.Unmarshal([]byte(part), &d); err != nil {
			return nil, fmt.Errorf("shipped rule %s: %w", name, err)
		}
		if d.LogSource.Category != "" {
			source = d.LogSource.Category
		} else if d.LogSource.Service != "" {
			source = d.LogSource.Service
		}
		if len(parts) > 1 && len(d.Tags) == 0 {
			continue
		}
		r, err := d.rule(name)
		if err != nil {
			return nil, err
		}
		if r.Source, r.Text = source, string(raw); r.Source == "" {
			r.Source = "correlation" // of rules in other files
		}
		out = append(out, r)
	}
	return out, nil
}

func (d document) rule(name string) (Shipped, error) {
	r := Shipped{File: path.Base(name), ID: d.ID, Title: d.Title, Status: d.Status, Description: strings.TrimSpace(d.Description), FalsePositives: d.FalsePositives, Correlation: d.Correlation != nil}
	if r.ID == "" || r.Title == "" {
		return r, fmt.Errorf("shipped rule %s has no id or no title", name)
	}
	switch d.Level {
	case "critical", "high":
		r.Severity = event.SeverityHigh
	case "medium":
		r.Severity = event.SeverityMedium
	case "low":
		r.Severity = event.SeverityLow
	default:
		r.Severity = event.SeverityInformational
	}
	for _, tag := range d.Tags {
		if tag == "bulwark.selftest" {
			r.SelfTest = true
		}
		text, ok := strings.CutPrefix(tag, "attack.")
		if !ok {
			continue
		}
		if t := strings.ToUpper(text); Technique(t) {
			r.Techniques = append(r.Techniques, t)
		} else {
			r.Tactics = append(r.Tactics, text)
		}
	}
	return r, nil
}
