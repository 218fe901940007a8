package unpack

import (
	"archive/tar"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// maxHoles bounds the pieces of a sparse file.
const maxHoles = 1 << 20

// position is a reader that knows where it stands. The tar reader reads whole
// blocks and skips by seeking, so that after a header it stands at the data.
type position struct {
	*io.SectionReader
	at     int64
	header int64 // of the last block that was read and is a header
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.SectionReader.Read(b)
	if n == 512 && string(b[257:262]) == "ustar" {
		p.header = p.at
	}
	p.at += int64(n)
	return n, err
}

func (p *position) Seek(off int64, whence int) (int64, error) {
	n, err := p.SectionReader.Seek(off, whence)
	p.at = n
	return n, err
}

func untar(w *Walker, o Object) error {
	p := &position{SectionReader: o.reader()}
	r := tar.NewReader(p)
	for {
		if err := w.check(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF { //nolint:errorlint // the end; a wrapped one would be damage
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeGNUSparse, '7':
		default:
			continue
		}
		sparse := h.Typeflag == tar.TypeGNUSparse
		for k := range h.PAXRecords {
			sparse = sparse || strings.HasPrefix(k, "GNU.sparse.")
		}
		if sparse {
			err = w.sparse(o, p, h)
		} else {
			err = w.Section(h.Name, o, p.at, h.Size)
		}
		if err != nil {
			return err
		}
	}
}

// holes is a file of which only pieces are stored; zeros are between them. It
// takes no memory for the zeros.
type holes struct {
	data   io.ReaderAt
	pieces []piece // in order, not overlapping
	size   int64
}

type piece struct {
	at     int64 // in the file
	size   int64
	stored int64 // where it stands in data
}

func (h *holes) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= h.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), h.size-off))
	clear(p[:n])
	i := sort.Search(len(h.pieces), func(i int) bool { return h.pieces[i].at+h.pieces[i].size > off })
	for ; i < len(h.pieces) && h.pieces[i].at < off+int64(n); i++ {
		s := h.pieces[i]
		from := max(s.at, off)
		to := min(s.at+s.size, off+int64(n))
		if k, err := h.data.ReadAt(p[from-off:to-off], s.stored+from-s.at); int64(k) < to-from {
			return int(from-off) + k, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// sparse gives a member of which holes are not stored. Holes are no compressed
// data: they do not count for the ratio, though what is looked at counts against
// the bytes. Of a file too large for those, what is stored is given as it stands.
func (w *Walker) sparse(o Object, p *position, h *tar.Header) error {
	f, stored, err := sparseMap(o, p, h)
	if err != nil {
		return err
	}
	missing := stored > o.Size-p.at
	if missing {
		w.damaged()
		stored = o.Size - p.at
	}
	most := min(w.budget.Bytes, w.budget.MaxMember)
	if f.size > most {
		w.note(verdict.LimitBytes)
		return w.Section(h.Name, o, p.at, stored)
	}
	if err := w.member(); err != nil {
		return err
	}
	w.budget.Bytes -= f.size
	w.budget.extracted += stored
	return w.give(Object{Name: h.Name, Data: f, Size: f.size, Cut: missing && w.cut})
}

// sparseMap reads where the pieces of a sparse file belong: in its header and the
// blocks behind that (the old GNU form), in the extended header (versions 0.0 and
// 0.1) or before the data (1.0).
func sparseMap(o Object, p *position, h *tar.Header) (f *holes, stored int64, err error) {
	f = &holes{data: o.Data, size: h.Size}
	end := int64(0)
	add := func(at, size int64) error {
		if at < end || size < 0 || at > h.Size || size > h.Size-at || len(f.pieces) >= maxHoles {
			return fmt.Errorf("%w: sparse map of %q", errDamaged, h.Name)
		}
		if size > 0 {
			f.pieces = append(f.pieces, piece{at, size, p.at + stored})
		}
		end = at + size
		stored += size
		return nil
	}
	pairs := func(numbers func() (int64, bool)) error {
		for {
			at, ok := numbers()
			if !ok {
				return nil
			}
			size, ok := numbers()
			if !ok {
				return fmt.Errorf("%w: sparse map of %q", errDamaged, h.Name)
			}
			if err := add(at, size); err != nil {
				return err
			}
		}
	}
	if h.Typeflag == tar.TypeGNUSparse {
		// Four entries at 386 of the header, 21 in each block that follows; the
		// byte behind them says whether another block does.
		block, from, count, more := o.piece(p.header, 512), 386, 4, 482
		for n := int64(1); len(block) == 512; n++ {
			for i := range count {
				e := block[from+24*i:]
				if e[0] == 0 {
					break
				}
				if err := add(tarNumber(e[:12]), tarNumber(e[12:24])); err != nil {
					return nil, 0, err
				}
			}
			if block[more] == 0 {
				return f, stored, nil
			}
			block, from, count, more = o.piece(p.header+512*n, 512), 0, 21, 504
		}
		return nil, 0, fmt.Errorf("%w: sparse map of %q", errDamaged, h.Name)
	}
	list, ok := h.PAXRecords["GNU.sparse.map"]
	separator := ","
	if !ok {
		// The number of entries, then each number in a line.
		text := o.piece(p.header+512, int(min(p.at-p.header-512, 24*maxHoles)))
		count, rest, _ := strings.Cut(string(text), "\n")
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil || n < 0 || n > maxHoles {
			return nil, 0, fmt.Errorf("%w: sparse map of %q", errDamaged, h.Name)
		}
		lines := strings.SplitN(rest, "\n", int(min(2*n, int64(len(rest))))+1)
		list, separator = strings.Join(lines[:min(len(lines), int(2*n))], "\n"), "\n"
	}
	err = pairs(func() (int64, bool) {
		if list == "" {
			return 0, false
		}
		var number string
		number, list, _ = strings.Cut(list, separator)
		v, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			v = -1
		}
		return v, true
	})
	return f, stored, err
}

// tarNumber is a field of a header: octal digits, or binary when the first bit
// is set; -1 where it is neither.
func tarNumber(b []byte) int64 {
	if b[0]&0x80 != 0 {
		v := int64(b[0] & 0x7f)
		for _, c := range b[1:] {
			if v >= 1<<54 {
				return -1
			}
			v = v<<8 | int64(c)
		}
		return v
	}
	v, err := strconv.ParseInt(strings.Trim(string(b), " \x00"), 8, 63)
	if err != nil {
		return -1
	}
	return v
}
