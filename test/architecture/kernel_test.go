package architecture

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// newer are the system calls after Linux 3.10 that package unix has, with the
// name of its function.
func newer() map[string]*regexp.Regexp {
	out := map[string]*regexp.Regexp{}
	for call, function := range map[string]string{
		"close_range": "CloseRange", "copy_file_range": "CopyFileRange", "faccessat2": "Faccessat2", "fchmodat2": "Fchmodat2",
		"fsopen": "Fsopen", "fsmount": "Fsmount", "getrandom": "Getrandom", "memfd_create": "MemfdCreate", "mlock2": "Mlock2",
		"mount_setattr": "MountSetattr", "move_mount": "MoveMount", "open_tree": "OpenTree", "openat2": "Openat2",
		"pidfd_getfd": "PidfdGetfd", "pidfd_open": "PidfdOpen", "pidfd_send_signal": "PidfdSendSignal", "preadv2": "Preadv2",
		"pwritev2": "Pwritev2", "renameat2": "Renameat2", "sched_setattr": "SchedSetAttr", "sched_getattr": "SchedGetAttr", "statx": "Statx",
		"clone3": "Clone3", "execveat": "Execveat", "io_uring_setup": "IoUringSetup", "seccomp": "Seccomp", "membarrier": "Membarrier",
		"landlock_create_ruleset": "LandlockCreateRuleset", "userfaultfd": "Userfaultfd", "bpf": "Bpf", "kexec_file_load": "KexecFileLoad",
	} {
		out[call] = regexp.MustCompile(`\bunix\.` + function + `\(|yscall\w*\(unix\.SYS_` + strings.ToUpper(call) + `\b`)
	}
	return out
}

// rowOfCall is a row of the table of docs/compatibility.md.
var (
	rowOfCall = regexp.MustCompile("(?m)^\\| (`[^|]*) \\| [^|]* \\| ([^|]*) \\|")
	quoted    = regexp.MustCompile("`([^`]+)`")
)

// The agent uses no system call that came after Linux 3.10 but where
// docs/compatibility.md says what happens without it.
func TestNewSystemCalls(t *testing.T) {
	text, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{} // call to files
	for _, row := range rowOfCall.FindAllStringSubmatch(string(text), -1) {
		var files []string
		for _, f := range quoted.FindAllStringSubmatch(row[2], -1) {
			files = append(files, f[1])
		}
		for _, call := range quoted.FindAllStringSubmatch(row[1], -1) {
			documented[call[1]] = files
		}
	}
	used := map[string][]string{}
	calls := newer()
	for _, dir := range []string{"agent", "engine", "event", "policy", "api", "cmd/bulwark", "cmd/bulwarkd", "cmd/bulwark-guard"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for call, pattern := range calls {
				if pattern.Match(source) {
					used[call] = append(used[call], strings.TrimPrefix(filepath.ToSlash(path), "../../"))
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(used) < 5 {
		t.Fatalf("found only %v: the patterns are out of date", used)
	}
	for call, files := range used {
		slices.Sort(files)
		want := slices.Sorted(slices.Values(documented[call]))
		if !slices.Equal(files, want) {
			t.Errorf("%s is used in %q, docs/compatibility.md says %q", call, files, want)
		}
	}
	for call, files := range documented {
		if len(used[call]) == 0 && calls[call] != nil && strings.HasSuffix(strings.Join(files, " "), ".go") {
			t.Errorf("docs/compatibility.md says that %s is used in %q; it is not", call, files)
		}
	}
}
