package kql

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ParseTimespan reads a timespan as KQL writes it: 1.5h, 3d, or
// [-][d.]hh:mm[:ss[.fffffff]]. Its resolution is a microsecond.
func ParseTimespan(s string) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	if m := clock.FindStringSubmatch(s); m != nil {
		var total float64
		for i, unit := range []float64{86400, 3600, 60} {
			if m[i+2] != "" {
				n, err := strconv.ParseFloat(m[i+2], 64)
				if err != nil {
					return 0, false
				}
				total += n * unit
			}
		}
		if m[5] != "" {
			n, err := strconv.ParseFloat(m[5], 64)
			if err != nil {
				return 0, false
			}
			total += n
		}
		if m[1] == "-" {
			total = -total
		}
		return micros(total * 1e6)
	}
	sign := 1.0
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		s, sign = rest, -1
	}
	n := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if n < 0 {
		// A bare number is a number of days.
		days, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return 0, false
		}
		return micros(sign * days * 86400e6)
	}
	unit, ok := spanUnits[strings.TrimSpace(s[n:])]
	value, err := strconv.ParseFloat(s[:n], 64)
	if !ok || err != nil {
		return 0, false
	}
	return micros(sign * value * unit)
}

var clock = regexp.MustCompile(`^(-?)(?:(\d{1,8})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d{1,9})?))?$`)

func micros(us float64) (time.Duration, bool) {
	if math.Abs(us) > math.MaxInt64/1000 {
		return 0, false
	}
	return time.Duration(math.Round(us)) * time.Microsecond, true
}

// FormatTimespan writes a timespan as KQL does: [-][d.]hh:mm:ss[.fffffff].
func FormatTimespan(d time.Duration) string {
	var b strings.Builder
	us := d.Microseconds()
	if us < 0 {
		b.WriteByte('-')
		us = -us
	}
	if days := us / 86400e6; days > 0 {
		b.WriteString(strconv.FormatInt(days, 10) + ".")
	}
	two := func(n int64) string { return strconv.Itoa(int(100 + n))[1:] }
	b.WriteString(two(us/3600e6%24) + ":" + two(us/60e6%60) + ":" + two(us/1e6%60))
	if f := us % 1e6; f > 0 {
		b.WriteString("." + strconv.FormatInt(1e6+f, 10)[1:] + "0")
	}
	return b.String()
}

var timeLayouts = []string{
	"2006-01-02T15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
	"2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04", "2006-01-02T15", "2006-01-02 15", "2006-01-02", "2006-01", "2006",
	"1/2/2006 15:04:05", "1/2/2006 3:04:05 PM", "1/2/2006", "2 Jan 2006", "2 Jan 2006 15:04:05", "Jan 2, 2006",
	time.RFC1123, time.RFC1123Z, time.RFC850, time.ANSIC, time.RFC822,
}

// ParseTime reads a date and time in one of the forms that KQL knows. Without a
// zone it is UTC.
func ParseTime(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Truncate(time.Microsecond), true
		}
	}
	return time.Time{}, false
}

// literalOf makes the value of a token that is a literal.
func literalOf(t token) (*Literal, *Error) {
	l := &Literal{Pos: t.pos}
	switch t.kind {
	case text:
		l.Type, l.Value = "string", t.value
		return l, nil
	case number:
		return numberOf(l, t.value)
	case span:
		d, ok := ParseTimespan(t.value)
		if !ok {
			return nil, Errorf(t.pos, "the time span %s is out of range", t.value)
		}
		l.Type, l.Value = "timespan", d
		return l, nil
	}
	bad := func(hint string) *Error {
		return &Error{Pos: t.pos, Message: "cannot read " + t.of + "(" + clip(t.value) + ")", Hint: hint}
	}
	isNull := t.value == "" || t.value == "null"
	switch t.of {
	case "bool", "boolean":
		l.Type = "bool"
		if !isNull {
			l.Value = t.value == "true" || t.value == "1"
		}
	case "long", "int":
		l.Type = t.of
		if !isNull {
			n, err := strconv.ParseInt(strings.TrimPrefix(t.value, "+"), 0, map[string]int{"long": 64, "int": 32}[t.of])
			if err != nil {
				return nil, bad("a whole number is expected")
			}
			l.Value = n
		}
	case "real", "double", "decimal":
		l.Type = "real"
		if !isNull {
			n, err := strconv.ParseFloat(t.value, 64)
			if err != nil {
				return nil, bad("a number is expected")
			}
			l.Value = n
		}
	case "datetime", "date":
		l.Type = "datetime"
		if !isNull {
			v, ok := ParseTime(t.value)
			if !ok {
				return nil, bad("write it like datetime(2026-01-31 18:30)")
			}
			l.Value = v
		}
	case "timespan", "time":
		l.Type = "timespan"
		if !isNull {
			v, ok := ParseTimespan(t.value)
			if !ok {
				return nil, bad("write it like 90m, 1.5h or timespan(1.02:30:00)")
			}
			l.Value = v
		}
	case "guid":
		l.Type = "guid"
		if !isNull {
			l.Value = GUID(strings.ToLower(strings.Trim(t.value, "{}")))
		}
	case "dynamic":
		l.Type = "dynamic"
		if !isNull {
			v, err := dynamicOf(t.value)
			if err != nil {
				return nil, bad("JSON is expected: " + err.Error())
			}
			l.Value = v
		}
	}
	return l, nil
}

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}

func numberOf(l *Literal, s string) (*Literal, *Error) {
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		l.Type, l.Value = "long", n
		return l, nil
	}
	if strings.Trim(s, "0123456789") == "" {
		// Zeros at the front are no octal number here.
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			l.Type, l.Value = "long", n
			return l, nil
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, Errorf(l.Pos, "the number %s is out of range", clip(s))
	}
	l.Type, l.Value = "real", f
	return l, nil
}

// dynamicOf reads JSON, in which KQL also takes texts in single quotes and
// verbatim ones.
func dynamicOf(s string) (JSON, error) {
	var v any
	err := json.Unmarshal([]byte(s), &v)
	if err != nil {
		if other, changed := doubleQuotes(s); changed {
			if json.Unmarshal([]byte(other), &v) == nil {
				err = nil
			}
		}
	}
	if err != nil {
		return "", err
	}
	out, err := json.Marshal(v)
	return JSON(out), err
}

// doubleQuotes rewrites the string literals of KQL as those of JSON.
func doubleQuotes(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		if c != '\'' && c != '"' && c != '@' {
			b.WriteByte(c)
			i++
			continue
		}
		l := &lexer{src: s, at: i}
		if c == '@' && !l.quoteAfterPrefix() {
			return "", false
		}
		value, err := l.str()
		if err != nil {
			return "", false
		}
		encoded, _ := json.Marshal(value) // a string always can be
		b.Write(encoded)
		i = l.at
	}
	return b.String(), true
}
