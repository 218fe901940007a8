package diagnostic

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Bounds of what is collected.
const (
	sampling     = time.Second // over which the CPU is measured
	maxProcesses = 64
	maxSmallFile = 1 << 20
	maxLogTail   = 4 << 20
	maxLogErrors = 20
)

// ticks per second of the times in /proc; the kernel's interface has 100 on
// every architecture that we run on.
const ticks = 100

// Host is where facts are collected.
type Host struct {
	// PID of the daemon; its children are its components.
	PID int
	// Folders that the agent writes to, by their path.
	Folders []string
	// ErrorLog is the log of warnings and errors.
	ErrorLog string
	// Root of the system whose units are looked at; "/" when empty.
	Root string
}

// sysctls that matter to an agent of this kind.
var sysctls = []string{
	"fs.fanotify.max_user_groups", "fs.fanotify.max_user_marks", "fs.fanotify.max_queued_events", "fs.inotify.max_user_instances",
	"fs.file-max", "fs.nr_open", "kernel.unprivileged_bpf_disabled", "kernel.pid_max", "vm.max_map_count", "kernel.yama.ptrace_scope",
	"user.max_fanotify_groups", "user.max_fanotify_marks", "net.core.bpf_jit_enable",
}

// Collect fills in what the system tells. It reads /proc and a few files and
// waits a second for the CPU times; what cannot be read stays empty.
func (h Host) Collect(ctx context.Context, f *api.Facts) error {
	f.Time = time.Now().UTC()
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		f.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	f.Distribution = prettyName(small("/etc/os-release"))
	mem := fields(small("/proc/meminfo"))
	f.MemoryTotal, f.MemoryAvailable = mem["MemTotal"]<<10, mem["MemAvailable"]<<10
	f.Load = []float64{}
	for _, s := range strings.Fields(small("/proc/loadavg"))[:min(3, len(strings.Fields(small("/proc/loadavg"))))] {
		if v, err := strconv.ParseFloat(s, 64); err == nil {
			f.Load = append(f.Load, v)
		}
	}
	if up := strings.Fields(small("/proc/uptime")); len(up) > 0 {
		f.UptimeSeconds, _ = strconv.ParseFloat(up[0], 64) // absent: 0
	}
	f.CPUs = strings.Count("\n"+small("/proc/cpuinfo"), "\nprocessor")
	f.SELinux = map[string]string{"1": "enforcing", "0": "permissive"}[strings.TrimSpace(small("/sys/fs/selinux/enforce"))]
	if f.SELinux == "" {
		f.SELinux = "absent"
	}
	f.AppArmor = strings.TrimSpace(small("/sys/module/apparmor/parameters/enabled")) == "Y"
	f.Sysctls = map[string]string{}
	for _, name := range sysctls {
		if v := strings.TrimSpace(small("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))); v != "" {
			f.Sysctls[name] = v
		}
	}
	f.Disks, f.Folders = []api.FactsDisk{}, []api.FactsFolder{}
	for _, folder := range h.Folders {
		if d, ok := disk(folder); ok {
			f.Disks = append(f.Disks, d)
		}
		f.Folders = append(f.Folders, permissions(folder)...)
	}
	slices.SortFunc(f.Folders, func(x, y api.FactsFolder) int { return cmp.Compare(x.Folder, y.Folder) })
	f.Folders = slices.Compact(f.Folders)
	f.Service = h.Service()
	f.LogErrors = logErrors(h.ErrorLog)
	var err error
	f.Components, err = h.components(ctx)
	return err
}

// small reads at most maxSmallFile bytes; empty when it cannot be read.
func small(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // read-only
	data, err := io.ReadAll(io.LimitReader(f, maxSmallFile))
	if err != nil {
		return ""
	}
	return string(data)
}

func prettyName(release string) string {
	for line := range strings.SplitSeq(release, "\n") {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// fields reads "Name: number unit" lines.
func fields(text string) map[string]int64 {
	out := map[string]int64{}
	for line := range strings.SplitSeq(text, "\n") {
		name, rest, ok := strings.Cut(line, ":")
		if words := strings.Fields(rest); ok && len(words) > 0 {
			if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
				out[name] = n
			}
		}
	}
	return out
}

// times of a process.
type times struct {
	ppid, threads int
	cpu           float64 // seconds
	start         float64 // seconds after the boot
}

// statOf reads /proc/PID/stat.
func statOf(pid int) (times, bool) {
	text := small(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := cutLast(text, ")") // the name before may have anything
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return times{}, false
	}
	n := func(i int) float64 {
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return 0
		}
		return v
	}
	return times{ppid: int(n(1)), threads: int(n(17)), cpu: (n(11) + n(12)) / ticks, start: n(19) / ticks}, true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// components are the daemon and its children, measured over a second.
func (h Host) components(ctx context.Context) ([]api.FactsProcess, error) {
	pids := []int{h.PID}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || len(pids) >= maxProcesses {
			continue
		}
		if st, ok := statOf(pid); ok && st.ppid == h.PID {
			pids = append(pids, pid)
		}
	}
	before := map[int]times{}
	for _, pid := range pids {
		if st, ok := statOf(pid); ok {
			before[pid] = st
		}
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(sampling):
	}
	took := time.Since(began).Seconds()
	uptime := 0.0
	if up := strings.Fields(small("/proc/uptime")); len(up) > 0 {
		uptime, _ = strconv.ParseFloat(up[0], 64) // absent: 0
	}
	out := []api.FactsProcess{}
	for _, pid := range pids {
		st, ok := statOf(pid)
		if !ok || before[pid].start != st.start {
			continue
		}
		p := api.FactsProcess{
			PID: pid, Component: component(pid, pid == h.PID), Threads: st.threads,
			CPUPercent: round(100 * (st.cpu - before[pid].cpu) / took), AveragePercent: round(100 * st.cpu / max(uptime-st.start, 1)),
		}
		p.Resident = fields(small(fmt.Sprintf("/proc/%d/status", pid)))["VmRSS"] << 10
		if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
			p.Descriptors = len(fds)
		}
		for line := range strings.SplitSeq(small(fmt.Sprintf("/proc/%d/limits", pid)), "\n") {
			if rest, ok := strings.CutPrefix(line, "Max open files"); ok && len(strings.Fields(rest)) > 0 {
				p.MaxDescriptors, _ = strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // "unlimited": 0
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func round(f float64) float64 { return float64(int64(f*10+0.5)) / 10 }

// component names a process of the agent by the argument that it was started
// with.
func component(pid int, daemon bool) string {
	if daemon {
		return "daemon"
	}
	args := strings.Split(small(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00")
	if len(args) > 1 && args[1] != "" && !strings.HasPrefix(args[1], "-") && !strings.Contains(args[1], "/") {
		return args[1]
	}
	return filepath.Base(args[0])
}

func disk(folder string) (api.FactsDisk, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil || st.Blocks == 0 {
		return api.FactsDisk{}, false
	}
	d := api.FactsDisk{
		Folder: api.Path(folder), Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bfree) * st.Bsize,
		ReadOnly: st.Flags&unix.ST_RDONLY != 0, NoExec: st.Flags&unix.ST_NOEXEC != 0,
		UsedPercent: round(100 * float64(st.Blocks-st.Bfree) / float64(st.Blocks)),
	}
	if st.Files > 0 {
		d.InodesUsedPercent = round(100 * float64(st.Files-st.Ffree) / float64(st.Files))
	}
	d.Filesystem = filesystemOf(small("/proc/self/mountinfo"), folder)
	return d, true
}

// filesystemOf is the type of the deepest mount above a folder.
func filesystemOf(mountinfo, folder string) string {
	best, kind := "", ""
	for line := range strings.SplitSeq(mountinfo, "\n") {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 1 {
			continue
		}
		point := f[4]
		if (point == "/" || folder == point || strings.HasPrefix(folder, point+"/")) && len(point) >= len(best) {
			best, kind = point, g[0]
		}
	}
	return kind
}

// permissions are those of a folder and of everything above it.
func permissions(folder string) []api.FactsFolder {
	var out []api.FactsFolder
	for {
		if info, err := os.Stat(folder); err == nil {
			f := api.FactsFolder{
				Folder: api.Path(folder), Mode: fmt.Sprintf("%04o", info.Mode().Perm()),
				Writable: info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0,
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				f.Owner = int(st.Uid)
			}
			out = append(out, f)
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return out
		}
		folder = parent
	}
}

// Service looks at the unit of systemd.
func (h Host) Service() api.FactsService {
	root := "/" + h.Root
	s := api.FactsService{Manager: "other", DropIns: []string{}}
	if st, err := os.Stat(filepath.Join(root, "run/systemd/system")); err == nil && st.IsDir() {
		s.Manager = "systemd"
	}
	for _, dir := range []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"} {
		if _, err := os.Stat(filepath.Join(root, dir, "bulwark.service")); err == nil {
			s.Installed = true
		}
		if wants, err := filepath.Glob(filepath.Join(root, dir, "*.wants", "bulwark.service")); err == nil && len(wants) > 0 {
			s.EnabledAtBoot = true
		}
	}
	if drop, err := filepath.Glob(filepath.Join(root, "etc/systemd/system/bulwark.service.d/*.conf")); err == nil {
		s.DropIns = append(s.DropIns, drop...)
	}
	return s
}

var (
	logHead = regexp.MustCompile(`^\[\d+\]\[([^\]]*)\]\[[^\]]*\]\[(error|warning)\]: `)
	numbers = regexp.MustCompile(`\d+`)
)

// logErrors counts the messages at the end of a log; numbers in them do not
// matter.
func logErrors(path string) []api.NamedCount {
	out := []api.NamedCount{}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer func() { _ = f.Close() }() // read-only
	if st, err := f.Stat(); err == nil && st.Size() > maxLogTail {
		if _, err := f.Seek(-maxLogTail, io.SeekEnd); err != nil {
			return out
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLogTail))
	if err != nil {
		return out
	}
	counts := map[string]int64{}
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		m := logHead.FindSubmatch(line)
		if m == nil {
			continue
		}
		text := string(line[len(m[0]):])
		text = fmt.Sprintf("%s: %s: %s", m[2], m[1], numbers.ReplaceAllString(Redact(text[:min(len(text), 300)]), "N"))
		counts[strings.ToValidUTF8(text, "?")]++
	}
	for text, n := range counts {
		out = append(out, api.NamedCount{Name: api.Path(text), Count: n})
	}
	slices.SortFunc(out, func(x, y api.NamedCount) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Name, y.Name))
	})
	return out[:min(len(out), maxLogErrors)]
}
