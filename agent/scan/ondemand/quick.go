package ondemand

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/api/control"
)

// wholeFolders are looked at completely by quick scans: they are small, and
// what is started by itself or dropped lies there.
var wholeFolders = []string{"tmp", "var/tmp", "dev/shm", "run", "etc", "boot", "var/spool"}

// In homes quick scans look at every file at most that many folders deep, where
// downloads and what was unpacked from them lie; within hidden folders, where caches
// have hundreds of thousands of files, less deep.
const (
	homeDepth   = 2 // ~/Downloads/unpacked/file
	hiddenDepth = 1 // ~/.ssh/file
)

// startable are endings of files that something starts, loads or interprets
// without an execute permission.
var startable = []string{
	".apk", ".bash", ".bat", ".bpf", ".class", ".cmd", ".csh", ".desktop", ".dll", ".elf", ".exe", ".jar", ".js", ".jsp", ".jspx",
	".ko", ".lua", ".mjs", ".msi", ".php", ".phtml", ".pl", ".pm", ".ps1", ".pth", ".py", ".pyc", ".rb", ".run", ".scr", ".service", ".sh",
	".so", ".socket", ".tcl", ".timer", ".vbs", ".war", ".zsh",
}

// quickScope says which files below the folders of a quick scan are looked at.
// What it leaves out is data: it does nothing before something reads it.
type quickScope struct {
	whole []string // folders with everything in them
	users []string // folders of homes: /home
	root  []string // homes: /root
}

func newQuickScope(root string) *quickScope {
	real := func(names []string) []string {
		var out []string
		for _, name := range names {
			if path, err := filepath.EvalSymlinks(filepath.Join(root, name)); err == nil {
				out = append(out, path)
			}
		}
		return out
	}
	return &quickScope{whole: real(wholeFolders), users: real([]string{"home"}), root: real([]string{"root"})}
}

// has reports whether a quick scan looks at a regular file.
func (q *quickScope) has(path string, mode uint32) bool {
	if q == nil || mode&0o111 != 0 {
		return true
	}
	below := func(folder string) bool { return within(path, folder) }
	if slices.ContainsFunc(q.whole, below) {
		return true
	}
	for _, home := range q.root {
		if below(home) && isNearHome(path[len(home):]) {
			return true
		}
	}
	for _, users := range q.users {
		if below(users) {
			_, rest, _ := strings.Cut(strings.TrimPrefix(path[len(users):], "/"), "/")
			if isNearHome("/" + rest) {
				return true
			}
		}
	}
	return isStartable(filepath.Base(path))
}

// isNearHome reports whether /folder/.../file below a home is looked at whatever it is.
func isNearHome(rest string) bool {
	deep := strings.Count(rest, "/") - 1
	if strings.Contains(rest[:strings.LastIndexByte(rest, '/')+1], "/.") {
		return deep <= hiddenDepth
	}
	return deep <= homeDepth
}

// isStartable goes by the name: an ending, that of a library with its version
// (libx.so.1.2) or of a compressed module (x.ko.xz).
func isStartable(name string) bool {
	for rest := strings.ToLower(name); ; {
		ending := filepath.Ext(rest)
		if ending == "" {
			return false
		}
		if _, found := slices.BinarySearch(startable, ending); found {
			return true
		}
		if strings.Trim(ending, ".0123456789") != "" && !slices.Contains([]string{".gz", ".xz", ".zst"}, ending) {
			return false
		}
		rest = strings.TrimSuffix(rest, ending)
	}
}

// scopeOf is nil for scans that look at every file.
func (m *Manager) scopeOf(s Spec) *quickScope {
	if s.Type != control.ScanQuick || s.All {
		return nil
	}
	return newQuickScope(m.cfg.Root)
}
