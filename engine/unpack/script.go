package unpack

import (
	"bytes"
	"fmt"

	"github.com/bulwarkhq/bulwark/engine/filetype"
)

const (
	// minRun is the shortest run of letters that is taken for encoded data.
	minRun = 96
	// Every run that is decoded has minSpan letters (base64, or those of escapes)
	// without a gap: the first line of a broken one has 60, the shortest one of
	// %NN has 72.
	minSpan = 60
	// longLine is how often it is worth a try whether a line of letters is long.
	longLine = 16
	// maxRuns bounds how many runs of one text are decoded.
	maxRuns = 256
)

// unscript gives what scripts and other texts carry in encoded form: uuencode,
// yEnc and BinHex, and long runs of base64, hexadecimal digits, \xNN or %NN.
func unscript(w *Walker, o Object) error {
	text, release := w.load(o, 0, maxText)
	defer release()
	if err := w.textMembers(text); err != nil {
		return err
	}
	return w.encodedRuns(text)
}

// Classes of letters.
const (
	letterHex    = 1 << iota // a hexadecimal digit
	letterBase64             // of base64 or its form for URLs
	letterPad
	letterEscape // begins an escape
	letterSpan   // of base64, or begins an escape
)

var letters = func() (t [256]byte) {
	for c := range t {
		if hexDigit(byte(c)) < 16 {
			t[c] |= letterHex
		}
		if base64Table[c] != 0xff {
			t[c] |= letterBase64 | letterSpan
		}
	}
	t['='] = letterPad
	t['\\'], t['%'] = letterEscape|letterSpan, letterEscape|letterSpan
	return t
}()

// leading is how many letters text begins with that are of a class (one bit), at most
// most, and the classes that all of them have.
func leading(text []byte, class byte, most int) (n int, all byte) {
	text = text[:min(len(text), most)]
	all = 0xff
	for ; len(text)-n >= 8; n += 8 {
		t := text[n:][:8]
		l := letters[t[0]] & letters[t[1]] & letters[t[2]] & letters[t[3]] & letters[t[4]] & letters[t[5]] & letters[t[6]] & letters[t[7]]
		if l&class == 0 {
			break
		}
		all &= l
	}
	for ; n < len(text); n++ {
		l := letters[text[n]]
		if l&class == 0 {
			break
		}
		all &= l
	}
	return n, all
}

// encodedRuns decodes runs without gaps (line ends are allowed in base64). The
// result is a member when it is something that a file can be: text or a known
// format.
func (w *Walker) encodedRuns(text []byte) error {
	runs, checked := 0, 0
	for i := 0; i < len(text) && runs < maxRuns; {
		if i-checked > checkEvery {
			checked = i
			if err := w.check(); err != nil {
				return err
			}
		}
		// A span of minSpan letters that begins at i or behind has a letter at
		// every place minSpan-1 further: most of a text is never looked at.
		probe := i + minSpan - 1
		if probe >= len(text) {
			return nil
		}
		if letters[text[probe]]&letterSpan == 0 {
			i = probe + 1
			continue
		}
		start := probe
		for start > i && letters[text[start-1]]&letterSpan != 0 {
			start--
		}
		// A long span is taken in pieces, so that the context is asked between them. A
		// rest that is too short for a span begins no run.
		end := probe + 1
		for near := min(len(text), probe+8); end < near && letters[text[end]]&letterSpan != 0; {
			end++
		}
		if end == probe+8 {
			more, _ := leading(text[end:], letterSpan, checkEvery-8)
			end += more
		}
		if end-start < minSpan {
			i = end + 1
			continue
		}
		n, at, err := w.spanRuns(text, start, end, maxRuns-runs)
		if err != nil {
			return err
		}
		runs, i = runs+n, at
	}
	return nil
}

// spanRuns decodes the runs that begin between i and to, at most most of them.
// It returns their number and where to go on.
func (w *Walker) spanRuns(text []byte, i, to, most int) (runs, next int, err error) {
	for i < to && runs < most {
		c := text[i]
		if letters[c]&letterEscape != 0 {
			n, decoded, err := w.escapes(text[i:])
			if err != nil {
				return runs, i, err
			}
			if len(decoded) >= minRun/4 {
				runs++
				if err := w.likely(fmt.Sprintf("escaped-%d", i), decoded); err != nil {
					return runs, i, err
				}
			}
			i += max(n, 1)
			continue
		}
		if letters[c]&letterBase64 == 0 {
			i++
			continue
		}
		end, hex, err := w.runEnd(text, i)
		if err != nil {
			return runs, i, err
		}
		if end-i >= minRun {
			runs++
			if hex {
				err = w.likelyDecoded(fmt.Sprintf("hex-%d", i), text[i:end], filetype.HeadSize, decodeHex)
			} else {
				err = w.likelyDecoded(fmt.Sprintf("base64-%d", i), text[i:end], 512, decodeBase64)
			}
			if err != nil {
				return runs, i, err
			}
		}
		i = end + 1
	}
	return runs, i, nil
}

// runEnd is where the run of base64 letters that begins at i ends, over the ends
// of its lines, and whether all of them are hexadecimal digits.
func (w *Walker) runEnd(text []byte, i int) (end int, hex bool, err error) {
	end, class := i, byte(letterHex|letterBase64)
	checked := i
	for end < len(text) {
		if end-checked > checkEvery {
			checked = end
			if err := w.check(); err != nil {
				return end, false, err
			}
		}
		l := letters[text[end]]
		if l&letterBase64 != 0 {
			class &= l
			end++
			if end&(longLine-1) == 0 {
				n, all := leading(text[end:], letterBase64, checkEvery)
				class &= all
				end += n
			}
			continue
		}
		// A line that is broken goes on if it was long.
		if text[end] != '\n' && text[end] != '\r' {
			break
		}
		k := end
		for k < len(text) && (text[k] == '\n' || text[k] == '\r') {
			k++
		}
		if end-i < minSpan || k >= len(text) || k-end > 2 || letters[text[k]]&letterBase64 == 0 {
			break
		}
		end = k
	}
	return end, class&letterHex != 0, nil
}

// likelyDecoded gives what decoder makes of a text as a member if the first most
// bytes of that look like a file.
func (w *Walker) likelyDecoded(name string, text []byte, most int, decoder func([]byte, *sink) error) error {
	head := &sink{w: w, m: &memory{}, limit: int64(most)}
	// A byte takes two digits, and each may stand on a line of its own. The limit is
	// meant to be reached.
	_ = decoder(text[:min(len(text), 6*most)], head)
	probe := make([]byte, head.m.size)
	_, _ = head.m.ReadAt(probe, 0)
	if !worthwhile(probe) {
		return nil
	}
	return w.Produce(name, func(out *sink) error { return decoder(text, out) })
}

// likely gives data as a member if it looks like a file.
func (w *Walker) likely(name string, data []byte) error {
	if !worthwhile(data) {
		return nil
	}
	return w.Bytes(name, data)
}

func worthwhile(head []byte) bool {
	kind := filetype.Detect(head[:min(len(head), filetype.HeadSize)])
	return len(head) > 0 && kind != filetype.Data && kind != filetype.Empty
}

// escapes decodes a run of \xNN, %NN or %uNNNN and returns how long it is.
func (w *Walker) escapes(text []byte) (n int, decoded []byte, err error) {
	checked := 0
	for {
		if n-checked > checkEvery {
			checked = n
			if err := w.check(); err != nil {
				return n, nil, err
			}
		}
		t := text[n:]
		switch {
		case len(t) >= 4 && t[0] == '\\' && t[1]|0x20 == 'x' && hexDigit(t[2])|hexDigit(t[3]) < 16:
			decoded = append(decoded, hexDigit(t[2])<<4|hexDigit(t[3]))
			n += 4
		case len(t) >= 6 && t[0] == '%' && t[1]|0x20 == 'u' && hexDigit(t[2])|hexDigit(t[3])|hexDigit(t[4])|hexDigit(t[5]) < 16:
			decoded = append(decoded, hexDigit(t[4])<<4|hexDigit(t[5]), hexDigit(t[2])<<4|hexDigit(t[3]))
			n += 6
		case len(t) >= 3 && t[0] == '%' && hexDigit(t[1])|hexDigit(t[2]) < 16:
			decoded = append(decoded, hexDigit(t[1])<<4|hexDigit(t[2]))
			n += 3
		default:
			return n, decoded, nil
		}
		if len(decoded) == 1 && !bytes.HasPrefix(text[n:], text[:1]) {
			return n, nil, nil
		}
	}
}
