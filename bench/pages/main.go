// Command pages measures how long the portal's pages take where there are many devices
// and events: simulated agents (agent/fleetsim) enroll at a real portal and raise alerts,
// events are put into its store, and each page is asked for by somebody who is signed in.
//
//	go run ./bench/pages -agents 10000 -events 10000000 -portal bin/bulwark-portal
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/agent/fleetsim"
	"github.com/bulwarkhq/bulwark/bench/events"
	"github.com/bulwarkhq/bulwark/bench/measure"
	"github.com/bulwarkhq/bulwark/bench/portal"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
)

type options struct {
	agents, events, times int
	alerts                float64
	program               string
	patient               time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.agents, "agents", 10_000, "how many devices")
	flag.IntVar(&o.events, "events", 10_000_000, "how many events")
	flag.Float64Var(&o.alerts, "alerts", 1, "alerts of a device, in the mean, at least")
	flag.IntVar(&o.times, "times", 11, "how often each page is asked for")
	flag.StringVar(&o.program, "portal", "bin/bulwark-portal", "the portal's program")
	flag.DurationVar(&o.patient, "patience", 30*time.Minute, "how long to wait until all agents have enrolled and delivered")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "bulwark-bench-pages-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := portal.New(ctx, o.program, dir)
	if err != nil {
		return err
	}
	defer p.Kill()
	devices, err := enroll(ctx, o, p, filepath.Join(dir, "identities"))
	if err != nil {
		return err
	}
	if err := p.Stop(); err != nil {
		return fmt.Errorf("stopping the portal: %w", err)
	}
	if err := fill(ctx, o, p, devices); err != nil {
		return fmt.Errorf("filling the event store: %w", err)
	}
	if err := p.Start(ctx); err != nil {
		return err
	}
	return pages(ctx, o, p, devices)
}

// enroll has the devices enroll and deliver their alerts.
func enroll(ctx context.Context, o options, p *portal.Portal, dir string) ([]events.Device, error) {
	f, err := fleetsim.New(fleetsim.Config{
		Onboarding: p.Onboarding, Dir: dir, Agents: o.agents, Events: 0.01, AlertsPerDay: 500, Ramp: 1000, Seed: 1,
	})
	if err != nil {
		return nil, err
	}
	work, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- f.Run(work) }()
	err = p.Wait(ctx, o.patient, func() bool {
		s := f.Snapshot()
		return s.Connected == o.agents && float64(s.Alerts) >= o.alerts*float64(o.agents)
	})
	if s := f.Snapshot(); err == nil {
		fmt.Printf("%d devices and %d alerts after %.0f s\n", s.Connected, s.Alerts, time.Since(begin).Seconds())
	} else {
		err = fmt.Errorf("enrolling: %w: %+v", err, s)
	}
	var devices []events.Device
	for _, s := range f.Statuses() {
		devices = append(devices, events.Device{ID: s.DeviceID, Name: "sim-" + s.DeviceID[:8] + ".example.org"})
	}
	stop()
	return devices, errors.Join(err, <-done)
}

func fill(ctx context.Context, o options, p *portal.Portal, devices []events.Device) (err error) {
	store, err := duckdb.Open(ctx, duckdb.Config{Dir: filepath.Join(p.Data, "events"), MemoryLimit: 2 << 30})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	begin := time.Now()
	if err := events.Fill(ctx, store, o.events, devices, time.Now().UTC()); err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	fmt.Printf("%d events in %d hours stored in %.0f s (%.0f events/s)\n", o.events, events.Span/time.Hour, took, float64(o.events)/took)
	return nil
}

// pages prints how long each page takes.
func pages(ctx context.Context, o options, p *portal.Portal, devices []events.Device) error {
	b, err := signIn(ctx, p)
	if err != nil {
		return fmt.Errorf("signing in: %w", err)
	}
	// The device that is shown is one of those that the store was filled with events of.
	device := ""
	for _, d := range devices {
		text, err := b.get(ctx, "/devices/"+d.ID+"/timeline")
		if err != nil {
			return err
		}
		if strings.Count(text, "/process?") > 10 {
			device = d.ID
			break
		}
	}
	if device == "" {
		return errors.New("no device has a page of events: measure with more")
	}
	first := func(list, pattern string) (string, error) {
		text, err := b.get(ctx, list)
		if err != nil {
			return "", err
		}
		link := regexp.MustCompile(`href="(` + pattern + `)"`).FindStringSubmatch(text)
		if link == nil {
			return "", fmt.Errorf("%s has no link like %s", list, pattern)
		}
		return strings.ReplaceAll(link[1], "&amp;", "&"), nil
	}
	alert, err := first("/alerts", `/alerts/[0-9a-f]+`)
	if err != nil {
		return err
	}
	incident, err := first("/incidents", `/incidents/[0-9]+`)
	if err != nil {
		return err
	}
	process, err := first("/devices/"+device+"/timeline", `/devices/[0-9a-f]+/process\?[^"]+`)
	if err != nil {
		return err
	}
	fmt.Printf("\n%d devices, %d processors, each page %d times; the goal for lists is 100 ms\n\n%-52s %8s %8s %6s\n", o.agents, runtime.NumCPU(), o.times, "", "ms", "longest", "KB")
	for _, path := range []string{
		"/", "/devices", "/devices?q=web", "/devices/" + device, "/devices/" + device + "/timeline", process,
		"/alerts", "/alerts?q=shell", alert, "/incidents", incident, "/threats", "/attack", "/hunting", "/indicators", "/groups", "/policies",
		"/detections", "/detections/shipped", "/exports", "/actions", "/library", "/onboarding", "/users", "/tokens", "/audit", "/settings",
	} {
		var took []float64
		var size int
		for range o.times {
			begin := time.Now()
			text, err := b.get(ctx, path)
			if err != nil {
				return err
			}
			took, size = append(took, float64(time.Since(begin).Microseconds())/1000), len(text)
		}
		slices.Sort(took)
		name := regexp.MustCompile(`[0-9a-f]{16,}`).ReplaceAllString(path, "ID")
		if len(name) > 52 {
			name = name[:49] + "..."
		}
		fmt.Printf("%-52s %8.1f %8.1f %6d\n", name, took[len(took)/2], took[len(took)-1], size>>10)
	}
	fmt.Printf("\nthe portal has %d MB resident, %d MB at the most\n", measure.StatusBytes(p.PID(), "VmRSS:")>>20, measure.StatusBytes(p.PID(), "VmHWM:")>>20)
	return nil
}

// browser is somebody who is signed in.
type browser struct {
	http.Client
	address string
}

// signIn signs in with a new account, and gives it a password of its own.
func signIn(ctx context.Context, p *portal.Portal) (*browser, error) {
	out, err := p.Command(ctx, "admin", "create", "--name", "bench")
	if err != nil {
		return nil, err
	}
	once := regexp.MustCompile(`One-time password: (\S+)`).FindStringSubmatch(out)
	if once == nil {
		return nil, fmt.Errorf("no password in %q", out)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	b := &browser{Client: http.Client{Jar: jar, Timeout: 5 * time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.Roots, MinVersion: tls.VersionTLS12}}}, address: p.Address()}
	page, err := b.post(ctx, "/sign-in", url.Values{"name": {"bench"}, "password": {once[1]}})
	if err != nil {
		return nil, err
	}
	csrf := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(page)
	if csrf == nil {
		return nil, errors.New("there is no form for a password")
	}
	next := "of the benchmark " + once[1]
	_, err = b.post(ctx, "/account/password", url.Values{"csrf": {csrf[1]}, "current": {once[1]}, "new": {next}, "again": {next}})
	return b, err
}

func (b *browser) get(ctx context.Context, path string) (string, error) {
	return b.ask(ctx, http.MethodGet, path, nil)
}

func (b *browser) post(ctx context.Context, path string, form url.Values) (string, error) {
	return b.ask(ctx, http.MethodPost, path, form)
}

// ask returns the page with all of its text.
func (b *browser) ask(ctx context.Context, method, path string, form url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.address+path, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.Do(req)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return string(text), nil
}
