package ondemand

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/scan/known"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

const (
	// maxOpening bounds the files that are being opened at a time; when so many
	// are held the scan ends.
	maxOpening = 64
	// maxHanded bounds how many files outside of the walk are not scanned twice.
	maxHanded = 100_000
	// settled is how long ago a file must have changed for its verdict to be
	// remembered. A page that is mapped for writing when it is scanned can be
	// changed without a new change time until the kernel has written it back,
	// which takes 35 s at most (vm.dirty_expire_centisecs and one more period).
	settled = time.Minute
)

var (
	errHeld    = errors.New("another program holds it, or its server does not answer")
	errAllHeld = fmt.Errorf("%d files at a time do not open: another program holds them, or their server does not answer", maxOpening)
)

// fileID recognises a file with its content within a scan.
type fileID struct {
	dev, ino uint64
	ctime    unix.Timespec
}

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino, st.Ctim} }

// find looks for the files of the scan and hands them to the workers: first what
// runs and what is started by itself, then all the folders.
func (r *run) find(targets chan<- target) error {
	if r.spec.Type != control.ScanCustom {
		if err := r.processes(targets); err != nil {
			return err
		}
	}
	v := r.visitor(r.skip)
	v.file = func(parent int, name, path string) error { return r.file(targets, parent, name, path) }
	if r.spec.Type == control.ScanQuick {
		if err := r.persistence(v, targets); err != nil {
			return err
		}
	}
	for _, root := range r.roots {
		if err := walk(r.ctx, root, v); err != nil {
			return err
		}
	}
	return nil
}

// file deals with one file of the walk.
func (r *run) file(targets chan<- target, parent int, name, path string) error {
	if r.excluded(path, true) {
		r.skip(path, reasonExcluded, nil)
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		r.skip(path, openReason(err), err)
		return nil
	}
	if !r.quick.has(path, st.Mode) {
		r.skip(path, reasonNotQuick, nil)
		return nil
	}
	if _, twice := r.handed[idOf(&st)]; twice {
		return nil
	}
	if r.unchanged(&st, r.volumes.on(uint64(st.Dev)).id, path) {
		return nil
	}
	var f *os.File
	err := r.open(func() (err error) {
		f, st, err = openRegular(parent, name)
		return err
	}, func() { f.Close() })
	switch {
	case errors.Is(err, errAllHeld), err != nil && r.ctx.Err() != nil:
		return err
	case errors.Is(err, errHeld):
		r.skip(path, reasonHeld, err)
		return nil
	case errors.Is(err, errNotRegular):
		r.skip(path, reasonNotRegular, nil)
		return nil
	case err != nil:
		r.skip(path, openReason(err), err)
		return nil
	}
	return r.hand(targets, target{f, path, st, r.volumes.on(uint64(st.Dev)).id})
}

// open runs an opening in a goroutine of its own and gives it up after some
// time: another product may hold the file, or its server may be gone. What opens
// too late is closed.
func (r *run) open(try func() error, closeIt func()) error {
	select {
	case r.opening <- struct{}{}:
	default:
		return errAllHeld
	}
	done := make(chan error, 1)
	var decided atomic.Bool // whether it is the caller's, or given up
	go func() {
		defer func() { <-r.opening }()
		err := error(errPanic)
		r.guard("opening a file", func() { err = try() })
		if decided.CompareAndSwap(false, true) {
			done <- err
		} else if err == nil {
			closeIt()
		}
	}()
	timeout := time.NewTimer(r.m.cfg.OpenTimeout)
	defer timeout.Stop()
	give := errHeld
	select {
	case err := <-done:
		return err
	case <-timeout.C:
	case <-r.ctx.Done():
		give = context.Cause(r.ctx)
	}
	if !decided.CompareAndSwap(false, true) {
		return <-done // it opened just now
	}
	return give
}

func (r *run) hand(targets chan<- target, t target) error {
	select {
	case targets <- t:
		return nil
	case <-r.ctx.Done():
		t.file.Close()
		return context.Cause(r.ctx)
	}
}

// once reports whether a file outside of the walk was dealt with before, and
// notes that it is now.
func (r *run) once(st *unix.Stat_t) (before bool) {
	id := idOf(st)
	if _, before = r.handed[id]; !before && len(r.handed) < maxHanded {
		r.handed[id] = struct{}{}
	}
	return before
}

// knownFile is a file as the store of known files has it.
func (r *run) knownFile(st *unix.Stat_t, volume, definitions string) known.File {
	return known.File{
		Volume: volume, Inode: st.Ino, ChangeTime: st.Ctim, Size: st.Size,
		Definitions: definitions, WithArchives: r.spec.Archives,
	}
}

// unchanged reports whether a file need not be scanned, and counts it: it is
// known that nothing is found in it, or this scan has scanned it before the
// daemon stopped.
func (r *run) unchanged(st *unix.Stat_t, volume, path string) bool {
	if r.m.known == nil || volume == "" || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	all := r.spec.All || r.spec.Type == control.ScanCustom
	resumed := r.record.Resumed > 0 // constant
	if all && !resumed {
		return false
	}
	definitions := r.m.cfg.Definitions()
	if definitions == "" {
		return false
	}
	at, part, ok := r.m.known.Scanned(r.knownFile(st, volume, definitions))
	byThis := resumed && !at.Before(r.record.Start.Truncate(time.Second)) // constant; the store has whole seconds
	if !ok || all && !byThis {
		return false
	}
	if part != known.Whole {
		r.skip(path, reasonPartly, errBefore)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if part != known.Whole {
		r.record.Partly++
	}
	if part == known.Locked {
		r.record.Encrypted++
	}
	if byThis {
		r.record.Files++
		r.record.Bytes += st.Size
	} else {
		r.record.Unchanged++
		r.record.UnchangedBytes += st.Size
	}
	return true
}

// errBefore is why only a part was looked at of a file that is not scanned again.
var errBefore = errors.New("in an earlier scan, and unchanged since")

// remember keeps that nothing was found in a file, if it is sure to be the one
// that was scanned. A scan that was short of time may see more the next time.
func (r *run) remember(t target, v verdict.Verdict, begin time.Time) {
	definitions := DefinitionsOf(v.Engine, v.Definitions)
	if r.m.known == nil || t.volume == "" || definitions == "" || slices.Contains(v.Limits, verdict.LimitTime) {
		return
	}
	var now unix.Stat_t
	err := unix.Fstat(int(t.file.Fd()), &now)
	changed := time.Unix(now.Ctim.Unix())
	if err != nil || idOf(&now) != idOf(&t.st) || now.Size != t.st.Size || begin.Sub(changed) < r.m.cfg.settled {
		return
	}
	f := r.knownFile(&now, t.volume, definitions)
	switch {
	case slices.Contains(v.Limits, verdict.Encrypted):
		f.Part = known.Locked
	case !v.Complete():
		f.Part = known.Partly
	}
	if err := r.m.known.Add(f, time.Now()); err != nil {
		r.m.log.Debug("file not remembered", "path", t.path, "error", err)
	}
}

// count walks the same folders for the totals, without opening a file.
func (r *run) count(ctx context.Context) {
	v := r.visitor(func(string, string, error) {})
	v.file = func(parent int, name, path string) error {
		if r.excluded(path, false) {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil // seen by the other walk
		}
		if !r.quick.has(path, st.Mode) {
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.filesTotal++
		r.bytesTotal += st.Size
		return nil
	}
	for _, root := range r.roots {
		if err := walk(ctx, root, v); err != nil {
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counted = len(r.roots) > 0
}

func (r *run) visitor(skip func(path, reason string, err error)) visitor {
	own := map[string]bool{}
	for _, o := range r.m.cfg.Own {
		own[o] = true
	}
	var unmonitored []string
	if r.spec.Type != control.ScanCustom && r.m.cfg.Unmonitored != nil {
		unmonitored = r.m.cfg.Unmonitored()
	}
	return visitor{
		skip: skip, own: own,
		enter: func(fd int, _ string) (bool, string) {
			switch v := r.volumes.of(fd); {
			case v.pseudo:
				return false, reasonPseudo
			case matches(v.kind, unmonitored):
				return false, reasonNetwork
			}
			return true, ""
		},
	}
}
