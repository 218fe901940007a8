package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/vm/report"
)

// Files that every type has before the agent knows it.
const (
	fileEvil    = "evil"
	fileProgram = "program.com" // bad, executable
	fileMoved   = "moved"       // bad, renamed over fileVictim
	fileRestore = "restored"    // bad, quarantined and put back
	fileClean   = "clean"
	fileScript  = "script" // clean, executable
	filePatched = "patched"
	fileMapped  = "mapped"
	fileVictim  = "victim"
	// fileNew is written by the test.
	fileNew = "new"
)

// harmless is as long as the test file, so that overwriting it makes that file.
var harmless = bytes.Repeat([]byte{'-'}, len(eicar))

// unique is a test file of its own content: it may end in blanks and tabs. What
// is restored is let through by its content from then on.
func unique(n int) []byte {
	b := bytes.Clone(eicar)
	for bit := range 8 {
		b = append(b, " \t"[n>>bit&1])
	}
	return b
}

// filesystemMatrix tries every type with the installed agent, after the tests
// of the kernel's interfaces, which want the machine without an agent.
func filesystemMatrix(g *guest) error {
	g.check("kernel", func() error { return testKernel(g) })
	types := matrix()
	a := g.agent()
	err := all(
		func() error { return configure(managedMatrix) },
		g.startNFS,
		func() error { return g.prepareAll(types) },
		a.start,
		a.protecting,
	)
	if err != nil {
		return err
	}
	g.logf("the agent protects; trying the file systems")
	g.processorTime()
	for _, f := range types {
		v := map[string]string{}
		ok := g.check(f.name, func() error { return a.try(f, v) })
		g.report.Send(report.Message{Row: &report.Row{Type: f.name, Values: v}})
		if !ok {
			a.explain()
		}
	}
	g.check("coverage", func() error { return a.coverage(types) })
	g.check("clock", a.clockJumps)
	g.check("limit of the scanner's processor time", a.processorLimit)
	g.check("nothing went wrong in the agent", a.clean)
	return nil
}

// managedMatrix watches the remote types too, and leaves out what the servers
// serve from. What loading eBPF programs takes is tried elsewhere.
const managedMatrix = `{
  "antivirusEngine": {
    "enforcementLevel": "real_time",
    "unmonitoredFilesystems": [],
    "openDeadline": 60000,
    "execDeadline": 60000,
    "exclusions": [{"$type": "excludedPath", "isDirectory": true, "path": "` + hidden + `"}]
  },
  "features": {"ebpfSupplementaryEventProvider": "disabled"}
}`

// configure writes the managed configuration.
func configure(managed string) error {
	path := layout.Default().Managed()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(managed), 0o644)
}

// prepareAll puts the files on all types.
func (g *guest) prepareAll(types []*filesystem) error {
	for _, dir := range []string{imageFolder, hidden} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	var errs []error
	for i, f := range types {
		if err := g.prepare(f, unique(i)); err != nil {
			errs = append(errs, fmt.Errorf("prepare %s: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}

func (g *guest) prepare(f *filesystem, restored []byte) error {
	if ok, err := g.kernelHas(f.name); err != nil || !ok {
		return errors.Join(err, errors.New("this kernel does not have it"))
	}
	source := filepath.Join(hidden, "source."+f.name)
	if err := errors.Join(os.MkdirAll(source, 0o755), os.MkdirAll(f.point(), 0o755)); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		fileEvil: eicar, fileProgram: eicar, fileMoved: eicar, fileRestore: restored,
		fileClean: harmless, filePatched: harmless, fileMapped: harmless, fileVictim: harmless,
		fileScript: []byte("#!/bin/sh\necho ran\n"),
	} {
		mode := os.FileMode(0o644)
		if name == fileProgram || name == fileScript {
			mode = 0o755
		}
		if err := errors.Join(os.WriteFile(filepath.Join(source, name), content, mode), os.Chmod(filepath.Join(source, name), mode)); err != nil {
			return err
		}
	}
	if err := f.prepare(g, f, source); err != nil {
		return err
	}
	if f.readOnly || f.remote && f.name != "fuseblk" {
		return nil // has its content already
	}
	err := all(
		func() error { return f.mount(g, f) },
		func() error { return copyFiles(source, f.point()) },
	)
	if err != nil || f.stays {
		return err
	}
	return unmount(f.point())
}

// try tries one type, which is mounted while the agent runs. It fills in the
// columns of the table.
func (a *agent) try(f *filesystem, v map[string]string) error {
	g := a.g
	if !f.stays {
		if err := f.mount(g, f); err != nil {
			return err
		}
	}
	m, err := mountOf(f.point())
	if err != nil || m.point != f.point() || strings.SplitN(m.fsType, ".", 2)[0] != f.name {
		return errors.Join(err, fmt.Errorf("the mount table has %s of type %s for %s", m.point, m.fsType, f.point()))
	}
	if err := until("the agent watches "+f.point(), func() error { return a.watches(f.point()) }); err != nil {
		return err
	}
	return all(
		func() error { return a.tryReading(f, v) },
		func() error { return a.tryClean(f, v) },
		func() error { return a.tryWriting(f, v) },
		func() error { return a.tryQuarantine(f, v) },
	)
}

func (a *agent) tryReading(f *filesystem, v map[string]string) error {
	got, err := open(f.path(fileEvil))
	if err := want(got, err, denied); err != nil {
		return fmt.Errorf("open of a bad file: %w", err)
	}
	v["open"] = "yes"
	got, err = a.g.execute(f.path(fileProgram))
	if err := want(got, err, denied); err != nil {
		return fmt.Errorf("execution of a bad file: %w", err)
	}
	v["exec"] = "yes"
	return nil
}

func (a *agent) tryClean(f *filesystem, v map[string]string) error {
	if b, err := os.ReadFile(f.path(fileClean)); err != nil || !bytes.Equal(b, harmless) {
		return fmt.Errorf("clean file: read %q, %w", b, err)
	}
	if out, err := a.g.command(f.path(fileScript)); err != nil || out != "ran" {
		return fmt.Errorf("clean program printed %q: %w", out, err)
	}
	if f.remote {
		return a.tryRemote(f, v)
	}
	// The agent knows the verdict about this very content: an open needs no scan.
	// It does not keep every verdict at once, when something else is at the file.
	err := until("the verdict about a clean file is known", func() error {
		if _, err := os.ReadFile(f.path(fileClean)); err != nil {
			return err
		}
		x, err := a.api.Explain(a.g.ctx, control.ExplainRequest{Path: control.Path(f.path(fileClean))})
		if err == nil && !x.Known {
			err = fmt.Errorf("not known: %+v", x.Way)
		}
		return err
	})
	if err != nil {
		return err
	}
	v["once"] = "yes"
	if f.stacked {
		marked, err := a.ignored(f.path(fileClean))
		if err == nil && marked {
			err = errors.New("ignore mark on a stacked file system")
		}
		v["ignore"] = "no, by design"
		return err
	}
	// Marks go when definitions or policy change, and come again with the next open.
	err = until("a clean file has an ignore mark", func() error {
		if _, err := os.ReadFile(f.path(fileClean)); err != nil {
			return err
		}
		marked, err := a.ignored(f.path(fileClean))
		if err == nil && !marked {
			err = errors.New("it has none")
		}
		return err
	})
	if err != nil {
		return err
	}
	v["ignore"] = "yes"
	return nil
}

// opens is how often tryRemote opens a file.
const opens = 5

// tryRemote checks that a clean file whose content a server decides is scanned
// at every open. The agent counts scans by process, so a process of its own
// opens the file; what starting it makes the agent scan comes on top.
func (a *agent) tryRemote(f *filesystem, v map[string]string) error {
	cmd := exec.CommandContext(a.g.ctx, "/proc/self/exe", "read", f.path(fileClean), strconv.Itoa(opens))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("read a clean file: %w: %s", err, out)
	}
	s, err := a.api.Statistics(a.g.ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Counters, func(c control.Counter) bool { return c.ID == cmd.Process.Pid })
	if i < 0 {
		return fmt.Errorf("the statistics do not have process %d", cmd.Process.Pid)
	}
	marked, err := a.ignored(f.path(fileClean))
	if n := s.Counters[i].FilesScanned; err == nil && (n < opens || marked) {
		err = fmt.Errorf("something was kept about a file that a server can change: %d scans of %d opens, ignore mark %v", n, opens, marked)
	}
	v["once"], v["ignore"] = "no, by design", "no, by design"
	return err
}

// readTimes is what its process does.
func readTimes(path, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	for range n {
		if _, err := os.ReadFile(path); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) tryWriting(f *filesystem, v map[string]string) error {
	if f.readOnly {
		v["written"], v["renamed"], v["mapped"] = "read-only", "read-only", "read-only"
		return nil
	}
	// The verdicts that the changes must make invalid.
	for _, name := range []string{filePatched, fileMapped, fileVictim} {
		if _, err := os.ReadFile(f.path(name)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(f.path(fileNew), eicar, 0o644); err != nil {
		return fmt.Errorf("write a bad file: %w", err)
	}
	if err := patch(f.path(filePatched), eicar); err != nil {
		return fmt.Errorf("write over a clean file: %w", err)
	}
	for _, name := range []string{fileNew, filePatched} {
		got, err := open(f.path(name))
		if err := want(got, err, denied, absent); err != nil {
			return fmt.Errorf("open of %s, after bad content was written: %w", name, err)
		}
	}
	v["written"] = "yes"
	if err := os.Rename(f.path(fileMoved), f.path(fileVictim)); err != nil {
		return err
	}
	got, err := open(f.path(fileVictim))
	if err := want(got, err, denied, absent); err != nil {
		return fmt.Errorf("open of a clean file, after a bad one was renamed over it: %w", err)
	}
	v["renamed"] = "yes"
	if err := store(f.path(fileMapped), eicar); err != nil {
		return fmt.Errorf("write through a mapping: %w", err)
	}
	if err := until("bad content written through a mapping is noticed", func() error {
		got, err := open(f.path(fileMapped))
		return want(got, err, denied, absent)
	}); err != nil {
		return err
	}
	v["mapped"] = "yes"
	return nil
}

func (a *agent) tryQuarantine(f *filesystem, v map[string]string) error {
	got, err := open(f.path(fileRestore))
	if err := want(got, err, denied); err != nil {
		return fmt.Errorf("open of the second bad file: %w", err)
	}
	if f.readOnly {
		got, err = open(f.path(fileEvil))
		if err := want(got, err, denied); err != nil {
			return fmt.Errorf("bad file on a read-only file system, opened again: %w", err)
		}
		v["quarantine"] = "stays refused"
		return nil
	}
	item, err := a.quarantined(f.path(fileEvil), f.path(fileProgram), f.path(fileNew), f.path(filePatched),
		f.path(fileVictim), f.path(fileMapped), f.path(fileRestore))
	if err != nil {
		return err
	}
	if _, err := a.api.QuarantineRestore(a.g.ctx, control.RestoreRequest{ID: item.ID}); err != nil {
		return fmt.Errorf("restore %s: %w", item.Path, err)
	}
	b, err := os.ReadFile(f.path(fileRestore))
	if err != nil || !bytes.HasPrefix(b, eicar) {
		return fmt.Errorf("the restored file: %d bytes, %w", len(b), err)
	}
	info, err := os.Stat(f.path(fileRestore))
	if err != nil || info.Mode().String() != item.Mode {
		return fmt.Errorf("the restored file's mode: %v, was %s: %w", info.Mode(), item.Mode, err)
	}
	v["quarantine"] = "yes"
	return nil
}

// coverage asks the agent to prove its protection of every mount.
func (a *agent) coverage(types []*filesystem) error {
	c, err := a.api.CheckCoverage(a.g.ctx)
	if err != nil {
		return err
	}
	status := map[string]control.CoverageMount{}
	for _, m := range c.Mounts {
		status[string(m.Point)] = m
	}
	var errs []error
	for _, f := range types {
		if f.name == "fuse" {
			// Its server opens the probe in the excluded folder, so the agent says
			// that the probe is excluded.
			continue
		}
		want := "protected"
		if f.readOnly {
			want = "not_applicable"
		}
		if m := status[f.point()]; m.Status != want {
			errs = append(errs, fmt.Errorf("%s is %q (%s), want %s", f.point(), m.Status, m.Reason, want))
		}
	}
	return errors.Join(errs...)
}

// clean checks the counters of what must not happen.
func (a *agent) clean() error {
	_, err := a.pid() // it has not ended
	errs := []error{err}
	// The deadlines are so long (managedMatrix) that an emulated machine keeps
	// them, however busy the host is: a missed one means that something waited
	// for something that waited for it.
	for _, name := range []string{"deadlines_missed", "scan_errors", "kernel_queue_overflows", "allowed_queue_full", "scanner_crashes", "scanner_timeouts"} {
		n, err := a.number(name)
		if err != nil || n != 0 {
			errs = append(errs, errors.Join(fmt.Errorf("%s is %v", name, n), err))
		}
	}
	return errors.Join(errs...)
}

// explain says what the agent thinks, after something failed.
func (a *agent) explain() {
	d, err := a.api.HealthDetails(a.g.ctx, "antivirus")
	if err != nil {
		a.g.logf("health details: %v", err)
		return
	}
	for _, f := range d.Fields {
		a.g.logf("  %s: %v", f.Name, f.Value)
	}
}
