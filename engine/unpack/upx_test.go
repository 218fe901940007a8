package unpack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"math/bits"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ulikunitz/xz/lzma"
)

// nrvWriter packs as nrv unpacks.
type nrvWriter struct {
	out     []byte
	variant byte
	step    int
	word    int // where the word of bits stands
	left    uint
}

func (w *nrvWriter) bit(b uint32) {
	if w.left == 0 {
		w.word, w.left = len(w.out), uint(8*w.step)
		w.out = append(w.out, make([]byte, w.step)...)
	}
	w.left--
	// Words are little-endian: bit n is in byte n/8.
	w.out[w.word+int(w.left/8)] |= byte(b << (w.left % 8))
}

func (w *nrvWriter) long(v uint32) {
	for i := bits.Len32(v) - 2; i >= 0; i-- {
		w.bit(v >> i & 1)
		if i == 0 {
			w.bit(1)
		} else {
			w.bit(0)
		}
	}
}

// offset writes the part of an offset above its lowest byte.
func (w *nrvWriter) offset(x uint32) {
	if w.variant == 'B' {
		w.long(x)
		return
	}
	var back []uint32 // the bits from the last to the first
	for {
		back = append(back, x&1)
		if x >>= 1; x == 1 {
			break
		}
		back = append(back, x&1, 0) // go on
		x = x>>1 + 1
	}
	for i := len(back) - 1; i >= 0; i-- {
		w.bit(back[i])
	}
	w.bit(1)
}

func (w *nrvWriter) pack(data []byte) []byte {
	seen := map[string]int{}
	for i := 0; i < len(data); {
		from, n := 0, 0
		if i+6 <= len(data) {
			if at, ok := seen[string(data[i:i+6])]; ok {
				for from = at; i+n < len(data) && n < 3000 && data[from+n] == data[i+n]; n++ {
				}
			}
		}
		if n == 0 {
			w.bit(1)
			w.out = append(w.out, data[i])
			n = 1
		} else {
			w.match(uint32(i-from), uint32(n))
		}
		for ; n > 0; n-- {
			if i+6 <= len(data) {
				seen[string(data[i:i+6])] = i
			}
			i++
		}
	}
	w.bit(0)
	w.offset(0x1000002)
	w.out = append(w.out, 0xff)
	return w.out
}

func (w *nrvWriter) match(off, n uint32) {
	far := uint32(0x500)
	if w.variant == 'B' {
		far = 0xd00
	}
	length := n - 1
	if off > far {
		length--
	}
	w.bit(0)
	flag := uint32(0)
	raw := off - 1
	switch w.variant {
	case 'D':
		if length < 4 {
			flag = length >> 1
		}
		raw = raw<<1 | flag ^ 1
	case 'E':
		if length <= 2 {
			flag = 1
		}
		raw = raw<<1 | flag ^ 1
	}
	w.offset(raw>>8 + 3)
	w.out = append(w.out, byte(raw))
	switch {
	case w.variant == 'E' && flag == 1:
		w.bit(length - 1)
	case w.variant == 'E' && length <= 4:
		w.bit(1)
		w.bit(length - 3)
	case w.variant == 'E':
		w.bit(0)
		w.long(length - 3)
	default:
		high := length >> 1
		if length > 3 {
			high = 0
		}
		if w.variant == 'B' {
			w.bit(high)
		}
		if length <= 3 {
			w.bit(length & 1)
			return
		}
		w.bit(0)
		w.long(length - 2)
	}
}

func upxPacked(t testing.TB, method byte, data []byte) []byte {
	t.Helper()
	switch {
	case method >= 2 && method <= 10:
		return (&nrvWriter{variant: "BDE"[(method-2)/3], step: [3]int{4, 1, 2}[(method-2)%3]}).pack(data)
	case method == 14:
		var b bytes.Buffer
		w, err := lzma.WriterConfig{Properties: &lzma.Properties{LC: 3, LP: 0, PB: 2}, Size: int64(len(data)), SizeInHeader: true}.NewWriter(&b)
		must(t, err)
		_, err = w.Write(data)
		must(t, err)
		must(t, w.Close())
		return append([]byte{2 | 3<<3, 3}, b.Bytes()[13:]...)
	}
	return data
}

// upxELF packs a program of this machine's kind as UPX does: headers, segments,
// loader, what is between the segments.
func upxELF(t testing.TB, method byte, program []byte, mark string) []byte {
	t.Helper()
	le := binary.LittleEndian
	f, err := elf.NewFile(bytes.NewReader(program))
	must(t, err)
	head := make([]byte, 64+2*56, 4096)
	copy(head, program[:64])
	le.PutUint64(head[32:], 64)
	le.PutUint16(head[56:], 2)
	head = append(head, "\x00\x00\x00\x00"+mark+"\x00\x00\x0d\x16"...)
	head = le.AppendUint32(append(head, 0, 0, 0, 0), uint32(len(program)))
	head = le.AppendUint32(head, uint32(len(program)))
	block := func(data []byte, filter, marker byte) {
		packed := upxPacked(t, method, data)
		if len(packed) >= len(data) {
			packed, filter = data, 0
		}
		head = le.AppendUint32(le.AppendUint32(head, uint32(len(data))), uint32(len(packed)))
		head = append(append(head, method, filter, marker, 0), packed...)
	}
	end := uint64(0)
	var gaps [][]byte
	first := true
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Off > end {
			gaps = append(gaps, program[end:p.Off])
		}
		end = p.Off + p.Filesz
		data := program[p.Off:end]
		if first {
			n := 64 + 56*len(f.Progs)
			block(data[:n], 0, 0)
			data, first = data[n:], false
		}
		if p.Flags&elf.PF_X != 0 {
			filtered, marker := upxFiltered(data)
			block(filtered, 0x49, marker)
		} else {
			block(data, 0, 0)
		}
	}
	if uint64(len(program)) > end {
		gaps = append(gaps, program[end:])
	}
	head = append(head, "\x00\x00\x00\x00UPX!the loader stands here"...)
	for _, g := range gaps {
		block(g, 0, 0)
	}
	return append(head, "\x00\x00\x00\x00UPX!"...)
}

// upxFiltered is code with the targets of calls made absolute: the filter 0x49,
// with a highest byte that no call has.
func upxFiltered(code []byte) (b []byte, marker byte) {
	b = slices.Clone(code)
	var have [256]bool
	for i := range len(b) - 5 {
		have[b[i+1]] = true
	}
	marker = byte(slices.Index(have[:], false))
	if have[marker] {
		return b, 0
	}
	last := 0
	for i := 0; i+5 < len(b); i++ {
		c := b[i]
		if c != 0xe8 && c != 0xe9 && !(i > 0 && i != last && b[i-1] == 0x0f && c >= 0x80 && c <= 0x8f) {
			continue
		}
		if to := binary.LittleEndian.Uint32(b[i+1:]) + uint32(i) + 1; to < uint32(len(b)) && to < 1<<24 {
			binary.BigEndian.PutUint32(b[i+1:], to+uint32(marker)<<24)
			i += 4
			last = i + 1
		}
	}
	return b, marker
}

// smallELF is a program of two segments with a gap between them.
func smallELF() []byte {
	le := binary.LittleEndian
	b := make([]byte, 9000)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 62)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	for i, s := range [][2]uint64{{0, 4000}, {4096, 4000}} {
		h := b[64+56*i:]
		le.PutUint32(h, 1)
		le.PutUint32(h[4:], 5)
		le.PutUint64(h[8:], s[0])
		le.PutUint64(h[32:], s[1])
	}
	copy(b[300:], bytes.Repeat([]byte("code and words, "), 150))
	copy(b[4000:], "in the gap")
	for i := 4100; i < 8000; i += 40 {
		copy(b[i:], []byte{0x0f, 0x84, byte(i), 0, 0, 0, 0xe8, byte(i), byte(i >> 3), 0, 0, 0xe9, 1, 2})
	}
	copy(b[8500:], "behind the segments")
	return b
}

func TestUPX(t *testing.T) {
	program := smallELF()
	for method := byte(2); method <= 14; method++ {
		if method > 10 && method < 14 {
			continue
		}
		packed := upxELF(t, method, program, "UPX!")
		r := open(packed, budget(packed))
		if r.err != nil || len(r.limits) > 0 || r.files["unpacked-upx"] != string(program) {
			t.Errorf("method %d: %d bytes of %d, limits %v", method, len(r.files["unpacked-upx"]), len(program), r.limits)
		}
	}
	// Malware wipes the mark out.
	packed := upxELF(t, 8, program, "YTS\x99")
	if r := open(packed, budget(packed)); r.files["unpacked-upx"] != string(program) {
		t.Error("without its mark: not unpacked")
	}
	// A program of the system, with real code.
	if code, err := os.ReadFile("/proc/self/exe"); err == nil && len(code) > 1<<20 {
		n := copy(program[4096:], code[0x2000:0x2000+4000])
		packed := upxELF(t, 8, program, "UPX!")
		if r := open(packed, budget(packed)); r.files["unpacked-upx"] != string(program) {
			t.Errorf("with %d bytes of code: not unpacked", n)
		}
	}
	// Other programs have nothing inside, whatever stands in them.
	if r := open(program, budget(program)); len(r.files) > 0 || len(r.limits) > 0 {
		t.Errorf("a program that is not packed: %v, %v", r.order, r.limits)
	}
}

// A program that claims to be large is not made large.
func TestUPXBomb(t *testing.T) {
	program := smallELF()
	binary.LittleEndian.PutUint64(program[64+56+32:], 1<<31)
	head := program[:64+112]
	packed := slices.Clone(smallELF()[:64+112])
	packed = append(packed, "\x00\x00\x00\x00UPX!\x00\x00\x0d\x16\x00\x00\x00\x00\xff\xff\xff\x7f\x00\x00\x10\x00"...)
	packed = binary.LittleEndian.AppendUint32(packed, uint32(len(head)))
	packed = binary.LittleEndian.AppendUint32(packed, uint32(len(head)))
	packed = append(append(packed, 8, 0, 0, 0), head...)
	b := NewBudget(int64(len(packed)), 100, 8<<20, 250, time.Time{})
	r := open(packed, b)
	if r.err != nil || b.held != 0 || b.Bytes < 0 || len(r.files["unpacked-upx"]) > 8<<20 {
		t.Errorf("%v, %d bytes, budget %+v", r.err, len(r.files["unpacked-upx"]), b)
	}
}

func TestNRV(t *testing.T) {
	data := mixed()[:60_000]
	for method := byte(2); method <= 10; method++ {
		packed := upxPacked(t, method, data)
		n := &nrv{in: packed, step: [3]int{4, 1, 2}[(method-2)%3]}
		m, release, err := testWalker(budget(data)).decode(func(out *sink) error { return n.decode("BDE"[(method-2)/3], out) })
		must(t, err)
		got, err := io.ReadAll(io.NewSectionReader(m, 0, m.size))
		must(t, err)
		release()
		if !bytes.Equal(got, data) || len(packed) > len(data)*9/10 {
			t.Errorf("method %d: %d bytes of %d, packed %d", method, len(got), len(data), len(packed))
		}
	}
}
