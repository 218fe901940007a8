//go:build install

package install

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is a code block for the shell: three backquotes, sh, and maybe for whom.
var block = regexp.MustCompile("(?ms)^( *)```sh ?([a-z]*)\n(.*?)^ *```$")

// follow runs the commands of a page in its order, in /root.
func follow(t *testing.T, p *portal, h *host, page, kind string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, "docs/install", page))
	must(t, err)
	n := 0
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		if m[2] != "" && m[2] != kind {
			continue
		}
		n++
		var script strings.Builder
		// Another program of this machine may hold file accesses, and dnf does not
		// know which release a Debian is.
		script.WriteString("set -eu\ncd /root\ndnf() { command dnf --releasever=9 \"$@\"; }\n")
		for line := range strings.Lines(m[3]) {
			line = strings.ReplaceAll(strings.TrimPrefix(line, m[1]), "https://portal.example.org:8443", p.url)
			script.WriteString(strings.Replace(line, "install.sh --", "install.sh --skip_conflict --", 1))
		}
		if code, out := h.status("sh", "-c", script.String()); code != 0 {
			t.Fatalf("%s, block %d: exit status %d\n%s\n%s", page, n, code, script.String(), out)
		}
	}
	if n == 0 {
		t.Fatalf("%s has no commands for %q", page, kind)
	}
}

// TestPages follows the pages of docs/install literally.
func TestPages(t *testing.T) {
	t.Parallel()
	p := thePortal(t)
	t.Run("deb, updates, uninstall", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		p.onboarding(h, "root/onboard.json")
		follow(t, p, h, "deb.md", "")
		h.wantVersion("deb", previous+"-1")
		p.fetch(h, "install.sh", "/root/install.sh")
		follow(t, p, h, "updates.md", "")
		follow(t, p, h, "uninstall.md", "")
		h.gone("/etc/apt/sources.list.d/bulwark.sources", "/etc/cron.d", "/var/lib/apt", "/var/cache", "/root")
	})
	t.Run("script", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		p.onboarding(h, "root/onboard.json")
		follow(t, p, h, "script.md", "")
		h.wantVersion("deb", previous+"-1")
	})
	t.Run("golden images", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		p.onboarding(h, "root/onboard.json")
		follow(t, p, h, "golden-images.md", "")
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
		follow(t, p, h, "air-gapped.md", "")
		h.wantVersion("deb", previous+"-1")
	})
	for _, kind := range []string{"dnf", "zypper"} {
		t.Run("rpm, "+kind, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			b, err := os.ReadFile(p.stub)
			must(t, err)
			h.write("root/stub.rpm", string(b), 0o600)
			h.run("rpm", "-i", "--nodeps", "/root/stub.rpm")
			p.onboarding(h, "root/onboard.json")
			follow(t, p, h, "rpm.md", kind)
			h.wantVersion("rpm", previous+"-1")
		})
	}
}
