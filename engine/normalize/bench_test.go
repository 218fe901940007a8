package normalize

import (
	"bytes"
	"io"
	"testing"
)

// BenchmarkText normalises a text of 10 MB, as the first open of one does.
func BenchmarkText(b *testing.B) {
	line := []byte("The Quick Brown Fox  jumps over\tthe lazy dog; int main(void) { return 0; }\n")
	text := bytes.Repeat(line, (10<<20)/len(line))
	r := bytes.NewReader(text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Text(io.NewSectionReader(r, 0, r.Size())); err != nil {
			b.Fatal(err)
		}
	}
}
