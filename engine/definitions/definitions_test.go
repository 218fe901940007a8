package definitions

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func compileFiles(t testing.TB, files map[string]string) (string, Report) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, "src", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	rep, err := Compile(context.Background(), out, []Source{{filepath.Join(dir, "src")}}, CompileOptions{Created: time.Unix(1700000000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return out.Name(), rep
}

func small() map[string]string {
	return map[string]string{
		"a.hdb":     fmt.Sprintf("%x:7:One\n%x:*:Any:73\n", md5.Sum([]byte("content")), md5.Sum([]byte("other"))),
		"b.ndb":     "Body:0:*:6162636465*7071727374\n",
		"sub/c.yar": "include \"d.yar\"\nrule c { strings: $a = /ab+c/ condition: $a and d }",
		"sub/d.yar": "rule d { condition: filesize > 3 }",
		"x.ldb":     "L;Target:0;0&1;61626364;65666768::i\n",
	}
}

func TestCompileAndOpen(t *testing.T) {
	path, rep := compileFiles(t, small())
	if rep.Dropped != 0 {
		t.Fatalf("%v", rep.Problems)
	}
	if !strings.HasPrefix(rep.Version, "2023.1114.") {
		t.Errorf("version %s", rep.Version)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Meta.Version != rep.Version || s.Meta.Counts != rep.Counts {
		t.Errorf("%+v, report %+v", s.Meta, rep)
	}
	sum := md5.Sum([]byte("content"))
	if m := s.Lookup(Detect, MD5, sum[:], 7); len(m) != 1 || m[0].Name != "One" || m[0].Source != "a.hdb" {
		t.Errorf("%+v", m)
	}
	if m := s.Lookup(Detect, MD5, sum[:], 8); len(m) != 0 {
		t.Errorf("%+v", m)
	}
	if !s.Needs(Detect, MD5, 12345) || s.Needs(Detect, SHA1, 7) || s.Needs(Allow, MD5, 7) {
		t.Error("Needs")
	}
	// The same sources give the same version.
	if _, again := compileFiles(t, small()); again.Version != rep.Version {
		t.Errorf("version %s, then %s", rep.Version, again.Version)
	}
}

func TestUnreadableSource(t *testing.T) {
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	_, err = Compile(context.Background(), out, []Source{{"/nonexistent/source.hdb"}}, CompileOptions{})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent/source.hdb") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Compile(ctx, out, []Source{{t.TempDir()}}, CompileOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Many hashes: every one is found, others are not.
func TestManyHashes(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "%x:%d:Sig.%d\n", md5.Sum([]byte{byte(i), byte(i >> 8)}), i%100, i)
	}
	path, _ := compileFiles(t, map[string]string{"a.hdb": b.String()})
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 5000 {
		sum := md5.Sum([]byte{byte(i), byte(i >> 8)})
		if m := s.Lookup(Detect, MD5, sum[:], int64(i%100)); len(m) != 1 || m[0].Name != fmt.Sprintf("Sig.%d", i) {
			t.Fatalf("%d: %+v", i, m)
		}
		sum[15] ^= 1
		if m := s.Lookup(Detect, MD5, sum[:], int64(i%100)); len(m) != 0 {
			t.Fatalf("%d: %+v", i, m)
		}
	}
}

// reseal makes the checksums of a changed file right again.
func reseal(data []byte) {
	n := int(binary.LittleEndian.Uint32(data[12:]))
	if n > maxSections || headerBytes+n*tableEntry > len(data) {
		return
	}
	table := data[headerBytes : headerBytes+n*tableEntry]
	for i := range n {
		e := table[i*tableEntry:]
		off, size := binary.LittleEndian.Uint64(e[8:]), binary.LittleEndian.Uint64(e[16:])
		if off <= uint64(len(data)) && size <= uint64(len(data))-off {
			binary.LittleEndian.PutUint32(e[4:], crc32.Checksum(data[off:off+size], castagnoli))
		}
	}
	sum := crc32.Update(crc32.Checksum(data[:24], castagnoli), castagnoli, table)
	binary.LittleEndian.PutUint32(data[24:], sum)
}

// FuzzParse changes bytes of a good file behind its checksums' back: parse may
// refuse it, but neither it nor a lookup may fail otherwise.
func FuzzParse(f *testing.F) {
	files := small()
	dir := f.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		_ = os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	out, err := os.CreateTemp(f.TempDir(), "")
	if err != nil {
		f.Fatal(err)
	}
	defer out.Close()
	if _, err := Compile(context.Background(), out, []Source{{dir}}, CompileOptions{}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(out.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(100), byte(1), uint32(700), byte(0xff))
	f.Fuzz(func(t *testing.T, at uint32, v byte, at2 uint32, v2 byte) {
		words := make([]uint64, len(good)/8+1)
		data := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)[:len(good)]
		copy(data, good)
		data[int(at)%len(data)] ^= v
		data[int(at2)%len(data)] ^= v2
		reseal(data)
		s, err := parse(data)
		if err != nil {
			return
		}
		sum := md5.Sum([]byte("content"))
		s.Lookup(Detect, MD5, sum[:], 7)
		for i := range s.Rules {
			s.Name(s.Rules[i].ID)
			s.Code(&s.Rules[i])
		}
	})
}
