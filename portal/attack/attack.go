// Package attack names the tactics and techniques of MITRE ATT&CK, as far as
// they concern Linux hosts. The numbers and names are ATT&CK's; the descriptions
// are at attack.mitre.org.
package attack

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// Tactic is a column of the matrix.
type Tactic struct {
	ID   string // as the tags of rules write it: command-and-control
	Name string
}

// Technique is a cell. Sub-techniques have the number of their parent before
// the dot.
type Technique struct {
	ID      string
	Name    string
	Tactics []string
}

// Parent of a sub-technique, empty for others.
func (t Technique) Parent() string {
	parent, _, sub := strings.Cut(t.ID, ".")
	if !sub {
		return ""
	}
	return parent
}

//go:embed techniques.txt
var table string

// Table is the matrix.
type Table struct {
	tactics    []Tactic
	techniques []Technique
	byID       map[string]int
}

// Read reads the matrix.
func Read() (*Table, error) {
	t := &Table{byID: map[string]int{}}
	for n, line := range strings.Split(table, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(kind, "tactic:"):
			t.tactics = append(t.tactics, Tactic{strings.TrimPrefix(kind, "tactic:"), rest})
		default:
			name, tactics, ok := strings.Cut(rest, "|")
			x := Technique{ID: kind, Name: strings.TrimSpace(name)}
			if ok {
				x.Tactics = strings.Fields(tactics)
			} else if i, known := t.byID[x.Parent()]; known {
				x.Tactics = t.techniques[i].Tactics
			}
			if len(x.Tactics) == 0 || x.Name == "" {
				return nil, fmt.Errorf("techniques.txt, line %d: %q has no name, no tactic or no parent before it", n+1, line)
			}
			for _, id := range x.Tactics {
				if !slices.ContainsFunc(t.tactics, func(c Tactic) bool { return c.ID == id }) {
					return nil, fmt.Errorf("techniques.txt, line %d: there is no tactic %q", n+1, id)
				}
			}
			if _, twice := t.byID[x.ID]; twice {
				return nil, fmt.Errorf("techniques.txt, line %d: %s is there twice", n+1, x.ID)
			}
			t.byID[x.ID] = len(t.techniques)
			t.techniques = append(t.techniques, x)
		}
	}
	return t, nil
}

// Tactics returns the columns in their order.
func (t *Table) Tactics() []Tactic { return slices.Clone(t.tactics) }

// Techniques returns those of a tactic, sub-techniques behind their parents; all
// of them for an empty tactic.
func (t *Table) Techniques(tactic string) []Technique {
	var out []Technique
	for _, x := range t.techniques {
		if tactic == "" || slices.Contains(x.Tactics, tactic) {
			out = append(out, x)
		}
	}
	return out
}

// Name of a technique; the empty text for one that is not in the table.
func (t *Table) Name(id string) string {
	if i, ok := t.byID[id]; ok {
		return t.techniques[i].Name
	}
	return ""
}
