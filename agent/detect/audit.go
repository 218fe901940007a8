package detect

import (
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// Rules for auditd name records and their fields. One event of ours is what
// several records of one audit event say together, so a rule sees all of them
// at once: type holds every record type of the event, a0, a1 ... are the words
// of the command line of an execve and the arguments of other system calls.
//
// The words are those between the spaces of the command line: an argument with
// a space in it is several words. name is the file of the event.

// auditWords bounds which of a0, a1 ... are known.
const auditWords = 64

// auditGetter gives a field of audit records; nil for fields that are only in
// what the audit sensor itself puts into the additional fields.
func auditGetter(name string) getter {
	if strings.HasPrefix(name, "a") {
		if n, err := strconv.Atoi(name[1:]); err == nil && n >= 0 && n < auditWords {
			return func(ev *event.Event, _ *[20]byte) string {
				if ev.Action == event.ProcessCreated {
					return wordAt(ev.Process.CommandLine, n)
				}
				return ev.Additional[name]
			}
		}
	}
	switch name {
	case "type":
		return text(auditTypes)
	case "SYSCALL", "syscall":
		return text(auditCall)
	case "exe":
		return getters["Image"]
	case "comm":
		return text(func(ev *event.Event) string { return comm(subject(ev).FileName) })
	case "proctitle", "cmd":
		return getters["CommandLine"]
	case "cwd":
		return getters["CurrentDirectory"]
	case "name", "path":
		return text(func(ev *event.Event) string {
			if ev.Class == event.ClassProcess {
				return ev.Process.FolderPath
			}
			return ev.File.FolderPath
		})
	case "nametype":
		return text(func(ev *event.Event) string {
			switch ev.Action {
			case event.FileCreated:
				return "CREATE"
			case event.FileDeleted:
				return "DELETE"
			}
			if ev.Class == event.ClassFile || ev.Class == event.ClassProcess {
				return "NORMAL"
			}
			return ""
		})
	case "uid", "euid":
		return integer(func(ev *event.Event) int64 { return subject(ev).UID })
	case "auid":
		return integer(func(ev *event.Event) int64 { return subject(ev).LoginUID })
	case "pid":
		return getters["ProcessId"]
	case "ppid":
		return getters["ParentProcessId"]
	case "tty":
		return getters["Terminal"]
	case "ses":
		return getters["TerminalSessionId"]
	case "acct":
		return getters["TargetUser"]
	case "addr":
		return text(func(ev *event.Event) string { return first(ev.Network.RemoteIP, ev.Logon.RemoteIP) })
	case "unit":
		return text(func(ev *event.Event) string {
			return strings.TrimSuffix(first(ev.Additional["unit"], ev.Additional["ServiceName"], ev.Additional["Unit"]), ".service")
		})
	case "res":
		return text(func(ev *event.Event) string {
			switch ev.Action {
			case event.LogonFailed:
				return "failed"
			case event.LogonSuccess:
				return "success"
			}
			return ev.Additional["res"]
		})
	}
	return nil
}

// comm is a file name as the kernel keeps it: 15 bytes.
func comm(name string) string {
	if len(name) > 15 {
		return name[:15]
	}
	return name
}

// wordAt gives word n of a command line.
func wordAt(line string, n int) string {
	for {
		line = strings.TrimLeft(line, " ")
		end := strings.IndexByte(line, ' ')
		if n == 0 || end < 0 {
			if n > 0 {
				return ""
			}
			if end >= 0 {
				line = line[:end]
			}
			return line
		}
		line = line[end:]
		n--
	}
}

// auditTypes are the record types of the audit event that an event of ours
// stands for, each between spaces.
func auditTypes(ev *event.Event) string {
	if t := ev.Additional["AuditTypes"]; t != "" {
		return " " + strings.ReplaceAll(t, ",", " ") + " "
	}
	switch ev.Class {
	case event.ClassProcess:
		if ev.Action == event.ProcessCreated {
			return " SYSCALL EXECVE CWD PATH PROCTITLE "
		}
		return " SYSCALL PROCTITLE "
	case event.ClassFile:
		return " SYSCALL CWD PATH PROCTITLE "
	case event.ClassImageLoad:
		return " SYSCALL MMAP PATH PROCTITLE "
	case event.ClassNetwork:
		return " SYSCALL SOCKADDR PROCTITLE "
	case event.ClassLogon:
		switch ev.Action {
		case event.LogonFailed:
			return " USER_AUTH USER_LOGIN "
		case event.LogonSuccess:
			return " USER_AUTH USER_LOGIN USER_START "
		}
		return " USER_END USER_LOGOUT "
	case event.ClassDevice, event.ClassUnknown:
		return auditDeviceTypes(ev.Action)
	}
	return " SYSCALL "
}

func auditDeviceTypes(action string) string {
	made, gone := strings.HasSuffix(action, "Created") || strings.HasSuffix(action, "Added"), strings.HasSuffix(action, "Deleted") || strings.HasSuffix(action, "Removed")
	switch {
	case strings.Contains(action, "Account") && made:
		return " ADD_USER "
	case strings.Contains(action, "Account") && gone:
		return " DEL_USER "
	case strings.Contains(action, "Account"):
		return " USER_MGMT USER_CHAUTHTOK "
	case strings.Contains(action, "Group") && made:
		return " ADD_GROUP "
	case strings.Contains(action, "Group") && gone:
		return " DEL_GROUP "
	case strings.Contains(action, "Group"):
		return " GRP_MGMT "
	case strings.Contains(action, "Service") && gone:
		return " SERVICE_STOP "
	case strings.Contains(action, "Service"):
		return " SERVICE_START "
	case strings.Contains(action, "Driver"):
		return " SYSCALL KERN_MODULE "
	case action == event.BPFProgramLoaded:
		return " SYSCALL BPF "
	}
	return " SYSCALL PROCTITLE "
}

// auditCall is the system call of an event.
func auditCall(ev *event.Event) string {
	if c := first(ev.Additional["Syscall"], ev.Additional["SystemCall"], ev.Additional["syscall"]); c != "" {
		return c
	}
	a := ev.Action
	switch a {
	case event.ProcessCreated:
		return "execve"
	case event.FileCreated, event.FileModified:
		return "openat"
	case event.FileDeleted:
		return "unlinkat"
	case event.FileRenamed:
		return "rename"
	case event.ConnectionAttempt, event.ConnectionSuccess, event.ConnectionFailed:
		return "connect"
	case event.InboundConnectionAccepted:
		return "accept"
	case event.ListeningConnection:
		return "listen"
	}
	switch a {
	case event.MemoryFileCreated:
		return "memfd_create"
	case event.ProcessTraced:
		return "ptrace"
	case event.DriverLoaded, event.DriverLoadFailed:
		return "finit_module"
	case event.DriverUnloaded:
		return "delete_module"
	case event.BPFProgramLoaded:
		return "bpf"
	case event.FileSystemMounted:
		return "mount"
	case event.FilePermissionsChanged:
		return "fchmodat"
	case event.FileOwnerChanged:
		return "fchownat"
	case event.UserIDChanged, event.CapabilitiesChanged, event.NamespaceChanged, event.ProcessMemoryRead, event.ProcessMemoryWritten, event.ProcessDescriptorTaken:
		return ev.Additional["Method"]
	}
	return ""
}

// messageOf gives the line that a log of the service would hold of an event,
// for rules that look for words in it. What a sensor read from the log itself
// is used as it is.
func messageOf(stream string) getter {
	return text(func(ev *event.Event) string {
		if m := ev.Additional["Message"]; m != "" {
			return m
		}
		switch {
		case ev.Class == event.ClassLogon:
			return logonLine(ev)
		case ev.Action == event.ProcessCreated && stream == streamCron:
			return "(" + ev.Process.AccountName + ") CMD (" + ev.Process.CommandLine + ")"
		case ev.Action == event.ProcessCreated && programOf(ev) == "sudo":
			return ev.Initiating.AccountName + " : TTY=" + strings.TrimPrefix(ev.Process.Terminal, "/dev/") + " ; PWD=" + ev.Process.WorkingDir +
				" ; USER=root ; COMMAND=" + strings.TrimPrefix(ev.Process.CommandLine, "sudo ")
		case ev.Action == event.ProcessCreated:
			return ev.Process.FileName + ": " + ev.Process.CommandLine
		}
		var b strings.Builder
		b.WriteString(ev.Action)
		for _, k := range []string{"ServiceName", "TaskName", "Schedule", "GroupName", "ModuleName", "ThreatName", "Command", "Changed"} {
			if v := ev.Additional[k]; v != "" {
				b.WriteString(" " + k + "=" + v)
			}
		}
		if ev.File.FolderPath != "" {
			b.WriteString(" " + ev.File.FolderPath)
		}
		return b.String()
	})
}

// logonLine is what sshd, su and login write of a logon.
func logonLine(ev *event.Event) string {
	l := &ev.Logon
	from := ""
	if l.RemoteIP != "" {
		from = " from " + l.RemoteIP + " port " + strconv.FormatInt(l.RemotePort, 10) + " ssh2"
	}
	program := programOf(ev)
	switch ev.Action {
	case event.LogonFailed:
		return program + ": Failed password for " + l.AccountName + from + " authentication failure " + l.FailureReason
	case event.LogonSuccess:
		return program + ": Accepted password for " + l.AccountName + from + ": session opened for user " + l.AccountName
	}
	return program + ": session closed for user " + l.AccountName
}
