package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/api/rest"
)

// portal is a process of its own, so that what it uses can be told from what
// the simulation uses.
type portal struct {
	program, dir, address, onboarding string
	*rest.Client
	cmd    *exec.Cmd
	exited chan error
}

func newPortal(ctx context.Context, program, dir string) (*portal, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &portal{program: program, dir: filepath.Join(dir, "portal"), address: l.Addr().String(), onboarding: filepath.Join(dir, "onboard.json")}
	if err := errors.Join(l.Close(), os.Mkdir(p.dir, 0o700)); err != nil {
		return nil, err
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	err = p.wait(ctx, 2*time.Minute, func() bool {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", p.address)
		return err == nil && c.Close() == nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := p.command(ctx, "onboarding", "create", "--out", p.onboarding); err != nil {
		return nil, err
	}
	token, err := p.command(ctx, "token", "create", "--name", "bench")
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(p.onboarding)
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
	roots := x509.NewCertPool()
	for _, c := range authorities {
		roots.AddCert(c)
	}
	p.Client, err = rest.New("https://"+p.address, token, roots)
	return p, err
}

// command runs an offline command of the portal's program.
func (p *portal) command(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, p.program, append(args, "--data-dir", p.dir)...).Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, e.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", p.program, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// start starts the process; wait says when it answers. With thousands of agents that
// come back at once that takes until their connections are taken.
func (p *portal) start() error {
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(p.program, "serve", "--data-dir", p.dir, "--listen", p.address, "--host-name", "127.0.0.1", "--definitions-interval", "0", "--log-level", "warn") //nolint:noctx // it is killed by hand
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.exited = make(chan error, 1)
	go func(c *exec.Cmd, exited chan error) { exited <- c.Wait() }(p.cmd, p.exited)
	return nil
}

// wait polls until ok; a portal that has ended is an error.
func (p *portal) wait(ctx context.Context, patience time.Duration, ok func() bool) error {
	for deadline := time.Now().Add(patience); ; {
		if ok() {
			return nil
		}
		select {
		case err := <-p.exited:
			p.exited <- err
			log, _ := os.ReadFile(filepath.Join(p.dir, "log"))
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

func (p *portal) kill() {
	if p.cmd.Process.Kill() == nil {
		<-p.exited //nolint:errcheck // that it was killed
	}
}

func (p *portal) restart() error {
	p.kill()
	return p.start()
}

// cpu returns the CPU time that the portal has used, in seconds (proc(5), stat:
// utime and stime in ticks of 10 ms).
func (p *portal) cpu() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// memory returns a size of /proc/pid/status in MB.
func (p *portal) memory(name string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return kb >> 10
		}
	}
	return 0
}

// lists prints how long answers about the whole fleet take.
func (p *portal) lists(ctx context.Context) error {
	for _, list := range []struct {
		path  string
		query url.Values
	}{
		{"/api/machines", url.Values{"$top": {"100"}}},
		{"/api/machines", url.Values{"$top": {"100"}, "$count": {"true"}, "$filter": {"startswith(computerDnsName,'sim-web')"}}},
		{"/api/alerts", url.Values{"$top": {"100"}}},
	} {
		var answer json.RawMessage
		ms, err := median(11, func() error { return p.Do(ctx, http.MethodGet, list.path, list.query, nil, &answer) })
		if err != nil {
			return err
		}
		fmt.Printf("list          %6.1f ms (median of 11, under this load; limit 100), %d KB: GET %s?%s\n", ms, len(answer)>>10, list.path, list.query.Encode())
	}
	return nil
}
