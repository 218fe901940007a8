package export

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// goodbyeTime is how long a receiver has to close a stream in its turn.
	goodbyeTime = 3 * time.Second
	// refusedTime is how long a host has to say that nobody listens on a UDP
	// port.
	refusedTime = 150 * time.Millisecond
)

// syslogSender sends a batch over a connection of its own.
type syslogSender struct {
	d      *Destination
	portal portal
	tls    *tls.Config
}

func (s *syslogSender) close() {}

func (s *syslogSender) send(ctx context.Context, list []Record) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	var err error
	if s.d.Transport == UDP {
		err = s.datagrams(ctx, list)
	} else {
		err = s.stream(ctx, list)
	}
	if err != nil {
		// What arrived of the batch cannot be known: all of it comes again.
		return 0, fmt.Errorf("%s: %w", s.d.Target(), err)
	}
	return len(list), nil
}

// bound ends what waits on the connection when ctx does.
func bound(ctx context.Context, c net.Conn) (stop func() bool) {
	if at, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(at) // fails on a closed connection only
	}
	return context.AfterFunc(ctx, func() { c.Close() })
}

func (s *syslogSender) datagrams(ctx context.Context, list []Record) error {
	c, err := dialer().DialContext(ctx, "udp", s.d.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	defer bound(ctx, c)()
	for i := range list {
		m, err := list[i].message(s.portal, s.d, maxMessage)
		if err != nil {
			return err
		}
		if _, err := c.Write(m); err != nil {
			return err
		}
	}
	// UDP acknowledges nothing, but a host where nobody listens says so.
	if err := c.SetReadDeadline(time.Now().Add(refusedTime)); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return ctx.Err()
}

// halfCloser is a connection whose end of sending can be told.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func (s *syslogSender) stream(ctx context.Context, list []Record) error {
	raw, err := dialer().DialContext(ctx, "tcp", s.d.Address)
	if err != nil {
		return err
	}
	defer raw.Close()
	defer bound(ctx, raw)()
	c, ok := raw.(halfCloser)
	if !ok {
		return fmt.Errorf("a connection of %T", raw)
	}
	if s.d.Transport == TLS {
		if c, err = handshake(ctx, raw, s.tls, s.d.Address); err != nil {
			return err
		}
	}
	for i := range list {
		m, err := list[i].message(s.portal, s.d, maxMessage)
		if err != nil {
			return err
		}
		if _, err := c.Write(frame(m)); err != nil {
			return err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	if err := goodbye(c, raw); err != nil {
		return err
	}
	return ctx.Err()
}

// handshake begins TLS on a connection to address, which it closes on failure.
func handshake(ctx context.Context, raw net.Conn, config *tls.Config, address string) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		raw.Close()
		return nil, err
	}
	config = config.Clone()
	config.ServerName = host
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return c, nil
}

// goodbye waits until the receiver has closed the stream, after which all that
// was sent was read. Syslog itself acknowledges nothing (RFC 6587 section 3.1
// warns of that): what a vanished receiver left in its buffers would be lost. For
// a receiver that keeps the stream open the acknowledgement of its kernel must do.
func goodbye(c, raw net.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(goodbyeTime)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, io.LimitReader(c, maxAnswer))
	switch {
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF): // the latter: closed without the end of TLS
		return nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the receiver broke the connection off: %w", err)
	}
	n, err := unacknowledged(raw)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("the receiver has not acknowledged the last %d bytes", n)
	}
	return nil
}

// unacknowledged is how many bytes the other side's kernel has not confirmed.
func unacknowledged(c net.Conn) (int, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("a connection of %T", c)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	n := 0
	if e := rc.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, fmt.Errorf("asking for what is unacknowledged: %w", err)
	}
	return n, nil
}
