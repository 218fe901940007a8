package process

import "strconv"

// The parameters of the context-triggered piecewise hash that the program
// ssdeep computes (J. Kornblum, Identifying almost identical files, 2006).
const (
	fuzzyWindow = 7
	fuzzyLength = 64 // of the first signature; the second has half
	fuzzyInit   = 0x27
	fuzzyBlocks = 31
	fuzzyMin    = 3 // smallest block size
	fuzzyDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
)

// fuzzyHash computes ssdeep's hash of what is written to it, in constant
// memory and one pass: it follows the block sizes that can still be the right
// one.
type fuzzyHash struct {
	window     [fuzzyWindow]byte
	at         int
	h1, h2, h3 uint32
	total      int64
	first, end int // of blocks
	blocks     [fuzzyBlocks]fuzzyBlock
}

type fuzzyBlock struct {
	h, half    byte // six bits are enough of the FNV hashes
	halfDigit  byte
	digit      byte // of the piece that is beyond the signature
	signature  [fuzzyLength]byte
	signatureN int
}

func newFuzzyHash() *fuzzyHash {
	f := &fuzzyHash{end: 1}
	f.blocks[0].h, f.blocks[0].half = fuzzyInit, fuzzyInit
	return f
}

// fnv is one step of FNV-1 modulo 64.
func fnv(h, c byte) byte { return (h*(0x01000193&0x3f) ^ c) & 0x3f }

// Write implements io.Writer.
func (f *fuzzyHash) Write(p []byte) (int, error) {
	for _, c := range p {
		f.total++
		f.h2 += fuzzyWindow*uint32(c) - f.h1
		f.h1 += uint32(c) - uint32(f.window[f.at])
		f.window[f.at] = c
		if f.at++; f.at == fuzzyWindow {
			f.at = 0
		}
		f.h3 = f.h3<<5 ^ uint32(c)
		for i := f.first; i < f.end; i++ {
			b := &f.blocks[i]
			b.h, b.half = fnv(b.h, c), fnv(b.half, c)
		}
		sum := f.h1 + f.h2 + f.h3
		for i := f.first; i < f.end; i++ {
			if size := uint32(fuzzyMin) << i; sum%size != size-1 {
				break // nor is it one of the next, which is twice as long
			}
			f.piece(i)
		}
	}
	return len(p), nil
}

// piece ends a piece of the block size i.
func (f *fuzzyHash) piece(i int) {
	b := &f.blocks[i]
	if b.signatureN == 0 && f.end < fuzzyBlocks {
		last := &f.blocks[f.end-1]
		f.blocks[f.end] = fuzzyBlock{h: last.h, half: last.half}
		f.end++
	}
	b.digit, b.halfDigit = fuzzyDigits[b.h], fuzzyDigits[b.half]
	if b.signatureN < fuzzyLength-1 {
		b.signature[b.signatureN] = b.digit
		b.signatureN++
		b.h, b.digit = fuzzyInit, 0
		if b.signatureN < fuzzyLength/2 {
			b.half, b.halfDigit = fuzzyInit, 0
		}
		return
	}
	if f.end-f.first >= 2 && int64(fuzzyMin)<<f.first*fuzzyLength < f.total && f.blocks[f.first+1].signatureN >= fuzzyLength/2 {
		f.first++
	}
}

// String is the hash: block size, signature, signature of twice the size.
func (f *fuzzyHash) String() string {
	i := f.first
	for int64(fuzzyMin)<<i*fuzzyLength < f.total {
		i++
	}
	i = min(i, f.end-1)
	for i > f.first && f.blocks[i].signatureN < fuzzyLength/2 {
		i--
	}
	rest := f.h1+f.h2+f.h3 != 0
	b := &f.blocks[i]
	out := strconv.AppendInt(nil, int64(fuzzyMin)<<i, 10)
	out = append(append(out, ':'), b.signature[:b.signatureN]...)
	if rest {
		out = append(out, fuzzyDigits[b.h])
	} else if b.digit != 0 {
		out = append(out, b.digit)
	}
	out = append(out, ':')
	if i < f.end-1 {
		b = &f.blocks[i+1]
		out = append(out, b.signature[:min(b.signatureN, fuzzyLength/2-1)]...)
		if rest {
			out = append(out, fuzzyDigits[b.half])
		} else if b.halfDigit != 0 {
			out = append(out, b.halfDigit)
		}
	} else if rest {
		out = append(out, fuzzyDigits[b.h])
	}
	return string(out)
}

// fuzzyPair is fuzzyHash for a file whose size is known: it follows only the
// two block sizes that are the right ones unless the file has few different
// pieces, and is many times faster.
type fuzzyPair struct {
	window     [fuzzyWindow]byte
	at         int
	h1, h2, h3 uint32
	i          uint // the block size is fuzzyMin << i
	a, b       fuzzyBlock
	ha, hb     uint32 // FNV hashes of the pieces
	half       uint32 // and of that beyond half of the second signature
}

func newFuzzyPair(size int64) *fuzzyPair {
	i := uint(0)
	for int64(fuzzyMin)<<i*fuzzyLength < size {
		i++
	}
	return newFuzzyPairAt(i)
}

// newFuzzyPairAt is for the block size fuzzyMin << i.
func newFuzzyPairAt(i uint) *fuzzyPair {
	return &fuzzyPair{i: i, ha: fuzzyInit, hb: fuzzyInit, half: fuzzyInit}
}

// near reports whether the next smaller block size may be the right one: it
// gives about twice as many pieces.
func (f *fuzzyPair) near() bool { return f.i > 0 && f.a.signatureN >= fuzzyLength/8 }

// Write implements io.Writer.
func (f *fuzzyPair) Write(p []byte) (int, error) {
	const prime = 0x01000193
	h1, h2, h3, ha, hb, half, at := f.h1, f.h2, f.h3, f.ha, f.hb, f.half, f.at
	mask := uint64(1)<<f.i - 1
	for _, c := range p {
		x := uint32(c)
		h2 += fuzzyWindow*x - h1
		h1 += x - uint32(f.window[at])
		f.window[at] = c
		if at++; at == fuzzyWindow {
			at = 0
		}
		h3 = h3<<5 ^ x
		ha, hb, half = ha*prime^x, hb*prime^x, half*prime^x
		next := uint64(h1+h2+h3) + 1
		if next&mask != 0 || next>>f.i%fuzzyMin != 0 {
			continue
		}
		// The sum modulo the block size is the block size less one.
		f.a.digit = fuzzyDigits[ha&63]
		if f.a.signatureN < fuzzyLength-1 {
			f.a.signature[f.a.signatureN] = f.a.digit
			f.a.signatureN++
			ha, f.a.digit = fuzzyInit, 0
		}
		if next>>f.i&1 != 0 {
			continue
		}
		f.b.digit, f.b.halfDigit = fuzzyDigits[hb&63], fuzzyDigits[half&63]
		if f.b.signatureN < fuzzyLength-1 {
			f.b.signature[f.b.signatureN] = f.b.digit
			f.b.signatureN++
			hb, f.b.digit = fuzzyInit, 0
			if f.b.signatureN < fuzzyLength/2 {
				half, f.b.halfDigit = fuzzyInit, 0
			}
		}
	}
	f.h1, f.h2, f.h3, f.ha, f.hb, f.half, f.at = h1, h2, h3, ha, hb, half, at
	return len(p), nil
}

// sum is the hash; false when a smaller block size is the right one.
func (f *fuzzyPair) sum() (string, bool) {
	if f.i > 0 && f.a.signatureN < fuzzyLength/2 {
		return "", false
	}
	rest := f.h1+f.h2+f.h3 != 0
	out := strconv.AppendInt(nil, int64(fuzzyMin)<<f.i, 10)
	out = append(append(out, ':'), f.a.signature[:f.a.signatureN]...)
	if rest {
		out = append(out, fuzzyDigits[f.ha&63])
	} else if f.a.digit != 0 {
		out = append(out, f.a.digit)
	}
	out = append(append(out, ':'), f.b.signature[:min(f.b.signatureN, fuzzyLength/2-1)]...)
	if rest {
		out = append(out, fuzzyDigits[f.half&63])
	} else if f.b.halfDigit != 0 {
		out = append(out, f.b.halfDigit)
	}
	return string(out), true
}
