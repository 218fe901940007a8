package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// visible makes text from outside safe to show on a terminal: what cannot be
// printed is escaped, so that a file's name can neither begin a line nor send
// control characters. Line breaks of our own messages are kept out of it.
func visible(s string) string {
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || r != ' ' && !unicode.IsPrint(r) {
			q := strconv.Quote(s)
			return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
		}
	}
	return s
}

// shown is a path as visible text.
func shown(p api.Path) string { return visible(string(p)) }

const timeLayout = "Jan 02, 2006 at 03:04:05 PM"

// when formats a time in the local time zone.
func (a *app) when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(a.zone).Format(timeLayout)
}

// fieldLine is one line of health: the value begins behind column 45.
func (a *app) fieldLine(f api.Field) string {
	managed := ""
	if f.Managed {
		managed = " [managed]"
	}
	return fmt.Sprintf("%-44s: %s%s", f.Name, a.fieldValue(f.Value), managed)
}

// fieldValue is a value as health shows it: strings quoted, times not.
func (a *app) fieldValue(v any) string {
	switch v := v.(type) {
	case string:
		// Details come as JSON: times in there are strings.
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return a.when(t)
		}
		return strconv.Quote(v)
	case time.Time:
		return a.when(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case nil:
		return "[]"
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

// bytesText formats a number of bytes.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), -1
	for f >= 1000 && unit < len(units)-1 {
		f /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %cB", f, units[unit])
}

// countText formats a number with separators, 12,345.
func countText(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// durationText formats a duration for people: 1.2 s, 3 min 04 s.
func durationText(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// problemLine is file:line:column: message.
func problemLine(p api.ConfigProblem) string {
	var b strings.Builder
	b.WriteString(visible(p.File))
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	if p.Key != "" {
		b.WriteString(visible(p.Key) + ": ")
	}
	b.WriteString(visible(p.Message))
	if p.Suggestion != "" {
		b.WriteString("; did you mean " + visible(p.Suggestion) + "?")
	}
	return b.String()
}

// Frame and separator of lists.
const (
	frameLine     = "====================================="
	separatorLine = "---"
)

// blocks prints a list: framed, the entries separated.
func (a *app) blocks(entries [][]string) {
	a.say(frameLine)
	for i, lines := range entries {
		if i > 0 {
			a.say(separatorLine)
		}
		for _, l := range lines {
			a.say("%s", l)
		}
	}
	a.say(frameLine)
}
