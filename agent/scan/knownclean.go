package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
)

// knownCleanTime bounds the scan of one file that is known to be clean.
const knownCleanTime = 30 * time.Second

// FalsePositiveError means that definitions were refused because they flag a
// file without which the host does not work.
type FalsePositiveError struct {
	Path   string
	Threat string
	// Signature and Source say which one it was.
	Signature, Source string
}

func (e *FalsePositiveError) Error() string {
	return fmt.Sprintf("the definitions flag %s, which is known to be clean, as %s (signature %s of %s)", e.Path, e.Threat, e.Signature, e.Source)
}

// tryKnownClean scans the known-clean files with a process that is ready and
// serves nobody yet.
func (p *Pool) tryKnownClean(ctx context.Context, c *child) error {
	for i, path := range p.cfg.KnownClean {
		if err := p.tryFile(ctx, c, uint64(i)+1, path); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pool) tryFile(ctx context.Context, c *child, id uint64, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // this host does not have it
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil // nothing to try
	}
	b, err := wire.Append(nil, &wire.Scan{ID: id, Size: st.Size(), Timeout: knownCleanTime, Name: path})
	if err != nil {
		return err
	}
	if _, _, err := c.conn.WriteMsgUnix(b, unix.UnixRights(int(f.Fd())), nil); err != nil {
		return fmt.Errorf("trying the definitions on %s: %w", path, err)
	}
	m, err := c.receive(ctx, knownCleanTime+5*time.Second)
	if err != nil {
		return fmt.Errorf("trying the definitions on %s: %w", path, err)
	}
	a, ok := m.(*wire.Answer)
	switch {
	case !ok || a.ID != id:
		return fmt.Errorf("trying the definitions on %s: %w: unexpected %T", path, wire.ErrProtocol, m)
	case a.Error != "":
		return fmt.Errorf("trying the definitions on %s: %s", path, a.Error)
	case a.Verdict.Infected():
		hit := a.Verdict.Matches[0]
		return &FalsePositiveError{Path: path, Threat: hit.Threat, Signature: hit.Signature, Source: hit.Source}
	}
	return nil
}

// ReloadFrom is Reload with other sources. Without an error they are the
// sources from then on; with one the sources and definitions before stay.
func (p *Pool) ReloadFrom(ctx context.Context, sources []string) (Report, error) {
	select {
	case p.reload <- struct{}{}:
		defer func() { <-p.reload }()
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
	p.mu.Lock()
	before := p.cfg.Sources
	p.mu.Unlock()
	p.SetSources(sources)
	report, err := p.compileAndSwitch(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.report, p.loadErr = report, nil
	} else {
		p.cfg.Sources = before
	}
	return report, err
}

// Refused reports whether an error means that the definitions are at fault, and
// not the host or the moment.
func Refused(err error) bool {
	var compile *CompileError
	var positive *FalsePositiveError
	return errors.As(err, &compile) || errors.As(err, &positive) || errors.Is(err, errDoesNotLoad)
}

var errDoesNotLoad = errors.New("the compiled definitions do not load; keeping the ones in use")
