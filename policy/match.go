package policy

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Use is what an exclusion is asked for.
type Use uint8

// The uses, with the scopes that count for them.
const (
	UseRealTime Use = iota // epp and global
	UseScan                // epp
	UseBehavior            // epp and global
	UseEDR                 // global
	uses
)

func (u Use) scopes() Scope {
	switch u {
	case UseScan:
		return ScopeEPP
	case UseEDR:
		return ScopeGlobal
	}
	return ScopeEPP | ScopeGlobal
}

// ExclusionSet answers whether a file is excluded. It is immutable and safe for
// concurrent use; a match allocates nothing and takes time proportional to the
// length of the path and the number of exclusions with wildcards.
//
// Paths are compared component by component. In an exclusion, ? stands for one
// character of a name and * for any characters within one name; a * at the end
// also covers everything below. A path that begins with * matches at any depth.
type ExclusionSet struct {
	all   []Exclusion
	byUse [uses]exclusionIndex
}

// exclusionIndex finds exclusions (as indexes of all) for one use.
type exclusionIndex struct {
	files, folders, extensions map[string][]int32
	processes, names           map[string][]int32
	wildFiles, wildFolders     []wildExclusion
	wildProcesses, wildNames   []wildExclusion
}

type wildExclusion struct {
	pattern pattern
	index   int32
}

// NewExclusionSet compiles exclusions.
func NewExclusionSet(all []Exclusion) *ExclusionSet {
	s := &ExclusionSet{all: slices.Clone(all)}
	for u := range uses {
		x := &s.byUse[u]
		x.files, x.folders, x.extensions = map[string][]int32{}, map[string][]int32{}, map[string][]int32{}
		x.processes, x.names = map[string][]int32{}, map[string][]int32{}
		for i, e := range s.all {
			if e.Scopes&u.scopes() != 0 {
				x.add(e, int32(i))
			}
		}
	}
	return s
}

func (x *exclusionIndex) add(e Exclusion, i int32) {
	exact := func(m map[string][]int32) {
		m[e.Value] = append(m[e.Value], i)
		if r := e.Resolved(); r != e.Value {
			m[r] = append(m[r], i)
		}
	}
	wild := func(to *[]wildExclusion) {
		*to = append(*to, wildExclusion{compilePattern(e.Value), i})
	}
	switch w := hasWildcard(e.Value); {
	case e.Type == ExcludeExtension:
		exact(x.extensions)
	case e.Type == ExcludeFile && w:
		wild(&x.wildFiles)
	case e.Type == ExcludeFile:
		exact(x.files)
	case e.Type == ExcludeFolder && w:
		wild(&x.wildFolders)
	case e.Type == ExcludeFolder:
		exact(x.folders)
	case e.hasPath() && w:
		wild(&x.wildProcesses)
	case e.hasPath():
		exact(x.processes)
	case w:
		wild(&x.wildNames)
	default:
		exact(x.names)
	}
}

// Len is the number of exclusions.
func (s *ExclusionSet) Len() int { return len(s.all) }

// All returns the exclusions.
func (s *ExclusionSet) All() []Exclusion { return slices.Clone(s.all) }

// Match returns the first exclusion that applies to the file at path (absolute
// and clean, links resolved) opened by the program at exe (empty when there is
// none or it is not known).
func (s *ExclusionSet) Match(u Use, path, exe string, now time.Time) (Exclusion, bool) {
	if i := s.find(u, path, exe, now, nil); i >= 0 {
		return s.all[i], true
	}
	return Exclusion{}, false
}

// Matches returns all that apply.
func (s *ExclusionSet) Matches(u Use, path, exe string, now time.Time) []Exclusion {
	var found []int32
	s.find(u, path, exe, now, &found)
	slices.Sort(found)
	var out []Exclusion
	for _, i := range slices.Compact(found) {
		out = append(out, s.all[i])
	}
	return out
}

// WholeFolders returns the folders that are excluded as a whole and for good
// for a use: without wildcards and without an expiry, links resolved.
func (s *ExclusionSet) WholeFolders(u Use) []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, e := range s.all {
		if e.Type == ExcludeFolder && e.Scopes&u.scopes() != 0 && e.Expires.IsZero() && !hasWildcard(e.Value) {
			out = append(out, e.Resolved())
		}
	}
	return out
}

// ByPath reports whether the file at path is excluded for good whoever opens
// it: by an exclusion of file, folder or extension without an expiry.
func (s *ExclusionSet) ByPath(u Use, path string) bool {
	for _, e := range s.Matches(u, path, "", time.Time{}) {
		if e.Type != ExcludeProcess && e.Expires.IsZero() {
			return true
		}
	}
	return false
}

// find returns the index of the first match or -1; with all it collects every
// match there and returns -1.
func (s *ExclusionSet) find(u Use, path, exe string, now time.Time, all *[]int32) int32 {
	if s == nil || len(s.all) == 0 || u >= uses {
		return -1
	}
	x := &s.byUse[u]
	if i := s.pick(x.files[path], now, all); i >= 0 {
		return i
	}
	if len(x.folders) > 0 {
		if i := s.pick(x.folders["/"], now, all); i >= 0 {
			return i
		}
		for end := 1; end <= len(path); end++ {
			if end == len(path) || path[end] == '/' {
				if i := s.pick(x.folders[path[:end]], now, all); i >= 0 {
					return i
				}
			}
		}
	}
	if base := path[strings.LastIndexByte(path, '/')+1:]; len(x.extensions) > 0 {
		for k := range len(base) {
			if base[k] == '.' {
				if i := s.pick(x.extensions[base[k:]], now, all); i >= 0 {
					return i
				}
			}
		}
	}
	if i := s.wild(x.wildFiles, path, false, now, all); i >= 0 {
		return i
	}
	if i := s.wild(x.wildFolders, path, true, now, all); i >= 0 {
		return i
	}
	if exe == "" {
		return -1
	}
	name := exe[strings.LastIndexByte(exe, '/')+1:]
	if i := s.pick(x.processes[exe], now, all); i >= 0 {
		return i
	}
	if i := s.pick(x.names[name], now, all); i >= 0 {
		return i
	}
	if i := s.wild(x.wildProcesses, exe, false, now, all); i >= 0 {
		return i
	}
	for _, w := range x.wildNames {
		if matchName(w.pattern.names[0], name) {
			if i := s.one(w.index, now, all); i >= 0 {
				return i
			}
		}
	}
	return -1
}

func (s *ExclusionSet) wild(list []wildExclusion, path string, folder bool, now time.Time, all *[]int32) int32 {
	for k := range list {
		if list[k].pattern.match(path, folder) {
			if i := s.one(list[k].index, now, all); i >= 0 {
				return i
			}
		}
	}
	return -1
}

func (s *ExclusionSet) pick(indexes []int32, now time.Time, all *[]int32) int32 {
	for _, i := range indexes {
		if i := s.one(i, now, all); i >= 0 {
			return i
		}
	}
	return -1
}

func (s *ExclusionSet) one(i int32, now time.Time, all *[]int32) int32 {
	if s.all[i].Expired(now) {
		return -1
	}
	if all != nil {
		*all = append(*all, i)
		return -1
	}
	return i
}

// pattern is a path with wildcards.
type pattern struct {
	names    []string // components
	anchored bool     // begins with /; otherwise it matches at any depth
	below    bool     // ends with *: covers everything below too
}

func compilePattern(s string) pattern {
	anchored := strings.HasPrefix(s, "/")
	return pattern{
		names:    strings.Split(strings.TrimPrefix(s, "/"), "/"),
		anchored: anchored,
		below:    strings.HasSuffix(s, "*"),
	}
}

// match reports whether path, absolute and clean, is covered; folder says that
// what is below counts in any case.
func (p pattern) match(path string, folder bool) bool {
	rest := strings.TrimPrefix(path, "/")
	for {
		if p.matchAt(rest, folder || p.below) {
			return true
		}
		if p.anchored {
			return false
		}
		i := strings.IndexByte(rest, '/')
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
}

func (p pattern) matchAt(rest string, below bool) bool {
	for k, name := range p.names {
		component, more, deeper := strings.Cut(rest, "/")
		if !matchName(name, component) {
			return false
		}
		if k == len(p.names)-1 {
			return !deeper || below
		}
		if !deeper {
			return false
		}
		rest = more
	}
	return false
}

// matchName matches one name against one with wildcards. It never backtracks
// further than to the last *, so its time is at most the product of the
// lengths.
func matchName(pattern, name string) bool {
	if pattern == "*" {
		return name != ""
	}
	p, n := 0, 0
	star, resume := -1, 0
	for n < len(name) {
		_, size := utf8.DecodeRuneInString(name[n:])
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, n
			p++
		case p < len(pattern) && pattern[p] == '?':
			p++
			n += size
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			_, size := utf8.DecodeRuneInString(name[resume:])
			resume += size
			p, n = star+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
