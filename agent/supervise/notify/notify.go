// Package notify tells whoever supervises the process (systemd, or
// `bulwarkd supervise`) how it is: started, stopping, alive. It speaks the
// datagram protocol of sd_notify(3).
package notify

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Notifier is a connection to the supervisor. The zero value and nil are a
// process that nobody supervises: everything succeeds and does nothing. Its
// methods may be called from several goroutines.
type Notifier struct {
	conn    *net.UnixConn
	timeout time.Duration
}

// writeTimeout bounds a message to a supervisor that no longer reads.
const writeTimeout = time.Second

// FromEnv connects to the supervisor named in NOTIFY_SOCKET. The connection is
// made now and kept, so that later messages open no file: the process that
// answers for file accesses may not depend on one.
func FromEnv() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return &Notifier{}, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("connect to the supervisor named in NOTIFY_SOCKET: %w", err)
	}
	timeout, err := watchdogTimeout(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"), os.Getpid())
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &Notifier{conn: conn, timeout: timeout}, nil
}

// watchdogTimeout reads the watchdog's settings; 0 means that there is none, or
// that it concerns another process.
func watchdogTimeout(usec, forPID string, self int) (time.Duration, error) {
	if usec == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(24*time.Hour/time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC=%q: want microseconds up to one day", usec)
	}
	if forPID != "" && forPID != strconv.Itoa(self) {
		return 0, nil
	}
	return time.Duration(n) * time.Microsecond, nil
}

// Supervised says whether anybody listens.
func (n *Notifier) Supervised() bool { return n != nil && n.conn != nil }

// WatchdogTimeout is the time within which [Notifier.Alive] must be called
// again; 0 when there is no watchdog.
func (n *Notifier) WatchdogTimeout() time.Duration {
	if n == nil {
		return 0
	}
	return n.timeout
}

// Ready reports that the start is complete.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Stopping reports that the process has begun to shut down.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Alive feeds the watchdog.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// Status sets the one line that `systemctl status` shows.
func (n *Notifier) Status(text string) error {
	return n.send("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

// Close ends the connection.
func (n *Notifier) Close() error {
	if !n.Supervised() {
		return nil
	}
	return n.conn.Close()
}

// KeepAlive feeds the watchdog until ctx ends, as long as alive returns nil. It
// asks three times per timeout. When alive returns an error the watchdog is not
// fed, so that a process which is stuck is killed and started again; failed is
// told (it may be nil).
func (n *Notifier) KeepAlive(ctx context.Context, alive func() error, failed func(error)) {
	if n.WatchdogTimeout() == 0 {
		return
	}
	tick := time.NewTicker(n.timeout / 3)
	defer tick.Stop()
	for {
		err := alive()
		if err == nil {
			err = n.Alive()
		}
		if err != nil && failed != nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *Notifier) send(message string) error {
	if !n.Supervised() {
		return nil
	}
	if err := n.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	if _, err := n.conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("notify the supervisor of %s: %w", message, err)
	}
	return nil
}
