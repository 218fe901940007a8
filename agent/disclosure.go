package agent

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/database"
	api "github.com/bulwarkhq/bulwark/api/control"
)

// Everybody may ask the local API what was found, so that a user learns why a
// file of theirs is gone. Names of files, command lines and users can be private
// or hold passwords: those of others are for administrators (decision 0016).

// viewer is who asks.
type viewer struct {
	all  bool   // root and members of the group bulwark
	name string // the account
}

func (a *Agent) viewer(ctx context.Context) viewer {
	c := control.CallerFrom(ctx)
	v := viewer{all: c.Administrator()}
	if c.Known() {
		v.name = a.userName(c.UID)
	}
	return v
}

// may reports whether what concerns a user is for the viewer.
func (v viewer) may(user string) bool { return v.all || v.name != "" && v.name == user }

// threat leaves out of a threat what is not for the viewer.
func (v viewer) threat(t api.Threat) api.Threat {
	if v.may(t.User) {
		return t
	}
	t.Restricted = true
	t.Path, t.OtherPaths, t.Inside, t.Process, t.User, t.ContainerID = "", nil, nil, nil, "", ""
	history := t.History
	t.History = make([]api.ThreatHistory, len(history))
	for i, h := range history {
		t.History[i] = api.ThreatHistory{Time: h.Time, Status: h.Status} // details name paths
	}
	return t
}

func (v viewer) quarantined(i api.QuarantineItem) api.QuarantineItem {
	if !v.may(i.Owner) {
		i.Restricted, i.Path, i.Owner = true, "", ""
	}
	return i
}

func (v viewer) scan(s api.Scan) api.Scan {
	if !v.may(s.StartedBy) {
		s.Paths = nil
	}
	return s
}

func (v viewer) progress(p api.ScanProgress) api.ScanProgress {
	if v.all {
		return p
	}
	p.Scan, p.Current = v.scan(p.Scan), ""
	found := p.Detections
	p.Detections = make([]api.ScanDetection, len(found))
	for i, d := range found {
		p.Detections[i] = api.ScanDetection{ID: d.ID, Name: d.Name, Action: d.Action, Restricted: true}
	}
	return p
}

// event leaves out of an announcement what is not for the viewer.
func (v viewer) event(e api.AgentEvent) api.AgentEvent {
	if v.all || e.Kind != eventThreat && e.Kind != eventAlert && e.Kind != eventScan {
		return e
	}
	var of struct {
		User      string `json:"user"`
		StartedBy string `json:"started_by"`
		Name      string `json:"name"`
		Status    string `json:"status"`
	}
	if json.Unmarshal(e.Data, &of) == nil && (v.may(of.User) || v.may(of.StartedBy)) {
		return e
	}
	e.Data = nil
	if e.Kind == eventThreat {
		e.Text = "threat " + of.Status + ": " + of.Name
	}
	return e
}

// Kinds of announcements that concern somebody.
const (
	eventThreat = "threat"
	eventAlert  = "alert"
	eventScan   = "scan"
)

// damagedDatabases are those that were set aside. Health asks often and must not
// wait for a disk, so the folder is read now and then.
type damagedDatabases struct {
	mu    sync.Mutex
	paths []string
}

func (d *damagedDatabases) list() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.paths...)
}

// watch reads the folder until ctx ends.
func (d *damagedDatabases) watch(ctx context.Context, folder string) error {
	for {
		paths := database.Damaged(folder)
		d.mu.Lock()
		d.paths = paths
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Minute):
		}
	}
}
