package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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
}

func (g *guest) agent() *agent {
	return &agent{g: g, api: control.Dial(layout.Default().Socket())}
}

// install installs a package of the payload; the agent then runs.
func (g *guest) install(deb string) error {
	return g.must("dpkg", "--force-confold", "-i", filepath.Join(payload, deb))
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

// ignored reports whether the kernel has an ignore mark of the agent on a file.
// It reads what the kernel says about the agent's fanotify groups.
func (g *guest) ignored(path string) (bool, error) {
	pid, err := g.pid()
	if err != nil {
		return false, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	device, err := superDevice(path)
	if err != nil {
		return false, err
	}
	ino := fmt.Sprintf(" ino:%x sdev:%x ", inode(info), device)
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil || len(files) == 0 {
		return false, errors.Join(err, fmt.Errorf("process %d has no descriptors", pid))
	}
	groups := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "fanotify flags:") {
				groups++
			}
			if !strings.HasPrefix(line, "fanotify ino:") || !strings.Contains(line, ino) {
				continue
			}
			_, mask, _ := strings.Cut(line, "ignored_mask:")
			mask, _, _ = strings.Cut(mask, " ")
			if mask != "" && strings.Trim(mask, "0") != "" {
				return true, nil
			}
		}
	}
	if groups == 0 {
		return false, errors.New("the agent has no fanotify group")
	}
	return false, nil
}
