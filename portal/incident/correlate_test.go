package incident

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
)

func TestKeys(t *testing.T) {
	at := time.Unix(1000, 0)
	p := func(pid int64, name string) event.Process {
		return event.Process{PID: pid, FileName: name, StartTime: at.Add(time.Duration(pid) * time.Second)}
	}
	a := alert.Alert{DeviceID: "d", Detection: event.Alert{
		Source: event.SourceEDR, Process: p(90, "curl"), Ancestry: []event.Process{p(80, "bash"), p(70, "sshd"), p(60, "bash"), p(1, "systemd")},
		File: event.File{SHA256: fmt.Sprintf("%064x", 1)},
	}}
	kinds := func(keys []Key) (tree, hash, host int) {
		for _, k := range keys {
			switch k.Kind {
			case Tree:
				tree++
			case Hash:
				hash++
			case Host:
				host++
			}
		}
		return tree, hash, host
	}
	if tree, hash, host := kinds(Keys(&a)); tree != 2 || hash != 0 || host != 1 {
		t.Errorf("a rule's alert: %d %d %d, want what is below sshd and the device", tree, hash, host)
	}
	a.Detection.Source, a.Detection.Process = event.SourceAntivirus, p(70, "sshd")
	a.Detection.Ancestry = nil
	if tree, hash, _ := kinds(Keys(&a)); tree != 1 || hash != 1 {
		t.Errorf("an antivirus alert about sshd itself: %d %d", tree, hash)
	}
	a.Detection.Ancestry = make([]event.Process, 500)
	for n := range a.Detection.Ancestry {
		a.Detection.Ancestry[n] = p(int64(1000+n), "x")
	}
	if keys := Keys(&a); len(keys) > maxKeys+2 {
		t.Errorf("%d keys of a hostile chain", len(keys))
	}
}

func TestDecide(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		name   string
		links  []Link
		join   int64
		merged []int64
	}{
		{"nothing in common", nil, 0, nil},
		{"the strongest", []Link{{1, Host, at, 1, true}, {2, Hash, at, 1, false}, {3, Tree, at, 1, true}}, 3, nil},
		{"the oldest of two", []Link{{9, Hash, at, 1, false}, {4, Hash, at, 1, false}}, 4, nil},
		{"one story", []Link{{9, Tree, at, 1, true}, {4, Tree, at, 1, true}, {4, Host, at, 1, true}}, 4, []int64{9}},
		{"not what is others'", []Link{{9, Tree, at, 1, false}, {4, Tree, at, 1, true}}, 4, nil},
		{"into what is others'", []Link{{9, Tree, at, 1, true}, {4, Tree, at, 1, false}}, 4, []int64{9}},
		{"a full one", []Link{{4, Tree, at, MaxAlerts, true}}, 0, nil},
		{"not more than fit", []Link{{4, Tree, at, 600, true}, {5, Tree, at, 600, true}, {6, Tree, at, 10, true}}, 4, []int64{6}},
		{"the same device for days", []Link{{4, Host, at.Add(-HostSpan - 1), 5, true}}, 0, nil},
	} {
		for range 2 {
			join, merged := Decide(c.links, at)
			if join != c.join || !slices.Equal(merged, c.merged) {
				t.Errorf("%s: %d %v, want %d %v", c.name, join, merged, c.join, c.merged)
			}
			slices.Reverse(c.links) // the order of the links does not matter
		}
	}
}
