package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var (
	// documentedSpan and documentedLine are commands in pages: `bulwark ...` in
	// the text, and lines of examples.
	documentedSpan = regexp.MustCompile("`(?:sudo )?bulwark ([^`]+)`")
	documentedLine = regexp.MustCompile(`(?m)^(?:sudo )?bulwark ([^#\n|;>]+)`)
)

// TestDocumentedCommands: every command that a page names exists, with its
// flags.
func TestDocumentedCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../../docs/install/agent.md", "../../README.md")
	found := map[string]int{}
	for _, page := range pages {
		if filepath.Base(page) == "cli.md" { // made from the code
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var commands []string
		for _, m := range append(documentedSpan.FindAllStringSubmatch(string(text), -1), documentedLine.FindAllStringSubmatch(string(text), -1)...) {
			commands = append(commands, m[1])
		}
		for _, command := range commands {
			found[filepath.Base(page)]++
			if problem := undocumentable(command); problem != "" {
				t.Errorf("%s: bulwark %s: %s", page, command, problem)
			}
		}
	}
	if found["troubleshooting.md"] < 35 || found["scans.md"] < 8 {
		t.Errorf("too few commands were found: %v", found)
	}
	for _, wrong := range []string{"threat lst", "scan quick --thread 2", "scan nothing", "health --explian"} {
		if undocumentable(wrong) == "" {
			t.Errorf("bulwark %s is taken for a command", wrong)
		}
	}
}

// undocumentable says what is wrong with a command as pages write it: words in
// capitals and brackets stand for something.
func undocumentable(command string) string {
	words := strings.Fields(strings.NewReplacer("[", "", "]", "", "...", "").Replace(command))
	var plain []string
	for _, w := range words {
		if strings.HasPrefix(w, "-") {
			break
		}
		plain = append(plain, w)
	}
	root := newApp("bulwark", &bytes.Buffer{}, &bytes.Buffer{}).rootCommand()
	c, rest, err := root.Find(plain)
	if err != nil {
		return err.Error()
	}
	if c.HasSubCommands() && len(rest) > 0 && rest[0] == strings.ToLower(rest[0]) && !strings.ContainsAny(rest[0], "/.<*") {
		return "there is no " + rest[0]
	}
	known := func(name string) bool {
		ok := false
		look := func(f *pflag.Flag) { ok = ok || f.Name == name }
		c.Flags().VisitAll(look)
		c.InheritedFlags().VisitAll(look)
		return ok || name == "help"
	}
	for _, w := range words {
		name, isFlag := strings.CutPrefix(w, "--")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && name != "" && !known(strings.TrimRight(name, ",.:)")) {
			return "it has no flag --" + name
		}
	}
	return ""
}
