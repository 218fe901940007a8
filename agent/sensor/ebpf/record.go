package ebpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
)

// The layout of struct record and struct conn of bpf/sensor.bpf.c.
const (
	flagArgsUnreadable = 1
	flagArgsCut        = 2
	flagPathCut        = 4
	flagUnlinked       = 8
	flagInterpreted    = 16

	recordSize = 192
	connSize   = 72
	maxRecord  = recordSize + 14336 + 16384
)

// Record is a decoded process record. Strings are valid UTF-8.
type Record struct {
	Kind, Flags         uint32
	Time                uint64 // CLOCK_MONOTONIC, ns
	Start, ParentStart  uint64 // CLOCK_BOOTTIME, ns
	PID, PPID           uint32
	UID, GID, EUID      uint32
	LoginUID, SessionID uint32
	ExitCode            uint32
	Inode, Size         uint64
	Dev, Mode           uint32
	MountNS, PIDNS      uint32
	ArgsTotal           uint32
	Comm, TTY           string
	Filename, Exe, Cwd  string // as given to exec; resolved; working directory
	Cgroup              string
	CapEffective        uint64
	NetNS, UserNS       uint32
	UTSNS, IPCNS        uint32
	CgroupNS            uint32
	SessionLeader       uint32
	Change              uint64 // ctime of the executable, ns; 0: not known
	CommandLine         string
}

// Conn is a decoded change of the state of a TCP socket.
type Conn struct {
	Kind          uint32
	Time, Start   uint64
	PID           uint32
	Old, New      uint16
	Protocol      uint16 // IPPROTO_*
	Family        uint16 // of a raw socket only
	Local, Remote netip.AddrPort
}

var errShort = errors.New("record is too short")

func kindOf(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// ParseRecord decodes an exec, fork or exit record.
func ParseRecord(b []byte) (Record, error) {
	var r Record
	if len(b) < recordSize {
		return r, fmt.Errorf("%d of %d bytes: %w", len(b), recordSize, errShort)
	}
	if len(b) > maxRecord+8 { // the perf buffer pads
		return r, fmt.Errorf("%d bytes, at most %d expected", len(b), maxRecord)
	}
	le := binary.LittleEndian
	r.Kind, r.Flags = le.Uint32(b), le.Uint32(b[4:])
	r.Time, r.Start, r.ParentStart = le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])
	for i, to := range []*uint32{&r.PID, &r.PPID, &r.UID, &r.GID, &r.EUID, &r.LoginUID, &r.SessionID, &r.ExitCode} {
		*to = le.Uint32(b[32+4*i:])
	}
	r.Inode, r.Size = le.Uint64(b[64:]), le.Uint64(b[72:])
	r.Dev, r.Mode, r.MountNS, r.PIDNS = le.Uint32(b[80:]), le.Uint32(b[84:]), le.Uint32(b[88:]), le.Uint32(b[92:])
	r.ArgsTotal = le.Uint32(b[96:])
	argsLen := int(le.Uint32(b[100:]))
	nFile, nExe, nCwd, nCgroup := int(le.Uint16(b[104:])), int(le.Uint16(b[106:])), int(le.Uint16(b[108:])), int(le.Uint16(b[110:]))
	r.Comm, r.TTY = cstring(b[112:128]), cstring(b[128:144])
	r.CapEffective = le.Uint64(b[144:])
	for i, to := range []*uint32{&r.NetNS, &r.UserNS, &r.UTSNS, &r.IPCNS, &r.CgroupNS, &r.SessionLeader} {
		*to = le.Uint32(b[160+4*i:])
	}
	r.Change = le.Uint64(b[184:])
	if r.Kind < kindExec || r.Kind > kindExit {
		return r, fmt.Errorf("kind %d is unknown", r.Kind)
	}
	if r.PID == 0 || r.PID > 1<<31-1 || r.PPID > 1<<31-1 {
		return r, fmt.Errorf("pid %d, parent %d: out of range", r.PID, r.PPID)
	}
	data := b[recordSize:]
	if argsLen < 0 || nFile+nExe+nCwd+nCgroup+argsLen > len(data) {
		return r, fmt.Errorf("sections of %d bytes in %d: %w", nFile+nExe+nCwd+nCgroup+argsLen, len(data), errShort)
	}
	take := func(n int) []byte {
		s := data[:n]
		data = data[n:]
		return s
	}
	r.Filename = cstring(take(nFile))
	r.Exe = joinPath(take(nExe), r.Flags&flagPathCut != 0)
	r.Cwd = joinPath(take(nCwd), false)
	r.Cgroup = joinPath(take(nCgroup), false)
	r.CommandLine = process.CommandLine(take(argsLen))
	return r, nil
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// joinPath makes a path of NUL-terminated components that are written from the
// last to the first.
func joinPath(b []byte, cut bool) string {
	b = bytes.TrimSuffix(b, []byte{0})
	if len(b) == 0 {
		return "/"
	}
	var s strings.Builder
	s.Grow(len(b) + 4)
	if cut {
		s.WriteString("...")
	}
	for more := true; more; {
		at := bytes.LastIndexByte(b, 0)
		s.WriteByte('/')
		s.Write(b[at+1:])
		if more = at >= 0; more {
			b = b[:at]
		}
	}
	return strings.ToValidUTF8(s.String(), "\uFFFD")
}

// image is the path and the base name of the executable.
func (r *Record) image() (string, string) {
	p := r.Exe
	if p == "/" || r.Flags&flagPathCut != 0 {
		p = r.Filename
	}
	return p, path.Base(p)
}

// imageFile identifies the executable's file.
func (r *Record) imageFile() process.Image {
	// The kernel's own form of a device number has 20 bits for the minor one.
	return process.Image{
		Inode: r.Inode, Device: unix.Mkdev(r.Dev>>20, r.Dev&0xfffff), Size: int64(r.Size), Change: int64(r.Change),
	}
}

// ParseConn decodes a socket record.
func ParseConn(b []byte) (Conn, error) {
	var c Conn
	if len(b) < connSize {
		return c, fmt.Errorf("%d of %d bytes: %w", len(b), connSize, errShort)
	}
	le := binary.LittleEndian
	c.Kind, c.Time, c.Start, c.PID = le.Uint32(b), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint32(b[24:])
	c.Old, c.New = le.Uint16(b[28:]), le.Uint16(b[30:])
	family := le.Uint16(b[32:])
	c.Protocol = le.Uint16(b[34:])
	if c.Kind != kindConn && c.Kind != kindNet || c.PID > 1<<31-1 {
		return c, fmt.Errorf("kind %d, pid %d: not a socket record", c.Kind, c.PID)
	}
	if c.New == stateRawSocket {
		c.Family = family
		return c, nil
	}
	var err error
	c.Local, c.Remote, err = ends(family, le.Uint16(b[36:]), le.Uint16(b[38:]), b[40:72])
	return c, err
}

// ends reads the addresses of the two ends of a connection.
func ends(family, lport, rport uint16, b []byte) (local, remote netip.AddrPort, err error) {
	var l, r netip.Addr
	switch family {
	case 2:
		l, r = netip.AddrFrom4([4]byte(b[:4])), netip.AddrFrom4([4]byte(b[16:20]))
	case 10:
		l, r = netip.AddrFrom16([16]byte(b[:16])).Unmap(), netip.AddrFrom16([16]byte(b[16:32])).Unmap()
	default:
		return local, remote, fmt.Errorf("address family %d is unknown", family)
	}
	return netip.AddrPortFrom(l, lport), netip.AddrPortFrom(r, rport), nil
}
