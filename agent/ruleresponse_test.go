package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

// A rule of the administrator's says what is done besides the alert.
func TestRuleResponses(t *testing.T) {
	need.Root(t)
	a := newTestAgent(t, "")
	folder := filepath.Join(a.opts.Dirs.Config, "rules")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	rule := "title: Sleeper\nid: sleeper\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {CommandLine: x}, condition: s}\nresponse: [kill_tree, block_hash]\n"
	if err := os.WriteFile(filepath.Join(folder, "r.yml"), []byte(rule), 0o644); err != nil {
		t.Fatal(err)
	}
	a.loadRules()
	cmd := exec.Command("/bin/sh", "-c", "sleep 300 & sleep 300; true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	// Until both children are there.
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		data, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
		if len(strings.Fields(string(data))) == 2 {
			break
		}
		if time.Since(start) > 2*time.Minute {
			t.Fatal("the children did not start")
		}
	}
	p, _, err := a.table.Read(pid)
	if err != nil {
		t.Fatal(err)
	}
	p.SHA256 = strings.Repeat("ab", 32)
	other := p
	other.StartTime = p.StartTime.Add(-time.Hour) // somebody had the number before
	if n, err := a.killTree(other); n != 0 || err == nil {
		t.Fatalf("%d processes ended: %v", n, err)
	}
	a.respondToRule(event.Alert{ID: strings.Repeat("1", 32), Time: time.Now(), Title: "Sleeper", Severity: event.SeverityHigh, Category: "Execution", Source: event.SourceEDR, DetectorID: "sleeper", Process: p})
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("the process was not ended")
	}
	for range cap(a.responding) { // the response is complete when its place is free
		select {
		case a.responding <- struct{}{}:
		case <-time.After(2 * time.Minute):
			t.Fatal("the response did not end")
		}
	}
	if a.indicators.Len() != 1 {
		t.Errorf("%d indicators: the hash is not blocked", a.indicators.Len())
	}
}
