package indicator

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

func TestRanges(t *testing.T) {
	now := time.Now()
	s := NewSet(now, list(t,
		api.Indicator{Type: api.IPNetwork, Value: "192.0.2.0/25"},
		api.Indicator{Type: api.IPNetwork, Value: "192.0.2.128/25"},
		api.Indicator{Type: api.IPAddress, Value: "192.0.2.9", Action: api.Allow},
		api.Indicator{Type: api.IPAddress, Value: "198.51.100.1"},
		api.Indicator{Type: api.IPAddress, Value: "198.51.100.2"},
		api.Indicator{Type: api.IPAddress, Value: "198.51.100.9", Action: api.Warn},
		api.Indicator{Type: api.IPAddress, Value: "198.51.100.11", Action: api.Audit},
		api.Indicator{Type: api.IPNetwork, Value: "127.0.0.0/4"},
		api.Indicator{Type: api.IPNetwork, Value: "255.255.255.0/24"},
		api.Indicator{Type: api.IPNetwork, Value: "2001:db8::/32"},
	))
	text := func(warn bool) string {
		var out []string
		for _, r := range s.blocked(now, warn) {
			out = append(out, r.from.String()+"-"+r.to.String())
		}
		return strings.Join(out, " ")
	}
	const want = "112.0.0.0-126.255.255.255 192.0.2.0-192.0.2.8 192.0.2.10-192.0.2.255 198.51.100.1-198.51.100.2 255.255.255.0-255.255.255.255 2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
	if got := text(false); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got := text(true); !strings.Contains(got, "198.51.100.9-198.51.100.9") || strings.Contains(got, "198.51.100.11-") {
		t.Error(got)
	}
}

// namespace makes a network namespace for the test, with its loopback up, and
// keeps the test's thread in it.
func namespace(t *testing.T) int {
	t.Helper()
	need.Root(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		need.Missing(t, "network namespaces: %v", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
	// Addresses of the documentation's networks, on the loopback.
	for n, a := range []string{"192.0.2.1", "198.51.100.1"} {
		ifr, err := unix.NewIfreq([]string{"lo:1", "lo:2"}[n])
		if err != nil {
			t.Fatal(err)
		}
		if err := ifr.SetInet4Addr(netip.MustParseAddr(a).AsSlice()); err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlIfreq(s, unix.SIOCSIFADDR, ifr); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// reaches connects to a listener at the address, in the thread's namespace.
func reaches(t *testing.T, addr string) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	sa := &unix.SockaddrInet4{Addr: netip.MustParseAddr(addr).As4()}
	if err := unix.Bind(l, sa); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 1); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	// A dropped packet would be sent again for minutes.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 500); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		t.Fatal(err)
	}
	return unix.Connect(fd, bound) == nil
}

func TestNetworkEnforcement(t *testing.T) {
	fd := namespace(t)
	dir := t.TempDir()
	level, warn, exempt := Enforce, false, ""
	var alerts []event.Alert
	now := time.Now()
	m := New(Options{
		Local: filepath.Join(dir, "local.json"), Portal: filepath.Join(dir, "portal.json"), NetNS: fd,
		Enforcement: func() (string, bool) { return level, warn },
		Exempt:      func(program string) bool { return exempt != "" && program == exempt },
		Alert:       func(a event.Alert) { alerts = append(alerts, a) }, Now: func() time.Time { return now },
	})
	put := func(is ...api.Indicator) {
		t.Helper()
		data, err := json.Marshal(api.List{Version: "7", Indicators: list(t, is...).Indicators})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.SetPortal(data); err != nil {
			t.Fatal(err)
		}
		m.enforce(t.Context())
		if p := m.Problem(); p != "" {
			need.Missing(t, "nftables: %s", p)
		}
	}
	put(api.Indicator{Type: api.IPNetwork, Value: "192.0.2.0/24", Expires: now.Add(time.Hour)}, api.Indicator{Type: api.Domain, Value: "evil.example"})
	if m.Version() != "7" || m.Len() != 2 {
		t.Errorf("version %s, %d", m.Version(), m.Len())
	}
	if reaches(t, "192.0.2.1") || !reaches(t, "198.51.100.1") || !reaches(t, "127.0.0.1") {
		t.Error("blocked network is reached, or others are not")
	}
	// The addresses of a blocked name, once they are told.
	answer := event.Event{Class: event.ClassNetwork, Action: event.DNSResponse, Network: event.Network{RemoteURL: "www.evil.example"}, Additional: map[string]string{"Answers": "cdn.evil.example,198.51.100.1"}}
	m.See(&answer)
	if reaches(t, "198.51.100.1") {
		t.Error("the address of a blocked name is reached")
	}
	if len(alerts) != 1 || alerts[0].Action != "blocked" || alerts[0].Source != event.SourceIndicator {
		t.Errorf("%+v", alerts)
	}
	m.See(&answer)
	if len(alerts) != 1 {
		t.Error("reported twice within minutes")
	}
	// Audit reports and does not block; disabled does neither.
	level = AuditOnly
	m.enforce(t.Context())
	now = now.Add(repeat)
	m.See(&answer)
	if !reaches(t, "192.0.2.1") || len(alerts) != 2 || alerts[1].Action != "none" {
		t.Errorf("audit: %+v", alerts)
	}
	level = Disabled
	m.enforce(t.Context())
	now = now.Add(repeat)
	m.See(&answer)
	if !reaches(t, "192.0.2.1") || len(alerts) != 2 {
		t.Error("disabled")
	}
	// What has expired is released.
	level = Enforce
	m.enforce(t.Context())
	if reaches(t, "192.0.2.1") {
		t.Error("not blocked again")
	}
	now = now.Add(time.Hour)
	m.Reload()
	m.enforce(t.Context())
	if !reaches(t, "192.0.2.1") {
		t.Error("an expired indicator blocks")
	}
	// A program that is left alone is not reported; another is.
	exempt = "/usr/bin/ssh"
	before := len(alerts)
	quiet := answer
	quiet.Initiating.FolderPath, now = exempt, now.Add(repeat)
	m.See(&quiet)
	if len(alerts) != before {
		t.Errorf("an exempt program is reported: %+v", alerts[before:])
	}
	quiet.Initiating.FolderPath = "/usr/bin/curl"
	m.See(&quiet)
	if len(alerts) != before+1 {
		t.Errorf("%d alerts about another program, want 1", len(alerts)-before)
	}
	// Many entries, and the end: the filter is as before.
	put(many(5_000).Indicators...)
	put(api.Indicator{Type: api.IPNetwork, Value: "192.0.2.0/24"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !reaches(t, "192.0.2.1") {
		t.Error("blocked after the end")
	}
	if _, err := net.Interfaces(); err != nil {
		t.Fatal(err)
	}
}

func TestSignatures(t *testing.T) {
	dir := t.TempDir()
	reloads := 0
	m := New(Options{
		Local: filepath.Join(dir, "local.json"), Portal: filepath.Join(dir, "portal.json"), Signatures: filepath.Join(dir, "signatures"),
		Reload:      func(context.Context) error { reloads++; return nil },
		Enforcement: func() (string, bool) { return Disabled, false },
	})
	sum := func(c string, n int) string { return strings.Repeat(c, n) }
	data, err := json.Marshal(list(t,
		api.Indicator{Type: api.FileSHA256, Value: sum("a", 64)}, api.Indicator{Type: api.FileMD5, Value: sum("b", 32), Action: api.Remediate},
		api.Indicator{Type: api.FileSHA1, Value: sum("c", 40), Action: api.Allow}, api.Indicator{Type: api.FileSHA256, Value: sum("d", 64), Action: api.Audit}))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetPortal(data); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.signatures(t.Context(), m.set.Load()); err != nil {
			t.Fatal(err)
		}
	}
	if reloads != 1 {
		t.Errorf("%d reloads", reloads)
	}
	for name, want := range map[string]string{
		"blocked.hsb": sum("a", 64) + ":*:Bulwark.Indicator.aaaaaaaaaaaa:73\n", "blocked.hdb": sum("b", 32) + ":*:Bulwark.Indicator.bbbbbbbbbbbb:73\n",
		"allowed.sfp": sum("c", 40) + ":*:Bulwark.Indicator.cccccccccccc:73\n", "allowed.fp": "",
	} {
		got, _ := os.ReadFile(filepath.Join(dir, "signatures", name))
		if string(got) != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	// A rule blocks a hash: once, in the host's own list.
	for range 2 {
		if err := m.BlockHash(sum("e", 64), "Rule"); err != nil {
			t.Fatal(err)
		}
	}
	if m.Len() != 5 {
		t.Errorf("%d indicators", m.Len())
	}
	if err := m.SetPortal([]byte("{")); err == nil || m.Len() != 5 {
		t.Error("a broken list")
	}
	if !slices.ContainsFunc(m.set.Load().all, func(i api.Indicator) bool { return i.Title == "Rule" }) {
		t.Error("not in force")
	}
}
