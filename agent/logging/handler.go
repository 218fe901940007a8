package logging

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxLine bounds a line, in bytes.
const maxLine = 16 << 10

// handler formats records; it implements slog.Handler.
type handler struct {
	log       *Log
	component string
	sinks     func(slog.Level) []*sink
	attrs     []slog.Attr // with their groups already in their names
	group     string      // prefix of names, with a dot at the end, or empty
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.log.level.Level()
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	attrs := make([]slog.Attr, 0, len(h.attrs)+r.NumAttrs())
	attrs = append(attrs, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		attrs = h.flatten(attrs, h.group, a)
		return true
	})
	line := format(r.Time, h.component, r.Level, r.Message, attrs)
	for _, s := range h.sinks(r.Level) {
		s.put(line)
	}
	return nil
}

// flatten appends a with the group in its name.
func (h *handler) flatten(to []slog.Attr, group string, a slog.Attr) []slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return to
	}
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, sub := range a.Value.Group() {
			to = h.flatten(to, group, sub)
		}
		return to
	}
	a.Key = group + a.Key
	return append(to, a)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		if a.Key == "component" && h.group == "" {
			c.component = a.Value.String()
			continue
		}
		c.attrs = h.flatten(c.attrs, h.group, a)
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.group += name + "."
	return &c
}

var pid = strconv.Itoa(os.Getpid())

// format makes a line. Names of files and other strings come from attackers: no
// value can begin a line of its own or send a terminal control characters.
func format(t time.Time, component string, level slog.Level, message string, attrs []slog.Attr) []byte {
	b := append(make([]byte, 0, 256), '[')
	b = append(b, pid...)
	b = append(b, "]["...)
	b = append(b, component...)
	b = append(b, "]["...)
	b = t.UTC().AppendFormat(b, "2006-01-02 15:04:05.000000 UTC")
	b = append(b, "]["...)
	b = append(b, LevelName(level)...)
	b = append(b, "]: "...)
	b = appendText(b, message)
	for _, a := range attrs {
		b = append(b, ' ')
		b = appendText(b, a.Key)
		b = append(b, '=')
		b = appendValue(b, a.Value.String())
		if len(b) > maxLine {
			break
		}
	}
	if len(b) > maxLine {
		b = b[:maxLine]
		for len(b) > 0 && !utf8.Valid(b[max(0, len(b)-utf8.UTFMax):]) && !utf8.RuneStart(b[len(b)-1]) {
			b = b[:len(b)-1]
		}
		b = append(b, "..."...)
	}
	return append(b, '\n')
}

func plain(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// appendText writes a message as it is where it is printable, else escaped.
func appendText(b []byte, s string) []byte {
	if len(s) > maxLine {
		s = s[:maxLine]
	}
	if plain(s) {
		return append(b, s...)
	}
	q := strconv.Quote(s)
	return append(b, q[1:len(q)-1]...)
}

func appendValue(b []byte, s string) []byte {
	if len(s) > maxLine {
		s = s[:maxLine]
	}
	if s != "" && plain(s) && !strings.ContainsAny(s, " =\"") {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, s)
}
