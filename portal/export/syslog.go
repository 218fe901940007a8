package export

import (
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// maxMessage bounds a message in bytes. RFC 5424 section 6.1 lets receivers cut
// what is longer than 2,048; rsyslog takes 8 KiB unless it is told otherwise.
const maxMessage = 8000

// syslogTime is the TIMESTAMP of RFC 5424 section 6.2.3, with microseconds.
const syslogTime = "2006-01-02T15:04:05.000000Z07:00"

// syslogSeverity is the severity of RFC 5424 section 6.2.1.
func syslogSeverity(r *Record) int {
	switch r.severity() {
	case event.SeverityHigh:
		return 2 // critical
	case event.SeverityMedium:
		return 4 // warning
	case event.SeverityLow:
		return 5 // notice
	}
	return 6 // informational
}

// headerField makes a field of the header: printable US-ASCII without spaces, at
// most limit bytes, "-" for none.
func headerField(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), limit)]
}

var parameterEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// paramValue escapes a PARAM-VALUE: ", \ and ] (RFC 5424 section 6.3.3). Line
// breaks become spaces: the RFC allows them, many receivers do not.
func paramValue(s string) string {
	return parameterEscaper.Replace(plainLine(s, false))
}

// enterprise is the number in the names of our structured data. We have none of
// our own; this one is set aside by RFC 5612.
const enterprise = "32473"

// structured is the STRUCTURED-DATA: who sent it (RFC 5424 section 7.2), and what
// people route and filter by.
func (r *Record) structured(p portal) string {
	var b strings.Builder
	element := func(id string, pairs ...string) {
		b.WriteString("[" + id)
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i+1] != "" {
				b.WriteString(" " + pairs[i] + `="` + paramValue(cut(pairs[i+1], 256)) + `"`)
			}
		}
		b.WriteString("]")
	}
	element("origin", "software", "Bulwark", "swVersion", cut(p.version, 32))
	name := r.Type + "@" + enterprise
	switch r.Type {
	case typeAlert:
		a := &r.Alert.Detection
		element(name, "id", a.ID, "severity", string(a.Severity), "category", a.Category, "device", r.Alert.DeviceName, "deviceId", r.Alert.DeviceID, "title", a.Title)
	case typeAudit:
		element(name, "id", strconv.FormatInt(r.Audit.ID, 10), "action", r.Audit.Action, "actor", r.Audit.Actor)
	default:
		element(name, "id", r.ID())
	}
	return b.String()
}

// message is the record as a SYSLOG-MSG of RFC 5424 in at most most bytes. MSG
// has no byte order mark: it is MSG-ANY (section 6.4), because parsers of JSON and
// CEF take a mark for a part of the text.
func (r *Record) message(p portal, d *Destination, most int) ([]byte, error) {
	head := "<" + strconv.Itoa(d.Facility*8+syslogSeverity(r)) + ">1 " + wellFormed(r.Time).Format(syslogTime) + " " + headerField(p.host, 255) +
		" bulwark-portal - " + headerField(r.Type, 32) + " " + r.structured(p) + " "
	if d.Format == CEF {
		return []byte(head + r.cef(p, most-len(head))), nil
	}
	b, err := r.encode(p, most-len(head))
	if err != nil {
		return nil, err
	}
	return append([]byte(head), b...), nil
}

// frame counts the octets of a message (RFC 6587 section 3.4.1).
func frame(message []byte) []byte {
	return append([]byte(strconv.Itoa(len(message))+" "), message...)
}
