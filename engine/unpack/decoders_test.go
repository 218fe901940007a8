package unpack

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// decoders are the decoders of our own, on bare data.
var decoders = []struct {
	name string
	run  func(data []byte, out *sink) error
}{
	{"inflate64", func(d []byte, out *sink) error { return inflate64(bytes.NewReader(d), out) }},
	{"explode", func(d []byte, out *sink) error { return explode(bytes.NewReader(d), 6, 1<<20, out) }},
	{"explode two trees", func(d []byte, out *sink) error { return explode(bytes.NewReader(d), 0, 1<<20, out) }},
	{"lh5", func(d []byte, out *sink) error {
		return unlzh(&bitReader{r: bytes.NewReader(d), order: msbFirst}, lzhParams{positions: 14, bits: 4, fill: ' '}, 1<<20, out)
	}},
	{"lh1", func(d []byte, out *sink) error {
		return unlh1(Object{Data: bytes.NewReader(d), Size: int64(len(d))}, 1<<20, out)
	}},
	{"lzs", func(d []byte, out *sink) error {
		return lharc(Object{Data: bytes.NewReader(d), Size: int64(len(d))}, lhaEntry{method: "-lzs-", size: 1 << 20}, out)
	}},
	{"lz5", func(d []byte, out *sink) error {
		return lharc(Object{Data: bytes.NewReader(d), Size: int64(len(d))}, lhaEntry{method: "-lz5-", size: 1 << 20}, out)
	}},
	{"arj 4", func(d []byte, out *sink) error {
		return arjFastest(&bitReader{r: bytes.NewReader(d), order: msbFirst}, 1<<20, out)
	}},
	{"lzss", func(d []byte, out *sink) error {
		return lzss(bytes.NewReader(d), lzssParams{ring: 4096, start: 4080, minimum: 3, fill: spaces}, -1, out)
	}},
	{"lzx", func(d []byte, out *sink) error {
		z, err := newLZX(bytes.NewReader(d), 15, out)
		if err != nil {
			return err
		}
		defer z.finish()
		for range 40 {
			if err := z.frame(lzxFrame); err != nil {
				return err
			}
		}
		return nil
	}},
	{"ovba", ovba},
	{"lzo", lzo1x},
	{"nrv b", func(d []byte, out *sink) error { return (&nrv{in: d, step: 4}).decode('B', out) }},
	{"nrv d", func(d []byte, out *sink) error { return (&nrv{in: d, step: 1}).decode('D', out) }},
	{"nrv e", func(d []byte, out *sink) error { return (&nrv{in: d, step: 4}).decode('E', out) }},
	{"xz", func(d []byte, out *sink) error { return decodeXZ(bufio.NewReader(bytes.NewReader(d)), out) }},
	{"lzma", func(d []byte, out *sink) error {
		n := min(5, len(d))
		z, err := lzmaReader(bytes.NewReader(d[n:]), d[:n], -1)
		if err != nil {
			return err
		}
		return out.readAll(z)
	}},
	{"lzma2", func(d []byte, out *sink) error { return out.readAll(newLZMA2(bytes.NewReader(d), 1<<14)) }},
	{"pdf lzw", pdfLZW},
	{"ascii85", pdfASCII85},
	{"run length", pdfRunLength},
	{"rtf", func(d []byte, out *sink) error {
		_, err := rtfHex(d, out)
		return err
	}},
	{"quoted", decodeQuoted},
	{"base64", decodeBase64},
	{"uu", decodeUU},
	{"yenc", decodeYEnc},
	{"binhex", decodeBinHex},
	{"autoit", func(d []byte, out *sink) error { return (&autoIt{ea05: len(d)%2 == 0}).unpack(d, out) }},
	{"nsis bzip2", func(d []byte, out *sink) error { return out.readAll(newNSISBzip2(bufio.NewReader(bytes.NewReader(d)))) }},
	{"bcj2", func(d []byte, out *sink) error {
		n := len(d) / 4
		var in []io.Reader
		for i := range 4 {
			in = append(in, bytes.NewReader(d[i*n:(i+1)*n]))
		}
		return out.readAll(newBCJ2(in, 1<<20))
	}},
	{"x86", func(d []byte, out *sink) error {
		return out.readAll(&filtered{r: bytes.NewReader(d), convert: (&x86Filter{}).convert})
	}},
	{"installshield", func(d []byte, out *sink) error { return isChunks(bytes.NewReader(d), out) }},
}

func testWalker(b *Budget) *Walker {
	return &Walker{ctx: context.Background(), budget: b, note: func(verdict.Limit) {}, visit: func(Object) error { return nil }}
}

// Groups of four letters give what the letters one by one give.
func FuzzBase64(f *testing.F) {
	f.Add([]byte("dGhl IGNv\nbnRl*bnQ=QUJD"))
	f.Add([]byte("dGhlI=GNvbnQ==\nbn\nRlbnQ"))
	f.Add([]byte(strings.Repeat("QUJDRA==QUJDREVGR0hJQ_-\r\n", 100)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			return
		}
		var want []byte
		acc, n := uint32(0), 0
		group := func() {
			if n > 1 {
				v := acc << (6 * (4 - n))
				want = append(want, []byte{byte(v >> 16), byte(v >> 8), byte(v)}[:n-1]...)
			}
			acc, n = 0, 0
		}
		for _, c := range text {
			if v := base64Table[c]; v < 64 {
				acc = acc<<6 | uint32(v)
				n++
			}
			if n == 4 || c == '=' {
				group()
			}
		}
		group()
		m, release, err := testWalker(NewBudget(1<<20, 10, 2<<20, 250, time.Time{})).decode(func(out *sink) error { return decodeBase64(text, out) })
		defer release()
		got := make([]byte, m.size)
		if n, _ := m.ReadAt(got, 0); err != nil || n != len(got) || !bytes.Equal(got, want) {
			t.Errorf("%v, %d bytes %q, want %d %q", err, len(got), got, len(want), want)
		}
	})
}

// Every decoder ends on any input: within its output limit and without a panic.
func FuzzDecoders(f *testing.F) {
	for i := range decoders {
		f.Add(byte(i), []byte(text))
		f.Add(byte(i), []byte("\x00\xff\x5d\x31\x80\x01\x02\x03:!!\"=\\x41<~"))
		switch decoders[i].name {
		case "lzma":
			f.Add(byte(i), packedLZMA(f, 5000, []byte(text)))
		case "lzma2":
			f.Add(byte(i), packedLZMA2(f, 5000, []byte(text)))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		b := NewBudget(int64(len(data)), 10, 2<<20, 250, time.Now().Add(5*time.Second))
		m, release, err := testWalker(b).decode(func(out *sink) error { return decoders[int(which)%len(decoders)].run(data, out) })
		release()
		if err != nil || m.size > 2<<20 || b.held != 0 {
			t.Errorf("%v, %d bytes, %d held", err, m.size, b.held)
		}
	})
}

// The same on noise and on runs of one byte, in every test run.
func TestDecodersOnNoise(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for _, d := range decoders {
		for i := range need.Rounds(300, 15) {
			data := make([]byte, r.Intn(2000))
			if i%3 == 0 {
				data = bytes.Repeat([]byte{byte(i)}, len(data))
			} else {
				r.Read(data)
			}
			b := NewBudget(int64(len(data)), 10, 2<<20, 250, time.Time{})
			if m, _, err := testWalker(b).decode(func(out *sink) error { return d.run(data, out) }); err != nil || m.size > 2<<20 {
				t.Fatalf("%s: %v, %d bytes", d.name, err, m.size)
			}
		}
	}
}

// Texts with known answers.
func TestTextDecoders(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"base64", "dGhl IGNv\nbnRl*bnQ=", "the content"},
		{"base64", "dGhlIGNvbnRlbnQ", "the content"},
		{"quoted", "caf=C3=A9 =\r\nsoft=zz=\n", "café soft=zz"},
		{"uu", "+=&AE(&-O;G1E;G0`\n`\nend\n", "the content"},
		{"yenc", "\x9e\x92\x8f\x4a=}\n=yend", "the \x13"},
		{"ascii85", "<~FD,B0+DGm>~>", "this is "},
		{"run length", "\x02the\xfe \x80junk", "the   "},
		{"rtf", "74 68\\'xx{\\junk 41}65\\bin3 abc}", "theabc"},
		{"pdf lzw", "\x80\x0b\x60\x50\x22\x0c\x0c\x85\x01", "-----A---B"},
		{"ovba", "\x19\xb0\x00abcdefgh\x00ijklmnop\x00qrstuv.", "abcdefghijklmnopqrstuv."},
		{"ovba", "\x2f\xb0\x00#aaabcde\x82f\x00ahijaklma\x84no\x02ap\x03\x00q\x80\x07\x00rs\x03", ""},
	} {
		for _, d := range decoders {
			if d.name != c.name || c.want == "" {
				continue
			}
			b := NewBudget(1, 10, 2<<20, 250, time.Time{})
			m, _, err := testWalker(b).decode(func(out *sink) error { return d.run([]byte(c.in), out) })
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, m.size)
			_, _ = m.ReadAt(got, 0)
			if string(got) != c.want {
				t.Errorf("%s of %q is %q, want %q", c.name, c.in, got, c.want)
			}
		}
	}
}

// Small files of every kind, cut and changed at every byte (of larger ones every
// fifth): nothing panics or
// hangs, and the budget balances.
func TestDamagedEverywhere(t *testing.T) {
	for name, data := range seeds(t) {
		if len(data) > 2000 {
			data = data[:2000]
		}
		try := func(what string, data []byte) {
			b := NewBudget(int64(len(data)), 100, 4<<20, 250, time.Now().Add(time.Minute))
			if r := open(data, b); r.err != nil {
				t.Errorf("%s %s: %v", name, what, r.err)
			}
			if b.held != 0 || b.Bytes < 0 {
				t.Errorf("%s %s: budget %+v", name, what, b)
			}
		}
		step := 1
		if len(data) > 200 {
			step = 5 // the larger ones take long
		}
		step *= need.Rounds(1, 11)
		for i := 0; i < len(data); i += step {
			try(fmt.Sprintf("cut at %d", i), data[:i])
			changed := bytes.Clone(data)
			for _, v := range []byte{0xff, 0x00, changed[i] ^ 1, changed[i] ^ 0x80} {
				changed[i] = v
				try(fmt.Sprintf("%#x at %d", v, i), changed)
			}
		}
	}
}

// The files of the ClamAV package too, at random places.
func TestDamagedTestFiles(t *testing.T) {
	entries, err := os.ReadDir("/usr/share/clamav-testfiles")
	if err != nil {
		need.Missing(t, "needs the package clamav-testfiles")
	}
	r := rand.New(rand.NewSource(3))
	for _, e := range entries {
		data, err := os.ReadFile("/usr/share/clamav-testfiles/" + e.Name())
		must(t, err)
		tries := need.Rounds(40, 2)
		if len(data) > 100_000 {
			tries = min(tries, 3)
		}
		for range tries {
			changed := bytes.Clone(data)
			for range 1 + r.Intn(8) {
				changed[r.Intn(len(changed))] = byte(r.Intn(256))
			}
			if r.Intn(4) == 0 {
				changed = changed[:r.Intn(len(changed))]
			}
			b := NewBudget(int64(len(changed)), 100, 16<<20, 250, time.Now().Add(time.Minute))
			b.steps = maxSteps - 2_000_000
			if r := open(changed, b); r.err != nil {
				t.Errorf("%s: %v", e.Name(), r.err)
			}
			if b.held != 0 || b.Bytes < 0 {
				t.Errorf("%s: budget %+v", e.Name(), b)
			}
		}
	}
}

func zipped(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	must(t, err)
	_, err = f.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// Bombs: what they expand to stays within the budget, and it is said.
func TestBombs(t *testing.T) {
	most := int64(need.Rounds(8<<20, 1<<20)) // bytes to extract
	zeros := zipped(t, "zeros", make([]byte, 8*most))
	many := &bytes.Buffer{}
	w := zip.NewWriter(many)
	for i := range need.Rounds(10_000, 2_000) {
		f, err := w.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("%d.zip", i), Method: zip.Store})
		must(t, err)
		_, err = f.Write(zipped(t, "x", []byte("x")))
		must(t, err)
	}
	must(t, w.Close())
	var layers bytes.Buffer // a gzip of a gzip of ... zeros
	layers.Write(make([]byte, 4*most))
	for range 3 {
		var b bytes.Buffer
		g := gzip.NewWriter(&b)
		_, err := g.Write(layers.Bytes())
		must(t, err)
		must(t, g.Close())
		layers = b
	}
	cab := append([]byte(nil), seeds(t)["s.cab"]...)
	for name, c := range map[string]struct {
		data []byte
		want verdict.Limit
	}{
		"ratio":       {zeros, verdict.LimitBytes},
		"many":        {many.Bytes(), verdict.LimitFiles},
		"layers":      {layers.Bytes(), verdict.LimitBytes},
		"html":        {[]byte("<html><a href=\"data:x;base64," + strings.Repeat("QUFB", int(most)/2) + "\">"), verdict.LimitBytes},
		"run length":  {[]byte("%PDF-1.4\n<< /Filter [" + strings.Repeat("/ASCIIHexDecode ", 100) + "] >>\nstream\n" + strings.Repeat("41", 1000) + "\nendstream"), ""},
		"deep mime":   {[]byte("From: a\nTo: b\n" + strings.Repeat("Content-Type: multipart/mixed; boundary=\"x\"\n\n--x\n", 5000)), ""},
		"many parts":  {[]byte("From: a\nTo: b\nContent-Type: multipart/mixed; boundary=\"x\"\n\n" + strings.Repeat("--x\nA: b\n\nabc\n", 20_000)), verdict.LimitFiles},
		"rtf objects": {[]byte("{\\rtf1" + strings.Repeat("{\\objdata 41}", 20_000)), verdict.LimitFiles},
		"cab":         {cab, ""},
	} {
		b := NewBudget(int64(len(c.data)), 1000, most, 250, time.Now().Add(5*time.Minute))
		_, limits, err := tree(c.data, b)
		if err != nil || c.want != "" && !slices.Contains(limits, c.want) {
			t.Errorf("%s: %v, %v; want %s", name, err, limits, c.want)
		}
		if b.held != 0 || b.Bytes < 0 || b.extracted > most+1 {
			t.Errorf("%s: budget %+v", name, b)
		}
	}
}

// nested is a stored zip in a stored zip and so on. Checksums are left out.
func nested(levels int, inside []byte) []byte {
	le := binary.LittleEndian
	var heads, tails [][]byte
	size := len(inside)
	for range levels {
		h := make([]byte, 30, 31)
		copy(h, "PK\x03\x04\x0a")
		le.PutUint32(h[18:], uint32(size))
		le.PutUint32(h[22:], uint32(size))
		le.PutUint16(h[26:], 1)
		heads = append(heads, append(h, 'z'))
		c := make([]byte, 46, 47+22)
		copy(c, "PK\x01\x02\x0a\x00\x0a")
		le.PutUint32(c[20:], uint32(size))
		le.PutUint32(c[24:], uint32(size))
		le.PutUint16(c[28:], 1)
		c = append(c, 'z')
		e := make([]byte, 22)
		copy(e, "PK\x05\x06")
		le.PutUint16(e[8:], 1)
		le.PutUint16(e[10:], 1)
		le.PutUint32(e[12:], 47)
		le.PutUint32(e[16:], uint32(31+size))
		tails = append(tails, append(c, e...))
		size += 31 + 47 + 22
	}
	var b bytes.Buffer
	for i := range heads {
		b.Write(heads[levels-1-i])
	}
	b.Write(inside)
	for _, t := range tails {
		b.Write(t)
	}
	return b.Bytes()
}

func TestNested(t *testing.T) {
	data := nested(5, []byte(text))
	if got, limits, err := tree(data, budget(data)); err != nil || len(limits) > 0 || !slices.Contains(got, text) {
		t.Errorf("%d objects, %v, %v", len(got), limits, err)
	}
	// Ten thousand: the bytes of all levels count, so that it ends.
	data = nested(10_000, []byte(text))
	b := budget(data)
	b.Bytes = 20 << 20
	levels := 0
	var visit func(o Object) error
	limited := false
	visit = func(o Object) error {
		levels++
		return Open(context.Background(), "zip", o, b, func(l verdict.Limit) { limited = limited || l == verdict.LimitBytes }, visit)
	}
	if err := visit(Object{Data: bytes.NewReader(data), Size: int64(len(data))}); err != nil || !limited || levels > 30 {
		t.Errorf("%d levels, limited %v: %v", levels, limited, err)
	}
}

// Files that make simple searches start again at every place take time that grows
// with their size, not with its square: 4 MB each would take hours otherwise.
func TestLinear(t *testing.T) {
	size := need.Rounds(4<<20, 64<<10)
	fill := func(head, unit string) []byte { return []byte(head + strings.Repeat(unit, size/len(unit))) }
	for name, data := range map[string][]byte{
		"data uris":  fill("<html>", "data:,"),
		"data 64":    fill("<html>", "data:;base64,"),
		"rtf":        fill("{\\rtf1", "{\\objdata 4"),
		"rtf open":   fill("{\\rtf1", "objdata{"),
		"uu":         fill("text\n", "begin 644 x\n"),
		"yenc":       fill("text\n", "=ybegin name=x\n"),
		"pdf":        fill("%PDF-1.4", ">>stream"),
		"pdf ends":   fill("%PDF-1.4", "<<>>streamendstream"),
		"pdf js":     fill("%PDF-1.4", "/JS("),
		"mime":       fill("From: a\nTo: b\nContent-Type: multipart/mixed; boundary=x\n\n", "--x\n"),
		"headers":    fill("From: a\nTo: b\n", "A: b\n"),
		"mbox":       fill("From a\nFrom: a\nTo: b\n\n", "\nFrom a\n"),
		"percent":    fill("text", "%41\\x"),
		"letters":    fill("text", "QUFB"),
		"installers": append(program(nil), fill("", "InstallShield\x00")...),
		"mz":         append(program(nil), fill("", "MZ")...),
		"zips":       append(program(nil), fill("", "PK\x03\x04")...),
	} {
		b := NewBudget(int64(size), 10_000, int64(need.Rounds(400<<20, 4<<20)), 250, time.Now().Add(10*time.Minute))
		b.steps = maxSteps
		if r := open(data, b); r.err != nil || slices.Contains(r.limits, verdict.LimitTime) {
			t.Errorf("%s: %v %v", name, r.err, r.limits)
		}
	}
}

// A quine: an archive that contains itself ends by depth and files, not by luck.
func TestSelfReference(t *testing.T) {
	// A tar whose one member begins at its own header cannot be; a cpio or ar
	// that points back can: the walk must still end.
	ar := []byte("!<arch>\n" + fmt.Sprintf("%-16s%-12d%-6d%-6d%-8o%-10d`\n", "x/", 0, 0, 0, 0o644, -60))
	if r := open(ar, budget(ar)); r.err != nil {
		t.Error(r.err)
	}
	// OLE2 with a chain of sectors that runs in a circle.
	ole := make([]byte, 512*4)
	copy(ole, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
	ole[30], ole[32] = 9, 6
	ole[48] = 1 // directory
	ole[76+0] = 0
	for i := 1; i < 109; i++ {
		copy(ole[76+4*i:], "\xff\xff\xff\xff")
	}
	ole[60], ole[61], ole[62], ole[63] = 0xfe, 0xff, 0xff, 0xff
	ole[68], ole[69], ole[70], ole[71] = 0xfe, 0xff, 0xff, 0xff
	ole[512+4*1] = 2
	ole[512+4*2] = 1
	if r := open(ole, budget(ole)); r.err != nil {
		t.Error(r.err)
	}
}

// Programs of any content end, and leave the budget balanced.
func FuzzEmulate(f *testing.F) {
	for _, code := range []string{"\xeb\xfe", "\x60\x61\xc3", "\xf3\xa4\xf3\xaa", "\xcc", "\x0f\x31\xe8\x00\x00\x00\x00\x58\xff\xe0", "\x64\xff\x35\x00\x00\x00\x00\xf7\xf1"} {
		f.Add([]byte(code))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		if len(code) > 4096 {
			return
		}
		data := program(code)
		b := NewBudget(int64(len(data)), 100, 4<<20, 250, time.Now().Add(2*time.Second))
		b.steps = maxSteps - 300_000
		if r := open(data, b); r.err != nil {
			t.Fatal(r.err)
		}
		if b.held != 0 || b.Bytes < 0 {
			t.Errorf("budget %+v", b)
		}
	})
}

// program is a PE file that runs code in its second, writable section.
func program(code []byte) []byte {
	b := make([]byte, 0x400+0x1000)
	put := func(at int, v uint32) {
		b[at], b[at+1], b[at+2], b[at+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
	}
	copy(b, "MZ")
	put(60, 64)
	copy(b[64:], "PE\x00\x00\x4c\x01\x02\x00")
	b[64+20] = 0xe0
	opt := 64 + 24
	b[opt], b[opt+1] = 0x0b, 0x01
	put(opt+16, 0x2000)
	put(opt+28, 0x400000)
	put(opt+32, 0x1000)
	put(opt+36, 0x200)
	put(opt+56, 0x3000)
	put(opt+60, 0x400)
	put(opt+92, 16)
	for i, s := range [][5]uint32{{0x1000, 0x1000, 0, 0, 0xe0000020}, {0x1000, 0x2000, 0x1000, 0x400, 0xe0000020}} {
		at := opt + 0xe0 + 40*i
		for k, v := range s[:4] {
			put(at+8+4*k, v)
		}
		put(at+36, s[4])
	}
	copy(b[0x400:], code)
	return b
}

// A program that unpacks itself: the loop xors 1000 bytes from its own section
// into the empty one, and jumps there.
func TestEmulatedProgram(t *testing.T) {
	code := []byte{
		0xbe, 0x00, 0x21, 0x40, 0x00, // mov esi, 0x402100
		0xbf, 0x00, 0x10, 0x40, 0x00, // mov edi, 0x401000
		0xb9, 0xe8, 0x03, 0x00, 0x00, // mov ecx, 1000
		0xac, 0x34, 0x5a, 0xaa, // lodsb; xor al, 0x5a; stosb
		0xe2, 0xfa, // loop
		0xe9, 0xe6, 0xef, 0xff, 0xff, // jmp 0x401000
	}
	full := make([]byte, 0x1000)
	copy(full, code)
	secret := "what the program hides"
	for i := range 1000 {
		full[0x100+i] = 0x5a ^ 0xc3 // ret
	}
	for i := range len(secret) {
		full[0x100+100+i] = secret[i] ^ 0x5a
	}
	data := program(full)
	got, limits, err := tree(data, budget(data))
	if err != nil || len(limits) > 0 || len(got) != 2 || !strings.Contains(got[1], secret) {
		t.Errorf("%d objects, %v, %v", len(got), limits, err)
	}
}
