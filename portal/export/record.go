package export

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/alert"
)

// Types of records.
const (
	typeAlert = "alert"
	typeAudit = "audit"
	typeTest  = "test"
)

// Record is one thing to deliver: an alert, an entry of the audit log, or a
// test.
type Record struct {
	Seq   int64 // the alert's number in the log, or the entry's id
	Type  string
	Time  time.Time
	Alert *alert.Alert
	Audit *account.Audit
	By    string // who asked for the test
}

// ID is the same at every try, so that a receiver can leave out what comes
// twice.
func (r *Record) ID() string {
	switch r.Type {
	case typeAlert:
		return "alert-" + r.Alert.Detection.ID
	case typeAudit:
		return "audit-" + strconv.FormatInt(r.Audit.ID, 10)
	}
	return "test-" + strconv.FormatInt(r.Time.UnixMicro(), 10)
}

// portal is what every record says about its sender.
type portal struct {
	url     string // https://host[:port]
	host    string
	version string
}

// document is the JSON form of a record, for webhooks and syslog; the names of
// an alert's members are those of the REST API. docs/portal/exports.md describes
// it.
type document struct {
	Type    string         `json:"type"`
	Version int            `json:"version"`
	ID      string         `json:"id"`
	Time    time.Time      `json:"time"`
	Portal  string         `json:"portal"`
	Product string         `json:"product"`
	Alert   *alertDocument `json:"alert,omitempty"`
	Audit   *auditDocument `json:"audit,omitempty"`
	Message string         `json:"message,omitempty"`
}

type alertDocument struct {
	ID           string    `json:"id"`
	URL          string    `json:"url"`
	Title        string    `json:"title"`
	Description  string    `json:"description,omitempty"`
	Severity     string    `json:"severity"`
	Status       string    `json:"status"`
	Category     string    `json:"category"`
	Source       string    `json:"detectionSource"`
	DetectorID   string    `json:"detectorId,omitempty"`
	ThreatName   string    `json:"threatName,omitempty"`
	ThreatFamily string    `json:"threatFamilyName,omitempty"`
	Techniques   []string  `json:"mitreTechniques"`
	MachineID    string    `json:"machineId"`
	DeviceName   string    `json:"computerDnsName"`
	Created      time.Time `json:"alertCreationTime"`
	EventTime    time.Time `json:"firstEventTime"`
	IncidentID   int64     `json:"incidentId,omitempty"`
	Action       string    `json:"action,omitempty"`
	ActionDetail string    `json:"actionDetail,omitempty"`
	FileName     string    `json:"fileName,omitempty"`
	FilePath     string    `json:"filePath,omitempty"`
	SHA256       string    `json:"sha256,omitempty"`
	SHA1         string    `json:"sha1,omitempty"`
	ProcessID    int64     `json:"processId,omitempty"`
	ProcessPath  string    `json:"processPath,omitempty"`
	CommandLine  string    `json:"processCommandLine,omitempty"`
	AccountName  string    `json:"accountName,omitempty"`
	RemoteIP     string    `json:"remoteIp,omitempty"`
	RemoteURL    string    `json:"remoteUrl,omitempty"`
}

type auditDocument struct {
	ID      int64     `json:"id"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`
	Address string    `json:"address"`
	Action  string    `json:"action"`
	Target  string    `json:"target"`
	Detail  string    `json:"detail"`
	Hash    string    `json:"hash"`
}

// maxTechniques bounds a list that a device made.
const maxTechniques = 32

// document makes the JSON form with texts of at most limit bytes each.
func (r *Record) document(p portal, limit int) document {
	c := func(s string) string { return cut(s, limit) }
	d := document{Type: r.Type, Version: 1, ID: r.ID(), Time: wellFormed(r.Time), Portal: p.url, Product: "Bulwark " + p.version}
	switch r.Type {
	case typeAlert:
		a := &r.Alert.Detection
		d.Alert = &alertDocument{
			ID: a.ID, URL: p.url + "/alerts/" + a.ID, Title: c(a.Title), Description: c(a.Description), Severity: string(a.Severity), Status: c(r.Alert.Status),
			Category: c(a.Category), Source: c(a.Source), DetectorID: c(a.DetectorID), ThreatName: c(a.ThreatName), ThreatFamily: c(a.ThreatFamily),
			Techniques: []string{}, MachineID: c(r.Alert.DeviceID), DeviceName: c(r.Alert.DeviceName), Created: wellFormed(r.Alert.Received), EventTime: wellFormed(a.Time),
			IncidentID: r.Alert.IncidentID, Action: c(a.Action), ActionDetail: c(a.ActionDetail), FileName: c(a.File.FileName), FilePath: c(a.File.FolderPath),
			SHA256: c(a.File.SHA256), SHA1: c(a.File.SHA1), ProcessID: a.Process.PID, ProcessPath: c(a.Process.FolderPath),
			CommandLine: c(a.Process.CommandLine), AccountName: c(a.Process.AccountName),
		}
		for _, t := range a.Techniques[:min(len(a.Techniques), maxTechniques)] {
			d.Alert.Techniques = append(d.Alert.Techniques, cut(t, min(limit, 64)))
		}
		if a.Event != nil {
			d.Alert.RemoteIP, d.Alert.RemoteURL = c(a.Event.Network.RemoteIP), c(a.Event.Network.RemoteURL)
		}
	case typeAudit:
		a := r.Audit
		d.Audit = &auditDocument{a.ID, wellFormed(a.Time), c(a.Actor), c(a.Address), c(a.Action), c(a.Target), c(a.Detail), a.Hash}
	default:
		d.Message = "This is a test of " + p.host + ", sent by " + c(r.By) + "."
	}
	return d
}

// textLimits are how long a text may be, tried in this order until the whole
// fits.
func textLimits() []int { return []int{4096, 1024, 256, 64, 16} }

// encode is the JSON form in at most most bytes, as far as that is possible by
// shortening texts.
func (r *Record) encode(p portal, most int) ([]byte, error) {
	var b []byte
	for _, limit := range textLimits() {
		var err error
		if b, err = json.Marshal(r.document(p, limit)); err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
		if len(b) <= most {
			break
		}
	}
	return b, nil
}

// severity of a record; that of an entry of the audit log and of a test is
// Informational.
func (r *Record) severity() event.Severity {
	if r.Alert != nil {
		return r.Alert.Detection.Severity
	}
	return event.SeverityInformational
}

// title is the record in a few words.
func (r *Record) title(p portal) string {
	switch r.Type {
	case typeAlert:
		return r.Alert.Detection.Title
	case typeAudit:
		return r.Audit.Action + " by " + r.Audit.Actor
	}
	return "Test of " + p.host
}

// cut makes valid UTF-8 of at most limit bytes (at least 4) and marks that
// something is missing.
func cut(s string, limit int) string {
	const mark = "…"
	if len(s) <= limit {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	s = s[:limit-len(mark)]
	for n := 0; n < utf8.UTFMax-1 && s != ""; n++ { // a character in the middle
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return strings.ToValidUTF8(s, "\uFFFD") + mark
}

// wellFormed keeps the clock of a device from making a time that JSON and syslog
// cannot write.
func wellFormed(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Microsecond)
	if y := t.Year(); y < 1970 || y > 9999 {
		return time.Unix(0, 0).UTC()
	}
	return t
}
