package scanner

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Main is the command `bulwarkd scanner`: the whole life of a scanner process
// with the real engine. It returns the exit status. Call it before anything
// else of the daemon.
func Main(args []string) int {
	if len(args) > 0 {
		fmt.Fprintf(os.Stderr, "scanner: unexpected argument %q; the daemon starts this program by itself\n", args[0])
		return exitUsage
	}
	return Run(engineLoader{})
}

// engineLoader is the engine of package engine.
type engineLoader struct{}

func (engineLoader) Open(f *os.File) (Engine, error) {
	e, err := engine.OpenFile(f)
	if err != nil {
		return nil, err
	}
	return adapter{e}, nil
}

func (engineLoader) Compile(ctx context.Context, out *os.File, sources []string) (wire.Compiled, error) {
	from := make([]definitions.Source, len(sources))
	for i, s := range sources {
		from[i] = definitions.Source{Path: s}
	}
	r, err := definitions.Compile(ctx, out, from, definitions.CompileOptions{})
	c := wire.Compiled{
		Info:         wire.Info{Engine: engine.Version, Definitions: r.Version, Signatures: signatures(r.Counts), Total: r.Counts.Total()},
		MoreProblems: max(0, r.Dropped-len(r.Problems)),
		Unsupported:  map[string]int{},
	}
	maps.Copy(c.Unsupported, r.Unsupported)
	for _, p := range r.Problems {
		c.Problems = append(c.Problems, wire.Problem{File: p.File, Line: p.Line, Column: p.Column, Reason: p.Reason})
	}
	for _, path := range r.Unknown {
		kind := strings.ToLower(filepath.Ext(path))
		c.Unsupported[kind]++
		c.Problems = append(c.Problems, wire.Problem{File: path, Reason: fmt.Sprintf("not read: files named %q hold no definitions that this engine knows", "*"+kind)})
	}
	return c, err
}

func signatures(c definitions.Counts) map[string]int {
	out := map[string]int{}
	for kind, n := range map[string]int{
		"md5": c.MD5, "sha1": c.SHA1, "sha256": c.SHA256, "allow": c.Allow,
		"body": c.Body, "logical": c.Logical, "yara": c.YARA, "built_in": c.BuiltIn,
		"pe_sections": c.Sections, "pe_imports": c.Imports, "members": c.Members, "macros": c.Macros, "magic": c.Magic,
	} {
		if n > 0 {
			out[kind] = n
		}
	}
	return out
}

type adapter struct{ engine *engine.Engine }

func (a adapter) Info() wire.Info {
	i := a.engine.Info()
	return wire.Info{Engine: i.Engine, Definitions: i.Definitions, Created: i.Created, Signatures: signatures(i.Counts), Total: i.Counts.Total()}
}

func (a adapter) Scan(ctx context.Context, r io.ReaderAt, size int64, opt Options) (verdict.Verdict, error) {
	return a.engine.Scan(ctx, r, size, engine.Options{
		Name: opt.Name, Archives: opt.Archives,
		// Before the daemon gives up: a verdict over what was seen, marked as cut
		// short, is better than none.
		Limits: engine.Limits{Time: opt.Timeout * 9 / 10},
	})
}
