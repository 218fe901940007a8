package unpack

import (
	"bufio"
	"compress/bzip2"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
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

func unxz(w *Walker, o Object) error {
	if err := checkXZ(o); err != nil {
		return err
	}
	r, err := xz.NewReader(bufio.NewReaderSize(o.reader(), 32<<10))
	if err != nil {
		return err
	}
	return w.Stream(bare(o.Name, ".txz", ".tar", ".xz", ""), r)
}

// checkXZ refuses dictionaries that would take too much memory: the library
// allocates what the block header says. Section 5.3.1 of the .xz format: id
// 0x21, one byte of properties.
func checkXZ(o Object) error {
	var h [1024]byte
	n, _ := o.Data.ReadAt(h[:], 12)
	head := h[:n]
	if len(head) < 4 || head[0] == 0 {
		return nil // no block
	}
	size := (int(head[0]) + 1) * 4
	if size > len(head) {
		return fmt.Errorf("%w: xz block header", errDamaged)
	}
	at := 2
	skip := func() uint64 {
		v, k := binary.Uvarint(head[min(at, size):size])
		at += max(k, 1)
		return v
	}
	if head[1]&0x40 != 0 {
		skip()
	}
	if head[1]&0x80 != 0 {
		skip()
	}
	for range int(head[1]&3) + 1 {
		id, props := skip(), skip()
		if id == 0x21 && props == 1 && at < size {
			bits := uint(head[at]) & 63
			if bits > 40 || (2|uint64(bits&1))<<(bits/2+11) > maxDictionary {
				return fmt.Errorf("%w: xz dictionary larger than %d bytes", errDamaged, maxDictionary)
			}
		}
		at += int(min(props, 1024))
	}
	return nil
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
