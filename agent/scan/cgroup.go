package scan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// cgroup limits the scanner processes together. A nil *cgroup does nothing: the
// resource limits of the processes hold without it.
type cgroup struct {
	dirs   []string // one in version 2, one for each controller in version 1
	memory string   // the limit, in bytes

	mu      sync.Mutex
	cpu     cpuFiles
	percent int    // of one CPU; 0 is no limit
	problem string // why nothing is in force
}

// cpuFiles are where the CPU limit of a group is written; dir is empty where no
// hierarchy has the controller.
type cpuFiles struct {
	dir string
	v2  bool
}

// cpuPeriod is the time in which a group may use its share, in µs: short, so
// that who waits for a scan waits for a short pause only.
const cpuPeriod = 20_000

// set writes a limit in percent of one CPU, 0 for none.
func (f cpuFiles) set(percent int) error {
	quota := "-1"
	if percent > 0 {
		quota = strconv.Itoa(percent * cpuPeriod / 100)
	}
	if f.v2 {
		if percent == 0 {
			quota = "max"
		}
		return os.WriteFile(filepath.Join(f.dir, "cpu.max"), []byte(quota+" "+strconv.Itoa(cpuPeriod)), 0)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(f.dir, "cpu.cfs_period_us"), []byte(strconv.Itoa(cpuPeriod)), 0),
		os.WriteFile(filepath.Join(f.dir, "cpu.cfs_quota_us"), []byte(quota), 0))
}

const (
	cgroupName       = "bulwark-scanner"
	daemonCgroupName = "bulwark-daemon" // version 2: where the daemon moves to
)

// newCgroup makes the group below the daemon's own, with memory and CPU limits
// where the hierarchy lets us. memory is in bytes, cpuPercent 0 is no limit.
func newCgroup(memory int64, cpuPercent int) *cgroup {
	// Room for the mapped definitions, which the kernel can drop and read again,
	// and for two processes (low priority, change of definitions).
	g := &cgroup{memory: strconv.FormatInt(3*memory, 10)}
	own, err := ownCgroups()
	if err != nil {
		g.problem = err.Error()
		return g
	}
	var errs []error
	if path, ok := own["memory"]; ok {
		errs = append(errs, g.make(path, "memory.limit_in_bytes"))
		if path, ok := own["cpu"]; ok {
			errs = append(errs, g.make(path, ""))
			g.cpu.dir = g.dirs[len(g.dirs)-1]
		}
	} else if path, ok := own[""]; ok {
		if filepath.Base(path) == daemonCgroupName {
			path = filepath.Dir(path) // moved there before
		}
		errs = append(errs, enableControllers(path))
		errs = append(errs, g.make(path, "memory.max"))
		g.cpu = cpuFiles{g.dirs[len(g.dirs)-1], true}
	} else {
		errs = append(errs, errors.New("no cgroup hierarchy with a memory controller is mounted"))
	}
	if err := errors.Join(errs...); err != nil {
		g.remove()
		g.dirs, g.cpu = nil, cpuFiles{}
		g.problem = "no cgroup limits: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		return g
	}
	if err := g.limitCPU(cpuPercent); err != nil {
		g.problem = err.Error()
	}
	return g
}

// limitCPU changes the CPU limit of the processes together, in percent of one
// CPU; 0 is no limit.
func (g *cgroup) limitCPU(percent int) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if percent == g.percent {
		return nil
	}
	if g.cpu.dir == "" {
		return errors.New("the CPU of the scanners cannot be limited: no cgroup hierarchy with a cpu controller is ours")
	}
	if err := g.cpu.set(percent); err != nil {
		return fmt.Errorf("limit the CPU of the scanners: %w", err)
	}
	g.percent = percent
	return nil
}

// detail says what is in force, or why nothing is.
func (g *cgroup) detail() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := g.problem
	if len(g.dirs) > 0 {
		out = "memory limited to " + g.memory + " bytes"
		if g.percent > 0 {
			out += fmt.Sprintf(", CPU to %d %%", g.percent)
		}
		if g.problem != "" {
			out += "; " + g.problem
		}
	}
	return out
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

// make makes a group below parent with the memory limit in the named file; ""
// for none.
func (g *cgroup) make(parent, memoryFile string) error {
	dir := filepath.Join(parent, cgroupName+"-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	g.dirs = append(g.dirs, dir)
	if memoryFile == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, memoryFile), []byte(g.memory), 0)
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
