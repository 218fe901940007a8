// Package normalize brings text and HTML into the forms in which ClamAV
// searches them, so that signatures written for ClamAV's target types 3 and 7
// find here what they find there. The forms are those of clamscan 1.4.6
// (sigtool --ascii-normalise and --html-normalise); the manual describes them
// in "ClamAV File Types". JavaScript is not normalised.
package normalize

import (
	"bufio"
	"errors"
	"io"
	"slices"
)

// Bounds of what is normalised, those of clamscan.
const (
	MaxText = 20 << 20 // longer texts are not normalised
	MaxHTML = 40 << 20 // longer pages are not normalised
	MaxTags = 8 << 20  // of longer pages there is no form without tags
)

// sink is a bounded buffer that puts one space for any run of white space.
type sink struct {
	b     []byte
	space bool // the last byte was white space
	most  int
}

func (s *sink) put(c byte) {
	if len(s.b) < s.most {
		s.b = append(s.b, c)
	}
	s.space = false
}

func (s *sink) blank() {
	if !s.space {
		s.put(' ')
		s.space = true
	}
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// textForm is what Text makes of a byte: 0 is left out.
var textForm = func() (form [256]byte) {
	for c := byte(' ') + 1; c <= 0x7f; c++ {
		form[c] = lower(c)
	}
	for c := range byte(0xff) {
		if isSpace(c) {
			form[c] = ' '
		}
	}
	return form
}()

// Text is the normalised form of a text: letters in lower case, one space for
// every run of white space, and no bytes but printable ASCII. At most MaxText
// bytes are read. A reader that knows its Size has one buffer made for it.
func Text(r io.Reader) ([]byte, error) {
	var out []byte
	piece := 32 << 10
	if sized, ok := r.(interface{ Size() int64 }); ok {
		size := int(min(max(0, sized.Size()), MaxText))
		out = make([]byte, 0, size)
		piece = min(piece, size+1) // most texts are short
	}
	space := false
	buf := make([]byte, piece)
	for read := 0; read < MaxText; {
		n, err := r.Read(buf[:min(len(buf), MaxText-read)])
		read += n
		out = slices.Grow(out, n)
		to, kept := out[len(out):len(out)+n], 0
		for _, c := range buf[:n] {
			c = textForm[c]
			if c <= ' ' {
				if c == 0 || space {
					continue
				}
				space = true
			} else {
				space = false
			}
			to[kept] = c
			kept++
		}
		out = out[:len(out)+kept]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// Page is the two forms of an HTML page.
type Page struct {
	// NoComment is the page without comments, its letters in lower case, white
	// space shortened and character references resolved.
	NoComment []byte
	// NoTags is the text between the tags, with the addresses that they name.
	NoTags []byte
}

// HTML reads at most MaxHTML bytes of a page.
func HTML(r io.Reader) (Page, error) {
	p := &page{
		r:    bufio.NewReaderSize(io.LimitReader(r, MaxHTML), 32<<10),
		page: sink{most: MaxHTML}, text: sink{most: MaxTags},
	}
	p.run()
	if errors.Is(p.err, io.EOF) {
		p.err = nil
	}
	return Page{p.page.b, p.text.b}, p.err
}
