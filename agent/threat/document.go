package threat

import (
	"strconv"
	"time"
)

// Document is the JSON of `threat list --output json`: threats grouped by the
// scan that found them last, real-time protection being one scan.
type Document struct {
	Threats struct {
		Scans []DocumentScan `json:"scans"`
	} `json:"threats"`
}

// DocumentScan is one group.
type DocumentScan struct {
	ID      string           `json:"id,omitempty"`
	Type    string           `json:"type"`
	Threats []DocumentThreat `json:"threats"`
}

// DocumentThreat is one threat with its history.
type DocumentThreat struct {
	Threat  DocumentFields `json:"threat"`
	History []DocumentStep `json:"history"`
}

// DocumentFields are the members that the reference product has, and those that
// an administrator needs besides.
type DocumentFields struct {
	TrackingID    string   `json:"tracking_id"`
	Name          string   `json:"name"`
	Type          string   `json:"type"`
	Status        Status   `json:"status"`
	DetectionTime string   `json:"detection_time"` // ms since the epoch
	Path          string   `json:"path"`           // the latest
	Paths         []string `json:"paths"`
	Inside        []string `json:"inside,omitempty"`
	SHA256        string   `json:"sha256"`
	Size          int64    `json:"size"`
	Signature     string   `json:"signature"`
	Source        string   `json:"source"`
	Process       Process  `json:"process"`
	User          string   `json:"user"`
	Count         uint64   `json:"count"`
	QuarantineIDs []string `json:"quarantine_ids,omitempty"`
}

// DocumentStep is a status and when it began, in ms since the epoch.
type DocumentStep struct {
	Key    string `json:"key"`
	Value  Status `json:"value"`
	Detail string `json:"detail,omitempty"`
}

func milliseconds(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// NewDocument groups rows, keeping their order.
func NewDocument(rows []Threat) Document {
	var d Document
	d.Threats.Scans = []DocumentScan{}
	place := map[Scan]int{}
	for _, t := range rows {
		i, ok := place[t.Scan]
		if !ok {
			i = len(d.Threats.Scans)
			place[t.Scan] = i
			d.Threats.Scans = append(d.Threats.Scans, DocumentScan{ID: t.Scan.ID, Type: t.Scan.Type})
		}
		d.Threats.Scans[i].Threats = append(d.Threats.Scans[i].Threats, NewDocumentThreat(t))
	}
	return d
}

// NewDocumentThreat is the JSON of `threat get --output json`.
func NewDocumentThreat(t Threat) DocumentThreat {
	out := DocumentThreat{
		Threat: DocumentFields{
			TrackingID: t.TrackingID, Name: t.Name, Type: string(t.Type), Status: t.Status,
			DetectionTime: milliseconds(t.Last), Paths: t.Paths, Inside: t.Inside, SHA256: t.SHA256, Size: t.Size,
			Signature: t.Signature, Source: t.Source, Process: t.Process, User: t.User, Count: t.Count,
			QuarantineIDs: t.QuarantineIDs,
		},
		History: []DocumentStep{},
	}
	if len(t.Paths) > 0 {
		out.Threat.Path = t.Paths[0]
	}
	for _, c := range t.History {
		out.History = append(out.History, DocumentStep{Key: milliseconds(c.Time), Value: c.Status, Detail: c.Detail})
	}
	return out
}
