package audit

import (
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/event"
)

// maxBinds bounds the addresses of sockets that were bound and do not listen yet.
const maxBinds = 4096

type bindKey struct{ pid, fd int64 }

// mapper makes events of system calls. Its table may be nil: then processes are
// told as the record has them.
type mapper struct {
	table *process.Table
	only  map[event.Category]bool // nil: all
	binds map[bindKey]netip.AddrPort
}

func newMapper(table *process.Table, only []event.Category) *mapper {
	m := &mapper{table: table, binds: map[bindKey]netip.AddrPort{}}
	if only != nil {
		m.only = map[event.Category]bool{}
		for _, c := range only {
			m.only[c] = true
		}
	}
	return m
}

// events makes the events of g: none when the call is not followed or failed.
func (m *mapper) events(g *Group) []event.Event {
	nr, ok := g.int("syscall")
	if g.Type != typeSyscall || !ok {
		return nil
	}
	c := calls[g.Fields["arch"]][nr]
	if c == callExit {
		return m.wanted(m.exit(g))
	}
	done := g.Fields["success"] == "yes"
	if !done && c != callConnect && c != callModule {
		return nil
	}
	switch c {
	case callExec:
		return m.wanted(m.exec(g))
	case callConnect, callAccept, callBind, callListen:
		return m.wanted(m.network(g, c))
	case callOpen, callCreate, callUnlink, callRename, callMode, callOwner, callTruncate:
		return m.wanted(m.file(g, c))
	case callNone:
		return nil
	}
	return m.wanted(m.device(g, c, done))
}

func (m *mapper) wanted(evs []event.Event) []event.Event {
	if m.only == nil {
		return evs
	}
	out := evs[:0]
	for _, e := range evs {
		if m.only[e.Category()] {
			out = append(out, e)
		}
	}
	return out
}

// recorded is the process as the record has it.
func recorded(g *Group) event.Process {
	id := func(name string) int64 {
		v, ok := g.int(name)
		if !ok || v == unset {
			return -1
		}
		return v
	}
	p := event.Process{
		PID: id("pid"), UID: id("uid"), LoginUID: id("auid"), SessionID: id("ses"), ParentPID: id("ppid"),
		FolderPath: strings.TrimSuffix(g.Fields["exe"], " (deleted)"), Terminal: process.TTYKernelName(g.Fields["tty"]),
		WorkingDir: g.Cwd, CommandLine: g.Title,
	}
	p.FileName = path.Base(p.FolderPath)
	if p.FolderPath == "" {
		p.FileName = g.Fields["comm"]
	}
	return p
}

// initiating is who made the call, as the table knows it.
func (m *mapper) initiating(g *Group) event.Process {
	p := recorded(g)
	if m.table == nil {
		return p
	}
	if known, ok := m.table.Recent(int(p.PID)); ok && (known.FolderPath == p.FolderPath || known.FolderPath == "") {
		return known
	}
	if known, _ := m.table.Describe(int(p.PID)); known.FolderPath == p.FolderPath && known.FolderPath != "" {
		return known
	}
	if p.UID >= 0 {
		p.AccountName = m.table.Users().Name(uint32(p.UID))
	}
	if p.LoginUID >= 0 {
		p.LoginName = m.table.Users().Name(uint32(p.LoginUID))
	}
	return p
}

// key identifies the process of the record. Audit tells no start time: /proc
// does while the process lives, the table if it was known, else the time of the
// record has to do.
func (m *mapper) key(pid int, g *Group) process.Key {
	if st, err := m.table.Stat(pid); err == nil {
		return process.Key{PID: pid, Start: st.Start}
	}
	if k, ok := m.table.KeyOf(pid); ok {
		return k
	}
	return process.Key{PID: pid, Start: m.table.Clock().TicksOf(g.Time)}
}

func (m *mapper) exec(g *Group) []event.Event {
	p := recorded(g)
	if len(g.Args) > 0 {
		p.CommandLine = process.CommandLine([]byte(strings.Join(g.Args, "\x00")))
	}
	ev := event.Event{Time: g.Time, Class: event.ClassProcess, Action: event.ProcessCreated, Process: p}
	extra := map[string]string{}
	if g.ArgsCut {
		extra["CommandLineCut"] = "true"
	}
	if strings.HasSuffix(g.Fields["exe"], " (deleted)") {
		extra["ImageDeleted"] = "true"
	}
	if euid := g.Fields["euid"]; euid != g.Fields["uid"] {
		extra["EffectiveUid"] = euid
	}
	if len(g.Paths) > 0 && g.Paths[0].Name != "" && g.Paths[0].Name != p.FolderPath {
		extra["ExecFileName"] = g.Paths[0].Name
	}
	if len(extra) > 0 {
		ev.Additional = extra
	}
	if m.table != nil {
		parent, ok := m.table.KeyOf(int(p.ParentPID))
		if !ok {
			parent = process.Key{PID: int(p.ParentPID)}
		}
		key := m.key(int(p.PID), g)
		if live, st, err := m.table.Read(key.PID); err == nil && st.Start == key.Start {
			p.ContainerID = live.ContainerID
		}
		ev.Process, ev.Initiating = m.table.Exec(key, parent, p)
	}
	evs := []event.Event{ev}
	if strings.HasPrefix(p.FolderPath, "/memfd:") {
		mem := event.Event{Time: g.Time, Class: event.ClassDevice, Action: event.MemoryFileExecuted, Initiating: ev.Process}
		mem.File.FolderPath, mem.File.FileName = p.FolderPath, strings.TrimPrefix(p.FolderPath, "/memfd:")
		evs = append(evs, mem)
	}
	return evs
}

func (m *mapper) exit(g *Group) []event.Event {
	p := recorded(g)
	code := strconv.FormatUint(g.hex("a0")&0xff, 10)
	ev := event.Event{Time: g.Time, Class: event.ClassProcess, Action: event.ProcessTerminated, Process: p, Additional: map[string]string{"ExitCode": code}}
	if m.table == nil {
		return []event.Event{ev}
	}
	key, ok := m.table.KeyOf(int(p.PID))
	if !ok {
		return nil
	}
	proc, parent, image, known := m.table.Exit(key)
	if !known || !image {
		return nil
	}
	ev.Process, ev.Initiating = proc, parent
	return []event.Event{ev}
}

func (m *mapper) network(g *Group, c call) []event.Event {
	pid, _ := g.int("pid")
	fd := int64(int32(g.hex("a0")))
	if c == callBind {
		if len(m.binds) >= maxBinds {
			clear(m.binds)
		}
		m.binds[bindKey{pid, fd}] = g.Remote
		return nil
	}
	ev := event.Event{Time: g.Time, Class: event.ClassNetwork}
	addr := g.Remote
	switch c {
	case callListen:
		k := bindKey{pid, fd}
		addr = m.binds[k]
		delete(m.binds, k)
		ev.Action = event.ListeningConnection
		ev.Network.Protocol = "Tcp"
	case callAccept:
		ev.Action = event.InboundConnectionAccepted
		ev.Network.Protocol = "Tcp"
	default:
		exit, _ := g.int("exit")
		const inProgress = -115
		switch {
		case g.Fields["success"] == "yes":
			ev.Action = event.ConnectionSuccess
		case exit == inProgress:
			ev.Action = event.ConnectionAttempt
		default:
			ev.Action = event.ConnectionFailed
		}
	}
	if !addr.IsValid() {
		return nil // of another family
	}
	if c == callListen {
		ev.Network.LocalIP, ev.Network.LocalPort = addr.Addr().String(), int64(addr.Port())
	} else {
		ev.Network.RemoteIP, ev.Network.RemotePort = addr.Addr().String(), int64(addr.Port())
	}
	ev.Initiating = m.initiating(g)
	return []event.Event{ev}
}

// absolute gives the full path of a PATH record. The name is relative to the
// working directory unless the call had a folder descriptor, which is told by
// the PARENT record when it is absolute.
func absolute(g *Group, p Path) string {
	if path.IsAbs(p.Name) {
		return path.Clean(p.Name)
	}
	for _, parent := range g.Paths {
		if parent.NameType == "PARENT" && path.IsAbs(parent.Name) && p.Name == path.Base(p.Name) {
			return path.Join(parent.Name, p.Name)
		}
	}
	return path.Join(g.Cwd, p.Name)
}

func (m *mapper) file(g *Group, c call) []event.Event {
	var created, deleted, normal *Path
	for i := range g.Paths {
		switch p := &g.Paths[i]; p.NameType {
		case "CREATE":
			created = p
		case "DELETE":
			deleted = p
		case "NORMAL":
			normal = p
		}
	}
	ev := event.Event{Time: g.Time, Class: event.ClassFile, Additional: map[string]string{}}
	var at *Path
	switch {
	case c == callRename && deleted != nil && created != nil:
		ev.Action, at = event.FileRenamed, created
		for i := range g.Paths {
			if p := &g.Paths[i]; p.NameType == "DELETE" && p.Inode == created.Inode {
				deleted = p // another one is what the new name replaced
			}
		}
		ev.File.PreviousFolderPath = absolute(g, *deleted)
		ev.File.PreviousFileName = path.Base(deleted.Name)
	case c == callUnlink && deleted != nil:
		ev.Action, at = event.FileDeleted, deleted
	case (c == callOpen || c == callCreate) && created != nil:
		ev.Action, at = event.FileCreated, created
	case (c == callOpen || c == callTruncate) && normal != nil:
		ev.Action, at = event.FileModified, normal
	case c == callMode && normal != nil:
		ev.Action, at = event.FilePermissionsChanged, normal
		arg := "a1"
		if nr, _ := g.int("syscall"); nr == 268 || nr == 53 { // fchmodat
			arg = "a2"
		}
		ev.Additional["Mode"] = "0" + strconv.FormatUint(g.hex(arg)&0o7777, 8)
	case c == callOwner && normal != nil:
		ev.Action, at = event.FileOwnerChanged, normal
	default:
		return nil
	}
	const regular, format = 0o100000, 0o170000
	if at.Mode != 0 && at.Mode&format != regular && c != callRename && c != callUnlink {
		return nil // devices, pipes, sockets, folders
	}
	ev.File.FolderPath = absolute(g, *at)
	ev.File.FileName = path.Base(ev.File.FolderPath)
	ev.Initiating = m.initiating(g)
	if len(ev.Additional) == 0 {
		ev.Additional = nil
	}
	return []event.Event{ev}
}

// device makes the events of the table DeviceEvents.
func (m *mapper) device(g *Group, c call, done bool) []event.Event {
	ev := event.Event{Time: g.Time, Class: event.ClassDevice, Additional: map[string]string{}}
	target := func(pid int64) {
		ev.Process.PID, ev.Process.UID, ev.Process.LoginUID, ev.Process.SessionID = pid, -1, -1, -1
		if m.table != nil {
			p, ok := m.table.Recent(int(pid))
			if !ok || p.FolderPath == "" {
				p, _ = m.table.Describe(int(pid))
			}
			ev.Process = p
		}
	}
	first := func() string {
		if len(g.Paths) == 0 {
			return ""
		}
		return absolute(g, g.Paths[0])
	}
	switch c {
	case callPtrace:
		ev.Action = event.ProcessTraced
		ev.Additional["Method"] = "ptrace"
		ev.Additional["Request"] = "PTRACE_ATTACH"
		if g.hex("a0") == 0x4206 {
			ev.Additional["Request"] = "PTRACE_SEIZE"
		}
		target(int64(g.hex("a1")))
	case callReadMemory:
		ev.Action = event.ProcessMemoryRead
		ev.Additional["Method"] = "process_vm_readv"
		target(int64(g.hex("a0")))
	case callWriteMemory:
		ev.Action = event.ProcessMemoryWritten
		ev.Additional["Method"] = "process_vm_writev"
		target(int64(g.hex("a0")))
	case callModule:
		ev.Action = event.DriverLoaded
		if !done {
			ev.Action = event.DriverLoadFailed
		}
		ev.Additional["ModuleName"] = g.Module
		if ev.File.FolderPath = first(); ev.File.FolderPath == "" {
			// finit_module has a descriptor, which is there while the process is.
			file, err := os.Readlink("/proc/" + g.Fields["pid"] + "/fd/" + strconv.FormatUint(g.hex("a0"), 10))
			if nr, _ := g.int("syscall"); err == nil && (nr == 313 || nr == 273) && path.IsAbs(file) {
				ev.File.FolderPath = valid(file)
			}
		}
	case callModuleGone:
		ev.Action = event.DriverUnloaded
		ev.Additional["ModuleName"] = g.Module
	case callMemfd:
		ev.Action = event.MemoryFileCreated
	case callBPF:
		ev.Action = event.BPFProgramLoaded
	case callMount:
		ev.Action = event.FileSystemMounted
		ev.File.FolderPath = first()
	case callUnmount:
		ev.Action = event.FileSystemUnmounted
		ev.File.FolderPath = first()
	case callUID:
		ev.Action = event.UserIDChanged
		for _, f := range []string{"uid", "euid", "suid"} {
			ev.Additional["New"+strings.ToUpper(f)] = g.Fields[f]
		}
	case callNamespace:
		ev.Action = event.NamespaceChanged
	default:
		return nil
	}
	if ev.File.FolderPath != "" {
		ev.File.FileName = path.Base(ev.File.FolderPath)
	}
	for k, v := range ev.Additional {
		if v == "" {
			delete(ev.Additional, k)
		}
	}
	ev.Initiating = m.initiating(g)
	return []event.Event{ev}
}
