package repository

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Limits of a deb. (deb(5): an ar archive with debian-binary, control.tar and
// data.tar.)
const (
	maxControlArchive = 4 << 20
	maxControlBytes   = 64 << 10
	maxControlMembers = 200
	maxDebMembers     = 16
	arMagic           = "!<arch>\n"
)

var (
	debName    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,99}$`)
	debVersion = regexp.MustCompile(`^(?:\d+:)?[0-9][A-Za-z0-9.+~-]{0,99}$`)
	debArch    = regexp.MustCompile(`^(?:amd64|arm64|all)$`)
)

// control is the paragraph of a deb: fields in their order, values as they are
// written, continuation lines included.
type control []struct{ name, value string }

func (c control) get(name string) string {
	for _, f := range c {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// readDeb reads the control paragraph of a deb of that size.
func readDeb(r io.ReaderAt, size int64) (control, error) {
	text, err := debControl(r, size)
	if err != nil {
		return nil, fmt.Errorf("not a deb that can be used: %w", err)
	}
	c, err := parseControl(text)
	if err != nil {
		return nil, fmt.Errorf("not a deb that can be used: control file: %w", err)
	}
	for _, want := range []struct {
		field string
		form  *regexp.Regexp
	}{{"Package", debName}, {"Version", debVersion}, {"Architecture", debArch}} {
		if v := c.get(want.field); !want.form.MatchString(v) {
			return nil, fmt.Errorf("not a deb that can be used: control file: %s is %.40q, want %s", want.field, v, want.form)
		}
	}
	return c, nil
}

// debMember is a member of the ar archive that a deb is.
type debMember struct {
	name            string
	begin, at, size int64 // its header, its content
}

// end is where the next member begins.
func (m debMember) end() int64 { return m.at + m.size + m.size%2 }

// debMembers reads the headers of the members of a deb of that size.
func debMembers(r io.ReaderAt, size int64) ([]debMember, error) {
	var magic [8]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil || string(magic[:]) != arMagic {
		return nil, errors.New("it does not begin as an ar archive")
	}
	var out []debMember
	for at := int64(len(magic)); at < size; at = out[len(out)-1].end() {
		if len(out) == maxDebMembers {
			return nil, fmt.Errorf("ar archive: more than %d members", maxDebMembers)
		}
		var head [60]byte
		if _, err := r.ReadAt(head[:], at); err != nil {
			return nil, fmt.Errorf("ar archive: header at %d: %w", at, err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
		if err != nil || n < 0 || string(head[58:]) != "`\n" || at+60+n > size {
			return nil, fmt.Errorf("ar archive: damaged header at %d", at)
		}
		out = append(out, debMember{strings.TrimRight(strings.TrimSpace(string(head[:16])), "/"), at, at + 60, n})
	}
	return out, nil
}

func debControl(r io.ReaderAt, size int64) ([]byte, error) {
	members, err := debMembers(r, size)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if kind, ok := strings.CutPrefix(m.name, "control.tar"); ok {
			if m.size > maxControlArchive {
				return nil, fmt.Errorf("%s has %d bytes, the limit is %d", m.name, m.size, maxControlArchive)
			}
			return controlFile(io.NewSectionReader(r, m.at, m.size), kind)
		}
	}
	return nil, errors.New("no member control.tar")
}

func controlFile(r io.Reader, kind string) ([]byte, error) {
	var err error
	switch kind {
	case "":
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".xz":
		r, err = xz.ReaderConfig{DictCap: 8 << 20}.NewReader(bufio.NewReader(r))
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(r, zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = errors.New("unknown compression")
	}
	if err != nil {
		return nil, fmt.Errorf("control.tar%s: %w", kind, err)
	}
	t := tar.NewReader(io.LimitReader(r, 4*maxControlArchive))
	for range maxControlMembers {
		h, err := t.Next()
		if err != nil {
			return nil, fmt.Errorf("control.tar%s: no file control in it: %w", kind, err)
		}
		if path.Clean(h.Name) != "control" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(t, maxControlBytes+1))
		if err != nil {
			return nil, fmt.Errorf("control.tar%s: %w", kind, err)
		}
		if len(text) > maxControlBytes {
			return nil, fmt.Errorf("the control file is larger than %d bytes", maxControlBytes)
		}
		return text, nil
	}
	return nil, fmt.Errorf("control.tar%s: no file control among the first %d", kind, maxControlMembers)
}

// parseControl reads one paragraph (deb-control(5)).
func parseControl(text []byte) (control, error) {
	var c control
	for n, line := range bytes.Split(bytes.TrimRight(text, "\n \t"), []byte("\n")) {
		line = bytes.TrimRight(line, " \t\r")
		switch {
		case bytes.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' }) >= 0:
			return nil, fmt.Errorf("line %d: a control character", n+1)
		case len(line) == 0:
			return nil, fmt.Errorf("line %d: empty; one paragraph is wanted", n+1)
		case line[0] == ' ' || line[0] == '\t':
			if len(c) == 0 {
				return nil, fmt.Errorf("line %d: continues nothing", n+1)
			}
			c[len(c)-1].value += "\n" + string(line)
		default:
			name, value, ok := strings.Cut(string(line), ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t") {
				return nil, fmt.Errorf("line %d: want Name: value", n+1)
			}
			if c.get(name) != "" {
				return nil, fmt.Errorf("line %d: %s for the second time", n+1, name)
			}
			c = append(c, struct{ name, value string }{name, strings.TrimSpace(value)})
		}
	}
	return c, nil
}
