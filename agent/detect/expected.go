package detect

import (
	"regexp"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// Who may be named under the key "expected_from" of a rule: what the rule finds
// below them is a behaviour and no alert.
const (
	// ExpectedFromPackages: a package manager that installs or removes packages,
	// and what maintainers' scripts do in it.
	ExpectedFromPackages = "packages"
	// ExpectedFromConfiguration: a tool of configuration management, and the
	// modules that it runs.
	ExpectedFromConfiguration = "configuration"
)

func (r *Rule) parseExpected(n *node) error {
	if n == nil || n.kind == nullNode {
		return nil
	}
	items := []node{*n}
	if n.kind == listNode {
		items = n.items
	}
	for i := range items {
		switch v := textOf(&items[i]); v {
		case ExpectedFromPackages, ExpectedFromConfiguration:
			r.ExpectedFrom = append(r.ExpectedFrom, v)
		default:
			return atLine(items[i].line, "expected_from: %.64q is not one of %s, %s", v, ExpectedFromPackages, ExpectedFromConfiguration)
		}
	}
	return nil
}

// Outcome is what becomes of a match.
type Outcome struct {
	// Behavior: it is recorded as a behaviour, because its rule is informational
	// or because what it found comes from whom the rule expects it from.
	Behavior bool
	// Alert: it raises an alert, of a behaviour an Informational one.
	Alert bool
	// ExpectedFrom says whom it comes from, of those that the rule names.
	ExpectedFrom string
	// RecordOnly: it would be an alert, but for Modes.
	RecordOnly bool
}

// Outcome decides. Self-tests always alert, and rules that ask for something to
// be done unless Modes say otherwise.
//
// ancestry is the chain of parents of the event's subject, nearest first.
func (m Match) Outcome(ev *event.Event, ancestry []event.Process) Outcome {
	r := m.Rule
	if !r.recordOnly && (r.SelfTest || len(r.Responses) > 0) {
		return Outcome{Alert: true}
	}
	who := m.expectedFrom(ev, ancestry)
	if r.recordOnly {
		return Outcome{Behavior: true, ExpectedFrom: who, RecordOnly: true}
	}
	behavior := r.Severity == event.SeverityInformational || who != ""
	return Outcome{Behavior: behavior, Alert: !behavior || r.Alerts && who == "", ExpectedFrom: who}
}

// expectedFrom says whom what was found comes from, of those that the rule
// expects it from.
func (m Match) expectedFrom(ev *event.Event, ancestry []event.Process) string {
	if len(m.Rule.ExpectedFrom) == 0 {
		return ""
	}
	chain := append([]event.Process{*subject(ev)}, ancestry...)
	for _, who := range m.Rule.ExpectedFrom {
		for i := range chain {
			if who == ExpectedFromPackages && installs(chain, i) || who == ExpectedFromConfiguration && configures(chain, i) {
				return who
			}
		}
	}
	return ""
}

// systemFolders are where only administrators put programs, so that a name there
// says what a program is: those of the system, and those of the tools that bring
// a folder of their own (Puppet, Chef, Cinc, Salt, CFEngine).
const systemFolders = `(?:/(?:usr/(?:local/)?)?s?bin|/usr/lib(?:exec)?` +
	`|/opt/puppetlabs/(?:puppet/)?bin|/opt/(?:chef|cinc)/(?:embedded/)?bin|/opt/saltstack/salt(?:/bin)?|/var/cfengine/bin)`

var (
	systemProgram = regexp.MustCompile(`^` + systemFolders + `/([^/]+)$`)
	// chrootProgram is one of a system that is made or mended in a folder of this one.
	chrootProgram = regexp.MustCompile(`^(/(?:srv|mnt|var/lib|var/cache)(?:/[^/]+)+?)/usr/s?bin/([^/]+)$`)
	scriptlet     = regexp.MustCompile(`^(?:/usr)?/bin/\w+ (?:-\S+ )*/var/tmp/rpm-tmp\.\w+`)
	// ansibleModule is what Ansible runs on the host that it configures. Where it
	// becomes another user than root its modules lie in folders that are open to
	// everybody: those are nobody's.
	ansibleModule = regexp.MustCompile(`^(?:\S*/)?python[\d.]* (?:-\S+ )*/(?:root|home/[^/ ]+|var/lib/[^/ ]+)(?:/[^/ ]+)*/ansible-tmp-[\d.-]+/AnsiballZ_\w+\.py(?: |$)`)
)

// installs reports whether process i of a chain, nearest first, installs or
// removes packages.
func installs(chain []event.Process, i int) bool {
	p := &chain[i]
	switch program(chain, i) {
	case "":
		return false
	case "dpkg":
		return dpkgOptions.change(p.CommandLine)
	case "rpm":
		return rpmOptions.change(p.CommandLine)
	}
	return i+1 < len(chain) && scriptlet.MatchString(p.CommandLine) &&
		slices.Contains([]string{"rpm", "dnf", "dnf-3", "dnf5", "yum", "microdnf", "zypper", "packagekitd", "rpm-ostree", "tdnf"}, program(chain, i+1))
}

func configures(chain []event.Process, i int) bool {
	name := program(chain, i)
	return strings.HasPrefix(name, "python") && ansibleModule.MatchString(chain[i].CommandLine) || slices.Contains([]string{
		"ansible", "ansible-playbook", "ansible-pull", "puppet", "chef-client", "cinc-client", "salt-minion", "salt-call", "cf-agent", "cloud-init",
	}, name)
}

// program is the name of process i of a chain, or of the script that the kernel
// started its interpreter for, when it lies where only administrators put
// programs and runs as root of the host; else empty. Anybody may start a program
// and choose the words of its command line, but a package manager or a tool that
// configures the host only changes it as root. Root of a container counts, but
// not where a user namespace makes an ordinary user of it.
//
// In a chroot all that it started must lie in the same.
func program(chain []event.Process, i int) string {
	p := &chain[i]
	if p.UID != 0 {
		return ""
	}
	m := systemProgram.FindStringSubmatch(p.FolderPath)
	if m == nil {
		if m = chrootProgram.FindStringSubmatch(p.FolderPath); m == nil {
			return ""
		}
		for k := range i {
			if !strings.HasPrefix(chain[k].FolderPath, m[1]+"/") {
				return ""
			}
		}
		m = m[1:]
	}
	if p.Script != "" {
		// Of a chroot it is named as it is seen there.
		if m = systemProgram.FindStringSubmatch(p.Script); m == nil {
			return ""
		}
	}
	return m[1]
}

// options are those of a package manager, of which the ones before the first
// operand count: the words of a command line are known without their bounds, so
// what looks like an option later may be a part of an operand.
type options struct {
	install *regexp.Regexp // of the action, with which it changes the system
	value   *regexp.Regexp // the next word belongs to it
	// never: another action, one of which may start a pager or a shell.
	never *regexp.Regexp
	// anywhere: it runs commands of its user's, wherever it stands.
	anywhere *regexp.Regexp
}

var (
	dpkgOptions = options{
		install:  regexp.MustCompile(`^(?:--(?:configure|unpack|install|remove|purge|triggers-only|update-avail)|-[iPr])$`),
		value:    regexp.MustCompile(`^(?:--(?:admindir|instdir|root|log|status-fd|abort-after|ignore-depends|path-(?:in|ex)clude|debug)|-D)$`),
		never:    regexp.MustCompile(`^(?:-[lspLScICVbexXfW?]|--(?:(?:list|status|listfiles|search|contents|info|field|control|extract|vextract|build|audit|verify|help|version)$|print-|get-))`),
		anywhere: regexp.MustCompile(`^--(?:pre-invoke|post-invoke|status-logger)\b`),
	}
	rpmOptions = options{
		install:  regexp.MustCompile(`^(?:--(?:install|upgrade|erase|freshen|reinstall|import|initdb|rebuilddb|restore)|-[iUFe][a-zA-Z]*)$`),
		value:    regexp.MustCompile(`^(?:--(?:root|dbpath|prefix|relocate|excludepath)|-r)$`),
		never:    regexp.MustCompile(`^(?:-[a-zA-Z]*[qVK]|--(?:query|verify|checksig|queryformat|qf|showrc|help|version))`),
		anywhere: regexp.MustCompile(`^(?:-[a-zA-Z]*[ED]|--(?:eval|define|pipe|load|macros|rcfile)\b)`),
	}
)

// change reports whether a command line installs or removes packages.
func (o *options) change(line string) bool {
	words := strings.Split(line, " ")[1:]
	if slices.ContainsFunc(words, o.anywhere.MatchString) {
		return false
	}
	found := false
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case !strings.HasPrefix(w, "-") || w == "-" || w == "--":
			return found
		case o.never.MatchString(w):
			return false
		case o.install.MatchString(w):
			found = true
		case o.value.MatchString(w):
			i++
		}
	}
	return found
}
