package unpack

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// unrtf gives the objects of a Rich Text Format document (RTF 1.9.1, "Objects"):
// the hexadecimal digits of every \objdata group, whatever other control words
// and groups are put between them, and of what is in them the embedded file
// ([MS-OLEDS] section 2.2).
func unrtf(w *Walker, o Object) error {
	text, release := w.whole(o)
	defer release()
	n, work := 0, 0
	for rest := text; ; {
		i := bytes.Index(rest, []byte("objdata"))
		if i < 0 {
			return nil
		}
		rest = rest[i+len("objdata"):]
		end := 0
		m, free, err := w.decode(func(out *sink) (err error) {
			end, err = rtfHex(rest, out)
			return err
		})
		if err == nil && m.size > 0 {
			n++
			err = w.ole1(m.object(fmt.Sprintf("object-%d", n)))
		}
		free()
		if err == nil {
			err = w.check()
		}
		if err != nil {
			return err
		}
		// Objects may stand in objects, to hide; but not all of them in all.
		if work += end; work > 8*len(text) {
			rest = rest[end:]
		}
	}
}

// rtfHex decodes hexadecimal digits up to the end of the group that they are in.
// Control words between them are skipped; \bin is followed by bytes. It returns
// how much of text it has read.
func rtfHex(text []byte, out *sink) (int, error) {
	depth := 0
	half := false
	var hi byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case '{':
			depth++
		case '}':
			if depth--; depth < 0 {
				return i, nil
			}
		case '\\':
			j := i + 1
			if j < len(text) && text[j] == '\'' { // \'xx is ignored in data
				i += 3
				continue
			}
			for j < len(text) && text[j]|0x20 >= 'a' && text[j]|0x20 <= 'z' {
				j++
			}
			word := text[i+1 : j]
			num := 0
			for j < len(text) && (text[j] == '-' || text[j] >= '0' && text[j] <= '9') {
				if num < 1<<27 && text[j] != '-' {
					num = num*10 + int(text[j]-'0')
				}
				j++
			}
			if j == i+1 { // a control symbol
				j++
			} else if j < len(text) && text[j] == ' ' {
				j++
			}
			if string(word) == "bin" && num > 0 {
				n := min(num, len(text)-min(j, len(text)))
				if _, err := out.Write(text[j : j+n]); err != nil {
					return i, err
				}
				j += n
			}
			i = j - 1
		default:
			d := hexDigit(c)
			if d > 15 || depth > 0 {
				continue
			}
			if half {
				if err := out.WriteByte(hi<<4 | d); err != nil {
					return i, err
				}
			}
			hi, half = d, !half
		}
	}
	return len(text), nil
}

// ole1 gives an OLE 1.0 object: the embedded file of a package, else its native
// data, else all of it.
func (w *Walker) ole1(o Object) error {
	le := binary.LittleEndian
	h := o.piece(0, 8)
	if len(h) < 8 || le.Uint32(h[4:]) != 2 {
		return w.Section(o.Name, o, 0, o.Size)
	}
	at := int64(8)
	class := ""
	for i := range 3 { // class, topic, item
		l := o.piece(at, 4)
		if len(l) < 4 {
			return w.Section(o.Name, o, 0, o.Size)
		}
		n := int64(le.Uint32(l))
		if i == 0 {
			class = cString(o.piece(at+4, int(min(n, 256))))
		}
		at += 4 + n
	}
	l := o.piece(at, 4)
	if len(l) < 4 {
		return w.Section(o.Name, o, 0, o.Size)
	}
	data := o.sub(o.Name, at+4, int64(le.Uint32(l)))
	if class == "Package" {
		if name, part, ok := olePackage(data, 0); ok {
			return w.Section(name, part, 0, part.Size)
		}
	}
	return w.Section(o.Name, data, 0, data.Size)
}

// olePackage finds the file in the native data of a package, as written by the
// Windows object packager: type, label, path, twice two bytes, temporary path,
// length and the file.
func olePackage(o Object, at int64) (name string, file Object, ok bool) {
	le := binary.LittleEndian
	next := func() string {
		s := cString(o.piece(at, 1024))
		at += int64(len(s)) + 1
		return s
	}
	at += 2
	name = next()
	next()
	at += 4
	l := o.piece(at, 4)
	if len(l) < 4 {
		return "", file, false
	}
	at += 4 + int64(le.Uint32(l))
	if l = o.piece(at, 4); len(l) < 4 {
		return "", file, false
	}
	if name == "" {
		name = "package"
	}
	file = o.sub(name, at+4, int64(le.Uint32(l)))
	return name, file, file.Size > 0
}
