//go:build install

package install

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/docpage"
	"github.com/bulwarkhq/bulwark/test/loopback"
	"github.com/bulwarkhq/bulwark/test/need"
)

// page is a page of docs/install and what has to be different where a test
// follows it.
type page struct {
	name  string
	kinds []string          // whose commands, beside everybody's
	words map[string]string // instead of the page's
	// preamble are shell functions, for what the host is not.
	preamble string
	folder   string // where relative files are; root
}

// follow does what a page says in its order: commands are run, files written.
func (p *portal) follow(h *host, pg page) {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(top, "docs/install", pg.name))
	must(h.t, err)
	words := map[string]string{
		"https://portal.example.org:8443": p.URL,
		// Another program of this machine may hold file accesses.
		"install.sh --": "install.sh --skip_conflict --",
	}
	maps.Copy(words, pg.words)
	folder := "/root/" + pg.folder
	blocks := docpage.Blocks(string(text), pg.kinds...)
	for n, b := range blocks {
		content := b.Content
		for _, from := range slices.Sorted(maps.Keys(words)) {
			content = strings.ReplaceAll(content, from, words[from])
		}
		if name := b.File; name != "" {
			if !filepath.IsAbs(name) {
				name = filepath.Join(folder, name)
			}
			h.write(name, content, 0o644)
			continue
		}
		// dnf does not know which release a Debian is.
		script := "set -eu\ncd " + folder + "\ndnf() { command dnf --releasever=9 \"$@\"; }\n" + pg.preamble + content
		if code, out := h.status("sh", "-c", script); code != 0 {
			h.t.Fatalf("%s, block %d: exit status %d\n%s\n%s", pg.name, n+1, code, script, out)
		}
	}
	if len(blocks) == 0 {
		h.t.Fatalf("%s has nothing for %q", pg.name, pg.kinds)
	}
}

// TestPages follows the pages of docs/install literally. Those of the tools are
// followed by the tests of the tools.
func TestPages(t *testing.T) {
	t.Parallel()
	p := thePortal(t)
	t.Run("deb, updates, uninstall", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		p.onboarding(h, "root/onboard.json")
		p.follow(h, page{name: "deb.md"})
		h.wantVersion("deb", previous+"-1")
		p.fetch(h, "install.sh", "/root/install.sh")
		p.follow(h, page{name: "updates.md"})
		p.follow(h, page{name: "uninstall.md"})
		h.gone("/etc/apt/sources.list.d/bulwark.sources", "/etc/cron.d", "/var/lib/apt", "/var/cache", "/root")
	})
	t.Run("script", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		p.onboarding(h, "root/onboard.json")
		p.follow(h, page{name: "script.md"})
		h.wantVersion("deb", previous+"-1")
	})
	t.Run("golden images", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		p.onboarding(h, "root/onboard.json")
		p.follow(h, page{name: "golden-images.md"})
		if h.exists("var/opt/bulwark/identity") || h.read("etc/machine-id") != "" || !h.exists("etc/opt/bulwark/onboard.json") {
			t.Error("the image is not ready for clones")
		}
	})
	t.Run("air-gapped", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		copied := filepath.Join(t.TempDir(), "copy")
		p.portal(t, "repo", "export", "--to", copied, "--url", "file:///mnt/bulwark")
		must(t, os.CopyFS(h.path("mnt/bulwark"), os.DirFS(copied)))
		p.follow(h, page{name: "air-gapped.md"})
		h.wantVersion("deb", previous+"-1")
	})
	for _, kind := range []string{"dnf", "zypper"} {
		t.Run("rpm, "+kind, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			p.installStub(h)
			p.onboarding(h, "root/onboard.json")
			p.follow(h, page{name: "rpm.md", kinds: []string{kind}})
			h.wantVersion("rpm", previous+"-1")
		})
	}
	t.Run("agent", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		p.onboarding(h, "root/onboard.json")
		p.copyPackages(h, "bulwark_*.deb")
		p.follow(h, page{
			name:  "agent.md",
			kinds: []string{"deb", "nosystemd"},
			// As in startAgent: it must not watch this machine.
			words: map[string]string{"bulwarkd run": "bulwarkd run -only-mounts /var/tmp -sensors proc-connector"},
			// The sensor that it has is the cheapest: the self-test may miss its alert.
			preamble: `bulwark() {
	for _ in $(seq 120); do ! command bulwark health 2>&1 | grep -q 'real_time_protection_available *: true' || break; sleep 1; done
	[ "$1" = selftest ] || { command bulwark "$@"; return; }
	said=$(command bulwark selftest) || :
	for step in blocked_file quarantine; do
		echo "$said" | grep -q "^\\[OK\\].* $step$" || { echo "$said"; return 1; }
	done
}
`,
		})
		h.wantVersion("deb", previous+"-1")
		contains(t, "enforcement level", h.health("real_time_protection_enabled"), "true")
		contains(t, "mdatp", h.run("/usr/local/bin/mdatp", "version"), previous)
		contains(t, "the unit with the proxy", h.run("systemd-analyze", "cat-config", "systemd/system/bulwark.service"), "HTTPS_PROXY=http://address:port")
		h.run("sh", "-c", "kill $(cat /run/bulwark/supervise.pid)")
	})
	t.Run("portal", func(t *testing.T) {
		t.Parallel()
		portalPage(t, p)
	})
}

// systemctl starts a service as its unit says, without systemd.
const systemctl = `systemctl() {
	unit=/usr/lib/systemd/system/$3.service
	[ "$1 $2" = "enable --now" ] && [ -f "$unit" ]
	set -a
	. "$(sed -n 's/^EnvironmentFile=-//p' "$unit")"
	set +a
	setsid runuser -u "$(sed -n 's/^User=//p' "$unit")" -- sh -c "exec $(sed -n 's/^ExecStart=//p' "$unit")" </dev/null >/var/tmp/portal.log 2>&1 &
	for _ in $(seq 120); do ! curl -sk -o /dev/null "$started/" || return 0; sleep 1; done
	cat /var/tmp/portal.log
	return 1
}
`

func portalPage(t *testing.T, p *portal) {
	need.Command(t, "curl")
	h := newHost(t)
	tool(t, []string{"VERSION=" + current, "FAST=1", "DIST=" + p.dist + "/portal"}, "packaging/build.sh", "portal", "deb")
	debs, err := filepath.Glob(p.dist + "/portal/*.deb")
	if err != nil || len(debs) != 1 {
		t.Fatalf("packages of the portal: %v, %v", debs, err)
	}
	b, err := os.ReadFile(debs[0])
	must(t, err)
	h.write("root/"+filepath.Base(debs[0]), string(b), 0o644)
	p.copyPackages(h, "bulwark*")
	address, err := loopback.Address()
	must(t, err)
	url := "https://" + address
	p.follow(h, page{
		name: "portal.md", kinds: []string{"deb"}, preamble: "started=" + url + "\n" + systemctl,
		words: map[string]string{
			"https://portal.example.org:8443":     url,
			"PORTAL_HOST_NAME=portal.example.org": "PORTAL_HOST_NAME=127.0.0.1",
			"0.0.0.0:8443":                        address,
			"1.2.3":                               previous,
		},
	})
	// What it has given out works: the package for agents leads to the repository.
	contains(t, "onboarding package", h.read("var/opt/bulwark-portal/onboard.json"), url)
	contains(t, "repository", h.run("sh", "-c", fmt.Sprintf(`set -e
printf '%%b' "$(sed -n 's/.*"ca_certificate": *"\([^"]*\)".*/\1/p' /var/opt/bulwark-portal/onboard.json)" >/root/ca.pem
curl -fsS --cacert /root/ca.pem %s/repo/apt/dists/prod/main/binary-amd64/Packages`, url)), "Package: bulwark\n", "Version: "+previous)
	h.run("apt-get", "purge", "-y", "bulwark-portal")
	h.gone("/root/", "/var/lib/apt", "/var/cache", "/var/tmp")
}
