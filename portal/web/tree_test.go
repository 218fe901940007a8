package web

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A tree of processes has what was found until the time for the page ended.
func TestTreeLate(t *testing.T) {
	at := time.Unix(1000, 0)
	for queries := range 8 {
		asked := 0
		look := lookup(func(where string) ([]*treeNode, error) {
			if asked++; asked > queries {
				return nil, fmt.Errorf("processes: %w", context.DeadlineExceeded)
			}
			var pid int64
			if n, err := fmt.Sscanf(where, "ProcessId == %d", &pid); n == 1 && err == nil {
				return []*treeNode{{PID: pid, FileName: "found", Started: at.Add(time.Duration(pid-100) * time.Second), parent: pid - 1}}, nil
			}
			if strings.HasPrefix(where, "InitiatingProcessId in (50)") {
				return []*treeNode{{PID: 51, parent: 50, Started: at}}, nil
			}
			return nil, nil
		})
		var p processPage
		here := &treeNode{PID: 50, FileName: "of the event"}
		err := p.grow(look, here, at)
		if !errors.Is(err, context.DeadlineExceeded) || p.Top == nil || !here.Here {
			t.Fatalf("%d queries: %v, %+v", queries, err, p)
		}
		above := 0
		for n := p.Top; n != here; n = n.Children[0] {
			above++
		}
		name, children := "found", 1
		if queries == 0 {
			name = "of the event"
		}
		if queries < 2 {
			children = 0
		}
		// The process, its children, theirs; then one after the other above.
		if want := max(0, queries-3); above != want || here.FileName != name || len(here.Children) != children || asked != queries+1 {
			t.Errorf("%d queries: %d above, want %d; %q with %d children; %d asked", queries, above, want, here.FileName, len(here.Children), asked)
		}
	}
}
