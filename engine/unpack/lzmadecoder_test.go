package unpack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// compressible is data with matches of all distances and lengths, literals after
// matches, and runs.
func compressible(n int) []byte {
	rnd := rand.New(rand.NewSource(7))
	b := make([]byte, 0, n)
	for len(b) < n {
		switch k := rnd.Intn(40); {
		case k < 20 && len(b) > 0:
			from := len(b) - 1 - rnd.Intn(min(len(b), 1<<rnd.Intn(18)))
			for range 2 + rnd.Intn(1<<rnd.Intn(10)) {
				b = append(b, b[from])
				from++
			}
		case k == 20:
			b = append(b, make([]byte, rnd.Intn(2000))...)
		default:
			for range 1 + rnd.Intn(20) {
				b = append(b, byte(rnd.Intn(1<<(1+rnd.Intn(8)))))
			}
		}
	}
	return b[:n]
}

// packedLZMA is data as five bytes of properties and a stream with a mark at its end.
func packedLZMA(t testing.TB, dict int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := lzma.WriterConfig{DictCap: dict, EOSMarker: true}.NewWriter(&b)
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return append(b.Bytes()[:5:5], b.Bytes()[13:]...)
}

// packedLZMA2 is data as chunks and the byte that ends them.
func packedLZMA2(t testing.TB, dict int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := lzma.Writer2Config{DictCap: dict}.NewWriter2(&b)
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// Rings that grow before they wrap, and dictionaries that begin anew within one.
func TestLZMARing(t *testing.T) {
	data := compressible(200_000)
	again := append(bytes.Clone(data[100_000:]), data[:100_000]...)
	lz, chunks := packedLZMA(t, 150_000, data), packedLZMA2(t, 150_000, data)
	first, second := packedLZMA2(t, 1<<14, data), packedLZMA2(t, 1<<14, again)
	first = first[:len(first)-1]
	tiny := packedLZMA(t, 4096, []byte("abc"))
	one, err := lzmaReader(bytes.NewReader(lz[5:]), lz[:5], -1)
	must(t, err)
	small, err := lzmaReader(bytes.NewReader(tiny[5:]), tiny[:5], -1)
	must(t, err)
	for name, c := range map[string]struct {
		z    *lzmaDecoder
		want []byte
	}{
		"LZMA":         {one, data},
		"LZMA tiny":    {small, []byte("abc")},
		"LZMA2":        {newLZMA2(bytes.NewReader(chunks), 150_000), data},
		"new within":   {newLZMA2(bytes.NewReader(append(bytes.Clone(first), second...)), 1<<14), append(bytes.Clone(data), again...)},
		"new at first": {newLZMA2(bytes.NewReader(append(bytes.Clone(first), second...)), 1<<20), append(bytes.Clone(data), again...)},
	} {
		if got, err := io.ReadAll(c.z); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %v, %d bytes of %d", name, err, len(got), len(c.want))
		}
	}
	// One byte that repeats the one before: when there is none it is damage.
	repeat := "\x00\x00\x00\x04\x5d\x00\xc0\x00\x00\x00\x00"
	got, err := io.ReadAll(newLZMA2(bytes.NewReader(append(bytes.Clone(first), "\xc0"+repeat...)), 1<<14))
	if err != nil || !bytes.Equal(got, append(bytes.Clone(data), data[len(data)-1])) {
		t.Errorf("within a dictionary: %v, %d bytes", err, len(got))
	}
	got, err = io.ReadAll(newLZMA2(bytes.NewReader(append(bytes.Clone(first), "\xe0"+repeat...)), 1<<14))
	if !errors.Is(err, errDamaged) || !bytes.Equal(got, data) {
		t.Errorf("before a dictionary: %v, %d bytes", err, len(got))
	}
	// Behind 4 GiB all is as before.
	lz = packedLZMA(t, 4096, data)
	z, err := lzmaReader(bytes.NewReader(lz[5:]), lz[:5], -1)
	must(t, err)
	got = make([]byte, 50_000)
	_, err = io.ReadFull(z, got)
	must(t, err)
	z.pos += 1<<32 - 1<<16
	rest, err := io.ReadAll(z)
	if got = slices.Concat(got, rest); err != nil || z.pos < 1<<32 || !bytes.Equal(got, data) {
		t.Errorf("across 4 GiB: %v, %d bytes, at %d", err, len(got), z.pos)
	}
}

// Streams that were changed somewhere end, and what is wrong with them is damage.
func TestLZMAChanged(t *testing.T) {
	data := compressible(20_000)
	rnd := rand.New(rand.NewSource(5))
	for name, packed := range map[string][]byte{"lzma": packedLZMA(t, 4096, data), "lzma2": packedLZMA2(t, 4096, data)} {
		for range need.Rounds(1000, 50) {
			changed := bytes.Clone(packed)
			for range 1 + rnd.Intn(4) {
				changed[rnd.Intn(len(changed))] = byte(rnd.Intn(256))
			}
			var z *lzmaDecoder
			var err error
			if name == "lzma" {
				z, err = lzmaReader(bytes.NewReader(changed[5:]), changed[:5], -1)
			} else {
				z = newLZMA2(bytes.NewReader(changed), 4096)
			}
			if err == nil {
				_, err = io.Copy(io.Discard, io.LimitReader(z, 1<<20))
			}
			if err != nil && !errors.Is(err, errDamaged) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Dictionaries larger than what may be allocated are cut: what does not refer
// beyond that is decoded. The coders of one 7z folder share an allowance.
func TestLargeDictionaries(t *testing.T) {
	const size96 = 29 // 96 MiB as property of LZMA2
	data := compressible(10_000)
	var b bytes.Buffer
	x, err := xz.WriterConfig{DictCap: 1 << 16}.NewWriter(&b)
	must(t, err)
	_, err = x.Write(data)
	must(t, err)
	must(t, x.Close())
	filter := bytes.Index(b.Bytes(), []byte{xzLZMA2, 1, 8})
	if filter < 0 {
		t.Fatal("no filter in the header")
	}
	b.Bytes()[filter+2] = size96
	got, limits, err := tree(b.Bytes(), budget(b.Bytes()))
	if err != nil || len(limits) > 0 || !slices.Contains(got, string(data)) {
		t.Errorf("xz: %d objects, %v, %v", len(got), limits, err)
	}
	packed := packedLZMA2(t, 1<<16, data)
	memory := int64(max7zMemory)
	for i, want := range []int{maxDictionary, maxDictionary, 4096} {
		r, err := decoder7z(coder7z{id: []byte{0x21}, props: []byte{size96}, size: 1 << 30}, []io.Reader{bytes.NewReader(packed)}, &memory)
		must(t, err)
		if got := r.(*lzmaDecoder).dict; got != want {
			t.Errorf("coder %d has a dictionary of %d bytes, want %d", i, got, want)
		}
		if i > 1 {
			break
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("7z: %v, %d bytes", err, len(got))
		}
	}
	if _, err := decoder7z(coder7z{id: []byte("\x03\x04\x01"), props: []byte{6, 0, 0, 1, 0}, size: 1}, []io.Reader{bytes.NewReader(packed)}, &memory); !errors.Is(err, errDamaged) {
		t.Errorf("PPMd beyond the allowance: %v", err)
	}
	one := packedLZMA(t, 1<<16, data)
	binary.LittleEndian.PutUint32(one[1:], 96<<20)
	r, err := decoder7z(coder7z{id: []byte("\x03\x01\x01"), props: one[:5], size: 1 << 30}, []io.Reader{bytes.NewReader(one[5:])}, &memory)
	must(t, err)
	if got := r.(*lzmaDecoder).dict; got != 4096 {
		t.Errorf("LZMA beyond the allowance has a dictionary of %d bytes", got)
	}
}

// A stream that ends early is damage wherever it ends, also before the first
// byte of a chunk; what the source says of it is kept.
func TestLZMAEndsEarly(t *testing.T) {
	damaged := func(what string, r io.Reader) {
		w, noted := testWalker(NewBudget(100, 10, 1<<20, 250, time.Time{})), []verdict.Limit(nil)
		w.note = func(l verdict.Limit) { noted = append(noted, l) }
		_, release, err := w.decode(func(out *sink) error { return out.readAll(r) })
		release()
		if err != nil || !slices.Equal(noted, []verdict.Limit{verdict.Damaged}) {
			t.Errorf("%s: %v, %v", what, noted, err)
		}
	}
	for _, stream := range []string{"\x01\x00\xff", "\x01\x00\xffabc", "\x01\x00", ""} {
		damaged(fmt.Sprintf("%q", stream), newLZMA2(bytes.NewReader([]byte(stream)), 4096))
		if _, err := io.ReadAll(newLZMA2(bytes.NewReader([]byte(stream)), 4096)); !errors.Is(err, errLZMAShort) || errors.Is(err, io.EOF) {
			t.Errorf("%q: %v", stream, err)
		}
	}
	damaged("an error that wraps the end", iotest.ErrReader(fmt.Errorf("%w: %w", errDamaged, io.EOF)))
	bad := errors.New("bad sector")
	data := compressible(10_000)
	lz, chunks := packedLZMA(t, 4096, data), packedLZMA2(t, 4096, data)
	cut := func(b []byte, n int) io.Reader { return io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(bad)) }
	for n := 5; n < len(lz)-5; n += 1 + n/3 {
		z, err := lzmaReader(cut(lz[5:], n-5), lz[:5], -1)
		if err == nil {
			_, err = io.ReadAll(z)
		}
		if !errors.Is(err, bad) || !errors.Is(err, errDamaged) {
			t.Errorf("LZMA after %d bytes: %v", n, err)
		}
	}
	for n := 0; n < len(chunks)-1; n += 1 + n/3 {
		if _, err := io.ReadAll(newLZMA2(cut(chunks, n), 4096)); !errors.Is(err, bad) || !errors.Is(err, errDamaged) {
			t.Errorf("LZMA2 after %d bytes: %v", n, err)
		}
	}
}

// Streams of another program's encoder, with all kinds of properties and with
// dictionaries that are far smaller than the data, come back as they were, and
// the input is left exactly behind them.
func TestLZMADecoder(t *testing.T) {
	data := compressible(60_000)
	for _, c := range []struct{ lc, lp, pb, dict int }{{3, 0, 2, 1 << 16}, {0, 4, 0, 4096}, {8, 0, 4, 1 << 20}, {0, 2, 1, 5000}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			for _, size := range []int64{int64(len(data)), -1} {
				var b bytes.Buffer
				w, err := lzma.WriterConfig{
					Properties: &lzma.Properties{LC: c.lc, LP: c.lp, PB: c.pb}, DictCap: c.dict,
					SizeInHeader: size >= 0, Size: max(size, 0), EOSMarker: size < 0,
				}.NewWriter(&b)
				must(t, err)
				_, err = w.Write(data)
				must(t, err)
				must(t, w.Close())
				props, stream := b.Bytes()[:5], b.Bytes()[13:]
				src := bufio.NewReaderSize(bytes.NewReader(append(bytes.Clone(stream), "what follows"...)), 4096)
				z, err := lzmaReader(src, props, size)
				must(t, err)
				got, err := io.ReadAll(z)
				rest, _ := io.ReadAll(src)
				if err != nil || !bytes.Equal(got, data) || z.taken != int64(len(stream)) || string(rest) != "what follows" {
					t.Errorf("size %d: %v, %d bytes of %d, %d taken of %d, left %q", size, err, len(got), len(data), z.taken, len(stream), rest)
				}
				cutShort(t, stream, data, func(r io.Reader) (io.Reader, error) { return lzmaReader(r, props, size) })
			}
		})
	}
	t.Run("LZMA2", func(t *testing.T) {
		data := append(compressible(100_000), make([]byte, 30_000)...)
		rand.New(rand.NewSource(1)).Read(data[100_000:]) // chunks that are not compressed
		var b bytes.Buffer
		w, err := lzma.Writer2Config{DictCap: 1 << 14}.NewWriter2(&b)
		must(t, err)
		_, err = w.Write(data)
		must(t, err)
		must(t, w.Close())
		stream := bytes.Clone(b.Bytes())
		src := bufio.NewReader(io.MultiReader(&b, bytes.NewReader([]byte("what follows"))))
		z := newLZMA2(src, 1<<14)
		got, err := io.ReadAll(z)
		rest, _ := io.ReadAll(src)
		if err != nil || !bytes.Equal(got, data) || z.taken != int64(len(stream)) || string(rest) != "what follows" {
			t.Errorf("%v, %d bytes of %d, %d taken of %d, left %q", err, len(got), len(data), z.taken, len(stream), rest)
		}
		cutShort(t, stream, data, func(r io.Reader) (io.Reader, error) { return newLZMA2(r, 1<<14), nil })
	})
}

// cutShort reads beginnings of a stream: what can be decoded comes, then an error.
func cutShort(t *testing.T, stream, data []byte, open func(io.Reader) (io.Reader, error)) {
	t.Helper()
	for n := 0; n < len(stream); n += 1 + n/2 {
		var got []byte
		r, err := open(bytes.NewReader(stream[:n]))
		if err == nil {
			got, err = io.ReadAll(r)
		}
		if !errors.Is(err, errDamaged) || !bytes.HasPrefix(data, got[:max(0, len(got)-300)]) || n > len(stream)/2 && len(got) < len(data)/8 {
			t.Errorf("%d bytes of %d: %v after %d bytes", n, len(stream), err, len(got))
		}
	}
}

// Chunks that break a rule are refused for breaking it: all streams are complete,
// so that without the check for it each would be decoded to its end, or be refused
// for something else.
func TestLZMA2Refused(t *testing.T) {
	const coded = "\x00\x00\x00\x00\x00\x00" // range coder: one byte, zero
	good := "\xe0\x00\x00\x00\x05\x5d" + coded + "\x00"
	if got, err := io.ReadAll(newLZMA2(strings.NewReader(good), 1<<16)); err != nil || string(got) != "\x00" {
		t.Fatalf("what all are made from: %q, %v", got, err)
	}
	for name, c := range map[string]struct{ stream, says string }{
		"no dictionary":       {"\x02\x00\x00a\x00", "LZMA2 without a dictionary"},
		"no properties":       {"\x01\x00\x00a\x80\x00\x00\x00\x05" + coded + "\x00", "LZMA2 without properties"},
		"bad properties":      {"\xe0\x00\x00\x00\x05\xff" + coded + "\x00", "LZMA properties 255"},
		"lc and lp too large": {"\xe0\x00\x00\x00\x05\x11" + coded + "\x00", "LZMA2 properties 17"},
		"bad kind":            {"\x01\x00\x00a\x03\x00\x00a\x00", "LZMA2 chunk of kind 0x3"},
		"bad beginning":       {"\xe0\x00\x00\x00\x05\x5d\x01" + coded[1:] + "\x00", "LZMA stream begins with 0x1"},
		"before the start":    {"\xe0\x00\x00\x00\x04\x5d\x00\xff\xff\xff\xf0\x00", "LZMA distance of 0"},
	} {
		got, err := io.ReadAll(newLZMA2(strings.NewReader(c.stream), 1<<16))
		if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v after %q", name, err, got)
		}
	}
	for name, c := range map[string]struct {
		props string
		says  string
	}{"255": {"\xff\x00\x00\x01\x00", "LZMA properties 255"}, "short": {"\x5d\x00\x00\x01", "LZMA properties of 4 bytes"}} {
		if _, err := lzmaReader(bytes.NewReader(make([]byte, 100)), []byte(c.props), -1); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("properties %s: %v", name, err)
		}
	}
}

// Files of xz, of several blocks and with presets that refer far back.
func TestXZProgram(t *testing.T) {
	need.Command(t, "xz")
	data := compressible(200_000)
	for _, args := range []string{"-6", "-9e", "-0 --block-size=30000", "--lzma2=lc=0,lp=3,pb=0,dict=8KiB", "--x86 --lzma2=preset=1"} {
		cmd := exec.Command("sh", "-c", "xz -T1 -c "+args)
		cmd.Stdin = bytes.NewReader(data)
		packed, err := cmd.Output()
		must(t, err)
		m, release, err := testWalker(NewBudget(int64(len(packed)), 10, 1<<20, 250, time.Now().Add(time.Minute))).decode(func(out *sink) error {
			return decodeXZ(bufio.NewReader(bytes.NewReader(packed)), out)
		})
		got := make([]byte, m.size)
		_, _ = m.ReadAt(got, 0)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("xz %s: %v, %d bytes of %d", args, err, len(got), len(data))
		}
		release()
	}
}

// A member of several parts (blocks of an .xz file) that end where a chunk of its
// memory does is read to its end; such a file once made ReadAt loop for ever.
func TestMemoryAtChunkEnds(t *testing.T) {
	m, release, err := testWalker(NewBudget(1, 10, 4<<20, 250, time.Now().Add(time.Minute))).decode(func(out *sink) error {
		for _, c := range "ab" {
			if err := out.readAll(bytes.NewReader(bytes.Repeat([]byte{byte(c)}, memoryChunk))); err != nil {
				return err
			}
		}
		return out.WriteByte('c')
	})
	defer release()
	must(t, err)
	if len(m.chunks) != 3 || m.at(memoryChunk) != 'b' || m.at(2*memoryChunk) != 'c' {
		t.Fatalf("%d bytes in %d chunks", m.size, len(m.chunks))
	}
	got := make([]byte, m.size)
	if n, err := m.ReadAt(got, 0); err != nil || n != len(got) || got[memoryChunk-1] != 'a' || got[memoryChunk] != 'b' || got[2*memoryChunk] != 'c' {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// What another decoder accepts as LZMA, ours decodes to the same bytes; anything
// ends. LZMA2 is not compared: that decoder does not keep to the sizes of chunks.
func FuzzLZMA(f *testing.F) {
	var one, two bytes.Buffer
	w, err := lzma.WriterConfig{Properties: &lzma.Properties{LC: 1, LP: 1, PB: 1}, DictCap: 4096}.NewWriter(&one)
	w2, err2 := lzma.Writer2Config{Properties: &lzma.Properties{LC: 1, LP: 1, PB: 1}, DictCap: 4096}.NewWriter2(&two)
	if err = errors.Join(err, err2); err == nil {
		for range 3 {
			_, err = w.Write([]byte(text))
			_, err2 = w2.Write([]byte(text))
			err = errors.Join(err, err2, w2.Flush())
		}
		err = errors.Join(err, w.Close(), w2.Close())
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, one.Bytes())
	f.Add(true, two.Bytes())
	f.Fuzz(func(t *testing.T, chunks bool, data []byte) {
		if chunks {
			if _, err := io.Copy(io.Discard, io.LimitReader(newLZMA2(bytes.NewReader(data), 4096), 1<<20)); err != nil && !errors.Is(err, errDamaged) {
				t.Errorf("%v", err)
			}
			return
		}
		if len(data) < 13 {
			return
		}
		clear(data[3:5]) // a dictionary of up to 64 KB
		for i := range 8 {
			data[5+i] = 0xff // a mark at the end
		}
		var want, got []byte
		theirs, err := lzma.NewReader(bytes.NewReader(data))
		if err == nil {
			want, err = io.ReadAll(io.LimitReader(theirs, 1<<20))
		}
		ours, err2 := lzmaReader(bytes.NewReader(data[13:]), data[:5], -1)
		if err2 == nil {
			got, err2 = io.ReadAll(io.LimitReader(ours, 1<<20))
		}
		if err == nil && (err2 != nil || !bytes.Equal(want, got)) {
			t.Errorf("%d bytes and %v instead of %d", len(got), err2, len(want))
		}
		if err2 != nil && !errors.Is(err2, errDamaged) {
			t.Errorf("%v", err2)
		}
	})
}

func BenchmarkXZ(b *testing.B) {
	data := compressible(4 << 20)
	var packed bytes.Buffer
	w, err := lzma.NewWriter2(&packed)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Run("own", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := io.Copy(io.Discard, newLZMA2(bytes.NewReader(packed.Bytes()), 8<<20)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ulikunitz", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			r, err := lzma.NewReader2(bytes.NewReader(packed.Bytes()))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
