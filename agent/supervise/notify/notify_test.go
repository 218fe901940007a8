package notify

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// listen plays the supervisor.
func listen(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, path
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestMessages(t *testing.T) {
	conn, path := listen(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "")
	n, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for _, tc := range []struct {
		send func() error
		want string
	}{
		{n.Ready, "READY=1"},
		{n.Alive, "WATCHDOG=1"},
		{n.Stopping, "STOPPING=1"},
		{func() error { return n.Status("two\nlines") }, "STATUS=two lines"},
	} {
		if err := tc.send(); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, conn); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
	if n.WatchdogTimeout() != 0 {
		t.Errorf("watchdog timeout %v without a watchdog", n.WatchdogTimeout())
	}
}

func TestKeepAliveStopsWhenNotAlive(t *testing.T) {
	conn, path := listen(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(30_000))
	t.Setenv("WATCHDOG_PID", "")
	n, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var stuck atomic.Bool
	failed := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.KeepAlive(ctx, func() error {
			if stuck.Load() {
				return errors.New("stuck")
			}
			return nil
		}, func(err error) {
			select {
			case failed <- err:
			default:
			}
		})
	}()
	for range 3 {
		if got := receive(t, conn); got != "WATCHDOG=1" {
			t.Fatalf("got %q", got)
		}
	}
	stuck.Store(true)
	if err := <-failed; err.Error() != "stuck" {
		t.Fatalf("got %v", err)
	}
	// Whatever was under way has arrived; from now on there must be silence.
	if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	late := 0
	for {
		if _, err := conn.Read(make([]byte, 64)); err != nil {
			break
		}
		late++
	}
	if late > 1 {
		t.Errorf("the watchdog was fed %d times by a stuck process", late)
	}
	cancel()
	<-done
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if n.Supervised() {
		t.Error("supervised without NOTIFY_SOCKET")
	}
	if err := errors.Join(n.Ready(), n.Alive(), n.Stopping(), n.Status("x"), n.Close()); err != nil {
		t.Error(err)
	}
	n.KeepAlive(context.Background(), func() error { return nil }, nil) // returns at once

	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "absent"))
	if _, err := FromEnv(); err == nil {
		t.Error("a supervisor that is not there is no error")
	}
}

func TestWatchdogTimeout(t *testing.T) {
	for _, tc := range []struct {
		usec, pid string
		want      time.Duration
		wrong     bool
	}{
		{"", "", 0, false},
		{"20000000", "", 20 * time.Second, false},
		{"20000000", "17", 20 * time.Second, false},
		{"20000000", "18", 0, false},
		{"0", "", 0, true},
		{"-5", "", 0, true},
		{"many", "", 0, true},
		{"9223372036854775807", "", 0, true},
	} {
		got, err := watchdogTimeout(tc.usec, tc.pid, 17)
		if got != tc.want || (err != nil) != tc.wrong {
			t.Errorf("watchdogTimeout(%q, %q) = %v, %v", tc.usec, tc.pid, got, err)
		}
	}
}
