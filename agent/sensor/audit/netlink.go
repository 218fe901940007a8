package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Messages of the audit netlink protocol (linux/audit.h).
const (
	msgGet       = 1000
	msgSet       = 1001
	msgAddRule   = 1011
	msgDelRule   = 1012
	msgListRules = 1013

	statusEnabled         = 0x01
	statusPID             = 0x04
	statusBacklogLimit    = 0x10
	statusBacklogWaitTime = 0x20

	groupReadLog = 1 // AUDIT_NLGRP_READLOG

	// statusSize is the size of struct audit_status that we send: what kernels
	// before 3.14 lack is behind it.
	statusSize    = 40
	maxReply      = 64 << 10
	replyTimeout  = 3 * time.Second
	receiveBuffer = 8 << 20
	maxRules      = 10_000
)

// Status is the state of the kernel's audit (struct audit_status).
type Status struct {
	Enabled      uint32 // 0 off, 1 on, 2 on and its rules cannot be changed
	PID          uint32 // who the kernel sends to, usually auditd
	RateLimit    uint32
	BacklogLimit uint32
	Lost         uint32
	Backlog      uint32
	// BacklogWaitTime is how long others wait when the backlog is full, in
	// ticks; absent before Linux 3.14.
	BacklogWaitTime uint32
}

// control is a netlink socket for questions and commands. It is safe for use by
// many goroutines; each command waits for its answer.
type control struct {
	mu  sync.Mutex
	fd  int
	seq uint32
}

func openControl() (*control, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, fmt.Errorf("netlink socket of the kernel's audit: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket of the kernel's audit: bind: %w", err)
	}
	tv := unix.NsecToTimeval(int64(replyTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket of the kernel's audit: %w", err)
	}
	return &control{fd: fd}, nil
}

func (c *control) close() { unix.Close(c.fd) }

// ParseMessages splits what was received. Of a damaged buffer it gives what
// stands before the damage. The length in the header of audit's records is, on
// some kernels, that of the data alone; each datagram is one record, so of the
// last message all that is there is taken.
func ParseMessages(b []byte, each func(kind uint16, seq uint32, data []byte)) {
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		seq := binary.NativeEndian.Uint32(b[8:])
		if kind >= uint16(typeUser) {
			each(kind, seq, b[unix.NLMSG_HDRLEN:])
			return
		}
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return
		}
		each(kind, seq, b[unix.NLMSG_HDRLEN:length])
		b = b[min(len(b), (length+3)&^3):]
	}
}

// ask sends a command and gives the replies of its type, until the
// acknowledgement (or the end of a list).
func (c *control) ask(kind uint16, payload []byte, each func(kind uint16, data []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, payload...)
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("audit: send command %d: %w", kind, err)
	}
	buf := make([]byte, maxReply)
	deadline := time.Now().Add(replyTimeout)
	// The acknowledgement comes before or after the data: a thread of the kernel
	// sends those.
	acked, finished := false, kind != msgGet && kind != msgListRules
	for time.Now().Before(deadline) {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("audit: answer to command %d: %w", kind, err)
		}
		var failure error
		ParseMessages(buf[:n], func(k uint16, seq uint32, data []byte) {
			switch {
			case seq != c.seq: // of an earlier command that was given up
			case k == unix.NLMSG_ERROR && len(data) < 4:
				failure = fmt.Errorf("audit: answer to command %d: %w", kind, unix.EBADMSG)
			case k == unix.NLMSG_ERROR:
				if e := int32(binary.NativeEndian.Uint32(data)); e != 0 {
					failure = fmt.Errorf("audit: command %d: %w", kind, unix.Errno(-e))
				}
				acked = true
			case k == unix.NLMSG_DONE:
				finished = true
			default:
				if each != nil {
					each(k, data)
				}
				finished = finished || kind == msgGet
			}
		})
		if failure != nil {
			return failure
		}
		if acked && finished {
			return nil
		}
	}
	return fmt.Errorf("audit: command %d: no answer in %s", kind, replyTimeout)
}

// status asks for the state of the kernel's audit.
func (c *control) status() (Status, error) {
	var s Status
	got := false
	err := c.ask(msgGet, nil, func(k uint16, b []byte) {
		if k != msgGet || len(b) < 32 {
			return
		}
		u := func(i int) uint32 {
			if len(b) < 4*i+4 {
				return 0
			}
			return binary.NativeEndian.Uint32(b[4*i:])
		}
		s = Status{Enabled: u(1), PID: u(3), RateLimit: u(4), BacklogLimit: u(5), Lost: u(6), Backlog: u(7), BacklogWaitTime: u(9)}
		got = true
	})
	if err == nil && !got {
		err = errors.New("audit: the kernel does not tell its state")
	}
	return s, err
}

// set changes the members of the state that mask names.
func (c *control) set(mask uint32, s Status) error {
	b := make([]byte, statusSize)
	for i, v := range map[int]uint32{0: mask, 1: s.Enabled, 3: s.PID, 5: s.BacklogLimit, 9: s.BacklogWaitTime} {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	return c.ask(msgSet, b, nil)
}

// rules lists the rules that the kernel has, in their binary form.
func (c *control) rules() ([][]byte, error) {
	var out [][]byte
	err := c.ask(msgListRules, nil, func(k uint16, b []byte) {
		if k == msgListRules && len(out) < maxRules {
			out = append(out, append([]byte(nil), b...))
		}
	})
	return out, err
}

func (c *control) addRule(rule []byte) error    { return c.ask(msgAddRule, rule, nil) }
func (c *control) deleteRule(rule []byte) error { return c.ask(msgDelRule, rule, nil) }

// reader is a netlink socket for records: of the multicast group (Linux 3.16),
// or the one that the kernel sends to (own).
type reader struct{ fd *os.File }

func openReader(multicast bool) (*reader, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, fmt.Errorf("netlink socket of the kernel's audit: %w", err)
	}
	var groups uint32
	if multicast {
		groups = 1 << (groupReadLog - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink group of the kernel's audit (needs CAP_AUDIT_READ and Linux 3.16): %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	return &reader{fd: os.NewFile(uintptr(fd), "audit")}, nil
}

func (r *reader) close() { r.fd.Close() }

// read waits for the next datagram.
func (r *reader) read(buf []byte) (int, error) { return r.fd.Read(buf) }

// own asks the kernel to send to this socket. The command must come from it.
func (r *reader) own(pid uint32) error {
	raw, err := r.fd.SyscallConn()
	if err != nil {
		return err
	}
	payload := make([]byte, statusSize)
	binary.NativeEndian.PutUint32(payload, statusPID)
	binary.NativeEndian.PutUint32(payload[12:], pid)
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, msgSet)
	// The acknowledgement comes among the records, where it is skipped; whether
	// it worked is seen in the status.
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, payload...)
	var sent error
	if err := raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return true
	}); err != nil {
		return err
	}
	return sent
}
