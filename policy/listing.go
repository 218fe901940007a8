package policy

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of a listing.
const (
	maxListingLine    = 64 << 10
	maxListingEntries = 10_000
)

// ParseListing reads exclusions as the reference product's command line lists
// them: blocks that begin with a header ("Excluded folder") and have lines
// "Path: "/x"", with frames between them that do not matter. Managed ones are
// left out. A line that cannot be understood is a problem (a warning), and so is
// an exclusion that there cannot be.
func ParseListing(text string) ([]Exclusion, []Problem) {
	l := listing{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxListingLine)
	for lines.Scan() && len(l.out) < maxListingEntries {
		l.number++
		l.line(strings.TrimSpace(lines.Text()))
	}
	l.end()
	if err := lines.Err(); err != nil {
		l.warn("%v", err)
	}
	return l.out, l.problems
}

type listing struct {
	number   int
	out      []Exclusion
	problems []Problem

	open    bool // inside of a block
	managed bool
	begun   int // line of the block's header
	now     Exclusion
}

// headers are the first lines of blocks.
var headers = map[string]ExclusionType{
	"excluded folder": ExcludeFolder, "excluded file": ExcludeFile,
	"excluded file extension": ExcludeExtension, "excluded extension": ExcludeExtension, "excluded process": ExcludeProcess,
}

func (l *listing) warn(format string, args ...any) {
	if len(l.problems) < maxProblems {
		l.problems = append(l.problems, Problem{Line: l.number, Column: 1, Message: fmt.Sprintf(format, args...), Warning: true})
	}
}

func (l *listing) line(text string) {
	header, managed := strings.CutSuffix(text, "[managed]")
	kind, isHeader := headers[strings.ToLower(strings.TrimSpace(header))]
	switch {
	case text == "" || text == "No exclusions" || strings.Trim(text, "=-") == "":
		return
	case isHeader:
		l.end()
		l.open, l.managed, l.begun, l.now = true, managed, l.number, Exclusion{Type: kind, Scopes: ScopeEPP}
		return
	case !l.open:
		l.warn("%q does not belong to an exclusion", clip(text))
		return
	}
	name, value, _ := strings.Cut(text, ":")
	value = strings.TrimSpace(value)
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "path", "extension", "name", "process name", "process path", "file extension":
		l.now.Value = unquote(value)
	case "scope":
		var words []string
		for _, w := range strings.Split(strings.Trim(value, "[]"), ",") {
			if w = unquote(strings.TrimSpace(w)); w != "" {
				words = append(words, w)
			}
		}
		scopes, err := ParseScope(words)
		if err != nil || scopes == 0 {
			l.warn("scope %q is not known; epp is taken", clip(value))
			return
		}
		l.now.Scopes = scopes
	default:
		l.warn("%q is not understood", clip(text))
	}
}

// unquote takes quotes away; text without any is as it is.
func unquote(s string) string {
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return strings.Trim(s, `"`)
}

func (l *listing) end() {
	if !l.open {
		return
	}
	l.open = false
	if l.managed {
		return
	}
	x, err := l.now.Normalize()
	if err != nil {
		l.problems = append(l.problems, Problem{Line: l.begun, Column: 1, Message: err.Error(), Warning: true})
		return
	}
	l.out = append(l.out, x)
}
