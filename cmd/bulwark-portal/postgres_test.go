package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/fleetsim"
	"github.com/bulwarkhq/bulwark/test/postgres"
)

// patience is for a machine that does other things too.
const patience = 3 * time.Minute

// eventually waits for something.
func eventually(t *testing.T, what string, until func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := until()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// lockedBuffer takes the log of a portal that runs.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// A portal on PostgreSQL: devices enroll and deliver, people and programs ask. The
// database is killed meanwhile: it answers errors then, goes on when the database
// is back, and has every alert that it acknowledged.
func TestPostgres(t *testing.T) {
	server := postgres.Start(t)
	dir, database := t.TempDir(), server.NewDatabase(t)
	var log lockedBuffer
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"serve", "--data-dir", dir, "--database", database, "--listen", "127.0.0.1:0", "--definitions-interval", "0"}, &log, &log)
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("the portal ended with %d\n%s", code, &log)
		}
	})
	t.Cleanup(stop)
	var at served
	eventually(t, "the portal does not serve", func() error {
		if !strings.Contains(log.String(), "the portal serves") {
			return errors.New(log.String())
		}
		var err error
		at, err = readServed(dir)
		return err
	})
	command := func(args ...string) string {
		t.Helper()
		code, out, errOut := portalCommand(t, append(args, "--data-dir", dir, "--database", database)...)
		if code != 0 {
			t.Fatalf("%v: %d %s", args, code, errOut)
		}
		return out
	}
	onboard := filepath.Join(t.TempDir(), "onboard.json")
	command("onboarding", "create", "--out", onboard)
	token := strings.TrimSpace(command("token", "create", "--name", "t"))
	password := regexp.MustCompile(`One-time password: (\S+)`).FindStringSubmatch(command("admin", "create"))[1]
	// The offline commands do not take the file for the database.
	if code, _, errOut := portalCommand(t, "admin", "create", "--data-dir", dir); code != 2 || !strings.Contains(errOut, "PostgreSQL") {
		t.Errorf("without --database: %d %s", code, errOut)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("ca.crt holds no certificate")
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Jar: jar, Timeout: time.Minute}
	t.Cleanup(client.CloseIdleConnections)
	// count asks the API for a list.
	count := func(path string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.URL+path+"?$count=true&$top=1", nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		var list struct {
			Count int `json:"@odata.count"`
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return resp.StatusCode, fmt.Errorf("%s: %s %s %w", path, resp.Status, text, err)
		}
		return list.Count, json.Unmarshal(text, &list)
	}
	const devices = 3
	fleet, err := fleetsim.New(fleetsim.Config{
		Onboarding: onboard, Dir: t.TempDir(), Agents: devices, Events: 5, AlertsPerDay: 86400, BatchDelay: 200 * time.Millisecond,
		Ramp: 100, MaxBackoff: time.Second, Seed: 1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	fleetCtx, endFleet := context.WithCancel(t.Context())
	fleetDone := make(chan error, 1)
	go func() { fleetDone <- fleet.Run(fleetCtx) }()
	deliver := func(what string) {
		t.Helper()
		before := fleet.Snapshot()
		eventually(t, what, func() error {
			now := fleet.Snapshot()
			if now.Alerts < before.Alerts+5 || now.Events < before.Events+20 {
				return fmt.Errorf("%d alerts, %d events, failures %v", now.Alerts-before.Alerts, now.Events-before.Events, now.Failures)
			}
			return nil
		})
	}
	deliver("the devices deliver nothing")
	if n, err := count("/api/machines"); err != nil || n != devices {
		t.Errorf("%d devices, %v", n, err)
	}
	resp, err := client.PostForm(at.URL+"/sign-in", url.Values{"name": {"admin"}, "password": {password}})
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || resp.Request.URL.Path != "/account/password" || !strings.Contains(string(page), `name="current"`) {
		t.Errorf("signing in leads to %s, %s, %v", resp.Request.URL, resp.Status, err)
	}

	failed := func() (n uint64) {
		for _, k := range fleet.Snapshot().Failures {
			n += k
		}
		return n
	}
	before := failed() // each device is counted once when it goes over to having no portal
	server.Kill(t)
	eventually(t, "without its database the portal answers as if nothing were", func() error {
		status, err := count("/api/alerts")
		if err == nil || status < 500 {
			return fmt.Errorf("status %d, %w", status, err)
		}
		return nil
	})
	eventually(t, "no call of a device fails without the database", func() error {
		if n := failed(); n < before+devices {
			return fmt.Errorf("%d failures after %d: %+v", n, before, fleet.Snapshot())
		}
		return nil
	})
	server.Run(t)
	deliver("after the return of the database nothing is delivered")
	endFleet()
	if err := <-fleetDone; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	acknowledged := fleet.Snapshot().Alerts
	eventually(t, "acknowledged alerts are gone", func() error {
		n, err := count("/api/alerts")
		if err == nil && n < int(acknowledged) {
			err = fmt.Errorf("%d alerts were acknowledged, %d are there", acknowledged, n)
		}
		return err
	})
	stop()
	if code, _, errOut := portalCommand(t, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0"); code != 2 || !strings.Contains(errOut, "kept its control data in PostgreSQL") {
		t.Errorf("serve without --database afterwards: %d %s", code, errOut)
	}
}
