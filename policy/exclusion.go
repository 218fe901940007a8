package policy

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// ExclusionType is what an exclusion is about.
type ExclusionType string

// The types.
const (
	ExcludeFile      ExclusionType = "file"
	ExcludeFolder    ExclusionType = "folder" // and everything below
	ExcludeExtension ExclusionType = "extension"
	ExcludeProcess   ExclusionType = "process" // files that it opens
)

// Scope is a set of what an exclusion applies to.
type Scope uint8

// The scopes.
const (
	ScopeEPP    Scope = 1 << iota // antivirus: real time, scans, behaviour
	ScopeGlobal                   // antivirus in real time, behaviour and EDR
)

// Names returns the words of the scopes.
func (s Scope) Names() []string {
	names := []string{}
	if s&ScopeEPP != 0 {
		names = append(names, "epp")
	}
	if s&ScopeGlobal != 0 {
		names = append(names, "global")
	}
	return names
}

// ParseScope reads the words of scopes; none is no scope.
func ParseScope(names []string) (Scope, error) {
	var s Scope
	for _, n := range names {
		switch n {
		case "epp":
			s |= ScopeEPP
		case "global":
			s |= ScopeGlobal
		default:
			return 0, fmt.Errorf("scope %q is not one of \"epp\", \"global\"", clip(n))
		}
	}
	return s, nil
}

// Exclusion is one exclusion.
type Exclusion struct {
	Type ExclusionType
	// Value is the path, the extension with its dot, or the process's name or
	// path. It is valid UTF-8, since profiles are JSON.
	Value  string
	Scopes Scope
	// Owner, Reason and Expires are the administrator's notes; an exclusion
	// whose expiry is past does not apply.
	Owner, Reason string
	Expires       time.Time
	// Origin is set by Resolve.
	Origin Origin
	// resolved is Value with symbolic links followed, when that is different.
	resolved string
}

// Same reports whether both exclude the same in the same scope.
func (e Exclusion) Same(o Exclusion) bool {
	return e.Type == o.Type && e.Value == o.Value && e.Scopes == o.Scopes
}

// Expired reports whether the exclusion has ended.
func (e Exclusion) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}

// Resolved is the path that is compared: Value with symbolic links followed.
func (e Exclusion) Resolved() string {
	if e.resolved != "" {
		return e.resolved
	}
	return e.Value
}

// hasPath reports whether Value is a path.
func (e Exclusion) hasPath() bool {
	switch e.Type {
	case ExcludeFile, ExcludeFolder:
		return true
	case ExcludeProcess:
		return strings.ContainsRune(e.Value, '/')
	}
	return false
}

func hasWildcard(s string) bool { return strings.ContainsAny(s, "*?") }

// Normalize returns the exclusion in its canonical form, or an error that says
// why there can be no such exclusion.
func (e Exclusion) Normalize() (Exclusion, error) {
	v := e.Value
	switch {
	case v == "":
		return e, fmt.Errorf("the %s to exclude is empty", e.Type)
	case len(v) > 4096:
		return e, fmt.Errorf("%q is longer than 4096 bytes", clip(v))
	case strings.ContainsRune(v, 0):
		return e, fmt.Errorf("%q contains a NUL character", clip(v))
	case !utf8.ValidString(v):
		return e, fmt.Errorf("%q is not valid UTF-8: use ? in place of the byte", clip(v))
	case e.Scopes == 0:
		return e, fmt.Errorf("the exclusion of %q has no scope", clip(v))
	}
	global := e.Scopes&ScopeGlobal != 0
	switch e.Type {
	case ExcludeExtension:
		if !strings.HasPrefix(v, ".") {
			v = "." + v
		}
		if v == "." || strings.ContainsAny(v, "/*?") {
			return e, fmt.Errorf("%q is no file extension: want one like \".log\"", clip(e.Value))
		}
		if global {
			return e, fmt.Errorf("extension %q: extensions cannot be excluded globally, only in the scope epp", v)
		}
	case ExcludeFile, ExcludeFolder, ExcludeProcess:
		if !e.hasPath() && e.Type == ExcludeProcess {
			if v == "*" {
				return e, fmt.Errorf("the process name %q would exclude everything", v)
			}
			if global {
				return e, fmt.Errorf("process %q: a global exclusion needs the full path of the program", clip(v))
			}
			break
		}
		if !path.IsAbs(v) && !strings.HasPrefix(v, "*") {
			return e, fmt.Errorf("path %q is not absolute", clip(v))
		}
		if e.Type != ExcludeFolder && strings.HasSuffix(v, "/") {
			return e, fmt.Errorf("path %q ends with a slash: a folder is excluded as folder (isDirectory true)", clip(v))
		}
		if slices.Contains(strings.Split(v, "/"), "..") {
			return e, fmt.Errorf("path %q contains \"..\"", clip(v))
		}
		v = path.Clean(v)
		if e.Type != ExcludeFolder && v == "/" {
			return e, fmt.Errorf("%q is no file", v)
		}
		if global && hasWildcard(v) {
			return e, fmt.Errorf("path %q: a global exclusion cannot have wildcards", clip(v))
		}
	default:
		return e, fmt.Errorf("exclusion type %q is not one of file, folder, extension, process", clip(string(e.Type)))
	}
	e.Value = v
	return e, nil
}

// Broad warns of exclusions that leave next to nothing protected; empty for
// others.
func (e Exclusion) Broad() string {
	switch {
	case e.Type == ExcludeFolder && (e.Value == "/" || e.Value == "/*" || e.Value == "*"):
		return "this excludes every file: nothing is protected any more"
	case e.Type == ExcludeFile && (e.Value == "/*" || e.Value == "*"):
		return "this excludes every file: nothing is protected any more"
	case e.Type == ExcludeFolder && slices.Contains([]string{"/tmp", "/var/tmp", "/dev/shm", "/home", "/usr", "/var"}, e.Value):
		return "this folder is a usual place for malware"
	}
	return ""
}

// exclusionJSON is the form in profiles.
type exclusionJSON struct {
	Type        string     `json:"$type"`
	Path        string     `json:"path,omitempty"`
	IsDirectory *bool      `json:"isDirectory,omitempty"`
	Extension   string     `json:"extension,omitempty"`
	Name        string     `json:"name,omitempty"`
	Scopes      []string   `json:"scopes,omitempty"`
	Owner       string     `json:"owner,omitempty"`
	Reason      string     `json:"reason,omitempty"`
	Expires     *time.Time `json:"expires,omitempty"`
}

// MarshalJSON writes the exclusion as exclusionSettings has it, with its scopes.
func (e Exclusion) MarshalJSON() ([]byte, error) { return json.Marshal(e.form()) }

// unscoped writes exclusions as antivirusEngine has them: without scopes, which
// are no member there.
func unscoped(list []Exclusion) (json.RawMessage, error) {
	forms := make([]exclusionJSON, len(list))
	for i, e := range list {
		forms[i] = e.form()
		forms[i].Scopes = nil
	}
	return json.Marshal(forms)
}

func (e Exclusion) form() exclusionJSON {
	j := exclusionJSON{Scopes: e.Scopes.Names(), Owner: e.Owner, Reason: e.Reason}
	if !e.Expires.IsZero() {
		j.Expires = &e.Expires
	}
	switch e.Type {
	case ExcludeFile, ExcludeFolder:
		directory := e.Type == ExcludeFolder
		j.Type, j.Path, j.IsDirectory = "excludedPath", e.Value, &directory
	case ExcludeExtension:
		j.Type, j.Extension = "excludedFileExtension", e.Value
	case ExcludeProcess:
		j.Type, j.Name = "excludedFileName", e.Value
	}
	return j
}

// exclusion reads one from a profile.
func (c convert) exclusion(n node) (Exclusion, bool) {
	known := []string{"$type", "path", "isDirectory", "extension", "name", "owner", "reason", "expires"}
	scoped := c.key.Name == KeyScopedExclusions
	if scoped {
		known = append(known, "scopes")
	}
	f := c.fields(n, known...)
	kind, ok := c.enumField(n, f, "$type", []string{"excludedPath", "excludedFileExtension", "excludedFileName"})
	if !ok {
		return Exclusion{}, false
	}
	e := Exclusion{Scopes: ScopeEPP}
	member := ""
	switch kind {
	case "excludedPath":
		e.Type, member = ExcludeFile, "path"
		if d, given := f["isDirectory"]; given {
			dir, isBool := d.value.(bool)
			if !isBool {
				c.problem(d.offset, c.name+".isDirectory", "", "%s is not true or false", d.describe())
				return Exclusion{}, false
			}
			if dir {
				e.Type = ExcludeFolder
			}
		}
	case "excludedFileExtension":
		e.Type, member = ExcludeExtension, "extension"
	case "excludedFileName":
		e.Type, member = ExcludeProcess, "name"
	}
	if e.Value, ok = c.stringField(n, f, member); !ok {
		return Exclusion{}, false
	}
	if scoped {
		if e.Scopes, ok = c.scopes(f); !ok {
			return Exclusion{}, false
		}
	}
	if !c.notes(f, &e) {
		return Exclusion{}, false
	}
	norm, err := e.Normalize()
	if err != nil {
		suggestion := ""
		if scoped && e.Scopes == ScopeGlobal {
			if f["scopes"].kind == "" {
				suggestion = `"scopes": ["epp"] (without scopes an exclusion here is global)`
			}
		}
		c.problem(f[member].offset, c.name+"."+member, suggestion, "%s", err)
		return Exclusion{}, false
	}
	if broad := norm.Broad(); broad != "" {
		c.warn(f[member].offset, c.name, "%s", broad)
	}
	return norm, true
}

func (c convert) scopes(f map[string]node) (Scope, bool) {
	n, given := f["scopes"]
	if !given {
		return ScopeGlobal, true
	}
	if n.kind != "array" || len(n.items) == 0 {
		c.problem(n.offset, c.name+".scopes", "", `a list of "epp", "global" is wanted`)
		return 0, false
	}
	var names []string
	for _, item := range n.items {
		s, _ := item.value.(string)
		names = append(names, s)
	}
	s, err := ParseScope(names)
	if err != nil {
		c.problem(n.offset, c.name+".scopes", "", "%s", err)
	}
	return s, err == nil
}

// notes reads the administrator's notes.
func (c convert) notes(f map[string]node, e *Exclusion) bool {
	for name, to := range map[string]*string{"owner": &e.Owner, "reason": &e.Reason} {
		if n, ok := f[name]; ok {
			s, isString := n.value.(string)
			if !isString {
				c.problem(n.offset, c.name+"."+name, "", "%s is not a string", n.describe())
				return false
			}
			*to = s
		}
	}
	n, ok := f["expires"]
	if !ok {
		return true
	}
	s, _ := n.value.(string)
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		// An expiry that cannot be read must not make the exclusion last for ever.
		c.problem(n.offset, c.name+".expires", "", "%s is no date and time like \"2027-01-31T00:00:00Z\": the exclusion is left out", n.describe())
		return false
	}
	e.Expires = t
	return true
}
