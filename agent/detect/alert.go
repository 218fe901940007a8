package detect

import (
	"container/list"
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// selfTestArgument carries the id of a self-test on the command line of the
// program that it runs.
var selfTestArgument = regexp.MustCompile(`(?:^| )--behaviour-alert=([A-Za-z0-9-]{1,64})(?: |$)`)

// SelfTestID gives the id that the command line of a self-test carries.
func SelfTestID(commandLine string) string {
	if m := selfTestArgument.FindStringSubmatch(commandLine); m != nil {
		return m[1]
	}
	return ""
}

// Alert makes the alert for a match. report is false when the same rule was
// reported for the process, one of its parents or one of its siblings within
// the window: then it is the same happening, and only counted.
//
// Nor is it true for an informational rule without responses that alerted often
// enough today.
//
// ancestry is the chain of parents of the event's subject, nearest first.
func (e *Engine) Alert(m Match, ev *event.Event, ancestry []event.Process) (alert event.Alert, report bool) {
	r := m.Rule
	p := *subject(ev)
	alert = event.Alert{
		ID: newID(), Time: ev.Time, Title: r.Title, Description: r.Description, Severity: r.Severity,
		Category: r.Tactic, Source: event.SourceEDR, DetectorID: r.ID, Techniques: r.Techniques,
		Action: "none", Process: p, Ancestry: ancestry, File: ev.File,
	}
	if len(alert.Ancestry) > 32 {
		alert.Ancestry = alert.Ancestry[:32]
	}
	if alert.Category == "" {
		alert.Category = "SuspiciousActivity"
	}
	if ev.Class == event.ClassProcess || ev.Class == event.ClassBehavior && ev.File.FolderPath == "" {
		alert.File = event.File{
			FileName: p.FileName, FolderPath: p.FolderPath, SHA1: p.SHA1, SHA256: p.SHA256, MD5: p.MD5, Size: p.FileSize,
		}
	}
	copied := *ev
	alert.Event = &copied
	if m.Group != nil {
		alert.Description = strings.TrimSpace(alert.Description + "\n" + m.Group.String())
	}
	if r.SelfTest {
		alert.Source = event.SourceSelfTest
		alert.TestID = SelfTestID(p.CommandLine)
		return alert, true
	}
	if ev.Class == event.ClassBehavior {
		report = e.dedupe.once(treeKey{rule: r.ID, tree: ev.Additional[event.BehaviorTree]})
	} else {
		report = e.dedupe.first(r.ID, p, ancestry)
	}
	if report && r.Alerts && len(r.Responses) == 0 { // what was done must be seen
		var note string
		if note, report = e.rare.take(r.ID); note != "" {
			alert.Description = strings.TrimSpace(alert.Description + "\n" + note)
		}
	}
	if report {
		alert.Conditions = e.Conditions(m, ev)
	}
	return alert, report
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// dedupe remembers for which process trees a rule was reported.
type dedupe struct {
	window time.Duration
	max    int
	now    func() time.Time

	mu         sync.Mutex
	seen       map[treeKey]*list.Element // of *treeSeen
	order      *list.List                // oldest first
	suppressed uint64
}

type treeKey struct {
	rule  string
	pid   int64
	start int64
	tree  string // in place of both, of behaviours
}

type treeSeen struct {
	key treeKey
	at  time.Time
}

func newDedupe(window time.Duration, maxTrees int, now func() time.Time) *dedupe {
	return &dedupe{window: window, max: maxTrees, now: now, seen: make(map[treeKey]*list.Element), order: list.New()}
}

// first says whether this is the first match of the rule in the tree, and
// remembers it.
func (d *dedupe) first(rule string, p event.Process, ancestry []event.Process) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.forget()
	key := func(p *event.Process) treeKey { return treeKey{rule: rule, pid: p.PID, start: p.StartTime.UnixNano()} }
	if _, ok := d.seen[key(&p)]; ok {
		d.suppressed++
		return false
	}
	for i := range ancestry {
		if _, ok := d.seen[key(&ancestry[i])]; ok {
			d.suppressed++
			return false
		}
	}
	d.add(key(&p), now)
	// The parent stands for the siblings; but everything is a child of init, a
	// service manager or a container's first process, which have no parent or
	// are children of init themselves.
	if len(ancestry) > 0 && ancestry[0].PID > 2 && ancestry[0].ParentPID > 2 {
		d.add(key(&ancestry[0]), now)
	}
	return true
}

// once says whether this is the first match of the key, and remembers it.
func (d *dedupe) once(k treeKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.forget()
	if d.seen[k] != nil {
		d.suppressed++
		return false
	}
	d.add(k, now)
	return true
}

// forget drops what is older than the window or too much. mu must be held.
func (d *dedupe) forget() time.Time {
	now := d.now()
	for f := d.order.Front(); f != nil; f = d.order.Front() {
		s := f.Value.(*treeSeen)
		if now.Sub(s.at) <= d.window && d.order.Len() <= d.max {
			break
		}
		d.order.Remove(f)
		delete(d.seen, s.key)
	}
	return now
}

func (d *dedupe) add(k treeKey, now time.Time) {
	if d.seen[k] == nil {
		d.seen[k] = d.order.PushBack(&treeSeen{k, now})
	}
}

// Suppressed counts the matches that were not reported again.
func (e *Engine) Suppressed() uint64 {
	e.dedupe.mu.Lock()
	defer e.dedupe.mu.Unlock()
	return e.dedupe.suppressed
}
