package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
	"github.com/bulwarkhq/bulwark/test/need"
)

// answers says which schema the JSON answer of a command has, by the beginning
// of the command; the longest counts.
var answers = map[string]string{
	"version": "version", "health": "health", "health --details": "health-details", "health --explain": "health-issues",
	"config": "setting", "config show": "settings", "config show edr.groupIds": "setting", "config validate": "validation", "config import-mdatp": "import",
	"scan quick": "scan", "scan full": "scan", "scan custom": "scan", "scan cancel": "scan-state", "scan processes": "scan", "scan get": "scan-details", "scan list": "scan-list", "scan status": "scan-status",
	"definitions update": "definitions-result", "definitions reload": "definitions-result", "definitions restore": "definitions-result", "definitions path": "definitions-result",
	"definitions info": "definitions", "definitions status": "definitions", "definitions compile": "definitions-compile", "definitions check": "definitions-compile", "definitions explain": "definitions-explain",
	"rules list": "rules", "rules check": "rules-check", "rules test": "rules-test",
	"threat list": "threat-list", "threat get": "threat", "threat allowed": "done", "threat allowed list": "threat-allowed", "threat policy": "done", "threat policy list": "threat-policy",
	"threat quarantine": "done", "threat quarantine list": "quarantine-list", "threat quarantine remove-all": "removed", "threat quarantine restore": "restored",
	"exclusion": "exclusion", "exclusion list": "exclusion-list", "exclusion test": "exclusion-test",
	"network-protection": "setting", "network-protection reset": "network-reset", "network-protection exclusion list": "network-exclusions",
	"diagnostic create": "diagnostic", "diagnostic real-time-protection-statistics": "statistics", "diagnostic real-time-protection-statistics --suggest": "exclusion-suggestions",
	"diagnostic hot-event-sources": "hot-event-sources", "diagnostic ebpf-statistics": "event-statistics", "diagnostic analyze": "analysis", "diagnostic show-outgoing": "outgoing",
	"connectivity": "connectivity", "log level": "log-level", "edr": "edr", "edr events": "sensor-events", "edr events --follow": "sensor-event", "edr tree": "process-tree", "edr exclusion": "exclusion-list", "selftest": "selftest", "update check": "product-update", "coverage": "coverage", "top": "top",
	"explain": "explanation", "offboard": "done", "isolation release": "done", "isolation status": "isolation",
}

// noAnswer are commands whose output is no answer of the API but a text of its
// own: for shells, for editors, for packages.
var noAnswer = []string{"help", "completion", "man", "config schema", "health --field"}

// ours are commands that the reference product has not, with arguments.
var ours = []string{
	"health --explain", "health --details portal", "config enforcement-level --value audit", "config passive-mode --value enabled --for 1h", "config tamper-protection enforcement-level --value audit", "config show", "config show edr.groupIds", "config set edr.groupIds g", "config unset edr.groupIds",
	"config validate wrong.json", "config import-mdatp --dry-run --from mdatp", "scan status", "scan processes", "scan get --id s1", "definitions reload", "definitions info", "definitions status", "definitions path reset", "definitions check definitions",
	"definitions compile --out compiled definitions", "definitions explain Example.Body definitions", "exclusion test --path /tmp", "diagnostic analyze", "diagnostic show-outgoing",
	"diagnostic real-time-protection-statistics --suggest", "edr status", "edr events", "edr events --follow --count 1", "edr tree 42", "log level get", "selftest", "update check", "coverage", "top --once", "explain /tmp/x", "isolation status", "isolation release --token bulwark-release-v1.good", "offboard",
	"rules list", "rules check rules", "rules test whoami --rules rules --events rules/events.jsonl",
}

func answerOf(command string) string {
	best, schema := "", ""
	for begin, name := range answers {
		if (command == begin || strings.HasPrefix(command, begin+" ")) && len(begin) > len(best) {
			best, schema = begin, name
		}
	}
	return schema
}

func isNoAnswer(command string) bool {
	return slices.ContainsFunc(noAnswer, func(begin string) bool { return command == begin || strings.HasPrefix(command, begin+" ") })
}

// commands are all of the reference's and ours.
func commands() []string {
	var out []string
	for _, r := range reference {
		if r.state != none && !isNoAnswer(r.command) {
			out = append(out, r.command)
		}
	}
	return append(out, ours...)
}

// prepare makes what a command needs: quarantined files, a running scan. The
// returned command can be run without waiting for ever.
func (d *daemon) prepare(command string) string {
	d.agent.mu.Lock()
	defer d.agent.mu.Unlock()
	d.agent.quarantine = newFakeAgent().quarantine
	if d.agent.scans[0].State == "Running" {
		d.agent.scans[0].State = "Cancelled"
	}
	if command == "scan cancel" {
		d.agent.scans[0].State, d.agent.running = "Running", make(chan struct{})
	}
	if strings.HasPrefix(command, "diagnostic hot-event-sources") {
		command += " --duration 10ms --report /dev/null"
	}
	return command
}

// inTestdata changes into a copy of testdata, since commands write files.
func inTestdata(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
}

// TestEveryAnswer runs every command that there is and validates its JSON
// answer against the published schema. A new command without a schema, or that
// nobody runs here, fails.
func TestEveryAnswer(t *testing.T) {
	d := runDaemon(t, true)
	root := strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	schemas, err := filepath.Abs(schemaDir)
	if err != nil {
		t.Fatal(err)
	}
	inTestdata(t)
	compiled := map[string]*jsonschema.Schema{}
	for _, name := range answers {
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		if compiled[name], err = c.Compile(filepath.Join(schemas, name+".schema.json")); err != nil {
			t.Fatal(err)
		}
	}
	ran := map[*cobra.Command]bool{}
	tree := newApp("bulwark", &bytes.Buffer{}, &bytes.Buffer{}).rootCommand()
	for _, command := range commands() {
		words := strings.Fields(d.prepare(command))
		if c, _, err := tree.Find(words); err != nil {
			t.Errorf("%s: %v", command, err)
		} else {
			ran[c] = true
		}
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), "bulwark", append([]string{"--root", root, "--output", "json"}, words...), &stdout, &stderr)
		if strings.HasPrefix(command, "health --details ") && strings.Contains(stderr.String(), "there are no details") {
			continue // the fake agent has few components
		}
		v, err := jsonschema.UnmarshalJSON(&stdout)
		if err != nil {
			t.Errorf("%s: status %d, no JSON: %v; %s", command, status, err, stderr.String())
			continue
		}
		if err := compiled[answerOf(command)].Validate(v); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		path := strings.TrimPrefix(c.CommandPath(), "bulwark ")
		if !c.HasSubCommands() && !isNoAnswer(path) {
			switch {
			case answerOf(path) == "":
				t.Errorf("%s has no schema", path)
			case !ran[c]:
				t.Errorf("%s: its answer is validated nowhere", path)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(tree)
}

// readable are the commands that everybody may use, by their beginning; all
// others are for root and the group.
var readable = []string{
	"version", "health", "config show", "config validate", "scan list", "scan status", "scan get", "definitions info", "definitions status", "definitions check", "definitions compile", "definitions explain", "rules list", "rules check", "rules test",
	"threat list", "threat get", "threat allowed list", "threat policy list", "threat quarantine list", "exclusion list", "exclusion test",
	"network-protection exclusion list", "diagnostic real-time-protection-statistics", "connectivity test", "update check", "log level get", "edr status", "isolation status", "coverage --last",
}

func isReadable(command string) bool {
	if strings.HasSuffix(command, "--suggest") {
		return false // it names files
	}
	return slices.ContainsFunc(readable, func(begin string) bool { return command == begin || strings.HasPrefix(command, begin+" ") })
}

// TestOrdinaryUser: who is neither root nor in the group may look and change
// nothing.
func TestOrdinaryUser(t *testing.T) {
	need.Root(t)
	d := runDaemon(t, true)
	root := strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	inTestdata(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{dir, root} {
		for ; from != os.TempDir() && from != "/"; from = filepath.Dir(from) {
			if err := os.Chmod(from, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	// So that there is something to remove.
	set := api.SetRequest{Key: policy.KeyNetworkExclusions, Value: []byte(`["/usr/bin/ssh"]`)}
	if _, err := d.manager.Set(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(d.dirs.State, "local.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := startChild(program, []string{"BULWARK_TEST_ROOT=" + root, "TZ=UTC"}, func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	})
	allowed, refused := 0, 0
	for _, command := range commands() {
		switch {
		case strings.HasPrefix(command, "health --details "), strings.HasPrefix(command, "definitions c"), strings.HasPrefix(command, "definitions explain"), strings.HasPrefix(command, "rules "),
			strings.HasPrefix(command, "config validate"), command == "version": // tested elsewhere, and without the daemon
			continue
		}
		reply, err := c.run("/", "bulwark", append([]string{"--output", "json"}, strings.Fields(d.prepare(command))...)...)
		if err != nil {
			t.Fatal(err)
		}
		status, stdout, stderr := reply.Status, string(reply.Stdout), string(reply.Stderr)
		denied := strings.Contains(stderr, `"code":"permission_denied"`) && strings.Contains(stderr, "sudo")
		switch {
		case strings.HasPrefix(command, "config import-mdatp"): // finds nothing there
		case isReadable(command):
			allowed++
			if denied || status == statusError {
				t.Errorf("%s is refused: status %d: %s", command, status, stderr)
			}
		default:
			refused++
			if !denied || status != statusError || stdout != "" {
				t.Errorf("%s is not refused: status %d: %s%s", command, status, stdout, stderr)
			}
		}
	}
	if allowed < 15 || refused < 50 {
		t.Errorf("%d commands allowed, %d refused", allowed, refused)
	}
	after, err := os.ReadFile(filepath.Join(d.dirs.State, "local.json"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("the settings were changed to %s", after)
	}
}
