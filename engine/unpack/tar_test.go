package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// Files with holes come out as they were, in every form that tar writes; their
// holes are no sign of a bomb.
func TestSparseTar(t *testing.T) {
	tarCommand := need.Command(t, "tar")
	dir := t.TempDir()
	gap := need.Rounds(96<<10, 32<<10) // several blocks of any file system
	want := make([]byte, 32*gap)
	f, err := os.Create(filepath.Join(dir, "x"))
	must(t, err)
	must(t, f.Truncate(int64(len(want))))
	for i := range 30 { // more pieces than a header has room for
		at := i * gap
		copy(want[at:], text)
		_, err := f.WriteAt([]byte(text), int64(at))
		must(t, err)
	}
	must(t, f.Close())
	var big []byte
	for _, form := range [][]string{
		{"--format=gnu"},
		{"--format=posix", "--sparse-version=0.0"},
		{"--format=posix", "--sparse-version=0.1"},
		{"--format=posix", "--sparse-version=1.0"},
	} {
		cmd := exec.Command(tarCommand, append(form, "-S", "-c", "x")...)
		cmd.Dir = dir
		data, err := cmd.Output()
		must(t, err)
		if len(data) > 1<<20 {
			t.Fatalf("%v: %d bytes: tar did not see the holes", form, len(data))
		}
		b := budget(data)
		b.Ratio = 2
		r := open(data, b)
		if r.err != nil || len(r.limits) > 0 || len(r.files) != 1 || r.files[r.order[0]] != string(want) || b.Bomb() {
			t.Errorf("%v: %d members, limits %v, error %v, bomb %v", form, len(r.files), r.limits, r.err, b.Bomb())
		}
		// What is too large is looked at as it is stored.
		b = budget(data)
		b.MaxMember = int64(len(want) / 3)
		r = open(data, b)
		if len(r.order) != 1 || !bytes.HasPrefix([]byte(r.files[r.order[0]]), []byte(text)) || !slices.Contains(r.limits, verdict.LimitBytes) {
			t.Errorf("%v: too large: members %v, limits %v", form, r.order, r.limits)
		}
		big = data
	}
	for i, n := 0, need.Rounds(40, 10); i < n; i++ { // damaged maps
		changed := bytes.Clone(big)
		changed[len(big)/n*i] ^= 0x3f
		if r := open(changed, budget(changed)); r.err != nil {
			t.Fatal(r.err)
		}
	}
}

// The dictionary of every block of an .xz file is cut to what it may take, not
// only that of the first.
func TestXZDictionaryOfEveryBlock(t *testing.T) {
	xzCommand := need.Command(t, "xz")
	cmd := exec.Command(xzCommand, "-c", "--block-size=1000")
	in := bytes.Repeat([]byte("0123456789"), 300)
	cmd.Stdin = bytes.NewReader(in)
	data, err := cmd.Output()
	must(t, err)
	if r := open(data, budget(data)); r.files["content"] != string(in) || len(r.limits) > 0 {
		t.Fatalf("%+v", r)
	}
	// The second block header: filter 0x21, one byte of properties.
	at := bytes.LastIndex(data, []byte{0x21, 0x01})
	if first := bytes.Index(data, []byte{0x21, 0x01}); at == first {
		t.Fatal("one block only")
	}
	data[at+2] = 40 // 4 GB
	if r := open(data, budget(data)); r.files["content"] != string(in) || len(r.limits) > 0 {
		t.Errorf("%+v", r)
	}
	data[at+2] = 41 // no size
	b := budget(data)
	r := open(data, b)
	if n := len(r.files["content"]); n != 2000 || !slices.Contains(r.limits, verdict.Damaged) || r.err != nil {
		t.Errorf("%d bytes, limits %v, error %v", n, r.limits, r.err)
	}
}

// A container that a limit cut is not damaged, nor is what lay across the cut in it.
func TestCutIsNoDamage(t *testing.T) {
	gzipped := func(b []byte) []byte {
		var out bytes.Buffer
		g := gzip.NewWriter(&out)
		_, err := g.Write(b)
		must(t, err)
		must(t, g.Close())
		return out.Bytes()
	}
	noise := make([]byte, 20_000)
	rand.New(rand.NewSource(2)).Read(noise)
	inner := gzipped(noise)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "noise.gz", Mode: 0o644, Size: int64(len(inner))}))
	_, err := w.Write(inner)
	must(t, err)
	must(t, w.Close())
	var packed bytes.Buffer
	x, err := xz.NewWriter(&packed)
	must(t, err)
	_, err = x.Write(b.Bytes())
	must(t, err)
	must(t, x.Close())
	for name, data := range map[string][]byte{"gzip": gzipped(b.Bytes()), "xz": packed.Bytes()} {
		small := budget(data)
		small.MaxMember = 10_000
		got, limits, err := tree(data, small)
		if err != nil || !slices.Equal(limits, []verdict.Limit{verdict.LimitBytes}) || len(got) != 4 || len(got[3]) == 0 || !bytes.HasPrefix(noise, []byte(got[3])) {
			t.Errorf("%s: %d objects, %v, %v", name, len(got), limits, err)
		}
	}
	// The same tar, short without a limit's doing.
	data := gzipped(b.Bytes()[:10_000])
	if _, limits, err := tree(data, budget(data)); err != nil || !slices.Contains(limits, verdict.Damaged) {
		t.Errorf("short tar: %v, %v", limits, err)
	}
	// What is decoded as a whole before its members are cut from it. Of two
	// members one lies across the limit and one behind it.
	twice := append(bytes.Clone(inner), inner...)
	hexed := hex.EncodeToString(inner)
	for name, data := range map[string][]byte{
		"cab":    storedCAB(twice, len(inner), len(inner)),
		"binhex": binHexed("noise.gz", inner, inner),
		"rtf":    []byte(`{\rtf1{\object{\objdata ` + hexed + "}}}"),
		"pdf":    fmt.Appendf(nil, "%%PDF-1.4\n<< /Length %d /Filter [/AHx /Fl] >>\nstream\n%x\nendstream\n", 2*len(inner), zlibbed(t, noise)),
	} {
		whole := budget(data)
		got, limits, err := tree(data, whole)
		if err != nil || len(limits) > 0 || !slices.Contains(got, string(noise)) {
			t.Errorf("%s: %d objects, %v, %v", name, len(got), limits, err)
		}
		small := budget(data)
		small.MaxMember = 10_000
		got, limits, err = tree(data, small)
		last := got[len(got)-1]
		if err != nil || !slices.Equal(limits, []verdict.Limit{verdict.LimitBytes}) || len(last) < 9_000 || !strings.HasPrefix(string(noise), last) {
			t.Errorf("%s cut: %d objects, the last of %d bytes, %v, %v", name, len(got), len(last), limits, err)
		}
	}
	// A help file of the ClamAV test files: several members in one stream.
	data = testFile(t, "clam.chm")
	small := budget(data)
	small.MaxMember = 300
	if got, limits, err := tree(data, small); err != nil || slices.Contains(limits, verdict.Damaged) || !slices.Contains(limits, verdict.LimitBytes) {
		t.Errorf("chm cut: %d objects, %v, %v", len(got), limits, err)
	}
	if _, limits, err := tree(data[:len(data)-200], budget(data)); err != nil || !slices.Contains(limits, verdict.Damaged) {
		t.Errorf("short chm: %v, %v", limits, err)
	}
}

func testFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/usr/share/clamav-testfiles", name))
	if err != nil {
		need.Missing(t, "needs the package clamav-testfiles: %v", err)
	}
	return data
}

func zlibbed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	_, err := z.Write(b)
	must(t, err)
	must(t, z.Close())
	return out.Bytes()
}

// storedCAB is a cabinet of one folder that is not compressed, which is divided
// into files of the given sizes.
func storedCAB(content []byte, sizes ...int) []byte {
	le := binary.LittleEndian
	header := [36 + 8]byte{'M', 'S', 'C', 'F'}
	head := header[:]
	head[24], head[25], head[26] = 3, 1, 1
	le.PutUint32(head[16:], 36+8)
	le.PutUint16(head[28:], uint16(len(sizes)))
	off := 0
	for i, size := range sizes {
		f := make([]byte, 16)
		le.PutUint32(f, uint32(size))
		le.PutUint32(f[4:], uint32(off))
		head = append(append(head, f...), fmt.Sprintf("m%d.gz\x00", i)...)
		off += size
	}
	le.PutUint32(head[36:], uint32(len(head)))
	blocks := 0
	for len(content) > 0 {
		n := min(len(content), 1000)
		b := make([]byte, 8)
		le.PutUint16(b[4:], uint16(n))
		le.PutUint16(b[6:], uint16(n))
		head = append(append(head, b...), content[:n]...)
		content = content[n:]
		blocks++
	}
	le.PutUint16(head[36+4:], uint16(blocks))
	return head
}

// binHexed is a BinHex file with two forks; checksums are left out.
func binHexed(name string, data, resources []byte) []byte {
	h := append([]byte{byte(len(name))}, name...)
	h = append(h, make([]byte, 11)...)
	h = binary.BigEndian.AppendUint32(h, uint32(len(data)))
	h = binary.BigEndian.AppendUint32(h, uint32(len(resources)))
	h = append(h, 0, 0)
	all := slices.Concat(h, data, []byte{0, 0}, resources, []byte{0, 0})
	all = bytes.ReplaceAll(all, []byte{0x90}, []byte{0x90, 0})
	for len(all)%3 > 0 {
		all = append(all, 0)
	}
	out := []byte("(This file must be converted with BinHex 4.0)\r\n\r\n:")
	for n := 1; len(all) > 0; all = all[3:] {
		v := uint32(all[0])<<16 | uint32(all[1])<<8 | uint32(all[2])
		for k := range 4 {
			if n%64 == 0 {
				out = append(out, "\r\n"...)
			}
			n++
			out = append(out, binHexLetters[v>>(18-6*k)&63])
		}
	}
	return append(out, ":\r\n"...)
}

// Texts that only mention BinHex's first line are no damaged containers, and hide
// no BinHex file behind them.
func TestBinHexMentioned(t *testing.T) {
	mention := "import binascii\n\ndef start(out):\n    out.write(b'(This file must be converted with BinHex 4.0)\\r\\r:')\n    self.hqxer = x[1:2]\n"
	for name, data := range map[string]string{
		"a program": mention,
		"a line":    "(This file must be converted with BinHex 4.0)\nis what such a file begins with: it is told by that.\n",
		"the mark":  "# (This file must be converted with BinHex",
	} {
		if got, limits, err := tree([]byte(data), budget([]byte(data))); err != nil || len(limits) > 0 {
			t.Errorf("%s: %d objects, %v, %v", name, len(got), limits, err)
		}
	}
	for name, data := range map[string]string{
		"alone":    string(binHexed("a.txt", []byte(text), nil)),
		"mention":  mention + string(binHexed("a.txt", []byte(text), nil)),
		"two":      mention + string(binHexed("b.txt", []byte("another text"), nil)) + string(binHexed("a.txt", []byte(text), nil)),
		"a colon":  strings.Replace(string(binHexed("a.txt", []byte(text), nil)), "4.0)", "4.0): a note", 1),
		"one line": "see below\n(This file must be converted with BinHex 4.0):" + strings.SplitN(string(binHexed("a.txt", []byte(text), nil)), ":", 2)[1],
	} {
		if got, limits, err := tree([]byte(data), budget([]byte(data))); err != nil || len(limits) > 0 || !slices.Contains(got, text) {
			t.Errorf("%s: %q, %v, %v", name, got, limits, err)
		}
	}
	short := binHexed("a.txt", []byte(text), nil)
	short = short[:len(short)-20]
	if _, limits, err := tree(short, budget(short)); err != nil || !slices.Contains(limits, verdict.Damaged) {
		t.Errorf("short: %v, %v", limits, err)
	}
}

// What follows the last member of a gzip file is no damage, but a member that
// lacks something is.
func TestGzipMembers(t *testing.T) {
	member := func(s string) string {
		var out bytes.Buffer
		g := gzip.NewWriter(&out)
		_, err := g.Write([]byte(s))
		must(t, err)
		must(t, g.Close())
		return out.String()
	}
	two := member(text) + member("") + member("and more")
	for name, c := range map[string]struct {
		data, want string
		limits     []verdict.Limit
	}{
		"members":         {two, text + "and more", nil},
		"letters follow":  {two + "\xfb\xe3L\xb8\xcc", text + "and more", nil},
		"zeros follow":    {two + strings.Repeat("\x00", 1024), text + "and more", nil},
		"without its end": {two[:len(two)-3], text + "and more", []verdict.Limit{verdict.Damaged}},
		"a bad header":    {two + "\x1f\x8b\xff" + strings.Repeat("x", 20), text + "and more", []verdict.Limit{verdict.Damaged}},
	} {
		got, limits, err := tree([]byte(c.data), budget([]byte(c.data)))
		if err != nil || len(got) != 2 || got[1] != c.want || !slices.Equal(limits, c.limits) {
			t.Errorf("%s: %q, %v, %v", name, got, limits, err)
		}
	}
}

func TestTarNumber(t *testing.T) {
	for in, want := range map[string]int64{
		"00000000012\x00": 10, " 12\x00": 10, "": -1, "9": -1, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00": 256,
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff": -1,
	} {
		b := make([]byte, 12)
		if copy(b, in); in == "" {
			b = bytes.Repeat([]byte{'x'}, 12)
		}
		if got := tarNumber(b); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}
