package unpack

import (
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf16"

	"github.com/klauspost/compress/zlib"
)

// unsis reads Symbian installation files before version 9 (A. Thoukydides, "EPOC
// SIS file format"): a header, records of files, each stored once per language.
func unsis(w *Walker, o Object) error {
	le := binary.LittleEndian
	h := o.piece(0, 0x64)
	if len(h) < 0x44 {
		return fmt.Errorf("%w: SIS header", errDamaged)
	}
	langs, files, options := int(le.Uint16(h[0x12:])), int(le.Uint16(h[0x14:])), le.Uint16(h[0x24:])
	at := int64(le.Uint32(h[0x34:]))
	if langs == 0 || langs > 256 {
		return fmt.Errorf("%w: %d languages", errDamaged, langs)
	}
	release6 := le.Uint32(h[4:]) == 0x10003a12
	for range files {
		if err := w.check(); err != nil {
			return err
		}
		r := o.piece(at, 32)
		if len(r) < 28 {
			return fmt.Errorf("%w: SIS file record", errDamaged)
		}
		kind := le.Uint32(r)
		n := 1
		switch kind {
		case 0:
		case 1:
			n = langs
		case 2: // the languages' texts
			at += int64(8 + 8*langs)
			continue
		case 3, 4: // conditions
			at += int64(8 + le.Uint32(r[4:]))
			continue
		case 5, 6:
			at += 4
			continue
		default:
			return fmt.Errorf("%w: SIS record of kind %d", errDamaged, kind)
		}
		nameLen, nameAt := int(le.Uint32(r[20:])), int64(le.Uint32(r[24:]))
		name := utf16Text(o.piece(nameAt, min(nameLen, 1024)))
		body := o.piece(at+28, 12*n)
		if len(body) < 8*n {
			return fmt.Errorf("%w: SIS file record", errDamaged)
		}
		for i := range n {
			size, data := int64(le.Uint32(body[4*i:])), int64(le.Uint32(body[4*(n+i):]))
			var err error
			if part := o.sub(name, data, size); options&8 != 0 || !release6 {
				err = w.Section(name, part, 0, part.Size)
			} else {
				err = w.zlibMember(part)
			}
			if err != nil {
				return err
			}
		}
		at += int64(28 + 8*n)
		if release6 {
			at += int64(4*n + 4)
		}
	}
	return nil
}

func (w *Walker) zlibMember(o Object) error {
	return w.Produce(o.Name, func(out *sink) error {
		r, err := zlib.NewReader(o.reader())
		if err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		return out.readAll(io.Reader(r))
	})
}

// utf16Text decodes little-endian UTF-16.
func utf16Text(b []byte) string {
	u := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		if v := binary.LittleEndian.Uint16(b); v != 0 {
			u = append(u, v)
		}
	}
	return string(utf16.Decode(u))
}
