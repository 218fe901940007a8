// Package logon tells who logs on to the host. Where the kernel's audit is on,
// package audit does that with the help of Type and Admins; Sensor does it from
// wtmp, btmp and the log of the authentication.
package logon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Values of the column LogonType.
const (
	Interactive = "Interactive"
	Remote      = "RemoteInteractive"
	Network     = "Network"
	Batch       = "Batch"
	Service     = "Service"
)

// Values of the column FailureReason.
const (
	UnknownUser = "UnknownUser"
	BadPassword = "InvalidUserNameOrPassword"
	Restricted  = "AccountRestriction"
)

// Type tells from the program that lets a user in, and its terminal, what kind
// of logon it is and by which protocol.
func Type(program, terminal string) (kind, protocol string) {
	switch program {
	case "sshd", "sshd-session", "dropbear":
		return Remote, "ssh"
	case "cron", "crond", "atd", "anacron", "CRON":
		return Batch, strings.ToLower(program)
	case "systemd", "systemd-executor", "(systemd)", "systemd-user":
		return Service, "systemd"
	case "su", "sudo", "login", "runuser", "doas", "pkexec", "su-l", "agetty",
		"gdm-session-worker", "gdm-password", "sddm-helper", "sddm", "lightdm", "kdm", "xdm", "lxdm":
		return Interactive, program
	case "in.telnetd", "telnetd", "rlogind", "xrdp-sesman":
		return Remote, program
	}
	terminal = strings.TrimPrefix(terminal, "/dev/")
	if strings.HasPrefix(terminal, "tty") || strings.HasPrefix(terminal, "pts") || strings.HasPrefix(terminal, ":") {
		return Interactive, program
	}
	return Network, program
}

const (
	adminRecheck = 5 * time.Second
	maxFile      = 8 << 20
)

// Admins tells which accounts may become root: those with the user id 0 and the
// members of the groups sudo, wheel, admin and root. The zero value reads the
// files of this host.
type Admins struct {
	Root string // folder that /etc is below; empty for /

	mu      sync.Mutex
	names   map[string]bool
	checked time.Time
}

// Is reports whether account is one.
func (a *Admins) Is(account string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); now.Sub(a.checked) > adminRecheck {
		a.checked = now
		a.names = a.read()
	}
	return a.names[account]
}

func (a *Admins) read() map[string]bool {
	names := map[string]bool{}
	gids := map[string]bool{"0": true}
	lines := func(path string, n int, each func([]string)) {
		b, err := os.ReadFile(filepath.Join("/", a.Root, path))
		if err != nil || len(b) > maxFile {
			return
		}
		for l := range bytes.SplitSeq(b, []byte("\n")) {
			if f := strings.Split(string(l), ":"); len(f) >= n {
				each(f)
			}
		}
	}
	lines("/etc/group", 4, func(f []string) {
		switch f[0] {
		case "sudo", "wheel", "admin", "root":
			gids[f[2]] = true
			for m := range strings.SplitSeq(f[3], ",") {
				if m != "" {
					names[m] = true
				}
			}
		}
	})
	lines("/etc/passwd", 4, func(f []string) {
		if f[2] == "0" || gids[f[3]] {
			names[f[0]] = true
		}
	})
	return names
}
