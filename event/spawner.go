package event

import (
	"path"
	"slices"
)

// spawners are programs whose descendants have nothing to do with each other:
// they start sessions, services, jobs and containers of everybody.
var spawners = []string{
	"systemd", "init", "openrc-init", "sshd", "sshd-session", "sshd-auth", "dropbear", "login", "su", "sudo", "agetty", "xinetd", "inetd",
	"cron", "crond", "anacron", "atd", "containerd", "containerd-shim", "containerd-shim-runc-v2", "dockerd", "conmon", "crio", "podman", "kubelet",
	"runc", "crun", "docker-init", "tini", "dumb-init", "catatonit", "runit", "runsvdir", "runsv", "s6-svscan", "s6-supervise", "supervisord",
	"tmux", "tmux: server", "screen", "dbus-daemon", "gdm3", "gdm", "gdm-session-worker", "lightdm", "sddm", "sddm-helper", "gnome-shell", "bulwarkd",
}

// Spawns reports whether the process starts what does not belong together: init,
// the kernel's own, or a program like the server of ssh, whose sessions are as
// many process trees.
func (p *Process) Spawns() bool {
	if p.PID <= 2 {
		return true
	}
	name := p.FileName
	if name == "" {
		name = path.Base(p.FolderPath)
	}
	return slices.Contains(spawners, name)
}
