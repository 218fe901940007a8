package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// linesInterval is the time between progress lines where there is no terminal.
const linesInterval = 10 * time.Second

// scanView shows the progress of a scan: a bar of two lines that is redrawn on
// a terminal, plain lines now and then elsewhere, nothing in JSON.
type scanView struct {
	app   *app
	drawn bool
	last  time.Time
}

func (a *app) newScanView() *scanView { return &scanView{app: a, last: a.now()} }

func (v *scanView) show(p api.ScanProgress) {
	a := v.app
	if a.json() {
		return
	}
	if len(p.Detections) > 0 {
		v.clear()
		for _, d := range p.Detections {
			a.say("%s", detectionLine(d))
		}
	}
	if p.Scan.State.Final() {
		return
	}
	if a.terminal {
		v.draw(p)
		return
	}
	if now := a.now(); now.Sub(v.last) >= linesInterval {
		v.last = now
		a.say("%s", progressLine(p, now))
	}
}

func detectionLine(d api.ScanDetection) string {
	path := shown(d.Path)
	if d.Restricted {
		path = "a file that only administrators may know"
	}
	for _, inside := range d.Inside {
		path += " -> " + visible(inside)
	}
	return fmt.Sprintf("Threat: %s in %s: %s", visible(d.Name), path, visible(d.Action))
}

// progressLine is the state of a scan in one line.
func progressLine(p api.ScanProgress, now time.Time) string {
	took := max(now.Sub(p.Scan.Start), time.Millisecond)
	files := countText(p.Scan.Files)
	if p.Counted {
		files += " of " + countText(p.FilesTotal)
	}
	if p.Scan.Unchanged > 0 {
		files += " (" + countText(p.Scan.Unchanged) + " unchanged)"
	}
	return fmt.Sprintf("%s files, %s, %s/s, %s threats, %s", files, bytesText(p.Scan.Bytes),
		bytesText(int64(float64(p.Scan.Bytes)/took.Seconds())), countText(p.Scan.Threats), durationText(took))
}

// fraction is how much of the scan is done, from 0 to 1; negative when it is
// not known yet.
func fraction(p api.ScanProgress) float64 {
	p.Scan.Files, p.Scan.Bytes = p.Scan.Files+p.Scan.Unchanged, p.Scan.Bytes+p.Scan.UnchangedBytes
	switch {
	case !p.Counted:
		return -1
	case p.BytesTotal > 0 && p.FilesTotal > 0:
		// Files cost time to open, bytes to read: half and half.
		return min(1, (float64(p.Scan.Bytes)/float64(p.BytesTotal)+float64(p.Scan.Files)/float64(p.FilesTotal))/2)
	case p.FilesTotal > 0:
		return min(1, float64(p.Scan.Files)/float64(p.FilesTotal))
	}
	return 1
}

// draw redraws the bar.
func (v *scanView) draw(p api.ScanProgress) {
	a := v.app
	width := max(20, a.width-1)
	var b strings.Builder
	if v.drawn {
		b.WriteString("\r\x1b[1A")
	}
	b.WriteString("\r\x1b[K" + fit(barText(fraction(p), a.now(), min(30, width/3))+"  "+progressLine(p, a.now()), width) + "\n")
	b.WriteString("\x1b[K" + fitEnd(shown(p.Current), width))
	fmt.Fprint(a.stdout, b.String())
	v.drawn = true
}

// clear removes the bar.
func (v *scanView) clear() {
	if v.drawn {
		fmt.Fprint(v.app.stdout, "\r\x1b[K\x1b[1A\r\x1b[K")
		v.drawn = false
	}
}

// barText is a bar; while the end is not known something moves in it.
func barText(done float64, now time.Time, width int) string {
	inner := max(4, width-7)
	if done < 0 {
		at := int(now.UnixMilli()/120) % (2 * (inner - 2))
		if at >= inner-2 {
			at = 2*(inner-2) - at
		}
		return "[" + strings.Repeat(" ", at) + "==" + strings.Repeat(" ", inner-2-at) + "]  ..%"
	}
	full := int(done * float64(inner))
	return fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("=", full), strings.Repeat(" ", inner-full), int(done*100))
}

// fit cuts s at the end, fitEnd at the beginning, so that it takes at most
// width columns. Characters are taken to be one column wide; wide ones make the
// line shorter, never longer, since they count twice.
func fit(s string, width int) string {
	used := 0
	for i, r := range s {
		used += columns(r)
		if used > width {
			return s[:i]
		}
	}
	return s
}

func fitEnd(s string, width int) string {
	total := 0
	for _, r := range s {
		total += columns(r)
	}
	if total <= width {
		return s
	}
	for len(s) > 0 && total > width-3 {
		r, size := utf8.DecodeRuneInString(s)
		total -= columns(r)
		s = s[size:]
	}
	return "..." + s
}

// columns is how wide a character is at most.
func columns(r rune) int {
	if r >= 0x1100 {
		return 2
	}
	return 1
}
