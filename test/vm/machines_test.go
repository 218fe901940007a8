//go:build vm

package vm

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/bulwarkhq/bulwark/test/doctable"
	"github.com/bulwarkhq/bulwark/test/vm/report"
)

var update = flag.Bool("update", false, "write the table of docs/filesystems.md from what TestMachines finds")

// TestMachines starts two machines at a time, with the same programs on board.
func TestMachines(t *testing.T) {
	p := newPayload(t)
	p.program("./test/vm/guest", "guest")
	p.tests("./agent/onaccess", "onaccess.test")
	first := p.agentPackage("0.9.1")
	next := p.agentPackage("0.9.2")
	p.unpacked(first, "agent")
	portal := p.publish(first, next)
	img := cachedImage(t)

	// The tests of fanotify on the machine's kernel, then every type of file
	// system with the agent of the package, then the clock and the scanner's limits.
	t.Run("filesystems", func(t *testing.T) {
		t.Parallel()
		rows := run(t, img, "filesystems", withoutSystemd, p.dir)
		if !t.Failed() {
			doctable.Check(t, filepath.Join(top, "docs", "filesystems.md"), "debian", table(rows), *update)
		}
	})
	// The package through installation from a repository, onboarding, crash, reboot,
	// upgrade, downgrade, offboarding, removal and purge under systemd.
	t.Run("installation", func(t *testing.T) {
		t.Parallel()
		run(t, img, "installation", "", p.dir)
		if !t.Failed() {
			checkArrived(t, portal)
		}
	})
}

func table(rows []report.Row) doctable.Table {
	columns := []struct{ key, head string }{
		{"open", "Bad file: open refused"},
		{"exec", "execution refused"},
		{"once", "Clean file scanned once"},
		{"ignore", "Kernel ignore mark"},
		{"written", "Write noticed"},
		{"renamed", "Rename noticed"},
		{"mapped", "Write through a mapping noticed"},
		{"quarantine", "Quarantine and restoring"},
	}
	out := doctable.Table{Columns: []string{"Type"}}
	for _, c := range columns {
		out.Columns = append(out.Columns, c.head)
	}
	for _, r := range rows {
		cells := []string{r.Type}
		for _, c := range columns {
			cells = append(cells, r.Values[c.key])
		}
		out.Rows = append(out.Rows, cells)
	}
	return out
}
