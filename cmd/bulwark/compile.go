package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/definitions"
)

// compileResult is the JSON answer of definitions compile, check and info.
type compileResult struct {
	// File and Bytes are of the compiled file; empty for check.
	File    string                     `json:"file,omitempty"`
	Bytes   int64                      `json:"bytes,omitempty"`
	Version string                     `json:"version"`
	Created *time.Time                 `json:"created,omitempty"`
	Counts  definitions.Counts         `json:"counts"`
	Sources []definitions.SourceReport `json:"sources"`
	// Problems are at most 10,000 of the ProblemsTotal.
	// Unsupported counts the signatures that need what is not supported, by name.
	Unsupported   map[string]int   `json:"unsupported"`
	Problems      []compileProblem `json:"problems"`
	ProblemsTotal int              `json:"problems_total"`
	// Ignored are files that hold no definitions, by their names.
	Ignored []string `json:"ignored"`
}

type compileProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
}

// explanation is the JSON answer of definitions explain.
type explanation struct {
	Signatures []definitions.Found `json:"signatures"`
}

// containerKey reads the key for .cvd files from a file; nil where there is
// none.
func containerKey(path string) (*clamdb.Key, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("container key: %w", err)
	}
	k, err := clamdb.ParseKey(string(b))
	if err != nil {
		return nil, fmt.Errorf("container key %s: %w", path, err)
	}
	return k, nil
}

// withSources is a command that takes sources of definitions.
func (a *app) withSources(use, short string, least int, run func(ctx context.Context, args []string, key *clamdb.Key) error) *cobra.Command {
	var key string
	c := &cobra.Command{Use: use, Short: short}
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) < least {
			return fmt.Errorf("%s needs %s; see %s --help", c.CommandPath(), use[len(c.Name())+1:], c.CommandPath())
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		k, err := containerKey(key)
		if err != nil {
			return err
		}
		return run(c.Context(), args, k)
	}
	c.Flags().StringVar(&key, "container-key", "", "file with the key that verifies .cvd files: modulus and exponent in decimal (default: the key of the ClamAV project)")
	return c
}

func (a *app) compileCommand() *cobra.Command {
	var out string
	c := a.withSources("compile SOURCE...", "Compile ClamAV databases and YARA rules into one file", 1, func(ctx context.Context, args []string, key *clamdb.Key) error {
		r, err := a.compileTo(ctx, out, args, key)
		if err != nil {
			return err
		}
		return a.compiled(r)
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return require(c, "out")
}

func (a *app) checkCommand() *cobra.Command {
	return a.withSources("check SOURCE...", "Check ClamAV databases and YARA rules, with the line and column of every problem", 1, func(ctx context.Context, args []string, key *clamdb.Key) error {
		r, err := a.compileAway(ctx, args, key)
		if err != nil {
			return err
		}
		return a.compiled(r)
	})
}

// compileAway compiles into a file that is gone at once.
func (a *app) compileAway(ctx context.Context, sources []string, key *clamdb.Key) (compileResult, error) {
	f, err := os.CreateTemp("", "bulwark-definitions-*")
	if err != nil {
		return compileResult{}, fmt.Errorf("definitions: %w", err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return compileResult{}, fmt.Errorf("definitions: %w", err)
	}
	r, err := compileSources(ctx, f, sources, key)
	r.Bytes = 0
	return r, err
}

// compileTo compiles beside the file and puts it in place when it is whole.
func (a *app) compileTo(ctx context.Context, out string, sources []string, key *clamdb.Key) (compileResult, error) {
	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*")
	if err != nil {
		return compileResult{}, fmt.Errorf("definitions: %w", err)
	}
	defer f.Close()
	defer os.Remove(f.Name()) // fails once it has its name
	r, err := compileSources(ctx, f, sources, key)
	if err != nil {
		return r, err
	}
	if err := f.Chmod(0o644); err != nil {
		return r, fmt.Errorf("definitions: %w", err)
	}
	if err := os.Rename(f.Name(), out); err != nil {
		return r, fmt.Errorf("definitions: %w", err)
	}
	r.File = out
	return r, nil
}

func compileSources(ctx context.Context, f *os.File, sources []string, key *clamdb.Key) (compileResult, error) {
	from := make([]definitions.Source, len(sources))
	for i, s := range sources {
		from[i] = definitions.Source{Path: s}
	}
	rep, err := definitions.Compile(ctx, f, from, definitions.CompileOptions{ContainerKey: key})
	r := compileResult{
		Bytes: rep.Bytes, Version: rep.Version, Counts: rep.Counts, Sources: rep.Sources, ProblemsTotal: rep.Dropped,
		Problems: []compileProblem{}, Ignored: rep.Unknown, Unsupported: named(rep.Unsupported),
	}
	if r.Sources == nil {
		r.Sources = []definitions.SourceReport{}
	}
	if r.Ignored == nil {
		r.Ignored = []string{}
	}
	for _, p := range rep.Problems {
		r.Problems = append(r.Problems, compileProblem{p.File, p.Line, p.Column, p.Reason})
	}
	return r, err
}

// compiled prints what compiling gave; problems end with status 1.
func (a *app) compiled(r compileResult) error {
	if a.json() {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		for _, p := range r.Problems {
			fmt.Fprintln(a.stderr, visible(definitions.Problem{File: p.File, Line: p.Line, Column: p.Column, Reason: p.Message}.String()))
		}
		if more := r.ProblemsTotal - len(r.Problems); more > 0 {
			fmt.Fprintf(a.stderr, "and %s more\n", countText(int64(more)))
		}
		a.showSources(r)
		if r.File != "" {
			a.say("Written: %s (%s), version %s", visible(r.File), bytesText(r.Bytes), visible(r.Version))
		}
	}
	if r.ProblemsTotal > 0 {
		return exit(statusNo)
	}
	return nil
}

func (a *app) showSources(r compileResult) {
	for _, s := range r.Sources {
		rest := ""
		if s.Problems > 0 {
			rest += fmt.Sprintf(", %s problem(s)", countText(int64(s.Problems)))
		}
		if s.Unsupported > 0 {
			rest += fmt.Sprintf(", %s not supported", countText(int64(s.Unsupported)))
		}
		if c := s.Container; c != nil {
			signed := "unsigned"
			if c.Signed {
				signed = "signed"
			}
			if c.Signer != "" {
				signed += ", also by " + visible(c.Signer)
			}
			rest += fmt.Sprintf(", version %d of %s by %s, %s", c.Version, a.when(c.Built), visible(c.Builder), signed)
		}
		a.say("  %-40s %12s signature(s)%s", visible(s.Path), countText(int64(s.Signatures)), rest)
	}
	for _, path := range r.Ignored {
		a.say("  %-40s not read: no definitions that are known", visible(path))
	}
	a.showCounts(r.Counts)
	for _, what := range slices.Sorted(maps.Keys(r.Unsupported)) {
		a.say("Not supported: %s (%s)", visible(what), countText(int64(r.Unsupported[what])))
	}
}

// named is never nil, so that it is an object in JSON.
func named(m map[string]int) map[string]int {
	if m == nil {
		return map[string]int{}
	}
	return m
}

func (a *app) showCounts(c definitions.Counts) {
	total := c.Total() - c.BuiltIn
	a.say("%s signature(s): %s", countText(int64(total)), countsText(c))
	if c.Ignored+c.Level > 0 {
		a.say("Left out: %s by ignore lists, %s for other versions of ClamAV", countText(int64(c.Ignored)), countText(int64(c.Level)))
	}
}

func countsText(c definitions.Counts) string {
	text := ""
	for _, k := range []struct {
		name string
		n    int
	}{
		{"MD5", c.MD5},
		{"SHA-1", c.SHA1},
		{"SHA-256", c.SHA256},
		{"PE section", c.Sections},
		{"PE import", c.Imports},
		{"body", c.Body},
		{"logical", c.Logical},
		{"container member", c.Members},
		{"YARA", c.YARA},
		{"known good", c.Allow},
	} {
		if k.n > 0 {
			if text != "" {
				text += ", "
			}
			text += countText(int64(k.n)) + " " + k.name
		}
	}
	if text == "" {
		return "none"
	}
	return text
}

// infoCommand describes sources or a compiled file; without any it asks the
// daemon what is in force.
func (a *app) infoCommand() *cobra.Command {
	return a.withSources("info [SOURCE...|FILE]", "Show the definitions in force, or those in databases, rules or a compiled file", 0, func(ctx context.Context, args []string, key *clamdb.Key) error {
		if len(args) == 0 {
			return a.definitionsInfo(ctx)
		}
		r, err := a.describe(ctx, args, key)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(r)
		}
		if r.File != "" {
			a.say("Compiled definitions: %s (%s)", visible(r.File), bytesText(r.Bytes))
			a.say("Version: %s", visible(r.Version))
			a.say("Created: %s", a.when(*r.Created))
		}
		a.showSources(r)
		if r.ProblemsTotal > 0 {
			a.say("%s problem(s); `%s definitions check` lists them", countText(int64(r.ProblemsTotal)), a.name)
		}
		return nil
	})
}

func (a *app) describe(ctx context.Context, args []string, key *clamdb.Key) (compileResult, error) {
	compiled, err := definitions.IsCompiled(args[0])
	if err != nil {
		return compileResult{}, fmt.Errorf("definitions: %w", err)
	}
	if !compiled {
		return a.compileAway(ctx, args, key)
	}
	if len(args) > 1 {
		return compileResult{}, errors.New("a compiled file is described alone")
	}
	st, err := os.Stat(args[0])
	if err != nil {
		return compileResult{}, fmt.Errorf("definitions: %w", err)
	}
	e, err := engine.Open(args[0])
	if err != nil {
		return compileResult{}, err
	}
	defer e.Close()
	i := e.Info()
	return compileResult{
		File: args[0], Bytes: st.Size(), Version: i.Definitions, Created: &i.Created, Counts: i.Counts,
		Sources: []definitions.SourceReport{}, Problems: []compileProblem{}, Ignored: []string{}, Unsupported: named(i.Unsupported),
	}, nil
}

func (a *app) explainCommand() *cobra.Command {
	var format string
	c := a.withSources("explain SIGNATURE [SOURCE...]", "Say in words what a ClamAV signature demands: a line of a database, or a name within sources", 1,
		func(ctx context.Context, args []string, key *clamdb.Key) error {
			found, err := explain(ctx, args[0], args[1:], format, key)
			if err != nil {
				return err
			}
			if a.json() {
				return a.printJSON(explanation{found})
			}
			for i, f := range found {
				if i > 0 {
					a.say(separatorLine)
				}
				if f.File != "" {
					a.say("%s:%d", visible(f.File), f.Line)
				}
				for _, w := range f.Words {
					a.say("%s", visible(w))
				}
			}
			return nil
		})
	c.Flags().StringVar(&format, "format", "", "extension of the database that the line is of (default: by its form)")
	return c
}

func explain(ctx context.Context, signature string, sources []string, format string, key *clamdb.Key) ([]definitions.Found, error) {
	if len(sources) > 0 {
		from := make([]definitions.Source, len(sources))
		for i, s := range sources {
			from[i] = definitions.Source{Path: s}
		}
		found, err := definitions.Lookup(ctx, from, signature, key)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("no signature is named %q there", signature)
		}
		return found, nil
	}
	f, ok := clamdb.FormatOf(format)
	if format == "" {
		if f, ok = clamdb.Guess(signature); !ok {
			return nil, fmt.Errorf("%q is no line of a ClamAV database; to look a name up, name the sources too", signature)
		}
	}
	if !ok {
		return nil, fmt.Errorf("--format %q: not the extension of a database that is known", format)
	}
	words, err := clamdb.Explain(signature, f)
	if err != nil {
		return nil, fmt.Errorf("not a .%s signature: %w", f, err)
	}
	return []definitions.Found{{Format: string(f), Text: signature, Words: words}}, nil
}
