package unpack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
)

// The formats in this file are not published; the descriptions are of the project
// unshield (its libunshield/cabfile.h) and of what the installers contain.

// carveISMSI opens the files behind an InstallShield loader for MSI packages: a
// header of 46 bytes with their number, then for each a record of 312 bytes and
// its data, zlib under a cipher that is made of the file's name.
func (w *Walker) carveISMSI(o Object, at int64) (end int64, err error) {
	const record = 312
	h := o.piece(at, 46)
	if len(h) < 46 {
		return 0, nil
	}
	n := int(binary.LittleEndian.Uint16(h[14:]))
	pos := at + 46
	for range n {
		r := o.piece(pos, record)
		if len(r) < record {
			break
		}
		name := cString(r[:260])
		flags, size := binary.LittleEndian.Uint32(r[260:]), int64(binary.LittleEndian.Uint64(r[268:]))
		if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' }) || flags > 255 || size < 0 || size > o.Size-pos-record {
			break
		}
		part := o.sub(name, pos+record, size)
		if flags&6 == 0 {
			err = w.Section(name, part, 0, size)
		} else {
			err = w.Produce(name, func(out *sink) error {
				r, err := zlib.NewReader(bufio.NewReader(&isCipher{r: part.reader(), name: name}))
				if err != nil {
					return fmt.Errorf("%w: %w", errDamaged, err)
				}
				return out.readAll(r)
			})
		}
		if err != nil {
			return 0, err
		}
		pos += record + size
	}
	if pos == at+46 {
		return 0, nil
	}
	return pos, nil
}

// isCipher decodes: the halves of a byte are swapped, then it is combined with a
// letter of the name and a constant. It starts anew every 1024 bytes.
type isCipher struct {
	r    io.Reader
	name string
	at   int
}

// Read is io.Reader.
func (c *isCipher) Read(p []byte) (int, error) {
	const magic = "\xec\xca\x79\xf8"
	n, err := c.r.Read(p)
	for i := range p[:n] {
		k := c.at % 1024 % len(c.name)
		p[i] = (p[i]>>4 | p[i]<<4) ^ c.name[k] ^ magic[k&3]
		c.at++
	}
	return n, err
}

// maxISFiles bounds the files behind an InstallShield loader.
const maxISFiles = 4096

// installShield opens the files behind a loader as strings: name, path, version
// and length of each, then its data. Cabinets among them are opened with their
// header file.
func (w *Walker) installShield(o Object, at int64) error {
	files := map[string]Object{}
	for range maxISFiles {
		var f [4]string
		pos := at
		for i := range f {
			f[i] = cString(o.piece(pos, 261))
			pos += int64(len(f[i])) + 1
		}
		size, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil || f[0] == "" || size < 0 || size > o.Size-pos || strings.Count(f[2], ".") != 3 {
			break
		}
		part := o.sub(f[0], pos, size)
		if err := w.Section(f[0], part, 0, size); err != nil {
			return err
		}
		files[strings.ToLower(f[0])] = part
		at = pos + size
	}
	for name, h := range files {
		if base, ok := strings.CutSuffix(name, ".hdr"); ok {
			if err := w.isCabinet(h, strings.TrimRight(base, "0123456789"), files); err != nil {
				return err
			}
		}
	}
	return nil
}

// isCabinet gives the files of InstallShield cabinets of version 6 and later.
func (w *Walker) isCabinet(h Object, base string, files map[string]Object) error {
	le := binary.LittleEndian
	common := h.piece(0, 20)
	if len(common) < 20 || string(common[:4]) != "ISc(" {
		return nil
	}
	version := le.Uint32(common[4:])
	major := version >> 12 & 15
	if version>>24 != 1 {
		major = version & 0xffff / 100
	}
	if major < 6 {
		w.damaged()
		return nil
	}
	at := int64(le.Uint32(common[12:]))
	d := h.piece(at, 0x30)
	if len(d) < 0x30 {
		return nil
	}
	table := at + int64(le.Uint32(d[0x0c:]))
	list := table + int64(le.Uint32(d[0x2c:]))
	const (
		record     = 0x57
		split      = 1
		obfuscated = 2
		compressed = 4
		invalid    = 8
	)
	for i := range int64(le.Uint32(d[0x28:])) {
		if err := w.check(); err != nil {
			return err
		}
		r := h.piece(list+i*record, record)
		if len(r) < record {
			return nil
		}
		flags := le.Uint16(r)
		size, packed, off := int64(le.Uint64(r[2:])), int64(le.Uint64(r[10:])), int64(le.Uint64(r[18:]))
		volume := le.Uint16(r[0x55:])
		name := cString(h.piece(table+int64(le.Uint32(r[0x3a:])), 512))
		cab, ok := files[fmt.Sprintf("%s%d.cab", base, volume)]
		if flags&invalid != 0 || off == 0 || !ok || flags&split != 0 {
			continue
		}
		if flags&compressed == 0 {
			packed = size
		}
		part := cab.sub(name, off, packed)
		var src io.Reader = part.reader()
		if flags&obfuscated != 0 {
			src = &isObfuscated{r: src}
		}
		err := w.Produce(name, func(out *sink) error {
			if flags&compressed == 0 {
				return out.readAll(src)
			}
			return isChunks(src, out)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isChunks decodes pieces of deflate, each with its length in front.
func isChunks(src io.Reader, out *sink) error {
	for {
		var h [2]byte
		if _, err := io.ReadFull(src, h[:]); err != nil {
			return nil //nolint:nilerr // the end of the chunks
		}
		piece := make([]byte, binary.LittleEndian.Uint16(h[:]))
		if _, err := io.ReadFull(src, piece); err != nil {
			return fmt.Errorf("%w: chunk cut short", errDamaged)
		}
		if err := out.readAll(flate.NewReader(strings.NewReader(string(piece)))); err != nil {
			return err
		}
	}
}

// isObfuscated undoes a cipher that depends on the place only.
type isObfuscated struct {
	r  io.Reader
	at int
}

// Read is io.Reader.
func (c *isObfuscated) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for i := range p[:n] {
		v := p[i] ^ 0xd5
		p[i] = (v>>2 | v<<6) - byte(c.at%0x47)
		c.at++
	}
	return n, err
}
