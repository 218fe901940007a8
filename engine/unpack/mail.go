package unpack

import (
	"bytes"
	"fmt"
	"mime"
	"strings"
)

const (
	// maxText is how much of a text (mail, HTML, script) is looked at.
	maxText = 64 << 20
	// maxMIMEDepth is how deep the parts of one mail may be nested; messages in
	// messages are members and count as containers.
	maxMIMEDepth = 30
	// maxHeader is how many bytes of header fields a part may have.
	maxHeader = 256 << 10
)

// unmail reads mails (RFC 5322, MIME: RFC 2045 and 2046) and mailboxes (RFC
// 4155). The standard library's readers refuse much of what mail programs show,
// so parts are found by our own rules: a boundary is looked for even where the
// line before is not blank, and a missing end ends with the text.
func unmail(w *Walker, o Object) error {
	text, release := w.whole(o)
	defer release()
	if !bytes.HasPrefix(text, []byte("From ")) {
		return w.message(text, 0)
	}
	for i := 1; len(text) > 0; i++ {
		_, text = nextLine(text) // the line of the mailbox
		one := text
		if end := bytes.Index(text, []byte("\nFrom ")); end >= 0 {
			one, text = text[:end+1], text[end+1:]
		} else {
			text = nil
		}
		if err := w.message(one, 0); err != nil {
			return err
		}
	}
	return nil
}

// header has the fields of a part that say what it is.
type header struct {
	kind, boundary, name, encoding string
	fields                         int
}

// mailHeader reads header fields up to the blank line.
func mailHeader(text []byte) (h header, body []byte) {
	read := 0
	var field []byte
	take := func() {
		name, value, ok := strings.Cut(string(field), ":")
		if !ok {
			return
		}
		h.fields++
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-type":
			kind, params := mediaType(value)
			h.kind, h.boundary = kind, params["boundary"]
			if n := params["name"]; n != "" {
				h.name = n
			}
		case "content-disposition":
			if _, params := mediaType(value); params["filename"] != "" {
				h.name = params["filename"]
			}
		case "content-transfer-encoding":
			h.encoding = strings.ToLower(value)
		}
	}
	for len(text) > 0 {
		line, rest := nextLine(text)
		if read += len(line) + 1; read > maxHeader {
			break
		}
		if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') && len(field) > 0 {
			if len(bytes.TrimSpace(line)) > 0 || len(field) > 0 {
				field = append(field, line...)
			}
			text = rest
			continue
		}
		if len(field) > 0 {
			take()
		}
		field = append(field[:0], line...)
		if len(line) == 0 {
			return h, rest
		}
		if !bytes.ContainsRune(line, ':') {
			if h.fields == 0 { // no header at all
				return h, text
			}
			field = field[:0]
		}
		text = rest
	}
	if len(field) > 0 {
		take()
	}
	return h, text
}

// mediaType reads a content type with its parameters, also where it breaks the
// rules of RFC 2045.
func mediaType(v string) (string, map[string]string) {
	kind, params, err := mime.ParseMediaType(v)
	if err == nil {
		return kind, params
	}
	params = map[string]string{}
	parts := strings.Split(v, ";")
	for _, p := range parts[1:] {
		k, val, ok := strings.Cut(p, "=")
		if !ok {
			continue
		}
		k = strings.ToLower(strings.TrimSpace(k))
		if _, have := params[k]; !have {
			params[k] = strings.Trim(strings.TrimSpace(val), `"'`)
		}
	}
	return strings.ToLower(strings.TrimSpace(parts[0])), params
}

// message gives the parts of a message, or of a part that is one.
func (w *Walker) message(text []byte, depth int) error {
	if err := w.check(); err != nil {
		return err
	}
	h, body := mailHeader(text)
	if h.boundary != "" && depth < maxMIMEDepth {
		return w.multipart(body, h.boundary, depth)
	}
	return w.part(h, body)
}

func (w *Walker) multipart(body []byte, boundary string, depth int) error {
	mark := []byte("--" + boundary)
	part, found := body, false
	for rest := body; ; {
		i := bytes.Index(rest, mark)
		if i < 0 {
			break
		}
		at := len(body) - len(rest) + i
		rest = rest[i+len(mark):]
		if at > 0 && body[at-1] != '\n' {
			continue
		}
		piece := part[:len(part)-len(body)+at]
		if found {
			piece = bytes.TrimSuffix(bytes.TrimSuffix(piece, []byte("\n")), []byte("\r"))
			if err := w.message(piece, depth+1); err != nil {
				return err
			}
		} else if err := w.textMembers(piece); err != nil { // what stands before
			return err
		}
		found = true
		line, after := nextLine(rest)
		part, rest = after, after
		if bytes.HasPrefix(line, []byte("--")) {
			found = false // the end; what follows is text
		}
	}
	if found {
		return w.message(part, depth+1)
	}
	return w.textMembers(part)
}

// part decodes a part that has no parts.
func (w *Walker) part(h header, body []byte) error {
	name := h.name
	if d, err := new(mime.WordDecoder).DecodeHeader(name); err == nil {
		name = d
	}
	if name == "" {
		name = "part"
		if h.kind == "message/rfc822" {
			name = "message"
		}
	}
	enc := strings.Trim(h.encoding, " \t\"'")
	switch {
	case enc == "base64":
		return w.Produce(name, func(out *sink) error { return decodeBase64(body, out) })
	case enc == "quoted-printable":
		return w.Produce(name, func(out *sink) error { return decodeQuoted(body, out) })
	case strings.Contains(enc, "uue"), enc == "mac-binhex40", h.kind == "application/mac-binhex40", strings.Contains(enc, "yenc"):
		return w.textMembers(body)
	}
	if h.fields == 0 || len(body) == 0 {
		return w.textMembers(body)
	}
	if err := w.textMembers(body); err != nil {
		return err
	}
	return w.Bytes(name, body)
}

// unhtml gives what a page carries in data: URIs (RFC 2397) and encoded scripts.
func unhtml(w *Walker, o Object) error {
	text, release := w.whole(o)
	defer release()
	if err := w.dataURIs(text); err != nil {
		return err
	}
	return w.encodedRuns(text)
}

func (w *Walker) dataURIs(text []byte) error {
	n, checked := 0, len(text)
	for rest := text; ; {
		i := bytes.Index(rest, []byte("data:"))
		if i < 0 {
			return nil
		}
		rest = rest[i+5:]
		if checked-len(rest) > checkEvery {
			checked = len(rest)
			if err := w.check(); err != nil {
				return err
			}
		}
		comma := bytes.IndexByte(rest[:min(len(rest), 256)], ',')
		if comma < 0 {
			continue
		}
		head := strings.ToLower(string(rest[:comma]))
		if strings.ContainsAny(head, "\"'<> \n") && !strings.Contains(head, "base64") {
			continue
		}
		if !strings.Contains(head, "base64") {
			continue // what it says stands in the page's own text
		}
		body := rest[comma+1:]
		end := bytes.IndexAny(body, "\"'<>) ")
		if end < 0 {
			end = len(body)
		}
		body = body[:end]
		n++
		name := fmt.Sprintf("data-%d", n)
		err := w.Produce(name, func(out *sink) error {
			if bytes.IndexByte(body, '%') >= 0 {
				body = percent(body)
			}
			return decodeBase64(body, out)
		})
		if err != nil {
			return err
		}
		rest = rest[comma+1+end:]
	}
}

// percent decodes %XX.
func percent(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			hi, lo := hexDigit(text[i+1]), hexDigit(text[i+2])
			if hi|lo < 16 {
				out = append(out, hi<<4|lo)
				i += 2
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}

// hexDigit is the value of a hexadecimal digit, 0xff for anything else.
func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0xff
}
