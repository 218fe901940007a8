package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Source is where the files of a repository come from. Nothing of it is
// trusted.
type Source interface {
	// Open returns a file of the repository, "metadata/timestamp.json" for
	// example. An error wraps ErrAbsent where there is none.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// String is the address for people.
	String() string
}

// Errors of sources.
var (
	// ErrAbsent: the repository has no such file.
	ErrAbsent = errors.New("there is no such file")
	// ErrEndless: a file is longer than the metadata allows.
	ErrEndless = errors.New("longer than the signed metadata allows")
	// ErrSlow: data comes so slowly that the transfer was given up.
	ErrSlow = errors.New("the data comes too slowly")
)

// StatusError is the error for an HTTP answer that is no success.
type StatusError struct {
	URL    string
	Status int
	// RetryAfter is what the server asks for; zero where it does not.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: HTTP status %d %s", e.URL, e.Status, http.StatusText(e.Status))
}

// Is makes absent files known as such.
func (e *StatusError) Is(target error) bool {
	return target == ErrAbsent && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// HTTPSource is a repository on a web server.
type HTTPSource struct {
	Client *http.Client
	// Base is the address of the repository's folder.
	Base string
	// UserAgent, where it is set, is sent along.
	UserAgent string
}

func (s *HTTPSource) String() string { return s.Base }

// Open asks the server for the file.
func (s *HTTPSource) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	address := strings.TrimSuffix(s.Base, "/") + "/" + name
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	if s.UserAgent != "" {
		req.Header.Set("User-Agent", s.UserAgent)
	}
	// The files are compressed; transparent decompression would only be one more
	// way to send more than was announced.
	req.Header.Set("Accept-Encoding", "identity")
	res, err := s.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, &StatusError{URL: address, Status: res.StatusCode, RetryAfter: RetryAfter(res.Header, time.Now())}
	}
	return res.Body, nil
}

// RetryAfter reads the header of that name; at most a day.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	const most = 24 * time.Hour
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0
	}
	if d, err := time.ParseDuration(text + "s"); err == nil {
		return min(max(d, 0), most)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), most)
	}
	return 0
}

// FolderSource is a repository in a folder: a share that is mounted, a disk.
type FolderSource struct{ Dir string }

func (s *FolderSource) String() string { return s.Dir }

// Open opens the file. Opening and reading happen in goroutines of their own,
// as a share whose server is gone answers no system call.
func (s *FolderSource) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if !fs.ValidPath(name) {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrInvalid)
	}
	path := filepath.Join(s.Dir, filepath.FromSlash(name))
	type opened struct {
		f   *os.File
		err error
	}
	ch := make(chan opened, 1)
	go func() {
		f, err := openRegular(path)
		ch <- opened{f, err}
	}()
	select {
	case o := <-ch:
		if errors.Is(o.err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", path, ErrAbsent)
		}
		if o.err != nil {
			return nil, o.err
		}
		return o.f, nil
	case <-ctx.Done():
		go func() {
			if o := <-ch; o.f != nil {
				o.f.Close()
			}
		}()
		return nil, fmt.Errorf("opening %s: %w", path, ctx.Err())
	}
}

func openRegular(path string) (*os.File, error) {
	// A pipe would make Open wait for somebody to write.
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("definitions mirror: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("definitions mirror: %w", err)
	}
	return f, nil
}

// slowest is the rate in bytes per second below which a transfer is given up,
// patience what it has besides.
const (
	slowest  = 2 << 10
	patience = time.Minute
)

// fetch copies a file of at most most bytes to w, and gives up when that takes
// far too long.
func fetch(ctx context.Context, src Source, name string, most int64, w io.Writer) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience+time.Duration(most/slowest)*time.Second, ErrSlow)
	defer cancel()
	r, err := src.Open(ctx, name)
	if err != nil {
		return 0, because(ctx, err)
	}
	type copied struct {
		n   int64
		err error
	}
	done := make(chan copied, 1)
	go func() {
		n, err := io.Copy(w, io.LimitReader(r, most+1))
		done <- copied{n, err}
	}()
	var c copied
	select {
	case c = <-done:
		r.Close()
	case <-ctx.Done():
		r.Close() // ends a read from the network, and leaves one from a dead share behind
		select {
		case c = <-done:
		case <-time.After(time.Second):
			return 0, fmt.Errorf("%s: %w", name, context.Cause(ctx))
		}
		if c.err == nil {
			break // it was just ready
		}
	}
	if c.err != nil {
		return c.n, fmt.Errorf("%s: %w", name, because(ctx, c.err))
	}
	if c.n > most {
		return c.n, fmt.Errorf("%s: %w (%d bytes)", name, ErrEndless, most)
	}
	return c.n, nil
}

// because puts the reason of a context's end in the place of the error that
// comes of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
		return cause
	}
	return err
}
