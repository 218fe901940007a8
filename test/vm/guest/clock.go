package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/control"
)

// moveClock sets the machine's clock forward or back.
func moveClock(by time.Duration) error {
	ts := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// clockJumps moves the clock by days. Before and after each jump bad files are
// refused and clean ones are not, and an exclusion that expires does so by the
// clock: also when the clock is set back to before. That no access was held too
// long shows in the counter of missed deadlines at the end.
func (a *agent) clockJumps() error {
	dir := filepath.Join(mountFolder, "tmpfs", "clock")
	excluded := filepath.Join(mountFolder, "tmpfs", "clock.excluded")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(excluded, 0o755)); err != nil {
		return err
	}
	expires := time.Now().Add(time.Hour).Round(0) // by the clock that is moved
	_, err := a.api.AddExclusion(a.g.ctx, control.Exclusion{
		Type: "folder", Path: control.Path(excluded), Scopes: []string{"epp"}, Expires: expires, Reason: "clock test",
	})
	if err != nil {
		return err
	}
	for i, jump := range []time.Duration{0, 25 * time.Hour, -49 * time.Hour, 24 * time.Hour} {
		if err := moveClock(jump); err != nil {
			return err
		}
		inForce := time.Now().Before(expires)
		fail := func(err error) error {
			return fmt.Errorf("after the clock was moved by %v (exclusion in force: %v): %w", jump, inForce, err)
		}
		for _, f := range []struct {
			dir     string
			content []byte
			want    []access
		}{
			{dir, unique(100 + i), []access{denied, absent}},
			{dir, harmless, []access{allowed}},
			{excluded, unique(110 + i), map[bool][]access{true: {allowed}, false: {denied, absent}}[inForce]},
		} {
			path := filepath.Join(f.dir, strconv.Itoa(i)+"."+strconv.Itoa(len(f.content)))
			if err := os.WriteFile(path, f.content, 0o644); err != nil {
				return fail(err)
			}
			got, err := open(path)
			if err := want(got, err, f.want...); err != nil {
				return fail(fmt.Errorf("%s: %w", path, err))
			}
		}
		if _, err := a.api.Health(a.g.ctx); err != nil {
			return fail(err)
		}
	}
	return nil
}
