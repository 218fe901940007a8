package isolation

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/test/need"
)

// space is a network namespace.
type space struct {
	name string
	fd   int
}

func newSpace(t *testing.T, suffix string) space {
	t.Helper()
	s := space{name: fmt.Sprintf("bulwark-test-%d-%s", os.Getpid(), suffix)}
	command(t, "ip", "netns", "add", s.name)
	t.Cleanup(func() { command(t, "ip", "netns", "del", s.name) })
	fd, err := unix.Open("/var/run/netns/"+s.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	s.fd = fd
	s.ip(t, "link", "set", "lo", "up")
	return s
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (s space) ip(t *testing.T, args ...string) {
	t.Helper()
	command(t, "ip", append([]string{"-n", s.name}, args...)...)
}

// do runs f in the namespace; sockets made there stay there.
func (s space) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// echo serves TCP on an address until the test ends.
func (s space) echo(t *testing.T, address string) {
	t.Helper()
	var l net.Listener
	err := s.do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

// patience is for what must work; short for what must not.
const patience, short = 2 * time.Minute, 300 * time.Millisecond

func (s space) dial(from, to string, timeout time.Duration) (c net.Conn, err error) {
	err = s.do(func() error {
		d := net.Dialer{Timeout: timeout}
		if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		c, err = d.Dial("tcp", to)
		return err
	})
	return c, err
}

func talk(c net.Conn, timeout time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

func (s space) reaches(from, to string, timeout time.Duration) error {
	c, err := s.dial(from, to, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	return talk(c, timeout)
}

// TestIsolation isolates a network namespace from another and looks what passes.
func TestIsolation(t *testing.T) {
	need.Root(t)
	need.Command(t, "ip")
	nft := need.Command(t, "nft")
	host, world := newSpace(t, "host"), newSpace(t, "world")
	host.ip(t, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", world.name)
	addresses := map[space][]string{
		host:  {"10.77.0.1/24", "fd77::1/64"},
		world: {"10.77.0.2/24", "10.77.0.3/24", "10.77.0.4/24", "10.77.0.5/24", "fd77::2/64", "fd77::3/64"},
	}
	for s, list := range addresses {
		for _, a := range list {
			args := []string{"addr", "add", a, "dev", "eth0"}
			if strings.Contains(a, "::") {
				args = append(args, "nodad")
			}
			s.ip(t, args...)
		}
		s.ip(t, "link", "set", "eth0", "up")
	}
	const portal, portal6 = "10.77.0.2:443", "[fd77::2]:443"
	for _, a := range []string{portal, "10.77.0.2:80", "10.77.0.3:443", "10.77.0.3:53", "10.77.0.4:22", "10.77.0.4:23", "10.77.0.5:99", portal6, "[fd77::3]:443"} {
		world.echo(t, a)
	}
	host.echo(t, "10.77.0.1:8080")
	host.echo(t, "10.77.0.1:22")
	host.echo(t, "127.0.0.1:5000")

	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("# comment\nnameserver 10.77.0.3\nnameserver 127.0.0.53\nsearch x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	options := Options{
		Path: filepath.Join(dir, "isolation.json"), Channel: func() []string { return []string{"portal.example:https"} }, Resolvers: []string{resolv, filepath.Join(dir, "absent")},
		NetNS: host.fd, CheckEvery: 50 * time.Millisecond,
		Lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
			if name != "portal.example" {
				return nil, errors.New("no such name: " + name)
			}
			return []netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")}, nil
		},
	}
	m, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	if m.Status().Isolated || !errors.Is(m.Release("x"), ErrNotIsolated) || !errors.Is(m.ReleaseWithToken("x", "d"), ErrNotIsolated) {
		t.Fatal("isolated at first")
	}
	free := func(what string) {
		t.Helper()
		for _, a := range []string{portal, "10.77.0.2:80", "10.77.0.3:443", "10.77.0.4:23", portal6, "[fd77::3]:443"} {
			if err := host.reaches("", a, patience); err != nil {
				t.Errorf("%s: %s is not reached: %v", what, a, err)
			}
		}
		if err := world.reaches("", "10.77.0.1:8080", patience); err != nil {
			t.Errorf("%s: the host is not reached: %v", what, err)
		}
	}
	free("before")
	old, err := host.dial("", "10.77.0.3:443", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := talk(old, patience); err != nil {
		t.Fatal(err)
	}

	order := response.IsolateParameters{Order: "o1", Allow: []string{"10.77.0.4:22", "10.77.0.5"}, ReleaseKey: public}
	if err := m.Isolate(t.Context(), response.IsolateParameters{Order: "o0", Allow: []string{"everywhere"}}); err == nil || m.Status().Isolated {
		t.Fatal("a bad order was taken")
	}
	if err := m.Isolate(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	isolated := func(what string) {
		t.Helper()
		for _, a := range []string{portal, portal6, "10.77.0.3:53", "10.77.0.4:22", "10.77.0.5:99", "127.0.0.1:5000"} {
			if err := host.reaches("", a, patience); err != nil {
				t.Errorf("%s: %s is not reached: %v", what, a, err)
			}
		}
		var wg sync.WaitGroup
		for _, a := range []string{"10.77.0.2:80", "10.77.0.3:443", "10.77.0.4:23", "[fd77::3]:443"} {
			wg.Go(func() {
				if err := host.reaches("", a, short); err == nil {
					t.Errorf("%s: %s is reached", what, a)
				}
			})
		}
		wg.Go(func() {
			if err := world.reaches("10.77.0.2", "10.77.0.1:8080", short); err == nil {
				t.Errorf("%s: the host is reached", what)
			}
		})
		wg.Wait()
		if err := world.reaches("10.77.0.4", "10.77.0.1:22", patience); err != nil {
			t.Errorf("%s: the host is not reached by who may: %v", what, err)
		}
	}
	isolated("isolated")
	if err := talk(old, short); err == nil {
		t.Error("a connection of before goes on")
	}
	// Others than root do not get to the portal's address.
	err = host.do(func() error {
		c := exec.Command("timeout", "0.5", "bash", "-c", "exec 3<>/dev/tcp/10.77.0.2/443")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return c.Run()
	})
	if err == nil {
		t.Error("another user reached the portal")
	}

	// A firewall's reload removes everything; a restart of the host too.
	flush := func() {
		t.Helper()
		command(t, "ip", "netns", "exec", host.name, nft, "flush", "ruleset")
	}
	run := func(m *Manager) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := run(m)
	flush()
	waitFor(t, func() bool { return m.Status().Restored > 0 })
	command(t, "ip", "netns", "exec", host.name, nft, "flush", "chain", "inet", tableName, "output")
	waitFor(t, func() bool { return m.Status().Restored > 1 })
	command(t, "ip", "netns", "exec", host.name, nft, "add", "rule", "inet", tableName, "output", "accept")
	waitFor(t, func() bool { return m.Status().Restored > 2 })
	isolated("after a reload")
	stop()
	flush()
	if m, err = Open(options); err != nil || m.Status().State.Order != "o1" {
		t.Fatal(err, m)
	}
	stop = run(m)
	waitFor(t, func() bool { ok, err := m.fw.present(); return ok && err == nil })
	isolated("after a restart")
	defer stop()

	others, err := response.SignRelease(private, "other", "o1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ReleaseWithToken(others, "device"); err == nil || !m.Status().Isolated {
		t.Fatal("another device's token was taken")
	}
	token, err := response.SignRelease(private, "device", "o1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ReleaseWithToken(token, "device"); err != nil {
		t.Fatal(err)
	}
	free("released")
	if m, err = Open(options); err != nil || m.Status().Isolated {
		t.Error("isolated again after a restart", err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

// TestDamagedState keeps a host cut off whose file is damaged.
func TestDamagedState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "isolation.json")
	if err := os.WriteFile(path, []byte(`{"order":`), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Open(Options{Path: path, Channel: func() []string { return nil }})
	if err != nil || !m.Status().Isolated {
		t.Fatal(err)
	}
	if err := m.ReleaseWithToken("x", "d"); err == nil {
		t.Error("released by nothing")
	}
}
