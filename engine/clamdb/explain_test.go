package clamdb

import (
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{"A.B:1:EP+5,20:6e656564??a?(41|42){2-7}*4445(B)", []string{
			"Target: 1, PE programs", "Offset: entry point +5 bytes, or up to 20 bytes behind",
			"bytes 6e656564  \"need\"", "any byte", "a byte b with b & f0 = a0", "either bytes 41", "2 to 7 bytes", "any number of bytes", "then a word boundary",
		}},
		{"L;Engine:81-255,Target:6,EntryPoint:1-2,NumberOfSections:3-3,Container:CL_TYPE_ZIP;(0|1)>2,2&2&3=0;aabb::wa;SL+4:ccdd::if;1/a.b/gre;0(<<4#ib2#=20,>3)", []string{
			"Entry point at byte: 1 to 2", "Number of sections: 3", "Container: CL_TYPE_ZIP",
			"Condition: ((0 or 1) more than 2 times by at least 2 different ones and 2 and 3 exactly 0 times)",
			"or the same with two bytes per character", "beginning of the last section +4 bytes", "with no letter or digit before and behind it",
			"regular expression, when 1, every match counts, anywhere behind the offset, within the maximum shift", "Expression: a.b",
			"the number 4 bytes before the last match of sub-signature 0 (binary, big-endian, 2 bytes) is = 20 and > 3",
		}},
		{"aa15bcf478d165efd2065190eb473bcb:544:Clam", []string{"Kind: hash signature of a whole file", "Size: 544 bytes"}},
		{"*:aa15bcf478d165efd2065190eb473bcb:Clam:73", []string{"of a section of a PE file", "Size: any"}},
		{"M:CL_TYPE_ZIP:*:\\.exe$:*:1-5:1:2:1a2b3c4d:*", []string{"Container: CL_TYPE_ZIP, any bytes", "matches: \\.exe$", "unpacked: 1 to 5", "Encrypted: true", "CRC-32: 1a2b3c4d"}},
		{"0:4:504b:Zip:CL_TYPE_ANY:CL_TYPE_ZIP", []string{"files are CL_TYPE_ZIP", "if at byte 4 stands 504b"}},
		{"Old=deadbeef", []string{"Name: Old", "bytes deadbeef"}},
		{"X:0:$5:deadbeef", []string{"macro group 5"}},
	} {
		f, ok := Guess(c.line)
		if !ok {
			t.Errorf("%s: no format", c.line)
			continue
		}
		words, err := Explain(c.line, f)
		if err != nil {
			t.Errorf("%s: %v", c.line, err)
			continue
		}
		text := strings.Join(words, "\n")
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", c.line, w, text)
			}
		}
	}
	if _, err := Explain("A:0:*:6x", "ndb"); err == nil || !strings.Contains(err.Error(), "column 8") {
		t.Errorf("%v", err)
	}
	if _, ok := Guess("hello"); ok {
		t.Error("hello has a format")
	}
}

func FuzzExplain(f *testing.F) {
	f.Add("A.B:1:EP+5,20:6e656564??a?(41|42){2-7}*4445(B)")
	f.Add("L;Engine:81-255,Target:6,EntryPoint:1-2;(0|1)>2,2&2=0;aabb::wa;SL+4:ccdd::if;1/a.b/gre")
	f.Fuzz(func(_ *testing.T, line string) {
		if format, ok := Guess(line); ok {
			_, _ = Explain(line, format)
		}
	})
}
