//go:build install

package install

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/need"
)

// realTime holds accesses although no portal says so.
const realTime = `{"antivirusEngine": {"enforcementLevel": "real_time"}}`

// TestInstaller takes a host through install.sh: install, onboard, tag, verify,
// upgrade, downgrade, remove, purge.
func TestInstaller(t *testing.T) {
	t.Parallel()
	p, h := thePortal(t), newHost(t)
	need.Command(t, "apt-get")
	p.fetch(h, "install.sh", "/root/install.sh")
	p.onboarding(h, "root/onboard.json")
	h.write("etc/opt/bulwark/managed/managed.json", realTime, 0o644)

	script := func(args ...string) string {
		t.Helper()
		return h.run("sh", append([]string{"/root/install.sh"}, args...)...)
	}
	before := h.ours()
	contains(t, "--check", script("--check", "--skip_conflict"), "family debian", "Nothing was changed")
	if after := h.ours(); !slices.Equal(after, before) {
		t.Errorf("--check changed the host: %v, before %v", after, before)
	}

	script("--install", "--skip_conflict", "--onboard", "/root/onboard.json")
	h.wantVersion("deb", previous+"-1")
	if st, err := os.Stat(h.path("etc/opt/bulwark/onboard.json")); err != nil || st.Mode() != 0o600 {
		t.Errorf("onboard.json: %v, %v", st, err)
	}
	stop := h.startAgent()
	caught(h, script("--verify"))
	contains(t, "onboard", script("--onboard", "/root/onboard.json", "--only-onboard", "--tag", "GROUP", "test hosts"), "belongs to organization")
	contains(t, "tags", h.run("bulwark", "edr", "status"), "test hosts")
	contains(t, "second installation", script("--install"), "is installed already; organization: ")
	updateCheck(t, h)
	stop()

	t.Run("nothing newer", func(t *testing.T) {
		contains(t, "upgrade", script("--upgrade", "--no-verify"), "is the newest")
	})
	contains(t, "upgrade", script("--upgrade", "--channel", "insiders-fast", "--no-verify"), "From "+previous+"-1 to "+current+"-1")
	if h.exists("etc/apt/sources.list.d/bulwark-prod.list") {
		t.Error("the host has two channels")
	}
	stop = h.startAgent()
	contains(t, "verify after the upgrade", script("--verify"), "Verified: version "+current)
	stop()
	contains(t, "downgrade", script("--downgrade", "--channel", "insiders-fast", "--package-version", previous, "--no-verify"), "to "+previous+"-1")
	if h.exists("etc/apt/sources.list.d/bulwark-insiders-fast.list") && !strings.Contains(h.read("etc/opt/bulwark/managed/managed.json"), "real_time") {
		t.Error("the profile was changed")
	}

	script("--remove")
	if !h.exists("var/opt/bulwark") || !h.exists("etc/opt/bulwark/onboard.json") {
		t.Error("a removal took state or configuration")
	}
	if code, out := h.status("sh", "/root/install.sh", "--remove"); code != 20 {
		t.Errorf("a second removal: exit status %d\n%s", code, out)
	}
	script("--purge", "--clean")
	h.gone()
}

// updateCheck looks for newer versions in the channel of the host and in one that
// has one.
func updateCheck(t *testing.T, h *host) {
	t.Helper()
	const list = "etc/apt/sources.list.d/bulwark-prod.list"
	var u control.ProductUpdate
	must(t, json.Unmarshal([]byte(h.run("bulwark", "update", "check", "--output", "json")), &u))
	seconds, err := strconv.ParseInt(strings.TrimSpace(tool(t, nil, "git", "log", "-1", "--format=%ct")), 10, 64)
	must(t, err)
	if want := time.Unix(seconds, 0).UTC().AddDate(0, 9, 0); !u.Expires.Equal(want) || u.Expiry == control.ExpiryNever {
		t.Errorf("the build expires %v (%s), want %v", u.Expires, u.Expiry, want)
	}
	if u.State != control.UpdateNone || u.Installed != previous || u.Latest != previous || u.Channel != "prod" || u.Entry != "/"+list || !strings.HasPrefix(u.Source, "https://") {
		t.Errorf("update check: %+v", u)
	}
	text := h.read(list)
	h.write(list, strings.Replace(text, " prod ", " insiders-fast ", 1), 0o644)
	if code, out := h.status("bulwark", "update", "check"); code != 1 || !strings.Contains(out, "Newest in channel insiders-fast: "+current) || !strings.Contains(out, "A newer version is available") {
		t.Errorf("update check with a newer version: exit status %d\n%s", code, out)
	}
	// Without an answer, what apt fetched last counts.
	h.write(list, strings.Replace(text, "https://localhost", "https://localhost.invalid", 1), 0o644)
	if code, out := h.status("bulwark", "update", "check"); code != 0 || !strings.Contains(out, "Source: /var/lib/apt/lists/") {
		t.Errorf("update check without a repository: exit status %d\n%s", code, out)
	}
	h.write(list, text, 0o644)
}

// TestInstallerRollsBack breaks the repository: the host must be as before.
func TestInstallerRollsBack(t *testing.T) {
	t.Parallel()
	p, h := thePortal(t), newHost(t)
	copied := filepath.Join(t.TempDir(), "copy")
	p.portal(t, "repo", "export", "--to", copied, "--url", "file:///srv/copy")
	h.run("mkdir", "-p", "/srv")
	must(t, os.CopyFS(h.path("srv/copy"), os.DirFS(copied)))
	h.write("usr/share/keyrings/bulwark.gpg", "an administrator's", 0o644)
	before := strings.Join(h.ours(), "\n")
	for name, change := range map[string]func(){
		"index": func() {
			path := "srv/copy/apt/dists/prod/InRelease"
			text := h.read(path)
			h.write(path, strings.Replace(text, "Origin: Bulwark", "Origin: Bulwork", 1), 0o644)
			t.Cleanup(func() { h.write(path, text, 0o644) })
		},
		"package": func() {
			path := "srv/copy/apt/dists/prod/InRelease"
			b, err := os.ReadFile(filepath.Join(copied, "apt/dists/prod/InRelease"))
			must(t, err)
			h.write(path, string(b), 0o644)
			deb := "srv/copy/apt/pool/bulwark_" + previous + "-1_amd64.deb"
			data := []byte(h.read(deb))
			data[len(data)-100] ^= 1
			h.write(deb, string(data), 0o644)
		},
	} {
		change()
		code, out := h.status("sh", "/srv/copy/install.sh", "--install", "--skip_conflict")
		if want := map[string]int{"index": 24, "package": 21}[name]; code != want {
			t.Errorf("%s changed: exit status %d, want %d\n%s", name, code, want, out)
		}
		if after := strings.Join(h.ours(), "\n"); after != before {
			t.Errorf("%s changed: the host has\n%s\nbefore\n%s\n%s", name, after, before, out)
		}
		if got := h.read("usr/share/keyrings/bulwark.gpg"); got != "an administrator's" {
			t.Errorf("%s changed: the administrator's file is now %.30q", name, got)
		}
	}
}

// TestByHand follows the steps for hosts without the installer, with the
// entries that the portal publishes.
func TestByHand(t *testing.T) {
	t.Parallel()
	p := thePortal(t)
	t.Run("apt", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		p.fetch(h, "keys/bulwark.gpg", "/usr/share/keyrings/bulwark.gpg")
		p.fetch(h, "keys/portal-ca.pem", "/usr/share/keyrings/bulwark-portal-ca.pem")
		p.fetch(h, "config/apt.conf", "/etc/apt/apt.conf.d/99bulwark")
		p.fetch(h, "config/debian/12/prod.sources", "/etc/apt/sources.list.d/bulwark.sources")
		h.run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
		h.run("apt-get", "install", "-q", "-y", "bulwark")
		h.wantVersion("deb", previous+"-1")
		h.run("apt-get", "purge", "-q", "-y", "bulwark")
		h.gone("/usr/share/keyrings", "/etc/apt", "/var/lib/apt", "/var/cache/apt")
	})
	rpm := func(h *host, dir, entry string) {
		t.Helper()
		p.fetch(h, "keys/bulwark.asc", "/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark")
		h.run("rpm", "--import", "/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark")
		p.fetch(h, "keys/portal-ca.pem", "/etc/pki/bulwark/portal-ca.pem")
		p.fetch(h, entry, dir+"/bulwark.repo")
		p.installStub(h)
	}
	t.Run("dnf", func(t *testing.T) {
		t.Parallel()
		need.Command(t, "dnf")
		h := newHost(t)
		rpm(h, "/etc/yum.repos.d", "config/rhel/9/insiders-fast.repo")
		h.run("dnf", "-y", "--releasever=9", "install", "bulwark-"+previous)
		h.wantVersion("rpm", previous+"-1")
		h.run("dnf", "-y", "--releasever=9", "upgrade", "bulwark")
		h.wantVersion("rpm", current+"-1")
		contains(t, "the package", h.run("rpm", "-qi", "bulwark"), "RSA/SHA256")
		if out := h.run("rpm", "-V", "bulwark"); out != "" {
			t.Errorf("rpm -V: %s", out)
		}
		h.run("dnf", "-y", "--releasever=9", "downgrade", "bulwark")
		h.wantVersion("rpm", previous+"-1")
		h.write("var/opt/bulwark/state", "of the agent", 0o600)
		h.run("dnf", "-y", "--releasever=9", "remove", "bulwark")
		if h.exists("opt/bulwark/bin/bulwarkd") || !h.exists("var/opt/bulwark/state") {
			t.Error("a removal left programs or took the state")
		}
	})
	t.Run("zypper", func(t *testing.T) {
		t.Parallel()
		need.Command(t, "zypper")
		h := newHost(t)
		rpm(h, "/etc/zypp/repos.d", "config/sles/15/prod.repo")
		// zypper finds the authority by the name that OpenSSL gives it, and does
		// not believe the server without.
		if code, out := h.status("zypper", "--non-interactive", "refresh"); code == 0 {
			t.Errorf("zypper believes any server: %s", out)
		}
		h.run("sh", "-c", "ln -s portal-ca.pem /etc/pki/bulwark/$(openssl x509 -noout -hash -in /etc/pki/bulwark/portal-ca.pem).0")
		h.run("zypper", "--non-interactive", "refresh")
		h.run("zypper", "--non-interactive", "install", "--no-recommends", "bulwark")
		h.wantVersion("rpm", previous+"-1")
		h.run("zypper", "--non-interactive", "remove", "bulwark")
		if h.exists("opt/bulwark/bin/bulwarkd") {
			t.Error("a removal left programs")
		}
	})
}
