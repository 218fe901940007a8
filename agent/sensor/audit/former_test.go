package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/event"
)

const ownerVariable = "BULWARK_AUDIT_TEST_OWNER"

// sayReady tells when the sensor is there.
type sayReady struct{}

func (sayReady) Ready()                          { fmt.Println("ready") }
func (sayReady) Emit(event.Event, process.Image) {}
func (sayReady) Lost(event.Category, uint64)     {}

// ownAudit is the agent that the test kills; it ends by itself after a while.
func ownAudit(stateFile string) error {
	table, err := process.New(process.Options{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s := New(table, slog.New(slog.DiscardHandler), Options{Own: true, StateFile: stateFile})
	return s.Run(ctx, []event.Category{event.CategoryModule}, sayReady{})
}

// An agent that is killed leaves audit as it used it; the next one puts back
// what was found, but not what somebody has set since.
func TestRestoreAfterKill(t *testing.T) {
	c := kernel(t)
	before, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	// Settings that differ from ours; the clean-up of kernel wants the first ones.
	found := before
	found.BacklogLimit, found.BacklogWaitTime = 77, 1234
	if err := c.set(statusBacklogLimit|statusBacklogWaitTime, found); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.set(statusEnabled|statusBacklogLimit|statusBacklogWaitTime, before); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(t.TempDir(), "audit.json")
	killed := func() {
		t.Helper()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env, cmd.Stderr = append(os.Environ(), ownerVariable+"="+file), os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, rerr := bufio.NewReader(out).ReadString('\n')
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if rerr != nil || line != "ready\n" {
			t.Fatalf("the sensor said %q, %v", line, rerr)
		}
		now, err := c.status()
		if err != nil {
			t.Fatal(err)
		}
		if now.Enabled != 1 || now.BacklogLimit != ownBacklog || now.BacklogWaitTime != 0 {
			t.Fatalf("after the kill: %+v: the test shows nothing", now)
		}
		if err := remove(c); err != nil { // its rules; Clean is for them
			t.Fatal(err)
		}
	}
	check := func(limit, wait uint32) {
		t.Helper()
		if err := Restore(file); err != nil {
			t.Fatal(err)
		}
		now, err := c.status()
		if err != nil {
			t.Fatal(err)
		}
		if now.Enabled != before.Enabled || now.BacklogLimit != limit || now.BacklogWaitTime != wait {
			t.Errorf("restored to %+v, want enabled %d, limit %d, wait %d", now, before.Enabled, limit, wait)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("the state file is left: %v", err)
		}
	}
	killed()
	check(77, 1234)

	killed()
	if err := c.set(statusBacklogLimit, Status{BacklogLimit: 9000}); err != nil {
		t.Fatal(err)
	}
	check(9000, 1234)
}

// What is stored of another start of the host, or cannot be read, changes
// nothing and is removed.
func TestRestoreReadsItsFile(t *testing.T) {
	c := kernel(t)
	st, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "audit.json")
	if err := Restore(file); err != nil {
		t.Errorf("without a file: %v", err)
	}
	other := formerOf(st)
	other.Boot, other.BacklogLimit, other.BacklogWaitTime = "another", 5, 5
	data, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{string(data): "", "{": "audit.json: unexpected end", strings.Repeat("x", 1<<20): "audit.json is larger than"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		switch err := Restore(file); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%.20q: the file is left", text)
		}
	}
	now, err := c.status()
	if err != nil || now.Enabled != st.Enabled || now.BacklogLimit != st.BacklogLimit || now.BacklogWaitTime != st.BacklogWaitTime {
		t.Errorf("%+v, was %+v; %v", now, st, err)
	}
}
