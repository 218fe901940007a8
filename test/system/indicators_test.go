//go:build system

package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// Addresses of the world that indicators are about: one by its number, one by
// its name, one that is left alone.
const (
	blockedHost = "10.77.3.1"
	namedHost   = "10.77.3.2"
	freeHost    = "10.77.3.3"
	badName     = "evil.bulwark.example"
)

// within runs f on a thread in a network namespace.
func within(ns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// nameServer answers every query in the world with namedHost, and takes
// connections to port 80 of every address there.
func (n *isolated) nameServer() {
	n.t.Helper()
	n.sh(n.world, "ip addr add "+blockedHost+"/32 dev lo; ip addr add "+namedHost+"/32 dev lo; ip addr add "+freeHost+"/32 dev lo")
	var packets net.PacketConn
	var listener net.Listener
	err := within(n.world, func() (err error) {
		if packets, err = net.ListenPacket("udp4", gateway+":53"); err != nil {
			return err
		}
		listener, err = net.Listen("tcp4", ":80")
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { packets.Close(); listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 512)
		for {
			k, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:k]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 60},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(namedHost).To4())},
			}}
			if out, err := m.Pack(); err == nil {
				_, _ = packets.WriteTo(out, from)
			}
		}
	}()
}

// resolve asks for a name from the host's network.
func (n *isolated) resolve(name string) error {
	return within(n.host, func() error {
		c, err := net.Dial("udp4", gateway+":53")
		if err != nil {
			return err
		}
		defer c.Close()
		q := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		out, err := q.Pack()
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(out); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 512))
		return err
	})
}

// reaches connects from the host's network.
func (n *isolated) reaches(host string) error {
	c, err := dial(n.host, host+":80")
	if err != nil {
		return err
	}
	return c.Close()
}

// TestIndicators makes indicators in a real portal and looks what a real host
// does with a file, an address and a name; then it takes them away again.
func TestIndicators(t *testing.T) {
	n := isolate(t)
	n.write(n.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "real_time"}, "networkProtection": {"enforcementLevel": "block"}}`)
	n.sh(n.world, "nft flush ruleset")
	n.nameServer()
	n.start("portal", n.world, nil, filepath.Join(n.bin, "bulwark-portal"), "serve", "--listen", portalHost+":"+portalPort, "--data-dir", n.portalData,
		"--host-name", portalHost, "--definitions-interval", "0", "--check-in-interval", "2s")
	n.listening(n.world, portalHost+":"+portalPort)
	n.portalCommand("onboarding", "create", "--portal-url", "https://"+portalHost+":"+portalPort, "--out", n.dirs.Onboarding())
	n.start("agent", n.host, nil, filepath.Join(n.bin, "bulwarkd"), "run", "--root", n.root, "--only-mounts", n.watch)
	n.until("the agent is connected", func() error {
		if r := n.product.run("health", "--field", "portal_status"); !strings.Contains(r.stdout, "connected") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	o := &orders{rest: n.rest()}
	o.token = strings.TrimSpace(n.portalCommand("token", "create", "--name", "feed", "--scope", "Ti.ReadWrite.All,Alert.Read.All"))

	// A harmless program with content of its own.
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, fmt.Sprintf("unlike any other %d", time.Now().UnixNano())...)
	program := filepath.Join(n.watch, "harmless")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	runs := func() error { return exec.Command(program).Run() }
	// Another one, which is blocked by where it is.
	placed, elsewhere := filepath.Join(n.watch, "placed", "program"), filepath.Join(n.watch, "elsewhere")
	if err := errors.Join(os.MkdirAll(filepath.Dir(placed), 0o755), os.WriteFile(placed, append(data, "placed"...), 0o755)); err != nil {
		t.Fatal(err)
	}
	runsPlaced := func() error { return exec.Command(placed).Run() }
	if err := errors.Join(runs(), runsPlaced(), n.reaches(blockedHost), n.reaches(namedHost), n.reaches(freeHost)); err != nil {
		t.Fatalf("before there are indicators: %v", err)
	}

	ids := map[string]string{}
	for _, i := range []struct{ kind, value, title string }{
		{"FileSha256", sha256Hex(data), "Program of the test"},
		{"IpAddress", blockedHost, "Address of the test"},
		{"DomainName", "bulwark.example", "Name of the test"},
		{"FilePath", filepath.Join(n.watch, "placed", "*"), "Place of the test"},
	} {
		status, out := o.do("POST", "/api/indicators", fmt.Sprintf(`{"indicatorType":%q,"indicatorValue":%q,"action":"Block","title":%q,"description":"d","severity":"High"}`, i.kind, i.value, i.title))
		var made struct{ ID string }
		if err := json.Unmarshal(out, &made); err != nil || status != http.StatusOK {
			t.Fatalf("make the indicator: %d %s", status, out)
		}
		ids[i.title] = made.ID
	}
	blocked := func(what string, try func() error, reason string) {
		t.Helper()
		n.until(what+" is blocked", func() error {
			err := try()
			if err == nil {
				return errors.New("it works")
			}
			if !strings.Contains(err.Error(), reason) {
				return fmt.Errorf("another reason: %w", err)
			}
			return nil
		})
	}
	blocked("the program", runs, "operation not permitted")
	blocked("the program at a place", runsPlaced, "operation not permitted")
	// What was clean elsewhere is blocked there, and what was blocked there is not elsewhere.
	if err := errors.Join(os.Rename(placed, elsewhere), exec.Command(elsewhere).Run(), os.Rename(elsewhere, placed)); err != nil {
		t.Errorf("at another place: %v", err)
	}
	blocked("the program when it is back", runsPlaced, "operation not permitted")
	if _, err := os.ReadFile(placed); !errors.Is(err, unix.EPERM) {
		t.Errorf("it is read: %v", err)
	}
	// Nor does one name of a file decide about another one: both orders.
	for _, names := range [][2]string{{elsewhere, placed}, {placed, elsewhere}} {
		os.Remove(elsewhere)
		if err := os.Link(placed, elsewhere); err != nil { // a new time of change: nothing is known
			t.Fatal(err)
		}
		for range 2 {
			for _, name := range names {
				_, err := os.ReadFile(name)
				if refused := errors.Is(err, unix.EPERM); refused != (name == placed) || err != nil && !refused {
					t.Errorf("%s of %v: %v", name, names, err)
				}
			}
		}
	}
	blocked("the address", func() error { return n.reaches(blockedHost) }, "connect")
	blocked("the name", func() error {
		_ = n.resolve(badName) // the host learns the address; asked again if this fails
		return n.reaches(namedHost)
	}, "connect")
	if err := n.reaches(freeHost); err != nil {
		t.Errorf("an address that nobody blocks: %v", err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Errorf("Block took the file away: %v", err)
	}
	n.until("the alerts are in the portal", func() error {
		time.Sleep(time.Second) // there is a limit of requests in a minute
		_, out := o.do("GET", "/api/alerts?$filter=detectionSource%20eq%20%27CustomTI%27", "")
		var list struct {
			Value []struct{ Title, Severity, Action, DetectorID string }
		}
		if err := json.Unmarshal(out, &list); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		missing := map[string]bool{}
		for title := range ids {
			missing[title] = true
		}
		for _, a := range list.Value {
			if a.Severity == "High" && a.Action == "blocked" {
				delete(missing, a.Title)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("without %v: %s", missing, out)
		}
		return nil
	})

	// Taken away: everything is allowed again.
	for _, id := range ids {
		if status, out := o.do("DELETE", "/api/indicators/"+id, ""); status != http.StatusNoContent {
			t.Fatalf("delete: %d %s", status, out)
		}
	}
	n.until("the program runs again", runs)
	n.until("the program at its place runs again", runsPlaced)
	n.until("the address is reached again", func() error { return n.reaches(blockedHost) })
	n.until("the named address is reached again", func() error { return n.reaches(namedHost) })
}
