//go:build install

package install

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
	"github.com/bulwarkhq/bulwark/test/repoportal"
)

const (
	top      = "../.."
	previous = "0.9.1"
	current  = "0.9.2"
)

// portal is a portal that serves repositories, with two versions of the agent.
type portal struct {
	*repoportal.Portal
	dist    string // packages
	onboard string // onboarding package
	stub    string // rpm that provides what a Debian has not
}

var shared struct {
	once sync.Once
	*portal
	stop func()
	err  string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.stop != nil {
		shared.stop()
	}
	os.Exit(code)
}

// thePortal starts the portal of all tests.
func thePortal(t *testing.T) *portal {
	t.Helper()
	need.Root(t)
	shared.once.Do(func() {
		shared.err = "its set-up failed"
		startPortal(t)
		shared.err = ""
	})
	if shared.err != "" {
		t.Fatal("no portal: ", shared.err)
	}
	return shared.portal
}

// tool runs a program of this machine.
func tool(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func startPortal(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bulwark-install-test-")
	must(t, err)
	shared.stop = func() { os.RemoveAll(dir) }
	p := &portal{dist: filepath.Join(dir, "dist")}
	for _, version := range []string{previous, current} {
		tool(t, []string{"VERSION=" + version, "ARCHS=amd64", "FAST=1", "DIST=" + filepath.Join(p.dist, version)}, "packaging/build.sh", "agent")
	}
	p.Portal, err = repoportal.Start(top, dir, "localhost", "127.0.0.1")
	must(t, err)
	shared.stop = func() {
		p.Stop()
		os.RemoveAll(dir)
	}
	p.onboard = filepath.Join(dir, "onboard.json")
	p.portal(t, "onboarding", "create", "--out", p.onboard, "--name", "install test")
	p.portal(t, "repo", "publish", "--channel", "prod", filepath.Join(p.dist, previous))
	p.portal(t, "repo", "publish", "--channel", "insiders-fast", filepath.Join(p.dist, previous), filepath.Join(p.dist, current))
	p.stub = makeStub(t, dir)
	shared.portal = p
}

// portal runs a command of the portal.
func (p *portal) portal(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.Command(args...)
	must(t, err)
	return out
}

// fetch brings a file of the repository to the host, as an administrator would.
func (p *portal) fetch(h *host, name, to string) {
	h.t.Helper()
	need.Command(h.t, "curl")
	h.write("root/portal-ca.pem", p.ca(h.t), 0o644)
	h.run("curl", "-fsS", "--create-dirs", "--cacert", "/root/portal-ca.pem", "-o", to, p.URL+"/repo/"+name)
}

func (p *portal) ca(t *testing.T) string {
	t.Helper()
	ca, err := repoportal.Authority(p.onboard)
	must(t, err)
	return ca
}

// onboarding brings the onboarding package to the host.
func (p *portal) onboarding(h *host, to string) {
	h.t.Helper()
	b, err := os.ReadFile(p.onboard)
	must(h.t, err)
	h.write(to, string(b), 0o600)
}

// copyPackages brings the packages of the previous version to the host.
func (p *portal) copyPackages(h *host, pattern string) {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(p.dist, previous, pattern))
	must(h.t, err)
	if len(found) == 0 {
		h.t.Fatalf("no package %s", pattern)
	}
	for _, f := range found {
		b, err := os.ReadFile(f)
		must(h.t, err)
		h.write("root/"+filepath.Base(f), string(b), 0o644)
	}
}

// installStub installs what makeStub made.
func (p *portal) installStub(h *host) {
	h.t.Helper()
	b, err := os.ReadFile(p.stub)
	must(h.t, err)
	h.write("root/stub.rpm", string(b), 0o600)
	h.run("rpm", "-i", "--nodeps", "/root/stub.rpm")
}

// makeStub makes an rpm that provides what the package needs of a
// distribution: the database of rpm on a Debian is empty.
func makeStub(t *testing.T, dir string) string {
	t.Helper()
	need.Command(t, "rpmbuild")
	spec := filepath.Join(dir, "stub.spec")
	text := "Name: stub\nVersion: 1\nRelease: 1\nSummary: stub\nLicense: none\nBuildArch: noarch\nProvides: /usr/sbin/useradd\n%description\nstub\n%files\n"
	must(t, os.WriteFile(spec, []byte(text), 0o600))
	tool(t, []string{"HOME=" + dir}, "rpmbuild", "--quiet", "-bb", "--define", "_topdir "+dir+"/rpm", "--define", "_rpmdir "+dir, "--define", "_build_name_fmt stub.rpm", spec)
	return filepath.Join(dir, "stub.rpm")
}
