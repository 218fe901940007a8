package detection

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// match is a row that becomes an alert of its own.
type match struct {
	id     string
	device inventory.Device
	report int64
	at     time.Time
	// row are the columns of the result; source those of the event itself, as the
	// store has it, nil when it is not there any more.
	row    fields
	source fields
}

// fields are values of columns by name.
type fields map[string]any

func (f fields) text(names ...string) string {
	for _, n := range names {
		if v, ok := f[n]; ok {
			switch v := hunting.JSON(v).(type) {
			case nil:
			case string:
				if v != "" {
					return v
				}
			case json.RawMessage:
				return string(v)
			default:
				return fmt.Sprint(v)
			}
		}
	}
	return ""
}

func (f fields) number(name string) int64 {
	n, _ := f[name].(int64)
	return n
}

func (f fields) when(name string) time.Time {
	t, _ := f[name].(time.Time)
	return t
}

// matches makes matches of the rows of a result, each alert once. It also counts
// the rows that name no device.
func (s *Service) matches(ctx context.Context, r Rule, res *hunting.Result) ([]match, int, error) {
	if err := checkColumns(res.Columns); err != nil {
		return nil, 0, err
	}
	rows := make([]fields, len(res.Rows))
	var ids []string
	named := map[string]bool{}
	for i, values := range res.Rows {
		rows[i] = fieldsOf(res, values)
		if id := rows[i].text("DeviceId"); id != "" && !named[id] {
			named[id] = true
			ids = append(ids, id)
		}
	}
	devices, err := s.devices(ctx, ids)
	if err != nil {
		return nil, 0, err
	}
	seen := map[string]bool{}
	var out []match
	unknown := 0
	for _, row := range rows {
		at := row.when("Timestamp")
		d, ok := devices[row.text("DeviceId")]
		if !ok || at.IsZero() {
			unknown++
			continue
		}
		m := match{device: d, report: row.number("ReportId"), at: at, row: row}
		m.id = alertID(r, m)
		if !seen[m.id] {
			seen[m.id] = true
			out = append(out, m)
		}
	}
	return out, unknown, nil
}

// devices finds the devices of the inventory with the ids.
func (s *Service) devices(ctx context.Context, ids []string) (map[string]inventory.Device, error) {
	out := make(map[string]inventory.Device, len(ids))
	for block := range slices.Chunk(ids, query.MaxTerms/2) {
		values := make([]any, len(block))
		for i, id := range block {
			values[i] = id
		}
		list, _, err := s.cfg.Devices.List(ctx, query.Query{Filter: query.In{Field: "id", Values: values}, Top: len(block)})
		if err != nil {
			return nil, fmt.Errorf("the devices of the matches: %w", err)
		}
		for _, d := range list {
			out[d.ID] = d
		}
	}
	return out, nil
}

func fieldsOf(res *hunting.Result, values []any) fields {
	f := make(fields, len(values))
	for i, v := range values {
		f[res.Columns[i].Name] = v
	}
	return f
}

// alertID is the same for the same event however often a run meets it, or for
// all of a device within the time of suppression: the store of alerts then keeps
// one.
func alertID(r Rule, m match) string {
	key := strconv.FormatInt(m.report, 10) + " " + strconv.FormatInt(m.at.UnixMicro(), 10)
	if r.PerDevice {
		key = "window " + strconv.FormatInt(m.at.Unix()/int64(r.Suppress/time.Second), 10)
	}
	sum := sha256.Sum256([]byte("custom detection\x00" + r.ID + "\x00" + m.device.ID + "\x00" + key))
	return hex.EncodeToString(sum[:16])
}

// evidence finds the events that the matches are about, in one query, and says
// what cut its result. A report id is unique only together with its device and
// time: devices count from the beginning when they are set up anew.
func (s *Service) evidence(ctx context.Context, list []match, since time.Time) (cut string, err error) {
	if len(list) == 0 {
		return "", nil
	}
	type key struct {
		device string
		report int64
		at     int64 // µs
	}
	first, last := list[0].at, list[0].at
	conditions := make([]string, len(list))
	for i, m := range list {
		conditions[i] = fmt.Sprintf("(DeviceId == %s and ReportId == %d and Timestamp == datetime(%s))", kqlText(m.device.ID), m.report, kqlTime(m.at))
		if m.at.Before(first) {
			first = m.at
		}
		if m.at.After(last) {
			last = m.at
		}
	}
	res, err := s.cfg.Hunter.Run(ctx, "custom detections", fmt.Sprintf("union withsource=SourceTable %s | where Timestamp between (datetime(%s) .. datetime(%s)) | where %s",
		strings.Join(s.tables, ", "), kqlTime(first), kqlTime(last), strings.Join(conditions, " or ")), hunting.Limits{Rows: 10 * MaxAlerts, Timeout: Timeout, Since: since})
	if err != nil {
		return "", fmt.Errorf("reading the events of the matches: %w", err)
	}
	found := map[key]fields{}
	for _, values := range res.Rows {
		f := fieldsOf(res, values)
		found[key{f.text("DeviceId"), f.number("ReportId"), f.when("Timestamp").UnixMicro()}] = f
	}
	for i, m := range list {
		list[i].source = found[key{m.device.ID, m.report, m.at.UnixMicro()}]
	}
	return res.Truncated, nil
}

func kqlTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z") }

func kqlText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(s) + `"`
}

// alert makes the alert of a match; columns are the names of those of events.
// Evidence comes from the event; where the
// store does not have it any more, from the columns of the row.
func (m match) alert(r Rule, columns map[string]bool) event.Alert {
	from := m.source
	if from == nil {
		from = m.row
	}
	e := eventOf(from)
	e.ReportID, e.Time = uint64(max(m.report, 0)), m.at
	e.Additional = m.custom(e.Additional, columns)
	a := event.Alert{
		ID: m.id, Time: m.at, Title: r.Title, Description: r.describe(), Severity: r.Severity, Category: r.Category, Source: Source,
		DetectorID: r.ID, Techniques: slices.Clone(r.Techniques), Action: "none", File: e.File, Process: e.Initiating, Event: &e,
	}
	if e.Class == event.ClassProcess {
		a.Process = e.Process
		if e.Initiating.PID != 0 || e.Initiating.FileName != "" {
			a.Ancestry = []event.Process{e.Initiating}
		}
	}
	return a
}

func (r Rule) describe() string {
	if r.Recommended == "" {
		return r.Description
	}
	if r.Description == "" {
		return "Recommended: " + r.Recommended
	}
	return r.Description + "\n\nRecommended: " + r.Recommended
}

// maxCustom is how many columns of the query's own an alert shows.
const maxCustom = 20

// custom adds the columns that the query itself made: those that are not among
// the columns of the events.
func (m match) custom(to map[string]string, columns map[string]bool) map[string]string {
	if to == nil {
		to = map[string]string{}
	}
	var names []string
	for name := range m.row {
		if !columns[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names[:min(len(names), maxCustom)] {
		if text := m.row.text(name); text != "" {
			to[name] = text
		}
	}
	return to
}

// eventOf reads an event back from the columns of its row.
func eventOf(f fields) event.Event {
	e := event.Event{Action: f.text("ActionType"), Class: classOf(f)}
	e.Initiating = processOf(f, "InitiatingProcess", event.Process{
		PID: f.number("InitiatingProcessId"), CommandLine: f.text("InitiatingProcessCommandLine"), FileSize: f.number("InitiatingProcessFileSize"),
		StartTime: f.when("InitiatingProcessCreationTime"), ParentPID: f.number("InitiatingProcessParentId"),
		ParentFileName: f.text("InitiatingProcessParentFileName"), ParentStartTime: f.when("InitiatingProcessParentCreationTime"),
	})
	subject := event.File{FileName: f.text("FileName"), FolderPath: f.text("FolderPath"), SHA1: f.text("SHA1"), SHA256: f.text("SHA256"), MD5: f.text("MD5"), Size: f.number("FileSize")}
	switch e.Class {
	case event.ClassProcess:
		e.Process = processOf(f, "", event.Process{PID: f.number("ProcessId"), CommandLine: f.text("ProcessCommandLine"), FileSize: f.number("FileSize"), StartTime: f.when("ProcessCreationTime")})
	case event.ClassLogon:
		e.Logon = event.Logon{
			Type: f.text("LogonType"), AccountName: f.text("AccountName"), Protocol: f.text("Protocol"), FailureReason: f.text("FailureReason"),
			RemoteIP: f.text("RemoteIP"), RemotePort: f.number("RemotePort"), RemoteDevice: f.text("RemoteDeviceName"),
		}
	default:
		subject.PreviousFileName, subject.PreviousFolderPath = f.text("PreviousFileName"), f.text("PreviousFolderPath")
		e.File = subject
	}
	if e.Class == event.ClassNetwork || e.Class == event.ClassDevice {
		e.Network = event.Network{
			RemoteIP: f.text("RemoteIP"), RemotePort: f.number("RemotePort"), RemoteURL: f.text("RemoteUrl"), LocalIP: f.text("LocalIP"),
			LocalPort: f.number("LocalPort"), Protocol: f.text("Protocol"),
		}
	}
	var more map[string]any
	if json.Unmarshal([]byte(f.text("AdditionalFields")), &more) == nil && len(more) > 0 {
		e.Additional = make(map[string]string, len(more))
		for k, v := range more {
			if text, ok := v.(string); ok {
				e.Additional[k] = text
			} else if raw, err := json.Marshal(v); err == nil {
				e.Additional[k] = string(raw)
			}
		}
	}
	return e
}

func processOf(f fields, prefix string, p event.Process) event.Process {
	p.LoginUID = -1
	p.FileName, p.FolderPath = f.text(prefix+"FileName"), f.text(prefix+"FolderPath")
	p.SHA1, p.SHA256, p.MD5 = f.text(prefix+"SHA1"), f.text(prefix+"SHA256"), f.text(prefix+"MD5")
	p.AccountName = f.text(prefix + "AccountName")
	return p
}

// classOf says which table a row comes from: by its name where the store says
// so, else by what it holds.
func classOf(f fields) event.Class {
	for _, t := range event.Tables() {
		if f.text("SourceTable") == t.Name {
			return t.Class
		}
	}
	switch {
	case f.number("ProcessId") != 0 || f.text("ProcessCommandLine") != "":
		return event.ClassProcess
	case f.text("LogonType") != "":
		return event.ClassLogon
	case f.text("RemoteIP", "RemoteUrl") != "":
		return event.ClassNetwork
	case f.text("FolderPath", "FileName") != "":
		return event.ClassFile
	}
	return event.ClassDevice
}
