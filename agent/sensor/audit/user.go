package audit

import (
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/sensor/logon"
	"github.com/bulwarkhq/bulwark/event"
)

// failureWindow is how long a failure that PAM reported stands for what the
// program reports about the same attempt itself.
const failureWindow = 5 * time.Second

// logons makes logon events of what PAM and the programs that let users in
// report (pam_unix and sshd, login, su, sudo, cron; audit-message-fields). One
// logon is several messages: authentication, account, credentials, session.
type logons struct {
	admin func(account string) bool
	// failed are processes with a failed authentication, and when; opened are
	// sessions (by process) that PAM opened.
	failed, opened map[int64]time.Time
}

func newLogons(admin func(string) bool) *logons {
	return &logons{admin: admin, failed: map[int64]time.Time{}, opened: map[int64]time.Time{}}
}

// event makes the event of g; false when it is none.
func (l *logons) event(g *Group) (event.Event, bool) {
	pid, _ := g.int("pid")
	f := g.Fields
	ok := f["res"] == "success" || f["res"] == "1"
	l.forget(g.Time)
	var action string
	switch {
	case g.Type == typeUserStart && ok:
		action = event.LogonSuccess
		l.opened[pid] = g.Time
	case g.Type == typeUserEnd && ok:
		action = event.Logoff
		delete(l.opened, pid)
	case g.Type == typeUserLogin && ok:
		if _, twice := l.opened[pid]; twice {
			return event.Event{}, false
		}
		action = event.LogonSuccess
	case g.Type == typeUserLogout && ok:
		if path.Base(f["exe"]) == "sshd" { // the end of the session tells it
			return event.Event{}, false
		}
		action = event.Logoff
	case (g.Type == typeUserAuth || g.Type == typeUserAcct) && !ok:
		action = event.LogonFailed
		l.failed[pid] = g.Time
	case g.Type == typeUserLogin && !ok:
		if at, twice := l.failed[pid]; twice && g.Time.Sub(at) < failureWindow {
			return event.Event{}, false
		}
		action = event.LogonFailed
	default:
		return event.Event{}, false
	}
	ev := event.Event{Time: g.Time, Class: event.ClassLogon, Action: action, Additional: map[string]string{}}
	program := path.Base(f["exe"])
	ev.Logon.AccountName = f["acct"]
	if ev.Logon.AccountName == "" {
		ev.Logon.AccountName = f["id"]
	}
	ev.Logon.Type, ev.Logon.Protocol = logon.Type(program, f["terminal"])
	if a := f["addr"]; a != "" && a != "?" && a != "0.0.0.0" {
		ev.Logon.RemoteIP = strings.TrimPrefix(a, "::ffff:")
	}
	if h := f["hostname"]; h != "" && h != ev.Logon.RemoteIP && h != f["addr"] {
		ev.Logon.RemoteDevice = h
	}
	if action == event.LogonFailed {
		ev.Logon.FailureReason = failureReason(g.Type, f["op"], ev.Logon.AccountName)
	} else if l.admin != nil {
		ev.Logon.IsLocalAdmin = l.admin(ev.Logon.AccountName)
	}
	tell := func(name, value string) {
		if value != "" {
			ev.Additional[name] = value
		}
	}
	tell("Program", f["exe"])
	tell("Terminal", strings.TrimPrefix(f["terminal"], "/dev/"))
	tell("Operation", f["op"])
	if ses, known := g.int("ses"); known && ses != unset {
		tell("SessionId", strconv.FormatInt(ses, 10))
	}
	return ev, true
}

// unset is the audit id of no user or no session.
const unset = 0xffffffff

// forget keeps the two maps small.
func (l *logons) forget(now time.Time) {
	const many = 4096
	for _, m := range []map[int64]time.Time{l.failed, l.opened} {
		if len(m) < many {
			continue
		}
		for pid, at := range m {
			if now.Sub(at) > time.Minute || len(m) > 2*many {
				delete(m, pid)
			}
		}
	}
}

func failureReason(t Type, op, account string) string {
	switch {
	case strings.Contains(account, "unknown") || strings.Contains(account, "invalid user"):
		return logon.UnknownUser
	case t == typeUserAcct || strings.Contains(op, "accounting"):
		return logon.Restricted
	}
	return logon.BadPassword
}

// accountEvent makes the event of what useradd and its like report.
func accountEvent(g *Group) (event.Event, bool) {
	f := g.Fields
	if f["res"] != "success" && f["res"] != "1" {
		return event.Event{}, false
	}
	name := f["acct"]
	if name == "" {
		name = f["id"]
	}
	ev := event.Event{Time: g.Time, Class: event.ClassDevice, Additional: map[string]string{}}
	ev.File.FileName, ev.File.FolderPath = "passwd", "/etc/passwd"
	switch g.Type {
	case typeAddUser:
		ev.Action = event.UserAccountCreated
		// useradd reports the making of the home as well, and the group.
		if op := f["op"]; strings.Contains(op, "home") || strings.Contains(op, "group") {
			return event.Event{}, false
		}
	case typeDelUser:
		if op := f["op"]; strings.Contains(op, "home") || strings.Contains(op, "group") || strings.Contains(op, "mail") {
			return event.Event{}, false
		}
		ev.Action = event.UserAccountDeleted
	case typeUserMgmt, typeUserChauthtok:
		ev.Action = event.UserAccountModified
		if g.Type == typeUserChauthtok {
			ev.Additional["Changed"] = "password"
		}
	case typeAddGroup, typeDelGroup, typeGrpMgmt:
		ev.File.FileName, ev.File.FolderPath = "group", "/etc/group"
		ev.Action = map[Type]string{
			typeAddGroup: event.SecurityGroupCreated, typeDelGroup: event.SecurityGroupDeleted, typeGrpMgmt: event.SecurityGroupModified,
		}[g.Type]
		if grp := f["grp"]; grp != "" {
			name = grp
		}
	default:
		return event.Event{}, false
	}
	ev.Logon.AccountName = name
	if op := f["op"]; op != "" {
		ev.Additional["Operation"] = op
	}
	return ev, true
}
