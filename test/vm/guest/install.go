package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/control"
)

// stateFolder keeps what has to outlast a reboot.
const stateFolder = "/srv/vm-test"

// managedInstallation holds accesses although no portal says so;
// managedWithoutEBPF is the same for what starts later: an emulated processor
// needs a minute for loading the eBPF sensor, and once is enough.
const (
	managedInstallation = `{"antivirusEngine": {"enforcementLevel": "real_time"}}`
	managedWithoutEBPF  = `{"antivirusEngine": {"enforcementLevel": "real_time"}, "features": {"ebpfSupplementaryEventProvider": "disabled"}}`
)

// onboardingPackage is what the portal gives out for this machine.
const onboardingPackage = "/root/onboard.json"

// The channels of the repository: prod has the version that is installed first,
// insiders-fast a newer one, too.
const (
	firstVersion = "0.9.1-1"
	repository   = "/etc/apt/sources.list.d/bulwark.sources"
)

// installation takes the package through its life under systemd, from a repository
// that a portal serves. The second boot goes on where the first ended.
func installation(g *guest) error {
	if err := networkUp(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(stateFolder, "rebooted")); err == nil {
		return afterReboot(g)
	}
	if err := os.MkdirAll(stateFolder, 0o755); err != nil {
		return err
	}
	before, err := listing()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(stateFolder, "before"), []byte(strings.Join(before, "\n")), 0o600); err != nil {
		return err
	}
	a := g.agent()
	if err := all(
		func() error { return configure(managedInstallation) },
		func() error { return copyFile(filepath.Join(payload, "onboard.json"), onboardingPackage) },
		func() error { return g.script("install.sh") },
		func() error { g.logf("the package is installed"); return nil },
		a.protecting,
	); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	g.check("version of the channel", func() error { return g.installed(firstVersion) })
	g.check("onboarded", a.onboarded)
	g.check("unit", func() error { return g.unit("active", "enabled") })
	g.check("kernel features", a.kernelFeatures)
	g.check("bad file refused and quarantined", func() error { return a.catches("installed") })
	g.check("self-test", a.selfTest)
	g.check("control groups", a.controlGroups)
	g.check("coverage", a.everythingCovered)
	if err := configure(managedWithoutEBPF); err != nil {
		return err
	}
	g.check("killed", a.killed)
	g.check("control groups after a restart", a.controlGroups)
	g.check("drop-in", g.dropIn)
	if err := os.WriteFile(filepath.Join(stateFolder, "rebooted"), nil, 0o600); err != nil {
		return err
	}
	return errReboot
}

func afterReboot(g *guest) error {
	a := g.agent()
	if err := a.protecting(); err != nil {
		return fmt.Errorf("after a reboot: %w", err)
	}
	g.check("unit after a reboot", func() error { return g.unit("active", "enabled") })
	g.check("bad file refused after a reboot", func() error { return a.catches("rebooted") })
	g.check("history after a reboot", func() error { return a.remembers("installed") })
	g.check("still onboarded after a reboot", a.onboarded)
	g.check("upgrade under load", func() error { return a.exchange("upgraded", g.upgrade) })
	g.check("downgrade under load", func() error { return a.exchange("downgraded", g.downgrade) })
	g.check("nothing in the agent failed", g.noFailures)
	g.check("everything is sent", func() error { return a.sent("downgraded") })
	g.check("offboard", a.offboarded)
	g.check("onboard again", a.onboardedAgain)
	g.check("remove", g.removed)
	g.check("purge", g.purged)
	return nil
}

// unit checks the state of the agent's unit.
func (g *guest) unit(active, enabled string) error {
	var errs []error
	for name, want := range map[string]string{"ActiveState": active, "UnitFileState": enabled} {
		got, err := g.property(name)
		if err != nil || got != want {
			errs = append(errs, fmt.Errorf("%s is %q, want %s: %w", name, got, want, err))
		}
	}
	return errors.Join(errs...)
}

// kernelFeatures checks what the agent says about this kernel, 6.1: it has
// everything that the agent can use.
func (a *agent) kernelFeatures() error {
	var errs []error
	for _, name := range []string{"kernel_permission_events", "kernel_exec_events", "kernel_filesystem_marks", "kernel_evictable_marks"} {
		v, err := a.detail(name)
		if err != nil || v != true {
			errs = append(errs, fmt.Errorf("%s is %v: %w", name, v, err))
		}
	}
	// And the command says so.
	out, err := a.g.command("bulwark", "health", "--details", "antivirus")
	if err != nil || !strings.Contains(out, "kernel_filesystem_marks") {
		errs = append(errs, fmt.Errorf("bulwark health --details antivirus: %w: %s", err, out))
	}
	return errors.Join(errs...)
}

// allowances are the counters of accesses that the agent allows without a
// verdict, to be scanned behind them: an emulated processor that does something
// else beside can be too slow for a deadline.
var allowances = []string{"deadlines_missed", "released_by_guard", "allowed_queue_full", "allowed_saturated", "allowed_scanner_stalled"}

// allowances are how many accesses the agent has allowed without a verdict.
func (a *agent) allowances() (float64, error) {
	var sum float64
	for _, name := range allowances {
		n, err := a.number(name)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// catches writes a bad file of that name, which must be refused and quarantined.
// An open that is allowed must be counted as one without a verdict; the file is
// quarantined nevertheless, also where the guard let it go, without another open.
// The next one has to be refused.
func (a *agent) catches(name string) error {
	path := filepath.Join("/srv", name+".com")
	return until("the open of a bad file is refused", func() error {
		before, err := a.allowances()
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, eicar, 0o755); err != nil {
			return err
		}
		got, openErr := open(path)
		if _, err := a.quarantined(path); err != nil {
			a.explain()
			return final{fmt.Errorf("%w; its open: %s, %w", err, got, openErr)}
		}
		after, err := a.allowances()
		if err != nil {
			return err
		}
		err = want(got, openErr, denied, absent)
		if got == allowed && after > before {
			a.g.logf("%s: an open was allowed, %.0f accesses had no verdict in time", path, after-before)
			return err
		}
		if err != nil {
			err = final{fmt.Errorf("open of a bad file: %w; %.0f accesses had no verdict in time", err, after-before)}
		}
		return err
	})
}

// remembers checks that a quarantined file still is.
func (a *agent) remembers(name string) error {
	_, err := a.quarantined(filepath.Join("/srv", name+".com"))
	return err
}

// selfTest runs the agent's own test, up to the arrival at the portal.
func (a *agent) selfTest() error {
	var errs []error
	ran := 0
	var skipped []string
	err := a.api.SelfTest(a.g.ctx, func(s control.SelfTestStep) error {
		a.g.logf("self-test: %s %s after %.0f ms: %s", s.Name, s.Status, s.DurationMS, s.Detail)
		switch s.Status {
		case control.StepOK:
			ran++
		case control.StepSkipped:
			skipped = append(skipped, s.Name)
		case control.StepFailed:
			errs = append(errs, fmt.Errorf("step %s: %s", s.Name, s.Detail))
		}
		return nil
	})
	if ran < 5 || len(skipped) != 0 {
		errs = append(errs, fmt.Errorf("%d steps passed, %q were skipped; want 5 and none", ran, skipped))
	}
	return errors.Join(append(errs, err)...)
}

// controlGroups waits until the scanner is in a group with limits that the kernel
// applies, below the unit's, and the daemon is not in it: a scanner may be about to
// be replaced by one with newer definitions.
func (a *agent) controlGroups() error {
	return until("the scanner is in its control group", a.inControlGroups)
}

func (a *agent) inControlGroups() error {
	detail, err := a.detail("scanner_limits")
	if err != nil {
		return err
	}
	pid, err := a.g.pid()
	if err != nil {
		return err
	}
	daemon, err := groupOf(pid)
	if err != nil {
		return err
	}
	pids, err := scanners()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		group, err := groupOf(pid)
		if err != nil {
			return err
		}
		unitGroup := "/system.slice/" + unit
		if group == daemon || filepath.Dir(group) != unitGroup || !strings.HasPrefix(daemon, unitGroup) {
			return fmt.Errorf("the scanner is in group %s, the daemon in %s; the agent says %q", group, daemon, detail)
		}
		for name, unlimited := range map[string]string{"memory.max": "max", "cpu.max": "max 100000"} {
			b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", group, name))
			if err != nil {
				return err
			}
			value := strings.TrimSpace(string(b))
			a.g.logf("the scanner's %s is %s (%v)", name, value, detail)
			if name == "memory.max" && value == unlimited {
				return errors.New("the scanner's memory is not limited")
			}
		}
	}
	return nil
}

// scanners are the scanner processes.
func scanners() ([]int, error) {
	var out []int
	stats, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		args := strings.Split(string(b), "\x00")
		if len(args) < 2 || filepath.Base(args[0]) != "bulwarkd" || args[1] != "scanner" {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			out = append(out, pid)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there is no scanner process")
	}
	return out, nil
}

// groupOf is a process's group in the unified hierarchy.
func groupOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path), nil
		}
	}
	return "", fmt.Errorf("process %d has no group in the unified hierarchy: %q", pid, b)
}

// everythingCovered asks the agent to prove its protection of every mount.
func (a *agent) everythingCovered() error {
	c, err := a.api.CheckCoverage(a.g.ctx)
	if err != nil {
		return err
	}
	if c.Protected == 0 || c.Unprotected+c.Unproven != 0 {
		return fmt.Errorf("%d protected, %d unprotected, %d unproven: %+v", c.Protected, c.Unprotected, c.Unproven, c.Mounts)
	}
	return nil
}

// killed kills the daemon, which systemd starts again.
func (a *agent) killed() error {
	old, err := a.g.pid()
	if err != nil {
		return err
	}
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		return err
	}
	// Nobody is held by a dead daemon.
	got, err := open("/etc/os-release")
	if err := want(got, err, allowed); err != nil {
		return err
	}
	err = until("systemd has started it again", func() error {
		pid, err := a.g.pid()
		if err == nil && pid == old {
			err = errors.New("the same process")
		}
		return err
	})
	return all(func() error { return err }, a.protecting, func() error { return a.catches("killed") })
}

// dropInFile is an administrator's.
const dropInFile = "/etc/systemd/system/" + unit + ".d/site.conf"

// dropIn changes the unit as an administrator would; later checks see that it
// stays.
func (g *guest) dropIn() error {
	return all(
		func() error { return os.MkdirAll(filepath.Dir(dropInFile), 0o755) },
		func() error { return os.WriteFile(dropInFile, []byte("[Service]\nEnvironment=SITE=1\n"), 0o644) },
		func() error { return g.must("systemctl", "daemon-reload") },
	)
}

// installed checks which version is.
func (g *guest) installed(want string) error {
	out, err := g.command("dpkg-query", "-W", "-f=${db:Status-Status} ${Version}", "bulwark")
	if err == nil && out != "installed "+want {
		err = fmt.Errorf("%q, want installed %s", out, want)
	}
	return err
}

// onboarded waits until the portal knows the machine.
func (a *agent) onboarded() error {
	return until("the portal knows the machine", func() error {
		h, err := a.api.Health(a.g.ctx)
		if err == nil && (!h.Licensed || h.PortalStatus != "connected") {
			err = fmt.Errorf("licensed %v, portal %s, issues %v", h.Licensed, h.PortalStatus, h.HealthIssues)
		}
		return err
	})
}

// sent waits until the portal has the alert on the bad file of that name, and all
// alerts and events before.
func (a *agent) sent(name string) error {
	path := filepath.Join("/srv", name+".com")
	raised := func() error {
		return until("the alert on "+path+" is raised", func() error {
			o, err := a.api.Outgoing(a.g.ctx)
			if err == nil && !slices.ContainsFunc(o.Alerts, func(al json.RawMessage) bool { return strings.Contains(string(al), path) }) {
				err = fmt.Errorf("the last %d alerts are about other files", len(o.Alerts))
			}
			return err
		})
	}
	nothingWaits := func() error {
		time.Sleep(flushed)
		return until("nothing waits to be sent", func() error {
			h, err := a.api.Health(a.g.ctx)
			if err == nil && h.EventsWaiting != 0 {
				err = fmt.Errorf("%d batches wait", h.EventsWaiting)
			}
			return err
		})
	}
	return all(raised, nothingWaits, nothingWaits)
}

// flushed is longer than what waits for the portal is in memory only, where it is not
// counted: a second, and the time to write it on an emulated processor.
const flushed = 5 * time.Second

// upgrade follows another channel, which has a newer version.
func (g *guest) upgrade() error {
	b, err := os.ReadFile(repository)
	if err != nil {
		return err
	}
	text := strings.Replace(string(b), "Suites: bookworm", "Suites: insiders-fast", 1)
	if text == string(b) {
		return fmt.Errorf("%s has no channel prod: %s", repository, b)
	}
	return all(
		func() error { return os.WriteFile(repository, []byte(text), 0o644) },
		func() error { return g.script("upgrade.sh") },
	)
}

// downgrade goes back to the first version, which the channel has, too.
func (g *guest) downgrade() error {
	return all(
		func() error { return g.must("apt-get", "install", "-y", "--allow-downgrades", "bulwark="+firstVersion) },
		func() error { return g.installed(firstVersion) },
	)
}

// offboarded leaves the portal, by the portal's script.
func (a *agent) offboarded() error {
	if err := a.g.script("offboard.sh"); err != nil {
		return err
	}
	if _, err := os.Lstat("/etc/opt/bulwark/onboard.json"); err == nil {
		return errors.New("the onboarding package is there after offboarding")
	}
	h, err := a.api.Health(a.g.ctx)
	if err == nil && (h.Licensed || h.PortalStatus != "not_enrolled" || !h.RealTimeEnabled) {
		err = fmt.Errorf("after offboarding: licensed %v, portal %s, real-time protection %v", h.Licensed, h.PortalStatus, h.RealTimeEnabled)
	}
	return err
}

// onboardedAgain comes back, with the onboarding package dropped in its place.
func (a *agent) onboardedAgain() error {
	return all(
		func() error { return copyFile(onboardingPackage, "/etc/opt/bulwark/onboard.json") },
		a.onboarded,
		func() error { return a.catches("again") },
		func() error { return a.sent("again") },
	)
}

// exchange installs another version while files are opened, written and
// executed all the time: none of that may fail or be held.
func (a *agent) exchange(name string, install func() error) error {
	before, err := a.api.Version(a.g.ctx)
	if err != nil {
		return err
	}
	l := startLoad()
	err = install()
	if err == nil {
		err = a.protecting()
	}
	ops, loadErr := l.stop()
	if err := errors.Join(err, loadErr); err != nil {
		return err
	}
	after, err := a.api.Version(a.g.ctx)
	if err != nil {
		return err
	}
	if before.App == after.App {
		return fmt.Errorf("the daemon is still version %s", after.App)
	}
	a.g.logf("from %s to %s, under a load of %d accesses", before.App, after.App, ops)
	env, err := a.g.property("Environment")
	if err != nil || !strings.Contains(env, "SITE=1") {
		return fmt.Errorf("the administrator's drop-in has no effect: %q, %w", env, err)
	}
	return all(
		func() error { return a.g.unit("active", "enabled") },
		func() error { return a.catches(name) },
		func() error { return a.remembers("installed") },
		func() error { return a.controlGroups() },
	)
}

// load is work that must not notice anything.
type load struct {
	quit chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	ops  int
	err  error
}

func startLoad() *load {
	l := &load{quit: make(chan struct{})}
	for worker := range 2 {
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			path := fmt.Sprintf("/srv/load.%d", worker)
			defer os.Remove(path)
			for i := 0; ; i++ {
				select {
				case <-l.quit:
					return
				case <-time.After(500 * time.Millisecond): // an emulated processor has other things to do
				}
				content := []byte(fmt.Sprintf("%d.%d", worker, i))
				got, err := bounded(func() error {
					if err := os.WriteFile(path, content, 0o600); err != nil {
						return err
					}
					b, err := os.ReadFile(path)
					if err == nil && string(b) != string(content) {
						err = fmt.Errorf("read %q, wrote %q", b, content)
					}
					return err
				})
				err = want(got, err, allowed)
				l.mu.Lock()
				l.ops++
				if err != nil && l.err == nil {
					l.err = fmt.Errorf("load: %w", err)
				}
				l.mu.Unlock()
			}
		}()
	}
	return l
}

func (l *load) stop() (int, error) {
	close(l.quit)
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && l.ops < 10 {
		l.err = fmt.Errorf("the load did %d accesses only", l.ops)
	}
	return l.ops, l.err
}

// noFailures looks for what the kernel and systemd complain about.
func (g *guest) noFailures() error {
	failed, err := g.command("systemctl", "list-units", "--failed", "--plain", "--no-legend")
	if err != nil || failed != "" {
		return fmt.Errorf("failed units: %q, %w", failed, err)
	}
	out, err := g.command("journalctl", "-k", "-p", "warning", "--no-pager", "-q")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		for _, bad := range []string{"hung_task", "blocked for more than", "BUG:"} {
			if strings.Contains(line, bad) {
				return fmt.Errorf("the kernel says: %s", line)
			}
		}
	}
	return nil
}
