package unpack

import (
	"bufio"
	"compress/bzip2"
	"io"
	"path"
	"strings"

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
	return w.Stream(name, onlyReader{r})
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
