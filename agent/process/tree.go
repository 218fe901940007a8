package process

import (
	"slices"

	"github.com/bulwarkhq/bulwark/event"
)

// Node is a process of a tree.
type Node struct {
	Depth   int
	Ended   bool
	Process event.Process
}

// Tree gives the known ancestors of pid, oldest first, then the process and
// those that come from it, each after its parent, children by their start. Of
// several processes that had the pid it is the last one. At most limit nodes;
// cut says that there are more. Empty when nothing is known of pid.
func (t *Table) Tree(pid, limit int) (nodes []Node, cut bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.live[pid]
	for k, e := range t.byKey {
		if k.PID == pid && (at == nil || at.key.PID != pid || k.Start > at.key.Start) {
			at = e
		}
	}
	if at == nil {
		return nil, false
	}
	children := make(map[Key][]*entry)
	for _, e := range t.byKey {
		if e.parent.Start != 0 && e.parent != e.key {
			children[e.parent] = append(children[e.parent], e)
		}
	}
	chain := t.chain(at.parent)
	for _, p := range slices.Backward(chain) {
		e := t.byKey[Key{int(p.PID), t.clock.TicksOf(p.StartTime)}]
		nodes = append(nodes, Node{Depth: len(nodes), Ended: e != nil && e.elem != nil, Process: p})
	}
	seen := make(map[*entry]bool)
	var add func(e *entry, depth int)
	add = func(e *entry, depth int) {
		if len(nodes) >= limit {
			cut = true
			return
		}
		if seen[e] { // a damaged table must not loop
			return
		}
		seen[e] = true
		nodes = append(nodes, Node{Depth: depth, Ended: e.elem != nil, Process: e.proc})
		of := children[e.key]
		slices.SortFunc(of, func(a, b *entry) int {
			if a.key.Start != b.key.Start {
				if a.key.Start < b.key.Start {
					return -1
				}
				return 1
			}
			return a.key.PID - b.key.PID
		})
		for _, c := range of {
			add(c, depth+1)
		}
	}
	add(at, len(nodes))
	return nodes, cut
}
