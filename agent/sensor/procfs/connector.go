package procfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The process connector (include/uapi/linux/cn_proc.h, connector.h).
const (
	cnIdxProc, cnValProc = 1, 1
	mcastListen          = 1
	mcastIgnore          = 2

	procEventNone = 0
	procEventFork = 1
	procEventExec = 2
	procEventUID  = 4
	procEventExit = 0x80000000

	nlHeader = 16
	cnHeader = 20
	evHeader = 16 // what, cpu, timestamp_ns
)

// Message is one message of the process connector.
type Message struct {
	What     uint32
	CPU      uint32
	Seq      uint32 // grows by one per message of a CPU
	Time     uint64 // CLOCK_MONOTONIC, ns
	PID      int    // thread id: the child of a fork
	TGID     int
	ParentID int // tgid of the parent of a fork
	Code     uint32
}

var errMessage = errors.New("not a message of the process connector")

// ParseMessages decodes the netlink messages of one datagram, and calls f for
// each that is a process event.
func ParseMessages(b []byte, f func(Message)) error {
	ne := binary.NativeEndian
	for len(b) >= nlHeader {
		n := int(ne.Uint32(b))
		if n < nlHeader || n > len(b) {
			return fmt.Errorf("length %d of %d: %w", n, len(b), errMessage)
		}
		body := b[nlHeader:n]
		kind := ne.Uint16(b[4:])
		b = b[min((n+3)&^3, len(b)):]
		if kind == unix.NLMSG_NOOP || kind == unix.NLMSG_ERROR {
			continue
		}
		if len(body) < cnHeader+evHeader+8 {
			return fmt.Errorf("%d bytes: %w", len(body), errMessage)
		}
		if ne.Uint32(body) != cnIdxProc || ne.Uint32(body[4:]) != cnValProc {
			continue
		}
		m := Message{Seq: ne.Uint32(body[8:])}
		ev := body[cnHeader:]
		m.What, m.CPU, m.Time = ne.Uint32(ev), ne.Uint32(ev[4:]), ne.Uint64(ev[8:])
		d := ev[evHeader:]
		word := func(i int) uint32 {
			if len(d) < 4*i+4 {
				return 0
			}
			return ne.Uint32(d[4*i:])
		}
		switch m.What {
		case procEventFork: // parent_pid, parent_tgid, child_pid, child_tgid
			m.ParentID, m.PID, m.TGID = int(int32(word(1))), int(int32(word(2))), int(int32(word(3)))
		case procEventExit: // pid, tgid, exit_code, exit_signal
			m.PID, m.TGID, m.Code = int(int32(word(0))), int(int32(word(1))), word(2)
		case procEventNone: // the answer to our own request
			continue
		default: // pid, tgid, ...
			m.PID, m.TGID = int(int32(word(0))), int(int32(word(1)))
		}
		f(m)
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes left: %w", len(b), errMessage)
	}
	return nil
}

// connector is an open netlink socket that the kernel sends process events to.
type connector struct {
	file *os.File
	raw  int
}

// openConnector subscribes. It fails where the kernel has no CONFIG_PROC_EVENTS
// or we are not in the initial namespaces.
func openConnector() (*connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("process connector: socket: %w", err)
	}
	c := &connector{raw: fd, file: os.NewFile(uintptr(fd), "process connector")}
	fail := func(what string, err error) (*connector, error) {
		c.file.Close()
		return nil, fmt.Errorf("process connector: %s: %w", what, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}); err != nil {
		return fail("bind", err)
	}
	// Room for some 30,000 messages; without the privilege the limit holds.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	}
	if err := c.request(mcastListen); err != nil {
		return fail("subscribe", err)
	}
	// The kernel acknowledges at once if it will deliver.
	if err := c.acknowledged(); err != nil {
		return fail("subscribe", err)
	}
	return c, nil
}

func (c *connector) request(op uint32) error {
	ne := binary.NativeEndian
	b := make([]byte, nlHeader+cnHeader+4)
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], unix.NLMSG_DONE)
	ne.PutUint32(b[12:], uint32(os.Getpid()))
	ne.PutUint32(b[16:], cnIdxProc)
	ne.PutUint32(b[20:], cnValProc)
	ne.PutUint16(b[32:], 4)
	ne.PutUint32(b[36:], op)
	return unix.Sendto(c.raw, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// acknowledged waits for the first message of any kind.
func (c *connector) acknowledged() error {
	fds := []unix.PollFd{{Fd: int32(c.raw), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 1000)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errors.New("the kernel does not answer (no CONFIG_PROC_EVENTS, or not in the initial namespaces)")
		}
		return nil
	}
}

// read fills b with one datagram. It returns unix.ENOBUFS when the kernel had
// to drop messages.
func (c *connector) read(b []byte) (int, error) {
	for {
		rc, err := c.file.SyscallConn()
		if err != nil {
			return 0, err
		}
		var n int
		var rerr error
		var from unix.Sockaddr
		err = rc.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil {
			return 0, err
		}
		if errors.Is(rerr, unix.EINTR) {
			continue
		}
		if rerr != nil {
			return 0, rerr
		}
		// Anybody may send to a netlink socket; only the kernel has port 0.
		if nl, ok := from.(*unix.SockaddrNetlink); ok && nl.Pid == 0 {
			return n, nil
		}
	}
}

func (c *connector) close() {
	_ = c.request(mcastIgnore)
	c.file.Close()
}

func (c *connector) wake() { _ = c.file.SetReadDeadline(time.Unix(1, 0)) }
