// Command guest is the program that systemd starts in the virtual machine of
// package vm. It does what the kernel command line names as vm.scenario and
// reports over a serial port.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/fuseserver"
	"github.com/bulwarkhq/bulwark/test/vm/report"
)

// lifetime ends a machine that hangs, from the inside.
const lifetime = 44 * time.Minute

// scenarios are what a machine can be started for. They return nil when
// done, errReboot to be called again after a reboot.
var scenarios = map[string]func(*guest) error{
	"filesystems":  filesystemMatrix,
	"installation": installation,
}

// errReboot is what a scenario returns to go on after a reboot.
var errReboot = errors.New("reboot")

func main() {
	if len(os.Args) == 4 && os.Args[1] == "fuse" {
		if err := fuseserver.Serve(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == "read" {
		if err := readTimes(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		return
	}
	setUpErr := error(nil)
	if os.Getpid() == 1 {
		setUpErr = setUp()
	}
	port, err := openPort()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err) // to the journal: there is nothing else
		os.Exit(1)
	}
	w := report.NewWriter(port)
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	defer cancel()
	g := &guest{ctx: ctx, report: w, started: time.Now()}
	time.AfterFunc(lifetime, func() {
		w.Send(report.Message{Check: &report.Check{Name: "machine", Failure: "not done in " + lifetime.String()}})
		g.journal()
		powerOff()
	})
	if err = setUpErr; err == nil {
		err = g.scenario()
	}
	if errors.Is(err, errReboot) {
		w.Send(report.Message{Log: "reboot", Reboot: true})
		if out, err := g.command("systemctl", "reboot"); err != nil {
			g.fail("reboot", fmt.Errorf("%w: %s", err, out))
			powerOff()
		}
		select {} // until systemd ends this program
	}
	if err != nil {
		g.fail("scenario", err)
	}
	g.processorTime()
	if g.failed {
		g.journal()
	}
	w.Send(report.Message{Done: true})
	powerOff()
}

// openPort opens the serial port; its driver may still be at work.
func openPort() (*os.File, error) {
	end := time.Now().Add(time.Minute)
	for {
		ports, err := filepath.Glob("/dev/vport*p*")
		if err == nil && len(ports) > 0 {
			return os.OpenFile(ports[0], os.O_WRONLY, 0)
		}
		if time.Now().After(end) {
			return nil, errors.New("no serial port /dev/vport*")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// powerOff ends the machine at once: its disk is thrown away.
func powerOff() {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "guest: power off:", err)
	}
	select {}
}

// guest is the machine as a scenario sees it.
type guest struct {
	ctx     context.Context
	report  *report.Writer
	started time.Time
	failed  bool
}

func (g *guest) scenario() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	name, err := commandLine("vm.scenario")
	if err != nil {
		return err
	}
	run, ok := scenarios[name]
	if !ok {
		return fmt.Errorf("the kernel command line names no scenario that there is: %q", name)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return err
	}
	up, _, _ := strings.Cut(string(uptime), " ")
	g.logf("scenario %s on Linux %s, %s s after the kernel's start", name, unix.ByteSliceToString(uts.Release[:]), up)
	return run(g)
}

// commandLine is a parameter of the kernel's command line.
func commandLine(name string) (string, error) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for _, f := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v, nil
		}
	}
	return "", nil
}

func (g *guest) logf(format string, args ...any) { g.report.Logf(format, args...) }

// check reports whether something holds.
func (g *guest) check(name string, f func() error) bool {
	err := f()
	if err != nil {
		g.fail(name, err)
		return false
	}
	g.report.Send(report.Message{Check: &report.Check{Name: name}})
	return true
}

func (g *guest) fail(name string, err error) {
	g.failed = true
	g.report.Send(report.Message{Check: &report.Check{Name: name, Failure: err.Error()}})
}

// journal sends the end of the journal and of the agent's own log.
func (g *guest) journal() {
	if os.Getpid() != 1 {
		out, err := g.command("journalctl", "-n", "150", "--no-pager", "-o", "short-monotonic")
		g.logf("journal (%v):\n%s", err, out)
	}
	for _, log := range []string{agentOutput, "/var/log/bulwark/bulwarkd.log"} {
		if b, err := os.ReadFile(log); err == nil {
			g.logf("%s:\n%s", log, b[max(0, len(b)-20_000):])
		}
	}
}
