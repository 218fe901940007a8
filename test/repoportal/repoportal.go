// Package repoportal starts portals that serve repositories of packages, for the
// tests of installations.
package repoportal

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/test/loopback"
	"github.com/bulwarkhq/bulwark/test/program"
)

// patience is how long a portal may take to start or to end.
const patience = 4 * time.Minute

// Portal is a portal that runs. Its repositories are below URL/repo.
type Portal struct {
	URL     string // with the first host name
	Address string // where it listens, 127.0.0.1:PORT
	data    string
	bin     string
	process *program.Process
	log     string
}

// Start starts the program bin/bulwark-portal of the repository's folder top with
// its data below dir. hosts are the names by which it is reached.
func Start(top, dir string, hosts ...string) (p *Portal, err error) {
	bin, err := filepath.Abs(filepath.Join(top, "bin", "bulwark-portal"))
	if err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("portal: %w: make build makes it", err)
	}
	p = &Portal{bin: bin, data: filepath.Join(dir, "data"), log: filepath.Join(dir, "portal.log")}
	// Making a key takes long, and is tried elsewhere.
	for from, to := range map[string]string{"signing-key.asc": "repository/signing-key.asc", "passphrase": "secrets/repository-passphrase"} {
		b, err := os.ReadFile(filepath.Join(top, "portal/repository/testdata", from))
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(p.data, to)), 0o700), os.WriteFile(filepath.Join(p.data, to), b, 0o600))
		}
		if err != nil {
			return nil, fmt.Errorf("key of the portal: %w", err)
		}
	}
	if p.Address, err = loopback.Address(); err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	_, port, err := net.SplitHostPort(p.Address)
	if err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	p.URL = "https://" + hosts[0] + ":" + port
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(bin, "serve", "--data-dir", p.data, "--listen", p.Address, "--host-name", strings.Join(hosts, ","))
	cmd.Stderr = log
	if p.process, err = program.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if c, err := net.Dial("tcp", p.Address); err == nil {
			return p, c.Close()
		}
		if time.Now().After(end) {
			p.Stop()
			b, err := os.ReadFile(p.log)
			return nil, fmt.Errorf("the portal does not listen: %w\n%s", err, b)
		}
	}
}

// Stop ends the portal.
func (p *Portal) Stop() {
	_ = p.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.process.Ended:
	case <-time.After(patience):
		p.process.Kill()
	}
}

// Command runs a command of the portal and returns what it printed to its
// standard output.
func (p *Portal) Command(args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := exec.Command(p.bin, append(args, "--data-dir", p.data)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("bulwark-portal %s: %w\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Authority is the certificate authority in an onboarding package, in PEM.
func Authority(onboarding string) (string, error) {
	b, err := os.ReadFile(onboarding)
	if err != nil {
		return "", fmt.Errorf("onboarding package: %w", err)
	}
	var pkg struct {
		CA string `json:"ca_certificate"`
	}
	if err := json.Unmarshal(b, &pkg); err != nil {
		return "", fmt.Errorf("onboarding package %s: %w", onboarding, err)
	}
	return pkg.CA, nil
}
