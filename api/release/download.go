package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Progress is told how far a download is: bytes that came over the line, and
// how many there will be at most.
type Progress func(done, total int64)

// Have finds a file of that SHA-256 that the host has already; empty where it
// has none.
type Have func(sum string) string

// Stats says what a download cost.
type Stats struct {
	// Bytes came over the line. Full counts files that were fetched whole, Deltas
	// those made from an earlier one, Kept those that were there already.
	Bytes              int64
	Full, Deltas, Kept int
}

// Download puts the files of the release into dir, which must be empty. Files
// that the host has are copied or made from deltas; what does not work out that
// way is fetched whole.
func (r *Release) Download(ctx context.Context, dir string, have Have, progress Progress) (Stats, error) {
	d := &download{r: r, dir: dir, have: have, progress: progress}
	if have == nil {
		d.have = func(string) string { return "" }
	}
	if progress == nil {
		d.progress = func(int64, int64) {}
	}
	type step struct {
		file  File
		delta string // target; empty: the whole file
		from  string // path of the file that the delta begins with
	}
	var steps []step
	made := map[string]string{} // sum -> path of what is in dir already
	for _, f := range r.Set.Files {
		if d.have(f.SHA256) != "" || made[f.SHA256] != "" {
			steps = append(steps, step{file: f})
			continue
		}
		made[f.SHA256] = filepath.Join(dir, filepath.FromSlash(f.Name))
		s := step{file: f}
		size := r.length(FileTarget(f.SHA256))
		for _, delta := range f.Deltas {
			name := DeltaTarget(delta.From, f.SHA256)
			if n := r.length(name); n > 0 && n < size {
				if from := d.have(delta.From); from != "" {
					s.delta, s.from, size = name, from, n
				}
			}
		}
		d.total += size
		steps = append(steps, s)
	}
	for _, s := range steps {
		path := filepath.Join(dir, filepath.FromSlash(s.file.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return d.stats, fmt.Errorf("definitions: %w", err)
		}
		have := d.have(s.file.SHA256)
		if have == "" {
			have = made[s.file.SHA256]
		}
		if have != "" && have != path {
			if err := copyFile(path, have, s.file); err == nil {
				d.stats.Kept++
				continue
			} // damaged since: fetch it
		}
		if s.delta != "" {
			err := d.get(ctx, s.delta, path, s.file, s.from)
			if err == nil {
				d.stats.Deltas++
				continue
			}
			if ctx.Err() != nil {
				return d.stats, err
			}
		}
		if err := d.get(ctx, FileTarget(s.file.SHA256), path, s.file, ""); err != nil {
			return d.stats, err
		}
		d.stats.Full++
	}
	return d.stats, nil
}

// length of a target; 0 where there is none.
func (r *Release) length(target string) int64 {
	if t := r.targets[target]; t != nil {
		return t.Length
	}
	return 0
}

type download struct {
	r        *Release
	dir      string
	have     Have
	progress Progress
	total    int64
	stats    Stats
}

// get fetches a target into a file beside path, verifies it, unpacks it to
// path and verifies that. Nothing unverified is given to the decompressor.
func (d *download) get(ctx context.Context, target, path string, f File, base string) error {
	packed, err := os.CreateTemp(d.dir, ".packed-*")
	if err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	defer func() {
		packed.Close()
		os.Remove(packed.Name())
	}()
	if err := d.r.target(ctx, target, &counter{w: packed, d: d}); err != nil {
		return err
	}
	if _, err := packed.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	err = writeFile(path, f, func(w io.Writer) error {
		if base == "" {
			return unpack(w, packed, f.Size)
		}
		old, err := os.Open(base)
		if err != nil {
			return err
		}
		defer old.Close()
		return ApplyDelta(w, packed, old, f.Size)
	})
	if err != nil {
		return fmt.Errorf("definitions: %s: %w", target, err)
	}
	return nil
}

// counter counts what comes over the line.
type counter struct {
	w io.Writer
	d *download
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.d.stats.Bytes += int64(n)
	c.d.progress(c.d.stats.Bytes, max(c.d.total, c.d.stats.Bytes))
	return n, err
}

func unpack(w io.Writer, r io.Reader, size int64) error {
	z, err := newZstdReader(r)
	if err != nil {
		return err
	}
	defer z.Close()
	n, err := io.Copy(w, io.LimitReader(z, size+1))
	switch {
	case err != nil:
		return fmt.Errorf("unpacking: %w", err)
	case n != size:
		return fmt.Errorf("%w: it unpacks to another size than %d bytes", ErrMismatch, size)
	}
	return nil
}

func copyFile(path, from string, f File) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return writeFile(path, f, func(w io.Writer) error {
		_, err := io.Copy(w, io.LimitReader(in, f.Size+1))
		return err
	})
}

// writeFile makes the file f with what write writes and checks it. Of a file
// that is not f nothing is left.
func writeFile(path string, f File, write func(io.Writer) error) (err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			os.Remove(path)
		}
	}()
	sum := sha256.New()
	if err := write(io.MultiWriter(out, sum)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("%s: %w: SHA-256 %s, want %s", f.Name, ErrMismatch, got, f.SHA256)
	}
	return out.Sync()
}
