// Package portal runs a real portal for benchmarks.
package portal

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/api/rest"
)

// Portal is a process of its own, so that what it uses can be told from what
// everything else uses.
type Portal struct {
	// Onboarding is the path of an onboarding package, Data the folder of its data, and
	// Roots are who signed its certificate.
	Onboarding, Data string
	Roots            *x509.CertPool
	*rest.Client

	program, address string
	cmd              *exec.Cmd
	exited           chan error
}

// New starts a portal that keeps its data below dir, and waits until it answers.
func New(ctx context.Context, program, dir string) (*Portal, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Portal{program: program, Data: filepath.Join(dir, "portal"), address: l.Addr().String(), Onboarding: filepath.Join(dir, "onboard.json")}
	if err := errors.Join(l.Close(), os.Mkdir(p.Data, 0o700)); err != nil {
		return nil, err
	}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	if _, err := p.Command(ctx, "onboarding", "create", "--out", p.Onboarding); err != nil {
		return nil, err
	}
	token, err := p.Command(ctx, "token", "create", "--name", "bench")
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(p.Onboarding)
	if err != nil {
		return nil, err
	}
	pkg, err := onboarding.Parse(text)
	if err != nil {
		return nil, err
	}
	authorities, err := pkg.Authorities()
	if err != nil {
		return nil, err
	}
	p.Roots = x509.NewCertPool()
	for _, c := range authorities {
		p.Roots.AddCert(c)
	}
	p.Client, err = rest.New("https://"+p.address, token, p.Roots)
	return p, err
}

// Command runs an offline command of the portal's program.
func (p *Portal) Command(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, p.program, append(args, "--data-dir", p.Data)...).Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, e.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", p.program, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Start starts the process and waits until it takes connections.
func (p *Portal) Start(ctx context.Context) error {
	if err := p.start(); err != nil {
		return err
	}
	return p.Wait(ctx, 2*time.Minute, func() bool {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", p.address)
		return err == nil && c.Close() == nil
	})
}

// Stop ends the process in order.
func (p *Portal) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return <-p.exited
}

// start starts the process; Wait says when it answers. With thousands of agents that
// come back at once that takes until their connections are taken.
func (p *Portal) start() error {
	log, err := os.OpenFile(filepath.Join(p.Data, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(p.program, "serve", "--data-dir", p.Data, "--listen", p.address, "--host-name", "127.0.0.1", "--definitions-interval", "0", "--log-level", "warn") //nolint:noctx // it is killed by hand
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.exited = make(chan error, 1)
	go func(c *exec.Cmd, exited chan error) { exited <- c.Wait() }(p.cmd, p.exited)
	return nil
}

// Wait polls until ok; a portal that has ended is an error.
func (p *Portal) Wait(ctx context.Context, patience time.Duration, ok func() bool) error {
	for deadline := time.Now().Add(patience); ; {
		if ok() {
			return nil
		}
		select {
		case err := <-p.exited:
			p.exited <- err
			log, _ := os.ReadFile(filepath.Join(p.Data, "log"))
			return fmt.Errorf("the portal has ended: %w\n%s", err, log[max(0, len(log)-2000):])
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s", patience)
		}
	}
}

// Kill ends the process as a crash would.
func (p *Portal) Kill() {
	if p.cmd.Process.Kill() == nil {
		<-p.exited //nolint:errcheck // that it was killed
	}
}

// Restart kills the process and starts it again with its data.
func (p *Portal) Restart() error {
	p.Kill()
	return p.start()
}

// PID is that of the process.
func (p *Portal) PID() int { return p.cmd.Process.Pid }
