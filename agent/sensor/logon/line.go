package logon

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// maxLine is the longest line of a log that is read, in bytes.
const maxLine = 8 << 10

// Line is what a line of the authentication's log says about a logon.
type Line struct {
	Time    time.Time
	Action  string // of package event; empty: it is about no logon
	Program string // that let the user in
	PID     int
	Account string
	// By is the account that asked for it, of su and sudo.
	By       string
	RemoteIP string
	Port     int64
	Device   string // name of the remote host
	Method   string // password, publickey, ...
	Terminal string
	Reason   string
}

// matcher finds logons in what programs log (OpenSSH, pam_unix(8), login(1)).
// Names are what a remote client sent and may look like the rest of a line:
// the last address is sshd's.
type matcher struct {
	accepted, failed, invalid, session, authFailure, failedLogin *regexp.Regexp
}

func newMatcher() *matcher {
	return &matcher{
		accepted:    regexp.MustCompile(`^Accepted (\S+) for (\S{1,256}) from (\S+) port (\d+)`),
		failed:      regexp.MustCompile(`^Failed (\S+) for (invalid user )?(.{0,256}) from (\S+) port (\d+)`),
		invalid:     regexp.MustCompile(`^Invalid user (.{0,256}) from (\S+) port (\d+)`),
		session:     regexp.MustCompile(`^pam_unix\(([^:)]{1,64}):session\): session (opened|closed) for user ([^\s(]{1,256})(?:\(uid=\d+\))?(?: by ([^\s(]{0,256})\(uid=\d+\))?`),
		authFailure: regexp.MustCompile(`^pam_unix\(([^:)]{1,64}):auth\): authentication failure; logname=(\S{0,256}) uid=\d+ euid=\d+ tty=(\S{0,256}) ruser=(\S{0,256}) rhost=(\S{0,256})\s*(?:user=(\S{0,256}))?`),
		failedLogin: regexp.MustCompile(`^FAILED LOGIN (?:SESSION|\(\d+\)) (?:FROM|on) '?(\S{1,256}?)'? FOR '?([^',]{0,256})'?, (.{0,256})`),
	}
}

// parse reads a line as syslog daemons and journalctl write it. What has no
// time of its own in it, or one that is no time, is of now.
func (m *matcher) parse(line string, now time.Time) Line {
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	line = strings.ToValidUTF8(line, "\uFFFD")
	at, rest := stamp(line, now)
	_, rest, _ = strings.Cut(rest, " ") // the host
	tag, text, ok := strings.Cut(rest, ": ")
	if !ok || len(tag) > 128 {
		return Line{}
	}
	l := Line{Time: at}
	program, pid, _ := strings.Cut(tag, "[")
	l.PID, _ = strconv.Atoi(strings.TrimSuffix(pid, "]"))
	l.Program = program
	ssh := strings.HasPrefix(program, "sshd")
	switch {
	case ssh && m.accepted.MatchString(text):
		f := m.accepted.FindStringSubmatch(text)
		l.Action, l.Method, l.Account = event.LogonSuccess, f[1], f[2]
		l.remote(f[3], f[4])
	case ssh && m.failed.MatchString(text):
		f := m.failed.FindStringSubmatch(text)
		if f[2] != "" {
			return Line{} // was told as "Invalid user"
		}
		l.Action, l.Method, l.Account, l.Reason = event.LogonFailed, f[1], f[3], BadPassword
		l.remote(f[4], f[5])
	case ssh && m.invalid.MatchString(text):
		f := m.invalid.FindStringSubmatch(text)
		l.Action, l.Account, l.Reason = event.LogonFailed, f[1], UnknownUser
		l.remote(f[2], f[3])
	case m.session.MatchString(text):
		f := m.session.FindStringSubmatch(text)
		l.Program, l.Account, l.By = f[1], f[3], f[4]
		l.Action = event.LogonSuccess
		if f[2] == "closed" {
			l.Action = event.Logoff
		} else if strings.HasPrefix(l.Program, "sshd") {
			return Line{} // "Accepted" told it, with the address
		}
	case !ssh && m.authFailure.MatchString(text):
		f := m.authFailure.FindStringSubmatch(text)
		l.Action, l.Program, l.Terminal, l.By, l.Account, l.Reason = event.LogonFailed, f[1], f[3], f[4], f[6], BadPassword
		l.remote(f[5], "")
	case m.failedLogin.MatchString(text):
		f := m.failedLogin.FindStringSubmatch(text)
		l.Action, l.Program, l.Terminal, l.Account, l.Reason = event.LogonFailed, "login", f[1], f[2], BadPassword
	default:
		return Line{}
	}
	return l
}

func (l *Line) remote(host, port string) {
	if a, err := netip.ParseAddr(host); err == nil {
		l.RemoteIP = a.Unmap().String()
	} else {
		l.Device = host
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		l.Port = int64(n)
	}
}

// stamp takes the time off a line: RFC 3339 (rsyslog's own form and that of
// journalctl -o short-iso) or "Jan _2 15:04:05" of RFC 3164, which has no year.
func stamp(line string, now time.Time) (time.Time, string) {
	if len(line) > 16 && line[0] >= 'A' && line[0] <= 'Z' {
		if t, err := time.ParseInLocation(time.Stamp, line[:15], now.Location()); err == nil {
			t = t.AddDate(now.Year()-t.Year(), 0, 0)
			if t.After(now.Add(24 * time.Hour)) {
				t = t.AddDate(-1, 0, 0) // of December, read in January
			}
			return t.UTC(), line[16:]
		}
	}
	first, rest, _ := strings.Cut(line, " ")
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999-0700"} {
		if t, err := time.Parse(form, first); err == nil {
			return t.UTC(), rest
		}
	}
	return now.UTC(), line
}
