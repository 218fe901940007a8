package yara

import (
	"bytes"
	"encoding/base64"
)

// base64Forms are the texts that show the string inside base64 data: one for
// each of the three ways it can be aligned, without the characters that depend
// on its neighbours.
func base64Forms(s *String) [][]byte {
	m := s.Mods
	texts := [][]byte{}
	if m.ASCII || !m.Wide {
		texts = append(texts, s.Text)
	}
	if m.Wide {
		texts = append(texts, wide(s.Text))
	}
	var out [][]byte
	encode := func(alphabet string, asWide bool) {
		enc := base64.StdEncoding
		if alphabet != "" && distinct(alphabet) {
			enc = base64.NewEncoding(alphabet)
		}
		for _, t := range texts {
			for lead := range 3 {
				padded := append(bytes.Repeat([]byte{0}, lead), t...)
				e := []byte(enc.WithPadding(base64.NoPadding).EncodeToString(padded))
				// Characters that hold bits of the bytes before and after.
				from := []int{0, 2, 3}[lead]
				if len(padded)%3 != 0 {
					e = e[:len(e)-1]
				}
				if from >= len(e) {
					continue
				}
				e = e[from:]
				if asWide {
					e = wide(e)
				}
				out = append(out, e)
			}
		}
	}
	if m.Base64 {
		encode(m.Alphabet, false)
	}
	if m.Base64Wide {
		encode(m.AlphabetWide, true)
	}
	return out
}

// distinct reports whether an alphabet can be used: NewEncoding refuses
// repeated characters and line ends by panicking.
func distinct(a string) bool {
	var seen [256]bool
	for _, c := range []byte(a) {
		if seen[c] || c == '\n' || c == '\r' || c >= 0x80 {
			return false
		}
		seen[c] = true
	}
	return true
}
