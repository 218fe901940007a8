package policy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Problem is one thing wrong in a profile.
type Problem struct {
	// Line and Column, from 1.
	Line, Column int
	// Key it concerns; empty for the profile as a whole.
	Key string
	// Message says what is wrong, Suggestion what was probably meant.
	Message, Suggestion string
	// Warning: the value applies all the same.
	Warning bool
}

// String is the problem in one line, without the file's name.
func (p Problem) String() string {
	s := fmt.Sprintf("%d:%d: ", p.Line, p.Column)
	if p.Warning {
		s += "warning: "
	}
	if p.Key != "" {
		s += p.Key + ": "
	}
	s += p.Message
	if p.Suggestion != "" {
		s += "; did you mean " + p.Suggestion + "?"
	}
	return s
}

// maxProblems bounds the list; the last then says that there are more.
const maxProblems = 100

// Parse reads a profile. Values that are wrong are left out of the document
// and named in the problems. A profile that is no JSON gives an empty document
// and a problem with an empty Key that is no warning (see Broken).
func Parse(data []byte) (Document, []Problem) {
	p := parse{data: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), doc: Document{values: map[string]any{}}}
	if len(bytes.TrimSpace(p.data)) == 0 {
		p.problem(0, "", "", "the file is empty: write {} for a profile without settings")
		return p.doc, p.problems
	}
	root, err := readTree(p.data)
	if err != nil {
		at := &offsetError{msg: err.Error()}
		errors.As(err, &at)
		p.problem(at.offset, "", "", "%s", at.msg)
		return p.doc, p.problems
	}
	if root.kind != "object" {
		p.problem(root.offset, "", "", "a profile is a JSON object, this is %s", article(root.kind))
		return p.doc, p.problems
	}
	p.section("", root)
	p.together()
	return p.doc, p.problems
}

// Broken reports whether the problems say that the profile could not be read
// at all, so that what was in force before should stay.
func Broken(problems []Problem) bool {
	for _, p := range problems {
		if p.Key == "" && !p.Warning {
			return true
		}
	}
	return false
}

type parse struct {
	data     []byte
	doc      Document
	problems []Problem
	// offsets of the values that are in the document.
	offsets map[string]int
}

func (p *parse) add(offset int, warning bool, key, suggestion, message string) {
	if len(p.problems) > maxProblems {
		return
	}
	line, column := place(p.data, offset)
	if len(p.problems) == maxProblems {
		p.problems = append(p.problems, Problem{Line: line, Column: column, Key: "...", Message: "there are more problems; they are not shown", Warning: true})
		return
	}
	p.problems = append(p.problems, Problem{Line: line, Column: column, Key: key, Message: message, Suggestion: suggestion, Warning: warning})
}

func (p *parse) problem(offset int, key, suggestion, format string, args ...any) {
	p.add(offset, false, key, suggestion, fmt.Sprintf(format, args...))
}

func (p *parse) warn(offset int, key, format string, args ...any) {
	p.add(offset, true, key, "", fmt.Sprintf(format, args...))
}

// section reads the members of an object; prefix is its path with a dot, or "".
func (p *parse) section(prefix string, n node) {
	seen := make(map[string]bool, len(n.members))
	for _, m := range n.members {
		name := prefix + m.name
		if seen[m.name] {
			p.warn(m.offset, name, "stands here more than once: the last one counts")
		}
		seen[m.name] = true
		key, known := Lookup(name)
		system, isForeign := foreign[name]
		switch {
		case known:
			p.value(key, name, m)
		case isSection(name):
			if m.node.kind != "object" {
				p.problem(m.node.offset, name, "", "is a section: an object is wanted, not %s", article(m.node.kind))
				continue
			}
			p.section(name+".", m.node)
		case isForeign:
			p.warn(m.offset, name, "is for %s and has no effect on Linux", system)
		case strings.HasPrefix(m.name, "$") || strings.HasPrefix(m.name, "_") || strings.HasPrefix(m.name, "//"):
			// "$schema" for editors, and the usual ways to write a comment.
		case len(p.problems) <= maxProblems:
			p.problem(m.offset, name, suggestKey(prefix, m.name), "no such key")
		}
	}
}

// value reads the value of a known key; name is as it was written.
func (p *parse) value(key Key, name string, m member) {
	if name != key.Name {
		p.warn(m.offset, name, "is an old spelling of %s: it still works", key.Name)
		if _, both := p.offsets[key.Name]; both {
			return // the proper spelling counts
		}
	}
	if key.Kind == Switch && m.node.kind == "object" && key.Name == KeyScheduledScan {
		p.problem(m.node.offset, name, `"enabled" here and the times in a section "scheduledScan" at the top`, "is a switch, not an object (an early draft had it so)")
		return
	}
	c := convert{parse: p, key: key, name: name}
	v, ok := c.value(m.node)
	if !ok {
		return
	}
	if key.check != nil {
		if err := key.check(v); err != nil {
			p.problem(m.node.offset, name, "", "%s", err)
			return
		}
	}
	if p.offsets == nil {
		p.offsets = map[string]int{}
	}
	p.doc.values[key.Name] = v
	p.offsets[key.Name] = m.offset
}

// together looks at values that only make sense with each other, or have no effect.
func (p *parse) together() {
	for _, k := range keys {
		v, ok := p.doc.values[k.Name]
		if !ok {
			continue
		}
		if k.Fixed != "" && v != k.Default {
			p.warn(p.offsets[k.Name], k.Name, "has no effect: %s", k.Fixed)
		}
		if k.Deprecated == "" {
			continue
		}
		if _, both := p.doc.values[k.Deprecated]; both {
			p.warn(p.offsets[k.Name], k.Name, "has no effect beside %s", k.Deprecated)
		}
	}
}

var sections = func() map[string]bool {
	all := map[string]bool{}
	for _, k := range keys {
		for s := k.Section(); s != ""; {
			all[s] = true
			i := strings.LastIndexByte(s, '.')
			if i < 0 {
				break
			}
			s = s[:i]
		}
	}
	return all
}()

func isSection(name string) bool { return sections[name] }

func article(kind string) string {
	switch kind {
	case "object", "array":
		return "an " + kind
	case "null":
		return kind
	}
	return "a " + kind
}
