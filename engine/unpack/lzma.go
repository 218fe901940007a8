package unpack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// lzmaReader decodes raw LZMA: props are the five bytes with the parameters and
// the size of the dictionary, size is the length of the output or -1 for a
// stream with an end mark. Dictionaries are cut to what is allowed: references
// beyond that are damage.
func lzmaReader(r io.Reader, props []byte, size int64) (*lzmaDecoder, error) {
	return lzmaWithin(r, props, size, maxDictionary)
}

// lzmaWithin is lzmaReader with a dictionary of at most so many bytes.
func lzmaWithin(r io.Reader, props []byte, size, most int64) (*lzmaDecoder, error) {
	if len(props) != 5 {
		return nil, fmt.Errorf("%w: LZMA properties of %d bytes", errDamaged, len(props))
	}
	dict := min(int64(binary.LittleEndian.Uint32(props[1:])), most)
	if size >= 0 {
		dict = min(dict, size)
	}
	return newLZMA(r, props[0], int(dict), size)
}

// lzma2Dictionary is the size of the dictionary in the property byte of LZMA2,
// at most 40 (section 5.3.1 of the .xz format).
func lzma2Dictionary(b byte) int64 {
	return (2 | int64(b&1)) << (b/2 + 11)
}

// zipLZMA decodes method 14 of zip (APPNOTE section 5.8): version, length of the
// properties, properties, stream.
func zipLZMA(src io.Reader, e zipEntry, out *sink) error {
	var h [9]byte
	if _, err := io.ReadFull(src, h[:]); err != nil {
		return fmt.Errorf("%w: LZMA header: %w", errDamaged, err)
	}
	if binary.LittleEndian.Uint16(h[2:]) != 5 {
		return fmt.Errorf("%w: LZMA properties", errDamaged)
	}
	size := e.size
	if e.flags&2 != 0 {
		size = -1
	}
	r, err := lzmaReader(src, h[4:], size)
	if err != nil {
		return err
	}
	return out.readAll(r)
}

// unlzma reads .lzma files: properties, size (-1 when not known), stream.
func unlzma(w *Walker, o Object) error {
	h := o.piece(0, 13)
	if len(h) < 13 {
		return fmt.Errorf("%w: LZMA header", errDamaged)
	}
	r, err := lzmaReader(o.sub("", 13, o.Size).reader(), h[:5], int64(binary.LittleEndian.Uint64(h[5:])))
	if err != nil {
		return err
	}
	return w.Stream(bare(o.Name, ".tlz", ".tar", ".lzma", ""), r)
}

// unlzip reads lzip files (RFC draft-diaz-lzip): members of a 6-byte header, an
// LZMA stream with lc=3 lp=0 pb=2 and an end mark, and a 20-byte trailer, the
// last 8 bytes of which are the length of the member.
func unlzip(w *Walker, o Object) error {
	return w.Produce(bare(o.Name, ".tlz", ".tar", ".lz", ""), func(out *sink) error {
		for at := int64(0); at < o.Size; {
			h := o.piece(at, 6)
			if len(h) < 6 || string(h[:4]) != "LZIP" || h[4] != 1 {
				if at > 0 {
					return nil
				}
				return fmt.Errorf("%w: lzip header", errDamaged)
			}
			dict := uint32(1) << (h[5] & 31)
			dict -= dict / 16 * uint32(h[5]>>5)
			props := binary.LittleEndian.AppendUint32([]byte{93}, dict)
			r, err := lzmaReader(o.sub("", at+6, o.Size).reader(), props, -1)
			if err != nil {
				return err
			}
			if err := out.readAll(r); err != nil {
				return err
			}
			at += 6 + r.taken + 20
		}
		return nil
	})
}

// counting counts the bytes that are taken.
type counting struct {
	r *bufio.Reader
	n int64
}

func (c *counting) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
