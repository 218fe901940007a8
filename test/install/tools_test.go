//go:build install

package install

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// copyModule brings a folder of packaging/ to the host.
func copyModule(h *host, from, to string) {
	h.t.Helper()
	h.run("mkdir", "-p", "/"+to)
	must(h.t, os.RemoveAll(h.path(to)))
	must(h.t, os.CopyFS(h.path(to), os.DirFS(top+"/packaging/"+from)))
}

func TestPuppet(t *testing.T) {
	t.Parallel()
	need.Command(t, "puppet")
	tool(t, nil, need.Command(t, "puppet-lint"), "--fail-on-warnings", "packaging/puppet/bulwark")
	p, h := thePortal(t), newHost(t)
	copyModule(h, "puppet/bulwark", "root/modules/bulwark")
	p.fetch(h, "keys/bulwark.asc", "/root/bulwark.asc")
	p.onboarding(h, "root/onboard.json")
	h.write("root/site.pp", `class { 'bulwark':
  repo_url       => '`+p.url+`/repo',
  repo_key       => file('/root/bulwark.asc'),
  repo_ca        => file('/root/portal-ca.pem'),
  onboarding     => '/root/onboard.json',
  preferences    => { 'antivirusEngine' => { 'enforcementLevel' => 'real_time', 'maximumOnDemandScanThreads' => 3 } },
  manage_service => false,
}
`, 0o600)
	apply := func(manifest string) (int, string) {
		t.Helper()
		return h.status("puppet", "apply", "--modulepath=/root/modules", "--detailed-exitcodes", "--color=false", manifest)
	}
	if code, out := apply("/root/site.pp"); code != 2 {
		t.Fatalf("first run: exit status %d, want 2 (changed)\n%s", code, out)
	}
	h.wantVersion("deb", previous+"-1")
	if code, out := apply("/root/site.pp"); code != 0 {
		t.Errorf("second run: exit status %d, want 0 (nothing to do)\n%s", code, out)
	}
	stop := h.startAgent()
	contains(t, "settings", h.run("bulwark", "config", "show"), "maximumOnDemandScanThreads")
	p.fetch(h, "install.sh", "/root/install.sh")
	caught(h, h.run("sh", "/root/install.sh", "--verify"))
	stop()
	h.write("root/wrong.pp", `class { 'bulwark': preferences => { 'antivirus' => {} } }`, 0o600)
	if code, out := apply("/root/wrong.pp"); code != 1 && code != 4 {
		t.Errorf("a wrong key is taken: exit status %d\n%s", code, out)
	}
	h.write("root/remove.pp", "include bulwark::remove\n", 0o600)
	if code, out := apply("/root/remove.pp"); code != 2 {
		t.Errorf("removal: exit status %d\n%s", code, out)
	}
	h.gone("/root/", "/var/lib/apt", "/var/cache", "/var/lib/puppet")
}

// recap is the summary of ansible-playbook.
var recap = regexp.MustCompile(`changed=(\d+) .*failed=(\d+)`)

func TestAnsible(t *testing.T) {
	t.Parallel()
	need.Command(t, "ansible-playbook")
	t.Run("lint", func(t *testing.T) {
		t.Parallel()
		tool(t, nil, "sh", "-c", "cd packaging/ansible && exec "+need.Command(t, "ansible-lint")+" --offline -q .")
	})
	p, h := thePortal(t), newHost(t)
	copyModule(h, "ansible", "root/ansible")
	p.fetch(h, "keys/bulwark.asc", "/root/bulwark.asc")
	p.onboarding(h, "root/onboard.json")
	vars := func(verify string) string {
		return `bulwark_repo_url: "` + p.url + `/repo"
bulwark_repo_key_file: /root/bulwark.asc
bulwark_repo_ca_file: /root/portal-ca.pem
bulwark_onboarding_file: /root/onboard.json
bulwark_manage_service: false
bulwark_purge: true
bulwark_verify: ` + verify + `
bulwark_preferences:
  antivirusEngine:
    enforcementLevel: real_time
    maximumOnDemandScanThreads: 3
`
	}
	play := func(playbook string) string {
		t.Helper()
		out := h.run("sh", "-c", "cd /root/ansible && exec ansible-playbook -i localhost, -c local -e ansible_python_interpreter=/usr/bin/python3 -e @/root/vars.yml playbooks/"+playbook)
		m := recap.FindStringSubmatch(out)
		if m == nil || m[2] != "0" {
			t.Fatalf("%s:\n%s", playbook, out)
		}
		return m[1]
	}
	h.write("root/vars.yml", vars("false"), 0o600)
	if changed := play("install.yml"); changed == "0" {
		t.Error("the first run changed nothing")
	}
	h.wantVersion("deb", previous+"-1")
	stop := h.startAgent()
	h.write("root/vars.yml", vars("true"), 0o600)
	if changed := play("install.yml"); changed != "0" {
		t.Errorf("the second run changed %s things", changed)
	}
	if got := h.health("licensed"); got != "true" {
		t.Errorf("licensed is %q", got)
	}
	if list := h.run("bulwark", "threat", "list"); !strings.Contains(list, "/var/tmp/bulwark-verify.") {
		t.Errorf("the test file is not among the threats:\n%s", list)
	}
	stop()
	if changed := play("uninstall.yml"); changed == "0" {
		t.Error("the removal changed nothing")
	}
	h.gone("/root/", "/var/lib/apt", "/var/cache")
}
