//go:build vm

package vm

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/test/docpage"
	"github.com/bulwarkhq/bulwark/test/repoportal"
)

// portalName is the portal of the pages of docs/install. In the machine it is the
// address by which QEMU's network leads to this host's loopback interface.
const portalName = "portal.example.org"

// publish starts a portal with a repository of both packages, the first in channel
// prod and both in insiders-fast, and takes on board what an administrator has:
// the onboarding package, and the commands of the documentation.
func (p *payload) publish(first, next string) *repoportal.Portal {
	p.t.Helper()
	portal, err := repoportal.Start(top, p.t.TempDir(), portalName)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(portal.Stop)
	for _, args := range [][]string{
		{"onboarding", "create", "--out", filepath.Join(p.dir, "onboard.json"), "--name", "virtual machine"},
		{"repo", "publish", "--channel", "prod", first},
		{"repo", "publish", "--channel", "insiders-fast", first, next},
	} {
		if _, err := portal.Command(args...); err != nil {
			p.t.Fatal(err)
		}
	}
	for script, page := range map[string]string{"install.sh": "deb.md", "upgrade.sh": "updates.md"} {
		text, err := os.ReadFile(filepath.Join(top, "docs/install", page))
		if err != nil {
			p.t.Fatal(err)
		}
		blocks := docpage.Blocks(string(text))
		if script == "upgrade.sh" {
			blocks = blocks[:1] // the rest is other ways
		}
		content := "set -eu\ncd /root\n"
		for _, b := range blocks {
			content += b.Content
		}
		p.write(script, []byte(strings.ReplaceAll(content, "https://"+portalName+":8443", portal.URL)))
	}
	// As the portal's page gives it out.
	p.write("offboard.sh", enroll.Offboarding().Text)
	return portal
}

func (p *payload) write(name string, content []byte) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), content, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// checkArrived checks what the portal knows of the machine.
func checkArrived(t *testing.T, portal *repoportal.Portal) {
	t.Helper()
	token, err := portal.Command("token", "create", "--name", "test", "--scope", "Machine.Read.All,Alert.Read.All,Machine.Scan")
	if err != nil {
		t.Fatal(err)
	}
	// Who believes which portal is tested elsewhere.
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	call := func(method, path, body string) (int, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+portal.Address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	ask := func(path string) []map[string]any {
		t.Helper()
		status, b := call(http.MethodGet, path, "")
		var answer struct{ Value []map[string]any }
		if err := json.Unmarshal(b, &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, b)
		}
		return answer.Value
	}
	// It left and came back, as another device.
	ids := map[any]any{}
	for _, m := range ask("/api/machines") {
		if m["computerDnsName"] != "bulwark-vm" || ids[m["onboardingStatus"]] != nil {
			t.Errorf("machine of the portal: %+v", m)
		}
		ids[m["onboardingStatus"]] = m["id"]
	}
	if ids["Offboarded"] == nil || ids["Onboarded"] == nil {
		t.Fatalf("machines of the portal, by their states: %v", ids)
	}
	order := fmt.Sprintf("/api/machines/%v/updateDefinitions", ids["Offboarded"])
	if status, b := call(http.MethodPost, order, `{"Comment":"a test"}`); status != http.StatusBadRequest || !strings.Contains(string(b), "offboarded") {
		t.Errorf("an order to the machine that has left: %d %s", status, b)
	}
	alerts := fmt.Sprint(ask("/api/alerts"))
	for _, name := range []string{"installed", "rebooted", "upgraded", "downgraded", "again"} {
		if path := "/srv/" + name + ".com"; !strings.Contains(alerts, path) {
			t.Errorf("the portal has no alert on %s: %s", path, alerts)
		}
	}
}
