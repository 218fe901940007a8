package techniques

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/sandbox"
)

// settle waits until the sensor has delivered everything of before: the start
// of a process that is only for this comes after it.
func (w *watch) settle(t *testing.T) {
	t.Helper()
	mark := fmt.Sprintf("/bin/true bulwark-techniques-%d", time.Now().UnixNano())
	w.mu.Lock()
	w.mark, w.marked = mark, make(chan struct{})
	marked := w.marked
	w.mu.Unlock()
	if err := exec.Command("/bin/true", strings.TrimPrefix(mark, "/bin/true ")).Run(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-marked:
	case <-time.After(settleTime):
		t.Fatal("the sensor did not deliver the event that ends a run")
	}
}

// standIns are programs of which only the start matters.
var standIns = []string{
	"at", "batch", "arp", "arecord", "arp-scan", "arpspoof", "auditctl", "busybox", "chattr", "curl", "docker", "dpkg", "efibootmgr", "emacs", "findmnt",
	"fswebcam", "gdb", "gcore", "getcap", "gpg", "gzexe", "host", "hostnamectl", "hydra", "ifconfig", "insmod", "iptables", "john", "journalctl", "kubectl",
	"last", "ldapsearch", "locale", "locate", "losetup", "lsattr", "lsmod", "lsof", "lspci", "lsusb", "lua", "modprobe", "nc", "ncat", "netstat", "nmap",
	"nmcli", "nslookup", "dig", "nsenter", "openssl", "php", "ping", "pip3", "rclone", "rsync", "setarch", "setcap", "setfattr", "shred", "socat",
	"sshpass", "ssh", "ss", "steghide", "strace", "sudo", "systemctl", "systemd-detect-virt", "systemd-run", "tcpdump", "telnet", "tshark", "ufw", "unzip", "update-ca-certificates",
	"virsh", "vim", "wget", "wipefs", "wmctrl", "xclip", "xinput", "xwd", "xxd", "zip", "evtest", "logkeys", "dmesg", "showmount", "smbclient", "scrot", "useradd",
	"usermod", "userdel", "chpasswd", "chsh", "gpasswd", "crontab", "sysctl", "chage", "reboot", "shutdown", "halt", "poweroff",
}

// runs are the commands that the test files of the rules have under "run".
func runs(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("../../content/rules/tests/*.yml")
	if err != nil || len(files) < 100 {
		t.Fatal(len(files), err)
	}
	out := map[string][]string{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Run []string }
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if len(doc.Run) > 0 {
			out[strings.TrimSuffix(filepath.Base(f), ".yml")] = doc.Run
		}
	}
	return out
}

// titleOf is the title of the rule of a file.
func titlesByFile(t *testing.T) map[string]string {
	t.Helper()
	e := detect.New(detect.Options{})
	e.Load(detect.Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	out := map[string]string{}
	for _, r := range e.Rules() {
		out[strings.TrimSuffix(filepath.Base(r.Rule.File), ".yml")] = r.Rule.Title
	}
	return out
}

// Rules find their technique when it really runs. The commands of all rules
// run in one box, one after the other, so that this costs a few seconds.
func TestTechniquesForReal(t *testing.T) {
	sandbox.Need(t)
	w := startWatch(t)
	all, titles := runs(t), titlesByFile(t)
	names := make([]string, 0, len(all))
	var script strings.Builder
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, c := range all[name] {
			// Each with its own limit and without input; what it prints is of no interest.
			fmt.Fprintf(&script, "s=$SECONDS; ( %s ) >/dev/null 2>&1 </dev/null; [ $((SECONDS-s)) -gt 2 ] && echo \"slow: %s\"\n", c, name)
		}
	}
	box := sandbox.Box{StandIns: standIns, Time: 3 * time.Minute}
	dir := t.TempDir()
	var r sandbox.Result
	got, events := w.during(t, inBox, func() {
		var err error
		if r, err = box.Run(t.Context(), dir, script.String()); err != nil {
			t.Fatal(err)
		}
	})
	hit := map[string]bool{}
	for _, f := range got {
		hit[f.rule.Title] = true
	}
	missed := 0
	for _, name := range names {
		if !hit[titles[name]] {
			missed++
			t.Errorf("%s (%s) is not found by: %q", name, titles[name], all[name])
		}
	}
	t.Logf("%d rules tried, %d not found, %d events, stand-ins: %s", len(names), missed, events, strings.Join(r.Missing, " "))
	if len(names) < 100 {
		t.Errorf("only %d rules have a command to run", len(names))
	}
	if strings.Contains(r.Output, "slow: ") {
		t.Log(r.Output)
	}
	capture(t, got)
}

// capture writes one event of each rule to the folder of BULWARK_CAPTURE, as
// the sensor delivered it.
func capture(t *testing.T, got []found) {
	dir := os.Getenv("BULWARK_CAPTURE")
	if dir == "" {
		return
	}
	done := map[string]bool{}
	for _, f := range got {
		name := strings.TrimSuffix(filepath.Base(f.rule.File), ".yml")
		if done[name] {
			continue
		}
		done[name] = true
		data, err := json.MarshalIndent(anonymous(f.event), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// anonymous removes what says more about the machine than about the event.
func anonymous(e event.Event) event.Event {
	for _, p := range []*event.Process{&e.Process, &e.Initiating} {
		p.Namespaces, p.ContainerID, p.ContainerName, p.ContainerImage, p.Pod = "", "", "", "", ""
		p.SHA1, p.SHA256, p.MD5, p.FuzzyHash = "", "", "", ""
		p.StartTime, p.ParentStartTime = time.Time{}, time.Time{}
		p.Package = ""
		if strings.Contains(p.CommandLine, "/sandbox") {
			p.CommandLine = "unshare"
		}
	}
	e.ReportID, e.Time = 0, time.Unix(1.7e9, 0).UTC()
	return e
}
