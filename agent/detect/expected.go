package detect

import (
	"path"
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
}

// Outcome decides. Self-tests, and rules that ask for something to be done,
// always alert.
//
// ancestry is the chain of parents of the event's subject, nearest first.
func (m Match) Outcome(ev *event.Event, ancestry []event.Process) Outcome {
	r := m.Rule
	if r.SelfTest || len(r.Responses) > 0 {
		return Outcome{Alert: true}
	}
	who := m.expectedFrom(ev, ancestry)
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
			if who == ExpectedFromPackages && installs(chain[i:]) || who == ExpectedFromConfiguration && configures(&chain[i]) {
				return who
			}
		}
	}
	return ""
}

var (
	// dpkg and rpm start pagers and shells also when they only list; these are
	// the options with which they change the system.
	dpkgInstalls = regexp.MustCompile(` (?:--(?:configure|unpack|install|remove|purge|triggers-only|update-avail)\b|-[iPr] )`)
	rpmInstalls  = regexp.MustCompile(` (?:--(?:install|upgrade|erase|freshen|reinstall|import|initdb|rebuilddb|restore)\b|-[iUFe][a-zA-Z]* )`)
	scriptlet    = regexp.MustCompile(`^(?:/usr)?/bin/\w+ (?:-\S+ )*/var/tmp/rpm-tmp\.\w+`)
	// ansibleModule is what Ansible runs on the host that it configures.
	ansibleModule = regexp.MustCompile(`^(?:\S*/)?python[\d.]* (?:-\S+ )*/(?:root|home/[^/ ]+|var/lib/[^/ ]+|var/tmp|tmp)(?:/[^/ ]+)*/ansible-tmp-[\d.-]+/AnsiballZ_\w+\.py\b`)
)

// installs reports whether the first of a chain of processes, nearest first,
// installs or removes packages.
func installs(chain []event.Process) bool {
	p := &chain[0]
	switch program(p) {
	case "dpkg":
		return dpkgInstalls.MatchString(p.CommandLine + " ")
	case "rpm":
		return rpmInstalls.MatchString(p.CommandLine + " ")
	}
	if len(chain) > 1 && scriptlet.MatchString(p.CommandLine) {
		return slices.Contains([]string{"rpm", "dnf", "dnf-3", "dnf5", "yum", "microdnf", "zypper", "packagekitd", "rpm-ostree", "tdnf"}, program(&chain[1]))
	}
	return false
}

func configures(p *event.Process) bool {
	if ansibleModule.MatchString(p.CommandLine) {
		return true
	}
	return slices.Contains([]string{
		"ansible", "ansible-playbook", "ansible-pull", "puppet", "chef-client", "cinc-client", "salt-minion", "salt-call", "cf-agent", "cloud-init",
	}, program(p))
}

// program is the name of a program, or of the script that the kernel started
// its interpreter for, when it lies where only administrators put programs.
func program(p *event.Process) string {
	name := p.FolderPath
	if p.Script != "" {
		name = p.Script
	}
	for _, open := range []string{"/tmp/", "/var/tmp/", "/dev/shm/", "/run/", "/home/", "/root/"} {
		if strings.HasPrefix(p.FolderPath, open) || strings.HasPrefix(name, open) {
			return ""
		}
	}
	switch path.Base(path.Dir(name)) {
	case "bin", "sbin", "libexec", "lib":
		return path.Base(name)
	}
	return ""
}
