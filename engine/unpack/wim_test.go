package unpack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

func wimSeed(t *testing.T, compression string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/seeds/s-" + compression + ".wim")
	must(t, err)
	return data
}

// TestWIM reads a folder that wimlib-imagex 1.13.6 captured: names with their
// folders, one of two files of the same content, and none for an empty one.
func TestWIM(t *testing.T) {
	var long strings.Builder
	for i := range 120 {
		fmt.Fprintf(&long, "line %d of the file that is packed, again and again\n", i%37)
	}
	calls := strings.Repeat("\xe8\x01\x02\x00\x00", 200) + long.String()[:700] + strings.Repeat("A", 700)
	for _, compression := range []string{"lzx", "xpress"} {
		data := wimSeed(t, compression)
		r := open(data, budget(data))
		want := map[string]string{"readme.txt": "short\n", "folder/long.txt": long.String(), "folder/inner/grüße.bin": calls}
		if r.err != nil || len(r.limits) > 0 || len(r.order) != len(want) {
			t.Errorf("%s: members %q, limits %v, error %v", compression, r.order, r.limits, r.err)
		}
		for name, content := range want {
			if r.files[name] != content {
				t.Errorf("%s: %s has %d bytes, not the right ones", compression, name, len(r.files[name]))
			}
		}
	}
}

// What is wrong in the head, in the table of resources or in a resource is
// damage: the rest is read.
func TestWIMDamage(t *testing.T) {
	le := binary.LittleEndian
	lzx := wimSeed(t, "lzx")
	table, size := int64(le.Uint64(lzx[56:])), int64(le.Uint64(lzx[64:]))
	if size%50 != 0 || size < 200 {
		t.Fatalf("table of %d bytes", size)
	}
	var packed, meta int64 // entries
	for at := table; at < table+size; at += 50 {
		switch flags := lzx[at+7]; {
		case flags&wimMetadata != 0:
			meta = at
		case flags&wimPacked != 0:
			packed = at
		}
	}
	for _, c := range []struct {
		name    string
		change  func(b []byte)
		members int
		damaged bool
	}{
		{"as it was", func([]byte) {}, 3, false},
		{"chunks of 1000 bytes", func(b []byte) { le.PutUint32(b[20:], 1000) }, 0, true},
		{"chunks of 1 GB", func(b []byte) { le.PutUint32(b[20:], 1<<30) }, 0, true},
		{"no compression known", func(b []byte) { le.PutUint32(b[16:], 2) }, 3, true},
		{"the table outside", func(b []byte) { le.PutUint64(b[56:], 1<<40) }, 0, true},
		{"a table without end", func(b []byte) { le.PutUint64(b[64:], 1<<60) }, 0, true},
		{"a compressed table", func(b []byte) { b[55] |= wimPacked }, 0, true},
		{"solid", func(b []byte) { b[packed+7] |= wimOne }, 2, true},
		{"free", func(b []byte) { b[packed+7] |= wimFree }, 2, false},
		{"of another part", func(b []byte) { b[packed+24] = 7 }, 2, false},
		{"a resource outside", func(b []byte) { le.PutUint64(b[packed+8:], 1<<40) }, 3, true},
		{"a resource too long", func(b []byte) { le.PutUint64(b[packed+16:], 1<<40) }, 3, true},
		{"a negative size", func(b []byte) { le.PutUint64(b[packed+16:], 1<<63) }, 3, true},
		{"directories outside", func(b []byte) { le.PutUint64(b[meta+8:], 1<<40) }, 3, true},
		{"cut in a chunk", func(b []byte) { b[packed] -= 5 }, 3, true},
	} {
		b := bytes.Clone(lzx)
		c.change(b)
		r := open(b, budget(b))
		if got := slices.Contains(r.limits, verdict.Damaged); r.err != nil || got != c.damaged || c.members > 0 && len(r.order) != c.members {
			t.Errorf("%s: members %q, limits %v, error %v", c.name, r.order, r.limits, r.err)
		}
	}
}

// Directories whose entries all have the longest path end at the bytes that are
// kept, though they are far fewer than may be.
func TestWIMNamesAreBounded(t *testing.T) {
	le := binary.LittleEndian
	const nameBytes = 512
	entry := func(hash, attributes uint32, sub int64) []byte {
		e := make([]byte, (102+nameBytes+7)&^7)
		le.PutUint64(e, uint64(len(e)))
		le.PutUint32(e[8:], attributes)
		le.PutUint64(e[16:], uint64(sub))
		le.PutUint32(e[64:], hash)
		le.PutUint16(e[100:], nameBytes)
		for k := 102; k < 102+nameBytes; k += 2 {
			le.PutUint16(e[k:], 'n')
		}
		return e
	}
	meta := le.AppendUint64(nil, 8)
	// Folder in folder, to a path of 4,096 bytes; then files of the last one.
	for depth := range 16 {
		e := entry(uint32(depth), 0x10, 0)
		le.PutUint64(e[16:], uint64(len(meta)+len(e)+8))
		meta = append(append(meta, e...), make([]byte, 8)...)
	}
	const files = 20_000
	for k := range uint32(files) {
		meta = append(meta, entry(1000+k, 0, 0)...)
	}
	i := &wim{names: map[string]string{}}
	o := Object{Data: bytes.NewReader(meta), Size: int64(len(meta))}
	var limits []verdict.Limit
	i.w = &Walker{ctx: t.Context(), budget: budget(meta), note: func(l verdict.Limit) { limits = append(limits, l) }}
	i.o = o
	if err := i.directories(wimResource{size: int64(len(meta))}); err != nil {
		t.Fatal(err)
	}
	sum := 0
	for hash, name := range i.names {
		sum += len(hash) + len(name)
	}
	if sum > maxWIMNames || sum < maxWIMNames/2 || int64(sum) > i.kept || len(i.names) >= files || !slices.Contains(limits, verdict.Damaged) {
		t.Errorf("%d names of %d bytes (%d kept), limits %v", len(i.names), sum, i.kept, limits)
	}
}
