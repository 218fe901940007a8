//go:build vm

package vm

import (
	"testing"
)

// TestFilesystems tries every type of file system in the machine, with the
// agent installed from its package.
func TestFilesystems(t *testing.T) {
	p := newPayload(t)
	p.program("./test/vm/guest", "guest")
	p.agentPackage("0.9.1", "bulwark.deb")
	rows := run(t, "filesystems", p.dir)
	for _, r := range rows {
		t.Logf("%+v", r)
	}
}
