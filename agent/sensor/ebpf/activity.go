package ebpf

import (
	"encoding/binary"
	"fmt"
	"path"
	"strings"
)

// The layout of struct act of bpf/activity.h.
const (
	actSize   = 192
	maxAct    = actSize + 14336 + 16384
	modeType  = 0o170000
	modeBlock = 0o060000
)

// Activity is a decoded record of what a system call did. Strings are valid
// UTF-8; paths are absolute, or as far as they could be told.
type Activity struct {
	Kind, Flags     uint32
	Time, Start     uint64 // CLOCK_MONOTONIC and CLOCK_BOOTTIME, ns
	PID, TID, Op    uint32
	Ret             int64
	Arg             [3]uint64
	Inode, Size     uint64
	Dev, Rdev, Mode uint32
	PIDNS           uint32
	UID, EUID, GID  uint32
	Target          uint32 // pid in the initial namespace
	CapEffective    uint64
	CapPermitted    uint64
	Comm            string
	// Path is the file that was really meant, A and B are the call's own
	// strings, made absolute where they are paths. Third is a third one.
	Path, A, B, Third string
}

// ParseActivity decodes a record of a system call.
func ParseActivity(b []byte) (Activity, error) {
	var a Activity
	if len(b) < actSize {
		return a, fmt.Errorf("%d of %d bytes: %w", len(b), actSize, errShort)
	}
	if len(b) > maxAct+8 { // the perf buffer pads
		return a, fmt.Errorf("%d bytes, at most %d expected", len(b), maxAct)
	}
	le := binary.LittleEndian
	a.Kind, a.Flags, a.Time, a.Start = le.Uint32(b), le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:])
	a.PID, a.Op, a.Ret = le.Uint32(b[24:]), le.Uint32(b[28:]), int64(le.Uint64(b[32:]))
	for i := range a.Arg {
		a.Arg[i] = le.Uint64(b[40+8*i:])
	}
	a.Inode, a.Size = le.Uint64(b[64:]), le.Uint64(b[72:])
	a.Dev, a.Rdev, a.Mode, a.PIDNS = le.Uint32(b[80:]), le.Uint32(b[84:]), le.Uint32(b[88:]), le.Uint32(b[92:])
	var lens [5]int
	total := 0
	for i := range lens {
		lens[i] = int(le.Uint16(b[96+2*i:]))
		total += lens[i]
	}
	a.TID, a.Comm = le.Uint32(b[108:]), cstring(b[112:128])
	a.UID, a.EUID, a.GID, a.Target = le.Uint32(b[128:]), le.Uint32(b[132:]), le.Uint32(b[136:]), le.Uint32(b[140:])
	a.CapEffective, a.CapPermitted = le.Uint64(b[144:]), le.Uint64(b[152:])
	switch {
	case a.Kind < kindFile || a.Kind >= kindMax || a.Kind == kindNet || a.Kind == kindDNS:
		return a, fmt.Errorf("kind %d is no system call's", a.Kind)
	case a.PID == 0 || a.PID > 1<<31-1:
		return a, fmt.Errorf("pid %d: out of range", a.PID)
	case total > len(b)-actSize:
		return a, fmt.Errorf("sections of %d bytes in %d: %w", total, len(b)-actSize, errShort)
	}
	data := b[actSize:]
	take := func(n int) []byte {
		s := data[:n]
		data = data[n:]
		return s
	}
	if lens[0] > 0 {
		a.Path = joinPath(take(lens[0]), a.Flags&flagPathCut != 0)
	}
	a.A, a.B = cstring(take(lens[1])), cstring(take(lens[2]))
	first, second := take(lens[3]), take(lens[4])
	switch {
	case a.Op == opMount:
		// The type of the file system is where the folder of a path would be.
		a.Third, a.B = cstring(first), absolute(a.B, second)
	case a.Op == opSymlink:
		a.B = absolute(a.B, second) // A is the text of the link
	case a.Kind == kindFile || a.Kind == kindMount:
		a.A, a.B = absolute(a.A, first), absolute(a.B, second)
	}
	return a, nil
}

// absolute joins a path and the folder that it is relative to.
func absolute(name string, folder []byte) string {
	if name == "" {
		return ""
	}
	if name[0] == '/' || len(folder) == 0 {
		return path.Clean(name)
	}
	return path.Join(joinPath(folder, false), name)
}

// file is the file that a record is about.
func (a *Activity) file() string {
	if a.Path != "" {
		return a.Path
	}
	return a.A
}

// memPID reads the pid of a path such as /proc/12/mem or /proc/12/task/13/mem.
func memPID(name string) (pid uint32, ok bool) {
	rest, ok := strings.CutSuffix(name, "/mem")
	if !ok {
		return 0, false
	}
	if before, _, found := strings.Cut(rest, "/task/"); found {
		rest = before
	}
	n, digits := uint32(0), rest[strings.LastIndexByte(rest, '/')+1:]
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' || n > 1<<27 {
			return 0, false
		}
		n = n*10 + uint32(digits[i]-'0')
	}
	return n, n > 0
}
