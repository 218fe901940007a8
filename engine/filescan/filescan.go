// Package filescan scans files and folders with an Engine, without the daemon:
// what `bulwark scan --definitions` does.
package filescan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Open opens a file of compiled definitions, or compiles the sources at a path
// (a folder or a single database) into a temporary file that nobody else sees.
// The report is that of the compiling, empty for compiled definitions.
func Open(ctx context.Context, path string, opts definitions.CompileOptions) (*engine.Engine, definitions.Report, error) {
	compiled, err := definitions.IsCompiled(path)
	if err != nil {
		return nil, definitions.Report{}, fmt.Errorf("definitions: %w", err)
	}
	if compiled {
		e, err := engine.Open(path)
		return e, definitions.Report{}, err
	}
	f, err := os.CreateTemp("", "bulwark-definitions-*")
	if err != nil {
		return nil, definitions.Report{}, fmt.Errorf("definitions: %w", err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, definitions.Report{}, fmt.Errorf("definitions: %w", err)
	}
	report, err := definitions.Compile(ctx, f, []definitions.Source{{Path: path}}, opts)
	if err != nil {
		return nil, report, err
	}
	e, err := engine.OpenFile(f)
	return e, report, err
}

// Options of Run.
type Options struct {
	// Threads is how many files are looked at in parallel; at least 1.
	Threads int
	Scan    engine.Options
}

// Result is what was found out about one file, or why nothing was.
type Result struct {
	Path    string
	Verdict verdict.Verdict
	Err     error
}

// Progress counts while Run works; its methods may be called at any time.
type Progress struct {
	files, bytes, errors, infected, skipped atomic.Int64
	current                                 atomic.Value
}

// Files looked at, Bytes in them, Errors, Infected files, and Skipped folders
// of pseudo file systems.
func (p *Progress) Files() int64    { return p.files.Load() }
func (p *Progress) Bytes() int64    { return p.bytes.Load() }
func (p *Progress) Errors() int64   { return p.errors.Load() }
func (p *Progress) Infected() int64 { return p.infected.Load() }
func (p *Progress) Skipped() int64  { return p.skipped.Load() }

// Current is a file that is being looked at.
func (p *Progress) Current() string {
	s, _ := p.current.Load().(string)
	return s
}

// Run scans the files and folders, folders with everything below them. Links
// are followed only where they are named themselves; devices, sockets and pipes
// are left out, as are pseudo file systems such as /proc. report is called for
// every infected file, every file that a limit cut short, and every error; calls
// do not overlap. The error is that of ctx.
func Run(ctx context.Context, e *engine.Engine, paths []string, o Options, p *Progress, report func(Result)) error {
	files := make(chan string, 256)
	var reporting sync.Mutex
	say := func(r Result) {
		reporting.Lock()
		defer reporting.Unlock()
		report(r)
	}
	failed := func(path string, err error) {
		p.errors.Add(1)
		say(Result{Path: path, Err: err})
	}
	var workers sync.WaitGroup
	for range max(1, o.Threads) {
		workers.Go(func() {
			for path := range files {
				if ctx.Err() != nil {
					continue
				}
				p.current.Store(path)
				v, err := scanFile(ctx, e, path, o.Scan)
				switch {
				case errors.Is(err, errSpecial), err != nil && ctx.Err() != nil:
					continue
				case err != nil:
					failed(path, err)
					continue
				}
				p.files.Add(1)
				p.bytes.Add(v.Size)
				if v.Infected() {
					p.infected.Add(1)
				}
				if v.Infected() || !v.Complete() {
					say(Result{Path: path, Verdict: v})
				}
			}
		})
	}
	give := func(path string) error {
		select {
		case files <- path:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, root := range paths {
		st, err := os.Stat(root)
		if err != nil {
			failed(root, err)
			continue
		}
		if !st.IsDir() {
			if give(root) != nil {
				break
			}
			continue
		}
		if resolved, err := filepath.EvalSymlinks(root); err == nil && resolved != filepath.Clean(root) {
			root = resolved // WalkDir does not enter a link
		}
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				failed(path, err)
			case d.IsDir() && isPseudo(path):
				p.skipped.Add(1)
				return filepath.SkipDir
			case d.Type().IsRegular():
				return give(path)
			}
			return nil
		})
	}
	close(files)
	workers.Wait()
	return ctx.Err()
}

// errSpecial marks what is no regular file.
var errSpecial = errors.New("not a regular file")

func scanFile(ctx context.Context, e *engine.Engine, path string, opts engine.Options) (verdict.Verdict, error) {
	// Opening a pipe must not block.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return verdict.Verdict{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return verdict.Verdict{}, err
	}
	if !st.Mode().IsRegular() {
		return verdict.Verdict{}, errSpecial
	}
	opts.Name = path
	return e.Scan(ctx, f, st.Size(), opts)
}

// isPseudo reports whether a folder is of a file system that the kernel makes
// up: reading there has effects, or no end.
func isPseudo(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return false
	}
	switch st.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.PSTOREFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.BINFMTFS_MAGIC:
		return true
	}
	return false
}
