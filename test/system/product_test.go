//go:build system

package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/loopback"
	"github.com/bulwarkhq/bulwark/test/need"
	"github.com/bulwarkhq/bulwark/test/program"
)

const (
	// patience is how long a test waits for what must happen. It is no
	// statement about speed.
	patience = 4 * time.Minute
	// deadman ends every process of a product.
	deadman = 15 * time.Minute
	// opening is how long one file access of a test may take. It is far above
	// the agent's deadline: who waits longer has been forgotten.
	opening = 30 * time.Second
)

// product is a portal and an agent below one folder.
type product struct {
	t     *testing.T
	bin   string      // folder of the programs
	dirs  layout.Dirs // of the agent
	root  string      // folder that dirs is below
	watch string      // mount point of the watched tmpfs
	wrap  []string    // starts all programs of the agent; empty for nothing

	portalData string
	portalAddr string
	portalEnv  []string // besides the test's
	portal     *service
	agent      *service
}

// prepare makes the folders, the watched mount and the account of the scanner,
// and starts nothing.
func prepare(t *testing.T) *product {
	t.Helper()
	need.Root(t)
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(top, "bin")
	for _, program := range []string{"bulwark", "bulwarkd", "bulwark-guard", "bulwark-portal"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			t.Fatalf("%v: make build makes it", err)
		}
	}
	root := t.TempDir()
	// The scanner's account must be able to reach its definitions.
	for _, dir := range []string{root, filepath.Dir(root)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := &product{
		t: t, bin: bin, root: root, dirs: layout.Under(root),
		watch:      filepath.Join(root, "watched"),
		portalData: filepath.Join(root, "portal"),
		portalAddr: freeAddress(t),
	}
	for dir, mode := range map[string]os.FileMode{
		p.dirs.Config: 0o755, filepath.Dir(p.dirs.Managed()): 0o755, p.dirs.State: 0o755,
		p.dirs.Log: 0o755, p.dirs.Run: 0o755, p.watch: 0o755, p.portalData: 0o700,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("bulwark-system-test", p.watch, "tmpfs", 0, "mode=0777,size=256m"); err != nil {
		need.Missing(t, "mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(p.watch, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	p.write(p.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "real_time"}}`)
	return p
}

// start is a product that is onboarded and healthy.
func start(t *testing.T) *product {
	t.Helper()
	p := prepare(t)
	p.startPortal()
	p.onboard()
	p.startAgent()
	p.untilHealthy()
	return p
}

// TestMain makes the account of the scanner, which all products share.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == oldKernel || os.Args[1] == oldKernelProbe) {
		fmt.Fprintln(os.Stderr, oldKernelProgram(os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(withAccount(m.Run))
}

func withAccount(run func() int) int {
	if os.Geteuid() != 0 || exec.Command("getent", "passwd", "bulwark").Run() == nil {
		return run()
	}
	account := exec.Command("useradd", "--system", "--no-create-home", "--user-group", "--shell", "/usr/sbin/nologin", "bulwark")
	if out, err := account.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "make the scanner's account: %v\n%s", err, out)
		return 1
	}
	defer func() { _ = exec.Command("userdel", "bulwark").Run() }()
	return run()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := loopback.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func (p *product) write(path, content string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// service is a program under `bulwarkd supervise`, as make up runs it.
type service struct {
	t    *testing.T
	name string
	cmd  *program.Process
	log  string
}

func (p *product) supervise(name string, flags []string, file string, args ...string) *service {
	p.t.Helper()
	s := &service{t: p.t, name: name, log: filepath.Join(p.root, name+".log")}
	argv := []string{
		"--signal=KILL", strconv.Itoa(int(deadman.Seconds())), filepath.Join(p.bin, "bulwarkd"), "supervise",
		"--name", name, "--pidfile", filepath.Join(p.root, name+".pid"), "--log", s.log, "--max-pause", "2s",
	}
	argv = append(argv, flags...)
	argv = append(argv, "--", filepath.Join(p.bin, file))
	argv = slices.Concat(p.wrap, []string{"timeout"}, argv, args)
	var err error
	if s.cmd, err = program.Start(exec.Command(argv[0], argv[1:]...), syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		s.stop()
		if p.t.Failed() {
			b, _ := os.ReadFile(s.log)
			p.t.Logf("log of %s:\n%s", name, tail(b, 60))
		}
	})
	return s
}

// stop stops the service and waits for its end. Stopping twice is harmless.
func (s *service) stop() {
	s.t.Helper()
	select {
	case <-s.cmd.Ended:
		return
	default:
	}
	// timeout(1) passes the signal on.
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.cmd.Ended:
	case <-time.After(patience):
		s.t.Errorf("%s does not stop", s.name)
		s.cmd.Kill()
	}
}

func (p *product) startPortal() {
	p.t.Helper()
	host, _, err := net.SplitHostPort(p.portalAddr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.portal = p.supervise("bulwark-portal", []string{"--simple"}, "bulwark-portal",
		"serve", "--listen", p.portalAddr, "--data-dir", p.portalData, "--host-name", "localhost,"+host)
	p.until("the portal listens", func() error {
		conn, err := net.DialTimeout("tcp", p.portalAddr, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// portalCommand runs an administrative command of the portal and returns its
// standard output.
func (p *product) portalCommand(args ...string) string {
	p.t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.Command(filepath.Join(p.bin, "bulwark-portal"), append(args, "--data-dir", p.portalData)...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, append(os.Environ(), p.portalEnv...)
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("bulwark-portal %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

func (p *product) onboard() {
	p.t.Helper()
	p.portalCommand("onboarding", "create", "--portal-url", "https://"+p.portalAddr, "--out", p.dirs.Onboarding())
}

// startAgent starts the agent; flags are of its supervisor.
func (p *product) startAgent(flags ...string) {
	p.t.Helper()
	p.agent = p.supervise("bulwarkd", flags, "bulwarkd", "run", "--root", p.root, "--only-mounts", p.watch)
}

// result is what a command printed and how it ended.
type result struct {
	stdout, stderr string
	status         int
}

// run runs the command line tool against the product's agent.
func (p *product) run(args ...string) result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var stdout, stderr strings.Builder
	argv := slices.Concat(p.wrap, []string{filepath.Join(p.bin, "bulwark"), "--root", p.root}, args)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("bulwark %s: %v", strings.Join(args, " "), err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// badWords makes words for a signature that no other file has, this program
// included: an agent looks through the programs that run when its definitions
// change, and would move it away.
func badWords(words string) string { return strings.ToUpper(words) }

// must is run for a command that has to succeed; it returns the output.
func (p *product) must(args ...string) string {
	p.t.Helper()
	r := p.run(args...)
	if r.status != 0 {
		p.t.Fatalf("bulwark %s: exit status %d\n%s%s", strings.Join(args, " "), r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// query is must for `--output json`, decoded into v.
func (p *product) query(v any, args ...string) {
	p.t.Helper()
	out := p.must(append(args, "--output", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		p.t.Fatalf("bulwark %s --output json: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (p *product) health() control.Health {
	p.t.Helper()
	var h control.Health
	p.query(&h, "health")
	return h
}

func (p *product) threats() []control.Threat {
	p.t.Helper()
	var list control.ThreatList
	p.query(&list, "threat", "list")
	return list.Threats
}

// threat waits for the threat of a file.
func (p *product) threat(path, status string) control.Threat {
	p.t.Helper()
	var found control.Threat
	p.until("threat list shows "+path+" as "+status, func() error {
		list := p.threats()
		for _, th := range list {
			if string(th.Path) == path && th.Status == status {
				found = th
				return nil
			}
		}
		return fmt.Errorf("it shows %+v", list)
	})
	return found
}

// letThrough counts the accesses that the agent allowed without a verdict, which it
// does, and says, when one takes longer than an access may be held.
func (p *product) letThrough() (n int64) {
	p.t.Helper()
	var details control.HealthDetails
	p.query(&details, "health", "--details", "antivirus")
	for _, f := range details.Fields {
		switch f.Name {
		case "deadlines_missed", "released_by_guard", "allowed_queue_full", "allowed_saturated", "allowed_scanner_stalled":
			v, ok := f.Value.(float64)
			if !ok {
				p.t.Fatalf("%s is %v", f.Name, f.Value)
			}
			n += int64(v)
		}
	}
	return n
}

// refuses opens a bad file, which has to be refused or gone. On a busy machine its
// verdict may be late: the agent says then that it allowed an access, and refuses
// soon after.
func (p *product) refuses(when, path string) {
	p.t.Helper()
	before := p.letThrough()
	got := open(p.t, path)
	if got == allowed && p.letThrough() > before {
		p.t.Logf("%s: an access was allowed since its verdict was late", when)
		p.until(path+" is refused", func() error {
			if got = open(p.t, path); got == allowed {
				return errors.New("it is read")
			}
			return nil
		})
	}
	if got != denied && got != absent { // the writing may have had it quarantined
		p.t.Errorf("%s: open of a bad file: %v", when, got)
	}
}

func (p *product) untilHealthy() {
	p.t.Helper()
	p.until("health is true", func() error {
		r := p.run("health", "--field", "healthy")
		if strings.TrimSpace(r.stdout) == "true" {
			return nil
		}
		r = p.run("health")
		return fmt.Errorf("%s%s", r.stdout, r.stderr)
	})
}

// until tries again and again for a while.
func (p *product) until(what string, try func() error) {
	p.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	p.t.Fatalf("waited %v in vain until %s: %v", patience, what, err)
}

// processes returns the processes of the product whose command line begins
// with the program and the arguments.
func (p *product) processes(program string, args ...string) []int {
	p.t.Helper()
	want := strings.Join(append([]string{filepath.Join(p.bin, program)}, args...), "\x00") + "\x00"
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	var pids []int
	for _, name := range entries {
		b, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(b), want) || !p.descends(name) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// descends says whether the process belongs to this product and not to another
// one that runs at the same time.
func (p *product) descends(cmdline string) bool {
	pid := filepath.Base(filepath.Dir(cmdline))
	for range 16 {
		stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			return false
		}
		pid = fields[1]
		for _, s := range []*service{p.agent, p.portal} {
			if s != nil && pid == strconv.Itoa(s.cmd.Process.Pid) {
				return true
			}
		}
	}
	return false
}

// one is the only process of processes.
func (p *product) one(program string, args ...string) int {
	p.t.Helper()
	pids := p.processes(program, args...)
	if len(pids) != 1 {
		p.t.Fatalf("%d processes %s %s, want 1", len(pids), program, strings.Join(args, " "))
	}
	return pids[0]
}

func tail(b []byte, lines int) string {
	all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
