package supervise

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// message is what the program says about itself in one datagram.
type message struct {
	pid      int // sender, as the kernel vouches for it
	ready    bool
	stopping bool
	alive    bool
	status   string // "" when not mentioned
}

// maxMessage is the longest datagram that is read; the rest of a longer one is
// cut off by the kernel.
const maxMessage = 4096

// parseMessage reads the lines of an sd_notify(3) datagram. Lines of no concern
// here are passed over, as the protocol asks for.
func parseMessage(b []byte) message {
	var m message
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		switch key, value, _ := strings.Cut(line, "="); key {
		case "READY":
			m.ready = m.ready || value == "1"
		case "STOPPING":
			m.stopping = m.stopping || value == "1"
		case "WATCHDOG":
			m.alive = m.alive || value == "1"
		case "STATUS":
			m.status = value
		}
	}
	return m
}

// notifySocket receives the program's messages.
type notifySocket struct {
	path string
	conn *net.UnixConn
}

// openNotifySocket listens on path, which belongs to the holder of the pid
// file. Only uid may send: a socket that everybody can fill would let every user
// starve the watchdog and so have the program killed.
func openNotifySocket(path string, uid int) (*notifySocket, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale notification socket: %w", err)
	}
	old := unix.Umask(0o177)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("notification socket: %w", err)
	}
	s := &notifySocket{path: path, conn: conn}
	if err := s.setUp(uid); err != nil {
		_ = s.close()
		return nil, fmt.Errorf("notification socket %s: %w", path, err)
	}
	return s, nil
}

func (s *notifySocket) setUp(uid int) error {
	if uid != os.Geteuid() {
		if err := os.Chown(s.path, uid, -1); err != nil {
			return err
		}
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	return errors.Join(err, optErr)
}

// receive passes on messages until the socket is closed.
func (s *notifySocket) receive(out chan<- message, done <-chan struct{}) {
	buf := make([]byte, maxMessage)
	// Room for the credentials only, so that descriptors somebody sends along
	// are dropped by the kernel.
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		m := parseMessage(buf[:n])
		m.pid = sender(oob[:oobn])
		select {
		case out <- m:
		case <-done:
			return
		}
	}
}

// sender is the process id in the kernel's credentials message, 0 without one.
func sender(oob []byte) int {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range messages {
		if cred, err := syscall.ParseUnixCredentials(&messages[i]); err == nil {
			return int(cred.Pid)
		}
	}
	return 0
}

// close ends receive and removes the socket.
func (s *notifySocket) close() error {
	err := s.conn.Close()
	if removeErr := os.Remove(s.path); err == nil {
		err = removeErr
	}
	return err
}
