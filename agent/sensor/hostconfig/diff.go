package hostconfig

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// difference is one definition that came, went or changed.
type difference struct {
	old, now *item // one of them nil: it came or went
	changed  []string
}

// compare finds the differences between two snapshots, in a fixed order.
func compare(old, now *snapshot) []difference {
	var out []difference
	for k, n := range now.items {
		o := old.items[k]
		if o == nil {
			out = append(out, difference{now: n})
		} else if changed := changedFields(o.fields, n.fields); len(changed) > 0 {
			out = append(out, difference{old: o, now: n, changed: changed})
		}
	}
	for k, o := range old.items {
		if now.items[k] == nil {
			out = append(out, difference{old: o})
		}
	}
	slices.SortFunc(out, func(a, b difference) int { return strings.Compare(a.item().key(), b.item().key()) })
	return out
}

func changedFields(old, now map[string]string) []string {
	var out []string
	for k, v := range now {
		if ov, ok := old[k]; !ok && v != "" || ov != v {
			out = append(out, k)
		}
	}
	for k, v := range old {
		if _, ok := now[k]; !ok && v != "" {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

func (d *difference) item() *item {
	if d.now != nil {
		return d.now
	}
	return d.old
}

// files are those whose change can have made the difference.
func (d *difference) files() []string {
	if d.old == nil || d.now == nil {
		return d.item().files
	}
	return append(slices.Clone(d.now.files), d.old.files...)
}

// event tells the difference. Time and Initiating are the caller's.
func (d *difference) event() event.Event {
	i := d.item()
	ev := event.Event{Class: event.ClassDevice, Action: d.action(), Additional: map[string]string{}}
	ev.File.FolderPath, ev.File.FileName = i.files[0], path.Base(i.files[0])
	tell := func(name, value string) {
		if value != "" {
			ev.Additional[name] = value
		}
	}
	for name, v := range i.fields {
		if name[0] >= 'A' && name[0] <= 'Z' {
			tell(name, v)
		}
	}
	for _, name := range d.changed {
		if name[0] >= 'A' && name[0] <= 'Z' {
			tell("Previous"+name, d.old.fields[name])
		}
	}
	if len(d.changed) > 0 {
		tell("Changed", strings.Join(d.changed, ","))
	}
	switch i.kind {
	case account, group:
		ev.Logon.AccountName = i.name
	case member:
		_, ev.Logon.AccountName, _ = strings.Cut(i.name, "\x00")
	case service:
		tell("ServiceName", i.name)
	case task:
		tell("TaskName", i.name)
	}
	return ev
}

func (d *difference) action() string {
	i := d.item()
	// A drop-in that comes or goes changes its unit.
	if _, part := i.fields["DropIn"]; part {
		if i.kind == task {
			return event.ScheduledTaskUpdated
		}
		return event.ServiceModified
	}
	actions := map[kind][3]string{
		account: {event.UserAccountCreated, event.UserAccountModified, event.UserAccountDeleted},
		group:   {event.SecurityGroupCreated, event.SecurityGroupModified, event.SecurityGroupDeleted},
		member:  {event.AddedToLocalGroup, event.AddedToLocalGroup, event.RemovedFromGroup},
		service: {event.ServiceInstalled, event.ServiceModified, event.ServiceDeleted},
		task:    {event.ScheduledTaskCreated, event.ScheduledTaskUpdated, event.ScheduledTaskDeleted},
	}[i.kind]
	switch {
	case d.old == nil:
		return actions[0]
	case d.now == nil:
		return actions[2]
	}
	return actions[1]
}

// identities says how many definitions of each kind a snapshot has, for logs.
func (s *snapshot) count(k kind) int {
	n := 0
	for i := range maps.Values(s.items) {
		if i.kind == k {
			n++
		}
	}
	return n
}
