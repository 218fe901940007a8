package process

import (
	"encoding/hex"
	"io"
	"math"
)

const (
	headerBytes = 16 // of a file that an event shows
	// maxFuzzySlow bounds files of few different pieces, whose fuzzy hash takes a
	// second and slow look; larger ones of that kind have none.
	maxFuzzySlow = 4 << 20
	// maxFuzzy is the size of the largest file that has a fuzzy hash: it costs more
	// than the three others together, and of large files it says little.
	maxFuzzy = 8 << 20
)

// content looks at what is written to it: its first bytes, its entropy and its
// fuzzy hash.
type content struct {
	header []byte
	counts [4][256]uint32 // four, so that equal bytes in a row do not wait for each other
	total  int64
	fuzzy  *fuzzyPair // nil: none is wanted
}

func newContent(size int64) *content {
	if size > maxFuzzy {
		return &content{}
	}
	return &content{fuzzy: newFuzzyPair(size)}
}

// Write implements io.Writer.
func (c *content) Write(p []byte) (int, error) {
	if n := headerBytes - len(c.header); n > 0 {
		c.header = append(c.header, p[:min(n, len(p))]...)
	}
	c.total += int64(len(p))
	for i, b := range p {
		c.counts[i&3][b]++
	}
	if c.fuzzy == nil {
		return len(p), nil
	}
	return c.fuzzy.Write(p)
}

// entropy is in bits per byte, 0 to 8 (Shannon).
func (c *content) entropy() float64 {
	if c.total == 0 {
		return 0
	}
	e := 0.0
	for b := range 256 {
		n := 0.0
		for i := range c.counts {
			n += float64(c.counts[i][b])
		}
		if n > 0 {
			p := n / float64(c.total)
			e -= p * math.Log2(p)
		}
	}
	return e
}

// maxAgain is how often a file is read again for a smaller block size before all
// of them are followed at once.
const maxAgain = 2

// into completes h; again writes the file once more.
func (c *content) into(h *Hashes, again func(io.Writer) error) error {
	h.Header, h.Entropy, h.Read = hex.EncodeToString(c.header), c.entropy(), true
	if c.fuzzy == nil {
		return nil
	}
	f := c.fuzzy
	sum, ok := f.sum()
	for n := 0; n < maxAgain && !ok && f.near(); n++ {
		f = newFuzzyPairAt(f.i - 1)
		if err := again(f); err != nil {
			return err
		}
		sum, ok = f.sum()
	}
	if h.Fuzzy = sum; ok || c.total > maxFuzzySlow {
		return nil
	}
	slow := newFuzzyHash()
	if err := again(slow); err != nil {
		return err
	}
	h.Fuzzy = slow.String()
	return nil
}
