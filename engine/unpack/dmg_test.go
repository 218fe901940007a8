package unpack

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// dmgPart is a block for dmgImage: its contents and how they are stored.
type dmgPart struct {
	kind  uint32
	plain []byte // whole sectors
	fixed []byte // stored as they are, instead of packing plain
}

func (p dmgPart) packed(t testing.TB) []byte {
	t.Helper()
	if p.fixed != nil {
		return p.fixed
	}
	var b bytes.Buffer
	switch p.kind {
	case dmgZlib:
		z := zlib.NewWriter(&b)
		_, err := z.Write(p.plain)
		must(t, err)
		must(t, z.Close())
	case dmgXZ:
		z, err := xz.NewWriter(&b)
		must(t, err)
		_, err = z.Write(p.plain)
		must(t, err)
		must(t, z.Close())
	case dmgADC:
		// A run of 16 bytes, then references to them of both kinds.
		b.WriteByte(0x80 | 15)
		b.Write(p.plain[:16])
		b.Write([]byte{(18 - 3) << 2, 15}) // 18 bytes, 16 back
		b.Write([]byte{0x40 | 62, 0, 15})  // 66
		for left := len(p.plain) - 100; left > 0; left -= 67 {
			b.Write([]byte{0x40 | byte(min(left, 67)-4), 0, 15})
		}
	case dmgRaw:
		b.Write(p.plain)
	}
	return b.Bytes()
}

// dmgImage is a disk image with a table for each list of blocks.
func dmgImage(t testing.TB, tables ...[]dmgPart) []byte {
	t.Helper()
	be := binary.BigEndian
	var data []byte
	list := "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n<dict>\n<key>resource-fork</key>\n<dict>\n<key>blkx</key>\n<array>\n"
	first := uint64(0)
	for n, parts := range tables {
		table := make([]byte, 204)
		copy(table, "mish")
		be.PutUint32(table[4:], 1)
		be.PutUint64(table[8:], first)
		sector := uint64(0)
		entry := func(kind uint32, sectors, at, size uint64) {
			e := make([]byte, 40)
			be.PutUint32(e, kind)
			be.PutUint64(e[8:], sector)
			be.PutUint64(e[16:], sectors)
			be.PutUint64(e[24:], at)
			be.PutUint64(e[32:], size)
			table = append(table, e...) //nolint:makezero // behind the header
			sector += sectors
		}
		for _, p := range parts {
			stored := p.packed(t)
			entry(p.kind, uint64(len(p.plain)/dmgSector), uint64(len(data)), uint64(len(stored)))
			data = append(data, stored...)
		}
		be.PutUint64(table[16:], sector)
		entry(dmgEnd, 0, uint64(len(data)), 0)
		be.PutUint32(table[200:], uint32(len(parts)+1))
		first += sector
		text := base64.StdEncoding.EncodeToString(table)
		list += fmt.Sprintf("<dict>\n<key>Attributes</key>\n<string>0x0050</string>\n<key>Data</key>\n<data>\n\t%s\n</data>\n<key>ID</key>\n<string>%d</string>\n<key>Name</key>\n<string>part %d</string>\n</dict>\n",
			strings.Join(slices.Collect(func(yield func(string) bool) {
				for i := 0; i < len(text); i += 52 {
					if !yield(text[i:min(i+52, len(text))]) {
						return
					}
				}
			}), "\n\t"), n, n)
	}
	list += "</array>\n</dict>\n</dict>\n</plist>\n"
	k := make([]byte, dmgTrailer)
	copy(k, "koly")
	be.PutUint32(k[4:], 4)
	be.PutUint32(k[8:], dmgTrailer)
	be.PutUint32(k[12:], 1)
	be.PutUint64(k[32:], uint64(len(data)))
	be.PutUint32(k[56:], 1)
	be.PutUint32(k[60:], 1)
	be.PutUint64(k[216:], uint64(len(data)))
	be.PutUint64(k[224:], uint64(len(list)))
	be.PutUint32(k[488:], 1)
	be.PutUint64(k[492:], first)
	return slices.Concat(data, []byte(list), k)
}

// openTrailer is open of what the end of the data says.
func openTrailer(data []byte, b *Budget) result {
	r := result{files: map[string]string{}}
	o := Object{Name: "in", Data: bytes.NewReader(data), Size: int64(len(data))}
	r.err = openInto(&r, Trailer(o), o, b)
	return r
}

// dmgBzip2Packed is 1,024 bytes of dmgBzip2Text again and again, by bzip2.
const (
	dmgBzip2Text   = "bzip2 block of a disk image. "
	dmgBzip2Packed = "QlpoOTFBWSZTWfri+XYAANOZgEABEAA/rsgQIACQKaZGJiYgUqjUPUDNTTzQwRih2ofFD1Q0RmhzQ2qGiNqHFDehmhih0RzQ6oaoaI/UOiM0N6hgj+LuSKcKEh9cXy7A"
)

func repeated(text string, n int) []byte { return []byte(strings.Repeat(text, n/len(text)+1)[:n]) }

func dmgSample(t testing.TB) (data []byte, want []string) {
	t.Helper()
	must2 := func(b []byte, err error) []byte { must(t, err); return b }
	raw, zl, xzs := repeated("stored as it is ", 1024), repeated("deflated ", 4096), repeated("packed by xz ", 2048)
	ad, bz := repeated("0123456789abcdef", 512), repeated(dmgBzip2Text, 1024)
	packed := must2(base64.StdEncoding.DecodeString(dmgBzip2Packed))
	zero := make([]byte, 1536)
	data = dmgImage(t,
		[]dmgPart{{kind: dmgRaw, plain: raw}, {kind: dmgZero, plain: zero, fixed: []byte{}}, {kind: dmgZlib, plain: zl}, {kind: dmgIgnore, plain: zero, fixed: []byte{}}},
		[]dmgPart{{kind: dmgADC, plain: ad}, {kind: dmgComment, fixed: []byte{}}, {kind: dmgBzip2, plain: bz, fixed: packed}, {kind: dmgXZ, plain: xzs}},
	)
	return data, []string{string(slices.Concat(raw, zero, zl, zero)), string(slices.Concat(ad, bz, xzs))}
}

func TestDMG(t *testing.T) {
	data, want := dmgSample(t)
	b := budget(data)
	r := openTrailer(data, b)
	if r.err != nil || len(r.limits) != 0 || b.held != 0 || !slices.Equal(r.order, []string{"partition 0", "partition 1"}) {
		t.Fatalf("%v %v %v, %d held", r.err, r.limits, r.order, b.held)
	}
	for i, name := range r.order {
		if r.files[name] != want[i] {
			t.Errorf("%s: %d bytes, want %d", name, len(r.files[name]), len(want[i]))
		}
	}
	for what, data := range map[string][]byte{"nothing": nil, "short": []byte("koly"), "no end": data[:len(data)-1], "text": repeated("koly", 2000)} {
		if got := Trailer(Object{Data: bytes.NewReader(data), Size: int64(len(data))}); got != "" {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// 7-Zip sees the same (of xz and LZFSE it knows nothing in all versions).
func TestDMGAsSevenZip(t *testing.T) {
	need.Command(t, "7z")
	raw, zl, ad := repeated("stored as it is ", 1024), repeated("deflated ", 4096), repeated("0123456789abcdef", 512)
	packed, err := base64.StdEncoding.DecodeString(dmgBzip2Packed)
	must(t, err)
	data := dmgImage(t, []dmgPart{
		{kind: dmgRaw, plain: raw},
		{kind: dmgZlib, plain: zl},
		{kind: dmgZero, plain: make([]byte, 1536), fixed: []byte{}},
		{kind: dmgADC, plain: ad},
		{kind: dmgBzip2, plain: repeated(dmgBzip2Text, 1024), fixed: packed},
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "image.dmg")
	must(t, os.WriteFile(file, data, 0o600))
	if out, err := exec.CommandContext(t.Context(), "7z", "x", "-y", "-tdmg", "-o"+filepath.Join(dir, "out"), file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	names, err := filepath.Glob(filepath.Join(dir, "out", "*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("7z gave %v, %v", names, err)
	}
	theirs, err := os.ReadFile(names[0])
	must(t, err)
	if ours := openTrailer(data, budget(data)).files["partition 0"]; ours != string(theirs) {
		t.Errorf("we give %d bytes, 7z %d", len(ours), len(theirs))
	}
}

// Tables that lie, blocks that cannot be read and images that would be huge end
// with what there is, and say so.
func TestHostileDMG(t *testing.T) {
	good := dmgPart{kind: dmgZlib, plain: repeated("deflated ", 1024)}
	for name, tt := range map[string]struct {
		data []byte
		want verdict.Limit
		has  string // what is still seen
	}{
		"a damaged block": {dmgImage(t, []dmgPart{{kind: dmgZlib, plain: make([]byte, 512), fixed: []byte("nonsense")}, good}), verdict.Damaged, "deflated "},
		"LZFSE":           {dmgImage(t, []dmgPart{{kind: dmgLZFSE, plain: make([]byte, 512), fixed: []byte("bvx2")}, good}), verdict.Damaged, "deflated "},
		"an unknown kind": {dmgImage(t, []dmgPart{{kind: 77, plain: make([]byte, 512), fixed: []byte("x")}, good}), verdict.Damaged, "deflated "},
		"a short block":   {dmgImage(t, []dmgPart{{kind: dmgADC, plain: make([]byte, 512), fixed: []byte{0x80 | 5, 'a'}}, good}), verdict.Damaged, "deflated "},
		"a reference to before the block": {
			dmgImage(t, []dmgPart{{kind: dmgRaw, plain: repeated("x", 512)}, {kind: dmgADC, plain: make([]byte, 512), fixed: []byte{0x40, 0, 9}}, good}), verdict.Damaged, "deflated ",
		},
		"more than the block has room for": {
			dmgImage(t, []dmgPart{{kind: dmgXZ, plain: make([]byte, 512), fixed: dmgPart{kind: dmgXZ, plain: repeated("far more ", 4100)}.packed(t)}, good}), verdict.Damaged, "deflated ",
		},
	} {
		b := budget(tt.data)
		r := openTrailer(tt.data, b)
		if strings.Index(r.files["partition 0"], "deflated ")%512 != 0 {
			t.Errorf("%s: the good block is at %d, not in its sector", name, strings.Index(r.files["partition 0"], "deflated "))
		}
		if r.err != nil || !slices.Contains(r.limits, tt.want) || !strings.Contains(r.files["partition 0"], tt.has) || b.held != 0 {
			t.Errorf("%s: %v %v, %d bytes", name, r.err, r.limits, len(r.files["partition 0"]))
		}
	}
	// A table with a block of many TiB of zeros: the member ends at its limit.
	data := dmgImage(t, []dmgPart{{kind: dmgZero, plain: make([]byte, 512), fixed: []byte{}}})
	be := binary.BigEndian
	at := bytes.Index(data, []byte("<data>"))
	end := bytes.Index(data, []byte("</data>"))
	table, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data[at+6:end])), ""))
	must(t, err)
	be.PutUint64(table[204+16:], 1<<39)
	huge := slices.Concat(data[:at+6], []byte(base64.StdEncoding.EncodeToString(table)), data[end:])
	be.PutUint64(huge[len(huge)-dmgTrailer+224:], uint64(len(huge)-dmgTrailer))
	be.PutUint64(huge[len(huge)-dmgTrailer+216:], 0)
	b := budget(huge)
	b.MaxMember = 1 << 20
	if r := openTrailer(huge, b); r.err != nil || !slices.Contains(r.limits, verdict.LimitBytes) || len(r.files["partition 0"]) > 1<<20 || b.held != 0 {
		t.Errorf("zeros: %v %v, %d bytes", r.err, r.limits, len(r.files["partition 0"]))
	}
	// Without a list, and with offsets that are nowhere.
	for _, at := range []int{216, 224, 24, 32} {
		data, _ := dmgSample(t)
		be.PutUint64(data[len(data)-dmgTrailer+at:], 1<<63)
		if r := openTrailer(data, budget(data)); r.err != nil || at != 32 && !slices.Contains(r.limits, verdict.Damaged) {
			t.Errorf("offset at %d: %v %v", at, r.err, r.limits)
		}
	}
}

func FuzzDMG(f *testing.F) {
	data, _ := dmgSample(f)
	f.Add([]byte{0, 0, 7, 1}, false)
	f.Add([]byte{216, 0, 3, 0xff}, true)
	f.Fuzz(func(t *testing.T, changes []byte, trailer bool) {
		changes = changes[:min(len(changes), 256)]
		var d []byte
		if trailer {
			d = slices.Concat(data[:len(data)-dmgTrailer], patched(data[len(data)-dmgTrailer:], changes))
		} else {
			d = patched(data, changes)
		}
		if Trailer(Object{Data: bytes.NewReader(d), Size: int64(len(d))}) != filetype.DMG {
			return
		}
		b := NewBudget(int64(len(d)), 100, 4<<20, 250, time.Now().Add(time.Minute))
		r := openTrailer(d, b)
		if r.err != nil || slices.Contains(r.limits, verdict.LimitTime) {
			t.Fatalf("%v %v", r.err, r.limits)
		}
		if b.held != 0 || b.Bytes < 0 || b.Files < 0 {
			t.Errorf("budget %+v", b)
		}
	})
}
