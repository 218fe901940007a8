package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/api/control"
)

// unit is the agent's.
const unit = "bulwark.service"

// payload is where the second disk is mounted.
const payload = "/run/payload"

// agent is the installed agent.
type agent struct {
	g   *guest
	api *control.Client
	// process is the daemon where this program has started it, ended gets what
	// became of it.
	process *os.Process
	ended   chan error
}

func (g *guest) agent() *agent {
	return &agent{g: g, api: control.Dial(layout.Default().Socket())}
}

// start runs the unpacked agent of the payload without a supervisor: when it
// ends, the scenario has failed.
func (a *agent) start() error {
	dirs := layout.Default()
	if err := errors.Join(os.MkdirAll(dirs.Program, 0o755), os.MkdirAll(dirs.Log, 0o755)); err != nil {
		return err
	}
	if err := unix.Mount(filepath.Join(payload, "agent", dirs.Program), dirs.Program, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("programs of the agent: %w", err)
	}
	out, err := os.Create(agentOutput)
	if err != nil {
		return err
	}
	defer out.Close()
	// An emulated processor needs minutes to load the eBPF sensor, which is no
	// matter of file systems.
	cmd := exec.Command(filepath.Join(dirs.Program, "bin", "bulwarkd"), "run", "--sensors", "proc-connector")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	a.process, a.ended = cmd.Process, make(chan error, 1)
	go func() { a.ended <- fmt.Errorf("the agent has ended: %w", cmd.Wait()) }()
	return nil
}

// agentOutput is what an agent without systemd prints.
const agentOutput = "/run/agent.out"

// pid is the daemon's process.
func (a *agent) pid() (int, error) {
	if a.process == nil {
		return a.g.pid()
	}
	select {
	case err := <-a.ended:
		a.ended <- err
		return 0, err
	default:
		return a.process.Pid, nil
	}
}

// script runs commands of the documentation, as the payload has them.
func (g *guest) script(name string) error {
	return g.must("env", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", "sh", filepath.Join(payload, name))
}

// property is a property of the agent's unit.
func (g *guest) property(name string) (string, error) {
	out, err := g.command("systemctl", "show", "--value", "-p", name, unit)
	if err != nil {
		return "", fmt.Errorf("property %s of %s: %w: %s", name, unit, err, out)
	}
	return out, nil
}

// pid is the agent's process.
func (g *guest) pid() (int, error) {
	s, err := g.property("MainPID")
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(s)
	if err != nil || pid == 0 {
		return 0, fmt.Errorf("the unit's main process is %q", s)
	}
	return pid, nil
}

// protecting waits until the agent holds accesses.
func (a *agent) protecting() error {
	return until("the agent protects", func() error {
		h, err := a.api.Health(a.g.ctx)
		if err != nil {
			return err
		}
		if !h.RealTimeAvailable || !h.RealTimeEnabled || h.EnforcementLevel != "real_time" || h.DefinitionsVersion == "" {
			return fmt.Errorf("health: available %v, enabled %v, level %s, definitions %q, issues %v",
				h.RealTimeAvailable, h.RealTimeEnabled, h.EnforcementLevel, h.DefinitionsVersion, h.HealthIssues)
		}
		blocking, err := a.detail("blocking")
		if err != nil {
			return err
		}
		if blocking != true {
			return fmt.Errorf("blocking is %v", blocking)
		}
		return nil
	})
}

// detail is a field of `bulwark health --details antivirus`.
func (a *agent) detail(name string) (any, error) {
	d, err := a.api.HealthDetails(a.g.ctx, "antivirus")
	if err != nil {
		return nil, err
	}
	for _, f := range d.Fields {
		if f.Name == name {
			return f.Value, nil
		}
	}
	return nil, fmt.Errorf("health details have no field %q", name)
}

// number is a numeric detail.
func (a *agent) number(name string) (float64, error) {
	v, err := a.detail(name)
	if err != nil {
		return 0, err
	}
	n, ok := v.(float64)
	if !ok {
		return 0, fmt.Errorf("%s is %v, which is no number", name, v)
	}
	return n, nil
}

// quarantined waits until files are gone from their places and in quarantine;
// it returns the item of the last.
func (a *agent) quarantined(paths ...string) (control.QuarantineItem, error) {
	var found control.QuarantineItem
	err := until(fmt.Sprintf("these files are quarantined: %v", paths), func() error {
		list, err := a.api.Quarantine(a.g.ctx)
		if err != nil {
			return err
		}
		items := map[string]control.QuarantineItem{}
		for _, item := range list.Items {
			items[string(item.Path)] = item
		}
		for _, path := range paths {
			item, ok := items[path]
			if !ok {
				return fmt.Errorf("the quarantine has %d items, and not %s", len(items), path)
			}
			got, err := open(path)
			if err := want(got, err, absent); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			found = item
		}
		return nil
	})
	return found, err
}

// marks are what the kernel says about the marks of the agent's fanotify groups:
// each gets the lines of fdinfo until it is done.
func (a *agent) marks(each func(line string) (done bool)) error {
	pid, err := a.pid()
	if err != nil {
		return err
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	groups := 0
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err != nil || target != "anon_inode:[fanotify]" {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd.Name()))
		if err != nil {
			return err
		}
		groups++
		for line := range strings.Lines(string(b)) {
			if each(line) {
				return nil
			}
		}
	}
	if groups == 0 {
		return errors.New("the agent has no fanotify group")
	}
	return nil
}

// ignored reports whether the kernel has an ignore mark of the agent on a file.
func (a *agent) ignored(path string) (found bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	device, err := superDevice(path)
	if err != nil {
		return false, err
	}
	ino := fmt.Sprintf(" ino:%x sdev:%x ", inode(info), device)
	err = a.marks(func(line string) bool {
		if !strings.HasPrefix(line, "fanotify ino:") || !strings.Contains(line, ino) {
			return false
		}
		_, mask, _ := strings.Cut(line, "ignored_mask:")
		mask, _, _ = strings.Cut(strings.TrimSpace(mask), " ")
		found = strings.Trim(mask, "0") != ""
		return found
	})
	return found, err
}

// watches is nil when the kernel has a mark of the agent on the file system at a
// mount point.
func (a *agent) watches(point string) error {
	device, err := superDevice(point)
	if err != nil {
		return err
	}
	found := false
	err = a.marks(func(line string) bool {
		found = strings.HasPrefix(line, fmt.Sprintf("fanotify sdev:%x ", device))
		return found
	})
	if err == nil && !found {
		err = fmt.Errorf("no mark on device %x", device)
	}
	return err
}
