package definitions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulwarkhq/bulwark/api/release"
	"github.com/bulwarkhq/bulwark/engine"
	compiler "github.com/bulwarkhq/bulwark/engine/definitions"
)

// BuildOptions of Build.
type BuildOptions struct {
	Channel string
	Sources []Source
	// Read returns the sources where Sources is empty; Remember is called after a
	// success. Both are called while no other process builds.
	Read     func() ([]Source, error)
	Remember func() error
	// KeepGoing takes what a source had the last time where it cannot be had now.
	KeepGoing bool
	// Force publishes also what has far fewer signatures than the release before.
	Force bool
}

// Result of a build.
type Result struct {
	Set *release.Set
	// Changed is false when the release before has the same files.
	Changed bool
	// Problems are lines and rules that the engine cannot use, at most
	// compiler.MaxProblems of ProblemsTotal; Slow are strings that cost time.
	Problems      []compiler.Problem
	ProblemsTotal int
	Slow          []compiler.Problem
	// Stale are sources that could not be had, with the reason; the release has
	// what they had before.
	Stale map[string]error
}

// SourceError says which source could not be had.
type SourceError struct {
	Source Source
	Err    error
}

func (e *SourceError) Error() string { return fmt.Sprintf("source %s: %v", e.Source, e.Err) }
func (e *SourceError) Unwrap() error { return e.Err }

// ErrKnownClean is wrapped when a release would flag a file that is known to be
// clean.
var ErrKnownClean = errors.New("the release flags a file that is known to be clean")

// ErrShrunk is wrapped when a release has far fewer signatures than the one
// before: a feed that was cut off looks like that.
var ErrShrunk = errors.New("the release has less than half of the signatures of the one before")

// Build gathers the sources, tries them with the engine, and publishes them
// when they differ from the last release.
func (p *Publisher) Build(ctx context.Context, o BuildOptions) (r Result, err error) {
	if o.Channel != release.Production && o.Channel != release.Preview {
		return r, fmt.Errorf("channel %q: want %s or %s", o.Channel, release.Production, release.Preview)
	}
	err = p.locked(func() error {
		p.clearUp()
		if len(o.Sources) == 0 && o.Read != nil {
			if o.Sources, err = o.Read(); err != nil {
				return err
			}
		}
		if err := checkSources(o.Sources); err != nil {
			return err
		}
		if r, err = p.build(ctx, o); err == nil && o.Remember != nil {
			err = o.Remember()
		}
		return err
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = LastBuild{p.cfg.Now(), err, r.Stale}
	return r, err
}

func checkSources(sources []Source) error {
	if len(sources) == 0 {
		return errors.New("no sources of definitions")
	}
	seen := map[string]bool{}
	for _, s := range sources {
		if seen[s.Name] {
			return fmt.Errorf("two sources are called %s: put another name before one of them, name:%s", s.Name, s)
		}
		seen[s.Name] = true
	}
	return nil
}

// clearUp removes what an interrupted build left.
func (p *Publisher) clearUp() {
	for _, pattern := range []string{".stage-*", ".pack-*", ".feed-*", ".compiled-*"} {
		paths, _ := filepath.Glob(p.path(pattern)) // the pattern is good
		for _, path := range paths {
			os.RemoveAll(path)
		}
	}
}

func (p *Publisher) build(ctx context.Context, o BuildOptions) (Result, error) {
	r := Result{Stale: map[string]error{}}
	stage, err := os.MkdirTemp(p.cfg.Dir, ".stage-*")
	if err != nil {
		return r, fmt.Errorf("definitions: %w", err)
	}
	defer os.RemoveAll(stage)
	for _, s := range o.Sources {
		kept := p.path("gathered", o.Channel, s.Name)
		fresh := filepath.Join(stage, s.Name)
		if err := os.Mkdir(fresh, 0o755); err != nil {
			return r, fmt.Errorf("definitions: %w", err)
		}
		if err := p.gather(ctx, s, fresh); err != nil {
			err = &SourceError{s, err}
			if _, statErr := os.Stat(kept); !o.KeepGoing || statErr != nil || ctx.Err() != nil {
				return r, err
			}
			p.log.Warn("a source of definitions cannot be had; what it had before is used", "source", s.String(), "error", err)
			r.Stale[s.Name] = err
			if err := errors.Join(os.RemoveAll(fresh), os.CopyFS(fresh, os.DirFS(kept))); err != nil {
				return r, fmt.Errorf("definitions: %w", err)
			}
			continue
		}
		p.log.Info("source gathered", "source", s.String())
	}
	signatures, err := p.try(ctx, stage, &r)
	if err != nil {
		return r, err
	}
	past, err := readReleases(p.path("releases"), o.Channel)
	if err != nil {
		return r, err
	}
	if len(past) > 0 && 2*signatures < past[0].Signatures && !o.Force {
		return r, fmt.Errorf("%w (%d, before %d); if that is meant, use --force", ErrShrunk, signatures, past[0].Signatures)
	}
	r.Set, r.Changed, err = p.publishSet(ctx, o.Channel, stage, engine.Version, signatures)
	if err != nil {
		return r, err
	}
	return r, p.keep(o, stage, r.Stale)
}

// keep remembers what the sources had.
func (p *Publisher) keep(o BuildOptions, stage string, stale map[string]error) error {
	dir := p.path("gathered", o.Channel)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	for _, s := range o.Sources {
		if stale[s.Name] != nil {
			continue
		}
		to := filepath.Join(dir, s.Name)
		if err := errors.Join(os.RemoveAll(to), os.Rename(filepath.Join(stage, s.Name), to)); err != nil {
			return fmt.Errorf("definitions: %w", err)
		}
	}
	return nil
}

// try compiles the staged files, counts their signatures, and scans the files
// that are known to be clean.
func (p *Publisher) try(ctx context.Context, stage string, r *Result) (int64, error) {
	out, err := os.CreateTemp(p.cfg.Dir, ".compiled-*")
	if err != nil {
		return 0, fmt.Errorf("definitions: %w", err)
	}
	defer func() {
		out.Close()
		os.Remove(out.Name())
	}()
	report, err := compiler.Compile(ctx, out, []compiler.Source{{Path: stage}}, compiler.CompileOptions{ContainerKey: p.cfg.ContainerKeys.Container, Created: p.cfg.Now()})
	if err != nil {
		return 0, fmt.Errorf("trying the definitions: %w", err)
	}
	r.Problems, r.ProblemsTotal, r.Slow = report.Problems, report.Dropped, report.Slow
	var signatures int64
	for _, s := range report.Sources {
		signatures += int64(s.Signatures)
	}
	if signatures == 0 {
		return 0, errors.New("there is not one usable signature in the sources")
	}
	e, err := engine.OpenFile(out)
	if err != nil {
		return 0, fmt.Errorf("trying the definitions: %w", err)
	}
	defer e.Close()
	for _, path := range p.cfg.KnownClean {
		if err := p.clean(ctx, e, path); err != nil {
			return 0, err
		}
	}
	return signatures, nil
}

func (p *Publisher) clean(ctx context.Context, e *engine.Engine, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // this system does not have it
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil // no file to try
	}
	v, err := e.Scan(ctx, f, st.Size(), engine.Options{Name: path})
	if err != nil {
		return fmt.Errorf("trying the definitions on %s: %w", path, err)
	}
	if !v.Infected() {
		return nil
	}
	var names []string
	for _, m := range v.Matches {
		names = append(names, m.Threat)
	}
	return fmt.Errorf("%w: %s as %s: take the signature out of its source, or leave it out with an ignore list (.ign2)", ErrKnownClean, path, strings.Join(names, ", "))
}

// defaultKnownClean are files whose removal would break every system, and this
// program itself.
func defaultKnownClean() []string {
	out := []string{"/bin/sh", "/bin/bash", "/bin/ls", "/usr/bin/env", "/usr/bin/python3", "/usr/lib/systemd/systemd", "/sbin/ldconfig"}
	for _, pattern := range []string{"/lib/*/libc.so.6", "/lib64/libc.so.6", "/lib/*/ld-linux*.so.*", "/lib64/ld-linux*.so.*"} {
		found, _ := filepath.Glob(pattern) // the patterns are good
		out = append(out, found...)
	}
	if self, err := os.Executable(); err == nil {
		out = append(out, self)
	}
	return out
}
