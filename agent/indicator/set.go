// Package indicator looks for indicators in events and has them blocked: files
// by the scan engine's own hash signatures, paths where accesses are held,
// addresses by a table in the packet filter that is ours alone.
package indicator

import (
	"net/netip"
	"path"
	"strings"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/event"
)

// Set finds the indicators that an event has. Its cost does not depend on the
// number of indicators, except for path patterns. It is not changed once made.
type Set struct {
	hashes   map[string]*api.Indicator // of all three kinds, by their lengths apart
	paths    map[string]*api.Indicator
	patterns []*api.Indicator
	addrs    map[netip.Addr]*api.Indicator
	nets     map[netip.Prefix]*api.Indicator
	bits4    []int // the prefix lengths that nets has
	bits6    []int
	domains  map[string]*api.Indicator
	byHost   map[string][]*api.Indicator // URLs by their host
	// named are those of files by the end of their signature's name.
	named map[string]*api.Indicator
	all   []api.Indicator
}

// maxPatterns bounds what costs time for each event.
const maxPatterns = 1000

// NewSet makes a set of the lists; of two indicators for the same, the later
// list's counts. Expired ones are left out; the rest expires by itself.
func NewSet(now time.Time, lists ...api.List) *Set {
	s := &Set{
		hashes: map[string]*api.Indicator{}, paths: map[string]*api.Indicator{}, addrs: map[netip.Addr]*api.Indicator{},
		nets: map[netip.Prefix]*api.Indicator{}, domains: map[string]*api.Indicator{}, byHost: map[string][]*api.Indicator{},
		named: map[string]*api.Indicator{},
	}
	patternAt := map[string]int{}
	used4, used6 := [33]bool{}, [129]bool{}
	for l := range lists {
		for n := range lists[l].Indicators {
			i := &lists[l].Indicators[n]
			if i.Expired(now) {
				continue
			}
			s.all = append(s.all, *i)
			switch i.Type {
			case api.FileMD5, api.FileSHA1, api.FileSHA256:
				s.hashes[i.Value] = i
				s.named[i.Value[:min(len(i.Value), namedDigits)]] = i
			case api.FilePath:
				s.named[pathDigits(i.Value)] = i
				if !strings.ContainsAny(i.Value, `*?[\`) {
					s.paths[i.Value] = i
				} else if at, again := patternAt[i.Value]; again {
					s.patterns[at] = i
				} else if len(s.patterns) < maxPatterns {
					patternAt[i.Value] = len(s.patterns)
					s.patterns = append(s.patterns, i)
				}
			case api.IPAddress:
				if a, err := netip.ParseAddr(i.Value); err == nil {
					s.addrs[a] = i
				}
			case api.IPNetwork:
				if p, err := netip.ParsePrefix(i.Value); err == nil {
					s.nets[p] = i
					if p.Addr().Is4() {
						used4[p.Bits()] = true
					} else {
						used6[p.Bits()] = true
					}
				}
			case api.Domain:
				s.domains[i.Value] = i
			case api.URL:
				host := hostOf(i.Value)
				s.byHost[host] = append(s.byHost[host], i)
			}
		}
	}
	for b := 32; b > 0; b-- { // the longest prefix first
		if used4[b] {
			s.bits4 = append(s.bits4, b)
		}
	}
	for b := 128; b > 0; b-- {
		if used6[b] {
			s.bits6 = append(s.bits6, b)
		}
	}
	return s
}

func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, "?")
	return host
}

// Len is the number of indicators in force when the set was made.
func (s *Set) Len() int { return len(s.all) }

// Match gives the indicators that an event has, at most one of each kind. An
// indicator that allows hides the others of the same kind of thing.
func (s *Set) Match(ev *event.Event, now time.Time) []*api.Indicator {
	if len(s.all) == 0 {
		return nil
	}
	var out []*api.Indicator
	lasting := func(i *api.Indicator) bool { return !i.Expired(now) }
	add := func(i *api.Indicator) bool {
		if i != nil && lasting(i) {
			out = append(out, i)
			return true
		}
		return false
	}
	switch ev.Class {
	case event.ClassProcess:
		if ev.Action == event.ProcessCreated {
			p := &ev.Process
			_ = add(s.hash(p.SHA256, p.SHA1, p.MD5)) || add(s.path(p.FolderPath, lasting))
			add(s.url(p.CommandLine))
		}
	case event.ClassFile, event.ClassImageLoad:
		f := &ev.File
		_ = add(s.hash(f.SHA256, f.SHA1, f.MD5)) || add(s.path(f.FolderPath, lasting))
	case event.ClassNetwork:
		if ev.Category() == event.CategoryNetwork {
			add(s.Address(ev.Network.RemoteIP))
		}
		add(s.Domain(ev.Network.RemoteURL))
	}
	return out
}

// The signature of an indicator is named by the first digits of the hash.
const (
	threatPrefix = "Bulwark.Indicator."
	namedDigits  = 12
)

// Named gives the indicator of a file whose signature has this name, or whose
// path is known by it, and whether it is the name of one at all: the engine may
// still know one that is gone.
func (s *Set) Named(threat string) (i *api.Indicator, ours bool) {
	digits, ours := strings.CutPrefix(threat, threatPrefix)
	if !ours {
		return nil, false
	}
	digits, _, _ = strings.Cut(digits, ".")
	return s.named[digits], true
}

func (s *Set) hash(sums ...string) *api.Indicator {
	for _, h := range sums {
		if h != "" {
			if i := s.hashes[h]; i != nil {
				return i
			}
		}
	}
	return nil
}

// path gives the first indicator of a path of those that count: the exact one goes
// before the patterns, those in their order.
func (s *Set) path(p string, counts func(*api.Indicator) bool) *api.Indicator {
	if p == "" {
		return nil
	}
	if i := s.paths[p]; i != nil && counts(i) {
		return i
	}
	for _, i := range s.patterns {
		if !counts(i) {
			continue // without the cost of matching
		}
		if ok, err := path.Match(i.Value, p); ok && err == nil {
			return i
		}
	}
	return nil
}

// Address gives the indicator of an address, the one for the smallest network.
func (s *Set) Address(text string) *api.Indicator {
	if text == "" || len(s.addrs)+len(s.nets) == 0 {
		return nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	a = a.Unmap().WithZone("")
	if i := s.addrs[a]; i != nil {
		return i
	}
	bits := s.bits6
	if a.Is4() {
		bits = s.bits4
	}
	for _, b := range bits {
		p, err := a.Prefix(b)
		if err != nil {
			continue
		}
		if i := s.nets[p]; i != nil {
			return i
		}
	}
	return nil
}

// Domain gives the indicator of a name or of one above it.
func (s *Set) Domain(name string) *api.Indicator {
	if name == "" || len(s.domains) == 0 {
		return nil
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for name != "" {
		if i := s.domains[name]; i != nil {
			return i
		}
		_, above, ok := strings.Cut(name, ".")
		if !ok {
			return nil
		}
		name = above
	}
	return nil
}

// url gives the indicator of an address on a command line. What is inside an
// encrypted connection is not seen.
func (s *Set) url(line string) *api.Indicator {
	if len(s.byHost) == 0 {
		return nil
	}
	for range 16 {
		at := strings.Index(line, "://")
		if at < 0 {
			return nil
		}
		begin := strings.LastIndexAny(line[:at], " \t\"'=(") + 1
		end := strings.IndexAny(line[at+3:], " \t\"')|;&>")
		word := line[begin:]
		if end >= 0 {
			word = line[begin : at+3+end]
		}
		host := strings.ToLower(hostOf(word))
		for _, i := range s.byHost[host] {
			_, have, _ := strings.Cut(word, "://")
			_, want, _ := strings.Cut(i.Value, "://")
			if len(have) >= len(want) && strings.EqualFold(have[:len(want)], want) {
				return i
			}
		}
		line = line[at+3:]
	}
	return nil
}

// Alert makes the alert for an indicator that an event has; nil for one that
// says to allow or is silent.
func Alert(i *api.Indicator, ev *event.Event, id string) *event.Alert {
	if i.Action == api.Allow || i.Silent {
		return nil
	}
	p := ev.Process
	if ev.Class != event.ClassProcess {
		p = ev.Initiating
	}
	copied := *ev
	description := i.Description
	if description == "" {
		description = "The indicator " + i.Type + " " + i.Value + " was seen."
	}
	return &event.Alert{
		ID: id, Time: ev.Time, Title: i.Title, Description: description, Severity: event.Severity(i.Severity), Category: "SuspiciousActivity",
		Source: event.SourceIndicator, DetectorID: "indicator:" + i.Type + ":" + i.Value, Action: "none", Process: p, File: ev.File, Event: &copied,
	}
}
