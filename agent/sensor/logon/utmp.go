package logon

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"strings"
	"time"
)

// Types of records (utmp(5)).
const (
	utmpUser = 7
	utmpDead = 8
)

// Utmp is a record of wtmp or btmp.
type Utmp struct {
	Type int16
	PID  int32
	Line string // terminal without /dev/
	User string
	Host string
	Time time.Time
	Addr netip.Addr // invalid when there is none
}

// UtmpSize is the size of a record of the C library of an architecture in
// bytes (struct utmp; 64-bit time only where no 32-bit programs share the file).
func UtmpSize(arch string) int {
	if arch == "arm64" {
		return 400
	}
	return 384
}

// ParseUtmp reads a record of UtmpSize(arch) bytes; false when b is shorter.
func ParseUtmp(b []byte, arch string) (Utmp, bool) {
	if len(b) < UtmpSize(arch) {
		return Utmp{}, false
	}
	text := func(from, n int) string {
		s, _, _ := bytes.Cut(b[from:from+n], []byte{0})
		return strings.ToValidUTF8(string(s), "\uFFFD")
	}
	u := Utmp{
		Type: int16(binary.NativeEndian.Uint16(b)), PID: int32(binary.NativeEndian.Uint32(b[4:])),
		Line: text(8, 32), User: text(44, 32), Host: text(76, 256),
	}
	var sec, usec int64
	at := 348
	if arch == "arm64" {
		sec, usec, at = int64(binary.NativeEndian.Uint64(b[344:])), int64(binary.NativeEndian.Uint64(b[352:])), 360
	} else {
		sec, usec = int64(binary.NativeEndian.Uint32(b[340:])), int64(binary.NativeEndian.Uint32(b[344:]))
	}
	if sec < 0 || sec > 1<<40 || usec < 0 || usec >= 1e6 {
		sec, usec = 0, 0
	}
	u.Time = time.Unix(sec, usec*1000).UTC()
	addr := b[at : at+16]
	switch {
	case bytes.Equal(addr, make([]byte, 16)):
	case bytes.Equal(addr[4:], make([]byte, 12)):
		u.Addr = netip.AddrFrom4([4]byte(addr[:4]))
	default:
		u.Addr = netip.AddrFrom16([16]byte(addr)).Unmap()
	}
	return u, true
}

// utmpSize is that of this machine.
func utmpSize() int { return UtmpSize(runtime.GOARCH) }
