package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/zlib"
)

const (
	// maxPDFDict is how far before its stream a dictionary may begin.
	maxPDFDict = 16 << 10
	// maxPDFFilters is how many filters one stream may have.
	maxPDFFilters = 8
)

// unpdf gives the streams of a PDF document (ISO 32000-1). It does not follow
// the cross-reference table, which in hostile files says what the author wants,
// but takes every stream that a reader could find, with its filters undone.
func unpdf(w *Walker, o Object) error {
	text, release := w.whole(o)
	defer release()
	if bytes.Contains(text, []byte("/Encrypt ")) && bytes.Contains(text, []byte("/Filter/Standard")) ||
		bytes.Contains(text, []byte("/Filter /Standard")) {
		w.encrypted()
	}
	w.quiet = true
	if err := w.pdfScripts(text); err != nil {
		return err
	}
	n := 0
	for at := 0; ; {
		i := bytes.Index(text[at:], []byte("stream"))
		if i < 0 {
			return nil
		}
		if err := w.check(); err != nil {
			return err
		}
		i += at
		at = i + 6
		if i >= 3 && string(text[i-3:i]) == "end" {
			continue
		}
		data := at
		if data < len(text) && text[data] == '\r' {
			data++
		}
		if data < len(text) && text[data] == '\n' {
			data++
		}
		dict := pdfDict(text[max(0, i-maxPDFDict):i])
		if dict == nil {
			continue
		}
		end := pdfEnd(text, data, dict)
		n++
		if err := w.pdfStream(fmt.Sprintf("stream-%d", n), dict, text[data:end]); err != nil {
			return err
		}
		at = end
	}
}

// pdfDict is the dictionary that ends at the end of text.
func pdfDict(text []byte) []byte {
	t := bytes.TrimRight(text, " \t\r\n\f\x00")
	if !bytes.HasSuffix(t, []byte(">>")) {
		return nil
	}
	i := bytes.LastIndex(t, []byte("obj"))
	if i < 0 {
		i = 0
	}
	return t[i:]
}

// pdfEnd is where a stream's data ends: by its length if "endstream" stands
// there, else at the next "endstream".
func pdfEnd(text []byte, data int, dict []byte) int {
	if v, ok := pdfValue(dict, "Length"); ok {
		if n, err := strconv.Atoi(string(bytes.TrimSpace(v[:min(len(v), len(v)-len(bytes.TrimLeft(v, "0123456789")))]))); err == nil && n >= 0 && n <= len(text)-data {
			rest := bytes.TrimLeft(text[data+n:min(len(text), data+n+20)], " \r\n\t")
			if bytes.HasPrefix(rest, []byte("endstream")) {
				return data + n
			}
		}
	}
	i := bytes.Index(text[data:], []byte("endstream"))
	if i < 0 {
		return len(text)
	}
	return data + i
}

// pdfValue is what follows a name in a dictionary.
func pdfValue(dict []byte, name string) ([]byte, bool) {
	for at := 0; at < len(dict); {
		i := bytes.IndexByte(dict[at:], '/')
		if i < 0 {
			return nil, false
		}
		at += i + 1
		end := at
		for end < len(dict) && !bytes.ContainsRune([]byte("/ \t\r\n\f\x00[]<>()"), rune(dict[end])) {
			end++
		}
		if string(pdfName(dict[at:end])) == name {
			return bytes.TrimLeft(dict[end:], " \t\r\n\f\x00"), true
		}
		at = end
	}
	return nil, false
}

// pdfName undoes the #xx escapes of a name.
func pdfName(b []byte) []byte {
	if bytes.IndexByte(b, '#') < 0 {
		return b
	}
	return percent(bytes.ReplaceAll(b, []byte("#"), []byte("%")))
}

// pdfFilters lists the filters of a stream.
func pdfFilters(dict []byte) []string {
	v, ok := pdfValue(dict, "Filter")
	if !ok {
		if v, ok = pdfValue(dict, "F"); !ok || len(v) == 0 || v[0] != '/' && v[0] != '[' {
			return nil
		}
	}
	list := len(v) > 0 && v[0] == '['
	var out []string
	for len(out) < maxPDFFilters {
		i := bytes.IndexAny(v, "/]>")
		if i < 0 || v[i] != '/' {
			break
		}
		v = v[i+1:]
		end := bytes.IndexAny(v, "/ \t\r\n\f\x00[]<>()")
		if end < 0 {
			end = len(v)
		}
		out = append(out, string(pdfName(v[:end])))
		v = v[end:]
		if !list {
			break
		}
	}
	return out
}

// pdfDecoders are the filters that can be undone; pictures stay as they are.
var pdfDecoders = map[string]func([]byte, *sink) error{
	"FlateDecode": pdfFlate, "Fl": pdfFlate,
	"ASCIIHexDecode": pdfHex, "AHx": pdfHex,
	"ASCII85Decode": pdfASCII85, "A85": pdfASCII85,
	"LZWDecode": pdfLZW, "LZW": pdfLZW,
	"RunLengthDecode": pdfRunLength, "RL": pdfRunLength,
}

func (w *Walker) pdfStream(name string, dict, data []byte) error {
	filters := pdfFilters(dict)
	for i, f := range filters {
		d := pdfDecoders[f]
		if d == nil { // a picture, encryption
			break
		}
		if i+1 == len(filters) || pdfDecoders[filters[i+1]] == nil {
			return w.Produce(name, func(out *sink) error { return d(data, out) })
		}
		m, release, err := w.decode(func(out *sink) error { return d(data, out) })
		defer release()
		if err != nil {
			return err
		}
		defer w.within(m)()
		if w.budget.Bytes -= m.size; w.budget.Bytes < 0 {
			w.budget.Bytes = 0
		}
		next := make([]byte, m.size)
		_, _ = m.ReadAt(next, 0)
		data = next
	}
	return w.Bytes(name, data)
}

// pdfFlate keeps what was decoded before damage: readers do so too.
func pdfFlate(data []byte, out *sink) error {
	r, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return out.readAll(r)
}

func pdfHex(data []byte, out *sink) error {
	if i := bytes.IndexByte(data, '>'); i >= 0 {
		data = data[:i]
	}
	hi, half, err := hexPairs(data, out)
	if half && err == nil {
		err = out.WriteByte(hi << 4)
	}
	return err
}

func pdfASCII85(data []byte, out *sink) error {
	data = bytes.TrimPrefix(bytes.TrimLeft(data, " \t\r\n\f\x00"), []byte("<~"))
	v, n := uint32(0), 0
	for _, c := range data {
		switch {
		case c == '~':
			if n > 1 {
				k := n
				for ; n < 5; n++ {
					v = v*85 + 84
				}
				b := []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8)}
				_, err := out.Write(b[:k-1])
				return err
			}
			return nil
		case c == 'z' && n == 0:
			if _, err := out.Write(make([]byte, 4)); err != nil {
				return err
			}
		case c >= '!' && c <= 'u':
			v = v*85 + uint32(c-'!')
			if n++; n == 5 {
				if _, err := out.Write([]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}); err != nil {
					return err
				}
				v, n = 0, 0
			}
		}
	}
	return nil
}

// pdfLZW decodes LZW with codes of 9 to 12 bits, most significant bit first,
// which become longer one code early.
func pdfLZW(data []byte, out *sink) error {
	b := &bitReader{r: bytes.NewReader(data), order: msbFirst}
	var at [4097]int64 // where the text of a code stands in the output
	var size [4097]int
	next, width := 258, uint(9)
	lastAt, lastLen := int64(0), 0
	for {
		c := int(b.take(width))
		if b.err != nil || c == 257 || b.past > 0 && b.n == 0 {
			return nil //nolint:nilerr // readers take data without an end mark
		}
		if c == 256 {
			next, width, lastLen = 258, 9, 0
			continue
		}
		start := out.size()
		switch {
		case c < 256:
			if err := out.WriteByte(byte(c)); err != nil {
				return err
			}
		case c < next:
			if err := out.copy(start-at[c], size[c], -1); err != nil {
				return err
			}
		case c == next && lastLen > 0:
			if err := out.copy(start-lastAt, lastLen, -1); err != nil {
				return err
			}
			if err := out.copy(out.size()-start, 1, -1); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: LZW code", errDamaged)
		}
		if lastLen > 0 && next < 4096 {
			at[next], size[next] = lastAt, lastLen+1
			next++
		}
		lastAt, lastLen = start, int(out.size()-start)
		if next+1 >= 1<<width && width < 12 {
			width++
		}
	}
}

func pdfRunLength(data []byte, out *sink) error {
	r := bytes.NewReader(data)
	for {
		n, err := r.ReadByte()
		if err != nil || n == 128 {
			return nil //nolint:nilerr // readers take data without an end mark
		}
		if n < 128 {
			if _, err := io.CopyN(out, r, int64(n)+1); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			continue
		}
		c, err := r.ReadByte()
		if err != nil {
			return nil //nolint:nilerr // readers take data that is cut
		}
		if _, err := out.Write(bytes.Repeat([]byte{c}, 257-int(n))); err != nil {
			return err
		}
	}
}

// pdfScripts gives scripts that stand in strings: after /JS, in parentheses with
// escapes or in angle brackets as hexadecimal digits.
func (w *Walker) pdfScripts(text []byte) error {
	n, checked := 0, len(text)
	for rest := text; ; {
		i := bytes.Index(rest, []byte("/JS"))
		if i < 0 || n >= maxRuns {
			return nil
		}
		rest = rest[i+3:]
		if checked-len(rest) > checkEvery {
			checked = len(rest)
			if err := w.check(); err != nil {
				return err
			}
		}
		v := bytes.TrimLeft(rest[:min(len(rest), 256<<10)], " \t\r\n")
		if len(v) == 0 || v[0] != '(' && (v[0] != '<' || len(v) > 1 && v[1] == '<') {
			continue
		}
		n++
		err := w.Produce(fmt.Sprintf("script-%d", n), func(out *sink) error {
			if v[0] == '<' {
				return pdfHex(v[1:], out)
			}
			return pdfString(v[1:], out)
		})
		if err != nil {
			return err
		}
	}
}

func pdfString(text []byte, out *sink) error {
	depth := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return nil
			}
		case '\\':
			i++
			if i >= len(text) {
				return nil
			}
			c = text[i]
			switch c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			case '\n':
				continue
			}
			if c >= '0' && c <= '7' {
				v := 0
				k := i
				for ; k < min(i+3, len(text)) && text[k] >= '0' && text[k] <= '7'; k++ {
					v = v*8 + int(text[k]-'0')
				}
				i = k - 1
				c = byte(v)
			}
		}
		if err := out.WriteByte(c); err != nil {
			return err
		}
	}
	return nil
}
