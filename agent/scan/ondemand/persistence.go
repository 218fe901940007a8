package ondemand

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/nolink"
)

// Bounds on persistence points.
const (
	maxPointBytes = 64 << 10 // that much of each is read for paths
	maxReferences = 256      // of each
	maxPoints     = 20_000   // in all
	maxHomes      = 10_000
)

// systemPoints are where programs are named that the system starts by itself, as
// patterns of filepath.Glob below the root.
var systemPoints = []string{
	"etc/ld.so.preload",
	"etc/crontab", "etc/anacrontab", "etc/cron.*/*", "var/spool/cron/*", "var/spool/cron/*/*", "var/spool/at/*",
	"etc/systemd/system/*", "etc/systemd/system/*/*", "etc/systemd/user/*", "run/systemd/system/*",
	"usr/lib/systemd/system/*", "lib/systemd/system/*", "usr/local/lib/systemd/system/*",
	"etc/systemd/system-generators/*", "usr/lib/systemd/system-generators/*",
	"etc/init.d/*", "etc/rc.local", "etc/rc.d/rc.local", "etc/init/*.conf", "etc/inittab",
	"etc/profile", "etc/profile.d/*", "etc/bash.bashrc", "etc/bashrc", "etc/environment", "etc/zsh/*", "etc/fish/config.fish",
	"etc/udev/rules.d/*", "etc/modules-load.d/*", "etc/modprobe.d/*", "etc/pam.d/*",
	"etc/xdg/autostart/*", "etc/X11/Xsession.d/*", "etc/update-motd.d/*",
	"etc/NetworkManager/dispatcher.d/*", "etc/network/if-*.d/*", "etc/dhcp/dhclient-*-hooks.d/*",
	"etc/ssh/sshrc", "etc/apt/apt.conf.d/*", "etc/dbus-1/system.d/*", "usr/share/dbus-1/system-services/*",
}

// homePoints are the same below a home.
var homePoints = []string{
	".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".profile", ".zshrc", ".zshenv", ".zprofile", ".zlogin",
	".config/fish/config.fish", ".xinitrc", ".xsession", ".xprofile", ".ssh/rc", ".ssh/authorized_keys",
	".config/autostart/*", ".config/systemd/user/*", ".config/systemd/user/*/*", ".local/share/systemd/user/*",
}

// persistence hands over the files that have something started by itself, and
// the programs that they name, wherever those are.
func (r *run) persistence(v visitor, targets chan<- target) error {
	var points []string
	add := func(dir string, patterns []string) {
		for _, p := range patterns {
			found, err := filepath.Glob(filepath.Join(dir, p))
			if err == nil {
				points = append(points, found[:min(len(found), max(0, maxPoints-len(points)))]...)
			}
		}
	}
	add(r.m.cfg.Root, systemPoints)
	for _, home := range homes(filepath.Join(r.m.cfg.Root, "etc/passwd")) {
		add(filepath.Join(r.m.cfg.Root, home), homePoints)
	}
	named := map[string]bool{}
	for _, p := range points {
		f := r.lone(v, p)
		if f == nil {
			continue
		}
		for _, name := range references(io.NewSectionReader(f, 0, maxPointBytes)) {
			if len(named) < maxPoints {
				named[filepath.Join(r.m.cfg.Root, name)] = true
			}
		}
		if err := r.handLone(targets, f, p); err != nil {
			return err
		}
	}
	for name := range named {
		if f := r.lone(v, name); f != nil {
			if err := r.handLone(targets, f, name); err != nil {
				return err
			}
		}
		if err := r.ctx.Err(); err != nil {
			return context.Cause(r.ctx)
		}
	}
	return nil
}

// lone opens a file that is named by its path, links followed; nil for what is
// no regular file, or is none of this scan's business.
func (r *run) lone(v visitor, path string) *os.File {
	real, err := filepath.EvalSymlinks(path)
	if err != nil || r.excluded(path, false) || path != real && r.excluded(real, false) {
		return nil
	}
	for own := range v.own {
		if within(real, own) {
			return nil
		}
	}
	var f *os.File
	err = r.open(func() error {
		parent, err := nolink.OpenFolder(filepath.Dir(real))
		if err != nil {
			return err
		}
		defer unix.Close(parent)
		if ok, _ := v.enter(parent, ""); !ok {
			return errNotRegular
		}
		f, _, err = openRegular(parent, filepath.Base(real))
		return err
	}, func() { f.Close() })
	if err != nil {
		return nil // the walk tells, where the file is part of it
	}
	return f
}

// handLone hands over what lone opened, once.
func (r *run) handLone(targets chan<- target, f *os.File, path string) error {
	var st unix.Stat_t
	volume := r.volumes.of(int(f.Fd())).id
	known := unix.Fstat(int(f.Fd()), &st) != nil || r.once(&st) || r.unchanged(&st, volume, path)
	if known {
		f.Close()
		return nil
	}
	return r.hand(targets, target{f, path, st, volume})
}

// homes reads the home folders of /etc/passwd.
func homes(passwd string) []string {
	f, err := os.Open(passwd)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for lines := bufio.NewScanner(io.LimitReader(f, 8<<20)); lines.Scan() && len(out) < maxHomes; {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) >= 6 && len(fields[5]) > 1 && filepath.IsAbs(fields[5]) && !slices.Contains(out, fields[5]) {
			out = append(out, fields[5])
		}
	}
	return out
}

// references returns the absolute paths that a text names, each once.
func references(text io.Reader) []string {
	b, err := io.ReadAll(text)
	if err != nil {
		return nil
	}
	var out []string
	for _, word := range strings.FieldsFunc(string(b), func(c rune) bool {
		return c <= ' ' || strings.ContainsRune("\"'`=;:,|&()<>{}", c)
	}) {
		word = strings.TrimLeft(word, "-@+!") // systemd's prefixes of ExecStart
		if len(word) < 2 || len(word) > 4096 || word[0] != '/' || slices.Contains(out, word) {
			continue
		}
		if out = append(out, word); len(out) == maxReferences {
			break
		}
	}
	return out
}
