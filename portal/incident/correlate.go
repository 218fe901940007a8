package incident

import (
	"slices"
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
)

// Kind of what two alerts have in common, the strongest first.
type Kind int

// The kinds.
const (
	Tree Kind = iota // a process of the same device
	Hash             // the same bad file, on any device
	Host             // the same device at about the same time
)

// Kinds returns the kinds, the strongest first.
func Kinds() []Kind { return []Kind{Tree, Hash, Host} }

// Window is how far apart in time two alerts may be that have this in common.
func (k Kind) Window() time.Duration {
	switch k {
	case Tree, Hash:
		return 24 * time.Hour
	case Host:
	}
	return 15 * time.Minute
}

// Bounds of an incident.
const (
	// MaxAlerts is how many alerts an incident takes; then another begins.
	MaxAlerts = 1000
	// HostSpan is how long after its first alert an incident takes others for no
	// other reason than that they are of the same device at the same time: what
	// goes on for ever is not one incident.
	HostSpan = 24 * time.Hour
	// maxKeys bounds what of one alert others are compared with.
	maxKeys = 40
)

// Key is what an alert can have in common with others.
type Key struct {
	Kind  Kind
	Value string
}

// Keys returns what others are compared with: the processes of the alert's
// chain up to the first that starts everybody's programs, the bad file, and the
// device. The process that the alert is about counts whatever its name is.
func Keys(a *alert.Alert) []Key {
	d := &a.Detection
	var out []Key
	chain := append([]event.Process{d.Process}, d.Ancestry...)
	for n, p := range chain {
		if p.PID <= 2 || p.StartTime.IsZero() {
			if n == 0 {
				continue
			}
			break
		}
		if n > 0 && p.Spawns() {
			break
		}
		out = append(out, Key{Tree, a.DeviceID + " " + strconv.FormatInt(p.PID, 10) + " " + strconv.FormatInt(p.StartTime.UnixMicro(), 10)})
		if len(out) == maxKeys {
			break
		}
	}
	// The file of a behaviour rule's alert is often the system's own shell.
	if d.Source == event.SourceAntivirus || d.Source == event.SourceIndicator && d.File.SHA256 != "" {
		if len(d.File.SHA256) == 64 {
			out = append(out, Key{Hash, d.File.SHA256})
		}
	}
	return append(out, Key{Host, a.DeviceID})
}

// Opens reports whether an alert begins an incident when there is none for it to
// join. An Informational one waits: alone it is no incident, and it joins that of
// a graver alert that has something in common with it.
func Opens(a *alert.Alert) bool { return a.Detection.Severity != event.SeverityInformational }

// Reaches reports whether an incident whose alerts began at first takes one at a
// time for what it has in common.
func (k Kind) Reaches(first, at time.Time) bool { return k != Host || at.Sub(first).Abs() <= HostSpan }

// Link is an open incident with which an alert has something in common.
type Link struct {
	IncidentID int64
	Kind       Kind
	First      time.Time // of its alerts
	Alerts     int
	// Own is set when all its alerts are of the alert's device.
	Own bool
}

// Decide says which incident an alert at a time joins (0: a new one), and which
// others are merged into it. It joins that of the strongest link, the oldest of
// several. Others that share a process with the alert are one story with it;
// they are merged when the alert's device alone is in them, so that no device
// can merge what is not its own.
func Decide(links []Link, at time.Time) (join int64, merged []int64) {
	links = slices.Clone(links)
	links = slices.DeleteFunc(links, func(l Link) bool {
		return l.Alerts >= MaxAlerts || !l.Kind.Reaches(l.First, at)
	})
	slices.SortFunc(links, func(a, b Link) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		return int(a.IncidentID - b.IncidentID)
	})
	if len(links) == 0 {
		return 0, nil
	}
	join = links[0].IncidentID
	total := links[0].Alerts
	for _, l := range links[1:] {
		if l.Kind == Tree && l.Own && l.IncidentID != join && !slices.Contains(merged, l.IncidentID) && total+l.Alerts < MaxAlerts {
			merged, total = append(merged, l.IncidentID), total+l.Alerts
		}
	}
	return join, merged
}
