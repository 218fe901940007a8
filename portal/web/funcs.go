package web

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// pageNames are the templates that are pages; each is parsed with the layout
// and the shared parts.
var pageNames = []string{"sign-in", "password", "overview", "devices", "device", "alerts", "alert", "hunting", "actions", "action", "live", "library", "groups", "policies", "policy", "detections", "detection", "shipped", "shipped-rule", "attack", "process", "threats", "indicators", "indicator", "indicators-import", "incidents", "incident", "exports", "export", "onboarding", "tokens", "sign-in-code", "second-factor", "users", "audit", "settings", "problem"}

func parsePages(now func() time.Time) (map[string]*template.Template, error) {
	base, err := template.New("").Funcs(functions(now)).ParseFS(files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, err
	}
	pages := map[string]*template.Template{}
	for _, name := range pageNames {
		t, err := base.Clone()
		if err != nil {
			return nil, err
		}
		if pages[name], err = t.ParseFS(files, "templates/"+name+".html"); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

func functions(now func() time.Time) template.FuncMap {
	return template.FuncMap{
		"v":      visible,
		"ago":    func(t time.Time) string { return ago(now().Sub(t), t) },
		"when":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" },
		"day":    func(t time.Time) string { return t.UTC().Format("2 Jan 2006") },
		"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"clock":  func(t time.Time) string { return t.UTC().Format("15:04:05.000") },
		"lower":  func(s any) string { return strings.ToLower(fmt.Sprint(s)) },
		"join":   strings.Join,
		"health": healthLabel,
		"kind":   indicatorKind,
		"words":  words,
		"short":  short,
		"cut":    cut,
		"bytes":  size,
		"number": grouped,
		"technique": func(id string) string {
			return "https://attack.mitre.org/techniques/" + strings.ReplaceAll(url.PathEscape(id), ".", "/") + "/"
		},
		"isTechnique": detection.Technique,
		"span":        span,
		"daysBack":    func() []int { return []int{1, 3, 7, 14, 30} },
		"upper":       upperFirst,
		"minutes":     func(d time.Duration) int { return int(d.Minutes()) },
		"pid":         func(n int64) string { return strconv.FormatInt(n, 10) },
		"has":         func(list []string, s string) bool { return slices.Contains(list, s) },
		"sub":         func(a, b int) int { return a - b },
		"add":         func(a, b int) int { return a + b },
	}
}

// visible shows foreign text so that it cannot deceive: control characters,
// changes of direction and invisible characters appear as escapes.
func visible(s string) string {
	clean := true
	for _, r := range s {
		if hidden(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || unicode.Is(unicode.Co, r) ||
		(r != ' ' && unicode.Is(unicode.Zs, r))
}

func ago(d time.Duration, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	unit := func(n int, name string) string {
		if n == 1 {
			return "1 " + name + " ago"
		}
		return strconv.Itoa(n) + " " + name + "s ago"
	}
	switch {
	case d < -time.Minute:
		return t.UTC().Format("2 Jan 2006 15:04")
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min ago"
	case d < 24*time.Hour:
		return unit(int(d.Hours()), "hour")
	case d < 31*24*time.Hour:
		return unit(int(d.Hours()/24), "day")
	}
	return t.UTC().Format("2 Jan 2006")
}

// span is a length of time in words.
func span(d time.Duration) string {
	unit := func(n time.Duration, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return strconv.FormatInt(int64(n), 10) + " " + name + "s"
	}
	switch {
	case d >= 48*time.Hour && d%(24*time.Hour) == 0:
		return unit(d/(24*time.Hour), "day")
	case d >= time.Hour && d%time.Hour == 0:
		return unit(d/time.Hour, "hour")
	case d >= time.Minute && d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + " min"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return d.Truncate(100 * time.Millisecond).String()
}

func healthLabel(status string) string {
	switch status {
	case inventory.Impaired:
		return "Impaired communication"
	case inventory.NoSensorData:
		return "No sensor data"
	case inventory.NoSensorDataImpaired:
		return "No sensor data, impaired"
	}
	return status
}

// indicatorKind names a type of indicators.
func indicatorKind(t string) string {
	names := map[string]string{
		"FileSha256": "SHA-256", "FileSha1": "SHA-1", "FileMd5": "MD5", "FilePath": "File path", "IpAddress": "IP address", "IpNetwork": "IP network",
		"DomainName": "Domain", "Url": "URL",
	}
	if n := names[t]; n != "" {
		return n
	}
	return t
}

// words writes a name in CamelCase or snake_case as words: "TruePositive",
// "True positive".
func words(s string) string {
	s = strings.ReplaceAll(s, "_", " ")
	var b strings.Builder
	for i, r := range s {
		switch {
		case i == 0:
			b.WriteRune(unicode.ToUpper(r))
		case unicode.IsUpper(r) && s[i-1] != ' ' && !unicode.IsUpper(rune(s[i-1])):
			b.WriteByte(' ')
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func short(s string) string {
	if len(s) > 12 {
		return s[:12]
	}
	return s
}

func size(n int64) string {
	switch {
	case n <= 0:
		return ""
	case n < 1<<10:
		return strconv.FormatInt(n, 10) + " bytes"
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	if n < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// grouped writes a whole number with spaces between thousands, which do not break.
func grouped(n any) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u00a0" + text[i:]
	}
	return text
}

// fact is a name and a value that a page lists.
type fact struct{ Name, Value string }

// healthFacts picks what a person looks for out of an agent's health report.
func healthFacts(raw json.RawMessage) (healthy bool, facts []fact, issues []string) {
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return false, nil, nil
	}
	healthy, _ = m["healthy"].(bool)
	for _, f := range []struct{ key, name string }{
		{"antivirus_enforcement_level", "Protection"},
		{"real_time_protection_enabled", "Real-time protection"},
		{"real_time_protection_subsystem", "File monitoring"},
		{"supplementary_events_subsystem", "Sensor"},
		{"behavior_monitoring", "Behaviour monitoring"},
		{"tamper_protection", "Tamper protection"},
		{"definitions_status", "Definitions"},
		{"definitions_version", "Definitions version"},
		{"definitions_updated", "Definitions updated"},
		{"engine_version", "Engine"},
		{"release_ring", "Release ring"},
		{"events_waiting", "Events waiting"},
		{"events_lost", "Events lost"},
		{"conflicting_applications", "Conflicting applications"},
		{"proxy", "Proxy"},
	} {
		if text := plain(m[f.key]); text != "" {
			facts = append(facts, fact{f.name, text})
		}
	}
	if list, ok := m["health_issues"].([]any); ok {
		for _, i := range list {
			if text, ok := i.(string); ok && len(issues) < 50 {
				issues = append(issues, text)
			}
		}
	}
	return healthy, facts, issues
}

// plain is a JSON value in words; empty for none and for objects.
func plain(v any) string {
	switch v := v.(type) {
	case string:
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return t.UTC().Format("2006-01-02 15:04") + " UTC"
		}
		return v
	case bool:
		if v {
			return "On"
		}
		return "Off"
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		var parts []string
		for _, p := range v {
			if text, ok := p.(string); ok && len(parts) < 20 {
				parts = append(parts, text)
			}
		}
		return strings.Join(parts, ", ")
	}
	return ""
}
