package ebpf

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

// initialPIDNamespace is the inode number of the first pid namespace
// (include/linux/proc_ns.h, PROC_PID_INIT_INO).
const initialPIDNamespace = 0xeffffffc

// Requests of ptrace that not every architecture has.
const (
	ptraceSetRegs   = 13
	ptraceSetFPRegs = 15
)

// activity turns the record of a system call into an event.
func (s *Sensor) activity(a *Activity, sink sensor.Sink) {
	ev := event.Event{
		Time: s.table.Clock().Mono(a.Time), Class: categoryOf(a.Kind).Class(),
		Initiating: s.initiator(a.PID, a.Start, a.Comm),
	}
	if ev.Initiating.UID < 0 {
		ev.Initiating.UID, ev.Initiating.AccountName = int64(a.UID), s.table.Users().Name(a.UID)
	}
	extra := map[string]string{}
	switch a.Kind {
	case kindFile, kindImage:
		fileEvent(a, &ev, extra)
	case kindModule:
		moduleEvent(a, &ev, extra)
	case kindBPF:
		ev.Action = event.BPFProgramLoaded
		extra["ProgramName"], extra["ProgramType"] = a.A, programType(uint32(a.Arg[0]))
		extra["Instructions"] = strconv.FormatUint(a.Arg[0]>>32, 10)
	case kindAccess:
		s.accessEvent(a, &ev, extra)
	case kindTamper:
		ev.Action, ev.Process = event.ProcessTampered, ev.Initiating
		if a.Arg[0] == unix.PR_SET_NAME {
			extra["Method"], extra["NewName"], extra["OldName"] = "PR_SET_NAME", a.Comm, ev.Initiating.FileName
		} else {
			extra["Method"], extra["Request"] = "PR_SET_MM", mmField(a.Arg[1])
		}
	case kindMemfd:
		ev.Action, ev.File.FileName, ev.File.FolderPath = event.MemoryFileCreated, a.A, "/memfd:"+a.A
		extra["Flags"] = "0x" + strconv.FormatUint(a.Arg[0], 16)
	case kindDevice:
		ev.Action = event.RawDeviceAccess
		setFile(&ev.File, a.Path)
		extra["Device"] = fmt.Sprintf("%d:%d", a.Rdev>>20, a.Rdev&0xfffff)
		extra["DeviceType"] = map[bool]string{true: "block", false: "character"}[a.Mode&modeType == modeBlock]
		extra["Access"] = [4]string{"", "read", "write", "read,write"}[a.Arg[0]&3]
	case kindMount:
		mountEvent(a, &ev, extra)
	case kindPriv:
		privilegeEvent(a, &ev, extra)
	}
	if ev.Action == "" {
		s.filtered(a.Kind)
		return
	}
	if a.Ret < 0 && a.Ret > -4096 {
		extra["Error"] = unix.ErrnoName(syscall.Errno(-a.Ret))
	}
	if len(extra) > 0 {
		ev.Additional = extra
	}
	s.emit(sink, a.Kind, ev, process.Image{})
}

func setFile(f *event.File, name string) {
	f.FolderPath = name
	if name != "" {
		f.FileName = path.Base(name)
	}
}

func fileEvent(a *Activity, ev *event.Event, extra map[string]string) {
	setFile(&ev.File, a.file())
	switch a.Op {
	case opCreated:
		ev.Action = event.FileCreated
	case opModified:
		ev.Action = event.FileModified
	case opImage:
		ev.Action, ev.File.Size = event.ImageLoaded, int64(a.Size)
		if a.Flags&flagUnlinked != 0 {
			extra["ImageDeleted"] = "true"
		}
	case opUnlink:
		ev.Action = event.FileDeleted
	case opRename:
		ev.Action = event.FileRenamed
		ev.File = event.File{PreviousFolderPath: a.A, PreviousFileName: path.Base(a.A)}
		setFile(&ev.File, a.B)
	case opLink, opSymlink:
		ev.Action = event.FileCreated
		setFile(&ev.File, a.B)
		extra["FileType"], extra["LinkTarget"] = map[uint32]string{opLink: "hard link", opSymlink: "symbolic link"}[a.Op], a.A
	case opMknod:
		if a.Arg[0]&unix.S_IFMT == unix.S_IFREG || a.Arg[0]&unix.S_IFMT == 0 {
			ev.Action = event.FileCreated
			return
		}
		ev.Action = event.FileCreated
		extra["FileType"] = map[uint64]string{
			unix.S_IFIFO: "pipe", unix.S_IFBLK: "block device", unix.S_IFCHR: "character device", unix.S_IFSOCK: "socket",
		}[a.Arg[0]&unix.S_IFMT]
	case opChmod:
		ev.Action, extra["Mode"] = event.FilePermissionsChanged, fmt.Sprintf("%04o", a.Arg[0]&0o7777)
	case opSetxattr:
		ev.Action, extra["Attribute"] = event.FilePermissionsChanged, "security.capability"
	case opChown:
		ev.Action = event.FileOwnerChanged
		for name, id := range map[string]uint32{"Owner": uint32(a.Arg[0] >> 32), "Group": uint32(a.Arg[0])} {
			if id != 0xffffffff { // unchanged
				extra[name] = strconv.FormatUint(uint64(id), 10)
			}
		}
	}
}

func moduleEvent(a *Activity, ev *event.Event, extra map[string]string) {
	ev.Action = event.DriverLoaded
	switch a.Op {
	case opModuleName:
		extra["ModuleName"] = a.A
		return
	case opDeleteModule:
		ev.Action, extra["ModuleName"] = event.DriverUnloaded, a.A
	case opFinitModule:
		setFile(&ev.File, a.Path)
		ev.File.Size = int64(a.Size)
		name, _, _ := strings.Cut(ev.File.FileName, ".ko")
		extra["ModuleName"], extra["Parameters"] = name, a.A
	case opInitModule:
		ev.File.Size = int64(a.Size)
		extra["Parameters"], extra["FromMemory"] = a.A, "true"
	}
	if a.Ret < 0 {
		ev.Action = event.DriverLoadFailed
	}
	if extra["Parameters"] == "" {
		delete(extra, "Parameters")
	}
}

func (s *Sensor) accessEvent(a *Activity, ev *event.Event, extra map[string]string) {
	target, initial := uint32(a.Arg[0]), a.PIDNS == initialPIDNamespace
	switch a.Op {
	case opPtrace:
		target = uint32(a.Arg[1])
		ev.Action, extra["Method"], extra["Request"] = event.ProcessTraced, "ptrace", ptraceRequest(a.Arg[0])
		switch a.Arg[0] {
		case unix.PTRACE_TRACEME:
			target, initial = a.PID, true
		case unix.PTRACE_POKETEXT, ptraceSetRegs, ptraceSetFPRegs, unix.PTRACE_SETREGSET:
			ev.Action = event.ProcessMemoryWritten
		case unix.PTRACE_PEEKDATA:
			ev.Action = event.ProcessMemoryRead
		}
	case opVMRead:
		ev.Action, extra["Method"] = event.ProcessMemoryRead, "process_vm_readv"
	case opVMWrite:
		ev.Action, extra["Method"] = event.ProcessMemoryWritten, "process_vm_writev"
	case opPidfdGetfd:
		target, initial = a.Target, true
		ev.Action, extra["Method"], extra["Descriptor"] = event.ProcessDescriptorTaken, "pidfd_getfd", strconv.FormatUint(a.Arg[1], 10)
	case opProcMem:
		pid, ok := memPID(a.Path)
		if !ok {
			return
		}
		target = pid
		ev.Action, extra["Method"] = event.ProcessMemoryRead, "/proc/pid/mem"
		if a.Arg[0] != 0 {
			ev.Action = event.ProcessMemoryWritten
		}
		if target == a.PID {
			if a.Arg[0] == 0 {
				ev.Action = "" // its own memory, to read
				return
			}
			ev.Action, extra["Method"] = event.ProcessTampered, "/proc/self/mem"
		}
	}
	if target == a.PID && initial && a.Arg[0] != unix.PTRACE_TRACEME && a.Op != opProcMem {
		ev.Action = "" // of its own
		return
	}
	if !initial {
		// The number is that of another namespace; the table knows the first one's.
		extra["TargetPidInNamespace"] = strconv.FormatUint(uint64(target), 10)
		return
	}
	if p, ok := s.table.Lookup(int(target)); ok {
		ev.Process = p
	} else {
		ev.Process = event.Process{PID: int64(target), UID: -1, LoginUID: -1, SessionID: -1}
	}
}

func mountEvent(a *Activity, ev *event.Event, extra map[string]string) {
	switch a.Op {
	case opMount:
		ev.Action, extra["Source"], extra["FileSystem"] = event.FileSystemMounted, a.A, a.Third
		extra["Flags"] = mountFlags(a.Arg[0])
		setFile(&ev.File, a.B)
	case opMoveMount:
		ev.Action, extra["Source"] = event.FileSystemMounted, a.A
		setFile(&ev.File, a.B)
	case opUmount:
		ev.Action = event.FileSystemUnmounted
		setFile(&ev.File, a.A)
	}
	for k, v := range extra {
		if v == "" {
			delete(extra, k)
		}
	}
}

func privilegeEvent(a *Activity, ev *event.Event, extra map[string]string) {
	switch a.Op {
	case opSetuid:
		ev.Action, extra["Method"] = event.UserIDChanged, "setuid"
		extra["UserId"], extra["EffectiveUserId"] = strconv.FormatUint(uint64(a.UID), 10), strconv.FormatUint(uint64(a.EUID), 10)
		extra["SavedUserId"] = strconv.FormatUint(a.Arg[0], 10)
		extra["EffectiveCapabilities"] = fmt.Sprintf("%016x", a.CapEffective)
	case opCapset:
		ev.Action, extra["Method"] = event.CapabilitiesChanged, "capset"
		extra["EffectiveCapabilities"] = fmt.Sprintf("%016x", a.CapEffective)
		extra["PermittedCapabilities"] = fmt.Sprintf("%016x", a.CapPermitted)
	case opUnshare:
		ev.Action, extra["Method"], extra["Namespaces"] = event.NamespaceChanged, "unshare", namespaceNames(a.Arg[0])
	case opClone:
		ev.Action, extra["Method"], extra["Namespaces"] = event.NamespaceChanged, "clone", namespaceNames(a.Arg[0])
		extra["Child"] = strconv.FormatInt(a.Ret, 10)
	case opSetns:
		ev.Action, extra["Method"], extra["Namespaces"] = event.NamespaceChanged, "setns", namespaceNames(a.Arg[1])
	}
}

func names(bits uint64, of []string, flag func(int) uint64) string {
	var out []string
	for i, n := range of {
		if bits&flag(i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, ",")
}

func namespaceNames(flags uint64) string {
	bits := []uint64{unix.CLONE_NEWCGROUP, unix.CLONE_NEWIPC, unix.CLONE_NEWNS, unix.CLONE_NEWNET, unix.CLONE_NEWPID, unix.CLONE_NEWTIME, unix.CLONE_NEWUSER, unix.CLONE_NEWUTS}
	return names(flags, []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}, func(i int) uint64 { return bits[i] })
}

func mountFlags(flags uint64) string {
	bits := []uint64{unix.MS_BIND, unix.MS_REC, unix.MS_REMOUNT, unix.MS_MOVE, unix.MS_RDONLY, unix.MS_NOSUID, unix.MS_NODEV, unix.MS_NOEXEC, unix.MS_PRIVATE, unix.MS_SHARED, unix.MS_SLAVE}
	return names(flags, []string{"bind", "rec", "remount", "move", "ro", "nosuid", "nodev", "noexec", "private", "shared", "slave"}, func(i int) uint64 { return bits[i] })
}

func ptraceRequest(r uint64) string {
	known := map[uint64]string{
		unix.PTRACE_TRACEME: "PTRACE_TRACEME", unix.PTRACE_PEEKDATA: "PTRACE_PEEKDATA", unix.PTRACE_POKETEXT: "PTRACE_POKEDATA",
		ptraceSetRegs: "PTRACE_SETREGS", ptraceSetFPRegs: "PTRACE_SETFPREGS", unix.PTRACE_ATTACH: "PTRACE_ATTACH",
		unix.PTRACE_SETREGSET: "PTRACE_SETREGSET", unix.PTRACE_SEIZE: "PTRACE_SEIZE",
	}
	if n, ok := known[r]; ok {
		return n
	}
	return strconv.FormatUint(r, 10)
}

// mmField names what PR_SET_MM sets (include/uapi/linux/prctl.h).
func mmField(f uint64) string {
	fields := []string{
		1: "START_CODE", "END_CODE", "START_DATA", "END_DATA", "START_STACK", "START_BRK", "BRK",
		"ARG_START", "ARG_END", "ENV_START", "ENV_END", "AUXV", "EXE_FILE", "MAP", "MAP_SIZE",
	}
	if f > 0 && f < uint64(len(fields)) {
		return fields[f]
	}
	return strconv.FormatUint(f, 10)
}

// programType names the types of BPF programs that matter for what they can
// do; others are numbers (enum bpf_prog_type).
func programType(t uint32) string {
	known := []string{
		"unspecified", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event", "cgroup_skb",
		"cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb", "cgroup_device", "sk_msg", "raw_tracepoint",
		"cgroup_sock_addr", "lwt_seg6local", "lirc_mode2", "sk_reuseport", "flow_dissector", "cgroup_sysctl",
		"raw_tracepoint_writable", "cgroup_sockopt", "tracing", "struct_ops", "ext", "lsm", "sk_lookup", "syscall", "netfilter",
	}
	if int(t) < len(known) {
		return known[t]
	}
	return strconv.FormatUint(uint64(t), 10)
}
