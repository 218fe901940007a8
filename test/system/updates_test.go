//go:build system

package system

import (
	"context"
	"crypto/md5"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/clamtest"
)

// marker is what the signatures of these tests look for.
func marker() string { return badWords("a text that only the newest release knows as bad: 6f1c9b") }

// sources writes a folder with a rule for text; the portal publishes it with
// what the product ships.
func (p *product) build(text string) string {
	p.t.Helper()
	dir := filepath.Join(p.root, "signatures")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	rule := fmt.Sprintf("rule Newest_Threat { strings: $a = %q condition: $a }\n", text)
	if err := os.WriteFile(filepath.Join(dir, "newest.yar"), []byte(rule), 0o644); err != nil {
		p.t.Fatal(err)
	}
	return p.portalCommand("definitions", "build", "--source", "content", "--source", "own:folder="+dir)
}

// file writes a file that the definitions say nothing about yet.
func (p *product) file(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.watch, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// TestDefinitionsUpdate: the portal publishes, the agent updates, a new
// signature blocks a file, and there is no moment without protection.
func TestDefinitionsUpdate(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.until("the portal has published what the product ships", func() error {
		if r := p.run("definitions", "update"); r.status != 0 {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	// The first update that the agent makes by itself could be the one with what is
	// published below.
	p.until("the agent's own next update is far away", func() error {
		var d control.Definitions
		p.query(&d, "definitions", "status")
		if time.Until(d.Update.Next) < patience {
			return fmt.Errorf("it is at %v", d.Update.Next)
		}
		return nil
	})
	bad := p.file("first.txt", marker())
	if got := open(t, bad); got != allowed {
		t.Fatalf("before the release: %v", got)
	}
	// EICAR is in every set: whoever gets to read it found a gap.
	ctx, stop := context.WithCancel(t.Context())
	late := p.letThrough()
	var watch sync.WaitGroup
	watch.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			path := filepath.Join(p.watch, fmt.Sprintf("eicar-%d.com", i))
			if err := os.WriteFile(path, eicar(), 0o644); err != nil {
				continue // the directory is being cleaned
			}
			if got := open(t, path); got == allowed {
				if now := p.letThrough(); now > late {
					late = now // a verdict that took too long on a busy machine, and the agent says so
				} else {
					t.Errorf("during the update %s was open for reading", path)
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	if out := p.build(marker()); !strings.Contains(out, "has been published") {
		t.Fatal(out)
	}
	out := p.must("definitions", "update")
	stop()
	watch.Wait()
	for _, want := range []string{"Asking https://", "Fetching release ", "Trying release ", "Definitions updated: Release "} {
		if !strings.Contains(out, want) {
			t.Errorf("the update does not say %q:\n%s", want, out)
		}
	}
	if !strings.Contains(out, " kept, ") || strings.Contains(out, " 0 kept, ") {
		t.Errorf("unchanged files were fetched again:\n%s", out)
	}
	p.refuses("after the release", bad)
	if th := p.threat(bad, "quarantined"); !strings.Contains(th.Name, "Newest_Threat") {
		t.Errorf("%+v", th)
	}
	again := p.must("definitions", "update")
	if !strings.Contains(again, "is the newest") {
		t.Errorf("%s", again)
	}

	// A release that flags the agent itself is refused, and the one before stays.
	p.build("supervise  keep a program running on a host without systemd")
	r := p.run("definitions", "update")
	if r.status == 0 || !strings.Contains(r.stderr, "which is known to be clean") {
		t.Errorf("status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	p.refuses("after the refusal", p.file("second.txt", marker()))
	var d control.Definitions
	p.query(&d, "definitions", "status")
	if len(d.Update.Held) != 1 || d.Update.Failure == "" || !strings.HasSuffix(d.Update.Source, "/definitions") || d.Status != "up_to_date" {
		t.Errorf("%+v", d.Update)
	}
	if text := p.must("health", "--explain"); !strings.Contains(text, "definitions held back") {
		t.Errorf("health says nothing about it:\n%s", text)
	}

	hunt := newHunt(p)
	p.until("the portal has the events of the updates", func() error {
		found := hunt.find(&stimuli{}, p, []observed{
			{name: "updated", table: "DeviceEvents", where: `ActionType == "AntivirusDefinitionsUpdated" and AdditionalFields has "SignatureCount"`},
			{name: "refused", table: "DeviceEvents", where: `ActionType == "AntivirusDefinitionsUpdateFailed" and AdditionalFields has "known to be clean"`},
		})
		if len(found) != 2 {
			return fmt.Errorf("it has %v", found)
		}
		return nil
	})

	// Back to the package, and forward again.
	p.must("definitions", "restore")
	if got := open(t, p.file("third.txt", marker())); got != allowed {
		t.Errorf("after restore: %v", got)
	}
	p.build(marker())
	p.must("definitions", "update")
	p.refuses("after another update", p.file("fourth.txt", marker()))
}

// TestOfflineMirror: a host that does not reach the portal takes definitions
// from a folder, and from a web server.
func TestOfflineMirror(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	p.startPortal()
	p.onboard()
	p.build(marker())
	mirror := filepath.Join(p.root, "mirror")
	out := p.portalCommand("mirror", "sync", "--onboarding", p.dirs.Onboarding(), "--to", mirror)
	if !strings.Contains(out, "has been fetched") {
		t.Fatal(out)
	}
	if out := p.portalCommand("mirror", "sync", "--onboarding", p.dirs.Onboarding(), "--to", mirror); !strings.Contains(out, "is up to date") {
		t.Error(out)
	}
	p.portal.stop()
	production := filepath.Join(mirror, "linux", "production")
	server := httptest.NewServer(http.FileServer(http.Dir(mirror)))
	defer server.Close()
	for _, at := range []string{production, server.URL + "/linux/production/"} {
		p.write(p.dirs.Managed(), fmt.Sprintf(`{"antivirusEngine": {"enforcementLevel": "real_time", "offlineDefinitionUpdate": "enabled",
			"offlineDefinitionUpdateUrl": %q, "offlineDefinitionUpdateFallbackToCloud": false}}`, at))
		if p.agent == nil {
			p.startAgent()
			p.until("the agent answers", func() error {
				if r := p.run("health", "--field", "engine_load_status"); !strings.Contains(r.stdout, "succeeded") {
					return fmt.Errorf("%s%s", r.stdout, r.stderr)
				}
				return nil
			})
		}
		p.until("the setting is in force", func() error {
			if out := p.must("health", "--details", "definitions"); !strings.Contains(out, at) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		out := p.must("definitions", "update")
		if !strings.Contains(out, "Release ") {
			t.Errorf("%s", out)
		}
		r := p.run("connectivity", "test")
		if r.status == 0 || !strings.Contains(r.stdout, "Testing connection with "+at+" ... [OK] definitions mirror") {
			t.Errorf("status %d (the portal is down)\n%s", r.status, r.stdout)
		}
	}
	p.refuses("offline", p.file("offline.txt", marker()))
}

// TestClamAVMirror: a host without a portal is protected with ClamAV's databases
// by one setting.
func TestClamAVMirror(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	web, signer := t.TempDir(), clamtest.NewSigner(t)
	one, two := "the first known file", "the second known file"
	hash := func(text, name string) string {
		return fmt.Sprintf("%x:%d:%s\n", md5.Sum([]byte(text)), len(text), name)
	}
	database := func(name string, v int, text string) *clamtest.Database {
		return &clamtest.Database{Name: name, Version: v, Built: time.Now(), Members: map[string]string{name + ".hdb": text}}
	}
	first := database("daily", 100, hash(one, "Clam.First"))
	second := database("daily", 101, hash(one, "Clam.First")+hash(two, "Clam.Second"))
	signer.Publish(t, web, database("main", 60, hash("unused", "Clam.Main")))
	signer.Publish(t, web, first)
	signer.WriteKeys(t, filepath.Join(p.dirs.Config, "clamav.keys"))
	var mu sync.Mutex
	var asked []string
	files := http.FileServer(http.Dir(web))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path+" "+r.UserAgent())
		mu.Unlock()
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	p.write(p.dirs.Managed(), fmt.Sprintf(`{"antivirusEngine": {"enforcementLevel": "real_time", "clamavMirror": %q}}`, server.URL))
	p.startAgent()
	// Nobody asks for it: the first update comes by itself.
	p.until("the databases are in force", func() error {
		if out := p.run("definitions", "status"); !strings.Contains(out.stdout, "main 60, daily 100") {
			return fmt.Errorf("%s%s", out.stdout, out.stderr)
		}
		return nil
	})
	p.refuses("a known file", p.file("one.bin", one))
	if got := open(t, p.file("two.bin", two)); got != allowed {
		t.Errorf("one that is not known yet: %v", got)
	}
	signer.Publish(t, web, first, second)
	future := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(web, "daily.cvd"), future, future); err != nil {
		t.Fatal(err)
	}
	out := p.must("definitions", "update")
	if !strings.Contains(out, "ClamAV database daily 101 fetched by 1 .cdiff file(s)") {
		t.Errorf("%s", out)
	}
	p.refuses("after the update", p.file("three.bin", two))
	if !strings.Contains(p.must("connectivity", "test"), "[OK] ClamAV mirror") {
		t.Error("the connectivity test leaves the mirror out")
	}
	mu.Lock()
	defer mu.Unlock()
	for _, a := range asked {
		if !strings.Contains(a, " Bulwark/") {
			t.Errorf("asked: %s", a)
		}
	}
}
