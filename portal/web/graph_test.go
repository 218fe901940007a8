package web

import (
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
)

// A graph is bounded and has no circles, whatever devices say.
func TestGraph(t *testing.T) {
	p := func(pid int64) event.Process {
		return event.Process{PID: pid, FileName: "p\u202e", StartTime: time.Unix(pid, 0), CommandLine: strings.Repeat("x", 5000)}
	}
	chain := func(pids ...int64) alert.Alert {
		a := alert.Alert{DeviceID: "d", Detection: event.Alert{Severity: event.SeverityLow, Source: event.SourceEDR, Process: p(pids[0])}}
		for _, pid := range pids[1:] {
			a.Detection.Ancestry = append(a.Detection.Ancestry, p(pid))
		}
		return a
	}
	apart := func(g graph) {
		t.Helper()
		for n, b := range g.Boxes {
			for _, o := range g.Boxes[:n] {
				if o.X == b.X && o.Y == b.Y {
					t.Errorf("two boxes at %d, %d", b.X, b.Y)
				}
			}
			if b.Y+boxHeight > g.Height || b.X+boxWidth > g.Width {
				t.Errorf("a box at %d, %d outside of %d x %d", b.X, b.Y, g.Width, g.Height)
			}
		}
	}
	g := graphOf([]alert.Alert{chain(4, 3, 2), chain(5, 3, 2), chain(2, 4)})
	if len(g.Boxes) != 4 || len(g.Lines) != 3 || g.Left != 0 {
		t.Errorf("%d boxes, %d lines", len(g.Boxes), len(g.Lines))
	}
	apart(g)
	for _, b := range g.Boxes {
		if strings.Contains(b.Label, "\u202e") || len([]rune(b.Command)) > commandLetter {
			t.Errorf("label %q, command %q", b.Label, b.Command)
		}
	}
	g = graphOf([]alert.Alert{chain(7, 7, 7)})
	if len(g.Boxes) != 1 || len(g.Lines) != 0 {
		t.Errorf("a process that is its own parent: %+v", g)
	}
	// Three chains of 32 that continue one another are deeper than is drawn.
	var deep []alert.Alert
	for i := range int64(3) {
		var pids []int64
		for n := range int64(33) {
			pids = append(pids, 1000+32*i+32-n)
		}
		deep = append(deep, chain(pids...))
	}
	g = graphOf(deep)
	if len(g.Boxes) != 97 || len(g.Lines) != 96 || g.Left != 0 {
		t.Errorf("joined chains: %d boxes, %d lines, %d left", len(g.Boxes), len(g.Lines), g.Left)
	}
	apart(g)
	var many []alert.Alert
	for i := range int64(1000) {
		many = append(many, chain(10+3*i, 11+3*i, 12+3*i))
	}
	// Twice: what is left is counted once.
	if g := graphOf(append(many, many...)); len(g.Boxes) != maxNodes || g.Left != 3000-maxNodes {
		t.Errorf("%d boxes of 3000, %d left", len(g.Boxes), g.Left)
	}
}
