//go:build install

package install

import (
	"os"
	"path/filepath"
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
	p.siteFiles(h, "root/modules/site/files")
	apply := func(manifest string) (int, string) {
		t.Helper()
		return h.status("puppet", "apply", "--modulepath=/root/modules", "--detailed-exitcodes", "--color=false", manifest)
	}
	p.follow(h, page{name: "puppet.md", words: map[string]string{"preferences => {": "manage_service => false,\n    preferences => {"}})
	h.wantVersion("deb", previous+"-1")
	if code, out := apply("/root/site.pp"); code != 0 {
		t.Errorf("second run: exit status %d, want 0 (nothing to do)\n%s", code, out)
	}
	stop := h.startAgent()
	contains(t, "settings", h.run("bulwark", "config", "show"), `"real_time" [managed]`)
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

// siteFiles brings what the tools give to hosts: key, authority and onboarding
// package.
func (p *portal) siteFiles(h *host, to string) {
	h.t.Helper()
	p.fetch(h, "keys/bulwark.asc", "/"+to+"/bulwark.asc")
	p.fetch(h, "keys/portal-ca.pem", "/"+to+"/portal-ca.pem")
	p.onboarding(h, to+"/onboard.json")
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
	p.siteFiles(h, "root/ansible/files")
	// As an inventory says it of its hosts. What follows needs a running agent.
	here := "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3 bulwark_manage_service=false bulwark_purge=true bulwark_verify="
	p.follow(h, page{name: "ansible.md", folder: "ansible", words: map[string]string{"web1.example.org": here + "false"}})
	h.wantVersion("deb", previous+"-1")
	play := func(playbook string) string {
		t.Helper()
		out := h.run("sh", "-c", "cd /root/ansible && exec ansible-playbook -i hosts playbooks/"+playbook)
		m := recap.FindStringSubmatch(out)
		if m == nil || m[2] != "0" {
			t.Fatalf("%s:\n%s", playbook, out)
		}
		return m[1]
	}
	stop := h.startAgent()
	h.write("root/ansible/hosts", "[protected]\n"+here+"true\n", 0o644)
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

// TestChefAndSalt runs recipes and states by programs of testdata: Debian has
// neither tool.
func TestChefAndSalt(t *testing.T) {
	t.Parallel()
	for _, tool := range []struct {
		name     string
		run      []string // with FAMILY and STATE
		families []string // Debian's first
		install  string
	}{
		{
			"chef",
			[]string{need.Command(t, "ruby"), "/root/chef.rb", "/root/chef/bulwark", "STATE", "FAMILY", "/root/chef/attributes.rb"},
			[]string{"debian", "rhel", "suse"},
			"default",
		},
		{
			"salt",
			[]string{need.Command(t, "/usr/bin/python3"), "/root/salt.py", "/root/salt/bulwark/STATE.sls", "/root/salt/pillar.sls", "/root/salt", "FAMILY"},
			[]string{"Debian", "RedHat", "Suse"},
			"init",
		},
	} {
		t.Run(tool.name, func(t *testing.T) {
			t.Parallel()
			p, h := thePortal(t), newHost(t)
			copyModule(h, tool.name, "root/"+tool.name)
			p.siteFiles(h, "root/"+tool.name+"/bulwark/files")
			program := filepath.Base(tool.run[1])
			b, err := os.ReadFile(filepath.Join("testdata", program))
			must(t, err)
			h.write("root/"+program, string(b), 0o600)
			p.follow(h, page{name: tool.name + ".md", folder: tool.name})
			run := func(family, state string, plan ...string) string {
				t.Helper()
				args := append([]string{tool.run[1]}, plan...)
				for _, a := range tool.run[2:] {
					args = append(args, strings.NewReplacer("STATE", state, "FAMILY", family).Replace(a))
				}
				return h.run(tool.run[0], args...)
			}
			for _, family := range tool.families[1:] {
				contains(t, family, run(family, tool.install, "--plan"), p.URL+"/repo/yum/prod", "rpm --import", "/etc/pki/bulwark/portal-ca.pem", "onboard.json", "managed.json")
				contains(t, family, run(family, "remove", "--plan"), "/etc/pki/bulwark", "/var/opt/bulwark")
			}
			run(tool.families[0], tool.install)
			h.wantVersion("deb", previous+"-1")
			stop := h.startAgent()
			contains(t, "second run", run(tool.families[0], tool.install), "changed 0\n")
			contains(t, "settings", h.run("bulwark", "config", "show"), `"real_time" [managed]`)
			p.fetch(h, "install.sh", "/root/install.sh")
			caught(h, h.run("sh", "/root/install.sh", "--verify"))
			if got := h.health("licensed"); got != "true" {
				t.Errorf("licensed is %q", got)
			}
			stop()
			run(tool.families[0], "remove")
			h.gone("/root/", "/var/lib/apt", "/var/cache")
		})
	}
}
