package detect

import (
	"strconv"
	"strings"
	"unsafe"

	"github.com/bulwarkhq/bulwark/event"
)

// getter reads one field of an event; buf is for numbers. A missing field is
// the empty text.
type getter func(ev *event.Event, buf *[20]byte) string

func number(n int64, buf *[20]byte) string {
	b := strconv.AppendInt(buf[:0], n, 10)
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// subject is the process that a field of a rule means: the created one of
// process events and the one of behaviours, else the one that did it.
func subject(ev *event.Event) *event.Process {
	if ev.Class == event.ClassProcess || ev.Class == event.ClassBehavior {
		return &ev.Process
	}
	return &ev.Initiating
}

func text(f func(*event.Event) string) getter {
	return func(ev *event.Event, _ *[20]byte) string { return f(ev) }
}

func integer(f func(*event.Event) int64) getter {
	return func(ev *event.Event, buf *[20]byte) string { return number(f(ev), buf) }
}

// parent is the process that created the subject. Other events know of it only
// what the subject says.
func parent(ev *event.Event) *event.Process {
	if ev.Class == event.ClassProcess || ev.Class == event.ClassBehavior {
		return &ev.Initiating
	}
	return nil
}

func ofParent(f func(*event.Process) string) getter {
	return func(ev *event.Event, _ *[20]byte) string {
		if p := parent(ev); p != nil {
			return f(p)
		}
		return ""
	}
}

// getters of the fields that Linux rules use, by Sigma's (Sysmon's) names, and
// under the names of our own columns.
var getters = map[string]getter{
	"Image":             text(func(e *event.Event) string { return imageOf(subject(e)) }),
	"CommandLine":       text(func(e *event.Event) string { return commandLineOf(subject(e)) }),
	"FullCommandLine":   text(func(e *event.Event) string { return subject(e).CommandLine }),
	"Script":            text(func(e *event.Event) string { return subject(e).Script }),
	"CurrentDirectory":  text(func(e *event.Event) string { return subject(e).WorkingDir }),
	"OriginalFileName":  text(func(e *event.Event) string { return subject(e).FileName }),
	"ProcessName":       text(func(e *event.Event) string { return subject(e).FileName }),
	"User":              text(func(e *event.Event) string { return subject(e).AccountName }),
	"UserId":            integer(func(e *event.Event) int64 { return subject(e).UID }),
	"LogonId":           integer(func(e *event.Event) int64 { return subject(e).LoginUID }),
	"LoginUser":         text(func(e *event.Event) string { return subject(e).LoginName }),
	"TerminalSessionId": integer(func(e *event.Event) int64 { return subject(e).SessionID }),
	"Terminal":          text(func(e *event.Event) string { return subject(e).Terminal }),
	"ContainerId":       text(func(e *event.Event) string { return subject(e).ContainerID }),
	"ProcessId":         integer(func(e *event.Event) int64 { return subject(e).PID }),
	"ParentProcessId":   integer(func(e *event.Event) int64 { return subject(e).ParentPID }),
	"ParentName":        text(func(e *event.Event) string { return subject(e).ParentFileName }),
	"ParentImage":       ofParent(imageOf),
	"ParentScript":      ofParent(func(p *event.Process) string { return p.Script }),
	"ParentCommandLine": ofParent(commandLineOf),
	"ParentUser":        ofParent(func(p *event.Process) string { return p.AccountName }),
	"md5":               text(func(e *event.Event) string { return hashes(e, func(m, _, _ string) string { return m }) }),
	"sha1":              text(func(e *event.Event) string { return hashes(e, func(_, s, _ string) string { return s }) }),
	"sha256":            text(func(e *event.Event) string { return hashes(e, func(_, _, s string) string { return s }) }),

	"TargetFilename":      text(func(e *event.Event) string { return e.File.FolderPath }),
	"SourceFilename":      text(func(e *event.Event) string { return e.File.PreviousFolderPath }),
	"FileName":            text(func(e *event.Event) string { return e.File.FileName }),
	"ImageLoaded":         text(func(e *event.Event) string { return e.File.FolderPath }),
	"DestinationIp":       text(func(e *event.Event) string { return e.Network.RemoteIP }),
	"DestinationPort":     integer(func(e *event.Event) int64 { return e.Network.RemotePort }),
	"SourceIp":            text(func(e *event.Event) string { return e.Network.LocalIP }),
	"SourcePort":          integer(func(e *event.Event) int64 { return e.Network.LocalPort }),
	"Protocol":            text(func(e *event.Event) string { return e.Network.Protocol }),
	"DestinationHostname": text(func(e *event.Event) string { return e.Network.RemoteURL }),
	"QueryName":           text(func(e *event.Event) string { return first(e.Additional["QueryName"], e.Network.RemoteURL) }),
	"QueryResults":        text(func(e *event.Event) string { return e.Additional["QueryResults"] }),
	"TargetUser":          text(func(e *event.Event) string { return e.Logon.AccountName }),
	"LogonType":           text(func(e *event.Event) string { return e.Logon.Type }),
	"RemoteAddress":       text(func(e *event.Event) string { return e.Logon.RemoteIP }),
	"FailureReason":       text(func(e *event.Event) string { return e.Logon.FailureReason }),
	"ActionType":          text(func(e *event.Event) string { return e.Action }),
	"Initiated": text(func(e *event.Event) string {
		switch e.Action {
		case event.InboundConnectionAccepted:
			return "false"
		case event.ConnectionAttempt, event.ConnectionSuccess, event.ConnectionFailed:
			return "true"
		}
		return ""
	}),
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

func hashes(e *event.Event, pick func(md5, sha1, sha256 string) string) string {
	if e.Class == event.ClassFile {
		return pick(e.File.MD5, e.File.SHA1, e.File.SHA256)
	}
	p := subject(e)
	return pick(p.MD5, p.SHA1, p.SHA256)
}

// keywordFields are where keywords are looked for, by the kind of stream.
func keywordFields(stream string) []string {
	if stream == streamAudit {
		return []string{"proctitle", "exe", "name", "unit", "Message"}
	}
	if strings.HasPrefix(stream, "service:") {
		return []string{"Message"}
	}
	return []string{"CommandLine", "Image", "ParentCommandLine", "TargetFilename", "DestinationHostname", "DestinationIp", "QueryName"}
}

// getterOf gives the field called name in a stream; one that no event type has
// is looked up in the additional fields.
func getterOf(stream, name string) getter {
	if stream == streamAudit {
		if g := auditGetter(name); g != nil {
			return g
		}
	}
	if name == "Message" {
		return messageOf(stream)
	}
	if g := getters[name]; g != nil {
		return g
	}
	return func(ev *event.Event, _ *[20]byte) string { return ev.Additional[name] }
}
