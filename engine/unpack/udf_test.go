package unpack

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// udfImage is a UDF image with a file in every form: contents in its entry, in one
// piece, in two pieces with a hole between, and with descriptors that go on
// elsewhere. With metadata the directories and entries lie in a metadata partition
// (UDF 2.50) of which the two halves are apart.
func udfImage(metadata bool) []byte {
	const block = 512
	const partition = 300 // first block
	le := binary.LittleEndian
	img := make([]byte, 400*block)
	tag := func(at int, id uint16, body ...any) []byte {
		d := img[at*block : (at+1)*block]
		le.PutUint16(d, id)
		le.PutUint16(d[2:], 3)
		le.PutUint32(d[12:], uint32(at-partition))
		if at < partition {
			le.PutUint32(d[12:], uint32(at))
		}
		for i := 0; i < len(body); i += 2 {
			b := d[body[i].(int):]
			switch v := body[i+1].(type) {
			case uint64:
				le.PutUint64(b, v)
			case int:
				le.PutUint32(b, uint32(v))
			case uint16:
				le.PutUint16(b, v)
			case byte:
				b[0] = v
			case string:
				copy(b, v)
			case []byte:
				copy(b, v)
			}
		}
		return d
	}
	// seal sets the checksums, for readers that look at them.
	seal := func() {
		for at := 0; at+block <= len(img); at += block {
			d := img[at : at+block]
			id := le.Uint16(d)
			if at/block < 256 && at/block > 40 || id == 0 || id > 300 || le.Uint16(d[2:]) != 3 || string(d[1:3]) == "CD" {
				continue
			}
			le.PutUint16(d[10:], block-16)
			le.PutUint16(d[8:], crc16(d[16:]))
			d[4] = 0
			sum := byte(0)
			for _, c := range d[:16] {
				sum += c
			}
			d[4] = sum
		}
	}
	for i, s := range []string{"BEA01", "NSR03", "TEA01"} {
		copy(img[32768+2048*i:], "\x00"+s+"\x01")
	}
	const sequence = 257
	tag(256, udfAnchor, 16, 16*block, 20, sequence, 24, 16*block, 28, sequence)
	domain := "\x00*OSTA UDF Compliant\x00\x00\x00\x00\x01\x02"
	tag(sequence, 1, 24, "\x08disk", 55, byte(5))
	tag(sequence+1, udfPartition, 16, 2, 20, uint16(1), 24, "\x00+NSR03", 184, 1, 188, partition, 192, 100)
	charset := "\x00OSTA Compressed Unicode"
	maps := []byte{1, 6, 1, 0, 0, 0}
	count, set := 1, uint16(0)
	if metadata {
		m := make([]byte, 64)
		m[0], m[1] = 2, 64
		copy(m[4:], "\x00*UDF Metadata Partition")
		le.PutUint16(m[36:], 1)
		le.PutUint32(m[40:], 50)         // the metadata file
		le.PutUint32(m[44:], 51)         // its copy
		le.PutUint32(m[48:], 0xffffffff) // no bitmap
		le.PutUint32(m[52:], 1)
		le.PutUint16(m[56:], 1)
		maps = append(maps, m...)
		count, set = 2, 1
	}
	tag(sequence+2, udfLogical, 16, 3, 20, charset, 84, "\x08disk", 211, byte(0), 212, block, 216, domain,
		248, block, 252, 0, 256, set, 264, len(maps), 268, count, 440, maps)
	tag(sequence+3, udfTerminating)

	// at is where a block of the partition with the entries lies: the metadata file
	// has blocks 0 to 3 at 60, and the others at 80.
	at := func(n int) int {
		switch {
		case !metadata:
			return partition + n
		case n < 4:
			return partition + 60 + n
		}
		return partition + 80 + n - 4
	}
	icb := func(kind byte, flags uint16) []byte {
		b := make([]byte, 20)
		b[4], b[8], b[11] = 4, 1, kind
		le.PutUint16(b[18:], flags)
		return b
	}
	entry := func(where int, kind byte, flags uint16, size int, list []byte) {
		tag(where, udfExtendedFile, 16, icb(kind, flags), 44, 0x7fff, 48, uint16(1), 56, uint64(size), 64, uint64(size),
			212, len(list), 216, list)
	}
	short := func(pairs ...int) []byte {
		var b []byte
		for _, v := range pairs {
			b = le.AppendUint32(b, uint32(v))
		}
		return b
	}
	if metadata {
		entry(partition+50, 250, 0, 12*block, short(4*block, 60, 8*block, 80))
		entry(partition+51, 251, 0, 12*block, short(4*block, 60, 8*block, 80))
	}
	tag(at(0), udfFileSet, 48, charset, 112, "\x08disk", 240, charset, 400, block, 404, 1, 408, set, 416, domain)
	fid := func(name string, flags byte, block int) []byte {
		b := make([]byte, (38+1+len(name)+3)&^3)
		le.PutUint16(b, udfFileID)
		le.PutUint16(b[2:], 3)
		le.PutUint16(b[16:], 1)
		b[18], b[19] = flags, byte(1+len(name))
		if flags&8 != 0 {
			b[19] = 0
			b = b[:40]
		}
		le.PutUint32(b[20:], 512)
		le.PutUint32(b[24:], uint32(block))
		le.PutUint16(b[28:], set)
		if flags&8 == 0 {
			b[38] = 8
			copy(b[39:], name)
		}
		le.PutUint16(b[10:], uint16(len(b)-16))
		le.PutUint16(b[8:], crc16(b[16:]))
		for _, c := range b[:16] {
			b[4] += c
		}
		return b
	}
	root := slices.Concat(fid("", 2|8, 1), fid("sub", 2, 2), fid("deleted", 4, 9), fid("inside", 0, 3), fid("again", 0, 3))
	sub := slices.Concat(fid("", 2|8, 1), fid("plain", 0, 5), fid("holes", 0, 6), fid("more", 0, 7))
	entry(at(1), 4, 3, len(root), root)
	entry(at(2), 4, 3, len(sub), sub)
	small := "the text of a small file"
	entry(at(3), 5, 3, len(small), []byte(small))
	// Data are in the plain partition: long descriptors name it.
	long := func(quads ...int) []byte {
		var b []byte
		for i := 0; i < len(quads); i += 2 {
			b = le.AppendUint32(b, uint32(quads[i]))
			b = le.AppendUint32(b, uint32(quads[i+1]))
			b = append(b, make([]byte, 8)...)
		}
		return b
	}
	for i := range 10 * block {
		img[(partition+20)*block+i] = byte('a' + i/block)
	}
	entry(at(5), 5, 1, 700, long(700, 20))
	entry(at(6), 5, 1, 3*block-12, long(block, 22, 1<<30|block, 0, 500, 25))
	entry(at(7), 5, 1, 2*block, long(block, 26, 3<<30|block, 40))
	tag(partition+40, udfMoreExtents, 16, 0, 20, 16, 24, long(block, 28))
	seal()
	return img
}

// crc16 is the checksum of ECMA-167, 7.2.6.
func crc16(b []byte) (crc uint16) {
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

func TestUDF(t *testing.T) {
	letters := func(c string, n int) string { return strings.Repeat(c, n) }
	want := map[string]string{
		"inside":    "the text of a small file",
		"sub/plain": letters("a", 512) + letters("b", 188),
		"sub/holes": letters("c", 512) + letters("\x00", 512) + letters("f", 500),
		"sub/more":  letters("g", 512) + letters("i", 512),
	}
	for _, metadata := range []bool{false, true} {
		img := udfImage(metadata)
		if kind := filetype.Detect(img); kind != filetype.UDF {
			t.Fatalf("type %s", kind)
		}
		r := open(img, budget(img))
		if r.err != nil || len(r.limits) > 0 || len(r.files) != len(want) {
			t.Errorf("metadata %v: %v %v %v", metadata, r.order, r.limits, r.err)
		}
		for name, text := range want {
			if string(r.files[name]) != text {
				t.Errorf("metadata %v: %s: %d bytes %.20q", metadata, name, len(r.files[name]), r.files[name])
			}
		}
		// The directory leads to its own parent: ends, and everything else is found.
		loop := bytes.Clone(img)
		at := bytes.Index(loop, []byte("\x08plain")) - 38
		loop[at+18] |= 2
		loop[at+24] = 1
		if r := open(loop, budget(loop)); r.err != nil || len(r.files) != len(want)-1 {
			t.Errorf("circle: %v %v %v", r.order, r.limits, r.err)
		}
		// Without an anchor nothing can be read, which is said.
		bad := bytes.Clone(img)
		clear(bad[256*512 : 257*512])
		if r := open(bad, budget(bad)); r.err != nil || !slices.Contains(r.limits, verdict.Damaged) {
			t.Errorf("no anchor: %v %v", r.limits, r.err)
		}
	}
}

func FuzzUDF(f *testing.F) {
	images := [][]byte{udfImage(false), udfImage(true)}
	for i := range images {
		for _, at := range []int{257*512 + 512 + 188, 301*512 + 56, 302*512 + 216} {
			f.Add(byte(i), []byte{byte(at), byte(at >> 8), byte(at >> 16), 0xff})
		}
	}
	f.Fuzz(func(t *testing.T, which byte, changes []byte) {
		data := bytes.Clone(images[int(which)%len(images)])
		for changes = changes[:min(len(changes), 256)]; len(changes) >= 4; changes = changes[4:] {
			at := int(changes[0]) | int(changes[1])<<8 | int(changes[2]&3)<<16
			if at < len(data) {
				data[at] = changes[3]
			}
		}
		b := NewBudget(int64(len(data)), 100, 4<<20, 250, time.Now().Add(time.Minute))
		r := open(data, b)
		if r.err != nil || slices.Contains(r.limits, verdict.LimitTime) {
			t.Fatal(r.limits, r.err)
		}
		if b.held != 0 || b.Bytes < 0 || b.Files < 0 {
			t.Errorf("budget %+v", b)
		}
	})
}

// A metadata partition of as many pieces as may be, of which a file takes one
// piece after the other, again and again: the place of each is found without
// looking at all of them, whole pieces are taken at once, and the deadline ends
// what is left.
func TestUDFMetadataPieces(t *testing.T) {
	const block = 512
	newUDF := func(deadline time.Time) (*udf, *[]verdict.Limit) {
		limits := new([]verdict.Limit)
		u := &udf{block: block, maps: []udfMap{{count: 1 << 22}, {file: &holes{size: maxUDFExtents * 2 * block}}}}
		u.w = &Walker{ctx: t.Context(), budget: NewBudget(1<<20, 1000, 100<<20, 250, deadline), note: func(l verdict.Limit) { *limits = append(*limits, l) }}
		for k := range int64(maxUDFExtents) { // two blocks each, and a gap behind
			must(t, u.maps[1].file.add(k*2*block, 2*block, k*3*block))
		}
		return u, limits
	}
	u, limits := newUDF(time.Time{})
	pieces := u.maps[1].file.pieces
	for _, at := range []uint32{0, 1, 2, 77_777, 2*maxUDFExtents - 1} {
		stored, rest := u.place(udfAddress{at, 1})
		if want := int64(at/2*3+at%2) * block; stored != want || rest != int64(2-at%2)*block {
			t.Errorf("block %d is at %d, %d follow; want %d", at, stored, rest, want)
		}
	}
	if at, _ := u.place(udfAddress{2 * maxUDFExtents, 1}); at >= 0 {
		t.Errorf("a block behind the last is at %d", at)
	}
	f := &holes{size: maxUDFExtents * 2 * block}
	if err := u.piece(f, 0, f.size, udfAddress{0, 1}); err != nil || len(f.pieces) != len(pieces) || len(*limits) > 0 {
		t.Errorf("%d pieces, limits %v, error %v", len(f.pieces), *limits, err)
	}
	u, limits = newUDF(time.Now().Add(-time.Second))
	f = &holes{size: maxUDFExtents * 2 * block}
	if err := u.piece(f, 0, f.size, udfAddress{0, 1}); err == nil || len(f.pieces) > 0 || !slices.Contains(*limits, verdict.LimitTime) {
		t.Errorf("after the deadline: %d pieces, limits %v, error %v", len(f.pieces), *limits, err)
	}
}
