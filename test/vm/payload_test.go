//go:build vm

package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// top is the folder of the repository.
const top = "../.."

// payload is the content of a machine's second disk.
type payload struct {
	t   *testing.T
	dir string
}

func newPayload(t *testing.T) *payload {
	t.Helper()
	need.Root(t)
	need.Command(t, "qemu-system-x86_64")
	return &payload{t, t.TempDir()}
}

// command runs a program in the repository. The machine is an amd64.
func (p *payload) command(env []string, name string, args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// program builds a program.
func (p *payload) program(pkg, name string) {
	p.t.Helper()
	p.command(nil, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(p.dir, name), pkg)
}

// tests builds the test program of a package.
func (p *payload) tests(pkg, name string) {
	p.t.Helper()
	p.command(nil, "go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(p.dir, name), pkg)
}

// agentPackage builds the agent's package of a version as `make package` does and
// returns its path.
func (p *payload) agentPackage(version string) string {
	p.t.Helper()
	dist := p.t.TempDir()
	p.command([]string{"VERSION=" + version, "ARCHS=amd64", "DIST=" + dist, "FAST=1"}, "packaging/build.sh", "agent", "deb")
	debs, err := filepath.Glob(filepath.Join(dist, "bulwark_*.deb"))
	if err != nil || len(debs) != 1 {
		p.t.Fatalf("packaging/build.sh made %v (%v), want one package", debs, err)
	}
	// The same package, not compressed: unpacking takes an emulated processor long.
	content, plain := filepath.Join(dist, "content"), filepath.Join(dist, "plain")
	if err := os.Mkdir(plain, 0o755); err != nil {
		p.t.Fatal(err)
	}
	p.command(nil, "dpkg-deb", "--raw-extract", debs[0], content)
	p.command(nil, "dpkg-deb", "-Znone", "--root-owner-group", "--build", content, plain)
	out, err := filepath.Glob(filepath.Join(plain, "*.deb"))
	if err != nil || len(out) != 1 {
		p.t.Fatalf("dpkg-deb made %v (%v), want one package", out, err)
	}
	return out[0]
}

// unpacked has a package's files in a folder, with the built-in definitions and
// little more: compiling them is tried elsewhere.
func (p *payload) unpacked(deb, folder string) {
	p.t.Helper()
	dir := filepath.Join(p.dir, folder)
	p.command(nil, "dpkg-deb", "--extract", deb, dir)
	shipped, err := filepath.Glob(filepath.Join(dir, "opt/bulwark/definitions/*/*"))
	if err != nil || len(shipped) < 2 {
		p.t.Fatalf("definitions of the package: %v, %v", shipped, err)
	}
	for _, f := range shipped[1:] {
		if err := os.RemoveAll(f); err != nil {
			p.t.Fatal(err)
		}
	}
}
