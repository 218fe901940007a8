package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Bounds on connections: the rest is kept for administrators, so that nobody
// can lock them out.
const (
	maxConnections     = 256
	maxUserConnections = 192
	maxLeaving         = 32
)

// Caller is who calls, as the kernel says.
type Caller struct {
	UID, GID uint32
	PID      int32
	// Groups are the supplementary groups; nil when the kernel does not tell
	// (before 4.13).
	Groups []uint32
	known  bool
}

// Known reports whether the kernel told who it is.
func (c Caller) Known() bool { return c.known }

// Administrator reports whether the caller may make changes: root, and members
// of the group api.Group.
func (c Caller) Administrator() bool { return adminCheck{group: api.Group}.allowed(c) }

type callerKey struct{}

// CallerFrom returns the caller of a request by its context. Of a context that
// is none of a request it returns a caller without rights.
func CallerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// AsRoot returns a context for the daemon's own use of what the API asks for:
// nothing is withheld.
func AsRoot(ctx context.Context) context.Context {
	return context.WithValue(ctx, callerKey{}, Caller{known: true})
}

// As returns a context of calls of a user without groups.
func As(ctx context.Context, uid uint32) context.Context {
	return context.WithValue(ctx, callerKey{}, Caller{UID: uid, GID: uid, Groups: []uint32{}, known: true})
}

func withCaller(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.(*peerConn); ok {
		return context.WithValue(ctx, callerKey{}, p.caller)
	}
	return ctx
}

// Listen makes the socket at path, usable by everybody, replacing one that
// nobody listens on any more.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("folder of the control socket: %w", err)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", err)
	case info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("control socket %s: something else is there; remove it", path)
	default:
		var probe net.Dialer
		if c, err := probe.DialContext(context.Background(), "unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("control socket %s: another daemon answers there; stop it first", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &peerListener{UnixListener: l}, nil
}

// peerListener accepts connections with the identity of their peer.
type peerListener struct {
	*net.UnixListener
	mu    sync.Mutex
	total int
	// leaving counts clients that are being turned away.
	leaving atomic.Int32
}

// busyAnswer is what a client reads when there are too many.
const busyAnswer = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" +
	`{"error":{"code":"busy","message":"too many programs are using the daemon's local API","hint":"try again in a moment"}}` + "\n"

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		caller, err := peerOf(c)
		if err != nil {
			c.Close() // gone already, or not a peer that the kernel can name
			continue
		}
		l.mu.Lock()
		limit := maxUserConnections
		if caller.UID == 0 {
			limit = maxConnections
		}
		full := l.total >= limit
		if !full {
			l.total++
		}
		l.mu.Unlock()
		if full {
			l.turnAway(c)
			continue
		}
		return &peerConn{UnixConn: c, caller: caller, closed: func() {
			l.mu.Lock()
			l.total--
			l.mu.Unlock()
		}}, nil
	}
}

// turnAway says that there are too many clients. The request is read first, in
// a goroutine: a connection that is closed with something unread loses the
// answer. When too many are being turned away they get none.
func (l *peerListener) turnAway(c *net.UnixConn) {
	if l.leaving.Add(1) > maxLeaving {
		l.leaving.Add(-1)
		c.Close()
		return
	}
	go func() {
		defer l.leaving.Add(-1)
		defer c.Close()
		if c.SetDeadline(time.Now().Add(time.Second)) != nil {
			return
		}
		if _, err := io.WriteString(c, busyAnswer); err != nil || c.CloseWrite() != nil {
			return
		}
		io.Copy(io.Discard, io.LimitReader(c, 64<<10)) //nolint:errcheck // only to see the client off
	}()
}

type peerConn struct {
	*net.UnixConn
	caller Caller
	once   sync.Once
	closed func()
}

func (c *peerConn) Close() error {
	c.once.Do(c.closed)
	return c.UnixConn.Close()
}

func peerOf(c *net.UnixConn) (Caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{}, fmt.Errorf("peer credentials: %w", err)
	}
	var caller Caller
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			credErr = err
			return
		}
		caller = Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Groups: peerGroups(fd), known: true}
	})
	if err := errors.Join(err, credErr); err != nil {
		return Caller{}, fmt.Errorf("peer credentials: %w", err)
	}
	return caller, nil
}

// peerGroups asks for the supplementary groups of the peer (SO_PEERGROUPS,
// Linux 4.13); nil when the kernel does not tell.
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == syscall.ERANGE && int(size/4) > len(groups) && size/4 <= 65536: // NGROUPS_MAX
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil
		default:
			return groups[:size/4]
		}
	}
}

// adminCheck decides who may make changes.
type adminCheck struct {
	group string
}

func (a adminCheck) allowed(c Caller) bool {
	if !c.known {
		return false
	}
	if c.UID == 0 {
		return true
	}
	g, err := user.LookupGroup(a.group)
	if err != nil {
		return false // no such group on this host
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		return false
	}
	if c.GID == uint32(gid) || slices.Contains(c.Groups, uint32(gid)) {
		return true
	}
	if c.Groups != nil {
		return false
	}
	// The kernel did not tell the groups: ask the account database.
	u, err := user.LookupId(strconv.FormatUint(uint64(c.UID), 10))
	if err != nil {
		return false
	}
	ids, err := u.GroupIds()
	return err == nil && slices.Contains(ids, g.Gid)
}
