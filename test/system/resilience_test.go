//go:build system

package system

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/control"
)

// rest asks the portal's REST API for a collection, with a token of its own.
func (p *product) rest(path string) []map[string]any {
	p.t.Helper()
	token := strings.TrimSpace(p.portalCommand("token", "create", "--name", fmt.Sprintf("test-%d", time.Now().UnixNano()),
		"--scope", "Machine.Read.All,Alert.Read.All"))
	client := &http.Client{
		Timeout: 2 * time.Minute,
		// The certificate's check is the agent's business and tested there.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	req, err := http.NewRequest(http.MethodGet, "https://"+p.portalAddr+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		p.t.Fatal(err)
	}
	var answer struct {
		Value []map[string]any `json:"value"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("GET %s: %s, %v\n%s", path, resp.Status, err, body)
	}
	return answer.Value
}

// alertsWith are the portal's alerts in which text occurs.
func (p *product) alertsWith(text string) []string {
	p.t.Helper()
	var found []string
	for _, a := range p.rest("/api/alerts") {
		b, err := json.Marshal(a)
		if err != nil {
			p.t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			found = append(found, string(b))
		}
	}
	return found
}

// untilAlertOnce waits for the alert on a file, and then for the agent to have
// nothing left to send: a second one would be there by then.
func (p *product) untilAlertOnce(path string) {
	p.t.Helper()
	p.until("the alert arrives", func() error {
		if len(p.alertsWith(path)) == 0 {
			return fmt.Errorf("no alert on %s", path)
		}
		return nil
	})
	p.until("everything is sent", func() error {
		if h := p.health(); h.EventsWaiting != 0 {
			return fmt.Errorf("%d events are waiting", h.EventsWaiting)
		}
		return nil
	})
	if alerts := p.alertsWith(path); len(alerts) != 1 {
		p.t.Errorf("%d alerts, want 1: %s", len(alerts), strings.Join(alerts, "\n"))
	}
}

// detect makes a detection on the watched file system.
func (p *product) detect(name string) string {
	p.t.Helper()
	// A file that is written before the file systems are marked is found when
	// it is opened, and nobody opens this one.
	p.until("real-time protection is in place", func() error {
		var h control.Health
		if r := p.run("health", "--output", "json"); r.status != 0 || json.Unmarshal([]byte(r.stdout), &h) != nil || !h.RealTimeAvailable {
			return fmt.Errorf("health: %s%s", r.stdout, r.stderr)
		}
		return nil
	})
	bad := filepath.Join(p.watch, name)
	if err := os.WriteFile(bad, eicar(), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.threat(bad, "quarantined")
	return bad
}

func TestDeviceAndAlertReachThePortal(t *testing.T) {
	t.Parallel()
	p := start(t)
	bad := p.detect("alert.com")
	p.untilAlertOnce(bad)
	h := p.health()
	for _, m := range p.rest("/api/machines") {
		if m["id"] == h.EDRMachineID && m["healthStatus"] == "Active" {
			return
		}
	}
	t.Errorf("no active device %s: %v", h.EDRMachineID, p.rest("/api/machines"))
}

func TestPortalOutage(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.portal.stop()
	bad := p.detect("outage.com")
	p.until("health tells of the outage", func() error {
		if h := p.health(); h.PortalStatus == "connected" {
			return fmt.Errorf("portal is %s", h.PortalStatus)
		}
		return nil
	})
	p.startPortal()
	p.untilAlertOnce(bad)
}

func TestScannerKilled(t *testing.T) {
	t.Parallel()
	p := start(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[access]int{}
	for w := range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				// A new file each time: nothing comes from the verdict cache.
				f := filepath.Join(p.watch, fmt.Sprintf("clean-%d-%d", w, i))
				if err := os.WriteFile(f, []byte(strings.Repeat(f, 1000)), 0o600); err != nil {
					return
				}
				got := open(t, f)
				_ = os.Remove(f)
				mu.Lock()
				outcomes[got]++
				mu.Unlock()
			}
		})
	}
	for range 3 {
		pids := p.processes("bulwarkd", "scanner")
		if len(pids) == 0 {
			t.Error("no scanner process")
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Logf("%d: %v", pid, err) // it has ended meanwhile
			}
		}
		p.until("a new scanner", func() error {
			now := p.processes("bulwarkd", "scanner")
			if len(now) == 0 || len(pids) > 0 && now[0] == pids[0] {
				return fmt.Errorf("scanners %v, killed %v", now, pids)
			}
			return nil
		})
	}
	close(stop)
	wg.Wait()
	if outcomes[allowed] == 0 || len(outcomes) != 1 {
		t.Errorf("opens of clean files while the scanner was killed: %v", outcomes)
	}
	p.untilHealthy()
	p.detect("after.com")
}

func TestDaemonKilled(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.portal.stop()
	bad := p.detect("unsent.com")
	clean := filepath.Join(p.watch, "clean")
	if err := os.WriteFile(clean, []byte("clean"), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := p.one("bulwarkd", "run")
	opened := make(chan access, 20)
	for range cap(opened) {
		go func() { opened <- open(t, clean) }()
	}
	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range cap(opened) {
		if got := <-opened; got != allowed {
			t.Errorf("open while the daemon died: %v", got)
		}
	}
	p.until("the daemon runs again", func() error {
		if pids := p.processes("bulwarkd", "run"); len(pids) != 1 || pids[0] == daemon {
			return fmt.Errorf("processes %v, killed %d", pids, daemon)
		}
		return nil
	})
	p.detect("second.com")
	p.startPortal()
	p.untilAlertOnce(bad)
}

// TestDaemonHangs stops the daemon's threads, as a deadlock would: the guard has
// to free everybody at the deadline, and the watchdog to replace the daemon.
func TestDaemonHangs(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	p.startPortal()
	p.onboard()
	// The watchdog comes long after the guard, also on a busy machine: it waits for at
	// least two thirds of this, the open below for no longer than its own time.
	p.startAgent("--watchdog", (3 * opening).String())
	p.untilHealthy()
	clean := filepath.Join(p.watch, "clean")
	if err := os.WriteFile(clean, []byte("clean"), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := p.one("bulwarkd", "run")
	if err := syscall.Kill(daemon, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if got := open(t, clean); got != allowed {
		t.Errorf("open while the daemon hangs: %v", got)
	}
	if now := p.processes("bulwarkd", "run"); len(now) != 1 || now[0] != daemon {
		t.Errorf("not the guard but the watchdog let the open go: daemon %d, now %v", daemon, now)
	}
	p.until("another daemon", func() error {
		if now := p.processes("bulwarkd", "run"); len(now) != 1 || now[0] == daemon {
			return fmt.Errorf("processes %v", now)
		}
		return nil
	})
	p.untilHealthy()
	if now := p.one("bulwarkd", "run"); now == daemon {
		t.Error("the stopped daemon was not replaced")
	}
}

// issues are the health issues as text, with their particulars.
func (p *product) issues() string {
	p.t.Helper()
	b, err := json.Marshal(p.health().Issues)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *product) untilIssue(parts ...string) {
	p.t.Helper()
	p.until("health names "+strings.Join(parts, ", "), func() error {
		got := p.issues()
		for _, part := range parts {
			if !strings.Contains(got, part) {
				return fmt.Errorf("it says %s", got)
			}
		}
		return nil
	})
}

// protects checks that detection still works.
func (p *product) protects() {
	p.t.Helper()
	p.detect(fmt.Sprintf("still-protected-%d.com", time.Now().UnixNano()))
}

func TestDamagedOnboardingPackage(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	p.startPortal()
	p.onboard()
	b, err := os.ReadFile(p.dirs.Onboarding())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	m["enrollment_token"] = "wrong-" + fmt.Sprint(m["enrollment_token"])
	damaged, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	p.write(p.dirs.Onboarding(), string(damaged))
	p.startAgent()
	p.until("the agent answers", func() error {
		if r := p.run("health"); r.stdout == "" {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	p.untilIssue("onboard.json", "signature")
	p.protects()

	// Putting a good one in place is enough.
	p.onboard()
	p.untilHealthy()
}

func TestDamagedManagedConfiguration(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.write(p.dirs.Managed(), "{\n  \"antivirusEngine\": {\n    \"enforcementLevel\": \"real_tim\"\n  }\n}\n")
	p.untilIssue("managed.json", "enforcementLevel")
	p.protects()
	p.write(p.dirs.Managed(), "{\n  \"antivirusEngine\": {\n")
	p.untilIssue("managed.json")
	p.protects()
}

func TestDamagedSpool(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.portal.stop()
	p.detect("spooled.com")
	p.agent.stop()
	var files []string
	err := filepath.WalkDir(p.dirs.Spool(), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("spool: %v, %v", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(strings.Repeat("\xa5damaged", int(info.Size())/8+1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.startPortal()
	p.startAgent()
	p.untilHealthy()
	bad := p.detect("after-damage.com")
	p.untilAlertOnce(bad)
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	if err := unix.Mount("bulwark-system-test", p.dirs.State, "tmpfs", 0, "mode=0755,size=192m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(p.dirs.State, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	p.startPortal()
	p.onboard()
	p.startAgent()
	p.untilHealthy()
	filler, err := os.Create(filepath.Join(p.dirs.State, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 20, 4096, 1} {
		for block := make([]byte, size); ; {
			if _, err := filler.Write(block); err != nil {
				break
			}
		}
	}
	// Nothing can be kept, and still nobody gets the file.
	bad := filepath.Join(p.watch, "full.com")
	if err := os.WriteFile(bad, eicar(), 0o600); err != nil {
		t.Fatal(err)
	}
	p.refuses("on a full disk", bad)
	clean := filepath.Join(p.watch, "clean")
	if err := os.WriteFile(clean, []byte("clean"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open(t, clean); got != allowed {
		t.Errorf("open of a clean file on a host with a full disk: %v", got)
	}
	p.untilIssue("no space left")
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	p.untilHealthy()
	p.protects()
}
