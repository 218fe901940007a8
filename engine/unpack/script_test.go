package unpack

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
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

// A span of letters that is longer than what is looked at in one go hides no run.
func TestEncodedRunsOfLongSpans(t *testing.T) {
	const filler, content = `\x41%42\u0043`, "words and more words, as texts have them: "
	run := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(content, 9)))
	for _, before := range []int{checkEvery - 500, checkEvery - 100, checkEvery - 59, checkEvery - 1, checkEvery, checkEvery + 59, 2 * checkEvery} {
		text := strings.Repeat(filler, before/len(filler)+1)[:before] + "\\" + run + "\\" + filler
		var got []string
		w := testWalker(NewBudget(int64(len(text)), 1000, 4<<20, 250, time.Time{}))
		w.visit = func(o Object) error {
			b := make([]byte, o.Size)
			_, err := io.ReadFull(o.reader(), b)
			got = append(got, string(b))
			return err
		}
		if err := w.encodedRuns([]byte(text)); err != nil || len(got) != 1 || !strings.HasSuffix(got[0], content) {
			t.Errorf("behind %d letters: %q, %v", before, got, err)
		}
	}
}

// askedContext counts how often it is asked whether it has ended.
type askedContext struct {
	context.Context
	asked int
}

func (c *askedContext) Err() error {
	c.asked++
	return c.Context.Err()
}

// What takes long over a text asks the context all the time, also where it finds
// nothing.
func TestTextsAskTheContext(t *testing.T) {
	const size = 8 << 20
	for name, c := range map[string]struct {
		unit  string
		every int // bytes, between questions
		look  func(w *Walker, text []byte) error
	}{
		"begin":     {"begin", checkEvery, (*Walker).textMembers},
		"BinHex":    {"(This file must be converted with BinHex 4.0)\n:", checkEvery, (*Walker).binHex},
		"scripts":   {"/JS ", checkEvery, (*Walker).pdfScripts},
		"data URIs": {"data:,", checkEvery, (*Walker).dataURIs},
		"words":     {"words and ", checkEvery, (*Walker).encodedRuns},
		"no runs":   {`\x41%42\u0043`, checkEvery, (*Walker).encodedRuns},
		"escapes": {`\x41`, checkEvery, func(w *Walker, text []byte) error {
			_, _, err := w.escapes(text)
			return err
		}},
		"base64": {"QUJDREVGR0hJ\n", checkEvery, func(w *Walker, text []byte) error {
			text = append([]byte(strings.Repeat("QUJD", minSpan)), text...)
			end, _, err := w.runEnd(text, 0)
			if end < size {
				return fmt.Errorf("the run ends at %d", end)
			}
			return err
		}},
		"digits": {"41", 2 * checkEvery, func(w *Walker, text []byte) error {
			return w.likelyDecoded("m", text, 512, decodeHex)
		}},
		"a decoder": {"m", checkEvery / 2, func(w *Walker, text []byte) error {
			return w.Produce("m", func(out *sink) error { return out.readAll(bytes.NewReader(text)) })
		}},
		"a stream": {"m", checkEvery / 2, func(w *Walker, text []byte) error { return w.Stream("m", bytes.NewReader(text)) }},
		"bytes":    {"m", checkEvery, func(w *Walker, text []byte) error { return w.Bytes("m", text) }},
		"reading": {"m", size / 3, func(w *Walker, text []byte) error {
			_, release := w.whole(Object{Data: bytes.NewReader(text), Size: int64(len(text))})
			release()
			return nil
		}},
	} {
		text := []byte(strings.Repeat(c.unit, size/len(c.unit)))
		w := testWalker(NewBudget(size, 1000, 64<<20, 250, time.Time{}))
		ctx := &askedContext{Context: t.Context()}
		w.ctx = ctx
		if err := c.look(w, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if least := size/c.every - 1; ctx.asked < least {
			t.Errorf("%s: the context was asked %d times, want %d at least", name, ctx.asked, least)
		}
	}
}

// Where the line that starts a yEnc file ends does not matter, nor how many starts
// stand on it.
func TestYEncStarts(t *testing.T) {
	var data []byte
	for _, c := range []byte(text) {
		data = append(data, c+42)
	}
	for name, head := range map[string]string{
		"a short line":   "=ybegin line=128 size=5 name=a.txt\n",
		"a long line":    "=ybegin line=128 " + strings.Repeat("x", 70<<10) + " name=a.txt\r\n",
		"after another":  "=ybegin name=b\nzz\n=yend\n=ybegin line=128 name=a.txt\n",
		"after mentions": "see =ybegin or =ybegin \nname=c\n=ybegin name=a.txt\n",
	} {
		file := head + string(data) + "\n=yend size=5\n"
		if got, limits, err := tree([]byte(file), budget([]byte(file))); err != nil || len(limits) > 0 || !slices.Contains(got, text) {
			t.Errorf("%s: %.200q, %v, %v", name, got, limits, err)
		}
	}
}

// leading is a loop over single letters, eight at a time.
func TestLeading(t *testing.T) {
	r := rand.New(rand.NewSource(6))
	for range need.Rounds(20000, 2000) {
		text := make([]byte, r.Intn(60))
		for i := range text {
			text[i] = "09afAFgzGZ+/-_=%\\\n"[r.Intn(10+r.Intn(9))]
		}
		class := []byte{letterHex, letterBase64, letterSpan, letterEscape}[r.Intn(4)]
		most := r.Intn(70)
		n, all := 0, byte(0xff)
		for n < min(len(text), most) && letters[text[n]]&class != 0 {
			all &= letters[text[n]]
			n++
		}
		if gotN, gotAll := leading(text, class, most); gotN != n || gotAll != all {
			t.Fatalf("%q, class %x, most %d: %d of classes %x, want %d of %x", text, class, most, gotN, gotAll, n, all)
		}
	}
}
