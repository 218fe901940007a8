package respond

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
)

// Bounds of an investigation package.
const (
	maxMember      = 16 << 20  // bytes of one file; of logs the end
	maxPackage     = 200 << 20 // bytes of all files before compression
	maxOpenFiles   = 50_000    // lines of open_files.txt
	commandTime    = 30 * time.Second
	maxCommandText = 4 << 20
)

// Runner starts programs for the daemon, which must not do so itself (package
// spawn).
type Runner interface {
	Command(ctx context.Context, path string, args ...string) *exec.Cmd
	Start(cmd *exec.Cmd) error
}

// Collector makes investigation packages: what somebody needs who examines the
// host from afar.
type Collector struct {
	Root string // "/" outside of tests
	Run  Runner
	// Documents are members that the daemon makes itself, by file name.
	Documents map[string][]byte
	Users     *process.Users
	Now       func() time.Time
}

// copied are files and folders whose content goes in as it is. Hashes of
// passwords and private keys are left out on purpose.
var copied = []string{
	"etc/os-release", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/nsswitch.conf", "etc/passwd", "etc/group", "etc/sudoers", "etc/sudoers.d",
	"etc/crontab", "etc/cron.d", "etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly", "var/spool/cron", "etc/anacrontab",
	"etc/ssh/sshd_config", "etc/ssh/sshd_config.d", "etc/pam.d", "etc/ld.so.preload", "etc/ld.so.conf", "etc/profile", "etc/profile.d", "etc/bash.bashrc", "etc/environment",
	"etc/rc.local", "etc/modules", "etc/modules-load.d", "etc/systemd/system", "etc/fstab", "etc/exports",
	"var/log/wtmp", "var/log/btmp", "var/log/lastlog", "var/run/utmp", "var/log/auth.log", "var/log/secure", "var/log/messages", "var/log/syslog", "var/log/audit/audit.log",
	"proc/cpuinfo", "proc/meminfo", "proc/version", "proc/cmdline", "proc/modules", "proc/mounts", "proc/partitions", "proc/diskstats", "proc/uptime", "proc/loadavg", "proc/interrupts",
	"proc/net/arp", "proc/net/route", "proc/net/ipv6_route", "proc/net/tcp", "proc/net/tcp6", "proc/net/udp", "proc/net/udp6", "proc/net/raw", "proc/net/unix", "proc/net/dev", "proc/net/packet",
}

// commands are programs whose output goes in, where they are installed.
var commands = []struct {
	file string
	argv []string
}{
	{"firewall/nft.txt", []string{"nft", "list", "ruleset"}},
	{"firewall/iptables.txt", []string{"iptables-save"}},
	{"firewall/ip6tables.txt", []string{"ip6tables-save"}},
	{"sign_ins/last.txt", []string{"last", "-F", "-w", "-n", "5000"}},
	{"sign_ins/lastb.txt", []string{"lastb", "-F", "-w", "-n", "5000"}},
	{"services/units.txt", []string{"systemctl", "list-units", "--all", "--no-pager", "--plain"}},
	{"services/timers.txt", []string{"systemctl", "list-timers", "--all", "--no-pager"}},
	{"disks/lsblk.txt", []string{"lsblk", "-a", "-o", "NAME,SIZE,TYPE,FSTYPE,UUID,MOUNTPOINT"}},
	{"packages/dpkg.txt", []string{"dpkg-query", "-W"}},
	{"packages/rpm.txt", []string{"rpm", "-qa", "--last"}},
}

// Collect writes the package, a gzipped tar archive, and returns what could not
// be collected.
func (c Collector) Collect(ctx context.Context, w io.Writer) (problems []string, err error) {
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	zipped := gzip.NewWriter(w)
	t := &tarWriter{w: tar.NewWriter(zipped), now: c.Now(), left: maxPackage}
	note := func(what string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) && len(problems) < 1000 {
			problems = append(problems, what+": "+err.Error())
		}
	}
	for name, data := range c.Documents {
		note(name, t.add("agent/"+name, data))
	}
	for _, made := range []struct {
		name string
		make func(*bytes.Buffer) error
	}{
		{"processes.txt", c.processes},
		{"open_files.txt", c.openFiles},
		{"network/addresses.txt", c.addresses},
		{"network/connections.txt", c.connections},
		{"disks/volumes.txt", c.volumes},
		{"system.txt", c.system},
		{"persistence/startup.txt", c.startup},
	} {
		if ctx.Err() != nil {
			return problems, ctx.Err()
		}
		var b bytes.Buffer
		note(made.name, made.make(&b))
		note(made.name, t.add(made.name, b.Bytes()))
	}
	for _, name := range copied {
		if ctx.Err() != nil {
			return problems, ctx.Err()
		}
		note(name, c.copy(t, name))
	}
	if c.Run != nil {
		for _, cmd := range commands {
			if ctx.Err() != nil {
				return problems, ctx.Err()
			}
			out, err := c.command(ctx, cmd.argv)
			note(strings.Join(cmd.argv, " "), err)
			if len(out) > 0 {
				note(cmd.file, t.add(cmd.file, out))
			}
		}
	}
	if len(problems) > 0 {
		if err := t.add("not_collected.txt", []byte(strings.Join(problems, "\n")+"\n")); err != nil {
			return problems, err
		}
	}
	if err := errors.Join(t.w.Close(), zipped.Close()); err != nil {
		return problems, fmt.Errorf("investigation package: %w", err)
	}
	return problems, t.failed
}

// tarWriter writes members until the bound is reached.
type tarWriter struct {
	w      *tar.Writer
	now    time.Time
	left   int
	failed error // of writing the archive itself
}

func (t *tarWriter) add(name string, data []byte) error {
	if t.failed != nil {
		return t.failed
	}
	if len(data) > t.left {
		return errors.New("the package is full")
	}
	t.left -= len(data)
	err := t.w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: t.now, Typeflag: tar.TypeReg})
	if err == nil {
		_, err = t.w.Write(data)
	}
	if err != nil {
		t.failed = fmt.Errorf("investigation package: %w", err)
	}
	return t.failed
}

// copy adds a file or what is directly in a folder.
func (c Collector) copy(t *tarWriter, name string) error {
	path := filepath.Join(c.Root, name)
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return c.copyFile(t, path, name)
	}
	list, err := os.ReadDir(path)
	var errs []error
	for i, e := range list {
		if i == 500 {
			return errors.Join(append(errs, errors.New("only the first 500 files"))...)
		}
		if e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0 {
			errs = append(errs, c.copyFile(t, filepath.Join(path, e.Name()), name+"/"+e.Name()))
		}
	}
	return errors.Join(append(errs, err)...)
}

func (c Collector) copyFile(t *tarWriter, path, name string) error {
	// Not held up by what is no file any more.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer f.Close() // read-only
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	if st.Size() > maxMember {
		if _, err := f.Seek(-maxMember, io.SeekEnd); err != nil {
			return err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMember))
	if err != nil {
		return err
	}
	return t.add("files/"+name, data)
}

// command runs a program of the usual folders; fs.ErrNotExist when there is none.
func (c Collector) command(ctx context.Context, argv []string) ([]byte, error) {
	path := ""
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if st, err := os.Stat(filepath.Join(dir, argv[0])); err == nil && st.Mode().IsRegular() {
			path = filepath.Join(dir, argv[0])
			break
		}
	}
	if path == "" {
		return nil, fs.ErrNotExist
	}
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := c.Run.Command(ctx, path, argv[1:]...)
	out := &bounded{max: maxCommandText}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	if err := c.Run.Start(cmd); err != nil {
		return nil, err
	}
	err := cmd.Wait()
	return out.Bytes(), err
}

// bounded keeps the first max bytes that are written to it.
type bounded struct {
	bytes.Buffer
	max int
	cut bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if room := b.max - b.Len(); n > room {
		p, b.cut = p[:max(room, 0)], true
	}
	b.Buffer.Write(p)
	return n, nil
}

func (c Collector) pids() ([]int, error) {
	list, err := os.ReadDir(filepath.Join(c.Root, "proc"))
	var out []int
	for _, e := range list {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, err
}

func (c Collector) processes(b *bytes.Buffer) error {
	pids, err := c.pids()
	w := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PID\tPARENT\tUSER\tPROGRAM\tFOLDER\tCOMMAND LINE")
	for _, pid := range pids {
		dir := filepath.Join(c.Root, "proc", strconv.Itoa(pid))
		data, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // ended
		}
		st, err := process.ParseStat(data)
		if err != nil {
			continue
		}
		user := "?"
		if status, err := os.ReadFile(dir + "/status"); err == nil {
			if uid, err := process.ParseStatusUID(status); err == nil {
				user = strconv.FormatUint(uint64(uid), 10)
				if name := c.userName(uid); name != "" {
					user = name
				}
			}
		}
		exe, _ := os.Readlink(dir + "/exe") // kernel threads have none
		cwd, _ := os.Readlink(dir + "/cwd")
		line, _ := os.ReadFile(dir + "/cmdline")
		if exe == "" {
			exe = "[" + st.Comm + "]"
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%q\t%q\t%q\n", pid, st.PPID, user, exe, cwd, process.CommandLine(line[:min(len(line), 64<<10)]))
	}
	return errors.Join(err, w.Flush())
}

func (c Collector) userName(uid uint32) string {
	if c.Users == nil {
		return ""
	}
	return c.Users.Name(uid)
}

func (c Collector) openFiles(b *bytes.Buffer) error {
	pids, err := c.pids()
	n := 0
	for _, pid := range pids {
		dir := filepath.Join(c.Root, "proc", strconv.Itoa(pid), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // ended
		}
		for _, fd := range fds {
			to, err := os.Readlink(filepath.Join(dir, fd.Name()))
			if err != nil || strings.HasPrefix(to, "anon_inode:") {
				continue
			}
			if n++; n > maxOpenFiles {
				return fmt.Errorf("only the first %d", maxOpenFiles)
			}
			fmt.Fprintf(b, "%d %s %q\n", pid, fd.Name(), to)
		}
	}
	return err
}

func (c Collector) addresses(b *bytes.Buffer) error {
	list, err := net.Interfaces()
	for _, i := range list {
		addrs, err := i.Addrs()
		fmt.Fprintf(b, "%s  %s  %s  mtu %d  %v  %v\n", i.Name, i.HardwareAddr, i.Flags, i.MTU, addrs, err)
	}
	for _, e := range os.Environ() {
		if strings.Contains(strings.ToLower(e), "_proxy=") {
			name, _, _ := strings.Cut(e, "=")
			fmt.Fprintf(b, "proxy set in the daemon's environment: %s\n", name)
		}
	}
	return err
}

func (c Collector) volumes(b *bytes.Buffer) error {
	data, err := os.ReadFile(filepath.Join(c.Root, "proc/mounts"))
	w := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "MOUNT\tTYPE\tSIZE MiB\tFREE MiB\tFREE INODES")
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		// A file system of the network may hang.
		if len(f) < 3 || strings.HasPrefix(f[2], "nfs") || f[2] == "cifs" || f[2] == "smb3" || strings.HasPrefix(f[2], "fuse") || f[2] == "autofs" {
			if len(f) >= 3 {
				fmt.Fprintf(w, "%s\t%s\tnot asked\t\t\n", f[1], f[2])
			}
			continue
		}
		var st unix.Statfs_t
		if err := unix.Statfs(f[1], &st); err != nil || st.Blocks == 0 {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\n", f[1], f[2], st.Blocks*uint64(st.Bsize)>>20, st.Bavail*uint64(st.Bsize)>>20, st.Ffree)
	}
	return errors.Join(err, w.Flush())
}

func (c Collector) system(b *bytes.Buffer) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	fmt.Fprintf(b, "collected  %s\nhost       %s\nkernel     %s %s %s\n", c.Now().UTC().Format(time.RFC3339), unix.ByteSliceToString(uts.Nodename[:]),
		unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Version[:]), unix.ByteSliceToString(uts.Machine[:]))
	for _, name := range []string{"sys_vendor", "product_name", "product_version", "bios_vendor", "bios_version", "bios_date"} {
		if data, err := os.ReadFile(filepath.Join(c.Root, "sys/class/dmi/id", name)); err == nil {
			fmt.Fprintf(b, "%-10s %s\n", name, bytes.TrimSpace(data))
		}
	}
	return nil
}

// startup lists what starts by itself in people's homes, without its content:
// keys that may sign in, and files of shells.
func (c Collector) startup(b *bytes.Buffer) error {
	data, err := os.ReadFile(filepath.Join(c.Root, "etc/passwd"))
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 || f[5] == "" || f[5] == "/" {
			continue
		}
		for _, name := range []string{".ssh/authorized_keys", ".ssh/authorized_keys2", ".bashrc", ".bash_profile", ".profile", ".zshrc", ".config/autostart", ".config/systemd/user", ".xprofile"} {
			if st, err := os.Lstat(filepath.Join(c.Root, f[5], name)); err == nil {
				fmt.Fprintf(b, "%s  %s  %d bytes  %s  %q\n", st.ModTime().UTC().Format(time.RFC3339), st.Mode(), st.Size(), f[0], filepath.Join(f[5], name))
			}
		}
	}
	return err
}
