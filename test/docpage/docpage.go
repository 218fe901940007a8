// Package docpage reads the commands and files of a page of the documentation,
// for tests that follow it literally.
package docpage

import (
	"regexp"
	"slices"
)

// fence is a code block: three backquotes, its language, and either for whom its
// commands are or, in another language than sh, the file that it is.
var fence = regexp.MustCompile("(?ms)^( *)```([a-z]+) ?(\\S*)\n(.*?)^ *```$")

// Block is a code block.
type Block struct {
	File    string // that it is the content of; "" for commands of a shell
	Content string
}

// Blocks are the commands that are for everybody or for one of the kinds, and the
// files, in the page's order. Blocks that are to be read only have a language that
// is not sh, and no file.
func Blocks(page string, kinds ...string) []Block {
	var out []Block
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		indent, language, what, content := m[1], m[2], m[3], m[4]
		b := Block{Content: regexp.MustCompile("(?m)^"+indent).ReplaceAllString(content, "")}
		switch {
		case language == "sh" && what != "" && !slices.Contains(kinds, what), language != "sh" && what == "":
			continue
		case language != "sh":
			b.File = what
		}
		out = append(out, b)
	}
	return out
}
