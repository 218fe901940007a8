package detect

import (
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// Some programs are many in one: busybox is on small hosts and in containers
// what ls, sh and wget are elsewhere. To rules they look like the single
// programs, so that one that is about cat means all of them.

// multiCall reports whether an executable is such a program.
func multiCall(executable string) bool {
	name := executable[strings.LastIndexByte(executable, '/')+1:]
	return name == "busybox" || name == "toybox" || name == "coreutils" || strings.HasPrefix(name, "busybox.") || strings.HasPrefix(name, "busybox-")
}

// applet splits the command line of a multi-call program into the name of what
// it does and the command line that the single program would have. Without such
// a name it is empty.
func applet(line string) (name, rest string) {
	for range 2 {
		word, _, _ := strings.Cut(line, " ")
		name = strings.TrimPrefix(word[strings.LastIndexByte(word, '/')+1:], "-")
		if !multiCall(name) {
			return name, line
		}
		line = strings.TrimLeft(line[len(word):], " ")
	}
	return "", ""
}

// imageOf is the executable as rules see it.
func imageOf(p *event.Process) string {
	if multiCall(p.FolderPath) {
		if name, _ := applet(p.CommandLine); name != "" && name[0] != '-' {
			return p.FolderPath[:strings.LastIndexByte(p.FolderPath, '/')+1] + name
		}
	}
	return p.FolderPath
}

// commandLineOf is the command line as rules see it.
func commandLineOf(p *event.Process) string {
	if multiCall(p.FolderPath) {
		if name, rest := applet(p.CommandLine); name != "" && name[0] != '-' {
			return rest
		}
	}
	return p.CommandLine
}
