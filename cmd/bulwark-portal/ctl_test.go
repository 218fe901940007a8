package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/fleetsim"
	"github.com/bulwarkhq/bulwark/test/loopback"
)

// TestCtl uses the commands as an administrator on the portal's host would, with a
// portal that serves and simulated devices that answer.
func TestCtl(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	address, err := loopback.Address()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan int, 1)
	var log strings.Builder
	go func() {
		served <- run(ctx, []string{"serve", "--data-dir", dir, "--listen", address, "--host-name", "127.0.0.1", "--definitions-interval", "0", "--log-level", "warn"}, &log, &log)
	}()
	t.Cleanup(func() {
		stop()
		if code := <-served; code != 0 {
			t.Errorf("serve ended with %d:\n%s", code, &log)
		}
	})
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within two minutes: %s", what)
			}
		}
	}
	until("the portal serves", func() bool {
		c, err := net.Dial("tcp", address)
		return err == nil && c.Close() == nil
	})
	must := func(args ...string) string {
		t.Helper()
		code, out, errOut := portalCommand(t, append(args, "--data-dir", dir)...)
		if code != 0 {
			t.Fatalf("%v: exit %d\n%s%s", args, code, out, errOut)
		}
		return out
	}
	onboard := filepath.Join(t.TempDir(), "onboard.json")
	must("onboarding", "create", "--out", onboard)
	token := filepath.Join(t.TempDir(), "token")
	scopes := "Machine.ReadWrite.All,Alert.ReadWrite.All,Incident.ReadWrite.All,Machine.Scan,Machine.Isolate,AdvancedQuery.Read.All,Ti.Read.All"
	if err := os.WriteFile(token, []byte(must("token", "create", "--name", "ctl", "--scope", scopes)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctl := func(args ...string) string {
		t.Helper()
		return must(append([]string{"ctl", "--token-file", token}, args...)...)
	}
	refused := func(code int, want string, args ...string) {
		t.Helper()
		got, out, errOut := portalCommand(t, append(append([]string{"ctl"}, args...), "--data-dir", dir)...)
		if got != code || !strings.Contains(out+errOut, want) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s%s", args, got, code, want, out, errOut)
		}
	}

	if out := ctl("machines", "--output", "json"); out != "[]\n" {
		t.Errorf("no devices: %q", out)
	}
	fleet, err := fleetsim.New(fleetsim.Config{Onboarding: onboard, Dir: t.TempDir(), Agents: 2, Events: 20, AlertsPerDay: 86_400, BatchDelay: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	fleetCtx, stopFleet := context.WithCancel(t.Context())
	fleetDone := make(chan error, 1)
	go func() { fleetDone <- fleet.Run(fleetCtx) }()
	defer func() {
		stopFleet()
		if err := <-fleetDone; err != nil {
			t.Error(err)
		}
	}()
	until("devices deliver", func() bool {
		s := fleet.Snapshot()
		return s.Connected == 2 && s.Events > 100 && s.Alerts > 0 && s.CheckIns >= 2
	})

	var machines []struct{ ID, ComputerDNSName string }
	if err := json.Unmarshal([]byte(ctl("machines", "--output", "json")), &machines); err != nil || len(machines) != 2 {
		t.Fatalf("%v, %v", machines, err)
	}
	name := machines[0].ComputerDNSName
	if out := ctl("machines"); !strings.HasPrefix(out, "ID ") || !strings.Contains(out, name) {
		t.Errorf("table:\n%s", out)
	}
	if out := ctl("machines", "--filter", "computerDnsName eq '"+name+"'", "--output", "csv"); strings.Count(out, "\n") != 2 || !strings.HasPrefix(out, "id,computerDnsName,") {
		t.Errorf("CSV:\n%s", out)
	}
	if out := ctl("machines", "get", strings.ToUpper(name)); !strings.Contains(out, `"kernelVersion"`) || !strings.Contains(out, machines[0].ID) {
		t.Errorf("get:\n%s", out)
	}
	short, _, _ := strings.Cut(name, ".")
	if out := ctl("machines", "tag", short, "--add", "trial"); !strings.Contains(out, "trial") {
		t.Errorf("tag:\n%s", out)
	}
	if out := ctl("scan", name, "--comment", "to try it", "--wait"); !strings.Contains(out, "Succeeded") || !strings.Contains(out, "RunAntiVirusScan") {
		t.Errorf("scan:\n%s", out)
	}
	if out := ctl("isolate", machines[1].ID, "--comment", "to try it", "--wait"); !strings.Contains(out, "Succeeded") {
		t.Errorf("isolate:\n%s", out)
	}
	if out := ctl("actions", "--filter", "type eq 'RunAntiVirusScan'"); strings.Count(out, "\n") != 2 {
		t.Errorf("actions:\n%s", out)
	}
	var alerts []struct{ ID string }
	if err := json.Unmarshal([]byte(ctl("alerts", "--top", "1", "--output", "json")), &alerts); err != nil || len(alerts) != 1 {
		t.Fatalf("%v, %v", alerts, err)
	}
	if out := ctl("alerts", "set", alerts[0].ID, "--status", "Resolved", "--classification", "FalsePositive", "--comment", "a trial"); !strings.Contains(out, "Resolved") {
		t.Errorf("set:\n%s", out)
	}
	mine := "id eq '" + alerts[0].ID + "'"
	if all, open := ctl("alerts", "--filter", mine), ctl("alerts", "--open", "--filter", mine+" or "+mine); !strings.Contains(all, alerts[0].ID) || strings.Contains(open, alerts[0].ID) {
		t.Errorf("a resolved alert, of all:\n%s\nof the open ones:\n%s", all, open)
	}
	if out := ctl("alerts", "get", alerts[0].ID); !strings.Contains(out, "a trial") {
		t.Errorf("get:\n%s", out)
	}
	ctl("incidents", "--open")
	ctl("indicators")
	if out := ctl("hunt", "union DeviceProcessEvents, DeviceNetworkEvents | where DeviceName == '"+name+"' | summarize n = count() | where n > 0 | project found = 'yes'", "--output", "csv"); out != "found\nyes\n" {
		t.Errorf("hunt: %q", out)
	}
	file := filepath.Join(t.TempDir(), "result.parquet")
	ctl("hunt", "DeviceProcessEvents | take 5", "--parquet", file)
	if b, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(b), "PAR1") {
		t.Errorf("Parquet: %d bytes, %v", len(b), err)
	}

	with := func(args ...string) []string { return append([]string{"--token-file", token}, args...) }
	refused(2, "no API token", "machines")
	refused(2, "name a command", with()...)
	refused(2, "use text, json or csv", with("machines", "--output", "xml")...)
	refused(2, "usage: ", with("machines", "get")...)
	refused(2, "--comment TEXT is needed", with("scan", name)...)
	refused(2, "nothing to change", with("alerts", "set", alerts[0].ID)...)
	refused(2, "--add TAG or --remove TAG", with("machines", "tag", name)...)
	refused(1, "there is no device named", with("machines", "get", "nobody.example.org")...)
	refused(1, "$filter", with("machines", "--filter", "nonsense eq")...)
	refused(1, "line 1, column", with("hunt", "DeviceProcessEvents | nonsense")...)
	refused(1, "ResourceNotFound", with("alerts", "get", strings.Repeat("0", 32))...)
	refused(1, "Forbidden", with("offboard", name, "--comment", "no")...)
	refused(1, "asking the portal", with("machines", "--url", "https://127.0.0.1:1")...)
	refused(2, "not of the form", with("machines", "--url", "http://127.0.0.1:1")...)
	refused(1, "no certificate in PEM form", with("machines", "--ca", token)...)
	refused(1, "the portal refuses it", "machines", "--token", "bwp_nonsense")
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[31mb\nc\u202ed é"); got != "a\uFFFD[31mb\uFFFDc\uFFFDd é" {
		t.Errorf("%q", got)
	}
}
