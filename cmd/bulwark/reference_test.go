package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestReferenceCommands walks the reference product's commands under its name:
// each that we have works in text, with the reference's words, and JSON, and each
// that we have not is refused, so that the table cannot promise what is not there.
func TestReferenceCommands(t *testing.T) {
	d := runDaemon(t, true)
	root := strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	t.Chdir(t.TempDir()) // reports land in the working folder
	walked := map[string]bool{}
	for _, output := range []string{"text", "json"} {
		for _, r := range reference {
			d.agent.mu.Lock()
			d.agent.quarantine = newFakeAgent().quarantine
			if r.command == "scan cancel" {
				d.agent.scans[0].State, d.agent.running = "Running", make(chan struct{})
			}
			d.agent.mu.Unlock()
			args := append([]string{"--root", root, "--output", output}, strings.Fields(r.command)...)
			var stdout, stderr bytes.Buffer
			status := 0
			if strings.HasPrefix(r.command, "diagnostic hot-event-sources") {
				// As a user ends it, once there is something to see: on a busy machine later.
				for wait := 300 * time.Millisecond; wait < 2*time.Minute; wait *= 4 {
					stdout.Reset()
					stderr.Reset()
					ctx, cancel := context.WithTimeout(t.Context(), wait)
					status = run(ctx, referenceName, args, &stdout, &stderr)
					cancel()
					if stdout.Len() > 0 {
						break
					}
				}
			} else {
				status = run(t.Context(), referenceName, args, &stdout, &stderr)
			}
			walked[r.command] = true
			want, known := words[r.command]
			said := stdout.String() + stderr.String()
			refused := strings.Contains(said, "unknown command") || strings.Contains(said, "unknown flag") || strings.Contains(said, "there are no details")
			switch {
			case r.state == none:
				if !refused {
					t.Errorf("%s is in the table as %q but is not unknown: %s", r.command, r.state, said)
				}
			case !known && strings.HasPrefix(r.command, "health --details "):
				// The fake agent has few components; the command itself is there.
				if strings.Contains(said, "unknown") || status == statusOK == strings.Contains(said, "there are no details") {
					t.Errorf("%s: status %d: %s", r.command, status, said)
				}
			case status != statusOK:
				t.Errorf("%s --output %s: status %d: %s", r.command, output, status, said)
			case !known:
				t.Errorf("nothing says how %q is answered", r.command)
			case output == "text" && !regexp.MustCompile("(?m)"+want).Match(stdout.Bytes()):
				t.Errorf("mdatp %s\n%s\nwant %s", r.command, said, want)
			case output == "json" && r.command != "help" && !json.Valid(stdout.Bytes()):
				t.Errorf("%s --output json: %s", r.command, said)
			}
			if r.command == "scan cancel" {
				d.agent.mu.Lock()
				d.agent.scans[0].State = "Cancelled"
				d.agent.mu.Unlock()
			}
		}
	}
	for command := range words {
		if !walked[command] {
			t.Errorf("%q is not in the table of the reference's commands", command)
		}
	}
}

// TestReferenceSurface: under the reference product's name there is nothing
// that is not in the table.
func TestReferenceSurface(t *testing.T) {
	root := newApp(referenceName, &bytes.Buffer{}, &bytes.Buffer{}).rootCommand()
	kept := surface(newApp("bulwark", &bytes.Buffer{}, &bytes.Buffer{}).rootCommand())
	paths := map[string][]string{}
	for c, flags := range kept {
		paths[strings.TrimPrefix(c.CommandPath(), "bulwark")] = flags
	}
	seen := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		path := strings.TrimPrefix(c.CommandPath(), referenceName)
		if c.Name() == "completion" && c.Hidden {
			return
		}
		flags, ok := paths[path]
		if !ok {
			t.Errorf("mdatp%s is offered and not in the table", path)
		}
		seen++
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" && !slices.Contains(flags, f.Name) {
				t.Errorf("mdatp%s --%s is offered and not in the table", path, f.Name)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if seen != len(paths) || seen < 100 {
		t.Errorf("%d commands under the name mdatp, %d in the table", seen, len(paths))
	}
	for _, args := range []string{"top", "scan status", "selftest", "config show", "config set a b", "scan quick --threads 2", "scan list --last 1", "health --explain"} {
		var stdout, stderr bytes.Buffer
		if status := run(t.Context(), referenceName, strings.Fields(args), &stdout, &stderr); status != statusError || !strings.Contains(stderr.String(), "unknown") {
			t.Errorf("mdatp %s: status %d: %s", args, status, stderr.String())
		}
	}
}

const cliIntro = `# The command line

` + "`bulwark`" + ` asks and directs the daemon ` + "`bulwarkd`" + ` through its local API (` + "`/run/bulwark/bulwark.sock`" + `).
Started under the name ` + "`mdatp`" + ` it speaks the reference product's surface and nothing else: the commands, flags and health
fields of the table of its commands. Everybody may look; changes are for root and
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
- Everybody may look at the state; whatever changes something, or shows files and programs of other users, needs root
  or the group ` + "`bulwark`" + `.
- The language and width of the terminal never change what a program reads: numbers, dates and words stay the same, and
  lines are only wrapped on a terminal.
- Values that are no valid UTF-8 are refused, except file names.
- ` + "`--root DIR`" + ` talks to a side-by-side installation below DIR.
- Completion: ` + "`source <(bulwark completion bash)`" + `; also zsh and fish; the packages install all three and a manual page for every command.
- To have the reference product's name: ` + "`ln -s /opt/bulwark/bin/bulwark /usr/local/bin/mdatp`" + `.

## Exit status

| Status | Meaning |
|---|---|
| 0 | success; a scan found nothing |
| 1 | the command worked and the answer is no: threats found, an address cannot be reached, a step of the self-test failed, some definitions did not load, a checked profile has errors, an import left something out, an analysis found something critical |
| 2 | an error: wrong usage, no daemon, not allowed, managed by policy, not found, a scan failed or was cancelled from elsewhere |
| 130 | a scan that was cancelled by a signal (Ctrl-C); the daemon has stopped it |

A scan belongs to the daemon: when the program is killed (SIGKILL) the scan goes on; ` + "`bulwark scan status --follow`" + ` shows
it from any terminal, ` + "`bulwark scan cancel`" + ` ends it. On a terminal its progress is a bar, elsewhere plain lines every ten seconds.
`

const cliFiles = `
## The reference product's files and procedures

| There | Here |
|---|---|
| ` + "`/var/log/microsoft/mdatp/microsoft_defender.log`, `_core.log`, `_np_ext.log`" + ` | ` + "`/var/log/bulwark/bulwark.log`: one daemon, one log; the second brackets name the component" + ` |
| ` + "`microsoft_defender_err.log`, `_core_err.log`" + ` | ` + "`bulwark_err.log`" + ` |
| ` + "`microsoft_defender_scan_skip.log`" + ` | ` + "`bulwark_scan_skip.log`; `bulwark scan get --id`" + ` |
| ` + "`microsoft_defender_diagnostic_event_provider_counters.json`" + ` | ` + "`bulwark diagnostic ebpf-statistics --output json`" + ` |
| ` + "`install.log`" + ` | the logs of the package manager; the bundle has them. The release ring is in health |
| ` + "`diagnostic create`: `/var/opt/microsoft/mdatp/wdavdiag`" + ` | ` + "`/var/opt/bulwark/diagnostic`" + `; settings, history and logs, and what the client analyzer collects |
| client analyzer (` + "`mde_support_tool.sh -d`" + `) | ` + "`bulwark diagnostic analyze`" + `, also of a bundle from another host (` + "`--bundle`" + `) and as a page (` + "`--html`" + `) |
| scan history ` + "`wdavhistory`" + `, the last seven in ` + "`scan list`" + ` | all of them, ` + "`--last`" + ` shows fewer; ` + "`scans.json`" + ` in the bundle |
| cron and anacron scans without a status | exit status, and the scans are in ` + "`scan list`" + `: [scans.md](scans.md) |
| ids of ` + "`threat quarantine`" + ` | that of the quarantined file, or that of its threat (of several files the newest) |
| a restored file is not detected again | its content is not, wherever it lies, for ` + "`threatRestorationExclusionTime`" + `; ` + "`threat quarantine add`" + ` ends that |
| status icon, notifications on the desktop | neither, as there on Linux; alerts leave the portal as webhooks and more: [exports](portal/exports.md) |
`

// TestDocumentation holds docs/cli.md to the code.
func TestDocumentation(t *testing.T) {
	var b strings.Builder
	b.WriteString(cliIntro)
	b.WriteString("\n## Commands\n\nCommands marked with R are for root and members of the group `bulwark`. The last column is the schema of the JSON answer in\n`api/schemas`.\n\n| Command | Meaning | | Schema |\n|---|---|---|---|\n")
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
			path, who := strings.TrimPrefix(c.CommandPath(), "bulwark "), "R"
			if isReadable(path) || isNoAnswer(path) || own != "" {
				who = ""
			}
			schema := answerOf(path)
			if own != "" {
				schema = "local-scan"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", strings.TrimSpace(use+" "+strings.Join(flags, " ")), short, who, schema)
		}
		for _, sub := range c.Commands() {
			if sub.Name() != "help" && !sub.Hidden {
				walk(sub)
			}
		}
	}
	walk(a.rootCommand())
	b.WriteString("\n## The reference product's commands\n\n| `mdatp ...` | Here | Note |\n|---|---|---|\n")
	for _, r := range reference {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.command, r.state, r.note)
	}
	b.WriteString(cliFiles)
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
