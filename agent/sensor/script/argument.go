package script

import "strings"

// interpreters are the programs whose first argument is a script, by name
// without a version, with the options that take a value and those that say that
// there is no file.
var interpreters = map[string]struct{ value, none string }{
	"sh": {"oO", "c"}, "bash": {"oO", "c"}, "dash": {"o", "c"}, "ash": {"o", "c"}, "zsh": {"o", "c"}, "ksh": {"oR", "c"}, "mksh": {"o", "c"},
	"fish": {"CdDfoP", "c"}, "csh": {"", "c"}, "tcsh": {"", "c"},
	"python": {"WX", "cm"}, "pypy": {"WX", "cm"}, "perl": {"I", "eE"}, "ruby": {"IrCE", "e"}, "node": {"r", "ep"}, "nodejs": {"r", "ep"},
	"php": {"cdz", "rBRFE"}, "lua": {"l", "e"}, "luajit": {"l", "e"}, "tclsh": {"", ""}, "expect": {"", "c"}, "wish": {"", ""},
	"Rscript": {"", "e"}, "pwsh": {"", "c"}, "guile": {"Ll", "c"}, "osascript": {"l", "e"},
}

// base is the name of an interpreter without its version: python3.11 is python.
func base(name string) string {
	return strings.TrimRight(strings.TrimSuffix(name, ".exe"), "0123456789.-")
}

func interpreter(name string) bool {
	_, ok := interpreters[base(name)]
	return ok
}

// argument finds the script in a command line: the first word that is neither
// an option nor its value. The command line has lost where an argument ends, so
// a name with blanks is not found here.
func argument(program, line string) string {
	in, ok := interpreters[base(program)]
	if !ok {
		return ""
	}
	words := strings.Fields(line)
	for i := 1; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-" || w == "-s" && base(program) != "python":
			return "" // from the standard input
		case w == "--":
			if i+1 < len(words) {
				return words[i+1]
			}
			return ""
		case strings.HasPrefix(w, "--"):
			switch w {
			case "--command", "--eval", "--version", "--help":
				return ""
			case "--rcfile", "--init-file", "--require", "--import":
				i++
			}
		case w[0] == '-' || w[0] == '+':
			if strings.EqualFold(w, "-file") { // of pwsh
				continue
			}
			for j, letter := range w[1:] {
				if strings.ContainsRune(in.none, letter) {
					return ""
				}
				if strings.ContainsRune(in.value, letter) {
					if j == len(w)-2 {
						i++ // the value is the next word
					}
					break
				}
			}
		default:
			return w
		}
	}
	return ""
}
