package clamdb

import (
	"io"
	"regexp"
)

const (
	maxRegexps   = 4096      // compiled expressions that are kept
	maxSearched  = 100 << 20 // bytes that an expression looks at, as clamscan
	maxRegexHits = 1 << 16
)

// Regexps keeps compiled expressions, for one goroutine at a time. The zero
// value is ready.
type Regexps struct {
	kept map[string]*regexp.Regexp
}

// compile compiles an expression with what stands around it; nil where that
// does not work.
func (c *Regexps) compile(before string, source []byte, behind string) *regexp.Regexp {
	key := before + string(source)
	if re, ok := c.kept[key]; ok {
		return re
	}
	re, err := regexp.Compile(key + behind)
	if err != nil {
		re = nil
	}
	if c.kept == nil || len(c.kept) >= maxRegexps {
		c.kept = map[string]*regexp.Regexp{}
	}
	c.kept[key] = re
	return re
}

// search is one regular expression sub-signature at work.
type search struct {
	env                        Env
	offset                     Offset
	global, rolling, encompass bool
}

// count counts the matches. The searched bytes begin at the offset, so that ^
// holds there.
func (s *search) count(source []byte) int64 {
	from, end := int64(0), s.env.Size()
	last := int64(-1) // where a match may begin at most, relative to from
	if s.offset.Kind != Anywhere {
		var ok bool
		if from, ok = s.offset.Base(end, s.env.Layout()); !ok || from < 0 || from >= end {
			return 0
		}
		switch {
		case s.offset.Kind == InSection:
			end = min(end, from+s.offset.length(s.env.Layout()))
		case s.offset.Shift > 0:
			last = s.offset.Shift
			if s.encompass {
				end = min(end, from+s.offset.Shift)
			}
		case !s.rolling:
			last = 0
		}
	}
	end = min(end, from+maxSearched)
	re := s.env.Regexps().compile("", source, "")
	if last == 0 {
		re = s.env.Regexps().compile(`\A(?:`, source, ")")
	}
	n, at := int64(0), from
	for re != nil && at <= end && n < maxRegexHits {
		// Behind the first match the expression must see the byte before, for
		// what looks at it (^, \b): it is matched as part of it.
		back := int64(0)
		if at > from {
			re = s.env.Regexps().compile(`(?s:.)(?:`, source, ")")
			back = 1
		}
		if re == nil {
			break
		}
		loc := re.FindReaderIndex(&byteRunes{env: s.env, at: at - back, end: end})
		if loc == nil {
			break
		}
		start, stop := at-back+int64(loc[0])+back, at-back+int64(loc[1])
		if last >= 0 && start-from > last {
			break
		}
		n++
		if !s.global || last == 0 {
			break
		}
		at = max(stop, start+1)
	}
	return n
}

// byteRunes reads the bytes of an object as code points.
type byteRunes struct {
	env     Env
	at, end int64
	buf     [4096]byte
	data    []byte
}

// ReadRune is io.RuneReader.
func (b *byteRunes) ReadRune() (rune, int, error) {
	if len(b.data) == 0 {
		if b.at >= b.end || b.env.Stop() {
			return 0, 0, io.EOF
		}
		n := copy(b.buf[:], b.env.Slice(b.at, int(min(int64(len(b.buf)), b.end-b.at))))
		if n == 0 {
			return 0, 0, io.EOF
		}
		b.data = b.buf[:n]
		b.at += int64(n)
	}
	c := b.data[0]
	b.data = b.data[1:]
	return rune(c), 1, nil
}
