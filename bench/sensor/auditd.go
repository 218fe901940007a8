package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/bench/measure"
)

// key marks our rules.
const key = "bulwark-bench"

// auditd is the peer, raw or with LAUREL as its plugin, set up as their
// documentation says: RAW format, the backlog of Debian's rules, and no log of
// auditd's own where LAUREL writes one.
type auditd struct {
	root   string
	laurel bool

	rules  [][]string
	was    map[string]string // settings of the kernel before
	daemon *exec.Cmd
	ended  chan error
	kernel int // pid of kauditd
}

func (a *auditd) conf() string   { return filepath.Join(a.root, "auditd") }
func (a *auditd) output() string { return filepath.Join(a.root, "log") }

func (a *auditd) start(ctx context.Context, dir string) error {
	was, err := auditStatus(ctx)
	if err != nil {
		return err
	}
	if was["pid"] != "0" {
		return fmt.Errorf("process %s receives the kernel's audit records: stop it first", was["pid"])
	}
	if was["enabled"] == "2" {
		return errors.New("the audit rules are immutable until the next boot")
	}
	a.was = was
	for _, d := range []string{a.conf(), filepath.Join(a.conf(), "plugins.d"), a.output()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	conf := fmt.Sprintf(`local_events = yes
write_logs = %s
log_file = %s/audit.log
log_group = root
log_format = RAW
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 4000
num_logs = 2
max_log_file_action = IGNORE
priority_boost = 4
name_format = NONE
space_left = 75
space_left_action = IGNORE
admin_space_left = 50
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
q_depth = 2000
overflow_action = IGNORE
max_restarts = 10
plugin_dir = %s/plugins.d
end_of_event_timeout = 2
`, map[bool]string{true: "no", false: "yes"}[a.laurel], a.output(), a.conf())
	if err := os.WriteFile(filepath.Join(a.conf(), "auditd.conf"), []byte(conf), 0o640); err != nil {
		return err
	}
	if a.laurel {
		if err := a.setUpLaurel(); err != nil {
			return err
		}
	}
	a.daemon = exec.CommandContext(context.WithoutCancel(ctx), "auditd", "-n", "-c", a.conf(), "-s", "nochange")
	log, err := os.Create(filepath.Join(a.root, "auditd.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	a.daemon.Stdout, a.daemon.Stderr = log, log
	if err := a.daemon.Start(); err != nil {
		return fmt.Errorf("start auditd: %w", err)
	}
	a.ended = make(chan error, 1)
	go func() { a.ended <- a.daemon.Wait() }()
	for range 300 {
		s, err := auditStatus(ctx)
		if err != nil {
			return err
		}
		if s["pid"] == strconv.Itoa(a.daemon.Process.Pid) {
			return a.begin(ctx, dir)
		}
		select {
		case exit := <-a.ended:
			a.ended <- exit
			text, _ := os.ReadFile(filepath.Join(a.root, "auditd.log"))
			return fmt.Errorf("auditd ended: %w: %s", exit, text)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.New("auditd does not receive anything after 30 s")
}

func (a *auditd) setUpLaurel() error {
	program, err := exec.LookPath("laurel")
	if err != nil {
		return fmt.Errorf("LAUREL (Debian: apt install laurel): %w", err)
	}
	config := filepath.Join(a.conf(), "laurel.toml")
	plugin := fmt.Sprintf("active = yes\ndirection = out\ntype = always\nformat = string\npath = %s\nargs = --config %s\n", program, config)
	if err := os.WriteFile(filepath.Join(a.conf(), "plugins.d", "laurel.conf"), []byte(plugin), 0o640); err != nil {
		return err
	}
	// Its defaults, but for where it writes and how much it keeps.
	text := fmt.Sprintf("directory = %q\nuser = \"root\"\n[auditlog]\nfile = \"audit.log\"\nsize = 4000000000\ngenerations = 2\n"+
		"[transform]\nexecve-argv = [ \"array\" ]\n[translate]\nuniversal = false\nuser-db = false\n"+
		"[enrich]\npid = true\nexecve-env = [ \"LD_PRELOAD\", \"LD_LIBRARY_PATH\" ]\ncontainer = true\nscript = true\n", a.output())
	return os.WriteFile(config, []byte(text), 0o640)
}

// begin loads the rules: programs started, and files created or changed where
// the load does so.
func (a *auditd) begin(ctx context.Context, dir string) error {
	for _, set := range [][]string{{"-b", "8192"}, {"--backlog_wait_time", "60000"}, {"-e", "1"}} {
		if err := auditctl(ctx, set...); err != nil {
			return err
		}
	}
	for _, rule := range [][]string{
		{"always,exit", "-F", "arch=b64", "-S", "execve,execveat", "-F", "key=" + key},
		{"always,exit", "-F", "arch=b64", "-S", "open,openat,creat", "-F", "dir=" + dir, "-F", "perm=wa", "-F", "key=" + key},
	} {
		if err := auditctl(ctx, append([]string{"-a"}, rule...)...); err != nil {
			return err
		}
		a.rules = append(a.rules, rule)
	}
	a.kernel = kauditd()
	s, err := auditStatus(ctx)
	if err != nil {
		return err
	}
	a.was["lost now"] = s["lost"]
	return nil
}

func (a *auditd) pids() []int {
	all := measure.Family(a.daemon.Process.Pid)
	if a.kernel > 0 {
		all = append(all, a.kernel)
	}
	return all
}

func (a *auditd) settle(ctx context.Context) (uint64, string, error) {
	last := int64(-1)
	for range 30 {
		time.Sleep(2 * time.Second) // end_of_event_timeout
		s, err := auditStatus(ctx)
		if err != nil {
			return 0, "", err
		}
		size := int64(0)
		if st, err := os.Stat(filepath.Join(a.output(), "audit.log")); err == nil {
			size = st.Size()
		}
		if s["backlog"] == "0" && size == last {
			break
		}
		last = size
	}
	s, err := auditStatus(ctx)
	if err != nil {
		return 0, "", err
	}
	// The kernel counts records, of which an execution is six.
	lost := number(s["lost"]) - number(a.was["lost now"])
	note := fmt.Sprintf("%.0f MB of log", float64(last)/1e6)
	if wait := number(s["backlog_wait_time_actual"]); wait > number(a.was["backlog_wait_time_actual"]) {
		note += fmt.Sprintf("; made others wait %d ms", wait-number(a.was["backlog_wait_time_actual"]))
	}
	return lost, note, nil
}

func (a *auditd) stop() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, rule := range a.rules {
		err = errors.Join(err, auditctl(ctx, append([]string{"-d"}, rule...)...))
	}
	a.rules = nil
	if a.daemon != nil && a.daemon.Process != nil {
		_ = a.daemon.Process.Signal(syscall.SIGTERM)
		select {
		case exit := <-a.ended:
			if exit != nil {
				err = errors.Join(err, fmt.Errorf("auditd: %w", exit))
			}
		case <-time.After(30 * time.Second):
			_ = a.daemon.Process.Kill()
			err = errors.Join(err, <-a.ended)
		}
	}
	if a.was != nil {
		for _, set := range [][]string{{"-e", a.was["enabled"]}, {"-b", a.was["backlog_limit"]}, {"--backlog_wait_time", a.was["backlog_wait_time"]}} {
			err = errors.Join(err, auditctl(ctx, set...))
		}
	}
	return err
}

func (a *auditd) delivered(mark string) (n uint64, err error) {
	f, err := os.Open(filepath.Join(a.output(), "audit.log"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 4<<20)
	for s.Scan() {
		line := s.Bytes()
		if !bytes.Contains(line, []byte(mark+"-")) { // not the load itself
			continue
		}
		// Of auditd the record with the arguments, or with the new file's name; of
		// LAUREL the line that has all of an event.
		switch {
		case bytes.HasPrefix(line, []byte("{")), bytes.HasPrefix(line, []byte("type=EXECVE ")),
			bytes.HasPrefix(line, []byte("type=PATH ")) && bytes.Contains(line, []byte("nametype=CREATE")):
			n++
		}
	}
	return n, s.Err()
}

func auditctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "auditctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("auditctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func auditStatus(ctx context.Context) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "auditctl", "-s").Output()
	if err != nil {
		return nil, fmt.Errorf("auditctl -s (Debian: apt install auditd): %w", err)
	}
	s := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			s[k] = v
		}
	}
	return s, nil
}

func number(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// kauditd is the thread of the kernel that hands the records out.
func kauditd() int {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if comm, err := os.ReadFile(filepath.Join("/proc", d.Name(), "comm")); err == nil && strings.TrimSpace(string(comm)) == "kauditd" {
			return pid
		}
	}
	return 0
}
