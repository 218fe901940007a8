package export

import (
	"strconv"
	"strings"
	"unicode"

	"github.com/bulwarkhq/bulwark/event"
)

// maxCEF bounds a text of CEF in bytes; a name has at most 512 by the format.
const (
	maxCEFText = 1023
	maxCEFName = 512
)

// plainLine makes one line of it: what ends lines or moves a terminal's cursor
// becomes a space. With breaks, \n and \r stay.
func plainLine(s string, breaks bool) string {
	return strings.Map(func(r rune) rune {
		if (unicode.IsControl(r) || r == '\u2028' || r == '\u2029') && (!breaks || (r != '\n' && r != '\r')) {
			return ' '
		}
		return r
	}, s)
}

var (
	cefHeaderEscaper = strings.NewReplacer(`\`, `\\`, `|`, `\|`)
	cefValueEscaper  = strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\r\n", `\n`, "\n", `\n`, "\r", `\r`)
)

// cefHeader escapes a field of the header: \ and | (Common Event Format, "Using
// CEF without syslog": character encoding). A header has no line breaks.
func cefHeader(s string) string {
	return cefHeaderEscaper.Replace(plainLine(s, false))
}

// cefValue escapes a value of the extension: \, = and line breaks; a | stays.
func cefValue(s string) string {
	return cefValueEscaper.Replace(plainLine(s, true))
}

// cefSeverity is the severity of 0 to 10.
func cefSeverity(r *Record) string {
	switch r.severity() {
	case event.SeverityHigh:
		return "8"
	case event.SeverityMedium:
		return "5"
	case event.SeverityLow:
		return "3"
	}
	return "1"
}

// cef is the record as an event of the Common Event Format, version 0, in at most
// most bytes, as far as that is possible by shortening texts.
func (r *Record) cef(p portal, most int) string {
	var s string
	for _, limit := range []int{maxCEFText, 256, 64, 16} {
		if s = r.cefWith(p, limit); len(s) <= most {
			break
		}
	}
	return s
}

func (r *Record) cefWith(p portal, limit int) string {
	class := r.Type
	if r.Type == typeAlert && r.Alert.Detection.DetectorID != "" {
		class = r.Alert.Detection.DetectorID
	}
	if r.Type == typeAudit {
		class = r.Audit.Action
	}
	var b strings.Builder
	b.WriteString("CEF:0")
	for _, f := range []string{"Bulwark", "Bulwark", p.version, cut(class, limit), cut(r.title(p), min(limit, maxCEFName)), cefSeverity(r)} {
		b.WriteString("|" + cefHeader(f))
	}
	b.WriteByte('|')
	first := true
	// Keys are ours and need no escaping. Empty values are left out.
	add := func(key, value string) {
		if value == "" {
			return
		}
		if !first {
			b.WriteByte(' ')
		}
		first = false
		b.WriteString(key + "=" + cefValue(cut(value, limit)))
	}
	custom := func(n int, label, value string) {
		if value != "" {
			key := "cs" + strconv.Itoa(n)
			add(key+"Label", label)
			add(key, value)
		}
	}
	add("externalId", r.ID())
	add("rt", strconv.FormatInt(wellFormed(r.Time).UnixMilli(), 10))
	switch r.Type {
	case typeAlert:
		a := &r.Alert.Detection
		add("cat", a.Category)
		add("act", a.Action)
		add("outcome", a.ActionDetail)
		add("dvchost", r.Alert.DeviceName)
		add("deviceExternalId", r.Alert.DeviceID)
		add("fname", a.File.FileName)
		add("filePath", a.File.FolderPath)
		add("fileHash", a.File.SHA256)
		add("suser", a.Process.AccountName)
		if a.Process.PID != 0 {
			add("spid", strconv.FormatInt(a.Process.PID, 10))
		}
		add("sproc", a.Process.FolderPath)
		if a.Event != nil {
			add("dst", a.Event.Network.RemoteIP)
			add("request", a.Event.Network.RemoteURL)
		}
		custom(1, "threatName", a.ThreatName)
		custom(2, "mitreTechniques", strings.Join(a.Techniques[:min(len(a.Techniques), maxTechniques)], ","))
		custom(3, "detectionSource", a.Source)
		custom(4, "processCommandLine", a.Process.CommandLine)
		if r.Alert.IncidentID != 0 {
			custom(5, "incidentId", strconv.FormatInt(r.Alert.IncidentID, 10))
		}
		custom(6, "alertUrl", p.url+"/alerts/"+a.ID)
		add("msg", a.Description)
	case typeAudit:
		add("suser", r.Audit.Actor)
		add("src", r.Audit.Address)
		add("act", r.Audit.Action)
		custom(1, "target", r.Audit.Target)
		custom(2, "hash", r.Audit.Hash)
		add("msg", r.Audit.Detail)
	default:
		add("suser", r.By)
		add("msg", "This is a test of "+p.host+".")
	}
	return b.String()
}
