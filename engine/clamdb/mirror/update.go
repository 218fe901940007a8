package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// update is one update of one database.
type update struct {
	m      *Mirror
	name   string
	work   string // a folder that is removed afterwards
	result *Result
}

// byDiffs takes the database from version to version.
func (u *update) byDiffs(ctx context.Context, from, to int) error {
	dir := filepath.Join(u.work, "diffs")
	if err := u.unpack(u.m.Path(u.name), "cld", dir); err != nil {
		return err
	}
	for v := from + 1; v <= to; v++ {
		path := filepath.Join(u.work, "cdiff")
		if _, err := u.fetch(ctx, fmt.Sprintf("%s-%d.cdiff", u.name, v), path, clamdb.MaxDiff); err != nil {
			return err
		}
		if err := u.apply(path, dir, v); err != nil {
			return fmt.Errorf("%s-%d.cdiff: %w", u.name, v, err)
		}
		u.result.Diffs++
	}
	h, err := clamdb.VerifyFolder(dir, u.name, u.m.cfg.Keys.Digest)
	if err != nil {
		return err
	}
	if h.Version != to {
		return fmt.Errorf("%w: the .cdiff files lead to version %d, not %d", ErrInconsistent, h.Version, to)
	}
	return u.use(dir, h)
}

func (u *update) apply(path, dir string, version int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	v, commands, err := clamdb.VerifyDiff(f, st.Size(), u.m.cfg.Keys.Digest)
	if err != nil {
		return err
	}
	if v != version {
		return fmt.Errorf("%w: it leads to version %d", clamdb.ErrDiff, v)
	}
	return clamdb.ApplyDiff(dir, commands)
}

// whole fetches the container. It must be of the version that was announced, or
// a later one.
func (u *update) whole(ctx context.Context, announced int) error {
	path := filepath.Join(u.work, "cvd")
	modified, err := u.fetch(ctx, u.name+".cvd", path, maxDatabase)
	if err != nil {
		return err
	}
	dir := filepath.Join(u.work, "whole")
	if err := u.unpack(path, "cvd", dir); err != nil {
		return fmt.Errorf("%s: %w", u.m.file(u.name+".cvd"), err)
	}
	h, err := clamdb.VerifyFolder(dir, u.name, u.m.cfg.Keys.Digest)
	if err != nil {
		return fmt.Errorf("%s: %w", u.m.file(u.name+".cvd"), err)
	}
	switch {
	case h.Version < u.result.From:
		return fmt.Errorf("%s: %w: %d, here is %d", u.m.file(u.name+".cvd"), ErrRollback, h.Version, u.result.From)
	case h.Version == u.result.From:
		return fmt.Errorf("%s: %w: version %d is announced, %d served", u.m.file(u.name+".cvd"), ErrInconsistent, announced, h.Version)
	}
	if err := u.use(dir, h); err != nil {
		return err
	}
	u.m.state.Modified[u.name] = modified
	return nil
}

// unpack verifies a container and unpacks it.
func (u *update) unpack(path, ext, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	c, err := clamdb.OpenContainer(f, st.Size(), ext, u.m.cfg.Keys.Container)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return c.Unpack(dir)
}

// use puts a verified database in the place of the one before.
func (u *update) use(dir string, h clamdb.Header) (err error) {
	f, err := os.Create(filepath.Join(u.work, "cld"))
	if err != nil {
		return fmt.Errorf("ClamAV databases: %w", err)
	}
	err = clamdb.Pack(f, dir, h)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), u.m.Path(u.name))
	}
	if err != nil {
		return fmt.Errorf("ClamAV databases: %w", err)
	}
	u.result.To, u.result.Built = h.Version, h.Built
	return nil
}

// fetch downloads a file of at most most bytes and returns its time as the
// mirror states it.
func (u *update) fetch(ctx context.Context, name, path string, most int64) (modified string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute+time.Duration(most/slowest/20)*time.Second)
	defer cancel()
	res, err := u.m.get(ctx, name, nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", &StatusError{URL: u.m.file(name), Status: res.StatusCode}
	}
	if res.ContentLength > most {
		return "", fmt.Errorf("%s: %d bytes are announced, the limit is %d", u.m.file(name), res.ContentLength, most)
	}
	out, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("ClamAV databases: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := &counter{w: out, total: max(res.ContentLength, 0), tell: func(done, total int64) { u.m.cfg.Progress(name, done, total) }}
	n, err := io.Copy(w, io.LimitReader(res.Body, most+1))
	u.result.Bytes += n
	if err != nil {
		return "", fmt.Errorf("%s: %w", u.m.file(name), err)
	}
	if n > most {
		return "", fmt.Errorf("%s: more than %d bytes", u.m.file(name), most)
	}
	return res.Header.Get("Last-Modified"), nil
}

type counter struct {
	w           io.Writer
	done, total int64
	tell        func(done, total int64)
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.done += int64(n)
	c.tell(c.done, c.total)
	return n, err
}
