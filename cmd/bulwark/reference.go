package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// referenceName is the name under which the program speaks the reference
// product's surface and nothing else.
const referenceName = "mdatp"

// How we answer a command of the reference product.
const (
	same     = "same"
	extended = "extended"
	none     = "not applicable"
)

// reference is every command of the reference product with its flags, without
// its name; values are examples. It is the surface under the name mdatp, and a
// table in docs/cli.md.
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
	{"health --details tamper_protection", none, "seen on macOS only, as device_control and system_extensions"},
	{"config real-time-protection --value enabled", same, ""},
	{"config passive-mode --value enabled", same, "turning it off leaves real-time protection off until it is turned on"},
	{"config cloud --value enabled", same, ""},
	{"config cloud-diagnostic --value enabled", same, "needs a restart"},
	{"config cloud-automatic-sample-submission --value enabled", same, ""},
	{"config automatic-definitions-update --value enabled", same, ""},
	{"config real-time-protection-statistics --value enabled", same, "on by default here"},
	{"config behavior-monitoring --value enabled", same, "always on, as part of EDR: disabled is refused"},
	{"config maximum-on-demand-scan-threads --value 4", same, ""},
	{"config scan-after-definition-update --value enabled", same, ""},
	{"config scan-archives --value enabled", same, ""},
	{"config enable-file-hash-computation --value enabled", same, "always on: disabled is refused"},
	{"config log-rotation-parameters max-current-size --size 10", extended, "no restart needed"},
	{"config log-rotation-parameters max-rotated-size --size 100", extended, "no restart needed"},
	{"config proxy set --value http://proxy:3128", same, ""},
	{"config proxy unset", same, ""},
	{"config network-protection enforcement-level --value audit", same, "for the addresses and names of indicators; health says if it cannot take effect"},
	{"config ebpf-supplementary-event-provider --value enabled", same, "needs a restart"},
	{"config scheduled-scan settings feature --value enabled", same, ""},
	{"config scheduled-scan quick-scan time-of-day --value 885", same, ""},
	{"config scheduled-scan quick-scan hourly-interval --value 1", same, ""},
	{"config scheduled-scan weekly-scan --day-of-week 3 --time-of-day 60 --scan-type full", same, ""},
	{"scan quick", extended, "progress, exit status, --threads, --low-priority; unchanged files are not scanned again and data is left to full scans (docs/scans.md), --all scans both"},
	{"scan full", extended, "as scan quick"},
	{"scan custom --path /tmp", extended, "several --path"},
	{"scan custom --path /tmp --ignore-exclusions", same, ""},
	{"scan cancel", same, ""},
	{"scan list", extended, "the whole history, --last"},
	{"definitions update", extended, "the answer says what was loaded"},
	{"definitions restore", extended, "as definitions update"},
	{"definitions path set --path /srv/definitions", same, "loads at once; bulwark definitions path reset goes back"},
	{"threat list", extended, "process and user; JSON in the reference's shape as `mdatp`, ours as `bulwark`"},
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
	{"exclusion list", extended, "owner, reason, expiry, warnings and what each hides"},
	{"exclusion extension add --name .log --scope epp", extended, "--owner, --reason, --expires"},
	{"exclusion extension remove --name .log --scope epp", same, ""},
	{"exclusion file add --path /tmp/x --scope epp", extended, "as exclusion extension add"},
	{"exclusion file remove --path /tmp/x --scope epp", same, ""},
	{"exclusion folder add --path /tmp --scope global", extended, "as exclusion extension add"},
	{"exclusion folder remove --path /tmp --scope global", same, ""},
	{"exclusion process add --path /usr/bin/tar --scope global", extended, "as exclusion extension add"},
	{"exclusion process remove --path /usr/bin/tar --scope global", same, ""},
	{"exclusion process add --name cat", extended, "as exclusion extension add"},
	{"exclusion process remove --name cat", same, ""},
	{"network-protection reset", same, "local settings of network protection go back to their defaults"},
	{"network-protection exclusion add --path /usr/bin/ssh", same, "programs by their full path"},
	{"network-protection exclusion list", same, ""},
	{"network-protection exclusion remove --path /usr/bin/ssh", same, ""},
	{"network-protection remote-settings-override set --value {}", none, "seen on macOS only"},
	{"network-protection feature-control set-mode --value audit", same, "an older form of config network-protection enforcement-level, block or audit"},
	{"diagnostic create --path /tmp", same, ""},
	{"diagnostic real-time-protection-statistics --sort --top 4", extended, "--suggest names exclusions with their risk; see bulwark top too"},
	{"diagnostic hot-event-sources files", extended, "any log level; --duration, --report"},
	{"diagnostic hot-event-sources executables", extended, "as hot-event-sources files"},
	{"diagnostic ebpf-statistics", extended, "--duration; counts what the sensor in use delivers, also without eBPF"},
	{"connectivity test", same, ""},
	{"log level set --level debug", same, ""},
	{"log level persist --level info", same, ""},
	{"edr early-preview enabled", same, ""},
	{"edr early-preview disabled", same, ""},
	{"edr group-ids --group-id g", same, ""},
	{"edr tag set --name GROUP --value blue", same, ""},
	{"edr tag remove --name GROUP", same, ""},
	{"edr exclusion list processes", same, "exclusions of the scope global, which EDR obeys"},
	{"edr exclusion list paths", same, ""},
	{"edr exclusion list extensions", same, "there can be none: an extension cannot be excluded globally"},
	{"edr exclusion list all", same, ""},
}

// surface is what the reference table leaves of a tree of commands: the
// commands, and of each the flags.
func surface(root *cobra.Command) map[*cobra.Command][]string {
	kept := map[*cobra.Command][]string{root: {"output", "root"}}
	for _, r := range reference {
		if r.state == none {
			continue
		}
		at := root
		for _, word := range strings.Fields(r.command) {
			if flag, ok := strings.CutPrefix(word, "--"); ok {
				kept[at] = append(kept[at], flag)
				continue
			}
			i := slices.IndexFunc(at.Commands(), func(c *cobra.Command) bool { return c.Name() == word })
			if i < 0 {
				continue // the value of a flag, or an argument
			}
			at = at.Commands()[i]
			if _, ok := kept[at]; !ok {
				kept[at] = nil
			}
		}
	}
	return kept
}

// asReference takes everything from the tree that the reference product does
// not have: scripts and habits find exactly what they know, and a typing error
// never meets one of our words. Completion stays, unlisted.
func asReference(root *cobra.Command) {
	kept := surface(root)
	var prune func(c *cobra.Command)
	prune = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			switch _, ok := kept[sub]; {
			case ok:
				prune(sub)
			case sub.Name() == "completion":
				sub.Hidden = true
			case sub.Name() != "help":
				c.RemoveCommand(sub)
			}
		}
		var ours []string
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "output" && !slices.Contains(kept[c], f.Name) {
				f.Hidden = true
				ours = append(ours, f.Name)
			}
		})
		if c == root || len(ours) == 0 || c.RunE == nil {
			return
		}
		if c.Annotations[runsItself] != "" { // what it does itself is ours alone
			c.Use, c.Long = c.Name(), ""
		}
		run := c.RunE
		c.RunE = func(c *cobra.Command, args []string) error {
			for _, name := range ours {
				if c.Flags().Changed(name) {
					return fmt.Errorf("unknown flag --%s; see %s --help", name, c.CommandPath())
				}
			}
			return run(c, args)
		}
	}
	prune(root)
	if f := root.PersistentFlags().Lookup("root"); f != nil {
		f.Hidden = true
	}
}
