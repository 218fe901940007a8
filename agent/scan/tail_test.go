package scan

import (
	"slices"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	full := strings.Repeat("x", tailSize-1)
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"empty lines", "\n \t\n", ""},
		{"a line", "cannot open definitions\n", "cannot open definitions"},
		{"a stack trace", "panic: over this file\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:7 +0x1d\r\nexit status 2\n", "panic: over this file | goroutine 1 [running]: | main.main() | /src/main.go:7 +0x1d | exit status 2"},
		{"controls", "a\x1b[31mb\n", "a\uFFFD[31mb"},
		{"the end of much", strings.Repeat("y", tailSize) + full + "\n", full},
		{"cut through a character", "é" + full, full},
		{"cut through a long one", "\U0001F600" + full, full},
		{"not UTF-8", "\x80\x80\n", "\uFFFD\uFFFD"},
	} {
		var words tail
		for piece := range slices.Chunk([]byte(c.in), 1000) {
			if _, err := words.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if got := words.String(); got != c.want {
			t.Errorf("%s: %.80q, want %.80q", c.name, got, c.want)
		}
	}
}
