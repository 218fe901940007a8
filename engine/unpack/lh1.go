package unpack

import "bufio"

// lh1 is the coding of LZHUF (Yoshizaki and Okumura, 1988; LHA's method lh1):
// adaptive Huffman coding of 314 symbols, distances of 12 bits of which the upper
// 6 have a fixed code.
type lh1 struct {
	freq   [lh1Table + 1]int
	parent [lh1Table + lh1Symbols]int
	child  [lh1Table]int // a node's first child, or lh1Table plus a symbol
}

const (
	lh1Symbols = 314
	lh1Table   = 2*lh1Symbols - 1
	lh1Root    = lh1Table - 1
	lh1Most    = 0x8000
)

func newLH1() *lh1 {
	t := &lh1{}
	for i := range lh1Symbols {
		t.freq[i], t.child[i], t.parent[i+lh1Table] = 1, i+lh1Table, i
	}
	for i, j := 0, lh1Symbols; j <= lh1Root; i, j = i+2, j+1 {
		t.freq[j] = t.freq[i] + t.freq[i+1]
		t.child[j] = i
		t.parent[i], t.parent[i+1] = j, j
	}
	t.freq[lh1Table] = 0xffff
	return t
}

// rebuild halves the frequencies.
func (t *lh1) rebuild() {
	j := 0
	for i := range lh1Table {
		if t.child[i] >= lh1Table {
			t.freq[j], t.child[j] = (t.freq[i]+1)/2, t.child[i]
			j++
		}
	}
	for i, j := 0, lh1Symbols; j < lh1Table; i, j = i+2, j+1 {
		f := t.freq[i] + t.freq[i+1]
		k := j
		for k > 0 && f < t.freq[k-1] {
			k--
		}
		copy(t.freq[k+1:j+1], t.freq[k:j])
		copy(t.child[k+1:j+1], t.child[k:j])
		t.freq[k], t.child[k] = f, i
	}
	for i := range lh1Table {
		k := t.child[i]
		t.parent[k] = i
		if k < lh1Table {
			t.parent[k+1] = i
		}
	}
}

// update counts a symbol and keeps the nodes in the order of frequency.
func (t *lh1) update(s int) {
	if t.freq[lh1Root] == lh1Most {
		t.rebuild()
	}
	c := t.parent[s+lh1Table]
	for {
		t.freq[c]++
		k := t.freq[c]
		l := c + 1
		if k > t.freq[l] {
			for l+1 <= lh1Table && k > t.freq[l+1] {
				l++
			}
			t.freq[c], t.freq[l] = t.freq[l], k
			i, j := t.child[c], t.child[l]
			t.parent[i] = l
			if i < lh1Table {
				t.parent[i+1] = l
			}
			t.parent[j] = c
			if j < lh1Table {
				t.parent[j+1] = c
			}
			t.child[c], t.child[l] = j, i
			c = l
		}
		if c == lh1Root {
			return
		}
		c = t.parent[c]
	}
}

func unlh1(o Object, size int64, out *sink) error {
	b := &bitReader{r: bufio.NewReader(o.reader()), order: msbFirst}
	t := newLH1()
	// 1 code of 3 bits, 3 of 4, 8 of 5, 12 of 6, 24 of 7, 16 of 8.
	var lengths [64]uint8
	for i := range lengths {
		switch {
		case i < 1:
			lengths[i] = 3
		case i < 4:
			lengths[i] = 4
		case i < 12:
			lengths[i] = 5
		case i < 24:
			lengths[i] = 6
		case i < 48:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	upper, err := newPrefix(lengths[:])
	if err != nil {
		return err
	}
	for out.size() < size {
		c := t.child[lh1Root]
		for c < lh1Table {
			c = t.child[c+int(b.take(1))]
		}
		c -= lh1Table
		t.update(c)
		if b.err != nil {
			return b.err
		}
		if c < 256 {
			err = out.WriteByte(byte(c))
		} else {
			d, e := b.symbol(upper)
			if e != nil {
				return e
			}
			back := int64(d)<<6 + int64(b.take(6)) + 1
			err = out.copy(back, int(min(int64(c-256+3), size-out.size())), ' ')
		}
		if err != nil {
			return err
		}
	}
	return nil
}
