package main

import (
	"strconv"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// theirThreats is the answer of `mdatp threat list --output json`, in the shape
// that scripts for the reference product take apart: threats by scan, with a
// history of keys (times) and values (states). A threat has our other members
// too.
type theirThreats struct {
	Threats theirScans `json:"threats"`
}

type theirScans struct {
	Scans []theirScan `json:"scans"`
}

// theirScan are the threats of a scan; those of real-time protection are one
// without an id.
type theirScan struct {
	ID      string        `json:"scan_id"`
	Threats []theirThreat `json:"threats"`
}

type theirThreat struct {
	Threat  api.Threat     `json:"threat"`
	History []theirHistory `json:"history"`
}

type theirHistory struct {
	Key   string `json:"key"` // milliseconds since 1970, as in their history of scans
	Value string `json:"value"`
}

// inTheirShape groups threats by scan, in the order of the list.
func inTheirShape(list api.ThreatList) theirThreats {
	scans := []theirScan{}
	at := make(map[string]int)
	for _, t := range list.Threats {
		history := []theirHistory{}
		for _, h := range t.History {
			history = append(history, theirHistory{strconv.FormatInt(h.Time.UnixMilli(), 10), h.Status})
		}
		i, ok := at[t.ScanID]
		if !ok {
			i = len(scans)
			at[t.ScanID] = i
			scans = append(scans, theirScan{ID: t.ScanID})
		}
		scans[i].Threats = append(scans[i].Threats, theirThreat{t, history})
	}
	return theirThreats{theirScans{scans}}
}
