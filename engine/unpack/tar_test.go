package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
