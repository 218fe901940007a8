// Package engine scans files with every open signature at once: ClamAV
// databases and YARA rules compiled by package definitions.
//
// An Engine is opened from one file of compiled definitions, is immutable and
// may be used by any number of goroutines. Scanning needs nothing from the
// system but the io.ReaderAt that it is given and memory: it opens no file,
// starts no goroutine and no process.
//
//	e, err := engine.Open("/var/opt/bulwark/definitions/current.bwd")
//	...
//	v, err := e.Scan(ctx, file, size, engine.Options{Name: path, Archives: true})
//	if v.Infected() { fmt.Println(v.Primary().Threat) }
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Version is the engine's version, which verdicts name.
const Version = "1.0.0"

// ErrDefinitions is wrapped by the errors of Open for a file that is not
// compiled definitions of this version, or is damaged.
var ErrDefinitions = errors.New("definitions file refused")

// Limits bound the work on one file. Fields that are zero take the default.
type Limits struct {
	// Depth is how deep containers may be nested.
	Depth int
	// Files is how many members may be looked at.
	Files int
	// Bytes is how many bytes may be extracted from containers in all.
	Bytes int64
	// Ratio of extracted bytes to the size of the scanned file. It counts only
	// once another limit is passed: then the file is an archive bomb.
	Ratio int
	// Time for the whole file.
	Time time.Duration
	// MaxSize is how many bytes of the file itself are scanned.
	MaxSize int64
}

// DefaultLimits are the limits where Options has none.
func DefaultLimits() Limits {
	return Limits{Depth: 17, Files: 10000, Bytes: 400 << 20, Ratio: 250, Time: 120 * time.Second, MaxSize: 2 << 30}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.Depth <= 0 {
		l.Depth = d.Depth
	}
	if l.Files <= 0 {
		l.Files = d.Files
	}
	if l.Bytes <= 0 {
		l.Bytes = d.Bytes
	}
	if l.Ratio <= 0 {
		l.Ratio = d.Ratio
	}
	if l.Time <= 0 {
		l.Time = d.Time
	}
	if l.MaxSize <= 0 {
		l.MaxSize = d.MaxSize
	}
	return l
}

// Options of one scan.
type Options struct {
	// Name of the file, for rules that ask for it; the file is not opened by it.
	Name string
	// Archives says to look into containers.
	Archives bool
	Limits   Limits
}

// Info describes an engine with its definitions.
type Info struct {
	Engine      string             `json:"engine"`
	Definitions string             `json:"definitions"`
	Created     time.Time          `json:"created"`
	Counts      definitions.Counts `json:"counts"`
	// Unsupported counts the signatures that were left out because they need
	// what is not supported, by its name.
	Unsupported map[string]int `json:"unsupported,omitempty"`
}

// Engine scans with one set of definitions.
type Engine struct {
	set     *definitions.Set
	workers sync.Pool
}

// Open uses the compiled definitions in the named file.
func Open(path string) (*Engine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening definitions: %w", err)
	}
	defer f.Close()
	return OpenFile(f)
}

// OpenFile uses the compiled definitions in an open file, which is mapped
// read-only and may be closed afterwards. The file must not be written to or
// cut while the Engine is open: replace it by a new one instead.
func OpenFile(f *os.File) (*Engine, error) {
	set, err := definitions.Open(f)
	if err != nil {
		if errors.Is(err, definitions.ErrFormat) {
			return nil, fmt.Errorf("%w: %s: %w", ErrDefinitions, f.Name(), err)
		}
		return nil, fmt.Errorf("opening definitions %s: %w", f.Name(), err)
	}
	e := &Engine{set: set}
	l := newLoose(set)
	e.workers.New = func() any { return newWorker(set, l) }
	return e, nil
}

// Close gives the mapping back. No Scan may be running.
func (e *Engine) Close() error { return e.set.Close() }

// Info describes the engine and its definitions.
func (e *Engine) Info() Info {
	m := e.set.Meta
	return Info{Engine: Version, Definitions: m.Version, Created: m.Created, Counts: m.Counts, Unsupported: m.Unsupported}
}

// Scan looks at the first size bytes of r. It is safe for concurrent use. An
// error means that there is no verdict: r could not be read, ctx ended (its
// error is returned, within 50 ms unless r itself blocks), or a parser failed.
// Limits are not errors; the verdict names them.
func (e *Engine) Scan(ctx context.Context, r io.ReaderAt, size int64, opts Options) (v verdict.Verdict, err error) {
	if size < 0 {
		return v, fmt.Errorf("scanning %s: size %d is negative", opts.Name, size)
	}
	if err := ctx.Err(); err != nil {
		return v, err
	}
	w := e.workers.Get().(*worker)
	defer func() {
		if p := recover(); p != nil {
			// The worker's state is unknown: it is not used again.
			v, err = verdict.Verdict{}, fmt.Errorf("scanning %s: panic: %v", opts.Name, p)
			return
		}
		e.workers.Put(w)
	}()
	s := &scan{set: e.set, w: w, ctx: ctx, opts: opts, limits: opts.Limits.withDefaults()}
	s.verdict = verdict.Verdict{Size: size, Engine: Version, Definitions: e.set.Meta.Version}
	if err := s.run(r, size); err != nil {
		return verdict.Verdict{}, fmt.Errorf("scanning %s: %w", opts.Name, err)
	}
	return s.verdict, nil
}
