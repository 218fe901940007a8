package unpack

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/match"
)

// The encodings that carry files through text. Each decodes as much as it can
// read: what a mail program shows or saves matters, not what is valid.

// base64Table has the value of every letter of both alphabets, 0xff for others.
var base64Table = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		t[c] = byte(i)
	}
	t['-'], t['_'] = 62, 63
	return t
}()

// decodeBase64 skips whatever is not of the alphabet and ends at padding that is
// followed by none of it.
func decodeBase64(text []byte, out *sink) error {
	acc, n := uint32(0), 0
	var buf [3 * 256]byte
	used := 0
	for len(text) > 0 {
		// Whole groups of four letters, as nearly all are.
		for n == 0 && len(text) >= 4 && used <= len(buf)-3 {
			a, b, c, d := base64Table[text[0]], base64Table[text[1]], base64Table[text[2]], base64Table[text[3]]
			if (a|b|c|d)&0xc0 != 0 {
				break
			}
			buf[used], buf[used+1], buf[used+2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
			used += 3
			text = text[4:]
		}
		if used > len(buf)-3 {
			if _, err := out.Write(buf[:used]); err != nil {
				return err
			}
			used = 0
		}
		if len(text) == 0 {
			break
		}
		c := text[0]
		text = text[1:]
		if c == '=' {
			if n > 1 {
				v := acc << (6 * (4 - n))
				buf[used], buf[used+1] = byte(v>>16), byte(v>>8)
				used += n - 1
			}
			acc, n = 0, 0
		} else if v := base64Table[c]; v != 0xff {
			acc = acc<<6 | uint32(v)
			if n++; n == 4 {
				buf[used], buf[used+1], buf[used+2] = byte(acc>>16), byte(acc>>8), byte(acc)
				used += 3
				acc, n = 0, 0
			}
		}
	}
	if used > len(buf)-3 {
		if _, err := out.Write(buf[:used]); err != nil {
			return err
		}
		used = 0
	}
	if n > 1 {
		v := acc << (6 * (4 - n))
		buf[used], buf[used+1] = byte(v>>16), byte(v>>8)
		used += n - 1
	}
	_, err := out.Write(buf[:used])
	return err
}

// decodeHex decodes hexadecimal digits. It skips whatever is none, and a digit that has
// no second one.
func decodeHex(text []byte, out *sink) error {
	_, _, err := hexPairs(text, out)
	return err
}

// hexPairs decodes pairs of hexadecimal digits, and returns the one that is left over.
func hexPairs(text []byte, out *sink) (hi byte, half bool, err error) {
	for _, c := range text {
		d := hexDigit(c)
		if d > 15 {
			continue
		}
		if half {
			if err := out.WriteByte(hi<<4 | d); err != nil {
				return 0, false, err
			}
		}
		hi, half = d, !half
	}
	return hi, half, nil
}

// decodeQuoted decodes quoted-printable (RFC 2045 section 6.7).
func decodeQuoted(text []byte, out *sink) error {
	for len(text) > 0 {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line = text[:i+1]
		}
		text = text[len(line):]
		body := bytes.TrimRight(line, "\r\n")
		end := line[len(body):]
		body = bytes.TrimRight(body, " \t")
		if bytes.HasSuffix(body, []byte("=")) {
			body, end = body[:len(body)-1], nil
		}
		for len(body) > 0 {
			i := bytes.IndexByte(body, '=')
			if i < 0 {
				i = len(body)
			}
			if _, err := out.Write(body[:i]); err != nil {
				return err
			}
			if body = body[i:]; len(body) == 0 {
				break
			}
			var c [1]byte
			if len(body) >= 3 {
				if _, err := hex.Decode(c[:], body[1:3]); err == nil {
					if err := out.WriteByte(c[0]); err != nil {
						return err
					}
					body = body[3:]
					continue
				}
			}
			if err := out.WriteByte('='); err != nil {
				return err
			}
			body = body[1:]
		}
		if _, err := out.Write(end); err != nil {
			return err
		}
	}
	return nil
}

// nextLine cuts the first line off, without its end.
func nextLine(text []byte) (line, rest []byte) {
	i := bytes.IndexByte(text, '\n')
	if i < 0 {
		return text, nil
	}
	return bytes.TrimSuffix(text[:i], []byte("\r")), text[i+1:]
}

// uuStart recognises the line that starts a uuencoded file (POSIX uuencode), and
// returns its name.
func uuStart(line []byte) (name string, b64, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("begin"))
	if !ok {
		return "", false, false
	}
	if r, is := bytes.CutPrefix(rest, []byte("-base64")); is {
		rest, b64 = r, true
	}
	f := strings.SplitN(string(rest), " ", 3)
	if len(f) != 3 || f[0] != "" || len(f[1]) < 3 || len(f[1]) > 4 || strings.Trim(f[1], "01234567") != "" {
		return "", false, false
	}
	return strings.TrimSpace(f[2]), b64, true
}

// decodeUU decodes the lines after the first, up to "end".
func decodeUU(text []byte, out *sink) error {
	for len(text) > 0 {
		var line []byte
		line, text = nextLine(text)
		if len(line) == 0 {
			continue
		}
		if string(line) == "end" {
			return nil
		}
		n := int(line[0]-' ') & 63
		if n == 0 {
			return nil // the line before "end"
		}
		line = line[1:]
		for n > 0 {
			var q [4]byte
			for i := range q {
				if i < len(line) {
					q[i] = (line[i] - ' ') & 63
				}
			}
			line = line[min(4, len(line)):]
			three := []byte{q[0]<<2 | q[1]>>4, q[1]<<4 | q[2]>>2, q[2]<<6 | q[3]}
			if _, err := out.Write(three[:min(n, 3)]); err != nil {
				return err
			}
			n -= 3
		}
	}
	return nil
}

// decodeYEnc decodes the lines after "=ybegin", up to "=yend" (yEnc draft 1.3).
func decodeYEnc(text []byte, out *sink) error {
	for len(text) > 0 {
		var line []byte
		line, text = nextLine(text)
		if bytes.HasPrefix(line, []byte("=yend")) {
			return nil
		}
		if bytes.HasPrefix(line, []byte("=ypart")) {
			continue
		}
		line = bytes.TrimPrefix(line, []byte(".")[:min(1, dots(line))])
		for i := 0; i < len(line); i++ {
			c := line[i]
			if c == '=' && i+1 < len(line) {
				i++
				c = line[i] - 64
			}
			if err := out.WriteByte(c - 42); err != nil {
				return err
			}
		}
	}
	return nil
}

// dots is 1 for a line that begins with two dots, as they are sent by NNTP.
func dots(line []byte) int {
	if bytes.HasPrefix(line, []byte("..")) {
		return 1
	}
	return 0
}

const binHexLetters = "!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr"

var binHexMark = []byte("(This file must be converted with BinHex")

// decodeBinHex decodes BinHex 4.0 (RFC 1741 appendix A): six bits a letter, runs
// marked by 0x90. What it writes is the header and both forks.
func decodeBinHex(text []byte, out *sink) error {
	start := bytes.IndexByte(text, ':')
	if start < 0 {
		return fmt.Errorf("%w: no BinHex data", errDamaged)
	}
	var table [256]byte
	for i := range table {
		table[i] = 0xff
	}
	for i := range len(binHexLetters) {
		table[binHexLetters[i]] = byte(i)
	}
	acc, n := uint32(0), 0
	last, run := byte(0), false
	for _, c := range text[start+1:] {
		if c == ':' {
			return nil
		}
		v := table[c]
		if v == 0xff {
			continue
		}
		acc = acc<<6 | uint32(v)
		if n += 6; n < 8 {
			continue
		}
		n -= 8
		b := byte(acc >> n)
		var err error
		switch {
		case run && b == 0:
			last, run = 0x90, false
			err = out.WriteByte(last)
		case run:
			run = false
			for range int(b) - 1 {
				if err = out.WriteByte(last); err != nil {
					return err
				}
			}
		case b == 0x90:
			run = true
		default:
			last = b
			err = out.WriteByte(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// binHexStart is where the data of a BinHex file begins behind the mark, if the
// text is laid out as such a file is (RFC 1741 appendix A): the rest of the mark's
// line, then a line that begins with a colon and has letters only. Other texts
// only mention the mark; there it is -1.
func binHexStart(text []byte) int {
	ends := func(c rune) bool { return c == '\r' || c == '\n' }
	at := bytes.IndexFunc(text[:min(len(text), 80)], ends)
	if at < 0 {
		return -1
	}
	at = len(text) - len(bytes.TrimLeft(text[at:], " \t\r\n"))
	if at == len(text) || text[at] != ':' {
		return -1
	}
	line := text[at+1 : min(len(text), at+80)]
	if i := bytes.IndexFunc(line, ends); i >= 0 {
		line = line[:i]
	}
	if len(bytes.Trim(line, binHexLetters+": \t")) > 0 {
		return -1
	}
	return at + 1
}

// binHex gives the forks of the BinHex files in a text. Where the first mark is
// followed by something else it is read as such nonetheless, but is no damage.
func (w *Walker) binHex(text []byte) error {
	checked := len(text)
	for first := true; ; first = false {
		i := bytes.Index(text, binHexMark)
		if i < 0 {
			return nil
		}
		text = text[i+len(binHexMark):]
		if checked-len(text) > checkEvery {
			checked = len(text)
			if err := w.check(); err != nil {
				return err
			}
		}
		start := binHexStart(text)
		if start < 0 && !first {
			continue
		}
		data := text
		if start > 0 {
			data = text[start-1:] // the mark's line may have a colon, too
		}
		if err := w.binHexFile(data, start < 0); err != nil {
			return err
		}
		if start > 0 {
			text = text[start:]
			if end := bytes.IndexByte(text, ':'); end >= 0 {
				text = text[end:]
			}
		}
	}
}

func (w *Walker) binHexFile(text []byte, mentioned bool) error {
	quiet := w.quiet
	w.quiet = quiet || mentioned
	defer func() { w.quiet = quiet }()
	m, release, err := w.decode(func(out *sink) error { return decodeBinHex(text, out) })
	defer release()
	if err != nil {
		return err
	}
	defer w.within(m)()
	o := m.object("")
	h := o.piece(0, 64+22)
	if len(h) < 23 || int(h[0])+1+1+18 > len(h) {
		w.damaged()
		return nil
	}
	name := string(h[1 : 1+h[0]])
	f := h[1+int(h[0])+1+10:]
	data, resource := int64(binary.BigEndian.Uint32(f)), int64(binary.BigEndian.Uint32(f[4:]))
	at := int64(h[0]) + 22
	if err = w.Section(name, o, at, data); err == nil && resource > 0 {
		err = w.Section(name+"/resources", o, at+data+2, resource)
	}
	if errors.Is(err, errDamaged) {
		w.damaged()
		return nil
	}
	return err
}

// unbinhex opens files that are BinHex as a whole.
func unbinhex(w *Walker, o Object) error {
	text, release := w.whole(o)
	defer release()
	return w.binHex(text)
}

const (
	// maxStart is how much is read of a line that starts a file.
	maxStart = 1024
	// checkEvery is how many bytes of text are looked at between questions
	// whether to go on.
	checkEvery = 1 << 20
)

// textMembers gives the files that a text carries in encodings that need no
// headers: uuencode, yEnc, BinHex.
func (w *Walker) textMembers(text []byte) error {
	checked := 0
	// Every third byte of some texts is a b, which bytes.Index looks for first.
	begin := match.NewFinder([]byte("begin"), nil)
	for at := 0; ; {
		i := -1
		begin.Find(text, at, len(text), func(place int) bool {
			i = place
			return false
		})
		if i < 0 {
			break
		}
		at = i
		if at-checked > checkEvery {
			checked = at
			if err := w.check(); err != nil {
				return err
			}
		}
		if at > 0 && text[at-1] != '\n' {
			at += len("begin")
			continue
		}
		line, body := nextLine(text[at:])
		at += len("begin")
		name, b64, ok := uuStart(line[:min(len(line), maxStart)])
		if !ok {
			continue
		}
		end := bytes.Index(body, []byte("\nend"))
		if b64 {
			end = bytes.Index(body, []byte("\n===="))
		}
		if end < 0 {
			end = len(body)
		}
		err := w.Produce(name, func(out *sink) error {
			if b64 {
				return decodeBase64(body[:end], out)
			}
			return decodeUU(body[:end], out)
		})
		if err != nil {
			return err
		}
		at = len(text) - len(body) + end
	}
	if err := w.yEnc(text); err != nil {
		return err
	}
	return w.binHex(text)
}

// yEnc gives the yEnc files of a text.
func (w *Walker) yEnc(text []byte) error {
	mark := []byte("=ybegin ")
	lines, files := ahead{text, []byte("\n"), -1}, ahead{text, append([]byte("\n"), mark...), -1}
	for at := 0; ; at += len(mark) {
		i := bytes.Index(text[at:], mark)
		if i < 0 {
			return nil
		}
		at += i
		end := lines.next(at)
		if end == len(text) {
			return nil // no data, and none behind later marks
		}
		_, name, _ := strings.Cut(string(text[at:min(end, at+maxStart)]), "name=")
		body := text[end+1 : min(len(text), files.next(end+1)+1)]
		if err := w.Produce(strings.TrimSpace(name), func(out *sink) error { return decodeYEnc(body, out) }); err != nil {
			return err
		}
	}
}

// ahead finds where something stands next in a text. Questions about places in their
// order take one pass over the text in all.
type ahead struct {
	text, what []byte
	at         int // the last answer; -1 before the first question
}

// next is the first place at from or behind it, and the length of the text if
// there is none.
func (a *ahead) next(from int) int {
	if a.at < from {
		a.at = len(a.text)
		if i := bytes.Index(a.text[from:], a.what); i >= 0 {
			a.at = from + i
		}
	}
	return a.at
}
