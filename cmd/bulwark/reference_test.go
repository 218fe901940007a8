package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// How we answer a command of the reference product.
const (
	same     = "same"
	extended = "extended"
	later    = "not yet"
	none     = "not applicable"
)

// reference is every command of the reference product, without its name.
// Values are examples. The walk below runs those that we have.
var reference = []struct {
	command, state, note string
}{
	{"version", extended, "definitions version and build too"},
	{"help", same, ""},
	{"health", extended, "state, portal and queue fields; --explain says what to do"},
	{"health --field healthy", same, ""},
	{"health --details antivirus", same, "components depend on what runs"},
	{"health --details definitions", same, ""},
	{"health --details edr", same, ""},
	{"health --details features", same, ""},
	{"health --details scheduled_scan", same, ""},
	{"health --details help", same, ""},
	{"config real-time-protection --value enabled", same, ""},
	{"config passive-mode --value enabled", same, "turning it off leaves real-time protection off until it is turned on"},
	{"config cloud --value enabled", same, ""},
	{"config cloud-diagnostic --value enabled", same, "needs a restart"},
	{"config cloud-automatic-sample-submission --value enabled", same, ""},
	{"config automatic-definitions-update --value enabled", same, ""},
	{"config real-time-protection-statistics --value enabled", same, "on by default here"},
	{"config behavior-monitoring --value enabled", same, ""},
	{"config maximum-on-demand-scan-threads --value 4", same, ""},
	{"config scan-after-definition-update --value enabled", same, ""},
	{"config scan-archives --value enabled", same, ""},
	{"config enable-file-hash-computation --value enabled", same, ""},
	{"config log-rotation-parameters max-current-size --size 10", extended, "no restart needed"},
	{"config log-rotation-parameters max-rotated-size --size 100", extended, "no restart needed"},
	{"config proxy set --value http://proxy:3128", same, ""},
	{"config proxy unset", same, ""},
	{"config network-protection enforcement-level --value audit", same, ""},
	{"config ebpf-supplementary-event-provider --value enabled", same, ""},
	{"config scheduled-scan settings feature --value enabled", same, ""},
	{"config scheduled-scan quick-scan time-of-day --value 885", same, ""},
	{"config scheduled-scan quick-scan hourly-interval --value 1", same, ""},
	{"config scheduled-scan weekly-scan --day-of-week 3 --time-of-day 60 --scan-type full", same, ""},
	{"scan quick", extended, "progress, exit status, --threads, --low-priority"},
	{"scan full", extended, "as scan quick"},
	{"scan custom --path /tmp", extended, "several --path"},
	{"scan custom --path /tmp --ignore-exclusions", same, ""},
	{"scan cancel", same, ""},
	{"scan list", extended, "the whole history, --last"},
	{"definitions update", extended, "the answer says what was loaded"},
	{"definitions restore", extended, "as definitions update"},
	{"definitions path set --path /srv/definitions", later, "the folder is fixed by the layout (--root moves all)"},
	{"threat list", extended, "process and user"},
	{"threat get --id 3f2a", extended, "signature, process, history"},
	{"threat quarantine list", same, ""},
	{"threat quarantine add --id 3f2a", same, ""},
	{"threat quarantine remove --id q1", same, ""},
	{"threat quarantine remove-all", same, ""},
	{"threat quarantine restore --id q1 --path /tmp", same, ""},
	{"threat quarantine restore threat-id --id q1 --destination-path /tmp", same, ""},
	{"threat quarantine restore threat-path --path /tmp/eicar.com --destination-path /tmp", same, ""},
	{"threat allowed list", same, ""},
	{"threat allowed add --name X", extended, "--sha256 allows one file"},
	{"threat allowed remove --name X", extended, "as threat allowed add"},
	{"threat policy set --type potentially_unwanted_application --action block", same, ""},
	{"threat policy list", same, ""},
	{"exclusion list", extended, "owner, reason, expiry and warnings"},
	{"exclusion extension add --name .log", extended, "--owner, --reason, --expires"},
	{"exclusion extension remove --name .log", same, ""},
	{"exclusion file add --path /tmp/x --scope epp", extended, "as exclusion extension add"},
	{"exclusion file remove --path /tmp/x --scope epp", same, ""},
	{"exclusion folder add --path /tmp --scope global", extended, "as exclusion extension add"},
	{"exclusion folder remove --path /tmp --scope global", same, ""},
	{"exclusion process add --name cat", extended, "as exclusion extension add"},
	{"exclusion process remove --name cat", same, ""},
	{"network-protection reset", later, "network protection is not part of the agent yet"},
	{"network-protection exclusion list", later, "network protection is not part of the agent yet"},
	{"network-protection remote-settings-override set --value {}", none, "seen on macOS only"},
	{"diagnostic create --path /tmp", same, ""},
	{"diagnostic real-time-protection-statistics --sort --top 4", extended, "--suggest names exclusions with their risk; see bulwark top too"},
	{"diagnostic hot-event-sources files --duration 10ms --report /dev/null", extended, "any log level; --duration, --report"},
	{"diagnostic hot-event-sources executables --duration 10ms --report /dev/null", extended, "as hot-event-sources files"},
	{"diagnostic ebpf-statistics", later, ""},
	{"connectivity test", same, ""},
	{"log level set --level debug", same, ""},
	{"log level persist --level info", same, ""},
	{"edr early-preview enabled", same, ""},
	{"edr group-ids --group-id g", same, ""},
	{"edr tag set --name GROUP --value blue", same, ""},
	{"edr tag remove --name GROUP", same, ""},
	{"edr exclusion list all", later, "exclusions that the portal sets for EDR are listed by exclusion list"},
}

// TestReferenceCommands walks the reference product's commands: each that we
// have parses, works in text and JSON, and each that we have not is refused as
// unknown, so that the table cannot promise what is not there.
func TestReferenceCommands(t *testing.T) {
	d := runDaemon(t, true)
	root := strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	for _, output := range []string{"text", "json"} {
		for _, r := range reference {
			d.agent.mu.Lock()
			d.agent.quarantine = newFakeAgent().quarantine
			d.agent.mu.Unlock()
			if r.command == "scan cancel" {
				d.agent.mu.Lock()
				d.agent.scans[0].State, d.agent.running = "Running", make(chan struct{})
				d.agent.mu.Unlock()
			}
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), "mdatp", append([]string{"--root", root, "--output", output}, strings.Fields(r.command)...), &stdout, &stderr)
			said := stdout.String() + stderr.String()
			refused := strings.Contains(said, "unknown command") || strings.Contains(said, "unknown flag")
			switch {
			case r.state == later || r.state == none:
				if !refused {
					t.Errorf("%s is in the table as %q but is not unknown: %s", r.command, r.state, said)
				}
			case strings.HasPrefix(r.command, "health --details "):
				// The fake agent has few components; the command itself is there.
				if refused || status == statusOK == strings.Contains(said, "there are no details") {
					t.Errorf("%s: status %d: %s", r.command, status, said)
				}
			case status != statusOK:
				t.Errorf("%s --output %s: status %d: %s", r.command, output, status, said)
			case output == "json" && r.command != "help" && !strings.HasPrefix(said, "{") && !strings.Contains(r.command, "--field"):
				t.Errorf("%s --output json: %s", r.command, said)
			}
			if r.command == "scan cancel" {
				d.agent.mu.Lock()
				d.agent.scans[0].State = "Cancelled"
				d.agent.mu.Unlock()
			}
		}
	}
}

const cliIntro = `# The command line

` + "`bulwark`" + ` asks and directs the daemon ` + "`bulwarkd`" + ` through its local API (` + "`/run/bulwark/bulwark.sock`" + `).
Started under the name ` + "`mdatp`" + ` it answers the same. Everybody may look; changes are for root and
members of the group ` + "`bulwark`" + `. This page is made from the code
(` + "`go test ./cmd/bulwark -run TestDocumentation -update`" + `).

## Rules

- ` + "`--output json`" + ` works everywhere; the schemas of the answers are in ` + "`api/schemas`" + `. With it, and with
  ` + "`health --field`" + `, the standard output has the answer and nothing else.
- Errors go to the standard error output, with what to do; with ` + "`--output json`" + ` as ` + "`{\"error\": {\"code\", \"message\", \"hint\"}}`" + `.
- A group alone (` + "`bulwark scan`" + `) lists its commands and ends with status 2.
- On a host that is not enrolled the first line begins with ` + "`ATTENTION: No license found`" + ` (on the standard error
  output where the standard output is for programs).
- Text from outside, such as names of files, is escaped: it can neither begin a line nor send control characters.
  In JSON a file name that is not valid UTF-8 is an object ` + "`{\"base64\": \"...\"}`" + `.
- ` + "`--root DIR`" + ` talks to a side-by-side installation below DIR.
- Completion: ` + "`source <(bulwark completion bash)`" + `; also zsh and fish.

## Exit status

| Status | Meaning |
|---|---|
| 0 | success; a scan found nothing |
| 1 | the command worked and the answer is no: threats found, an address cannot be reached, a step of the self-test failed, some definitions did not load, a checked profile has errors |
| 2 | an error: wrong usage, no daemon, not allowed, managed by policy, not found, a scan failed or was cancelled from elsewhere |
| 130 | a scan that was cancelled by a signal (Ctrl-C); the daemon has stopped it |

A scan belongs to the daemon: when the program is killed (SIGKILL) the scan goes on; ` + "`bulwark scan status --follow`" + ` shows
it from any terminal, ` + "`bulwark scan cancel`" + ` ends it. On a terminal its progress is a bar, elsewhere plain lines every ten seconds.
`

// TestDocumentation holds docs/cli.md to the code.
func TestDocumentation(t *testing.T) {
	var b strings.Builder
	b.WriteString(cliIntro)
	b.WriteString("\n## Commands\n\n| Command | Meaning |\n|---|---|\n")
	a := newApp("bulwark", &bytes.Buffer{}, &bytes.Buffer{})
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if own := c.Annotations[runsItself]; !c.HasSubCommands() || c.Name() == "restore" || own != "" {
			short := c.Short
			if own != "" {
				short = own
			}
			var flags []string
			c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				text := "--" + f.Name
				if f.Value.Type() != "bool" {
					text += " " + strings.ToUpper(f.Name)
				}
				flags = append(flags, text)
			})
			slices.Sort(flags)
			use := strings.TrimSuffix(c.CommandPath(), c.Name()) + c.Use
			fmt.Fprintf(&b, "| `%s` | %s |\n", strings.TrimSpace(use+" "+strings.Join(flags, " ")), short)
		}
		for _, sub := range c.Commands() {
			if sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	walk(a.rootCommand())
	b.WriteString("\n## The reference product's commands\n\n| `mdatp ...` | Here | Note |\n|---|---|---|\n")
	for _, r := range reference {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.command, r.state, r.note)
	}
	const path = "../../docs/cli.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s is not what the code says:\n%s", path, diff)
	}
}
