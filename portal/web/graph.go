package web

import (
	"slices"
	"strconv"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
)

// Bounds and measures of the graph, in units of the drawing.
const (
	maxNodes                  = 120
	maxChain                  = 64
	boxWidth, boxHeight       = 190, 46
	columnStep, rowStep       = 230, 62
	labelRunes, commandLetter = 22, 28
)

// graph is the process tree of an incident's alerts, laid out.
type graph struct {
	Width, Height int
	Boxes         []*box
	Lines         []line
	// Left is how many processes and files are not drawn.
	Left int
}

// box is a process, or a file that one touched.
type box struct {
	X, Y                   int
	Label, Command, Device string
	// Severity of the alert that is about it, empty for an ancestor.
	Severity string
	AlertID  string
	File     bool

	parent   *box
	children []*box
}

// line joins two boxes: from X1, Y1 to X2, Y2 with the bend at Mid.
type line struct{ X1, Y1, X2, Y2, Mid int }

// graphOf joins the chains of alerts. What is in them comes from devices: it is
// bounded, and a chain that would make a circle is cut.
func graphOf(alerts []alert.Alert) graph {
	var g graph
	var roots []*box
	boxes, left := map[string]*box{}, map[string]bool{}
	node := func(key string, parent *box) *box {
		b := boxes[key]
		if b == nil {
			if len(boxes) >= maxNodes {
				left[key] = true
				return nil
			}
			b = &box{}
			boxes[key] = b
			roots = append(roots, b)
		}
		if b.parent == nil && parent != nil && b != parent && !above(b, parent) {
			b.parent = parent
			parent.children = append(parent.children, b)
			roots = slices.DeleteFunc(roots, func(r *box) bool { return r == b })
		}
		return b
	}
	for _, a := range alerts {
		d := &a.Detection
		chain := append([]event.Process{d.Process}, d.Ancestry...)
		var last *box
		for n := len(chain) - 1; n >= 0; n-- {
			p := chain[n]
			if p.PID == 0 && p.FolderPath == "" && p.FileName == "" {
				continue
			}
			b := node(a.DeviceID+"\x00"+strconv.FormatInt(p.PID, 10)+"\x00"+strconv.FormatInt(p.StartTime.UnixMicro(), 10)+"\x00"+p.FolderPath, last)
			if b == nil {
				last = nil // what comes behind it may be there already
				continue
			}
			b.Label, b.Command, b.Device = p.FileName, p.CommandLine, a.DeviceName
			if b.Label == "" {
				b.Label = p.FolderPath
			}
			if p.PID != 0 {
				b.Label += " " + strconv.FormatInt(p.PID, 10)
			}
			if n == 0 {
				b.mark(d)
			}
			last = b
		}
		if d.Source == event.SourceEDR || d.File.FileName == "" && d.File.FolderPath == "" {
			continue
		}
		if f := node(a.DeviceID+"\x00file\x00"+d.File.FolderPath, last); f != nil {
			f.File, f.Label, f.Command, f.Device = true, d.File.FileName, d.File.FolderPath, a.DeviceName
			f.mark(d)
		}
	}
	g.Left = len(left)
	row := 0
	for _, r := range roots {
		row = g.place(r, 0, row)
	}
	g.Height = max(0, row*rowStep-(rowStep-boxHeight)) + 4
	return g
}

// mark notes the alert about a box; the gravest counts.
func (b *box) mark(d *event.Alert) {
	order := alert.Severities()
	if b.Severity == "" || slices.Index(order, string(d.Severity)) < slices.Index(order, b.Severity) {
		b.Severity, b.AlertID = string(d.Severity), d.ID
	}
}

// above reports whether b is the other box or over it.
func above(b, other *box) bool {
	for n := 0; other != nil; n++ {
		if other == b || n > maxNodes {
			return true
		}
		other = other.parent
	}
	return false
}

// place lays a tree out from a row on and returns the next free row.
func (g *graph) place(b *box, depth, row int) int {
	b.X, b.Y = 2+depth*columnStep, 2+row*rowStep
	g.Width = max(g.Width, b.X+boxWidth+2)
	b.Label, b.Command = clipped(b.Label, labelRunes), clipped(b.Command, commandLetter)
	g.Boxes = append(g.Boxes, b)
	next := row
	for n, c := range b.children {
		if n > 0 || depth >= maxChain {
			next = max(next, row+1)
		}
		next = g.place(c, min(depth+1, maxChain), next)
		end := c.X
		if depth >= maxChain {
			end += boxWidth // in the same column, below: the line comes back to its right side
		}
		g.Lines = append(g.Lines, line{b.X + boxWidth, b.Y + boxHeight/2, end, c.Y + boxHeight/2, b.X + boxWidth + (columnStep-boxWidth)/2})
	}
	return max(next, row+1)
}

// clipped is a text of a device that cannot deceive and fits a box.
func clipped(s string, most int) string {
	if len(s) > 8*most {
		s = s[:8*most]
	}
	r := []rune(visible(s))
	if len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return string(r)
}
