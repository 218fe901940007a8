package unpack

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// zipEntry is what is needed of a header in a zip file (APPNOTE 4.3).
type zipEntry struct {
	name       string
	flags      uint16
	method     uint16
	compressed int64
	size       int64 // of the member; -1 when not known
	header     int64 // offset of the local header
	crc        uint32
}

const (
	zipLocal   = 0x04034b50
	zipCentral = 0x02014b50
	zipEnd     = 0x06054b50
	zipEnd64   = 0x06064b50
)

// unzip reads the central directory entry by entry; the standard library would
// keep all of it in memory. A file without one is read by its local headers.
func unzip(w *Walker, o Object) error {
	at, count, base, ok := findDirectory(o)
	if !ok {
		w.damaged()
		return unzipLocal(w, o)
	}
	var h [46]byte
	seen := 0
	for i := int64(0); i < count || count < 0; i++ {
		if err := w.check(); err != nil {
			return err
		}
		if _, err := o.Data.ReadAt(h[:], at); err != nil || binary.LittleEndian.Uint32(h[:]) != zipCentral {
			if count >= 0 {
				w.damaged()
			}
			break
		}
		le := binary.LittleEndian
		nameLen, extraLen, commentLen := int(le.Uint16(h[28:])), int(le.Uint16(h[30:])), int(le.Uint16(h[32:]))
		tail := make([]byte, nameLen+extraLen)
		if _, err := o.Data.ReadAt(tail, at+46); err != nil {
			w.damaged()
			break
		}
		e := zipEntry{
			name: string(tail[:nameLen]), flags: le.Uint16(h[8:]), method: le.Uint16(h[10:]),
			compressed: int64(le.Uint32(h[20:])), size: int64(le.Uint32(h[24:])), header: int64(le.Uint32(h[42:])),
			crc: le.Uint32(h[16:]),
		}
		zip64(&e, tail[nameLen:], le.Uint32(h[24:]))
		e.header += base
		at += int64(46 + nameLen + extraLen + commentLen)
		seen++
		if err := w.zipMember(o, e); err != nil {
			return err
		}
	}
	if seen == 0 && count != 0 {
		return unzipLocal(w, o)
	}
	return nil
}

// zip64 takes 64-bit sizes from the extra field 1; plain is the 32-bit
// uncompressed size, which stands first there when it is all ones.
func zip64(e *zipEntry, extra []byte, plain uint32) {
	le := binary.LittleEndian
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return
		}
		if id == 1 {
			f := extra[:n]
			next := func() int64 {
				if len(f) < 8 {
					return -1
				}
				v := int64(le.Uint64(f))
				f = f[8:]
				return v
			}
			if plain == 0xffffffff {
				e.size = next()
			}
			if e.compressed == 0xffffffff {
				e.compressed = next()
			}
			if e.header == 0xffffffff {
				e.header = next()
			}
		}
		extra = extra[n:]
	}
}

// findDirectory finds the central directory by the end record in the last 64 KB.
// base is what has to be added to the offsets in it (a program may stand in
// front of the archive).
func findDirectory(o Object) (at, count, base int64, ok bool) {
	n := min(o.Size, 22+65535)
	buf := make([]byte, n)
	if k, _ := o.Data.ReadAt(buf, o.Size-n); int64(k) < n {
		return 0, 0, 0, false
	}
	le := binary.LittleEndian
	i := bytes.LastIndex(buf, []byte{'P', 'K', 5, 6})
	if i < 0 || i+22 > len(buf) {
		return 0, 0, 0, false
	}
	end := o.Size - n + int64(i)
	count = int64(le.Uint16(buf[i+10:]))
	size, off := int64(le.Uint32(buf[i+12:])), int64(le.Uint32(buf[i+16:]))
	if i >= 20 && le.Uint32(buf[i-20:]) == 0x07064b50 {
		var h [56]byte
		rec := int64(le.Uint64(buf[i-12:]))
		if _, err := o.Data.ReadAt(h[:], rec); err == nil && le.Uint32(h[:]) == zipEnd64 {
			count, size, off = int64(le.Uint64(h[32:])), int64(le.Uint64(h[40:])), int64(le.Uint64(h[48:]))
			end = rec
		}
	}
	if size < 0 || off < 0 || count < 0 {
		return 0, 0, 0, false
	}
	base = end - size - off
	if base < 0 || off+base > o.Size {
		base = 0
	}
	if off > o.Size {
		return 0, 0, 0, false
	}
	return off + base, count, base, true
}

// unzipLocal walks the local headers one after the other.
func unzipLocal(w *Walker, o Object) error {
	var h [30]byte
	le := binary.LittleEndian
	for at := int64(0); ; {
		if err := w.check(); err != nil {
			return err
		}
		if _, err := o.Data.ReadAt(h[:], at); err != nil || le.Uint32(h[:]) != zipLocal {
			return nil //nolint:nilerr // the end of the local headers
		}
		nameLen, extraLen := int(le.Uint16(h[26:])), int(le.Uint16(h[28:]))
		tail := make([]byte, nameLen+extraLen)
		if _, err := o.Data.ReadAt(tail, at+30); err != nil {
			return fmt.Errorf("%w: zip header cut short", errDamaged)
		}
		e := zipEntry{
			name: string(tail[:nameLen]), flags: le.Uint16(h[6:]), method: le.Uint16(h[8:]),
			compressed: int64(le.Uint32(h[18:])), size: int64(le.Uint32(h[22:])), header: at, crc: le.Uint32(h[14:]),
		}
		zip64(&e, tail[nameLen:], le.Uint32(h[22:]))
		data := at + int64(30+nameLen+extraLen)
		if e.flags&8 != 0 && e.compressed <= 0 {
			// The size follows the data: the member reaches to the end, as far
			// as we know; its decompressor finds its own end.
			e.compressed = o.Size - data
		}
		if e.compressed < 0 {
			return fmt.Errorf("%w: zip member size", errDamaged)
		}
		if err := w.zipMember(o, e); err != nil {
			return err
		}
		at = data + e.compressed
		if e.flags&8 != 0 {
			at += 16
		}
	}
}

func (w *Walker) zipMember(o Object, e zipEntry) error {
	var h [30]byte
	le := binary.LittleEndian
	if e.header < 0 || e.compressed < 0 {
		w.damaged()
		return nil
	}
	if _, err := o.Data.ReadAt(h[:], e.header); err != nil || le.Uint32(h[:]) != zipLocal {
		w.damaged()
		return nil
	}
	w.entry = &Entry{Packed: e.compressed, CRC: e.crc, Encrypted: e.flags&1 != 0}
	defer func() { w.entry = nil }()
	if e.flags&1 != 0 {
		return w.locked(e.name, e.size)
	}
	data := e.header + 30 + int64(le.Uint16(h[26:])) + int64(le.Uint16(h[28:]))
	if len(e.name) > 0 && e.name[len(e.name)-1] == '/' && e.compressed == 0 {
		return nil // a folder
	}
	if data > o.Size {
		w.damaged()
		return nil
	}
	if e.method == 0 {
		return w.Section(e.name, o, data, e.compressed)
	}
	sc := w.budget.Scratch
	src := sc.input(io.NewSectionReader(o.Data, data, min(e.compressed, o.Size-data)))
	defer sc.done(src)
	var r io.Reader
	switch e.method {
	case 6:
		return w.Produce(e.name, func(out *sink) error { return explode(src, e.flags, e.size, out) })
	case 9:
		return w.Produce(e.name, func(out *sink) error { return inflate64(src, out) })
	case 14:
		return w.Produce(e.name, func(out *sink) error { return zipLZMA(src, e, out) })
	case 8:
		f := sc.flate(src)
		defer func() { sc.flates = append(sc.flates, f) }()
		r = f
	case 12:
		r = bzip2.NewReader(src)
	case 93:
		d, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			w.damaged()
			return nil
		}
		defer d.Close()
		r = onlyReader{d}
	case 95:
		return w.Produce(e.name, func(out *sink) error { return decodeXZ(src, out) })
	default:
		// A method we do not know: say that something was not looked at.
		w.damaged()
		return nil
	}
	return w.Stream(e.name, r)
}
