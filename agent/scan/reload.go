package scan

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"golang.org/x/sys/unix"
)

// Files in Config.Dir.
const (
	currentFile     = "definitions.compiled"
	fingerprintFile = "definitions.sources" // what currentFile was made from
	newPrefix       = ".new-"
)

// CompileError means that definitions could not be compiled; the ones in use
// stay.
type CompileError struct {
	Problems []wire.Problem
	Reason   string
}

func (e *CompileError) Error() string {
	var b strings.Builder
	b.WriteString("compiling definitions: ")
	if e.Reason != "" {
		b.WriteString(e.Reason)
	}
	for i, p := range e.Problems {
		if i == 3 {
			fmt.Fprintf(&b, "; and %d more", len(e.Problems)-i)
			break
		}
		if i > 0 || e.Reason != "" {
			b.WriteString("; ")
		}
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": " + p.Reason)
	}
	return b.String()
}

// Reload compiles the sources and puts the result to use once a scanner has
// loaded it. On an error the definitions in use stay, and the error (a
// *CompileError where the sources are at fault) names file and line. A second
// Reload waits for the first.
func (p *Pool) Reload(ctx context.Context) (Report, error) {
	select {
	case p.reload <- struct{}{}:
		defer func() { <-p.reload }()
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
	report, err := p.compileAndSwitch(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report = report
	p.loadErr = err
	return report, err
}

func (p *Pool) compileAndSwitch(ctx context.Context) (Report, error) {
	p.mu.Lock()
	running := p.ctx != nil && !p.closed
	p.mu.Unlock()
	if !running {
		return Report{}, ErrClosed
	}
	print, err := p.fingerprint()
	if err != nil {
		return Report{}, err
	}
	fresh, err := os.CreateTemp(p.cfg.Dir, newPrefix)
	if err != nil {
		return Report{}, fmt.Errorf("making the file for compiled definitions: %w", err)
	}
	defer os.Remove(fresh.Name())
	report, err := p.compile(ctx, fresh)
	if err == nil {
		// Scanners run as another user; they get descriptors, but a person may look.
		err = errors.Join(fresh.Chmod(0o644), fresh.Sync())
	}
	if err := errors.Join(err, fresh.Close()); err != nil {
		return report, err
	}
	if err := p.loadCompiled(ctx, fresh.Name(), true); err != nil {
		return report, fmt.Errorf("%w: %w", errDoesNotLoad, err)
	}
	// In use; now for the next start.
	path := func(name string) string { return filepath.Join(p.cfg.Dir, name) }
	if err := os.Rename(fresh.Name(), path(currentFile)); err != nil {
		return report, fmt.Errorf("the definitions are in use, but will have to be compiled again at the next start: %w", err)
	}
	if err := os.WriteFile(path(fingerprintFile), []byte(print), 0o644); err != nil {
		p.log.Warn("definitions will be compiled again at the next start", "error", err)
	}
	return report, nil
}

// compile has a sandboxed process compile the sources to out.
func (p *Pool) compile(ctx context.Context, out *os.File) (Report, error) {
	sources := p.presentSources() // without any, the engine's built-in rules are all there is
	ctx, cancel := context.WithTimeout(ctx, p.cfg.CompileTimeout)
	defer cancel()
	c, err := p.startProcess(out, &wire.Setup{
		Compile: true, Sources: sources, Threads: p.cfg.Threads,
		UID: p.uid, GID: p.gid, MaxFileSize: p.cfg.MaxCompiledSize,
		MemoryLimit: compileMemory * 3 / 4, MaxData: compileMemory,
		MaxFiles: 256, MaxProcesses: 4096,
	})
	if err != nil {
		return Report{}, fmt.Errorf("compiling definitions: %w", err)
	}
	defer func() {
		c.close()
		if err := c.wait(); err != nil {
			p.log.Debug("definitions compiler ended", "error", err)
		}
	}()
	m, err := c.receive(ctx, p.cfg.CompileTimeout)
	if err != nil {
		if said := c.words.String(); said != "" && ctx.Err() == nil {
			err = fmt.Errorf("%w; it said: %s", err, said)
		}
		return Report{}, fmt.Errorf("compiling definitions: %w", err)
	}
	switch m := m.(type) {
	case *wire.Hello:
		return Report{}, fmt.Errorf("compiling definitions: %s", m.Error)
	case *wire.Compiled:
		var fatal []wire.Problem
		for _, problem := range m.Problems {
			if problem.Fatal {
				fatal = append(fatal, problem)
			}
		}
		if m.Error != "" || len(fatal) > 0 {
			return *m, &CompileError{Reason: m.Error, Problems: fatal}
		}
		return *m, nil
	default:
		return Report{}, fmt.Errorf("compiling definitions: %w: unexpected %T", wire.ErrProtocol, m)
	}
}

// compileMemory bounds a compilation: it holds all signatures at once, which
// scanning never does.
const compileMemory = 4 << 30

// loadCompiled starts a scanner with the file and switches to it; with try set,
// only when it flags none of the known-clean files.
func (p *Pool) loadCompiled(ctx context.Context, path string, try bool) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening compiled definitions: %w", err)
	}
	first, err := p.startChild(ctx, &lane{file: file})
	if err != nil {
		file.Close()
		return err
	}
	if try {
		err = p.tryKnownClean(ctx, first)
	}
	if err == nil {
		err = p.switchTo(file, first)
	}
	if err != nil {
		first.close()
		file.Close()
		return errors.Join(err, first.wait())
	}
	return nil
}

// SetSources changes what definitions are compiled from; the next Reload uses
// it.
func (p *Pool) SetSources(sources []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.Sources = slices.Clone(sources)
}

func (p *Pool) presentSources() []string {
	p.mu.Lock()
	sources := p.cfg.Sources
	p.mu.Unlock()
	var out []string
	for _, s := range sources {
		if _, err := os.Stat(s); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// fingerprint tells whether the sources, or this program, are what the compiled
// definitions were made from.
func (p *Pool) fingerprint() (string, error) {
	h := sha256.New()
	add := func(path string) error {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return fmt.Errorf("looking at %s: %w", path, err)
		}
		fmt.Fprintf(h, "%q %d %d %d %d\n", path, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
		return nil
	}
	if err := add(p.cfg.Program); err != nil {
		return "", err
	}
	for _, source := range p.presentSources() {
		err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return fmt.Errorf("reading definitions: %w", err)
			}
			if !d.Type().IsRegular() && path != source {
				return nil
			}
			return add(path)
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (p *Pool) upToDate() bool {
	now, err := p.fingerprint()
	if err != nil {
		return false
	}
	then, err := os.ReadFile(filepath.Join(p.cfg.Dir, fingerprintFile))
	return err == nil && string(then) == now
}

// removeLeftovers deletes what a crash in the middle of a compilation left, and
// the second copy that earlier versions kept.
func removeLeftovers(dir string) {
	_ = os.Remove(filepath.Join(dir, "definitions.previous"))
	old, err := filepath.Glob(filepath.Join(dir, newPrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range old {
		if st, err := os.Lstat(path); err == nil && time.Since(st.ModTime()) > time.Minute {
			os.Remove(path)
		}
	}
}
