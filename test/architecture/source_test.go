package architecture

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const maxLines = 700

// emptyNames say nothing about what is inside, so that everything ends up there.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "internal", "lib", "shared", "base"}

// skippedFolders hold no source of ours.
var skippedFolders = []string{".git", ".tools", "bin", "dist", "node_modules", "vendor", "testdata"}

// unfinished is written in two halves so that this file does not match.
var unfinished = regexp.MustCompile(`\b(` + "TO" + `DO|` + "FIX" + `ME|` + "XX" + `X)\b`)

var generatedHeader = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func isGenerated(src []byte) bool {
	head, _, _ := bytes.Cut(append([]byte("\n"), src...), []byte("\npackage "))
	return generatedHeader.Match(head)
}

// checkSource applies the house rules to one source file. name is its path
// from the root of the repository.
func checkSource(name string, src []byte) []string {
	var bad []string
	report := func(line int, format string, args ...any) {
		bad = append(bad, fmt.Sprintf("%s:%d: %s", name, line, fmt.Sprintf(format, args...)))
	}
	goFile := strings.HasSuffix(name, ".go")
	if goFile && isGenerated(src) {
		return nil
	}
	if n := bytes.Count(src, []byte("\n")); n > maxLines {
		report(n, "%d lines; a file has at most %d", n, maxLines)
	}
	for i, line := range bytes.Split(src, []byte("\n")) {
		if m := unfinished.Find(line); m != nil {
			report(i+1, "%q marks unfinished work: finish it or file an issue", m)
		}
	}
	if !goFile {
		return bad
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		report(1, "%v", err)
		return bad
	}
	line := func(n ast.Node) int { return fset.Position(n.Pos()).Line }
	if slices.Contains(emptyNames, strings.TrimSuffix(file.Name.Name, "_test")) {
		report(line(file.Name), "a package called %s says nothing about its purpose", file.Name.Name)
	}
	test := strings.HasSuffix(name, "_test.go")
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && !test && f.Recv == nil && f.Name.Name == "init" {
			report(line(f), "init() runs code merely because a package is imported: call it from main or a constructor")
		}
	}
	if strings.HasPrefix(name, "agent/") && !test && !startsProcesses(name) {
		ast.Inspect(file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && starts(sel) {
				report(line(sel), "%s.%s in the daemon can hang it and the host: use agent/spawn", sel.X, sel.Sel.Name)
			}
			return true
		})
	}
	if strings.HasPrefix(name, "test/need/") {
		return bad
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "f", "tb", "T"}, x.Name) {
			report(line(call), "%s.%s: a test is skipped through test/need only, so that it fails under CI=true", x.Name, sel.Sel.Name)
		}
		return true
	})
	return bad
}

// startsProcesses lists who may start processes by themselves: they answer for
// no file access, or know what to do about it.
func startsProcesses(name string) bool {
	return slices.ContainsFunc([]string{"agent/spawn/", "agent/supervise/", "agent/sensor/sensortest/"}, func(p string) bool {
		return strings.HasPrefix(name, p)
	})
}

// starts reports whether the function makes or starts a process.
func starts(sel *ast.SelectorExpr) bool {
	x, ok := sel.X.(*ast.Ident)
	return ok && slices.Contains([]string{"exec.Command", "exec.CommandContext", "os.StartProcess", "syscall.ForkExec", "syscall.StartProcess"}, x.Name+"."+sel.Sel.Name)
}

func TestSource(t *testing.T) {
	top := root(t)
	seen := 0
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // a build or another test removed it meanwhile
			}
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if slices.Contains(skippedFolders, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !slices.Contains([]string{".go", ".c", ".sh", ".proto", ".sql"}, filepath.Ext(path)) {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen++
		for _, b := range checkSource(rel, src) {
			t.Error(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Fatalf("only %d source files found: the check would see nothing", seen)
	}
}

// TestCheckSource proves that every rule can fail.
func TestCheckSource(t *testing.T) {
	todo := "TO" + "DO"
	for _, tc := range []struct {
		name, file, src string
		want            string // part of the complaint, or empty
	}{
		{"clean", "a/a.go", "package a\n\nfunc F() {}\n", ""},
		{"unfinished", "a/a.go", "package a\n\n// " + todo + ": later\n", "unfinished"},
		{"unfinished shell", "a/a.sh", "# " + todo + "\n", "unfinished"},
		{"word inside another", "a/a.go", "package a\n\nvar s = \"mktemp.XX" + "XXXX\"\n", ""},
		{"init", "a/a.go", "package a\n\nfunc init() {}\n", "init()"},
		{"init of a type", "a/a.go", "package a\n\ntype t struct{}\n\nfunc (t) init() {}\n", ""},
		{"init in generated code", "a/a.go", "// Code generated by x. DO NOT EDIT.\n\npackage a\n\nfunc init() {}\n", ""},
		{"header below the package clause", "a/a.go", "package a\n\n// Code generated by x. DO NOT EDIT.\nfunc init() {}\n", "init()"},
		{"skip", "a/a_test.go", "package a\n\nfunc TestA(t *testing.T) { t.Skip() }\n", "test/need"},
		{"skip in need", "test/need/need.go", "package need\n\nfunc F(t T) { t.Skipf(\"\") }\n", ""},
		{"skip of something else", "a/a.go", "package a\n\nfunc F() { reader.Skip(3) }\n", ""},
		{"process of the daemon", "agent/a/a.go", "package a\n\nvar cmd = exec.Command(\"/bin/sh\")\n", "agent/spawn"},
		{"process of a test", "agent/a/a_test.go", "package a\n\nvar cmd = exec.Command(\"/bin/sh\")\n", ""},
		{"process of the portal", "portal/a/a.go", "package a\n\nvar cmd = exec.Command(\"/bin/sh\")\n", ""},
		{"empty name", "a/util/a.go", "package util\n", "says nothing"},
		{"long", "a/a.go", "package a\n" + strings.Repeat("//\n", maxLines), "lines"},
	} {
		got := checkSource(tc.file, []byte(tc.src))
		switch {
		case tc.want == "" && len(got) > 0:
			t.Errorf("%s: unexpected %q", tc.name, got)
		case tc.want != "" && (len(got) != 1 || !strings.Contains(got[0], tc.want)):
			t.Errorf("%s: got %q, want one with %q", tc.name, got, tc.want)
		}
	}
}
