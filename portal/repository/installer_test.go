package repository

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

func writeScript(t *testing.T) string {
	t.Helper()
	text, err := InstallScript()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "install.sh")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInstallerIsClean(t *testing.T) {
	if out := command(t, t.TempDir(), "shellcheck", "-s", "sh", writeScript(t)); out != "" {
		t.Error(out)
	}
}

// run runs the installer with the shell and returns its exit status and words.
func run(t *testing.T, shell, script string, env []string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need.Command(t, shell), append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// host is a root folder as --check sees it.
type host struct {
	release string // os-release
	redhat  string // redhat-release
	kernel  string
	config  string // the kernel's
	memory  int    // MB
	holder  string // program that holds file accesses
	mask    string
}

func (h host) write(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if h.kernel == "" {
		h.kernel = "5.10.0-8-amd64"
	}
	if h.memory == 0 {
		h.memory = 2000
	}
	if h.release != "" {
		put("etc/os-release", h.release)
	}
	if h.redhat != "" {
		put("etc/redhat-release", h.redhat)
	}
	put("proc/sys/kernel/osrelease", h.kernel+"\n")
	put("proc/meminfo", fmt.Sprintf("MemTotal:       %d kB\n", h.memory*1024))
	if h.config == "" {
		h.config = "CONFIG_FANOTIFY=y\nCONFIG_FANOTIFY_ACCESS_PERMISSIONS=y\n"
	}
	put("boot/config-"+h.kernel, h.config)
	if h.holder != "" {
		put("proc/77/fdinfo/5", "pos:\t0\nflags:\t02\nmnt_id:\t15\nfanotify flags:4 event-flags:8000\nfanotify mnt_id:1f mflags:0 mask:"+h.mask+" ignored_mask:0\n")
		if err := os.Symlink(h.holder, filepath.Join(root, "proc/77/exe")); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"opt", "var", "run/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestInstallerCheck tries --check on hosts of many kinds.
func TestInstallerCheck(t *testing.T) {
	script := writeScript(t)
	rel := func(id, version, like string) string {
		return fmt.Sprintf("NAME=\"X\"\nID=%s\nVERSION_ID=\"%s\"\nID_LIKE=\"%s\"\nPRETTY_NAME='%s %s'\n", id, version, like, id, version)
	}
	for _, c := range []struct {
		host host
		code int
		says string
	}{
		{host{release: rel("debian", "9", "")}, 0, "family debian"},
		{host{release: rel("debian", "12", "")}, 0, "family debian"},
		{host{release: rel("debian", "8", "")}, 11, "older than what is supported"},
		{host{release: rel("ubuntu", "16.04", "debian")}, 0, "family debian"},
		{host{release: rel("ubuntu", "14.04", "debian")}, 11, "older"},
		{host{release: rel("ubuntu", "26.04", "debian")}, 0, "family debian"},
		{host{release: rel("linuxmint", "21", "ubuntu debian")}, 0, "family debian"},
		{host{release: rel("kali", "2025.1", "debian")}, 0, "family debian"},
		{host{release: rel("rhel", "7.9", "fedora"), kernel: "3.10.0-1160.el7.x86_64"}, 0, "family rhel"},
		{host{release: rel("rhel", "7.1", "fedora"), kernel: "3.10.0-1160.el7.x86_64"}, 11, "older"},
		{host{release: rel("centos", "7", "rhel fedora"), kernel: "3.10.0-327.el7.x86_64"}, 0, "family rhel"},
		{host{release: rel("centos", "7", "rhel fedora"), kernel: "3.10.0-229.el7.x86_64"}, 12, "kernel 3.10.0-229.el7.x86_64 is older"},
		{host{release: rel("rhel", "9.4", "fedora")}, 0, "family rhel"},
		{host{release: rel("rhel", "10.0", "fedora")}, 0, "family rhel"},
		{host{release: rel("ol", "8.9", "fedora")}, 0, "family rhel"},
		{host{release: rel("rocky", "9.2", "rhel centos fedora")}, 0, "family rhel"},
		{host{release: rel("almalinux", "8.4", "rhel centos fedora")}, 0, "family rhel"},
		{host{release: rel("amzn", "2023", "fedora")}, 0, "family rhel"},
		{host{release: rel("fedora", "42", "")}, 0, "family rhel"},
		{host{release: rel("azurelinux", "3.0", "")}, 0, "family rhel"},
		{host{release: rel("sles", "12.5", "suse")}, 0, "family suse"},
		{host{release: rel("sles", "15.6", "suse")}, 0, "family suse"},
		{host{release: rel("sles", "11.4", "suse")}, 11, "older"},
		{host{release: rel("opensuse-leap", "15.6", "suse opensuse")}, 0, "family suse"},
		{host{redhat: "CentOS Linux release 7.4.1708 (Core)\n"}, 0, "family rhel"},
		{host{release: rel("alpine", "3.20", "")}, 10, "neither ID nor ID_LIKE"},
		{host{release: rel("arch", "", "")}, 10, "not supported"},
		{host{}, 10, "not known"},
		{host{release: rel("debian", "12", ""), kernel: "3.2.0-4-amd64"}, 12, "older than 3.10.0-327"},
		{host{release: rel("debian", "12", ""), config: "# CONFIG_FANOTIFY is not set\n"}, 12, "without CONFIG_FANOTIFY"},
		{host{release: rel("debian", "12", ""), config: "CONFIG_FANOTIFY=y\n"}, 12, "without CONFIG_FANOTIFY_ACCESS_PERMISSIONS"},
		{host{release: rel("debian", "12", ""), memory: 512}, 12, "512 MB of memory"},
		{host{release: rel("debian", "12", ""), holder: "/opt/other/scanner", mask: "10000"}, 5, "/opt/other/scanner (process 77)"},
		{host{release: rel("debian", "12", ""), holder: "/opt/other/watcher", mask: "38"}, 0, "is fit"},
		{host{release: rel("debian", "12", ""), holder: "/opt/bulwark/bin/bulwarkd", mask: "50000"}, 0, "is fit"},
		{host{release: rel("rhel", "9", ""), holder: "/usr/sbin/fapolicyd", mask: "40000"}, 0, "warning: also holds file accesses"},
	} {
		got, out := run(t, "dash", script, []string{"BULWARK_CHECK_ROOT=" + c.host.write(t)}, "--check")
		if got != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%+v: exit status %d, want %d with %q\n%s", c.host, got, c.code, c.says, out)
		}
	}
}

func TestInstallerArguments(t *testing.T) {
	script := writeScript(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "x.json")
	if err := os.WriteFile(text, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
	}{
		{"--help", 0},
		{"--version", 0},
		{"--min_req", 0},
		{"", 2},
		{"--nonsense", 2},
		{"--install --remove", 2},
		{"--passive-mode --rtp-mode", 2},
		{"--channel", 2},
		{"--install --channel beta", 25},
		{"--install --use-local-repo --channel prod", 2},
		{"--install --onboard " + dir + "/none.json", 30},
		{"--install --onboard " + text, 31},
		{"--install --onboard x.exe", 30},
		{"--offboard " + dir + "/none.sh", 32},
		{"--tag COLOUR red", 40},
		{"--tag GROUP", 2},
		{"--install --install-path /srv", 51},
		{"--install --package " + dir + "/none.deb", 2},
		{"--install --package-version 1;reboot", 2},
		{"--only-onboard", 2},
	} {
		for _, shell := range []string{"dash", "bash"} {
			if got, out := run(t, shell, script, nil, strings.Fields(c.args)...); got != c.code {
				t.Errorf("%s: %s: exit status %d, want %d\n%s", shell, c.args, got, c.code, out)
			}
		}
	}
}

func TestInstallerKnowsItsRepository(t *testing.T) {
	p := newPublisher(t, nil)
	k, err := OpenKey(p.path("signing-key.asc"), p.cfg.PassphraseFile, "x", p.cfg.Now)
	if err != nil {
		t.Fatal(err)
	}
	tr := tree{dir: t.TempDir(), url: "https://portal.example.org/repo", key: k}
	if err := tr.installer(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(tr.dir, "install.sh"))
	if err != nil || !bytes.Contains(text, []byte("REPO_URL='https://portal.example.org/repo'\nREPO_KEY='-----BEGIN PGP PUBLIC KEY BLOCK-----")) {
		t.Errorf("the script does not know its repository (%v)", err)
	}
	tr.url = "https://x/'; reboot; '"
	if err := tr.installer(t.Context()); err == nil {
		t.Error("an address can leave its quotes")
	}
}
