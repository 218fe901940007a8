package unpack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
)

// carveNSIS opens the archive of an installer of the Nullsoft Scriptable Install
// System (Source/exehead/fileform.h of NSIS): flags, signature, lengths, and then
// pieces with a length each, of which the highest bit says that the piece is
// compressed. With solid compression all pieces are one compressed stream. The
// first piece is the script; the files' names stand in there and are not read.
func (w *Walker) carveNSIS(o Object, at int64) (end int64, err error) {
	le := binary.LittleEndian
	h := o.piece(at, 28+16)
	if len(h) < 28+8 {
		return 0, nil
	}
	size := int64(le.Uint32(h[24:]))
	data := o.sub("", at+28, max(0, size-28))
	first := h[28:]
	end = at + max(size, 28)
	if nsisChain(data) {
		return end, w.nsisPieces(data)
	}
	r, err := nsisReader(data, first)
	if err != nil {
		return end, nil
	}
	m, release, err := w.decode(func(out *sink) error { return out.readAll(r) })
	defer release()
	if err != nil {
		return 0, err
	}
	return end, w.nsisPieces(m.object(""))
}

// nsisChain reports whether an archive is made of pieces and not one compressed
// stream: their lengths then lead from one to the next, or to the checksum at the
// end.
func nsisChain(o Object) bool {
	at := int64(0)
	for range 4 {
		b := o.piece(at, 4)
		if o.Size-at <= 4 {
			return at > 0
		}
		n := int64(binary.LittleEndian.Uint32(b) &^ 0x80000000)
		if n == 0 || at+4+n > o.Size {
			return false
		}
		at += 4 + n
	}
	return true
}

func (w *Walker) nsisPieces(o Object) error {
	for i, at := 0, int64(0); at+4 <= o.Size; i++ {
		b := o.piece(at, 4+16)
		if len(b) < 5 {
			return nil
		}
		v := binary.LittleEndian.Uint32(b)
		n := int64(v &^ 0x80000000)
		if n == 0 || n > o.Size-at-4 {
			return nil
		}
		part := o.sub(fmt.Sprintf("nsis-%d", i), at+4, n)
		var err error
		if v&0x80000000 == 0 {
			err = w.Section(part.Name, part, 0, part.Size)
		} else {
			err = w.Produce(part.Name, func(out *sink) error {
				r, err := nsisReader(part, b[4:])
				if err != nil {
					return err
				}
				return out.readAll(r)
			})
		}
		if err != nil {
			return err
		}
		at += 4 + n
	}
	return nil
}

// nsisReader guesses the compression by the first bytes, as NSIS has no field for
// it: LZMA has its properties there (optionally after a byte that says whether
// the filter for x86 was used), bzip2 a 1, everything else is deflate.
func nsisReader(o Object, head []byte) (io.Reader, error) {
	skip := int64(0)
	x86 := false
	if len(head) >= 6 && head[0] <= 1 && head[1] == 0x5d {
		x86 = head[0] == 1
		head = head[1:]
		skip = 1
	}
	src := bufio.NewReaderSize(o.sub("", skip, o.Size).reader(), 32<<10)
	switch {
	case len(head) >= 6 && head[0] == 0x5d && head[1] == 0 && head[2] == 0 && head[5] == 0:
		props := make([]byte, 5)
		if _, err := io.ReadFull(src, props); err != nil {
			return nil, err
		}
		r, err := lzmaReader(src, props, -1) // the end has a mark
		if err != nil || !x86 {
			return r, err
		}
		return &filtered{r: r, convert: (&x86Filter{}).convert}, nil
	case len(head) >= 2 && head[0] == '1' && head[1] < 14:
		return newNSISBzip2(src), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return nil, errDamaged
	}
	return flate.NewReader(src), nil
}
