package scan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// cgroup limits the scanner processes together. A nil *cgroup does nothing: the
// resource limits of the processes hold without it.
type cgroup struct {
	dirs   []string // one in version 2, one for each controller in version 1
	detail string   // what is in force, or why nothing is
}

const (
	cgroupName       = "bulwark-scanner"
	daemonCgroupName = "bulwark-daemon" // version 2: where the daemon moves to
)

// newCgroup makes the group below the daemon's own, with memory and CPU limits
// where the hierarchy lets us. memory is in bytes, cpuPercent 0 is no limit.
func newCgroup(memory int64, cpuPercent int) *cgroup {
	g := &cgroup{}
	own, err := ownCgroups()
	if err != nil {
		g.detail = err.Error()
		return g
	}
	// Room for the mapped definitions, which the kernel can drop and read again,
	// and for two processes (low priority, change of definitions).
	limit := strconv.FormatInt(3*memory, 10)
	var errs []error
	if path, ok := own["memory"]; ok {
		errs = append(errs, g.make(path, map[string]string{"memory.limit_in_bytes": limit}))
		if path, ok := own["cpu"]; ok && cpuPercent > 0 {
			errs = append(errs, g.make(path, map[string]string{
				"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": strconv.Itoa(cpuPercent * 1000),
			}))
		}
	} else if path, ok := own[""]; ok {
		if filepath.Base(path) == daemonCgroupName {
			path = filepath.Dir(path) // moved there before
		}
		errs = append(errs, enableControllers(path))
		set := map[string]string{"memory.max": limit}
		if cpuPercent > 0 {
			set["cpu.max"] = fmt.Sprintf("%d 100000", cpuPercent*1000)
		}
		errs = append(errs, g.make(path, set))
	} else {
		errs = append(errs, errors.New("no cgroup hierarchy with a memory controller is mounted"))
	}
	if err := errors.Join(errs...); err != nil {
		g.remove()
		g.dirs = nil
		g.detail = "no cgroup limits: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		return g
	}
	g.detail = fmt.Sprintf("memory limited to %s bytes", limit)
	if cpuPercent > 0 {
		g.detail += fmt.Sprintf(", CPU to %d %%", cpuPercent)
	}
	return g
}

// enableControllers lets groups below path have limits. The kernel refuses that
// while path has processes of its own ("no internal processes"), so the daemon
// moves to a group below it first, as systemd wants it of units with Delegate=
// (CGROUP_DELEGATION, "Three different tree setups"), and takes along what it has
// started so far. A group that has other processes, too, is not the daemon's own
// and stays as it is.
func enableControllers(path string) error {
	control := filepath.Join(path, "cgroup.subtree_control")
	err := os.WriteFile(control, []byte("+memory +cpu"), 0)
	// Whoever is started meanwhile is in the old group again.
	for round := 0; errors.Is(err, syscall.EBUSY) && round < 5; round++ {
		if err := moveDown(path); err != nil {
			return err
		}
		err = os.WriteFile(control, []byte("+memory +cpu"), 0)
	}
	return err
}

// moveDown moves the processes of the group to one below it.
func moveDown(path string) error {
	pids, err := readPIDs(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if !descends(pid, os.Getpid(), parentOf) {
			return fmt.Errorf("%s is not the daemon's own: process %d is in it", path, pid)
		}
	}
	own := filepath.Join(path, daemonCgroupName)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, pid := range pids {
		err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("moving process %d: %w", pid, err)
		}
	}
	return nil
}

// readPIDs reads a cgroup.procs file.
func readPIDs(path string) ([]int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the processes of the group: %w", err)
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("reading the processes of the group: %s: %w", path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// descends reports whether a process is ancestor or one of its descendants. One
// that has gone meanwhile counts: nobody is harmed.
func descends(pid, ancestor int, parent func(int) (int, error)) bool {
	for range 64 {
		if pid == ancestor {
			return true
		}
		up, err := parent(pid)
		if err != nil {
			return true
		}
		if up <= 1 { // the init process, or from outside the pid namespace
			return false
		}
		pid = up
	}
	return false
}

// parentOf reads a process's parent from /proc/PID/stat.
func parentOf(pid int) (int, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// "PID (name) state parent ...", and the name may contain anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat has no parent", pid)
	}
	return strconv.Atoi(fields[1])
}

func (g *cgroup) make(parent string, set map[string]string) error {
	dir := filepath.Join(parent, cgroupName+"-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	g.dirs = append(g.dirs, dir)
	for name, value := range set {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

func (g *cgroup) add(pid int) error {
	if g == nil {
		return nil
	}
	for _, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("moving process %d: %w", pid, err)
		}
	}
	return nil
}

func (g *cgroup) remove() {
	if g == nil {
		return
	}
	for _, dir := range g.dirs {
		_ = os.Remove(dir) // a directory of a virtual file system; gone with the machine at the latest
	}
}

// ownCgroups returns the directories of the daemon's groups by controller; the
// version 2 hierarchy has the name "" and is absent where version 1 has the
// memory controller.
func ownCgroups() (map[string]string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("reading the daemon's cgroups: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("reading the mounted cgroup hierarchies: %w", err)
	}
	return parseCgroups(string(data), string(mounts)), nil
}

// parseCgroups reads /proc/PID/cgroup ("4:memory:/path") and /proc/PID/mounts.
func parseCgroups(groups, mounts string) map[string]string {
	points := map[string]string{} // controller -> mount point
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch f[2] {
		case "cgroup2":
			points[""] = f[1]
		case "cgroup":
			for _, option := range strings.Split(f[3], ",") {
				if option == "memory" || option == "cpu" {
					points[option] = f[1]
				}
			}
		}
	}
	out := map[string]string{}
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, controller := range strings.Split(f[1], ",") {
			if point, ok := points[controller]; ok {
				out[controller] = filepath.Join(point, f[2])
			}
		}
	}
	return out
}
