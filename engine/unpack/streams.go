package unpack

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxDictionary is the largest window a decompressor may ask for.
const maxDictionary = 64 << 20

// bare is the name of the content of a one-member container: the container's
// without its extension.
func bare(name string, exts ...string) string {
	name = path.Base(name)
	for i := 0; i+1 < len(exts); i += 2 {
		if n, ok := strings.CutSuffix(name, exts[i]); ok && n != "" {
			return n + exts[i+1]
		}
	}
	return "content"
}

func gunzip(w *Walker, o Object) error {
	sc := w.budget.Scratch
	in := sc.input(o.reader())
	defer sc.done(in)
	r, err := sc.gzip(in)
	if err != nil {
		return err
	}
	defer func() { sc.gzips = append(sc.gzips, r) }()
	name := r.Name
	if name == "" || strings.ContainsRune(name, '/') {
		name = bare(o.Name, ".tgz", ".tar", ".gz", "")
	}
	return w.Stream(name, &gzipMembers{w: w, in: in, r: r})
}

// gzipMembers reads the members of a gzip file as one stream (RFC 1952 section
// 2.2). What follows the last and is no member is left, as gzip does.
type gzipMembers struct {
	w  *Walker
	in *bufio.Reader
	r  *gzip.Reader
}

func (g *gzipMembers) Read(p []byte) (int, error) {
	for {
		g.r.Multistream(false) // only until the next Reset
		n, err := g.r.Read(p)
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil // it comes again
		}
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		if head, _ := g.in.Peek(2); string(head) != "\x1f\x8b" {
			return 0, io.EOF
		}
		if err := g.w.check(); err != nil {
			return 0, err
		}
		if err := g.r.Reset(g.in); err != nil {
			return 0, err
		}
	}
}

func bunzip2(w *Walker, o Object) error {
	return w.Stream(bare(o.Name, ".tbz2", ".tar", ".bz2", ""), bzip2.NewReader(bufio.NewReaderSize(o.reader(), 32<<10)))
}

func unzstd(w *Walker, o Object) error {
	r, err := zstd.NewReader(bufio.NewReaderSize(o.reader(), 32<<10), zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary), zstd.WithDecoderMaxMemory(1<<40))
	if err != nil {
		return err
	}
	defer r.Close()
	return w.Stream(bare(o.Name, ".tzst", ".tar", ".zst", ""), onlyReader{r})
}

// onlyReader hides other methods, by which a library may prefer to be read.
type onlyReader struct{ io.Reader }
