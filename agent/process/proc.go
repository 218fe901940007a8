package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// Limits of what is read of one process.
const (
	MaxCommandLine = 32 << 10 // bytes of a command line that an event carries
	maxStat        = 4 << 10
	maxCgroup      = 16 << 10
)

// Stat is what /proc/pid/stat says, as far as it is needed.
type Stat struct {
	PID     int
	Comm    string
	PPID    int
	Session int
	TTY     int
	Start   uint64 // ticks since boot
	// Thread is the kernel-thread flag (PF_KTHREAD).
	KernelThread bool
}

var errFormat = errors.New("unexpected format")

// ParseStat reads the text of /proc/pid/stat.
func ParseStat(data []byte) (Stat, error) {
	var s Stat
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 1 || end < open || len(data) > maxStat {
		return s, fmt.Errorf("stat: %w", errFormat)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(data[:open])))
	if err != nil || pid <= 0 {
		return s, fmt.Errorf("stat: field pid: %w", errFormat)
	}
	s.PID, s.Comm = pid, clean(string(data[open+1:end]))
	f := bytes.Fields(data[end+1:])
	if len(f) < 20 { // state is f[0]; starttime, field 22, is f[19]
		return s, fmt.Errorf("stat: %d fields after the name: %w", len(f), errFormat)
	}
	for i, to := range map[int]*int{1: &s.PPID, 3: &s.Session, 4: &s.TTY} {
		v, err := strconv.ParseInt(string(f[i]), 10, 64)
		if err != nil {
			return s, fmt.Errorf("stat: field %d: %w", i+3, errFormat)
		}
		*to = int(v)
	}
	flags, err := strconv.ParseUint(string(f[6]), 10, 64)
	if err != nil {
		return s, fmt.Errorf("stat: field flags: %w", errFormat)
	}
	s.KernelThread = flags&0x00200000 != 0
	if s.Start, err = strconv.ParseUint(string(f[19]), 10, 64); err != nil {
		return s, fmt.Errorf("stat: field starttime: %w", errFormat)
	}
	return s, nil
}

// ParseStatusUID finds the real user id in the text of /proc/pid/status.
func ParseStatusUID(data []byte) (uint32, error) {
	i := bytes.Index(data, []byte("\nUid:"))
	if i < 0 {
		return 0, fmt.Errorf("status: no Uid: %w", errFormat)
	}
	rest := data[i+5:]
	if n := bytes.IndexByte(rest, '\n'); n >= 0 {
		rest = rest[:n]
	}
	f := bytes.Fields(rest)
	if len(f) == 0 {
		return 0, fmt.Errorf("status: Uid: %w", errFormat)
	}
	uid, err := strconv.ParseUint(string(f[0]), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("status: Uid: %w", errFormat)
	}
	return uint32(uid), nil
}

// CommandLine joins the NUL-separated arguments of a process with spaces.
func CommandLine(args []byte) string {
	args = bytes.TrimRight(args, "\x00")
	if len(args) > MaxCommandLine {
		args = args[:MaxCommandLine]
	}
	var line strings.Builder
	line.Grow(len(args))
	for more := true; more; {
		var arg []byte
		arg, args, more = bytes.Cut(args, []byte{0})
		line.Write(arg)
		if more {
			line.WriteByte(' ')
		}
	}
	return clean(line.String())
}

// clean makes a string from the kernel fit for the wire, which wants UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// TTYName names a terminal by its device number in /proc/pid/stat.
func TTYName(nr int) string {
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	switch {
	case nr == 0:
		return ""
	case major >= 136 && major <= 143:
		return "pts/" + strconv.Itoa((major-136)<<8+minor)
	case major == 4 && minor < 64:
		return "tty" + strconv.Itoa(minor)
	case major == 4:
		return "ttyS" + strconv.Itoa(minor-64)
	case major == 5 && minor == 1:
		return "console"
	}
	return "tty" + strconv.Itoa(major) + ":" + strconv.Itoa(minor)
}

// TTYKernelName gives the usual name for the kernel's own ("pts3").
func TTYKernelName(name string) string {
	if n, ok := strings.CutPrefix(name, "pts"); ok && n != "" && n[0] != '/' {
		return "pts/" + n
	}
	return clean(name)
}

func (t *Table) readFile(limit int64, pid int, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(t.opts.ProcRoot, strconv.Itoa(pid), name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// Stat reads /proc/pid/stat.
func (t *Table) Stat(pid int) (Stat, error) {
	data, err := t.readFile(maxStat, pid, "stat")
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(data)
}

// exePath reads where the executable of pid is.
func (t *Table) exePath(pid int) string {
	exe, err := os.Readlink(filepath.Join(t.opts.ProcRoot, strconv.Itoa(pid), "exe"))
	if err != nil {
		return ""
	}
	return clean(strings.TrimSuffix(exe, " (deleted)"))
}

// Read describes a living process from /proc. What cannot be read (the process
// just ended, a kernel thread) stays empty; an error means that nothing could.
func (t *Table) Read(pid int) (event.Process, Stat, error) {
	st, err := t.Stat(pid)
	if err != nil {
		return event.Process{}, st, fmt.Errorf("process %d: %w", pid, err)
	}
	p := event.Process{
		PID: int64(pid), StartTime: t.clock.Start(st.Start), ParentPID: int64(st.PPID),
		LoginUID: -1, SessionID: -1, UID: -1, Terminal: TTYName(st.TTY), FileName: st.Comm,
	}
	if data, err := t.readFile(MaxCommandLine+1, pid, "cmdline"); err == nil {
		p.CommandLine = CommandLine(data)
	}
	if exe := t.exePath(pid); exe != "" {
		p.FolderPath, p.FileName = exe, path.Base(exe)
	}
	if cwd, err := os.Readlink(filepath.Join(t.opts.ProcRoot, strconv.Itoa(pid), "cwd")); err == nil {
		p.WorkingDir = clean(cwd)
	}
	if data, err := t.readFile(maxStat, pid, "status"); err == nil {
		if uid, err := ParseStatusUID(data); err == nil {
			p.UID = int64(uid)
			p.AccountName = t.users.Name(uid)
		}
	}
	p.LoginUID = t.readID(pid, "loginuid")
	p.SessionID = t.readID(pid, "sessionid")
	if p.LoginUID >= 0 {
		p.LoginName = t.users.Name(uint32(p.LoginUID))
	}
	if data, err := t.readFile(maxCgroup, pid, "cgroup"); err == nil {
		p.ContainerID = ParseCgroup(data)
	}
	return p, st, nil
}

// readID reads a file with one audit id; -1 when it is unset or not there.
func (t *Table) readID(pid int, name string) int64 {
	data, err := t.readFile(32, pid, name)
	if err != nil {
		return -1
	}
	v, err := strconv.ParseUint(string(bytes.TrimSpace(data)), 10, 32)
	if err != nil {
		return -1
	}
	return AuditID(uint32(v))
}

// AuditID gives the event's form of an audit login or session id: -1 when unset.
func AuditID(v uint32) int64 {
	if v == 0xffffffff {
		return -1
	}
	return int64(v)
}

// ExitStatus explains a wait status as events show it.
func ExitStatus(code uint32) map[string]string {
	if sig := code & 0x7f; sig != 0 {
		return map[string]string{"ExitSignal": strconv.Itoa(int(sig))}
	}
	return map[string]string{"ExitCode": strconv.Itoa(int(code >> 8 & 0xff))}
}
