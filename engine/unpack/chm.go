package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// unchm reads compiled HTML help (as described by M. Russotto and P. Cunningham,
// "Microsoft's HTML Help (.chm) format"): an ITSF header, a directory of PMGL
// chunks, and two sections of content, the second compressed by LZX.
func unchm(w *Walker, o Object) error {
	le := binary.LittleEndian
	h := o.piece(0, 0x60)
	if len(h) < 0x58 || string(h[:4]) != "ITSF" {
		return fmt.Errorf("%w: ITSF header", errDamaged)
	}
	dirAt := int64(le.Uint64(h[0x48:]))
	dirLen := int64(le.Uint64(h[0x50:]))
	content := dirAt + dirLen
	if le.Uint32(h[4:]) >= 3 && len(h) >= 0x60 {
		content = int64(le.Uint64(h[0x58:]))
	}
	dir := o.piece(dirAt, 0x54)
	if len(dir) < 0x54 || string(dir[:4]) != "ITSP" {
		return fmt.Errorf("%w: ITSP header", errDamaged)
	}
	head, chunk, chunks := int64(le.Uint32(dir[8:])), int64(le.Uint32(dir[0x10:])), int64(le.Uint32(dir[0x2c:]))
	if chunk < 32 || chunk > 1<<20 || content < 0 {
		return fmt.Errorf("%w: chunks of %d bytes", errDamaged, chunk)
	}
	c := &chm{w: w, o: o, content: content}
	for i := range chunks {
		at := dirAt + head + i*chunk
		if at >= o.Size {
			break
		}
		if err := c.chunk(o.piece(at, int(chunk))); err != nil {
			return err
		}
	}
	return c.compressed()
}

// maxCHMFiles bounds the remembered names.
const maxCHMFiles = 20000

type chm struct {
	w       *Walker
	o       Object
	content int64
	files   []cabFile // in the compressed section
	data, control,
	resets *Object
}

// number reads an integer of seven bits a byte, most significant first.
func chmNumber(b *[]byte) int64 {
	v := int64(0)
	for range 9 {
		if len(*b) == 0 {
			return -1
		}
		c := (*b)[0]
		*b = (*b)[1:]
		v = v<<7 | int64(c&0x7f)
		if c < 0x80 {
			return v
		}
	}
	return -1
}

func (c *chm) chunk(b []byte) error {
	if err := c.w.check(); err != nil {
		return err
	}
	if len(b) < 20 || string(b[:4]) != "PMGL" {
		return nil // an index, or damage
	}
	free := int(binary.LittleEndian.Uint32(b[4:]))
	if free < 0 || free > len(b)-20 {
		free = 0
	}
	b = b[20 : len(b)-free]
	for len(b) > 0 {
		n := chmNumber(&b)
		if n < 0 || n > int64(len(b)) {
			return nil
		}
		name := string(b[:n])
		b = b[n:]
		section, off, size := chmNumber(&b), chmNumber(&b), chmNumber(&b)
		if off < 0 || size <= 0 {
			continue
		}
		part := c.o.sub(name, c.content+off, size)
		switch {
		case section == 0 && strings.HasPrefix(name, "::DataSpace/Storage/MSCompressed/"):
			switch {
			case strings.HasSuffix(name, "/Content"):
				c.data = &part
			case strings.HasSuffix(name, "/ControlData"):
				c.control = &part
			case strings.HasSuffix(name, "/ResetTable"):
				c.resets = &part
			}
		case section == 0:
			if err := c.w.Section(name, part, 0, part.Size); err != nil {
				return err
			}
		case len(c.files) < maxCHMFiles:
			c.files = append(c.files, cabFile{name: name, off: off, size: size})
		}
	}
	return nil
}

// compressed gives the files of the second section.
func (c *chm) compressed() error {
	if len(c.files) == 0 {
		return nil
	}
	if c.data == nil || c.control == nil || c.resets == nil {
		return fmt.Errorf("%w: compressed section incomplete", errDamaged)
	}
	le := binary.LittleEndian
	ctl, table := c.control.piece(0, 0x1c), c.resets.piece(0, 0x28)
	if len(ctl) < 0x18 || string(ctl[4:8]) != "LZXC" || len(table) < 0x28 {
		return fmt.Errorf("%w: LZX control data", errDamaged)
	}
	interval, window := int64(le.Uint32(ctl[0x0c:])), int64(le.Uint32(ctl[0x10:]))
	if le.Uint32(ctl[8:]) == 2 { // counted in frames
		interval *= lzxFrame
		window *= lzxFrame
	}
	windowBits := uint(0)
	for windowBits < 32 && 1<<windowBits < window {
		windowBits++
	}
	total, entries, tableAt := int64(le.Uint64(table[0x10:])), int64(le.Uint32(table[4:])), int64(le.Uint32(table[0x0c:]))
	if interval < lzxFrame || interval%lzxFrame != 0 || total <= 0 {
		return fmt.Errorf("%w: LZX reset interval of %d bytes", errDamaged, interval)
	}
	m, release, err := c.w.decode(func(out *sink) error {
		z, err := newLZX(bufio.NewReader(c.data.reader()), windowBits, out)
		if err != nil {
			return err
		}
		defer z.finish()
		for i := int64(0); out.size() < total; i++ {
			if i > 0 && i*lzxFrame%interval == 0 {
				b := c.resets.piece(tableAt+8*i, 8)
				if i >= entries || len(b) < 8 {
					return fmt.Errorf("%w: LZX reset table", errDamaged)
				}
				z.reset(bufio.NewReader(io.NewSectionReader(c.data.Data, int64(le.Uint64(b)), c.data.Size)))
			}
			if err := z.frame(min(lzxFrame, total-out.size())); err != nil {
				return err
			}
		}
		return nil
	})
	defer release()
	if err != nil && !errors.Is(err, errLimit) {
		return err
	}
	defer c.w.within(m)()
	for _, f := range c.files {
		if f.off > m.size {
			c.w.damaged()
			continue
		}
		if e := c.w.Section(f.name, m.object(""), f.off, f.size); e != nil {
			return e
		}
	}
	return err
}
