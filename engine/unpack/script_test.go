package unpack

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// The runs that are found by leaping are those found by looking at every byte.
func TestEncodedRunsAgainstMeaning(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	pick := func(s string) byte { return s[r.Intn(len(s))] }
	decoded := 0
	for i := range need.Rounds(3000, 600) {
		var b strings.Builder
		for range 1 + r.Intn(12) {
			n := r.Intn(200)
			if r.Intn(2) == 0 {
				n = 55 + r.Intn(45) // around the bounds
			}
			switch r.Intn(7) {
			case 0:
				b.WriteString(strings.Repeat("A", n)) // text of zeros is none
			case 1:
				for range n {
					b.WriteByte(pick("abcdefgh ZXSDF+/"))
				}
			case 2:
				for range n / 2 {
					fmt.Fprintf(&b, "%02x", "words and more words"[r.Intn(20)])
				}
			case 3:
				for range n / 3 {
					fmt.Fprintf(&b, "%%%02x", "words and more words"[r.Intn(20)])
				}
			case 4:
				for range n / 4 {
					fmt.Fprintf(&b, `\x%02X`, "words and more words"[r.Intn(20)])
				}
			case 5:
				for range n / 6 {
					fmt.Fprintf(&b, "%%u%04x", 0x4142+r.Intn(20))
				}
			case 6:
				b.WriteString(strings.Repeat("dGhlIGNvbnRlbnQg", n/16))
			}
			b.WriteString([]string{"\n", "", "\r\n", " ", "\\", "%", "\n\n\n"}[r.Intn(7)])
		}
		text := []byte(b.String())
		find := func(f func(w *Walker) error) (got []string) {
			w := testWalker(NewBudget(int64(len(text)), 1000, 4<<20, 250, time.Time{}))
			w.visit = func(o Object) error {
				content := make([]byte, o.Size)
				_, _ = o.Data.ReadAt(content, 0)
				got = append(got, o.Name+" "+string(content))
				return nil
			}
			if err := f(w); err != nil {
				t.Fatal(err)
			}
			return got
		}
		leaping := find(func(w *Walker) error { return w.encodedRuns(text) })
		all := find(func(w *Walker) error {
			_, _, err := w.spanRuns(text, 0, len(text), maxRuns)
			return err
		})
		if !slices.Equal(leaping, all) {
			t.Fatalf("text %d %q:\nleaping %q\nevery byte %q", i, text, leaping, all)
		}
		decoded += len(all)
	}
	if decoded < 1000 {
		t.Errorf("only %d runs: the test does not test", decoded)
	}
}
