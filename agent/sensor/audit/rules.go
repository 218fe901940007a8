package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/elastic/go-libaudit/v2/rule"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/event"
)

// Key is the tag of all our rules: `ausearch -k bulwark` finds what they log,
// `auditctl -l -k bulwark` lists them.
const Key = "bulwark"

// RulesFile is where rules for the next start of auditd are.
const RulesFile = "/etc/audit/rules.d/bulwark.rules"

// ruleTexts are the rules of a category, as auditctl reads them, without -k.
// Flags of open are filtered in the kernel: 0x243 is O_WRONLY, O_RDWR, O_CREAT
// and O_TRUNC.
func ruleTexts(c event.Category) []string {
	const b64 = "-a always,exit -F arch=b64 "
	old := func(rules ...string) []string { // calls that only x86 has
		if runtime.GOARCH == "amd64" {
			return rules
		}
		return nil
	}
	switch c {
	case event.CategoryProcess:
		return append([]string{b64 + "-S execve -S execveat", b64 + "-S exit_group"},
			old("-a always,exit -F arch=b32 -S execve")...)
	case event.CategoryNetwork:
		return []string{
			b64 + "-S connect -F saddr_fam=2", b64 + "-S connect -F saddr_fam=10",
			b64 + "-S bind -F success=1 -F saddr_fam=2", b64 + "-S bind -F success=1 -F saddr_fam=10",
			b64 + "-S accept -S accept4 -F success=1", b64 + "-S listen -F success=1",
		}
	case event.CategoryFile:
		return append([]string{
			b64 + "-S openat -F success=1 -F a2&0x243",
			b64 + "-S unlinkat -S renameat -S renameat2 -S linkat -S symlinkat -S mknodat -S fchmodat -S fchownat -S truncate -F success=1",
		}, old(
			b64+"-S open -F success=1 -F a1&0x243", b64+"-S creat -F success=1",
			b64+"-S unlink -S rename -S link -S symlink -S mknod -S chmod -S chown -S lchown -F success=1",
		)...)
	case event.CategoryModule:
		return []string{b64 + "-S init_module -S finit_module -S delete_module"}
	case event.CategoryProcessAccess:
		return []string{
			b64 + "-S ptrace -F a0=0x10 -F success=1", b64 + "-S ptrace -F a0=0x4206 -F success=1",
			b64 + "-S process_vm_readv -S process_vm_writev -F success=1",
		}
	case event.CategoryMemoryFile:
		return []string{b64 + "-S memfd_create -F success=1"}
	case event.CategoryBPF:
		return []string{b64 + "-S bpf -F a0=0x5 -F success=1"}
	case event.CategoryMount:
		return []string{b64 + "-S mount -S umount2 -F success=1"}
	case event.CategoryPrivilege:
		return []string{b64 + "-S setuid -S setreuid -S setresuid -F success=1", b64 + "-S unshare -S setns -F success=1"}
	}
	return nil
}

// Categories that audit can deliver: those with rules and those that programs
// report themselves.
var callCategories = []event.Category{
	event.CategoryProcess, event.CategoryFile, event.CategoryNetwork, event.CategoryModule, event.CategoryBPF,
	event.CategoryProcessAccess, event.CategoryMemoryFile, event.CategoryMount, event.CategoryPrivilege,
}

// build makes the binary form of a rule for the kernel. pid, when not 0, is
// left out of it: our own doings would feed on themselves.
func build(text string, pid int) ([]byte, error) {
	if pid != 0 {
		text += fmt.Sprintf(" -F pid!=%d", pid)
	}
	r := rule.SyscallRule{Type: rule.AppendSyscallRuleType, Keys: []string{Key}}
	words := strings.Fields(text)
	for i := 0; i+1 < len(words); i += 2 {
		switch value := words[i+1]; words[i] {
		case "-a":
			r.Action, r.List, _ = strings.Cut(value, ",")
		case "-S":
			r.Syscalls = append(r.Syscalls, value)
		case "-F":
			at := strings.IndexAny(value, "!=&")
			if at < 0 {
				return nil, fmt.Errorf("audit rule %q: %s has no operator", text, value)
			}
			op := value[at : at+1]
			if op == "!" {
				op = "!="
			}
			r.Filters = append(r.Filters, rule.FilterSpec{Type: rule.ValueFilterType, LHS: value[:at], Comparator: op, RHS: value[at+len(op):]})
		default:
			return nil, fmt.Errorf("audit rule %q: %s", text, words[i])
		}
	}
	wire, err := rule.Build(&r)
	if err != nil {
		return nil, fmt.Errorf("audit rule %q: %w", text, err)
	}
	return wire, nil
}

// install adds the rules of a category. A rule with a condition that this
// kernel does not know is added without it.
func install(c *control, category event.Category, pid int) error {
	for _, text := range ruleTexts(category) {
		wire, err := build(text, pid)
		if err != nil {
			return err
		}
		err = c.addRule(wire)
		if plain, _, ok := strings.Cut(text, " -F saddr_fam="); ok && errors.Is(err, unix.EINVAL) { // before Linux 5.3
			if wire, err = build(plain, pid); err != nil {
				return err
			}
			err = c.addRule(wire)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("audit rule %q: %w", text, err)
		}
	}
	return nil
}

// ours tells rules that carry our key and no other. The form of a rule is
// struct audit_rule_data: four 32-bit members before and 64 masks, three times
// 64 fields, the length of the strings, the strings.
func ours(wire []byte) bool {
	line, err := rule.ToCommandLine(rule.WireFormat(wire), false)
	if err != nil {
		// A rule that the library cannot read (a newer field): by its text alone.
		return bytes.HasSuffix(bytes.TrimRight(wire, "\x00"), []byte(Key)) && len(wire) > 1040
	}
	f := strings.Fields(line)
	for i, w := range f {
		if (w == "-k" && i+1 < len(f) && f[i+1] == Key) || w == "key="+Key {
			return true
		}
	}
	return false
}

// never tells the rule that switches off the auditing of system calls for every
// new process (`-a task,never`, the default of some distributions).
func never(wire []byte) bool {
	line, err := rule.ToCommandLine(rule.WireFormat(wire), false)
	return err == nil && (strings.Contains(line, "task,never") || strings.Contains(line, "never,task"))
}

// remove takes our rules away, those of an earlier run as well.
func remove(c *control) error {
	rules, err := c.rules()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range rules {
		if !ours(r) {
			continue
		}
		switch err := c.deleteRule(r); {
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("our audit rules stay until the host is started anew, where they are immutable (auditctl -e 2): %w", err)
		case err != nil && !errors.Is(err, unix.ENOENT):
			errs = append(errs, fmt.Errorf("remove an audit rule: %w", err))
		}
	}
	return errors.Join(errs...)
}

// writeRules writes the file that auditd's augenrules loads at its next start,
// where the host has that folder.
func writeRules(file string, categories []event.Category) error {
	if _, err := os.Stat(filepath.Dir(file)); err != nil {
		return nil //nolint:nilerr // no auditd here
	}
	var b strings.Builder
	b.WriteString("## Written by bulwarkd while it takes events from the kernel's audit; removed when it\n" +
		"## does not any more. Changes are overwritten.\n")
	for _, c := range categories {
		for _, text := range ruleTexts(c) {
			b.WriteString(text + " -k " + Key + "\n")
		}
	}
	old, err := os.ReadFile(file)
	if err == nil && string(old) == b.String() {
		return nil
	}
	temp := file + ".new"
	if err := os.WriteFile(temp, []byte(b.String()), 0o640); err != nil {
		return fmt.Errorf("audit rules: %w", err)
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("audit rules: %w", err)
	}
	return nil
}

// Clean removes what an earlier run left behind: our rules in the kernel and in
// file. It is for the start of a daemon that does not use audit, for the
// removal of the product, and for tests.
func Clean(file string) error {
	var errs []error
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("audit rules: %w", err))
	}
	c, err := openControl()
	if err != nil {
		return errors.Join(errs...) // no audit, no rules
	}
	defer c.close()
	if st, err := c.status(); err != nil || st.Enabled == immutable {
		return errors.Join(errs...)
	}
	if err := remove(c); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// immutable is the value of Status.Enabled after `auditctl -e 2`.
const immutable = 2

func wants(only []event.Category, c event.Category) bool { return slices.Contains(only, c) }
