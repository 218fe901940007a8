//go:build system

package system

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/test/program"
)

// orders is a client of the portal's REST API in the portal's namespace.
type orders struct {
	rest
	device string
}

// order gives an order and waits for its end.
func (o *orders) order(verb, members string) map[string]any {
	o.p.t.Helper()
	status, out := o.do("POST", "/api/machines/"+o.device+"/"+verb, `{"Comment":"a test"`+members+`}`)
	var a map[string]any
	if err := json.Unmarshal(out, &a); err != nil || status != http.StatusCreated {
		o.p.t.Fatalf("%s: %d %s", verb, status, out)
	}
	id := a["id"].(string)
	o.p.until(verb+" ends", func() error {
		_, out := o.do("GET", "/api/machineactions/"+id, "")
		a = nil
		if err := json.Unmarshal(out, &a); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if a["status"] == "Pending" || a["status"] == "InProgress" {
			time.Sleep(700 * time.Millisecond) // there is a limit of requests in a minute
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	return a
}

func (o *orders) succeeds(verb, members, says string) map[string]any {
	o.p.t.Helper()
	a := o.order(verb, members)
	if message, _ := a["message"].(string); a["status"] != "Succeeded" || !strings.Contains(message, says) {
		o.p.t.Errorf("%s%s: %v: %v; want %q", verb, members, a["status"], a["message"], says)
	}
	return a
}

func (o *orders) fails(verb, members, says string) {
	o.p.t.Helper()
	a := o.order(verb, members)
	if message, _ := a["message"].(string); a["status"] != "Failed" || !strings.Contains(message, says) {
		o.p.t.Errorf("%s%s: %v: %v; want a failure with %q", verb, members, a["status"], a["message"], says)
	}
}

// TestResponseActions orders everything that can be ordered from a real portal
// of a real agent, which is in a network of its own: it is cut off, too.
func TestResponseActions(t *testing.T) {
	n := isolate(t)
	n.write(n.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "passive"}}`)
	n.sh(n.world, "nft flush ruleset")
	n.start("portal", n.world, nil, filepath.Join(n.bin, "bulwark-portal"), "serve", "--listen", portalHost+":"+portalPort, "--data-dir", n.portalData, "--host-name", portalHost, "--definitions-interval", "0")
	n.listening(n.world, portalHost+":"+portalPort)
	n.portalCommand("onboarding", "create", "--portal-url", "https://"+portalHost+":"+portalPort, "--out", n.dirs.Onboarding())
	run := func() *program.Process {
		p := n.start("agent", n.host, nil, filepath.Join(n.bin, "bulwarkd"), "run", "--root", n.root, "--only-mounts", n.watch)
		n.until("the agent is connected", func() error {
			if r := n.product.run("health", "--field", "portal_status"); !strings.Contains(r.stdout, "connected") {
				return fmt.Errorf("%s%s", r.stdout, r.stderr)
			}
			return nil
		})
		return p
	}
	agent := run()
	o := &orders{rest: n.rest(), device: strings.Trim(strings.TrimSpace(n.must("health", "--field", "edr_machine_id")), `"`)}
	o.token = strings.TrimSpace(n.portalCommand("token", "create", "--name", "test", "--scope",
		"Machine.Read.All,Machine.Scan,Machine.Isolate,Machine.StopAndQuarantine,Machine.CollectForensics,Machine.LiveResponse,Machine.Offboard"))

	// Processes. The program is a copy, so that its hash is of nobody else.
	program := filepath.Join(n.watch, "sleeper")
	clock, err := process.NewClock(time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var began time.Time // of the last one
	sleeper := func() (pid int, exited chan error) {
		t.Helper()
		data, err := os.ReadFile("/bin/sleep")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(program, append(data, "its own content"...), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, fmt.Sprint(int(deadman.Seconds())))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		st, err := process.ParseStat(stat)
		if err != nil {
			t.Fatal(err)
		}
		began = clock.Start(st.Start)
		exited = make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd.Process.Pid, exited
	}
	gone := func(what string, exited chan error) {
		t.Helper()
		select {
		case <-exited:
		case <-time.After(patience):
			t.Fatalf("%s: the process lives", what)
		}
	}
	pid, exited := sleeper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256Hex(data)
	o.fails("stopProcess", fmt.Sprintf(`,"ProcessId":%d,"Sha256":"%s"`, pid, strings.Repeat("0", 64)), "runs another program")
	o.fails("stopProcess", fmt.Sprintf(`,"ProcessId":%d,"ProcessCreationTime":"2020-01-01T00:00:00Z"`, pid), "another one by now")
	o.succeeds("stopProcess", fmt.Sprintf(`,"ProcessId":%d,"Sha256":"%s","ProcessCreationTime":"%s"`, pid, sum, began.UTC().Format(time.RFC3339Nano)), "ended")
	gone("stopProcess", exited)

	// Files: found by the hash of what runs, ended, moved, and put back.
	_, exited = sleeper()
	o.fails("StopAndQuarantineFile", `,"Sha256":"`+strings.Repeat("0", 64)+`"`, "no file of this hash")
	o.fails("StopAndQuarantineFile", `,"Path":"`+program+`","Sha256":"`+strings.Repeat("0", 64)+`"`, "not the file that is meant")
	o.succeeds("StopAndQuarantineFile", `,"Sha256":"`+sum+`"`, "is in the quarantine")
	gone("StopAndQuarantineFile", exited)
	if _, err := os.Stat(program); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	n.threat(program, "quarantined")
	o.succeeds("restoreFile", `,"Sha256":"`+sum+`"`, "restored to "+program)
	if back, err := os.ReadFile(program); err != nil || sha256Hex(back) != sum {
		t.Errorf("restored: %v", err)
	}
	o.fails("restoreFile", `,"Sha256":"`+sum+`"`, "no file of this SHA-256")
	// Two copies, of which both go with the one order by the hash.
	first, second := program+".1", program+".2"
	for _, path := range []string{first, second} {
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
		o.succeeds("StopAndQuarantineFile", `,"Path":"`+path+`"`, "is in the quarantine")
	}
	o.succeeds("removeQuarantinedFile", `,"Sha256":"`+sum+`"`, "deleted for good: "+second+"; deleted for good: "+first)
	o.fails("removeQuarantinedFile", `,"Sha256":"`+sum+`"`, "no file of this SHA-256")
	o.fails("StopAndQuarantineFile", `,"Path":"`+filepath.Join(n.bin, "bulwarkd")+`"`, "the agent's own")

	// What a person at a desk wants to see of the host.
	a := o.succeeds("collectInvestigationPackage", "", "bytes sent")
	_, archive := o.do("GET", fmt.Sprintf("/api/machineactions/%v/package", a["id"]), "")
	members, err := untar(archive)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"processes.txt": "bulwarkd", "network/connections.txt": "ESTABLISHED", "network/addresses.txt": "10.77.1.2", "files/etc/passwd": "root:", "files/proc/mounts": n.watch, "agent/threats.json": sum, "system.txt": "kernel",
	} {
		if !strings.Contains(members[name], want) {
			t.Errorf("the package's %s lacks %q:\n%.500s", name, want, members[name])
		}
	}
	for name := range members {
		if strings.Contains(name, "shadow") {
			t.Errorf("the package has %s", name)
		}
	}

	// A session: looking around, and fetching a file.
	a = o.succeeds("runliveresponse", `,"Commands":[{"type":"Shell","params":[{"key":"Command","value":"dir `+n.watch+`"}]},{"type":"Shell","params":[{"key":"Command","value":"remediate list"}]},{"type":"GetFile","params":[{"key":"Path","value":"`+program+`"}]}]`, "3 command(s)")
	if text := fmt.Sprint(a["result"]); !strings.Contains(text, "sleeper") || !strings.Contains(text, "bytes of") {
		t.Errorf("live response: %.1000s", text)
	}
	if _, file := o.do("GET", fmt.Sprintf("/api/machineactions/%v/package", a["id"]), ""); sha256Hex(file) != sum {
		t.Errorf("the fetched file has %d bytes", len(file))
	}
	o.fails("runliveresponse", `,"Commands":[{"type":"Shell","params":[{"key":"Command","value":"rm -rf /"}]}]`, "no command")

	// Cut off: others are not reached, the portal is, also after a restart and
	// with the rules removed.
	n.start("other", n.world, nil, "tinyproxy", "-d", "-c", n.plainServer("8081"))
	n.listening(n.world, gateway+":8081")
	reached := func() error {
		c, err := dialSoon(n.host, gateway+":8081")
		if err != nil {
			return err
		}
		return c.Close()
	}
	n.until("others are reached before", reached)
	isolation := o.succeeds("isolate", `,"IsolationType":"Full"`, "isolated")
	cut := func(when string) {
		t.Helper()
		if reached() == nil {
			t.Errorf("%s: others are reached", when)
		}
	}
	cut("isolated")
	if out := n.must("isolation", "status"); !strings.Contains(out, "is isolated since") || !strings.Contains(out, portalHost) {
		t.Error(out)
	}
	o.fails("stopProcess", `,"ProcessId":2000000000`, "there is no process") // orders still arrive
	n.end(agent)
	cut("without the daemon")
	n.sh(n.host, "nft flush ruleset")
	agent = run()
	n.until("isolated again", func() error {
		if reached() == nil {
			return errors.New("others are reached")
		}
		return nil
	})
	if r := n.product.run("isolation", "release", "--token", "bulwark-release-v1.x.y"); r.status == 0 || !strings.Contains(r.stderr, "not of the portal") {
		t.Errorf("a forged token: %d %s%s", r.status, r.stdout, r.stderr)
	}
	status, out := o.do("POST", fmt.Sprintf("/api/machineactions/%v/releaseToken", isolation["id"]), `{"Comment":"a test","Hours":1}`)
	var token struct{ Token string }
	if err := json.Unmarshal(out, &token); err != nil || status != 200 {
		t.Fatalf("%d %s", status, out)
	}
	n.must("isolation", "release", "--token", token.Token)
	n.until("others are reached when it is released", reached)
	o.fails("unisolate", "", "not isolated")

	// It leaves.
	o.succeeds("offboard", "", "leaves")
	n.until("the host has left", func() error {
		if _, err := os.Stat(n.dirs.Onboarding()); !os.IsNotExist(err) {
			return fmt.Errorf("the onboarding package is there: %w", err)
		}
		return nil
	})
	if status, out := o.do("POST", "/api/machines/"+o.device+"/updateDefinitions", `{"Comment":"a test"}`); status != 400 || !strings.Contains(string(out), "offboarded") {
		t.Errorf("an order to who has left: %d %s", status, out)
	}
	n.end(agent)
}

// plainServer writes a configuration of tinyproxy that listens on a port, which
// is all that is wanted of it.
func (n *isolated) plainServer(port string) string {
	n.t.Helper()
	path := filepath.Join(n.work, "plain.conf")
	n.write(path, "Port "+port+"\nListen "+gateway+"\nTimeout 60\nMaxClients 10\n")
	return path
}

// dialSoon connects within a short time from a namespace: dropped packets
// would keep it waiting for minutes.
func dialSoon(ns, address string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := dial(ns, address)
		done <- result{c, err}
	}()
	select {
	case r := <-done:
		return r.c, r.err
	case <-time.After(2 * time.Second):
		return nil, errors.New("no answer")
	}
}

func untar(b []byte) (map[string]string, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return nil, err
		}
		if slices.Contains([]string{"..", "/"}, h.Name) || strings.HasPrefix(h.Name, "/") {
			return nil, errors.New("hostile name " + h.Name)
		}
		out[h.Name] = string(data)
	}
}
