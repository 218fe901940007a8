package unpack

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// There is no free program that writes RAR, so the samples are written here: by
// the description of the format (headers), and with a small part of what the
// compression knows: literals, and matches of 2 to 9 bytes up to 4 bytes back.

// bitWriter writes bits, the highest of a byte first.
type bitWriter struct {
	out  []byte
	free uint
}

func (w *bitWriter) bits(v uint32, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.free == 0 {
			w.out, w.free = append(w.out, 0), 8
		}
		w.free--
		w.out[len(w.out)-1] |= byte(v>>i&1) << w.free
	}
}

// codes are the canonical codes of lengths.
func codes(lengths []int) []uint32 {
	out := make([]uint32, len(lengths))
	code := uint32(0)
	for n := 1; n <= 15; n++ {
		for i, l := range lengths {
			if l == n {
				out[i] = code
				code++
			}
		}
		code <<= 1
	}
	return out
}

// rarPacked packs data with the tables of a version: the sizes of its four
// alphabets and the symbol of the shortest match, whose length is least.
func rarPacked(w *bitWriter, data []byte, sizes [4]int, match, least int) {
	lengths := make([]int, sizes[0]+sizes[1]+sizes[2]+sizes[3])
	main := lengths[:sizes[0]]
	for i := range 257 { // 256 ends a file in version 4
		main[i] = 9
	}
	for i := range 7 {
		main[match+i] = 4
	}
	dist := lengths[sizes[0]:][:sizes[1]]
	for i := range 4 {
		dist[i] = 2
	}
	rest := lengths[sizes[0]+sizes[1]:]
	for i := range 16 {
		rest[i] = 4
	}
	for i := range 16 {
		rest[sizes[2]+i] = 4
	}
	// The alphabet of lengths: 16 plain ones, each of four bits, but 0 and 9 and
	// "zeros" are enough for us.
	pre := make([]int, 20)
	for _, s := range []int{0, 2, 4, 9, 18, 19, 1, 3} {
		pre[s] = 3
	}
	for _, n := range pre {
		w.bits(uint32(n), 4)
	}
	pc := codes(pre)
	for i := 0; i < len(lengths); {
		n := 0
		for i+n < len(lengths) && lengths[i+n] == 0 && n < 138 {
			n++
		}
		switch {
		case n >= 11:
			w.bits(pc[19], 3)
			w.bits(uint32(n-11), 7)
		case n >= 3:
			w.bits(pc[18], 3)
			n = min(n, 10)
			w.bits(uint32(n-3), 3)
		default:
			n = 1
			w.bits(pc[lengths[i]], 3)
		}
		i += n
	}
	mc, dc := codes(main), codes(dist)
	for i := 0; i < len(data); {
		best, back := 0, 0
		for d := 1; d <= 4 && d <= i; d++ {
			n := 0
			for n < least+6 && i+n < len(data) && data[i+n] == data[i+n-d] {
				n++
			}
			if n > best {
				best, back = n, d
			}
		}
		if best < least {
			w.bits(mc[data[i]], 9)
			i++
			continue
		}
		w.bits(mc[match+best-least], 4)
		w.bits(dc[back-1], 2)
		i += best
	}
	if sizes[0] == 299 {
		w.bits(mc[256], 9)
		w.bits(1, 2)
	}
}

// rar4 writes an archive of version 2.9 to 4.
func rar4(name string, data []byte, packed, locked bool) []byte {
	le := binary.LittleEndian
	out := []byte("Rar!\x1a\x07\x00")
	header := func(kind byte, flags uint16, body []byte) {
		h := le.AppendUint16([]byte{kind}, flags)
		h = append(le.AppendUint16(h, uint16(7+len(body))), body...)
		out = append(le.AppendUint16(out, uint16(crc32.ChecksumIEEE(h))), h...)
	}
	header(0x73, 0, make([]byte, 6))
	method, body := byte(0x30), data
	if packed {
		w := &bitWriter{}
		w.bits(0, 2) // no PPM, tables of their own
		rarPacked(w, data, [4]int{299, 60, 17, 28}, 271, 3)
		method, body = 0x33, append(w.out, 0, 0)
	}
	flags := uint16(0x8000)
	if locked {
		flags |= 4
	}
	h := le.AppendUint32(nil, uint32(len(body)))
	h = append(le.AppendUint32(h, uint32(len(data))), 3)
	h = le.AppendUint32(h, crc32.ChecksumIEEE(data))
	h = append(le.AppendUint32(h, 0x58210000), 29, method)
	h = le.AppendUint32(le.AppendUint16(h, uint16(len(name))), 0o100644)
	header(0x74, flags, append(h, name...))
	out = append(out, body...)
	header(0x7b, 0x4000, nil)
	return out
}

// rar5 writes an archive of version 5.
func rar5(name string, data []byte, packed, locked bool) []byte {
	out := []byte("Rar!\x1a\x07\x01\x00")
	header := func(fields ...any) {
		var h []byte
		for _, f := range fields {
			switch f := f.(type) {
			case int:
				h = binary.AppendUvarint(h, uint64(f))
			case uint32:
				h = binary.LittleEndian.AppendUint32(h, f)
			case string:
				h = append(h, f...)
			}
		}
		h = append(binary.AppendUvarint(nil, uint64(len(h))), h...)
		out = append(binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(h)), h...)
	}
	header(1, 0, 0)
	method, body := 0, data
	if packed {
		w := &bitWriter{}
		rarPacked(w, data, [4]int{306, 64, 16, 44}, 262, 2)
		n := len(w.out)
		// One block, the last, with tables: three bytes of size.
		head := []byte{byte(7-w.free) | 2<<3 | 0x40 | 0x80, 0, byte(n), byte(n >> 8), byte(n >> 16)}
		head[1] = 0x5a ^ head[0] ^ head[2] ^ head[3] ^ head[4]
		method, body = 3, append(head, w.out...)
	}
	file := []any{2, 2, len(body), 4, len(data), 0o644, crc32.ChecksumIEEE(data), method << 7, 1, len(name), name}
	if locked {
		// An extra record: encryption, AES-256, no flags, 2^15 rounds, salt, vector.
		extra := "\x24\x01\x00\x00\x0f" + string(make([]byte, 32))
		file = slices.Insert(file, 2, any(len(extra)))
		file[1] = 3
		file = append(file, extra)
	}
	header(file...)
	out = append(out, body...)
	header(5, 0, 0)
	return out
}

func TestRAR(t *testing.T) {
	data := append(bytes.Repeat([]byte("aaaa bbbb, abababab. "), 200), mixed()[:20_000]...)
	for name, c := range map[string]struct {
		archive []byte
		packed  bool
	}{
		"4 stored":     {rar4("m.bin", data, false, false), false},
		"4 compressed": {rar4("m.bin", data, true, false), true},
		"5 stored":     {rar5("m.bin", data, false, false), false},
		"5 compressed": {rar5("m.bin", data, true, false), true},
	} {
		if c.packed != (len(c.archive) < len(data)) {
			t.Errorf("%s: %d bytes of %d", name, len(c.archive), len(data))
		}
		r := open(c.archive, budget(c.archive))
		if r.err != nil || len(r.limits) > 0 || r.files["m.bin"] != string(data) {
			t.Errorf("%s: members %v, %d bytes, limits %v, %v", name, r.order, len(r.files["m.bin"]), r.limits, r.err)
		}
		for i := range 50 {
			cut := c.archive[:len(c.archive)*i/50]
			if r := open(cut, budget(cut)); r.err != nil {
				t.Error(r.err)
			}
		}
	}
	for name, archive := range map[string][]byte{"4": rar4("m.bin", data, false, true), "5": rar5("m.bin", data, false, true)} {
		if r := open(archive, budget(archive)); !slices.Contains(r.limits, verdict.Encrypted) || r.files["m.bin"] != "" {
			t.Errorf("%s with a password: members %v, limits %v", name, r.order, r.limits)
		}
	}
}

// What is written here is RAR to another reader, too. (Of "4 compressed" libarchive
// 3.6 wants something that RAR's own unpacker does without.)
func TestRAROracle(t *testing.T) {
	tarCommand := need.Command(t, "bsdtar")
	data := bytes.Repeat([]byte("aaaa bbbb, abababab. "), 200)
	for name, archive := range map[string][]byte{
		"4 stored": rar4("m.bin", data, false, false),
		"5 stored": rar5("m.bin", data, false, false), "5 compressed": rar5("m.bin", data, true, false),
	} {
		path := filepath.Join(t.TempDir(), "x.rar")
		must(t, os.WriteFile(path, archive, 0o600))
		out, err := exec.Command(tarCommand, "-xOf", path).Output()
		if err != nil || !bytes.Equal(out, data) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
}
